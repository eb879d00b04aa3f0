/* SPDX-License-Identifier: Apache-2.0
 *
 * dynamic.c - see dynamic.h. Patterns are compiled once; text/regex bounds their steps and memory. */
#include "checkpoint/dynamic.h"

#include <string.h>

#include "base/mem.h"
#include "text/regex.h"

enum { MAX_RULES = 65536 };

struct rule {
    struct nb_regex *regex;
    const json_t *override; /* NULL: negative */
};

struct nb_dynamic {
    struct rule *rules; /* negative ones first, else as in the file */
    size_t n;
};

static const char what[] = "quantization config: dynamic";

static bool is_negative(const char *key)
{
    return !strncmp(key, "-:", 2);
}

static int add_rule(struct nb_dynamic *d, const char *key, const json_t *value, struct nb_err *err)
{
    bool negative = is_negative(key);
    if (!json_is_object(value) && !(negative && json_is_null(value))) {
        return nb_fail(err, NB_E_FORMAT, "%s: rule '%.120s' is %s, expected an object", what, key,
                       nb_json_type_name(value));
    }
    const char *pattern = negative || !strncmp(key, "+:", 2) ? key + 2 : key;
    struct rule *r = &d->rules[d->n++];
    *r = (struct rule){.override = negative ? NULL : value};
    return nb_regex_new(&r->regex, pattern, strlen(pattern), false, what, err);
}

int nb_dynamic_new(struct nb_dynamic **out, const json_t *dynamic, struct nb_err *err)
{
    *out = NULL;
    if (!dynamic || json_is_null(dynamic)) return 0;
    if (!json_is_object(dynamic)) {
        return nb_fail(err, NB_E_FORMAT, "%s is %s, expected an object", what,
                       nb_json_type_name(dynamic));
    }
    size_t n = json_object_size(dynamic);
    if (n > MAX_RULES)
        return nb_fail(err, NB_E_FORMAT, "%s has %zu rules, at most %d are allowed", what, n,
                       MAX_RULES);
    struct nb_dynamic *d = nb_xalloc(sizeof *d);
    d->rules = nb_calloc(n + 1, sizeof *d->rules);
    int rc = d->rules ? 0 : nb_fail(err, NB_E_NOMEM, "%s: no memory for %zu rules", what, n);
    for (int negatives = 1; negatives >= 0; negatives--) {
        const char *key;
        json_t *value;
        json_object_foreach((json_t *)(uintptr_t)dynamic, key, value)
        {
            if (!rc && is_negative(key) == (negatives == 1)) rc = add_rule(d, key, value, err);
        }
    }
    if (rc) {
        nb_dynamic_free(d);
        return rc;
    }
    *out = d;
    return 0;
}

void nb_dynamic_free(struct nb_dynamic *d)
{
    if (!d) return;
    for (size_t i = 0; d->rules && i < d->n; i++) nb_regex_free(d->rules[i].regex);
    nb_free(d->rules);
    nb_free(d);
}

int nb_dynamic_find(const struct nb_dynamic *d, const char *path, bool *hit,
                    const json_t **override, struct nb_err *err)
{
    *hit = false;
    *override = NULL;
    if (!d || !d->n) return 0;
    struct nb_matcher *matcher = nb_matcher_new();
    if (!matcher) return nb_fail(err, NB_E_NOMEM, "%s: no memory to match", what);
    int rc = 0;
    for (size_t i = 0; i < d->n && !*hit && rc >= 0; i++) {
        struct nb_regex_iter it = {0};
        /* The leftmost match decides: if any begins at 0, that one does. */
        rc = nb_regex_next(d->rules[i].regex, matcher, path, strlen(path), &it, err);
        if (rc == 1 && it.start == 0) {
            *hit = true;
            *override = d->rules[i].override;
        }
    }
    nb_matcher_free(matcher);
    return rc < 0 ? rc : 0;
}

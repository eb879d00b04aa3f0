/* SPDX-License-Identifier: Apache-2.0
 *
 * ct_config.c - config_groups, targets and ignore, compiled once and asked per module. See ct_config.h.
 *
 * Unknown keys of the object itself are left alone, as the library does; what would change the model and is not
 * computed here (sparsity, transforms) is refused by name. Source: checkpoint formats, section 5.1. */
#include "checkpoint/ct_config.h"

#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "text/regex.h"

enum { MAX_NAMES = 1 << 17 };

static const char what[] = "quantization config";

struct name { /* of targets or ignore */
    const char *text;
    struct nb_regex *regex; /* NULL: exact, or a class */
    const struct nb_ct_scheme *scheme;
};

struct names {
    struct name *list; /* by text, exact ones first */
    size_t n;
};

struct nb_ct_config {
    struct nb_ct_scheme *schemes;
    size_t n_schemes;
    struct names targets, ignore;
    bool kv;
};

static bool is_class(const char *text)
{
    return !strcmp(text, "Linear") || !strcmp(text, "Module");
}

/* ---- names ---- */

static int add_names(struct names *names, const json_t *list, const struct nb_ct_scheme *scheme,
                     const char *key, struct nb_err *err)
{
    if (!json_is_array(list)) {
        return nb_fail(err, NB_E_FORMAT, "%s: %s of %s%s: expected a list of names, found %s", what,
                       key, scheme ? "group " : "", scheme ? scheme->name : "the config",
                       list ? nb_json_type_name(list) : "nothing");
    }
    size_t more = json_array_size(list), total;
    if (!nb_add(names->n, more, &total) || total > MAX_NAMES)
        return nb_fail(err, NB_E_FORMAT, "%s: %s has more than %d names", what, key, MAX_NAMES);
    struct name *grown =
        nb_realloc(names->list, names->n * sizeof *grown, (total + 1) * sizeof *grown);
    if (!grown) return nb_fail(err, NB_E_NOMEM, "%s: no memory for %zu names", what, total);
    names->list = grown;
    for (size_t i = 0; i < more; i++) {
        const char *text = json_string_value(json_array_get(list, i));
        if (!text) return nb_fail(err, NB_E_FORMAT, "%s: an entry of %s is no name", what, key);
        struct name *name = &names->list[names->n++];
        *name = (struct name){.text = text, .scheme = scheme};
        if (strncmp(text, "re:", 3)) continue;
        int rc = nb_regex_new(&name->regex, text + 3, strlen(text + 3), false, what, err);
        if (rc) return rc;
    }
    return 0;
}

static int by_text(const void *pa, const void *pb)
{
    const struct name *a = pa, *b = pb;
    if (!a->regex != !b->regex) return a->regex ? 1 : -1;
    return strcmp(a->text, b->text);
}

static void sort_names(struct names *names)
{
    if (names->n) qsort(names->list, names->n, sizeof *names->list, by_text);
}

static void free_names(struct names *names)
{
    for (size_t i = 0; i < names->n; i++) nb_regex_free(names->list[i].regex);
    nb_free(names->list);
}

/* 1: a pattern of names matches the start of path, *hit is it; 0: none; < 0: error. */
static int match_regex(const struct names *names, const char *path, const struct name **hit,
                       struct nb_err *err)
{
    if (!names->n || !names->list[names->n - 1].regex) return 0;
    struct nb_matcher *matcher = nb_matcher_new();
    if (!matcher) return nb_fail(err, NB_E_NOMEM, "%s: no memory to match", what);
    int rc = 0;
    for (size_t i = 0; i < names->n && rc <= 0; i++) {
        struct nb_regex_iter it = {0};
        if (!names->list[i].regex) continue;
        /* The leftmost match decides: if any begins at 0, that one does. */
        rc = nb_regex_next(names->list[i].regex, matcher, path, strlen(path), &it, err);
        if (rc < 0) break;
        if (rc == 1 && it.start != 0) rc = 0;
        if (rc == 1) *hit = &names->list[i];
    }
    nb_matcher_free(matcher);
    return rc;
}

static const struct name *match_exact(const struct names *names, const char *path)
{
    const struct name key = {.text = path};
    return names->n ? bsearch(&key, names->list, names->n, sizeof key, by_text) : NULL;
}

static const struct name *match_class(const struct names *names)
{
    for (size_t i = 0; i < names->n && !names->list[i].regex; i++) {
        if (is_class(names->list[i].text)) return &names->list[i];
    }
    return NULL;
}

static int match(const struct names *names, const char *path, const struct name **hit,
                 struct nb_err *err)
{
    *hit = match_exact(names, path);
    if (*hit) return 0;
    int rc = match_regex(names, path, hit, err);
    if (rc < 0) return rc;
    if (!*hit) *hit = match_class(names);
    return 0;
}

int nb_ct_config_find(const struct nb_ct_config *c, const char *path,
                      const struct nb_ct_scheme **out, struct nb_err *err)
{
    const struct name *hit;
    *out = NULL;
    int rc = match(&c->ignore, path, &hit, err);
    if (rc || hit) return rc;
    rc = match(&c->targets, path, &hit, err);
    if (!rc && hit && hit->scheme->quantized) *out = hit->scheme;
    return rc;
}

bool nb_ct_config_has_kv(const struct nb_ct_config *c)
{
    return c->kv;
}

/* ---- the object ---- */

static int check_target(const struct name *a, const struct name *b, struct nb_err *err)
{
    if (!strcmp(a->text, "Embedding"))
        return nb_fail(err, NB_E_SPEC,
                       "%s: group '%.80s' quantizes embeddings, which cannot be read", what,
                       a->scheme->name);
    if (!b || strcmp(a->text, b->text) || a->scheme == b->scheme) return 0;
    return nb_fail(err, NB_E_FORMAT,
                   "%s: target '%.120s' stands in group '%.60s' and in group '%.60s'", what,
                   a->text, a->scheme->name, b->scheme->name);
}

static int parse_groups(struct nb_ct_config *c, const json_t *groups, const char *format,
                        struct nb_err *err)
{
    if (!json_is_object(groups)) {
        return nb_fail(err, NB_E_FORMAT, "%s: config_groups: expected an object, found %s", what,
                       groups ? nb_json_type_name(groups) : "nothing");
    }
    size_t n = json_object_size(groups);
    c->schemes = n > MAX_NAMES ? NULL : nb_calloc(n + 1, sizeof *c->schemes);
    if (!c->schemes) return nb_fail(err, NB_E_NOMEM, "%s: no memory for %zu groups", what, n);
    const char *name;
    json_t *group;
    int rc = 0;
    json_object_foreach((json_t *)(uintptr_t)groups, name, group)
    {
        const json_t *targets;
        struct nb_ct_scheme *scheme = &c->schemes[c->n_schemes++];
        if (!rc) rc = nb_ct_scheme_parse(scheme, name, group, format, &targets, err);
        if (!rc) rc = add_names(&c->targets, targets, scheme, "targets", err);
    }
    if (rc) return rc;
    sort_names(&c->targets);
    for (size_t i = 0; i < c->targets.n && !rc; i++)
        rc = check_target(&c->targets.list[i],
                          i + 1 < c->targets.n ? &c->targets.list[i + 1] : NULL, err);
    return rc;
}

static bool says_nothing(const json_t *v)
{
    return !v || json_is_null(v) || (json_is_object(v) && !json_object_size(v));
}

/* What would change the model beyond its linears' numbers. */
static int check_rest(const json_t *q, struct nb_err *err)
{
    const json_t *sparse = json_object_get(q, "sparsity_config");
    const char *format = json_string_value(json_object_get(sparse, "format"));
    if (!says_nothing(sparse) && (!format || strcmp(format, "dense"))) {
        return nb_fail(
            err, NB_E_SPEC,
            "%s: sparse format '%.60s' cannot be read (compressed-tensors has removed it too)",
            what, format ? format : "without a name");
    }
    if (!says_nothing(json_object_get(q, "transform_config")))
        return nb_fail(err, NB_E_SPEC,
                       "%s: transforms at run time (transform_config) cannot be computed", what);
    if (!says_nothing(json_object_get(q, "moe_sparsity_config")))
        return nb_fail(err, NB_E_SPEC, "%s: pruned experts (moe_sparsity_config) cannot be read",
                       what);
    return 0;
}

static int parse_kv(struct nb_ct_config *c, const json_t *q, struct nb_err *err)
{
    const json_t *kv = json_object_get(q, "kv_cache_scheme");
    struct nb_ct_args args;
    if (!kv || json_is_null(kv)) return 0;
    c->kv = true;
    return nb_ct_args_parse(&args, kv, "quantization config: kv_cache_scheme", err);
}

static int parse(struct nb_ct_config *c, const json_t *q, struct nb_err *err)
{
    static const char *const sparse[] = {"marlin-24", "sparse-24-bitmask", "sparse-bitmask"};
    const char *format = NULL;
    int rc = nb_json_get_string(q, "format", false, &format, what, err);
    for (size_t i = 0; format && i < sizeof sparse / sizeof *sparse; i++) {
        if (!strcmp(format, sparse[i]))
            rc = nb_fail(
                err, NB_E_SPEC,
                "%s: sparse format '%s' cannot be read (compressed-tensors has removed it too)",
                what, format);
    }
    if (!rc) rc = check_rest(q, err);
    if (!rc) rc = parse_kv(c, q, err);
    const json_t *groups = json_object_get(q, "config_groups"),
                 *ignore = json_object_get(q, "ignore");
    const bool only_kv = c->kv && (says_nothing(groups));
    if (!rc && !only_kv) rc = parse_groups(c, groups, format, err);
    if (!rc && ignore && !json_is_null(ignore))
        rc = add_names(&c->ignore, ignore, NULL, "ignore", err);
    sort_names(&c->ignore);
    return rc;
}

int nb_ct_config_new(struct nb_ct_config **out, const json_t *quant_config, struct nb_err *err)
{
    struct nb_ct_config *c = nb_xalloc(sizeof *c);
    int rc = parse(c, quant_config, err);
    if (rc) {
        nb_ct_config_free(c);
        c = NULL;
    }
    *out = c;
    return rc;
}

void nb_ct_config_free(struct nb_ct_config *c)
{
    if (!c) return;
    free_names(&c->targets);
    free_names(&c->ignore);
    nb_free(c->schemes);
    nb_free(c);
}

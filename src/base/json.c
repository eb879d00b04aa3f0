/* SPDX-License-Identifier: Apache-2.0
 *
 * json.c - see json.h. */
#include "base/json.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/mem.h"

/* jansson recurses per level, so depth is bounded by a linear scan before it sees the text. */
static bool too_deep(const char *s, size_t len, int max_depth)
{
    int depth = 0;
    bool in_string = false;
    for (size_t i = 0; i < len; i++) {
        char c = s[i];
        if (in_string) {
            if (c == '\\') i++;
            else if (c == '"') in_string = false;
        } else if (c == '"') {
            in_string = true;
        } else if (c == '{' || c == '[') {
            if (++depth > max_depth) return true;
        } else if (c == '}' || c == ']') {
            depth--;
        }
    }
    return false;
}

json_t *nb_json_parse(const char *text, size_t len, int max_depth, const char *what,
                      struct nb_err *err)
{
    if (too_deep(text, len, max_depth)) {
        nb_fail(err, NB_E_FORMAT, "%s: JSON nested deeper than %d levels", what, max_depth);
        return NULL;
    }
    const size_t flags = JSON_REJECT_DUPLICATES | JSON_DECODE_ANY | JSON_ALLOW_NUL;
    json_error_t je;
    json_t *v = json_loadb(text, len, flags, &je);
    if (!v && json_error_code(&je) == json_error_numeric_overflow) {
        v = json_loadb(text, len, flags | JSON_DECODE_INT_AS_REAL, &je);
    }
    if (!v) {
        nb_fail(err, NB_E_FORMAT, "%s: not valid JSON at line %d, column %d: %s", what, je.line,
                je.column, je.text);
    }
    return v;
}

json_t *nb_json_load(const char *path, size_t max_bytes, struct nb_err *err)
{
    char *data;
    size_t bytes;
    if (nb_file_read(path, max_bytes, &data, &bytes, err)) return NULL;
    json_t *v = nb_json_parse(data, bytes, NB_JSON_MAX_DEPTH, path, err);
    nb_free(data);
    return v;
}

const char *nb_json_type_name(const json_t *v)
{
    if (!v) return "nothing";
    switch (json_typeof(v)) {
    case JSON_OBJECT: return "an object";
    case JSON_ARRAY: return "an array";
    case JSON_STRING: return "a string";
    case JSON_INTEGER: return "an integer";
    case JSON_REAL: return "a real number";
    case JSON_TRUE:
    case JSON_FALSE: return "a boolean";
    default: return "null";
    }
}

/* Finds key; *out NULL when absent or null and not required. */
static int lookup(const json_t *obj, const char *key, bool required, const json_t **out,
                  const char *what, struct nb_err *err)
{
    *out = json_object_get(obj, key);
    if (*out && json_is_null(*out)) *out = NULL;
    if (!*out && required) return nb_fail(err, NB_E_FORMAT, "%s: key '%s' is missing", what, key);
    return 0;
}

static int wrong_type(const json_t *v, const char *key, const char *expected, const char *what,
                      struct nb_err *err)
{
    return nb_fail(err, NB_E_FORMAT, "%s: key '%s': expected %s, found %s", what, key, expected,
                   nb_json_type_name(v));
}

int nb_json_get_int(const json_t *obj, const char *key, bool required, int64_t *out,
                    const char *what, struct nb_err *err)
{
    const json_t *v;
    int rc = lookup(obj, key, required, &v, what, err);
    if (rc || !v) return rc;
    if (!json_is_integer(v)) return wrong_type(v, key, "an integer", what, err);
    *out = json_integer_value(v);
    return 0;
}

int nb_json_get_real(const json_t *obj, const char *key, bool required, double *out,
                     const char *what, struct nb_err *err)
{
    const json_t *v;
    int rc = lookup(obj, key, required, &v, what, err);
    if (rc || !v) return rc;
    if (!json_is_number(v)) return wrong_type(v, key, "a number", what, err);
    *out = json_number_value(v);
    return 0;
}

int nb_json_get_bool(const json_t *obj, const char *key, bool required, bool *out, const char *what,
                     struct nb_err *err)
{
    const json_t *v;
    int rc = lookup(obj, key, required, &v, what, err);
    if (rc || !v) return rc;
    if (!json_is_boolean(v)) return wrong_type(v, key, "a boolean", what, err);
    *out = json_is_true(v);
    return 0;
}

int nb_json_get_string(const json_t *obj, const char *key, bool required, const char **out,
                       const char *what, struct nb_err *err)
{
    const json_t *v;
    int rc = lookup(obj, key, required, &v, what, err);
    if (rc || !v) return rc;
    if (!json_is_string(v)) return wrong_type(v, key, "a string", what, err);
    *out = json_string_value(v);
    return 0;
}

/* ---- writing: jansson's layout, but reals with as many digits as they need and no more ---- */

struct dump {
    struct nb_strbuf *out;
    bool pretty, too_deep;
};

static void dump_string(struct nb_strbuf *out, const char *s, size_t len)
{
    static const char plain[] = "\"\\bfnrt", special[] = "\"\\\b\f\n\r\t";
    nb_strbuf_putc(out, '"');
    for (size_t i = 0, from = 0; i <= len; i++) {
        const char *escape = i < len && s[i] ? strchr(special, s[i]) : NULL;
        if (i < len && !escape && (unsigned char)s[i] >= 0x20) continue;
        nb_strbuf_add(out, s + from, i - from);
        from = i + 1;
        if (escape) nb_strbuf_printf(out, "\\%c", plain[escape - special]);
        else if (i < len) nb_strbuf_printf(out, "\\u%04X", (unsigned)(unsigned char)s[i]);
    }
    nb_strbuf_putc(out, '"');
}

static void dump_real(struct nb_strbuf *out, double v)
{
    char text[32];
    for (int digits = 15; digits <= 17; digits++) {
        snprintf(text, sizeof text, "%.*g", digits, v);
        if (strtod(text, NULL) == v) break;
    }
    bool is_real = false;
    for (char *p = text; *p; p++) {
        if (!strchr("+-0123456789e", *p)) *p = '.'; /* whatever the locale writes */
        if (*p == '.' || *p == 'e') is_real = true;
    }
    nb_strbuf_puts(out, text);
    if (!is_real) nb_strbuf_puts(out, ".0");
}

static void dump_break(const struct dump *d, int depth)
{
    if (!d->pretty) return;
    nb_strbuf_putc(d->out, '\n');
    for (int i = 0; i < depth; i++) nb_strbuf_puts(d->out, "  ");
}

/* Recursion ends at NB_JSON_MAX_DEPTH. */
static void dump_value(struct dump *d, const json_t *v, int depth);

static void dump_object(struct dump *d, json_t *object, int depth)
{
    bool first = true;
    nb_strbuf_putc(d->out, '{');
    for (void *at = json_object_iter(object); at; at = json_object_iter_next(object, at)) {
        const char *key = json_object_iter_key(at);
        if (!first) nb_strbuf_putc(d->out, ',');
        first = false;
        dump_break(d, depth + 1);
        dump_string(d->out, key, strlen(key));
        nb_strbuf_puts(d->out, d->pretty ? ": " : ":");
        dump_value(d, json_object_iter_value(at), depth + 1);
    }
    if (!first) dump_break(d, depth);
    nb_strbuf_putc(d->out, '}');
}

static void dump_array(struct dump *d, const json_t *array, int depth)
{
    size_t n = json_array_size(array);
    nb_strbuf_putc(d->out, '[');
    for (size_t i = 0; i < n; i++) {
        if (i) nb_strbuf_putc(d->out, ',');
        dump_break(d, depth + 1);
        dump_value(d, json_array_get(array, i), depth + 1);
    }
    if (n) dump_break(d, depth);
    nb_strbuf_putc(d->out, ']');
}

static void dump_value(struct dump *d, const json_t *v, int depth)
{
    if (depth > NB_JSON_MAX_DEPTH) {
        d->too_deep = true;
        return;
    }
    switch (json_typeof(v)) {
    case JSON_OBJECT: dump_object(d, (json_t *)(uintptr_t)v, depth); break;
    case JSON_ARRAY: dump_array(d, v, depth); break;
    case JSON_STRING: dump_string(d->out, json_string_value(v), json_string_length(v)); break;
    case JSON_INTEGER:
        nb_strbuf_printf(d->out, "%" JSON_INTEGER_FORMAT, json_integer_value(v));
        break;
    case JSON_REAL: dump_real(d->out, json_real_value(v)); break;
    default: nb_strbuf_puts(d->out, json_is_true(v) ? "true" : json_is_false(v) ? "false" : "null");
    }
}

int nb_json_dump(const json_t *v, bool pretty, struct nb_strbuf *out, struct nb_err *err)
{
    struct dump d = {.out = out, .pretty = pretty};
    if (!v) return nb_fail(err, NB_E_NOMEM, "no memory for a JSON value");
    dump_value(&d, v, 0);
    if (d.too_deep) {
        return nb_fail(err, NB_E_FORMAT, "JSON nested deeper than %d levels cannot be written",
                       NB_JSON_MAX_DEPTH);
    }
    return out->failed ? nb_fail(err, NB_E_NOMEM, "no memory for %zu bytes of JSON", out->len) : 0;
}

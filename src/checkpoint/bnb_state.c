/* SPDX-License-Identifier: Apache-2.0
 *
 * bnb_state.c - the quant_state blob of a 4-bit linear: a JSON object as the bytes of a U8 tensor. See bnb.h.
 *
 * bitsandbytes asserts that it knows every key, so unknown ones are errors here too; of the keys it knows those
 * that are tensors beside the blob have no business inside it. Source: checkpoint formats, section 4.1. */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "checkpoint/bnb.h"
#include "checkpoint/internal.h"

enum { MAX_BLOB = 4096, MAX_DEPTH = 4, NESTED_BLOCK = 256, OFFSET_CHARS = 24 };

static const struct {
    const char *name;
    enum nb_dtype dtype;
} dtypes[] = {{"bfloat16", NB_BF16}, {"float16", NB_F16}, {"float32", NB_F32}};

enum { N_DTYPES = sizeof dtypes / sizeof *dtypes };

static int check_keys(const json_t *blob, bool *nested, const char *what, struct nb_err *err)
{
    static const char *const keys[] = {"quant_type",       "blocksize",    "dtype",        "shape",
                                       "nested_blocksize", "nested_dtype", "nested_offset"};
    enum { N_KEYS = sizeof keys / sizeof *keys, FIRST_NESTED = 4 };
    int found = 0;
    *nested = false;
    for (void *at = json_object_iter((json_t *)(uintptr_t)blob); at;
         at = json_object_iter_next((json_t *)(uintptr_t)blob, at)) {
        int k = 0;
        while (k < N_KEYS && strcmp(keys[k], json_object_iter_key(at))) k++;
        if (k == N_KEYS) {
            return nb_fail(err, NB_E_FORMAT,
                           "%s: key '%.40s' is none that a bitsandbytes quant_state has", what,
                           json_object_iter_key(at));
        }
        found++;
        *nested = *nested || k >= FIRST_NESTED;
    }
    if (*nested && found < N_KEYS) {
        return nb_fail(err, NB_E_FORMAT,
                       "%s: a nested quant_state has all of nested_blocksize, nested_dtype and "
                       "nested_offset beside the other four keys, this one has %d keys in all",
                       what, found);
    }
    return 0;
}

static int parse_type(struct nb_bnb_state *s, const json_t *blob, const char *what,
                      struct nb_err *err)
{
    const char *type, *dtype;
    int rc = nb_json_get_string(blob, "quant_type", true, &type, what, err);
    if (!rc) rc = nb_json_get_string(blob, "dtype", true, &dtype, what, err);
    if (rc) return rc;
    s->nf4 = !strcmp(type, "nf4");
    if (!s->nf4 && strcmp(type, "fp4")) {
        return nb_fail(err, NB_E_FORMAT, "%s: quant_type '%.40s' is neither nf4 nor fp4", what,
                       type);
    }
    for (int i = 0; i < N_DTYPES; i++) {
        if (strcmp(dtype, dtypes[i].name)) continue;
        s->dtype = dtypes[i].dtype;
        return 0;
    }
    return nb_fail(err, NB_E_FORMAT, "%s: dtype '%.40s' is none of bfloat16, float16, float32",
                   what, dtype);
}

static int parse_sizes(struct nb_bnb_state *s, const json_t *blob, const char *what,
                       struct nb_err *err)
{
    int rc = nb_json_get_int(blob, "blocksize", true, &s->block, what, err);
    if (rc) return rc;
    if (!nb_bnb_is_block_size(s->block)) {
        return nb_fail(err, NB_E_FORMAT,
                       "%s: blocksize %" PRId64 " is no power of two from 32 to 4096", what,
                       s->block);
    }
    const json_t *shape = json_object_get(blob, "shape");
    const json_t *rows = json_array_get(shape, 0), *cols = json_array_get(shape, 1);
    s->rows = json_integer_value(rows);
    s->cols = json_integer_value(cols);
    if (json_array_size(shape) != 2 || s->rows <= 0 || s->cols <= 0) {
        return nb_fail(err, NB_E_FORMAT, "%s: shape is no list of two sizes above 0", what);
    }
    return 0;
}

static int parse_nested(struct nb_bnb_state *s, const json_t *blob, const char *what,
                        struct nb_err *err)
{
    int64_t block;
    const char *dtype;
    double offset;
    int rc = nb_json_get_int(blob, "nested_blocksize", true, &block, what, err);
    if (!rc) rc = nb_json_get_string(blob, "nested_dtype", true, &dtype, what, err);
    if (!rc) rc = nb_json_get_real(blob, "nested_offset", true, &offset, what, err);
    if (rc) return rc;
    if (block != NESTED_BLOCK || strcmp(dtype, "float32")) {
        return nb_fail(err, NB_E_FORMAT,
                       "%s: nested blocks of %" PRId64
                       " in %.40s cannot be read, only of %d in float32",
                       what, block, dtype, NESTED_BLOCK);
    }
    s->offset = (float)offset;
    if (!isfinite(s->offset)) {
        return nb_fail(err, NB_E_FORMAT, "%s: nested_offset %g is no finite float32", what, offset);
    }
    return 0;
}

int nb_bnb_state_parse(struct nb_bnb_state *s, struct nb_span text, const char *what,
                       struct nb_err *err)
{
    memset(s, 0, sizeof *s);
    if (text.bytes > MAX_BLOB) {
        return nb_fail(err, NB_E_FORMAT, "%s: %zu bytes of quant_state, at most %d make sense",
                       what, text.bytes, MAX_BLOB);
    }
    json_t *blob = nb_json_parse((const char *)text.data, text.bytes, MAX_DEPTH, what, err);
    if (!blob) return NB_E_FORMAT;
    int rc = 0;
    if (!json_is_object(blob)) {
        rc = nb_fail(err, NB_E_FORMAT, "%s: holds %s, expected an object", what,
                     nb_json_type_name(blob));
    }
    if (!rc) rc = check_keys(blob, &s->nested, what, err);
    if (!rc) rc = parse_type(s, blob, what, err);
    if (!rc) rc = parse_sizes(s, blob, what, err);
    if (!rc && s->nested) rc = parse_nested(s, blob, what, err);
    json_decref(blob);
    return rc;
}

/* The fewest digits that read back as the same double, always with a point or an exponent. */
static void print_offset(char out[32], double v)
{
    bool is_real = false;
    for (int digits = 15; digits <= 17; digits++) {
        snprintf(out, 32, "%.*g", digits, v);
        if (strtod(out, NULL) == v) break;
    }
    for (char *p = out; *p; p++) {
        if (!strchr("+-0123456789e", *p)) *p = '.'; /* whatever the locale writes */
        is_real = is_real || *p == '.' || *p == 'e';
    }
    const size_t n = strlen(out);
    if (!is_real && n + 3 <= 32) memcpy(out + n, ".0", 3);
}

size_t nb_bnb_state_print(const struct nb_bnb_state *s, char out[NB_BNB_STATE_MAX])
{
    const char *dtype = dtypes[0].name;
    for (int i = 0; i < N_DTYPES; i++) {
        if (dtypes[i].dtype == s->dtype) dtype = dtypes[i].name;
    }
    int n = snprintf(out, NB_BNB_STATE_MAX,
                     "{\"quant_type\": \"%s\", \"blocksize\": %" PRId64
                     ", \"dtype\": \"%s\", \"shape\": [%" PRId64 ", %" PRId64 "]",
                     s->nf4 ? "nf4" : "fp4", s->block, dtype, s->rows, s->cols);
    if (!s->nested) return (size_t)n + (size_t)snprintf(out + n, NB_BNB_STATE_MAX - (size_t)n, "}");
    char offset[32];
    print_offset(offset, (double)s->offset);
    const int pad = OFFSET_CHARS - (int)strlen(offset);
    n += snprintf(out + n, NB_BNB_STATE_MAX - (size_t)n,
                  ", \"nested_blocksize\": %d, \"nested_dtype\": \"float32\", "
                  "\"nested_offset\": %s}%*s",
                  NESTED_BLOCK, offset, pad > 0 ? pad : 0, "");
    return (size_t)n;
}

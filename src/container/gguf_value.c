/* SPDX-License-Identifier: Apache-2.0
 *
 * gguf_value.c - metadata by key: exact types, views, JSON. */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "container/gguf.h"
#include "container/gguf_part.h"

const struct nb_gguf_kv *nb_gguf_part_find(const struct nb_gguf_part *p, const char *key)
{
    size_t lo = 0, hi = p->n_kvs;
    while (lo < hi) {
        size_t mid = lo + (hi - lo) / 2;
        const struct nb_gguf_kv *kv = &p->kvs[p->by_key[mid]];
        int c = strcmp(key, kv->key);
        if (!c) return kv;
        if (c < 0) hi = mid;
        else lo = mid + 1;
    }
    return NULL;
}

static int find_required(const struct nb_gguf_part *p, const char *key, bool required,
                         const struct nb_gguf_kv **out, struct nb_err *err)
{
    *out = nb_gguf_part_find(p, key);
    if (*out || !required) return 0;
    return nb_fail(err, NB_E_FORMAT, "%s: key '%.120s' is missing", p->path, key);
}

int nb_gguf_part_get(const struct nb_gguf_part *p, const char *key, bool required,
                     enum nb_gguf_value type, const struct nb_gguf_kv **out, struct nb_err *err)
{
    int rc = find_required(p, key, required, out, err);
    if (rc || !*out || (*out)->type == type) return rc;
    const char *found = nb_gguf_value_name((*out)->type);
    *out = NULL;
    return nb_fail(err, NB_E_FORMAT, "%s: key '%.120s' is %s, expected %s", p->path, key, found,
                   nb_gguf_value_name(type));
}

/* A scalar of `bytes` bytes to *out. */
static int get_scalar(const struct nb_gguf *g, const char *key, bool required,
                      enum nb_gguf_value type, void *out, struct nb_err *err)
{
    const struct nb_gguf_kv *kv;
    int rc = nb_gguf_part_get(&g->parts[0], key, required, type, &kv, err);
    if (kv) memcpy(out, kv->data.data, kv->data.bytes);
    return rc;
}

int nb_gguf_get_u16(const struct nb_gguf *g, const char *key, bool required, uint16_t *out,
                    struct nb_err *err)
{
    return get_scalar(g, key, required, NB_GGUF_U16, out, err);
}

int nb_gguf_get_u32(const struct nb_gguf *g, const char *key, bool required, uint32_t *out,
                    struct nb_err *err)
{
    return get_scalar(g, key, required, NB_GGUF_U32, out, err);
}

int nb_gguf_get_i32(const struct nb_gguf *g, const char *key, bool required, int32_t *out,
                    struct nb_err *err)
{
    return get_scalar(g, key, required, NB_GGUF_I32, out, err);
}

int nb_gguf_get_f32(const struct nb_gguf *g, const char *key, bool required, float *out,
                    struct nb_err *err)
{
    return get_scalar(g, key, required, NB_GGUF_F32, out, err);
}

int nb_gguf_get_bool(const struct nb_gguf *g, const char *key, bool required, bool *out,
                     struct nb_err *err)
{
    const struct nb_gguf_kv *kv;
    int rc = nb_gguf_part_get(&g->parts[0], key, required, NB_GGUF_BOOL, &kv, err);
    if (kv) *out = kv->data.data[0] != 0;
    return rc;
}

int nb_gguf_get_string(const struct nb_gguf *g, const char *key, bool required, struct nb_span *out,
                       struct nb_err *err)
{
    const struct nb_gguf_kv *kv;
    int rc = nb_gguf_part_get(&g->parts[0], key, required, NB_GGUF_STRING, &kv, err);
    if (kv) *out = kv->data;
    return rc;
}

int nb_gguf_get_array(const struct nb_gguf *g, const char *key, bool required,
                      enum nb_gguf_value elem, const struct nb_gguf_kv **out, struct nb_err *err)
{
    const struct nb_gguf_part *p = &g->parts[0];
    int rc = find_required(p, key, required, out, err);
    if (rc || !*out || ((*out)->type == NB_GGUF_ARRAY && (*out)->elem == elem)) return rc;
    const struct nb_gguf_kv *kv = *out;
    *out = NULL;
    return nb_fail(err, NB_E_FORMAT, "%s: key '%.120s' is %s%s, expected an array of %s", p->path,
                   key, kv->type == NB_GGUF_ARRAY ? "an array of " : "",
                   nb_gguf_value_name(kv->elem), nb_gguf_value_name(elem));
}

bool nb_gguf_string_next(const struct nb_gguf_kv *kv, size_t *at, struct nb_span *out)
{
    if (*at >= kv->data.bytes) return false;
    uint64_t n;
    memcpy(&n, kv->data.data + *at, sizeof n);
    *out = (struct nb_span){kv->data.data + *at + sizeof n, (size_t)n};
    *at += sizeof n + (size_t)n;
    return true;
}

int nb_gguf_get_strings(const struct nb_gguf *g, const char *key, bool required,
                        struct nb_span **out, size_t *n, struct nb_err *err)
{
    const struct nb_gguf_kv *kv;
    *out = NULL;
    *n = 0;
    int rc = nb_gguf_get_array(g, key, required, NB_GGUF_STRING, &kv, err);
    if (rc || !kv) return rc;
    *out = nb_alloc((size_t)kv->count, sizeof **out);
    if (!*out) {
        return nb_fail(err, NB_E_NOMEM, "%s: no memory for the %" PRIu64 " strings of key '%.120s'",
                       g->parts[0].path, kv->count, key);
    }
    size_t at = 0;
    while (nb_gguf_string_next(kv, &at, &(*out)[*n])) ++*n;
    return 0;
}

/* ---- JSON ---- */

/* Bytes of the UTF-8 sequence at p, at most n; 0: there is none (also overlong forms, surrogates). */
static size_t utf8_sequence(const unsigned char *p, size_t n)
{
    size_t len = p[0] < 0x80 ? 1 : p[0] < 0xc2 ? 0 : p[0] < 0xe0 ? 2 : p[0] < 0xf0 ? 3 : 4;
    if (p[0] > 0xf4 || len > n) return 0;
    for (size_t i = 1; i < len; i++) {
        if ((p[i] & 0xc0) != 0x80) return 0;
    }
    bool bad = len > 2 && ((p[0] == 0xe0 && p[1] < 0xa0) || (p[0] == 0xed && p[1] > 0x9f) ||
                           (p[0] == 0xf0 && p[1] < 0x90) || (p[0] == 0xf4 && p[1] > 0x8f));
    return bad ? 0 : len;
}

static json_t *json_text(struct nb_span text)
{
    json_t *v = json_stringn((const char *)text.data, text.bytes);
    if (v) return v;
    struct nb_strbuf clean;
    nb_strbuf_init(&clean);
    for (size_t i = 0; i < text.bytes;) {
        size_t n = utf8_sequence(text.data + i, text.bytes - i);
        if (n) nb_strbuf_add(&clean, text.data + i, n);
        else nb_strbuf_puts(&clean, "\xef\xbf\xbd");
        i += n ? n : 1;
    }
    if (!clean.failed) v = json_stringn(nb_strbuf_cstr(&clean), clean.len);
    nb_strbuf_release(&clean);
    return v;
}

/* A double that prints with as few digits as tell the float from its neighbours. */
static double shortest(float f)
{
    char text[32];
    for (int digits = 6; digits <= 9; digits++) {
        snprintf(text, sizeof text, "%.*g", digits, (double)f);
        if (strtof(text, NULL) == f) break;
    }
    return strtod(text, NULL);
}

static json_t *json_float(double d)
{
    return isfinite(d) ? json_real(d) : json_null();
}

static json_t *json_number(enum nb_gguf_value type, const unsigned char *p)
{
    union {
        uint8_t u8;
        int8_t i8;
        uint16_t u16;
        int16_t i16;
        uint32_t u32;
        int32_t i32;
        uint64_t u64;
        int64_t i64;
        float f32;
        double f64;
    } v;
    memcpy(&v, p, nb_gguf_value_bytes(type));
    switch (type) {
    case NB_GGUF_U8: return json_integer(v.u8);
    case NB_GGUF_I8: return json_integer(v.i8);
    case NB_GGUF_U16: return json_integer(v.u16);
    case NB_GGUF_I16: return json_integer(v.i16);
    case NB_GGUF_U32: return json_integer(v.u32);
    case NB_GGUF_I32: return json_integer(v.i32);
    case NB_GGUF_I64: return json_integer(v.i64);
    case NB_GGUF_U64:
        return v.u64 <= INT64_MAX ? json_integer((json_int_t)v.u64) : json_real((double)v.u64);
    case NB_GGUF_F32: return json_float(isfinite(v.f32) ? shortest(v.f32) : (double)v.f32);
    case NB_GGUF_F64: return json_float(v.f64);
    default: return json_boolean(v.u8);
    }
}

json_t *nb_gguf_kv_json(const struct nb_gguf_kv *kv, size_t max_elems)
{
    if (kv->type == NB_GGUF_STRING) return json_text(kv->data);
    if (kv->type != NB_GGUF_ARRAY) return json_number(kv->type, kv->data.data);
    json_t *list = json_array();
    size_t bytes = nb_gguf_value_bytes(kv->elem), at = 0;
    struct nb_span text;
    for (size_t i = 0; i < kv->count && i < max_elems; i++) {
        bool is_text = kv->elem == NB_GGUF_STRING && nb_gguf_string_next(kv, &at, &text);
        json_t *v = is_text ? json_text(text) : json_number(kv->elem, kv->data.data + i * bytes);
        if (json_array_append_new(list, v)) {
            json_decref(list);
            return NULL;
        }
    }
    return list;
}

json_t *nb_gguf_metadata_json(const struct nb_gguf *g, size_t max_elems, struct nb_err *err)
{
    json_t *all = json_object();
    for (size_t i = 0; i < nb_gguf_kv_count(g); i++) {
        const struct nb_gguf_kv *kv = nb_gguf_kv_at(g, i);
        if (kv->type == NB_GGUF_ARRAY && kv->count > max_elems) continue;
        json_t *v = nb_gguf_kv_json(kv, max_elems);
        if (!all || !v) {
            json_decref(all);
            json_decref(v);
            nb_fail(err, NB_E_NOMEM, "%s: no memory for the metadata", nb_gguf_part_path(g, 0));
            return NULL;
        }
        json_object_set_new(all, kv->key, v); /* refuses, and frees, what is no UTF-8 */
    }
    return all;
}

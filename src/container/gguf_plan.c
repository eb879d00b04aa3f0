/* SPDX-License-Identifier: Apache-2.0
 *
 * gguf_plan.c - what a GGUF file will hold: metadata records and tensor shapes, before any file exists.
 *
 * Only what every reader takes is planned: ASCII keys, names up to 63 bytes, no empty arrays, alignment
 * left at its default. Source: GGUF specification, section 1.8. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "base/strbuf.h"
#include "container/gguf.h"
#include "container/gguf_layout.h"
#include "container/gguf_part.h"

enum { MAX_KEY = 65535 };

struct nb_gguf_writer *nb_gguf_writer_new(void)
{
    return nb_xalloc(sizeof(struct nb_gguf_writer));
}

uint64_t nb_gguf_writer_bytes(const struct nb_gguf_writer *w)
{
    return w->layout.bytes;
}

static bool is_our_own(const char *key)
{
    return !strcmp(key, "general.alignment") || !strncmp(key, "split.", strlen("split."));
}

static int check_key(const char *key, struct nb_err *err)
{
    size_t n = strlen(key);
    bool good = n > 0 && n <= MAX_KEY;
    for (size_t i = 0; good && i < n; i++) good = key[i] > ' ' && key[i] < 0x7f;
    if (!good) {
        return nb_fail(err, NB_E_SPEC,
                       "metadata key '%.120s': expected 1 to %d visible ASCII characters", key,
                       MAX_KEY);
    }
    if (is_our_own(key))
        return nb_fail(err, NB_E_SPEC, "metadata key '%s' is chosen by the writer", key);
    return 0;
}

static int insert_record(struct nb_gguf_layout *l, const char *key, size_t at, struct nb_err *err)
{
    if (!nb_grow((void **)&l->records, &l->record_capacity, l->n_records, sizeof *l->records) ||
        !nb_grow((void **)&l->by_key, &l->key_capacity, l->n_records, sizeof *l->by_key)) {
        return nb_fail(err, NB_E_NOMEM, "no memory for %zu metadata records", l->n_records + 1);
    }
    memmove(l->by_key + at + 1, l->by_key + at, (l->n_records - at) * sizeof *l->by_key);
    l->by_key[at] = l->n_records;
    l->records[l->n_records++] = (struct nb_gguf_record){.key = nb_xstrdup(key)};
    return 0;
}

/* Takes over the bytes of record b, which is released in any case. */
static int store(struct nb_gguf_writer *w, const char *key, struct nb_strbuf *b, struct nb_err *err)
{
    struct nb_gguf_layout *l = &w->layout;
    int rc = check_key(key, err);
    unsigned char *data = rc || b->failed ? NULL : nb_alloc(b->len, 1);
    if (!rc && !data)
        rc = nb_fail(err, NB_E_NOMEM, "metadata key '%.120s': no memory for its value", key);
    bool found = false;
    size_t i = rc ? 0 : nb_gguf_layout_find(l, key, &found);
    if (!rc && !found) {
        rc = insert_record(l, key, i, err);
        i = l->n_records - 1;
    }
    if (rc) {
        nb_free(data);
    } else {
        memcpy(data, b->data, b->len);
        nb_free(l->records[i].data);
        l->records[i].data = data;
        l->records[i].bytes = b->len;
    }
    nb_strbuf_release(b);
    return rc;
}

static void put_u32(struct nb_strbuf *b, uint32_t v)
{
    nb_strbuf_add(b, &v, sizeof v);
}

static void put_text(struct nb_strbuf *b, struct nb_span text)
{
    uint64_t n = text.bytes;
    nb_strbuf_add(b, &n, sizeof n);
    nb_strbuf_add(b, text.data, text.bytes);
}

static struct nb_span span_of(const char *text)
{
    return (struct nb_span){(const unsigned char *)text, strlen(text)};
}

/* Key and type, after which the value follows. */
static void begin(struct nb_strbuf *b, const char *key, enum nb_gguf_value type)
{
    nb_strbuf_init(b);
    put_text(b, span_of(key));
    put_u32(b, type);
}

static void put_numbers(struct nb_strbuf *b, enum nb_gguf_value type, const void *values, size_t n)
{
    const unsigned char *p = values;
    if (type != NB_GGUF_BOOL) nb_strbuf_add(b, p, n * nb_gguf_value_bytes(type));
    for (size_t i = 0; type == NB_GGUF_BOOL && i < n; i++) nb_strbuf_putc(b, p[i] != 0);
}

int nb_gguf_writer_set(struct nb_gguf_writer *w, const char *key, enum nb_gguf_value type,
                       const void *value, struct nb_err *err)
{
    if (nb_gguf_value_bytes(type) == 0) {
        return nb_fail(err, NB_E_SPEC, "metadata key '%.120s': %s is no number", key,
                       nb_gguf_value_name(type));
    }
    struct nb_strbuf b;
    begin(&b, key, type);
    put_numbers(&b, type, value, 1);
    return store(w, key, &b, err);
}

int nb_gguf_writer_set_u32(struct nb_gguf_writer *w, const char *key, uint32_t v,
                           struct nb_err *err)
{
    return nb_gguf_writer_set(w, key, NB_GGUF_U32, &v, err);
}

int nb_gguf_writer_set_f32(struct nb_gguf_writer *w, const char *key, float v, struct nb_err *err)
{
    return nb_gguf_writer_set(w, key, NB_GGUF_F32, &v, err);
}

int nb_gguf_writer_set_bool(struct nb_gguf_writer *w, const char *key, bool v, struct nb_err *err)
{
    unsigned char byte = v;
    return nb_gguf_writer_set(w, key, NB_GGUF_BOOL, &byte, err);
}

int nb_gguf_writer_set_bytes(struct nb_gguf_writer *w, const char *key, struct nb_span text,
                             struct nb_err *err)
{
    struct nb_strbuf b;
    begin(&b, key, NB_GGUF_STRING);
    put_text(&b, text);
    return store(w, key, &b, err);
}

int nb_gguf_writer_set_string(struct nb_gguf_writer *w, const char *key, const char *text,
                              struct nb_err *err)
{
    return nb_gguf_writer_set_bytes(w, key, span_of(text), err);
}

/* Array head, or the reason why there can be no such array. */
static int begin_array(struct nb_strbuf *b, const char *key, enum nb_gguf_value elem, size_t n,
                       struct nb_err *err)
{
    if (n == 0)
        return nb_fail(err, NB_E_SPEC, "metadata key '%.120s': an array may not be empty", key);
    begin(b, key, NB_GGUF_ARRAY);
    put_u32(b, elem);
    uint64_t count = n;
    nb_strbuf_add(b, &count, sizeof count);
    return 0;
}

int nb_gguf_writer_set_array(struct nb_gguf_writer *w, const char *key, enum nb_gguf_value elem,
                             const void *values, size_t n, struct nb_err *err)
{
    if (nb_gguf_value_bytes(elem) == 0) {
        return nb_fail(err, NB_E_SPEC, "metadata key '%.120s': %s is no number", key,
                       nb_gguf_value_name(elem));
    }
    struct nb_strbuf b;
    int rc = begin_array(&b, key, elem, n, err);
    if (rc) return rc;
    put_numbers(&b, elem, values, n);
    return store(w, key, &b, err);
}

int nb_gguf_writer_set_strings(struct nb_gguf_writer *w, const char *key,
                               const struct nb_span *strings, size_t n, struct nb_err *err)
{
    struct nb_strbuf b;
    int rc = begin_array(&b, key, NB_GGUF_STRING, n, err);
    if (rc) return rc;
    for (size_t i = 0; i < n; i++) put_text(&b, strings[i]);
    return store(w, key, &b, err);
}

int nb_gguf_writer_copy(struct nb_gguf_writer *w, const struct nb_gguf_kv *kv, struct nb_err *err)
{
    if (is_our_own(kv->key) || kv->count == 0) return 0;
    if (kv->type == NB_GGUF_STRING) return nb_gguf_writer_set_bytes(w, kv->key, kv->data, err);
    if (kv->type != NB_GGUF_ARRAY)
        return nb_gguf_writer_set(w, kv->key, kv->type, kv->data.data, err);
    if (kv->elem != NB_GGUF_STRING) {
        return nb_gguf_writer_set_array(w, kv->key, kv->elem, kv->data.data, (size_t)kv->count,
                                        err);
    }
    struct nb_strbuf b;
    int rc = begin_array(&b, kv->key, NB_GGUF_STRING, (size_t)kv->count, err);
    if (rc) return rc;
    nb_strbuf_add(&b, kv->data.data, kv->data.bytes);
    return store(w, kv->key, &b, err);
}

/* ---- JSON ---- */

/* The element type that holds all of a; NB_GGUF_VALUES: none does. */
static enum nb_gguf_value element_type(const json_t *a)
{
    size_t n = json_array_size(a), ints = 0, numbers = 0, bools = 0, texts = 0;
    for (size_t i = 0; i < n; i++) {
        const json_t *v = json_array_get(a, i);
        ints += json_is_integer(v) && json_integer_value(v) >= INT32_MIN &&
                json_integer_value(v) <= INT32_MAX;
        numbers += json_is_number(v);
        bools += json_is_boolean(v);
        texts += json_is_string(v);
    }
    if (ints == n) return NB_GGUF_I32;
    if (numbers == n) return NB_GGUF_F32;
    return bools == n ? NB_GGUF_BOOL : texts == n ? NB_GGUF_STRING : NB_GGUF_VALUES;
}

static void put_json_element(struct nb_strbuf *b, enum nb_gguf_value type, const json_t *v)
{
    float f = (float)json_number_value(v);
    if (type == NB_GGUF_I32) put_u32(b, (uint32_t)json_integer_value(v));
    else if (type == NB_GGUF_F32) nb_strbuf_add(b, &f, sizeof f);
    else if (type == NB_GGUF_BOOL) nb_strbuf_putc(b, json_is_true(v));
    else {
        const char *text = json_string_value(v);
        put_text(b, (struct nb_span){(const unsigned char *)text, json_string_length(v)});
    }
}

int nb_gguf_writer_set_json(struct nb_gguf_writer *w, const char *key, const json_t *v,
                            struct nb_err *err)
{
    if (json_is_boolean(v)) return nb_gguf_writer_set_bool(w, key, json_is_true(v), err);
    if (json_is_real(v)) return nb_gguf_writer_set_f32(w, key, (float)json_real_value(v), err);
    if (json_is_string(v)) {
        const char *text = json_string_value(v);
        struct nb_span span = {(const unsigned char *)text, json_string_length(v)};
        return nb_gguf_writer_set_bytes(w, key, span, err);
    }
    json_int_t n = json_integer_value(v);
    if (json_is_integer(v) && n >= 0 && n <= UINT32_MAX)
        return nb_gguf_writer_set_u32(w, key, (uint32_t)n, err);
    if (json_is_integer(v)) {
        return nb_fail(err, NB_E_SPEC,
                       "metadata key '%.120s': %" JSON_INTEGER_FORMAT " does not fit uint32", key,
                       n);
    }
    enum nb_gguf_value type = element_type(v);
    if (!json_is_array(v) || type == NB_GGUF_VALUES) {
        return nb_fail(err, NB_E_SPEC, "metadata key '%.120s': no type stores %s%s", key,
                       json_is_array(v) ? "this mixture in " : "", nb_json_type_name(v));
    }
    struct nb_strbuf b;
    int rc = begin_array(&b, key, type, json_array_size(v), err);
    if (rc) return rc;
    for (size_t i = 0; i < json_array_size(v); i++)
        put_json_element(&b, type, json_array_get(v, i));
    return store(w, key, &b, err);
}

/* ---- tensors ---- */

static int check_shape(const char *name, const struct nb_gguf_type *type, int n_dims,
                       const int64_t *ne, struct nb_err *err)
{
    if (!name[0] || strlen(name) > NB_GGUF_MAX_NAME) {
        return nb_fail(err, NB_E_SPEC,
                       "tensor '%.120s': the name has %zu bytes, allowed are 1 to %d", name,
                       strlen(name), NB_GGUF_MAX_NAME);
    }
    if (!type) return nb_fail(err, NB_E_SPEC, "tensor '%s': there is no such type", name);
    if (n_dims < 1 || n_dims > NB_GGUF_MAX_DIMS) {
        return nb_fail(err, NB_E_SPEC, "tensor '%s' has %d dimensions, allowed are 1 to %d", name,
                       n_dims, NB_GGUF_MAX_DIMS);
    }
    for (int i = 0; i < n_dims; i++) {
        if (ne[i] >= 1) continue;
        return nb_fail(err, NB_E_SPEC, "tensor '%s': dimension %d is %" PRId64, name, i, ne[i]);
    }
    return 0;
}

int nb_gguf_writer_plan(struct nb_gguf_writer *w, const char *name, int type, int n_dims,
                        const int64_t *ne, struct nb_err *err)
{
    struct nb_gguf_layout *l = &w->layout;
    struct nb_gguf_planned t = {.type = nb_gguf_type_by_id(type), .ne = {1, 1, 1, 1}};
    int rc = check_shape(name, t.type, n_dims, ne, err);
    if (rc) return rc;
    memcpy(t.name, name, strlen(name) + 1);
    for (int i = 0; i < n_dims; i++) t.ne[i] = ne[i];
    while (n_dims > 1 && ne[n_dims - 1] == 1) n_dims--;
    t.n_dims = n_dims;
    char where[96];
    snprintf(where, sizeof where, "tensor '%s'", name);
    if (nb_gguf_tensor_bytes(t.type, t.ne, where, &t.bytes, err)) {
        if (err) err->status = NB_E_SPEC;
        return NB_E_SPEC;
    }
    if (t.bytes > INT64_MAX / 2 - l->bytes)
        return nb_fail(err, NB_E_SPEC, "%s: the model gets larger than any file", where);
    if (!nb_grow((void **)&l->tensors, &l->tensor_capacity, l->n_tensors, sizeof *l->tensors))
        return nb_fail(err, NB_E_NOMEM, "no memory to plan %zu tensors", l->n_tensors + 1);
    l->tensors[l->n_tensors++] = t;
    l->bytes += t.bytes;
    return 0;
}

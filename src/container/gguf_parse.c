/* SPDX-License-Identifier: Apache-2.0
 *
 * gguf_parse.c - one GGUF file image: every rule of the format, no I/O.
 *
 *     0    "GGUF"
 *     4    u32  version           2 or 3
 *     8    u64  n_tensors
 *    16    u64  n_kv
 *    24    n_kv records           string key, i32 type, value
 *          n_tensors records      string name, u32 n_dims, n_dims x i64, i32 type, u64 offset
 *          padding                to a multiple of the alignment: here the data start
 *          tensor data            in the order of the records, each padded
 *
 * A string is u64 length and bytes. No count is believed before the bytes that it needs are known to be
 * there. Stricter than the reference: sizes that wrap, empty names, names with NUL. Source: GGUF
 * specification, section 1.6, whose rule names (H1, S2, ...) stand beside the checks. */
#include "container/gguf_part.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "container/gguf.h"

enum {
    HEADER_BYTES = 24,
    KV_MIN_BYTES = 13,     /* key length, one byte of key, type */
    TENSOR_MIN_BYTES = 24, /* name length, n_dims, type, offset */
    MAX_KVS = 65536,
    MAX_TENSORS = 1 << 20,
    MAX_KEY = 65535,
    MAX_STRING = 64 << 20,
    MAX_ELEMENTS = 1 << 30,
    MAX_ALIGNMENT = 65536
};

struct cursor {
    const struct nb_gguf_part *part;
    size_t pos;
    struct nb_err *err;
};

static size_t remaining(const struct cursor *c)
{
    return c->part->image.bytes - c->pos;
}

static const unsigned char *at(const struct cursor *c)
{
    return c->part->image.data + c->pos;
}

/* The caller has checked that the bytes are there. */
static uint32_t take_u32(struct cursor *c)
{
    uint32_t v;
    memcpy(&v, at(c), sizeof v);
    c->pos += sizeof v;
    return v;
}

static uint64_t take_u64(struct cursor *c)
{
    uint64_t v;
    memcpy(&v, at(c), sizeof v);
    c->pos += sizeof v;
    return v;
}

static int need(const struct cursor *c, size_t bytes, const char *where)
{
    if (bytes <= remaining(c)) return 0;
    return nb_fail(c->err, NB_E_FORMAT, "%s: %s: the file ends at byte %zu, %zu bytes too early",
                   c->part->path, where, c->part->image.bytes, bytes - remaining(c));
}

/* S1. */
static int take_string(struct cursor *c, uint64_t max, const char *where, struct nb_span *out)
{
    int rc = need(c, sizeof(uint64_t), where);
    if (rc) return rc;
    uint64_t n = take_u64(c);
    if (n > max) {
        return nb_fail(c->err, NB_E_FORMAT,
                       "%s: %s: a string of %" PRIu64 " bytes, at most %" PRIu64 " are accepted",
                       c->part->path, where, n, max);
    }
    if (n > remaining(c)) {
        return nb_fail(c->err, NB_E_FORMAT,
                       "%s: %s: a string of %" PRIu64 " bytes, the file ends after %zu of them",
                       c->part->path, where, n, remaining(c));
    }
    *out = (struct nb_span){at(c), (size_t)n};
    c->pos += (size_t)n;
    return 0;
}

static int take_header(struct cursor *c, uint64_t *n_tensors, uint64_t *n_kvs)
{
    const char *path = c->part->path;
    size_t bytes = c->part->image.bytes;
    if (bytes < 4 || memcmp(c->part->image.data, "GGUF", 4)) {
        return nb_fail(c->err, NB_E_FORMAT, "%s: does not begin with the letters GGUF", path);
    }
    if (bytes < HEADER_BYTES) {
        return nb_fail(c->err, NB_E_FORMAT, "%s: has %zu bytes, a GGUF header has %d", path, bytes,
                       HEADER_BYTES);
    }
    c->pos = 4;
    uint32_t version = take_u32(c);
    if (version && !(version & 0xffff)) {
        return nb_fail(c->err, NB_E_FORMAT,
                       "%s: is a big-endian GGUF file, only little-endian ones can be read", path);
    }
    if (version != 2 && version != 3) {
        return nb_fail(c->err, NB_E_FORMAT, "%s: GGUF version %" PRIu32 ", expected 2 or 3", path,
                       version);
    }
    *n_tensors = take_u64(c);
    *n_kvs = take_u64(c);
    if (*n_kvs > MAX_KVS || *n_kvs * KV_MIN_BYTES > remaining(c)) { /* H2 */
        return nb_fail(c->err, NB_E_FORMAT,
                       "%s: announces %" PRIu64 " metadata records, accepted are %d and what fits "
                       "into the %zu bytes that follow",
                       path, *n_kvs, MAX_KVS, remaining(c));
    }
    if (*n_tensors > MAX_TENSORS || *n_tensors * TENSOR_MIN_BYTES > remaining(c)) {
        return nb_fail(c->err, NB_E_FORMAT,
                       "%s: announces %" PRIu64 " tensors, accepted are %d and what fits into the "
                       "%zu bytes that follow",
                       path, *n_tensors, MAX_TENSORS, remaining(c));
    }
    return 0;
}

/* ---- metadata ---- */

static int take_array(struct cursor *c, const char *where, struct nb_gguf_kv *kv)
{
    int rc = need(c, sizeof(uint32_t) + sizeof(uint64_t), where);
    if (rc) return rc;
    uint32_t elem = take_u32(c);
    kv->count = take_u64(c);
    if (elem == NB_GGUF_ARRAY)
        return nb_fail(c->err, NB_E_FORMAT, "%s: %s is an array of arrays", c->part->path, where);
    if (elem >= NB_GGUF_VALUES) { /* V1 */
        return nb_fail(c->err, NB_E_FORMAT, "%s: %s is an array of the unknown type %" PRId32,
                       c->part->path, where, (int32_t)elem);
    }
    kv->elem = (enum nb_gguf_value)elem;
    size_t least = elem == NB_GGUF_STRING ? sizeof(uint64_t) : nb_gguf_value_bytes(kv->elem);
    if (kv->count > MAX_ELEMENTS || kv->count > remaining(c) / least) {
        return nb_fail(c->err, NB_E_FORMAT,
                       "%s: %s is an array of %" PRIu64 " %s elements, the file goes on for %zu "
                       "bytes",
                       c->part->path, where, kv->count, nb_gguf_value_name(kv->elem), remaining(c));
    }
    kv->data.data = at(c);
    if (elem != NB_GGUF_STRING) c->pos += (size_t)kv->count * least;
    for (uint64_t i = 0; elem == NB_GGUF_STRING && i < kv->count; i++) {
        struct nb_span text;
        rc = take_string(c, MAX_STRING, where, &text);
        if (rc) return rc;
    }
    kv->data.bytes = (size_t)(at(c) - kv->data.data);
    return 0;
}

static int take_value(struct cursor *c, const char *where, struct nb_gguf_kv *kv)
{
    int rc = need(c, sizeof(uint32_t), where);
    if (rc) return rc;
    uint32_t type = take_u32(c);
    if (type >= NB_GGUF_VALUES) {
        return nb_fail(c->err, NB_E_FORMAT, "%s: %s has the unknown type %" PRId32, c->part->path,
                       where, (int32_t)type);
    }
    kv->type = kv->elem = (enum nb_gguf_value)type;
    kv->count = 1;
    if (type == NB_GGUF_ARRAY) return take_array(c, where, kv);
    if (type == NB_GGUF_STRING) return take_string(c, MAX_STRING, where, &kv->data);
    size_t bytes = nb_gguf_value_bytes(kv->type);
    rc = need(c, bytes, where);
    if (rc) return rc;
    kv->data = (struct nb_span){at(c), bytes};
    c->pos += bytes;
    return 0;
}

/* "key 'general.name'", cut where it gets long. */
static void name_where(char where[160], const char *kind, struct nb_span name)
{
    snprintf(where, 160, "%s '%.*s'", kind, name.bytes < 120 ? (int)name.bytes : 120,
             (const char *)name.data);
}

static int take_kv(struct cursor *c, size_t i, struct nb_gguf_part *p)
{
    char where[160];
    struct nb_span key = {0};
    snprintf(where, sizeof where, "the key of metadata record %zu", i);
    int rc = take_string(c, MAX_KEY, where, &key);
    if (rc) return rc;
    if (!key.bytes || memchr(key.data, 0, key.bytes)) { /* S2 */
        return nb_fail(c->err, NB_E_FORMAT, "%s: %s %s", p->path, where,
                       key.bytes ? "holds a NUL byte" : "is empty");
    }
    nb_strbuf_add(&p->keys, key.data, key.bytes);
    nb_strbuf_putc(&p->keys, '\0');
    name_where(where, "key", key);
    return take_value(c, where, &p->kvs[i]);
}

static int compare_keys(const void *a, const void *b, void *ctx)
{
    const struct nb_gguf_kv *kvs = ctx;
    return strcmp(kvs[*(const size_t *)a].key, kvs[*(const size_t *)b].key);
}

/* S2: sorting finds a key that stands twice in n log n steps whatever the keys are. */
static int sort_keys(struct nb_gguf_part *p, struct nb_err *err)
{
    const char *key = nb_strbuf_cstr(&p->keys);
    for (size_t i = 0; i < p->n_kvs; i++) {
        p->kvs[i].key = key;
        key += strlen(key) + 1;
        p->by_key[i] = i;
    }
    qsort_r(p->by_key, p->n_kvs, sizeof *p->by_key, compare_keys, p->kvs);
    for (size_t i = 1; i < p->n_kvs; i++) {
        const char *a = p->kvs[p->by_key[i - 1]].key, *b = p->kvs[p->by_key[i]].key;
        if (!strcmp(a, b))
            return nb_fail(err, NB_E_FORMAT, "%s: key '%.120s' stands twice", p->path, a);
    }
    return 0;
}

/* V3. */
static int read_alignment(struct nb_gguf_part *p, struct nb_err *err)
{
    const struct nb_gguf_kv *kv;
    int rc = nb_gguf_part_get(p, "general.alignment", false, NB_GGUF_U32, &kv, err);
    if (rc) return rc;
    p->alignment = NB_GGUF_ALIGN;
    if (!kv) return 0;
    uint32_t a = nb_gguf_u32_at(kv, 0);
    if (!a || (a & (a - 1)) || a > MAX_ALIGNMENT) {
        return nb_fail(err, NB_E_FORMAT,
                       "%s: general.alignment is %" PRIu32 ", expected a power of two up to %d",
                       p->path, a, MAX_ALIGNMENT);
    }
    p->alignment = a;
    return 0;
}

static int take_metadata(struct cursor *c, struct nb_gguf_part *p, size_t n)
{
    p->kvs = nb_calloc(n, sizeof *p->kvs);
    p->by_key = nb_calloc(n, sizeof *p->by_key);
    int rc = 0;
    for (size_t i = 0; !rc && p->kvs && i < n; i++) rc = take_kv(c, i, p);
    if (rc) return rc;
    if (!p->kvs || !p->by_key || p->keys.failed) {
        return nb_fail(c->err, NB_E_NOMEM, "%s: no memory for %zu metadata records", p->path, n);
    }
    p->n_kvs = n;
    rc = sort_keys(p, c->err);
    return rc ? rc : read_alignment(p, c->err);
}

/* ---- tensors ---- */

static int take_dims(struct cursor *c, const char *where, struct nb_gguf_tensor *t)
{
    int rc = need(c, sizeof(uint32_t), where);
    if (rc) return rc;
    uint32_t n_dims = take_u32(c);
    if (n_dims > NB_GGUF_MAX_DIMS) { /* T2 */
        return nb_fail(c->err, NB_E_FORMAT, "%s: %s has %" PRIu32 " dimensions, at most %d exist",
                       c->part->path, where, n_dims, NB_GGUF_MAX_DIMS);
    }
    t->n_dims = (int)n_dims;
    rc = need(c, n_dims * sizeof(int64_t) + sizeof(uint32_t) + sizeof(uint64_t), where);
    for (int i = 0; !rc && i < NB_GGUF_MAX_DIMS; i++) {
        t->ne[i] = i < t->n_dims ? (int64_t)take_u64(c) : 1;
        if (t->ne[i] >= 0) continue;
        rc = nb_fail(c->err, NB_E_FORMAT, "%s: %s: dimension %d is %" PRId64, c->part->path, where,
                     i, t->ne[i]);
    }
    return rc;
}

/* T3; the bytes are there. */
static int take_type(struct cursor *c, const char *where, struct nb_gguf_tensor *t)
{
    int32_t id = (int32_t)take_u32(c);
    t->type = nb_gguf_type_by_id(id);
    if (t->type) return 0;
    const char *removed = nb_gguf_type_removed(id);
    if (removed) {
        return nb_fail(c->err, NB_E_FORMAT,
                       "%s: %s has type %" PRId32 " (%s), which was taken out of the format",
                       c->part->path, where, id, removed);
    }
    return nb_fail(c->err, NB_E_FORMAT, "%s: %s has the unknown type %" PRId32, c->part->path,
                   where, id);
}

/* One record; *offset: where it says its data are. t->data.bytes is set, the pointer not yet. */
static int take_tensor(struct cursor *c, size_t i, struct nb_gguf_part *p, uint64_t *offset)
{
    struct nb_gguf_tensor *t = &p->tensors[i];
    char where[160], full[768];
    struct nb_span name = {0};
    snprintf(where, sizeof where, "the name of tensor %zu", i);
    int rc = take_string(c, NB_GGUF_MAX_NAME, where, &name);
    if (rc) return rc;
    if (!name.bytes || memchr(name.data, 0, name.bytes)) { /* T1 */
        return nb_fail(c->err, NB_E_FORMAT, "%s: %s %s", p->path, where,
                       name.bytes ? "holds a NUL byte" : "is empty");
    }
    nb_strbuf_add(&p->names, name.data, name.bytes);
    nb_strbuf_putc(&p->names, '\0');
    name_where(where, "tensor", name);
    rc = take_dims(c, where, t);
    if (!rc) rc = take_type(c, where, t);
    if (rc) return rc;
    *offset = take_u64(c);
    uint64_t bytes = 0;
    snprintf(full, sizeof full, "%.500s: %s", p->path, where);
    rc = nb_gguf_tensor_bytes(t->type, t->ne, full, &bytes, c->err); /* T4, T5 */
    t->data.bytes = bytes;
    return rc;
}

/* T6: data follow each other in the order of the records. *end: of the last one, from the data start. */
static int check_offsets(const struct nb_gguf_part *p, const uint64_t *offsets, uint64_t *end,
                         struct nb_err *err)
{
    size_t next = 0;
    *end = 0;
    for (size_t i = 0; i < p->n_tensors; i++) {
        const struct nb_gguf_tensor *t = &p->tensors[i];
        if (offsets[i] % p->alignment) {
            return nb_fail(err, NB_E_FORMAT,
                           "%s: tensor '%s' begins at byte %" PRIu64
                           " of the data, which is no multiple of %" PRIu32,
                           p->path, t->name, offsets[i], p->alignment);
        }
        if (offsets[i] != next) {
            return nb_fail(err, NB_E_FORMAT,
                           "%s: tensor '%s' begins at byte %" PRIu64
                           " of the data, expected %zu: no gap, no overlap, in order",
                           p->path, t->name, offsets[i], next);
        }
        size_t size = t->data.bytes, rest = size % p->alignment;
        if (!nb_add(next, size, &next) || next > INT64_MAX) {
            return nb_fail(err, NB_E_FORMAT,
                           "%s: the tensors up to '%s' have more bytes than 63 bits count", p->path,
                           t->name);
        }
        *end = next;
        next += rest ? p->alignment - rest : 0;
    }
    return 0;
}

/* Every tensor must lie inside the file before it can be reached. */
static int place_data(struct nb_gguf_part *p, size_t data_start, const uint64_t *offsets,
                      uint64_t end, struct nb_err *err)
{
    uint64_t have = p->image.bytes > data_start ? p->image.bytes - data_start : 0;
    for (size_t i = 0; i < p->n_tensors; i++) {
        struct nb_gguf_tensor *t = &p->tensors[i];
        if (offsets[i] > have || t->data.bytes > have - offsets[i] || data_start > p->image.bytes) {
            uint64_t whole = data_start + end;
            nb_fail(err, NB_E_FORMAT,
                    "%s: the last %" PRIu64 " of %" PRIu64 " bytes are missing: the file ends "
                    "before the end of tensor '%s' (%zu bytes)",
                    p->path, whole - p->image.bytes, whole, t->name, t->data.bytes);
            return nb_err_hint(err, "the download is incomplete: fetch the file again");
        }
        t->data.data = p->image.data + data_start + offsets[i];
    }
    return 0;
}

static int take_tensors(struct cursor *c, struct nb_gguf_part *p, size_t n)
{
    p->tensors = nb_calloc(n, sizeof *p->tensors);
    uint64_t *offsets = nb_calloc(n, sizeof *offsets);
    int rc = 0;
    for (size_t i = 0; !rc && p->tensors && offsets && i < n; i++) {
        rc = take_tensor(c, i, p, &offsets[i]);
    }
    if (!rc && (!p->tensors || !offsets || p->names.failed)) {
        rc = nb_fail(c->err, NB_E_NOMEM, "%s: no memory for %zu tensors", p->path, n);
    }
    if (!rc) {
        const char *name = nb_strbuf_cstr(&p->names);
        p->n_tensors = n;
        for (size_t i = 0; i < n; i++) {
            p->tensors[i].name = name;
            name += strlen(name) + 1;
        }
        size_t rest = c->pos % p->alignment;
        uint64_t end = 0;
        rc = check_offsets(p, offsets, &end, c->err);
        if (!rc) {
            size_t data_start = c->pos + (rest ? p->alignment - rest : 0);
            rc = place_data(p, data_start, offsets, end, c->err);
        }
    }
    nb_free(offsets);
    return rc;
}

int nb_gguf_part_parse(struct nb_gguf_part *p, struct nb_err *err)
{
    struct cursor c = {.part = p, .err = err};
    uint64_t n_tensors = 0, n_kvs = 0;
    nb_strbuf_init(&p->keys);
    nb_strbuf_init(&p->names);
    int rc = take_header(&c, &n_tensors, &n_kvs);
    if (rc) return rc;
    p->version = p->image.data[4];
    rc = take_metadata(&c, p, (size_t)n_kvs);
    return rc ? rc : take_tensors(&c, p, (size_t)n_tensors);
}

void nb_gguf_part_release(struct nb_gguf_part *p)
{
    nb_map_close(&p->map);
    nb_strbuf_release(&p->keys);
    nb_strbuf_release(&p->names);
    nb_free(p->kvs);
    nb_free(p->by_key);
    nb_free(p->tensors);
    nb_free(p->path);
}

/* SPDX-License-Identifier: Apache-2.0
 *
 * safetensors_layout.c - see safetensors_layout.h. */
#include "container/safetensors_layout.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"

enum { HEADER_MAX = 100000000, DATA_ALIGN = 64 };

static const uint64_t default_shard_bytes = 5000000000u;
static const char single_name[] = "model.safetensors";
const char nb_st_index_name[] = "model.safetensors.index.json";

/* Fills shards in the order of adding; a tensor over the limit stands alone. */
static int assign_shards(struct nb_st_layout *l, uint64_t limit, struct nb_err *err)
{
    uint64_t in_shard = 0;
    l->n_shards = 1;
    for (size_t i = 0; i < l->n_tensors; i++) {
        struct nb_st_planned *t = &l->tensors[i];
        if (in_shard && (in_shard >= limit || t->bytes > limit - in_shard)) {
            l->n_shards++;
            in_shard = 0;
        }
        t->shard = l->n_shards - 1;
        in_shard += t->bytes;
    }
    l->shards = nb_calloc(l->n_shards, sizeof *l->shards);
    if (!l->shards) return nb_fail(err, NB_E_NOMEM, "no memory for %zu shards", l->n_shards);
    for (size_t i = 0; i < l->n_shards; i++) {
        struct nb_st_shard *s = &l->shards[i];
        if (l->n_shards == 1) snprintf(s->name, sizeof s->name, "%s", single_name);
        else
            snprintf(s->name, sizeof s->name, "model-%05zu-of-%05zu.safetensors", i + 1,
                     l->n_shards);
    }
    return 0;
}

static int compare_width(const void *a, const void *b, void *ctx)
{
    const struct nb_st_planned *t = ctx;
    size_t i = *(const size_t *)a, k = *(const size_t *)b;
    int x = nb_dtype_bits(t[i].dtype), y = nb_dtype_bits(t[k].dtype);
    if (x != y) return x > y ? -1 : 1;
    return i < k ? -1 : i > k;
}

static json_t *entry_of(const struct nb_st_planned *t)
{
    json_t *shape = json_array();
    for (int i = 0; i < t->rank; i++) json_array_append_new(shape, json_integer(t->shape[i]));
    json_t *offsets = json_array();
    json_array_append_new(offsets, json_integer((json_int_t)t->offset));
    json_array_append_new(offsets, json_integer((json_int_t)(t->offset + t->bytes)));
    json_t *e = json_object();
    json_object_set_new(e, "dtype", json_string(nb_dtype_name(t->dtype)));
    json_object_set_new(e, "shape", shape);
    json_object_set_new(e, "data_offsets", offsets);
    return e;
}

static json_t *metadata_of(const json_t *extra)
{
    json_t *m = json_object();
    json_object_set_new(m, "format", json_string("pt"));
    if (extra) json_object_update_missing(m, (json_t *)(uintptr_t)extra);
    return m;
}

/* Frames the header text: length before it, spaces behind it up to the alignment of the data. */
static int frame(struct nb_st_shard *s, const struct nb_strbuf *text, struct nb_err *err)
{
    size_t padded = (8 + text->len + DATA_ALIGN - 1) / DATA_ALIGN * DATA_ALIGN;
    if (padded - 8 > HEADER_MAX) {
        return nb_fail(err, NB_E_SPEC,
                       "%s: the header would have %zu bytes, at most %d are allowed", s->name,
                       padded - 8, HEADER_MAX);
    }
    s->head = nb_alloc(padded, 1);
    if (!s->head)
        return nb_fail(err, NB_E_NOMEM, "%s: no memory for a header of %zu bytes", s->name, padded);
    for (int i = 0; i < 8; i++) s->head[i] = (char)((padded - 8) >> 8 * i & 0xff);
    memcpy(s->head + 8, text->data, text->len);
    memset(s->head + 8 + text->len, ' ', padded - 8 - text->len);
    s->head_bytes = padded;
    s->file_bytes += padded;
    return 0;
}

/* Offsets and header of the shard that holds tensors order[0..n). */
static int make_shard(struct nb_st_layout *l, struct nb_st_shard *s, const size_t *order, size_t n,
                      const json_t *metadata, struct nb_err *err)
{
    json_t *header = json_object();
    int rc = json_object_set_new(header, "__metadata__", metadata_of(metadata));
    for (size_t i = 0; !rc && i < n; i++) {
        struct nb_st_planned *t = &l->tensors[order[i]];
        t->offset = s->file_bytes;
        s->file_bytes += t->bytes;
        if (json_object_set_new(header, t->name, entry_of(t))) {
            rc = nb_fail(err, NB_E_FORMAT, "tensor '%.120s': the name is not valid UTF-8", t->name);
        }
    }
    struct nb_strbuf text;
    nb_strbuf_init(&text);
    if (!rc) rc = nb_json_dump(header, false, &text, err);
    if (!rc) rc = frame(s, &text, err);
    nb_strbuf_release(&text);
    json_decref(header);
    return rc;
}

int nb_st_layout_make(struct nb_st_layout *l, uint64_t max_shard_bytes, const json_t *metadata,
                      struct nb_err *err)
{
    int rc = assign_shards(l, max_shard_bytes ? max_shard_bytes : default_shard_bytes, err);
    size_t *order = nb_alloc(l->n_tensors, sizeof *order);
    if (!rc && !order)
        rc = nb_fail(err, NB_E_NOMEM, "no memory to lay out %zu tensors", l->n_tensors);
    for (size_t i = 0; !rc && i < l->n_tensors; i++) order[i] = i;
    for (size_t i = 0, first = 0; !rc && i < l->n_shards; i++) {
        size_t end = first;
        while (end < l->n_tensors && l->tensors[end].shard == i) end++;
        qsort_r(order + first, end - first, sizeof *order, compare_width, l->tensors);
        rc = make_shard(l, &l->shards[i], order + first, end - first, metadata, err);
        first = end;
    }
    nb_free(order);
    return rc;
}

void nb_st_layout_release(struct nb_st_layout *l)
{
    for (size_t i = 0; i < l->n_tensors; i++) nb_free(l->tensors[i].name);
    for (size_t i = 0; l->shards && i < l->n_shards; i++) nb_free(l->shards[i].head);
    nb_free(l->tensors);
    nb_free(l->shards);
}

int nb_st_layout_index(const struct nb_st_layout *l, const size_t *by_name, struct nb_strbuf *out,
                       struct nb_err *err)
{
    json_t *map = json_object();
    for (size_t i = 0; i < l->n_tensors; i++) {
        const struct nb_st_planned *t = &l->tensors[by_name[i]];
        json_object_set_new(map, t->name, json_string(l->shards[t->shard].name));
    }
    json_t *metadata = json_object();
    json_object_set_new(metadata, "total_size", json_integer((json_int_t)l->bytes));
    json_t *index = json_object();
    json_object_set_new(index, "metadata", metadata);
    json_object_set_new(index, "weight_map", map);
    int rc = nb_json_dump(index, true, out, err);
    nb_strbuf_putc(out, '\n');
    json_decref(index);
    return rc;
}

bool nb_st_layout_has_file(const struct nb_st_layout *l, const char *name)
{
    if (!strcmp(name, nb_st_index_name)) return l->n_shards > 1;
    for (size_t i = 0; i < l->n_shards; i++) {
        if (!strcmp(l->shards[i].name, name)) return true;
    }
    return false;
}

/* `text` is `pattern`, in which # stands for a digit. */
static bool matches(const char *text, const char *pattern)
{
    for (; *pattern; text++, pattern++) {
        if (*pattern == '#' ? *text < '0' || *text > '9' : *text != *pattern) return false;
    }
    return !*text;
}

bool nb_st_is_weight_name(const char *name)
{
    return !strcmp(name, single_name) || !strcmp(name, nb_st_index_name) ||
           matches(name, "model-#####-of-#####.safetensors");
}

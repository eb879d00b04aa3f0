/* SPDX-License-Identifier: Apache-2.0
 *
 * gguf_model.c - a GGUF file as a model: its metadata as config.json, its tensors by Hugging Face's names.
 *
 * Matrices stay mapped, in the file's own blocks. Vectors (norms, biases) are small: what differs from
 * Hugging Face's meaning (norms plus one, rows of q and k in another order) is undone when the file is opened.
 * Matrices with rows in another order are put right one at a time, when they are asked for. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "arch/gguf.h"
#include "base/file.h"
#include "checkpoint/internal.h"
#include "numeric/block.h"

enum { ID_F32 = 0, ID_F16 = 1, ID_BF16 = 30, MAX_METADATA_ELEMS = 8192 };

struct entry {  /* one tensor */
    char *name; /* Hugging Face's; arena */
    const struct nb_gguf_tensor *t;
    struct nb_arch_gguf_tensor map;
    struct nb_tensor vector; /* of one dimension, as Hugging Face means it; data NULL: a matrix */
};

struct nb_gguf_table {
    struct nb_arena arena;
    struct entry *entries; /* by name */
    size_t n;
};

void nb_gguf_table_close(struct nb_gguf_table *t)
{
    if (!t) return;
    nb_arena_release(&t->arena);
    nb_free(t);
}

static bool ends_with(const char *s, const char *suffix)
{
    size_t n = strlen(s), m = strlen(suffix);
    return n >= m && !strcmp(s + n - m, suffix);
}

bool nb_gguf_is_model(const char *path)
{
    if (!nb_path_is_dir(path)) return ends_with(path, ".gguf") && nb_path_exists(path);
    char *config = nb_path_join(path, "config.json");
    bool folder = nb_path_exists(config), found = false;
    nb_free(config);
    char **names;
    size_t n;
    if (folder || nb_dir_list(path, &names, &n, NULL)) return false;
    for (size_t i = 0; i < n; i++) found |= ends_with(names[i], ".gguf");
    nb_dir_list_free(names, n);
    return found;
}

const char *nb_gguf_part_name(const struct nb_gguf *g, size_t part)
{
    const char *path = nb_gguf_part_path(g, part), *slash = strrchr(path, '/');
    return slash ? slash + 1 : path;
}

/* ---- config ---- */

/* Type of the float weights, for config.json; NULL: none. */
static const char *float_type(const struct nb_gguf *g)
{
    bool f32 = false;
    for (size_t i = 0; i < nb_gguf_count(g); i++) {
        const struct nb_gguf_tensor *t = nb_gguf_at(g, i);
        if (t->ne[1] == 1) continue;
        if (t->type->id == ID_BF16) return "bfloat16";
        if (t->type->id == ID_F16) return "float16";
        f32 |= t->type->id == ID_F32;
    }
    return f32 ? "float32" : NULL;
}

/* The values of tensor `name`, an F32 vector, for nb_free; *out NULL: there is none. */
static int read_factors(const struct nb_gguf *g, const char *name, float **out, int64_t *n,
                        struct nb_err *err)
{
    const struct nb_gguf_tensor *t = nb_gguf_find(g, name);
    *out = NULL;
    *n = 0;
    if (!t || t->type->id != ID_F32 || t->ne[1] != 1) return 0;
    *out = nb_alloc(t->data.bytes, 1);
    if (!*out) return nb_fail(err, NB_E_NOMEM, "no memory for '%s'", name);
    memcpy(*out, t->data.data, t->data.bytes);
    *n = t->ne[0];
    return 0;
}

static int read_config(struct nb_model *m, struct nb_err *err)
{
    const struct nb_gguf *g = m->gguf;
    const struct nb_gguf_tensor *embed = nb_gguf_find(g, "token_embd.weight");
    if (!embed || embed->ne[2] != 1 || embed->ne[3] != 1) {
        return nb_fail(err, NB_E_FORMAT,
                       embed ? "tensor '%s' is no matrix" : "tensor '%s' is missing",
                       "token_embd.weight");
    }
    struct nb_arch_gguf_facts facts = {
        .vocab_size = embed->ne[1],
        .has_output = nb_gguf_find(g, "output.weight") != NULL,
        .has_qkv_bias =
            nb_gguf_find(g, "blk.0.attn_q.bias") || nb_gguf_find(g, "blk.0.attn_qkv.bias"),
        .has_o_bias = nb_gguf_find(g, "blk.0.attn_output.bias") != NULL,
        .has_mlp_bias = nb_gguf_find(g, "blk.0.ffn_down.bias") != NULL,
        .dtype = float_type(g),
    };
    static const char *const names[] = {NB_ARCH_GGUF_ROPE_FREQS, NB_ARCH_GGUF_ROPE_SHORT,
                                        NB_ARCH_GGUF_ROPE_LONG};
    float *values[3] = {NULL};
    int64_t counts[3] = {0};
    int rc = 0;
    for (int i = 0; i < 3 && !rc; i++) rc = read_factors(g, names[i], &values[i], &counts[i], err);
    facts.rope_freqs = values[0];
    facts.n_rope_freqs = counts[0];
    facts.rope_short = values[1];
    facts.n_rope_short = counts[1];
    facts.rope_long = values[2];
    facts.n_rope_long = counts[2];
    json_t *metadata = rc ? NULL : nb_gguf_metadata_json(g, MAX_METADATA_ELEMS, err);
    if (!rc && !metadata) rc = err ? err->status : NB_E_NOMEM;
    if (!rc) rc = nb_arch_gguf_config(metadata, &facts, &m->config, err);
    if (!rc) rc = nb_arch_from_config(&m->arch, m->config, err);
    json_decref(metadata);
    for (int i = 0; i < 3; i++) nb_free(values[i]);
    return rc;
}

/* ---- the table ---- */

static bool dense_type(const struct nb_gguf_tensor *t, enum nb_dtype *out)
{
    switch (t->type->id) {
    case ID_F32: *out = NB_F32; return true;
    case ID_F16: *out = NB_F16; return true;
    case ID_BF16: *out = NB_BF16; return true;
    default: return false;
    }
}

static int need_readable(const struct nb_gguf_tensor *t, struct nb_err *err)
{
    const struct nb_block_type *type = nb_block_by_id(t->type->id);
    if (type && type->decode) return 0;
    return nb_fail(err, NB_E_SPEC, "tensor '%s': weights of type %s cannot be read", t->name,
                   t->type->name);
}

/* A vector that needs work, as f32. */
static int change_vector(struct nb_gguf_table *table, struct entry *e, struct nb_err *err)
{
    const int64_t n = e->t->ne[0];
    float *raw = nb_arena_alloc(&table->arena, (size_t)n, sizeof *raw), *v = raw;
    if (!raw) return nb_fail(err, NB_E_NOMEM, "no memory for tensor '%s'", e->t->name);
    nb_block_by_id(e->t->type->id)->decode(e->t->data.data, raw, n);
    if (e->map.change == NB_ARCH_GGUF_ADD_ONE) {
        for (int64_t i = 0; i < n; i++) v[i] -= 1.0f;
    } else if (e->map.change == NB_ARCH_GGUF_PERMUTE_ROWS) {
        v = nb_arena_alloc(&table->arena, (size_t)n, sizeof *v);
        if (!v) return nb_fail(err, NB_E_NOMEM, "no memory for tensor '%s'", e->t->name);
        for (int64_t i = 0; i < n; i++) v[nb_arch_gguf_hf_row(n, e->map.heads, i)] = raw[i];
    }
    e->vector.dtype = NB_F32;
    e->vector.data = (struct nb_span){(const unsigned char *)v, (size_t)n * sizeof *v};
    return 0;
}

static int read_vector(struct nb_gguf_table *table, struct entry *e, struct nb_err *err)
{
    e->vector = (struct nb_tensor){.name = e->name, .rank = 1, .shape = {e->t->ne[0]}};
    if (dense_type(e->t, &e->vector.dtype) && e->map.change == NB_ARCH_GGUF_AS_IS) {
        e->vector.data = e->t->data;
        return 0;
    }
    int rc = need_readable(e->t, err);
    if (!rc && e->map.change == NB_ARCH_GGUF_PERMUTE_ROWS && e->t->ne[0] % (2 * e->map.heads)) {
        rc = nb_fail(err, NB_E_FORMAT, "tensor '%s': %" PRId64 " values are not %" PRId64 " heads",
                     e->t->name, e->t->ne[0], e->map.heads);
    }
    return rc ? rc : change_vector(table, e, err);
}

static int add_entry(struct nb_model *m, const struct nb_gguf_tensor *t, struct nb_err *err)
{
    struct nb_gguf_table *table = m->table;
    struct entry *e = &table->entries[table->n];
    int rank;
    int64_t shape[2];
    if (!strcmp(t->name, NB_ARCH_GGUF_ROPE_FREQS) || !strcmp(t->name, NB_ARCH_GGUF_ROPE_SHORT) ||
        !strcmp(t->name, NB_ARCH_GGUF_ROPE_LONG))
        return 0; /* is in the config */
    if (!nb_arch_gguf_to_hf(&m->arch, t->name, &e->map) ||
        !nb_arch_expected_shape(&m->arch, e->map.name, &rank, shape)) {
        return nb_fail(err, NB_E_FORMAT, "tensor '%s' is no part of a %s model", t->name,
                       m->arch.model_type);
    }
    const bool flat = rank != 2, swapped = e->map.change == NB_ARCH_GGUF_TRANSPOSE;
    const int64_t cols = flat || swapped ? shape[0] : shape[1];
    const int64_t rows = flat ? 1 : swapped ? shape[1] : shape[0];
    if (t->ne[0] != cols || t->ne[1] != rows || t->ne[2] != 1 || t->ne[3] != 1) {
        return nb_fail(err, NB_E_FORMAT,
                       "tensor '%s' has dimensions %" PRId64 " x %" PRId64 " x %" PRId64
                       " x %" PRId64 ", the metadata expect %" PRId64 " x %" PRId64,
                       t->name, t->ne[0], t->ne[1], t->ne[2], t->ne[3], cols, rows);
    }
    int rc = need_readable(t, err);
    if (rc) return rc;
    e->t = t;
    e->name = nb_arena_strdup(&table->arena, e->map.name);
    if (!e->name) return nb_fail(err, NB_E_NOMEM, "no memory for the names of the tensors");
    if (rank == 1) rc = read_vector(table, e, err);
    if (!rc) table->n++;
    return rc;
}

static int by_name(const void *a, const void *b)
{
    return strcmp(((const struct entry *)a)->name, ((const struct entry *)b)->name);
}

static struct entry *find(const struct nb_gguf_table *t, const char *name)
{
    size_t lo = 0, hi = t->n;
    while (lo < hi) {
        size_t mid = lo + (hi - lo) / 2;
        int c = strcmp(name, t->entries[mid].name);
        if (!c) return &t->entries[mid];
        if (c < 0) hi = mid;
        else lo = mid + 1;
    }
    return NULL;
}

struct need {
    const struct nb_model *m;
    struct nb_err *err;
};

static int need_part(void *ctx, const struct nb_part *part)
{
    const struct need *need = ctx;
    if (find(need->m->table, part->name)) return 0;
    struct nb_arch_gguf_tensor map = {.name = "?"};
    nb_arch_gguf_from_hf(&need->m->arch, part->name, &map);
    return nb_fail(need->err, NB_E_FORMAT, "tensor '%s' is missing", map.name);
}

int nb_gguf_table_open(struct nb_model *m, struct nb_err *err)
{
    int rc = read_config(m, err);
    if (rc) return rc;
    struct nb_gguf_table *t = m->table = nb_xalloc(sizeof *t);
    nb_arena_init(&t->arena);
    size_t n = nb_gguf_count(m->gguf);
    t->entries = nb_arena_calloc(&t->arena, n ? n : 1, sizeof *t->entries);
    if (!t->entries) return nb_fail(err, NB_E_NOMEM, "no memory for a table of %zu tensors", n);
    for (size_t i = 0; i < n && !rc; i++) rc = add_entry(m, nb_gguf_at(m->gguf, i), err);
    if (rc) return rc;
    qsort(t->entries, t->n, sizeof *t->entries, by_name);
    return nb_model_each_part(&m->arch, need_part, &(struct need){m, err});
}

/* ---- weights ---- */

int nb_gguf_table_vector(const struct nb_model *m, const char *name, struct nb_tensor *out,
                         struct nb_err *err)
{
    const struct entry *e = find(m->table, name);
    if (!e) return nb_fail(err, NB_E_FORMAT, "%s: tensor '%.160s' is missing", m->dir, name);
    if (e->vector.data.data) {
        *out = e->vector;
        return 0;
    }
    enum nb_dtype dtype;
    if (!dense_type(e->t, &dtype) || e->map.change != NB_ARCH_GGUF_AS_IS) {
        return nb_fail(err, NB_E_SPEC, "%s: tensor '%s' is %s%s, expected floats", m->dir,
                       e->t->name, e->t->type->name,
                       e->map.change == NB_ARCH_GGUF_AS_IS ? "" : " in another order of rows");
    }
    *out = (struct nb_tensor){.name = e->name,
                              .dtype = dtype,
                              .rank = 2,
                              .shape = {e->t->ne[1], e->t->ne[0]},
                              .data = e->t->data};
    return 0;
}

/* The matrix with its rows in Hugging Face's order. */
static int reorder(const struct entry *e, struct nb_arena *arena, struct nb_span *out,
                   struct nb_err *err)
{
    const int64_t rows = e->t->ne[1];
    const size_t row_bytes = e->t->data.bytes / (size_t)rows;
    if (rows % (2 * e->map.heads)) {
        return nb_fail(err, NB_E_FORMAT, "tensor '%s': %" PRId64 " rows are not %" PRId64 " heads",
                       e->t->name, rows, e->map.heads);
    }
    unsigned char *copy = nb_arena_alloc(arena, e->t->data.bytes, 1);
    if (!copy) return nb_fail(err, NB_E_NOMEM, "no memory for tensor '%s'", e->t->name);
    for (int64_t r = 0; r < rows; r++) {
        memcpy(copy + (size_t)nb_arch_gguf_hf_row(rows, e->map.heads, r) * row_bytes,
               e->t->data.data + (size_t)r * row_bytes, row_bytes);
    }
    *out = (struct nb_span){copy, e->t->data.bytes};
    return 0;
}

/* Kernels read floats at their natural alignment; a file may be packed more tightly. */
static int align(const struct entry *e, struct nb_arena *arena, struct nb_span *data,
                 struct nb_err *err)
{
    if ((uintptr_t)data->data % (unsigned)e->t->type->bytes == 0) return 0;
    unsigned char *copy = arena ? nb_arena_alloc(arena, data->bytes, 1) : NULL;
    if (!copy)
        return nb_fail(err, NB_E_NOMEM, "no memory to align tensor '%s' in memory", e->t->name);
    memcpy(copy, data->data, data->bytes);
    data->data = copy;
    return 0;
}

int nb_gguf_table_weight(const struct nb_model *m, const struct nb_module_ref *ref,
                         struct nb_arena *arena, struct nb_weight *out, struct nb_err *err)
{
    char name[NB_MODULE_NAME_MAX];
    snprintf(name, sizeof name, "%s.weight", ref->path);
    const struct entry *e = find(m->table, name);
    if (!e || e->t->ne[1] != ref->rows || e->t->ne[0] != ref->cols)
        return nb_fail(err, NB_E_FORMAT, "%s: tensor '%s' is missing", m->dir, name);
    const char *label = e->t->name;
    *out = (struct nb_weight){.name = label, .rows = ref->rows, .cols = ref->cols};
    struct nb_span data = e->t->data;
    int rc = 0;
    if (e->map.change == NB_ARCH_GGUF_PERMUTE_ROWS) rc = reorder(e, arena, &data, err);
    enum nb_dtype dtype;
    if (!rc && dense_type(e->t, &dtype)) {
        rc = align(e, arena, &data, err);
        out->dense = (struct nb_tensor){.name = e->name,
                                        .dtype = dtype,
                                        .rank = 2,
                                        .shape = {ref->rows, ref->cols},
                                        .data = data};
    } else {
        out->blocks = (struct nb_blocks){nb_block_by_id(e->t->type->id), data.data};
    }
    snprintf(name, sizeof name, "%s.bias", ref->path);
    const struct entry *bias = find(m->table, name);
    if (!rc && bias) out->bias = bias->vector;
    return rc;
}

/* ---- walks over the data ---- */

bool nb_gguf_tensor_is_finite(const struct nb_gguf_tensor *t, size_t *at)
{
    enum { PIECE = 8192, ID_MXFP4 = 39, EXPONENT_MASK = 0x7f800000 };
    const struct nb_block_type *type = nb_block_by_id(t->type->id);
    if (!type || !type->decode) return true;
    const size_t per_piece = PIECE / (size_t)type->elems, n = t->data.bytes / (size_t)type->bytes;
    float v[PIECE];
    for (size_t b = 0; b < n; b += per_piece) {
        const size_t blocks = n - b < per_piece ? n - b : per_piece;
        const unsigned char *p = t->data.data + b * (size_t)type->bytes;
        const size_t count = blocks * (size_t)type->elems;
        uint32_t bits, bad = 0;
        type->decode(p, v, (int64_t)count);
        for (size_t i = 0; i < count; i++) {
            memcpy(&bits, &v[i], sizeof bits);
            bad |= (bits & EXPONENT_MASK) == EXPONENT_MASK;
        }
        /* An exponent of 255 stands for no number, whatever the codes are. */
        for (size_t i = 0; type->id == ID_MXFP4 && i < blocks; i++)
            bad |= p[i * (size_t)type->bytes] == 255;
        if (!bad) continue;
        for (*at = 0; *at < count; ++*at) {
            memcpy(&bits, &v[*at], sizeof bits);
            if ((bits & EXPONENT_MASK) == EXPONENT_MASK) break;
        }
        *at = b * (size_t)type->elems + (*at < count ? *at : 0);
        return false;
    }
    return true;
}

int nb_gguf_scan_finite(const struct nb_model *m, struct nb_err *err)
{
    for (size_t i = 0; i < nb_gguf_count(m->gguf); i++) {
        const struct nb_gguf_tensor *t = nb_gguf_at(m->gguf, i);
        size_t at;
        if (!nb_gguf_tensor_is_finite(t, &at)) {
            return nb_fail(err, NB_E_FORMAT,
                           "%s: tensor '%s' (%s) holds no finite number at element %zu",
                           nb_gguf_part_path(m->gguf, t->part), t->name, t->type->name, at);
        }
        nb_gguf_drop(m->gguf, t);
    }
    return 0;
}

static int tensor_by_name(const void *a, const void *b)
{
    const struct nb_gguf_tensor *const *x = a, *const *y = b;
    return strcmp((*x)->name, (*y)->name);
}

int nb_gguf_identity(const struct nb_model *m, struct nb_sha256 *h, struct nb_err *err)
{
    const struct nb_gguf *g = m->gguf;
    for (size_t i = 0; i < nb_gguf_kv_count(g); i++) {
        const struct nb_gguf_kv *kv = nb_gguf_kv_at(g, i);
        if (!strncmp(kv->key, "split.", 6)) continue;
        nb_sha256_add(h, kv->key, strlen(kv->key) + 1);
        nb_sha256_add(h, &kv->type, sizeof kv->type);
        nb_sha256_add(h, kv->data.data, kv->data.bytes);
    }
    size_t n = nb_gguf_count(g);
    const struct nb_gguf_tensor **order = nb_alloc(n ? n : 1, sizeof(struct nb_gguf_tensor *));
    if (!order) return nb_fail(err, NB_E_NOMEM, "no memory to order %zu tensors", n);
    for (size_t i = 0; i < n; i++) order[i] = nb_gguf_at(g, i);
    qsort(order, n, sizeof(struct nb_gguf_tensor *), tensor_by_name);
    for (size_t i = 0; i < n; i++) {
        const struct nb_gguf_tensor *t = order[i];
        nb_sha256_add(h, t->name, strlen(t->name) + 1);
        nb_sha256_add(h, t->type->name, strlen(t->type->name) + 1);
        nb_sha256_add(h, t->ne, sizeof t->ne);
        nb_sha256_add(h, t->data.data, t->data.bytes);
        nb_gguf_drop(g, t);
    }
    nb_free(order);
    return 0;
}

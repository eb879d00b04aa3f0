/* SPDX-License-Identifier: Apache-2.0
 *
 * scan.c - walks over all the data of a model: NaN and Inf, and its identity. Pages are let go at once. */
#include "checkpoint/internal.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/file.h"

/* Index of the first element whose exponent bits are all ones, or n. Blocks, so that the inner loop has no
 * exit and can be vectorized. */
static size_t find_nonfinite16(const unsigned char *p, size_t n, uint16_t exponent)
{
    enum { BLOCK = 1024 };
    for (size_t i = 0; i < n; i += BLOCK) {
        size_t end = n - i < BLOCK ? n : i + BLOCK;
        unsigned bad = 0;
        for (size_t k = i; k < end; k++) {
            uint16_t h;
            memcpy(&h, p + 2 * k, 2);
            bad |= (h & exponent) == exponent;
        }
        for (size_t k = i; bad && k < end; k++) {
            uint16_t h;
            memcpy(&h, p + 2 * k, 2);
            if ((h & exponent) == exponent) return k;
        }
    }
    return n;
}

static size_t find_nonfinite32(const unsigned char *p, size_t n)
{
    const uint32_t exponent = 0x7f800000u;
    for (size_t i = 0; i < n; i++) {
        uint32_t u;
        memcpy(&u, p + 4 * i, 4);
        if ((u & exponent) == exponent) return i;
    }
    return n;
}

/* bitsandbytes may give the packed codes of a linear a float type: bytes all the same. */
static bool is_packed(const struct nb_model *m, const struct nb_tensor *t)
{
    static const char suffix[] = ".weight";
    char path[NB_MODULE_NAME_MAX];
    int n = snprintf(path, sizeof path, "%s", t->name);
    if (n < (int)sizeof suffix || n >= (int)sizeof path) return false;
    n -= (int)sizeof suffix - 1;
    if (strcmp(path + n, suffix)) return false;
    path[n] = '\0';
    return m->checkpoint->is_quantized(m, path);
}

static bool has_numbers(const struct nb_model *m, const struct nb_tensor *t)
{
    return nb_dtype_is_weight(t->dtype) && !is_packed(m, t);
}

/* Index of the first element of n that is not finite, or n. */
static size_t find_nonfinite(enum nb_dtype type, const unsigned char *data, size_t n)
{
    switch (type) {
    case NB_F16: return find_nonfinite16(data, n, 0x7c00);
    case NB_BF16: return find_nonfinite16(data, n, 0x7f80);
    case NB_F32: return find_nonfinite32(data, n);
    default: return n;
    }
}

/* Tensors are cut in pieces that all threads take; the first bad element by file order is reported. */
struct scan_piece {
    size_t tensor, from, n, bad; /* elements; bad: index in the piece, or n */
};

struct scan {
    const struct nb_model *m;
    struct scan_piece *pieces;
};

enum { SCAN_PIECE = 1 << 22 }; /* elements */

static void scan_piece(void *ctx, size_t piece, int thread)
{
    (void)thread;
    const struct scan *s = ctx;
    struct scan_piece *p = &s->pieces[piece];
    const struct nb_tensor *t = nb_safetensors_at(s->m->tensors, p->tensor);
    const size_t width = (size_t)nb_dtype_bits(t->dtype) / 8;
    const struct nb_span part = {t->data.data + p->from * width, p->n * width};
    p->bad = find_nonfinite(t->dtype, part.data, p->n);
    nb_safetensors_drop_part(s->m->tensors, t, part);
}

/* Fills pieces unless NULL; returns how many there are. */
static size_t cut_pieces(const struct nb_model *m, struct scan_piece *pieces)
{
    size_t n = 0;
    for (size_t i = 0; i < nb_safetensors_count(m->tensors); i++) {
        const struct nb_tensor *t = nb_safetensors_at(m->tensors, i);
        const size_t count = (size_t)nb_tensor_count(t);
        if (!has_numbers(m, t)) continue;
        for (size_t from = 0; from < count; from += SCAN_PIECE, n++) {
            const size_t left = count - from;
            if (!pieces) continue;
            pieces[n] = (struct scan_piece){
                .tensor = i, .from = from, .n = left < SCAN_PIECE ? left : SCAN_PIECE};
        }
    }
    return n;
}

static int report_nonfinite(const struct nb_model *m, const struct scan_piece *p,
                            struct nb_err *err)
{
    const struct nb_tensor *t = nb_safetensors_at(m->tensors, p->tensor);
    const size_t width = (size_t)nb_dtype_bits(t->dtype) / 8, at = p->from + p->bad;
    float v;
    nb_to_f32(&v, t->data.data + at * width, t->dtype, 1);
    return nb_fail(err, NB_E_FORMAT, "%s/%s: tensor '%.160s' holds %s at element %zu", m->dir,
                   nb_safetensors_file_of(m->tensors, t), t->name, v != v ? "NaN" : "Inf", at);
}

int nb_model_scan_finite(const struct nb_model *m, struct nb_pool *pool, struct nb_err *err)
{
    if (m->gguf) return nb_gguf_scan_finite(m, err);
    const size_t n = cut_pieces(m, NULL);
    struct scan s = {m, nb_calloc(n + 1, sizeof *s.pieces)};
    if (!s.pieces) return nb_fail(err, NB_E_NOMEM, "no memory for a list of %zu pieces", n);
    cut_pieces(m, s.pieces);
    nb_pool_run(pool, n, scan_piece, &s);
    int rc = 0;
    for (size_t i = 0; i < n && !rc; i++) {
        if (s.pieces[i].bad < s.pieces[i].n) rc = report_nonfinite(m, &s.pieces[i], err);
    }
    nb_free(s.pieces);
    return rc;
}

bool nb_model_tensor_is_finite(const struct nb_model *m, const char *name)
{
    const struct nb_tensor *t = m->tensors ? nb_safetensors_find(m->tensors, name) : NULL;
    if (!t || !has_numbers(m, t)) return true;
    bool finite = find_nonfinite(t->dtype, t->data.data, (size_t)nb_tensor_count(t)) ==
                  (size_t)nb_tensor_count(t);
    nb_safetensors_drop(m->tensors, t);
    return finite;
}

static int add_file(struct nb_sha256 *h, const char *dir, const char *name, bool required,
                    struct nb_err *err)
{
    char *path = nb_path_join(dir, name);
    struct nb_map map;
    int rc = 0;
    if (required || nb_path_exists(path)) {
        rc = nb_map_open(&map, path, err);
        if (!rc) {
            nb_sha256_add(h, name, strlen(name) + 1);
            nb_sha256_add(h, map.span.data, map.span.bytes);
            nb_map_close(&map);
        }
    }
    nb_free(path);
    return rc;
}

int nb_model_identity(const struct nb_model *m, char sha256[NB_SHA256_HEX], struct nb_err *err)
{
    struct nb_sha256 h;
    nb_sha256_init(&h);
    if (m->gguf) {
        int rc = nb_gguf_identity(m, &h, err);
        nb_sha256_finish(&h, sha256);
        return rc;
    }
    int rc = add_file(&h, m->dir, "config.json", true, err);
    if (!rc) rc = add_file(&h, m->dir, "quantize_config.json", false, err);
    if (!rc) rc = add_file(&h, m->dir, "quant_config.json", false, err);
    for (size_t i = 0; !rc && i < nb_safetensors_count(m->tensors); i++) {
        const struct nb_tensor *t = nb_safetensors_at(m->tensors, i);
        char head[64];
        nb_sha256_add(&h, t->name, strlen(t->name) + 1);
        int n = snprintf(head, sizeof head, "%s %d", nb_dtype_name(t->dtype), t->rank);
        nb_sha256_add(&h, head, (size_t)n + 1);
        nb_sha256_add(&h, t->shape, (size_t)t->rank * sizeof *t->shape);
        nb_sha256_add(&h, t->data.data, t->data.bytes);
        nb_safetensors_drop(m->tensors, t);
    }
    nb_sha256_finish(&h, sha256);
    return rc;
}

/* SPDX-License-Identifier: Apache-2.0
 *
 * ranges.c - see ranges.h. Source: algorithms, section 8; checkpoint formats, sections 5.6, 5.9, 6.2.
 *
 * A percentile comes from counts in bins that are even in the logarithm: the upper half of the bits of |x|, 1/256 of
 * its power of two apart. Counts are integers and maxima have no order, so results do not depend on threads. */
#include "pipeline/ranges.h"

#include <float.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/fp8.h"
#include "base/half.h"

enum {
    BIN_SHIFT = 15,
    BINS = 0x7f800000 >> BIN_SHIFT, /* of finite magnitudes */
    ROWS_AT_ONCE = 64,
    VALUES_AT_ONCE = 1 << 30 /* so that no count of a call overflows */
};

static const float unseen = 16.0f; /* magnitude of an input that no token reached */

struct nb_ranges {
    bool acts;
    double percentile; /* 0: the largest magnitude */
    int threads;
    float amax; /* of the input at hand */
    uint64_t seen, *bins;
    uint32_t *part; /* [threads, BINS] of one call */
    float *part_amax;
    float k_amax, v_amax; /* of the layer at hand */
};

/* ---- what is wanted ---- */

static bool is_static(enum nb_act_kind act)
{
    return act == NB_ACT_INT8_STATIC || act == NB_ACT_FP8_STATIC || act == NB_ACT_NVFP4;
}

static int allocate(struct nb_ranges *a, struct nb_err *err)
{
    if (a->percentile > 0) {
        a->bins = nb_calloc(BINS, sizeof *a->bins);
        a->part = nb_calloc((size_t)a->threads * BINS, sizeof *a->part);
    }
    a->part_amax = nb_calloc((size_t)a->threads, sizeof *a->part_amax);
    if (a->part_amax && (a->percentile <= 0 || (a->bins && a->part))) return 0;
    return nb_fail(err, NB_E_NOMEM, "no memory to measure activations");
}

int nb_ranges_open(struct nb_run *r, struct nb_err *err)
{
    const struct nb_recipe *p = &r->recipe;
    bool acts = false;
    for (size_t i = 0; i < p->n_modules && !r->file; i++) {
        acts = acts || (p->modules[i].quantized && is_static(p->modules[i].spec.act));
    }
    if (!acts && !p->kv_scales) return 0;
    struct nb_ranges *a = r->ranges = nb_xalloc(sizeof *a);
    a->acts = acts;
    a->percentile = acts && p->act_percentile < 100 ? p->act_percentile : 0;
    a->threads = nb_pool_threads(nb_backend_pool(r->be));
    return allocate(a, err);
}

void nb_ranges_close(struct nb_ranges *a)
{
    if (!a) return;
    nb_free(a->bins);
    nb_free(a->part);
    nb_free(a->part_amax);
    nb_free(a);
}

/* ---- measuring ---- */

struct look {
    struct nb_ranges *a;
    const float *x;
    int64_t rows, k;
    bool count;
};

static void look_piece(void *ctx, size_t piece, int thread)
{
    const struct look *l = ctx;
    const int64_t first = (int64_t)piece * ROWS_AT_ONCE;
    const int64_t rows = l->rows - first < ROWS_AT_ONCE ? l->rows - first : ROWS_AT_ONCE;
    const float *x = l->x + first * l->k;
    int32_t top = (int32_t)nb_f32_bits(l->a->part_amax[thread]);
    for (int64_t i = 0; i < rows * l->k; i++) {
        int32_t u = (int32_t)(nb_f32_bits(x[i]) & 0x7fffffffu);
        u = u < 0x7f800000 ? u : 0;
        top = u > top ? u : top;
    }
    l->a->part_amax[thread] = nb_f32_from_bits((uint32_t)top);
    uint32_t *part = l->count ? l->a->part + (size_t)thread * BINS : NULL;
    for (int64_t i = 0; part && i < rows * l->k; i++) {
        const uint32_t u = nb_f32_bits(x[i]) & 0x7fffffffu;
        if (u < 0x7f800000u) part[u >> BIN_SHIFT]++;
    }
}

/* Largest magnitude of finite elements of x [rows, k], and with count the bins. */
static float measure(struct nb_run *r, const float *x, int64_t rows, int64_t k, bool count)
{
    struct nb_ranges *a = r->ranges;
    struct look l = {a, x, rows, k, count};
    memset(a->part_amax, 0, (size_t)a->threads * sizeof *a->part_amax);
    nb_pool_run(nb_backend_pool(r->be), (size_t)((rows + ROWS_AT_ONCE - 1) / ROWS_AT_ONCE),
                look_piece, &l);
    float amax = 0.0f;
    for (int t = 0; t < a->threads; t++) amax = a->part_amax[t] > amax ? a->part_amax[t] : amax;
    return amax;
}

static void add_counts(struct nb_ranges *a)
{
    for (int t = 0; t < a->threads; t++) {
        uint32_t *part = a->part + (size_t)t * BINS;
        for (int b = 0; b < BINS; b++) {
            a->bins[b] += part[b];
            a->seen += part[b];
        }
        memset(part, 0, BINS * sizeof *part);
    }
}

void nb_ranges_add(struct nb_run *r, const float *x, int64_t rows, int64_t k)
{
    struct nb_ranges *a = r->ranges;
    if (!a || !a->acts) return;
    const int64_t most = VALUES_AT_ONCE / k;
    for (int64_t m = 0; m < rows; m += most) {
        const int64_t n = rows - m < most ? rows - m : most;
        const float amax = measure(r, x + m * k, n, k, a->percentile > 0);
        if (amax > a->amax) a->amax = amax;
        if (a->percentile > 0) add_counts(a);
    }
}

static void see_kv(void *ctx, const float *k, const float *v, int64_t n)
{
    struct nb_run *r = ctx;
    const float ka = measure(r, k, 1, n, false), va = measure(r, v, 1, n, false);
    if (ka > r->ranges->k_amax) r->ranges->k_amax = ka;
    if (va > r->ranges->v_amax) r->ranges->v_amax = va;
}

void nb_ranges_begin(struct nb_run *r, struct nb_layer *layer, enum nb_input input)
{
    struct nb_ranges *a = r->ranges;
    if (!a) return;
    a->amax = 0.0f;
    a->seen = 0;
    if (a->bins) memset(a->bins, 0, BINS * sizeof *a->bins);
    if (input != NB_INPUT_O || !r->recipe.kv_scales) return;
    a->k_amax = a->v_amax = 0.0f;
    nb_layer_watch_kv(layer, see_kv, r);
}

/* ---- scales ---- */

/* Magnitude that the given share of what was seen does not exceed. */
static float reach(const struct nb_ranges *a)
{
    if (a->percentile <= 0) return a->amax;
    const double wanted = a->percentile / 100.0 * (double)a->seen;
    uint64_t below = 0;
    for (uint32_t b = 0; b < BINS; b++) {
        below += a->bins[b];
        if (!a->bins[b] || (double)below < wanted) continue;
        const float edge = nb_f32_from_bits((b + 1) << BIN_SHIFT);
        return edge < a->amax ? edge : a->amax;
    }
    return a->amax;
}

void nb_ranges_input_scale(const struct nb_run *r, struct nb_qmat *q)
{
    if (!r->ranges || !is_static(q->spec.act)) return;
    float amax = reach(r->ranges);
    if (!(amax >= FLT_MIN)) amax = unseen;
    if (q->spec.act == NB_ACT_INT8_STATIC) q->input_scale = amax / 127.0f;
    else if (q->spec.act == NB_ACT_FP8_STATIC) q->input_scale = amax / NB_E4M3_MAX;
    else q->input_scale = 1.0f / amax * (NB_E4M3_MAX * 6.0f); /* divides; as torch does it */
    if (!(q->input_scale >= FLT_MIN && q->input_scale <= FLT_MAX)) q->input_scale = 1.0f;
}

/* ---- the KV cache ---- */

/* "model.layers.3.self_attn.k_scale": beside the output projection. */
static void kv_name(const struct nb_arch *arch, int64_t layer, char which,
                    char out[NB_NAME_MAX * 2])
{
    int n;
    const struct nb_arch_linear *lin = nb_arch_layer_linears(arch, layer, &n);
    char inside[NB_NAME_MAX + 16] = "";
    for (int i = 0; i < n; i++) {
        if (lin[i].role != NB_ROLE_O) continue;
        const char *dot = strrchr(lin[i].name, '.');
        const int length = dot ? (int)(dot - lin[i].name) + 1 : 0;
        snprintf(inside, sizeof inside, "%.*s%c_scale", length, lin[i].name, which);
    }
    nb_arch_name(arch, layer, inside, out);
}

int nb_ranges_plan_kv(struct nb_run *r, struct nb_err *err)
{
    const int64_t one = 1;
    char name[NB_NAME_MAX * 2];
    int rc = 0;
    for (int64_t l = 0; r->recipe.kv_scales && l < r->model->arch.n_layers && !rc; l++) {
        kv_name(&r->model->arch, l, 'k', name);
        rc = nb_st_writer_plan(r->writer, name, NB_F32, 1, &one, err);
        kv_name(&r->model->arch, l, 'v', name);
        if (!rc) rc = nb_st_writer_plan(r->writer, name, NB_F32, 1, &one, err);
    }
    return rc;
}

static int put_scale(struct nb_run *r, int64_t layer, char which, float amax, struct nb_err *err)
{
    char name[NB_NAME_MAX * 2];
    const float scale = (amax >= FLT_MIN * NB_E4M3_MAX ? amax : unseen) / NB_E4M3_MAX;
    kv_name(&r->model->arch, layer, which, name);
    return nb_st_writer_put(r->writer, name, &scale, sizeof scale, err);
}

int nb_ranges_put_kv(struct nb_run *r, int64_t layer, struct nb_err *err)
{
    if (!r->recipe.kv_scales) return 0;
    int rc = put_scale(r, layer, 'k', r->ranges->k_amax, err);
    return rc ? rc : put_scale(r, layer, 'v', r->ranges->v_amax, err);
}

int nb_ranges_mark_kv(struct nb_run *r, int64_t layer, struct nb_err *err)
{
    char name[NB_NAME_MAX * 2];
    if (!r->recipe.kv_scales) return 0;
    kv_name(&r->model->arch, layer, 'k', name);
    int rc = nb_st_writer_mark(r->writer, name, err);
    kv_name(&r->model->arch, layer, 'v', name);
    return rc ? rc : nb_st_writer_mark(r->writer, name, err);
}

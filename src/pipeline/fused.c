/* SPDX-License-Identifier: Apache-2.0
 *
 * fused.c - what matrices that engines join into one must have in common. Source: checkpoint formats, section 6.2. */
#include <math.h>

#include "pipeline/layer.h"

enum { PIECE = 1 << 16 }; /* weights of a maximum taken at once */

struct maxima {
    const float *w;
    int64_t n;
    float *of; /* [pieces] */
};

static void max_piece(void *ctx, size_t piece, int thread)
{
    (void)thread;
    const struct maxima *m = ctx;
    const int64_t from = (int64_t)piece * PIECE, to = from + PIECE < m->n ? from + PIECE : m->n;
    float a = 0.0f;
    for (int64_t i = from; i < to; i++) {
        const float v = fabsf(m->w[i]);
        a = v > a ? v : a;
    }
    m->of[piece] = a;
}

static float largest(struct nb_run *r, const float *w, int64_t n)
{
    const size_t pieces = (size_t)((n + PIECE - 1) / PIECE);
    struct maxima m = {w, n, nb_xalloc(pieces * sizeof *m.of)};
    nb_pool_run(nb_backend_pool(r->be), pieces, max_piece, &m);
    float a = 0.0f;
    for (size_t i = 0; i < pieces; i++) a = m.of[i] > a ? m.of[i] : a;
    nb_free(m.of);
    return a;
}

/* Linears that read one input are fused, but for those of other experts. */
static bool are_fused(const struct nb_arch_linear *a, const struct nb_arch_linear *b)
{
    return a->input == b->input && a->branch == b->branch && a->expert == b->expert;
}

/* One scale for all rows, or one above all scales. */
static bool has_matrix_scale(const struct nb_qspec *spec, const struct nb_arch_linear *lin)
{
    const bool whole = spec->group_rows > 1 && spec->group_rows >= lin->rows &&
                       (spec->group_cols <= 0 || spec->group_cols >= lin->cols);
    return whole || (spec->super_flat && spec->super_divides);
}

float nb_layer_fused_amax(struct nb_run *r, struct nb_layer_work *w, int i)
{
    const struct nb_arch *arch = &r->model->arch;
    const struct nb_arch_linear *lin = &w->linears[i];
    const struct nb_module_spec *m = nb_recipe_module(&r->recipe, arch, w->index, i);
    if (!has_matrix_scale(&m->spec, lin)) return 0.0f;
    int first = 0;
    while (!are_fused(&w->linears[first], lin)) first++;
    if (w->fused_first == first) return w->fused_amax;
    w->fused_first = first;
    w->fused_amax = 0.0f;
    for (int k = first; k < w->n_linears; k++) {
        if (!are_fused(&w->linears[k], lin) || !w->w[k] ||
            !nb_recipe_module(&r->recipe, arch, w->index, k)->quantized)
            continue;
        const float a = largest(r, w->w[k], w->linears[k].rows * w->linears[k].cols);
        w->fused_amax = a > w->fused_amax ? a : w->fused_amax;
    }
    return w->fused_amax;
}

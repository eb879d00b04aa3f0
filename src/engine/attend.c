/* SPDX-License-Identifier: Apache-2.0
 *
 * attend.c - attention of one layer: project, normalize and rotate q and k, look at what was fed before
 * and now.
 *
 * Keys and values go to the cache, queries to scratch. A fused matrix gives a row with q, k and v side by
 * side: q is used where it lies, k and v are copied out. */
#include <assert.h>
#include <string.h>

#include "engine/layer.h"

struct heads { /* of the t tokens fed now */
    float *q, *k, *v;
    int64_t ldq, ldkv;
};

static void project(struct nb_layer *l, const struct nb_pass *p, const float *x, struct heads *out)
{
    const struct nb_arch *a = l->arch;
    const int64_t q_width = a->n_heads * a->head_dim, kv = a->n_kv_heads * a->head_dim;
    *out = (struct heads){.q = p->scratch,
                          .k = p->k + p->past * kv,
                          .v = p->v + p->past * kv,
                          .ldq = q_width,
                          .ldkv = kv};
    if (l->by_role[NB_ROLE_QKV] < 0) {
        const struct nb_linear_out outs[] = {
            {nb_layer_linear(l, NB_ROLE_Q), out->q, q_width},
            {nb_layer_linear(l, NB_ROLE_K), out->k, kv},
            {nb_layer_linear(l, NB_ROLE_V), out->v, kv},
        };
        nb_linears_run(l->be, outs, 3, x, p->t, a->hidden_size);
        return;
    }
    assert(!a->qk_norm);
    out->ldq = q_width + 2 * kv;
    const struct nb_linear_out fused = {nb_layer_linear(l, NB_ROLE_QKV), out->q, out->ldq};
    nb_linear_run(l->be, &fused, x, p->t, a->hidden_size);
    for (int64_t t = 0; t < p->t; t++) {
        const float *row = out->q + t * out->ldq + q_width;
        memcpy(out->k + t * kv, row, (size_t)kv * sizeof *row);
        memcpy(out->v + t * kv, row + kv, (size_t)kv * sizeof *row);
    }
}

/* Head by head, or with qk_norm_whole all heads of a token at once. */
static void normalize(struct nb_layer *l, const struct nb_pass *p, const struct heads *heads)
{
    const struct nb_arch *a = l->arch;
    const int64_t q = nb_arch_qk_norm_width(a, false), k = nb_arch_qk_norm_width(a, true);
    nb_rmsnorm(l->be, &(struct nb_norm){.weight = l->q_norm, .d = q, .eps = a->rms_norm_eps},
               heads->q, heads->q, p->t * heads->ldq / q);
    nb_rmsnorm(l->be, &(struct nb_norm){.weight = l->k_norm, .d = k, .eps = a->rms_norm_eps},
               heads->k, heads->k, p->t * heads->ldkv / k);
}

static void rotate(struct nb_layer *l, const struct nb_pass *p, const struct heads *heads)
{
    const struct nb_arch *a = l->arch;
    const struct nb_rope_angles *angles =
        nb_arch_uses_local_rope(a, l->index) ? &p->rope->local : &p->rope->all;
    struct nb_rope_rows rows = {.x = heads->q,
                                .m = p->t,
                                .ldx = heads->ldq,
                                .n_heads = a->n_heads,
                                .head_dim = a->head_dim,
                                .cos_t = angles->cos_t,
                                .sin_t = angles->sin_t,
                                .rotary_dim = a->rotary_dim};
    nb_rope_apply(l->be, &rows);
    rows.x = heads->k;
    rows.ldx = heads->ldkv;
    rows.n_heads = a->n_kv_heads;
    nb_rope_apply(l->be, &rows);
}

void nb_layer_attend(struct nb_layer *l, const struct nb_pass *p, const float *x, float *y)
{
    const struct nb_arch *a = l->arch;
    struct heads heads;
    project(l, p, x, &heads);
    if (a->qk_norm) normalize(l, p, &heads);
    if (nb_arch_uses_rope(a, l->index)) rotate(l, p, &heads);
    nb_attention_run(l->be, &(struct nb_attention){.q = heads.q,
                                                   .k = p->k,
                                                   .v = p->v,
                                                   .out = y,
                                                   .n_q = p->t,
                                                   .n_kv = p->past + p->t,
                                                   .ldq = heads.ldq,
                                                   .ldkv = heads.ldkv,
                                                   .ldo = a->n_heads * a->head_dim,
                                                   .n_heads = a->n_heads,
                                                   .n_kv_heads = a->n_kv_heads,
                                                   .head_dim = a->head_dim,
                                                   .window = a->window[l->index],
                                                   .scale = (float)a->attn_scale,
                                                   .softcap = (float)a->attn_softcap});
}

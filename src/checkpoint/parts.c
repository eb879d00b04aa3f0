/* SPDX-License-Identifier: Apache-2.0
 *
 * parts.c - the tensors that an architecture is made of, one after another. */
#include <stdio.h>
#include <string.h>

#include "checkpoint/internal.h"

int nb_model_norms(const struct nb_arch *a, const char *names[NB_MAX_NORMS])
{
    const char *const all[NB_MAX_NORMS] = {a->attn_norm_name,      a->mlp_norm_name,
                                           a->q_norm_name,         a->k_norm_name,
                                           a->post_attn_norm_name, a->post_mlp_norm_name,
                                           a->attn_norm_bias_name, a->mlp_norm_bias_name};
    int n = 0;
    for (int i = 0; i < NB_MAX_NORMS; i++) {
        if (all[i][0]) names[n++] = all[i];
    }
    return n;
}

static int call(const struct nb_arch *a, struct nb_part *p, nb_part_fn fn, void *ctx)
{
    int rank;
    int64_t shape[2];
    if (!nb_arch_expected_shape(a, p->name, &rank, shape)) return 0;
    if (p->kind == NB_PART_WEIGHT) {
        int n;
        const struct nb_arch_linear *lin = &nb_arch_layer_linears(a, p->layer, &n)[p->linear];
        shape[0] = lin->rows;
        shape[1] = lin->cols;
    }
    p->rows = rank == 2 ? shape[0] : 1;
    p->cols = rank == 2 ? shape[1] : shape[0];
    return fn(ctx, p);
}

static int outside(const struct nb_arch *a, enum nb_part_kind kind, const char *name, nb_part_fn fn,
                   void *ctx)
{
    struct nb_part p = {.kind = kind, .layer = -1, .linear = -1};
    snprintf(p.name, sizeof p.name, "%s", name);
    return call(a, &p, fn, ctx);
}

static int linear(const struct nb_arch *a, int64_t l, int i, nb_part_fn fn, void *ctx)
{
    int n;
    const struct nb_arch_linear *lin = &nb_arch_layer_linears(a, l, &n)[i];
    struct nb_part p = {.kind = NB_PART_WEIGHT, .layer = l, .linear = i};
    char inside[NB_NAME_MAX + 8];
    snprintf(inside, sizeof inside, "%s.weight", lin->name);
    nb_arch_name(a, l, inside, p.name);
    int rc = call(a, &p, fn, ctx);
    if (rc || !lin->bias) return rc;
    p.kind = NB_PART_BIAS;
    snprintf(inside, sizeof inside, "%s.bias", lin->name);
    nb_arch_name(a, l, inside, p.name);
    return call(a, &p, fn, ctx);
}

static int layer(const struct nb_arch *a, int64_t l, nb_part_fn fn, void *ctx)
{
    const char *norms[NB_MAX_NORMS];
    int rc = 0, n = nb_model_norms(a, norms);
    for (int i = 0; i < n && !rc; i++) {
        struct nb_part p = {.kind = NB_PART_NORM, .layer = l, .linear = -1};
        nb_arch_name(a, l, norms[i], p.name);
        rc = call(a, &p, fn, ctx);
    }
    for (int i = 0; i < nb_arch_count_linears(a, l) && !rc; i++) rc = linear(a, l, i, fn, ctx);
    if (rc || !nb_arch_has_experts(a, l)) return rc;
    struct nb_part p = {.kind = NB_PART_ROUTER, .layer = l, .linear = -1};
    nb_arch_name(a, l, a->moe->router_name, p.name);
    rc = call(a, &p, fn, ctx);
    if (rc || !a->moe->shared_size) return rc;
    nb_arch_name(a, l, a->moe->shared_gate_name, p.name);
    return call(a, &p, fn, ctx);
}

int nb_model_each_part(const struct nb_arch *a, nb_part_fn fn, void *ctx)
{
    int rc = outside(a, NB_PART_EMBEDDING, a->embed_name, fn, ctx);
    if (!rc && *a->position_name) rc = outside(a, NB_PART_POSITIONS, a->position_name, fn, ctx);
    for (int64_t l = 0; l < a->n_layers && !rc; l++) rc = layer(a, l, fn, ctx);
    if (!rc) rc = outside(a, NB_PART_NORM, a->norm_name, fn, ctx);
    if (!rc && a->layer_norm) rc = outside(a, NB_PART_NORM, a->norm_bias_name, fn, ctx);
    if (!rc && !a->tie_word_embeddings) rc = outside(a, NB_PART_HEAD, a->head_name, fn, ctx);
    return rc;
}

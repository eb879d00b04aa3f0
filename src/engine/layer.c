/* SPDX-License-Identifier: Apache-2.0
 *
 * layer.c - a decoder layer: loading it, replacing parts of it, and its four inputs in order.
 *
 * Whole-model runs, sessions and the quantization pipeline all go through nb_layer_pass, one
 * sequence at a time, so their results are the same bits when the weights are the same. */
#include "engine/layer.h"

#include <assert.h>
#include <inttypes.h>
#include <string.h>

#include "base/mem.h"
#include "engine/moe.h"

int64_t nb_input_width(const struct nb_arch *arch, enum nb_input input)
{
    switch (input) {
    case NB_INPUT_O: return arch->n_heads * arch->head_dim;
    case NB_INPUT_DOWN: {
        int64_t width = arch->moe ? 0 : arch->intermediate_size;
        for (int64_t l = 0; arch->moe && l < arch->n_layers; l++) {
            const int64_t w =
                nb_arch_has_experts(arch, l) ? arch->hidden_size : arch->intermediate_size;
            if (w > width) width = w;
        }
        return width;
    }
    default: return arch->hidden_size;
    }
}

int64_t nb_layer_input_width(const struct nb_layer *l, enum nb_input input)
{
    if (input != NB_INPUT_DOWN) return nb_input_width(l->arch, input);
    return nb_arch_has_experts(l->arch, l->index) ? l->arch->hidden_size
                                                  : l->arch->intermediate_size;
}

int64_t nb_pass_width(const struct nb_arch *arch)
{
    int64_t width = 0;
    for (int i = 0; i < NB_INPUT_COUNT; i++) {
        int64_t w = nb_input_width(arch, (enum nb_input)i);
        if (w > width) width = w;
    }
    return width;
}

int64_t nb_pass_scratch_floats(const struct nb_arch *arch)
{
    static const enum nb_role fused[] = {NB_ROLE_QKV, NB_ROLE_GATE_UP};
    int64_t width = nb_pass_width(arch); /* q, or what o or down gives, or up: one at a time */
    for (size_t i = 0; i < sizeof fused / sizeof *fused; i++) {
        const struct nb_arch_linear *lin = nb_arch_linear_of(arch, fused[i]);
        if (lin && lin->rows > width) width = lin->rows;
    }
    const int64_t experts = nb_moe_scratch_floats(arch);
    return experts > width ? experts : width;
}

/* ---- loading ---- */

static int load_linears(struct nb_layer *l, const struct nb_model *model, struct nb_err *err)
{
    struct nb_arena
        codes; /* unpacked, of one matrix at a time; then the linear has its own form of them */
    struct nb_arena *arena = model->quant_config ? &codes : &l->arena;
    nb_arena_init(&codes);
    nb_arena_init(&l->arena);
    l->plan = nb_arch_layer_linears(l->arch, l->index, &l->n_linears);
    for (int i = 0; i < NB_ROLE_COUNT; i++) l->by_role[i] = -1;
    l->linears = nb_calloc((size_t)l->n_linears, sizeof *l->linears);
    int rc = l->linears ? 0 : nb_fail(err, NB_E_NOMEM, "no memory for %d linears", l->n_linears);
    for (int i = 0; i < l->n_linears && !rc; i++) {
        const struct nb_arch_linear *lin = &l->plan[i];
        struct nb_weight w;
        rc = nb_model_linear(model, l->index, lin, arena, &w, err);
        if (!rc && lin->transposed && !w.q && !w.blocks.data && arena == &codes) /* was copied */
            rc = nb_model_linear(model, l->index, lin, &l->arena, &w, err);
        if (!rc) rc = nb_linear_init(&l->linears[i], l->be, &w, err);
        if (lin->branch == NB_BRANCH_MAIN) l->by_role[lin->role] = i;
        nb_arena_reset(&codes);
    }
    nb_arena_release(&codes);
    return rc;
}

int nb_layer_load(struct nb_layer **out, const struct nb_model *model, int64_t index,
                  struct nb_backend *be, struct nb_err *err)
{
    struct nb_layer *l = nb_xalloc(sizeof *l);
    l->arch = &model->arch;
    l->be = be;
    l->index = index;
    int rc = nb_layer_load_norms(l, model, err);
    if (!rc) rc = load_linears(l, model, err);
    if (!rc) rc = nb_moe_load(l, model, err);
    if (rc) {
        nb_layer_free(l);
        l = NULL;
    }
    *out = l;
    return rc;
}

void nb_layer_free(struct nb_layer *l)
{
    if (!l) return;
    for (int i = 0; l->linears && i < l->n_linears; i++) nb_linear_release(&l->linears[i]);
    nb_free(l->linears);
    nb_moe_release(l);
    nb_free(l->attn_norm);
    nb_free(l->attn_norm_bias);
    nb_free(l->mlp_norm);
    nb_free(l->mlp_norm_bias);
    nb_free(l->post_attn_norm);
    nb_free(l->post_mlp_norm);
    nb_free(l->q_norm);
    nb_free(l->k_norm);
    nb_rope_table_release(&l->rope);
    nb_arena_release(&l->arena);
    nb_free(l->scratch);
    nb_free(l);
}

int nb_layer_replace(struct nb_layer *l, int i, const float *w, const float *bias,
                     struct nb_err *err)
{
    const struct nb_arch_linear *lin = &l->plan[i];
    struct nb_linear fresh;
    const struct nb_fmat matrix = {
        .data = (float *)w, .rows = lin->rows, .cols = lin->cols, .ld = lin->cols};
    int rc = nb_linear_init_f32(&fresh, l->be, lin->name, &matrix, bias, err);
    if (rc) return rc;
    nb_linear_release(&l->linears[i]);
    l->linears[i] = fresh;
    return 0;
}

/* ---- computing ---- */

const struct nb_linear *nb_layer_linear(const struct nb_layer *l, enum nb_role role)
{
    return &l->linears[l->by_role[role]];
}

enum nb_act_fn nb_layer_act_fn(enum nb_hidden_act act)
{
    switch (act) {
    case NB_HIDDEN_ACT_GELU: return NB_ACT_FN_GELU;
    case NB_HIDDEN_ACT_GELU_TANH: return NB_ACT_FN_GELU_TANH;
    case NB_HIDDEN_ACT_RELU: return NB_ACT_FN_RELU;
    default: return NB_ACT_FN_SILU;
    }
}

/* h += linear(x), normalized first where the architecture says so */
static void add_linear(struct nb_layer *l, enum nb_role role, const struct nb_pass *p, float *h,
                       const float *x)
{
    const float *post = role == NB_ROLE_O ? l->post_attn_norm : l->post_mlp_norm;
    const struct nb_linear *lin = nb_layer_linear(l, role);
    nb_linear_run(l->be, &(struct nb_linear_out){lin, p->scratch, lin->w.rows}, x, p->t,
                  lin->w.cols);
    if (post) {
        const struct nb_norm norm = {
            .weight = post, .d = lin->w.rows, .eps = l->arch->rms_norm_eps};
        nb_rmsnorm(l->be, &norm, p->scratch, p->scratch, p->t);
    }
    nb_residual_add(l->be, h, p->scratch, p->t * lin->w.rows);
}

/* y = act(gate) * up, or without a gate act(up). */
static void run_mlp(struct nb_layer *l, const struct nb_pass *p, const float *x, float *y)
{
    const struct nb_arch *a = l->arch;
    const int64_t ff = a->intermediate_size;
    const enum nb_act_fn act = nb_layer_act_fn(a->hidden_act);
    if (l->by_role[NB_ROLE_GATE_UP] >= 0) {
        const struct nb_linear_out fused = {nb_layer_linear(l, NB_ROLE_GATE_UP), p->scratch,
                                            2 * ff};
        nb_linear_run(l->be, &fused, x, p->t, a->hidden_size);
        nb_gated_act_fused(l->be, y, p->scratch, p->t, ff, act);
        return;
    }
    if (l->by_role[NB_ROLE_GATE] < 0) {
        const struct nb_linear_out up = {nb_layer_linear(l, NB_ROLE_UP), y, ff};
        nb_linear_run(l->be, &up, x, p->t, a->hidden_size);
        nb_act(l->be, y, y, p->t * ff, act);
        return;
    }
    const struct nb_linear_out outs[] = {{nb_layer_linear(l, NB_ROLE_GATE), y, ff},
                                         {nb_layer_linear(l, NB_ROLE_UP), p->scratch, ff}};
    nb_linears_run(l->be, outs, 2, x, p->t, a->hidden_size);
    nb_gated_act(l->be, y, y, p->scratch, p->t * ff, act);
}

void nb_layer_pass(struct nb_layer *l, enum nb_input input, const struct nb_pass *p, float *h,
                   const float *x, float *y)
{
    switch (input) {
    case NB_INPUT_ATTN: nb_layer_input_norm(l, input, y, h, p->t); break;
    case NB_INPUT_O: nb_layer_attend(l, p, x, y); break;
    case NB_INPUT_MLP:
        add_linear(l, NB_ROLE_O, p, h, x);
        nb_layer_input_norm(l, input, y, h, p->t);
        break;
    case NB_INPUT_DOWN:
        if (nb_arch_has_experts(l->arch, l->index)) nb_moe_pass(l, p, x, y);
        else run_mlp(l, p, x, y);
        break;
    case NB_INPUT_COUNT: break;
    }
}

void nb_layer_pass_finish(struct nb_layer *l, const struct nb_pass *p, float *h, const float *x)
{
    if (nb_arch_has_experts(l->arch, l->index))
        nb_residual_add(l->be, h, x, p->t * l->arch->hidden_size);
    else add_linear(l, NB_ROLE_DOWN, p, h, x);
}

/* ---- the layer API: windows one after the other ---- */

static int reserve(struct nb_layer *l, int64_t t, struct nb_err *err)
{
    int rc = nb_rope_table_reserve(&l->rope, l->arch, t, err);
    if (rc) return rc;
    nb_rope_table_fill(&l->rope, l->arch, 0, t, t);
    if (t <= l->scratch_tokens) return 0;
    int64_t per_token =
        nb_pass_scratch_floats(l->arch) + 2 * l->arch->n_kv_heads * l->arch->head_dim;
    size_t floats;
    nb_free(l->scratch);
    l->scratch_tokens = 0;
    l->scratch =
        nb_mul((size_t)t, (size_t)per_token, &floats) ? nb_alloc(floats, sizeof *l->scratch) : NULL;
    if (!l->scratch)
        return nb_fail(err, NB_E_NOMEM, "no memory for a window of %" PRId64 " tokens", t);
    l->scratch_tokens = t;
    return 0;
}

static struct nb_pass pass_of(const struct nb_layer *l, int64_t t)
{
    const int64_t kv = t * l->arch->n_kv_heads * l->arch->head_dim;
    return (struct nb_pass){.t = t,
                            .rope = &l->rope,
                            .k = l->scratch,
                            .v = l->scratch + kv,
                            .scratch = l->scratch + 2 * kv};
}

int nb_layer_step(struct nb_layer *l, enum nb_input input, const struct nb_layer_io *io,
                  struct nb_err *err)
{
    int rc = reserve(l, io->t, err);
    if (rc) return rc;
    const struct nb_pass p = pass_of(l, io->t);
    const int64_t hidden = l->arch->hidden_size, to = nb_layer_input_width(l, input);
    const int64_t from =
        input == NB_INPUT_ATTN ? 0 : nb_layer_input_width(l, (enum nb_input)(input - 1));
    for (int64_t w = 0; w < io->n_windows; w++) {
        const float *in = from ? io->x + w * io->t * from : NULL;
        nb_layer_pass(l, input, &p, io->h + w * io->t * hidden, in, io->y + w * io->t * to);
        if (l->kv_fn && input == NB_INPUT_O)
            l->kv_fn(l->kv_ctx, p.k, p.v, io->t * l->arch->n_kv_heads * l->arch->head_dim);
    }
    return 0;
}

void nb_layer_watch_kv(struct nb_layer *l, nb_layer_kv_fn fn, void *ctx)
{
    l->kv_fn = fn;
    l->kv_ctx = ctx;
}

int nb_layer_finish(struct nb_layer *l, float *h, const float *x, int64_t n_windows, int64_t t,
                    struct nb_err *err)
{
    int rc = reserve(l, t, err);
    if (rc) return rc;
    const struct nb_pass p = pass_of(l, t);
    const int64_t hidden = l->arch->hidden_size, from = nb_layer_input_width(l, NB_INPUT_DOWN);
    for (int64_t w = 0; w < n_windows; w++)
        nb_layer_pass_finish(l, &p, h + w * t * hidden, x + w * t * from);
    return 0;
}

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

int64_t nb_input_width(const struct nb_arch *arch, enum nb_input input)
{
    switch (input) {
    case NB_INPUT_O: return arch->n_heads * arch->head_dim;
    case NB_INPUT_DOWN: return arch->intermediate_size;
    default: return arch->hidden_size;
    }
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
    return nb_pass_width(arch); /* q, or what o or down gives, or up: one at a time */
}

/* ---- loading ---- */

int nb_model_norm_weight(float **out, const struct nb_model *model, const char *name, int64_t n,
                         struct nb_err *err)
{
    struct nb_tensor t;
    int rc = nb_model_tensor(model, name, &t, err);
    if (rc) return rc;
    if (nb_tensor_count(&t) != n) {
        return nb_fail(err, NB_E_FORMAT, "tensor '%s' has %" PRId64 " values, expected %" PRId64,
                       name, nb_tensor_count(&t), n);
    }
    *out = nb_alloc((size_t)n, sizeof **out);
    if (!*out) return nb_fail(err, NB_E_NOMEM, "no memory for tensor '%s'", name);
    if (nb_to_f32(*out, t.data.data, t.dtype, (size_t)n)) {
        const float offset = (float)model->arch.norm_offset;
        for (int64_t i = 0; offset != 0 && i < n; i++) (*out)[i] += offset;
        return 0;
    }
    nb_free(*out);
    *out = NULL;
    return nb_fail(err, NB_E_SPEC, "tensor '%s' is %s, expected F32, F16 or BF16", name,
                   nb_dtype_name(t.dtype));
}

int nb_layer_norm_weight(float **out, const struct nb_model *model, int64_t index, const char *name,
                         int64_t n, struct nb_err *err)
{
    char full[NB_NAME_MAX * 2];
    nb_arch_name(&model->arch, index, name, full);
    return nb_model_norm_weight(out, model, full, n, err);
}

static int load_norms(struct nb_layer *l, const struct nb_model *model, struct nb_err *err)
{
    const struct nb_arch *a = l->arch;
    const struct {
        float **at;
        const char *name;
        int64_t n;
        bool has;
    } norms[] = {
        {&l->attn_norm, a->attn_norm_name, a->hidden_size, true},
        {&l->post_attn_norm, a->post_attn_norm_name, a->hidden_size, a->post_norm},
        {&l->mlp_norm, a->mlp_norm_name, a->hidden_size, true},
        {&l->post_mlp_norm, a->post_mlp_norm_name, a->hidden_size, a->post_norm},
        {&l->q_norm, a->q_norm_name, a->head_dim, a->qk_norm},
        {&l->k_norm, a->k_norm_name, a->head_dim, a->qk_norm},
    };
    int rc = 0;
    for (size_t i = 0; i < sizeof norms / sizeof *norms && !rc; i++) {
        if (!norms[i].has) continue;
        rc = nb_layer_norm_weight(norms[i].at, model, l->index, norms[i].name, norms[i].n, err);
    }
    return rc;
}

static int load_linears(struct nb_layer *l, const struct nb_model *model, struct nb_err *err)
{
    struct nb_arena
        codes; /* unpacked, of one matrix at a time; then the linear has its own form of them */
    struct nb_arena *arena = model->quant_config ? &codes : &l->arena;
    nb_arena_init(&codes);
    nb_arena_init(&l->arena);
    int rc = 0;
    for (int i = 0; i < l->arch->n_linears && !rc; i++) {
        const struct nb_arch_linear *lin = &l->arch->linears[i];
        struct nb_weight w;
        rc = nb_model_linear(model, l->index, lin, arena, &w, err);
        if (!rc) rc = nb_linear_init(&l->linears[i], l->be, &w, err);
        l->by_role[lin->role] = i;
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
    int rc = load_norms(l, model, err);
    if (!rc) rc = load_linears(l, model, err);
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
    for (int i = 0; i < l->arch->n_linears; i++) nb_linear_release(&l->linears[i]);
    nb_free(l->attn_norm);
    nb_free(l->mlp_norm);
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
    const struct nb_arch_linear *lin = &l->arch->linears[i];
    struct nb_linear fresh;
    const struct nb_fmat matrix = {
        .data = (float *)w, .rows = lin->rows, .cols = lin->cols, .ld = lin->cols};
    int rc = nb_linear_init_f32(&fresh, l->be, lin->name, &matrix, bias, err);
    if (rc) return rc;
    nb_linear_release(&l->linears[i]);
    l->linears[i] = fresh;
    return 0;
}

float *nb_layer_norm(struct nb_layer *l, enum nb_input input)
{
    assert(input == NB_INPUT_ATTN || input == NB_INPUT_MLP);
    return input == NB_INPUT_ATTN ? l->attn_norm : l->mlp_norm;
}

/* ---- computing ---- */

static const struct nb_linear *linear(const struct nb_layer *l, enum nb_role role)
{
    return &l->linears[l->by_role[role]];
}

/* y = attention over what was fed before and now. */
static void attend(struct nb_layer *l, const struct nb_pass *p, const float *x, float *y)
{
    const struct nb_arch *a = l->arch;
    const int64_t d = a->head_dim, q_width = a->n_heads * d, kv_width = a->n_kv_heads * d;
    const struct nb_rope_angles *angles =
        nb_arch_uses_local_rope(a, l->index) ? &p->rope->local : &p->rope->all;
    float *q = p->scratch, *k = p->k + p->past * kv_width, *v = p->v + p->past * kv_width;
    const struct nb_linear_out outs[] = {
        {linear(l, NB_ROLE_Q), q, q_width},
        {linear(l, NB_ROLE_K), k, kv_width},
        {linear(l, NB_ROLE_V), v, kv_width},
    };
    nb_linears_run(l->be, outs, 3, x, p->t, a->hidden_size);
    if (a->qk_norm) {
        nb_rmsnorm(l->be, &(struct nb_norm){l->q_norm, d, a->rms_norm_eps}, q, q,
                   p->t * a->n_heads);
        nb_rmsnorm(l->be, &(struct nb_norm){l->k_norm, d, a->rms_norm_eps}, k, k,
                   p->t * a->n_kv_heads);
    }
    struct nb_rope_rows rows = {.x = q,
                                .m = p->t,
                                .ldx = q_width,
                                .n_heads = a->n_heads,
                                .head_dim = d,
                                .cos_t = angles->cos_t,
                                .sin_t = angles->sin_t};
    nb_rope_apply(l->be, &rows);
    rows.x = k;
    rows.ldx = kv_width;
    rows.n_heads = a->n_kv_heads;
    nb_rope_apply(l->be, &rows);
    nb_attention_run(l->be, &(struct nb_attention){.q = q,
                                                   .k = p->k,
                                                   .v = p->v,
                                                   .out = y,
                                                   .n_q = p->t,
                                                   .n_kv = p->past + p->t,
                                                   .ldq = q_width,
                                                   .ldkv = kv_width,
                                                   .ldo = q_width,
                                                   .n_heads = a->n_heads,
                                                   .n_kv_heads = a->n_kv_heads,
                                                   .head_dim = d,
                                                   .window = a->window[l->index],
                                                   .scale = (float)a->attn_scale,
                                                   .softcap = (float)a->attn_softcap});
}

static enum nb_act_fn act_of(enum nb_hidden_act act)
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
    const struct nb_linear *lin = linear(l, role);
    nb_linear_run(l->be, &(struct nb_linear_out){lin, p->scratch, lin->w.rows}, x, p->t,
                  lin->w.cols);
    if (post) {
        nb_rmsnorm(l->be, &(struct nb_norm){post, lin->w.rows, l->arch->rms_norm_eps}, p->scratch,
                   p->scratch, p->t);
    }
    nb_residual_add(l->be, h, p->scratch, p->t * lin->w.rows);
}

void nb_layer_pass(struct nb_layer *l, enum nb_input input, const struct nb_pass *p, float *h,
                   const float *x, float *y)
{
    const struct nb_arch *a = l->arch;
    const int64_t ff = a->intermediate_size;
    struct nb_norm norm = {.weight = l->attn_norm, .d = a->hidden_size, .eps = a->rms_norm_eps};
    switch (input) {
    case NB_INPUT_ATTN: nb_rmsnorm(l->be, &norm, y, h, p->t); break;
    case NB_INPUT_O: attend(l, p, x, y); break;
    case NB_INPUT_MLP:
        add_linear(l, NB_ROLE_O, p, h, x);
        norm.weight = l->mlp_norm;
        nb_rmsnorm(l->be, &norm, y, h, p->t);
        break;
    case NB_INPUT_DOWN: {
        const struct nb_linear_out outs[] = {{linear(l, NB_ROLE_GATE), y, ff},
                                             {linear(l, NB_ROLE_UP), p->scratch, ff}};
        nb_linears_run(l->be, outs, 2, x, p->t, a->hidden_size);
        nb_gated_act(l->be, y, y, p->scratch, p->t * ff, act_of(a->hidden_act));
        break;
    }
    case NB_INPUT_COUNT: break;
    }
}

void nb_layer_pass_finish(struct nb_layer *l, const struct nb_pass *p, float *h, const float *x)
{
    add_linear(l, NB_ROLE_DOWN, p, h, x);
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
    const int64_t hidden = l->arch->hidden_size, to = nb_input_width(l->arch, input);
    const int64_t from =
        input == NB_INPUT_ATTN ? 0 : nb_input_width(l->arch, (enum nb_input)(input - 1));
    for (int64_t w = 0; w < io->n_windows; w++) {
        const float *in = from ? io->x + w * io->t * from : NULL;
        nb_layer_pass(l, input, &p, io->h + w * io->t * hidden, in, io->y + w * io->t * to);
    }
    return 0;
}

int nb_layer_finish(struct nb_layer *l, float *h, const float *x, int64_t n_windows, int64_t t,
                    struct nb_err *err)
{
    int rc = reserve(l, t, err);
    if (rc) return rc;
    const struct nb_pass p = pass_of(l, t);
    const int64_t hidden = l->arch->hidden_size, from = nb_input_width(l->arch, NB_INPUT_DOWN);
    for (int64_t w = 0; w < n_windows; w++)
        nb_layer_pass_finish(l, &p, h + w * t * hidden, x + w * t * from);
    return 0;
}

/* SPDX-License-Identifier: Apache-2.0
 *
 * norms.c - the norms of a layer and of the model: loaded as f32, and applied as what they are, RMSNorm or
 * LayerNorm. */
#include <assert.h>
#include <inttypes.h>
#include <string.h>

#include "base/mem.h"
#include "engine/layer.h"

/* Tensor `name` as f32 [n], plus offset. */
static int load(float **out, const struct nb_model *model, const char *name, int64_t n,
                float offset, struct nb_err *err)
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
        for (int64_t i = 0; offset != 0 && i < n; i++) (*out)[i] += offset;
        return 0;
    }
    nb_free(*out);
    *out = NULL;
    return nb_fail(err, NB_E_SPEC, "tensor '%s' is %s, expected F32, F16 or BF16", name,
                   nb_dtype_name(t.dtype));
}

int nb_model_norm_weight(float **out, const struct nb_model *model, const char *name, int64_t n,
                         struct nb_err *err)
{
    return load(out, model, name, n, (float)model->arch.norm_offset, err);
}

int nb_model_norm_bias(float **out, const struct nb_model *model, const char *name, int64_t n,
                       struct nb_err *err)
{
    return load(out, model, name, n, 0, err);
}

int nb_layer_load_norms(struct nb_layer *l, const struct nb_model *model, struct nb_err *err)
{
    const struct nb_arch *a = l->arch;
    const int64_t d = a->hidden_size;
    const float offset = (float)a->norm_offset;
    const struct {
        float **at;
        const char *name; /* empty: the architecture has none */
        int64_t n;
        float offset;
    } norms[] = {
        {&l->attn_norm, a->attn_norm_name, d, offset},
        {&l->attn_norm_bias, a->attn_norm_bias_name, d, 0},
        {&l->post_attn_norm, a->post_attn_norm_name, d, offset},
        {&l->mlp_norm, a->mlp_norm_name, d, offset},
        {&l->mlp_norm_bias, a->mlp_norm_bias_name, d, 0},
        {&l->post_mlp_norm, a->post_mlp_norm_name, d, offset},
        {&l->q_norm, a->q_norm_name, nb_arch_qk_norm_width(a, false), offset},
        {&l->k_norm, a->k_norm_name, nb_arch_qk_norm_width(a, true), offset},
    };
    int rc = 0;
    for (size_t i = 0; i < sizeof norms / sizeof *norms && !rc; i++) {
        char name[NB_NAME_MAX * 2];
        if (!*norms[i].name) continue;
        nb_arch_name(a, l->index, norms[i].name, name);
        rc = load(norms[i].at, model, name, norms[i].n, norms[i].offset, err);
    }
    return rc;
}

float *nb_layer_norm(struct nb_layer *l, enum nb_input input)
{
    assert(input == NB_INPUT_ATTN || input == NB_INPUT_MLP);
    return input == NB_INPUT_ATTN ? l->attn_norm : l->mlp_norm;
}

float *nb_layer_norm_bias(struct nb_layer *l, enum nb_input input)
{
    assert(input == NB_INPUT_ATTN || input == NB_INPUT_MLP);
    return input == NB_INPUT_ATTN ? l->attn_norm_bias : l->mlp_norm_bias;
}

void nb_engine_norm_rows(struct nb_backend *be, const struct nb_norm *norm, float *y,
                         const float *x, int64_t m)
{
    if (norm->bias) nb_layernorm(be, norm, y, x, m);
    else nb_rmsnorm(be, norm, y, x, m);
}

void nb_layer_input_norm(struct nb_layer *l, enum nb_input input, float *y, const float *h,
                         int64_t m)
{
    const int64_t d = l->arch->hidden_size;
    const struct nb_norm norm = {.weight = nb_layer_norm(l, input),
                                 .d = d,
                                 .eps = l->arch->rms_norm_eps,
                                 .bias = nb_layer_norm_bias(l, input)};
    if (norm.weight) nb_engine_norm_rows(l->be, &norm, y, h, m);
    else memcpy(y, h, (size_t)(m * d) * sizeof *y);
}

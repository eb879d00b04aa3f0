/* SPDX-License-Identifier: Apache-2.0
 *
 * tiny_model.c - see tiny_model.h. */
#include "support/tiny_model.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/half.h"
#include "base/rng.h"
#include "support/folder.h"

struct tensor { /* one tensor to write */
    char name[NB_NAME_MAX * 2 + 32];
    enum nb_dtype dtype;
    int rank;
    int64_t shape[3];
    const void *data; /* NULL: random F16 */
};

struct list {
    struct tensor *t;
    size_t n;
};

json_t *tiny_config(void)
{
    return json_pack("{s:s, s:i, s:i, s:i, s:i, s:i, s:i, s:i, s:f, s:b, s:s}", "model_type",
                     "llama", "vocab_size", 32, "hidden_size", 128, "intermediate_size", 192,
                     "num_hidden_layers", 2, "num_attention_heads", 4, "num_key_value_heads", 2,
                     "max_position_embeddings", 64, "rms_norm_eps", 1e-5, "tie_word_embeddings", 0,
                     "torch_dtype", "float16");
}

static void add(struct list *l, const char *name, enum nb_dtype dtype, int rank,
                const int64_t *shape, const void *data)
{
    l->t = realloc(l->t, (l->n + 1) * sizeof *l->t);
    assert_non_null(l->t);
    struct tensor *t = &l->t[l->n++];
    *t = (struct tensor){.dtype = dtype, .rank = rank, .data = data};
    snprintf(t->name, sizeof t->name, "%s", name);
    if (rank) memcpy(t->shape, shape, (size_t)rank * sizeof *shape);
}

static void add_expected(struct list *l, const struct nb_arch *arch, const char *name)
{
    int rank;
    int64_t shape[2];
    assert_true(nb_arch_expected_shape(arch, name, &rank, shape));
    add(l, name, NB_F16, rank, shape, NULL);
}

static void add_linear(struct list *l, const struct nb_arch *arch, const char *path,
                       const struct tiny_opts *o)
{
    char name[NB_NAME_MAX * 2 + 32];
    for (size_t i = 0; i < o->n_packed; i++) {
        const struct tiny_packed *p = &o->packed[i];
        if (strcmp(p->path, path)) continue;
        for (int k = 0; k < p->n; k++) {
            snprintf(name, sizeof name, "%s%s", path, p->tensor[k].suffix);
            add(l, name, p->tensor[k].dtype, p->tensor[k].rank, p->tensor[k].shape,
                p->tensor[k].data);
        }
        return;
    }
    snprintf(name, sizeof name, "%s.weight", path);
    add_expected(l, arch, name);
}

static void collect(struct list *l, const struct nb_arch *arch, const struct tiny_opts *o)
{
    char name[NB_NAME_MAX * 2];
    add_expected(l, arch, arch->embed_name);
    for (int64_t i = 0; i < arch->n_layers; i++) {
        const char *const norms[] = {arch->attn_norm_name,      arch->mlp_norm_name,
                                     arch->q_norm_name,         arch->k_norm_name,
                                     arch->post_attn_norm_name, arch->post_mlp_norm_name};
        for (size_t k = 0; k < 6; k++) {
            if (!norms[k][0]) continue;
            nb_arch_name(arch, i, norms[k], name);
            add_expected(l, arch, name);
        }
        for (int k = 0; k < arch->n_linears; k++) {
            nb_arch_name(arch, i, arch->linears[k].name, name);
            add_linear(l, arch, name, o);
            if (!arch->linears[k].bias) continue;
            char bias[NB_NAME_MAX * 2 + 8];
            snprintf(bias, sizeof bias, "%s.bias", name);
            add_expected(l, arch, bias);
        }
    }
    add_expected(l, arch, arch->norm_name);
    if (!arch->tie_word_embeddings) add_linear(l, arch, "lm_head", o);
    int64_t one = 1;
    if (o->extra) add(l, o->extra, NB_F16, 1, &one, NULL);
    for (size_t i = 0; o->omit && i < l->n; i++) {
        if (!strcmp(l->t[i].name, o->omit)) l->t[i] = l->t[--l->n];
    }
}

static size_t bytes_of(const struct tensor *t)
{
    size_t n = (size_t)nb_dtype_bits(t->dtype) / 8;
    for (int i = 0; i < t->rank; i++) n *= (size_t)t->shape[i];
    return n;
}

static void put(struct nb_st_writer *w, const struct tensor *t, const struct tiny_opts *o)
{
    struct nb_err err;
    size_t n = bytes_of(t);
    uint16_t *made = NULL;
    if (!t->data) {
        struct nb_rng rng;
        nb_rng_init(&rng, n + strlen(t->name));
        made = malloc(n);
        assert_non_null(made);
        for (size_t i = 0; i < n / 2; i++)
            made[i] = nb_f32_to_f16((float)(nb_rng_uniform(&rng) - 0.5));
        if (o->head_first && !strcmp(t->name, "lm_head.weight")) made[0] = o->head_first;
    }
    if (nb_st_writer_put(w, t->name, made ? made : t->data, n, &err)) fail_msg("%s", err.text);
    free(made);
}

void tiny_write(const char *dir, const struct tiny_opts *opts)
{
    static const struct tiny_opts none;
    const struct tiny_opts *o = opts ? opts : &none;
    struct nb_err err;
    struct nb_arch arch;
    struct list l = {0};
    json_t *config = o->config ? json_deep_copy(o->config) : tiny_config();
    if (o->quant_config) json_object_set(config, "quantization_config", o->quant_config);
    if (nb_arch_from_config(&arch, config, &err)) fail_msg("%s", err.text);
    collect(&l, &arch, o);
    struct nb_st_writer *w = nb_st_writer_new();
    for (size_t i = 0; i < l.n; i++) {
        if (nb_st_writer_plan(w, l.t[i].name, l.t[i].dtype, l.t[i].rank, l.t[i].shape, &err))
            fail_msg("%s", err.text);
    }
    struct nb_st_writer_opts wo = {.dir = dir};
    if (nb_st_writer_open(w, &wo, &err)) fail_msg("%s", err.text);
    for (size_t i = 0; i < l.n; i++) put(w, &l.t[i], o);
    if (nb_st_writer_finish(w, &err)) fail_msg("%s", err.text);
    nb_st_writer_free(w);
    char *text = json_dumps(config, JSON_INDENT(2));
    folder_text(dir, "config.json", text);
    free(text);
    free(l.t);
    nb_arch_release(&arch);
    json_decref(config);
}

struct nb_qspec tiny_spec(int bits, int64_t group, bool symmetric)
{
    return (struct nb_qspec){
        .elem = {.kind = NB_ELEM_INT, .bits = bits, .vec = 1},
        .group_rows = 1,
        .group_cols = group,
        .scale_dtype = NB_F16,
        .zero = NB_ZERO_CODE,
        .symmetric = symmetric,
    };
}

static void shuffle_groups(struct nb_qmat *q, struct nb_rng *rng, struct nb_arena *arena)
{
    int32_t *group = nb_arena_alloc(arena, (size_t)q->cols, sizeof *group);
    for (int64_t k = 0; k < q->cols; k++) group[k] = (int32_t)(k / q->spec.group_cols);
    for (int64_t k = q->cols - 1; k > 0; k--) {
        int64_t other = (int64_t)nb_rng_below(rng, (uint64_t)k + 1);
        int32_t g = group[k];
        group[k] = group[other];
        group[other] = g;
    }
    q->col_group = group;
}

void tiny_random_qmat(struct nb_qmat *q, const struct tiny_matrix *what, struct nb_arena *arena)
{
    struct nb_err err;
    struct nb_rng rng;
    nb_rng_init(&rng, what->seed);
    if (nb_qmat_init(q, &what->spec, what->rows, what->cols, arena, &err)) fail_msg("%s", err.text);
    unsigned levels = 1u << what->spec.elem.bits;
    for (int64_t i = 0; i < q->rows * q->cols; i++)
        q->codes[i] = (uint8_t)nb_rng_below(&rng, levels);
    for (int64_t i = 0; i < q->rows * q->n_groups; i++) {
        float s = (float)(0.001 + 0.1 * nb_rng_uniform(&rng));
        q->scale.value[i] = nb_round_to(nb_rng_below(&rng, 4) ? s : -s, NB_F16);
        uint64_t z =
            (uint64_t)what->zero_min + nb_rng_below(&rng, levels - (unsigned)what->zero_min);
        q->zero.value[i] = what->spec.symmetric ? (float)(levels / 2) : (float)z;
    }
    if (what->act_order) shuffle_groups(q, &rng, arena);
}

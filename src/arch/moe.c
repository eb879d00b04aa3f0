/* SPDX-License-Identifier: Apache-2.0
 *
 * moe.c - the plan of layers with experts: which layers, how many, what their linears are called.
 *
 *   h += sum over the top_k experts e of p_e * down_e(act(gate_e(x)) * up_e(x)),  p = softmax(router(x))
 *
 * Attention is that of the dense plan, which must be there. Experts follow it in order, gate, up, down of
 * each, and the shared one comes last. The router and the shared expert's gate are no linears: they stay
 * float, and nothing is folded in front of them. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "arch/family.h"
#include "base/mem.h"

enum { MAX_EXPERTS = 1024, MAX_EXPERT_WIDTH = 1 << 20 };

struct number {
    const char *key;
    int64_t fallback, low, high;
};

static int get_int(const json_t *config, struct number n, int64_t *out, struct nb_err *err)
{
    *out = n.fallback;
    int rc = nb_json_get_int(config, n.key, false, out, NB_CONFIG, err);
    if (rc || (*out >= n.low && *out <= n.high)) return rc;
    return nb_fail(err, NB_E_FORMAT,
                   NB_CONFIG ": key '%s': expected an integer from %" PRId64 " to %" PRId64
                             ", found %" PRId64,
                   n.key, n.low, n.high, *out);
}

static int read_sizes(const struct nb_arch *a, struct nb_arch_moe *m, const json_t *config,
                      const struct nb_moe_traits *t, struct nb_err *err)
{
    const char *count = json_object_get(config, t->count_key) ? t->count_key : "num_experts";
    const struct number experts = {count, t->default_experts, t->every_layer ? 1 : 0, MAX_EXPERTS},
                        size = {"moe_intermediate_size", t->default_size, 1, MAX_EXPERT_WIDTH},
                        shared = {"shared_expert_intermediate_size", t->default_shared, 1,
                                  MAX_EXPERT_WIDTH};
    int rc = get_int(config, experts, &m->n_experts, err);
    if (rc || !m->n_experts) return rc;
    const struct number chosen = {"num_experts_per_tok", t->default_top_k, 1, m->n_experts};
    rc = get_int(config, chosen, &m->top_k, err);
    m->expert_size = a->intermediate_size;
    if (!rc && t->default_size) rc = get_int(config, size, &m->expert_size, err);
    if (!rc && t->default_shared) rc = get_int(config, shared, &m->shared_size, err);
    m->norm_topk = t->every_layer;
    if (!rc && !t->every_layer)
        rc = nb_json_get_bool(config, "norm_topk_prob", false, &m->norm_topk, NB_CONFIG, err);
    return rc;
}

/* decoder_sparse_step and mlp_only_layers */
static int choose_layers(const struct nb_arch *a, struct nb_arch_moe *m, const json_t *config,
                         const struct nb_moe_traits *t, struct nb_err *err)
{
    int64_t step = 1;
    if (!t->every_layer) {
        const struct number every = {"decoder_sparse_step", 1, 1, NB_MAX_LAYERS};
        int rc = get_int(config, every, &step, err);
        if (rc) return rc;
    }
    for (int64_t l = 0; l < a->n_layers; l++) m->layers[l] = (l + 1) % step == 0;
    const json_t *dense = t->every_layer ? NULL : json_object_get(config, "mlp_only_layers");
    if (!dense || json_is_null(dense)) return 0;
    if (!json_is_array(dense)) {
        return nb_fail(err, NB_E_FORMAT,
                       NB_CONFIG ": key 'mlp_only_layers': expected a list, found %s",
                       nb_json_type_name(dense));
    }
    for (size_t i = 0; i < json_array_size(dense); i++) {
        const json_t *v = json_array_get(dense, i);
        if (!json_is_integer(v)) {
            return nb_fail(err, NB_E_FORMAT,
                           NB_CONFIG ": mlp_only_layers[%zu]: expected an integer, found %s", i,
                           nb_json_type_name(v));
        }
        const int64_t l = json_integer_value(v);
        if (l >= 0 && l < a->n_layers) m->layers[l] = false;
    }
    return 0;
}

static void add_mlp(struct nb_arch_moe *m, struct nb_arch_linear in, int64_t hidden, int64_t width)
{
    static const enum nb_role roles[] = {NB_ROLE_GATE, NB_ROLE_UP, NB_ROLE_DOWN};
    for (int i = 0; i < 3; i++) {
        const bool down = roles[i] == NB_ROLE_DOWN;
        in.role = roles[i];
        in.input = down ? NB_INPUT_DOWN : NB_INPUT_MLP;
        in.rows = down ? hidden : width;
        in.cols = down ? width : hidden;
        m->linears[m->n_linears++] = in;
    }
}

static int lay_out(const struct nb_arch *a, struct nb_arch_moe *m, struct nb_err *err)
{
    m->linears = nb_calloc((size_t)(NB_MAX_LINEARS + 3 * (m->n_experts + 1)), sizeof *m->linears);
    m->first = nb_calloc((size_t)a->n_layers + 1, sizeof *m->first);
    if (!m->linears || !m->first)
        return nb_fail(err, NB_E_NOMEM, "no memory for %" PRId64 " experts", m->n_experts);
    for (int i = 0; i < a->n_linears; i++) {
        if (a->linears[i].input == NB_INPUT_ATTN || a->linears[i].input == NB_INPUT_O)
            m->linears[m->n_linears++] = a->linears[i];
    }
    m->first_expert = m->n_linears;
    for (int e = 0; e < (int)m->n_experts; e++) {
        add_mlp(m, (struct nb_arch_linear){.branch = NB_BRANCH_EXPERT, .expert = e}, a->hidden_size,
                m->expert_size);
    }
    if (m->shared_size) {
        add_mlp(m, (struct nb_arch_linear){.branch = NB_BRANCH_SHARED}, a->hidden_size,
                m->shared_size);
    }
    for (int64_t l = 0; l < a->n_layers; l++)
        m->first[l + 1] = m->first[l] + (m->layers[l] ? m->n_linears : a->n_linears);
    return 0;
}

static void name_all(struct nb_arch_moe *m, const char *block, const char *const parts[3])
{
    for (int i = m->first_expert; i < m->n_linears; i++) {
        struct nb_arch_linear *lin = &m->linears[i];
        const char *part = parts[(i - m->first_expert) % 3];
        if (lin->branch == NB_BRANCH_SHARED)
            snprintf(lin->name, sizeof lin->name, "%s.shared_expert.%s", block, part);
        else snprintf(lin->name, sizeof lin->name, "%s.experts.%d.%s", block, lin->expert, part);
    }
    snprintf(m->router_name, sizeof m->router_name, "%s.gate.weight", block);
    if (m->shared_size)
        snprintf(m->shared_gate_name, sizeof m->shared_gate_name, "%s.shared_expert_gate.weight",
                 block);
}

static const char *const plain_parts[3] = {"gate_proj", "up_proj", "down_proj"};

void nb_arch_use_plain_expert_names(struct nb_arch *a)
{
    name_all(a->moe, "mlp", plain_parts);
}

int nb_arch_moe_plan(struct nb_arch *a, const json_t *config, const struct nb_moe_traits *t,
                     struct nb_err *err)
{
    static const char *const mixtral_parts[3] = {"w1", "w3", "w2"};
    struct nb_arch_moe *m = nb_calloc(1, sizeof *m);
    if (!m) return nb_fail(err, NB_E_NOMEM, "no memory for the experts' plan");
    int rc = read_sizes(a, m, config, t, err);
    if (rc || !m->n_experts) {
        nb_free(m);
        return rc;
    }
    a->moe = m;
    m->layers = nb_calloc((size_t)a->n_layers, sizeof *m->layers);
    if (!m->layers)
        return nb_fail(err, NB_E_NOMEM, "no memory for %" PRId64 " layers", a->n_layers);
    rc = choose_layers(a, m, config, t, err);
    if (!rc) rc = lay_out(a, m, err);
    if (rc) return rc;
    if (t->mixtral_names) name_all(m, "block_sparse_moe", mixtral_parts);
    else name_all(m, "mlp", plain_parts);
    nb_arch_set_name(m->stacked_up_name, "mlp.experts.gate_up_proj");
    nb_arch_set_name(m->stacked_down_name, "mlp.experts.down_proj");
    return 0;
}

void nb_arch_moe_release(struct nb_arch *a)
{
    if (!a->moe) return;
    nb_free(a->moe->linears);
    nb_free(a->moe->layers);
    nb_free(a->moe->first);
    nb_free(a->moe);
    a->moe = NULL;
}

bool nb_arch_has_experts(const struct nb_arch *arch, int64_t l)
{
    return arch->moe && arch->moe->layers[l];
}

bool nb_arch_stacked_shape(const struct nb_arch *a, const char *name, int64_t shape[3])
{
    int64_t l;
    const char *rest = nb_arch_inside_layer(a->layer_prefix, a->n_layers, name, &l);
    if (!rest || !nb_arch_has_experts(a, l)) return false;
    const bool down = !strcmp(rest, a->moe->stacked_down_name);
    if (!down && strcmp(rest, a->moe->stacked_up_name)) return false;
    shape[0] = a->moe->n_experts;
    shape[1] = down ? a->hidden_size : 2 * a->moe->expert_size;
    shape[2] = down ? a->moe->expert_size : a->hidden_size;
    return true;
}

void nb_arch_stacked_at(const struct nb_arch *a, const struct nb_arch_linear *lin,
                        const char **name, int64_t *row)
{
    const bool down = lin->role == NB_ROLE_DOWN;
    *name = down ? a->moe->stacked_down_name : a->moe->stacked_up_name;
    *row = lin->expert * (down ? lin->rows : 2 * lin->rows);
    if (lin->role == NB_ROLE_UP) *row += lin->rows;
}

bool nb_arch_fold_applies(const struct nb_arch *a, int64_t l, const struct nb_arch_fold *fold)
{
    return !nb_arch_has_experts(a, l) || fold->to == NB_INPUT_ATTN || fold->to == NB_INPUT_O;
}

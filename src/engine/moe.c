/* SPDX-License-Identifier: Apache-2.0
 *
 * moe.c - layers with experts: the router's choice, and what the chosen experts make of their tokens.
 *
 * Tokens are gathered expert by expert, so that each weight is read once, and results are added to their
 * tokens in the order of the experts, the shared one last. Router and softmax are f32 whatever the rest
 * multiplies in: a rounded logit would send a token to another expert. Source: the models' reference
 * implementations in transformers 5 (softmax over all experts, then the largest top_k). */
#include "engine/moe.h"

#include <assert.h>
#include <inttypes.h>
#include <math.h>
#include <string.h>

#include "base/mem.h"

static int64_t widest_mlp(const struct nb_arch_moe *m)
{
    return m->expert_size > m->shared_size ? m->expert_size : m->shared_size;
}

int64_t nb_moe_scratch_floats(const struct nb_arch *a)
{
    const struct nb_arch_moe *m = a->moe;
    /* logits; choice and weights; tokens of one expert, its two products, its result; the shared gate */
    return m ? m->n_experts + 2 * m->top_k + 2 * a->hidden_size + 2 * widest_mlp(m) + 1 : 0;
}

static int load_gate(struct nb_linear *out, const struct nb_layer *l, const struct nb_model *model,
                     const char *name, struct nb_err *err)
{
    char full[NB_NAME_MAX * 2];
    nb_arch_name(l->arch, l->index, name, full);
    struct nb_weight w = {.name = name};
    int rc = nb_model_tensor(model, full, &w.dense, err);
    if (rc) return rc;
    w.rows = w.dense.shape[0];
    w.cols = w.dense.shape[1];
    return nb_linear_init(out, l->be, &w, err);
}

int nb_moe_load(struct nb_layer *l, const struct nb_model *model, struct nb_err *err)
{
    if (!nb_arch_has_experts(l->arch, l->index)) return 0;
    const struct nb_arch_moe *m = l->arch->moe;
    int rc = load_gate(&l->router, l, model, m->router_name, err);
    if (!rc && m->shared_size) rc = load_gate(&l->shared_gate, l, model, m->shared_gate_name, err);
    return rc;
}

void nb_moe_release(struct nb_layer *l)
{
    nb_linear_release(&l->router);
    nb_linear_release(&l->shared_gate);
}

/* ---- the router ---- */

/* The top_k largest of the softmax over n logits, the largest first; of equal ones the first. */
static void choose(float *p, const struct nb_arch_moe *m, int32_t *expert, float *weight)
{
    const int64_t n = m->n_experts;
    float top = p[0], sum = 0, chosen = 0;
    for (int64_t i = 1; i < n; i++) top = p[i] > top ? p[i] : top;
    for (int64_t i = 0; i < n; i++) sum += p[i] = expf(p[i] - top);
    for (int64_t i = 0; i < n; i++) p[i] /= sum;
    for (int64_t k = 0; k < m->top_k; k++) {
        int64_t best = -1;
        for (int64_t i = 0; i < n; i++) {
            if (p[i] >= 0 && (best < 0 || p[i] > p[best])) best = i;
        }
        /* Logits that are no numbers choose nothing: the first experts, so that all indices are good. */
        if (best < 0) best = k;
        expert[k] = (int32_t)best;
        weight[k] = p[best];
        chosen += p[best];
        p[best] = -1;
    }
    for (int64_t k = 0; m->norm_topk && k < m->top_k; k++) weight[k] /= chosen;
}

struct choosing {
    const struct nb_arch_moe *moe;
    float *logits;
    int32_t *expert;
    float *weight;
};

static void choose_piece(void *ctx, size_t piece, int thread)
{
    (void)thread;
    const struct choosing *c = ctx;
    const struct nb_arch_moe *m = c->moe;
    choose(c->logits + (int64_t)piece * m->n_experts, m, c->expert + (int64_t)piece * m->top_k,
           c->weight + (int64_t)piece * m->top_k);
}

/* y[n, rows] = linear(x), in f32 */
static void run_gate(struct nb_layer *l, const struct nb_linear *gate, const float *x, int64_t n,
                     float *y)
{
    enum nb_precision before = nb_backend_set_precision(l->be, NB_PRECISION_F32);
    nb_linear_run(l->be, &(struct nb_linear_out){gate, y, gate->w.rows}, x, n, gate->w.cols);
    nb_backend_set_precision(l->be, before);
}

static void route(struct nb_layer *l, const float *x, int64_t n, float *logits, int32_t *expert,
                  float *weight)
{
    run_gate(l, &l->router, x, n, logits);
    struct choosing c = {l->arch->moe, logits, expert, weight};
    nb_pool_run(nb_backend_pool(l->be), (size_t)n, choose_piece, &c);
}

int nb_layer_route(struct nb_layer *l, const float *x, int64_t n, int32_t *expert, float *weight,
                   struct nb_err *err)
{
    size_t floats;
    float *logits = nb_mul((size_t)n, (size_t)l->arch->moe->n_experts, &floats)
                        ? nb_alloc(floats, sizeof *logits)
                        : NULL;
    if (!logits) return nb_fail(err, NB_E_NOMEM, "no memory for the router's logits");
    route(l, x, n, logits, expert, weight);
    nb_free(logits);
    return 0;
}

void nb_layer_shared_weight(struct nb_layer *l, const float *x, int64_t n, float *weight)
{
    run_gate(l, &l->shared_gate, x, n, weight);
    for (int64_t i = 0; i < n; i++) weight[i] = 1.0f / (1.0f + expf(-weight[i]));
}

/* ---- experts ---- */

static int first_linear(const struct nb_layer *l, int64_t expert)
{
    assert(expert >= 0 && expert <= l->arch->moe->n_experts);
    return l->arch->moe->first_expert + 3 * (int)expert;
}

void nb_layer_expert_inner(struct nb_layer *l, int64_t expert, const struct nb_expert_rows *rows,
                           float *scratch)
{
    const int i = first_linear(l, expert);
    const int64_t width = l->plan[i].rows;
    const struct nb_linear_out outs[] = {{&l->linears[i], rows->y, width},
                                         {&l->linears[i + 1], scratch, width}};
    nb_linears_run(l->be, outs, 2, rows->x, rows->n, l->arch->hidden_size);
    nb_gated_act(l->be, rows->y, rows->y, scratch, rows->n * width,
                 nb_layer_act_fn(l->arch->hidden_act));
}

void nb_layer_expert_outer(struct nb_layer *l, int64_t expert, const struct nb_expert_rows *rows)
{
    const struct nb_linear *down = &l->linears[first_linear(l, expert) + 2];
    nb_linear_run(l->be, &(struct nb_linear_out){down, rows->y, down->w.rows}, rows->x, rows->n,
                  down->w.cols);
}

struct moe_buffers { /* of one pass over t tokens, carved from its scratch */
    float *logits, *weight, *x, *inner, *up, *out, *shared;
    int32_t *expert;
};

static struct moe_buffers carve(const struct nb_layer *l, const struct nb_pass *p)
{
    const struct nb_arch_moe *m = l->arch->moe;
    const int64_t t = p->t, d = l->arch->hidden_size, wide = widest_mlp(m);
    struct moe_buffers b;
    b.logits = p->scratch;
    b.weight = b.logits + t * m->n_experts;
    b.expert = (int32_t *)(void *)(b.weight + t * m->top_k);
    b.x = b.weight + 2 * t * m->top_k;
    b.inner = b.x + t * d;
    b.up = b.inner + t * wide;
    b.out = b.up + t * wide;
    b.shared = b.out + t * d;
    return b;
}

/* The tokens of an expert into b->x; their numbers take the place of the logits, which are done with. */
static int64_t gather(const struct nb_layer *l, const struct nb_pass *p, int64_t expert,
                      const float *x, const struct moe_buffers *b, int32_t *token)
{
    const int64_t k = l->arch->moe->top_k, d = l->arch->hidden_size;
    int64_t n = 0;
    for (int64_t i = 0; i < p->t * k; i++) {
        if (b->expert[i] != expert) continue;
        memcpy(b->x + n * d, x + i / k * d, (size_t)d * sizeof *x);
        token[n++] = (int32_t)i;
    }
    return n;
}

static void run_expert(struct nb_layer *l, int64_t expert, const struct moe_buffers *b,
                       const float *x, int64_t n)
{
    nb_layer_expert_inner(l, expert, &(struct nb_expert_rows){x, b->inner, n}, b->up);
    nb_layer_expert_outer(l, expert, &(struct nb_expert_rows){b->inner, b->out, n});
}

void nb_moe_pass(struct nb_layer *l, const struct nb_pass *p, const float *x, float *y)
{
    const struct nb_arch_moe *m = l->arch->moe;
    const int64_t d = l->arch->hidden_size;
    const struct moe_buffers b = carve(l, p);
    int32_t *token = (int32_t *)(void *)b.logits; /* [t], n_experts >= 1 */
    route(l, x, p->t, b.logits, b.expert, b.weight);
    memset(y, 0, (size_t)(p->t * d) * sizeof *y);
    for (int64_t e = 0; e < m->n_experts; e++) {
        const int64_t n = gather(l, p, e, x, &b, token);
        if (!n) continue;
        run_expert(l, e, &b, b.x, n);
        for (int64_t i = 0; i < n; i++)
            nb_moe_add(y + token[i] / m->top_k * d, b.out + i * d, b.weight[token[i]], d);
    }
    if (!m->shared_size) return;
    nb_layer_shared_weight(l, x, p->t, b.shared);
    run_expert(l, m->n_experts, &b, x, p->t);
    for (int64_t i = 0; i < p->t; i++) nb_moe_add(y + i * d, b.out + i * d, b.shared[i], d);
}

/* SPDX-License-Identifier: Apache-2.0
 *
 * sensitivity.c - see sensitivity.h: one pass over the float model with one layer resident.
 *
 * Beside the float stream of a few windows run as many streams as there are units, each perturbed in its unit
 * alone: a stream begins at its unit's layer and follows the float layers to the head, where its KL divergence
 * is measured. Why in proportion: the divergence is quadratic in a small error, and errors of different schemes
 * are alike in direction; on books-11m the measured divergence over tr(dW H dW^T) of a compensated rounding is
 * the same within 6 % from 3 to 8 bits (10 to 15 % low at 2), and the sum over units within 5 % of the whole.
 * All in f32: at 8 bits the divergence is below what bf16 activations would do. */
#include "pipeline/sensitivity.h"

#include <inttypes.h>
#include <math.h>
#include <string.h>

#include "base/clock.h"
#include "base/file.h"

enum {
    MAX_PROBED_EXPERTS = 8,
    STATS_TOKENS = 16384,
    PROBE_TOKENS = 2048,
    CHUNK_TOKENS = 4096,
    HEAD_ROWS = 64
};

/* f32 copies of a linear; NULL where it takes no part. */
struct copied {
    float *w, *bias; /* [N,K], [N] */
    float *rounded;  /* w in its unit's probe scheme */
};

struct measuring {
    struct nb_run *r;
    struct nb_sensitivity *s;
    struct nb_layer *layer; /* the current one, and its linears */
    const struct nb_arch_linear *linears;
    struct copied *copy; /* [n_linears] */
    int64_t index;
    int n_linears;
    int64_t t, chunk_windows, n_chunks, stats_windows, probe_windows;
    struct nb_actstore h, x;  /* for the statistics, [chunk] */
    struct nb_actstore moved; /* [unit] */
    float *base, *before;     /* [probe tokens, hidden]: the float stream, and as the layer began */
    float *px, *py, *step;    /* [probe tokens, widest], [chunk tokens, widest] */
    double *loss;             /* [n_units * n_candidates] */
    int *probe;               /* [n_units] its candidate; -1: nothing to measure */
};

static int64_t widest(const struct nb_arch *arch)
{
    int64_t k = 0;
    for (int i = 0; i < NB_INPUT_COUNT; i++) {
        const int64_t w = nb_input_width(arch, (enum nb_input)i);
        if (w > k) k = w;
    }
    return k;
}

static int64_t windows_of(int64_t tokens, int64_t t, int64_t at_most)
{
    const int64_t n = tokens / t > 0 ? tokens / t : 1;
    return n < at_most ? n : at_most;
}

/* Near 4 bits in groups of 128, where most of a mixed model will be. */
static int probe_of(const struct nb_sensitivity *s, size_t unit)
{
    int best = -1;
    double least = INFINITY;
    for (size_t c = 0; c < s->n_candidates; c++) {
        const size_t at = unit * s->n_candidates + c;
        if (isnan(s->kld[at]) || s->candidate[c].is_float) continue;
        const double off = fabs(log(s->bits[at] / s->weights[unit] / 4.156));
        if (off < least) {
            least = off;
            best = (int)c;
        }
    }
    return best;
}

static int open_stores(struct measuring *m, struct nb_err *err)
{
    struct nb_run *r = m->r;
    const int64_t d = r->model->arch.hidden_size, wide = widest(&r->model->arch);
    uint64_t budget = r->opts->memory_bytes ? r->opts->memory_bytes : nb_memory_free_bytes() / 2;
    if (r->opts->dry_run) budget = UINT64_MAX; /* it writes nothing */
    const struct {
        struct nb_actstore *store;
        const char *name;
        int64_t chunks, tokens, width;
    } all[] = {
        {&m->h, "spill-measure-h", m->n_chunks, m->chunk_windows * m->t, d},
        {&m->x, "spill-measure-x", m->n_chunks, m->chunk_windows * m->t, wide},
        {&m->moved, "spill-measure", (int64_t)m->s->n_units, m->probe_windows * m->t, d},
    };
    int rc = 0;
    for (size_t i = 0; i < sizeof all / sizeof *all && !rc; i++) {
        char *path = nb_path_join(r->work, all[i].name);
        rc = nb_actstore_open(all[i].store, path, all[i].chunks,
                              (size_t)(all[i].tokens * all[i].width), &budget, err);
        nb_free(path);
    }
    return rc;
}

static int measuring_init(struct measuring *m, struct nb_run *r, struct nb_sensitivity *s,
                          struct nb_err *err)
{
    *m = (struct measuring){.r = r, .s = s, .t = r->windows.seqlen};
    m->stats_windows = windows_of(STATS_TOKENS, m->t, r->windows.n_windows);
    m->probe_windows = windows_of(PROBE_TOKENS, m->t, r->windows.n_windows);
    m->chunk_windows = windows_of(CHUNK_TOKENS, m->t, m->stats_windows);
    m->n_chunks = (m->stats_windows + m->chunk_windows - 1) / m->chunk_windows;
    const size_t d = (size_t)r->model->arch.hidden_size, wide = (size_t)widest(&r->model->arch);
    const size_t tokens = (size_t)(m->probe_windows * m->t);
    m->base = nb_calloc(tokens * d, sizeof(float));
    m->before = nb_calloc(tokens * d, sizeof(float));
    m->px = nb_calloc(tokens * wide, sizeof(float));
    m->py = nb_calloc(tokens * wide, sizeof(float));
    m->step = nb_calloc((size_t)(m->chunk_windows * m->t) * wide, sizeof(float));
    m->loss = nb_calloc(s->n_units * s->n_candidates, sizeof *m->loss);
    m->probe = nb_calloc(s->n_units, sizeof *m->probe);
    if (!m->base || !m->before || !m->px || !m->py || !m->step || !m->loss || !m->probe)
        return nb_fail(err, NB_E_NOMEM, "no memory for %zu tokens of activations", tokens);
    for (size_t u = 0; u < s->n_units; u++) m->probe[u] = probe_of(s, u);
    return open_stores(m, err);
}

static void layer_release(struct measuring *m)
{
    nb_layer_free(m->layer);
    for (int i = 0; m->copy && i < m->n_linears; i++) {
        nb_free(m->copy[i].w);
        nb_free(m->copy[i].bias);
        nb_free(m->copy[i].rounded);
    }
    nb_free(m->copy);
    m->layer = NULL;
    m->copy = NULL;
}

static void measuring_release(struct measuring *m)
{
    layer_release(m);
    nb_actstore_close(&m->h);
    nb_actstore_close(&m->x);
    nb_actstore_close(&m->moved);
    nb_free(m->base);
    nb_free(m->before);
    nb_free(m->px);
    nb_free(m->py);
    nb_free(m->step);
    nb_free(m->loss);
    nb_free(m->probe);
}

/* ---- the windows for statistics ---- */

static int64_t chunk_windows(const struct measuring *m, int64_t c)
{
    const int64_t left = m->stats_windows - c * m->chunk_windows;
    return left < m->chunk_windows ? left : m->chunk_windows;
}

static int embed_windows(struct measuring *m, int64_t first, int64_t n, float *h,
                         struct nb_err *err)
{
    int rc = 0;
    for (int64_t i = 0; i < n && !rc; i++) {
        const int32_t *ids = m->r->windows.ids + (first + i) * m->t;
        rc = nb_layer_embed(m->r->model, m->r->be, ids, m->t,
                            h + i * m->t * m->r->model->arch.hidden_size, err);
    }
    return rc;
}

static int embed(struct measuring *m, struct nb_err *err)
{
    int rc = 0;
    for (int64_t c = 0; c < m->n_chunks && !rc; c++) {
        float *h;
        rc = nb_actstore_get(&m->h, c, 0, &h, err);
        if (!rc) rc = embed_windows(m, c * m->chunk_windows, chunk_windows(m, c), h, err);
        if (!rc) rc = nb_actstore_put(&m->h, c, err);
    }
    /* The last windows, so that with enough of them no token serves both. */
    const int64_t first = m->r->windows.n_windows - m->probe_windows;
    return rc ? rc : embed_windows(m, first, m->probe_windows, m->base, err);
}

/* One step of the float layer for every chunk; adds its input to stats, unless that is NULL. */
static int gather(struct measuring *m, enum nb_input input, struct nb_stats *stats,
                  struct nb_err *err)
{
    const size_t width = (size_t)nb_layer_input_width(m->layer, input);
    for (int64_t c = 0; c < m->n_chunks; c++) {
        if (nb_progress_stop(m->r->progress)) return nb_fail(err, NB_E_INTERRUPTED, "interrupted");
        float *h = NULL, *x = NULL;
        const int64_t n = chunk_windows(m, c);
        int rc = nb_actstore_get(&m->h, c, 1, &h, err);
        if (!rc) rc = nb_actstore_get(&m->x, c, input != NB_INPUT_ATTN, &x, err);
        const struct nb_layer_io io = {.h = h, .x = x, .y = m->step, .n_windows = n, .t = m->t};
        if (!rc) rc = nb_layer_step(m->layer, input, &io, err);
        if (!rc) rc = nb_actstore_put(&m->h, c, err);
        if (rc) return rc;
        const struct nb_stats_input in = {m->step, NULL, n * m->t};
        if (stats) rc = nb_stats_add(stats, m->r->be, &in, err);
        if (rc) return rc;
        memcpy(x, m->step, (size_t)(n * m->t) * width * sizeof *x);
        rc = nb_actstore_put(&m->x, c, err);
        if (rc) return rc;
    }
    return 0;
}

static int finish_chunks(struct measuring *m, struct nb_err *err)
{
    int rc = 0;
    for (int64_t c = 0; c < m->n_chunks && !rc; c++) {
        float *h, *x;
        rc = nb_actstore_get(&m->h, c, 1, &h, err);
        if (!rc) rc = nb_actstore_get(&m->x, c, 1, &x, err);
        if (!rc) rc = nb_layer_finish(m->layer, h, x, chunk_windows(m, c), m->t, err);
        if (!rc) rc = nb_actstore_put(&m->h, c, err);
    }
    return rc;
}

/* ---- losses of a unit ---- */

/* |W - Q|^2, where there are no statistics. */
static double weight_loss(const struct nb_fmat *w, const float *q)
{
    double sum = 0;
    for (int64_t i = 0; i < w->rows * w->cols; i++) {
        const double d = (double)w->data[i] - (double)q[i];
        sum += d * d;
    }
    return sum;
}

struct attempt { /* one matrix in one candidate */
    const struct nb_fmat *w;
    const struct nb_candidate *candidate;
    const struct nb_stats *stats; /* or NULL */
    float *out;                   /* [N,K] what it becomes */
    double loss;
};

static int attempt(struct measuring *m, struct attempt *t, struct nb_err *err)
{
    struct nb_run *r = m->r;
    struct nb_solve_opts opts = r->recipe.solve;
    const bool compensated = t->stats && r->recipe.solver->needs_hessian;
    nb_solve_opts_effort(&opts, NB_EFFORT_FAST);
    opts.damp = r->recipe.solve.damp;
    opts.grid.spec = t->candidate->spec;
    opts.grid.coarse = !compensated;
    if (!t->stats) opts.grid.clip = NB_CLIP_MSE;
    const struct nb_solver *solver = nb_solver_find(compensated ? "gptq" : "rtn");
    const struct nb_solve_job job = {t->w, t->stats, &opts, r->be};
    struct nb_arena arena;
    struct nb_qmat q;
    struct nb_solve_report report;
    nb_arena_init(&arena);
    int rc = solver->solve(&q, &job, &arena, &report, err);
    if (!rc) {
        const struct nb_weight rounded = {.rows = q.rows, .cols = q.cols, .q = &q};
        nb_weight_rows(&rounded, nb_backend_pool(r->be), t->out);
        t->loss = t->stats ? report.loss : weight_loss(t->w, t->out);
    }
    nb_arena_release(&arena);
    return rc;
}

/* All candidates of linear i; keeps its weights in the unit's probe. */
static int linear_losses(struct measuring *m, int i, size_t unit, const struct nb_stats *stats,
                         struct nb_err *err)
{
    struct nb_sensitivity *s = m->s;
    const struct nb_arch_linear *lin = &m->linears[i];
    const struct nb_fmat w = {m->copy[i].w, lin->rows, lin->cols, lin->cols};
    struct attempt t = {.w = &w, .stats = stats};
    int rc = 0;
    for (size_t c = 0; c < s->n_candidates && !rc; c++) {
        const size_t at = unit * s->n_candidates + c;
        if (s->candidate[c].is_float || isnan(s->kld[at])) continue;
        if (nb_progress_stop(m->r->progress)) rc = nb_fail(err, NB_E_INTERRUPTED, "interrupted");
        if (!rc && !t.out) t.out = nb_alloc((size_t)lin->rows * (size_t)lin->cols, sizeof(float));
        if (!rc && !t.out) rc = nb_fail(err, NB_E_NOMEM, "no memory for a matrix in f32");
        t.candidate = &s->candidate[c];
        if (!rc) rc = attempt(m, &t, err);
        if (rc) break;
        m->loss[at] += t.loss;
        if ((int)c != m->probe[unit]) continue;
        m->copy[i].rounded = t.out;
        t.out = NULL;
    }
    nb_free(t.out);
    return rc;
}

/* Does the linear take part: is it quantized, and of the experts one of the first? */
static bool takes_part(const struct measuring *m, int i)
{
    const struct nb_arch_linear *lin = &m->linears[i];
    if (lin->branch == NB_BRANCH_EXPERT && lin->expert >= MAX_PROBED_EXPERTS) return false;
    return nb_recipe_module(&m->r->recipe, &m->r->model->arch, m->index, i)->quantized;
}

/* Experts see tokens of their own, and only some stand for all: their losses are of the weights alone. */
static bool has_statistics(const struct measuring *m, enum nb_input input)
{
    return input < NB_INPUT_MLP || !nb_arch_has_experts(&m->r->model->arch, m->index);
}

static int unit_losses(struct measuring *m, size_t unit, const struct nb_stats *stats,
                       struct nb_err *err)
{
    int rc = 0;
    for (int i = 0; i < m->n_linears && !rc; i++) {
        if (m->linears[i].input != (enum nb_input)(unit % NB_INPUT_COUNT) || !m->copy[i].w)
            continue;
        rc = linear_losses(m, i, unit, stats, err);
        if (rc && rc != NB_E_INTERRUPTED) nb_err_prefix(err, "%s", m->linears[i].name);
    }
    return rc;
}

static int measure_input(struct measuring *m, enum nb_input input, struct nb_err *err)
{
    const size_t unit = (size_t)m->index * NB_INPUT_COUNT + input;
    const bool wanted = m->probe[unit] >= 0;
    if (!wanted || !has_statistics(m, input)) {
        const int rc = gather(m, input, NULL, err);
        return rc || !wanted ? rc : unit_losses(m, unit, NULL, err);
    }
    struct nb_stats stats;
    int rc = nb_stats_init(&stats, nb_layer_input_width(m->layer, input), 0, err);
    if (rc) return rc;
    rc = gather(m, input, &stats, err);
    nb_stats_finish(&stats);
    if (!rc && !nb_stats_are_finite(&stats)) {
        rc = nb_fail(err, NB_E_NUMERIC,
                     "calibration gave NaN or Inf, so no sensitivity can be measured; possible: "
                     "one scheme for all (no --target option)");
    }
    if (!rc) rc = nb_stats_condense(&stats, err);
    if (!rc) rc = unit_losses(m, unit, &stats, err);
    nb_stats_release(&stats);
    return rc;
}

/* ---- the perturbed streams ---- */

static int run_probe(struct measuring *m, float *h, struct nb_err *err)
{
    int rc = 0;
    for (int k = 0; k < NB_INPUT_COUNT && !rc; k++) {
        const struct nb_layer_io io = {
            .h = h, .x = m->px, .y = m->py, .n_windows = m->probe_windows, .t = m->t};
        rc = nb_layer_step(m->layer, (enum nb_input)k, &io, err);
        float *swap = m->px;
        m->px = m->py;
        m->py = swap;
    }
    return rc ? rc : nb_layer_finish(m->layer, h, m->px, m->probe_windows, m->t, err);
}

static int replace_unit(struct measuring *m, int input, bool rounded, struct nb_err *err)
{
    int rc = 0;
    for (int i = 0; i < m->n_linears && !rc; i++) {
        const struct copied *c = &m->copy[i];
        if (m->linears[i].input != (enum nb_input)input || !c->rounded) continue;
        rc = nb_layer_replace(m->layer, i, rounded ? c->rounded : c->w, c->bias, err);
    }
    return rc;
}

static int move_streams(struct measuring *m, struct nb_err *err)
{
    const size_t tokens = (size_t)(m->probe_windows * m->t);
    const size_t first = (size_t)m->index * NB_INPUT_COUNT;
    const size_t bytes = tokens * (size_t)m->r->model->arch.hidden_size * sizeof(float);
    memcpy(m->before, m->base, bytes);
    int rc = 0;
    for (size_t u = 0; u < first + NB_INPUT_COUNT && !rc; u++) {
        if (nb_progress_stop(m->r->progress)) return nb_fail(err, NB_E_INTERRUPTED, "interrupted");
        if (m->probe[u] < 0) continue;
        const bool own = u >= first;
        float *h;
        rc = nb_actstore_get(&m->moved, (int64_t)u, !own, &h, err);
        if (!rc && own) {
            memcpy(h, m->before, bytes);
            rc = replace_unit(m, (int)(u - first), true, err);
        }
        if (!rc) rc = run_probe(m, h, err);
        if (!rc && own) rc = replace_unit(m, (int)(u - first), false, err);
        if (!rc) rc = nb_actstore_put(&m->moved, (int64_t)u, err);
    }
    return rc ? rc : run_probe(m, m->base, err);
}

static int copy_linear(struct measuring *m, int i, struct nb_err *err)
{
    const struct nb_arch_linear *lin = &m->linears[i];
    struct copied *c = &m->copy[i];
    struct nb_weight from;
    struct nb_arena arena;
    nb_arena_init(&arena);
    int rc = nb_model_linear(m->r->model, m->index, lin, &arena, &from, err);
    if (!rc) {
        const bool bias = from.bias.data.data;
        c->w = nb_alloc((size_t)lin->rows * (size_t)lin->cols, sizeof(float));
        c->bias = bias ? nb_alloc((size_t)lin->rows, sizeof(float)) : NULL;
        if (!c->w || (bias && !c->bias))
            rc = nb_fail(err, NB_E_NOMEM, "no memory for %s in f32", lin->name);
    }
    if (!rc) {
        nb_weight_rows(&from, nb_backend_pool(m->r->be), c->w);
        if (c->bias) nb_to_f32(c->bias, from.bias.data.data, from.bias.dtype, (size_t)lin->rows);
        rc = nb_layer_replace(m->layer, i, c->w, c->bias, err);
    }
    nb_arena_release(&arena);
    return rc;
}

static int load_layer(struct measuring *m, int64_t layer, struct nb_err *err)
{
    m->index = layer;
    m->linears = nb_arch_layer_linears(&m->r->model->arch, layer, &m->n_linears);
    m->copy = nb_calloc((size_t)m->n_linears, sizeof *m->copy);
    if (!m->copy) return nb_fail(err, NB_E_NOMEM, "no memory for %d linears", m->n_linears);
    int rc = nb_layer_load(&m->layer, m->r->model, layer, m->r->be, err);
    for (int i = 0; i < m->n_linears && !rc; i++)
        if (takes_part(m, i)) rc = copy_linear(m, i, err);
    return rc;
}

static int measure_layer(struct measuring *m, int64_t layer, struct nb_err *err)
{
    struct nb_run *r = m->r;
    char item[48];
    snprintf(item, sizeof item, "layer %" PRId64 "/%" PRId64, layer + 1, r->model->arch.n_layers);
    struct nb_progress_event e = {.phase = "measure",
                                  .item = item,
                                  .done = (uint64_t)layer,
                                  .total = (uint64_t)r->model->arch.n_layers,
                                  .loss = -1};
    nb_progress_report(r->progress, &e);
    int rc = load_layer(m, layer, err);
    for (int k = 0; k < NB_INPUT_COUNT && !rc; k++) rc = measure_input(m, (enum nb_input)k, err);
    if (!rc) rc = finish_chunks(m, err);
    if (!rc) rc = move_streams(m, err);
    layer_release(m);
    nb_model_drop_layer(r->model, layer);
    return rc && rc != NB_E_INTERRUPTED ? nb_err_prefix(err, "layer %" PRId64, layer) : rc;
}

/* ---- the head ---- */

struct head {
    struct nb_arena arena;
    struct nb_linear lin;
    float *normed, *base, *other; /* [HEAD_ROWS, hidden], [HEAD_ROWS, vocabulary] twice */
    double base_lse[HEAD_ROWS], lse[HEAD_ROWS], kld[HEAD_ROWS];
    int64_t vocab;
};

static int head_init(struct head *h, const struct nb_run *r, struct nb_err *err)
{
    struct nb_weight w;
    nb_arena_init(&h->arena);
    memset(&h->lin, 0, sizeof h->lin);
    h->vocab = r->model->arch.vocab_size;
    h->normed = nb_alloc((size_t)(HEAD_ROWS * r->model->arch.hidden_size), sizeof(float));
    h->base = nb_alloc((size_t)(HEAD_ROWS * h->vocab), sizeof(float));
    h->other = nb_alloc((size_t)(HEAD_ROWS * h->vocab), sizeof(float));
    if (!h->normed || !h->base || !h->other)
        return nb_fail(err, NB_E_NOMEM, "no memory for %d rows of logits", HEAD_ROWS);
    const int rc = nb_model_head(r->model, &h->arena, &w, err);
    return rc ? rc : nb_linear_init(&h->lin, r->be, &w, err);
}

static void head_release(struct head *h)
{
    nb_linear_release(&h->lin);
    nb_arena_release(&h->arena);
    nb_free(h->normed);
    nb_free(h->base);
    nb_free(h->other);
}

/* n rows of logits and their log-sum-exp: of the float stream, or (other) of another one. */
static int logits(struct head *h, const struct nb_run *r, const float *hidden, int64_t n,
                  bool other, struct nb_err *err)
{
    const struct nb_arch *a = &r->model->arch;
    float *out = other ? h->other : h->base;
    int rc = nb_layer_final_norm(r->model, r->be, hidden, n, h->normed, err);
    if (rc) return rc;
    const struct nb_linear_out o = {&h->lin, out, h->vocab};
    nb_linear_run(r->be, &o, h->normed, n, a->hidden_size);
    if (a->final_softcap > 0) nb_softcap(r->be, out, n * h->vocab, (float)a->final_softcap);
    nb_logsumexp(r->be, other ? h->lse : h->base_lse, out, n, h->vocab, h->vocab);
    return 0;
}

/* sum p (log p - log q) of one row. */
static void kld_piece(void *ctx, size_t row, int thread)
{
    (void)thread;
    struct head *h = ctx;
    const float *a = h->base + (int64_t)row * h->vocab, *b = h->other + (int64_t)row * h->vocab;
    const double la = h->base_lse[row], lb = h->lse[row];
    double sum = 0;
    for (int64_t v = 0; v < h->vocab; v++) {
        const float p = expf(a[v] - (float)la);
        sum += (double)p * ((double)a[v] - (double)b[v]);
    }
    h->kld[row] = sum + lb - la;
}

/* Adds the divergence of rows [first, first + n) to each unit's. */
static int head_rows(struct measuring *m, struct head *h, int64_t first, int64_t n, double *sum,
                     struct nb_err *err)
{
    struct nb_run *r = m->r;
    const int64_t d = r->model->arch.hidden_size;
    int rc = logits(h, r, m->base + first * d, n, false, err);
    for (size_t u = 0; u < m->s->n_units && !rc; u++) {
        if (nb_progress_stop(r->progress)) return nb_fail(err, NB_E_INTERRUPTED, "interrupted");
        if (m->probe[u] < 0) continue;
        float *moved;
        rc = nb_actstore_get(&m->moved, (int64_t)u, 1, &moved, err);
        if (!rc) rc = logits(h, r, moved + first * d, n, true, err);
        if (rc) return rc;
        nb_pool_run(nb_backend_pool(r->be), (size_t)n, kld_piece, h);
        for (int64_t i = 0; i < n; i++) sum[u] += h->kld[i];
    }
    return rc;
}

static int measure_head(struct measuring *m, double *sum, struct nb_err *err)
{
    struct head h;
    int rc = head_init(&h, m->r, err);
    const int64_t tokens = m->probe_windows * m->t;
    for (int64_t i = 0; i < tokens && !rc; i += HEAD_ROWS)
        rc = head_rows(m, &h, i, tokens - i < HEAD_ROWS ? tokens - i : HEAD_ROWS, sum, err);
    head_release(&h);
    return rc;
}

/* How many times the probed experts stand for the model's; 1 elsewhere. */
static double stands_for(const struct nb_run *r, size_t unit)
{
    const struct nb_arch *arch = &r->model->arch;
    const bool experts = unit % NB_INPUT_COUNT >= NB_INPUT_MLP &&
                         nb_arch_has_experts(arch, (int64_t)(unit / NB_INPUT_COUNT));
    if (!experts || arch->moe->n_experts <= MAX_PROBED_EXPERTS) return 1;
    return (double)arch->moe->n_experts / MAX_PROBED_EXPERTS;
}

/* From the probes to all candidates. */
static int scale_losses(struct measuring *m, const double *sum, struct nb_err *err)
{
    struct nb_sensitivity *s = m->s;
    const double tokens = (double)(m->probe_windows * m->t);
    for (size_t u = 0; u < s->n_units; u++) {
        if (m->probe[u] < 0) continue;
        const double measured = sum[u] / tokens > 0 ? sum[u] / tokens : 0;
        const double scale = stands_for(m->r, u);
        const double at_probe = m->loss[u * s->n_candidates + (size_t)m->probe[u]];
        if (!isfinite(sum[u]) || !isfinite(at_probe))
            return nb_fail(err, NB_E_NUMERIC, "layer %zu: the divergence measured is not finite",
                           u / NB_INPUT_COUNT);
        for (size_t c = 0; c < s->n_candidates; c++) {
            const size_t at = u * s->n_candidates + c;
            if (isnan(s->kld[at])) continue;
            s->kld[at] = at_probe > 0 ? scale * measured * m->loss[at] / at_probe : 0;
        }
    }
    return 0;
}

int nb_sensitivity_measure(struct nb_sensitivity *s, struct nb_run *r, struct nb_err *err)
{
    struct measuring m;
    const enum nb_precision before = nb_backend_set_precision(r->be, NB_PRECISION_F32);
    double *sum = nb_calloc(s->n_units, sizeof *sum);
    int rc = sum ? measuring_init(&m, r, s, err)
                 : nb_fail(err, NB_E_NOMEM, "no memory for %zu units", s->n_units);
    if (!rc) rc = embed(&m, err);
    for (int64_t l = 0; l < r->model->arch.n_layers && !rc; l++) rc = measure_layer(&m, l, err);
    if (!rc) rc = measure_head(&m, sum, err);
    if (!rc) rc = scale_losses(&m, sum, err);
    if (sum) measuring_release(&m);
    nb_free(sum);
    nb_backend_set_precision(r->be, before);
    return rc && rc != NB_E_INTERRUPTED ? nb_err_prefix(err, "sensitivity") : rc;
}

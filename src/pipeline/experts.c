/* SPDX-License-Identifier: Apache-2.0
 *
 * experts.c - the MLPs of a layer with experts: one in memory at a time, each calibrated on the tokens that
 * the router sends it.
 *
 * The router looks once at the quantized stream's input. Then, expert by expert: its tokens are gathered in
 * batches, gate and up are solved, its inner activations made anew with the result, down is solved, and what
 * the solved expert gives is added to the residual stream. The float stream, if there is one, goes through
 * the source's weights of the expert while they are there.
 *
 * A rare expert sees too few tokens for a Hessian: below an eighth of the columns even the diagonal is
 * noise (algorithms, section 3.5). Such an input's statistics are taken over all tokens instead, which is
 * what the expert would see if the router sent it everything. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "pipeline/layer.h"
#include "pipeline/ranges.h"

enum { BATCH = 2048, STARVED_SHARE = 8 };

struct routing {     /* of all tokens of one stream */
    int32_t *expert; /* [tokens, top_k] */
    float *weight;
    float *shared; /* [tokens], or NULL */
};

struct experts {
    struct nb_run *r;
    struct nb_layer_work *w;
    const struct nb_arch_moe *moe;
    int64_t tokens, hidden;
    struct routing own, fp;
    int64_t *count; /* [n_experts] tokens of each, own stream */
    /* one batch */
    float *x, *inner, *up, *out; /* [BATCH, hidden], [BATCH, width] twice, [BATCH, hidden] */
    int64_t *token;
    float *share;
    int64_t n;
};

struct side { /* one of the two streams */
    struct nb_actstore *h, *x;
    const struct routing *routing;
};

static struct side side_of(struct experts *e, bool fp)
{
    struct nb_run *r = e->r;
    return fp ? (struct side){&r->h_fp, &r->x_fp, &e->fp} : (struct side){&r->h, &r->x, &e->own};
}

static int64_t width_of(const struct experts *e, int64_t expert)
{
    return expert == e->moe->n_experts ? e->moe->shared_size : e->moe->expert_size;
}

/* ---- routing ---- */

static int routing_alloc(struct routing *g, const struct experts *e, struct nb_err *err)
{
    size_t n;
    if (nb_mul((size_t)e->tokens, (size_t)e->moe->top_k, &n)) {
        g->expert = nb_alloc(n, sizeof *g->expert);
        g->weight = nb_alloc(n, sizeof *g->weight);
    }
    if (e->moe->shared_size) g->shared = nb_alloc((size_t)e->tokens, sizeof *g->shared);
    if (g->expert && g->weight && (g->shared || !e->moe->shared_size)) return 0;
    return nb_fail(err, NB_E_NOMEM, "no memory for the router's choices of %" PRId64 " tokens",
                   e->tokens);
}

static void routing_release(struct routing *g)
{
    nb_free(g->expert);
    nb_free(g->weight);
    nb_free(g->shared);
}

static int64_t chunk_tokens(const struct nb_run *r)
{
    return r->windows_per_chunk * r->windows.seqlen;
}

static int route(struct experts *e, bool fp, struct nb_err *err)
{
    struct nb_run *r = e->r;
    struct routing *g = fp ? &e->fp : &e->own;
    const struct side s = side_of(e, fp);
    int rc = routing_alloc(g, e, err);
    for (int64_t c = 0; c < r->n_chunks && !rc; c++) {
        float *x;
        const int64_t first = c * chunk_tokens(r),
                      n = nb_run_chunk_windows(r, c) * r->windows.seqlen;
        rc = nb_actstore_get(s.x, c, 1, &x, err);
        if (!rc) {
            rc = nb_layer_route(e->w->engine, x, n, g->expert + first * e->moe->top_k,
                                g->weight + first * e->moe->top_k, err);
        }
        if (!rc && g->shared) nb_layer_shared_weight(e->w->engine, x, n, g->shared + first);
    }
    for (int64_t i = 0; !rc && !fp && i < e->tokens * e->moe->top_k; i++) e->count[g->expert[i]]++;
    return rc;
}

/* ---- batches ---- */

/* How much token t counts for the expert; negative: it is not sent there. */
static float share_of(const struct experts *e, const struct routing *g, int64_t expert, int64_t t)
{
    const int64_t k = e->moe->top_k;
    if (expert == e->moe->n_experts) return g->shared[t];
    for (int64_t i = t * k; i < (t + 1) * k; i++) {
        if (g->expert[i] == expert) return g->weight[i];
    }
    return -1;
}

static int read_rows(struct experts *e, struct nb_actstore *x, struct nb_err *err)
{
    const int64_t per_chunk = chunk_tokens(e->r);
    int rc = 0;
    for (int64_t i = 0, n; i < e->n && !rc; i += n) {
        const int64_t t = e->token[i];
        n = 1; /* neighbours in one go */
        while (i + n < e->n && e->token[i + n] == t + n && (t + n) % per_chunk) n++;
        rc = nb_actstore_read(x, t / per_chunk, (size_t)(t % per_chunk * e->hidden),
                              (size_t)(n * e->hidden), e->x + i * e->hidden, err);
    }
    return rc;
}

/* The next tokens from *at on that go to the expert, or with `all` simply the next; their inputs in e->x.
 * e->n 0: there are no more. */
static int next_batch(struct experts *e, const struct side *s, int64_t expert, bool all,
                      int64_t *at, struct nb_err *err)
{
    e->n = 0;
    if (nb_progress_stop(e->r->progress)) return nb_fail(err, NB_E_INTERRUPTED, "interrupted");
    for (; *at < e->tokens && e->n < BATCH; ++*at) {
        const float share = all ? 0 : share_of(e, s->routing, expert, *at);
        if (share < 0) continue;
        e->token[e->n] = *at;
        e->share[e->n++] = share;
    }
    return read_rows(e, s->x, err);
}

static void run_inner(struct experts *e, int64_t expert)
{
    const struct nb_expert_rows rows = {e->x, e->inner, e->n};
    nb_layer_expert_inner(e->w->engine, expert, &rows, e->up);
}

static int add_to_stream(struct experts *e, struct nb_actstore *h, struct nb_err *err)
{
    const int64_t per_chunk = chunk_tokens(e->r), d = e->hidden;
    int rc = 0;
    for (int64_t i = 0; i < e->n && !rc; i++) {
        const int64_t c = e->token[i] / per_chunk;
        const size_t first = (size_t)(e->token[i] % per_chunk * d);
        float *row = e->x + i * d; /* its input is not needed any more */
        rc = nb_actstore_read(h, c, first, (size_t)d, row, err);
        if (rc) break;
        for (int64_t k = 0; k < d; k++) row[k] += e->share[i] * e->out[i * d + k];
        rc = nb_actstore_write(h, c, first, (size_t)d, row, err);
    }
    return rc;
}

/* The residual stream gets what the expert gives, with the weights that are in force. */
static int propagate(struct experts *e, int64_t expert, bool fp, struct nb_err *err)
{
    const struct side s = side_of(e, fp);
    int64_t at = 0;
    for (;;) {
        int rc = next_batch(e, &s, expert, false, &at, err);
        if (rc || !e->n) return rc;
        run_inner(e, expert);
        const struct nb_expert_rows rows = {e->inner, e->out, e->n};
        nb_layer_expert_outer(e->w->engine, expert, &rows);
        rc = add_to_stream(e, s.h, err);
        if (rc) return rc;
    }
}

/* ---- solving ---- */

static int gather(struct experts *e, int64_t expert, bool inner, bool all, struct nb_stats *stats,
                  struct nb_err *err)
{
    const struct side s = side_of(e, false);
    int64_t at = 0;
    for (;;) {
        int rc = next_batch(e, &s, expert, all, &at, err);
        if (rc || !e->n) return rc;
        if (inner) run_inner(e, expert);
        const struct nb_stats_input in = {.x = inner ? e->inner : e->x, .m = e->n};
        nb_ranges_add(e->r, in.x, in.m, stats->k);
        rc = nb_stats_add(stats, e->r->be, &in, err);
        if (rc) return rc;
    }
}

static bool any_quantized(const struct experts *e, int first, int n)
{
    for (int i = first; i < first + n; i++) {
        if (nb_recipe_module(&e->r->recipe, &e->r->model->arch, e->w->index, i)->quantized)
            return true;
    }
    return false;
}

/* The n linears from `first` on, which share an input. */
static int solve(struct experts *e, int64_t expert, int first, int n, struct nb_err *err)
{
    struct nb_run *r = e->r;
    const bool routed = expert < e->moe->n_experts;
    if (!any_quantized(e, first, n)) return 0;
    struct nb_stats stats;
    struct nb_expert_load load = {.routed = routed,
                                  .tokens = routed && e->count ? e->count[expert] : e->tokens};
    int rc = 0;
    bool usable = false;
    if (r->recipe.calibrates) {
        const int64_t k = e->w->linears[first].cols;
        const bool starved = load.tokens < k / STARVED_SHARE;
        load.all_tokens = routed && (starved || r->recipe.moe_all_tokens);
        rc = nb_stats_init(&stats, k, 0, err);
        if (rc) return rc;
        nb_ranges_begin(r, e->w->engine, e->w->linears[first].input);
        rc = gather(e, expert, e->w->linears[first].input == NB_INPUT_DOWN,
                    load.all_tokens || !routed, &stats, err);
        nb_stats_finish(&stats);
        usable = !rc && nb_stats_are_finite(&stats);
        if (!rc && !usable) nb_layer_work_warn_nonfinite(r, e->w, e->w->linears[first].name);
        if (usable) rc = nb_stats_condense(&stats, err);
    }
    r->expert_load = &load;
    for (int i = first; i < first + n && !rc; i++)
        rc = nb_layer_work_solve(r, e->w, i, usable ? &stats : NULL, err);
    r->expert_load = NULL;
    if (r->recipe.calibrates) nb_stats_release(&stats);
    return rc;
}

static int run_expert(struct experts *e, int64_t expert, bool more, struct nb_err *err)
{
    struct nb_run *r = e->r;
    const int first = e->moe->first_expert + 3 * (int)expert;
    int rc = 0;
    for (int i = first; i < first + 3 && !rc; i++) rc = nb_layer_work_load_linear(r, e->w, i, err);
    if (!rc && more && r->recipe.fp_stream) rc = propagate(e, expert, true, err);
    if (!rc) rc = solve(e, expert, first, 2, err);
    if (!rc) rc = solve(e, expert, first + 2, 1, err);
    if (!rc && more) rc = propagate(e, expert, false, err);
    for (int i = first; i < first + 3; i++) nb_layer_work_drop_linear(e->w, i);
    return rc;
}

static int reserve(struct experts *e, struct nb_err *err)
{
    const int64_t wide =
        width_of(e, 0) > e->moe->shared_size ? width_of(e, 0) : e->moe->shared_size;
    e->count = nb_calloc((size_t)e->moe->n_experts, sizeof *e->count);
    e->x = nb_alloc((size_t)(BATCH * e->hidden), sizeof *e->x);
    e->out = nb_alloc((size_t)(BATCH * e->hidden), sizeof *e->out);
    e->inner = nb_alloc((size_t)(BATCH * wide), sizeof *e->inner);
    e->up = nb_alloc((size_t)(BATCH * wide), sizeof *e->up);
    e->token = nb_alloc(BATCH, sizeof *e->token);
    e->share = nb_alloc(BATCH, sizeof *e->share);
    if (e->count && e->x && e->out && e->inner && e->up && e->token && e->share) return 0;
    return nb_fail(err, NB_E_NOMEM, "no memory for a batch of %d tokens", BATCH);
}

static void experts_release(struct experts *e)
{
    routing_release(&e->own);
    routing_release(&e->fp);
    nb_free(e->count);
    nb_free(e->x);
    nb_free(e->out);
    nb_free(e->inner);
    nb_free(e->up);
    nb_free(e->token);
    nb_free(e->share);
}

static void warn_starved(const struct experts *e)
{
    int64_t n = 0, fewest = 0;
    for (int64_t i = 0; i < e->moe->n_experts; i++) {
        n += e->count[i] < e->hidden / STARVED_SHARE;
        if (e->count[i] < e->count[fewest]) fewest = i;
    }
    if (!n || e->r->recipe.moe_all_tokens) return;
    nb_progress_warn(e->r->progress,
                     "layer %" PRId64 ": %" PRId64 " of %" PRId64 " experts saw fewer than %" PRId64
                     " of %" PRId64 " calibration tokens (expert %" PRId64 ": %" PRId64
                     "); these are calibrated on all tokens",
                     e->w->index, n, e->moe->n_experts, e->hidden / STARVED_SHARE, e->tokens,
                     fewest, e->count[fewest]);
}

int nb_run_experts(struct nb_run *r, struct nb_layer_work *w, bool more, struct nb_err *err)
{
    const struct nb_arch_moe *moe = r->model->arch.moe;
    struct experts e = {.r = r,
                        .w = w,
                        .moe = moe,
                        .tokens = r->windows.n_windows * r->windows.seqlen,
                        .hidden = r->model->arch.hidden_size};
    int rc = 0;
    if (r->recipe.calibrates) {
        rc = reserve(&e, err);
        if (!rc) rc = route(&e, false, err);
        if (!rc && r->recipe.fp_stream) rc = route(&e, true, err);
        if (!rc) warn_starved(&e);
    }
    const int64_t n = moe->n_experts + (moe->shared_size ? 1 : 0);
    for (int64_t i = 0; i < n && !rc; i++)
        rc = run_expert(&e, i, more && r->recipe.calibrates, err);
    experts_release(&e);
    return rc;
}

/* ---- what the run says of them ---- */

/* Length of the module path without its last part: the expert that a linear is of. */
static size_t owner(const char *name)
{
    const char *dot = strrchr(name, '.');
    return dot ? (size_t)(dot - name) : strlen(name);
}

static int compare_counts(const void *pa, const void *pb)
{
    const int64_t *a = pa, *b = pb;
    return (*a > *b) - (*a < *b);
}

void nb_experts_note(struct nb_run *r)
{
    const struct nb_quantize_report *q = r->report;
    int64_t *count = nb_alloc(q->n_linears + 1, sizeof *count), n = 0, all = 0;
    const char *last = "";
    if (!count) return;
    for (size_t i = 0; i < q->n_linears; i++) {
        const struct nb_linear_report *l = &q->linears[i];
        const size_t length = owner(l->name);
        if (!l->expert || (owner(last) == length && !strncmp(last, l->name, length))) continue;
        last = l->name;
        count[n++] = l->tokens;
        all += l->all_tokens;
    }
    if (n) {
        qsort(count, (size_t)n, sizeof *count, compare_counts);
        nb_strbuf_printf(&r->report->notes,
                         "%" PRId64 " experts saw %" PRId64 " to %" PRId64
                         " calibration tokens each (median %" PRId64 ")",
                         n, count[0], count[n - 1], count[n / 2]);
        if (all)
            nb_strbuf_printf(&r->report->notes, "; %" PRId64 " were calibrated on all tokens", all);
        nb_strbuf_putc(&r->report->notes, '\n');
    }
    nb_free(count);
}

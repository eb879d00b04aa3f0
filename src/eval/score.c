/* SPDX-License-Identifier: Apache-2.0
 *
 * score.c - see score.h. Source: evaluation, sections 2, 8.1, 9.2. */
#include "eval/score.h"

#include <inttypes.h>
#include <math.h>
#include <string.h>

#include "base/mem.h"
#include "eval/interval.h"

enum { PIECE_ROWS = 8, MIN_TILE_ROWS = 64, MAX_TILE_ROWS = 512, TILE_FLOATS = 16 << 20 };

static void score_llamacpp(struct nb_eval_score *s, int64_t i)
{
    int64_t v = s->head.vocabulary;
    float *b = s->logits_base + i * v;
    if (s->base.file) nb_eval_logits_row(s->base.file, s->segment, s->first_row + i, b);
    else nb_eval_row_log_softmax(b, v);
    nb_eval_row_llamacpp(&s->rows[i], s->logits + i * v, b, v, s->targets[i]);
}

static void score_piece(void *ctx, size_t piece, int thread)
{
    (void)thread;
    struct nb_eval_score *s = ctx;
    int64_t v = s->head.vocabulary, end = (int64_t)(piece + 1) * PIECE_ROWS;
    if (end > s->tile_rows) end = s->tile_rows;
    for (int64_t i = (int64_t)piece * PIECE_ROWS; i < end; i++) {
        const float *a = s->logits + i * v;
        if (!s->paired) nb_eval_row_one(&s->rows[i], a, v, s->targets[i]);
        else if (s->llamacpp) score_llamacpp(s, i);
        else nb_eval_row_pair(&s->rows[i], a, s->logits_base + i * v, v, s->targets[i]);
        if (s->save)
            nb_eval_logits_encode(s->saved + (size_t)i * nb_eval_logits_row_bytes(v), a, v);
    }
}

/* Adds the tile's rows, scaled so that the segment enters with its own weight. */
static int add_rows(struct nb_eval_score *s, const struct nb_eval_segment *seg, int64_t index,
                    struct nb_err *err)
{
    double scale = seg->n_counted / (double)(seg->n - seg->first);
    struct nb_eval_counts *c = &s->counts;
    for (int64_t i = 0; i < s->tile_rows; i++) {
        const struct nb_eval_row *r = &s->rows[i];
        if (!isfinite(r->nll) || !isfinite(r->nll_base) || !isfinite(r->kld)) {
            return nb_fail(err, NB_E_NUMERIC, "window %" PRId64 ": the logits of %s are not finite",
                           index, isfinite(r->nll) ? "the model compared with" : "the model");
        }
        c->nll[seg->cluster] += scale * r->nll;
        c->nll_base[seg->cluster] += scale * r->nll_base;
        c->weight[seg->cluster] += scale;
        c->rows[seg->cluster] += 1;
        c->kld[seg->cluster] += r->kld;
        c->same_top[seg->cluster] += r->same_top;
        s->nll += scale * r->nll;
        s->weight += scale;
        s->nll_squares += r->nll * r->nll;
        if (s->kld) s->kld[s->n_rows] = (float)r->kld;
        if (s->llamacpp) {
            s->dp[s->n_rows] = r->dp;
            nb_eval_moments_add(&s->moments, r);
        }
        s->n_rows++;
        s->n_same += r->same_top;
        s->n_flips += r->flip;
    }
    return 0;
}

int nb_eval_score_segment(struct nb_eval_score *s, int64_t index, const float *hidden,
                          const float *hidden_base, struct nb_err *err)
{
    const struct nb_eval_segment *seg = &s->plan->segments[index];
    int rc = s->base.file ? nb_eval_logits_check(s->base.file, index, err) : 0;
    s->segment = index;
    for (int64_t t = seg->first; t < seg->n && !rc; t += s->tile_rows) {
        int64_t left = seg->n - t;
        s->tile_rows = left < s->max_rows ? left : s->max_rows;
        s->targets = s->plan->ids + seg->offset + t;
        s->first_row = t - seg->first;
        const float *h = hidden + (t - 1) * s->head.hidden_size;
        s->head.logits(s->head.ctx, h, s->tile_rows, s->logits);
        if (s->base.logits) {
            h = hidden_base + (t - 1) * s->base.hidden_size;
            s->base.logits(s->base.ctx, h, s->tile_rows, s->logits_base);
        }
        size_t pieces = (size_t)((s->tile_rows + PIECE_ROWS - 1) / PIECE_ROWS);
        nb_pool_run(s->pool, pieces, score_piece, s);
        rc = add_rows(s, seg, index, err);
        if (!rc && s->save) {
            size_t bytes = nb_eval_logits_row_bytes(s->head.vocabulary);
            rc = nb_eval_logits_append(s->save, s->saved, (size_t)s->tile_rows * bytes, err);
        }
    }
    if (s->base.file) nb_eval_logits_drop(s->base.file, index);
    return rc;
}

int64_t nb_eval_longest(const struct nb_eval_plan *plan)
{
    int64_t n = 1;
    for (int64_t i = 0; i < plan->n_segments; i++) {
        if (plan->segments[i].n - 1 > n) n = plan->segments[i].n - 1;
    }
    return n;
}

int nb_eval_score_init(struct nb_eval_score *s, const struct nb_eval_plan *plan,
                       const struct nb_eval_head *head, const struct nb_eval_head *base,
                       struct nb_pool *pool, struct nb_err *err)
{
    memset(s, 0, sizeof *s);
    s->plan = plan;
    s->head = *head;
    s->pool = pool;
    if (base) s->base = *base;
    s->paired = base != NULL;
    s->llamacpp = base && plan->protocol == NB_EVAL_LLAMACPP;
    if (plan->n_segments < 1) return nb_fail(err, NB_E_FORMAT, "the text has no window to score");
    if (base && base->vocabulary != head->vocabulary) {
        return nb_fail(err, NB_E_SPEC,
                       "the models cannot be compared: vocabularies of %" PRId64 " and %" PRId64,
                       head->vocabulary, base->vocabulary);
    }
    int64_t rows = TILE_FLOATS / head->vocabulary, longest = nb_eval_longest(plan), total = 0;
    rows = rows < MIN_TILE_ROWS ? MIN_TILE_ROWS : rows > MAX_TILE_ROWS ? MAX_TILE_ROWS : rows;
    if (rows > longest) rows = longest;
    s->max_rows = rows;
    for (int64_t i = 0; i < plan->n_segments; i++) {
        total += plan->segments[i].n - plan->segments[i].first;
    }
    size_t n = (size_t)plan->n_clusters, v = (size_t)head->vocabulary;
    s->logits = nb_alloc((size_t)rows * v, sizeof(float));
    s->rows = nb_alloc((size_t)rows, sizeof *s->rows);
    double *m = s->count_memory = nb_calloc(n * 6, sizeof(double));
    bool ok = s->logits && s->rows && m;
    if (ok)
        s->counts = (struct nb_eval_counts){m, m + n, m + 2 * n, m + 3 * n, m + 4 * n, m + 5 * n};
    if (base) {
        s->logits_base = nb_alloc((size_t)rows * v, sizeof(float));
        s->kld = nb_alloc((size_t)total, sizeof(float));
        if (s->llamacpp) s->dp = nb_alloc((size_t)total, sizeof(float));
        ok = ok && s->logits_base && s->kld && (s->dp || !s->llamacpp);
    }
    if (ok) return 0;
    return nb_fail(err, NB_E_NOMEM, "out of memory for %" PRId64 " rows of %zu logits", rows, v);
}

int nb_eval_score_save(struct nb_eval_score *s, struct nb_eval_logits_out *out, struct nb_err *err)
{
    size_t bytes = nb_eval_logits_row_bytes(s->head.vocabulary);
    s->save = out;
    s->saved = nb_alloc((size_t)s->max_rows, bytes);
    if (s->saved) return 0;
    return nb_fail(err, NB_E_NOMEM, "out of memory for %" PRId64 " rows of %zu bytes", s->max_rows,
                   bytes);
}

void nb_eval_score_release(struct nb_eval_score *s)
{
    nb_free(s->logits);
    nb_free(s->logits_base);
    nb_free(s->rows);
    nb_free(s->count_memory);
    nb_free(s->kld);
    nb_free(s->dp);
    nb_free(s->saved);
    memset(s, 0, sizeof *s);
}

static void fill_compare(struct nb_compare_result *c, struct nb_eval_score *s, double log_ppl)
{
    int64_t n = s->plan->n_clusters;
    const struct nb_eval_counts *k = &s->counts;
    struct nb_eval_mean base = nb_eval_cluster_mean(k->nll_base, k->weight, n);
    double *difference = k->nll; /* the sums of the model itself are not needed any more */
    for (int64_t i = 0; i < n; i++) difference[i] = k->nll[i] - k->nll_base[i];
    struct nb_eval_mean d = nb_eval_cluster_mean(difference, k->weight, n);
    double half = n < 2 ? NAN : nb_eval_t975(n - 1) * d.stderr_;
    c->ppl_base = exp(base.mean);
    c->ppl_ratio = exp(log_ppl - base.mean);
    c->ppl_ratio_lo = exp(d.mean - half);
    c->ppl_ratio_hi = exp(d.mean + half);
    struct nb_eval_mean kld = nb_eval_cluster_mean(k->kld, k->rows, n);
    c->kld_mean = kld.mean;
    c->kld_stderr = kld.stderr_;
    c->same_top = (double)s->n_same / (double)s->n_rows;
    c->same_top_stderr = nb_eval_cluster_mean(k->same_top, k->rows, n).stderr_;
    c->confident_flips = (double)s->n_flips / (double)s->n_rows;
    size_t rows = (size_t)s->n_rows;
    nb_eval_sort(s->kld, rows);
    c->kld_median = nb_eval_quantile(s->kld, rows, 0.5);
    c->kld_p90 = nb_eval_quantile(s->kld, rows, 0.9);
    c->kld_p99 = nb_eval_quantile(s->kld, rows, 0.99);
    c->kld_p999 = nb_eval_quantile(s->kld, rows, 0.999);
    c->kld_max = s->kld[rows - 1];
}

void nb_eval_score_finish(struct nb_eval_score *s, struct nb_eval_result *out)
{
    const struct nb_eval_plan *plan = s->plan;
    struct nb_eval_mean nll =
        nb_eval_cluster_mean(s->counts.nll, s->counts.weight, plan->n_clusters);
    memset(out, 0, sizeof *out);
    out->window = plan->window;
    out->n_windows = plan->n_segments;
    out->n_tokens = s->n_rows;
    out->ppl = exp(nll.mean);
    out->ppl_stderr = out->ppl * nll.stderr_;
    if (plan->protocol == NB_EVAL_LLAMACPP) { /* its own formula: tokens as independent units */
        double n = (double)s->n_rows, variance = s->nll_squares / n - nll.mean * nll.mean;
        out->ppl_stderr = n > 1 && variance > 0 ? out->ppl * sqrt(variance / (n - 1)) : NAN;
    }
    memcpy(out->text_sha256, plan->text_sha256, sizeof out->text_sha256);
    out->has_compare = s->paired;
    if (s->paired) fill_compare(&out->compare, s, nll.mean);
    out->has_llamacpp = s->llamacpp;
    if (s->llamacpp) nb_eval_moments_finish(&s->moments, s->kld, s->dp, &out->llamacpp);
}

void nb_eval_score_report(const struct nb_eval_score *s, int64_t done,
                          const struct nb_progress *progress)
{
    int64_t n = s->plan->n_segments;
    struct nb_progress_event event = {
        .phase = "eval",
        .done = (uint64_t)done,
        .total = (uint64_t)n,
        .loss = s->nll / s->weight,
        /* a line for each tenth, not for each of maybe thousands of windows */
        .item_done = done * 10 / n != (done - 1) * 10 / n};
    nb_progress_report(progress, &event);
}

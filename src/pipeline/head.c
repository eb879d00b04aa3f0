/* SPDX-License-Identifier: Apache-2.0
 *
 * head.c - the head of a GGUF file (or the embedding that serves as one), solved like a linear: its input is
 * the final norm of what the quantized layers give. Rows go in slices, since a vocabulary is long. */
#include <inttypes.h>
#include <string.h>

#include "numeric/block.h"
#include "pipeline/run.h"

enum { SLICE_WEIGHTS = 1 << 24 };

static int gather(struct nb_run *r, struct nb_stats *stats, struct nb_err *err)
{
    for (int64_t c = 0; c < r->n_chunks; c++) {
        if (nb_progress_stop(r->progress)) return nb_fail(err, NB_E_INTERRUPTED, "interrupted");
        float *h;
        const int64_t n = nb_run_chunk_windows(r, c) * r->windows.seqlen;
        int rc = nb_actstore_get(&r->h, c, 1, &h, err);
        if (!rc) rc = nb_layer_final_norm(r->model, r->be, h, n, r->step_out, err);
        if (!rc)
            rc = nb_stats_add(stats, r->be, &(struct nb_stats_input){r->step_out, NULL, n}, err);
        if (rc) return rc;
    }
    nb_stats_finish(stats);
    return 0;
}

struct slice {
    const struct nb_weight *from;
    int64_t row0;
    float *to;
};

static void load_row(void *ctx, size_t piece, int thread)
{
    (void)thread;
    const struct slice *s = ctx;
    nb_weight_row(s->from, s->row0 + (int64_t)piece, s->to + (int64_t)piece * s->from->cols);
}

static void add_report(struct nb_solve_report *sum, const struct nb_solve_report *part)
{
    const double loss = sum->loss, rtn = sum->loss_rtn, zero = sum->loss_zero;
    *sum = *part;
    sum->loss += loss;
    sum->loss_rtn += rtn;
    sum->loss_zero += zero;
}

static int solve_rows(struct nb_run *r, const struct nb_weight *w, const struct nb_stats *stats,
                      struct nb_solve_report *report, struct nb_err *err)
{
    const size_t item = nb_gguf_out_head(r->gguf);
    const struct nb_block_type *type = nb_gguf_out_at(r->gguf, item)->type;
    int64_t most = SLICE_WEIGHTS / w->cols;
    if (most < 1) most = 1;
    if (most > w->rows) most = w->rows;
    float *x = nb_alloc((size_t)most * (size_t)w->cols, sizeof *x);
    unsigned char *out = nb_alloc((size_t)most, nb_block_row_bytes(type, w->cols));
    int rc = x && out ? 0 : nb_fail(err, NB_E_NOMEM, "no memory for the head");
    for (int64_t row = 0; row < w->rows && !rc; row += most) {
        if (nb_progress_stop(r->progress)) rc = nb_fail(err, NB_E_INTERRUPTED, "interrupted");
        const int64_t n = w->rows - row < most ? w->rows - row : most;
        struct slice s = {w, row, x};
        struct nb_fmat mat = {x, n, w->cols, w->cols};
        struct nb_solve_report part;
        const struct nb_solve_job job = {&mat, stats, &r->recipe.solve, r->be};
        nb_pool_run(nb_backend_pool(r->be), (size_t)n, load_row, &s);
        if (!rc) rc = nb_block_solve(type, &job, out, &part, err);
        if (rc) break;
        add_report(report, &part);
        rc = nb_gguf_out_put_blocks(r->gguf, item, &(struct nb_gguf_rows){row, n, out}, err);
    }
    nb_free(x);
    nb_free(out);
    return rc;
}

int nb_run_head(struct nb_run *r, struct nb_err *err)
{
    const struct nb_gguf_item *it = nb_gguf_out_at(r->gguf, nb_gguf_out_head(r->gguf));
    struct nb_module_spec m = r->recipe.head_spec;
    struct nb_stats stats;
    struct nb_weight w;
    struct nb_arena arena;
    struct nb_solve_report report = {.ladder = ""};
    nb_arena_init(&arena);
    struct nb_progress_event e = {.phase = "quantize",
                                  .item = m.path,
                                  .done = (uint64_t)r->report->n_linears,
                                  .total = r->recipe.n_quantized,
                                  .loss = -1};
    nb_progress_report(r->progress, &e);
    int rc = nb_stats_init(&stats, it->cols, 0, err);
    if (rc) return rc;
    rc = gather(r, &stats, err);
    const bool usable = !rc && nb_stats_are_finite(&stats);
    if (usable) rc = nb_stats_condense(&stats, err);
    if (!rc) rc = nb_model_head(r->model, &arena, &w, err);
    if (!rc) rc = solve_rows(r, &w, usable ? &stats : NULL, &report, err);
    if (!rc && nb_run_record(r, &m, &report))
        rc = nb_fail(err, NB_E_NUMERIC, "%s: loss is not finite", m.path);
    nb_stats_release(&stats);
    nb_arena_release(&arena);
    return rc ? rc == NB_E_INTERRUPTED ? rc : nb_err_prefix(err, "%s", m.path) : 0;
}

/* SPDX-License-Identifier: Apache-2.0
 *
 * streamed.c - the same figures as nb_eval_windows with one decoder layer in memory at a time.
 *
 * All windows of a batch go through a layer before the next one is loaded, so the model's size does not
 * matter; the hidden states of the batch do, and a batch is as many windows as the memory allows. This is
 * how the gate of a quantization run keeps the run's memory promise. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "base/mem.h"
#include "eval/eval.h"
#include "eval/score.h"

enum { CHUNK_TOKENS = 4096 };

struct stream {       /* one model */
    const char *name; /* for progress */
    const struct nb_model *model;
    struct nb_backend *be;
    struct nb_linear head;
    struct nb_arena arena; /* of a quantized head */
    float *h;              /* [batch windows * t, hidden] */
    float *x, *y;          /* [chunk tokens, widest input] */
};

static void stream_logits(void *ctx, const float *hidden, int64_t m, float *out)
{
    struct stream *s = ctx;
    const struct nb_arch *a = &s->model->arch;
    nb_linear_run(s->be, &(struct nb_linear_out){.lin = &s->head, .y = out, .ldy = a->vocab_size},
                  hidden, m, a->hidden_size);
    if (a->final_softcap > 0) nb_softcap(s->be, out, m * a->vocab_size, (float)a->final_softcap);
}

static int64_t windows_per_chunk(int64_t t)
{
    return t >= CHUNK_TOKENS ? 1 : CHUNK_TOKENS / t;
}

static int open_head(struct stream *s, struct nb_err *err)
{
    struct nb_weight w;
    int rc = nb_model_head(s->model, &s->arena, &w, err);
    return rc ? rc : nb_linear_init(&s->head, s->be, &w, err);
}

static int stream_open(struct stream *s, const struct nb_model *model, struct nb_backend *be,
                       int64_t batch, int64_t t, struct nb_err *err)
{
    s->model = model;
    s->be = be;
    nb_arena_init(&s->arena);
    const struct nb_arch *a = &model->arch;
    int64_t widest = a->hidden_size;
    for (int i = 0; i < NB_INPUT_COUNT; i++) {
        int64_t w = nb_input_width(a, (enum nb_input)i);
        if (w > widest) widest = w;
    }
    size_t chunk = (size_t)(windows_per_chunk(t) * t), d = (size_t)a->hidden_size;
    s->h = nb_alloc((size_t)(batch * t) * d, sizeof(float));
    s->x = nb_alloc(chunk * (size_t)widest, sizeof(float));
    s->y = nb_alloc(chunk * (size_t)widest, sizeof(float));
    if (!s->h || !s->x || !s->y) {
        return nb_fail(err, NB_E_NOMEM,
                       "out of memory for the hidden states of %" PRId64 " windows of %" PRId64
                       " tokens",
                       batch, t);
    }
    return open_head(s, err);
}

static void stream_close(struct stream *s)
{
    nb_linear_release(&s->head);
    nb_arena_release(&s->arena);
    nb_free(s->h);
    nb_free(s->x);
    nb_free(s->y);
}

/* n windows of t tokens through one layer; h in place. */
static int run_chunk(struct stream *s, struct nb_layer *layer, float *h, int64_t n, int64_t t,
                     struct nb_err *err)
{
    float *x = s->x, *y = s->y;
    int rc = 0;
    for (int i = 0; i < NB_INPUT_COUNT && !rc; i++) {
        rc = nb_layer_step(layer, (enum nb_input)i, &(struct nb_layer_io){h, x, y, n, t}, err);
        float *swap = x;
        x = y;
        y = swap;
    }
    return rc ? rc : nb_layer_finish(layer, h, x, n, t, err);
}

/* Work that shows nothing to score yet; without it a terminal would stand still for minutes. */
static void report_layer(const struct stream *s, int64_t l, const struct nb_progress *progress)
{
    int64_t n = s->model->arch.n_layers;
    struct nb_progress_event event = {.phase = s->name,
                                      .item = "layers",
                                      .done = (uint64_t)(l + 1),
                                      .total = (uint64_t)n,
                                      .loss = -1,
                                      .item_done = l + 1 == n};
    nb_progress_report(progress, &event);
}

/* Final hidden states of windows [first, first + n) into s->h. */
static int stream_batch(struct stream *s, const struct nb_eval_plan *plan, int64_t first, int64_t n,
                        const struct nb_progress *progress, struct nb_err *err)
{
    const struct nb_arch *a = &s->model->arch;
    int64_t t = plan->window - 1, d = a->hidden_size, chunk = windows_per_chunk(t);
    int rc = 0;
    for (int64_t i = 0; i < n && !rc; i++) {
        const int32_t *ids = plan->ids + plan->segments[first + i].offset;
        rc = nb_layer_embed(s->model, s->be, ids, t, s->h + i * t * d, err);
    }
    for (int64_t l = 0; l < a->n_layers && !rc; l++) {
        if (nb_progress_stop(progress)) return nb_fail(err, NB_E_INTERRUPTED, "interrupted");
        struct nb_layer *layer = NULL;
        rc = nb_layer_load(&layer, s->model, l, s->be, err);
        for (int64_t i = 0; i < n && !rc; i += chunk) {
            int64_t m = n - i < chunk ? n - i : chunk;
            rc = run_chunk(s, layer, s->h + i * t * d, m, t, err);
        }
        nb_layer_free(layer);
        nb_model_drop_layer(s->model, l);
        if (!rc) report_layer(s, l, progress);
    }
    for (int64_t i = 0; i < n && !rc; i++) {
        float *h = s->h + i * t * d;
        rc = nb_layer_final_norm(s->model, s->be, h, t, h, err);
    }
    return rc;
}

static int run_batches(struct nb_eval_score *score, struct stream *e, struct stream *base,
                       int64_t batch, const struct nb_progress *progress, struct nb_err *err)
{
    const struct nb_eval_plan *plan = score->plan;
    int64_t t = plan->window - 1;
    int rc = 0;
    for (int64_t first = 0; first < plan->n_segments && !rc; first += batch) {
        int64_t n = plan->n_segments - first < batch ? plan->n_segments - first : batch;
        rc = stream_batch(e, plan, first, n, progress, err);
        if (!rc && base) rc = stream_batch(base, plan, first, n, progress, err);
        for (int64_t i = 0; i < n && !rc; i++) {
            const float *h = e->h + i * t * e->model->arch.hidden_size;
            const float *hb = base ? base->h + i * t * base->model->arch.hidden_size : NULL;
            rc = nb_eval_score_segment(score, first + i, h, hb, err);
            if (!rc) nb_eval_score_report(score, first + i + 1, progress);
        }
    }
    return rc;
}

int nb_eval_streamed(struct nb_eval_result *out, const struct nb_eval_models *models,
                     const struct nb_windows *windows, uint64_t memory_bytes,
                     const struct nb_progress *progress, struct nb_err *err)
{
    double from = nb_clock_s();
    const struct nb_model *base = models->base;
    struct nb_eval_plan plan;
    int rc = nb_eval_plan_windows(&plan, windows, err);
    if (rc) return rc;
    int64_t t = plan.window - 1, d = models->model->arch.hidden_size;
    uint64_t one =
        (uint64_t)t * (uint64_t)(d + (base ? base->arch.hidden_size : 0)) * sizeof(float);
    uint64_t fit = memory_bytes / (one ? one : 1);
    int64_t batch = fit < 1 ? 1 : fit < (uint64_t)plan.n_segments ? (int64_t)fit : plan.n_segments;
    struct stream s = {.name = "eval model"}, sb = {.name = "eval base"};
    struct nb_eval_score score = {0};
    rc = stream_open(&s, models->model, models->be, batch, t, err);
    if (!rc && base) rc = stream_open(&sb, base, models->be, batch, t, err);
    struct nb_eval_head head = {&s, d, models->model->arch.vocab_size, stream_logits, NULL},
                        head_base = {0};
    if (base) {
        head_base = (struct nb_eval_head){&sb, base->arch.hidden_size, base->arch.vocab_size,
                                          stream_logits, NULL};
    }
    if (!rc) {
        rc = nb_eval_score_init(&score, &plan, &head, base ? &head_base : NULL,
                                nb_backend_pool(models->be), err);
    }
    if (!rc) rc = run_batches(&score, &s, base ? &sb : NULL, batch, progress, err);
    if (!rc) {
        nb_eval_score_finish(&score, out);
        out->seconds = nb_clock_s() - from;
    }
    nb_eval_score_release(&score);
    stream_close(&s);
    stream_close(&sb);
    nb_eval_plan_release(&plan);
    return rc;
}

/* SPDX-License-Identifier: Apache-2.0
 *
 * windows.c - runs a plan of token segments through one engine or a pair of them, segment by segment. */
#include <inttypes.h>
#include <string.h>

#include "base/clock.h"
#include "base/mem.h"
#include "eval/eval.h"
#include "eval/score.h"

static void engine_logits(void *ctx, const float *hidden, int64_t m, float *out)
{
    nb_engine_logits(ctx, hidden, m, out);
}

static struct nb_eval_head engine_head(struct nb_engine *e)
{
    const struct nb_arch *arch = nb_engine_arch(e);
    return (struct nb_eval_head){e, arch->hidden_size, arch->vocab_size, engine_logits, NULL};
}

struct running { /* one model and the hidden states of the segment at hand */
    struct nb_engine *e;
    float *h; /* [longest, hidden size] */
};

static int run_segments(struct nb_eval_score *s, const struct running *model,
                        const struct running *base, const struct nb_progress *progress,
                        struct nb_err *err)
{
    const struct nb_eval_plan *plan = s->plan;
    int rc = 0;
    for (int64_t i = 0; i < plan->n_segments && !rc; i++) {
        const struct nb_eval_segment *seg = &plan->segments[i];
        const int32_t *ids = plan->ids + seg->offset;
        if (nb_progress_stop(progress)) {
            return nb_fail(err, NB_E_INTERRUPTED,
                           "interrupted after %" PRId64 " of %" PRId64 " windows", i,
                           plan->n_segments);
        }
        rc = nb_engine_hidden(model->e, ids, seg->n - 1, model->h, err);
        if (!rc && base->e) rc = nb_engine_hidden(base->e, ids, seg->n - 1, base->h, err);
        if (!rc) rc = nb_eval_score_segment(s, i, model->h, base->h, err);
        if (!rc) nb_eval_score_report(s, i + 1, progress);
    }
    return rc;
}

/* The base of a pair as a head; false: there is none. */
static bool base_head(const struct nb_eval_with *with, struct nb_eval_head *head)
{
    *head = (struct nb_eval_head){0};
    if (with && with->base) *head = engine_head(with->base);
    if (with && with->logits) {
        head->file = with->logits;
        head->vocabulary = nb_eval_logits_shape_of(with->logits).vocabulary;
    }
    return head->vocabulary > 0;
}

int nb_eval_run(struct nb_eval_result *out, struct nb_engine *e, const struct nb_eval_with *with,
                const struct nb_eval_plan *plan, const struct nb_progress *progress,
                struct nb_err *err)
{
    double from = nb_clock_s();
    struct nb_eval_head head = engine_head(e), head_base;
    bool paired = base_head(with, &head_base);
    struct nb_eval_score s;
    struct nb_eval_logits_out save = {.fd = -1};
    int rc = nb_eval_score_init(&s, plan, &head, paired ? &head_base : NULL,
                                nb_backend_pool(nb_engine_backend(e)), err);
    size_t longest = (size_t)nb_eval_longest(plan);
    struct running model = {e, nb_alloc(longest * (size_t)head.hidden_size, sizeof(float))};
    struct running other = {with ? with->base : NULL,
                            nb_alloc(longest * (size_t)head_base.hidden_size, sizeof(float))};
    if (!rc && (!model.h || !other.h)) {
        rc = nb_fail(err, NB_E_NOMEM, "out of memory for windows of %zu tokens", longest);
    }
    bool saves = with && with->save_logits;
    if (!rc && saves)
        rc = nb_eval_logits_create(&save, with->save_logits, plan, head.vocabulary, err);
    if (!rc && saves) rc = nb_eval_score_save(&s, &save, err);
    if (!rc) rc = run_segments(&s, &model, &other, progress, err);
    if (!rc && saves) rc = nb_eval_logits_commit(&save, err);
    if (!rc) {
        nb_eval_score_finish(&s, out);
        out->seconds = nb_clock_s() - from;
    }
    nb_eval_logits_out_release(&save);
    nb_free(model.h);
    nb_free(other.h);
    nb_eval_score_release(&s);
    return rc;
}

int nb_eval_windows(struct nb_eval_result *out, struct nb_engine *e, struct nb_engine *base,
                    const struct nb_windows *windows, const struct nb_progress *progress,
                    struct nb_err *err)
{
    struct nb_eval_plan plan;
    int rc = nb_eval_plan_windows(&plan, windows, err);
    struct nb_eval_with with = {.base = base};
    if (!rc) rc = nb_eval_run(out, e, &with, &plan, progress, err);
    nb_eval_plan_release(&plan);
    return rc;
}

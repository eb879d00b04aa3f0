/* SPDX-License-Identifier: Apache-2.0
 *
 * generate.c - the generation loop: prefill, then one token at a time into text. */
#include <inttypes.h>
#include <math.h>
#include <string.h>

#include "api/api.h"
#include "base/clock.h"
#include "base/mem.h"
#include "base/rng.h"
#include "base/strbuf.h"

struct generating {
    struct nb_lm *lm;
    const struct nb_generate_opts *opts;
    struct nb_session *session;
    struct nb_detok *detok;
    float *logits, *scratch; /* [vocabulary] each */
    struct nb_rng rng;
    struct nb_strbuf text;
    int32_t *ids;
    size_t n;
    bool ended;
    double prompt_s, decode_s;
};

void nb_generate_opts_defaults(struct nb_generate_opts *opts)
{
    memset(opts, 0, sizeof *opts);
    opts->max_tokens = 64;
    opts->top_p = 1;
}

static bool is_eos(const struct nb_lm *lm, int32_t id)
{
    for (int i = 0; i < lm->n_eos; i++) {
        if (lm->eos[i] == id) return true;
    }
    return false;
}

/* Rows of the embedding that no token has (padding) must not be drawn: they have no text. */
static int sample(struct generating *g, int32_t *id, struct nb_err *err)
{
    int64_t rows = g->lm->model->arch.vocab_size, tokens = nb_tokenizer_size(g->lm->tokenizer);
    for (int64_t i = 0; i < tokens; i++) {
        if (!isfinite(g->logits[i])) {
            return nb_fail(err, NB_E_NUMERIC,
                           "the logit of token %" PRId64 " is not finite after %zu new tokens", i,
                           g->n);
        }
    }
    for (int64_t i = tokens; i < rows; i++) g->logits[i] = -INFINITY;
    struct nb_sampling how = {g->opts->temperature, g->opts->top_k, g->opts->top_p, g->opts->min_p};
    *id = nb_sample(g->logits, rows, &how, &g->rng, g->scratch);
    return 0;
}

static int start(struct generating *g, size_t n_prompt, int64_t max_new, struct nb_err *err)
{
    int64_t rows = g->lm->model->arch.vocab_size;
    int rc = nb_session_new(&g->session, g->lm->engine, (int64_t)n_prompt + max_new, err);
    if (rc) return rc;
    g->logits = nb_alloc((size_t)rows * 2, sizeof *g->logits);
    g->ids = nb_alloc((size_t)max_new + 1, sizeof *g->ids);
    g->detok = nb_detok_new(g->lm->tokenizer, true);
    if (!g->logits || !g->ids || !g->detok) {
        return nb_fail(err, NB_E_NOMEM, "out of memory for the logits of %" PRId64 " tokens", rows);
    }
    g->scratch = g->logits + rows;
    nb_rng_init(&g->rng, g->opts->seed);
    return 0;
}

static int decode(struct generating *g, int64_t max_new, struct nb_err *err)
{
    double from = nb_clock_s();
    int rc = 0;
    while (!rc && (int64_t)g->n < max_new) {
        int32_t id;
        rc = sample(g, &id, err);
        if (rc) break;
        g->ids[g->n++] = id;
        g->ended = !g->opts->ignore_eos && is_eos(g->lm, id);
        size_t before = g->text.len;
        rc = nb_detok_push(g->detok, id, &g->text, err);
        if (!rc && (g->ended || (int64_t)g->n == max_new))
            rc = nb_detok_finish(g->detok, &g->text, err);
        if (rc) break;
        const char *fresh = nb_strbuf_cstr(&g->text) + before;
        if (g->opts->on_token && !g->opts->on_token(g->opts->ctx, id, fresh, g->text.len - before))
            break;
        if (g->ended || (int64_t)g->n == max_new) break;
        rc = nb_session_eval(g->session, &id, 1, g->logits, err);
    }
    g->decode_s = nb_clock_s() - from;
    return rc;
}

int nb_lm_generate(struct nb_lm *lm, const int32_t *prompt, size_t n,
                   const struct nb_generate_opts *opts, struct nb_generation *out,
                   struct nb_err *err)
{
    int64_t context = lm->model->arch.max_position, max_new = opts->max_tokens;
    if (n == 0) return nb_fail(err, NB_E_USAGE, "the prompt has no tokens");
    if ((int64_t)n > context) {
        return nb_fail(err, NB_E_USAGE,
                       "the prompt has %zu tokens, the model's context is %" PRId64, n, context);
    }
    if (max_new > context - (int64_t)n) max_new = context - (int64_t)n;
    struct generating g = {.lm = lm, .opts = opts};
    nb_strbuf_init(&g.text);
    nb_strbuf_puts(&g.text, "");
    double from = nb_clock_s();
    int rc = start(&g, n, max_new, err);
    if (!rc) rc = nb_session_eval(g.session, prompt, (int64_t)n, g.logits, err);
    g.prompt_s = nb_clock_s() - from;
    if (!rc) rc = decode(&g, max_new, err);
    if (!rc && g.text.failed)
        rc = nb_fail(err, NB_E_NOMEM, "out of memory for the text of %zu tokens", g.n);
    nb_session_free(g.session);
    nb_detok_free(g.detok);
    nb_free(g.logits);
    if (rc) {
        nb_strbuf_release(&g.text);
        nb_free(g.ids);
        return rc;
    }
    *out = (struct nb_generation){
        .ids = g.ids,
        .n = g.n,
        .text = g.text.data,
        .bytes = g.text.len,
        .ended = g.ended,
        .prompt_tok_s = g.prompt_s > 0 ? (double)n / g.prompt_s : 0,
        .tok_s = g.decode_s > 0 && g.n > 1 ? (double)(g.n - 1) / g.decode_s : 0};
    return 0;
}

void nb_generation_release(struct nb_generation *g)
{
    nb_free(g->ids);
    nb_free(g->text);
    memset(g, 0, sizeof *g);
}

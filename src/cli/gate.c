/* SPDX-License-Identifier: Apache-2.0
 *
 * gate.c - see gate.h. The packed weights are read back from disk and both models go through the text one
 * layer at a time, so the run's memory promise holds for its gate too. */
#include "cli/gate.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "api/api.h"
#include "base/clock.h"
#include "eval/eval.h"

enum { MAX_WINDOW = 2048, MAX_TOKENS = 65536 };

/* Texts share idioms and licence headers; a shared text shares far more. */
static const double overlap_refused = 0.25, overlap_told = 0.01;

/* ---- tolerances ---- */

void nb_tolerance_default(struct nb_tolerance *out)
{
    *out = (struct nb_tolerance){.ppl_ratio = 1.05, .kld_mean = NAN, .same_top = NAN};
}

static int parse_one(const char *word, size_t n, struct nb_tolerance *out, struct nb_err *err)
{
    const struct {
        const char *name;
        double *value;
        double max;
    } keys[] = {{"ratio=", &out->ppl_ratio, 1e6},
                {"kld=", &out->kld_mean, 1e6},
                {"top=", &out->same_top, 1}};
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
        size_t k = strlen(keys[i].name);
        if (n <= k || memcmp(word, keys[i].name, k) != 0) continue;
        char *end;
        double v = strtod(word + k, &end);
        if (end != word + n || !(v >= 0 && v <= keys[i].max)) break;
        *keys[i].value = v;
        return 0;
    }
    nb_fail(err, NB_E_USAGE, "option '--gate': '%.*s' is not a tolerance", (int)n, word);
    return nb_err_hint(err, "example: --gate ratio=1.05,kld=0.1,top=0.8");
}

int nb_tolerance_parse(const char *text, struct nb_tolerance *out, struct nb_err *err)
{
    *out = (struct nb_tolerance){NAN, NAN, NAN};
    for (;;) {
        size_t n = strcspn(text, ",");
        int rc = parse_one(text, n, out, err);
        if (rc || !text[n]) return rc;
        text += n + 1;
    }
}

void nb_tolerance_describe(const struct nb_tolerance *tol, char *out, size_t size)
{
    const struct {
        const char *format;
        double value;
    } parts[] = {{"perplexity ratio <= %.6g", tol->ppl_ratio},
                 {"mean KL divergence <= %.6g", tol->kld_mean},
                 {"same top token >= %.6g", tol->same_top}};
    size_t n = 0;
    out[0] = '\0';
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) {
        if (isnan(parts[i].value) || n + 2 >= size) continue;
        if (n) n += (size_t)snprintf(out + n, size - n, ", ");
        if (n < size) n += (size_t)snprintf(out + n, size - n, parts[i].format, parts[i].value);
    }
}

/* ---- the evaluation text ---- */

static const char *text_name(const struct nb_gate *g)
{
    return g->eval_text ? g->eval_text : "bundled evaluation text";
}

/* A model must not be judged on the text it was calibrated on. Either text may be a small part of the other,
 * so the larger of the two shares counts. */
static int check_overlap(const struct nb_gate *g, const struct nb_windows *calibration,
                         struct nb_err *err)
{
    double in_calibration = 0, in_text = 0;
    if (calibration->n_windows == 0) return 0;
    if (strcmp(calibration->text_sha256, g->windows.text_sha256) == 0) {
        nb_fail(err, NB_E_USAGE, "%s: the evaluation text is the calibration text", text_name(g));
        return nb_err_hint(err, "give another text with --eval-text or --calib");
    }
    int rc = nb_ngram_overlap(calibration, &g->windows, &in_calibration, err);
    if (!rc) rc = nb_ngram_overlap(&g->windows, calibration, &in_text, err);
    if (rc) return rc;
    double share = in_calibration > in_text ? in_calibration : in_text;
    if (share > overlap_refused) {
        nb_fail(err, NB_E_USAGE,
                "%s: shares %.0f %% of its runs of 13 tokens with the calibration text",
                text_name(g), 100 * share);
        return nb_err_hint(err, "give another text with --eval-text or --calib");
    }
    if (share > overlap_told) {
        nb_progress_warn(&g->cli->progress,
                         "%s: shares %.1f %% of its runs of 13 tokens with the calibration text",
                         text_name(g), 100 * share);
    }
    return 0;
}

static int load_text(struct nb_gate *g, const struct nb_model *model,
                     const struct nb_tokenizer *tok, struct nb_err *err)
{
    int64_t window = model->arch.max_position < MAX_WINDOW ? model->arch.max_position : MAX_WINDOW;
    int64_t limit = MAX_TOKENS / window > 0 ? MAX_TOKENS / window : 1;
    memcpy(g->tokenizer_sha256, nb_tokenizer_sha256(tok), sizeof g->tokenizer_sha256);
    return nb_eval_text_load(&g->windows, g->eval_text, window, limit, tok, err);
}

static int compare_early(struct nb_gate *g, const struct nb_calib_opts *calib,
                         const struct nb_model *model, const struct nb_tokenizer *tok,
                         struct nb_err *err)
{
    struct nb_calib_opts how = *calib;
    struct nb_windows windows = {0};
    if (how.n_samples == 0) how.n_samples = 128;
    if (how.seqlen == 0)
        how.seqlen = model->arch.max_position < MAX_WINDOW ? model->arch.max_position : MAX_WINDOW;
    /* The run itself tells what is odd about the text; here nothing is printed twice. */
    int rc = nb_calib_load(&windows, &how, tok, NULL, err);
    if (!rc) rc = check_overlap(g, &windows, err);
    nb_windows_release(&windows);
    g->compared = rc == 0;
    return rc;
}

int nb_gate_open(struct nb_gate *g, const struct nb_calib_opts *calib, struct nb_err *err)
{
    struct nb_model *model = NULL;
    struct nb_tokenizer *tok = NULL;
    int rc = nb_model_open(&model, g->model_dir, err);
    if (!rc) rc = nb_model_tokenizer(&tok, model, err);
    if (!rc) rc = nb_lm_check_vocabulary(model, tok, NULL, err);
    if (!rc) rc = load_text(g, model, tok, err);
    if (!rc && calib) rc = compare_early(g, calib, model, tok, err);
    nb_tokenizer_close(tok);
    nb_model_close(model);
    return rc;
}

void nb_gate_release(struct nb_gate *g)
{
    nb_windows_release(&g->windows);
}

/* ---- the measurement ---- */

int nb_gate_run(void *ctx, const char *dir, const struct nb_windows *calibration,
                struct nb_eval_result *result, struct nb_err *err)
{
    struct nb_gate *g = ctx;
    struct nb_eval_models models = {.be = g->be};
    struct nb_model *made = NULL, *base = NULL;
    int rc = calibration && !g->compared ? check_overlap(g, calibration, err) : 0;
    if (!rc) rc = nb_model_open(&made, dir, err);
    if (!rc) rc = nb_model_open(&base, g->model_dir, err);
    models.model = made;
    models.base = base;
    if (!rc)
        rc =
            nb_eval_streamed(result, &models, &g->windows, g->memory_bytes, &g->cli->progress, err);
    if (!rc) {
        memcpy(result->tokenizer_sha256, g->tokenizer_sha256, sizeof result->tokenizer_sha256);
        nb_eval_decide(result, &g->tolerance);
    }
    nb_model_close(made);
    nb_model_close(base);
    return rc;
}

json_t *nb_gate_json(const struct nb_eval_result *g)
{
    if (!g) return json_pack("{s:s}", "verdict", "skipped");
    const struct nb_compare_result *c = &g->compare;
    return json_pack("{s:s, s:s, s:o, s:o, s:o, s:o, s:o, s:o, s:[o, o], s:I}", "verdict",
                     nb_verdict_name(g->verdict), "reason", g->verdict_text, "kld_mean",
                     nb_cli_real(c->kld_mean), "kld_p99", nb_cli_real(c->kld_p99), "same_top",
                     nb_cli_real(c->same_top), "ppl", nb_cli_real(g->ppl), "ppl_base",
                     nb_cli_real(c->ppl_base), "ppl_ratio", nb_cli_real(c->ppl_ratio),
                     "ppl_ratio_ci95", nb_cli_real(c->ppl_ratio_lo), nb_cli_real(c->ppl_ratio_hi),
                     "tokens", (json_int_t)g->n_tokens);
}

void nb_gate_print(const struct nb_eval_result *g)
{
    static const char *const words[] = {"SKIPPED", "PASS", "FAIL", "UNDECIDED"};
    if (!g) {
        printf("gate: skipped, not verified\n");
        return;
    }
    const struct nb_compare_result *c = &g->compare;
    printf("gate: %s: %s\n", words[g->verdict], g->verdict_text);
    printf("      KL divergence mean %.5f, 99 %% %.4f; same top token %.2f %%; perplexity %.4f, "
           "float %.4f; %" PRId64 " tokens\n",
           c->kld_mean, c->kld_p99, 100 * c->same_top, g->ppl, c->ppl_base, g->n_tokens);
}

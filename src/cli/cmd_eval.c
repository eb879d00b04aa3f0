/* SPDX-License-Identifier: Apache-2.0
 *
 * cmd_eval.c - nibble eval: perplexity by a named protocol, alone or paired with another model. */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "api/api.h"
#include "base/clock.h"
#include "base/mem.h"
#include "cli/cli.h"
#include "cli/commands.h"
#include "cli/dump_logits.h"
#include "cli/gate.h"
#include "eval/eval.h"
#include "nibble/version.h"

enum { MAX_WINDOW = 2048 }; /* of protocol windows, unless asked for */

struct eval_options {
    int task, protocol;
    const char *text, *against, *gate, *dump_logits;
    int64_t window, stride, limit;
};

static const struct nb_option options[] = {
    {0, "text", NB_OPTION_TEXT, offsetof(struct eval_options, text), "FILE",
     "UTF-8 text to score (a bundled one)", 0, 0},
    {0, "against", NB_OPTION_TEXT, offsetof(struct eval_options, against), "MODEL",
     "score this one too: ratio, KL divergence, agreement", 0, 0},
    {0, "task", NB_OPTION_CHOICE, offsetof(struct eval_options, task), "ppl",
     "what to measure (ppl)", 0, 0},
    {0, "as", NB_OPTION_CHOICE, offsetof(struct eval_options, protocol),
     "windows|gptq-paper|transformers|llama.cpp|lm-eval", "the protocol, to the letter (windows)",
     0, 0},
    {0, "window", NB_OPTION_INT, offsetof(struct eval_options, window), "N",
     "tokens per window (the protocol's)", 2, 1e9},
    {0, "stride", NB_OPTION_INT, offsetof(struct eval_options, stride), "N",
     "tokens between windows; less than --window overlaps", 1, 1e9},
    {0, "limit", NB_OPTION_INT, offsetof(struct eval_options, limit), "N",
     "the first N windows only", 1, 1e12},
    {0, "gate", NB_OPTION_TEXT, offsetof(struct eval_options, gate), "LIST",
     "ratio=X,kld=Y,top=Z: verdict, exit 6 on fail", 0, 0},
    {0, "dump-logits", NB_OPTION_TEXT, offsetof(struct eval_options, dump_logits), "FILE",
     "ids and logits of the first window, safetensors", 0, 0},
    {0, NULL, NB_OPTION_FLAG, 0, NULL, NULL, 0, 0},
};

struct evaluation {
    struct nb_cli *cli;
    const struct eval_options *o;
    struct nb_runtime rt;
    struct nb_lm *lm, *base;              /* base NULL: not paired */
    const struct nb_tokenizer *tokenizer; /* of lm, or else of base */
    struct nb_tolerance tolerance;
    char *text; /* when the protocol needs all of it; owned */
    size_t bytes;
    struct nb_eval_plan plan;
    struct nb_eval_result result;
};

static int load_model(struct evaluation *e, const char *name, struct nb_lm **out,
                      struct nb_err *err)
{
    char *dir;
    int rc = nb_locate_model(name, &dir, err);
    if (rc) return rc;
    rc = nb_lm_load(out, dir, &e->rt, false, err);
    nb_free(dir);
    return rc;
}

static int load_models(struct evaluation *e, struct nb_err *err)
{
    int rc = nb_runtime_init(&e->rt, (int)e->cli->threads, e->cli->cpu, err);
    if (!rc) rc = load_model(e, e->cli->args[0], &e->lm, err);
    if (!rc && e->o->against) rc = load_model(e, e->o->against, &e->base, err);
    if (rc) return rc;
    e->tokenizer = e->lm->tokenizer ? e->lm->tokenizer : e->base ? e->base->tokenizer : NULL;
    if (!e->tokenizer) {
        return nb_fail(err, NB_E_FORMAT,
                       "%s: tokenizer.json is missing, the text cannot be turned into tokens",
                       e->lm->model->dir);
    }
    if (e->lm->tokenizer) nb_cli_warn_vocabulary(e->cli, e->lm);
    return 0;
}

/* Protocol windows reads its text as the gate of a quantization run does: files, folders, bundled texts. */
static int plan_windows(const struct evaluation *e, const struct nb_tokenizer *tok,
                        struct nb_eval_plan *plan, struct nb_err *err)
{
    int64_t context = e->lm->model->arch.max_position;
    int64_t window = e->o->window ? e->o->window : context < MAX_WINDOW ? context : MAX_WINDOW;
    struct nb_windows w = {0};
    int rc = nb_eval_text_load(&w, e->o->text, window, e->o->limit, tok, err);
    if (!rc) rc = nb_eval_plan_windows(plan, &w, err);
    nb_windows_release(&w);
    return rc;
}

static int make_plan(struct evaluation *e, const struct nb_tokenizer *tok,
                     struct nb_eval_plan *plan, struct nb_err *err)
{
    const struct eval_options *o = e->o;
    bool piped = o->text && strcmp(o->text, "-") == 0;
    if (o->protocol == NB_EVAL_WINDOWS && !o->stride && !piped)
        return plan_windows(e, tok, plan, err);
    if (!o->text) return nb_fail(err, NB_E_USAGE, "the text is missing: give it with --text FILE");
    int rc = e->text ? 0 : nb_cli_read(o->text, &e->text, &e->bytes, err);
    if (rc) return rc;
    struct nb_eval_request q = {.protocol = (enum nb_eval_protocol)o->protocol,
                                .text = e->text,
                                .bytes = e->bytes,
                                .window = o->window,
                                .stride = o->stride,
                                .limit = o->limit,
                                .context = e->lm->model->arch.max_position,
                                .prefix_id = nb_lm_prefix_id(e->lm, tok)};
    rc = nb_eval_plan_make(plan, &q, tok, err);
    return rc ? nb_err_prefix(err, "%s", piped ? "standard input" : o->text) : 0;
}

/* Re-saved tokenizers differ in bytes but not in ids; other ids would make the pairing meaningless. */
static int check_same_ids(struct evaluation *e, struct nb_err *err)
{
    const struct nb_tokenizer *other = e->base ? e->base->tokenizer : NULL;
    if (!other || other == e->tokenizer) return 0;
    if (strcmp(nb_tokenizer_sha256(other), nb_tokenizer_sha256(e->tokenizer)) == 0) return 0;
    struct nb_eval_plan plan;
    int rc = make_plan(e, other, &plan, err);
    if (rc) return rc;
    int64_t i = 0;
    while (i < plan.n_ids && i < e->plan.n_ids && plan.ids[i] == e->plan.ids[i]) i++;
    if (i < plan.n_ids || i < e->plan.n_ids) {
        rc = nb_fail(err, NB_E_SPEC,
                     "the models cannot be compared: their tokenizers disagree from token %" PRId64
                     " of the text on",
                     i);
    }
    nb_eval_plan_release(&plan);
    return rc;
}

static void warn_context(const struct evaluation *e)
{
    int64_t context = e->lm->model->arch.max_position;
    if (e->plan.window <= context) return;
    nb_progress_warn(&e->cli->progress,
                     "windows of %" PRId64
                     " tokens are longer than the model's context of %" PRId64,
                     e->plan.window, context);
}

/* ---- results ---- */

static json_t *compare_json(const struct evaluation *e)
{
    const struct nb_compare_result *c = &e->result.compare;
    return json_pack("{s:o, s:o, s:o, s:[o, o], s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o}",
                     "model", nb_cli_string(e->o->against), "ppl", nb_cli_real(c->ppl_base),
                     "ppl_ratio", nb_cli_real(c->ppl_ratio), "ppl_ratio_ci95",
                     nb_cli_real(c->ppl_ratio_lo), nb_cli_real(c->ppl_ratio_hi), "kld_mean",
                     nb_cli_real(c->kld_mean), "kld_stderr", nb_cli_real(c->kld_stderr),
                     "kld_median", nb_cli_real(c->kld_median), "kld_p90", nb_cli_real(c->kld_p90),
                     "kld_p99", nb_cli_real(c->kld_p99), "kld_p999", nb_cli_real(c->kld_p999),
                     "kld_max", nb_cli_real(c->kld_max), "same_top", nb_cli_real(c->same_top),
                     "confident_flips", nb_cli_real(c->confident_flips));
}

static int emit(struct evaluation *e, struct nb_err *err)
{
    const struct nb_eval_result *r = &e->result;
    const struct nb_eval_plan *p = &e->plan;
    char backend[256];
    nb_backend_describe(e->rt.be, backend, sizeof backend);
    json_t *o = json_pack("{s:s, s:o, s:s, s:s, s:s, s:I, s:I, s:I, s:o, s:o}", "command", "eval",
                          "model", nb_cli_string(e->cli->args[0]), "protocol",
                          nb_eval_protocol_name(p->protocol), "text_sha256", r->text_sha256,
                          "tokenizer_sha256", r->tokenizer_sha256, "window", (json_int_t)r->window,
                          "tokens", (json_int_t)r->n_tokens, "windows", (json_int_t)r->n_windows,
                          "ppl", nb_cli_real(r->ppl), "ppl_stderr", nb_cli_real(r->ppl_stderr));
    if (o && p->stride && p->stride < p->window)
        json_object_set_new(o, "stride", json_integer(p->stride));
    if (o && p->n_words) {
        struct nb_eval_per_text t = nb_eval_per_text_of(p, r->ppl, r->n_tokens);
        json_object_set_new(o, "words", json_integer(p->n_words));
        json_object_set_new(o, "bytes", json_integer(p->n_bytes));
        json_object_set_new(o, "word_perplexity", nb_cli_real(t.word_perplexity));
        json_object_set_new(o, "byte_perplexity", nb_cli_real(t.byte_perplexity));
        json_object_set_new(o, "bits_per_byte", nb_cli_real(t.bits_per_byte));
    }
    if (o && r->has_compare) json_object_set_new(o, "against", compare_json(e));
    if (o && e->o->gate) {
        json_object_set_new(o, "verdict",
                            json_pack("{s:s, s:s}", "verdict", nb_verdict_name(r->verdict),
                                      "reason", r->verdict_text));
    }
    if (o) {
        json_object_set_new(o, "bos", json_boolean(p->bos));
        json_object_set_new(o, "wikitext_rows", json_boolean(p->wikitext_rows));
        json_object_set_new(o, "version", json_string(nb_version()));
        json_object_set_new(o, "backend", nb_cli_string(backend));
        json_object_set_new(o, "seconds", nb_cli_real(r->seconds));
    }
    return nb_cli_emit(e->cli, o, err);
}

static void print(const struct evaluation *e)
{
    const struct nb_eval_result *r = &e->result;
    const struct nb_compare_result *c = &r->compare;
    printf("perplexity     %.4f", r->ppl);
    if (isfinite(r->ppl_stderr)) printf(" +/- %.4f", r->ppl_stderr);
    printf("\nprotocol       %s: %" PRId64 " windows of %" PRId64 ", %" PRId64
           " tokens scored, %s\n",
           nb_eval_protocol_name(e->plan.protocol), r->n_windows, r->window, r->n_tokens,
           e->plan.bos ? "with BOS" : "no BOS");
    if (e->plan.n_words) {
        struct nb_eval_per_text t = nb_eval_per_text_of(&e->plan, r->ppl, r->n_tokens);
        printf("per text       word perplexity %.4f, byte perplexity %.6f, %.6f bits per byte\n",
               t.word_perplexity, t.byte_perplexity, t.bits_per_byte);
    }
    if (r->has_compare) {
        printf("against        %s: perplexity %.4f\n", e->o->against, c->ppl_base);
        printf("ratio          %.5f", c->ppl_ratio);
        if (isfinite(c->ppl_ratio_lo)) {
            printf(", 95 %% interval %.5f to %.5f", c->ppl_ratio_lo, c->ppl_ratio_hi);
        }
        printf("\nKL divergence  mean %.6f", c->kld_mean);
        if (isfinite(c->kld_stderr)) printf(" +/- %.6f", c->kld_stderr);
        printf(" nats; median %.6f, 90 %% %.5f, 99 %% %.4f, 99.9 %% %.4f, max %.4f\n",
               c->kld_median, c->kld_p90, c->kld_p99, c->kld_p999, c->kld_max);
        printf("same top       %.2f %%; confident flips %.3f %%\n", 100 * c->same_top,
               100 * c->confident_flips);
    }
    if (e->o->gate) printf("verdict        %s: %s\n", nb_verdict_name(r->verdict), r->verdict_text);
    printf("time           %.1f s, %.0f tokens/s\n", r->seconds, (double)r->n_tokens / r->seconds);
}

static int evaluate(struct evaluation *e, struct nb_err *err)
{
    int rc = load_models(e, err);
    if (!rc) rc = make_plan(e, e->tokenizer, &e->plan, err);
    if (!rc) rc = check_same_ids(e, err);
    if (rc) return rc;
    warn_context(e);
    if (e->o->dump_logits) {
        const struct nb_eval_segment *s = &e->plan.segments[0];
        rc = nb_dump_logits(e->o->dump_logits, e->lm->engine, e->plan.ids + s->offset, s->n, err);
    }
    struct nb_engine *base = e->base ? e->base->engine : NULL;
    if (!rc) rc = nb_eval_run(&e->result, e->lm->engine, base, &e->plan, &e->cli->progress, err);
    if (rc) return rc;
    memcpy(e->result.tokenizer_sha256, nb_tokenizer_sha256(e->tokenizer), 65);
    if (e->o->gate) nb_eval_decide(&e->result, &e->tolerance);
    nb_progress_line_clear(&e->cli->line);
    if (e->cli->json) rc = emit(e, err);
    else print(e);
    if (!rc && e->o->gate && e->result.verdict == NB_VERDICT_FAIL) {
        rc = nb_fail(err, NB_E_GATE, "gate failed: %s", e->result.verdict_text);
    }
    return rc;
}

static int run(struct nb_cli *cli, const void *opts, struct nb_err *err)
{
    struct evaluation e = {.cli = cli, .o = opts};
    int rc = 0;
    if (e.o->gate && !e.o->against) {
        return nb_fail(err, NB_E_USAGE,
                       "option '--gate' needs a model to compare with: --against MODEL");
    }
    if (e.o->gate) rc = nb_tolerance_parse(e.o->gate, &e.tolerance, err);
    if (!rc) rc = evaluate(&e, err);
    nb_eval_plan_release(&e.plan);
    nb_free(e.text);
    nb_lm_close(e.base);
    nb_lm_close(e.lm);
    nb_runtime_release(&e.rt);
    return rc;
}

const struct nb_command nb_command_eval = {
    .name = "eval",
    .summary = "perplexity, and divergence from another model",
    .usage = "MODEL [--text FILE] [--against FLOAT_MODEL] [options]",
    .about =
        "Each figure is printed with its protocol: those of different ones cannot be compared.",
    .example = "out/gptq --against models/books-11m --text dubliners.txt",
    .options = options,
    .options_bytes = sizeof(struct eval_options),
    .min_args = 1,
    .max_args = 1,
    .args = "MODEL",
    .run = run,
};

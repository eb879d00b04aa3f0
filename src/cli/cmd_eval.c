/* SPDX-License-Identifier: Apache-2.0
 *
 * cmd_eval.c - nibble eval: perplexity by a named protocol, alone or paired with another model. */
#include <inttypes.h>
#include <string.h>

#include "api/api.h"
#include "base/clock.h"
#include "base/mem.h"
#include "cli/cli.h"
#include "cli/commands.h"
#include "cli/dump_logits.h"
#include "cli/eval_output.h"
#include "cli/gate.h"
#include "eval/eval.h"

enum { MAX_WINDOW = 2048 }; /* of protocol windows, unless asked for */

struct eval_options {
    int task, protocol;
    const char *text, *against, *gate, *dump_logits, *save_logits, *against_logits;
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
    {0, "save-logits", NB_OPTION_TEXT, offsetof(struct eval_options, save_logits), "FILE",
     "write llama.cpp's base-logits file (--as llama.cpp)", 0, 0},
    {0, "against-logits", NB_OPTION_TEXT, offsetof(struct eval_options, against_logits), "FILE",
     "compare with such a file, on its tokens", 0, 0},
    {0, NULL, NB_OPTION_FLAG, 0, NULL, NULL, 0, 0},
};

struct evaluation {
    struct nb_cli *cli;
    const struct eval_options *o;
    struct nb_runtime rt;
    struct nb_lm *lm, *base;              /* base NULL: not paired */
    const struct nb_tokenizer *tokenizer; /* of lm, or else of base */
    struct nb_eval_logits *logits;        /* of --against-logits */
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
    if (e->logits) return nb_eval_plan_logits(plan, e->logits, tok, o->limit, err);
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

static int show(const struct evaluation *e, struct nb_err *err)
{
    char backend[256];
    nb_backend_describe(e->rt.be, backend, sizeof backend);
    struct nb_eval_output o = {.cli = e->cli,
                               .against = e->logits ? e->o->against_logits : e->o->against,
                               .gated = e->o->gate != NULL,
                               .backend = backend,
                               .plan = &e->plan,
                               .result = &e->result};
    nb_progress_line_clear(&e->cli->line);
    if (e->cli->json) return nb_eval_output_json(&o, err);
    nb_eval_output_print(&o);
    return 0;
}

static int evaluate(struct evaluation *e, struct nb_err *err)
{
    int rc = load_models(e, err);
    if (!rc && e->o->against_logits)
        rc = nb_eval_logits_open(&e->logits, e->o->against_logits, err);
    if (!rc) rc = make_plan(e, e->tokenizer, &e->plan, err);
    if (!rc) rc = check_same_ids(e, err);
    if (rc) return rc;
    warn_context(e);
    if (e->o->dump_logits) {
        const struct nb_eval_segment *s = &e->plan.segments[0];
        rc = nb_dump_logits(e->o->dump_logits, e->lm->engine, e->plan.ids + s->offset, s->n, err);
    }
    struct nb_eval_with with = {.base = e->base ? e->base->engine : NULL,
                                .logits = e->logits,
                                .save_logits = e->o->save_logits};
    if (!rc) rc = nb_eval_run(&e->result, e->lm->engine, &with, &e->plan, &e->cli->progress, err);
    if (rc) return rc;
    memcpy(e->result.tokenizer_sha256, nb_tokenizer_sha256(e->tokenizer), 65);
    if (e->o->gate) nb_eval_decide(&e->result, &e->tolerance);
    rc = show(e, err);
    if (!rc && e->o->gate && e->result.verdict == NB_VERDICT_FAIL) {
        rc = nb_fail(err, NB_E_GATE, "gate failed: %s", e->result.verdict_text);
    }
    return rc;
}

/* Options that contradict or need each other. */
static int check_options(const struct eval_options *o, struct nb_err *err)
{
    const char *logits = o->against_logits ? "--against-logits" : "--save-logits";
    if (o->gate && !o->against && !o->against_logits) {
        return nb_fail(err, NB_E_USAGE,
                       "option '--gate' needs a model to compare with: --against MODEL");
    }
    if ((o->against_logits || o->save_logits) && o->protocol != NB_EVAL_LLAMACPP) {
        return nb_fail(err, NB_E_USAGE, "option '%s' needs the protocol: --as llama.cpp", logits);
    }
    if (!o->against_logits) return 0;
    if (o->against) {
        return nb_fail(err, NB_E_USAGE,
                       "option '--against-logits' stands in place of --against, give one of them");
    }
    if (o->text || o->window) {
        return nb_fail(err, NB_E_USAGE, "option '--%s': the tokens come from --against-logits",
                       o->text ? "text" : "window");
    }
    return 0;
}

static int run(struct nb_cli *cli, const void *opts, struct nb_err *err)
{
    struct evaluation e = {.cli = cli, .o = opts};
    int rc = check_options(e.o, err);
    if (rc) return rc;
    if (e.o->gate) rc = nb_tolerance_parse(e.o->gate, &e.tolerance, err);
    if (!rc) rc = evaluate(&e, err);
    nb_eval_plan_release(&e.plan);
    nb_eval_logits_close(e.logits);
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

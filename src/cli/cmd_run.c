/* SPDX-License-Identifier: Apache-2.0
 *
 * cmd_run.c - nibble run: continues a text. */
#include <stdio.h>
#include <string.h>

#include "api/api.h"
#include "base/mem.h"
#include "cli/cli.h"
#include "cli/commands.h"

struct run_options {
    const char *prompt;
    int64_t tokens, top_k, seed;
    double temperature, top_p, min_p;
    bool ids, no_bos, ignore_eos;
};

static const struct run_options defaults = {.tokens = 64, .top_p = 1};

static const struct nb_option options[] = {
    {'p', "prompt", NB_OPTION_TEXT, offsetof(struct run_options, prompt), "TEXT",
     "the text to continue; - reads standard input", 0, 0},
    {'n', "tokens", NB_OPTION_INT, offsetof(struct run_options, tokens), "N",
     "new tokens at most (64)", 1, 1e9},
    {0, "temp", NB_OPTION_REAL, offsetof(struct run_options, temperature), "T",
     "temperature; 0 takes the most likely token (0)", 0, 100},
    {0, "top-k", NB_OPTION_INT, offsetof(struct run_options, top_k), "K",
     "draw among the K most likely tokens; 0 is all (0)", 0, 1e9},
    {0, "top-p", NB_OPTION_REAL, offsetof(struct run_options, top_p), "P",
     "draw among tokens that make up P (1)", 0, 1},
    {0, "min-p", NB_OPTION_REAL, offsetof(struct run_options, min_p), "P",
     "drop tokens below P times the most likely one (0)", 0, 1},
    {0, "seed", NB_OPTION_INT, offsetof(struct run_options, seed), "N", "of the draws (0)", 0,
     9e15},
    {0, "ids", NB_OPTION_FLAG, offsetof(struct run_options, ids), NULL,
     "print the ids of the new tokens", 0, 0},
    {0, "no-bos", NB_OPTION_FLAG, offsetof(struct run_options, no_bos), NULL,
     "without the tokenizer's own BOS before the prompt", 0, 0},
    {0, "ignore-eos", NB_OPTION_FLAG, offsetof(struct run_options, ignore_eos), NULL,
     "go on after an end-of-sequence token", 0, 0},
    {0, NULL, NB_OPTION_FLAG, 0, NULL, NULL, 0, 0},
};

struct streaming {
    struct nb_cli *cli;
    bool text;
};

static bool on_token(void *ctx, int32_t id, const char *text, size_t bytes)
{
    (void)id;
    const struct streaming *s = ctx;
    if (s->text && bytes) {
        fwrite(text, 1, bytes, stdout);
        fflush(stdout);
    }
    return !nb_progress_stop(&s->cli->progress);
}

static json_t *id_array(const int32_t *ids, size_t n)
{
    json_t *array = json_array();
    for (size_t i = 0; i < n; i++) json_array_append_new(array, json_integer(ids[i]));
    return array;
}

static int print(struct nb_cli *cli, const struct run_options *o, const struct nb_generation *g,
                 const struct nb_ids *prompt, struct nb_err *err)
{
    if (cli->json) {
        return nb_cli_emit(
            cli,
            json_pack("{s:s, s:o, s:o, s:o, s:s, s:o, s:o}", "command", "run", "prompt_ids",
                      id_array(prompt->data, prompt->n), "ids", id_array(g->ids, g->n), "text",
                      json_stringn_nocheck(g->text, g->bytes), "stop", g->ended ? "eos" : "length",
                      "prompt_tok_s", nb_cli_real(g->prompt_tok_s), "tok_s", nb_cli_real(g->tok_s)),
            err);
    }
    if (o->ids) {
        putchar('[');
        for (size_t i = 0; i < g->n; i++) printf("%s%d", i ? "," : "", (int)g->ids[i]);
        printf("]\n");
    } else {
        putchar('\n');
    }
    fflush(stdout);
    if (!cli->quiet) {
        fprintf(stderr, "%zu prompt tokens, %.0f tokens/s; %zu new tokens, %.1f tokens/s\n",
                prompt->n, g->prompt_tok_s, g->n, g->tok_s);
    }
    return 0;
}

static int generate(struct nb_cli *cli, const struct run_options *o, struct nb_lm *lm,
                    const struct nb_ids *prompt, struct nb_err *err)
{
    struct streaming s = {cli, !cli->json && !o->ids};
    struct nb_generate_opts how;
    nb_generate_opts_defaults(&how);
    how.max_tokens = o->tokens;
    how.temperature = o->temperature;
    how.top_k = o->top_k;
    how.top_p = o->top_p;
    how.min_p = o->min_p;
    how.seed = (uint64_t)o->seed;
    how.ignore_eos = o->ignore_eos;
    how.on_token = on_token;
    how.ctx = &s;
    struct nb_generation g;
    int rc = nb_lm_generate(lm, prompt->data, prompt->n, &how, &g, err);
    if (rc) return rc;
    rc = print(cli, o, &g, prompt, err);
    bool stopped = nb_progress_stop(&cli->progress);
    size_t n = g.n;
    nb_generation_release(&g);
    if (!rc && stopped) rc = nb_fail(err, NB_E_INTERRUPTED, "interrupted after %zu tokens", n);
    return rc;
}

static int run(struct nb_cli *cli, const void *opts, struct nb_err *err)
{
    const struct run_options *o = opts;
    if (!o->prompt) {
        nb_fail(err, NB_E_USAGE, "the prompt is missing");
        return nb_err_hint(err, "give it with -p TEXT");
    }
    struct nb_lm *lm = NULL;
    struct nb_lm_opts how = {.threads = (int)cli->threads, .cpu = cli->cpu};
    char *input = NULL;
    const char *text = o->prompt;
    size_t bytes = strlen(text);
    int rc = 0;
    if (strcmp(text, "-") == 0) {
        rc = nb_cli_read(NULL, &input, &bytes, err);
        text = input;
    }
    if (!rc) rc = nb_lm_open(&lm, cli->args[0], &how, err);
    if (!rc) nb_cli_warn_vocabulary(cli, lm);
    struct nb_ids prompt = {0};
    if (!rc) {
        rc = nb_tokenizer_encode(lm->tokenizer, text, bytes, o->no_bos ? 0 : NB_ENCODE_TEMPLATE,
                                 &prompt, err);
        if (rc) nb_err_prefix(err, "prompt");
    }
    if (!rc) rc = generate(cli, o, lm, &prompt, err);
    nb_ids_release(&prompt);
    nb_lm_close(lm);
    nb_free(input);
    return rc;
}

const struct nb_command nb_command_run = {
    .name = "run",
    .summary = "continues a text",
    .usage = "MODEL -p TEXT [options]",
    .about = "The prompt goes to the model as it is, without a chat template.",
    .example = "out/gptq -p \"The old man looked at the sea\" -n 40",
    .options = options,
    .options_bytes = sizeof(struct run_options),
    .defaults = &defaults,
    .min_args = 1,
    .max_args = 1,
    .args = "MODEL",
    .run = run,
};

/* SPDX-License-Identifier: Apache-2.0
 *
 * cmd_imatrix.c - nibble imatrix: how large the inputs of a model's linears are on a text, for quantizers. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "api/api.h"
#include "base/clock.h"
#include "base/file.h"
#include "base/mem.h"
#include "cli/cli.h"
#include "cli/commands.h"
#include "cli/quantize_gguf.h"
#include "eval/eval.h"

enum { MIN_WINDOW = 16 }; /* llama.cpp counts no product of fewer rows */

enum file_format { FORMAT_GGUF, FORMAT_DAT };

struct imatrix_options {
    const char *out, *text;
    int format; /* index of a word, -1: by the name of out */
    int64_t window, limit;
    uint64_t memory;
    bool output_tensor, overwrite;
};

static const struct imatrix_options defaults = {.format = -1};

#define FIELD(name) offsetof(struct imatrix_options, name)

static const struct nb_option options[] = {
    {'o', "out", NB_OPTION_TEXT, FIELD(out), "FILE", "the file to make: .gguf or .dat", 0, 0},
    {0, "text", NB_OPTION_TEXT, FIELD(text), "FILE",
     "UTF-8 text to run (the bundled calibration texts)", 0, 0},
    {0, "format", NB_OPTION_CHOICE, FIELD(format), "gguf|dat", "of FILE (by its name)", 0, 0},
    {0, "window", NB_OPTION_INT, FIELD(window), "N", "tokens per window (512)", MIN_WINDOW, 1e9},
    {0, "limit", NB_OPTION_INT, FIELD(limit), "N", "the first N windows only", 1, 1e12},
    {0, "output-tensor", NB_OPTION_FLAG, FIELD(output_tensor), NULL, "measure the head too", 0, 0},
    {0, "memory", NB_OPTION_SIZE, FIELD(memory), "SIZE",
     "for hidden states; more windows go in turns (half)", 0, 0},
    {0, "overwrite", NB_OPTION_FLAG, FIELD(overwrite), NULL, "replace FILE", 0, 0},
    {0, NULL, NB_OPTION_FLAG, 0, NULL, NULL, 0, 0},
};

struct measuring {
    struct nb_cli *cli;
    const struct imatrix_options *o;
    enum file_format format;
    char *dir; /* the model's */
    struct nb_runtime rt;
    struct nb_model *model;
    struct nb_tokenizer *tokenizer;
    struct nb_eval_plan plan;
    struct nb_imatrix matrix;
    double from;
};

static const char *format_name(enum file_format f)
{
    return f == FORMAT_DAT ? "dat" : "gguf";
}

static const char *text_name(const struct imatrix_options *o)
{
    if (!o->text) return "bundled calibration texts";
    return strcmp(o->text, "-") ? o->text : "standard input";
}

/* ---- before any work ---- */

static int choose_format(struct measuring *m, struct nb_err *err)
{
    const struct imatrix_options *o = m->o;
    const bool gguf = nb_cli_ends_with(o->out, ".gguf"), dat = nb_cli_ends_with(o->out, ".dat");
    m->format = o->format < 0 ? (dat ? FORMAT_DAT : FORMAT_GGUF) : (enum file_format)o->format;
    if (o->format < 0 && !gguf && !dat) {
        nb_fail(err, NB_E_USAGE, "%s: the name tells no format, expected .gguf or .dat", o->out);
        return nb_err_hint(err, "give another name with -o, or --format gguf");
    }
    if (m->format == FORMAT_DAT ? !gguf : !dat) return 0;
    return nb_fail(err, NB_E_USAGE, "%s: the name contradicts --format %s", o->out,
                   format_name(m->format));
}

static int check_place(const struct measuring *m, struct nb_err *err)
{
    const struct imatrix_options *o = m->o;
    const bool there = nb_path_exists(o->out);
    if (there && (nb_path_same(o->out, m->dir) || (o->text && nb_path_same(o->out, o->text)))) {
        return nb_fail(err, NB_E_USAGE, "%s: the output is an input; inputs are never modified",
                       o->out);
    }
    if (there && (!o->overwrite || nb_path_is_dir(o->out))) {
        nb_fail(err, NB_E_EXISTS, "%s: exists already", o->out);
        return nb_err_hint(err, "give another name with -o%s",
                           nb_path_is_dir(o->out) ? "" : ", or --overwrite to replace it");
    }
    char *parent = nb_path_parent(o->out);
    int rc = nb_path_is_dir(parent)
                 ? 0
                 : nb_fail(err, NB_E_NOTFOUND, "%s: the folder '%s' is not there", o->out, parent);
    nb_free(parent);
    return rc;
}

static int open_model(struct measuring *m, struct nb_err *err)
{
    int rc = nb_runtime_init(&m->rt, (int)m->cli->threads, m->cli->cpu, err);
    if (!rc) rc = nb_model_open(&m->model, m->dir, err);
    if (!rc) rc = nb_model_tokenizer(&m->tokenizer, m->model, err);
    int64_t missing;
    if (!rc) rc = nb_lm_check_vocabulary(m->model, m->tokenizer, &missing, err);
    return rc;
}

/* The tool's windows are those of its perplexity: same text handling, same first tokens. */
static int make_plan(struct measuring *m, struct nb_err *err)
{
    const struct imatrix_options *o = m->o;
    char *text = NULL;
    size_t bytes = 0;
    int rc = o->text ? nb_cli_read(o->text, &text, &bytes, err)
                     : nb_text_read_calibration(&text, &bytes, err);
    if (rc) return rc;
    struct nb_eval_request q = {.protocol = NB_EVAL_LLAMACPP,
                                .text = text,
                                .bytes = bytes,
                                .window = o->window,
                                .limit = o->limit,
                                .context = m->model->arch.max_position,
                                .prefix_id = -1};
    rc = nb_eval_plan_make(&m->plan, &q, m->tokenizer, err);
    nb_free(text);
    if (rc) return nb_err_prefix(err, "%s", text_name(o));
    if (m->plan.window > q.context) {
        nb_progress_warn(&m->cli->progress,
                         "windows of %" PRId64
                         " tokens are longer than the model's context of %" PRId64,
                         m->plan.window, q.context);
    }
    return 0;
}

/* ---- results ---- */

static int emit(const struct measuring *m, struct nb_err *err)
{
    const struct nb_imatrix *im = &m->matrix;
    return nb_cli_emit(
        m->cli,
        json_pack("{s:s, s:o, s:s, s:I, s:I, s:I, s:I, s:b, s:o, s:s, s:o, s:I}", "command",
                  "imatrix", "out", nb_cli_string(m->o->out), "format", format_name(m->format),
                  "tensors", (json_int_t)im->n, "windows", (json_int_t)im->n_chunks, "window",
                  (json_int_t)im->chunk_size, "tokens", (json_int_t)(im->n_chunks * im->chunk_size),
                  "bos", (int)m->plan.bos, "text", nb_cli_string(text_name(m->o)), "text_sha256",
                  m->plan.text_sha256, "seconds", nb_cli_real(nb_clock_s() - m->from),
                  "peak_rss_bytes", (json_int_t)nb_rss_peak_bytes()),
        err);
}

static int show(const struct measuring *m, struct nb_err *err)
{
    const struct nb_imatrix *im = &m->matrix;
    char rss[32];
    nb_progress_line_clear(&m->cli->line);
    if (m->cli->json) return emit(m, err);
    nb_format_bytes(nb_rss_peak_bytes(), rss, sizeof rss);
    printf("%s: importance of the inputs of %zu tensors, format %s\n", m->o->out, im->n,
           format_name(m->format));
    printf("text: %s, %" PRId64 " windows of %" PRId64 " tokens%s\n", text_name(m->o), im->n_chunks,
           im->chunk_size, m->plan.bos ? ", BOS first" : "");
    printf("time: %.1f s, peak memory %s\n", nb_clock_s() - m->from, rss);
    if (!m->cli->quiet) {
        fprintf(stderr, "next: nibble quantize %s -o OUT.gguf --scheme Q4_K_M --imatrix %s\n",
                m->cli->args[0], m->o->out);
    }
    return 0;
}

static int measure(struct measuring *m, struct nb_err *err)
{
    const uint64_t memory = m->o->memory ? m->o->memory : nb_memory_free_bytes() / 2;
    struct nb_eval_imatrix_opts opts = {.model = m->model,
                                        .be = m->rt.be,
                                        .plan = &m->plan,
                                        .memory_bytes = memory,
                                        .output_tensor = m->o->output_tensor};
    const char *name = text_name(m->o);
    int rc = nb_eval_imatrix(&m->matrix, &opts, &m->cli->progress, err);
    if (!rc) rc = nb_imatrix_add_dataset(&m->matrix, name, strlen(name), err);
    if (!rc) rc = nb_imatrix_write(&m->matrix, m->o->out, m->format == FORMAT_DAT, err);
    return rc ? rc : show(m, err);
}

static int run(struct nb_cli *cli, const void *opts, struct nb_err *err)
{
    struct measuring m = {.cli = cli, .o = opts, .from = nb_clock_s()};
    if (!m.o->out) {
        nb_fail(err, NB_E_USAGE, "the output file is missing");
        return nb_err_hint(err, "give it with -o FILE.gguf");
    }
    int rc = choose_format(&m, err);
    if (!rc) rc = nb_locate_model(cli->args[0], &m.dir, err);
    if (!rc) rc = check_place(&m, err);
    if (!rc) rc = open_model(&m, err);
    if (!rc) rc = make_plan(&m, err);
    if (!rc) rc = measure(&m, err);
    nb_imatrix_release(&m.matrix);
    nb_eval_plan_release(&m.plan);
    nb_tokenizer_close(m.tokenizer);
    nb_model_close(m.model);
    nb_runtime_release(&m.rt);
    nb_free(m.dir);
    return rc;
}

const struct nb_command nb_command_imatrix = {
    .name = "imatrix",
    .summary = "importance matrix of a model on a text, as llama.cpp's",
    .usage = "MODEL -o FILE [options]",
    .about = "For nibble quantize --imatrix and for llama-quantize.",
    .example = "models/books-11m -o books.imatrix.gguf --text novel.txt",
    .options = options,
    .options_bytes = sizeof(struct imatrix_options),
    .defaults = &defaults,
    .min_args = 1,
    .max_args = 1,
    .args = "MODEL",
    .run = run,
};

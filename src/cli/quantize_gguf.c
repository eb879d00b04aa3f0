/* SPDX-License-Identifier: Apache-2.0
 *
 * quantize_gguf.c - see quantize_gguf.h. */
#include "cli/quantize_gguf.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "api/api.h"
#include "base/clock.h"
#include "base/mem.h"
#include "cli/gate.h"

bool nb_cli_ends_with(const char *s, const char *suffix)
{
    size_t n = strlen(s), m = strlen(suffix);
    return n >= m && !strcmp(s + n - m, suffix);
}

bool nb_cli_wants_gguf(const struct nb_quantize_words *w)
{
    if (w->format) return !strcmp(w->format, "gguf");
    return w->out && nb_cli_ends_with(w->out, ".gguf");
}

/* ---- results ---- */

static json_t *types_json(const struct nb_gguf_report *r)
{
    json_t *types = json_object();
    for (size_t i = 0; i < r->n_types; i++) {
        json_object_set_new(types, r->types[i].type,
                            json_pack("{s:I, s:I}", "tensors", (json_int_t)r->types[i].tensors,
                                      "bytes", (json_int_t)r->types[i].bytes));
    }
    return types;
}

json_t *nb_cli_lines(const struct nb_strbuf *text)
{
    json_t *lines = json_array();
    for (const char *s = nb_strbuf_cstr(text); *s;) {
        size_t n = strcspn(s, "\n");
        json_array_append_new(lines, json_stringn(s, n));
        s += n + (s[n] == '\n');
    }
    return lines;
}

void nb_cli_print_notes(const struct nb_strbuf *text)
{
    for (const char *s = nb_strbuf_cstr(text); *s;) {
        size_t n = strcspn(s, "\n");
        printf("note: %.*s\n", (int)n, s);
        s += n + (s[n] == '\n');
    }
}

static int emit(struct nb_cli *cli, const char *name, const struct nb_gguf_opts *o,
                const struct nb_gguf_report *r, struct nb_err *err)
{
    const bool quantizes = r->quantized > 0;
    json_t *j = json_pack(
        "{s:s, s:o, s:s, s:s, s:s, s:[], s:{s:I, s:I, s:I, s:I, s:I, s:I}, s:o, s:o, s:I, s:I, s:I, s:o, s:I, s:b, s:n, s:o, s:o}",
        "command", name, "out", nb_cli_string(o->out), "method", quantizes ? "rtn" : "none",
        "format", "gguf", "scheme", r->scheme, "layers", "tensors", "source",
        (json_int_t)r->tensors_source, "quantized", (json_int_t)r->quantized, "weighted",
        (json_int_t)r->weighted, "copied",
        (json_int_t)(r->tensors_source - r->quantized - r->tensors_tied), "tied",
        (json_int_t)r->tensors_tied, "dropped", (json_int_t)0, "types", types_json(r),
        "bits_per_weight", nb_cli_real(r->bits_per_weight), "files", (json_int_t)r->n_files,
        "bytes", (json_int_t)r->bytes, "bytes_source", (json_int_t)r->bytes_source, "seconds",
        nb_cli_real(r->seconds), "peak_rss_bytes", (json_int_t)r->peak_rss_bytes, "dry_run",
        (int)o->dry_run, "calibration", "gate", nb_gate_json(r->has_gate ? &r->gate : NULL),
        "notes", nb_cli_lines(&r->notes));
    return nb_cli_emit(cli, j, err);
}

static void print(const struct nb_gguf_opts *o, const struct nb_gguf_report *r)
{
    char size[32], source[32], rss[32];
    nb_format_bytes(r->bytes, size, sizeof size);
    nb_format_bytes(r->bytes_source, source, sizeof source);
    nb_format_bytes(r->peak_rss_bytes, rss, sizeof rss);
    printf("%s: format gguf, %s, %.3f bits per weight\n", o->out, r->scheme, r->bits_per_weight);
    printf("tensors: %" PRId64 ", %" PRId64 " quantized, %" PRId64
           " of them by an importance matrix:",
           r->tensors, r->quantized, r->weighted);
    for (size_t i = 0; i < r->n_types; i++)
        printf(" %" PRId64 " %s", r->types[i].tensors, r->types[i].type);
    printf("\n");
    if (o->dry_run) {
        printf("needs: %s of disk; nothing was written\n", size);
    } else {
        printf("size: %s in %zu file%s, weights of the source %s; %.1f s, peak memory %s\n", size,
               r->n_files, r->n_files == 1 ? "" : "s", source, r->seconds, rss);
    }
    nb_cli_print_notes(&r->notes);
}

int nb_cli_write_gguf(struct nb_cli *cli, const char *name, const struct nb_gguf_opts *opts,
                      struct nb_pool *pool, struct nb_err *err)
{
    struct nb_gguf_report report;
    int rc = nb_gguf_quantize(&report, opts, pool, &cli->progress, err);
    nb_progress_line_clear(&cli->line);
    if (rc == 0 || rc == NB_E_GATE) {
        struct nb_err late = {0};
        int printed = 0;
        if (cli->json) {
            printed = emit(cli, name, opts, &report, &late);
        } else {
            print(opts, &report);
            if (!opts->dry_run && !strcmp(name, "quantize"))
                nb_gate_print(report.has_gate ? &report.gate : NULL);
        }
        if (printed && !rc) {
            *err = late;
            rc = printed;
        }
    }
    nb_gguf_report_release(&report);
    return rc;
}

/* ---- nibble quantize ---- */

static bool is_float(const char *scheme)
{
    return scheme && (!strcasecmp(scheme, "F32") || !strcasecmp(scheme, "F16") ||
                      !strcasecmp(scheme, "BF16"));
}

bool nb_cli_encodes_gguf(const struct nb_quantize_words *w)
{
    if (w->method) return !strcmp(w->method, "rtn") || !strcmp(w->method, "none");
    return w->imatrix || is_float(w->scheme) || (w->effort && !strcmp(w->effort, "fast"));
}

int nb_cli_gguf_words(const struct nb_quantize_words *w, struct nb_gguf_opts *o, struct nb_err *err)
{
    const bool encodes = nb_cli_encodes_gguf(w);
    const bool none = w->method && !strcmp(w->method, "none");
    *o = (struct nb_gguf_opts){.out = w->out,
                               .scheme = w->scheme ? w->scheme
                                         : none    ? NULL
                                                   : "Q4_K_M",
                               .tensor_types = w->tensor_type.items,
                               .n_tensor_types = w->tensor_type.n,
                               .output_type = w->output_type,
                               .embedding_type = w->embedding_type,
                               .imatrix = w->imatrix,
                               .pure = w->pure,
                               .requantize = w->requantize,
                               .overwrite = w->overwrite,
                               .dry_run = w->dry_run,
                               .max_part_bytes = w->shard_size};
    if (!w->out) {
        nb_fail(err, NB_E_USAGE, "the output file is missing");
        return nb_err_hint(err, "give it with -o FILE.gguf");
    }
    if (w->bits || w->group || w->sym || w->asym || w->config || w->bits_for.n) {
        nb_fail(err, NB_E_USAGE,
                "a gguf file takes its types from --scheme, not from bits and group");
        return nb_err_hint(err, "example: --scheme Q4_K_M");
    }
    if (w->ignore.n || w->include.n) {
        nb_fail(err, NB_E_USAGE, "a gguf file has no modules to ignore or include");
        return nb_err_hint(err, "example: --tensor-type 'ffn_down=Q8_0'");
    }
    if (!encodes && w->imatrix) {
        nb_fail(
            err, NB_E_USAGE,
            "option '--imatrix': method '%s' has statistics of its own from the calibration text",
            w->method ? w->method : "best");
        return nb_err_hint(err, "for encoding with importances alone: --method rtn");
    }
    if (w->gate && w->no_gate)
        return nb_fail(err, NB_E_USAGE, "options '--gate' and '--no-gate' exclude each other");
    return 0;
}

static int open_gate(struct nb_gate *gate, const struct nb_quantize_words *w,
                     struct nb_gguf_opts *o, struct nb_err *err)
{
    gate->model_dir = o->model;
    gate->eval_text = w->eval_text;
    gate->memory_bytes = (w->memory ? w->memory : nb_memory_free_bytes() / 2) / 2;
    int rc = nb_gate_open(gate, NULL, err);
    o->gate = nb_gate_run;
    o->gate_ctx = gate;
    return rc;
}

int nb_cli_quantize_gguf(struct nb_cli *cli, const struct nb_quantize_words *w, struct nb_err *err)
{
    struct nb_gate gate = {.cli = cli};
    struct nb_runtime rt = {0};
    char *model = NULL;
    struct nb_gguf_opts o;
    int rc = nb_cli_gguf_words(w, &o, err);
    nb_tolerance_default(&gate.tolerance);
    if (!rc && w->gate) rc = nb_tolerance_parse(w->gate, &gate.tolerance, err);
    if (!rc) rc = nb_locate_model(cli->args[0], &model, err);
    if (!rc) rc = nb_runtime_init(&rt, (int)cli->threads, cli->cpu, err);
    o.model = model;
    gate.be = rt.be;
    if (!rc && !w->no_gate && !w->dry_run) rc = open_gate(&gate, w, &o, err);
    if (!rc) rc = nb_cli_write_gguf(cli, "quantize", &o, rt.pool, err);
    nb_gate_release(&gate);
    nb_runtime_release(&rt);
    nb_free(model);
    return rc;
}

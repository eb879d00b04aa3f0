/* SPDX-License-Identifier: Apache-2.0
 *
 * cmd_quantize.c - nibble quantize: options to a recipe, the run, and what it did. */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "api/api.h"
#include "base/clock.h"
#include "base/file.h"
#include "base/mem.h"
#include "cli/cli.h"
#include "cli/commands.h"
#include "cli/gate.h"
#include "cli/quantize_gguf.h"
#include "cli/quantize_options.h"
#include "pipeline/pipeline.h"

#define FIELD(name) offsetof(struct nb_quantize_words, name)

static const struct nb_option options[] = {
    {'o', "out", NB_OPTION_TEXT, FIELD(out), "DIR", "the folder, or .gguf file, to make", 0, 0},
    {0, "method", NB_OPTION_TEXT, FIELD(method), "M",
     "rtn, gptq, awq, smoothquant, A+gptq, signround, none (best)", 0, 0},
    {0, "effort", NB_OPTION_TEXT, FIELD(effort), "E", "fast, normal, max (normal)", 0, 0},
    {'w', "bits", NB_OPTION_INT, FIELD(bits), "N", NULL, 1, 16},
    {'g', "group", NB_OPTION_INT, FIELD(group), "N",
     "2, 3, 4, 8 (4); weights per scale, -1: a whole row (128)", -1, 1e6},
    {0, "scheme", NB_OPTION_TEXT, FIELD(scheme), "S",
     "W4A16 W8A8 INT8 NF4 FP8 NVFP4 ... see docs/commands.md", 0, 0},
    {0, "format", NB_OPTION_TEXT, FIELD(format), "F",
     "gptq gptq_v2 awq bnb fp8 compressed-tensors gguf (by scheme)", 0, 0},
    {0, "sym", NB_OPTION_FLAG, FIELD(sym), NULL, NULL, 0, 0},
    {0, "asym", NB_OPTION_FLAG, FIELD(asym), NULL, "the grid (gptq sym, awq asym)", 0, 0},
    {0, "no-double-quant", NB_OPTION_FLAG, FIELD(single_quant), NULL, NULL, 0, 0},
    {0, "storage", NB_OPTION_TEXT, FIELD(storage), "T", NULL, 0, 0},
    {0, "act-percentile", NB_OPTION_REAL, FIELD(act_percentile), "P", NULL, 50, 100},
    {0, "kv-scales", NB_OPTION_FLAG, FIELD(kv_scales), NULL,
     "NF4: F32 scales, type of bytes; FP8: range (100), KV scales", 0, 0},
    {0, "rotate", NB_OPTION_FLAG, FIELD(rotate), NULL, NULL, 0, 0},
    {0, "moe-all-tokens", NB_OPTION_FLAG, FIELD(moe_all_tokens), NULL,
     "rotations R1, R2 first; calibrate experts on all tokens", 0, 0},
    {0, "act-order", NB_OPTION_CHOICE, FIELD(order), "auto|none|static|group|pivoted|dynamic",
     "order of columns (the best of those that fit)", 0, 0},
    {0, "damp", NB_OPTION_REAL, FIELD(damp), "X", NULL, 0, 1},
    {0, "clip", NB_OPTION_TEXT, FIELD(clip), "C", NULL, 0, 0},
    {0, "precision", NB_OPTION_TEXT, FIELD(precision), "P", NULL, 0, 0},
    {0, "gptaq", NB_OPTION_REAL, FIELD(gptaq), "X",
     "damping; none, mse, weighted; f32, bf16; float stream", 0, 1},
    {0, "config", NB_OPTION_TEXT, FIELD(config), "FILE", "another tool's quantization config", 0,
     0},
    {0, "calib", NB_OPTION_LIST, FIELD(calib), "FILE[:WEIGHT]",
     "calibration text or folder (bundled)", 0, 0},
    {0, "samples", NB_OPTION_INT, FIELD(samples), "N", NULL, 1, 1e6},
    {0, "seqlen", NB_OPTION_INT, FIELD(seqlen), "N", NULL, 2, 1e6},
    {0, "seed", NB_OPTION_INT, FIELD(seed), "N", "windows, tokens each, seed (128, 2048, 0)", 0,
     9e15},
    {0, "eval-text", NB_OPTION_TEXT, FIELD(eval_text), "FILE", "text of the gate (bundled)", 0, 0},
    {0, "gate", NB_OPTION_TEXT, FIELD(gate), "LIST", NULL, 0, 0},
    {0, "no-gate", NB_OPTION_FLAG, FIELD(no_gate), NULL, "ratio=X,kld=Y,top=Z (ratio=1.05)", 0, 0},
    {0, "imatrix", NB_OPTION_TEXT, FIELD(imatrix), "FILE", NULL, 0, 0},
    {0, "tensor-type", NB_OPTION_LIST, FIELD(tensor_type), "RE=TYPE", NULL, 0, 0},
    {0, "output-type", NB_OPTION_TEXT, FIELD(output_type), "T", NULL, 0, 0},
    {0, "embedding-type", NB_OPTION_TEXT, FIELD(embedding_type), "T",
     "gguf: importance matrix; types by name, of head, embedding", 0, 0},
    {0, "pure", NB_OPTION_FLAG, FIELD(pure), NULL, NULL, 0, 0},
    {0, "requantize", NB_OPTION_FLAG, FIELD(requantize), NULL,
     "gguf: one type for all; a quantized source too", 0, 0},
    {0, "ignore", NB_OPTION_LIST, FIELD(ignore), "GLOB", NULL, 0, 0},
    {0, "include", NB_OPTION_LIST, FIELD(include), "GLOB", NULL, 0, 0},
    {0, "bits-for", NB_OPTION_LIST, FIELD(bits_for), "GLOB=N",
     "modules left in float; but not these; other bits", 0, 0},
    {0, "target-size", NB_OPTION_SIZE, FIELD(target_size), "SIZE", NULL, 0, 0},
    {0, "target-bits", NB_OPTION_REAL, FIELD(target_bits), "X", NULL, 1, 16},
    {0, "target-kld", NB_OPTION_REAL, FIELD(target_kld), "X",
     "mixed precision: bytes, bits per weight, or loss", 0, 100},
    {0, "memory", NB_OPTION_SIZE, FIELD(memory), "SIZE", NULL, 0, 0},
    {0, "shard-size", NB_OPTION_SIZE, FIELD(shard_size), "SIZE",
     "for activations, the rest spills (half); output file (5GB)", 0, 0},
    {0, "restart", NB_OPTION_FLAG, FIELD(restart), NULL, NULL, 0, 0},
    {0, "overwrite", NB_OPTION_FLAG, FIELD(overwrite), NULL,
     "forget an unfinished run; replace DIR", 0, 0},
    {0, "allow-nonfinite", NB_OPTION_FLAG, FIELD(allow_nonfinite), NULL, NULL, 0, 0},
    {0, "dry-run", NB_OPTION_FLAG, FIELD(dry_run), NULL,
     "accept NaN or Inf weights; print the plan, write nothing", 0, 0},
    {0, NULL, NB_OPTION_FLAG, 0, NULL, NULL, 0, 0},
};

/* ---- results ---- */

static json_t *layers_json(const struct nb_quantize_report *r)
{
    json_t *layers = json_array();
    for (size_t i = 0; i < r->n_linears; i++) {
        const struct nb_linear_report *l = &r->linears[i];
        if (!l->quantized) continue;
        json_t *v =
            json_pack("{s:s, s:o, s:o, s:s, s:o, s:s, s:i, s:I}", "name", l->name, "loss",
                      nb_cli_real(l->solve.loss), "loss_rtn", nb_cli_real(l->solve.loss_rtn),
                      "order", nb_order_name(l->solve.order), "damp", nb_cli_real(l->solve.damp),
                      "ladder", l->solve.ladder, "bits", l->bits, "group", (json_int_t)l->group);
        if (v && l->expert) {
            json_object_set_new(v, "tokens", json_integer(l->tokens));
            json_object_set_new(v, "all_tokens", json_boolean(l->all_tokens));
        }
        json_array_append_new(layers, v);
    }
    return layers;
}

static int emit(struct nb_cli *cli, const struct nb_quantize_opts *q,
                const struct nb_quantize_report *r, struct nb_err *err)
{
    json_t *o = json_pack(
        "{s:s, s:o, s:s, s:i, s:I, s:b, s:s, s:o, s:{s:I, s:I, s:I, s:I, s:I}, s:I, s:I, s:o, s:o, s:I, s:b, s:b}",
        "command", "quantize", "out", nb_cli_string(q->out_dir), "method", r->method, "bits",
        r->bits, "group", (json_int_t)r->group, "sym", (int)r->sym, "format", r->format, "layers",
        layers_json(r), "tensors", "source", (json_int_t)r->tensors_source, "quantized",
        (json_int_t)r->tensors_quantized, "copied", (json_int_t)r->tensors_copied, "tied",
        (json_int_t)r->tensors_tied, "dropped", (json_int_t)r->tensors_dropped, "bytes",
        (json_int_t)r->bytes, "bytes_source", (json_int_t)r->bytes_source, "bits_per_weight",
        nb_cli_real(r->bits_per_weight), "seconds", nb_cli_real(r->seconds), "peak_rss_bytes",
        (json_int_t)r->peak_rss_bytes, "resumed", (int)r->resumed, "dry_run", (int)q->dry_run);
    if (o && r->mixed.lines.len) {
        json_object_set_new(o, "mixed",
                            json_pack("{s:o, s:o}", "predicted_kld",
                                      nb_cli_real(r->mixed.predicted_kld), "layers",
                                      nb_cli_lines(&r->mixed.lines)));
    }
    if (o && r->scheme[0]) {
        json_object_set_new(o, "scheme", json_string(r->scheme));
        json_object_set_new(o, "notes", nb_cli_lines(&r->notes));
    }
    if (o) {
        json_object_set_new(o, "calibration",
                            json_pack("{s:I, s:I, s:s}", "tokens", (json_int_t)r->calib_tokens,
                                      "samples", (json_int_t)r->calib_samples, "sha256",
                                      r->calib_sha256));
        if (q->dry_run) {
            json_object_set_new(o, "plan",
                                json_pack("{s:I, s:I}", "peak_rss_bytes",
                                          (json_int_t)r->plan_peak_bytes, "disk_bytes",
                                          (json_int_t)r->plan_disk_bytes));
        } else {
            json_object_set_new(o, "gate", nb_gate_json(r->has_gate ? &r->gate : NULL));
        }
    }
    return nb_cli_emit(cli, o, err);
}

static void print_what(const struct nb_quantize_opts *q, const struct nb_quantize_report *r)
{
    printf("%s: method %s, format %s", q->out_dir, r->method, r->format);
    if (r->scheme[0]) {
        printf(", %s, %.3f bits per weight in the layers", r->scheme, r->bits_per_weight);
    } else if (r->bits) {
        printf(", %d bits %s group %" PRId64 ", %.3f bits per weight with scales", r->bits,
               r->sym ? "sym" : "asym", r->group, r->bits_per_weight);
    }
    printf("\ntensors: %" PRId64 " quantized, %" PRId64 " copied, %" PRId64 " tied, %" PRId64
           " dropped of %" PRId64 "\n",
           r->tensors_quantized, r->tensors_copied, r->tensors_tied, r->tensors_dropped,
           r->tensors_source);
    if (r->mixed.lines.len)
        printf("mixed precision: predicted divergence %.5f nats per token\n%s",
               r->mixed.predicted_kld, nb_strbuf_cstr(&r->mixed.lines));
    nb_cli_print_notes(&r->notes);
}

static void print_plan(const struct nb_quantize_opts *q, const struct nb_quantize_report *r)
{
    char peak[32], disk[32];
    print_what(q, r);
    nb_format_bytes(r->plan_peak_bytes, peak, sizeof peak);
    nb_format_bytes(r->plan_disk_bytes, disk, sizeof disk);
    printf("calibration: %" PRId64 " windows, %" PRId64 " tokens\n", r->calib_samples,
           r->calib_tokens);
    printf("needs: about %s of memory, %s of disk; nothing was written\n", peak, disk);
}

static void print_result(const struct nb_quantize_opts *q, const struct nb_quantize_report *r)
{
    char size[32], source[32], rss[32];
    print_what(q, r);
    nb_format_bytes(r->bytes, size, sizeof size);
    nb_format_bytes(r->bytes_source, source, sizeof source);
    nb_format_bytes(r->peak_rss_bytes, rss, sizeof rss);
    printf("size: %s, weights of the source %s; %.1f s, peak memory %s\n", size, source, r->seconds,
           rss);
    nb_gate_print(r->has_gate ? &r->gate : NULL);
}

/* ---- the run ---- */

static int quantize(struct nb_cli *cli, struct nb_quantize_opts *q, struct nb_backend *be,
                    struct nb_err *err)
{
    struct nb_quantize_report report;
    int rc = nb_quantize(&report, q, be, &cli->progress, err);
    nb_progress_line_clear(&cli->line);
    if (rc == 0 || rc == NB_E_GATE) {
        struct nb_err late = {0};
        int printed = 0;
        if (cli->json) printed = emit(cli, q, &report, &late);
        else if (q->dry_run) print_plan(q, &report);
        else print_result(q, &report);
        if (printed && !rc) {
            *err = late;
            rc = printed;
        }
        if (!rc && !q->dry_run && !cli->json && !cli->quiet) {
            fprintf(stderr, "next: nibble run %s -p \"Once upon a time\"\n", q->out_dir);
        }
    } else if (rc == NB_E_INTERRUPTED && !err->hint[0]) {
        nb_err_hint(err, "the same command goes on where this one stopped");
    }
    nb_quantize_report_release(&report);
    return rc;
}

static int open_gate(struct nb_gate *gate, const struct nb_quantize_words *w,
                     struct nb_quantize_opts *q, struct nb_err *err)
{
    gate->model_dir = q->model_dir;
    gate->eval_text = w->eval_text;
    gate->memory_bytes = (q->memory_bytes ? q->memory_bytes : nb_memory_free_bytes() / 2) / 2;
    /* The bundled texts are known not to overlap. */
    bool compare = q->calib.n_sources > 0 || w->eval_text;
    int rc = nb_gate_open(gate, compare ? &q->calib : NULL, err);
    if (rc) return rc;
    q->gate = nb_gate_run;
    q->gate_ctx = gate;
    return 0;
}

static int run(struct nb_cli *cli, const void *opts, struct nb_err *err)
{
    const struct nb_quantize_words *w = opts;
    const bool file = nb_cli_wants_gguf(w);
    if (file && nb_cli_encodes_gguf(w)) return nb_cli_quantize_gguf(cli, w, err);
    struct nb_quantize_plan *plan = nb_xalloc(sizeof *plan);
    struct nb_gate gate = {.cli = cli};
    struct nb_runtime rt = {0};
    char *dir = NULL, tolerance[160];
    struct nb_gguf_opts gguf;
    struct nb_quantize_words own = *w;
    int rc = file ? nb_cli_gguf_words(w, &gguf, err) : 0;
    if (file) own.scheme = own.format = NULL; /* they are the file's */
    if (!rc) rc = nb_quantize_plan_make(plan, &own, err);
    struct nb_quantize_opts *q = &plan->opts;
    if (file) q->gguf = &gguf;
    nb_tolerance_default(&gate.tolerance);
    if (!rc && w->gate) rc = nb_tolerance_parse(w->gate, &gate.tolerance, err);
    if (!rc) rc = nb_locate_model(cli->args[0], &dir, err);
    if (!rc) rc = nb_runtime_init(&rt, (int)cli->threads, cli->cpu, err);
    q->model_dir = dir;
    gate.be = rt.be;
    if (!rc && !w->no_gate && !w->dry_run) {
        rc = open_gate(&gate, w, q, err);
        nb_tolerance_describe(&gate.tolerance, tolerance, sizeof tolerance);
        q->gate_recipe = tolerance;
    }
    if (!rc) rc = quantize(cli, q, rt.be, err);
    nb_gate_release(&gate);
    nb_runtime_release(&rt);
    nb_quantize_plan_release(plan);
    nb_free(plan);
    nb_free(dir);
    return rc;
}

const struct nb_command nb_command_quantize = {
    .name = "quantize",
    .summary = "makes a quantized model folder or GGUF file and measures it",
    .usage = "MODEL -o DIR [options]",
    .about =
        "The same command resumes an interrupted run. Exit 6: made, but outside the tolerance.",
    .example = "models/books-11m -o out/gptq --method gptq --calib novel.txt",
    .options = options,
    .options_bytes = sizeof(struct nb_quantize_words),
    .defaults = &nb_quantize_words_defaults,
    .min_args = 1,
    .max_args = 1,
    .args = "MODEL",
    .run = run,
};

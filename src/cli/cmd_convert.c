/* SPDX-License-Identifier: Apache-2.0
 *
 * cmd_convert.c - nibble convert: the same weights in another container. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "api/api.h"
#include "base/mem.h"
#include "cli/cli.h"
#include "cli/commands.h"
#include "cli/quantize_gguf.h"

struct convert_options {
    const char *out, *type, *name, *format;
    bool overwrite, dry_run;
    uint64_t shard_size;
};

#define FIELD(name) offsetof(struct convert_options, name)

static const struct nb_option options[] = {
    {'o', "out", NB_OPTION_TEXT, FIELD(out), "OUT", "FILE.gguf, or a folder to make", 0, 0},
    {0, "type", NB_OPTION_TEXT, FIELD(type), "T",
     "f32, f16, bf16; q8_0 for a .gguf (as the source; f16)", 0, 0},
    {0, "format", NB_OPTION_TEXT, FIELD(format), "F",
     "gptq gptq_v2 awq compressed-tensors fp8: same codes; dense", 0, 0},
    {0, "name", NB_OPTION_TEXT, FIELD(name), "NAME", ".gguf: the model's name (the folder's)", 0,
     0},
    {0, "shard-size", NB_OPTION_SIZE, FIELD(shard_size), "SIZE", "largest output file", 0, 0},
    {0, "overwrite", NB_OPTION_FLAG, FIELD(overwrite), NULL, "replace OUT", 0, 0},
    {0, "dry-run", NB_OPTION_FLAG, FIELD(dry_run), NULL, ".gguf: print the plan, write nothing", 0,
     0},
    {0, NULL, NB_OPTION_FLAG, 0, NULL, NULL, 0, 0},
};

static int check(const struct convert_options *o, bool gguf, struct nb_err *err)
{
    static const char *const types[] = {"f32", "f16", "bf16", "q8_0"};
    if (!o->out) {
        nb_fail(err, NB_E_USAGE, "the output is missing");
        return nb_err_hint(err, "give it with -o FILE.gguf or -o DIR");
    }
    if (gguf ? o->format != NULL : o->name || o->dry_run) {
        return nb_fail(err, NB_E_USAGE, "option '--%s' is not for %s",
                       gguf      ? "format"
                       : o->name ? "name"
                                 : "dry-run",
                       gguf ? "a .gguf file" : "a folder");
    }
    for (size_t i = 0; o->type && i < (gguf ? 4u : 3u); i++) {
        if (!strcasecmp(o->type, types[i])) return 0;
    }
    if (!o->type) return 0;
    nb_fail(err, NB_E_USAGE, "option '--type': '%s' is none of f32, f16, bf16%s", o->type,
            gguf ? ", q8_0" : "");
    if (!gguf) return NB_E_USAGE;
    return nb_err_hint(err, "for other types: nibble quantize --format gguf --scheme %.40s",
                       o->type);
}

static int to_gguf(struct nb_cli *cli, const struct convert_options *o, const char *model,
                   struct nb_pool *pool, struct nb_err *err)
{
    struct nb_gguf_opts g = {.model = model,
                             .out = o->out,
                             .scheme = o->type,
                             .name = o->name,
                             .requantize = true,
                             .overwrite = o->overwrite,
                             .dry_run = o->dry_run,
                             .max_part_bytes = o->shard_size};
    return nb_cli_write_gguf(cli, "convert", &g, pool, err);
}

static int print(struct nb_cli *cli, const struct convert_options *o,
                 const struct nb_unpack_report *r, struct nb_err *err)
{
    if (cli->json) {
        return nb_cli_emit(
            cli,
            json_pack("{s:s, s:o, s:s, s:I, s:I, s:I, s:I, s:o, s:I, s:o}", "command", "convert",
                      "out", nb_cli_string(o->out), "format", o->format ? o->format : "dense",
                      "tensors", (json_int_t)r->tensors, "quantized", (json_int_t)r->quantized,
                      "bytes", (json_int_t)r->bytes, "bytes_source", (json_int_t)r->bytes_source,
                      "seconds", nb_cli_real(r->seconds), "peak_rss_bytes",
                      (json_int_t)r->peak_rss_bytes, "notes", nb_cli_lines(&r->notes)),
            err);
    }
    char size[32], source[32], rss[32];
    nb_format_bytes(r->bytes, size, sizeof size);
    nb_format_bytes(r->bytes_source, source, sizeof source);
    nb_format_bytes(r->peak_rss_bytes, rss, sizeof rss);
    printf("%s: %" PRId64 " tensors, codes of %" PRId64
           " linears kept\nsize: %s of weights, source %s; %.1f s, peak memory %s\n",
           o->out, r->tensors, r->quantized, size, source, r->seconds, rss);
    nb_cli_print_notes(&r->notes);
    return 0;
}

static int to_folder(struct nb_cli *cli, const struct convert_options *o, const char *model,
                     struct nb_pool *pool, struct nb_err *err)
{
    struct nb_unpack_opts u = {.model = model,
                               .out = o->out,
                               .type = o->type,
                               .format = o->format,
                               .max_shard_bytes = o->shard_size,
                               .overwrite = o->overwrite};
    struct nb_unpack_report report;
    int rc = nb_convert(&report, &u, pool, &cli->progress, err);
    nb_progress_line_clear(&cli->line);
    if (!rc) rc = print(cli, o, &report, err);
    nb_unpack_report_release(&report);
    return rc;
}

static int run(struct nb_cli *cli, const void *opts, struct nb_err *err)
{
    const struct convert_options *o = opts;
    struct nb_runtime rt = {0};
    char *model = NULL;
    bool gguf = o->out && nb_cli_ends_with(o->out, ".gguf");
    int rc = check(o, gguf, err);
    if (!rc) rc = nb_locate_model(cli->args[0], &model, err);
    if (!rc) rc = nb_runtime_init(&rt, (int)cli->threads, cli->cpu, err);
    if (!rc)
        rc = gguf ? to_gguf(cli, o, model, rt.pool, err) : to_folder(cli, o, model, rt.pool, err);
    nb_runtime_release(&rt);
    nb_free(model);
    return rc;
}

const struct nb_command nb_command_convert = {
    .name = "convert",
    .summary = "the same weights in another container",
    .usage = "MODEL -o OUT [options]",
    .about =
        "A model folder to a GGUF file, float or 8 bits; a GGUF file to a model folder; a quantized\n"
        "folder to another format with every code and scale unchanged, read back and compared, or\n"
        "refused with the reason.",
    .example = "models/books-11m -o books.gguf --type bf16",
    .options = options,
    .options_bytes = sizeof(struct convert_options),
    .min_args = 1,
    .max_args = 1,
    .args = "MODEL",
    .run = run,
};

/* SPDX-License-Identifier: Apache-2.0
 *
 * card.c - README.md of the output: what it is, how it was made, what was measured. Facts only; nothing
 * in it depends on time or machine, so that equal runs give equal folders. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "nibble/version.h"
#include "pipeline/run.h"

/* Last part of the model's path; of "." and ".." what they stand for. nb_free. */
static char *model_name(const char *dir)
{
    char *whole = NULL, *name = nb_xstrdup(dir);
    size_t n = strlen(name);
    while (n > 1 && name[n - 1] == '/') name[--n] = '\0';
    const char *slash = strrchr(name, '/');
    const char *last = slash && slash[1] ? slash + 1 : name;
    if ((!strcmp(last, ".") || !strcmp(last, "..")) && (whole = realpath(dir, NULL))) {
        slash = strrchr(whole, '/');
        last = slash && slash[1] ? slash + 1 : whole;
    }
    char *copy = nb_xstrdup(last);
    nb_err_clean(copy);
    nb_free(name);
    free(whole);
    return copy;
}

static void put_front(const struct nb_run *r, const char *name, struct nb_strbuf *b)
{
    const struct nb_quantize_report *q = r->report;
    nb_strbuf_printf(
        b, "---\nlibrary_name: transformers\npipeline_tag: text-generation\ntags:\n- %s\n",
        q->format);
    if (q->bits) nb_strbuf_printf(b, "- %d-bit\n", q->bits);
    nb_strbuf_printf(b, "---\n\n# %s, %s", name, q->format);
    if (q->bits) nb_strbuf_printf(b, " %d bit", q->bits);
    nb_strbuf_printf(b, "\n\nQuantized with nibble %s from `%s` (%s).\n\n", nb_version(), name,
                     r->model->arch.model_type);
}

static void put_recipe(const struct nb_run *r, struct nb_strbuf *b)
{
    const struct nb_quantize_report *q = r->report;
    char spec[64];
    nb_strbuf_printf(b, "| | |\n|---|---|\n| method | %s |\n", q->method);
    if (r->recipe.solver) {
        nb_qspec_describe(&r->recipe.solve.grid.spec, spec, sizeof spec);
        nb_strbuf_printf(b, "| weights | %s, %.3f bits per weight with scales |\n", spec,
                         q->bits_per_weight);
    }
    nb_strbuf_printf(b,
                     "| tensors | %" PRId64 " quantized, %" PRId64 " copied, %" PRId64
                     " tied, %" PRId64 " dropped of %" PRId64 " |\n",
                     q->tensors_quantized, q->tensors_copied, q->tensors_tied, q->tensors_dropped,
                     q->tensors_source);
    nb_strbuf_printf(b, "| weight bytes | %" PRIu64 " (source %" PRIu64 ") |\n", r->sink->bytes(r),
                     q->bytes_source);
    if (r->recipe.calibrates) {
        nb_strbuf_printf(b,
                         "| calibration | %" PRId64 " windows x %" PRId64 " tokens, seed %" PRIu64
                         ", text SHA-256 `%.16s` |\n",
                         r->windows.n_windows, r->windows.seqlen, r->recipe.seed,
                         r->windows.text_sha256);
    }
}

/* One word of a command line, as a shell reads it. */
static void put_word(struct nb_strbuf *b, const char *word)
{
    static const char plain[] =
        "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-/";
    if (word[strspn(word, plain)] == '\0') {
        nb_strbuf_puts(b, word);
        return;
    }
    nb_strbuf_putc(b, '\'');
    for (; *word; word++) {
        if (*word == '\'') nb_strbuf_puts(b, "'\\'");
        nb_strbuf_putc(b, *word);
    }
    nb_strbuf_putc(b, '\'');
}

static void put_choices(const struct nb_run *r, struct nb_strbuf *b)
{
    const struct nb_quantize_opts *o = r->opts;
    const struct nb_quantize_report *q = r->report;
    if (o->order != NB_ORDER_AUTO) nb_strbuf_printf(b, " --act-order %s", nb_order_name(o->order));
    if (o->damp > 0) nb_strbuf_printf(b, " --damp %.10g", o->damp);
    if (o->clip) nb_strbuf_printf(b, " --clip %s", o->clip);
    if (o->effort) nb_strbuf_printf(b, " --effort %s", o->effort);
    if (o->precision) nb_strbuf_printf(b, " --precision %s", o->precision);
    if (r->recipe.solve.gptaq_alpha > 0) {
        nb_strbuf_printf(b, " --gptaq %.10g", r->recipe.solve.gptaq_alpha);
    }
    if (q->scheme[0] && o->group) nb_strbuf_printf(b, " --group %" PRId64, o->group);
    if (q->scheme[0] && o->sym >= 0) nb_strbuf_puts(b, o->sym ? " --sym" : " --asym");
    if (o->double_quant == 0) nb_strbuf_puts(b, " --no-double-quant");
    if (o->storage) nb_strbuf_printf(b, " --storage %s", o->storage);
    if (o->act_percentile > 0) nb_strbuf_printf(b, " --act-percentile %.10g", o->act_percentile);
    if (o->kv_scales) nb_strbuf_puts(b, " --kv-scales");
    if (o->rotate) nb_strbuf_puts(b, " --rotate");
    if (o->moe_all_tokens) nb_strbuf_puts(b, " --moe-all-tokens");
    if (o->target_bytes) nb_strbuf_printf(b, " --target-size %" PRIu64, o->target_bytes);
    if (o->target_bits > 0) nb_strbuf_printf(b, " --target-bits %.10g", o->target_bits);
    if (o->target_kld > 0) nb_strbuf_printf(b, " --target-kld %.10g", o->target_kld);
    for (size_t i = 0; i < o->n_bits_for; i++) {
        nb_strbuf_puts(b, " --bits-for ");
        put_word(b, o->bits_for[i].glob);
        nb_strbuf_printf(b, "=%d", o->bits_for[i].bits);
    }
    for (size_t i = 0; i < o->n_ignore; i++) {
        nb_strbuf_puts(b, " --ignore ");
        put_word(b, o->ignore[i]);
    }
    for (size_t i = 0; i < o->n_include; i++) {
        nb_strbuf_puts(b, " --include ");
        put_word(b, o->include[i]);
    }
}

/* The options that reach the bytes, not the command line as typed: threads and paths change nothing. */
static void put_command(const struct nb_run *r, const char *name, struct nb_strbuf *b)
{
    const struct nb_quantize_report *q = r->report;
    nb_strbuf_puts(b, "\n## Made with\n\n```\nnibble quantize ");
    put_word(b, name);
    nb_strbuf_printf(b, " -o OUT --method %s --format %s", q->method, q->format);
    if (q->scheme[0]) {
        nb_strbuf_printf(b, " --scheme %s", q->scheme);
        put_choices(r, b);
    } else if (r->recipe.solver) {
        nb_strbuf_printf(b, " --bits %d --group %" PRId64 " %s", q->bits, q->group,
                         q->sym ? "--sym" : "--asym");
        put_choices(r, b);
    }
    if (r->recipe.calibrates) {
        nb_strbuf_printf(b, " --samples %" PRId64 " --seqlen %" PRId64 " --seed %" PRIu64,
                         r->recipe.n_samples, r->recipe.seqlen, r->recipe.seed);
    }
    nb_strbuf_puts(b, "\n```\n");
}

static void put_gate(const struct nb_run *r, struct nb_strbuf *b)
{
    nb_strbuf_puts(b, "\n## Measured\n\n");
    if (!r->report->has_gate) {
        nb_strbuf_puts(b, "**Not verified**: the quality gate was switched off.\n");
        return;
    }
    const struct nb_eval_result *g = &r->report->gate;
    const struct nb_compare_result *c = &g->compare;
    if (g->verdict == NB_VERDICT_FAIL) {
        nb_strbuf_puts(b, "**FAILED the quality gate.** Do not deploy this folder.\n\n");
    }
    nb_strbuf_printf(b, "Verdict: **%s** (%s).\n\n", nb_verdict_name(g->verdict), g->verdict_text);
    nb_strbuf_puts(b,
                   "Against the float model, through the packed weights read back from disk:\n\n");
    nb_strbuf_printf(b, "| | |\n|---|---|\n| perplexity | %.4f (float %.4f) |\n", g->ppl,
                     c->ppl_base);
    nb_strbuf_printf(b, "| perplexity ratio, 95 %% interval | %.5f (%.5f to %.5f) |\n",
                     c->ppl_ratio, c->ppl_ratio_lo, c->ppl_ratio_hi);
    nb_strbuf_printf(b, "| KL divergence, mean and 99th percentile (nats) | %.5f, %.5f |\n",
                     c->kld_mean, c->kld_p99);
    nb_strbuf_printf(b, "| same most likely token | %.2f %% |\n", 100 * c->same_top);
    nb_strbuf_printf(b,
                     "| protocol | windows of %" PRId64 ", %" PRId64
                     " scored tokens, text SHA-256 `%.16s` |\n",
                     g->window, g->n_tokens, g->text_sha256);
}

/* Who can load it, from the table of loaders: facts of the formats, not tried here. */
static int put_loaders(const struct nb_run *r, struct nb_strbuf *b, struct nb_err *err)
{
    struct nb_loader_query q;
    struct nb_loader_linear *linears = NULL;
    struct nb_loader_verdict verdict[NB_MAX_LOADERS];
    if (!r->recipe.solver || !r->recipe.checkpoint) return 0;
    int rc = nb_loader_query_for(&q, &linears, &r->model->arch, r->recipe.modules, r->recipe.format,
                                 err);
    const size_t n = rc ? 0 : nb_loaders_ask(&q, verdict);
    if (n) nb_strbuf_puts(b, "\n## Loaded by\n\n| | |\n|---|---|\n");
    for (size_t i = 0; i < n; i++) {
        nb_strbuf_printf(b, "| %s | ", verdict[i].loader);
        nb_loader_describe(&verdict[i], b);
        nb_strbuf_puts(b, " |\n");
    }
    if (n) nb_strbuf_puts(b, "\nBy what these programs document; `nibble inspect` asks anew.\n");
    if (r->report->mixed.lines.len)
        nb_strbuf_printf(b,
                         "\n## Mixed precision\n\nBits and group of each linear (no group: one "
                         "scale per row):\n\n```\n%s```\n",
                         nb_strbuf_cstr(&r->report->mixed.lines));
    nb_free(linears);
    return rc;
}

int nb_run_write_card(const struct nb_run *r, struct nb_err *err)
{
    struct nb_strbuf b;
    nb_strbuf_init(&b);
    char *name = model_name(r->opts->model_dir);
    put_front(r, name, &b);
    put_recipe(r, &b);
    put_gate(r, &b);
    int rc = put_loaders(r, &b, err);
    put_command(r, name, &b);
    nb_strbuf_puts(&b, "\nEvery input and output file with its SHA-256 stands in `manifest.json`; "
                       "`nibble verify` checks them.\n");
    char *path = nb_path_join(r->partial, "README.md");
    if (!rc && b.failed) rc = nb_fail(err, NB_E_NOMEM, "no memory for README.md");
    if (!rc) rc = nb_file_write(path, nb_strbuf_cstr(&b), b.len, err);
    nb_free(name);
    nb_free(path);
    nb_strbuf_release(&b);
    return rc;
}

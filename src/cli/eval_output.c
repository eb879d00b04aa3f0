/* SPDX-License-Identifier: Apache-2.0
 *
 * eval_output.c - see eval_output.h. */
#include "cli/eval_output.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>

#include "nibble/version.h"

/* ---- JSON ---- */

static json_t *quantiles_json(const double *values, const double *levels, int n)
{
    json_t *o = json_object();
    for (int i = 0; i < n; i++) {
        char name[24];
        snprintf(name, sizeof name, "%g", levels[i]);
        json_object_set_new(o, name, nb_cli_real(values[i]));
    }
    return o;
}

static void set_estimate(json_t *o, const char *name, struct nb_estimate e)
{
    char error[48];
    snprintf(error, sizeof error, "%s_error", name);
    json_object_set_new(o, name, nb_cli_real(e.value));
    json_object_set_new(o, error, nb_cli_real(e.error));
}

static json_t *llamacpp_json(const struct nb_llamacpp_result *r)
{
    json_t *o = json_object();
    set_estimate(o, "ppl", r->ppl);
    set_estimate(o, "ppl_base", r->ppl_base);
    json_object_set_new(o, "correlation", nb_cli_real(r->correlation));
    set_estimate(o, "ln_ratio", r->ln_ratio);
    set_estimate(o, "ratio", r->ratio);
    set_estimate(o, "difference", r->difference);
    set_estimate(o, "kld", r->kld);
    set_estimate(o, "dp", r->dp);
    set_estimate(o, "dp_rms", r->dp_rms);
    set_estimate(o, "same_top", r->same_top);
    if (!r->has_quantiles) return o;
    json_object_set_new(
        o, "kld_quantiles",
        quantiles_json(r->kld_quantiles, nb_llamacpp_kld_levels, NB_LLAMACPP_KLD_LEVELS));
    json_object_set_new(
        o, "dp_quantiles",
        quantiles_json(r->dp_quantiles, nb_llamacpp_dp_levels, NB_LLAMACPP_DP_LEVELS));
    return o;
}

static json_t *compare_json(const struct nb_eval_output *e)
{
    const struct nb_compare_result *c = &e->result->compare;
    return json_pack("{s:o, s:o, s:o, s:[o, o], s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o}",
                     "model", nb_cli_string(e->against), "ppl", nb_cli_real(c->ppl_base),
                     "ppl_ratio", nb_cli_real(c->ppl_ratio), "ppl_ratio_ci95",
                     nb_cli_real(c->ppl_ratio_lo), nb_cli_real(c->ppl_ratio_hi), "kld_mean",
                     nb_cli_real(c->kld_mean), "kld_stderr", nb_cli_real(c->kld_stderr),
                     "kld_median", nb_cli_real(c->kld_median), "kld_p90", nb_cli_real(c->kld_p90),
                     "kld_p99", nb_cli_real(c->kld_p99), "kld_p999", nb_cli_real(c->kld_p999),
                     "kld_max", nb_cli_real(c->kld_max), "same_top", nb_cli_real(c->same_top),
                     "confident_flips", nb_cli_real(c->confident_flips));
}

int nb_eval_output_json(const struct nb_eval_output *e, struct nb_err *err)
{
    const struct nb_eval_result *r = e->result;
    const struct nb_eval_plan *p = e->plan;
    json_t *o =
        json_pack("{s:s, s:o, s:s, s:o, s:s, s:I, s:I, s:I, s:o, s:o}", "command", "eval", "model",
                  nb_cli_string(e->cli->args[0]), "protocol", nb_eval_protocol_name(p->protocol),
                  "text_sha256", r->text_sha256[0] ? json_string(r->text_sha256) : json_null(),
                  "tokenizer_sha256", r->tokenizer_sha256, "window", (json_int_t)r->window,
                  "tokens", (json_int_t)r->n_tokens, "windows", (json_int_t)r->n_windows, "ppl",
                  nb_cli_real(r->ppl), "ppl_stderr", nb_cli_real(r->ppl_stderr));
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
    if (o && r->has_llamacpp)
        json_object_set_new(o, "llama_perplexity", llamacpp_json(&r->llamacpp));
    if (o && e->gated) {
        json_object_set_new(o, "verdict",
                            json_pack("{s:s, s:s}", "verdict", nb_verdict_name(r->verdict),
                                      "reason", r->verdict_text));
    }
    if (o) {
        json_object_set_new(o, "bos", json_boolean(p->bos));
        json_object_set_new(o, "wikitext_rows", json_boolean(p->wikitext_rows));
        json_object_set_new(o, "version", json_string(nb_version()));
        json_object_set_new(o, "backend", nb_cli_string(e->backend));
        json_object_set_new(o, "seconds", nb_cli_real(r->seconds));
    }
    return nb_cli_emit(e->cli, o, err);
}

/* ---- lines ---- */

static void print_compare(const struct nb_eval_output *e)
{
    const struct nb_compare_result *c = &e->result->compare;
    printf("against        %s: perplexity %.4f\n", e->against, c->ppl_base);
    printf("ratio          %.5f", c->ppl_ratio);
    if (isfinite(c->ppl_ratio_lo)) {
        printf(", 95 %% interval %.5f to %.5f", c->ppl_ratio_lo, c->ppl_ratio_hi);
    }
    printf("\nKL divergence  mean %.6f", c->kld_mean);
    if (isfinite(c->kld_stderr)) printf(" +/- %.6f", c->kld_stderr);
    printf(" nats; median %.6f, 90 %% %.5f, 99 %% %.4f, 99.9 %% %.4f, max %.4f\n", c->kld_median,
           c->kld_p90, c->kld_p99, c->kld_p999, c->kld_max);
    printf("same top       %.2f %%; confident flips %.3f %%\n", 100 * c->same_top,
           100 * c->confident_flips);
}

/* values times scale, with digits as the tool has them. */
static void print_quantiles(const double *values, const double *levels, int n, double scale,
                            int digits)
{
    printf("              ");
    for (int i = 0; i < n; i++) {
        if (levels[i] == 1) printf(" max");
        else if (levels[i] == 0.5) printf(", median");
        else if (levels[i] == 0) printf(", min");
        else printf(", %g%%", 100 * levels[i]);
        printf(" %.*f", digits, scale * values[i]);
    }
    printf("\n");
}

/* The same figures, and digits, as llama-perplexity --kl-divergence prints. */
static void print_llamacpp(const struct nb_llamacpp_result *r)
{
    printf("as llama-perplexity prints it, tokens as units\n");
    printf("  PPL          %.6f +/- %.6f, base %.6f +/- %.6f, correlation %.2f %%\n", r->ppl.value,
           r->ppl.error, r->ppl_base.value, r->ppl_base.error, 100 * r->correlation);
    printf("  ratio        ln %.6f +/- %.6f, ratio %.6f +/- %.6f, difference %.6f +/- %.6f\n",
           r->ln_ratio.value, r->ln_ratio.error, r->ratio.value, r->ratio.error,
           r->difference.value, r->difference.error);
    printf("  KLD          mean %.6f +/- %.6f\n", r->kld.value, r->kld.error);
    if (r->has_quantiles)
        print_quantiles(r->kld_quantiles, nb_llamacpp_kld_levels, NB_LLAMACPP_KLD_LEVELS, 1, 6);
    printf("  dp, %%        mean %.3f +/- %.3f, RMS %.3f +/- %.3f\n", 100 * r->dp.value,
           100 * r->dp.error, 100 * r->dp_rms.value, 100 * r->dp_rms.error);
    if (r->has_quantiles)
        print_quantiles(r->dp_quantiles, nb_llamacpp_dp_levels, NB_LLAMACPP_DP_LEVELS, 100, 3);
    printf("  same top p   %.3f +/- %.3f %%\n", 100 * r->same_top.value, 100 * r->same_top.error);
}

void nb_eval_output_print(const struct nb_eval_output *e)
{
    const struct nb_eval_result *r = e->result;
    const struct nb_eval_plan *p = e->plan;
    printf("perplexity     %.4f", r->ppl);
    if (isfinite(r->ppl_stderr)) printf(" +/- %.4f", r->ppl_stderr);
    printf("\nprotocol       %s: %" PRId64 " windows of %" PRId64 ", %" PRId64
           " tokens scored, %s\n",
           nb_eval_protocol_name(p->protocol), r->n_windows, r->window, r->n_tokens,
           p->bos ? "with BOS" : "no BOS");
    if (p->n_words) {
        struct nb_eval_per_text t = nb_eval_per_text_of(p, r->ppl, r->n_tokens);
        printf("per text       word perplexity %.4f, byte perplexity %.6f, %.6f bits per byte\n",
               t.word_perplexity, t.byte_perplexity, t.bits_per_byte);
    }
    if (r->has_compare) print_compare(e);
    if (r->has_llamacpp) print_llamacpp(&r->llamacpp);
    if (e->gated) printf("verdict        %s: %s\n", nb_verdict_name(r->verdict), r->verdict_text);
    printf("time           %.1f s, %.0f tokens/s\n", r->seconds, (double)r->n_tokens / r->seconds);
}

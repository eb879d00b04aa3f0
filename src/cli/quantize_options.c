/* SPDX-License-Identifier: Apache-2.0
 *
 * quantize_options.c - see quantize_options.h. */
#include "cli/quantize_options.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/mem.h"

enum { MAX_CONFIG_BYTES = 16 << 20 };

/* Values that nobody types: the option was not given. */
const struct nb_quantize_words nb_quantize_words_defaults = {.gptaq = -1};

static char *keep(struct nb_quantize_plan *p, const char *s, size_t n)
{
    char *copy = nb_xalloc(n + 1);
    memcpy(copy, s, n);
    p->strings[p->n_strings++] = copy;
    return copy;
}

/* FILE or FILE:0.7; a file that is really named so keeps its colon. */
static int add_source(struct nb_quantize_plan *p, const char *word, struct nb_err *err)
{
    struct nb_calib_source *s = &p->sources[p->opts.calib.n_sources++];
    const char *colon = strrchr(word, ':');
    *s = (struct nb_calib_source){word, 1};
    if (!colon || nb_path_exists(word)) return 0;
    char *end;
    double weight = strtod(colon + 1, &end);
    if (end == colon + 1 || *end)
        return 0; /* no weight: the path is wrong, and told so when it is read */
    if (!(weight > 0 && weight <= 1e6)) {
        return nb_fail(err, NB_E_USAGE, "option '--calib': the weight of '%s' must be above 0",
                       word);
    }
    *s = (struct nb_calib_source){keep(p, word, (size_t)(colon - word)), weight};
    return 0;
}

static int add_bits_for(struct nb_quantize_plan *p, const char *word, struct nb_err *err)
{
    const char *equals = strrchr(word, '=');
    char *end = NULL;
    long bits = equals ? strtol(equals + 1, &end, 10) : 0;
    if (!equals || equals == word || end == equals + 1 || *end || bits < 1 || bits > 16) {
        return nb_fail(err, NB_E_USAGE, "option '--bits-for': expected GLOB=BITS, found '%s'",
                       word);
    }
    struct nb_bits_for *b = &p->bits_for[p->opts.n_bits_for++];
    *b = (struct nb_bits_for){keep(p, word, (size_t)(equals - word)), (int)bits};
    return 0;
}

/* W4A16: 4-bit weights, activations as they are. */
static int apply_scheme(struct nb_quantize_opts *q, const char *scheme, struct nb_err *err)
{
    int bits = 0, activations = 0, used = 0;
    if (sscanf(scheme, "W%2dA%2d%n", &bits, &activations, &used) == 2 && !scheme[used] &&
        activations == 16 && (bits == 2 || bits == 3 || bits == 4 || bits == 8)) {
        q->bits = bits;
        return 0;
    }
    return nb_fail(err, NB_E_SPEC,
                   "scheme '%s' is not available; possible: W2A16, W3A16, W4A16, W8A16", scheme);
}

/* ---- another tool's config ---- */

static int read_config(struct nb_quantize_plan *p, const char *path, struct nb_err *err)
{
    p->config = nb_json_load(path, MAX_CONFIG_BYTES, err);
    if (!p->config) return err->status;
    json_t *inner = json_object_get(p->config, "quantization_config");
    if (inner) { /* a whole config.json */
        json_incref(inner);
        json_decref(p->config);
        p->config = inner;
    }
    if (json_is_object(p->config)) return 0;
    return nb_fail(err, NB_E_FORMAT, "%s: expected an object, found %s", path,
                   nb_json_type_name(p->config));
}

static int int_of(const json_t *o, const char *key, const char *other, int64_t *out,
                  const char *what, struct nb_err *err)
{
    return nb_json_get_int(o, json_object_get(o, key) ? key : other, false, out, what, err);
}

/* AutoGPTQ's and AutoAWQ's words; what they share has two names. */
static int apply_config(struct nb_quantize_plan *p, const char *path, struct nb_err *err)
{
    struct nb_quantize_opts *q = &p->opts;
    const json_t *c = p->config;
    int64_t bits = q->bits, group = q->group;
    bool sym = q->sym == 1, desc_act = false, static_groups = false, zero_point = true;
    const char *method = NULL, *format = NULL;
    int rc = int_of(c, "bits", "w_bit", &bits, path, err);
    if (!rc) rc = int_of(c, "group_size", "q_group_size", &group, path, err);
    if (!rc) rc = nb_json_get_bool(c, "sym", false, &sym, path, err);
    if (!rc) rc = nb_json_get_bool(c, "zero_point", false, &zero_point, path, err);
    if (!rc) rc = nb_json_get_bool(c, "desc_act", false, &desc_act, path, err);
    if (!rc) rc = nb_json_get_bool(c, "static_groups", false, &static_groups, path, err);
    if (!rc) rc = nb_json_get_real(c, "damp_percent", false, &q->damp, path, err);
    if (!rc) rc = nb_json_get_string(c, "quant_method", false, &method, path, err);
    if (!rc) rc = nb_json_get_string(c, "checkpoint_format", false, &format, path, err);
    if (rc) return rc;
    bool awq = method ? strcmp(method, "awq") == 0 : json_object_get(c, "w_bit") != NULL;
    if (method && !awq && strcmp(method, "gptq") != 0) {
        return nb_fail(err, NB_E_SPEC,
                       "%s: quant_method '%s' is not available; possible: gptq, awq", path, method);
    }
    if (bits < 1 || bits > 16 || group < -1) {
        return nb_fail(err, NB_E_FORMAT,
                       "%s: %" PRId64 " bits in groups of %" PRId64 " are not possible", path, bits,
                       group);
    }
    q->bits = (int)bits;
    q->group = group;
    if (awq) q->sym = !zero_point;
    else if (json_object_get(c, "sym")) q->sym = sym;
    q->method = awq ? "awq" : "gptq";
    q->format = awq ? "awq" : format && strcmp(format, "gptq_v2") == 0 ? "gptq_v2" : "gptq";
    if (!awq)
        q->order = !desc_act ? NB_ORDER_NONE : static_groups ? NB_ORDER_STATIC : NB_ORDER_DYNAMIC;
    return 0;
}

/* ---- all together ---- */

static void apply_words(struct nb_quantize_opts *q, const struct nb_quantize_words *w)
{
    static const enum nb_act_order orders[] = {NB_ORDER_AUTO,  NB_ORDER_NONE,    NB_ORDER_STATIC,
                                               NB_ORDER_GROUP, NB_ORDER_PIVOTED, NB_ORDER_DYNAMIC};
    q->out_dir = w->out;
    if (w->method) q->method = w->method;
    if (w->effort) q->effort = w->effort;
    if (w->format) q->format = w->format;
    if (w->clip) q->clip = w->clip;
    if (w->precision) q->precision = w->precision;
    if (w->bits) q->bits = (int)w->bits;
    if (w->group) q->group = w->group;
    if (w->sym || w->asym) q->sym = w->sym;
    if (w->order) q->order = orders[w->order];
    if (w->damp > 0) q->damp = w->damp;
    q->gptaq_alpha = w->gptaq;
    q->calib.n_samples = w->samples;
    q->calib.seqlen = w->seqlen;
    q->calib.seed = (uint64_t)w->seed;
    q->ignore = w->ignore.items;
    q->n_ignore = w->ignore.n;
    q->include = w->include.items;
    q->n_include = w->include.n;
    q->memory_bytes = w->memory;
    q->max_shard_bytes = w->shard_size;
    q->restart = w->restart;
    q->overwrite = w->overwrite;
    q->dry_run = w->dry_run;
    q->allow_nonfinite = w->allow_nonfinite;
}

static int check_words(const struct nb_quantize_words *w, struct nb_err *err)
{
    if (!w->out) {
        nb_fail(err, NB_E_USAGE, "the output folder is missing");
        return nb_err_hint(err, "give it with -o DIR");
    }
    if (w->sym && w->asym)
        return nb_fail(err, NB_E_USAGE, "options '--sym' and '--asym' exclude each other");
    if (w->gate && w->no_gate)
        return nb_fail(err, NB_E_USAGE, "options '--gate' and '--no-gate' exclude each other");
    return 0;
}

int nb_quantize_plan_make(struct nb_quantize_plan *p, const struct nb_quantize_words *w,
                          struct nb_err *err)
{
    memset(p, 0, sizeof *p);
    struct nb_quantize_opts *q = &p->opts;
    nb_quantize_defaults(q);
    int rc = check_words(w, err);
    if (!rc && w->scheme) rc = apply_scheme(q, w->scheme, err);
    if (!rc && w->config) rc = read_config(p, w->config, err);
    if (!rc && w->config) rc = apply_config(p, w->config, err);
    if (rc) return rc;
    apply_words(q, w);
    q->calib.sources = p->sources;
    q->bits_for = p->bits_for;
    for (size_t i = 0; i < w->calib.n && !rc; i++) rc = add_source(p, w->calib.items[i], err);
    for (size_t i = 0; i < w->bits_for.n && !rc; i++)
        rc = add_bits_for(p, w->bits_for.items[i], err);
    return rc;
}

void nb_quantize_plan_release(struct nb_quantize_plan *p)
{
    for (size_t i = 0; i < p->n_strings; i++) nb_free(p->strings[i]);
    json_decref(p->config);
    memset(p, 0, sizeof *p);
}

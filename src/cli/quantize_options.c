/* SPDX-License-Identifier: Apache-2.0
 *
 * quantize_options.c - see quantize_options.h. */
#include "cli/quantize_options.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/mem.h"
#include "cli/quantize_config.h"

/* Values that nobody types: the option was not given. */
const struct nb_quantize_words nb_quantize_words_defaults = {.gptaq = -1};

const char *nb_quantize_list_add(struct nb_quantize_list *list, const char *s, size_t n)
{
    if (list->n == list->room) {
        const size_t room = list->room ? 2 * list->room : 16;
        char **items = nb_xalloc(room * sizeof *items);
        if (list->n) memcpy(items, list->items, list->n * sizeof *items);
        nb_free(list->items);
        list->items = items;
        list->room = room;
    }
    char *copy = nb_xalloc(n + 1);
    memcpy(copy, s, n);
    copy[n] = '\0';
    return list->items[list->n++] = copy;
}

static void list_release(struct nb_quantize_list *list)
{
    for (size_t i = 0; i < list->n; i++) nb_free(list->items[i]);
    nb_free(list->items);
}

int nb_quantize_plan_bits_for(struct nb_quantize_plan *p, size_t first, int bits,
                              struct nb_err *err)
{
    for (size_t i = first; i < p->bits_globs.n; i++) {
        if (p->opts.n_bits_for == NB_BITS_FOR_MAX)
            return nb_fail(err, NB_E_SPEC, "more than %d patterns with bits of their own",
                           NB_BITS_FOR_MAX);
        p->bits_for[p->opts.n_bits_for++] = (struct nb_bits_for){p->bits_globs.items[i], bits};
    }
    return 0;
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
    *s = (struct nb_calib_source){nb_quantize_list_add(&p->strings, word, (size_t)(colon - word)),
                                  weight};
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
    const size_t first = p->bits_globs.n;
    nb_quantize_list_add(&p->bits_globs, word, (size_t)(equals - word));
    return nb_quantize_plan_bits_for(p, first, (int)bits, err);
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
    if (w->scheme) q->scheme = w->scheme;
    if (w->storage) q->storage = w->storage;
    if (w->single_quant) q->double_quant = 0;
    if (w->kv_scales) q->kv_scales = true;
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
    q->memory_bytes = w->memory;
    q->max_shard_bytes = w->shard_size;
    if (w->act_percentile > 0) q->act_percentile = w->act_percentile;
    q->rotate = w->rotate;
    q->moe_all_tokens = w->moe_all_tokens;
    q->target_bytes = w->target_size;
    q->target_bits = w->target_bits;
    q->target_kld = w->target_kld;
    q->restart = w->restart;
    q->overwrite = w->overwrite;
    q->dry_run = w->dry_run;
    q->allow_nonfinite = w->allow_nonfinite;
}

static void add_globs(struct nb_quantize_plan *p, const struct nb_quantize_words *w)
{
    for (size_t i = 0; i < w->ignore.n; i++)
        nb_quantize_list_add(&p->ignore, w->ignore.items[i], strlen(w->ignore.items[i]));
    for (size_t i = 0; i < w->include.n; i++)
        nb_quantize_list_add(&p->include, w->include.items[i], strlen(w->include.items[i]));
    p->opts.ignore = (const char *const *)p->ignore.items;
    p->opts.n_ignore = p->ignore.n;
    p->opts.include = (const char *const *)p->include.items;
    p->opts.n_include = p->include.n;
}

static int check_words(const struct nb_quantize_words *w, struct nb_err *err)
{
    if (!w->out) {
        nb_fail(err, NB_E_USAGE, "the output folder is missing");
        return nb_err_hint(err, "give it with -o DIR");
    }
    if (w->sym && w->asym)
        return nb_fail(err, NB_E_USAGE, "options '--sym' and '--asym' exclude each other");
    if ((w->target_size > 0) + (w->target_bits > 0) + (w->target_kld > 0) > 1)
        return nb_fail(err, NB_E_USAGE,
                       "options '--target-size', '--target-bits' and '--target-kld' exclude each "
                       "other");
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
    q->bits_for = p->bits_for;
    for (size_t i = 0; i < w->bits_for.n && !rc; i++)
        rc = add_bits_for(p, w->bits_for.items[i], err); /* the first that matches counts */
    if (!rc && w->config) rc = nb_quantize_config_apply(p, w->config, err);
    if (rc) return rc;
    apply_words(q, w);
    add_globs(p, w);
    q->calib.sources = p->sources;
    for (size_t i = 0; i < w->calib.n && !rc; i++) rc = add_source(p, w->calib.items[i], err);
    return rc;
}

void nb_quantize_plan_release(struct nb_quantize_plan *p)
{
    list_release(&p->strings);
    list_release(&p->ignore);
    list_release(&p->include);
    list_release(&p->bits_globs);
    json_decref(p->config);
    memset(p, 0, sizeof *p);
}

/* SPDX-License-Identifier: Apache-2.0
 *
 * calibration.c - several weighted sources become one seeded set of token windows.
 *
 * Each source's tokens are cut into disjoint windows behind a random start; shares follow the
 * weights, a source that has too few windows gives the rest to the others. The chosen windows are
 * shuffled, so that any prefix of them is a fair sample too. */
#include <inttypes.h>
#include <math.h>
#include <string.h>

#include "base/embedded.h"
#include "base/mem.h"
#include "base/rng.h"
#include "base/sha256.h"
#include "data/reader.h"
#include "data/windows.h"

enum { SOURCES_MAX = 1024 };

struct source {
    const char *name;
    double weight;
    struct nb_ids ids;
    int64_t available, taken; /* windows */
};

struct mix {
    struct source *sources;
    size_t n;
    bool bundled;
};

/* ---- reading ---- */

/* The bundled mix: the novel is one half, the short pieces of every kind together the other. */
static int read_bundled(struct mix *mix, const struct nb_tokenizer *tok, struct nb_sha256 *hash,
                        struct nb_err *err)
{
    static const char novel[] = "calibration/treasure-island.txt", folder[] = "calibration/";
    mix->sources[0] = (struct source){.name = "the bundled novel", .weight = 0.5};
    mix->sources[1] = (struct source){.name = "the bundled pieces", .weight = 0.5};
    int rc = 0;
    for (const struct nb_embedded *f = nb_embedded_files; f->name && !rc; f++) {
        if (strncmp(f->name, folder, sizeof folder - 1) != 0) continue;
        struct source *s = &mix->sources[strcmp(f->name, novel) != 0];
        struct nb_reading reading = {tok, hash, &s->ids};
        rc = nb_read_text(&reading, f->name, (const char *)f->data, f->bytes, err);
    }
    return rc;
}

static int read_sources(struct mix *mix, const struct nb_calib_opts *opts,
                        const struct nb_tokenizer *tok, struct nb_sha256 *hash,
                        const struct nb_progress *progress, struct nb_err *err)
{
    for (size_t i = 0; i < mix->n; i++) {
        const struct nb_calib_source *from = &opts->sources[i];
        mix->sources[i] = (struct source){.name = from->path, .weight = from->weight};
        if (!(from->weight > 0) || !isfinite(from->weight)) {
            return nb_fail(err, NB_E_USAGE,
                           "%s: weight %g of a calibration text: expected more than 0", from->path,
                           from->weight);
        }
    }
    for (size_t i = 0; i < mix->n; i++) {
        struct source *s = &mix->sources[i];
        if (nb_progress_stop(progress)) return nb_fail(err, NB_E_INTERRUPTED, "interrupted");
        nb_progress_report(
            progress,
            &(struct nb_progress_event){
                .phase = "read", .item = s->name, .done = i, .total = mix->n, .loss = -1});
        struct nb_reading reading = {tok, hash, &s->ids};
        int rc = nb_read_source(&reading, s->name, err);
        if (rc) return rc;
        if (s->ids.n == 0)
            return nb_fail(err, NB_E_FORMAT, "%s: the calibration text is empty", s->name);
    }
    return 0;
}

/* ---- shares ---- */

/* How many windows each source gives: by weight, at most what it has. A round hands out the windows
 * wanted among sources that still have some; each round fills at least one of them or ends. */
static int64_t share_out(struct mix *mix, int64_t wanted)
{
    int64_t total = 0;
    for (size_t i = 0; i < mix->n; i++) total += mix->sources[i].available;
    if (wanted > total) wanted = total;
    int64_t given = 0;
    while (given < wanted) {
        double weights = 0;
        for (size_t i = 0; i < mix->n; i++) {
            const struct source *s = &mix->sources[i];
            if (s->taken < s->available) weights += s->weight;
        }
        int64_t left = wanted - given, round = 0;
        for (size_t i = 0; i < mix->n; i++) {
            struct source *s = &mix->sources[i];
            int64_t more = (int64_t)((double)left * (s->weight / weights));
            if (more > s->available - s->taken) more = s->available - s->taken;
            s->taken += more;
            round += more;
        }
        /* Fractions of a window remain: one each, heaviest source first. */
        while (round == 0 && given < wanted) {
            struct source *best = NULL;
            for (size_t i = 0; i < mix->n; i++) {
                struct source *s = &mix->sources[i];
                if (s->taken == s->available) continue;
                if (!best || (double)s->taken / s->weight < (double)best->taken / best->weight)
                    best = s;
            }
            best->taken++;
            given++;
        }
        given += round;
    }
    return given;
}

/* ---- choosing ---- */

/* Copies s->taken of its windows to out, chosen without repetition. */
static int choose(const struct source *s, int64_t seqlen, struct nb_rng *rng, int32_t *out,
                  struct nb_err *err)
{
    if (s->taken == 0) return 0;
    int64_t *order = nb_alloc((size_t)s->available, sizeof *order);
    if (!order) return nb_fail(err, NB_E_NOMEM, "no memory to choose calibration windows");
    uint64_t slack = (uint64_t)((int64_t)s->ids.n - s->available * seqlen);
    int64_t start = (int64_t)nb_rng_below(rng, slack + 1);
    for (int64_t i = 0; i < s->available; i++) order[i] = i;
    for (int64_t i = 0; i < s->taken; i++) {
        int64_t j = i + (int64_t)nb_rng_below(rng, (uint64_t)(s->available - i));
        int64_t w = order[j];
        order[j] = order[i];
        memcpy(out + i * seqlen, s->ids.data + start + w * seqlen, (size_t)seqlen * sizeof *out);
    }
    nb_free(order);
    return 0;
}

static void swap_windows(int32_t *a, int32_t *b, int64_t n)
{
    for (int64_t i = 0; i < n; i++) {
        int32_t t = a[i];
        a[i] = b[i];
        b[i] = t;
    }
}

static int fill(struct nb_windows *out, const struct mix *mix, uint64_t seed, struct nb_err *err)
{
    struct nb_rng rng;
    nb_rng_init(&rng, seed);
    int64_t at = 0, len = out->seqlen;
    for (size_t i = 0; i < mix->n; i++) {
        int rc = choose(&mix->sources[i], len, &rng, out->ids + at * len, err);
        if (rc) return rc;
        at += mix->sources[i].taken;
    }
    for (int64_t i = out->n_windows - 1; i > 0; i--) {
        int64_t j = (int64_t)nb_rng_below(&rng, (uint64_t)i + 1);
        if (j != i) swap_windows(out->ids + i * len, out->ids + j * len, len);
    }
    nb_windows_seal(out);
    return 0;
}

static int build(struct nb_windows *out, struct mix *mix, const struct nb_calib_opts *opts,
                 const struct nb_progress *progress, struct nb_err *err)
{
    size_t most = 0;
    for (size_t i = 0; i < mix->n; i++) {
        struct source *s = &mix->sources[i];
        s->available = (int64_t)s->ids.n / opts->seqlen;
        if (s->ids.n > most) most = s->ids.n;
        if (s->available == 0 && mix->n > 1 && !mix->bundled) {
            nb_progress_warn(progress,
                             "%s: has %zu tokens, too few for one window of %" PRId64
                             "; it is left out",
                             s->name, s->ids.n, opts->seqlen);
        }
    }
    int64_t n = share_out(mix, opts->n_samples);
    if (n == 0) {
        return nb_fail(
            err, NB_E_FORMAT, "%s: calibration text has %zu tokens, one window needs %" PRId64,
            mix->n == 1 ? mix->sources[0].name : "every source is too short: the longest", most,
            opts->seqlen);
    }
    if (n < opts->n_samples && !mix->bundled) {
        nb_progress_warn(progress,
                         "the calibration text has %" PRId64 " windows of %" PRId64
                         " tokens, fewer than the %" PRId64 " asked for; all are used",
                         n, opts->seqlen, opts->n_samples);
    }
    int rc = nb_windows_init(out, n, opts->seqlen, err);
    return rc ? rc : fill(out, mix, opts->seed, err);
}

int nb_calib_load(struct nb_windows *out, const struct nb_calib_opts *opts,
                  const struct nb_tokenizer *tok, const struct nb_progress *progress,
                  struct nb_err *err)
{
    *out = (struct nb_windows){0};
    if (opts->n_samples < 1 || opts->seqlen < 1 || opts->n_sources > SOURCES_MAX) {
        return nb_fail(err, NB_E_USAGE,
                       "calibration with %" PRId64 " windows of %" PRId64 " tokens from"
                       " %zu texts: expected at least 1, 1 and at most %d",
                       opts->n_samples, opts->seqlen, opts->n_sources, SOURCES_MAX);
    }
    struct mix mix = {.n = opts->n_sources ? opts->n_sources : 2, .bundled = opts->n_sources == 0};
    mix.sources = nb_xalloc(mix.n * sizeof *mix.sources);
    struct nb_sha256 hash;
    char text_sha256[NB_SHA256_HEX];
    nb_sha256_init(&hash);
    int rc = mix.bundled ? read_bundled(&mix, tok, &hash, err)
                         : read_sources(&mix, opts, tok, &hash, progress, err);
    nb_sha256_finish(&hash, text_sha256);
    if (!rc) rc = build(out, &mix, opts, progress, err);
    if (!rc) memcpy(out->text_sha256, text_sha256, sizeof text_sha256);
    else nb_windows_release(out);
    for (size_t i = 0; i < mix.n; i++) nb_ids_release(&mix.sources[i].ids);
    nb_free(mix.sources);
    return rc;
}

/* SPDX-License-Identifier: Apache-2.0
 *
 * windows.c - see windows.h; and evaluation text, which is windows without a choice. */
#include "data/windows.h"

#include <inttypes.h>
#include <string.h>

#include "base/mem.h"
#include "base/sha256.h"
#include "data/reader.h"

int nb_windows_init(struct nb_windows *w, int64_t n, int64_t seqlen, struct nb_err *err)
{
    *w = (struct nb_windows){.n_windows = n, .seqlen = seqlen};
    size_t count;
    w->ids = nb_mul((size_t)n, (size_t)seqlen, &count) ? nb_alloc(count, sizeof *w->ids) : NULL;
    if (w->ids) return 0;
    return nb_fail(err, NB_E_NOMEM, "no memory for %" PRId64 " windows of %" PRId64 " tokens", n,
                   seqlen);
}

void nb_windows_release(struct nb_windows *w)
{
    nb_free(w->ids);
    *w = (struct nb_windows){0};
}

void nb_windows_seal(struct nb_windows *w)
{
    struct nb_sha256 h;
    nb_sha256_init(&h);
    int64_t n = w->n_windows * w->seqlen;
    for (int64_t i = 0; i < n; i++) {
        uint32_t v = (uint32_t)w->ids[i];
        unsigned char le[4] = {(unsigned char)v, (unsigned char)(v >> 8), (unsigned char)(v >> 16),
                               (unsigned char)(v >> 24)};
        nb_sha256_add(&h, le, sizeof le);
    }
    nb_sha256_finish(&h, w->sha256);
}

static int cut_windows(struct nb_windows *out, const struct nb_ids *ids, const char *name,
                       int64_t window, int64_t limit, struct nb_err *err)
{
    int64_t n = (int64_t)ids->n / window;
    if (ids->n == 0) return nb_fail(err, NB_E_FORMAT, "%s: the evaluation text is empty", name);
    if (n == 0) {
        return nb_fail(err, NB_E_FORMAT,
                       "%s: the evaluation text has %zu tokens, one window needs"
                       " %" PRId64,
                       name, ids->n, window);
    }
    if (limit > 0 && n > limit) n = limit;
    int rc = nb_windows_init(out, n, window, err);
    if (rc) return rc;
    memcpy(out->ids, ids->data, (size_t)(n * window) * sizeof *out->ids);
    nb_windows_seal(out);
    return 0;
}

int nb_eval_text_load(struct nb_windows *out, const char *path, int64_t window, int64_t limit,
                      const struct nb_tokenizer *tok, struct nb_err *err)
{
    *out = (struct nb_windows){0};
    if (window < 2 || limit < 0) {
        return nb_fail(err, NB_E_USAGE,
                       "evaluation window of %" PRId64 " tokens, limit %" PRId64
                       ": expected at least 2 and 0",
                       window, limit);
    }
    struct nb_ids ids = {0};
    struct nb_sha256 hash;
    char text_sha256[NB_SHA256_HEX];
    nb_sha256_init(&hash);
    struct nb_reading reading = {tok, &hash, &ids};
    const char *name = path ? path : "evaluation/the-time-machine.txt";
    int rc;
    if (path) {
        rc = nb_read_source(&reading, path, err);
    } else {
        size_t bytes;
        const char *text = nb_bundled_text(name, &bytes);
        rc = text ? nb_read_text(&reading, name, text, bytes, err)
                  : nb_fail(err, NB_E_NOTFOUND, "%s: this build bundles no such text", name);
    }
    nb_sha256_finish(&hash, text_sha256);
    if (!rc) rc = cut_windows(out, &ids, name, window, limit, err);
    if (!rc) memcpy(out->text_sha256, text_sha256, sizeof text_sha256);
    nb_ids_release(&ids);
    return rc;
}

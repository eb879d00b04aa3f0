/* SPDX-License-Identifier: Apache-2.0
 *
 * data.h - calibration and evaluation text: readers, seeded sampling into token windows, overlap
 * check. */
#ifndef NB_DATA_DATA_H
#define NB_DATA_DATA_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "base/progress.h"
#include "text/tokenizer.h"

struct nb_calib_source {
    const char *path; /* .txt, .jsonl (text | messages | prompt + completion), or folder of these */
    double weight;    /* share of windows, > 0 */
};

struct nb_calib_opts {
    const struct nb_calib_source *sources; /* n_sources 0: the bundled mix */
    size_t n_sources;
    int64_t n_samples, seqlen;
    uint64_t seed;
};

/* n_windows windows of seqlen tokens each, ids[w * seqlen + t]. */
struct nb_windows {
    int32_t *ids;
    int64_t n_windows, seqlen;
    char sha256[65];      /* of the ids, little-endian: what the journal compares */
    char text_sha256[65]; /* of the source bytes in order */
};

/* Reads, tokenizes, samples: the tokens of a source are cut into disjoint windows behind a random
 * start, and a random choice of them, as many as its weight asks, is taken. Same seed, same
 * windows. Errors: empty text; too few tokens for one window (found and needed); unreadable file.
 * Fewer distinct windows than n_samples: all of them, with a warning. */
int nb_calib_load(struct nb_windows *out, const struct nb_calib_opts *opts,
                  const struct nb_tokenizer *tok, const struct nb_progress *progress,
                  struct nb_err *err);
void nb_windows_release(struct nb_windows *w);

/* Bytes of a text file (*data: nb_free; a NUL follows). A name without '/' that is no file here may
 * be a bundled text: "dubliners.txt" is then "evaluation/dubliners.txt". */
int nb_text_read(const char *path, char **data, size_t *bytes, struct nb_err *err);

/* The bundled calibration texts behind each other, in the order of their names. */
int nb_text_read_calibration(char **data, size_t *bytes, struct nb_err *err);

/* Evaluation text, protocol `windows`: tokenized once without special tokens, cut into disjoint
 * windows, tail dropped. path NULL: the bundled evaluation text; .jsonl and folders are read as for
 * calibration. limit 0: all windows. Errors as nb_calib_load. */
int nb_eval_text_load(struct nb_windows *out, const char *path, int64_t window, int64_t limit,
                      const struct nb_tokenizer *tok, struct nb_err *err);

/* Share of b's 13-grams of tokens that also stand in a (0 .. 1). NB_E_NOMEM only. */
int nb_ngram_overlap(const struct nb_windows *a, const struct nb_windows *b, double *share,
                     struct nb_err *err);

/* Bytes of a bundled text ("calibration/..." or "evaluation/..."), borrowed; NULL: no such text. */
const char *nb_bundled_text(const char *name, size_t *bytes);

#endif

/* SPDX-License-Identifier: Apache-2.0
 *
 * reader.h - calibration and evaluation files as a sequence of tokenized documents. */
#ifndef NB_DATA_READER_H
#define NB_DATA_READER_H

#include "base/err.h"
#include "base/sha256.h"
#include "text/tokenizer.h"

struct nb_reading {
    const struct nb_tokenizer *tok;
    struct nb_sha256 *hash; /* takes the source bytes */
    struct nb_ids *ids;     /* takes the ids */
};

/* Appends the ids of all documents of a source: a .txt file is one document, each row of a .jsonl
 * is one (rows are joined by a blank line), a folder holds such files, taken in byte order of their
 * names. Special tokens written in the text count as special; the template adds none. */
int nb_read_source(const struct nb_reading *r, const char *path, struct nb_err *err);

/* The same for bytes in memory that are one document. */
int nb_read_text(const struct nb_reading *r, const char *name, const char *text, size_t bytes,
                 struct nb_err *err);

#endif

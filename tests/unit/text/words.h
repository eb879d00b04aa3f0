/* SPDX-License-Identifier: Apache-2.0
 *
 * words.h - small vocabularies for tests, and ids as text. */
#ifndef TESTS_UNIT_TEXT_WORDS_H
#define TESTS_UNIT_TEXT_WORDS_H

#include <stddef.h>

#include "text/tokenizer.h"
#include "text/vocab.h"

enum { WORDS_MAX = 640 };

struct words { /* a vocabulary and the arrays it points to; release with nb_vocab_release(&w->v) */
    struct nb_vocab v;
    struct nb_span tokens[WORDS_MAX], merges[WORDS_MAX];
    float scores[WORDS_MAX];
    int32_t types[WORDS_MAX];
};

struct nb_span words_span(const char *text);
/* model: a literal. No tokens yet. */
void words_init(struct words *w, const char *model);
int32_t words_add(struct words *w, const char *text, int32_t type, float score);
void words_merge(struct words *w, const char *merge);

/* The 256 characters of the byte-level alphabet as tokens; or "<0x00>" to "<0xFF>". */
void words_add_alphabet(struct words *w);
void words_add_bytes(struct words *w);

struct nb_tokenizer *words_open(const struct words *w);
/* Fails unless opening is refused so; text: how the message begins. */
void words_refused(const struct words *w, int status, const char *text);

/* Fails unless text becomes these ids ("3 5 7"), or ids this text. */
void words_encode(const struct nb_tokenizer *t, const char *text, unsigned flags, const char *want);
void words_decode(const struct nb_tokenizer *t, const int32_t *ids, size_t n, bool skip_special,
                  const char *want);

#endif

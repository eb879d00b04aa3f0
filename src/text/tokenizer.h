/* SPDX-License-Identifier: Apache-2.0
 *
 * tokenizer.h - tokenizer.json as it stands: text to ids and back.
 *
 * Ids equal those of the reference `tokenizers` package. Unsupported parts are refused by name when
 * the file is opened, never skipped. Encoding is O(n log n). vocab.h makes the same struct from the
 * vocabulary of a GGUF file; ids then equal llama.cpp's. */
#ifndef NB_TEXT_TOKENIZER_H
#define NB_TEXT_TOKENIZER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "base/json.h"

struct nb_tokenizer;

struct nb_ids { /* growing list; release with nb_ids_release */
    int32_t *data;
    size_t n, capacity;
};
void nb_ids_release(struct nb_ids *ids);

/* dir: a model folder with tokenizer.json. */
int nb_tokenizer_open(struct nb_tokenizer **out, const char *dir, struct nb_err *err);
/* From bytes; what the fuzzer calls. */
int nb_tokenizer_parse(struct nb_tokenizer **out, const char *json, size_t bytes, const char *what,
                       struct nb_err *err);
void nb_tokenizer_close(struct nb_tokenizer *t);

enum {
    NB_ENCODE_PLAIN = 1,   /* special tokens written in the text are ordinary text */
    NB_ENCODE_TEMPLATE = 2 /* add the post-processor's BOS/EOS */
};
/* Appends ids of the UTF-8 text. Invalid UTF-8: NB_E_FORMAT with the byte offset. */
int nb_tokenizer_encode(const struct nb_tokenizer *t, const char *text, size_t bytes,
                        unsigned flags, struct nb_ids *ids, struct nb_err *err);

/* Largest id + 1 over vocabulary and added tokens. */
int64_t nb_tokenizer_size(const struct nb_tokenizer *t);
int32_t nb_tokenizer_id(const struct nb_tokenizer *t, const char *token); /* -1: unknown */
/* Of tokenizer.json, or of a vocabulary's content. */
const char *nb_tokenizer_sha256(const struct nb_tokenizer *t);

/* Streaming detokenizer: push ids, take text; never emits half a UTF-8 character. */
struct nb_detok;
struct nb_detok *nb_detok_new(const struct nb_tokenizer *t, bool skip_special);
void nb_detok_free(struct nb_detok *d);
struct nb_strbuf;
/* Appends the text that became certain. NB_E_FORMAT for an id outside the vocabulary. */
int nb_detok_push(struct nb_detok *d, int32_t id, struct nb_strbuf *out, struct nb_err *err);
/* Appends what is pending (U+FFFD for an incomplete sequence, as the reference does). */
int nb_detok_finish(struct nb_detok *d, struct nb_strbuf *out, struct nb_err *err);
/* All ids at once; equals the reference's decode(ids, skip_special_tokens). */
int nb_tokenizer_decode(const struct nb_tokenizer *t, const int32_t *ids, size_t n,
                        bool skip_special, struct nb_strbuf *out, struct nb_err *err);

#endif

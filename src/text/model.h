/* SPDX-License-Identifier: Apache-2.0
 *
 * model.h - what an opened tokenizer holds; shared by what makes it and what runs it only. */
#ifndef NB_TEXT_MODEL_H
#define NB_TEXT_MODEL_H

#include "text/added.h"
#include "text/bpe.h"
#include "text/decoder.h"
#include "text/normalizer.h"
#include "text/postprocessor.h"
#include "text/pretokenizer.h"
#include "text/specials.h"
#include "text/spm.h"

struct nb_vocab_rules { /* how llama.cpp encodes, where it is not a tokenizer.json's way */
    struct nb_specials specials;
    struct nb_spm spm;     /* is_spm */
    bool is_spm;           /* else the pre-tokenizer and the model as BPE */
    bool space_prefix;     /* is_spm: text at the start and behind a special gets a space */
    int32_t before, after; /* NB_ENCODE_TEMPLATE; -1: none */
};

struct nb_tokenizer {
    struct nb_bpe model;
    struct nb_normalizer normalizer;
    struct nb_pretokenizer pre;
    struct nb_postprocessor post;
    struct nb_decoder decoder;
    struct nb_added added;
    struct nb_token *tokens; /* [n_tokens] what an id decodes from; text NULL: a hole */
    bool *special;           /* [n_tokens] left out by skip_special */
    size_t n_tokens;
    char sha256[65];
    struct nb_vocab_rules
        *rules; /* NULL: a tokenizer.json. Else model, pre, decoder, tokens count */
};

/* Fills a zeroed t from a tokenizer.json; on error the caller still closes it. */
int nb_tokenizer_build(struct nb_tokenizer *t, const json_t *root, const char *what,
                       struct nb_err *err);

/* Encoding for a tokenizer with rules; text is valid UTF-8. */
int nb_vocab_encode(const struct nb_tokenizer *t, const char *text, size_t bytes, unsigned flags,
                    struct nb_ids *ids, struct nb_err *err);

#endif

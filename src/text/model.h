/* SPDX-License-Identifier: Apache-2.0
 *
 * model.h - what an opened tokenizer holds; shared by the encoder and the detokenizer only. */
#ifndef NB_TEXT_MODEL_H
#define NB_TEXT_MODEL_H

#include "text/added.h"
#include "text/bpe.h"
#include "text/decoder.h"
#include "text/normalizer.h"
#include "text/postprocessor.h"
#include "text/pretokenizer.h"

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
};

#endif

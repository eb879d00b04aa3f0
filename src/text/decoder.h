/* SPDX-License-Identifier: Apache-2.0
 *
 * decoder.h - the decoder part: token texts to text, as a stream.
 *
 * The reference defines each step on the list of all tokens. Here a step takes tokens one at a time
 * and hands on what no later token can change; what is held back and why is written at each step.
 * Behind Fuse or ByteLevel there is one endless token, which comes in pieces of whole characters. */
#ifndef NB_TEXT_DECODER_H
#define NB_TEXT_DECODER_H

#include <stdbool.h>
#include <stddef.h>

#include "base/err.h"
#include "base/json.h"
#include "base/strbuf.h"
#include "text/part.h"
#include "text/regex.h"

struct nb_decoder_step;

struct nb_decoder {
    struct nb_decoder_step *steps;
    size_t n;
    bool absent; /* no decoder: tokens are joined by a space */
    bool bytes;  /* tokens are bytes, and one that is left out still counts as the first */
};

/* part: the file's "decoder". NB_E_SPEC refuses by name. */
int nb_decoder_init(struct nb_decoder *d, const json_t *part, const char *what, struct nb_err *err);
/* For token texts that are bytes of the decoded text, valid UTF-8 or not. drop_space: the first
 * token loses one space at its front. */
void nb_decoder_init_bytes(struct nb_decoder *d, bool drop_space);
void nb_decoder_release(struct nb_decoder *d);

struct nb_decoder_state {     /* of one step */
    struct nb_strbuf token;   /* what has come of a token that must be seen whole */
    struct nb_strbuf pending; /* bytes not yet handed on: ByteLevel, ByteFallback */
    struct nb_strbuf text;    /* scratch: what is handed on */
    size_t n_tokens;          /* tokens that have ended */
    size_t n_begin, n_held;   /* Strip: characters cut off at the front; content held at the end */
};

struct nb_decoder_run { /* one stream; zero it, set the first two fields, release at the end */
    const struct nb_decoder *decoder;
    struct nb_matcher *matcher;
    struct nb_strbuf *out; /* where text goes; set before each call */
    bool began;            /* a token has been written (decoder absent) */
    struct nb_decoder_state state[NB_PARTS_MAX];
};

/* Takes one token's text. Appends to run->out. */
int nb_decoder_token(struct nb_decoder_run *run, const char *s, size_t n, struct nb_err *err);
/* No more tokens: appends what was held. The run begins anew afterwards. */
int nb_decoder_finish(struct nb_decoder_run *run, struct nb_err *err);
void nb_decoder_run_release(struct nb_decoder_run *run);

#endif

/* SPDX-License-Identifier: Apache-2.0
 *
 * nibble/lm.h - open a language model folder, turn text into tokens and back, let it write.
 *
 * A handle belongs to one thread at a time. Functions that can fail return 0 or a negative status and
 * fill *err (nibble/status.h); outputs are then untouched. */
#ifndef NIBBLE_LM_H
#define NIBBLE_LM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "nibble/status.h"

#ifdef __cplusplus
extern "C" {
#endif

struct nb_lm;

struct nb_lm_opts {
    int threads; /* 0: all cores the process may use */
    const char
        *cpu; /* highest instruction set: "generic", "avx2", "avx512"; NULL: the best there is */
};
NB_API void nb_lm_opts_defaults(struct nb_lm_opts *opts);

/* model: a folder in Hugging Face layout, float or quantized, or "org/name[@revision]" in the Hugging Face
 * cache. opts NULL: defaults. The handle is the caller's; close it with nb_lm_close (NULL is fine). */
NB_API int nb_lm_open(struct nb_lm **out, const char *model, const struct nb_lm_opts *opts,
                      struct nb_err *err);
NB_API void nb_lm_close(struct nb_lm *lm);

NB_API int64_t nb_lm_vocabulary(const struct nb_lm *lm); /* rows of the embedding */
NB_API int64_t nb_lm_context(const struct nb_lm *lm);    /* longest sequence it was made for */

enum {
    NB_LM_PLAIN = 1,   /* special tokens written in the text are ordinary text */
    NB_LM_TEMPLATE = 2 /* add the BOS/EOS tokens that the tokenizer adds by default */
};
struct nb_lm_ids {
    int32_t *data;
    size_t n;
};
/* UTF-8 text to ids. *out is the caller's: nb_lm_free(out->data). */
NB_API int nb_lm_encode(const struct nb_lm *lm, const char *text, size_t bytes, unsigned flags,
                        struct nb_lm_ids *out, struct nb_err *err);
/* Ids to UTF-8 text with a NUL after the last byte; special tokens are written out. *text: nb_lm_free. */
NB_API int nb_lm_decode(const struct nb_lm *lm, const int32_t *ids, size_t n, char **text,
                        size_t *bytes, struct nb_err *err);
NB_API void nb_lm_free(void *block); /* what encode and decode returned; NULL is fine */

/* One new token and the text that became certain with it (maybe none, never half a character). False
 * ends the generation. */
typedef bool (*nb_token_fn)(void *ctx, int32_t id, const char *text, size_t bytes);

struct nb_generate_opts {
    int64_t max_tokens;  /* new tokens at most */
    double temperature;  /* 0: greedy; ties go to the lower id */
    int64_t top_k;       /* 0: off */
    double top_p, min_p; /* 1 and 0: off */
    uint64_t seed;
    bool ignore_eos;
    nb_token_fn on_token; /* may be NULL */
    void *ctx;
};
NB_API void nb_generate_opts_defaults(struct nb_generate_opts *opts); /* 64 tokens, greedy */

struct nb_generation {
    int32_t *ids; /* new tokens, an end-of-sequence token included */
    size_t n;
    char *text; /* without special tokens; NUL-terminated */
    size_t bytes;
    bool ended;                 /* by an end-of-sequence token */
    double prompt_tok_s, tok_s; /* 0: too short to tell */
};
/* Continues n > 0 prompt tokens. Stops at max_tokens, at an end-of-sequence token, at the end of the context,
 * or when on_token says so. Release *out with nb_generation_release. */
NB_API int nb_lm_generate(struct nb_lm *lm, const int32_t *prompt, size_t n,
                          const struct nb_generate_opts *opts, struct nb_generation *out,
                          struct nb_err *err);
NB_API void nb_generation_release(struct nb_generation *g);

#ifdef __cplusplus
}
#endif

#endif

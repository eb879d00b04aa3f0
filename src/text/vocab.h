/* SPDX-License-Identifier: Apache-2.0
 *
 * vocab.h - a vocabulary as GGUF metadata holds it, and tokenizers from and to it.
 *
 * Plain arrays, one field per key of `tokenizer.ggml.`, independent of the file that holds them.
 * What a tokenizer.json can fill and what a GGUF cannot say: docs/tokenizers.md. */
#ifndef NB_TEXT_VOCAB_H
#define NB_TEXT_VOCAB_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "base/json.h"
#include "base/mem.h"
#include "base/span.h"

struct nb_strbuf;
struct nb_tokenizer;

enum nb_vocab_type { /* tokenizer.ggml.token_type */
                     NB_VOCAB_UNDEFINED,
                     NB_VOCAB_NORMAL,
                     NB_VOCAB_UNKNOWN,
                     NB_VOCAB_CONTROL,
                     NB_VOCAB_USER_DEFINED,
                     NB_VOCAB_UNUSED,
                     NB_VOCAB_BYTE
};

enum nb_vocab_special {
    NB_VOCAB_BOS,
    NB_VOCAB_EOS,
    NB_VOCAB_EOT,
    NB_VOCAB_EOM,
    NB_VOCAB_UNK,
    NB_VOCAB_SEP,
    NB_VOCAB_PAD,
    NB_VOCAB_MASK,
    NB_VOCAB_FIM_PRE,
    NB_VOCAB_FIM_SUF,
    NB_VOCAB_FIM_MID,
    NB_VOCAB_FIM_PAD,
    NB_VOCAB_FIM_REP,
    NB_VOCAB_FIM_SEP,
    NB_VOCAB_N_SPECIAL
};

enum nb_vocab_flag {
    NB_VOCAB_ADD_BOS,
    NB_VOCAB_ADD_EOS,
    NB_VOCAB_ADD_SEP,
    NB_VOCAB_ADD_SPACE_PREFIX,
    NB_VOCAB_REMOVE_EXTRA_WHITESPACES,
    NB_VOCAB_N_FLAGS
};

enum nb_vocab_tristate { NB_VOCAB_ABSENT, NB_VOCAB_FALSE, NB_VOCAB_TRUE };

/* Arrays and texts are borrowed from whoever fills the struct; what has no other home may be put
 * into `arena`, which nb_vocab_release frees. Texts are any bytes, without a terminator. */
struct nb_vocab {
    struct nb_arena arena;
    struct nb_span model;         /* "gpt2": byte-level BPE; "llama": SentencePiece with scores */
    struct nb_span pre;           /* tokenizer.ggml.pre; length 0: absent */
    struct nb_span name;          /* general.name; "phi-3" in it changes how specials are cut out */
    struct nb_span chat_template; /* length 0: absent */
    const struct nb_span *tokens; /* [n] text by id; model gpt2: in the byte-level alphabet */
    size_t n;
    const float *scores; /* [n_scores]; NULL: absent. Asked for by model "llama" only */
    size_t n_scores;
    const int32_t *types; /* [n_types] of enum nb_vocab_type; NULL: absent, all normal */
    size_t n_types;
    const struct nb_span *merges; /* [n_merges] "left right" by rank; model gpt2 */
    size_t n_merges;
    int32_t special[NB_VOCAB_N_SPECIAL];           /* -1: absent */
    enum nb_vocab_tristate flag[NB_VOCAB_N_FLAGS]; /* absent: the model's default holds */
};

void nb_vocab_init(struct nb_vocab *v); /* nothing in it, all absent */
void nb_vocab_release(struct nb_vocab *v);

/* What follows "tokenizer.ggml." in the key of a special id or a flag: "bos_token_id",
 * "add_bos_token". */
const char *nb_vocab_special_key(enum nb_vocab_special s);
const char *nb_vocab_flag_key(enum nb_vocab_flag f);

enum { NB_VOCAB_ENDS_MAX = 32 };
/* The ids at which llama.cpp ends a generation: eos, eot, eom and tokens known by their text. At
 * most max (NB_VOCAB_ENDS_MAX is enough); returns how many. */
size_t nb_vocab_end_ids(const struct nb_vocab *v, int32_t *ids, size_t max);

/* A tokenizer that gives the ids llama.cpp gives. v may go afterwards: everything is copied.
 * `what` names the file in messages. NB_E_SPEC refuses a model or pre-tokenizer by name;
 * NB_E_FORMAT for arrays shorter than the tokens, duplicate or misformed tokens, bad merges.
 * NB_ENCODE_TEMPLATE adds BOS and EOS where llama.cpp's add_special does; NB_ENCODE_PLAIN is its
 * parse_special false. Its nb_tokenizer_sha256 covers the content of v, so equal vocabularies in
 * different files agree. */
int nb_tokenizer_from_vocab(struct nb_tokenizer **out, const struct nb_vocab *v, const char *what,
                            struct nb_err *err);

struct nb_vocab_source {            /* what a model folder says about its tokenizer; all borrowed */
    const json_t *tokenizer;        /* tokenizer.json */
    const json_t *tokenizer_config; /* tokenizer_config.json; NULL: none */
    const json_t *config;           /* config.json; NULL: none */
    const json_t *generation;       /* generation_config.json; NULL: none */
    struct nb_span chat_template;   /* chat_template.jinja; length 0: none */
    size_t n_rows;                  /* rows of the embedding; 0: as many as tokens */
    const char *what;               /* names tokenizer.json in messages */
};

/* Fills v (init by the callee, release by the caller on success) for writing a GGUF. All texts are
 * in v's arena; name stays empty. Appends to note, one line each, what a GGUF cannot say of this
 * tokenizer and llama.cpp will therefore do otherwise ("normalizer NFC is not applied"). NB_E_SPEC
 * names the part when nothing near it can be written; NB_E_FORMAT when the model has more tokens
 * than n_rows. The result is read back before it is returned. */
int nb_tokenizer_vocab(struct nb_vocab *v, const struct nb_vocab_source *source,
                       struct nb_strbuf *note, struct nb_err *err);

#endif

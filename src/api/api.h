/* SPDX-License-Identifier: Apache-2.0
 *
 * api.h - what stands behind the public handles: a loaded language model with all its parts.
 *
 * The program uses these parts directly; programs linked against the library see nibble/lm.h only. */
#ifndef NB_API_API_H
#define NB_API_API_H

#include <stdbool.h>
#include <stdint.h>

#include "backend/backend.h"
#include "base/err.h"
#include "base/progress.h"
#include "checkpoint/checkpoint.h"
#include "engine/engine.h"
#include "nibble/lm.h"
#include "text/tokenizer.h"

struct nb_runtime { /* this machine: threads and operators; several models may share it */
    struct nb_pool *pool;
    struct nb_backend *be;
};

int nb_runtime_init(struct nb_runtime *rt, int threads, const char *cpu, struct nb_err *err);
void nb_runtime_release(struct nb_runtime *rt);

enum { NB_MAX_EOS = 32 };

struct nb_lm {
    struct nb_runtime own; /* released with the model; empty when the runtime is shared */
    const struct nb_runtime *rt;
    struct nb_model *model;
    struct nb_tokenizer *tokenizer; /* NULL only when opened without (see nb_lm_load) */
    struct nb_engine *engine;
    int32_t eos[NB_MAX_EOS]; /* of config.json and generation_config.json */
    int n_eos;
};

/* Folder of MODEL: dir itself, or the snapshot of "org/name[@revision]" in the Hugging Face cache; or the .gguf
 * file itself. *dir: nb_free. NB_E_NOTFOUND tells what was looked for; another file is refused. */
int nb_locate_model(const char *model, char **dir, struct nb_err *err);

/* Opens the parts of folder or GGUF file dir on a shared runtime. With need_tokenizer false one without a
 * tokenizer is fine. A tokenizer with ids beyond the embedding is refused (NB_E_FORMAT). */
int nb_lm_load(struct nb_lm **out, const char *dir, const struct nb_runtime *rt,
               bool need_tokenizer, struct nb_err *err);

/* Checks the tokenizer against the embedding: NB_E_FORMAT when it has ids the embedding lacks. *missing:
 * rows of the embedding without a token (padding, or a damaged tokenizer). */
int nb_lm_check_vocabulary(const struct nb_model *model, const struct nb_tokenizer *tokenizer,
                           int64_t *missing, struct nb_err *err);
/* Are so many rows missing that it is no padding (more than one in a hundred)? */
bool nb_lm_vocabulary_gap(const struct nb_model *model, int64_t missing);

/* Token that stands before a text when its first token is scored too: BOS, else EOS; -1: neither. */
int64_t nb_lm_prefix_id(const struct nb_lm *lm, const struct nb_tokenizer *tok);

#endif

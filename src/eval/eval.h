/* SPDX-License-Identifier: Apache-2.0
 *
 * eval.h - perplexity and KL divergence over token windows; the quality gate. Fills result records.
 *
 * Every protocol becomes a plan: a list of token segments, each with the first position that is scored.
 * One loop runs any plan through one engine or a pair of them. Source: evaluation, sections 2, 8 and 9. */
#ifndef NB_EVAL_EVAL_H
#define NB_EVAL_EVAL_H

#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "base/progress.h"
#include "base/span.h"
#include "core/result.h"
#include "data/data.h"
#include "engine/engine.h"
#include "text/tokenizer.h"

/* Protocol `windows`: the first token of each window is not scored; log-softmax in f32 or better, sums in
 * f64. With base the same tokens are scored by both (KLD of e from base, paired interval over windows).
 * base may be NULL. */
int nb_eval_windows(struct nb_eval_result *out, struct nb_engine *e, struct nb_engine *base,
                    const struct nb_windows *windows, const struct nb_progress *progress,
                    struct nb_err *err);

/* The same figures with one decoder layer resident at a time; memory_bytes bounds the hidden states (at
 * least one window is held). models->base may be NULL. */
struct nb_eval_models {
    const struct nb_model *model, *base;
    struct nb_backend *be;
};
int nb_eval_streamed(struct nb_eval_result *out, const struct nb_eval_models *models,
                     const struct nb_windows *windows, uint64_t memory_bytes,
                     const struct nb_progress *progress, struct nb_err *err);

/* Decides by tolerance; fills verdict and verdict_text. A tolerance that is an upper bound passes when the
 * upper end of the 95 % interval is inside it, fails when the lower end is outside, and is undecided between.
 * With fewer than two windows there is no interval: undecided. */
void nb_eval_decide(struct nb_eval_result *r, const struct nb_tolerance *tol);

/* ---- other protocols ---- */

enum nb_eval_protocol {
    NB_EVAL_WINDOWS, /* disjoint windows, no special tokens, first token not scored; a stride
                           * below the window makes them overlap, each token scored once */
    NB_EVAL_GPTQ_PAPER, /* section 2.1: the same with the tokenizer's own BOS at the very front, 2048 */
    NB_EVAL_TRANSFORMERS, /* section 2.2: overlapping windows, stride 512 */
    NB_EVAL_LLAMACPP, /* section 2.3: one trailing line feed dropped, special tokens plain text, second
                       * half of each window of 512, first token replaced by BOS */
    NB_EVAL_LM_EVAL /* section 2.4: Wikipedia pages, rolling windows, per word and per byte */
};

struct nb_eval_request {
    enum nb_eval_protocol protocol;
    const char
        *text; /* UTF-8, bytes long; WikiText's raw file is brought into the protocol's form */
    size_t bytes;
    int64_t window,
        stride; /* 0: the protocol's default (min(2048, context), 2048, context, 512, context; 512) */
    int64_t limit;     /* segments at most; 0: all */
    int64_t context;   /* longest sequence the model was made for */
    int64_t prefix_id; /* token before the first one of a page (BOS, else EOS); LM_EVAL only */
};

struct nb_eval_segment { /* one forward pass over ids[offset .. offset + n - 1) */
    int64_t offset, n;   /* token i + 1 is predicted by the logits of token i */
    int64_t first;       /* targets first .. n - 1 are scored, first >= 1 */
    double
        n_counted; /* their mean enters with this weight; n - first unless the protocol says otherwise */
    int64_t cluster; /* unit of the paired interval: window or page; never falls */
};

struct nb_eval_plan {
    enum nb_eval_protocol protocol;
    int32_t *ids;
    int32_t *
        replaced; /* [n_segments] the text's own first token of each, where a BOS stands; or NULL */
    struct nb_eval_segment *segments;
    int64_t n_ids, n_segments, n_clusters;
    int64_t window, stride;   /* in force */
    int64_t n_words, n_bytes; /* of the original text; LM_EVAL only, else 0 */
    bool wikitext_rows;       /* the raw file was joined into rows first */
    bool bos;                 /* the tokenizer put a BOS in */
    char text_sha256[65];     /* of the text as given */
};

/* Errors: text too short for one window (found and needed); NB_E_USAGE for a stride beyond the window;
 * NB_E_SPEC for LLAMACPP when the tokenizer ends texts with a token of its own. */
int nb_eval_plan_make(struct nb_eval_plan *out, const struct nb_eval_request *request,
                      const struct nb_tokenizer *tokenizer, struct nb_err *err);
/* Plan of windows made elsewhere (protocol WINDOWS); copies the ids. */
int nb_eval_plan_windows(struct nb_eval_plan *out, const struct nb_windows *windows,
                         struct nb_err *err);
void nb_eval_plan_release(struct nb_eval_plan *plan);

/* ---- llama.cpp's base-logits file: what one model said on a text, 16 bits per log-probability ---- */

/* Mapped; sizes and tokens are checked when it is opened, rows when they are read. */
struct nb_eval_logits;
int nb_eval_logits_open(struct nb_eval_logits **out, const char *path, struct nb_err *err);
/* As open, over bytes that outlive it (aligned to 4); name for messages. What the fuzzer calls. */
int nb_eval_logits_parse(struct nb_eval_logits **out, struct nb_span bytes, const char *name,
                         struct nb_err *err);
void nb_eval_logits_close(struct nb_eval_logits *l);
/* The file's tokens as a plan of protocol LLAMACPP, BOS put in as the tokenizer has one; at most limit windows
 * (0: all). The plan has no text: text_sha256 is empty. */
int nb_eval_plan_logits(struct nb_eval_plan *out, const struct nb_eval_logits *logits,
                        const struct nb_tokenizer *tokenizer, int64_t limit, struct nb_err *err);

/* ---- running a plan ---- */

struct nb_eval_with {                    /* what else takes part; each may be NULL */
    struct nb_engine *base;              /* scores the same tokens */
    const struct nb_eval_logits *logits; /* stands for base; with the plan made from it only */
    const char *save_logits;             /* file to write the model's own to; LLAMACPP only */
};

/* Scores a plan. Hidden states of a segment are kept, logits in tiles of rows only. A pair under LLAMACPP is
 * compared by that tool's definitions too (out->llamacpp). NB_E_NUMERIC when a logit is not finite, NB_E_SPEC when
 * the vocabularies of the two models differ, NB_E_FORMAT for a bad row of the file, NB_E_INTERRUPTED. */
int nb_eval_run(struct nb_eval_result *out, struct nb_engine *e, const struct nb_eval_with *with,
                const struct nb_eval_plan *plan, const struct nb_progress *progress,
                struct nb_err *err);

/* Per word and per byte, from the mean over tokens (LM_EVAL). Zero when the plan has no words. */
struct nb_eval_per_text {
    double word_perplexity, byte_perplexity, bits_per_byte;
};
struct nb_eval_per_text nb_eval_per_text_of(const struct nb_eval_plan *plan, double ppl,
                                            int64_t n_tokens);

const char *nb_eval_protocol_name(enum nb_eval_protocol p); /* "windows", "gptq-paper", ... */

/* ---- importance matrix, as llama.cpp's tool of that name measures it ---- */

struct nb_eval_imatrix_opts {
    const struct nb_model *model;
    struct nb_backend *be;
    const struct nb_eval_plan *plan; /* windows of one length, all of whose tokens are fed */
    uint64_t memory_bytes;           /* for hidden states; at least one window is held */
    bool output_tensor;              /* the head's input too */
};

/* Fills *out with an entry for each linear under its GGUF name: sums of squares of the input's columns over
 * the plan's tokens, and their number. One decoder layer is resident at a time; sums are in f64 and in the
 * order of the tokens, whatever the memory and the threads. No dataset is named. Release *out, also after
 * an error. NB_E_SPEC: output_tensor of a model whose head is its embedding; NB_E_NUMERIC: an input that
 * is not finite; NB_E_INTERRUPTED. */
int nb_eval_imatrix(struct nb_imatrix *out, const struct nb_eval_imatrix_opts *opts,
                    const struct nb_progress *progress, struct nb_err *err);

#endif

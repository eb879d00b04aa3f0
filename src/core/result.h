/* SPDX-License-Identifier: Apache-2.0
 *
 * result.h - result records: what an evaluation measured. Filled by eval/, read by pipeline, report, cli. */
#ifndef NB_CORE_RESULT_H
#define NB_CORE_RESULT_H

#include <stdbool.h>
#include <stdint.h>

enum nb_verdict { NB_VERDICT_SKIPPED, NB_VERDICT_PASS, NB_VERDICT_FAIL, NB_VERDICT_UNDECIDED };

/* Tolerances of the gate; NaN: not asked for. */
struct nb_tolerance {
    double ppl_ratio; /* upper end of the paired 95 % interval must not exceed it */
    double kld_mean;  /* nats, at most */
    double same_top;  /* share, at least */
};

struct nb_compare_result { /* against the float model, paired over the same tokens */
    double ppl_base;
    double ppl_ratio, ppl_ratio_lo, ppl_ratio_hi; /* 95 % interval over windows */
    double kld_mean, kld_stderr, kld_median, kld_p90, kld_p99, kld_p999, kld_max; /* nats */
    double same_top;        /* share of positions with the same most likely token */
    double same_top_stderr; /* windows as units; NaN: fewer than two */
    double
        confident_flips; /* share where the base gave its top token p > 0.9 and the top changed */
};

/* What llama.cpp's perplexity tool prints about a model and a base, by its definitions: tokens as units,
 * KL over the entries with log p_base > -16, errors by linear propagation. Source: gguf, section 7.3. */
struct nb_estimate {
    double value, error;
};

enum { NB_LLAMACPP_KLD_LEVELS = 11, NB_LLAMACPP_DP_LEVELS = 13 };

struct nb_llamacpp_result {
    struct nb_estimate ppl, ppl_base;
    double correlation; /* of ln PPL and ln PPL(base) */
    struct nb_estimate ln_ratio, ratio, difference;
    struct nb_estimate kld; /* nats */
    struct nb_estimate dp;  /* p(token) - p_base(token) */
    struct nb_estimate dp_rms, same_top;
    bool has_quantiles; /* false: fewer than 100 positions */
    double kld_quantiles[NB_LLAMACPP_KLD_LEVELS], dp_quantiles[NB_LLAMACPP_DP_LEVELS];
};

/* The shares that the quantiles stand for, from 1 (maximum) to 0 (minimum). */
extern const double nb_llamacpp_kld_levels[NB_LLAMACPP_KLD_LEVELS];
extern const double nb_llamacpp_dp_levels[NB_LLAMACPP_DP_LEVELS];

struct nb_eval_result {
    int64_t window, n_windows, n_tokens; /* n_tokens: scored positions */
    double ppl, ppl_stderr;
    bool has_compare;
    struct nb_compare_result compare;
    bool has_llamacpp; /* protocol llama.cpp with a base */
    struct nb_llamacpp_result llamacpp;
    enum nb_verdict verdict;
    char verdict_text[160]; /* which tolerance decided, with figures */
    char text_sha256[65], tokenizer_sha256[65];
    double seconds;
};

const char *nb_verdict_name(enum nb_verdict v); /* "pass", "fail", "undecided", "skipped" */

#endif

/* SPDX-License-Identifier: Apache-2.0
 *
 * quantize_options.h - the words of `nibble quantize` and the pipeline's options made from them. */
#ifndef NB_CLI_QUANTIZE_OPTIONS_H
#define NB_CLI_QUANTIZE_OPTIONS_H

#include "cli/cli.h"
#include "pipeline/pipeline.h"

struct nb_quantize_words { /* as typed */
    const char *out, *method, *effort, *scheme, *format, *clip, *precision, *config, *eval_text,
        *gate;
    const char *storage;
    const char *imatrix, *output_type, *embedding_type; /* of GGUF files, as the next two lines */
    struct nb_option_list tensor_type;
    bool pure, requantize;
    int64_t bits, group, samples, seqlen, seed;
    double damp, gptaq;
    int order;
    double act_percentile, target_bits, target_kld;
    bool single_quant, kv_scales, rotate, moe_all_tokens;
    bool sym, asym, no_gate, restart, overwrite, allow_nonfinite, dry_run;
    struct nb_option_list calib, ignore, include, bits_for;
    uint64_t memory, shard_size, target_size;
};
extern const struct nb_quantize_words nb_quantize_words_defaults;

struct nb_quantize_list { /* strings it owns, as many as are added */
    char **items;
    size_t n, room;
};
/* A copy of n bytes of s, NUL behind them; returns it. */
const char *nb_quantize_list_add(struct nb_quantize_list *list, const char *s, size_t n);

enum { NB_BITS_FOR_MAX = 1024 };

struct nb_quantize_plan { /* the options and what they point to */
    struct nb_quantize_opts opts;
    struct nb_calib_source sources[NB_OPTION_LIST_MAX];
    struct nb_bits_for bits_for[NB_BITS_FOR_MAX];
    struct nb_quantize_list strings, ignore, include, bits_globs;
    json_t *config; /* of --config */
};

/* The globs of p->bits_globs from `first` on get `bits`. NB_E_SPEC when there are too many. */
int nb_quantize_plan_bits_for(struct nb_quantize_plan *p, size_t first, int bits,
                              struct nb_err *err);

/* Words to options; what was typed wins over --config, --config over --scheme's and the format's defaults.
 * The words must outlive the plan. NB_E_USAGE, NB_E_SPEC or NB_E_FORMAT. Release also after an error. */
int nb_quantize_plan_make(struct nb_quantize_plan *p, const struct nb_quantize_words *w,
                          struct nb_err *err);
void nb_quantize_plan_release(struct nb_quantize_plan *p);

#endif

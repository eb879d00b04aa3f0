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
    const char *imatrix, *output_type, *embedding_type; /* of GGUF files, as the next two lines */
    struct nb_option_list tensor_type;
    bool pure, requantize;
    int64_t bits, group, samples, seqlen, seed;
    double damp, gptaq;
    int order;
    bool sym, asym, no_gate, restart, overwrite, allow_nonfinite, dry_run;
    struct nb_option_list calib, ignore, include, bits_for;
    uint64_t memory, shard_size;
};
extern const struct nb_quantize_words nb_quantize_words_defaults;

struct nb_quantize_plan { /* the options and what they point to */
    struct nb_quantize_opts opts;
    struct nb_calib_source sources[NB_OPTION_LIST_MAX];
    struct nb_bits_for bits_for[NB_OPTION_LIST_MAX];
    char *strings[2 * NB_OPTION_LIST_MAX]; /* owned */
    size_t n_strings;
    json_t *config; /* of --config */
};

/* Words to options; what was typed wins over --config, --config over --scheme's and the format's defaults.
 * The words must outlive the plan. NB_E_USAGE, NB_E_SPEC or NB_E_FORMAT. Release also after an error. */
int nb_quantize_plan_make(struct nb_quantize_plan *p, const struct nb_quantize_words *w,
                          struct nb_err *err);
void nb_quantize_plan_release(struct nb_quantize_plan *p);

#endif

/* SPDX-License-Identifier: Apache-2.0
 *
 * recipe.h - options resolved against one model: what is done to each linear, and with what.
 *
 * Everything that can influence an output byte is in the recipe's JSON, which the journal compares and
 * the manifest records. Internal to pipeline/. */
#ifndef NB_PIPELINE_RECIPE_H
#define NB_PIPELINE_RECIPE_H

#include "checkpoint/checkpoint.h"
#include "pipeline/pipeline.h"
#include "pipeline/scheme.h"

struct nb_recipe {
    char method[24];                /* resolved: never "best" */
    bool best;                      /* was asked for as "best" */
    const struct nb_scheme *scheme; /* NULL: nothing is quantized, or a GGUF file */
    bool awq, smooth, rotate;       /* transforms */
    bool kv_scales;                 /* k_scale and v_scale are written */
    double act_percentile;          /* of static activation scales; 0: the maximum */
    bool moe_all_tokens;
    const struct nb_solver *solver;         /* NULL: nothing is quantized */
    const struct nb_checkpoint *checkpoint; /* NULL: a GGUF file */
    const char *format;                     /* its name, or "gguf" */
    struct nb_solve_opts solve; /* with the default spec; module specs override bits and group */
    bool calibrates;            /* statistics are needed, so layers are run */
    enum nb_precision
        precision;  /* of the layers that are run for calibration and of the sums over tokens */
    bool fp_stream; /* the float hidden stream runs beside the quantized one */
    int64_t n_samples, seqlen;
    uint64_t seed, max_shard_bytes;
    struct nb_module_spec *modules; /* of every linear, layer by layer */
    size_t n_modules, n_quantized;
    size_t n_routers; /* float modules after these, which a config may have to name */
    bool head;        /* of a GGUF file: solved after the layers */
    struct nb_module_spec head_spec;
    struct nb_pack_opts pack;
    char producer[48]; /* "nibble:0.1.0" */
    json_t *json;
};

/* gguf: the plan of the file, whose types say what is solved; NULL: a folder. NB_E_USAGE for unknown words, NB_E_SPEC for what this format or model cannot do (the text names the
 * nearest possible choice). Release with nb_recipe_release, also after an error. */
int nb_recipe_make(struct nb_recipe *r, const struct nb_quantize_opts *opts,
                   const struct nb_model *model, const struct nb_gguf_out *gguf,
                   struct nb_err *err);
void nb_recipe_release(struct nb_recipe *r);

/* What the format's config is made from; pointers into r. */
void nb_recipe_info(const struct nb_recipe *r, struct nb_checkpoint_info *info);

static inline const struct nb_module_spec *nb_recipe_module(const struct nb_recipe *r,
                                                            const struct nb_arch *arch,
                                                            int64_t layer, int linear)
{
    return &r->modules[nb_arch_first_linear(arch, layer) + linear];
}

#endif

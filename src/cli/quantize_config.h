/* SPDX-License-Identifier: Apache-2.0
 *
 * quantize_config.h - the quantization configs of other tools as options of `nibble quantize`.
 *
 * AutoGPTQ, GPTQModel, AutoAWQ, bitsandbytes, fp8, compressed-tensors, and recipes of llm-compressor in JSON. */
#ifndef NB_CLI_QUANTIZE_CONFIG_H
#define NB_CLI_QUANTIZE_CONFIG_H

#include "cli/quantize_options.h"

/* Reads the file, or its key quantization_config, into p->opts and p's lists; strings stay with p->config. NB_E_FORMAT
 * for what is no such config; NB_E_SPEC for what it asks and nibble does not do, with what is possible. */
int nb_quantize_config_apply(struct nb_quantize_plan *p, const char *path, struct nb_err *err);

/* ---- between the files of this reader ---- */

struct nb_config_reader {
    struct nb_quantize_plan *plan;
    const char *path; /* for messages */
};

/* Module names as globs over module paths: NAMED, at a component of the path (skip lists of bitsandbytes); WITHIN,
 * anywhere (modules_to_not_convert); PATTERN, compressed-tensors' targets: exact, "re:" and a regular expression, or
 * the class Linear. The head, which is not quantized anyway, adds nothing. */
enum nb_config_names { NB_CONFIG_NAMED, NB_CONFIG_WITHIN, NB_CONFIG_PATTERN };
int nb_config_add_names(const struct nb_config_reader *r, struct nb_quantize_list *list,
                        const json_t *names, enum nb_config_names how, struct nb_err *err);
/* A regular expression that is anchored at the start only, as globs. NB_E_SPEC when globs cannot say it. */
int nb_config_add_regex(const struct nb_config_reader *r, struct nb_quantize_list *list,
                        const char *regex, struct nb_err *err);

/* quantize_config_ct.c: a config with config_groups; a recipe, or a bare preset. */
int nb_config_apply_ct(const struct nb_config_reader *r, const json_t *config, struct nb_err *err);
/* NULL: not a recipe. Else the object that holds its modifiers, or a scheme. */
const json_t *nb_config_recipe(const json_t *config);
int nb_config_apply_recipe(const struct nb_config_reader *r, const json_t *recipe,
                           struct nb_err *err);

#endif

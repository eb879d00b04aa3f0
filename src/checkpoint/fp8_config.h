/* SPDX-License-Identifier: Apache-2.0
 *
 * fp8_config.h - the quantization config of quant_method "fp8": read into settings, written from a run. */
#ifndef NB_CHECKPOINT_FP8_CONFIG_H
#define NB_CHECKPOINT_FP8_CONFIG_H

#include "checkpoint/checkpoint.h"

enum nb_fp8_form {
    NB_FP8_TENSOR, /* one scale per matrix, or per output */
    NB_FP8_ROWS,   /* one per output */
    NB_FP8_BLOCKS
};

struct nb_fp8_config {
    enum nb_fp8_form form;
    int64_t block_rows, block_cols; /* of BLOCKS */
    bool divides;                   /* GPTQModel's own: codes are divided by what is stored */
    bool exponents;                 /* scales may be U8 holding E8M0 (scale_fmt "ue8m0") */
    enum nb_act_kind act;
    const json_t *lists[2]; /* ignored_layers, modules_to_not_convert: names, or NULL; borrowed */
};

/* c borrows from quant_config. NB_E_FORMAT, or NB_E_SPEC for numbers that we do not read. */
int nb_fp8_config_parse(struct nb_fp8_config *c, const json_t *quant_config, struct nb_err *err);

/* Is the module at path stored in FP8? What the lists name exactly is float; of the rest the tensors decide, where
 * a list holds the beginning or end of the path or a pattern, where there is no list, and for the head. m->tensors
 * may be NULL. */
bool nb_fp8_config_quantizes(const struct nb_fp8_config *c, const struct nb_model *m,
                             const char *path);

int nb_fp8_can_describe(const struct nb_checkpoint_info *info, struct nb_err *err);
json_t *nb_fp8_config_make(const struct nb_checkpoint_info *info);

#endif

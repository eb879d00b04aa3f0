/* SPDX-License-Identifier: Apache-2.0
 *
 * gptq_config.h - the GPTQ quantization config: read into settings per module, written from a run. */
#ifndef NB_CHECKPOINT_GPTQ_CONFIG_H
#define NB_CHECKPOINT_GPTQ_CONFIG_H

#include "checkpoint/checkpoint.h"
#include "checkpoint/dynamic.h"

struct nb_gptq_module { /* how one linear is stored */
    bool quantized;
    int64_t bits, group; /* group -1: all of K */
    bool sym, desc_act;
};

struct nb_gptq_config {
    struct nb_gptq_module base;
    bool v2; /* zeros stored as they are; else minus one */
    bool
        whole_words; /* v1 zeros of gptqmodel: one was subtracted from whole words, borrows included */
    bool lm_head;
    const json_t *in_block; /* modules_in_block_to_quantize, or NULL; borrowed */
    struct nb_dynamic *dynamic;
};

/* c borrows from quant_config. NB_E_FORMAT, or NB_E_SPEC for a layout that we do not read. */
int nb_gptq_config_parse(struct nb_gptq_config *c, const json_t *quant_config, struct nb_err *err);
void nb_gptq_config_release(struct nb_gptq_config *c);

/* Settings of the module at path. m tells the head's name and which tensors exist (m->tensors may be NULL). */
int nb_gptq_config_module(const struct nb_gptq_config *c, const struct nb_model *m,
                          const char *path, struct nb_gptq_module *out, struct nb_err *err);

/* "gptq" or "gptq_v2" among others, as the config says; "gptq" when it does not. */
void nb_gptq_config_format(const json_t *quant_config, char out[32]);

/* Object for config.json; v2 as above. */
json_t *nb_gptq_config_make(const struct nb_checkpoint_info *info, bool v2);

#endif

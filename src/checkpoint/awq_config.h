/* SPDX-License-Identifier: Apache-2.0
 *
 * awq_config.h - the AWQ quantization config of a run (see struct nb_checkpoint: can_describe, config). */
#ifndef NB_CHECKPOINT_AWQ_CONFIG_H
#define NB_CHECKPOINT_AWQ_CONFIG_H

#include "checkpoint/checkpoint.h"

int nb_awq_can_describe(const struct nb_checkpoint_info *info, struct nb_err *err);
json_t *nb_awq_config_make(const struct nb_checkpoint_info *info);

#endif

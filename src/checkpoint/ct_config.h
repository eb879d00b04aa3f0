/* SPDX-License-Identifier: Apache-2.0
 *
 * ct_config.h - compressed-tensors' config object: which module is in which scheme; and the one of a run.
 *
 * Targets and ignore name modules exactly, by "re:" and a regular expression anchored at the start, or by class
 * ("Linear"). Ignore wins; exact beats regex beats class; of several regexes the first in byte order. */
#ifndef NB_CHECKPOINT_CT_CONFIG_H
#define NB_CHECKPOINT_CT_CONFIG_H

#include "checkpoint/checkpoint.h"
#include "checkpoint/ct_args.h"

struct nb_ct_config;

/* quant_config is borrowed and must outlive the result. */
int nb_ct_config_new(struct nb_ct_config **out, const json_t *quant_config, struct nb_err *err);
void nb_ct_config_free(struct nb_ct_config *c);

/* *out NULL: the module is float. NB_E_FORMAT when a pattern needs more steps than we allow. */
int nb_ct_config_find(const struct nb_ct_config *c, const char *path,
                      const struct nb_ct_scheme **out, struct nb_err *err);
bool nb_ct_config_has_kv(const struct nb_ct_config *c); /* a kv_cache_scheme stands there */

/* The layout a writer uses for this spec. False: compressed-tensors has none. */
bool nb_ct_layout_of(const struct nb_qspec *spec, enum nb_ct_layout *out);

/* See struct nb_checkpoint. */
int nb_ct_can_describe(const struct nb_checkpoint_info *info, struct nb_err *err);
json_t *nb_ct_config_make(const struct nb_checkpoint_info *info);

#endif

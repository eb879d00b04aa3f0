/* SPDX-License-Identifier: Apache-2.0
 *
 * dynamic.h - GPTQ's `dynamic`: regular expressions over module paths that override settings.
 *
 * Keys are patterns, matched at the start of the path; "-:" leaves the modules unquantized, "+:" or no
 * prefix overrides. The first match wins, negative rules are asked first. Source: formats, section 2.7. */
#ifndef NB_CHECKPOINT_DYNAMIC_H
#define NB_CHECKPOINT_DYNAMIC_H

#include "checkpoint/checkpoint.h"

struct nb_dynamic;

/* dynamic: the object (borrowed, must outlive the result), or NULL or null: no rules, *out NULL. */
int nb_dynamic_new(struct nb_dynamic **out, const json_t *dynamic, struct nb_err *err);
void nb_dynamic_free(struct nb_dynamic *d);

/* *hit: a rule matched; *override NULL: it is a negative one. d may be NULL. NB_E_FORMAT when a pattern needs
 * more steps than we allow. */
int nb_dynamic_find(const struct nb_dynamic *d, const char *path, bool *hit,
                    const json_t **override, struct nb_err *err);

/* Rules for the modules of info that are float or differ from info->spec, negative ones first. A float
 * lm_head needs none. New reference; empty when all are alike. */
json_t *nb_dynamic_rules(const struct nb_checkpoint_info *info);

#endif

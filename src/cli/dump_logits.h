/* SPDX-License-Identifier: Apache-2.0
 *
 * dump_logits.h - logits of one window as a safetensors file, to be compared with other engines. */
#ifndef NB_CLI_DUMP_LOGITS_H
#define NB_CLI_DUMP_LOGITS_H

#include "base/err.h"
#include "engine/engine.h"

/* Writes `ids` I64 [n] and `logits` F32 [n, vocabulary] to path; it appears whole or not at all. */
int nb_dump_logits(const char *path, struct nb_engine *e, const int32_t *ids, int64_t n,
                   struct nb_err *err);

#endif

/* SPDX-License-Identifier: Apache-2.0
 *
 * level.h - the files of this level and the slots they fill. */
#ifndef NB_BACKEND_CPU_AVX512VNNI_LEVEL_H
#define NB_BACKEND_CPU_AVX512VNNI_LEVEL_H

#include "backend/cpu/ops.h"

void nb_avx512vnni_tiles(struct nb_cpu_ops *ops);

#endif

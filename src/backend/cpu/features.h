/* SPDX-License-Identifier: Apache-2.0
 *
 * features.h - what this processor and its operating system allow, as a mask that can be
 * lowered. */
#ifndef NB_BACKEND_CPU_FEATURES_H
#define NB_BACKEND_CPU_FEATURES_H

#include <stddef.h>

#include "base/err.h"

enum {
    NB_CPU_AVX2 = 1,   /* with FMA and F16C */
    NB_CPU_AVX512 = 2, /* F, BW, DQ, VL */
    NB_CPU_AVX512_VNNI = 4,
    NB_CPU_AVX512_BF16 = 8,
    NB_CPU_AMX = 16, /* tiles, int8, bf16; granted by the kernel on request */
};

unsigned nb_cpu_detect(void);

/* What the machine has, lowered to `level`: "generic", "avx2", "avx512"; NULL or "": nothing
 * lowered. A level the machine lacks gives NB_E_SPEC, an unknown one NB_E_USAGE; *features is set
 * on success. */
int nb_cpu_choose(unsigned *features, const char *level, struct nb_err *err);

/* "avx2 avx512 avx512_vnni", or "generic" for none. */
void nb_cpu_describe(unsigned features, char *out, size_t bytes);

#endif

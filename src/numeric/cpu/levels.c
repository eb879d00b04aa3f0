/* SPDX-License-Identifier: Apache-2.0
 *
 * levels.c - which levels this build and this machine have. The compiler's runtime has read CPUID before main,
 * so asking costs a few loads. */
#include "numeric/cpu/levels.h"

#include <stddef.h>

enum { MAX_LEVELS = 3 };

/* Slowest first; returns how many. */
static int detect(const struct nb_block_level *have[MAX_LEVELS])
{
    int n = 0;
    have[n++] = &nb_block_generic;
#ifdef NB_HAVE_AVX2
    if (!__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("fma")) return n;
    have[n++] = &nb_block_avx2;
#endif
#ifdef NB_HAVE_AVX512
    if (!__builtin_cpu_supports("avx512f") || !__builtin_cpu_supports("avx512bw") ||
        !__builtin_cpu_supports("avx512dq") || !__builtin_cpu_supports("avx512vl"))
        return n;
    have[n++] = &nb_block_avx512;
#endif
    return n;
}

const struct nb_block_level *nb_block_level_at(int i)
{
    const struct nb_block_level *have[MAX_LEVELS];
    return i < detect(have) ? have[i] : NULL;
}

const struct nb_block_level *nb_block_level(void)
{
    const struct nb_block_level *have[MAX_LEVELS];
    return have[detect(have) - 1];
}

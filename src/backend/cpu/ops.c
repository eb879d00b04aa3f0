/* SPDX-License-Identifier: Apache-2.0
 *
 * ops.c - fills the operator table: generic first, then each level the machine has. */
#include "backend/cpu/ops.h"

#include "backend/cpu/avx512bf16/level.h"
#include "backend/cpu/avx512vnni/level.h"
#include "backend/cpu/features.h"

void nb_cpu_ops_init(struct nb_cpu_ops *ops, unsigned features)
{
    (void)features;
    nb_cpu_ops_generic(ops);
#ifdef NB_HAVE_AVX2
    if (features & NB_CPU_AVX2) nb_cpu_ops_avx2(ops);
#endif
#ifdef NB_HAVE_AVX512
    if (features & NB_CPU_AVX512) nb_cpu_ops_avx512(ops);
#endif
#ifdef NB_HAVE_AVX512VNNI
    if (features & NB_CPU_AVX512 && features & NB_CPU_AVX512_VNNI) nb_avx512vnni_tiles(ops);
#endif
#ifdef NB_HAVE_AVX512BF16
    if (features & NB_CPU_AVX512 && features & NB_CPU_AVX512_BF16) nb_avx512bf16_tiles(ops);
#endif
}

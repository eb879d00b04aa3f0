/* SPDX-License-Identifier: Apache-2.0
 *
 * bnb_levels.c - the level that goes with the one of levels.h. */
#include "numeric/cpu/bnb_levels.h"

#include <stddef.h>

#include "numeric/cpu/levels.h"

static const struct nb_bnb_level *level_of(const struct nb_block_level *block)
{
#ifdef NB_HAVE_AVX512
    if (block == &nb_block_avx512) return &nb_bnb_avx512;
#endif
#ifdef NB_HAVE_AVX2
    if (block == &nb_block_avx2) return &nb_bnb_avx2;
#endif
    return block ? &nb_bnb_generic : NULL;
}

const struct nb_bnb_level *nb_bnb_level(void)
{
    return level_of(nb_block_level());
}

const struct nb_bnb_level *nb_bnb_level_at(int i)
{
    return level_of(nb_block_level_at(i));
}

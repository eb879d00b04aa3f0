/* SPDX-License-Identifier: Apache-2.0
 *
 * bnb_limits.h - where a weight changes its code, for the levels' files. A value strictly above a threshold goes up.
 * Source: checkpoint formats, section 4.2. */
#ifndef NB_NUMERIC_CPU_BNB_LIMITS_H
#define NB_NUMERIC_CPU_BNB_LIMITS_H

#include <stdint.h>

/* NF4: midpoints of the table. */
static const float nb_bnb_nf4_limits[15] = {
    -0x1.b239bp-1f,  -0x1.38a4ep-1f,  -0x1.d709p-2f,  -0x1.5bd4ecp-2f, -0x1.e079d8p-3f,
    -0x1.1a7178p-3f, -0x1.74f0e2p-5f, 0x1.45f5fep-5f, 0x1.ec90c4p-4f,  0x1.a0cfcp-3f,
    0x1.2b05a8p-2f,  0x1.8ea7f2p-2f,  0x1.00da08p-1f, 0x1.491b5ep-1f,  0x1.b913b4p-1f,
};
/* FP4: of the magnitude, with the constants of the CUDA kernels; the CPU build has midpoints instead, which lie up to
 * 14 units in the last place away. */
static const float nb_bnb_fp4_limits[7] = {
    0.00260417f, 0.0859375f, 0.20833333f, 0.29166667f, 0.4166667f, 0.583333f, 0.8333333f,
};
/* FP4: code of each rank of the magnitude. */
static const uint8_t nb_bnb_fp4_codes[8] = {0, 1, 6, 7, 4, 5, 2, 3};

#endif

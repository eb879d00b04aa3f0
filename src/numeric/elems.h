/* SPDX-License-Identifier: Apache-2.0
 *
 * elems.h - the element kinds that formats share by name, and the tables behind them. */
#ifndef NB_NUMERIC_ELEMS_H
#define NB_NUMERIC_ELEMS_H

#include "core/qmat.h"

/* bitsandbytes: 16 values in [-1, 1]; FP4's codes do not stand in order of value. */
extern const struct nb_elem nb_elem_nf4, nb_elem_fp4;
extern const struct nb_elem nb_elem_e4m3, nb_elem_e2m1; /* FLOAT 4-3 and 2-1 */

extern const float nb_nf4_values[16], nb_fp4_values[16];
/* bitsandbytes' signed dynamic map, ascending: what the 8-bit codes of nested absmax mean. */
extern const float nb_dynamic_map[256];
/* What an E4M3 code means; NaN at 127 and 255: for scales that are stored so. */
extern const float nb_e4m3_values[256];

#endif

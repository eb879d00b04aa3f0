/* SPDX-License-Identifier: Apache-2.0
 *
 * solvers.h - the solvers of this folder, for its table; everyone else asks nb_solver_find. */
#ifndef NB_QUANT_SOLVERS_H
#define NB_QUANT_SOLVERS_H

#include "quant/quant.h"

extern const struct nb_solver nb_solver_rtn;
extern const struct nb_solver nb_solver_gptq;
extern const struct nb_solver nb_solver_signround;

#endif

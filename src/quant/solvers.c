/* SPDX-License-Identifier: Apache-2.0
 *
 * solvers.c - the table of methods. A new one is a file and a line here. */
#include "quant/solvers.h"

#include <string.h>

static const struct nb_solver *const solvers[] = {&nb_solver_rtn, &nb_solver_gptq,
                                                  &nb_solver_signround, NULL};

const struct nb_solver *const *nb_solvers(void)
{
    return solvers;
}

const struct nb_solver *nb_solver_find(const char *name)
{
    for (const struct nb_solver *const *s = solvers; *s; s++) {
        if (strcmp((*s)->name, name) == 0) return *s;
    }
    return NULL;
}

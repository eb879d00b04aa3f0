/* SPDX-License-Identifier: Apache-2.0
 *
 * selfcheck.h - a known answer for each kind of kernel, before anything relies on them. */
#ifndef NB_BACKEND_SELFCHECK_H
#define NB_BACKEND_SELFCHECK_H

#include "backend/internal.h"

/* NB_E_NUMERIC naming the operator that computes wrongly on this machine. Under 1 ms. */
int nb_backend_selfcheck(struct nb_backend *be, struct nb_err *err);

#endif

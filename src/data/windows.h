/* SPDX-License-Identifier: Apache-2.0
 *
 * windows.h - making a struct nb_windows. */
#ifndef NB_DATA_WINDOWS_H
#define NB_DATA_WINDOWS_H

#include "base/err.h"
#include "data/data.h"

/* Room for n windows of seqlen ids. */
int nb_windows_init(struct nb_windows *w, int64_t n, int64_t seqlen, struct nb_err *err);
/* Sets sha256 from the ids. */
void nb_windows_seal(struct nb_windows *w);

#endif

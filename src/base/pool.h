/* SPDX-License-Identifier: Apache-2.0
 *
 * pool.h - one thread pool; work comes in fixed pieces.
 *
 * A piece's result may depend on its index only, never on which thread runs it or how many there are;
 * reductions are done by the caller in piece order. So --threads never changes a byte of output. */
#ifndef NB_BASE_POOL_H
#define NB_BASE_POOL_H

#include <stddef.h>

#include "base/err.h"

struct nb_pool;

/* piece in [0, n_pieces); thread in [0, nb_pool_threads), for per-thread scratch. */
typedef void (*nb_pool_fn)(void *ctx, size_t piece, int thread);

/* n_threads 0: all cores the process may use. The calling thread works too. NULL and *err on failure. */
struct nb_pool *nb_pool_new(int n_threads, struct nb_err *err);
void nb_pool_free(struct nb_pool *pool);
int nb_pool_threads(const struct nb_pool *pool); /* 1 for NULL */

/* Runs fn for each piece and returns when all are done. pool NULL: in the calling thread. Not reentrant:
 * fn must not call nb_pool_run on the same pool. */
void nb_pool_run(struct nb_pool *pool, size_t n_pieces, nb_pool_fn fn, void *ctx);

int nb_cpu_count(void); /* cores this process may use (affinity mask and cgroup quota) */

#endif

/* SPDX-License-Identifier: Apache-2.0
 *
 * rng.h - small seeded generator (SplitMix64, Steele et al. 2014): same seed, same numbers anywhere. */
#ifndef NB_BASE_RNG_H
#define NB_BASE_RNG_H

#include <stdint.h>

struct nb_rng {
    uint64_t state;
};

void nb_rng_init(struct nb_rng *r, uint64_t seed);
uint64_t nb_rng_next(struct nb_rng *r);
uint64_t nb_rng_below(struct nb_rng *r, uint64_t n); /* uniform in [0, n), n > 0, no modulo bias */
double nb_rng_uniform(struct nb_rng *r);             /* [0, 1), 53 bits */
double nb_rng_normal(struct nb_rng *r);              /* mean 0, variance 1 (Box-Muller with the C
                                                        library's log and cos: last bits may differ) */

#endif

/* SPDX-License-Identifier: Apache-2.0
 *
 * result.c - see result.h. */
#include "core/result.h"

const double nb_llamacpp_kld_levels[NB_LLAMACPP_KLD_LEVELS] = {1,   0.999, 0.99, 0.95,  0.9, 0.5,
                                                               0.1, 0.05,  0.01, 0.001, 0};
const double nb_llamacpp_dp_levels[NB_LLAMACPP_DP_LEVELS] = {
    1, 0.999, 0.99, 0.95, 0.9, 0.75, 0.5, 0.25, 0.1, 0.05, 0.01, 0.001, 0};

const char *nb_verdict_name(enum nb_verdict v)
{
    static const char *const names[] = {"skipped", "pass", "fail", "undecided"};
    return names[v];
}

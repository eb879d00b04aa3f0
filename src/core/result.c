/* SPDX-License-Identifier: Apache-2.0
 *
 * result.c - see result.h. */
#include "core/result.h"

const char *nb_verdict_name(enum nb_verdict v)
{
    static const char *const names[] = {"skipped", "pass", "fail", "undecided"};
    return names[v];
}

/* SPDX-License-Identifier: Apache-2.0
 *
 * numerics.c - the table of number encodings, and what all of them share. See numeric.h. */
#include "numeric/numeric.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>

#include "numeric/encodings.h"

static const struct nb_numeric *const numerics[] = {&nb_numeric_bnb4,  &nb_numeric_bnb8,
                                                    &nb_numeric_int,   &nb_numeric_float,
                                                    &nb_numeric_nvfp4, NULL};

const struct nb_numeric *nb_numeric_for(const struct nb_qspec *spec)
{
    for (const struct nb_numeric *const *n = numerics; *n; n++) {
        if ((*n)->supports(spec)) return *n;
    }
    return NULL;
}

float nb_numeric_store_scale(float scale, enum nb_dtype t)
{
    const float least = 1e-5f;
    const float most = t == NB_F16 ? 65504.0f : 1e36f; /* times any level it must stay finite */
    float a = fabsf(scale);
    if (!(a >= least)) a = least; /* and NaN */
    if (a > most) a = most;
    a = nb_round_to(a, t);
    return scale < 0.0f ? -a : a;
}

void nb_usable_groups(int64_t k, char *out, size_t bytes)
{
    static const int64_t sizes[] = {16, 32, 64, 128, 256, 512};
    size_t used = 0;
    if (bytes) out[0] = '\0';
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        if (k % sizes[i] || used >= bytes) continue;
        int n = snprintf(out + used, bytes - used, "%s%" PRId64, used ? ", " : "", sizes[i]);
        used += n > 0 ? (size_t)n : 0;
    }
    if (!used && bytes) snprintf(out, bytes, "-1 (one per row)");
}

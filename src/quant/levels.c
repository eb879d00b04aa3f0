/* SPDX-License-Identifier: Apache-2.0
 *
 * levels.c - the values of an element's codes, and which code comes next by value.
 *
 * Integers stand in order; FP4's and E4M3's codes do not, two of them mean zero and some mean no number. Search
 * steps to neighbours in value, never in code. */
#include <math.h>
#include <stdlib.h>

#include "quant/problem.h"

struct entry {
    float value;
    int code;
};

static int by_value(const void *pa, const void *pb)
{
    const struct entry *a = pa, *b = pb;
    if (a->value != b->value) return a->value < b->value ? -1 : 1;
    return a->code - b->code;
}

void nb_levels_init(struct nb_levels *l, const struct nb_elem *e)
{
    struct entry sorted[256];
    int n = 0;
    *l = (struct nb_levels){.plain = e->kind == NB_ELEM_INT};
    for (int c = 0; c < 256; c++) l->above[c] = l->below[c] = -1;
    for (int c = 0; c < 1 << e->bits; c++) {
        const float v = nb_elem_value(e, (unsigned)c);
        if (!isfinite(v)) continue;
        l->value[c] = v;
        sorted[n++] = (struct entry){v, c};
    }
    qsort(sorted, (size_t)n, sizeof *sorted, by_value);
    for (int i = 0, last = -1; i < n; i++) { /* last: of the codes with a smaller value */
        if (i > 0 && sorted[i - 1].value < sorted[i].value) last = sorted[i - 1].code;
        l->below[sorted[i].code] = (int16_t)last;
    }
    for (int i = n - 1, next = -1; i >= 0; i--) {
        if (i + 1 < n && sorted[i + 1].value > sorted[i].value) next = sorted[i + 1].code;
        l->above[sorted[i].code] = (int16_t)next;
    }
}

/* SPDX-License-Identifier: Apache-2.0
 *
 * test_levels.c - neighbours of codes by value, whatever order the codes stand in. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "layer.h"
#include "numeric/elems.h"

/* Above is the least value that is larger, and below of above leads to an equal value. */
static void check(const struct nb_elem *e)
{
    struct nb_levels l;
    nb_levels_init(&l, e);
    assert_int_equal(l.plain, e->kind == NB_ELEM_INT);
    for (int c = 0; c < 1 << e->bits; c++) {
        const float v = nb_elem_value(e, (unsigned)c);
        float next = INFINITY, last = -INFINITY;
        for (int d = 0; d < 1 << e->bits; d++) {
            const float other = nb_elem_value(e, (unsigned)d);
            if (other > v && other < next) next = other;
            if (other < v && other > last) last = other;
        }
        if (isnan(v)) next = INFINITY, last = -INFINITY;
        else assert_true(l.value[c] == v);
        assert_true(isfinite(next) ? l.above[c] >= 0 && l.value[l.above[c]] == next
                                   : l.above[c] == -1);
        assert_true(isfinite(last) ? l.below[c] >= 0 && l.value[l.below[c]] == last
                                   : l.below[c] == -1);
    }
}

static void test_neighbours(void **state)
{
    (void)state;
    for (int bits = 2; bits <= 8; bits++)
        check(&(struct nb_elem){.kind = NB_ELEM_INT, .bits = bits, .vec = 1});
    check(&nb_elem_nf4);
    check(&nb_elem_fp4);
    check(&nb_elem_e2m1);
    check(&nb_elem_e4m3);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_neighbours)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}

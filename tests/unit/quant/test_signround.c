/* SPDX-License-Identifier: Apache-2.0
 *
 * test_signround.c - learned rounding: far better than plain, at home with every grid, independent of threads. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "layer.h"
#include "numeric/elems.h"

static void test_learning_beats_plain_rounding(void **state)
{
    (void)state;
    struct layer l = layer_make(71, 32, 128, 2000, 2);
    for (int i = 0; i < 3; i++) {
        struct nb_solve_opts opts = layer_opts(4, i == 1, 32, NB_EFFORT_NORMAL);
        if (i == 2)
            opts.grid.spec = (struct nb_qspec){.elem = nb_elem_nf4,
                                               .group_rows = 1,
                                               .group_cols = 32,
                                               .flat = true,
                                               .scale_dtype = NB_F32};
        struct nb_arena arena;
        nb_arena_init(&arena);
        struct nb_qmat q;
        const struct nb_solve_report learned = layer_solve(&l, "signround", &opts, &q, &arena);
        const double truth = layer_true_loss(&l, &q);
        const struct nb_solve_report plain = layer_solve(&l, "rtn", &opts, &q, &arena);
        assert_true(learned.loss < 0.4 * plain.loss);
        assert_true(truth < 0.5 * layer_true_loss(&l, &q));
        nb_arena_release(&arena);
    }
    layer_release(&l);
}

static void test_threads_do_not_matter(void **state)
{
    (void)state;
    const struct nb_solve_opts opts = layer_opts(3, false, 48, NB_EFFORT_NORMAL);
    struct nb_arena arena;
    nb_arena_init(&arena);
    struct nb_qmat q[2];
    for (int i = 0; i < 2; i++) {
        struct layer l = layer_make(72, 50, 100, 600, i ? 5 : 1);
        layer_solve(&l, "signround", &opts, &q[i], &arena);
        layer_release(&l);
    }
    assert_memory_equal(q[0].codes, q[1].codes, 5000);
    assert_memory_equal(q[0].scale.value, q[1].scale.value, 50 * 3 * sizeof(float));
    nb_arena_release(&arena);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_learning_beats_plain_rounding),
        cmocka_unit_test(test_threads_do_not_matter),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

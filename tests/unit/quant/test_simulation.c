/* SPDX-License-Identifier: Apache-2.0
 *
 * test_simulation.c - the ordering of methods on inputs whose true covariance is known (algorithms, 14). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "layer.h"

enum { ROWS = 64, COLS = 640 };

static double loss_of(struct layer *l, const char *solver, const struct nb_solve_opts *opts)
{
    struct nb_qmat q;
    struct nb_arena arena;
    nb_arena_init(&arena);
    layer_solve(l, solver, opts, &q, &arena);
    const double loss = layer_true_loss(l, &q);
    nb_arena_release(&arena);
    return loss;
}

static struct nb_solve_opts fast(enum nb_act_order order, enum nb_clip clip)
{
    struct nb_solve_opts o = layer_opts(4, true, 128, NB_EFFORT_FAST);
    o.grid.sym_range = NB_SYM_REFERENCE;
    o.grid.clip = clip;
    o.order = order;
    return o;
}

static void test_each_step_pays_on_unseen_inputs(void **state)
{
    (void)state;
    struct layer l = layer_make(61, ROWS, COLS, 8192, 2);
    struct nb_solve_opts o = fast(NB_ORDER_NONE, NB_CLIP_NONE);
    const double rtn = loss_of(&l, "rtn", &o);
    const double none = loss_of(&l, "gptq", &o) / rtn;
    o = fast(NB_ORDER_NONE, NB_CLIP_WEIGHTED);
    const double rtn_clip = loss_of(&l, "rtn", &o) / rtn;
    o = fast(NB_ORDER_GROUP, NB_CLIP_NONE);
    const double group = loss_of(&l, "gptq", &o) / rtn;
    o = fast(NB_ORDER_STATIC, NB_CLIP_NONE);
    const double by_diag = loss_of(&l, "gptq", &o) / rtn;
    o = fast(NB_ORDER_GROUP, NB_CLIP_WEIGHTED);
    const double group_clip = loss_of(&l, "gptq", &o) / rtn;
    o = fast(NB_ORDER_STATIC, NB_CLIP_WEIGHTED);
    const double diag_clip = loss_of(&l, "gptq", &o) / rtn;
    o = fast(NB_ORDER_PIVOTED, NB_CLIP_WEIGHTED);
    const double pivoted = loss_of(&l, "gptq", &o) / rtn;
    o.cd_sweeps = 4;
    o.refit = true;
    const double descended = loss_of(&l, "gptq", &o) / rtn;
    o.grid.sym_range = NB_SYM_FULL;
    const double full = loss_of(&l, "gptq", &o) / rtn;
    o = layer_opts(4, true, 128, NB_EFFORT_NORMAL);
    const double normal = loss_of(&l, "gptq", &o) / rtn;
    o = layer_opts(4, true, 128, NB_EFFORT_BEST);
    const double best = loss_of(&l, "gptq", &o) / rtn;

    assert_true(rtn_clip < 0.8);
    assert_true(none < 0.6);
    assert_true(group < none);
    assert_true(by_diag < group);
    assert_true(group_clip < 0.9 * group);
    assert_true(diag_clip < 0.9 * by_diag);
    assert_true(diag_clip < group_clip * 1.02);
    assert_true(pivoted < diag_clip * 1.01);
    assert_true(descended < pivoted);
    assert_true(full < descended);
    assert_true(normal < full);
    assert_true(best < normal);
    layer_release(&l);
}

/* With a quarter of a token per column, the loss on the calibration inputs means nothing: the heavy damping
 * and the missing local search must still beat plain rounding on unseen inputs. */
static void test_few_tokens_do_no_harm(void **state)
{
    (void)state;
    struct layer l = layer_make(62, ROWS, COLS, COLS / 4, 2);
    struct nb_solve_opts o = layer_opts(4, true, 128, NB_EFFORT_BEST);
    const double rtn = loss_of(&l, "rtn", &o);
    assert_true(loss_of(&l, "gptq", &o) < 0.95 * rtn);
    layer_release(&l);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_each_step_pays_on_unseen_inputs),
        cmocka_unit_test(test_few_tokens_do_no_harm),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

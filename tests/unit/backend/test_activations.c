/* SPDX-License-Identifier: Apache-2.0
 *
 * test_activations.c - a plain activation, and gate and up side by side, give the bits of nb_gated_act; and
 * heads of which only the beginning is rotated. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "make.h"

enum { M = 300, WIDTH = 77 };

static void test_same_bits(void **state)
{
    (void)state;
    struct nb_rng rng;
    nb_rng_init(&rng, 2);
    float *x = make_normal(&rng, 2 * M * WIDTH), *gate = nb_alloc(M * WIDTH, sizeof *gate),
          *up = nb_alloc(M * WIDTH, sizeof *up), *ones = nb_alloc(M * WIDTH, sizeof *ones),
          *want = nb_alloc(M * WIDTH, sizeof *want), *y = nb_alloc(M * WIDTH, sizeof *y);
    for (int i = 0; i < M * WIDTH; i++) {
        gate[i] = x[i / WIDTH * 2 * WIDTH + i % WIDTH];
        up[i] = x[i / WIDTH * 2 * WIDTH + WIDTH + i % WIDTH];
        ones[i] = 1;
    }
    struct made made =
        make_backend("generic", 3); /* elsewhere the tail of a row rounds otherwise */
    for (int kind = NB_ACT_FN_SILU; kind <= NB_ACT_FN_RELU; kind++) {
        nb_gated_act(made.be, want, gate, up, M * WIDTH, (enum nb_act_fn)kind);
        nb_gated_act_fused(made.be, y, x, M, WIDTH, (enum nb_act_fn)kind);
        assert_memory_equal(y, want, M * WIDTH * sizeof *y);
        nb_gated_act(made.be, want, gate, ones, M * WIDTH, (enum nb_act_fn)kind);
        memcpy(y, gate, M * WIDTH * sizeof *y);
        nb_act(made.be, y, y, M * WIDTH, (enum nb_act_fn)kind);
        assert_memory_equal(y, want, M * WIDTH * sizeof *y);
    }
    make_release(&made);
    nb_free(x);
    nb_free(gate);
    nb_free(up);
    nb_free(ones);
    nb_free(want);
    nb_free(y);
}

static void test_part_of_a_head(void **state)
{
    (void)state;
    enum { T = 40, HEADS = 3, HEAD = 10, ROTARY = 6, LD = HEADS * HEAD + 1 };
    struct nb_rng rng;
    nb_rng_init(&rng, 3);
    float *x = make_normal(&rng, T * LD), *old = nb_alloc(T * LD, sizeof *old);
    float *c = make_normal(&rng, T * ROTARY / 2), *s = make_normal(&rng, T * ROTARY / 2);
    memcpy(old, x, T * LD * sizeof *x);
    struct made made = make_backend(NULL, 3);
    nb_rope_apply(made.be, &(struct nb_rope_rows){.x = x,
                                                  .m = T,
                                                  .ldx = LD,
                                                  .n_heads = HEADS,
                                                  .head_dim = HEAD,
                                                  .cos_t = c,
                                                  .sin_t = s,
                                                  .rotary_dim = ROTARY});
    for (int i = 0; i < T * LD; i++) {
        const int t = i / LD, at = i % LD, k = at % HEAD, half = ROTARY / 2;
        if (at >= HEADS * HEAD || k >= ROTARY) {
            assert_true(x[i] == old[i]);
            continue;
        }
        const int pair = k % half;
        double a = (double)old[i - k + pair], b = (double)old[i - k + pair + half];
        double cos_t = (double)c[t * half + pair], sin_t = (double)s[t * half + pair];
        double want = k < half ? a * cos_t - b * sin_t : b * cos_t + a * sin_t;
        assert_true((double)x[i] - want < 1e-5 && want - (double)x[i] < 1e-5);
    }
    make_release(&made);
    nb_free(x);
    nb_free(old);
    nb_free(c);
    nb_free(s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_same_bits),
        cmocka_unit_test(test_part_of_a_head),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

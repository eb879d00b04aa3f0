/* SPDX-License-Identifier: Apache-2.0
 *
 * test_blocks_grid.c - the solver's grids are the formats' grids: every code decodes to the solver's value, and
 * rounding takes the nearest one. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "base/rng.h"
#include "numeric/block.h"
#include "quant/blocks.h"

static const char *const types[] = {"Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K",   "Q4_0",
                                    "Q4_1", "Q5_0", "Q5_1", "Q8_0", "IQ4_NL", "IQ4_XS"};
enum { N_TYPES = sizeof types / sizeof *types };

static struct nb_qspec spec_of(const struct nb_block_grid *g)
{
    return (struct nb_qspec){.elem = {.kind = g->table ? NB_ELEM_TABLE : NB_ELEM_INT,
                                      .bits = g->bits,
                                      .vec = 1,
                                      .table = g->table},
                             .symmetric = g->lo < 0.0f};
}

static void test_shapes_are_those_of_the_hub(void **state)
{
    (void)state;
    for (int i = 0; i < N_TYPES; i++) {
        const struct nb_block_grid *g = nb_block_grid_find(types[i]);
        struct nb_qspec hub;
        assert_non_null(g);
        assert_true(nb_block_qspec(nb_block_find(types[i]), &hub));
        assert_int_equal(hub.group_cols, g->sub);
        assert_int_equal(nb_block_grid_super(g), nb_block_find(types[i])->elems);
        assert_int_equal(hub.elem.bits, g->bits);
        assert_int_equal(hub.super_groups, g->subs > 1 ? g->subs : 0);
        assert_int_equal(hub.scale_zero, g->subs > 1 ? -g->scale_lo : 0);
        assert_int_equal(hub.zero == NB_ZERO_MIN, g->min_hi > 0);
        if (g->subs > 1) assert_int_equal(g->scale_hi - g->scale_lo + 1, 1 << hub.scale_bits);
        for (int c = 0; g->table && c < 16; c++) assert_true(g->table[c] == hub.elem.table[c]);
    }
    assert_null(nb_block_grid_find("MXFP4"));
}

static float value_of(const struct nb_block_grid *g, unsigned code, float scale, float min)
{
    const struct nb_qspec spec = spec_of(g);
    const struct nb_group_params p = {.scale = scale, .zero = min};
    return g->numeric.value(&spec, code, &p);
}

static void test_rounding_takes_the_nearest(void **state)
{
    (void)state;
    struct nb_rng rng;
    nb_rng_init(&rng, 5);
    for (int i = 0; i < N_TYPES; i++) {
        const struct nb_block_grid *g = nb_block_grid_find(types[i]);
        const struct nb_qspec spec = spec_of(g);
        const unsigned first = g->bits == 8 ? 1 : 0; /* -128 is not used */
        for (int n = 0; n < 400; n++) {
            const float scale = (float)nb_rng_normal(&rng) / (g->table ? 64.0f : g->hi + 1.0f);
            const float min = g->min_hi ? (float)fabs(nb_rng_normal(&rng)) : 0.0f;
            const float w = 2.0f * (float)nb_rng_normal(&rng);
            const struct nb_lane_params lane = {&scale, &min};
            uint8_t code;
            float value;
            g->numeric.round_lanes(&spec, &w, 1, &lane, &code, &value);
            assert_true(value == value_of(g, code, scale, min));
            float best = INFINITY;
            for (unsigned c = first; c < 1u << g->bits; c++) {
                const float off = fabsf(w - value_of(g, c, scale, min));
                best = off < best ? off : best;
            }
            assert_true(fabsf(w - value) <= best + 1e-5f * (fabsf(w) + fabsf(min)));
            const struct nb_group_params p = {.scale = scale, .zero = min};
            assert_int_equal(g->numeric.nearest(&spec, w, &p), code);
            float x[NB_TILE] = {(w + min) * (1.0f / scale)}, level[NB_TILE];
            nb_block_levels(g, x, level);
            assert_true(scale * level[0] - min == value);
        }
    }
}

static void test_a_scale_of_zero_and_nan_are_harmless(void **state)
{
    (void)state;
    for (int i = 0; i < N_TYPES; i++) {
        const struct nb_block_grid *g = nb_block_grid_find(types[i]);
        const struct nb_qspec spec = spec_of(g);
        const float scale[2] = {0.0f, 1.0f}, min[2] = {0.5f, 0.0f}, w[2] = {3.0f, NAN};
        const struct nb_lane_params lanes = {scale, min};
        uint8_t code[2];
        float value[2];
        g->numeric.round_lanes(&spec, w, 2, &lanes, code, value);
        assert_true(value[0] == -0.5f);
        assert_true(code[1] == (g->bits == 8 ? 1 : 0) && isfinite(value[1]));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_shapes_are_those_of_the_hub),
        cmocka_unit_test(test_rounding_takes_the_nearest),
        cmocka_unit_test(test_a_scale_of_zero_and_nan_are_harmless),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

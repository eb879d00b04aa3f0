/* SPDX-License-Identifier: Apache-2.0
 *
 * test_scheme.c - every scheme is a spec that a matrix can have; names in any case; bits alone mean weight-only integers. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "pipeline/scheme.h"

static const char *const names[] = {"W2A16",       "W3A16",     "W4A16",   "W8A16",    "W8A8",
                                    "W8A8_STATIC", "INT8",      "NF4",     "FP4",      "FP8",
                                    "FP8_DYNAMIC", "FP8_BLOCK", "NVFP4",   "NVFP4A16", "MXFP4",
                                    "MXFP4A16",    "MXFP8",     "MXFP8A16"};

static void every_scheme_fits_a_matrix(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        const struct nb_scheme *s = nb_scheme_find(names[i]);
        assert_non_null(s);
        struct nb_qspec spec = s->spec;
        if (spec.scale_dtype == NB_SCALES_OF_FORMAT) spec.scale_dtype = NB_F16;
        struct nb_arena arena;
        nb_arena_init(&arena);
        struct nb_qmat q;
        struct nb_err err = {0};
        if (nb_qmat_init(&q, &spec, 130, 256, &arena, &err)) fail_msg("%s: %s", names[i], err.text);
        assert_true(q.n_groups >= 1 && q.n_groups <= 16);
        nb_arena_release(&arena);
    }
}

static void groups_are_those_of_the_format(void **state)
{
    (void)state;
    struct nb_arena arena;
    nb_arena_init(&arena);
    struct nb_qmat q;
    struct nb_err err = {0};
    assert_int_equal(nb_qmat_init(&q, &nb_scheme_find("FP8")->spec, 300, 256, &arena, &err), 0);
    assert_int_equal(nb_qmat_planes(&q), 1);
    assert_int_equal(nb_qmat_init(&q, &nb_scheme_find("FP8_BLOCK")->spec, 300, 256, &arena, &err),
                     0);
    assert_int_equal(nb_qmat_planes(&q), 3 * 2);
    assert_int_equal(nb_qmat_init(&q, &nb_scheme_find("NVFP4")->spec, 300, 256, &arena, &err), 0);
    assert_int_equal(nb_qmat_planes(&q), 300 * 16);
    assert_int_equal(nb_qmat_supers(&q), 1);
    assert_int_equal(nb_qmat_init(&q, &nb_scheme_find("NF4")->spec, 3, 96, &arena, &err), 0);
    assert_true(q.spec.flat);
    assert_int_equal(nb_qmat_planes(&q), 5); /* 288 weights in blocks of 64 */
    nb_arena_release(&arena);
}

static void names_are_found_in_any_case(void **state)
{
    (void)state;
    assert_ptr_equal(nb_scheme_find("nf4"), nb_scheme_find("NF4"));
    assert_ptr_equal(nb_scheme_find("w4a16"), nb_scheme_of_bits(4));
    assert_null(nb_scheme_find("NF"));
    assert_null(nb_scheme_of_bits(5));
    assert_string_equal(nb_scheme_of_bits(8)->name, "W8A16");
    struct nb_strbuf list;
    nb_strbuf_init(&list);
    nb_scheme_list(&list);
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        assert_non_null(strstr(nb_strbuf_cstr(&list), names[i]));
    nb_strbuf_release(&list);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_scheme_fits_a_matrix),
        cmocka_unit_test(groups_are_those_of_the_format),
        cmocka_unit_test(names_are_found_in_any_case),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

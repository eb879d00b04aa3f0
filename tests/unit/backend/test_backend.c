/* SPDX-License-Identifier: Apache-2.0
 *
 * test_backend.c - choosing a level: by parameter, by environment, unknown, absent;
 * descriptions. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "backend/cpu/features.h"
#include "make.h"

static void test_levels(void **state)
{
    (void)state;
    const char *const *levels = make_levels();
    assert_string_equal(levels[0], "generic");
    for (int i = 0; levels[i]; i++) {
        struct made m = make_backend(levels[i], 3);
        char text[256];
        nb_backend_describe(m.be, text, sizeof text);
        assert_non_null(strstr(text, levels[i]));
        assert_non_null(strstr(text, "3 threads"));
        assert_ptr_equal(nb_backend_pool(m.be), m.pool);
        make_release(&m);
    }
}

static void test_unknown_level(void **state)
{
    (void)state;
    struct nb_backend *be;
    struct nb_err err = {0};
    assert_int_equal(nb_backend_new(&be, NULL, "sse9", &err), NB_E_USAGE);
    assert_string_equal(err.text,
                        "CPU level 'sse9' is not known, expected one of: generic, avx2, avx512");
    assert_null(be);
}

static void test_environment(void **state)
{
    (void)state;
    struct nb_err err = {0};
    struct nb_backend *be;
    char text[256];
    const char *before = getenv("NB_CPU");
    char *saved = before ? strdup(before) : NULL;
    setenv("NB_CPU", "generic", 1);
    if (nb_backend_new(&be, NULL, NULL, &err)) fail_msg("%s", err.text);
    nb_backend_describe(be, text, sizeof text);
    assert_non_null(strstr(text, "cpu (generic)"));
    nb_backend_free(be);
    setenv("NB_CPU", "nonsense", 1);
    assert_int_equal(nb_backend_new(&be, NULL, "", &err), NB_E_USAGE);
    assert_int_equal(nb_backend_new(&be, NULL, "generic", &err), 0); /* the parameter wins */
    nb_backend_free(be);
    if (saved) {
        setenv("NB_CPU", saved, 1);
    } else {
        unsetenv("NB_CPU");
    }
    free(saved);
}

static void test_lowering(void **state)
{
    (void)state;
    struct nb_err err = {0};
    unsigned have = nb_cpu_detect(), features;
    assert_int_equal(nb_cpu_choose(&features, NULL, &err), 0);
    assert_int_equal(features, have);
    assert_int_equal(nb_cpu_choose(&features, "generic", &err), 0);
    assert_int_equal(features, 0);
    if (have & NB_CPU_AVX2) {
        assert_int_equal(nb_cpu_choose(&features, "avx2", &err), 0);
        assert_int_equal(features, NB_CPU_AVX2);
    } else {
        assert_int_equal(nb_cpu_choose(&features, "avx2", &err), NB_E_SPEC);
    }
    char text[64];
    nb_cpu_describe(NB_CPU_AVX2 | NB_CPU_AVX512, text, sizeof text);
    assert_string_equal(text, "avx2 avx512");
    nb_cpu_describe(0, text, sizeof text);
    assert_string_equal(text, "generic");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_levels),
        cmocka_unit_test(test_unknown_level),
        cmocka_unit_test(test_environment),
        cmocka_unit_test(test_lowering),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

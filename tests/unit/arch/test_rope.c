/* SPDX-License-Identifier: Apache-2.0
 *
 * test_rope.c - frequencies and windows of tests/golden/rope.json, as the reference computes them;
 * bad configs. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "arch/arch.h"
#include "support/folder.h"

static void check_values(const struct nb_arch *arch, const struct nb_rope *rope, int64_t length,
                         const json_t *want, double want_scaling)
{
    double inv_freq[64], scaling;
    nb_rope_frequencies(arch, rope, length, inv_freq, &scaling);
    assert_int_equal(json_array_size(want), arch->rotary_dim / 2);
    for (size_t i = 0; i < json_array_size(want); i++) {
        double w = json_number_value(json_array_get(want, i));
        assert_true(fabs(inv_freq[i] - w) <= 6e-7 * w);
        assert_true((double)(float)inv_freq[i] == inv_freq[i]);
    }
    assert_true(fabs(scaling - want_scaling) <= 1e-12 * want_scaling);
}

static void check_case(const json_t *one)
{
    struct nb_err err = {0};
    struct nb_arch arch;
    if (nb_arch_from_config(&arch, json_object_get(one, "config"), &err)) fail_msg("%s", err.text);
    int64_t length = json_integer_value(json_object_get(one, "length"));
    const json_t *local = json_object_get(one, "local"), *window = json_object_get(one, "window");
    check_values(&arch, &arch.rope, length, json_object_get(one, "inv_freq"),
                 json_number_value(json_object_get(one, "scaling")));
    assert_int_equal(arch.local_rope, local != NULL);
    if (local) {
        check_values(&arch, &arch.rope_local, length, local,
                     json_number_value(json_object_get(one, "local_scaling")));
    }
    for (int64_t l = 0; l < arch.n_layers; l++) {
        assert_int_equal(arch.window[l], json_integer_value(json_array_get(window, (size_t)l)));
    }
    nb_arch_release(&arch);
}

static void test_reference_values(void **state)
{
    (void)state;
    struct nb_err err = {0};
    char *path = source_path("tests/golden/rope.json");
    json_t *cases = nb_json_load(path, 1 << 20, &err);
    if (!cases) fail_msg("%s", err.text);
    assert_true(json_array_size(cases) > 20);
    for (size_t i = 0; i < json_array_size(cases); i++) check_case(json_array_get(cases, i));
    json_decref(cases);
    free(path);
}

static const struct {
    const char *extra; /* keys added to a good config */
    int status;
    const char *text;
} bad[] = {
    {"\"rope_scaling\": {\"type\": \"mrope\", \"factor\": 2}", NB_E_SPEC,
     "config.json: rope_type 'mrope' is not known, expected one of: default, linear, dynamic, "
     "llama3, yarn, longrope"},
    {"\"rope_scaling\": {\"type\": \"longrope\", \"factor\": 2}", NB_E_FORMAT,
     "config.json: rope parameter 'short_factor': expected a list of 8 numbers, one for every two "
     "rotated dimensions, found 0"},
    {"\"rope_scaling\": {\"type\": \"longrope\", \"short_factor\": [1,1,1,1,1,1,1,1], "
     "\"long_factor\": [1,1,1,1,0,1,1,1]}",
     NB_E_FORMAT, "config.json: rope parameter 'long_factor': expected positive numbers, found 0"},
    {"\"rope_scaling\": {\"type\": \"longrope\", \"short_factor\": [1,1,1,1,1,1,1,1], "
     "\"long_factor\": [1,1,1,\"1\",1,1,1,1]}",
     NB_E_FORMAT, "config.json: rope parameter 'long_factor': expected positive numbers, found 0"},
    {"\"rope_scaling\": {\"type\": \"longrope\", \"original_max_position_embeddings\": 1}",
     NB_E_FORMAT,
     "config.json: rope parameter 'original_max_position_embeddings': expected 2 or more, found 1"},
    {"\"rope_scaling\": {\"type\": \"linear\"}", NB_E_FORMAT,
     "config.json: rope parameter 'factor' is missing"},
    {"\"rope_scaling\": {\"type\": \"linear\", \"factor\": 0}", NB_E_FORMAT,
     "config.json: rope parameter 'factor': expected a positive number, found 0"},
    {"\"rope_scaling\": {\"type\": \"linear\", \"factor\": \"2\"}", NB_E_FORMAT,
     "config.json: key 'factor': expected a number, found a string"},
    {"\"rope_scaling\": [1]", NB_E_FORMAT,
     "config.json: key 'rope_scaling': expected an object, found an array"},
    {"\"rope_theta\": 0", NB_E_FORMAT,
     "config.json: rope parameter 'rope_theta': expected a number above 1, found 0"},
    {"\"rope_theta\": 1e300", NB_E_FORMAT,
     "config.json: rope parameter 'rope_theta': expected a number above 1, found 1e+300"},
    {"\"partial_rotary_factor\": 0.5", NB_E_SPEC,
     "config.json: partial_rotary_factor 0.5 is not supported, expected 1"},
    {"\"rope_scaling\": {\"type\": \"llama3\", \"factor\": 8, \"low_freq_factor\": 4, \"high_freq_factor\": 4}",
     NB_E_FORMAT,
     "config.json: rope parameter 'high_freq_factor': expected another value than low_freq_factor, found 4"},
    {"\"rope_scaling\": {\"type\": \"yarn\", \"factor\": 8, \"beta_slow\": -1}", NB_E_FORMAT,
     "config.json: rope parameter 'beta_slow': expected a positive number, found -1"},
    {"\"rope_scaling\": {\"type\": \"yarn\", \"factor\": 8, \"mscale\": -9, \"mscale_all_dim\": 1}",
     NB_E_FORMAT, NULL},
    {"\"rope_scaling\": {\"type\": \"yarn\", \"factor\": 8, \"original_max_position_embeddings\": 1.5}",
     NB_E_FORMAT,
     "config.json: rope parameter 'original_max_position_embeddings': expected an integer, found 1.5"},
};

static void test_bad_parameters(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct nb_err err = {0};
        struct nb_arch arch;
        struct nb_strbuf text;
        nb_strbuf_init(&text);
        nb_strbuf_printf(
            &text,
            "{\"model_type\": \"llama\", \"vocab_size\": 100, \"hidden_size\": 64, "
            "\"intermediate_size\": 64, \"num_hidden_layers\": 2, \"num_attention_heads\": 4, %s}",
            bad[i].extra);
        json_t *config = nb_json_parse(text.data, text.len, NB_JSON_MAX_DEPTH, "test", &err);
        assert_non_null(config);
        assert_int_equal(nb_arch_from_config(&arch, config, &err), bad[i].status);
        if (bad[i].text) assert_string_equal(err.text, bad[i].text);
        json_decref(config);
        nb_strbuf_release(&text);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_reference_values),
        cmocka_unit_test(test_bad_parameters),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* SPDX-License-Identifier: Apache-2.0
 *
 * test_recipe.c - options against a model: what is chosen, and what is refused before any work. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "nibble/version.h"
#include "pipeline/recipe.h"

static struct nb_model model;
static struct nb_quantize_opts opts;
static struct nb_recipe recipe;
static struct nb_err err;

/* Two layers with two linears each. */
static int setup(void **state)
{
    (void)state;
    static const struct nb_arch_linear linears[] = {
        {.role = NB_ROLE_Q,
         .input = NB_INPUT_ATTN,
         .name = "self_attn.q_proj",
         .rows = 64,
         .cols = 256},
        {.role = NB_ROLE_DOWN,
         .input = NB_INPUT_DOWN,
         .name = "mlp.down_proj",
         .rows = 256,
         .cols = 512},
    };
    memset(&model, 0, sizeof model);
    struct nb_arch *a = &model.arch;
    a->n_layers = a->n_linears = 2;
    a->max_position = 1024;
    memcpy(a->linears, linears, sizeof linears);
    memcpy(a->layer_prefix, "model.layers.%d.", sizeof "model.layers.%d.");
    nb_quantize_defaults(&opts);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    nb_recipe_release(&recipe);
    return 0;
}

static void make(void)
{
    nb_recipe_release(&recipe);
    if (nb_recipe_make(&recipe, &opts, &model, NULL, &err)) fail_msg("%s", err.text);
}

static void refused(int status, const char *text)
{
    nb_recipe_release(&recipe);
    assert_int_equal(nb_recipe_make(&recipe, &opts, &model, NULL, &err), status);
    assert_string_equal(err.text, text);
    setup(NULL);
}

static void defaults(void **state)
{
    (void)state;
    make();
    assert_string_equal(recipe.checkpoint->name, "gptq");
    assert_int_equal(recipe.n_modules, 4);
    assert_int_equal(recipe.n_quantized, 4);
    assert_int_equal(recipe.solve.grid.spec.elem.bits, 4);
    assert_int_equal(recipe.solve.grid.spec.group_cols, 128);
    assert_true(recipe.solve.grid.spec.symmetric);
    assert_int_equal(recipe.n_samples, 128);
    assert_int_equal(recipe.seqlen, 1024); /* the context is below 2048 */
    assert_true(recipe.calibrates);
    assert_string_equal(nb_recipe_module(&recipe, &model.arch, 1, 1)->path,
                        "model.layers.1.mlp.down_proj");
    assert_string_equal(recipe.producer, "nibble:" NB_VERSION);
}

static void methods(void **state)
{
    (void)state;
    static const struct {
        const char *method, *solver;
        bool awq;
    } cases[] = {{"rtn", "rtn", false},
                 {"gptq", "gptq", false},
                 {"awq", "rtn", true},
                 {"awq+gptq", "gptq", true}};
    for (size_t i = 0; i < 4; i++) {
        opts.method = cases[i].method;
        make();
        assert_string_equal(recipe.method, cases[i].method);
        assert_string_equal(recipe.solver->name, cases[i].solver);
        assert_int_equal(recipe.awq, cases[i].awq);
    }
    opts.method = "rtn";
    opts.clip = "none";
    make();
    assert_false(recipe.calibrates);
    setup(NULL);
    opts.method = "none";
    make();
    assert_null(recipe.solver);
    assert_string_equal(recipe.checkpoint->name, "dense");
    assert_int_equal(recipe.n_quantized, 0);
}

static void unknown_words(void **state)
{
    (void)state;
    opts.method = "gqtp";
    nb_recipe_make(&recipe, &opts, &model, NULL, &err);
    assert_int_equal(err.status, NB_E_USAGE);
    assert_memory_equal(err.text, "method 'gqtp' is unknown; known: ", 33);
    setup(NULL);
    opts.effort = "much";
    refused(NB_E_USAGE, "effort 'much' is unknown; known: fast, normal, max");
    opts.clip = "x";
    refused(NB_E_USAGE, "clip 'x' is unknown; known: none, mse, weighted");
    opts.format = "zip";
    nb_recipe_make(&recipe, &opts, &model, NULL, &err);
    assert_int_equal(err.status, NB_E_USAGE);
    setup(NULL);
    opts.format = "dense";
    nb_recipe_make(&recipe, &opts, &model, NULL, &err);
    assert_int_equal(err.status, NB_E_SPEC);
}

static void numbers_out_of_range(void **state)
{
    (void)state;
    opts.bits = 5;
    refused(NB_E_USAGE, "5 bits are not possible; possible: 2, 3, 4, 8");
    opts.group = -5;
    refused(NB_E_USAGE, "groups of -5 are not possible; give a size, or -1 for one group per row");
    opts.damp = 1;
    refused(NB_E_USAGE, "damping 1 is not in [0, 1)");
    opts.damp = NAN;
    nb_recipe_release(&recipe);
    assert_int_equal(nb_recipe_make(&recipe, &opts, &model, NULL, &err), NB_E_USAGE);
    setup(NULL);
    opts.gptaq_alpha = INFINITY;
    refused(NB_E_USAGE, "gptaq alpha inf is not a finite number");
    opts.calib.seqlen = 2000;
    nb_recipe_release(&recipe);
    assert_int_equal(nb_recipe_make(&recipe, &opts, &model, NULL, &err), NB_E_USAGE);
    assert_non_null(strstr(err.text, "tokens 2 to 1024"));
    setup(NULL);
    opts.group = 100; /* does not divide 256 */
    nb_recipe_release(&recipe);
    assert_int_equal(nb_recipe_make(&recipe, &opts, &model, NULL, &err), NB_E_SPEC);
    assert_memory_equal(err.text, "model.layers.0.self_attn.q_proj: ", 33);
}

static void patterns_choose_modules(void **state)
{
    (void)state;
    static const char *const ignore[] = {"*.down_proj", "lm_head"}, *const include[] = {
                                                                        "model.layers.1.*"};
    static const struct nb_bits_for bits[] = {{"*layers.0.self*", 8}, {"*", 3}};
    opts.ignore = ignore;
    opts.n_ignore = 2;
    opts.include = include;
    opts.n_include = 1;
    opts.bits_for = bits;
    opts.n_bits_for = 2;
    make();
    static const int want[4] = {8, 0, 3, 3}; /* 0: float */
    for (int i = 0; i < 4; i++) {
        assert_int_equal(recipe.modules[i].quantized, want[i] != 0);
        if (want[i]) assert_int_equal(recipe.modules[i].spec.elem.bits, want[i]);
    }
    json_t *exceptions = json_object_get(recipe.json, "exceptions");
    assert_int_equal(json_object_size(exceptions), 4);
    assert_string_equal(
        json_string_value(json_object_get(exceptions, "model.layers.0.mlp.down_proj")), "float");
}

/* A typing error must not silently give another model. */
static void pattern_without_effect(void **state)
{
    (void)state;
    static const struct nb_bits_for bits[] = {{"*.down_prj", 8}};
    opts.bits_for = bits;
    opts.n_bits_for = 1;
    refused(NB_E_USAGE, "--bits-for '*.down_prj=8' matches none of the 4 linears (the first is "
                        "model.layers.0.self_attn.q_proj)");
    static const char *const all[] = {"*"};
    opts.ignore = all;
    opts.n_ignore = 1;
    refused(NB_E_SPEC, "no linear is left to quantize: --ignore matches all 4");
}

/* AWQ has one width for all: known before hours of work, not after them. */
static void what_the_format_cannot_say(void **state)
{
    (void)state;
    static const struct nb_bits_for bits[] = {{"*down_proj", 8}};
    opts.format = "awq";
    opts.bits_for = bits;
    opts.n_bits_for = 1;
    nb_recipe_release(&recipe);
    assert_int_equal(nb_recipe_make(&recipe, &opts, &model, NULL, &err), NB_E_SPEC);
    setup(NULL);
    opts.format = "awq";
    opts.order = NB_ORDER_DYNAMIC;
    nb_recipe_release(&recipe);
    assert_int_equal(nb_recipe_make(&recipe, &opts, &model, NULL, &err), NB_E_SPEC);
    assert_non_null(strstr(err.text, "needs g_idx"));
}

/* Each option that reaches the bytes changes the JSON that the journal compares. */
static void json_names_every_choice(void **state)
{
    (void)state;
    make();
    json_t *base = json_deep_copy(recipe.json);
    static const struct nb_bits_for bits[] = {{"*", 8}};
    for (int i = 0; i < 13; i++) {
        setup(NULL);
        if (i == 0) opts.method = "rtn";
        if (i == 1) opts.format = "gptq_v2";
        if (i == 2) opts.bits = 8;
        if (i == 3) opts.group = 64;
        if (i == 4) opts.sym = 0;
        if (i == 5) opts.order = NB_ORDER_DYNAMIC;
        if (i == 6) opts.damp = 0.02;
        if (i == 7) opts.clip = "none";
        if (i == 8) opts.gptaq_alpha = 0.25;
        if (i == 9) opts.calib.n_samples = 7;
        if (i == 10) opts.calib.seed = 1;
        if (i == 11) opts.max_shard_bytes = 1000;
        if (i == 12) opts.bits_for = bits, opts.n_bits_for = 1;
        make();
        if (json_equal(base, recipe.json)) fail_msg("choice %d is not in the recipe", i);
    }
    setup(NULL);
    opts.memory_bytes = 1 << 30; /* changes no byte */
    opts.restart = opts.overwrite = true;
    make();
    assert_true(json_equal(base, recipe.json));
    json_decref(base);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(defaults, setup, teardown),
        cmocka_unit_test_setup_teardown(methods, setup, teardown),
        cmocka_unit_test_setup_teardown(unknown_words, setup, teardown),
        cmocka_unit_test_setup_teardown(numbers_out_of_range, setup, teardown),
        cmocka_unit_test_setup_teardown(patterns_choose_modules, setup, teardown),
        cmocka_unit_test_setup_teardown(pattern_without_effect, setup, teardown),
        cmocka_unit_test_setup_teardown(what_the_format_cannot_say, setup, teardown),
        cmocka_unit_test_setup_teardown(json_names_every_choice, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

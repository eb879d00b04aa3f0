/* SPDX-License-Identifier: Apache-2.0
 *
 * test_quantize_options.c - words of `nibble quantize` to the pipeline's options; other tools' configs. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/file.h"
#include "base/mem.h"
#include "cli/quantize_options.h"
#include "support/folder.h"

static struct nb_quantize_plan plan;
static struct nb_err err;

static struct nb_quantize_words words(void)
{
    struct nb_quantize_words w = nb_quantize_words_defaults;
    w.out = "out";
    return w;
}

static void good(const struct nb_quantize_words *w)
{
    memset(&err, 0, sizeof err);
    if (nb_quantize_plan_make(&plan, w, &err)) fail_msg("%s", err.text);
}

static void bad(const struct nb_quantize_words *w, int status, const char *text)
{
    assert_int_equal(nb_quantize_plan_make(&plan, w, &err), status);
    assert_string_equal(err.text, text);
    nb_quantize_plan_release(&plan);
}

static void test_defaults(void **state)
{
    (void)state;
    struct nb_quantize_words w = words();
    struct nb_quantize_opts d;
    nb_quantize_defaults(&d);
    good(&w);
    const struct nb_quantize_opts *q = &plan.opts;
    assert_string_equal(q->out_dir, "out");
    assert_null(q->method);
    assert_null(q->format);
    assert_int_equal(q->bits, 0);
    assert_int_equal(q->group, 0);
    assert_int_equal(q->sym, d.sym);
    assert_int_equal(q->order, d.order);
    assert_true(q->gptaq_alpha == d.gptaq_alpha);
    assert_int_equal(q->calib.n_sources, 0);
    nb_quantize_plan_release(&plan);
}

static void test_words(void **state)
{
    (void)state;
    struct nb_quantize_words w = words();
    w.method = "awq";
    w.bits = 3;
    w.group = -1;
    w.asym = true;
    w.order = 3;
    w.memory = 4096;
    w.calib = (struct nb_option_list){{"chat.jsonl:0.7", "code.txt", "odd:name"}, 3};
    w.bits_for = (struct nb_option_list){{"*.down_proj=8", "a=b=2"}, 2};
    w.ignore = (struct nb_option_list){{"*.0.*"}, 1};
    good(&w);
    const struct nb_quantize_opts *q = &plan.opts;
    assert_string_equal(q->method, "awq");
    assert_int_equal(q->bits, 3);
    assert_int_equal(q->group, -1);
    assert_int_equal(q->sym, 0);
    assert_int_equal(q->order, NB_ORDER_GROUP);
    assert_int_equal(q->memory_bytes, 4096);
    assert_int_equal(q->calib.n_sources, 3);
    assert_string_equal(q->calib.sources[0].path, "chat.jsonl");
    assert_true(q->calib.sources[0].weight == 0.7);
    assert_string_equal(q->calib.sources[1].path, "code.txt");
    assert_true(q->calib.sources[1].weight == 1);
    assert_string_equal(q->calib.sources[2].path, "odd:name");
    assert_int_equal(q->n_bits_for, 2);
    assert_string_equal(q->bits_for[0].glob, "*.down_proj");
    assert_int_equal(q->bits_for[0].bits, 8);
    assert_string_equal(q->bits_for[1].glob, "a=b");
    assert_int_equal(q->n_ignore, 1);
    assert_string_equal(q->ignore[0], "*.0.*");
    nb_quantize_plan_release(&plan);
}

static void test_wrong_words(void **state)
{
    (void)state;
    struct nb_quantize_words w = words();
    w.out = NULL;
    bad(&w, NB_E_USAGE, "the output folder is missing");
    w = words();
    w.sym = w.asym = true;
    bad(&w, NB_E_USAGE, "options '--sym' and '--asym' exclude each other");
    w = words();
    w.gate = "ratio=1";
    w.no_gate = true;
    bad(&w, NB_E_USAGE, "options '--gate' and '--no-gate' exclude each other");
    w = words();
    w.calib = (struct nb_option_list){{"a.txt:0"}, 1};
    bad(&w, NB_E_USAGE, "option '--calib': the weight of 'a.txt:0' must be above 0");
    const char *wrong[] = {"x", "x=", "=4", "x=4b", "x=99"};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        char text[80];
        snprintf(text, sizeof text, "option '--bits-for': expected GLOB=BITS, found '%s'",
                 wrong[i]);
        w = words();
        w.bits_for = (struct nb_option_list){{wrong[i]}, 1};
        bad(&w, NB_E_USAGE, text);
    }
}

static void test_scheme(void **state)
{
    (void)state;
    struct nb_quantize_words w = words();
    w.scheme = "NF4";
    w.single_quant = true;
    w.storage = "bfloat16";
    good(&w);
    assert_string_equal(plan.opts.scheme, "NF4");
    assert_int_equal(plan.opts.double_quant, 0);
    assert_string_equal(plan.opts.storage, "bfloat16");
    nb_quantize_plan_release(&plan);
    w = words();
    good(&w);
    assert_null(plan.opts.scheme);
    assert_int_equal(plan.opts.double_quant, -1);
    nb_quantize_plan_release(&plan);
    w.target_bits = 4.5;
    w.target_kld = 0.02;
    bad(&w, NB_E_USAGE,
        "options '--target-size', '--target-bits' and '--target-kld' exclude each other");
}

/* Writes text as a config, returns its path (nb_free). */
static char *config(const char *folder, const char *text)
{
    folder_text(folder, "config.json", text);
    return nb_path_join(folder, "config.json");
}

static void test_gptq_config(void **state)
{
    (void)state;
    char *folder = folder_make();
    struct nb_quantize_words w = words();
    char *path = config(
        folder, "{\"bits\": 8, \"group_size\": 64, \"damp_percent\": 0.05, \"desc_act\": true,"
                " \"static_groups\": false, \"sym\": false, \"true_sequential\": true}");
    w.config = path;
    good(&w);
    assert_string_equal(plan.opts.method, "gptq");
    assert_string_equal(plan.opts.format, "gptq");
    assert_int_equal(plan.opts.bits, 8);
    assert_int_equal(plan.opts.group, 64);
    assert_int_equal(plan.opts.sym, 0);
    assert_int_equal(plan.opts.order, NB_ORDER_DYNAMIC);
    assert_true(plan.opts.damp == 0.05);
    nb_quantize_plan_release(&plan);
    w.bits = 3; /* what is typed wins */
    good(&w);
    assert_int_equal(plan.opts.bits, 3);
    nb_quantize_plan_release(&plan);
    nb_free(path);
    folder_remove(folder);
}

static void test_awq_config(void **state)
{
    (void)state;
    char *folder = folder_make();
    struct nb_quantize_words w = words();
    char *path =
        config(folder, "{\"quantization_config\": {\"zero_point\": true, \"q_group_size\": 128,"
                       " \"w_bit\": 4, \"version\": \"GEMM\", \"quant_method\": \"awq\"}}");
    w.config = path;
    good(&w);
    assert_string_equal(plan.opts.method, "awq");
    assert_string_equal(plan.opts.format, "awq");
    assert_int_equal(plan.opts.bits, 4);
    assert_int_equal(plan.opts.group, 128);
    assert_int_equal(plan.opts.sym, 0);
    nb_quantize_plan_release(&plan);
    nb_free(path);
    folder_remove(folder);
}

static void test_bad_config(void **state)
{
    (void)state;
    char *folder = folder_make(), text[512];
    struct nb_quantize_words w = words();
    char *path = config(folder, "{\"bits\": \"four\"}");
    w.config = path;
    snprintf(text, sizeof text, "%s: key 'bits': expected an integer, found a string", path);
    bad(&w, NB_E_FORMAT, text);
    nb_free(config(folder, "{\"bits\": 4, \"group_size\": -7}"));
    snprintf(text, sizeof text, "%s: 4 bits in groups of -7 are not possible", path);
    bad(&w, NB_E_FORMAT, text);
    nb_free(config(folder, "[1]"));
    snprintf(text, sizeof text, "%s: expected an object, found an array", path);
    bad(&w, NB_E_FORMAT, text);
    nb_free(path);
    folder_remove(folder);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_defaults),    cmocka_unit_test(test_words),
        cmocka_unit_test(test_wrong_words), cmocka_unit_test(test_scheme),
        cmocka_unit_test(test_gptq_config), cmocka_unit_test(test_awq_config),
        cmocka_unit_test(test_bad_config),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

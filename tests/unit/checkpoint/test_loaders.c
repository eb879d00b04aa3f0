/* SPDX-License-Identifier: Apache-2.0
 *
 * test_loaders.c - the table of loaders: what our notes on the formats say comes out of it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "checkpoint/loaders.h"
#include "support/folder.h"
#include "support/tiny_model.h"

enum { N = 4 };

static struct nb_loader_verdict verdicts[NB_MAX_LOADERS];

static const struct nb_loader_verdict *of(const char *loader, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (!strcmp(verdicts[i].loader, loader)) return &verdicts[i];
    fail_msg("no verdict of %s", loader);
    return NULL;
}

/* One layer of hidden size `hidden`, MLP `mlp`, all linears alike. */
static size_t ask(const char *format, const struct nb_qspec *spec, int64_t hidden, int64_t mlp)
{
    struct nb_loader_linear l[N] = {
        {.name = "q_proj", .rows = hidden, .cols = hidden, .input = NB_INPUT_ATTN, .expert = -1},
        {.name = "o_proj", .rows = hidden, .cols = hidden, .input = NB_INPUT_O, .expert = -1},
        {.name = "up_proj", .rows = mlp, .cols = hidden, .input = NB_INPUT_MLP, .expert = -1},
        {.name = "down_proj", .rows = hidden, .cols = mlp, .input = NB_INPUT_DOWN, .expert = -1},
    };
    for (int i = 0; i < N; i++) l[i].spec = *spec;
    const struct nb_loader_query q = {
        .format = format, .dtype = NB_BF16, .n_heads = 32, .linears = l, .n_linears = N};
    return nb_loaders_ask(&q, verdicts);
}

static void test_gptq(void **state)
{
    (void)state;
    struct nb_qspec spec = tiny_spec(4, 128, true);
    size_t n = ask("gptq", &spec, 4096, 11008);
    const struct nb_loader_verdict *v = of("vLLM (2026)", n);
    assert_true(v->loads && !v->slow);
    assert_string_equal(v->kernel, "Marlin");
    assert_true(v->parallel[0]); /* 11008 / 2 = 5504 = 43 * 128 */
    assert_false(v->parallel[1]);
    assert_non_null(strstr(v->parallel_reason, "4: down_proj: 2752 inputs per GPU"));
    spec = tiny_spec(4, 64, true);
    n = ask("gptq", &spec, 4096, 11008);
    assert_true(
        of("vLLM (2026)", n)->parallel[1]); /* it pads 2752 = 43 * 64, the older one does not */
    assert_false(of("vLLM (2024-25)", n)->parallel[1]);
    spec = tiny_spec(4, 128, true);
    n = ask("gptq", &spec, 4096, 11008);
    assert_true(of("GPTQModel", n)->loads);
    assert_false(of("TensorRT-LLM", n)->loads);
    assert_false(of("llama.cpp", n)->loads);

    spec = tiny_spec(4, 128, false); /* section 7.4, 4 */
    n = ask("gptq", &spec, 4096, 11008);
    assert_false(of("vLLM (2026)", n)->loads);
    assert_non_null(strstr(of("vLLM (2026)", n)->reason, "symmetric"));
    assert_false(of("GPTQModel", n)->loads); /* asymmetric v1 from others, section 2.3 */
    n = ask("gptq_v2", &spec, 4096, 11008);
    assert_true(of("GPTQModel", n)->loads);

    spec = tiny_spec(3, 128, true);
    n = ask("gptq", &spec, 4096, 11008);
    assert_false(of("vLLM (2026)", n)->loads);
    assert_true(of("transformers", n)->loads);
}

static void test_awq_and_shapes(void **state)
{
    (void)state;
    struct nb_qspec spec = tiny_spec(4, 128, false);
    size_t n = ask("awq", &spec, 4096, 8192);
    const struct nb_loader_verdict *v = of("vLLM (2026)", n);
    assert_true(v->loads && v->parallel[0] && v->parallel[1] && v->parallel[2]);
    assert_string_equal(v->parallel_reason, "");
    spec = tiny_spec(4, 256, true);
    n = ask("gptq", &spec, 4096, 8192);
    assert_false(of("vLLM (2026)", n)->loads);
    assert_non_null(strstr(of("vLLM (2026)", n)->reason, "groups of 256"));
}

static void test_others(void **state)
{
    (void)state;
    struct nb_qspec spec = {
        .elem = {.kind = NB_ELEM_FLOAT, .bits = 8, .exp = 4, .man = 3, .vec = 1},
        .group_rows = 128,
        .group_cols = 128,
        .scale_dtype = NB_F32,
        .act = NB_ACT_FP8_GROUP,
        .act_group = 128};
    size_t n = ask("fp8", &spec, 4096, 8192);
    assert_true(of("vLLM (2026)", n)->loads && of("transformers", n)->loads);
    assert_true(of("TensorRT-LLM", n)->loads);
    spec.act = NB_ACT_FP8_STATIC; /* transformers' class is for blocks only, section 6.2 */
    n = ask("fp8", &spec, 4096, 8192);
    assert_false(of("transformers", n)->loads);

    spec = (struct nb_qspec){.elem = {.kind = NB_ELEM_TABLE, .bits = 4, .vec = 1},
                             .group_rows = 1,
                             .group_cols = 64,
                             .flat = true,
                             .scale_dtype = NB_F32};
    n = ask("bnb", &spec, 4096, 8192);
    const struct nb_loader_verdict *v = of("vLLM (2026)", n);
    assert_true(v->loads && v->slow && !v->parallel[0]);
    assert_non_null(strstr(v->parallel_reason, "one GPU"));
}

/* Rows of a loader stand together, and each says what it needs. */
static void test_table(void **state)
{
    (void)state;
    size_t loaders = 0;
    for (const struct nb_loader_row *r = nb_loader_rows; r->loader; r++) {
        const bool next = r == nb_loader_rows || strcmp(r->loader, r[-1].loader);
        loaders += next;
        for (const struct nb_loader_row *b = nb_loader_rows; next && b < r; b++)
            assert_string_not_equal(b->loader, r->loader);
        assert_true(r->formats && r->kernel && r->device && r->source && r->groups);
        assert_true(r->acts || r->kind == NB_LOADER_BLOCKS);
    }
    assert_true(loaders > 3 && loaders <= NB_MAX_LOADERS);
}

static void test_float_model_has_none(void **state)
{
    (void)state;
    char *dir = folder_make();
    struct nb_err err = {0};
    struct nb_model *m;
    struct nb_loader_query q;
    struct nb_loader_linear *linears;
    tiny_write(dir, &(struct tiny_opts){0});
    assert_int_equal(nb_model_open(&m, dir, &err), 0);
    assert_int_equal(nb_loader_query_of(&q, &linears, m, &err), 0);
    assert_int_equal(q.n_linears, 0);
    nb_free(linears);
    nb_model_close(m);
    folder_remove(dir);
}

static void test_one_line(void **state)
{
    (void)state;
    struct nb_qspec spec = tiny_spec(4, 128, true);
    const size_t n = ask("gptq", &spec, 4096, 8192);
    struct nb_strbuf b;
    nb_strbuf_init(&b);
    nb_loader_describe(of("vLLM (2026)", n), &b);
    assert_string_equal(nb_strbuf_cstr(&b),
                        "yes, kernel Marlin (GPU 7.5 and newer); tensor parallel 2, 4, 8");
    nb_strbuf_release(&b);
    nb_strbuf_init(&b);
    nb_loader_describe(of("llama.cpp", n), &b);
    assert_string_equal(nb_strbuf_cstr(&b), "no: does not read format gptq");
    nb_strbuf_release(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_gptq),
        cmocka_unit_test(test_awq_and_shapes),
        cmocka_unit_test(test_others),
        cmocka_unit_test(test_table),
        cmocka_unit_test(test_float_model_has_none),
        cmocka_unit_test(test_one_line),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "checkpoint/gguf_types.h"
#include "numeric/block.h"

static const struct nb_block_type *type(const char *name)
{
    return nb_block_find(name);
}

static void test_presets(void **state)
{
    (void)state;
    char names[400];
    assert_string_equal(nb_gguf_preset_find("q4_k")->name, "Q4_K_M");
    assert_string_equal(nb_gguf_preset_find("Q3_K")->name, "Q3_K_M");
    assert_int_equal(nb_gguf_preset_find("iq4_xs")->file_type, 30);
    assert_null(nb_gguf_preset_find("Q4"));
    assert_string_equal(nb_gguf_file_type_name(15), "Q4_K_M");
    assert_null(nb_gguf_file_type_name(1024 + 15));
    nb_gguf_preset_names(names, sizeof names);
    assert_non_null(strstr(names, "Q2_K, Q2_K_S, "));
    assert_non_null(strstr(names, ", Q2_0"));
}

static void test_order(void **state)
{
    static const char *const sorted[] = {"output.weight",       "token_embd.weight",
                                         "blk.0.attn_k.weight", "blk.0.ffn_up.weight",
                                         "blk.2.attn_k.weight", "blk.10.attn_k.weight"};
    (void)state;
    for (size_t i = 1; i < sizeof sorted / sizeof *sorted; i++)
        assert_true(nb_gguf_compare_names(sorted[i - 1], sorted[i]) < 0);
    assert_int_equal(nb_gguf_compare_names(sorted[3], sorted[3]), 0);
}

struct choice {
    const char *preset;
    struct nb_gguf_facts facts;
    struct nb_gguf_rules rules;
};

/* Type of one tensor beside an output.weight, or the error. */
static const char *choose(struct choice *c, const char *name, int64_t cols, int64_t ne2,
                          struct nb_err *err)
{
    const struct nb_gguf_shape shapes[] = {
        {name, {cols, 512, ne2, 1}, type("F16")},
        {"output.weight", {512, 512, 1, 1}, type("F16")},
    };
    const struct nb_block_type *types[2] = {NULL, NULL};
    c->rules.preset = nb_gguf_preset_find(c->preset);
    if (!c->facts.architecture) c->facts.architecture = "llama";
    if (!c->facts.n_layers) c->facts.n_layers = 32;
    memset(err, 0, sizeof *err);
    int rc = nb_gguf_choose_types(&c->facts, &c->rules, shapes, 2, types, err);
    return rc ? err->text : types[0]->name;
}

/* Eight experts change attention, other numbers do not; layers come from the name then. */
static void test_experts(void **state)
{
    struct nb_err err;
    struct choice c = {.preset = "Q4_K_M",
                       .facts = {.n_heads = 32, .n_kv_heads = 8, .n_experts = 8}};
    (void)state;
    assert_string_equal(choose(&c, "blk.5.attn_k.weight", 512, 1, &err), "Q8_0");
    assert_string_equal(choose(&c, "blk.5.attn_v.weight", 512, 1, &err), "Q8_0");
    assert_string_equal(choose(&c, "blk.5.attn_output.weight", 512, 1, &err), "Q5_K");
    assert_string_equal(choose(&c, "blk.0.ffn_down_exps.weight", 512, 8, &err), "Q6_K");
    assert_string_equal(choose(&c, "blk.5.ffn_down_exps.weight", 512, 8, &err), "Q4_K");
    assert_string_equal(choose(&c, "blk.5.ffn_gate_inp.weight", 512, 1, &err), "F16");
    assert_string_equal(
        choose(&c, "blk.32.ffn_down_exps.weight", 512, 8, &err),
        "tensor 'blk.32.ffn_down_exps.weight': its layer is not one of the model's 32");
    c.facts.n_experts = 64;
    assert_string_equal(choose(&c, "blk.5.attn_k.weight", 512, 1, &err), "Q4_K");
    assert_string_equal(choose(&c, "blk.5.attn_output.weight", 512, 1, &err), "Q4_K");
    c.preset = "MXFP4_MOE";
    assert_string_equal(choose(&c, "blk.5.ffn_up_exps.weight", 512, 64, &err), "MXFP4");
    assert_string_equal(choose(&c, "blk.5.attn_q.weight", 512, 1, &err), "Q8_0");
}

static void test_fallbacks(void **state)
{
    static const struct {
        const char *preset;
        int64_t cols;
        const char *want;
    } cases[] = {{"Q4_K_S", 896, "Q5_0"}, {"Q5_K_S", 896, "Q5_1"},   {"Q6_K", 896, "Q8_0"},
                 {"Q3_K_S", 896, "Q4_0"}, {"IQ4_XS", 896, "IQ4_NL"}, {"TQ1_0", 896, "Q4_0"},
                 {"Q4_K_S", 1000, "F16"}, {"Q8_0", 1000, "F16"},     {"Q4_0", 1000, "F16"}};
    struct nb_err err;
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct choice c = {.preset = cases[i].preset};
        assert_string_equal(choose(&c, "blk.5.attn_q.weight", cases[i].cols, 1, &err),
                            cases[i].want);
    }
}

static void test_refusals(void **state)
{
    struct nb_err err;
    struct choice c = {.preset = "Q2_K_S", .facts = {.n_heads = 4, .n_kv_heads = 4}};
    (void)state;
    assert_string_equal(choose(&c, "blk.5.attn_q.weight", 512, 1, &err),
                        "tensor 'blk.5.attn_q.weight': type Q2_K in a Q2_K_S file needs an "
                        "importance matrix");
    assert_int_equal(err.status, NB_E_SPEC);
    c.facts.imatrix = true;
    assert_string_equal(choose(&c, "blk.5.attn_q.weight", 512, 1, &err), "Q2_K");
    /* Types that were asked for have no fallback. */
    c = (struct choice){.preset = "Q4_K_M", .rules = {.embedding = type("Q6_K")}};
    assert_string_equal(choose(&c, "token_embd.weight", 896, 1, &err),
                        "tensor 'token_embd.weight': rows of 896 weights are no whole blocks of "
                        "Q6_K (256 weights)");
    struct nb_gguf_override bad = {"attn_(q", type("Q8_0")};
    c = (struct choice){.preset = "Q4_K_M", .rules = {.overrides = &bad, .n_overrides = 1}};
    choose(&c, "blk.5.attn_q.weight", 512, 1, &err);
    assert_int_equal(err.status, NB_E_USAGE);
}

static void test_overrides(void **state)
{
    const struct nb_gguf_override list[] = {{"ATTN_[QK]", type("Q6_K")}, {"attn_q", type("Q8_0")}};
    struct choice c = {.preset = "Q4_K_M", .rules = {.overrides = list, .n_overrides = 2}};
    struct nb_err err;
    (void)state;
    assert_string_equal(choose(&c, "blk.5.attn_q.weight", 512, 1, &err), "Q6_K");
    assert_string_equal(choose(&c, "blk.5.ffn_up.weight", 512, 1, &err), "Q4_K");
    assert_string_equal(choose(&c, "blk.5.attn_q.weight", 96, 1, &err), "Q8_0");
    c.preset = "F16"; /* a float file takes no exceptions */
    assert_string_equal(choose(&c, "blk.5.attn_q.weight", 512, 1, &err), "F16");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_presets),  cmocka_unit_test(test_order),
        cmocka_unit_test(test_experts),  cmocka_unit_test(test_fallbacks),
        cmocka_unit_test(test_refusals), cmocka_unit_test(test_overrides),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

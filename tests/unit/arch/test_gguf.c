/* SPDX-License-Identifier: Apache-2.0
 *
 * test_gguf.c - names, rows and rope factors of GGUF tensors, both ways. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "arch/gguf.h"
#include "arch/gguf_read.h"

#define SIZES                                                                                      \
    "\"vocab_size\": 100, \"hidden_size\": 64, \"intermediate_size\": 96, "                        \
    "\"num_hidden_layers\": 3, \"num_attention_heads\": 4, \"num_key_value_heads\": 2, "           \
    "\"head_dim\": 16"

static void must_read(struct nb_arch *arch, const char *text)
{
    struct nb_err err = {0};
    json_t *config = nb_json_parse(text, strlen(text), NB_JSON_MAX_DEPTH, "test", &err);
    if (!config || nb_arch_from_config(arch, config, &err)) fail_msg("%s", err.text);
    json_decref(config);
}

/* hf and gguf name each other, with this change. */
static void check(const struct nb_arch *a, const char *hf, const char *gguf,
                  enum nb_arch_gguf_change change, int64_t heads)
{
    struct nb_arch_gguf_tensor t;
    assert_true(nb_arch_gguf_from_hf(a, hf, &t));
    assert_string_equal(t.name, gguf);
    assert_int_equal(t.change, change);
    assert_int_equal(t.heads, heads);
    assert_true(nb_arch_gguf_to_hf(a, gguf, &t));
    assert_string_equal(t.name, hf);
    assert_int_equal(t.change, change);
    assert_int_equal(t.heads, heads);
}

static void check_none(const struct nb_arch *a, const char *hf, const char *gguf)
{
    struct nb_arch_gguf_tensor t;
    if (hf) assert_false(nb_arch_gguf_from_hf(a, hf, &t));
    if (gguf) assert_false(nb_arch_gguf_to_hf(a, gguf, &t));
}

static void test_llama_names(void **state)
{
    (void)state;
    struct nb_arch a;
    must_read(&a, "{\"model_type\": \"llama\", " SIZES
                  ", \"attention_bias\": true, \"mlp_bias\": true}");
    const enum nb_arch_gguf_change as_is = NB_ARCH_GGUF_AS_IS, rows = NB_ARCH_GGUF_PERMUTE_ROWS;
    assert_string_equal(nb_arch_gguf_architecture(&a), "llama");
    check(&a, "model.embed_tokens.weight", "token_embd.weight", as_is, 0);
    check(&a, "model.norm.weight", "output_norm.weight", as_is, 0);
    check(&a, "lm_head.weight", "output.weight", as_is, 0);
    check(&a, "model.layers.0.input_layernorm.weight", "blk.0.attn_norm.weight", as_is, 0);
    check(&a, "model.layers.2.post_attention_layernorm.weight", "blk.2.ffn_norm.weight", as_is, 0);
    check(&a, "model.layers.2.self_attn.q_proj.weight", "blk.2.attn_q.weight", rows, 4);
    check(&a, "model.layers.2.self_attn.q_proj.bias", "blk.2.attn_q.bias", rows, 4);
    check(&a, "model.layers.1.self_attn.k_proj.weight", "blk.1.attn_k.weight", rows, 2);
    check(&a, "model.layers.1.self_attn.k_proj.bias", "blk.1.attn_k.bias", rows, 2);
    check(&a, "model.layers.1.self_attn.v_proj.weight", "blk.1.attn_v.weight", as_is, 0);
    check(&a, "model.layers.1.self_attn.o_proj.bias", "blk.1.attn_output.bias", as_is, 0);
    check(&a, "model.layers.1.mlp.gate_proj.weight", "blk.1.ffn_gate.weight", as_is, 0);
    check(&a, "model.layers.1.mlp.up_proj.bias", "blk.1.ffn_up.bias", as_is, 0);
    check(&a, "model.layers.1.mlp.down_proj.weight", "blk.1.ffn_down.weight", as_is, 0);
    check_none(&a, "model.layers.3.mlp.down_proj.weight", "blk.3.ffn_down.weight");
    check_none(&a, "model.layers.1.self_attn.q_norm.weight", "blk.1.attn_q_norm.weight");
    check_none(&a, "model.layers.1.mlp.down_proj", "blk.1.ffn_down");
    check_none(&a, "", "");
    check_none(&a, "model.layers.1.", "blk.1.");
    check_none(&a, NULL, NB_ARCH_GGUF_ROPE_FREQS);
    check_none(&a, NULL, "blk.1.post_ffw_norm.weight");
    check_none(&a, NULL, "blk.01.ffn_down.weight");
    check_none(&a, NULL, "blk.-1.ffn_down.weight");
    check_none(&a, NULL, "blk.1.ffn_down.weight.weight");
    nb_arch_release(&a);
}

static void test_other_names(void **state)
{
    (void)state;
    struct nb_arch a;
    const enum nb_arch_gguf_change as_is = NB_ARCH_GGUF_AS_IS, one = NB_ARCH_GGUF_ADD_ONE;
    must_read(&a, "{\"model_type\": \"mistral\", " SIZES "}");
    assert_string_equal(nb_arch_gguf_architecture(&a), "llama");
    check(&a, "model.layers.1.self_attn.k_proj.weight", "blk.1.attn_k.weight",
          NB_ARCH_GGUF_PERMUTE_ROWS, 2);
    check_none(&a, "model.layers.1.self_attn.k_proj.bias", "blk.1.attn_k.bias");
    nb_arch_release(&a);

    must_read(&a, "{\"model_type\": \"qwen2\", " SIZES ", \"tie_word_embeddings\": true}");
    check(&a, "model.layers.1.self_attn.k_proj.bias", "blk.1.attn_k.bias", as_is, 0);
    check_none(&a, "lm_head.weight", "output.weight");
    nb_arch_release(&a);

    must_read(&a, "{\"model_type\": \"qwen3\", " SIZES "}");
    check(&a, "model.layers.1.self_attn.q_norm.weight", "blk.1.attn_q_norm.weight", as_is, 0);
    check(&a, "model.layers.1.self_attn.q_proj.weight", "blk.1.attn_q.weight", as_is, 0);
    nb_arch_release(&a);

    must_read(&a, "{\"model_type\": \"gemma2\", " SIZES "}");
    check(&a, "model.norm.weight", "output_norm.weight", one, 0);
    check(&a, "model.layers.1.input_layernorm.weight", "blk.1.attn_norm.weight", one, 0);
    check(&a, "model.layers.1.post_attention_layernorm.weight", "blk.1.post_attention_norm.weight",
          one, 0);
    check(&a, "model.layers.1.pre_feedforward_layernorm.weight", "blk.1.ffn_norm.weight", one, 0);
    check(&a, "model.layers.1.post_feedforward_layernorm.weight", "blk.1.post_ffw_norm.weight", one,
          0);
    check(&a, "model.layers.1.self_attn.q_proj.weight", "blk.1.attn_q.weight", as_is, 0);
    check_none(&a, "model.layers.1.self_attn.q_norm.weight", "blk.1.attn_q_norm.weight");
    check_none(&a, "lm_head.weight", "output.weight");
    nb_arch_release(&a);

    must_read(&a, "{\"model_type\": \"gemma3_text\", " SIZES "}");
    assert_string_equal(nb_arch_gguf_architecture(&a), "gemma3");
    check(&a, "model.layers.1.self_attn.k_norm.weight", "blk.1.attn_k_norm.weight", one, 0);
    nb_arch_release(&a);

    must_read(&a, "{\"model_type\": \"gemma3\", \"text_config\": {" SIZES "}}");
    assert_string_equal(nb_arch_gguf_architecture(&a), "gemma3");
    check(&a, "language_model.model.embed_tokens.weight", "token_embd.weight", as_is, 0);
    check(&a, "language_model.model.layers.1.self_attn.k_norm.weight", "blk.1.attn_k_norm.weight",
          one, 0);
    check_none(&a, "model.norm.weight", NULL);
    check_none(&a, "vision_tower.post_layernorm.weight", NULL);
    nb_arch_release(&a);
}

static void test_rows(void **state)
{
    (void)state;
    const int64_t four[] = {0, 2, 1, 3};
    for (int64_t r = 0; r < 4; r++) assert_int_equal(nb_arch_gguf_hf_row(4, 1, r), four[r]);
    /* Two heads of six: the second is where it was, permuted within. */
    const int64_t twelve[] = {0, 3, 1, 4, 2, 5, 6, 9, 7, 10, 8, 11};
    for (int64_t r = 0; r < 12; r++) {
        assert_int_equal(nb_arch_gguf_hf_row(12, 2, r), twelve[r]);
        assert_int_equal(nb_arch_gguf_row(12, 2, twelve[r]), r);
    }
    for (int64_t r = 0; r < 320; r++)
        assert_int_equal(nb_arch_gguf_row(320, 5, nb_arch_gguf_hf_row(320, 5, r)), r);
}

static int64_t factors(float *out, int head_dim, double theta, double factor)
{
    char text[512];
    struct nb_arch a;
    snprintf(text, sizeof text,
             "{\"model_type\": \"llama\", \"vocab_size\": 100, \"hidden_size\": 64, "
             "\"intermediate_size\": 96, \"num_hidden_layers\": 3, \"num_attention_heads\": 4, "
             "\"head_dim\": %d, \"rope_theta\": %g, \"rope_scaling\": {\"rope_type\": \"llama3\", "
             "\"factor\": %g, \"low_freq_factor\": 1.0, \"high_freq_factor\": 4.0, "
             "\"original_max_position_embeddings\": 8192}}",
             head_dim, theta, factor);
    must_read(&a, text);
    int64_t n = nb_arch_gguf_rope_freqs(&a, out);
    nb_arch_release(&a);
    return n;
}

static void check_factors(const float *freqs, int ones, const double *between, int n, int rest,
                          double factor)
{
    for (int i = 0; i < ones; i++) assert_true(freqs[i] == 1.0f);
    for (int i = 0; i < n; i++) assert_true(fabs(freqs[ones + i] - between[i]) < 1e-4 * between[i]);
    for (int i = 0; i < rest; i++) assert_true((double)freqs[ones + n + i] == factor);
}

/* The figures of the specification, section 2.3, which are llama.cpp's converter's. */
static void test_rope_freqs(void **state)
{
    (void)state;
    static const double big[] = {1.207484, 1.553415, 2.026313, 2.694530, 3.684253, 5.257327};
    static const double small[] = {1.651329, 3.292262, 9.666729};
    float freqs[64];
    assert_int_equal(factors(freqs, 128, 500000, 8), 64);
    check_factors(freqs, 29, big, 6, 29, 8);
    assert_int_equal(factors(freqs, 64, 500000, 32), 32);
    check_factors(freqs, 15, small, 3, 14, 32);
    struct nb_arch a;
    must_read(&a, "{\"model_type\": \"llama\", " SIZES "}");
    assert_int_equal(nb_arch_gguf_rope_freqs(&a, freqs), 0);
    nb_arch_release(&a);
}

/* Factors -> parameters: the released ones exactly, others up to what their factors tell. */
static void test_find_llama3(void **state)
{
    (void)state;
    static const struct {
        double theta, factor, low, high;
        int64_t original, n;
    } cases[] = {
        {500000, 8, 1, 4, 8192, 64},  {500000, 32, 1, 4, 8192, 32}, {5000, 8, 1, 4, 32, 8},
        {500000, 16, 1, 8, 4096, 64}, {10000, 4, 2, 4, 2048, 64},   {1e6, 8, 1, 2.5, 16384, 64},
    };
    for (size_t c = 0; c < sizeof cases / sizeof *cases; c++) {
        float freqs[64], own[64];
        const struct nb_rope given = {.kind = NB_ROPE_LLAMA3,
                                      .theta = cases[c].theta,
                                      .factor = cases[c].factor,
                                      .low_freq_factor = cases[c].low,
                                      .high_freq_factor = cases[c].high,
                                      .original_max_position = cases[c].original};
        struct nb_rope found = {.theta = cases[c].theta};
        nb_rope_llama3_factors(&given, 2 * cases[c].n, freqs);
        assert_true(nb_arch_gguf_find_llama3(freqs, cases[c].n, &found));
        nb_rope_llama3_factors(&found, 2 * cases[c].n, own);
        for (int64_t i = 0; i < cases[c].n; i++)
            assert_true(fabs(own[i] - freqs[i]) <= 1e-4 * freqs[i]);
        if (cases[c].low != 1) continue;
        assert_int_equal(found.original_max_position, cases[c].original);
        assert_true(found.high_freq_factor == cases[c].high);
        assert_true(found.factor == cases[c].factor);
        freqs[0] = 2;
        assert_false(nb_arch_gguf_find_llama3(freqs, cases[c].n, &found));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_llama_names), cmocka_unit_test(test_other_names),
        cmocka_unit_test(test_rows),        cmocka_unit_test(test_rope_freqs),
        cmocka_unit_test(test_find_llama3),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

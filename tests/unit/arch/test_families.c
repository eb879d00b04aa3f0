/* SPDX-License-Identifier: Apache-2.0
 *
 * test_families.c - families that are not Llama with other numbers: fused matrices, norms in other places,
 * layers that are not rotated, learned positions; and their names in GGUF files. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "arch/arch.h"
#include "arch/gguf.h"

#define SIZES                                                                                         \
    "\"vocab_size\": 100, \"hidden_size\": 64, \"intermediate_size\": 96, \"num_hidden_layers\": 3, " \
    "\"num_attention_heads\": 4, \"num_key_value_heads\": 2"
#define GPT2                                                                                          \
    "{\"model_type\": \"gpt2\", \"vocab_size\": 100, \"n_embd\": 64, \"n_layer\": 3, \"n_head\": 4, " \
    "\"n_positions\": 48"

static int read_config(struct nb_arch *arch, const char *text, struct nb_err *err)
{
    json_t *config = nb_json_parse(text, strlen(text), NB_JSON_MAX_DEPTH, "test", err);
    if (!config) fail_msg("%s", err->text);
    int rc = nb_arch_from_config(arch, config, err);
    json_decref(config);
    return rc;
}

static void must_read(struct nb_arch *arch, const char *text)
{
    struct nb_err err = {0};
    if (read_config(arch, text, &err)) fail_msg("%s", err.text);
}

static void must_refuse(const char *text, int status, const char *message)
{
    struct nb_err err = {0};
    struct nb_arch arch;
    assert_int_equal(read_config(&arch, text, &err), status);
    assert_string_equal(err.text, message);
}

static void no_metadata(const char *text, const char *message)
{
    struct nb_err err = {0};
    struct nb_arch a;
    json_t *list, *notes;
    must_read(&a, text);
    assert_int_equal(nb_arch_gguf_metadata(&a, &list, &notes, &err), NB_E_SPEC);
    assert_string_equal(err.text, message);
    nb_arch_release(&a);
}

static void check_shape(const struct nb_arch *a, const char *name, int rank, int64_t rows,
                        int64_t cols)
{
    int r;
    int64_t shape[2];
    assert_true(nb_arch_expected_shape(a, name, &r, shape));
    assert_int_equal(r, rank);
    assert_int_equal(shape[0], rows);
    if (rank == 2) assert_int_equal(shape[1], cols);
    assert_false(nb_arch_is_ignorable(a, name));
}

static void check_gguf(const struct nb_arch *a, const char *hf, const char *gguf,
                       enum nb_arch_gguf_change change)
{
    struct nb_arch_gguf_tensor t;
    assert_true(nb_arch_gguf_from_hf(a, hf, &t));
    assert_string_equal(t.name, gguf);
    assert_int_equal(t.change, change);
    assert_true(nb_arch_gguf_to_hf(a, gguf, &t));
    assert_string_equal(t.name, hf);
    assert_int_equal(t.change, change);
}

static void check_fold(const struct nb_arch_fold *f, enum nb_input to, const char *from,
                       int64_t first_row, int64_t repeat)
{
    assert_int_equal(f->to, to);
    assert_string_equal(f->from, from);
    assert_int_equal(f->first_row, first_row);
    assert_int_equal(f->repeat, repeat);
}

static void test_phi3(void **state)
{
    (void)state;
    struct nb_arch a;
    must_read(&a, "{\"model_type\": \"phi3\", " SIZES ", \"partial_rotary_factor\": 0.75}");
    assert_int_equal(a.rotary_dim, 12);
    assert_int_equal(a.n_linears, 4);
    assert_int_equal(a.max_position, 4096);
    assert_true(a.rms_norm_eps == 1e-5);
    assert_int_equal(a.window[0], 0);
    const struct nb_arch_linear *qkv = nb_arch_linear_of(&a, NB_ROLE_QKV);
    const struct nb_arch_linear *gate_up = nb_arch_linear_of(&a, NB_ROLE_GATE_UP);
    assert_string_equal(qkv->name, "self_attn.qkv_proj");
    assert_int_equal(qkv->rows, 64 + 2 * 32);
    assert_string_equal(gate_up->name, "mlp.gate_up_proj");
    assert_int_equal(gate_up->rows, 192);
    assert_null(nb_arch_linear_of(&a, NB_ROLE_Q));
    assert_int_equal(a.n_folds, 4);
    check_fold(&a.folds[0], NB_INPUT_ATTN, "input_layernorm.weight", 0, 1);
    check_fold(&a.folds[1], NB_INPUT_O, "self_attn.qkv_proj", 64 + 32, 2);
    check_fold(&a.folds[3], NB_INPUT_DOWN, "mlp.gate_up_proj", 96, 1);
    check_gguf(&a, "model.layers.1.self_attn.qkv_proj.weight", "blk.1.attn_qkv.weight",
               NB_ARCH_GGUF_AS_IS);
    check_gguf(&a, "model.layers.1.mlp.gate_up_proj.weight", "blk.1.ffn_up.weight",
               NB_ARCH_GGUF_AS_IS);
    int64_t layer = 2 * 64 + (64 + 64 + 64) * 64 + (192 + 96) * 64;
    assert_int_equal(nb_arch_parameters(&a), 2 * 6400 + 64 + 3 * layer);
    nb_arch_release(&a);

    must_read(&a, "{\"model_type\": \"phi3\", " SIZES ", \"sliding_window\": 9, \"rope_scaling\": "
                  "{\"type\": \"yarn\", \"short_factor\": [1,2,3,4,5,6,7,8], \"long_factor\": "
                  "[2,2,3,4,5,6,7,8]}}");
    assert_int_equal(a.window[2], 9);
    assert_int_equal(a.rope.kind, NB_ROPE_LONGROPE);
    assert_int_equal(a.rope.original_max_position, 4096);
    assert_true(a.rope.short_factor[0] == 1 && a.rope.long_factor[0] == 2);
    nb_arch_release(&a);

    must_refuse(
        "{\"model_type\": \"phi3\", " SIZES ", \"partial_rotary_factor\": 0.6}", NB_E_FORMAT,
        "config.json: partial_rotary_factor 0.6 of head_dim 16 is 9 dimensions, expected an "
        "even number");
    must_refuse(
        "{\"model_type\": \"phi3\", " SIZES ", \"partial_rotary_factor\": 1.5}", NB_E_FORMAT,
        "config.json: rope parameter 'partial_rotary_factor': expected a number above 0 up to "
        "1, found 1.5");
    no_metadata("{\"model_type\": \"phi3\", " SIZES ", \"head_dim\": 32}",
                "llama.cpp's phi3 has heads as wide as the hidden states, 64 together, and this "
                "model's are 128");
}

static void test_olmo2(void **state)
{
    (void)state;
    struct nb_arch a;
    must_read(&a, "{\"model_type\": \"olmo2\", " SIZES "}");
    assert_true(a.post_norm && a.qk_norm && a.qk_norm_whole);
    assert_string_equal(a.attn_norm_name, "");
    assert_string_equal(a.mlp_norm_name, "");
    check_shape(&a, "model.layers.0.post_attention_layernorm.weight", 1, 64, 0);
    check_shape(&a, "model.layers.0.post_feedforward_layernorm.weight", 1, 64, 0);
    check_shape(&a, "model.layers.0.self_attn.q_norm.weight", 1, 64, 0);
    check_shape(&a, "model.layers.0.self_attn.k_norm.weight", 1, 32, 0);
    int rank;
    int64_t shape[2];
    assert_false(nb_arch_expected_shape(&a, "model.layers.0.input_layernorm.weight", &rank, shape));
    assert_int_equal(a.n_folds, 2); /* there is no norm to fold into */
    check_fold(&a.folds[0], NB_INPUT_O, "self_attn.v_proj", 0, 2);
    check_fold(&a.folds[1], NB_INPUT_DOWN, "mlp.up_proj", 0, 1);
    check_gguf(&a, "model.layers.0.post_attention_layernorm.weight",
               "blk.0.post_attention_norm.weight", NB_ARCH_GGUF_AS_IS);
    check_gguf(&a, "model.layers.0.self_attn.k_norm.weight", "blk.0.attn_k_norm.weight",
               NB_ARCH_GGUF_AS_IS);
    int64_t layer = 2 * 64 + 64 + 32 + 2 * 64 * 64 + 2 * 32 * 64 + 3 * 96 * 64;
    assert_int_equal(nb_arch_parameters(&a), 2 * 6400 + 64 + 3 * layer);
    nb_arch_release(&a);
    no_metadata(
        "{\"model_type\": \"olmo2\", " SIZES ", \"tie_word_embeddings\": true}",
        "llama.cpp's olmo2 needs a head of its own (output.weight), and this model's is tied");
}

static void test_smollm3(void **state)
{
    (void)state;
    struct nb_arch a;
    must_read(&a, "{\"model_type\": \"smollm3\", " SIZES ", \"no_rope_layer_interval\": 2}");
    assert_true(a.tie_word_embeddings && a.rope.theta == 2e6);
    assert_true(nb_arch_uses_rope(&a, 0) && !nb_arch_uses_rope(&a, 1) && nb_arch_uses_rope(&a, 2));
    nb_arch_release(&a);
    must_read(&a, "{\"model_type\": \"smollm3\", " SIZES
                  ", \"no_rope_layers\": [0, 1, 1, 0], \"use_sliding_window\": true, "
                  "\"sliding_window\": 7, \"max_window_layers\": 28}");
    assert_true(!nb_arch_uses_rope(&a, 0) && nb_arch_uses_rope(&a, 1) && nb_arch_uses_rope(&a, 2));
    assert_int_equal(a.window[0], 7);
    assert_int_equal(a.window[1], 0);
    check_gguf(&a, "model.layers.0.self_attn.q_proj.weight", "blk.0.attn_q.weight",
               NB_ARCH_GGUF_PERMUTE_ROWS);
    nb_arch_release(&a);
    must_refuse(
        "{\"model_type\": \"smollm3\", " SIZES ", \"no_rope_layers\": [1, 1]}", NB_E_FORMAT,
        "config.json: key 'no_rope_layers': expected a list of 3 integers, one for each layer");
    must_refuse("{\"model_type\": \"smollm3\", " SIZES ", \"no_rope_layers\": [1, true, 1]}",
                NB_E_FORMAT,
                "config.json: no_rope_layers[1]: expected an integer, found a boolean");
    must_refuse("{\"model_type\": \"smollm3\", " SIZES ", \"no_rope_layer_interval\": 0}",
                NB_E_FORMAT,
                "config.json: key 'no_rope_layer_interval': expected a positive integer, found 0");
    no_metadata("{\"model_type\": \"smollm3\", " SIZES ", \"no_rope_layers\": [1, 0, 1]}",
                "llama.cpp's smollm3 rotates positions in layer 1, and this model does not");
}

static void test_gpt2(void **state)
{
    (void)state;
    struct nb_arch a;
    must_read(&a, GPT2 "}");
    assert_true(a.layer_norm && a.tie_word_embeddings && a.rms_norm_eps == 1e-5);
    assert_int_equal(a.intermediate_size, 256);
    assert_int_equal(a.max_position, 48);
    assert_int_equal(a.n_kv_heads, 4);
    assert_int_equal(a.hidden_act, NB_HIDDEN_ACT_GELU_TANH);
    assert_false(nb_arch_uses_rope(&a, 0));
    check_shape(&a, "transformer.wpe.weight", 2, 48, 64);
    check_shape(&a, "transformer.ln_f.bias", 1, 64, 0);
    check_shape(&a, "transformer.h.2.ln_2.bias", 1, 64, 0);
    check_shape(&a, "transformer.h.2.attn.c_attn.weight", 2, 64, 192); /* [in, out] */
    check_shape(&a, "transformer.h.2.attn.c_attn.bias", 1, 192, 0);
    check_shape(&a, "transformer.h.2.mlp.c_proj.weight", 2, 256, 64);
    assert_true(nb_arch_is_ignorable(&a, "transformer.h.2.attn.bias"));
    const struct nb_arch_linear *fc = nb_arch_linear_of(&a, NB_ROLE_UP);
    assert_int_equal(fc->rows, 256);
    assert_int_equal(fc->cols, 64);
    assert_true(fc->transposed && fc->bias);
    assert_int_equal(a.n_folds, 3);
    check_fold(&a.folds[1], NB_INPUT_O, "attn.c_attn", 128, 1);
    check_gguf(&a, "transformer.h.1.attn.c_attn.weight", "blk.1.attn_qkv.weight",
               NB_ARCH_GGUF_TRANSPOSE);
    check_gguf(&a, "transformer.h.1.attn.c_attn.bias", "blk.1.attn_qkv.bias", NB_ARCH_GGUF_AS_IS);
    check_gguf(&a, "transformer.h.1.ln_1.bias", "blk.1.attn_norm.bias", NB_ARCH_GGUF_AS_IS);
    check_gguf(&a, "transformer.wpe.weight", "position_embd.weight", NB_ARCH_GGUF_AS_IS);
    check_gguf(&a, "transformer.ln_f.bias", "output_norm.bias", NB_ARCH_GGUF_AS_IS);
    int64_t layer = 4 * 64 + 4 * 64 * 64 + 4 * 64 + 2 * 256 * 64 + 256 + 64;
    assert_int_equal(nb_arch_parameters(&a), 6400 + 48 * 64 + 2 * 64 + 3 * layer);

    nb_arch_drop_prefix(&a);
    check_shape(&a, "h.2.attn.c_attn.weight", 2, 64, 192);
    check_shape(&a, "wpe.weight", 2, 48, 64);
    check_shape(&a, "ln_f.weight", 1, 64, 0);
    int rank;
    int64_t shape[2];
    assert_false(nb_arch_expected_shape(&a, "transformer.wpe.weight", &rank, shape));
    nb_arch_release(&a);

    must_refuse(
        GPT2 ", \"scale_attn_by_inverse_layer_idx\": true}", NB_E_SPEC,
        "config.json: scale_attn_by_inverse_layer_idx true is not supported, expected false");
    must_refuse(GPT2 ", \"n_inner\": \"x\"}", NB_E_FORMAT,
                "config.json: key 'intermediate_size': expected an integer, found a string");
    must_refuse("{\"model_type\": \"gpt2\", \"n_embd\": 9223372036854775807}", NB_E_FORMAT,
                "config.json: key 'hidden_size': expected an integer from 1 to 1048576, found "
                "9223372036854775807");
    no_metadata(
        GPT2 ", \"activation_function\": \"relu\"}",
        "llama.cpp computes gpt2 with gelu_pytorch_tanh, and this model has another activation");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_phi3),
        cmocka_unit_test(test_olmo2),
        cmocka_unit_test(test_smollm3),
        cmocka_unit_test(test_gpt2),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

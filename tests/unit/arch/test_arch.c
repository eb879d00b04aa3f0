/* SPDX-License-Identifier: Apache-2.0
 *
 * test_arch.c - configs of every family: sizes, defaults, plan, folds, names, shapes; and what is
 * refused. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "arch/arch.h"

#define SIZES                                                                                         \
    "\"vocab_size\": 100, \"hidden_size\": 64, \"intermediate_size\": 96, \"num_hidden_layers\": 3, " \
    "\"num_attention_heads\": 4"

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

static void check_linear(const struct nb_arch *a, const char *name, struct nb_arch_linear want)
{
    const struct nb_arch_linear *lin = nb_arch_linear_of(a, want.role);
    assert_non_null(lin);
    assert_string_equal(lin->name, name);
    assert_int_equal(lin->input, want.input);
    assert_int_equal(lin->rows, want.rows);
    assert_int_equal(lin->cols, want.cols);
    assert_int_equal(lin->bias, want.bias);
}

static void test_llama(void **state)
{
    (void)state;
    struct nb_arch a;
    must_read(
        &a,
        "{\"model_type\": \"llama\", " SIZES
        ", \"num_key_value_heads\": 2, \"attention_bias\": true, "
        "\"mlp_bias\": true, \"hidden_act\": \"gelu_new\", \"rms_norm_eps\": 1e-5, \"torch_dtype\": \"float16\", "
        "\"bos_token_id\": 7, \"eos_token_id\": [8, 9]}");
    assert_string_equal(a.model_type, "llama");
    assert_int_equal(a.head_dim, 16);
    assert_int_equal(a.max_position, 2048);
    assert_int_equal(a.hidden_act, NB_HIDDEN_ACT_GELU_TANH);
    assert_int_equal(a.dtype, NB_F16);
    assert_int_equal(a.bos_id, 7);
    assert_int_equal(a.n_eos, 2);
    assert_int_equal(a.eos_ids[1], 9);
    assert_true(a.rms_norm_eps == 1e-5);
    assert_false(a.tie_word_embeddings);
    assert_int_equal(a.n_linears, 7);
    check_linear(
        &a, "self_attn.q_proj",
        (struct nb_arch_linear){NB_ROLE_Q, NB_INPUT_ATTN, .rows = 64, .cols = 64, .bias = true});
    check_linear(
        &a, "self_attn.k_proj",
        (struct nb_arch_linear){NB_ROLE_K, NB_INPUT_ATTN, .rows = 32, .cols = 64, .bias = true});
    check_linear(
        &a, "self_attn.v_proj",
        (struct nb_arch_linear){NB_ROLE_V, NB_INPUT_ATTN, .rows = 32, .cols = 64, .bias = true});
    check_linear(
        &a, "self_attn.o_proj",
        (struct nb_arch_linear){NB_ROLE_O, NB_INPUT_O, .rows = 64, .cols = 64, .bias = true});
    check_linear(
        &a, "mlp.gate_proj",
        (struct nb_arch_linear){NB_ROLE_GATE, NB_INPUT_MLP, .rows = 96, .cols = 64, .bias = true});
    check_linear(
        &a, "mlp.up_proj",
        (struct nb_arch_linear){NB_ROLE_UP, NB_INPUT_MLP, .rows = 96, .cols = 64, .bias = true});
    check_linear(
        &a, "mlp.down_proj",
        (struct nb_arch_linear){NB_ROLE_DOWN, NB_INPUT_DOWN, .rows = 64, .cols = 96, .bias = true});
    /* 2 embeddings, final norm, 3 layers of: 2 norms, q+o, k+v, gate+up+down, and their biases */
    int64_t layer =
        2 * 64 + 2 * 64 * 64 + 2 * 32 * 64 + 3 * 96 * 64 + 64 + 32 + 32 + 64 + 96 + 96 + 64;
    assert_int_equal(nb_arch_parameters(&a), 2 * 6400 + 64 + 3 * layer);
    nb_arch_release(&a);
}

static void test_folds(void **state)
{
    (void)state;
    struct nb_arch a;
    must_read(&a, "{\"model_type\": \"llama\", " SIZES ", \"num_key_value_heads\": 2}");
    assert_int_equal(a.n_folds, 4);
    assert_int_equal(a.folds[0].kind, NB_FOLD_NORM);
    assert_int_equal(a.folds[0].to, NB_INPUT_ATTN);
    assert_string_equal(a.folds[0].from, "input_layernorm.weight");
    assert_int_equal(a.folds[1].kind, NB_FOLD_LINEAR);
    assert_int_equal(a.folds[1].to, NB_INPUT_O);
    assert_string_equal(a.folds[1].from, "self_attn.v_proj");
    assert_int_equal(a.folds[1].repeat, 2);
    assert_int_equal(a.folds[1].head_dim, 16);
    assert_string_equal(a.folds[2].from, "post_attention_layernorm.weight");
    assert_int_equal(a.folds[3].to, NB_INPUT_DOWN);
    assert_string_equal(a.folds[3].from, "mlp.up_proj");
    assert_int_equal(a.folds[3].repeat, 1);
    nb_arch_release(&a);
    must_read(&a, "{\"model_type\": \"llama\", " SIZES "}");
    assert_int_equal(a.n_kv_heads, 4);
    assert_int_equal(a.folds[1].repeat, 1);
    assert_int_equal(a.folds[1].head_dim, 0);
    nb_arch_release(&a);
}

static void test_family_defaults(void **state)
{
    (void)state;
    struct nb_arch a;
    must_read(&a, "{\"model_type\": \"qwen2\", " SIZES
                  ", \"num_key_value_heads\": 4, \"tie_word_embeddings\": true}");
    assert_true(nb_arch_linear_of(&a, NB_ROLE_Q)->bias);
    assert_false(nb_arch_linear_of(&a, NB_ROLE_O)->bias);
    assert_false(nb_arch_linear_of(&a, NB_ROLE_UP)->bias);
    assert_true(a.tie_word_embeddings);
    assert_int_equal(a.dtype, NB_BF16);
    assert_int_equal(a.bos_id, -1);
    assert_int_equal(a.n_eos, 0);
    nb_arch_release(&a);

    must_read(&a, "{\"model_type\": \"qwen3\", " SIZES ", \"num_key_value_heads\": 2}");
    assert_int_equal(a.head_dim, 128);
    assert_true(a.qk_norm);
    assert_string_equal(a.q_norm_name, "self_attn.q_norm.weight");
    assert_false(nb_arch_linear_of(&a, NB_ROLE_Q)->bias);
    assert_int_equal(nb_arch_linear_of(&a, NB_ROLE_O)->cols, 512);
    nb_arch_release(&a);

    must_read(&a, "{\"model_type\": \"mistral\", " SIZES ", \"num_key_value_heads\": null}");
    assert_int_equal(a.n_kv_heads, 4);
    assert_int_equal(a.window[2], 4096);
    nb_arch_release(&a);
    must_refuse("{\"model_type\": \"mistral\", " SIZES "}", NB_E_FORMAT,
                "config.json: num_attention_heads 4 is not a multiple of num_key_value_heads 8");
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

static void test_shapes(void **state)
{
    (void)state;
    struct nb_arch a;
    must_read(&a, "{\"model_type\": \"qwen3\", " SIZES
                  ", \"num_key_value_heads\": 2, \"head_dim\": 32}");
    check_shape(&a, "model.embed_tokens.weight", 2, 100, 64);
    check_shape(&a, "lm_head.weight", 2, 100, 64);
    check_shape(&a, "model.norm.weight", 1, 64, 0);
    check_shape(&a, "model.layers.0.input_layernorm.weight", 1, 64, 0);
    check_shape(&a, "model.layers.2.self_attn.k_norm.weight", 1, 32, 0);
    check_shape(&a, "model.layers.2.self_attn.k_proj.weight", 2, 64, 64);
    check_shape(&a, "model.layers.1.mlp.down_proj.weight", 2, 64, 96);
    static const char *const strangers[] = {
        "model.layers.3.input_layernorm.weight",
        "model.layers.00.input_layernorm.weight",
        "model.layers.-1.input_layernorm.weight",
        "model.layers.99999999999999999999.input_layernorm.weight",
        "model.layers..input_layernorm.weight",
        "model.layers.1",
        "model.layers.1.",
        "model.layers.1.mlp.down_proj",
        "model.layers.1.mlp.down_proj.bias",
        "model.layers.1.mlp.down_proj.weight2",
        "norm.weight",
        "",
    };
    for (size_t i = 0; i < sizeof strangers / sizeof *strangers; i++) {
        int rank;
        int64_t shape[2];
        assert_false(nb_arch_expected_shape(&a, strangers[i], &rank, shape));
        assert_false(nb_arch_is_ignorable(&a, strangers[i]));
    }
    assert_true(nb_arch_is_ignorable(&a, "model.layers.1.self_attn.rotary_emb.inv_freq"));
    assert_true(nb_arch_is_ignorable(&a, "model.rotary_emb.inv_freq"));
    assert_true(nb_arch_is_ignorable(&a, "model.layers.1.attn.masked_bias"));
    char name[NB_NAME_MAX * 2];
    nb_arch_name(&a, 17, "mlp.up_proj", name);
    assert_string_equal(name, "model.layers.17.mlp.up_proj");
    nb_arch_release(&a);
}

static void test_refusals(void **state)
{
    (void)state;
    must_refuse("[]", NB_E_FORMAT, "config.json: expected an object, found an array");
    must_refuse("{}", NB_E_FORMAT, "config.json: key 'model_type' is missing");
    must_refuse(
        "{\"model_type\": \"bloom\"}", NB_E_SPEC,
        "config.json: model_type 'bloom' is not known, expected one of: llama, mistral, qwen2, qwen3, "
        "gemma2, gemma3_text, gemma3, smollm3, phi3, olmo2, gpt2, mixtral, qwen2_moe, qwen3_moe");
    must_refuse("{\"model_type\": \"llama\"}", NB_E_FORMAT,
                "config.json: key 'vocab_size' is missing");
    must_refuse("{\"model_type\": \"llama\", \"vocab_size\": 0}", NB_E_FORMAT,
                "config.json: key 'vocab_size': expected an integer from 1 to 16777216, found 0");
    must_refuse("{\"model_type\": \"llama\", \"vocab_size\": \"1\"}", NB_E_FORMAT,
                "config.json: key 'vocab_size': expected an integer, found a string");
    must_refuse(
        "{\"model_type\": \"llama\", " SIZES ", \"hidden_act\": \"mish\"}", NB_E_SPEC,
        "config.json: hidden_act 'mish' is not known, expected one of: silu, gelu, gelu_new, gelu_pytorch_tanh, relu");
    must_refuse("{\"model_type\": \"llama\", " SIZES ", \"num_key_value_heads\": 3}", NB_E_FORMAT,
                "config.json: num_attention_heads 4 is not a multiple of num_key_value_heads 3");
    must_refuse("{\"model_type\": \"llama\", " SIZES ", \"head_dim\": 15}", NB_E_FORMAT,
                "config.json: rotary positions need an even head_dim, found 15");
    must_refuse(
        "{\"model_type\": \"llama\", " SIZES ", \"head_dim\": 9223372036854775807}", NB_E_FORMAT,
        "config.json: key 'head_dim': expected an integer from 1 to 1024, found 9223372036854775807");
    must_refuse(
        "{\"model_type\": \"llama\", \"vocab_size\": 100, \"hidden_size\": 62, \"intermediate_size\": 96, "
        "\"num_hidden_layers\": 3, \"num_attention_heads\": 4}",
        NB_E_FORMAT,
        "config.json: hidden_size 62 is not a multiple of num_attention_heads 4 and there is no head_dim");
    must_refuse(
        "{\"model_type\": \"llama\", " SIZES ", \"dtype\": \"float64\"}", NB_E_SPEC,
        "config.json: dtype 'float64' is not supported, expected bfloat16, float16 or float32");
    must_refuse("{\"model_type\": \"llama\", " SIZES ", \"rms_norm_eps\": -1}", NB_E_FORMAT,
                "config.json: key 'rms_norm_eps': expected 0 up to 1, found -1");
    must_refuse("{\"model_type\": \"llama\", " SIZES ", \"eos_token_id\": [1, \"x\"]}", NB_E_FORMAT,
                "config.json: key 'eos_token_id': expected an integer, found a string");
    must_refuse("{\"model_type\": \"llama\", " SIZES ", \"eos_token_id\": [1,2,3,4,5,6,7,8,9]}",
                NB_E_FORMAT,
                "config.json: key 'eos_token_id' lists 9 tokens, at most 8 are possible");
}

static void test_window_refusals(void **state)
{
    (void)state;
#define QWEN "{\"model_type\": \"qwen2\", " SIZES ", \"num_key_value_heads\": 2, "
    must_refuse(QWEN "\"layer_types\": [\"full_attention\"]}", NB_E_FORMAT,
                "config.json: key 'layer_types': expected a list of 3 names");
    must_refuse(
        QWEN "\"layer_types\": [\"full_attention\", \"conv\", \"full_attention\"]}", NB_E_SPEC,
        "config.json: layer_types[1]: 'conv' is not known, expected full_attention or sliding_attention");
    must_refuse(
        QWEN "\"sliding_window\": 8, \"layer_types\": [\"full_attention\", \"full_attention\", "
             "\"sliding_attention\"]}",
        NB_E_FORMAT,
        "config.json: layer_types[2] is sliding_attention, but no sliding_window is in force");
    must_refuse(
        QWEN "\"use_sliding_window\": true, \"sliding_window\": 0}", NB_E_FORMAT,
        "config.json: key 'sliding_window': expected an integer from 1 to 2147483648, found 0");
}

#define GEMMA SIZES ", \"num_key_value_heads\": 2, \"head_dim\": 32"

static void test_gemma2(void **state)
{
    (void)state;
    struct nb_arch a;
    must_read(&a, "{\"model_type\": \"gemma2\", " SIZES "}"); /* the reference's defaults */
    assert_int_equal(a.head_dim, 256);
    assert_int_equal(a.n_kv_heads, 4);
    assert_int_equal(a.max_position, 8192);
    assert_int_equal(a.hidden_act, NB_HIDDEN_ACT_GELU_TANH);
    assert_true(a.tie_word_embeddings && a.post_norm && !a.qk_norm && !a.local_rope);
    assert_true(a.norm_offset == 1 && a.embed_scale == 8 && a.attn_scale == 1.0 / 16);
    assert_true(a.attn_softcap == 50 && a.final_softcap == 30);
    assert_int_equal(a.window[0], 4096);
    assert_int_equal(a.window[1], 0);
    assert_int_equal(a.window[2], 4096);
    assert_string_equal(a.attn_norm_name, "input_layernorm.weight");
    assert_string_equal(a.post_attn_norm_name, "post_attention_layernorm.weight");
    assert_string_equal(a.mlp_norm_name, "pre_feedforward_layernorm.weight");
    assert_string_equal(a.post_mlp_norm_name, "post_feedforward_layernorm.weight");
    check_shape(&a, "model.layers.1.post_feedforward_layernorm.weight", 1, 64, 0);
    check_shape(&a, "model.layers.1.post_attention_layernorm.weight", 1, 64, 0);
    assert_string_equal(a.folds[0].from, "input_layernorm.weight");
    assert_string_equal(a.folds[2].from, "pre_feedforward_layernorm.weight");
    /* the embedding once, the final norm, 3 layers of: 4 norms, q+o, k+v, gate+up+down */
    int64_t layer = 4 * 64 + 4 * 1024 * 64 + 3 * 96 * 64;
    assert_int_equal(nb_arch_parameters(&a), 6400 + 64 + 3 * layer);
    nb_arch_release(&a);

    /* null: no cap; hidden_act is not what counts; layer_types against the default order */
    must_read(&a, "{\"model_type\": \"gemma2\", " GEMMA
                  ", \"attn_logit_softcapping\": null, \"final_logit_softcapping\": null, "
                  "\"hidden_act\": \"silu\", \"hidden_activation\": \"relu\", "
                  "\"query_pre_attn_scalar\": 64.0, \"sliding_window\": 9, "
                  "\"attention_bias\": true, \"layer_types\": [\"full_attention\", "
                  "\"full_attention\", \"sliding_attention\"]}");
    assert_true(a.attn_softcap == 0 && a.final_softcap == 0 && a.attn_scale == 0.125);
    assert_int_equal(a.hidden_act, NB_HIDDEN_ACT_RELU);
    assert_int_equal(a.window[0], 0);
    assert_int_equal(a.window[2], 9);
    assert_true(nb_arch_linear_of(&a, NB_ROLE_O)->bias);
    assert_false(nb_arch_linear_of(&a, NB_ROLE_UP)->bias);
    nb_arch_release(&a);
}

static void test_gemma3(void **state)
{
    (void)state;
    struct nb_arch a;
    must_read(&a, "{\"model_type\": \"gemma3_text\", " GEMMA ", \"sliding_window\": 7}");
    assert_true(a.qk_norm && a.post_norm && a.local_rope);
    assert_true(a.attn_softcap == 0 && a.final_softcap == 0 && a.attn_scale == 1.0 / 16);
    assert_true(a.rope.theta == 1e6 && a.rope_local.theta == 1e4);
    assert_int_equal(a.max_position, 131072);
    for (int l = 0; l < 3; l++) { /* the sixth would see everything */
        assert_int_equal(a.window[l], 7);
        assert_true(nb_arch_uses_local_rope(&a, l));
    }
    nb_arch_release(&a);
    must_read(&a, "{\"model_type\": \"gemma3_text\", " GEMMA
                  ", \"sliding_window\": 7, \"sliding_window_pattern\": 2, "
                  "\"attn_logit_softcapping\": 5, \"rope_theta\": 5000, "
                  "\"rope_local_base_freq\": 600, \"rope_scaling\": {\"rope_type\": "
                  "\"linear\", \"factor\": 8}}");
    assert_true(a.attn_softcap == 0);
    assert_int_equal(a.window[1], 0);
    assert_false(nb_arch_uses_local_rope(&a, 1));
    assert_true(a.rope.theta == 5000 && a.rope.factor == 8);
    assert_int_equal(a.rope.kind, NB_ROPE_LINEAR);
    assert_true(a.rope_local.theta == 600);
    assert_int_equal(a.rope_local.kind, NB_ROPE_DEFAULT);
    nb_arch_release(&a);
    /* New style; rope_scaling is laid over it, key by key. */
    must_read(&a, "{\"model_type\": \"gemma3_text\", " GEMMA
                  ", \"rope_theta\": 5, \"rope_local_base_freq\": 6, \"rope_scaling\": "
                  "{\"factor\": 4}, \"rope_parameters\": {\"full_attention\": {\"rope_type\": "
                  "\"linear\", \"factor\": 8, \"rope_theta\": 700}, \"sliding_attention\": "
                  "{\"rope_type\": \"default\", \"rope_theta\": 800}}}");
    assert_true(a.rope.theta == 700 && a.rope.factor == 4 && a.rope_local.theta == 800);
    nb_arch_release(&a);
}

/* Text and images: the text model one level down, defaults where its config is as short as they are. */
static void test_gemma3_with_images(void **state)
{
    (void)state;
    struct nb_arch a;
    must_read(&a, "{\"model_type\": \"gemma3\", \"eos_token_id\": [1, 106], \"hidden_size\": 1, "
                  "\"text_config\": {\"hidden_size\": 64, \"intermediate_size\": 96, "
                  "\"model_type\": \"gemma3_text\", \"num_hidden_layers\": 7, "
                  "\"eos_token_id\": 1, \"sliding_window\": 16, \"rope_scaling\": {\"factor\": "
                  "8.0, \"rope_type\": \"linear\"}}, \"vision_config\": {\"hidden_size\": 8}}");
    assert_string_equal(a.model_type, "gemma3");
    assert_int_equal(a.vocab_size, 262208);
    assert_int_equal(a.n_heads, 8);
    assert_int_equal(a.n_kv_heads, 4);
    assert_int_equal(a.hidden_size, 64);
    assert_int_equal(a.n_eos, 2);
    assert_int_equal(a.window[5], 0);
    assert_int_equal(a.window[6], 16);
    assert_true(a.rope.factor == 8 && a.tie_word_embeddings);
    check_shape(&a, "language_model.model.embed_tokens.weight", 2, 262208, 64);
    check_shape(&a, "language_model.model.layers.6.self_attn.q_norm.weight", 1, 256, 0);
    assert_true(nb_arch_is_other_part(&a, "vision_tower.embeddings.patch_embedding.bias"));
    assert_true(nb_arch_is_other_part(&a, "multi_modal_projector.mm_soft_emb_norm.weight"));
    assert_false(nb_arch_is_other_part(&a, "language_model.model.norm.weight"));
    nb_arch_release(&a);
    must_read(&a, "{\"model_type\": \"gemma3_text\", " GEMMA "}");
    assert_false(nb_arch_is_other_part(&a, "vision_tower.embeddings.patch_embedding.bias"));
    nb_arch_release(&a);
}

static void test_gemma_refusals(void **state)
{
    (void)state;
#define GEMMA2 "{\"model_type\": \"gemma2\", " GEMMA ", "
#define GEMMA3 "{\"model_type\": \"gemma3_text\", " GEMMA ", "
    must_refuse(GEMMA2 "\"use_bidirectional_attention\": true}", NB_E_SPEC,
                "config.json: use_bidirectional_attention true is not supported, expected false");
    must_refuse(GEMMA2 "\"query_pre_attn_scalar\": 0}", NB_E_FORMAT,
                "config.json: key 'query_pre_attn_scalar': expected a positive number, found 0");
    must_refuse(GEMMA2 "\"attn_logit_softcapping\": -1}", NB_E_FORMAT,
                "config.json: key 'attn_logit_softcapping': expected a positive number or null, "
                "found -1");
    must_refuse(GEMMA3 "\"final_logit_softcapping\": 0.0}", NB_E_FORMAT,
                "config.json: key 'final_logit_softcapping': expected a positive number or null, "
                "found 0");
    must_refuse(GEMMA3 "\"final_logit_softcapping\": \"30\"}", NB_E_FORMAT,
                "config.json: key 'final_logit_softcapping': expected a number, found a string");
    must_refuse(GEMMA2 "\"hidden_activation\": \"mish\"}", NB_E_SPEC,
                "config.json: hidden_activation 'mish' is not known, expected one of: silu, gelu, "
                "gelu_new, gelu_pytorch_tanh, relu");
    must_refuse(GEMMA2 "\"sliding_window\": null}", NB_E_FORMAT,
                "config.json: layer 0 has a window, but no sliding_window is in force");
    must_refuse(GEMMA3 "\"sliding_window_pattern\": 0}", NB_E_FORMAT,
                "config.json: key 'sliding_window_pattern': expected an integer from 1 to 4096, "
                "found 0");
    must_refuse(GEMMA3 "\"rope_parameters\": {\"rope_type\": \"default\"}}", NB_E_FORMAT,
                "config.json: key 'rope_parameters': expected an object for full_attention and one "
                "for sliding_attention");
    must_refuse(GEMMA3 "\"rope_parameters\": 3}", NB_E_FORMAT,
                "config.json: key 'rope_parameters': expected an object, found an integer");
    must_refuse(
        GEMMA3 "\"rope_parameters\": {\"full_attention\": []}}", NB_E_FORMAT,
        "config.json: rope_parameters 'full_attention': expected an object, found an array");
    must_refuse(GEMMA3 "\"rope_scaling\": 3}", NB_E_FORMAT,
                "config.json: key 'rope_scaling': expected an object, found an integer");
    must_refuse("{\"model_type\": \"gemma3\"}", NB_E_FORMAT,
                "config.json: key 'text_config': expected an object, found nothing");
    must_refuse("{\"model_type\": \"gemma3\", \"text_config\": []}", NB_E_FORMAT,
                "config.json: key 'text_config': expected an object, found an array");
    must_refuse(GEMMA3 "\"rope_local_base_freq\": 1}", NB_E_FORMAT,
                "config.json: rope parameter 'rope_local_base_freq': expected a number above 1, "
                "found 1");
}

/* The list in messages is the table itself. */
static void test_known_types(void **state)
{
    (void)state;
    int n = 0;
    for (const char *const *t = nb_arch_known_types(); *t; t++, n++) {
        char text[512];
        struct nb_arch a;
        snprintf(text, sizeof text,
                 "{\"model_type\": \"%s\", " SIZES
                 ", \"num_key_value_heads\": 2, \"text_config\": {}}",
                 *t);
        must_read(&a, text);
        assert_string_equal(a.model_type, *t);
        nb_arch_release(&a);
    }
    assert_int_equal(n, 14);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_llama),
        cmocka_unit_test(test_folds),
        cmocka_unit_test(test_family_defaults),
        cmocka_unit_test(test_shapes),
        cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_window_refusals),
        cmocka_unit_test(test_known_types),
        cmocka_unit_test(test_gemma2),
        cmocka_unit_test(test_gemma3),
        cmocka_unit_test(test_gemma_refusals),
        cmocka_unit_test(test_gemma3_with_images),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

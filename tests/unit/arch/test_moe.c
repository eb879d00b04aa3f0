/* SPDX-License-Identifier: Apache-2.0
 *
 * test_moe.c - layers with experts: which, how many linears, names, shapes; and what is refused. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "arch/arch.h"

#define SIZES                                                                                         \
    "\"vocab_size\": 100, \"hidden_size\": 64, \"intermediate_size\": 96, \"num_hidden_layers\": 4, " \
    "\"num_attention_heads\": 4, \"num_key_value_heads\": 2"

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

static void must_refuse(const char *text, const char *message)
{
    struct nb_err err = {0};
    struct nb_arch arch;
    assert_int_equal(read_config(&arch, text, &err), NB_E_FORMAT);
    assert_string_equal(err.text, message);
}

static void check_linear(const struct nb_arch_linear *lin, const char *name,
                         struct nb_arch_linear want)
{
    assert_string_equal(lin->name, name);
    assert_int_equal(lin->role, want.role);
    assert_int_equal(lin->input, want.role == NB_ROLE_DOWN ? NB_INPUT_DOWN : NB_INPUT_MLP);
    assert_int_equal(lin->rows, want.rows);
    assert_int_equal(lin->cols, want.cols);
    assert_int_equal(lin->branch, want.branch);
    assert_int_equal(lin->expert, want.expert);
}

static void check_shape(const struct nb_arch *a, const char *name, int64_t rows, int64_t cols)
{
    int rank;
    int64_t shape[2];
    assert_true(nb_arch_expected_shape(a, name, &rank, shape));
    assert_int_equal(rank, 2);
    assert_int_equal(shape[0], rows);
    assert_int_equal(shape[1], cols);
}

static void test_mixtral(void **state)
{
    (void)state;
    struct nb_arch a;
    must_read(&a, "{\"model_type\": \"mixtral\", " SIZES ", \"num_local_experts\": 3}");
    assert_int_equal(a.moe->n_experts, 3);
    assert_int_equal(a.moe->top_k, 2);
    assert_true(a.moe->norm_topk);
    assert_true(a.rms_norm_eps == 1e-5 && a.rope.theta == 1e6);
    assert_int_equal(a.window[0], 0); /* a missing sliding_window is none, unlike Mistral's */
    int n;
    const struct nb_arch_linear *lin = nb_arch_layer_linears(&a, 3, &n);
    assert_int_equal(n, 4 + 3 * 3);
    assert_string_equal(lin[3].name, "self_attn.o_proj");
    check_linear(&lin[4 + 6], "block_sparse_moe.experts.2.w1",
                 (struct nb_arch_linear){NB_ROLE_GATE, .rows = 96, .cols = 64,
                                         .branch = NB_BRANCH_EXPERT, .expert = 2});
    check_linear(&lin[4 + 7], "block_sparse_moe.experts.2.w3",
                 (struct nb_arch_linear){NB_ROLE_UP, .rows = 96, .cols = 64,
                                         .branch = NB_BRANCH_EXPERT, .expert = 2});
    check_linear(&lin[4 + 8], "block_sparse_moe.experts.2.w2",
                 (struct nb_arch_linear){NB_ROLE_DOWN, .rows = 64, .cols = 96,
                                         .branch = NB_BRANCH_EXPERT, .expert = 2});
    check_shape(&a, "model.layers.1.block_sparse_moe.gate.weight", 3, 64);
    nb_arch_use_plain_expert_names(&a);
    assert_string_equal(lin[4 + 8].name, "mlp.experts.2.down_proj");
    check_shape(&a, "model.layers.1.mlp.gate.weight", 3, 64);
    nb_arch_release(&a);
}

static void test_stacked(void **state)
{
    (void)state;
    struct nb_arch a;
    must_read(&a, "{\"model_type\": \"mixtral\", " SIZES ", \"num_local_experts\": 3}");
    int64_t shape[3], row;
    assert_true(nb_arch_stacked_shape(&a, "model.layers.0.mlp.experts.gate_up_proj", shape));
    assert_true(shape[0] == 3 && shape[1] == 192 && shape[2] == 64);
    assert_true(nb_arch_stacked_shape(&a, "model.layers.3.mlp.experts.down_proj", shape));
    assert_true(shape[0] == 3 && shape[1] == 64 && shape[2] == 96);
    assert_false(nb_arch_stacked_shape(&a, "model.layers.4.mlp.experts.down_proj", shape));
    assert_false(nb_arch_stacked_shape(&a, "model.layers.0.mlp.experts.down_proj.weight", shape));
    const int64_t rows[] = {2 * 192, 2 * 192 + 96, 2 * 64}; /* gate, up, down of the last */
    int n;
    const struct nb_arch_linear *lin = nb_arch_layer_linears(&a, 0, &n);
    for (int i = 0; i < 3; i++) {
        const char *name;
        nb_arch_stacked_at(&a, &lin[4 + 6 + i], &name, &row);
        assert_int_equal(row, rows[i]);
        assert_string_equal(name, i < 2 ? "mlp.experts.gate_up_proj" : "mlp.experts.down_proj");
    }
    nb_arch_release(&a);
}

static void test_layers_differ(void **state)
{
    (void)state;
    struct nb_arch a;
    must_read(&a, "{\"model_type\": \"qwen2_moe\", " SIZES
                  ", \"num_experts\": 5, \"num_experts_per_tok\": 2, \"decoder_sparse_step\": 2, "
                  "\"mlp_only_layers\": [3, 99], \"moe_intermediate_size\": 32, "
                  "\"shared_expert_intermediate_size\": 48}");
    const bool experts[] = {false, true, false, false};
    int64_t sum = 0, n_parameters = 2 * 100 * 64 + 64;
    for (int64_t l = 0; l < 4; l++) {
        assert_int_equal(nb_arch_has_experts(&a, l), experts[l]);
        assert_int_equal(nb_arch_count_linears(&a, l), experts[l] ? 4 + 3 * 5 + 3 : 7);
        assert_int_equal(nb_arch_first_linear(&a, l), sum);
        sum += nb_arch_count_linears(&a, l);
        n_parameters += 2 * 64 + 64 * 64 * 2 + 2 * 32 * 64 + 64 + 2 * 32;
        n_parameters += experts[l] ? 3 * 64 * (5 * 32 + 48) + 6 * 64 : 3 * 64 * 96;
    }
    assert_int_equal(nb_arch_first_linear(&a, 4), sum);
    assert_int_equal(nb_arch_parameters(&a), n_parameters);
    int n;
    const struct nb_arch_linear *lin = nb_arch_layer_linears(&a, 1, &n);
    assert_true(lin[0].bias); /* q */
    check_linear(
        &lin[n - 1], "mlp.shared_expert.down_proj",
        (struct nb_arch_linear){NB_ROLE_DOWN, .rows = 64, .cols = 48, .branch = NB_BRANCH_SHARED});
    check_shape(&a, "model.layers.1.mlp.experts.4.up_proj.weight", 32, 64);
    check_shape(&a, "model.layers.1.mlp.shared_expert_gate.weight", 1, 64);
    check_shape(&a, "model.layers.0.mlp.up_proj.weight", 96, 64);
    int rank;
    int64_t shape[2];
    assert_false(nb_arch_expected_shape(&a, "model.layers.1.mlp.up_proj.weight", &rank, shape));
    assert_false(nb_arch_expected_shape(&a, "model.layers.0.mlp.gate.weight", &rank, shape));
    for (int f = 0; f < a.n_folds; f++) {
        assert_true(nb_arch_fold_applies(&a, 0, &a.folds[f]));
        assert_int_equal(nb_arch_fold_applies(&a, 1, &a.folds[f]), a.folds[f].to < NB_INPUT_MLP);
    }
    nb_arch_release(&a);
}

static void test_windows(void **state)
{
    (void)state;
    struct nb_arch a;
    must_read(&a,
              "{\"model_type\": \"qwen2_moe\", " SIZES
              ", \"use_sliding_window\": true, \"sliding_window\": 8, \"max_window_layers\": 2}");
    const int64_t alternating[] = {8, 0, 0, 0};
    for (int l = 0; l < 4; l++) assert_int_equal(a.window[l], alternating[l]);
    nb_arch_release(&a);
    must_read(&a,
              "{\"model_type\": \"qwen3_moe\", " SIZES
              ", \"use_sliding_window\": true, \"sliding_window\": 8, \"max_window_layers\": 2}");
    for (int l = 0; l < 4; l++) assert_int_equal(a.window[l], 8);
    assert_true(a.qk_norm && !a.moe->norm_topk && !a.moe->shared_size);
    assert_int_equal(a.moe->n_experts, 128);
    nb_arch_release(&a);
    must_read(&a, "{\"model_type\": \"qwen3_moe\", " SIZES ", \"num_experts\": 0}");
    assert_null(a.moe);
    assert_int_equal(nb_arch_count_linears(&a, 0), 7);
    nb_arch_release(&a);
}

static void test_refusals(void **state)
{
    (void)state;
    must_refuse(
        "{\"model_type\": \"mixtral\", " SIZES ", \"num_local_experts\": 0}",
        "config.json: key 'num_local_experts': expected an integer from 1 to 1024, found 0");
    must_refuse("{\"model_type\": \"qwen3_moe\", " SIZES ", \"num_experts\": 4611686018427387904}",
                "config.json: key 'num_experts': expected an integer from 0 to 1024, found "
                "4611686018427387904");
    must_refuse("{\"model_type\": \"mixtral\", " SIZES
                ", \"num_local_experts\": 4, \"num_experts_per_tok\": 5}",
                "config.json: key 'num_experts_per_tok': expected an integer from 1 to 4, found 5");
    must_refuse("{\"model_type\": \"qwen2_moe\", " SIZES ", \"mlp_only_layers\": 3}",
                "config.json: key 'mlp_only_layers': expected a list, found an integer");
    must_refuse("{\"model_type\": \"qwen2_moe\", " SIZES ", \"mlp_only_layers\": [1, \"2\"]}",
                "config.json: mlp_only_layers[1]: expected an integer, found a string");
    must_refuse(
        "{\"model_type\": \"qwen2_moe\", " SIZES ", \"decoder_sparse_step\": 0}",
        "config.json: key 'decoder_sparse_step': expected an integer from 1 to 4096, found 0");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_mixtral),       cmocka_unit_test(test_stacked),
        cmocka_unit_test(test_layers_differ), cmocka_unit_test(test_windows),
        cmocka_unit_test(test_refusals),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

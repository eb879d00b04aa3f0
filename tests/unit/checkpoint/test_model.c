/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "checkpoint/checkpoint.h"
#include "support/folder.h"
#include "support/tiny_model.h"

static int setup(void **state)
{
    *state = folder_make();
    return 0;
}

static int teardown(void **state)
{
    folder_remove(*state);
    return 0;
}

static struct nb_model *opened(const char *dir)
{
    struct nb_err err;
    struct nb_model *m;
    if (nb_model_open(&m, dir, &err)) fail_msg("%s", err.text);
    return m;
}

static void test_dense(void **state)
{
    struct nb_err err;
    struct nb_arena arena;
    struct nb_weight w;
    struct nb_tensor t;
    nb_arena_init(&arena);
    tiny_write(*state, NULL);
    struct nb_model *m = opened(*state);
    assert_string_equal(m->checkpoint->name, "dense");
    assert_null(m->quant_config);
    const struct nb_arch_linear *down = nb_arch_linear_of(&m->arch, NB_ROLE_DOWN);
    assert_int_equal(nb_model_linear(m, 1, down, &arena, &w, &err), 0);
    assert_null(w.q);
    assert_string_equal(w.name, "model.layers.1.mlp.down_proj");
    assert_int_equal(w.rows, 128);
    assert_int_equal(w.cols, 192);
    assert_null(w.bias.data.data);
    assert_ptr_equal(
        w.dense.data.data,
        nb_safetensors_find(m->tensors, "model.layers.1.mlp.down_proj.weight")->data.data);
    struct nb_weight head;
    assert_int_equal(nb_model_head(m, &arena, &head, &err), 0);
    assert_string_equal(head.dense.name, "lm_head.weight");
    assert_int_equal(nb_model_tensor(m, "model.norm.weight", &t, &err), 0);
    assert_int_equal(nb_model_tensor(m, "model.nothing", &t, &err), NB_E_FORMAT);
    assert_non_null(strstr(err.text, ": tensor 'model.nothing' is missing"));
    assert_int_equal(
        nb_model_module(m, &(struct nb_module_ref){"lm_head", 32, 128}, &arena, &w, &err), 0);
    assert_int_equal(
        nb_model_module(m, &(struct nb_module_ref){"lm_head", 33, 128}, &arena, &w, &err),
        NB_E_FORMAT);
    assert_string_equal(
        err.text,
        "tensor 'lm_head.weight' has shape [32,128], config and format dense expect [33,128]");
    nb_model_close(m);
    nb_arena_release(&arena);
}

static void test_tied_head_and_biases(void **state)
{
    struct nb_err err;
    struct nb_arena arena;
    struct nb_weight w;
    nb_arena_init(&arena);
    json_t *config = tiny_config();
    json_object_set_new(config, "model_type", json_string("qwen2"));
    json_object_set_new(config, "tie_word_embeddings", json_true());
    struct tiny_opts o = {.config = config};
    tiny_write(*state, &o);
    struct nb_model *m = opened(*state);
    assert_int_equal(nb_model_head(m, &arena, &w, &err), 0);
    assert_string_equal(w.name, "lm_head.weight");
    assert_string_equal(w.dense.name, "model.embed_tokens.weight");
    assert_int_equal(
        nb_model_linear(m, 0, nb_arch_linear_of(&m->arch, NB_ROLE_K), &arena, &w, &err), 0);
    assert_int_equal(w.bias.rank, 1);
    assert_int_equal(w.bias.shape[0], 64);
    nb_model_close(m);
    json_decref(config);
    nb_arena_release(&arena);
}

/* A quantized head, and the settings from a file beside config.json. */
static void test_quantized_head(void **state)
{
    struct nb_err err;
    struct nb_arena arena;
    struct nb_qmat q;
    struct nb_weight w;
    struct nb_qspec spec = tiny_spec(4, 32, true);
    struct tiny_packed p = {.path = "lm_head"};
    nb_arena_init(&arena);
    tiny_random_qmat(&q, &(struct tiny_matrix){.spec = spec, .rows = 32, .cols = 128, .seed = 1},
                     &arena);
    const struct nb_checkpoint *c = nb_checkpoint_find("gptq");
    assert_int_equal(c->pack(&q, NULL, &arena, p.tensor, &p.n, &err), 0);
    struct tiny_opts o = {.packed = &p, .n_packed = 1};
    tiny_write(*state, &o);
    folder_text(*state, "quantize_config.json",
                "{\"bits\":4,\"group_size\":32,\"desc_act\":false,\"lm_head\":true}");
    struct nb_model *m = opened(*state);
    assert_ptr_equal(m->checkpoint, c);
    assert_int_equal(
        nb_model_module(m, &(struct nb_module_ref){"lm_head", 32, 128}, &arena, &w, &err), 0);
    assert_non_null(w.q);
    assert_memory_equal(w.q->codes, q.codes, 32 * 128);
    nb_model_close(m);
    folder_text(*state, "quantize_config.json",
                "{\"bits\":4,\"group_size\":32,\"desc_act\":false}");
    assert_int_equal(nb_model_open(&m, *state, &err), NB_E_FORMAT);
    assert_non_null(strstr(err.text, ": tensor 'lm_head.weight' is missing"));
    assert_string_equal(
        err.hint, "'lm_head.qweight' is there: the quantization config says that it is float");
    nb_arena_release(&arena);
}

static void refuses(const char *dir, int status, const char *part)
{
    struct nb_err err = {0};
    struct nb_model *m;
    assert_int_equal(nb_model_open(&m, dir, &err), status);
    if (!strstr(err.text, part)) fail_msg("'%s' is not in '%s'", part, err.text);
    assert_null(m);
}

static void test_bad_folders(void **state)
{
    const char *dir = *state;
    refuses("no/such/folder", NB_E_NOTFOUND, "no/such/folder: no such folder");
    refuses(dir, NB_E_NOTFOUND, "/config.json: cannot open: No such file or directory");
    folder_text(dir, "config.json", "{\"model_type\":\"mamba\"}");
    refuses(dir, NB_E_SPEC, "model_type 'mamba' is not known");
    folder_text(dir, "config.json", "[]");
    refuses(dir, NB_E_FORMAT, "expected an object");
    folder_text(dir, "config.json", "{,}");
    refuses(dir, NB_E_FORMAT, "/config.json: not valid JSON");
    json_t *config = tiny_config();
    char *text = json_dumps(config, 0);
    folder_text(dir, "config.json", text);
    refuses(dir, NB_E_NOTFOUND, ": holds no .safetensors file");
    free(text);
    json_decref(config);
    char path[512];
    snprintf(path, sizeof path, "%s/config.json", dir);
    refuses(path, NB_E_FORMAT, "/config.json: not a model folder");
}

static void test_unreadable_quantization(void **state)
{
    json_t *q = json_pack("{s:s}", "quant_method", "hqq");
    struct tiny_opts o = {.quant_config = q};
    tiny_write(*state, &o);
    refuses(*state, NB_E_SPEC, "quant_method 'hqq' cannot be read");
    json_decref(q);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_dense, setup, teardown),
        cmocka_unit_test_setup_teardown(test_tied_head_and_biases, setup, teardown),
        cmocka_unit_test_setup_teardown(test_quantized_head, setup, teardown),
        cmocka_unit_test_setup_teardown(test_bad_folders, setup, teardown),
        cmocka_unit_test_setup_teardown(test_unreadable_quantization, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

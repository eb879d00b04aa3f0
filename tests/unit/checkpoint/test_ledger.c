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

/* "" when the model opens, else the sentence behind "folder: ". */
static const char *outcome(const char *dir, const struct tiny_opts *o, struct nb_err *err)
{
    struct nb_model *m;
    memset(err, 0, sizeof *err);
    tiny_write(dir, o);
    int rc = nb_model_open(&m, dir, err);
    if (!rc) {
        nb_model_close(m);
        return "";
    }
    assert_int_equal(rc, NB_E_FORMAT);
    assert_memory_equal(err->text, dir, strlen(dir));
    return err->text + strlen(dir) + 2;
}

static void test_missing(void **state)
{
    static const char *const names[] = {
        "model.embed_tokens.weight",
        "model.norm.weight",
        "lm_head.weight",
        "model.layers.1.input_layernorm.weight",
        "model.layers.0.post_attention_layernorm.weight",
        "model.layers.1.mlp.down_proj.weight",
        "model.layers.0.self_attn.k_proj.weight",
    };
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        struct nb_err err;
        char want[160];
        struct tiny_opts o = {.omit = names[i]};
        snprintf(want, sizeof want, "tensor '%s' is missing", names[i]);
        assert_string_equal(outcome(*state, &o, &err), want);
    }
}

static void test_left_over(void **state)
{
    struct nb_err err;
    struct tiny_opts o = {.extra = "model.layers.0.mlp.router.weight"};
    assert_string_equal(
        outcome(*state, &o, &err),
        "tensor 'model.layers.0.mlp.router.weight' is no part of a llama model with dense weights");
    o.extra = "model.layers.2.input_layernorm.weight"; /* one layer more than the config says */
    assert_string_equal(
        outcome(*state, &o, &err),
        "tensor 'model.layers.2.input_layernorm.weight' is no part of a llama model with dense weights");
    o.extra = "nodots";
    assert_string_equal(outcome(*state, &o, &err),
                        "tensor 'nodots' is no part of a llama model with dense weights");
    o.extra = "model.layers.0.self_attn.q_proj.bias";
    assert_string_equal(
        outcome(*state, &o, &err),
        "tensor 'model.layers.0.self_attn.q_proj.bias' is no part of a llama model with dense weights");
    o.extra = "model.layers.0.mlp.up_proj.qweight";
    assert_string_equal(
        outcome(*state, &o, &err),
        "tensor 'model.layers.0.mlp.up_proj.qweight' is no part of a llama model with dense weights");
    o.extra = "model.layers.0.self_attn.rotary_emb.inv_freq"; /* a cache that older savers stored */
    assert_string_equal(outcome(*state, &o, &err), "");
}

static void test_wrong_shape(void **state)
{
    struct nb_err err;
    struct tiny_opts o = {.omit = "model.norm.weight", .extra = "model.norm.weight"};
    assert_string_equal(
        outcome(*state, &o, &err),
        "tensor 'model.norm.weight' has shape [1], config and format dense expect [128]");
}

static void test_tied_head(void **state)
{
    struct nb_err err;
    json_t *config = tiny_config();
    struct tiny_opts o = {.config = config};
    /* the config says tied after the weights were written untied: a head that differs */
    tiny_write(*state, &o);
    json_object_set_new(config, "tie_word_embeddings", json_true());
    char *text = json_dumps(config, 0);
    folder_text(*state, "config.json", text);
    struct nb_model *m;
    assert_int_equal(nb_model_open(&m, *state, &err), NB_E_FORMAT);
    assert_non_null(
        strstr(err.text, "tensor 'lm_head.weight' differs from 'model.embed_tokens.weight', though "
                         "config.json says that they are tied"));
    free(text);
    json_decref(config);
}

/* A copy of the embedding under the head's name is what some savers leave. */
static void test_tied_head_that_is_a_copy(void **state)
{
    struct nb_err err;
    const char *dir = *state;
    json_t *config = tiny_config();
    json_object_set_new(config, "tie_word_embeddings", json_true());
    struct tiny_opts o = {.config = config};
    tiny_write(dir, &o);
    struct nb_model *m;
    if (nb_model_open(&m, dir, &err)) fail_msg("%s", err.text);
    struct nb_st_writer *w = nb_st_writer_new();
    for (size_t i = 0; i <= nb_safetensors_count(m->tensors); i++) {
        const struct nb_tensor *t =
            i ? nb_safetensors_at(m->tensors, i - 1)
              : nb_safetensors_find(m->tensors, "model.embed_tokens.weight");
        const char *name = i ? t->name : "lm_head.weight";
        assert_int_equal(nb_st_writer_plan(w, name, t->dtype, t->rank, t->shape, &err), 0);
    }
    char *copy = folder_make();
    struct nb_st_writer_opts wo = {.dir = copy};
    assert_int_equal(nb_st_writer_open(w, &wo, &err), 0);
    for (size_t i = 0; i <= nb_safetensors_count(m->tensors); i++) {
        const struct nb_tensor *t =
            i ? nb_safetensors_at(m->tensors, i - 1)
              : nb_safetensors_find(m->tensors, "model.embed_tokens.weight");
        const char *name = i ? t->name : "lm_head.weight";
        assert_int_equal(nb_st_writer_put(w, name, t->data.data, t->data.bytes, &err), 0);
    }
    assert_int_equal(nb_st_writer_finish(w, &err), 0);
    nb_st_writer_free(w);
    nb_model_close(m);
    char *text = json_dumps(config, 0);
    folder_text(copy, "config.json", text);
    if (nb_model_open(&m, copy, &err)) fail_msg("%s", err.text);
    nb_model_close(m);
    free(text);
    json_decref(config);
    folder_remove(copy);
}

static void make_packed(struct tiny_packed *p, const char *path, struct nb_arena *arena)
{
    struct nb_err err;
    struct nb_qmat q;
    struct nb_qspec spec = tiny_spec(4, 32, true);
    p->path = path;
    tiny_random_qmat(&q, &(struct tiny_matrix){.spec = spec, .rows = 128, .cols = 128, .seed = 1},
                     arena);
    assert_int_equal(nb_checkpoint_find("gptq")->pack(&q, NULL, arena, p->tensor, &p->n, &err), 0);
}

static void test_packed(void **state)
{
    struct nb_err err;
    struct nb_arena arena;
    struct tiny_packed p;
    nb_arena_init(&arena);
    make_packed(&p, "model.layers.0.self_attn.q_proj", &arena);
    json_t *q = json_pack("{s:s, s:i, s:i}", "quant_method", "gptq", "bits", 4, "group_size", 32);
    struct tiny_opts o = {.quant_config = q, .packed = &p, .n_packed = 1};
    assert_string_equal(outcome(*state, &o, &err), "");
    o.omit = "model.layers.0.self_attn.q_proj.scales";
    assert_string_equal(outcome(*state, &o, &err),
                        "tensor 'model.layers.0.self_attn.q_proj.scales' is missing");
    o.omit = NULL;
    o.extra = "model.layers.0.self_attn.q_proj.weight";
    assert_string_equal(
        outcome(*state, &o, &err),
        "tensor 'model.layers.0.self_attn.q_proj.weight' is no part of a llama model with gptq weights");
    o.extra = "model.layers.0.self_attn.q_proj.absmax";
    assert_string_equal(
        outcome(*state, &o, &err),
        "tensor 'model.layers.0.self_attn.q_proj.absmax' is no part of a llama model with gptq weights");
    o.extra = "model.layers.0.self_attn.k_proj.qzeros";
    assert_string_equal(
        outcome(*state, &o, &err),
        "tensor 'model.layers.0.self_attn.k_proj.qzeros' is no part of a llama model with gptq weights");
    o.extra = NULL;
    o.quant_config = NULL;
    assert_string_equal(outcome(*state, &o, &err),
                        "tensor 'model.layers.0.self_attn.q_proj.weight' is missing");
    assert_string_equal(
        err.hint, "'model.layers.0.self_attn.q_proj.qweight' is there, but no quantization config");
    json_decref(q);
    /* rules that call a float linear quantized */
    q = json_pack("{s:s, s:i, s:i, s:{s:{s:i}}}", "quant_method", "gptq", "bits", 4, "group_size",
                  32, "dynamic", ".*q_proj", "bits", 4);
    o.quant_config = q;
    assert_string_equal(outcome(*state, &o, &err),
                        "tensor 'model.layers.0.self_attn.k_proj.qweight' is missing");
    assert_string_equal(
        err.hint,
        "'model.layers.0.self_attn.k_proj.weight' is there: the quantization config does not "
        "say that it is float");
    json_decref(q);
    nb_arena_release(&arena);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_missing, setup, teardown),
        cmocka_unit_test_setup_teardown(test_left_over, setup, teardown),
        cmocka_unit_test_setup_teardown(test_wrong_shape, setup, teardown),
        cmocka_unit_test_setup_teardown(test_tied_head, setup, teardown),
        cmocka_unit_test_setup_teardown(test_tied_head_that_is_a_copy, setup, teardown),
        cmocka_unit_test_setup_teardown(test_packed, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

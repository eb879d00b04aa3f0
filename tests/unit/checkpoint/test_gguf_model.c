/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/file.h"
#include "base/half.h"
#include "base/mem.h"
#include "checkpoint/checkpoint.h"
#include "numeric/block.h"
#include "support/folder.h"
#include "support/tiny_model.h"

struct pair { /* a folder and what was written from it */
    char *dir, *file;
    struct nb_model *folder, *gguf;
};

static int setup(void **state)
{
    struct pair *p = calloc(1, sizeof *p);
    p->dir = folder_make();
    p->file = nb_path_join(p->dir, "m.gguf");
    *state = p;
    return 0;
}

static int teardown(void **state)
{
    struct pair *p = *state;
    nb_model_close(p->folder);
    nb_model_close(p->gguf);
    folder_remove(p->dir);
    nb_free(p->file);
    free(p);
    return 0;
}

static struct nb_gguf_out *plan(struct pair *p, const char *scheme)
{
    struct nb_err err;
    struct nb_gguf_out *o;
    struct nb_gguf_out_opts opts = {.rules = {.preset = nb_gguf_preset_find(scheme)},
                                    .name = "tiny"};
    if (!p->folder && nb_model_open(&p->folder, p->dir, &err)) fail_msg("%s", err.text);
    if (nb_gguf_out_new(&o, p->folder, &opts, NULL, &err)) fail_msg("%s", err.text);
    return o;
}

static void finish(struct nb_gguf_out *o)
{
    struct nb_err err;
    if (nb_gguf_out_finish(o, &err)) fail_msg("%s", err.text);
    nb_gguf_out_free(o);
}

static void write_all(struct pair *p, const char *scheme)
{
    struct nb_err err;
    struct nb_gguf_out *o = plan(p, scheme);
    if (nb_gguf_out_open(o, p->file, 0, false, &err)) fail_msg("%s", err.text);
    for (size_t i = 0; i < nb_gguf_out_count(o); i++) {
        if (nb_gguf_out_put_source(o, i, NULL, &err)) fail_msg("%s", err.text);
    }
    finish(o);
    if (nb_model_open(&p->gguf, p->file, &err)) fail_msg("%s", err.text);
}

static float *rows_of(const struct nb_weight *w)
{
    float *x = malloc((size_t)(w->rows * w->cols) * sizeof *x);
    assert_non_null(x);
    for (int64_t n = 0; n < w->rows; n++) nb_weight_row(w, n, x + n * w->cols);
    return x;
}

static void same_vector(const struct pair *p, const char *name)
{
    struct nb_tensor a, b;
    struct nb_err err;
    if (nb_model_tensor(p->folder, name, &a, &err) || nb_model_tensor(p->gguf, name, &b, &err))
        fail_msg("%s", err.text);
    size_t n = (size_t)nb_tensor_count(&a);
    float *x = malloc(2 * n * sizeof *x);
    assert_int_equal(nb_tensor_count(&b), n);
    nb_to_f32(x, a.data.data, a.dtype, n);
    nb_to_f32(x + n, b.data.data, b.dtype, n);
    for (size_t i = 0; i < n; i++) assert_true(x[i] - x[n + i] < 1e-7f && x[n + i] - x[i] < 1e-7f);
    free(x);
}

static int compare_part(void *ctx, const struct nb_part *part)
{
    const struct pair *p = ctx;
    struct nb_err err;
    if (part->kind == NB_PART_NORM || part->kind == NB_PART_BIAS) {
        same_vector(p, part->name);
        return 0;
    }
    struct nb_arena arena;
    struct nb_weight w[2];
    float *x[2];
    nb_arena_init(&arena);
    for (int i = 0; i < 2; i++) {
        const struct nb_model *m = i ? p->gguf : p->folder;
        int rc = part->kind == NB_PART_EMBEDDING ? nb_model_embedding(m, &w[i], &err)
                 : part->kind == NB_PART_HEAD
                     ? nb_model_head(m, &arena, &w[i], &err)
                     : nb_model_linear(m, part->layer, &m->arch.linears[part->linear], &arena,
                                       &w[i], &err);
        if (rc) fail_msg("%s", err.text);
        x[i] = rows_of(&w[i]);
    }
    assert_int_equal(w[1].rows, part->rows);
    assert_memory_equal(x[0], x[1], (size_t)(part->rows * part->cols) * sizeof(float));
    assert_int_equal(w[0].bias.data.data != NULL, w[1].bias.data.data != NULL);
    free(x[0]);
    free(x[1]);
    nb_arena_release(&arena);
    return 0;
}

static void compare(struct pair *p)
{
    assert_int_equal(nb_model_each_part(&p->folder->arch, compare_part, p), 0);
}

/* Rows of q and k come back in Hugging Face's order, everything else too. */
static void test_llama(void **state)
{
    struct pair *p = *state;
    tiny_write(p->dir, NULL);
    write_all(p, "F16");
    assert_string_equal(p->gguf->arch.model_type, "llama");
    assert_false(nb_model_is_quantized(p->gguf));
    assert_false(nb_model_has_tokenizer(p->gguf));
    compare(p);
    const struct nb_gguf_tensor *q = nb_gguf_find(p->gguf->gguf, "blk.0.attn_q.weight");
    struct nb_tensor hf;
    struct nb_err err;
    const char *name = "model.layers.0.self_attn.q_proj.weight";
    assert_int_equal(nb_model_tensor(p->folder, name, &hf, &err), 0);
    assert_memory_equal(q->data.data, hf.data.data, 256); /* head of 32: 0 16 1 17 ... */
    assert_memory_equal(q->data.data + 256, hf.data.data + 16 * 256, 256);
    assert_memory_equal(q->data.data + 512, hf.data.data + 256, 256);
    assert_int_equal(nb_model_tensor(p->gguf, name, &hf, &err), NB_E_SPEC);
}

static void test_biases(void **state)
{
    struct pair *p = *state;
    json_t *config = tiny_config();
    json_object_set_new(config, "attention_bias", json_true());
    json_object_set_new(config, "tie_word_embeddings", json_true());
    tiny_write(p->dir, &(struct tiny_opts){.config = config});
    json_decref(config);
    write_all(p, "F16");
    assert_true(p->gguf->arch.tie_word_embeddings);
    assert_null(nb_gguf_find(p->gguf->gguf, "output.weight"));
    compare(p);
}

/* Norms are stored as w + 1 and come back as w. */
static void test_gemma(void **state)
{
    struct pair *p = *state;
    json_t *config = tiny_config();
    json_object_set_new(config, "model_type", json_string("gemma2"));
    json_object_set_new(config, "head_dim", json_integer(32));
    json_object_set_new(config, "tie_word_embeddings", json_true());
    json_object_set_new(config, "query_pre_attn_scalar", json_integer(32));
    json_object_set_new(config, "hidden_activation", json_string("gelu_pytorch_tanh"));
    tiny_write(p->dir, &(struct tiny_opts){.config = config});
    json_decref(config);
    write_all(p, "F16");
    compare(p);
    struct nb_tensor hf;
    struct nb_err err;
    float first, stored;
    assert_int_equal(nb_model_tensor(p->folder, "model.norm.weight", &hf, &err), 0);
    nb_to_f32(&first, hf.data.data, hf.dtype, 1);
    memcpy(&stored, nb_gguf_find(p->gguf->gguf, "output_norm.weight")->data.data, 4);
    assert_true(stored == first + 1.0f);
}

/* Blocks run where they lie; q and k are copies with the rows in order. */
static void test_blocks(void **state)
{
    struct pair *p = *state;
    struct nb_arena arena;
    struct nb_weight w;
    struct nb_err err;
    nb_arena_init(&arena);
    tiny_write(p->dir, NULL);
    write_all(p, "Q4_0");
    assert_true(nb_model_is_quantized(p->gguf));
    const struct nb_arch *a = &p->gguf->arch;
    const struct nb_gguf *g = p->gguf->gguf;
    assert_int_equal(
        nb_model_linear(p->gguf, 1, nb_arch_linear_of(a, NB_ROLE_DOWN), &arena, &w, &err), 0);
    assert_string_equal(w.blocks.type->name, "Q4_0");
    assert_ptr_equal(w.blocks.data, nb_gguf_find(g, "blk.1.ffn_down.weight")->data.data);
    assert_int_equal(nb_model_linear(p->gguf, 1, nb_arch_linear_of(a, NB_ROLE_K), &arena, &w, &err),
                     0);
    const unsigned char *k = nb_gguf_find(g, "blk.1.attn_k.weight")->data.data;
    const size_t row = nb_block_row_bytes(w.blocks.type, 128);
    assert_memory_equal(w.blocks.data, k, row);
    assert_memory_equal(w.blocks.data + row, k + 2 * row, row);
    assert_memory_equal(w.blocks.data + 16 * row, k + row, row);
    /* 128 columns are half a block of Q6_K, so head and embedding fall back. */
    assert_int_equal(nb_model_embedding(p->gguf, &w, &err), 0);
    assert_string_equal(w.blocks.type->name, "Q4_0");
    assert_int_equal(nb_model_scan_finite(p->gguf, NULL, &err), 0);
    nb_arena_release(&arena);
}

/* The three ways to hand over a matrix give the same bytes. */
static void test_ways(void **state)
{
    struct pair *p = *state;
    struct nb_arena arena;
    struct nb_err err;
    nb_arena_init(&arena);
    tiny_write(p->dir, NULL);
    write_all(p, "Q8_0");
    char *other = nb_path_join(p->dir, "other.gguf"), *a = NULL, *b = NULL;
    struct nb_gguf_out *o = plan(p, "Q8_0");
    assert_int_equal(nb_gguf_out_open(o, other, 0, false, &err), 0);
    for (size_t i = 0; i < nb_gguf_out_count(o); i++) {
        const struct nb_gguf_item *it = nb_gguf_out_at(o, i);
        if (it->linear < 0) {
            assert_int_equal(nb_gguf_out_put_source(o, i, NULL, &err), 0);
            continue;
        }
        assert_int_equal(nb_gguf_out_linear(o, it->layer, it->linear), i);
        struct nb_weight w;
        const struct nb_arch_linear *lin = &p->folder->arch.linears[it->linear];
        const struct nb_model *from = it->layer ? p->gguf : p->folder;
        assert_int_equal(nb_model_linear(from, it->layer, lin, &arena, &w, &err), 0);
        if (w.blocks.data) {
            struct nb_qmat q;
            assert_int_equal(nb_block_to_qmat(&w.blocks, w.rows, w.cols, &q, &arena, &err), 0);
            assert_int_equal(nb_gguf_out_put_qmat(o, i, &q, &err), 0);
        } else {
            float *x = rows_of(&w);
            assert_int_equal(nb_gguf_out_put_rows(o, i, x, NULL, &err), 0);
            free(x);
        }
    }
    finish(o);
    size_t na, nb;
    assert_int_equal(nb_file_read(p->file, 1 << 24, &a, &na, &err), 0);
    assert_int_equal(nb_file_read(other, 1 << 24, &b, &nb, &err), 0);
    assert_int_equal(na, nb);
    assert_memory_equal(a, b, na);
    nb_free(a);
    nb_free(b);
    nb_free(other);
    nb_arena_release(&arena);
}

/* An interrupted file goes on; what was marked is not written again. */
static void test_resume(void **state)
{
    struct pair *p = *state;
    struct nb_err err;
    tiny_write(p->dir, NULL);
    write_all(p, "Q4_0");
    char *other = nb_path_join(p->dir, "other.gguf"), *a = NULL, *b = NULL;
    struct nb_gguf_out *o = plan(p, "Q4_0");
    assert_int_equal(nb_gguf_out_open(o, other, 0, false, &err), 0);
    const size_t n = nb_gguf_out_count(o), half = n / 2;
    for (size_t i = 0; i < half; i++) assert_int_equal(nb_gguf_out_put_source(o, i, NULL, &err), 0);
    assert_int_equal(nb_gguf_out_sync(o, &err), 0);
    assert_int_not_equal(nb_gguf_out_finish(o, &err), 0);
    nb_gguf_out_free(o);
    assert_false(nb_path_exists(other));
    o = plan(p, "Q4_0");
    assert_int_equal(nb_gguf_out_open(o, other, 0, true, &err), 0);
    for (size_t i = 0; i < half; i++) assert_int_equal(nb_gguf_out_mark(o, i, &err), 0);
    for (size_t i = half; i < n; i++) assert_int_equal(nb_gguf_out_put_source(o, i, NULL, &err), 0);
    finish(o);
    size_t na, nb;
    assert_int_equal(nb_file_read(p->file, 1 << 24, &a, &na, &err), 0);
    assert_int_equal(nb_file_read(other, 1 << 24, &b, &nb, &err), 0);
    assert_int_equal(na, nb);
    assert_memory_equal(a, b, na);
    nb_free(a);
    nb_free(b);
    nb_free(other);
}

/* ---- files that are wrong ---- */

static bool keep_all(const char *name, void *ctx)
{
    (void)ctx;
    (void)name;
    return true;
}

static bool omit(const char *name, void *ctx)
{
    return strcmp(name, ctx) != 0;
}

/* Copies p->file to bad.gguf without tensors that keep() refuses, with one more if extra. */
static void copy_but(struct pair *p, bool (*keep)(const char *, void *), void *ctx,
                     const char *extra, float value)
{
    struct nb_err err;
    struct nb_gguf *g;
    assert_int_equal(nb_gguf_open(&g, p->file, &err), 0);
    struct nb_gguf_writer *w = nb_gguf_writer_new();
    for (size_t i = 0; i < nb_gguf_kv_count(g); i++)
        assert_int_equal(nb_gguf_writer_copy(w, nb_gguf_kv_at(g, i), &err), 0);
    for (size_t i = 0; i < nb_gguf_count(g); i++) {
        const struct nb_gguf_tensor *t = nb_gguf_at(g, i);
        if (keep(t->name, ctx))
            assert_int_equal(nb_gguf_writer_plan(w, t->name, t->type->id, 4, t->ne, &err), 0);
    }
    const int64_t one[] = {1};
    if (extra) assert_int_equal(nb_gguf_writer_plan(w, extra, 0, 1, one, &err), 0);
    char *path = nb_path_join(p->dir, "bad.gguf");
    struct nb_gguf_writer_opts o = {.path = path};
    assert_int_equal(nb_gguf_writer_open(w, &o, &err), 0);
    for (size_t i = 0; i < nb_gguf_count(g); i++) {
        const struct nb_gguf_tensor *t = nb_gguf_at(g, i);
        if (keep(t->name, ctx))
            assert_int_equal(nb_gguf_writer_put(w, t->name, t->data.data, t->data.bytes, &err), 0);
    }
    if (extra) assert_int_equal(nb_gguf_writer_put(w, extra, &value, sizeof value, &err), 0);
    assert_int_equal(nb_gguf_writer_finish(w, &err), 0);
    nb_gguf_writer_free(w);
    nb_gguf_close(g);
    nb_free(path);
}

static void refused(struct pair *p, const char *want)
{
    struct nb_err err;
    struct nb_model *m;
    char *path = nb_path_join(p->dir, "bad.gguf");
    assert_int_equal(nb_model_open(&m, path, &err), NB_E_FORMAT);
    assert_memory_equal(err.text, path, strlen(path));
    assert_string_equal(err.text + strlen(path) + 2, want);
    nb_free(path);
}

static void test_ledger(void **state)
{
    struct pair *p = *state;
    static char missing[] = "blk.1.ffn_up.weight", embed[] = "token_embd.weight";
    tiny_write(p->dir, NULL);
    write_all(p, "F16");
    copy_but(p, omit, missing, NULL, 0);
    refused(p, "tensor 'blk.1.ffn_up.weight' is missing");
    copy_but(p, omit, embed, NULL, 0);
    refused(p, "tensor 'token_embd.weight' is missing");
    copy_but(p, keep_all, NULL, "blk.0.surprise.weight", 1);
    refused(p, "tensor 'blk.0.surprise.weight' is no part of a llama model");
    copy_but(p, omit, missing, missing, 1);
    refused(p, "tensor 'blk.1.ffn_up.weight' has dimensions 1 x 1 x 1 x 1, the metadata expect "
               "128 x 192");
}

static void test_not_finite(void **state)
{
    struct pair *p = *state;
    struct nb_err err;
    tiny_write(p->dir, NULL);
    write_all(p, "Q4_0");
    const struct nb_gguf_tensor *t = nb_gguf_find(p->gguf->gguf, "blk.0.ffn_up.weight");
    char *data = NULL;
    size_t bytes;
    assert_int_equal(nb_file_read(p->file, 1 << 24, &data, &bytes, &err), 0);
    size_t at = 0; /* the tensor's place in the file */
    while (memcmp(data + at, t->data.data, t->data.bytes)) at++;
    const uint16_t infinity = 0x7c00;
    memcpy(data + at + 18 * 5, &infinity, 2);
    folder_write(p->dir, "bad.gguf", data, bytes);
    nb_free(data);
    struct nb_model *m;
    char *path = nb_path_join(p->dir, "bad.gguf");
    assert_int_equal(nb_model_open(&m, path, &err), 0);
    assert_int_equal(nb_model_scan_finite(m, NULL, &err), NB_E_FORMAT);
    assert_non_null(strstr(err.text, "tensor 'blk.0.ffn_up.weight' (Q4_0) holds no finite number "
                                     "at element 16"));
    nb_model_close(m);
    nb_free(path);
}

/* A folder without config.json may hold one file; identity ignores where it lies. */
static void test_folder(void **state)
{
    struct pair *p = *state;
    struct nb_err err;
    char a[NB_SHA256_HEX], b[NB_SHA256_HEX], *sub = nb_path_join(p->dir, "sub");
    char *file = nb_path_join(sub, "x.gguf");
    tiny_write(p->dir, NULL);
    write_all(p, "Q8_0");
    assert_int_equal(nb_dir_make(sub, &err), 0);
    assert_int_equal(nb_file_copy(p->file, file, &err), 0);
    struct nb_model *m;
    if (nb_model_open(&m, sub, &err)) fail_msg("%s", err.text);
    assert_string_equal(m->dir, file);
    assert_int_equal(nb_model_identity(m, a, &err), 0);
    assert_int_equal(nb_model_identity(p->gguf, b, &err), 0);
    assert_string_equal(a, b);
    assert_int_equal(nb_model_identity(p->folder, b, &err), 0);
    assert_string_not_equal(a, b);
    nb_model_close(m);
    nb_free(file);
    nb_free(sub);
}

/* A quantized source is taken only when it is asked for. */
static void test_requantize(void **state)
{
    struct pair *p = *state;
    struct nb_err err;
    struct nb_gguf_out *o;
    tiny_write(p->dir, NULL);
    write_all(p, "Q8_0");
    struct nb_gguf_out_opts opts = {.rules = {.preset = nb_gguf_preset_find("Q4_0")}};
    assert_int_equal(nb_gguf_out_new(&o, p->gguf, &opts, NULL, &err), NB_E_SPEC);
    assert_non_null(strstr(err.text, "is quantized already (Q8_0)"));
    opts.requantize = true;
    assert_int_equal(nb_gguf_out_new(&o, p->gguf, &opts, NULL, &err), 0);
    nb_gguf_out_free(o);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(test_llama),  TEST(test_biases),     TEST(test_gemma),  TEST(test_blocks),
        TEST(test_ways),   TEST(test_resume),     TEST(test_ledger), TEST(test_not_finite),
        TEST(test_folder), TEST(test_requantize),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

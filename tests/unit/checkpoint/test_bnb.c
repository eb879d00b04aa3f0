/* SPDX-License-Identifier: Apache-2.0
 *
 * bitsandbytes' layouts: what is written is read back as the same matrix, every contradiction in a file is one sentence
 * that names the tensor, and what cannot be written is refused with a way out. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/rng.h"
#include "checkpoint/bnb.h"
#include "checkpoint/internal.h"
#include "fixture.h"
#include "numeric/elems.h"
#include "numeric/numeric.h"
#include "support/folder.h"
#include "support/tiny_model.h"

static const char four[] = "{\"quant_method\": \"bitsandbytes\", \"load_in_4bit\": true}";
static const char eight[] = "{\"quant_method\": \"bitsandbytes\", \"load_in_8bit\": true, "
                            "\"llm_int8_threshold\": 5.5}";

static struct nb_qspec spec_4bit(bool nf4, int64_t block, bool nested)
{
    struct nb_qspec s = {.elem = nf4 ? nb_elem_nf4 : nb_elem_fp4,
                         .group_rows = 1,
                         .group_cols = block,
                         .flat = true,
                         .scale_dtype = NB_F32};
    if (!nested) return s;
    s.super_groups = 256;
    s.super_flat = true;
    s.scale_bits = 8;
    s.scale_table = nb_dynamic_map;
    return s;
}

static struct nb_qspec spec_8bit(void)
{
    return (struct nb_qspec){.elem = {.kind = NB_ELEM_INT, .bits = 8, .vec = 1},
                             .group_rows = 1,
                             .group_cols = -1,
                             .scale_dtype = NB_F32,
                             .zero = NB_ZERO_CODE,
                             .symmetric = true,
                             .zero_implied = true,
                             .act = NB_ACT_INT8_OUTLIER,
                             .act_threshold = 5.5f};
}

static void make(struct nb_qmat *q, const struct nb_qspec *spec, int64_t rows, int64_t cols,
                 struct nb_arena *arena)
{
    struct nb_err err;
    struct nb_rng rng;
    float *w = nb_arena_alloc(arena, (size_t)(rows * cols), sizeof *w);
    nb_rng_init(&rng, (uint64_t)(rows * 1000 + cols));
    for (int64_t i = 0; i < rows * cols; i++) w[i] = 0.05f * (float)nb_rng_normal(&rng);
    const struct nb_grid_opts opts = {.spec = *spec};
    if (nb_qmat_init(q, spec, rows, cols, arena, &err)) fail_msg("%s", err.text);
    if (nb_numeric_for(spec)->encode(q, &opts, w, NULL, &err)) fail_msg("%s", err.text);
}

struct file {
    struct nb_packed_tensor t[NB_MAX_PACKED];
    char name[NB_MAX_PACKED][64];
    int n;
};

static void pack(struct file *f, const struct nb_qmat *q, const struct nb_pack_opts *opts,
                 struct nb_arena *arena)
{
    struct nb_err err;
    if (nb_checkpoint_bnb.pack(q, opts, arena, f->t, &f->n, &err)) fail_msg("%s", err.text);
    for (int i = 0; i < f->n; i++) snprintf(f->name[i], 64, "m%s", f->t[i].suffix);
}

static struct nb_model *open_file(const char *folder, const char *config, const struct file *f)
{
    struct fixture_tensor t[NB_MAX_PACKED];
    for (int i = 0; i < f->n; i++) {
        t[i] = (struct fixture_tensor){f->name[i],
                                       f->t[i].dtype,
                                       f->t[i].rank,
                                       {f->t[i].shape[0], f->t[i].shape[1]},
                                       f->t[i].data};
    }
    return fixture_open(folder, config, t, (size_t)f->n);
}

static void compare(const struct nb_qmat *a, const struct nb_qmat *b)
{
    assert_ptr_equal(a->spec.elem.table, b->spec.elem.table);
    assert_int_equal(a->spec.group_cols, b->spec.group_cols);
    assert_int_equal(a->spec.flat, b->spec.flat);
    assert_int_equal(a->spec.super_groups, b->spec.super_groups);
    assert_int_equal(a->spec.act, b->spec.act);
    assert_true(a->spec.act_threshold == b->spec.act_threshold);
    assert_memory_equal(a->codes, b->codes, (size_t)(a->rows * a->cols));
    const size_t bytes = (size_t)nb_qmat_planes(a) * sizeof(float);
    assert_memory_equal(a->scale.value, b->scale.value, bytes);
    if (a->zero.value) assert_memory_equal(a->zero.value, b->zero.value, bytes);
}

static void round_trip(const struct nb_qspec *spec, int64_t rows, int64_t cols,
                       const struct nb_pack_opts *opts)
{
    struct nb_err err;
    struct nb_arena arena;
    struct nb_qmat q, back;
    struct file f, again;
    struct nb_packed_tensor plan[NB_MAX_PACKED];
    nb_arena_init(&arena);
    make(&q, spec, rows, cols, &arena);
    pack(&f, &q, opts, &arena);
    assert_int_equal(nb_checkpoint_bnb.plan(spec, rows, cols, opts, plan), f.n);
    for (int i = 0; i < f.n; i++) {
        assert_string_equal(plan[i].suffix, f.t[i].suffix);
        assert_int_equal(plan[i].dtype, f.t[i].dtype);
        assert_int_equal(plan[i].rank, f.t[i].rank);
        assert_memory_equal(plan[i].shape, f.t[i].shape, sizeof plan[i].shape);
    }
    char *folder = folder_make();
    struct nb_model *m = open_file(folder, spec->elem.kind == NB_ELEM_INT ? eight : four, &f);
    assert_ptr_equal(m->checkpoint, &nb_checkpoint_bnb);
    assert_true(m->checkpoint->is_quantized(m, "m"));
    assert_false(m->checkpoint->is_quantized(m, "other"));
    for (int i = 0; i < f.n; i++) assert_true(m->checkpoint->owns(m, "m", f.t[i].suffix));
    assert_false(m->checkpoint->owns(m, "m", ".weight.something"));
    assert_true(nb_model_tensor_is_finite(m, "m.weight"));
    const struct nb_module_ref ref = {"m", rows, cols};
    if (m->checkpoint->read(m, &ref, &arena, &back, &err)) fail_msg("%s", err.text);
    compare(&q, &back);
    pack(&again, &back, opts, &arena);
    for (int i = 0; i < f.n; i++) {
        size_t bytes = (size_t)nb_dtype_bits(f.t[i].dtype) / 8;
        for (int d = 0; d < f.t[i].rank; d++) bytes *= (size_t)f.t[i].shape[d];
        assert_memory_equal(again.t[i].data, f.t[i].data, bytes);
    }
    assert_int_not_equal(m->checkpoint->check(m, "m", rows, cols + 2, &err), 0);
    nb_model_close(m);
    folder_remove(folder);
    nb_arena_release(&arena);
}

static void test_round_trips(void **state)
{
    (void)state;
    static const int64_t sizes[][2] = {{4, 64}, {3, 37}, {1, 5}, {40, 96}, {7, 1024}};
    static const enum nb_dtype storages[] = {NB_U8, NB_BF16, NB_F16, NB_F32};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        for (int64_t block = 32; block <= 4096; block *= 2) {
            for (int variant = 0; variant < 4; variant++) {
                const struct nb_qspec s = spec_4bit(variant & 1, block, variant & 2);
                round_trip(&s, sizes[i][0], sizes[i][1], NULL);
            }
        }
        const struct nb_qspec s = spec_8bit();
        round_trip(&s, sizes[i][0], sizes[i][1], NULL);
    }
    for (size_t i = 0; i < sizeof storages / sizeof *storages; i++) {
        const struct nb_qspec s = spec_4bit(true, 64, true);
        const struct nb_pack_opts o = {.source = storages[3 - i], .storage = storages[i]};
        round_trip(&s, 48, 80, &o);
    }
}

static void test_storage_keeps_bytes(void **state)
{
    (void)state;
    struct nb_err err;
    struct nb_arena arena;
    struct nb_qmat q;
    struct file f;
    nb_arena_init(&arena);
    const struct nb_qspec s = spec_4bit(true, 64, false);
    make(&q, &s, 8, 64, &arena);
    memset(q.codes, 15, 512); /* 0xffff: NaN in any float type */
    const struct nb_pack_opts o = {.source = NB_F16, .storage = NB_BF16};
    pack(&f, &q, &o, &arena);
    assert_int_equal(f.t[0].dtype, NB_BF16);
    assert_int_equal(f.t[0].shape[0], 128);
    for (int i = 0; i < 256; i++) assert_int_equal(((uint8_t *)f.t[0].data)[i], 0xff);
    assert_non_null(strstr(fixture_find(f.t, f.n, ".weight.quant_state.bitsandbytes__nf4")->data,
                           "\"dtype\": \"float16\""));
    char *folder = folder_make();
    struct nb_model *m = open_file(folder, four, &f);
    assert_int_equal(nb_model_scan_finite(m, NULL, &err), 0); /* bytes, not numbers */
    nb_model_close(m);
    folder_remove(folder);
    make(&q, &s, 3, 3, &arena); /* 5 bytes */
    assert_int_equal(nb_checkpoint_bnb.pack(&q, &o, &arena, f.t, &f.n, &err), NB_E_SPEC);
    assert_non_null(strstr(err.text, "uint8"));
    nb_arena_release(&arena);
}

/* ---- bad files ---- */

/* Changes the file of a sound matrix with fn and expects reading to fail with `text`. */
typedef void (*damage_fn)(struct file *f);

static void expect_refused(const struct nb_qspec *spec, damage_fn damage, const char *text)
{
    struct nb_err err = {0};
    struct nb_arena arena;
    struct nb_qmat q, back;
    struct file f;
    nb_arena_init(&arena);
    make(&q, spec, 6, 80, &arena);
    pack(&f, &q, NULL, &arena);
    damage(&f);
    char *folder = folder_make();
    struct nb_model *m = open_file(folder, spec->elem.kind == NB_ELEM_INT ? eight : four, &f);
    const struct nb_module_ref ref = {"m", 6, 80};
    assert_int_equal(m->checkpoint->read(m, &ref, &arena, &back, &err), NB_E_FORMAT);
    if (!strstr(err.text, text)) fail_msg("'%s' says nothing of '%s'", err.text, text);
    nb_model_close(m);
    folder_remove(folder);
    nb_arena_release(&arena);
}

static struct nb_packed_tensor *tensor(struct file *f, const char *suffix)
{
    for (int i = 0; i < f->n; i++) {
        if (!strcmp(f->t[i].suffix, suffix)) return &f->t[i];
    }
    fail_msg("no %s", suffix);
    return NULL;
}

static void set_float(struct file *f, const char *suffix, float v)
{
    memcpy((char *)tensor(f, suffix)->data + 4, &v, 4);
}

static void rename_tensor(char name[64], const char *to)
{
    snprintf(name, 64, "%s", to);
}

static void absmax_nan(struct file *f)
{
    set_float(f, ".weight.absmax", NAN);
}
static void absmax_inf(struct file *f)
{
    set_float(f, ".weight.absmax", INFINITY);
}
static void absmax_negative(struct file *f)
{
    set_float(f, ".weight.absmax", -0.5f);
}
static void absmax_short(struct file *f)
{
    tensor(f, ".weight.absmax")->shape[0]--;
}
static void absmax_type(struct file *f)
{
    struct nb_packed_tensor *t = tensor(f, ".weight.absmax");
    t->dtype = NB_U8;
}
static void map_other(struct file *f)
{
    set_float(f, ".weight.quant_map", -0.7f);
}
static void map_nan(struct file *f)
{
    set_float(f, ".weight.quant_map", NAN);
}
static void nested_map_other(struct file *f)
{
    set_float(f, ".weight.nested_quant_map", 0.0f);
}
static void scb_nan(struct file *f)
{
    set_float(f, ".SCB", NAN);
}
static void scb_negative(struct file *f)
{
    set_float(f, ".SCB", -1.0f);
}
static void scb_short(struct file *f)
{
    tensor(f, ".SCB")->shape[0] = 5;
}
static void format_other(struct file *f)
{
    *(uint8_t *)tensor(f, ".weight_format")->data = 2;
}
static void codes_type(struct file *f)
{
    tensor(f, ".weight")->dtype = NB_U8;
}
static void weight_short(struct file *f)
{
    tensor(f, ".weight")->shape[0]--;
}
static void weight_wide(struct file *f)
{
    struct nb_packed_tensor *t = tensor(f, ".weight");
    t->dtype = NB_F32;
    t->shape[0] = t->shape[0] / 4 - 1;
}
static void nested_negative(struct file *f)
{
    const float v = -1.0f;
    memcpy(tensor(f, ".weight.nested_absmax")->data, &v, 4);
}
static void nested_overflow(struct file *f)
{
    struct nb_packed_tensor *blob = tensor(f, ".weight.quant_state.bitsandbytes__nf4");
    char *text = blob->data, *offset = strstr(text, "offset\": ") + 9;
    const float v = 3e38f;
    memcpy(tensor(f, ".weight.nested_absmax")->data, &v, 4);
    memset(tensor(f, ".weight.absmax")->data, 255, 8);
    memset(offset, ' ', (size_t)(text + blob->shape[0] - offset));
    memcpy(offset, "3e38}", 5);
}
static void nested_missing(struct file *f)
{
    tensor(f, ".weight.nested_absmax"); /* the last but one */
    f->t[f->n - 2] = f->t[f->n - 1];
    memcpy(f->name[f->n - 2], f->name[f->n - 1], 64);
    f->n--;
}
static void map_missing(struct file *f)
{
    rename_tensor(f->name[NB_BNB_QUANT_MAP], "other");
}
static void weight_missing(struct file *f)
{
    rename_tensor(f->name[NB_BNB_WEIGHT], "other");
}
static void two_states(struct file *f)
{
    f->t[f->n] = *tensor(f, ".weight.quant_state.bitsandbytes__nf4");
    rename_tensor(f->name[f->n++], "m.weight.quant_state.bitsandbytes__fp4");
}
static void nested_left_over(struct file *f)
{
    f->t[f->n] = *tensor(f, ".weight.absmax");
    rename_tensor(f->name[f->n++], "m.weight.nested_absmax");
}
static void other_kind(struct file *f)
{
    rename_tensor(f->name[NB_BNB_STATE], "m.weight.quant_state.bitsandbytes__fp4");
}
static void other_shape(struct file *f)
{
    char *text = tensor(f, ".weight.quant_state.bitsandbytes__nf4")->data;
    *strchr(strstr(text, "[6"), '6') = '8';
}

static void test_bad_files(void **state)
{
    (void)state;
    const struct nb_qspec plain = spec_4bit(true, 64, false), nested = spec_4bit(true, 64, true),
                          int8 = spec_8bit();
    expect_refused(&plain, absmax_nan, "'m.weight.absmax' holds nan at element 1");
    expect_refused(&plain, absmax_inf, "'m.weight.absmax' holds inf at element 1");
    expect_refused(&plain, absmax_negative, "'m.weight.absmax' holds -0.5 at element 1");
    expect_refused(&plain, absmax_short, "'m.weight.absmax' has shape [7]");
    expect_refused(&plain, absmax_type, "'m.weight.absmax' has type U8");
    expect_refused(&plain, map_other, "'m.weight.quant_map': value 1 is");
    expect_refused(&plain, map_nan, "'m.weight.quant_map': value 1 is nan");
    expect_refused(&plain, map_missing, "'m.weight.quant_map' is missing");
    expect_refused(&plain, weight_missing, "'m.weight' is missing");
    expect_refused(&plain, weight_short, "'m.weight' has shape [239,1]");
    expect_refused(&plain, weight_wide, "'m.weight' has shape [59,1]");
    expect_refused(&plain, two_states, "'m' has a quant_state of nf4 and one of fp4");
    expect_refused(&plain, nested_left_over, "'m.weight.nested_absmax' is there");
    expect_refused(&plain, other_kind, "bitsandbytes__fp4': quant_type is nf4");
    expect_refused(&plain, other_shape, "shape is 8 x 80");
    expect_refused(&nested, nested_map_other, "'m.weight.nested_quant_map': value 1 is");
    expect_refused(&nested, nested_negative, "'m.weight.nested_absmax' holds -1 at element 0");
    expect_refused(&nested, nested_overflow, "'m.weight.absmax': element 0 means an absmax of inf");
    expect_refused(&nested, nested_missing, "'m.weight.nested_absmax' is missing");
    expect_refused(&int8, scb_nan, "'m.SCB' holds nan at element 1");
    expect_refused(&int8, scb_negative, "'m.SCB' holds -1 at element 1");
    expect_refused(&int8, scb_short, "'m.SCB' has shape [5]");
    expect_refused(&int8, format_other, "'m.weight_format' is not the U8 number 0");
    expect_refused(&int8, codes_type, "'m.weight' has type U8");
}

/* An absmax of 0 under nesting may come back negative from bitsandbytes itself: read as it stands. */
static void test_negative_when_restored(void **state)
{
    (void)state;
    struct nb_err err;
    struct nb_arena arena;
    struct nb_qmat q, back;
    struct file f;
    nb_arena_init(&arena);
    const struct nb_qspec s = spec_4bit(true, 64, true);
    make(&q, &s, 6, 64, &arena);
    memset(q.scale.codes, 0, 6);
    q.scale.super[0] = 1.0f;
    q.scale.offset = 0.5f;
    pack(&f, &q, NULL, &arena);
    char *folder = folder_make();
    struct nb_model *m = open_file(folder, four, &f);
    if (m->checkpoint->read(m, &(struct nb_module_ref){"m", 6, 64}, &arena, &back, &err))
        fail_msg("%s", err.text);
    assert_true(back.scale.value[0] == nb_dynamic_map[0] + 0.5f);
    nb_model_close(m);
    folder_remove(folder);
    nb_arena_release(&arena);
}

/* ---- what can be written ---- */

static void refuse(const struct nb_qspec *s, bool desc_act, const char *text)
{
    struct nb_err err = {0};
    assert_int_equal(nb_checkpoint_bnb.can_write(s, 100, 100, desc_act, &err), NB_E_SPEC);
    if (!strstr(err.text, text)) fail_msg("'%s' says nothing of '%s'", err.text, text);
    assert_true(strstr(err.text, "nearest") || strstr(err.text, "format"));
}

static void test_can_write(void **state)
{
    (void)state;
    struct nb_err err;
    struct nb_qspec s = spec_4bit(true, 64, true), int8 = spec_8bit(),
                    int4 = tiny_spec(4, 64, true);
    assert_int_equal(nb_checkpoint_bnb.can_write(&s, 100, 100, false, &err), 0);
    assert_int_equal(nb_checkpoint_bnb.can_write(&int8, 100, 100, false, &err), 0);
    refuse(&s, true, "g_idx");
    refuse(&int4, false, "NF4");
    s.group_cols = 48;
    refuse(&s, false, "nearest: 64");
    s = spec_4bit(true, 64, false);
    s.flat = false;
    refuse(&s, false, "across the ends of rows");
    s = spec_4bit(true, 64, true);
    s.super_groups = 128;
    refuse(&s, false, "nearest: plain absmax");
    s = spec_4bit(false, 64, false);
    s.act = NB_ACT_FP8_TOKEN;
    refuse(&s, false, "float activations");
    s = spec_4bit(false, 64, false);
    s.scale_dtype = NB_F16;
    refuse(&s, false, "F32 absmax");
    int8.act = NB_ACT_INT8_TOKEN;
    refuse(&int8, false, "compressed-tensors");
    int8 = spec_8bit();
    int8.group_cols = 32;
    refuse(&int8, false, "one F32 scale per output");
}

static void test_pack_refuses_bad_scales(void **state)
{
    (void)state;
    struct nb_err err;
    struct nb_arena arena;
    struct nb_qmat q;
    struct file f;
    nb_arena_init(&arena);
    const struct nb_qspec s[3] = {spec_4bit(true, 64, false), spec_4bit(true, 64, true),
                                  spec_8bit()};
    for (int i = 0; i < 3; i++) {
        make(&q, &s[i], 4, 64, &arena);
        float *scale = i == 1 ? q.scale.super : q.scale.value;
        scale[0] = -1.0f;
        assert_int_equal(nb_checkpoint_bnb.pack(&q, NULL, &arena, f.t, &f.n, &err), NB_E_NUMERIC);
        scale[0] = NAN;
        assert_int_equal(nb_checkpoint_bnb.pack(&q, NULL, &arena, f.t, &f.n, &err), NB_E_NUMERIC);
    }
    make(&q, &s[2], 4, 64, &arena);
    q.zero.value[1] = 127.0f;
    assert_int_equal(nb_checkpoint_bnb.pack(&q, NULL, &arena, f.t, &f.n, &err), NB_E_NUMERIC);
    nb_arena_release(&arena);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_round_trips), cmocka_unit_test(test_storage_keeps_bytes),
        cmocka_unit_test(test_bad_files),   cmocka_unit_test(test_negative_when_restored),
        cmocka_unit_test(test_can_write),   cmocka_unit_test(test_pack_refuses_bad_scales),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

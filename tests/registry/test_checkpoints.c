/* SPDX-License-Identifier: Apache-2.0
 *
 * Every checkpoint that writes, with every grid it says it can write: what is written is read back as the
 * same matrices, and written again gives the same bytes. A new row is tested on arrival. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/rng.h"
#include "checkpoint/checkpoint.h"
#include "numeric/elems.h"
#include "support/folder.h"
#include "support/tiny_model.h"

enum { N_MODULES = 14 };
#define WHOLE ((int64_t)1 << 40)

struct model {
    char path[N_MODULES][NB_NAME_MAX * 2];
    struct nb_module_spec spec[N_MODULES];
    struct nb_qmat q[N_MODULES];
    struct tiny_packed packed[N_MODULES];
    size_t n_packed;
    struct nb_arena arena;
};

static size_t bytes_of(const struct nb_packed_tensor *t)
{
    size_t n = (size_t)nb_dtype_bits(t->dtype) / 8;
    for (int i = 0; i < t->rank; i++) n *= (size_t)t->shape[i];
    return n;
}

struct made { /* of what the matrices of a model are */
    const struct nb_checkpoint *c;
    const struct nb_qspec *spec;
    bool act_order;
    const char *leave_float; /* modules that end so, or NULL */
};

static float some_scale(struct nb_rng *rng) /* of few bits: exact in any type */
{
    return ldexpf(1.0f + (float)nb_rng_below(rng, 128) / 128.0f, (int)nb_rng_below(rng, 12) - 14);
}

static void random_scales(struct nb_qmat *q, struct nb_rng *rng)
{
    const int64_t n = nb_qmat_planes(q);
    const bool nvfp4 = q->spec.scale_table == nb_e4m3_values;
    for (int64_t i = 0; q->scale.super && i < nb_qmat_supers(q); i++)
        q->scale.super[i] = some_scale(rng);
    if (q->scale.super && !nvfp4) q->scale.offset = 0.25f;
    for (int64_t i = 0; i < n; i++) {
        float s = some_scale(rng);
        if (q->spec.scale_dtype == NB_F8_E8M0) s = ldexpf(1.0f, (int)nb_rng_below(rng, 20) - 20);
        if (q->spec.act == NB_ACT_INT8_OUTLIER) s /= 127.0f; /* the file holds the dividend */
        if (q->scale.codes)
            q->scale.codes[i] =
                (uint8_t)(nvfp4 ? 1 + nb_rng_below(rng, 126) : 128 + nb_rng_below(rng, 128));
        q->scale.value[i] = s;
    }
    for (int64_t g = 0; q->scale.codes && g < nb_qmat_group_rows(q); g++) nb_qmat_fill_values(q, g);
}

/* Any kind of matrix; integers with stored zeros and order by tiny_random_qmat. */
static void random_qmat(struct nb_qmat *q, const struct made *made, int64_t rows, int64_t cols,
                        uint64_t seed, struct nb_arena *arena)
{
    struct nb_err err;
    struct nb_rng rng;
    if (made->spec->elem.kind == NB_ELEM_INT && made->spec->act == NB_ACT_NONE) {
        const struct tiny_matrix t = {.spec = *made->spec,
                                      .rows = rows,
                                      .cols = cols,
                                      .zero_min = made->c->zero_min,
                                      .act_order = made->act_order,
                                      .seed = seed};
        tiny_random_qmat(q, &t, arena);
        return;
    }
    nb_rng_init(&rng, seed);
    if (nb_qmat_init(q, made->spec, rows, cols, arena, &err)) fail_msg("%s", err.text);
    const unsigned n = 1u << q->spec.elem.bits;
    for (int64_t i = 0; i < rows * cols; i++) {
        q->codes[i] = (uint8_t)nb_rng_below(&rng, n);
        if (q->spec.elem.kind == NB_ELEM_FLOAT && n == 256 && (q->codes[i] & 0x7f) == 0x7f)
            q->codes[i] = 0; /* NaN */
        if (q->spec.act == NB_ACT_INT8_OUTLIER && !q->codes[i]) q->codes[i] = 1;
    }
    random_scales(q, &rng);
    for (int64_t i = 0; q->spec.zero == NB_ZERO_CODE && i < nb_qmat_planes(q); i++)
        q->zero.value[i] = (float)(n / 2);
    const enum nb_act_kind act = q->spec.act;
    if (act == NB_ACT_INT8_STATIC || act == NB_ACT_FP8_STATIC || act == NB_ACT_NVFP4)
        q->input_scale = some_scale(&rng);
}

static struct nb_pack_opts pack_opts(bool act_order)
{
    return (struct nb_pack_opts){.source = NB_F16, .storage = NB_U8, .order = act_order};
}

static bool ends_with(const char *s, const char *end)
{
    const size_t n = strlen(s), k = end ? strlen(end) : 0;
    return end && n >= k && !strcmp(s + n - k, end);
}

/* Random matrices for all linears of the tiny model; modules the format cannot hold, and those to leave, stay float.
 * Returns how many are packed. */
static size_t make(struct model *m, const struct made *made)
{
    const struct nb_checkpoint *c = made->c;
    const struct nb_pack_opts opts = pack_opts(made->act_order);
    struct nb_err err;
    struct nb_arch arch;
    json_t *config = tiny_config();
    assert_int_equal(nb_arch_from_config(&arch, config, &err), 0);
    json_decref(config);
    memset(m, 0, sizeof *m);
    nb_arena_init(&m->arena);
    assert_int_equal(arch.n_layers * arch.n_linears, N_MODULES);
    for (int i = 0; i < N_MODULES; i++) {
        const struct nb_arch_linear *lin = &arch.linears[i % arch.n_linears];
        nb_arch_name(&arch, i / arch.n_linears, lin->name, m->path[i]);
        struct nb_module_spec *s = &m->spec[i];
        memcpy(s->path, m->path[i], sizeof s->path);
        s->spec = *made->spec;
        s->desc_act = made->act_order;
        s->quantized = !ends_with(s->path, made->leave_float) &&
                       !c->can_write(made->spec, lin->rows, lin->cols, made->act_order, &err);
        if (!s->quantized) continue;
        random_qmat(&m->q[i], made, lin->rows, lin->cols, (uint64_t)i + 1, &m->arena);
        struct tiny_packed *p = &m->packed[m->n_packed++];
        p->path = m->path[i];
        if (c->pack(&m->q[i], &opts, &m->arena, p->tensor, &p->n, &err))
            fail_msg("%s: %s", c->name, err.text);
        struct nb_packed_tensor plan[NB_MAX_PACKED];
        assert_int_equal(c->plan(made->spec, lin->rows, lin->cols, &opts, plan), p->n);
        for (int t = 0; t < p->n; t++) {
            assert_string_equal(plan[t].suffix, p->tensor[t].suffix);
            assert_int_equal(plan[t].dtype, p->tensor[t].dtype);
            assert_int_equal(bytes_of(&plan[t]), bytes_of(&p->tensor[t]));
            p->tensor[t].rank = plan[t].rank; /* what a file would say */
            memcpy(p->tensor[t].shape, plan[t].shape, sizeof plan[t].shape);
        }
    }
    nb_arch_release(&arch);
    return m->n_packed;
}

/* False: one config of this format cannot name these modules. */
static bool write_model(const struct model *m, const char *dir, const struct made *made)
{
    struct nb_err err = {0};
    struct nb_checkpoint_info info = {.spec = *made->spec,
                                      .modules = m->spec,
                                      .n_modules = N_MODULES,
                                      .desc_act = made->act_order,
                                      .damp = 0.01,
                                      .pack = pack_opts(made->act_order),
                                      .producer = "nibble:test"};
    if (made->c->can_describe(&info, &err)) {
        assert_int_equal(err.status, NB_E_SPEC);
        assert_non_null(strstr(err.text, "model.layers."));
        return false;
    }
    json_t *quant = made->c->config(&info);
    struct tiny_opts o = {.quant_config = quant, .packed = m->packed, .n_packed = m->n_packed};
    tiny_write(dir, &o);
    json_decref(quant);
    return true;
}

static void compare_matrices(const struct nb_qmat *a, const struct nb_qmat *b)
{
    const size_t planes = (size_t)nb_qmat_planes(a);
    assert_int_equal(a->spec.elem.bits, b->spec.elem.bits);
    assert_int_equal(a->spec.group_cols, b->spec.group_cols);
    assert_int_equal(a->spec.group_rows, b->spec.group_rows);
    assert_int_equal(a->spec.act, b->spec.act);
    assert_int_equal(a->n_groups, b->n_groups);
    assert_memory_equal(a->codes, b->codes, (size_t)(a->rows * a->cols));
    assert_int_equal(planes, nb_qmat_planes(b));
    assert_memory_equal(a->scale.value, b->scale.value, planes * sizeof(float));
    if (a->zero.value) assert_memory_equal(a->zero.value, b->zero.value, planes * sizeof(float));
    assert_true(a->input_scale == b->input_scale);
    for (int64_t k = 0; k < a->cols && !a->spec.flat; k++)
        assert_int_equal(nb_qmat_group(a, k), nb_qmat_group(b, k));
}

static void compare_bytes(const struct tiny_packed *p, const struct nb_qmat *q,
                          const struct made *made, struct nb_arena *arena)
{
    struct nb_err err;
    struct nb_packed_tensor again[NB_MAX_PACKED];
    const struct nb_pack_opts opts = pack_opts(made->act_order);
    int n;
    if (made->c->pack(q, &opts, arena, again, &n, &err))
        fail_msg("%s: %s", made->c->name, err.text);
    assert_int_equal(n, p->n);
    for (int t = 0; t < n; t++) {
        assert_int_equal(bytes_of(&again[t]), bytes_of(&p->tensor[t]));
        assert_memory_equal(again[t].data, p->tensor[t].data, bytes_of(&again[t]));
    }
}

static void read_and_compare(const struct model *m, const char *dir, const struct made *made)
{
    struct nb_err err;
    struct nb_model *model;
    const struct nb_checkpoint *c = made->c;
    if (nb_model_open(&model, dir, &err)) fail_msg("%s: %s", c->name, err.text);
    assert_ptr_equal(model->checkpoint, c);
    assert_string_equal(model->note, "");
    size_t packed = 0;
    for (int i = 0; i < N_MODULES; i++) {
        struct nb_arena arena;
        struct nb_weight w;
        nb_arena_init(&arena);
        const struct nb_arch_linear *lin = &model->arch.linears[i % model->arch.n_linears];
        if (nb_model_linear(model, i / model->arch.n_linears, lin, &arena, &w, &err))
            fail_msg("%s", err.text);
        assert_int_equal(w.q != NULL, m->spec[i].quantized);
        assert_string_equal(w.name, m->path[i]);
        if (w.q) {
            compare_matrices(&m->q[i], w.q);
            compare_bytes(&m->packed[packed++], w.q, made, &arena);
        }
        nb_arena_release(&arena);
    }
    assert_int_equal(packed, m->n_packed);
    nb_model_close(model);
}

/* How many linears were packed; 0 also where they cannot be described together. */
static size_t round_trip(const struct made *made)
{
    struct model *m = malloc(sizeof *m);
    assert_non_null(m);
    size_t n = make(m, made);
    if (n) {
        char *dir = folder_make();
        if (write_model(m, dir, made)) read_and_compare(m, dir, made);
        else n = 0;
        folder_remove(dir);
    }
    nb_arena_release(&m->arena);
    free(m);
    return n;
}

/* ---- every grid ---- */

typedef void (*spec_fn)(void *ctx, const struct nb_qspec *spec, bool act_order);

static void each_integer(spec_fn fn, void *ctx)
{
    static const int bits[] = {2, 3, 4, 8};
    static const int64_t groups[] = {32, 64, 128, 256, -1};
    for (size_t b = 0; b < 4; b++) {
        for (size_t g = 0; g < 5; g++) {
            for (int variant = 0; variant < 4; variant++) {
                const struct nb_qspec spec = tiny_spec(bits[b], groups[g], variant & 1);
                fn(ctx, &spec, variant & 2);
            }
        }
    }
}

static void each_int8(spec_fn fn, void *ctx)
{
    static const enum nb_act_kind acts[] = {NB_ACT_INT8_TOKEN, NB_ACT_INT8_STATIC,
                                            NB_ACT_INT8_OUTLIER};
    for (size_t i = 0; i < 3; i++) {
        struct nb_qspec spec = tiny_spec(8, -1, true);
        spec.zero_implied = true;
        spec.scale_dtype = NB_F32;
        spec.act = acts[i];
        if (acts[i] == NB_ACT_INT8_OUTLIER) spec.act_threshold = 6;
        fn(ctx, &spec, false);
    }
}

static void each_table(spec_fn fn, void *ctx)
{
    static const int64_t groups[] = {32, 64, 128, 4096};
    for (int i = 0; i < 16; i++) {
        struct nb_qspec spec = {.elem = i & 1 ? nb_elem_fp4 : nb_elem_nf4,
                                .group_rows = 1,
                                .group_cols = groups[i / 4],
                                .flat = true,
                                .scale_dtype = NB_F32};
        if (i & 2) {
            spec.super_groups = 256;
            spec.super_flat = true;
            spec.scale_bits = 8;
            spec.scale_table = nb_dynamic_map;
        }
        fn(ctx, &spec, false);
    }
}

static void each_float(spec_fn fn, void *ctx)
{
    static const struct {
        int64_t rows, cols, act_group;
        enum nb_act_kind act;
    } e4m3[] = {
        {WHOLE, -1, 0, NB_ACT_FP8_STATIC}, {WHOLE, -1, 0, NB_ACT_FP8_TOKEN},
        {1, -1, 0, NB_ACT_FP8_TOKEN},      {WHOLE, -1, 0, NB_ACT_FP8_TENSOR},
        {128, 128, 128, NB_ACT_FP8_GROUP}, {1, -1, 0, NB_ACT_NONE},
    };
    for (size_t i = 0; i < sizeof e4m3 / sizeof *e4m3; i++) {
        const struct nb_qspec spec = {.elem = nb_elem_e4m3,
                                      .group_rows = e4m3[i].rows,
                                      .group_cols = e4m3[i].cols,
                                      .scale_dtype = NB_F32,
                                      .act = e4m3[i].act,
                                      .act_group = e4m3[i].act_group};
        fn(ctx, &spec, false);
    }
    struct nb_qspec spec = {.elem = nb_elem_e2m1,
                            .group_rows = 1,
                            .group_cols = 16,
                            .scale_dtype = NB_F32,
                            .super_groups = WHOLE,
                            .super_flat = true,
                            .super_divides = true,
                            .scale_bits = 8,
                            .scale_table = nb_e4m3_values};
    fn(ctx, &spec, false);
    spec.act = NB_ACT_NVFP4;
    fn(ctx, &spec, false);
    spec = (struct nb_qspec){
        .elem = nb_elem_e2m1, .group_rows = 1, .group_cols = 32, .scale_dtype = NB_F8_E8M0};
    fn(ctx, &spec, false);
    spec.act = NB_ACT_MXFP4;
    fn(ctx, &spec, false);
    spec.elem = nb_elem_e4m3;
    spec.act = NB_ACT_MXFP8;
    fn(ctx, &spec, false);
}

static void each_spec(spec_fn fn, void *ctx)
{
    each_integer(fn, ctx);
    each_int8(fn, ctx);
    each_table(fn, ctx);
    each_float(fn, ctx);
}

struct trip {
    const struct nb_checkpoint *c;
    size_t written;
};

static void identity(void *ctx, const struct nb_qspec *spec, bool act_order)
{
    struct trip *t = ctx;
    const struct made made = {.c = t->c, .spec = spec, .act_order = act_order};
    t->written += round_trip(&made);
}

static void test_identity(void **state)
{
    (void)state;
    for (const struct nb_checkpoint *const *c = nb_checkpoints(); *c; c++) {
        struct trip t = {.c = *c};
        if (!(*c)->can_write) continue;
        each_spec(identity, &t);
        assert_true(t.written > 0);
    }
}

static void with_float_modules(void *ctx, const struct nb_qspec *spec, bool act_order)
{
    static const char *const left[] = {"down_proj", "1.self_attn.o_proj", "0.mlp.gate_proj"};
    struct trip *t = ctx;
    struct made made = {.c = t->c, .spec = spec};
    if (act_order) return;
    for (size_t i = 0; i < 3; i++) {
        struct model *m = malloc(sizeof *m);
        assert_non_null(m);
        made.leave_float = NULL;
        size_t want = make(m, &made);
        for (int k = 0; k < N_MODULES; k++)
            want -= m->spec[k].quantized && ends_with(m->path[k], left[i]);
        nb_arena_release(&m->arena);
        free(m);
        made.leave_float = left[i];
        const size_t n = round_trip(&made);
        if (n) assert_int_equal(n, want);
        t->written += n;
    }
}

static void test_float_modules(void **state)
{
    (void)state;
    for (const struct nb_checkpoint *const *c = nb_checkpoints(); *c; c++) {
        struct trip t = {.c = *c};
        if (!(*c)->can_write) continue;
        const struct nb_qspec spec = tiny_spec(4, 64, false);
        with_float_modules(&t, &spec, false);
        each_int8(with_float_modules, &t);
        each_float(with_float_modules, &t);
        if (!t.written) each_table(with_float_modules, &t);
        assert_true(t.written > 0);
    }
}

/* A refusal is a sentence with a way out. */
static void check_refusal(const struct nb_checkpoint *c, const struct nb_qspec *spec, int64_t rows,
                          int64_t cols)
{
    struct nb_err err = {0};
    if (!c->can_write(spec, rows, cols, false, &err)) return;
    assert_int_equal(err.status, NB_E_SPEC);
    if (!strstr(err.text, "nearest") && !strstr(err.text, "usable") &&
        !strstr(err.text, "--ignore") && !strstr(err.text, "only") &&
        !strstr(err.text, "stores scales as") && !strstr(err.text, "format "))
        fail_msg("%s: no way out in '%s'", c->name, err.text);
}

static void refusal(void *ctx, const struct nb_qspec *spec, bool act_order)
{
    (void)act_order;
    check_refusal(ctx, spec, 128, 128);
    check_refusal(ctx, spec, 100, 128);
    check_refusal(ctx, spec, 128, 100);
}

static void test_refusals(void **state)
{
    (void)state;
    for (const struct nb_checkpoint *const *c = nb_checkpoints(); *c; c++) {
        struct nb_err err = {0};
        if (!(*c)->can_write) continue;
        each_spec(refusal, (void *)(uintptr_t)*c);
        for (int bits = 1; bits <= 8; bits++) {
            for (int64_t group = -1; group <= 300; group += group < 0 ? 2 : 1) {
                const struct nb_qspec spec = tiny_spec(bits, group, true);
                check_refusal(*c, &spec, 128, 128);
            }
        }
        struct nb_qspec spec = tiny_spec(4, 64, true);
        spec.elem.kind = NB_ELEM_FLOAT;
        assert_int_equal((*c)->can_write(&spec, 128, 128, false, &err), NB_E_SPEC);
    }
}

static void test_table(void **state)
{
    (void)state;
    assert_null(nb_checkpoint_find("marlin"));
    assert_null(nb_checkpoint_find(""));
    for (const struct nb_checkpoint *const *c = nb_checkpoints(); *c; c++) {
        assert_ptr_equal(nb_checkpoint_find((*c)->name), *c);
        assert_non_null((*c)->summary);
        bool writes = (*c)->can_write;
        assert_true(writes == ((*c)->plan != NULL) && writes == ((*c)->pack != NULL));
        assert_true(writes == ((*c)->config != NULL) && writes == ((*c)->can_describe != NULL));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_table),
        cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_identity),
        cmocka_unit_test(test_float_modules),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

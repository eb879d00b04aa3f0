/* SPDX-License-Identifier: Apache-2.0
 *
 * Every checkpoint that writes, with every grid it says it can write: what is written is read back as the
 * same matrices, and written again gives the same bytes. A new row is tested on arrival. */
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

enum { N_MODULES = 14 };

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

/* Random matrices for all linears of the tiny model; modules the format cannot hold, and those `leave_float`
 * ends the path of, stay float. Returns how many are packed. */
static size_t make(struct model *m, const struct nb_checkpoint *c, const struct nb_qspec *spec,
                   bool act_order, const char *leave_float)
{
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
        s->spec = *spec;
        s->desc_act = act_order;
        size_t n = strlen(s->path), k = leave_float ? strlen(leave_float) : 0;
        bool kept_float = leave_float && n >= k && !strcmp(s->path + n - k, leave_float);
        s->quantized = !kept_float && !c->can_write(spec, lin->rows, lin->cols, act_order, &err);
        if (!s->quantized) continue;
        tiny_random_qmat(&m->q[i],
                         &(struct tiny_matrix){.spec = *spec,
                                               .rows = lin->rows,
                                               .cols = lin->cols,
                                               .zero_min = c->zero_min,
                                               .act_order = act_order,
                                               .seed = (uint64_t)i + 1},
                         &m->arena);
        struct tiny_packed *p = &m->packed[m->n_packed++];
        p->path = m->path[i];
        if (c->pack(&m->q[i], &m->arena, p->tensor, &p->n, &err))
            fail_msg("%s: %s", c->name, err.text);
        struct nb_packed_tensor plan[NB_MAX_PACKED];
        assert_int_equal(c->plan(spec, lin->rows, lin->cols, plan), p->n);
        for (int t = 0; t < p->n; t++) {
            assert_string_equal(plan[t].suffix, p->tensor[t].suffix);
            assert_int_equal(plan[t].dtype, p->tensor[t].dtype);
            assert_int_equal(bytes_of(&plan[t]), bytes_of(&p->tensor[t]));
        }
    }
    nb_arch_release(&arch);
    return m->n_packed;
}

static void write_model(const struct model *m, const char *dir, const struct nb_checkpoint *c,
                        const struct nb_qspec *spec, bool act_order)
{
    struct nb_err err;
    struct nb_checkpoint_info info = {.spec = *spec,
                                      .modules = m->spec,
                                      .n_modules = N_MODULES,
                                      .desc_act = act_order,
                                      .damp = 0.01,
                                      .producer = "nibble:test"};
    if (c->can_describe(&info, &err)) fail_msg("%s: %s", c->name, err.text);
    json_t *quant = c->config(&info);
    struct tiny_opts o = {.quant_config = quant, .packed = m->packed, .n_packed = m->n_packed};
    tiny_write(dir, &o);
    json_decref(quant);
}

static void compare_matrices(const struct nb_qmat *a, const struct nb_qmat *b)
{
    assert_int_equal(a->spec.elem.bits, b->spec.elem.bits);
    assert_int_equal(a->spec.group_cols, b->spec.group_cols);
    assert_int_equal(a->n_groups, b->n_groups);
    assert_memory_equal(a->codes, b->codes, (size_t)(a->rows * a->cols));
    assert_memory_equal(a->scale.value, b->scale.value,
                        (size_t)(a->rows * a->n_groups) * sizeof(float));
    assert_memory_equal(a->zero.value, b->zero.value,
                        (size_t)(a->rows * a->n_groups) * sizeof(float));
    for (int64_t k = 0; k < a->cols; k++)
        assert_int_equal(nb_qmat_group(a, k), nb_qmat_group(b, k));
}

static void read_and_compare(const struct model *m, const char *dir, const struct nb_checkpoint *c)
{
    struct nb_err err;
    struct nb_model *model;
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
            struct nb_packed_tensor again[NB_MAX_PACKED];
            int n;
            if (c->pack(w.q, &arena, again, &n, &err)) fail_msg("%s: %s", c->name, err.text);
            const struct tiny_packed *p = &m->packed[packed++];
            assert_int_equal(n, p->n);
            for (int t = 0; t < n; t++) {
                assert_int_equal(bytes_of(&again[t]), bytes_of(&p->tensor[t]));
                assert_memory_equal(again[t].data, p->tensor[t].data, bytes_of(&again[t]));
            }
        }
        nb_arena_release(&arena);
    }
    assert_int_equal(packed, m->n_packed);
    nb_model_close(model);
}

static size_t round_trip(const struct nb_checkpoint *c, const struct nb_qspec *spec, bool act_order,
                         const char *leave_float)
{
    struct model *m = malloc(sizeof *m);
    assert_non_null(m);
    size_t n = make(m, c, spec, act_order, leave_float);
    if (n) {
        char *dir = folder_make();
        write_model(m, dir, c, spec, act_order);
        read_and_compare(m, dir, c);
        folder_remove(dir);
    }
    nb_arena_release(&m->arena);
    free(m);
    return n;
}

static void test_identity(void **state)
{
    (void)state;
    static const int bits[] = {2, 3, 4, 8};
    static const int64_t groups[] = {32, 64, 128, 256, -1};
    for (const struct nb_checkpoint *const *c = nb_checkpoints(); *c; c++) {
        if (!(*c)->can_write) continue;
        size_t written = 0;
        for (size_t b = 0; b < 4; b++) {
            for (size_t g = 0; g < 5; g++) {
                for (int variant = 0; variant < 4; variant++) {
                    struct nb_qspec spec = tiny_spec(bits[b], groups[g], variant & 1);
                    written += round_trip(*c, &spec, variant & 2, NULL);
                }
            }
        }
        assert_true(written > 0);
    }
}

static void test_float_modules(void **state)
{
    (void)state;
    for (const struct nb_checkpoint *const *c = nb_checkpoints(); *c; c++) {
        if (!(*c)->can_write) continue;
        struct nb_qspec spec = tiny_spec(4, 64, false);
        size_t all = round_trip(*c, &spec, false, NULL);
        assert_int_equal(round_trip(*c, &spec, false, "down_proj"), all - 2);
        assert_int_equal(round_trip(*c, &spec, false, "1.self_attn.o_proj"), all - 1);
        assert_int_equal(round_trip(*c, &spec, false, "0.mlp.gate_proj"), all - 1);
    }
}

/* A refusal is a sentence with a way out, and what is refused is not packed by mistake. */
static void test_refusals(void **state)
{
    (void)state;
    for (const struct nb_checkpoint *const *c = nb_checkpoints(); *c; c++) {
        if (!(*c)->can_write) continue;
        for (int bits = 1; bits <= 8; bits++) {
            for (int64_t group = -1; group <= 300; group += group < 0 ? 2 : 1) {
                struct nb_err err = {0};
                struct nb_qspec spec = tiny_spec(bits, group, true);
                if (!(*c)->can_write(&spec, 128, 128, false, &err)) continue;
                assert_int_equal(err.status, NB_E_SPEC);
                assert_true(strstr(err.text, "nearest") || strstr(err.text, "usable") ||
                            strstr(err.text, "--ignore"));
            }
        }
        struct nb_err err = {0};
        struct nb_qspec spec = tiny_spec(4, 64, true);
        spec.elem.kind = NB_ELEM_FLOAT;
        assert_int_equal((*c)->can_write(&spec, 128, 128, false, &err), NB_E_SPEC);
        spec = tiny_spec(4, 64, true);
        spec.scale_dtype = NB_BF16;
        assert_int_equal((*c)->can_write(&spec, 128, 128, false, &err), NB_E_SPEC);
        spec = tiny_spec(4, 64, true);
        assert_int_equal((*c)->can_write(&spec, 100, 128, false, &err), NB_E_SPEC);
        assert_int_equal((*c)->can_write(&spec, 128, 100, false, &err), NB_E_SPEC);
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

/* SPDX-License-Identifier: Apache-2.0
 *
 * Every scheme x solver x checkpoint: what says that it fits is solved, packed, written, read back as the same codes
 * and scales, and run by the linear kernel that takes it, against rows of the definition; what does not fit is
 * refused with a sentence that says what would. New rows of any of the tables are tested on arrival. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/half.h"
#include "base/rng.h"
#include "base/strbuf.h"
#include "numeric/elems.h"
#include "numeric/numeric.h"
#include "pipeline/scheme.h"
#include "quant/quant.h"
#include "support/folder.h"
#include "support/tiny_model.h"

enum { MAX_MODULES = 16, TOKENS = 480, RUN_TOKENS = 7, MAX_COLS = 192, MAX_SCHEMES = 64 };

struct fixture {
    struct nb_pool *pool;
    struct nb_backend *be;
    struct nb_arch arch;
    float x[TOKENS * MAX_COLS];
    struct nb_stats stats[2]; /* of 128 and of 192 inputs */
    char names[MAX_SCHEMES][32];
    size_t n_names;
    int solved, written, refused;
};

static void list_schemes(struct fixture *f)
{
    struct nb_strbuf list;
    nb_strbuf_init(&list);
    nb_scheme_list(&list);
    const char *p = nb_strbuf_cstr(&list);
    while (*p && f->n_names < MAX_SCHEMES) {
        const size_t n = strcspn(p, ",");
        assert_true(n < sizeof f->names[0]);
        memcpy(f->names[f->n_names], p, n);
        f->names[f->n_names++][n] = '\0';
        p += n + strspn(p + n, ", ");
    }
    nb_strbuf_release(&list);
    assert_true(f->n_names >= 4 && f->n_names < MAX_SCHEMES);
}

static int make_stats(struct fixture *f, struct nb_stats *s, int64_t k)
{
    struct nb_err err = {0};
    struct nb_rng rng;
    nb_rng_init(&rng, 17 + (uint64_t)k);
    for (int64_t i = 0; i < TOKENS * k; i++)
        f->x[i] = (float)(nb_rng_normal(&rng) * (1 + (double)(i % k % 5)));
    if (nb_stats_init(s, k, 0, &err)) return -1;
    if (nb_stats_add(s, f->be, &(struct nb_stats_input){f->x, NULL, TOKENS}, &err)) return -1;
    nb_stats_finish(s);
    return nb_stats_condense(s, &err) ? -1 : 0;
}

static int set_up(void **state)
{
    struct fixture *f = calloc(1, sizeof *f);
    struct nb_err err = {0};
    if (!f) return -1;
    f->pool = nb_pool_new(2, &err);
    if (!f->pool || nb_backend_new(&f->be, f->pool, NULL, &err)) return -1;
    json_t *config = tiny_config();
    const int rc = nb_arch_from_config(&f->arch, config, &err);
    json_decref(config);
    list_schemes(f);
    *state = f;
    return rc || make_stats(f, &f->stats[0], 128) || make_stats(f, &f->stats[1], MAX_COLS);
}

static int tear_down(void **state)
{
    struct fixture *f = *state;
    nb_stats_release(&f->stats[0]);
    nb_stats_release(&f->stats[1]);
    nb_arch_release(&f->arch);
    nb_backend_free(f->be);
    nb_pool_free(f->pool);
    free(f);
    return 0;
}

/* The scheme's numbers as this container keeps them, as a run would choose. */
static void resolve(struct nb_grid_opts *g, const struct nb_scheme *s,
                    const struct nb_checkpoint *c, bool nested)
{
    g->spec = s->spec;
    if (g->spec.scale_dtype == NB_SCALES_OF_FORMAT) g->spec.scale_dtype = c->scale_dtype;
    if (s->free_group && !g->spec.flat) g->spec.group_cols = 64;
    if (s->free_sym) {
        g->spec.symmetric = c->sym_default;
        g->spec.zero_implied = c->sym_default && c->implies_zeros;
        g->zero_min = c->sym_default ? 0 : c->zero_min;
    }
    if (!nested) return;
    g->spec.super_groups = 256;
    g->spec.super_flat = true;
    g->spec.scale_bits = 8;
    g->spec.scale_table = nb_dynamic_map;
}

struct output {
    struct nb_arena arena;
    struct nb_module_spec spec[MAX_MODULES];
    struct nb_qmat q[MAX_MODULES];
    struct tiny_packed packed[MAX_MODULES];
    size_t n_packed, n_modules;
};

static bool is_static(enum nb_act_kind a)
{
    return a == NB_ACT_INT8_STATIC || a == NB_ACT_FP8_STATIC || a == NB_ACT_NVFP4;
}

static void solve_one(struct fixture *f, struct output *o, size_t i, const struct nb_solver *solver,
                      const struct nb_solve_opts *opts, const struct nb_arch_linear *lin)
{
    struct nb_err err = {0};
    struct nb_rng rng;
    float *w = malloc((size_t)(lin->rows * lin->cols) * sizeof *w);
    assert_non_null(w);
    nb_rng_init(&rng, 5 + i);
    for (int64_t k = 0; k < lin->rows * lin->cols; k++)
        w[k] = nb_round_to((float)(0.05 * nb_rng_normal(&rng)), NB_BF16);
    const struct nb_fmat mat = {w, lin->rows, lin->cols, lin->cols};
    const struct nb_solve_job job = {&mat, &f->stats[lin->cols == MAX_COLS], opts, f->be};
    struct nb_solve_report report;
    if (solver->solve(&o->q[i], &job, &o->arena, &report, &err))
        fail_msg("%s: %s: %s", solver->name, lin->name, err.text);
    /* Scales in two levels are rounded once more, after the losses were compared. */
    const double slack = opts->grid.spec.super_groups ? 1.01 : 1.00001;
    if (!(report.loss >= 0 && report.loss <= report.loss_rtn * slack)) {
        char spec[96];
        nb_qspec_describe(&opts->grid.spec, spec, sizeof spec);
        fail_msg("%s: %s: %s: loss %g, of rounding %g", solver->name, lin->name, spec, report.loss,
                 report.loss_rtn);
    }
    if (is_static(o->q[i].spec.act)) o->q[i].input_scale = 0.03125f;
    f->solved++;
    free(w);
}

static const struct nb_pack_opts pack_opts = {.source = NB_F16, .storage = NB_U8};

static size_t bytes_of(const struct nb_packed_tensor *t)
{
    size_t n = (size_t)nb_dtype_bits(t->dtype) / 8;
    for (int i = 0; i < t->rank; i++) n *= (size_t)t->shape[i];
    return n;
}

/* A file is laid out by the plan, made from the spec as asked for; what is packed must be as long. */
static void take_plan(struct tiny_packed *p, const struct nb_checkpoint *c,
                      const struct nb_qspec *spec, const struct nb_arch_linear *lin)
{
    struct nb_packed_tensor plan[NB_MAX_PACKED];
    const int n = c->plan(spec, lin->rows, lin->cols, &pack_opts, plan);
    assert_int_equal(n, p->n);
    for (int i = 0; i < n; i++) {
        assert_string_equal(plan[i].suffix, p->tensor[i].suffix);
        assert_int_equal(bytes_of(&plan[i]), bytes_of(&p->tensor[i]));
        plan[i].data = p->tensor[i].data;
        p->tensor[i] = plan[i];
    }
}

/* The first layer; the second stays float. Returns how many linears this container holds in this scheme. */
static size_t make(struct fixture *f, struct output *o, const struct nb_checkpoint *c,
                   const struct nb_solver *solver, const struct nb_solve_opts *opts)
{
    struct nb_err err = {0};
    for (int64_t l = 0; l < f->arch.n_layers; l++) {
        for (int k = 0; k < f->arch.n_linears; k++) {
            const struct nb_arch_linear *lin = &f->arch.linears[k];
            const size_t i = o->n_modules++;
            struct nb_module_spec *m = &o->spec[i];
            nb_arch_name(&f->arch, l, lin->name, m->path);
            m->spec = opts->grid.spec;
            m->quantized = l == 0 && !c->can_write(&m->spec, lin->rows, lin->cols, false, &err);
            if (!m->quantized) continue;
            solve_one(f, o, i, solver, opts, lin);
            struct tiny_packed *p = &o->packed[o->n_packed++];
            p->path = m->path;
            if (c->pack(&o->q[i], &pack_opts, &o->arena, p->tensor, &p->n, &err))
                fail_msg("%s: %s: %s", c->name, lin->name, err.text);
            take_plan(p, c, &m->spec, lin);
        }
    }
    return o->n_packed;
}

static void compare(const struct nb_qmat *a, const struct nb_qmat *b, const char *what)
{
    float ra[MAX_COLS], rb[MAX_COLS];
    assert_int_equal(a->rows, b->rows);
    assert_int_equal(a->cols, b->cols);
    assert_int_equal(a->spec.act, b->spec.act);
    if (memcmp(a->codes, b->codes, (size_t)(a->rows * a->cols))) fail_msg("%s: codes", what);
    for (int64_t n = 0; n < a->rows; n++) {
        nb_qmat_dequant_row(a, n, ra);
        nb_qmat_dequant_row(b, n, rb);
        for (int64_t k = 0; k < a->cols; k++)
            if (ra[k] != rb[k]) fail_msg("%s: row %d, column %d", what, (int)n, (int)k);
    }
    if (is_static(a->spec.act)) assert_true(a->input_scale == b->input_scale);
}

/* y of the kernel against y of the definition. Rounded activations move it; how far is theirs to test, here it
 * must be the same product: within a tenth of its size. */
static void run(struct fixture *f, const struct nb_weight *w, const char *what)
{
    struct nb_err err = {0};
    struct nb_linear lin;
    float row[MAX_COLS], y[RUN_TOKENS * MAX_COLS] = {0};
    if (nb_linear_init(&lin, f->be, w, &err)) fail_msg("%s: %s", what, err.text);
    float x[RUN_TOKENS * MAX_COLS];
    struct nb_rng rng;
    nb_rng_init(&rng, 3);
    for (int64_t i = 0; i < RUN_TOKENS * w->cols; i++) x[i] = (float)nb_rng_normal(&rng);
    nb_linear_run(f->be, &(struct nb_linear_out){&lin, y, MAX_COLS}, x, RUN_TOKENS, w->cols);
    double off = 0, size = 0;
    for (int64_t n = 0; n < w->rows; n++) {
        nb_qmat_dequant_row(w->q, n, row);
        for (int64_t t = 0; t < RUN_TOKENS; t++) {
            double want = 0;
            for (int64_t k = 0; k < w->cols; k++)
                want += (double)row[k] * (double)x[t * w->cols + k];
            const double d = want - (double)y[t * MAX_COLS + n];
            off += d * d;
            size += want * want;
        }
    }
    const double share = w->q->spec.act == NB_ACT_NONE ? 1e-3 : 0.2;
    if (!(sqrt(off) <= share * sqrt(size)))
        fail_msg("%s: kernel %s is off by %g of %g", what, nb_linear_kernel_name(&lin), sqrt(off),
                 sqrt(size));
    nb_linear_release(&lin);
}

static void read_back(struct fixture *f, const struct output *o, const char *dir,
                      const struct nb_checkpoint *c, const char *what)
{
    struct nb_err err = {0};
    struct nb_model *model;
    if (nb_model_open(&model, dir, &err)) fail_msg("%s: %s", what, err.text);
    assert_ptr_equal(model->checkpoint, c);
    for (size_t i = 0; i < o->n_modules; i++) {
        struct nb_arena arena;
        struct nb_weight w;
        nb_arena_init(&arena);
        const int n = f->arch.n_linears;
        if (nb_model_linear(model, (int64_t)i / n, &model->arch.linears[(int)i % n], &arena, &w,
                            &err))
            fail_msg("%s: %s", what, err.text);
        assert_int_equal(w.q != NULL, o->spec[i].quantized);
        if (w.q) {
            compare(&o->q[i], w.q, what);
            run(f, &w, what);
        }
        nb_arena_release(&arena);
    }
    nb_model_close(model);
}

static void write_and_read(struct fixture *f, struct output *o, const struct nb_checkpoint *c,
                           const struct nb_qspec *spec, const char *what)
{
    struct nb_err err = {0};
    const struct nb_checkpoint_info info = {.spec = *spec,
                                            .modules = o->spec,
                                            .n_modules = o->n_modules,
                                            .static_groups = true,
                                            .pack = pack_opts,
                                            .producer = "nibble:test"};
    if (c->can_describe(&info, &err)) return; /* these shapes have no common scheme */
    char *dir = folder_make();
    json_t *quant = c->config(&info);
    tiny_write(dir, &(struct tiny_opts){
                        .quant_config = quant, .packed = o->packed, .n_packed = o->n_packed});
    json_decref(quant);
    read_back(f, o, dir, c, what);
    folder_remove(dir);
    f->written++;
}

static void try_one(struct fixture *f, const struct nb_scheme *s, const struct nb_solver *solver,
                    const struct nb_checkpoint *c, bool nested)
{
    struct nb_solve_opts opts = {0};
    char what[128];
    snprintf(what, sizeof what, "%s %s %s%s", s->name, solver->name, c->name,
             nested ? " nested" : "");
    nb_solve_opts_effort(&opts, NB_EFFORT_FAST);
    resolve(&opts.grid, s, c, nested);
    if (!solver->supports(&opts.grid.spec)) return;
    struct output *o = calloc(1, sizeof *o);
    assert_non_null(o);
    nb_arena_init(&o->arena);
    if (make(f, o, c, solver, &opts)) write_and_read(f, o, c, &opts.grid.spec, what);
    nb_arena_release(&o->arena);
    free(o);
}

static void test_what_fits_survives(void **state)
{
    struct fixture *f = *state;
    for (size_t i = 0; i < f->n_names; i++) {
        const struct nb_scheme *s = nb_scheme_find(f->names[i]);
        assert_non_null(s);
        const int before = f->written;
        for (const struct nb_checkpoint *const *c = nb_checkpoints(); *c; c++) {
            if (!(*c)->can_write) continue;
            for (const struct nb_solver *const *v = nb_solvers(); *v; v++) {
                for (int nested = 0; nested <= s->nests; nested++) try_one(f, s, *v, *c, nested);
            }
        }
        if (f->written == before) fail_msg("no container and solver take scheme %s", s->name);
    }
}

/* Scheme and container that do not fit: a sentence with what would. */
static void test_what_does_not_fit_says_what_would(void **state)
{
    struct fixture *f = *state;
    static const char *const ways_out[] = {"possible", "nearest",        "usable",     "--ignore",
                                           "only",     "another format", "need format"};
    for (size_t i = 0; i < f->n_names; i++) {
        const struct nb_scheme *s = nb_scheme_find(f->names[i]);
        for (const struct nb_checkpoint *const *c = nb_checkpoints(); *c; c++) {
            struct nb_grid_opts g = {0};
            struct nb_err err = {0};
            if (!(*c)->can_write) continue;
            resolve(&g, s, *c, false);
            const int rc = (*c)->can_write(&g.spec, 128, 128, false, &err);
            if (!rc) continue;
            f->refused++;
            assert_int_equal(rc, NB_E_SPEC);
            size_t w = 0;
            while (w < 7 && !strstr(err.text, ways_out[w]) && !strstr(err.hint, ways_out[w])) w++;
            if (w == 7) fail_msg("%s in %s: '%s' shows no way out", s->name, (*c)->name, err.text);
        }
    }
    assert_true(f->refused > 0);
}

/* What a solver does not support it refuses too, instead of solving something else. */
static void test_solvers_refuse_what_they_do_not_support(void **state)
{
    struct fixture *f = *state;
    static float w[128 * 4];
    const struct nb_fmat mat = {w, 4, 128, 128};
    for (int i = 0; i < 128 * 4; i++) w[i] = 0.01f * (float)(i % 13 - 6);
    struct nb_solve_opts opts = {0};
    nb_solve_opts_effort(&opts, NB_EFFORT_FAST);
    opts.grid.spec = tiny_spec(4, 64, true);
    opts.grid.spec.zero = NB_ZERO_MIN;
    for (const struct nb_solver *const *v = nb_solvers(); *v; v++) {
        struct nb_err err = {0};
        struct nb_arena arena;
        struct nb_qmat q;
        nb_arena_init(&arena);
        assert_false((*v)->supports(&opts.grid.spec));
        const struct nb_solve_job job = {&mat, &f->stats[0], &opts, f->be};
        assert_int_equal((*v)->solve(&q, &job, &arena, NULL, &err), NB_E_SPEC);
        nb_arena_release(&arena);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_what_fits_survives),
        cmocka_unit_test(test_what_does_not_fit_says_what_would),
        cmocka_unit_test(test_solvers_refuse_what_they_do_not_support),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}

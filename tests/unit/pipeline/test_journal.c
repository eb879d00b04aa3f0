/* SPDX-License-Identifier: Apache-2.0
 *
 * test_journal.c - what was saved is found again, and nothing that is not exactly the same run is resumed. */
#include <float.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/file.h"
#include "pipeline/run.h"
#include "support/folder.h"

enum { LAYERS = 3, LINEARS = 2, CHUNKS = 4, FLOATS = 10 };

/* A run without a model: three layers of two linears, of which the second stays float. */
struct fixture {
    struct nb_quantize_opts opts;
    struct nb_quantize_report report;
    struct nb_linear_report linears[LAYERS * LINEARS];
    struct nb_model model;
    struct nb_module_spec modules[LAYERS * LINEARS];
    struct nb_run run;
    struct nb_err err;
};

static char *dir;

static int setup(void **state)
{
    (void)state;
    dir = folder_make();
    char *work = nb_path_join(dir, NB_WORK_NAME);
    int rc = nb_dir_make(work, NULL);
    nb_free(work);
    return rc;
}

static int teardown(void **state)
{
    (void)state;
    folder_remove(dir);
    return 0;
}

static json_t *identity(double damp)
{
    return json_pack("{s:s, s:{s:s, s:s}, s:{s:i, s:f}, s:s}", "version", "0.1.0", "inputs",
                     "config.json", "aa", "model.safetensors", "bb", "recipe", "bits", 4, "damp",
                     damp, "calibration", "cc");
}

static void start(struct fixture *f, uint64_t budget)
{
    memset(f, 0, sizeof *f);
    f->model.arch.n_layers = LAYERS;
    f->model.arch.n_linears = LINEARS;
    f->report.linears = f->linears;
    for (int i = 0; i < LAYERS * LINEARS; i++) f->modules[i].quantized = i % LINEARS == 0;
    f->run =
        (struct nb_run){.opts = &f->opts, .report = &f->report, .model = &f->model, .lock_fd = -1};
    f->run.recipe.modules = f->modules;
    f->run.recipe.n_modules = LAYERS * LINEARS;
    f->run.recipe.calibrates = true;
    f->run.recipe.fp_stream = true;
    f->run.partial = nb_xstrdup(dir);
    f->run.work = nb_path_join(dir, NB_WORK_NAME);
    f->run.identity = identity(0.1);
    f->run.sink = &nb_sink_folder;
    f->run.writer = nb_st_writer_new();
    char *spill = nb_path_join(f->run.work, "spill");
    assert_int_equal(nb_actstore_open(&f->run.h, spill, CHUNKS, FLOATS, &budget, NULL), 0);
    assert_int_equal(nb_actstore_open(&f->run.h_fp, spill, CHUNKS, FLOATS, &budget, NULL), 0);
    nb_free(spill);
}

static void stop(struct fixture *f)
{
    nb_actstore_close(&f->run.h);
    nb_actstore_close(&f->run.h_fp);
    nb_st_writer_free(f->run.writer);
    json_decref(f->run.identity);
    json_decref(f->run.journal_layers);
    nb_free(f->run.partial);
    nb_free(f->run.work);
}

static void fill(struct nb_actstore *s, float base)
{
    for (int64_t c = 0; c < CHUNKS; c++) {
        float *p;
        assert_int_equal(nb_actstore_get(s, c, 0, &p, NULL), 0);
        for (int i = 0; i < FLOATS; i++) p[i] = base + (float)(c * 100 + i);
        assert_int_equal(nb_actstore_put(s, c, NULL), 0);
    }
}

static void assert_filled(struct nb_actstore *s, float base)
{
    for (int64_t c = 0; c < CHUNKS; c++) {
        float *p;
        assert_int_equal(nb_actstore_get(s, c, 1, &p, NULL), 0);
        for (int i = 0; i < FLOATS; i++) assert_true(p[i] == base + (float)(c * 100 + i));
    }
}

/* One layer finished: a report, changed activations, the journal. */
static void finish_layer(struct fixture *f, double loss)
{
    struct nb_linear_report *l = &f->linears[f->report.n_linears++];
    *l = (struct nb_linear_report){.bits = 4, .group = 128, .quantized = true};
    snprintf(l->name, sizeof l->name, "layer.%d", (int)f->run.layers_done);
    l->solve = (struct nb_solve_report){.loss = loss,
                                        .loss_rtn = 2 * loss,
                                        .loss_zero = 3 * loss,
                                        .damp = 0.01,
                                        .order = NB_ORDER_STATIC,
                                        .ladder = "cholesky"};
    assert_int_equal(json_array_append_new(f->run.journal_layers, nb_journal_report(l)), 0);
    f->run.layers_done++;
    fill(&f->run.h, (float)f->run.layers_done);
    fill(&f->run.h_fp, -(float)f->run.layers_done);
    if (nb_journal_save(&f->run, &f->err)) fail_msg("%s", f->err.text);
}

/* The folder as it is after two layers. */
static void two_layers(void)
{
    struct fixture f;
    start(&f, 1 << 20);
    assert_int_equal(nb_journal_open(&f.run, &f.err), 0);
    assert_false(f.run.resumed);
    finish_layer(&f, 1.0 / 3.0);
    finish_layer(&f, DBL_MIN / 7);
    stop(&f);
}

static void goes_on_where_it_was(void **state)
{
    (void)state;
    two_layers();
    struct fixture f;
    start(&f, 3 * FLOATS * sizeof(float)); /* other places for the chunks */
    assert_int_equal(nb_journal_open(&f.run, &f.err), 0);
    assert_true(f.run.resumed);
    assert_int_equal(f.run.layers_done, 2);
    if (nb_journal_load_activations(&f.run, &f.err)) fail_msg("%s", f.err.text);
    assert_filled(&f.run.h, 2);
    assert_filled(&f.run.h_fp, -2);
    assert_int_equal(nb_journal_restore_reports(&f.run, &f.err), 0);
    assert_int_equal(f.report.n_linears, 2);
    assert_string_equal(f.linears[1].name, "layer.1");
    assert_true(f.linears[0].solve.loss == 1.0 / 3.0 && f.linears[0].solve.loss_rtn == 2.0 / 3.0);
    assert_true(f.linears[1].solve.loss == DBL_MIN / 7); /* to the last bit */
    assert_int_equal(f.linears[1].solve.order, NB_ORDER_STATIC);
    assert_string_equal(f.linears[1].solve.ladder, "cholesky");
    assert_int_equal(f.linears[1].bits, 4);
    finish_layer(&f, 1); /* the last layer */
    stop(&f);
    start(&f, 0);
    assert_int_equal(nb_journal_open(&f.run, &f.err), 0);
    assert_int_equal(f.run.layers_done, LAYERS);
    stop(&f);
}

static void refuses(struct fixture *f, const char *what)
{
    char expected[600];
    assert_int_equal(nb_journal_open(&f->run, &f->err), NB_E_EXISTS);
    snprintf(expected, sizeof expected, "%s: holds an unfinished run of other settings: %s", dir,
             what);
    assert_string_equal(f->err.text, expected);
    assert_non_null(strstr(f->err.hint, "--restart"));
}

static void says_what_changed(void **state)
{
    (void)state;
    two_layers();
    static const struct {
        const char *part, *key, *said;
    } cases[] = {
        {"version", NULL, "version changed"},
        {"calibration", NULL, "calibration changed"},
        {"inputs", "model.safetensors", "inputs 'model.safetensors' changed"},
        {"inputs", "tokenizer.json", "inputs 'tokenizer.json' changed"},
        {"recipe", "damp", "recipe 'damp' changed"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct fixture f;
        start(&f, 1 << 20);
        json_t *holder =
            cases[i].key ? json_object_get(f.run.identity, cases[i].part) : f.run.identity;
        json_object_set_new(holder, cases[i].key ? cases[i].key : cases[i].part,
                            json_string("new"));
        refuses(&f, cases[i].said);
        stop(&f);
    }
    struct fixture f;
    start(&f, 1 << 20);
    json_object_del(json_object_get(f.run.identity, "inputs"), "config.json");
    refuses(&f, "inputs changed");
    stop(&f);
}

/* A real in the recipe must come back as the same number, or no run with it could ever be resumed. */
static void any_real_resumes(void **state)
{
    (void)state;
    static const double values[] = {0.1, 1.0 / 3.0, 0.012345678901234567};
    for (size_t i = 0; i < 3; i++) {
        struct fixture f;
        for (int again = 0; again < 2; again++) {
            start(&f, 1 << 20);
            json_decref(f.run.identity);
            f.run.identity = identity(values[i]);
            f.opts.restart = again == 0;
            if (nb_journal_open(&f.run, &f.err)) fail_msg("%s", f.err.text);
            assert_int_equal(f.run.resumed, again);
            if (!again) finish_layer(&f, 1);
            stop(&f);
        }
    }
}

static void restart_forgets(void **state)
{
    (void)state;
    two_layers();
    folder_text(dir, "model.safetensors", "x");
    struct fixture f;
    start(&f, 1 << 20);
    f.opts.restart = true;
    assert_int_equal(nb_journal_open(&f.run, &f.err), 0);
    assert_false(f.run.resumed);
    assert_int_equal(f.run.layers_done, 0);
    assert_int_equal(json_array_size(f.run.journal_layers), 0);
    char **names;
    size_t n;
    assert_int_equal(nb_dir_list(dir, &names, &n, NULL), 0);
    assert_int_equal(n, 1); /* the work folder */
    nb_dir_list_free(names, n);
    assert_int_equal(nb_dir_list(f.run.work, &names, &n, NULL), 0);
    assert_int_equal(n, 0);
    nb_dir_list_free(names, n);
    stop(&f);
}

/* Saves go to the two files in turn: a crash while one is written leaves the one the journal names. */
static void half_written_activations_do_no_harm(void **state)
{
    (void)state;
    two_layers();
    char *work = nb_path_join(dir, NB_WORK_NAME);
    folder_text(work, "hidden.1", "half of layer thr");
    folder_text(work, "journal.json.tmp", "{\"ident");
    struct fixture f;
    start(&f, 1 << 20);
    assert_int_equal(nb_journal_open(&f.run, &f.err), 0);
    assert_int_equal(nb_journal_load_activations(&f.run, &f.err), 0);
    assert_filled(&f.run.h, 2);
    stop(&f);
    nb_free(work);
}

static void damage_is_noticed(void **state)
{
    (void)state;
    two_layers();
    char *work = nb_path_join(dir, NB_WORK_NAME), *hidden = nb_path_join(work, "hidden.0");
    static const char *const said[] = {"hidden.0: SHA-256 is not the journal's",
                                       "hidden.0: ends at byte 100", "hidden.0: cannot open"};
    for (int i = 0; i < 3; i++) {
        struct fixture f;
        char zeros[CHUNKS * FLOATS * 2 * sizeof(float)] = {0};
        if (i == 2) assert_int_equal(unlink(hidden), 0);
        else folder_write(work, "hidden.0", zeros, i ? 100 : sizeof zeros);
        start(&f, 1 << 20);
        assert_int_equal(nb_journal_open(&f.run, &f.err), 0);
        assert_int_not_equal(nb_journal_load_activations(&f.run, &f.err), 0);
        assert_non_null(strstr(f.err.text, said[i]));
        assert_non_null(strstr(f.err.hint, "--restart begins anew"));
        stop(&f);
    }
    nb_free(hidden);
    nb_free(work);
}

/* Journals that no run of ours wrote: refused, never followed. */
static void bad_journals_are_refused(void **state)
{
    (void)state;
    two_layers();
    char *work = nb_path_join(dir, NB_WORK_NAME), *path = nb_path_join(work, "journal.json");
    struct fixture f;
    json_t *good = nb_json_load(path, 1 << 20, NULL);
    for (int i = 0; i < 5; i++) {
        json_t *j = json_deep_copy(good);
        json_t *layers = json_object_get(j, "layers");
        if (i == 0) json_object_set_new(j, "layers_done", json_integer(LAYERS + 1));
        if (i == 1) json_object_set_new(j, "layers_done", json_integer(-1));
        if (i == 2)
            for (int k = 0; k < 100; k++) json_array_append(layers, json_array_get(layers, 0));
        if (i == 3) json_object_set_new(j, "layers", json_object());
        if (i == 4) json_array_clear(layers);
        struct nb_strbuf text;
        nb_strbuf_init(&text);
        assert_int_equal(nb_json_dump(j, false, &text, NULL), 0);
        folder_text(work, "journal.json", text.data);
        start(&f, 1 << 20);
        refuses(&f, "the journal is not readable");
        stop(&f);
        nb_strbuf_release(&text);
        json_decref(j);
    }
    folder_text(work, "journal.json", "{\"layers\": [");
    start(&f, 1 << 20);
    assert_int_equal(nb_journal_open(&f.run, &f.err), NB_E_FORMAT);
    assert_string_equal(f.err.hint, "--restart begins anew");
    stop(&f);
    json_decref(good);
    nb_free(path);
    nb_free(work);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(goes_on_where_it_was, setup, teardown),
        cmocka_unit_test_setup_teardown(says_what_changed, setup, teardown),
        cmocka_unit_test_setup_teardown(any_real_resumes, setup, teardown),
        cmocka_unit_test_setup_teardown(restart_forgets, setup, teardown),
        cmocka_unit_test_setup_teardown(half_written_activations_do_no_harm, setup, teardown),
        cmocka_unit_test_setup_teardown(damage_is_noticed, setup, teardown),
        cmocka_unit_test_setup_teardown(bad_journals_are_refused, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

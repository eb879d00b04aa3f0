/* SPDX-License-Identifier: Apache-2.0
 *
 * test_card.c - the model card says what was done and measured, and warns when it should. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "base/file.h"
#include "pipeline/run.h"
#include "support/folder.h"

struct fixture {
    struct nb_quantize_opts opts;
    struct nb_quantize_report report;
    struct nb_model model;
    struct nb_run run;
    char *dir;
    char *text;
};

static int setup(void **state)
{
    static struct fixture f;
    memset(&f, 0, sizeof f);
    nb_quantize_defaults(&f.opts);
    f.opts.model_dir = "models/books-11m/";
    f.report = (struct nb_quantize_report){.method = "gptq",
                                           .format = "gptq",
                                           .bits = 4,
                                           .group = 128,
                                           .sym = true,
                                           .bits_per_weight = 4.15625,
                                           .tensors_quantized = 7,
                                           .tensors_copied = 2,
                                           .tensors_dropped = 1,
                                           .tensors_source = 10,
                                           .bytes_source = 12345};
    memcpy(f.model.arch.model_type, "llama", 6);
    f.dir = folder_make();
    f.run =
        (struct nb_run){.opts = &f.opts, .report = &f.report, .model = &f.model, .partial = f.dir};
    f.run.recipe.solver = nb_solver_find("gptq");
    f.run.recipe.solve.grid.spec = (struct nb_qspec){
        .elem = {.kind = NB_ELEM_INT, .bits = 4}, .group_cols = 128, .symmetric = true};
    f.run.sink = &nb_sink_folder;
    f.run.writer = nb_st_writer_new();
    *state = &f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    nb_st_writer_free(f->run.writer);
    nb_free(f->text);
    folder_remove(f->dir);
    return 0;
}

static void write_card(struct fixture *f)
{
    struct nb_err err;
    size_t n;
    char *path = nb_path_join(f->dir, "README.md");
    if (nb_run_write_card(&f->run, &err)) fail_msg("%s", err.text);
    nb_free(f->text);
    assert_int_equal(nb_file_read(path, 1 << 16, &f->text, &n, &err), 0);
    nb_free(path);
}

static void says(struct fixture *f, const char *part)
{
    if (!strstr(f->text, part)) fail_msg("the card lacks '%s':\n%s", part, f->text);
}

static void facts(void **state)
{
    struct fixture *f = *state;
    write_card(f);
    says(f, "---\nlibrary_name: transformers\n");
    says(f, "# books-11m, gptq 4 bit\n");
    says(f, "int4 sym g128, 4.156 bits per weight");
    says(f, "7 quantized, 2 copied, 0 tied, 1 dropped of 10");
    says(f, "**Not verified**: the quality gate was switched off.");
    says(
        f,
        "nibble quantize books-11m -o OUT --method gptq --format gptq --bits 4 --group 128 --sym\n");
}

static void the_command_has_every_choice(void **state)
{
    struct fixture *f = *state;
    static const char *const ignore[] = {"*o_proj", "it's"};
    static const struct nb_bits_for bits[] = {{"*down*", 8}};
    f->opts.model_dir = "my models/a b";
    f->opts.order = NB_ORDER_STATIC;
    f->opts.damp = 0.05;
    f->opts.clip = "mse";
    f->opts.gptaq_alpha = 0.25;
    f->run.recipe.solve.gptaq_alpha = 0.25;
    f->opts.effort = "max";
    f->opts.precision = "f32";
    f->opts.ignore = ignore;
    f->opts.n_ignore = 2;
    f->opts.bits_for = bits;
    f->opts.n_bits_for = 1;
    f->run.recipe.calibrates = true;
    f->run.recipe.n_samples = 16;
    f->run.recipe.seqlen = 512;
    f->run.recipe.seed = 3;
    write_card(f);
    says(
        f,
        "nibble quantize 'a b' -o OUT --method gptq --format gptq --bits 4 --group 128 --sym --act-order static "
        "--damp 0.05 --clip mse --effort max --precision f32 --gptaq 0.25 --bits-for '*down*'=8 --ignore '*o_proj' --ignore 'it'\\''s' "
        "--samples 16 --seqlen 512 --seed 3\n");
}

static void gate_results(void **state)
{
    struct fixture *f = *state;
    f->report.has_gate = true;
    f->report.gate = (struct nb_eval_result){.verdict = NB_VERDICT_PASS,
                                             .verdict_text = "ratio 1.01",
                                             .ppl = 32.5,
                                             .window = 1024,
                                             .n_tokens = 9999};
    f->report.gate.compare = (struct nb_compare_result){.ppl_base = 32.25,
                                                        .ppl_ratio = 1.0078,
                                                        .ppl_ratio_lo = 1.001,
                                                        .ppl_ratio_hi = 1.015,
                                                        .same_top = 0.9125};
    write_card(f);
    says(f, "Verdict: **pass** (ratio 1.01).");
    says(f, "| perplexity | 32.5000 (float 32.2500) |");
    says(f, "1.00780 (1.00100 to 1.01500)");
    says(f, "91.25 %");
    assert_null(strstr(f->text, "Do not deploy"));
    f->report.gate.verdict = NB_VERDICT_FAIL;
    write_card(f);
    says(f, "**FAILED the quality gate.** Do not deploy this folder.");
    says(f, "Verdict: **fail**");
}

/* The card names a model, not "the current folder". */
static void dot_is_no_name(void **state)
{
    struct fixture *f = *state;
    char expected[300];
    char *dot = nb_path_join(f->dir, ".");
    f->opts.model_dir = dot;
    write_card(f);
    snprintf(expected, sizeof expected, "# %s, gptq", strrchr(f->dir, '/') + 1);
    says(f, expected);
    nb_free(dot);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(facts, setup, teardown),
        cmocka_unit_test_setup_teardown(the_command_has_every_choice, setup, teardown),
        cmocka_unit_test_setup_teardown(gate_results, setup, teardown),
        cmocka_unit_test_setup_teardown(dot_is_no_name, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

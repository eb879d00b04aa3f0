/* SPDX-License-Identifier: Apache-2.0
 *
 * test_place.c - which folders a run takes, and that it never deletes what nibble has not made. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/file.h"
#include "pipeline/run.h"
#include "support/folder.h"

/* Each test works in a folder of its own, which is the current one: the paths are relative. */
static char *before;

static int setup(void **state)
{
    char *dir = folder_make();
    before = getcwd(NULL, 0);
    *state = dir;
    if (!before || chdir(dir) || mkdir("model", 0755)) return -1;
    folder_text("model", "config.json", "{}");
    return 0;
}

static int teardown(void **state)
{
    int rc = chdir(before);
    free(before);
    folder_remove(*state);
    return rc;
}

struct attempt {
    struct nb_quantize_opts opts;
    struct nb_run run;
    struct nb_err err;
};

static int open_place(struct attempt *a, const char *model, const char *out, bool overwrite)
{
    memset(a, 0, sizeof *a);
    a->opts = (struct nb_quantize_opts){.model_dir = model, .out_dir = out, .overwrite = overwrite};
    a->run = (struct nb_run){.opts = &a->opts, .lock_fd = -1};
    return nb_place_open(&a->run, &a->err);
}

static void end(struct attempt *a)
{
    nb_free(a->run.out);
    nb_free(a->run.partial);
    nb_free(a->run.work);
    if (a->run.lock_fd >= 0) close(a->run.lock_fd);
}

static void refused(const char *model, const char *out, bool overwrite, int status,
                    const char *text)
{
    struct attempt a;
    assert_int_equal(open_place(&a, model, out, overwrite), status);
    assert_string_equal(a.err.text, text);
    assert_true(strlen(a.err.hint) > 0);
    end(&a);
}

static void make_output(const char *dir)
{
    assert_int_equal(mkdir(dir, 0755), 0);
    folder_text(dir, "manifest.json", "{\"producer\": \"nibble\"}");
    folder_text(dir, "old", "");
}

static bool there(const char *dir, const char *name)
{
    char *p = nb_path_join(dir, name);
    bool found = nb_path_exists(p);
    nb_free(p);
    return found;
}

static void paths_follow_from_out(void **state)
{
    (void)state;
    static const char *const outs[] = {"out", "out/", "out///"};
    for (size_t i = 0; i < 3; i++) {
        struct attempt a;
        assert_int_equal(open_place(&a, "model", outs[i], false), 0);
        assert_string_equal(a.run.out, "out");
        assert_string_equal(a.run.partial, "out.partial");
        assert_string_equal(a.run.work, "out.partial/.nibble");
        assert_false(nb_path_exists("out.partial")); /* nothing is made yet */
        end(&a);
    }
}

static void out_needs_a_name(void **state)
{
    (void)state;
    static const char *const outs[] = {"", ".", "..", "/", "//", "x/.", "x/../"};
    for (size_t i = 0; i < sizeof outs / sizeof *outs; i++) {
        struct attempt a;
        assert_int_equal(open_place(&a, "model", outs[i], true), NB_E_USAGE);
        assert_non_null(strstr(a.err.text, "cannot be the output"));
        end(&a);
    }
}

static void the_model_is_never_the_output(void **state)
{
    (void)state;
    const char *text = "%s: the output is the model itself or holds it; inputs are never modified";
    char expected[200];
    assert_int_equal(mkdir("models", 0755), 0);
    assert_int_equal(mkdir("models/x", 0755), 0);
    assert_int_equal(mkdir("y.partial", 0755), 0);
    assert_int_equal(symlink("model", "link"), 0);
    static const struct {
        const char *model, *out, *named;
    } cases[] = {{"model", "model/", "model"},     {"model", "./model", "./model"},
                 {"model", "link", "link"},        {"link", "model", "model"},
                 {"models/x", "models", "models"}, {"y.partial", "y", "y"}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        snprintf(expected, sizeof expected, text, cases[i].named);
        refused(cases[i].model, cases[i].out, true, NB_E_USAGE, expected);
    }
    struct attempt a; /* a neighbour whose name begins the same, and a folder inside, are fine */
    assert_int_equal(open_place(&a, "models/x", "model", true), NB_E_EXISTS);
    end(&a);
    assert_int_equal(open_place(&a, "model", "model/out", false), 0);
    end(&a);
}

static void what_exists_stays_without_overwrite(void **state)
{
    (void)state;
    make_output("out");
    refused("model", "out", false, NB_E_EXISTS, "out: exists already");
    assert_int_equal(symlink("nowhere", "broken"), 0);
    refused("model", "broken", false, NB_E_EXISTS, "broken: exists already");
    struct attempt a = {0};
    a.opts = (struct nb_quantize_opts){.model_dir = "model", .out_dir = "out", .dry_run = true};
    a.run = (struct nb_run){.opts = &a.opts, .lock_fd = -1};
    assert_int_equal(nb_place_open(&a.run, &a.err), 0);
    end(&a);
}

static void overwrite_takes_only_what_nibble_wrote(void **state)
{
    (void)state;
    const char *text = "%s: is not a folder that nibble wrote, so it is not replaced";
    char expected[200];
    assert_int_equal(mkdir("photos", 0755), 0);
    folder_text("photos", "a.jpg", "x");
    folder_text(".", "file", "x");
    assert_int_equal(mkdir("other", 0755), 0);
    folder_text("other", "manifest.json", "{\"producer\": \"somebody\"}");
    assert_int_equal(mkdir("broken", 0755), 0);
    folder_text("broken", "manifest.json", "{\"producer\"");
    static const char *const foreign[] = {"photos", "file", "other", "broken"};
    for (size_t i = 0; i < 4; i++) {
        snprintf(expected, sizeof expected, text, foreign[i]);
        refused("model", foreign[i], true, NB_E_EXISTS, expected);
    }
    make_output("out");
    assert_int_equal(mkdir("empty", 0755), 0);
    static const char *const ours[] = {"out", "empty"};
    for (size_t i = 0; i < 2; i++) {
        struct attempt a;
        assert_int_equal(open_place(&a, "model", ours[i], true), 0);
        end(&a);
    }
}

/* A folder of the user that happens to be named OUT.partial. */
static void foreign_partial_is_left_alone(void **state)
{
    (void)state;
    struct attempt a;
    assert_int_equal(mkdir("out.partial", 0755), 0);
    folder_text("out.partial", "thesis.tex", "x");
    assert_int_equal(open_place(&a, "model", "out", false), 0);
    assert_int_equal(nb_place_enter(&a.run, &a.err), NB_E_EXISTS);
    assert_string_equal(
        a.err.text,
        "out.partial: holds files that are not from a run of nibble, so it is not used");
    assert_false(there("out.partial", ".nibble"));
    end(&a);
}

static void one_run_at_a_time(void **state)
{
    (void)state;
    struct attempt a, b;
    assert_int_equal(open_place(&a, "model", "deep/er/out", false), 0);
    assert_int_equal(nb_place_enter(&a.run, &a.err), 0);
    assert_true(nb_path_is_dir("deep/er/out.partial/.nibble"));
    assert_int_equal(open_place(&b, "model", "deep/er/out/", false), 0);
    assert_int_equal(nb_place_enter(&b.run, &b.err), NB_E_BUSY);
    end(&b);
    end(&a);
    assert_int_equal(open_place(&b, "model", "deep/er/out", false), 0);
    assert_int_equal(nb_place_enter(&b.run, &b.err), 0); /* taken up again */
    end(&b);
}

static void enter(struct attempt *a, const char *out, bool overwrite)
{
    if (open_place(a, "model", out, overwrite) || nb_place_enter(&a->run, &a->err))
        fail_msg("%s", a->err.text);
    folder_text(a->run.partial, "new", "");
    folder_text(a->run.work, "journal.json", "{}");
}

static void out_appears_whole(void **state)
{
    (void)state;
    struct attempt a;
    enter(&a, "out/", false);
    assert_int_equal(nb_place_publish(&a.run, &a.err), 0);
    assert_true(there("out", "new"));
    assert_false(there("out", ".nibble"));
    assert_false(nb_path_exists("out.partial"));
    end(&a);
}

static void overwrite_replaces_the_old_output(void **state)
{
    (void)state;
    struct attempt a;
    make_output("out");
    enter(&a, "out", true);
    assert_true(there("out", "old")); /* until the end */
    assert_int_equal(nb_place_publish(&a.run, &a.err), 0);
    assert_true(there("out", "new"));
    assert_false(there("out", "old"));
    assert_false(there("out", ".nibble"));
    assert_false(nb_path_exists("out.partial"));
    end(&a);
}

/* Killed after the old output was moved away: the next run finds no OUT, goes on, and cleans up. */
static void crash_between_the_renames_is_survived(void **state)
{
    (void)state;
    struct attempt a;
    make_output("out");
    enter(&a, "out", true);
    assert_int_equal(rename("out", "out.partial/.nibble/replaced"), 0);
    end(&a);
    enter(&a, "out", true);
    assert_int_equal(nb_place_publish(&a.run, &a.err), 0);
    assert_true(there("out", "new"));
    assert_false(there("out", ".nibble"));
    end(&a);
}

static void out_that_turns_up_meanwhile_stays(void **state)
{
    (void)state;
    struct attempt a;
    enter(&a, "out", false);
    make_output("out");
    assert_int_equal(nb_place_publish(&a.run, &a.err), NB_E_EXISTS);
    assert_true(there("out", "old"));
    assert_true(there("out.partial", "new"));
    end(&a);
    assert_int_equal(nb_dir_remove_all("out", NULL), 0);
    enter(&a, "out", true);
    assert_int_equal(mkdir("out", 0755), 0);
    folder_text("out", "thesis.tex", "x");
    assert_int_equal(nb_place_publish(&a.run, &a.err), NB_E_EXISTS);
    assert_true(there("out", "thesis.tex"));
    end(&a);
}

/* OUT or OUT.partial may be links to a place with more room. */
static void links_are_moved_not_followed(void **state)
{
    (void)state;
    struct attempt a;
    make_output("elsewhere");
    assert_int_equal(symlink("elsewhere", "out"), 0);
    enter(&a, "out", true);
    assert_int_equal(nb_place_publish(&a.run, &a.err), 0);
    assert_true(there("out", "new"));
    assert_true(there("elsewhere", "old"));
    end(&a);
    assert_int_equal(mkdir("roomy", 0755), 0);
    assert_int_equal(symlink("roomy", "two.partial"), 0);
    enter(&a, "two", false);
    assert_int_equal(nb_place_publish(&a.run, &a.err), 0);
    assert_true(there("two", "new"));
    assert_true(there("roomy", "new"));
    end(&a);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(paths_follow_from_out, setup, teardown),
        cmocka_unit_test_setup_teardown(out_needs_a_name, setup, teardown),
        cmocka_unit_test_setup_teardown(the_model_is_never_the_output, setup, teardown),
        cmocka_unit_test_setup_teardown(what_exists_stays_without_overwrite, setup, teardown),
        cmocka_unit_test_setup_teardown(overwrite_takes_only_what_nibble_wrote, setup, teardown),
        cmocka_unit_test_setup_teardown(foreign_partial_is_left_alone, setup, teardown),
        cmocka_unit_test_setup_teardown(one_run_at_a_time, setup, teardown),
        cmocka_unit_test_setup_teardown(out_appears_whole, setup, teardown),
        cmocka_unit_test_setup_teardown(overwrite_replaces_the_old_output, setup, teardown),
        cmocka_unit_test_setup_teardown(crash_between_the_renames_is_survived, setup, teardown),
        cmocka_unit_test_setup_teardown(out_that_turns_up_meanwhile_stays, setup, teardown),
        cmocka_unit_test_setup_teardown(links_are_moved_not_followed, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

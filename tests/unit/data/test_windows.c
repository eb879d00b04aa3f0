/* SPDX-License-Identifier: Apache-2.0
 *
 * test_windows.c - evaluation windows as the protocol says, and where bundled texts are found. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

#include "base/mem.h"
#include "base/sha256.h"
#include "data/data.h"

static int setup(void **state)
{
    struct nb_err err;
    return nb_tokenizer_open((struct nb_tokenizer **)state, "models/books-11m", &err);
}

static int teardown(void **state)
{
    nb_tokenizer_close(*state);
    return 0;
}

static void disjoint_windows_without_the_tail(void **state)
{
    struct nb_err err;
    struct nb_windows w, few;
    size_t bytes;
    if (nb_eval_text_load(&w, NULL, 1024, 0, *state, &err)) fail_msg("%s", err.text);
    const char *text = nb_bundled_text("evaluation/the-time-machine.txt", &bytes);
    struct nb_ids ids = {0};
    assert_int_equal(nb_tokenizer_encode(*state, text, bytes, 0, &ids, &err), 0);
    assert_int_equal(w.n_windows, ids.n / 1024);
    assert_int_equal(w.n_windows, 42);
    assert_memory_equal(w.ids, ids.data, 42 * 1024 * sizeof *ids.data);
    char hex[65];
    nb_sha256_bytes(w.ids, 42 * 1024 * sizeof *w.ids, hex);
    assert_string_equal(w.sha256, hex);
    nb_sha256_bytes(text, bytes, hex);
    assert_string_equal(w.text_sha256, hex);
    if (nb_eval_text_load(&few, "data/evaluation/the-time-machine.txt", 1024, 3, *state, &err)) {
        fail_msg("%s", err.text);
    }
    assert_int_equal(few.n_windows, 3);
    assert_memory_equal(few.ids, w.ids, 3 * 1024 * sizeof *w.ids);
    assert_string_equal(few.text_sha256, w.text_sha256);
    nb_ids_release(&ids);
    nb_windows_release(&w);
    nb_windows_release(&few);
}

static void bad_requests(void **state)
{
    struct nb_err err;
    struct nb_windows w;
    assert_int_equal(nb_eval_text_load(&w, NULL, 1, 0, *state, &err), NB_E_USAGE);
    assert_int_equal(nb_eval_text_load(&w, NULL, 1 << 20, 0, *state, &err), NB_E_FORMAT);
    assert_string_equal(err.text,
                        "evaluation/the-time-machine.txt: the evaluation text has 43999 tokens, one"
                        " window needs 1048576");
    assert_int_equal(nb_eval_text_load(&w, "nowhere.txt", 16, 0, *state, &err), NB_E_NOTFOUND);
    assert_null(w.ids);
}

static void texts_by_file_name(void **state)
{
    (void)state;
    struct nb_err err;
    char *data;
    size_t bytes, size;
    assert_non_null(nb_bundled_text("calibration/languages.txt", &size));
    assert_int_equal(nb_text_read("languages.txt", &data, &bytes, &err), 0);
    assert_int_equal(bytes, size);
    assert_int_equal(data[bytes], 0);
    nb_free(data);
    assert_int_equal(nb_text_read("data/calibration/languages.txt", &data, &bytes, &err), 0);
    assert_int_equal(bytes, size);
    nb_free(data);
    assert_int_equal(nb_text_read("x/languages.txt", &data, &bytes, &err), NB_E_NOTFOUND);
    assert_null(nb_bundled_text("languages.txt", &size));
}

/* Begins with the first by name and ends with the last, with all of the others between. */
static void calibration_texts(void **state)
{
    (void)state;
    static const char *const names[] = {"code",      "dialogue", "documents",
                                        "languages", "records",  "treasure-island"};
    struct nb_err err;
    char *data, name[64];
    size_t bytes, n, at = 0;
    assert_int_equal(nb_text_read_calibration(&data, &bytes, &err), 0);
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        snprintf(name, sizeof name, "calibration/%s.txt", names[i]);
        const char *one = nb_bundled_text(name, &n);
        assert_true(one && n <= bytes - at);
        assert_memory_equal(data + at, one, n);
        at += n;
    }
    assert_int_equal(at, bytes);
    assert_int_equal(data[bytes], 0);
    nb_free(data);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(disjoint_windows_without_the_tail), cmocka_unit_test(bad_requests),
        cmocka_unit_test(texts_by_file_name), cmocka_unit_test(calibration_texts)};
    return cmocka_run_group_tests(tests, setup, teardown);
}

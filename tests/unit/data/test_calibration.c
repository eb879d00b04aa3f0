/* SPDX-License-Identifier: Apache-2.0
 *
 * test_calibration.c - the windows asked for, from the right sources, the same each time. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <cmocka.h>

#include "base/file.h"
#include "base/mem.h"
#include "base/strbuf.h"
#include "data/data.h"
#include "support/folder.h"

struct fixture {
    char *dir;
    struct nb_tokenizer *letters; /* one id per character a..z, blank, newline, '-' */
};

static int setup(void **state)
{
    static struct fixture f;
    struct nb_err err;
    f.dir = folder_make();
    struct nb_strbuf json;
    nb_strbuf_init(&json);
    nb_strbuf_puts(
        &json,
        "{\"model\":{\"type\":\"BPE\",\"merges\":[],\"vocab\":{\"\\n\":26,\" \":27,\"-\":28");
    for (int i = 0; i < 26; i++) nb_strbuf_printf(&json, ",\"%c\":%d", 'a' + i, i);
    nb_strbuf_puts(&json, "}}}");
    int rc = nb_tokenizer_parse(&f.letters, json.data, json.len, "letters", &err);
    nb_strbuf_release(&json);
    *state = &f;
    return rc;
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    nb_tokenizer_close(f->letters);
    folder_remove(f->dir);
    return 0;
}

static char *file(struct fixture *f, const char *name, const void *data, size_t n)
{
    folder_write(f->dir, name, data, n);
    return nb_path_join(f->dir, name);
}

/* n letters of thirteen, so that two files share none. */
static char *letters_file(struct fixture *f, const char *name, size_t n, char first)
{
    char *text = nb_xalloc(n + 1);
    for (size_t i = 0; i < n; i++) text[i] = (char)(first + (char)(i % 13));
    char *path = file(f, name, text, n);
    nb_free(text);
    return path;
}

static void warn(void *ctx, const char *sentence)
{
    nb_strbuf_puts(ctx, sentence);
}

static int load(struct nb_windows *w, struct fixture *f, const struct nb_calib_opts *opts,
                struct nb_strbuf *warnings, struct nb_err *err)
{
    struct nb_progress p = {.warn = warn, .ctx = warnings};
    nb_strbuf_init(warnings);
    return nb_calib_load(w, opts, f->letters, &p, err);
}

static void shares_follow_weights(void **state)
{
    struct fixture *f = *state;
    char *a = letters_file(f, "a.txt", 4000, 'a'), *b = letters_file(f, "b.txt", 4000, 'n');
    struct nb_calib_source sources[] = {{a, 0.7}, {b, 0.3}};
    struct nb_calib_opts opts = {sources, 2, 100, 8, 5};
    struct nb_windows w;
    struct nb_strbuf warnings;
    struct nb_err err;
    if (load(&w, f, &opts, &warnings, &err)) fail_msg("%s", err.text);
    assert_int_equal(w.n_windows, 100);
    int n_a = 0, in_front = 0;
    for (int i = 0; i < 100; i++) {
        bool from_a = w.ids[i * 8] < 13;
        for (int k = 0; k < 8; k++) assert_int_equal(w.ids[i * 8 + k] < 13, from_a);
        n_a += from_a;
        in_front += from_a && i < 50;
    }
    assert_int_equal(n_a, 70);
    assert_in_range(in_front, 25, 45); /* shuffled */
    assert_int_equal(warnings.len, 0);
    nb_strbuf_release(&warnings);

    struct nb_windows again, other;
    assert_int_equal(load(&again, f, &opts, &warnings, &err), 0);
    assert_string_equal(again.sha256, w.sha256);
    assert_memory_equal(again.ids, w.ids, 800 * sizeof *w.ids);
    opts.seed = 6;
    assert_int_equal(load(&other, f, &opts, &warnings, &err), 0);
    assert_string_not_equal(other.sha256, w.sha256);
    assert_string_equal(other.text_sha256, w.text_sha256);
    nb_windows_release(&w);
    nb_windows_release(&again);
    nb_windows_release(&other);
    nb_free(a);
    nb_free(b);
}

static void windows_are_disjoint(void **state)
{
    struct fixture *f = *state;
    char text[26 * 26 * 2];
    for (int i = 0; i < 26 * 26; i++) {
        text[2 * i] = (char)('a' + i / 26);
        text[2 * i + 1] = (char)('a' + i % 26);
    }
    char *path = file(f, "pairs.txt", text, sizeof text);
    struct nb_calib_source source = {path, 1};
    struct nb_calib_opts opts = {&source, 1, 1000, 10, 3};
    struct nb_windows w;
    struct nb_strbuf warnings;
    struct nb_err err;
    if (load(&w, f, &opts, &warnings, &err)) fail_msg("%s", err.text);
    assert_int_equal(w.n_windows, 135);
    assert_string_equal(warnings.data,
                        "the calibration text has 135 windows of 10 tokens, fewer than the 1000"
                        " asked for; all are used");
    /* Each stands in the text once, at a place of its own, in step with the first. */
    bool seen[135] = {false};
    size_t start = 0;
    for (int v = 0; v < 135; v++) {
        char window[10];
        for (int k = 0; k < 10; k++) window[k] = (char)('a' + w.ids[v * 10 + k]);
        const char *hit = memmem(text, sizeof text, window, sizeof window);
        assert_non_null(hit);
        size_t at = (size_t)(hit - text);
        if (v == 0) start = at % 10;
        assert_int_equal(at % 10, start);
        assert_false(seen[at / 10]);
        seen[at / 10] = true;
    }
    nb_strbuf_release(&warnings);
    nb_windows_release(&w);
    nb_free(path);
}

static void short_source_gives_its_share_away(void **state)
{
    struct fixture *f = *state;
    char *a = letters_file(f, "long.txt", 1000, 'a'), *b = letters_file(f, "short.txt", 45, 'n'),
         *c = letters_file(f, "tiny.txt", 3, 'n');
    struct nb_calib_source sources[] = {{a, 1}, {b, 8}, {c, 1}};
    struct nb_calib_opts opts = {sources, 3, 50, 10, 1};
    struct nb_windows w;
    struct nb_strbuf warnings;
    struct nb_err err;
    if (load(&w, f, &opts, &warnings, &err)) fail_msg("%s", err.text);
    int n_a = 0;
    for (int i = 0; i < 50; i++) n_a += w.ids[i * 10] < 13;
    assert_int_equal(w.n_windows, 50);
    assert_int_equal(n_a, 46);
    assert_non_null(strstr(warnings.data,
                           "tiny.txt: has 3 tokens, too few for one window of 10; it is left out"));
    nb_strbuf_release(&warnings);
    nb_windows_release(&w);
    nb_free(a);
    nb_free(b);
    nb_free(c);
}

static void rows(void **state)
{
    struct fixture *f = *state;
    static const char good[] =
        "{\"text\":\"abc\"}\n\n  \r\n{\"prompt\":\"de\",\"completion\":\"f\",\"id\":7}\n{\"text\":\"\"}\n"
        "{\"text\":\"g\"}";
    char *path = file(f, "good.jsonl", good, sizeof good - 1);
    struct nb_calib_source source = {path, 1};
    struct nb_calib_opts opts = {&source, 1, 1, 13, 0};
    struct nb_windows w;
    struct nb_strbuf warnings;
    struct nb_err err;
    if (load(&w, f, &opts, &warnings, &err)) fail_msg("%s", err.text);
    static const int32_t want[13] = {0, 1, 2, 26, 26, 3, 4, 5, 26, 26, 6, 26, 26};
    assert_memory_equal(w.ids, want, sizeof want);
    nb_windows_release(&w);
    nb_free(path);

    static const struct {
        const char *row;
        int status;
        const char *text;
    } bad[] = {
        {"{\"messages\":[]}", NB_E_SPEC,
         "rows with 'messages' need the model's chat template, which this version"
         " cannot run; give 'text' rows"},
        {"{\"prompt\":\"a\"}", NB_E_FORMAT,
         "expected an object with 'text', or with 'prompt' and 'completion';"
         " found an object without them"},
        {"[1]", NB_E_FORMAT, "found an array without them"},
        {"{\"text\":3}", NB_E_FORMAT, "expected a string, found an integer"},
        {"{\"text\":", NB_E_FORMAT, "not valid JSON"},
        {"plain", NB_E_FORMAT, "not valid JSON"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct nb_strbuf text;
        nb_strbuf_init(&text);
        nb_strbuf_printf(&text, "{\"text\":\"a\"}\n%s\n", bad[i].row);
        source.path = path = file(f, "bad.jsonl", text.data, text.len);
        assert_int_equal(load(&w, f, &opts, &warnings, &err), bad[i].status);
        if (!strstr(err.text, bad[i].text) || !strstr(err.text, "bad.jsonl line 2: "))
            fail_msg("%s", err.text);
        assert_null(w.ids);
        nb_free(path);
        nb_strbuf_release(&text);
    }
}

static void folders(void **state)
{
    struct fixture *f = *state;
    struct nb_err err;
    char *dir = nb_path_join(f->dir, "folder");
    assert_int_equal(nb_dir_make(dir, &err), 0);
    struct nb_calib_source source = {dir, 1};
    struct nb_calib_opts opts = {&source, 1, 1, 6, 0};
    struct nb_windows w;
    struct nb_strbuf warnings;
    assert_int_equal(load(&w, f, &opts, &warnings, &err), NB_E_FORMAT);
    assert_non_null(strstr(err.text, "folder: no .txt or .jsonl file in this folder"));
    nb_free(file(f, "folder/b.txt", "bb", 2));
    nb_free(file(f, "folder/a.txt", "a", 1));
    nb_free(file(f, "folder/c.jsonl", "{\"text\":\"c\"}", 12));
    nb_free(file(f, "folder/d.md", "ddd", 3));
    if (load(&w, f, &opts, &warnings, &err)) fail_msg("%s", err.text);
    static const int32_t want[6] = {0, 1, 1, 2, 26, 26};
    assert_memory_equal(w.ids, want, sizeof want);
    nb_windows_release(&w);
    nb_free(dir);
}

static void bad_sources(void **state)
{
    struct fixture *f = *state;
    char *empty = file(f, "empty.txt", "", 0), *few = file(f, "few.txt", "abc", 3),
         *latin = file(f, "latin.txt", "ab\xe9", 3);
    const struct {
        struct nb_calib_source source;
        int64_t n, seqlen;
        int status;
        const char *text;
    } cases[] = {
        {{empty, 1}, 1, 4, NB_E_FORMAT, "empty.txt: the calibration text is empty"},
        {{few, 1}, 1, 4, NB_E_FORMAT, "few.txt: calibration text has 3 tokens, one window needs 4"},
        {{latin, 1}, 1, 4, NB_E_FORMAT, "latin.txt: text is not valid UTF-8 at byte 2 of 3"},
        {{few, 0},
         1,
         4,
         NB_E_USAGE,
         "few.txt: weight 0 of a calibration text: expected more than 0"},
        {{few, 1}, 0, 4, NB_E_USAGE, "calibration with 0 windows of 4 tokens from 1 texts"},
        {{"no/such.txt", 1}, 1, 4, NB_E_NOTFOUND, "no/such.txt: cannot open"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct nb_calib_opts opts = {&cases[i].source, 1, cases[i].n, cases[i].seqlen, 0};
        struct nb_windows w;
        struct nb_strbuf warnings;
        struct nb_err err;
        assert_int_equal(load(&w, f, &opts, &warnings, &err), cases[i].status);
        if (!strstr(err.text, cases[i].text)) fail_msg("%s", err.text);
    }
    nb_free(empty);
    nb_free(few);
    nb_free(latin);
}

static bool stop_now(void *ctx)
{
    (void)ctx;
    return true;
}

static void stops_when_asked(void **state)
{
    struct fixture *f = *state;
    struct nb_progress p = {.stop = stop_now};
    struct nb_calib_source source = {"dubliners.txt", 1};
    struct nb_calib_opts opts = {&source, 1, 1, 4, 0};
    struct nb_windows w;
    struct nb_err err;
    assert_int_equal(nb_calib_load(&w, &opts, f->letters, &p, &err), NB_E_INTERRUPTED);
}

static void bundled_mix(void **state)
{
    (void)state;
    struct nb_err err;
    struct nb_tokenizer *t;
    if (nb_tokenizer_open(&t, "models/books-11m", &err)) fail_msg("%s", err.text);
    struct nb_calib_opts opts = {NULL, 0, 32, 512, 0};
    struct nb_windows w, text;
    if (nb_calib_load(&w, &opts, t, NULL, &err)) fail_msg("%s", err.text);
    assert_int_equal(w.n_windows, 32);
    assert_int_equal(w.seqlen, 512);
    double share;
    for (int i = 0; i < 2; i++) {
        if (nb_eval_text_load(&text, i ? "dubliners.txt" : NULL, 512, 0, t, &err))
            fail_msg("%s", err.text);
        assert_int_equal(nb_ngram_overlap(&w, &text, &share, &err), 0);
        assert_true(share < 1e-3);
        nb_windows_release(&text);
    }
    nb_windows_release(&w);
    opts.n_samples = 100000;
    if (nb_calib_load(&w, &opts, t, NULL, &err)) fail_msg("%s", err.text);
    assert_in_range(w.n_windows, 190, 400);
    nb_windows_release(&w);
    nb_tokenizer_close(t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(shares_follow_weights),
        cmocka_unit_test(windows_are_disjoint),
        cmocka_unit_test(short_source_gives_its_share_away),
        cmocka_unit_test(rows),
        cmocka_unit_test(folders),
        cmocka_unit_test(bad_sources),
        cmocka_unit_test(stops_when_asked),
        cmocka_unit_test(bundled_mix),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}

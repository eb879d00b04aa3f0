/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include <cmocka.h>

#include "base/file.h"
#include "base/mem.h"
#include "container/gguf.h"
#include "gguf_image.h"
#include "support/folder.h"

static int setup(void **state)
{
    *state = folder_make();
    return 0;
}

static int teardown(void **state)
{
    folder_remove(*state);
    return 0;
}

static void write_image(const char *dir, const char *name, struct nb_strbuf *b)
{
    folder_write(dir, name, b->data, b->len);
    nb_strbuf_release(b);
}

static void write_minimal(const char *dir, const char *name)
{
    struct nb_strbuf b;
    gguf_minimal(&b);
    write_image(dir, name, &b);
}

/* Opens dir/name (dir itself: name ""). */
static int open_at(struct nb_gguf **g, const char *dir, const char *name, struct nb_err *err)
{
    char *path = name[0] ? nb_path_join(dir, name) : nb_xstrdup(dir);
    int rc = nb_gguf_open(g, path, err);
    nb_free(path);
    return rc;
}

/* % in sentence: the folder. */
static void refuses(const char *dir, const char *name, int status, const char *sentence)
{
    struct nb_err err;
    struct nb_gguf *g;
    struct nb_strbuf expected;
    nb_strbuf_init(&expected);
    for (const char *s = sentence; *s; s++) {
        if (*s == '%') nb_strbuf_puts(&expected, dir);
        else nb_strbuf_putc(&expected, *s);
    }
    int rc = open_at(&g, dir, name, &err);
    assert_string_equal(err.text, nb_strbuf_cstr(&expected));
    assert_int_equal(rc, status);
    assert_null(g);
    nb_strbuf_release(&expected);
}

static void opens(const char *dir, const char *name, size_t n_tensors)
{
    struct nb_err err;
    struct nb_gguf *g;
    if (open_at(&g, dir, name, &err)) fail_msg("%s", err.text);
    assert_int_equal(nb_gguf_count(g), n_tensors);
    nb_gguf_close(g);
}

static void test_file(void **state)
{
    const char *dir = *state;
    struct nb_err err;
    struct nb_gguf *g;
    write_minimal(dir, "any name");
    if (open_at(&g, dir, "any name", &err)) fail_msg("%s", err.text);
    const struct nb_gguf_tensor *t = nb_gguf_find(g, "a.weight");
    float v[4];
    nb_gguf_drop(g, t); /* and they come back */
    memcpy(v, t->data.data, sizeof v);
    for (int i = 0; i < 4; i++) assert_true(v[i] == (float)(i + 1));
    nb_gguf_close(g);
    refuses(dir, "absent.gguf", NB_E_NOTFOUND,
            "%/absent.gguf: cannot open: No such file or directory");
    folder_text(dir, "empty.gguf", "");
    refuses(dir, "empty.gguf", NB_E_FORMAT, "%/empty.gguf: does not begin with the letters GGUF");
}

static void test_folder(void **state)
{
    const char *dir = *state;
    refuses(dir, "", NB_E_NOTFOUND, "%: holds no .gguf file");
    folder_text(dir, "notes.txt", "");
    folder_text(dir, "half.gguf.tmp", "");
    write_minimal(dir, "one.gguf");
    opens(dir, "", 1);
    write_minimal(dir, "two.gguf");
    refuses(dir, "", NB_E_FORMAT, "%: holds 2 GGUF models, among them one.gguf and two.gguf");
}

/* Part `no` of `count` with one F32 tensor of one element, which is `no`. */
static void write_part(const char *dir, const char *name, int no, int count, int total,
                       const char *tensor)
{
    struct nb_strbuf b;
    gguf_begin(&b, 3, 1, no == 0 ? 4 : 3);
    if (no == 0) {
        gguf_key(&b, "general.architecture", 8);
        gguf_text(&b, "llama");
    }
    gguf_key(&b, "split.no", 2);
    gguf_u16(&b, (uint16_t)no);
    gguf_key(&b, "split.count", 2);
    gguf_u16(&b, (uint16_t)count);
    gguf_key(&b, "split.tensors.count", 5);
    gguf_u32(&b, (uint32_t)total);
    gguf_info(&b, tensor, 1, (int64_t[]){1}, 0, 0);
    gguf_pad(&b, 32);
    gguf_f32(&b, (float)no);
    write_image(dir, name, &b);
}

static void write_three(const char *dir)
{
    write_part(dir, "m-00001-of-00003.gguf", 0, 3, 3, "z");
    write_part(dir, "m-00002-of-00003.gguf", 1, 3, 3, "y");
    write_part(dir, "m-00003-of-00003.gguf", 2, 3, 3, "x");
}

static void test_split(void **state)
{
    const char *dir = *state;
    struct nb_err err;
    struct nb_gguf *g;
    write_three(dir);
    opens(dir, "", 3);
    if (open_at(&g, dir, "m-00001-of-00003.gguf", &err)) fail_msg("%s", err.text);
    assert_int_equal(nb_gguf_part_count(g), 3);
    assert_int_equal(nb_gguf_bytes(g), 12);
    assert_int_equal(nb_gguf_kv_count(g), 4);
    assert_non_null(strstr(nb_gguf_part_path(g, 2), "/m-00003-of-00003.gguf"));
    static const char *const names[] = {"z", "y", "x"};
    for (size_t i = 0; i < 3; i++) {
        const struct nb_gguf_tensor *t = nb_gguf_at(g, i);
        float v;
        assert_string_equal(t->name, names[i]);
        assert_int_equal(t->part, i);
        memcpy(&v, t->data.data, sizeof v);
        assert_true(v == (float)i);
        assert_ptr_equal(nb_gguf_find(g, names[i]), t);
    }
    nb_gguf_drop(g, nb_gguf_at(g, 2));
    nb_gguf_close(g);
}

static void test_split_refusals(void **state)
{
    const char *dir = *state;
    static const char first[] = "m-00001-of-00003.gguf";
    write_three(dir);
    refuses(dir, "m-00002-of-00003.gguf", NB_E_FORMAT,
            "%/m-00002-of-00003.gguf: is part 2 of 3 of a split model");
    write_part(dir, "m-00002-of-00003.gguf", 2, 3, 3, "y");
    refuses(dir, first, NB_E_FORMAT,
            "%/m-00002-of-00003.gguf: says it is part 3 of 3, expected part 2 of 3");
    write_part(dir, "m-00002-of-00003.gguf", 1, 4, 3, "y");
    refuses(dir, first, NB_E_FORMAT,
            "%/m-00002-of-00003.gguf: says it is part 2 of 4, expected part 2 of 3");
    write_minimal(dir, "m-00002-of-00003.gguf");
    refuses(dir, first, NB_E_FORMAT,
            "%/m-00002-of-00003.gguf: has no key 'split.count', expected part 2 of 3");
    write_part(dir, "m-00002-of-00003.gguf", 1, 3, 3, "z");
    refuses(dir, first, NB_E_FORMAT,
            "%/m-00002-of-00003.gguf: tensor 'z' stands in %/m-00001-of-00003.gguf, too");
    write_three(dir);
    write_part(dir, first, 0, 3, 4, "z");
    refuses(dir, first, NB_E_FORMAT,
            "%/m-00001-of-00003.gguf: split.tensors.count is 4, the 3 parts hold 3 tensors");
    write_part(dir, "renamed.gguf", 0, 3, 3, "z");
    refuses(dir, "renamed.gguf", NB_E_FORMAT,
            "%/renamed.gguf: is the first of 3 parts, but is not called "
            "PREFIX-00001-of-00003.gguf");
    write_part(dir, "m-00001-of-00002.gguf", 0, 3, 3, "z");
    refuses(dir, "m-00001-of-00002.gguf", NB_E_FORMAT,
            "%/m-00001-of-00002.gguf: is the first of 3 parts, but is not called "
            "PREFIX-00001-of-00003.gguf");
    write_part(dir, "k-00001-of-65535.gguf", 0, 65535, 3, "z");
    refuses(dir, "k-00001-of-65535.gguf", NB_E_FORMAT,
            "%/k-00002-of-65535.gguf: is missing, part 2 of 65535");
}

/* A set of one part is a plain file under any name. */
static void test_split_of_one(void **state)
{
    const char *dir = *state;
    write_part(dir, "m-00001-of-00001.gguf", 0, 1, 1, "z");
    opens(dir, "", 1);
    write_part(dir, "other.gguf", 0, 1, 1, "z");
    opens(dir, "other.gguf", 1);
}

static void test_split_key_types(void **state)
{
    const char *dir = *state;
    struct nb_strbuf b;
    gguf_begin(&b, 3, 0, 1);
    gguf_key(&b, "split.count", 4);
    gguf_u32(&b, 2);
    write_image(dir, "a.gguf", &b);
    refuses(dir, "a.gguf", NB_E_FORMAT, "%/a.gguf: key 'split.count' is uint32, expected uint16");
    gguf_begin(&b, 3, 0, 1);
    gguf_key(&b, "split.count", 2);
    gguf_u16(&b, 2);
    write_image(dir, "a.gguf", &b);
    refuses(dir, "a.gguf", NB_E_FORMAT, "%/a.gguf: key 'split.no' is missing");
}

/* A damaged part is named. */
static void test_damaged_part(void **state)
{
    const char *dir = *state;
    struct nb_err err;
    write_three(dir);
    char *data, *path = nb_path_join(dir, "m-00003-of-00003.gguf");
    size_t n;
    assert_int_equal(nb_file_read(path, 1 << 20, &data, &n, &err), 0);
    folder_write(dir, "m-00003-of-00003.gguf", data, n - 3);
    nb_free(data);
    nb_free(path);
    struct nb_gguf *g;
    assert_int_equal(open_at(&g, dir, "", &err), NB_E_FORMAT);
    assert_non_null(strstr(err.text,
                           "/m-00003-of-00003.gguf: the last 3 of 164 bytes are missing: the file "
                           "ends before the end of tensor 'x' (4 bytes)"));
    assert_string_equal(err.hint, "the download is incomplete: fetch the file again");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_file, setup, teardown),
        cmocka_unit_test_setup_teardown(test_folder, setup, teardown),
        cmocka_unit_test_setup_teardown(test_split, setup, teardown),
        cmocka_unit_test_setup_teardown(test_split_refusals, setup, teardown),
        cmocka_unit_test_setup_teardown(test_split_of_one, setup, teardown),
        cmocka_unit_test_setup_teardown(test_split_key_types, setup, teardown),
        cmocka_unit_test_setup_teardown(test_damaged_part, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* SPDX-License-Identifier: Apache-2.0
 *
 * Our reader accepts what the reference implementation accepts and refuses what it refuses, on the images of
 * make_safetensors.py; where we are stricter, the file says so. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/file.h"
#include "base/mem.h"
#include "container/safetensors.h"
#include "support/folder.h"

static size_t from_hex(const char *hex, size_t digits, unsigned char *out)
{
    for (size_t i = 0; i < digits / 2; i++) {
        unsigned v;
        assert_int_equal(sscanf(hex + 2 * i, "%2x", &v), 1);
        out[i] = (unsigned char)v;
    }
    return digits / 2;
}

static void check_line(const char *line, size_t length, int number)
{
    const char *tab = memchr(line, '\t', length);
    assert_non_null(tab);
    size_t digits = length - (size_t)(tab + 1 - line);
    unsigned char *image = malloc(digits / 2 + (digits == 0));
    assert_non_null(image);
    size_t bytes = from_hex(tab + 1, digits, image), n;
    struct nb_err err;
    struct nb_tensor *tensors;
    json_t *header;
    int rc =
        nb_safetensors_parse((struct nb_span){image, bytes}, "image", &tensors, &n, &header, &err);
    if (!strncmp(line, "ok ", 3)) {
        if (rc) fail_msg("line %d: the reference accepts it, we say: %s", number, err.text);
        assert_int_equal(n, strtoul(line + 3, NULL, 10));
    } else if (!rc) {
        fail_msg("line %d: accepted, expected %.*s", number, (int)(tab - line), line);
    }
    nb_free(tensors);
    json_decref(header);
    free(image);
}

static void test_same_verdicts(void **state)
{
    (void)state;
    struct nb_err err;
    char *text, *path = source_path("tests/golden/safetensors/cases.txt");
    size_t bytes;
    if (nb_file_read(path, 1 << 20, &text, &bytes, &err)) fail_msg("%s", err.text);
    int lines = 0;
    for (const char *p = text, *end; (end = strchr(p, '\n')); p = end + 1)
        check_line(p, (size_t)(end - p), ++lines);
    assert_true(lines > 200);
    nb_free(text);
    free(path);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_same_verdicts)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}

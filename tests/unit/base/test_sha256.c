/* SPDX-License-Identifier: Apache-2.0
 *
 * test_sha256.c - the examples of FIPS 180-2 (appendix B) and of NIST's long messages; files. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/stat.h>

#include <cmocka.h>

#include "base/file.h"
#include "base/mem.h"
#include "base/sha256.h"
#include "support/folder.h"

static const char empty_hash[] = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

static void known_messages(void **state)
{
    (void)state;
    static const struct {
        const char *text, *hash;
    } cases[] = {
        {"", empty_hash},
        {"abc", "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"},
        {"abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq",
         "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char hex[NB_SHA256_HEX];
        nb_sha256_bytes(cases[i].text, strlen(cases[i].text), hex);
        assert_string_equal(hex, cases[i].hash);
    }
}

/* A million letters a, in pieces of every size. */
static void million_in_pieces(void **state)
{
    (void)state;
    struct nb_sha256 h;
    char piece[1000], hex[NB_SHA256_HEX];
    memset(piece, 'a', sizeof piece);
    nb_sha256_init(&h);
    size_t left = 1000000, n = 0;
    while (left) {
        n = n % sizeof piece + 1;
        size_t take = n < left ? n : left;
        nb_sha256_add(&h, piece, take);
        left -= take;
    }
    nb_sha256_add(&h, NULL, 0);
    nb_sha256_finish(&h, hex);
    assert_string_equal(hex, "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
    assert_null(h.ctx);
}

static void file_hash_is_the_hash_of_its_bytes(void **state)
{
    (void)state;
    char *dir = folder_make(), *path = nb_path_join(dir, "f"), hex[NB_SHA256_HEX],
         want[NB_SHA256_HEX];
    struct nb_err err;
    folder_text(dir, "f", "");
    assert_int_equal(nb_sha256_file(path, hex, &err), 0);
    assert_string_equal(hex, empty_hash);
    enum { N = (1 << 20) + 12345 }; /* more than one read */
    unsigned char *data = nb_alloc(N, 1);
    for (size_t i = 0; i < N; i++) data[i] = (unsigned char)(i ^ (i >> 8) ^ (i >> 16));
    folder_write(dir, "f", data, N);
    nb_sha256_bytes(data, N, want);
    assert_int_equal(nb_sha256_file(path, hex, &err), 0);
    assert_string_equal(hex, want);
    nb_free(data);
    nb_free(path);
    folder_remove(dir);
}

static void what_is_no_file_is_refused(void **state)
{
    (void)state;
    char *dir = folder_make(), *path = nb_path_join(dir, "f"), hex[NB_SHA256_HEX];
    struct nb_err err;
    assert_int_equal(nb_sha256_file(path, hex, &err), NB_E_NOTFOUND);
    assert_non_null(strstr(err.text, "/f: cannot open: No such file or directory"));
    assert_int_equal(nb_sha256_file(dir, hex, &err), NB_E_FORMAT);
    assert_int_equal(mkfifo(path, 0600), 0); /* must not wait for a writer */
    assert_int_equal(nb_sha256_file(path, hex, &err), NB_E_FORMAT);
    assert_non_null(strstr(err.text, "/f: not a regular file"));
    nb_free(path);
    folder_remove(dir);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(known_messages),
        cmocka_unit_test(million_in_pieces),
        cmocka_unit_test(file_hash_is_the_hash_of_its_bytes),
        cmocka_unit_test(what_is_no_file_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* SPDX-License-Identifier: Apache-2.0
 *
 * test_bpe.c - the heap against merging by hand, the cache against no cache, and time for one huge
 * word. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "base/clock.h"
#include "base/rng.h"
#include "base/strbuf.h"
#include "text/bpe.h"

enum { LETTERS = 4 };

/* Random merges over the letters a..d and their products. */
static json_t *random_model(uint64_t seed)
{
    struct nb_rng rng;
    nb_rng_init(&rng, seed);
    json_t *vocab = json_object(), *merges = json_array();
    const char *names[64];
    size_t n = 0;
    for (; n < LETTERS; n++) {
        char s[2] = {(char)('a' + (int)n), '\0'};
        json_object_set_new(vocab, s, json_integer((json_int_t)n));
        names[n] = json_object_iter_key(json_object_iter_at(vocab, s));
    }
    for (int tries = 0; tries < 60 && n < 40; tries++) {
        const char *a = names[nb_rng_below(&rng, n)], *b = names[nb_rng_below(&rng, n)];
        struct nb_strbuf whole;
        nb_strbuf_init(&whole);
        nb_strbuf_printf(&whole, "%s%s", a, b);
        if (whole.len < 9) {
            if (!json_object_get(vocab, whole.data)) {
                json_object_set_new(vocab, whole.data, json_integer((json_int_t)n));
                names[n++] = json_object_iter_key(json_object_iter_at(vocab, whole.data));
            }
            json_array_append_new(merges, json_pack("[ss]", a, b));
        }
        nb_strbuf_release(&whole);
    }
    return json_pack("{sssoso}", "type", "BPE", "vocab", vocab, "merges", merges);
}

/* Merges by looking for the lowest rank again and again. */
static size_t merge_by_hand(const struct nb_bpe *b, int32_t *ids, size_t n)
{
    for (;;) {
        const struct nb_pair_entry *best = NULL;
        size_t at = 0;
        for (size_t i = 0; i + 1 < n; i++) {
            const struct nb_pair_entry *e =
                nb_pairmap_get(&b->merges, (uint32_t)ids[i], (uint32_t)ids[i + 1]);
            if (e && (!best || e->first < best->first)) {
                best = e;
                at = i;
            }
        }
        if (!best) return n;
        ids[at] = (int32_t)best->second;
        memmove(ids + at + 1, ids + at + 2, (n - at - 2) * sizeof *ids);
        n--;
    }
}

static void equals_merging_by_hand(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 40; seed++) {
        struct nb_err err;
        struct nb_bpe b;
        json_t *model = random_model(seed);
        if (nb_bpe_init(&b, model, "t", &err)) fail_msg("%s", err.text);
        struct nb_bpe_run run = {0};
        struct nb_rng rng;
        nb_rng_init(&rng, seed + 1000);
        for (int k = 0; k < 600;
             k++) { /* enough words to wake the cache, few enough letters to hit it */
            char word[64];
            int32_t want[64];
            size_t n = 1 + nb_rng_below(&rng, k % 3 ? 4 : 63);
            for (size_t i = 0; i < n; i++) {
                want[i] = (int32_t)nb_rng_below(&rng, LETTERS);
                word[i] = (char)('a' + want[i]);
            }
            size_t m = merge_by_hand(&b, want, n);
            struct nb_ids ids = {0};
            assert_int_equal(nb_bpe_encode(&b, &run, word, n, &ids, &err), 0);
            assert_int_equal(ids.n, m);
            assert_memory_equal(ids.data, want, m * sizeof *want);
            nb_ids_release(&ids);
        }
        nb_bpe_run_release(&run);
        nb_bpe_release(&b);
        json_decref(model);
    }
}

static void later_duplicate_of_a_merge_counts(void **state)
{
    (void)state;
    struct nb_err err;
    struct nb_bpe b;
    json_t *model = json_pack("{s{sisisisisi}s[ssss]}", "vocab", "a", 0, "b", 1, "c", 2, "ab", 3,
                              "bc", 4, "merges", "#version: 0.2", "a b", "b c", "a b");
    assert_int_equal(nb_bpe_init(&b, model, "t", &err), 0);
    struct nb_bpe_run run = {0};
    struct nb_ids ids = {0};
    assert_int_equal(nb_bpe_encode(&b, &run, "abc", 3, &ids, &err), 0);
    assert_int_equal(ids.n, 2);
    assert_int_equal(ids.data[0], 0);
    assert_int_equal(ids.data[1], 4);
    nb_ids_release(&ids);
    nb_bpe_run_release(&run);
    nb_bpe_release(&b);
    json_decref(model);
}

static void one_huge_word_takes_seconds(void **state)
{
    (void)state;
    struct nb_err err;
    struct nb_bpe b;
    json_t *model = json_pack("{s{sisisisi}s[sss]}", "vocab", "a", 0, "aa", 1, "aaaa", 2, "aaaaa",
                              3, "merges", "a a", "aa aa", "aaaa a");
    assert_int_equal(nb_bpe_init(&b, model, "t", &err), 0);
    size_t n = 2000001;
    char *word = malloc(n);
    assert_non_null(word);
    memset(word, 'a', n);
    struct nb_bpe_run run = {0};
    struct nb_ids ids = {0};
    double before = nb_clock_s();
    assert_int_equal(nb_bpe_encode(&b, &run, word, n, &ids, &err), 0);
    assert_true(nb_clock_s() - before < 30);
    assert_int_equal(ids.n, 500000);
    assert_int_equal(ids.data[499999], 3);
    nb_ids_release(&ids);
    nb_bpe_run_release(&run);
    nb_bpe_release(&b);
    json_decref(model);
    free(word);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(equals_merging_by_hand),
                                       cmocka_unit_test(later_duplicate_of_a_merge_counts),
                                       cmocka_unit_test(one_huge_word_takes_seconds)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* SPDX-License-Identifier: Apache-2.0
 *
 * test_spm.c - model "llama": joining by score, bytes, the space in front, decoding. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

#include "base/mem.h"
#include "unit/text/words.h"

#define M "\xe2\x96\x81"

/* The vocabulary of the specification's example. */
static void example(struct words *w)
{
    static const struct {
        const char *text;
        float score;
    } words[] = {{M "t", 0},    {"he", -1},       {M "the", -5}, {"in", -2}, {"er", -3},
                 {M, -20},      {"t", -21},       {"h", -22},    {"e", -23}, {"i", -24},
                 {"n", -25},    {"r", -26},       {M "in", -7},  {"th", -4}, {"ther", -8},
                 {"there", -9}, {M "there", -10}, {"re", -6}};
    words_init(w, "llama");
    words_add(w, "<unk>", NB_VOCAB_UNKNOWN, 0);
    words_add(w, "<s>", NB_VOCAB_CONTROL, 0);
    words_add(w, "</s>", NB_VOCAB_CONTROL, 0);
    words_add_bytes(w);
    for (size_t i = 0; i < sizeof words / sizeof *words; i++)
        words_add(w, words[i].text, NB_VOCAB_NORMAL, words[i].score);
}

static void joins_by_score(void **state)
{
    (void)state;
    struct words *w = nb_xalloc(sizeof *w);
    example(w);
    struct nb_tokenizer *t = words_open(w);
    words_encode(t, "the", 0, "261");
    words_encode(t, "there in", 0, "275 271");
    words_encode(t, "hint\xc3\xa9", 0, "264 266 262 265 198 172");
    words_encode(t, "", 0, "");
    words_encode(t, "", NB_ENCODE_TEMPLATE, "1");
    words_encode(t, "the", NB_ENCODE_TEMPLATE, "1 261");
    assert_int_equal(nb_tokenizer_size(t), 277);
    assert_int_equal(nb_tokenizer_id(t, M "the"), 261);
    assert_int_equal(nb_tokenizer_id(t, "x"), -1);
    nb_tokenizer_close(t);
    nb_vocab_release(&w->v);
    nb_free(w);
}

static void equal_scores_join_from_the_left(void **state)
{
    (void)state;
    struct words *w = nb_xalloc(sizeof *w);
    words_init(w, "llama");
    words_add(w, "<unk>", NB_VOCAB_UNKNOWN, -1000);
    int32_t a = words_add(w, "a", NB_VOCAB_NORMAL, -1000);
    words_add(w, "b", NB_VOCAB_NORMAL, -1000);
    int32_t ab = words_add(w, "ab", NB_VOCAB_NORMAL, -1000);
    int32_t ba = words_add(w, "ba", NB_VOCAB_NORMAL, -1000);
    w->v.flag[NB_VOCAB_ADD_SPACE_PREFIX] = NB_VOCAB_FALSE;
    w->v.flag[NB_VOCAB_ADD_BOS] = NB_VOCAB_FALSE;
    struct nb_tokenizer *t = words_open(w);
    char want[32];
    snprintf(want, sizeof want, "%d %d", ab, a);
    words_encode(t, "aba", 0, want);
    snprintf(want, sizeof want, "%d %d", ba, ba);
    words_encode(t, "baba", 0, want);
    words_encode(t, "z", 0, "0"); /* no byte token: unknown */
    nb_tokenizer_close(t);
    w->scores[3] = 0;
    w->scores[4] = -0.0f; /* the same score */
    t = words_open(w);
    snprintf(want, sizeof want, "%d %d", ba, ba);
    words_encode(t, "baba", 0, want);
    nb_tokenizer_close(t);
    w->scores[4] = NAN;
    words_refused(w, NB_E_FORMAT, "t.gguf: the score of token 4 is not a number");
    nb_vocab_release(&w->v);
    nb_free(w);
}

/* A token that crosses a word's begin forbids taking words singly; both ways agree elsewhere. */
static void words_or_whole(void **state)
{
    (void)state;
    struct words *w = nb_xalloc(sizeof *w);
    example(w);
    struct nb_tokenizer *by_words = words_open(w);
    words_add(w, "q" M "z", NB_VOCAB_NORMAL, -30);
    struct nb_tokenizer *whole = words_open(w);
    static const char *const texts[] = {"the  there", "in the hint " M M "here", " ", "re there  "};
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        struct nb_err err;
        struct nb_ids a = {0}, b = {0};
        assert_int_equal(nb_tokenizer_encode(by_words, texts[i], strlen(texts[i]), 0, &a, &err), 0);
        assert_int_equal(nb_tokenizer_encode(whole, texts[i], strlen(texts[i]), 0, &b, &err), 0);
        assert_int_equal(a.n, b.n);
        assert_memory_equal(a.data, b.data, a.n * sizeof *a.data);
        nb_ids_release(&a);
        nb_ids_release(&b);
    }
    nb_tokenizer_close(by_words);
    nb_tokenizer_close(whole);
    nb_vocab_release(&w->v);
    nb_free(w);
}

static void a_space_behind_each_special(void **state)
{
    (void)state;
    struct words *w = nb_xalloc(sizeof *w);
    example(w);
    struct nb_tokenizer *t = words_open(w);
    words_encode(t, "the</s>the", 0, "261 2 261");
    words_encode(t, "the</s> the", 0, "261 2 264 261");
    words_encode(t, "<s>", NB_ENCODE_PLAIN, "264 63 118 65"); /* bytes: no token makes "<s" */
    nb_tokenizer_close(t);
    w->v.flag[NB_VOCAB_ADD_SPACE_PREFIX] = NB_VOCAB_FALSE;
    t = words_open(w);
    words_encode(t, "the", 0, "265 260");
    nb_tokenizer_close(t);
    nb_vocab_release(&w->v);
    nb_free(w);
}

static void decoding(void **state)
{
    (void)state;
    struct words *w = nb_xalloc(sizeof *w);
    example(w);
    int32_t user = words_add(w, "x" M "y", NB_VOCAB_USER_DEFINED, 0);
    int32_t unused = words_add(w, "[PAD1]", NB_VOCAB_UNUSED, 0);
    struct nb_tokenizer *t = words_open(w);
    words_decode(t, (int32_t[]){261, 271}, 2, false, "the in");
    words_decode(t, (int32_t[]){1, 261}, 2, false, "<s> the");
    words_decode(t, (int32_t[]){1, 261}, 2, true, " the"); /* the BOS was the first */
    words_decode(t, (int32_t[]){261, 198, 172}, 3, true, "the\xc3\xa9");
    words_decode(t, (int32_t[]){261, 198}, 2, true, "the\xef\xbf\xbd");
    words_decode(t, (int32_t[]){user, unused, 264}, 3, true, "x" M "y ");
    nb_tokenizer_close(t);
    nb_vocab_release(&w->v);
    nb_free(w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(joins_by_score), cmocka_unit_test(equal_scores_join_from_the_left),
        cmocka_unit_test(words_or_whole), cmocka_unit_test(a_space_behind_each_special),
        cmocka_unit_test(decoding)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}

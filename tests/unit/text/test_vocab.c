/* SPDX-License-Identifier: Apache-2.0
 *
 * test_vocab.c - bad vocabularies are one clear sentence; byte-level BPE as llama.cpp does it;
 * special ids, types by text, and what ends a text. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

#include "base/mem.h"
#include "base/strbuf.h"
#include "unit/text/words.h"

#define G "\xc4\xa0" /* U+0120, a space in the byte-level alphabet */

/* The alphabet (0 to 255) and from 256 on what the merges of the specification's example make. */
static struct words *example(void)
{
    static const char *const merges[] = {"l o", "lo w", "e r", G " low", "n e", "ne w", "new er"};
    static const char *const tokens[] = {"lo", "low", "er", G "low", "ne", "new", "newer"};
    struct words *w = nb_xalloc(sizeof *w);
    words_init(w, "gpt2");
    w->v.pre = words_span("gpt-2");
    words_add_alphabet(w);
    for (size_t i = 0; i < 7; i++) {
        words_add(w, tokens[i], NB_VOCAB_NORMAL, 0);
        words_merge(w, merges[i]);
    }
    return w;
}

static void release(struct words *w)
{
    nb_vocab_release(&w->v);
    nb_free(w);
}

static void merges(void **state)
{
    (void)state;
    struct words *w = example();
    struct nb_tokenizer *t = words_open(w);
    words_encode(t, " lower", 0, "259 258");
    words_encode(t, "newer", 0, "262");
    words_encode(t, "newer", NB_ENCODE_TEMPLATE, "262");
    words_encode(t, "", 0, "");
    words_decode(t, (int32_t[]){259, 258}, 2, false, " lower");
    assert_int_equal(nb_tokenizer_size(t), 263);
    assert_int_equal(nb_tokenizer_id(t, G "low"), 259);
    struct nb_err err;
    struct nb_ids ids = {0};
    assert_int_equal(nb_tokenizer_encode(t, "a\xff", 2, 0, &ids, &err), NB_E_FORMAT);
    nb_ids_release(&ids);
    nb_tokenizer_close(t);
    release(w);
}

/* "xy" is no token, but merges pass through it; alone it is spelled. */
static void merges_through_no_token(void **state)
{
    (void)state;
    struct words *w = example();
    words_merge(w, "x y");
    words_merge(w, "xy z");
    words_merge(w, "x y"); /* again: the first rank holds */
    int32_t xyz = words_add(w, "xyz", NB_VOCAB_NORMAL, 0);
    struct nb_tokenizer *t = words_open(w);
    char want[64];
    snprintf(want, sizeof want, "%d %d %d", xyz, nb_tokenizer_id(t, "x"), nb_tokenizer_id(t, "y"));
    words_encode(t, "xyzxy", 0, want);
    assert_int_equal(nb_tokenizer_id(t, "xy"), -1);
    assert_int_equal(nb_tokenizer_size(t), w->v.n);
    nb_tokenizer_close(t);
    release(w);
}

static void missing_bytes_vanish(void **state)
{
    (void)state;
    struct words *w = nb_xalloc(sizeof *w);
    words_init(w, "gpt2");
    w->v.pre = words_span("gpt-2");
    words_add(w, "a", NB_VOCAB_NORMAL, 0);
    words_add(w, "b", NB_VOCAB_NORMAL, 0);
    words_add(w, "ab", NB_VOCAB_NORMAL, 0);
    words_merge(w, "a b");
    struct nb_tokenizer *t = words_open(w);
    words_encode(t, "abacb", 0, "2 0 1"); /* "c" goes, but keeps a and b apart */
    nb_tokenizer_close(t);
    release(w);
}

static void ignore_merges(void **state)
{
    (void)state;
    struct words *w = example();
    int32_t hello = words_add(w, "hello", NB_VOCAB_NORMAL, 0);
    char want[64];
    w->v.special[NB_VOCAB_BOS] = 7;
    w->v.pre = words_span("llama-bpe");
    struct nb_tokenizer *t = words_open(w);
    snprintf(want, sizeof want, "7 %d", hello);
    words_encode(t, "hello", NB_ENCODE_TEMPLATE, want);
    nb_tokenizer_close(t);
    w->v.pre = words_span("qwen2");
    t = words_open(w);
    snprintf(want, sizeof want, "%d %d %d 256", nb_tokenizer_id(t, "h"), nb_tokenizer_id(t, "e"),
             nb_tokenizer_id(t, "l"));
    words_encode(t, "hello", NB_ENCODE_TEMPLATE, want);
    nb_tokenizer_close(t);
    release(w);
}

static void types_by_text(void **state)
{
    (void)state;
    struct words *w = example();
    int32_t end = words_add(w, "<|im_end|>", NB_VOCAB_NORMAL, 0);
    int32_t user = words_add(w, "<tool>", NB_VOCAB_USER_DEFINED, 0);
    int32_t shown = words_add(w, "<|channel|>", NB_VOCAB_CONTROL, 0);
    w->v.special[NB_VOCAB_EOS] = 5;
    struct nb_tokenizer *t = words_open(w);
    char want[64];
    snprintf(want, sizeof want, "%d %d", user, end);
    words_encode(t, "<tool><|im_end|>", 0, want);
    struct nb_err err;
    struct nb_ids ids = {0};
    const char *text = "<tool><|channel|><|im_end|>";
    assert_int_equal(nb_tokenizer_encode(t, text, strlen(text), NB_ENCODE_PLAIN, &ids, &err), 0);
    assert_int_equal(ids.n, 12); /* the control token letter by letter */
    assert_int_equal(ids.data[0], user);
    assert_int_equal(ids.data[1], shown);
    words_decode(t, ids.data, ids.n, true, text);
    words_decode(t, (int32_t[]){user, end, shown}, 3, true, "<tool><|channel|>");
    nb_ids_release(&ids);
    nb_tokenizer_close(t);
    int32_t ends[NB_VOCAB_ENDS_MAX];
    assert_int_equal(nb_vocab_end_ids(&w->v, ends, NB_VOCAB_ENDS_MAX), 2);
    assert_int_equal(ends[0], 5);
    assert_int_equal(ends[1], end);
    release(w);
}

/* gpt-oss: "<|end|>" does not end the text. */
static void harmony(void **state)
{
    (void)state;
    struct words *w = example();
    w->v.special[NB_VOCAB_EOS] = words_add(w, "<|return|>", NB_VOCAB_CONTROL, 0);
    int32_t end = words_add(w, "<|end|>", NB_VOCAB_CONTROL, 0);
    int32_t ends[NB_VOCAB_ENDS_MAX];
    assert_int_equal(nb_vocab_end_ids(&w->v, ends, NB_VOCAB_ENDS_MAX), 2);
    assert_int_equal(ends[1], end);
    words_add(w, "<|call|>", NB_VOCAB_CONTROL, 0);
    assert_int_equal(nb_vocab_end_ids(&w->v, ends, NB_VOCAB_ENDS_MAX), 2);
    assert_int_equal(ends[0], end - 1);
    assert_int_equal(ends[1], end + 1);
    release(w);
}

static void special_ids(void **state)
{
    (void)state;
    struct words *w = example();
    w->v.flag[NB_VOCAB_ADD_BOS] = NB_VOCAB_TRUE;
    w->v.flag[NB_VOCAB_ADD_EOS] = NB_VOCAB_TRUE;
    struct nb_tokenizer *t = words_open(w);
    words_encode(t, "newer", NB_ENCODE_TEMPLATE, "11 262 11"); /* the defaults */
    nb_tokenizer_close(t);
    w->v.special[NB_VOCAB_BOS] = 100000; /* beyond: the default holds */
    w->v.special[NB_VOCAB_EOS] = 3;
    t = words_open(w);
    words_encode(t, "newer", NB_ENCODE_TEMPLATE, "11 262 3");
    nb_tokenizer_close(t);
    w->v.pre = words_span("chatglm-bpe");
    words_refused(w, NB_E_FORMAT, "t.gguf: add_bos_token is true, but there is no bos_token_id");
    release(w);
}

static void bad_files(void **state)
{
    (void)state;
    struct words *w = example();
    w->v.model = words_span("bert");
    words_refused(w, NB_E_SPEC,
                  "t.gguf: tokenizer model 'bert' is not supported (supported: gpt2,"
                  " llama)");
    w->v.model = words_span("gpt2");
    w->v.pre = words_span("kimi-k2");
    words_refused(w, NB_E_SPEC,
                  "t.gguf: pre-tokenizer 'kimi-k2' is not supported (supported: "
                  "llama-bpe, llama3, ");
    w->v.pre = words_span("gpt-2");
    w->v.n_types--;
    words_refused(w, NB_E_FORMAT, "t.gguf: 262 token types for 263 tokens");
    w->v.n_types++;
    w->v.scores = w->scores;
    w->v.n_scores = 1;
    words_refused(w, NB_E_FORMAT, "t.gguf: 1 scores for 263 tokens");
    w->v.scores = NULL;
    w->tokens[3] = w->tokens[9];
    words_refused(w, NB_E_FORMAT, "t.gguf: tokens 3 and 9 have the same text ");
    w->tokens[3] = words_span("");
    w->tokens[9] = words_span("[EMPTY_3]"); /* what an empty token is called */
    words_refused(w, NB_E_FORMAT, "t.gguf: tokens 3 and 9 have the same text '[EMPTY_3]'");
    w->tokens[9] = words_span("<0x-1>");
    w->types[9] = NB_VOCAB_BYTE;
    words_refused(w, NB_E_FORMAT, "t.gguf: token 9 '<0x-1>' is of type byte, expected <0x00> to");
    w->types[9] = 99; /* an unknown type is none */
    static const char *const bad[] = {"", " ", "ab", "a ", " b"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        w->merges[2] = words_span(bad[i]);
        words_refused(w, NB_E_FORMAT, "t.gguf: merge 2: expected \"left right\", found '");
    }
    w->v.n_merges = 0;
    words_refused(w, NB_E_FORMAT, "t.gguf: tokenizer model gpt2 without merges");
    w->v.n = 0;
    words_refused(w, NB_E_FORMAT, "t.gguf: 0 tokens, expected 1 to ");
    release(w);
}

/* Texts that are no UTF-8: never found in a text, decoded as far as they are. */
static void malformed_tokens(void **state)
{
    (void)state;
    struct words *w = example();
    int32_t half = words_add(w, "\xe2\x82", NB_VOCAB_CONTROL, 0);
    int32_t normal = words_add(w, "\xff\xfe", NB_VOCAB_NORMAL, 0);
    struct nb_tokenizer *t = words_open(w);
    char want[64];
    snprintf(want, sizeof want, "%d %d %d", 0xe2, 0x82, 0xac);
    words_encode(t, "\xe2\x82\xac", 0, want);
    words_decode(t, (int32_t[]){half, 0xac}, 2, false, "\xe2\x82\xac");
    words_decode(t, (int32_t[]){normal}, 1, false, "\xef\xbf\xbd\xef\xbf\xbd");
    nb_tokenizer_close(t);
    release(w);
}

static void identity(void **state)
{
    (void)state;
    struct words *a = example(), *b = example();
    struct nb_tokenizer *x = words_open(a), *y = words_open(b);
    assert_string_equal(nb_tokenizer_sha256(x), nb_tokenizer_sha256(y));
    nb_tokenizer_close(y);
    b->types[5] = NB_VOCAB_UNUSED;
    y = words_open(b);
    assert_string_not_equal(nb_tokenizer_sha256(x), nb_tokenizer_sha256(y));
    nb_tokenizer_close(y);
    b->types[5] = NB_VOCAB_NORMAL;
    b->v.flag[NB_VOCAB_ADD_BOS] = NB_VOCAB_FALSE; /* said and not said differ */
    y = words_open(b);
    assert_string_not_equal(nb_tokenizer_sha256(x), nb_tokenizer_sha256(y));
    nb_tokenizer_close(y);
    nb_tokenizer_close(x);
    release(a);
    release(b);
}

static void keys(void **state)
{
    (void)state;
    for (int s = 0; s < NB_VOCAB_N_SPECIAL; s++)
        assert_non_null(strstr(nb_vocab_special_key((enum nb_vocab_special)s), "_token_id"));
    for (int f = 0; f < NB_VOCAB_N_FLAGS; f++)
        assert_non_null(nb_vocab_flag_key((enum nb_vocab_flag)f));
    assert_string_equal(nb_vocab_special_key(NB_VOCAB_SEP), "seperator_token_id");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(merges),
        cmocka_unit_test(merges_through_no_token),
        cmocka_unit_test(missing_bytes_vanish),
        cmocka_unit_test(ignore_merges),
        cmocka_unit_test(types_by_text),
        cmocka_unit_test(harmony),
        cmocka_unit_test(special_ids),
        cmocka_unit_test(bad_files),
        cmocka_unit_test(malformed_tokens),
        cmocka_unit_test(identity),
        cmocka_unit_test(keys),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

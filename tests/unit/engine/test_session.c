/* SPDX-License-Identifier: Apache-2.0
 *
 * test_session.c - limits and bad ids of sessions, nothing allocated while decoding, same bits on
 * any threads. */
#include <errno.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "load.h"

/* The library allocates through aligned_alloc only (base/mem.c); this one counts. */
static int allocations;

void *aligned_alloc(size_t alignment, size_t size)
{
    void *p = NULL;
    allocations++;
    errno = posix_memalign(&p, alignment, size);
    return errno ? NULL : p;
}

static void test_limits(void **state)
{
    (void)state;
    struct nb_err err = {0};
    struct loaded l = load_golden("qwen2-tied-bf16", 1);
    struct nb_session *s;
    const int32_t ids[] = {1, 2, 3, 4}, bad[] = {5, 160}, negative[] = {-1};
    assert_int_equal(nb_session_new(&s, l.engine, 0, &err), NB_E_USAGE);
    assert_null(s);
    assert_int_equal(nb_session_new(&s, l.engine, INT64_MAX / 4, &err), NB_E_NOMEM);
    assert_int_equal(nb_session_new(&s, l.engine, 5, &err), 0);
    assert_int_equal(nb_session_eval(s, ids, 4, NULL, &err), 0);
    assert_int_equal(nb_session_eval(s, ids, 0, NULL, &err), 0);
    assert_int_equal(nb_session_length(s), 4);
    assert_int_equal(nb_session_eval(s, ids, 2, NULL, &err), NB_E_SPEC);
    assert_string_equal(err.text, "2 tokens after 4 do not fit a session of 5");
    assert_int_equal(nb_session_eval(s, negative, 1, NULL, &err), NB_E_FORMAT);
    assert_int_equal(nb_session_length(s), 4);
    nb_session_free(s);
    assert_int_equal(nb_session_new(&s, l.engine, 5, &err), 0);
    assert_int_equal(nb_session_eval(s, bad, 2, NULL, &err), NB_E_FORMAT);
    assert_string_equal(err.text, "token 1 has id 160, the vocabulary ends at 159");
    assert_int_equal(nb_session_length(s), 0); /* nothing was fed */
    nb_session_free(s);
    float hidden[2 * 64];
    assert_int_equal(nb_engine_hidden(l.engine, bad, 2, hidden, &err), NB_E_FORMAT);
    load_release(&l);
}

static void test_decode_allocates_nothing(void **state)
{
    (void)state;
    struct nb_err err = {0};
    struct loaded l =
        load_golden("llama-rope-dynamic", 2); /* makes its frequencies anew at every step */
    struct nb_session *s;
    const int64_t vocab = nb_engine_arch(l.engine)->vocab_size;
    float *logits = load_floats(vocab), *scratch = load_floats(vocab);
    struct nb_rng rng;
    nb_rng_init(&rng, 1);
    struct nb_sampling sampling = {.temperature = 0.8, .top_k = 20, .top_p = 0.9, .min_p = 0.01};
    assert_int_equal(nb_session_new(&s, l.engine, 100, &err), 0);
    int32_t id = 3;
    int before = allocations;
    assert_true(before > 0);
    for (int i = 0; i < 100; i++) {
        assert_int_equal(nb_session_eval(s, &id, 1, logits, &err), 0);
        id = nb_sample(logits, vocab, &sampling, &rng, scratch);
    }
    assert_int_equal(allocations, before);
    nb_session_free(s);
    nb_free(logits);
    nb_free(scratch);
    load_release(&l);
}

static void generate(const char *model, int threads, int32_t *out, int n, float *last)
{
    struct nb_err err = {0};
    struct loaded l = load_golden(model, threads);
    struct nb_session *s;
    const int64_t vocab = nb_engine_arch(l.engine)->vocab_size;
    float *logits = load_floats(vocab);
    const int32_t prompt[] = {5, 9, 2, 70, 11, 12, 3};
    assert_int_equal(nb_session_new(&s, l.engine, 7 + n, &err), 0);
    assert_int_equal(nb_session_eval(s, prompt, 7, logits, &err), 0);
    for (int i = 0; i < n; i++) {
        out[i] = nb_sample(logits, vocab, &(struct nb_sampling){.top_p = 1}, NULL, NULL);
        assert_int_equal(nb_session_eval(s, &out[i], 1, logits, &err), 0);
    }
    memcpy(last, logits, (size_t)vocab * sizeof *logits);
    nb_session_free(s);
    nb_free(logits);
    load_release(&l);
}

static void test_threads(void **state)
{
    (void)state;
    int32_t one[30], three[30];
    float a[160], b[160];
    generate("qwen3-gqa-bf16", 1, one, 30, a);
    generate("qwen3-gqa-bf16", 3, three, 30, b);
    assert_memory_equal(one, three, sizeof one);
    assert_memory_equal(a, b, sizeof a);
}

/* A prompt longer than one stretch gives the hidden states of a whole run. */
static void test_long_prompt(void **state)
{
    (void)state;
    enum { N = 1100 };
    struct nb_err err = {0};
    struct loaded l = load_golden("llama2-mha-f16", 2);
    const struct nb_arch *a = nb_engine_arch(l.engine);
    int32_t ids[N];
    struct nb_rng rng;
    nb_rng_init(&rng, 4);
    for (int i = 0; i < N; i++) ids[i] = (int32_t)nb_rng_below(&rng, (uint64_t)a->vocab_size);
    float *hidden = load_floats(N * a->hidden_size), *want = load_floats(a->vocab_size),
          *got = load_floats(a->vocab_size);
    assert_int_equal(nb_engine_hidden(l.engine, ids, N, hidden, &err), 0);
    nb_engine_logits(l.engine, hidden + (N - 1) * a->hidden_size, 1, want);
    struct nb_session *s;
    assert_int_equal(nb_session_new(&s, l.engine, N, &err), 0);
    assert_int_equal(nb_session_eval(s, ids, N, got, &err), 0);
    assert_memory_equal(got, want, (size_t)a->vocab_size * sizeof *got);
    nb_session_free(s);
    nb_free(hidden);
    nb_free(want);
    nb_free(got);
    load_release(&l);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_limits),
        cmocka_unit_test(test_decode_allocates_nothing),
        cmocka_unit_test(test_threads),
        cmocka_unit_test(test_long_prompt),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

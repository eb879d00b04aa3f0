/* SPDX-License-Identifier: Apache-2.0
 *
 * test_pool.c - each piece once, whoever runs it; results that do not depend on the number of threads. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/mem.h"
#include "base/pool.h"
#include "base/rng.h"

enum { MAX_PIECES = 1000, MAX_THREADS = 16 };

static const int thread_counts[] = {1, 2, 3, 16};

struct tally {
    int runs[MAX_PIECES];           /* not atomic: a piece that ran twice at once is a race */
    atomic_int inside[MAX_THREADS]; /* is this thread number in use right now? */
    int n_threads;
    atomic_int wrong;
};

static void count(void *ctx, size_t piece, int thread)
{
    struct tally *t = ctx;
    if (thread < 0 || thread >= t->n_threads || piece >= MAX_PIECES) {
        atomic_fetch_add(&t->wrong, 1);
        return;
    }
    if (atomic_exchange(&t->inside[thread], 1)) atomic_fetch_add(&t->wrong, 1);
    t->runs[piece]++;
    atomic_store(&t->inside[thread], 0);
}

static struct nb_pool *new_pool(int n)
{
    struct nb_err err;
    struct nb_pool *p = nb_pool_new(n, &err);
    if (!p) fail_msg("%s", err.text);
    return p;
}

static void check_once(struct nb_pool *pool, int n_threads, size_t n_pieces)
{
    static struct tally t;
    memset(&t, 0, sizeof t);
    t.n_threads = n_threads;
    nb_pool_run(pool, n_pieces, count, &t);
    assert_int_equal(t.wrong, 0);
    for (size_t i = 0; i < MAX_PIECES; i++) assert_int_equal(t.runs[i], i < n_pieces);
}

static void every_piece_once(void **state)
{
    (void)state;
    static const size_t pieces[] = {0, 1, 2, 3, 5, 16, 17, 100, MAX_PIECES};
    for (size_t i = 0; i < 4; i++) {
        struct nb_pool *pool = new_pool(thread_counts[i]);
        assert_int_equal(nb_pool_threads(pool), thread_counts[i]);
        for (size_t k = 0; k < sizeof pieces / sizeof *pieces; k++) {
            check_once(pool, thread_counts[i], pieces[k]);
        }
        nb_pool_free(pool);
    }
}

/* Short runs one after the other: a worker that wakes late must not take a piece of the next run. */
static void many_short_runs(void **state)
{
    (void)state;
    for (size_t i = 1; i < 4; i++) {
        struct nb_pool *pool = new_pool(thread_counts[i]);
        for (int run = 0; run < 300; run++) check_once(pool, thread_counts[i], (size_t)run % 7);
        nb_pool_free(pool);
    }
}

static void no_pool_runs_here(void **state)
{
    (void)state;
    assert_int_equal(nb_pool_threads(NULL), 1);
    check_once(NULL, 1, 100);
    nb_pool_free(NULL);
}

struct work {
    const float *x;
    double partial[64];
};

/* A piece is a fixed part of the input, so its sum has one order of additions. */
static void sum_part(void *ctx, size_t piece, int thread)
{
    struct work *w = ctx;
    (void)thread;
    double s = 0;
    for (size_t i = piece * 500; i < (piece + 1) * 500; i++) s += (double)w->x[i] * 1e-3;
    w->partial[piece] = s;
}

static void results_do_not_depend_on_threads(void **state)
{
    (void)state;
    float *x = nb_alloc(64 * 500, sizeof *x);
    struct nb_rng rng;
    nb_rng_init(&rng, 9);
    for (int i = 0; i < 64 * 500; i++) x[i] = (float)nb_rng_normal(&rng);
    struct work first = {.x = x}, w;
    nb_pool_run(NULL, 64, sum_part, &first);
    for (size_t i = 0; i < 4; i++) {
        struct nb_pool *pool = new_pool(thread_counts[i]);
        for (int again = 0; again < 5; again++) {
            memset(&w, 0, sizeof w);
            w.x = x;
            nb_pool_run(pool, 64, sum_part, &w);
            assert_memory_equal(w.partial, first.partial, sizeof w.partial);
        }
        nb_pool_free(pool);
    }
    nb_free(x);
}

struct scratch {
    long long sum[MAX_THREADS]; /* not atomic: one thread per number */
};

static void add_to_scratch(void *ctx, size_t piece, int thread)
{
    struct scratch *s = ctx;
    s->sum[thread] += (long long)piece;
}

static void thread_number_is_private(void **state)
{
    (void)state;
    struct nb_pool *pool = new_pool(16);
    struct scratch s;
    memset(&s, 0, sizeof s);
    nb_pool_run(pool, 10000, add_to_scratch, &s);
    long long sum = 0;
    for (int i = 0; i < 16; i++) sum += s.sum[i];
    assert_int_equal(sum, 9999LL * 10000 / 2);
    nb_pool_free(pool);
}

static void counts(void **state)
{
    (void)state;
    struct nb_err err;
    int cpus = nb_cpu_count();
    assert_true(cpus >= 1 && cpus <= sysconf(_SC_NPROCESSORS_CONF));
    struct nb_pool *pool = new_pool(0);
    assert_int_equal(nb_pool_threads(pool), cpus < 1024 ? cpus : 1024);
    nb_pool_free(pool);
    assert_null(nb_pool_new(1025, &err));
    assert_int_equal(err.status, NB_E_USAGE);
    assert_string_equal(err.text, "1025 threads asked for, at most 1024 are possible");
    nb_pool_free(new_pool(5)); /* never used */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_piece_once),
        cmocka_unit_test(many_short_runs),
        cmocka_unit_test(no_pool_runs_here),
        cmocka_unit_test(results_do_not_depend_on_threads),
        cmocka_unit_test(thread_number_is_private),
        cmocka_unit_test(counts),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

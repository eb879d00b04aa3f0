/* SPDX-License-Identifier: Apache-2.0
 *
 * pool.c - see pool.h. Pieces are handed out by an atomic counter; workers sleep between runs. */
#include "base/pool.h"

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/mem.h"

enum { MAX_THREADS = 1024 };

struct worker {
    struct nb_pool *pool;
    pthread_t thread;
    int index;
};

struct nb_pool {
    pthread_mutex_t lock;
    pthread_cond_t start, done;
    struct worker *workers; /* n_threads - 1 of them; index 0 is the caller */
    int n_threads, n_busy;
    unsigned long generation;
    bool stop;
    nb_pool_fn fn;
    void *ctx;
    size_t n_pieces;
    atomic_size_t next;
};

int nb_cpu_count(void)
{
    cpu_set_t set;
    int n = (int)sysconf(_SC_NPROCESSORS_ONLN); /* more cores than a cpu_set_t has */
    if (sched_getaffinity(0, sizeof set, &set) == 0) n = CPU_COUNT(&set);
    FILE *f = fopen("/sys/fs/cgroup/cpu.max", "r");
    if (f) {
        long quota, period;
        if (fscanf(f, "%ld %ld", &quota, &period) == 2 && quota > 0 && period > 0) {
            long whole = (quota + period - 1) / period;
            if (whole >= 1 && whole < n) n = (int)whole;
        }
        fclose(f);
    }
    return n < 1 ? 1 : n;
}

static void work(struct nb_pool *p, int thread)
{
    for (;;) {
        size_t piece = atomic_fetch_add_explicit(&p->next, 1, memory_order_relaxed);
        if (piece >= p->n_pieces) return;
        p->fn(p->ctx, piece, thread);
    }
}

static void *worker_main(void *arg)
{
    struct worker *w = arg;
    struct nb_pool *p = w->pool;
    unsigned long seen = 0;
    pthread_mutex_lock(&p->lock);
    for (;;) {
        while (!p->stop && p->generation == seen) pthread_cond_wait(&p->start, &p->lock);
        if (p->stop) break;
        seen = p->generation;
        pthread_mutex_unlock(&p->lock);
        work(p, w->index);
        pthread_mutex_lock(&p->lock);
        if (--p->n_busy == 0) pthread_cond_signal(&p->done);
    }
    pthread_mutex_unlock(&p->lock);
    return NULL;
}

struct nb_pool *nb_pool_new(int n_threads, struct nb_err *err)
{
    if (n_threads <= 0) {
        n_threads = nb_cpu_count();
        if (n_threads > MAX_THREADS) n_threads = MAX_THREADS;
    }
    if (n_threads > MAX_THREADS) {
        nb_fail(err, NB_E_USAGE, "%d threads asked for, at most %d are possible", n_threads,
                MAX_THREADS);
        return NULL;
    }
    struct nb_pool *p = nb_xalloc(sizeof *p);
    pthread_mutex_init(&p->lock, NULL);
    pthread_cond_init(&p->start, NULL);
    pthread_cond_init(&p->done, NULL);
    p->workers = nb_xalloc((size_t)n_threads * sizeof *p->workers);
    p->n_threads = 1;
    for (int i = 1; i < n_threads; i++) {
        struct worker *w = &p->workers[i - 1];
        *w = (struct worker){.pool = p, .index = i};
        int rc = pthread_create(&w->thread, NULL, worker_main, w);
        if (rc) {
            nb_fail(err, NB_E_NOMEM, "cannot start thread %d of %d: %s", i + 1, n_threads,
                    strerror(rc));
            nb_pool_free(p);
            return NULL;
        }
        p->n_threads++;
    }
    return p;
}

void nb_pool_free(struct nb_pool *p)
{
    if (!p) return;
    pthread_mutex_lock(&p->lock);
    p->stop = true;
    pthread_cond_broadcast(&p->start);
    pthread_mutex_unlock(&p->lock);
    for (int i = 0; i < p->n_threads - 1; i++) pthread_join(p->workers[i].thread, NULL);
    pthread_cond_destroy(&p->start);
    pthread_cond_destroy(&p->done);
    pthread_mutex_destroy(&p->lock);
    nb_free(p->workers);
    nb_free(p);
}

int nb_pool_threads(const struct nb_pool *pool)
{
    return pool ? pool->n_threads : 1;
}

void nb_pool_run(struct nb_pool *p, size_t n_pieces, nb_pool_fn fn, void *ctx)
{
    if (!n_pieces) return;
    if (!p || p->n_threads == 1 || n_pieces == 1) {
        for (size_t i = 0; i < n_pieces; i++) fn(ctx, i, 0);
        return;
    }
    pthread_mutex_lock(&p->lock);
    p->fn = fn;
    p->ctx = ctx;
    p->n_pieces = n_pieces;
    atomic_store_explicit(&p->next, 0, memory_order_relaxed);
    p->n_busy = p->n_threads - 1;
    p->generation++;
    pthread_cond_broadcast(&p->start);
    pthread_mutex_unlock(&p->lock);
    work(p, 0);
    pthread_mutex_lock(&p->lock);
    while (p->n_busy) pthread_cond_wait(&p->done, &p->lock);
    pthread_mutex_unlock(&p->lock);
}

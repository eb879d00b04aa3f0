/* SPDX-License-Identifier: Apache-2.0
 *
 * 01_steps.c - what each step of the solver brings and costs, on one synthetic matrix.
 *
 *   cmake --preset release && cmake --build --preset release --target nibble_static
 *   cc -O2 -std=c17 -D_GNU_SOURCE -Isrc -Iinclude bench/lab/quant/01_steps.c build/libnibble.a \
 *      -ljansson -lcrypto -lm -lpthread -o build/lab-steps && build/lab-steps 896 4864 2
 *
 * Arguments: rows, columns, threads, bits (4). Inputs are an autoregressive sequence of channels of unequal
 * size, H is their exact covariance, so a lower loss is a lower loss on unseen inputs too. Each line adds
 * one step to the line before; loss is relative to plain rounding with the same grid. */
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "base/rng.h"
#include "quant/quant.h"

static double seconds(clockid_t clock)
{
    struct timespec t;
    clock_gettime(clock, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static void make_covariance(struct nb_stats *s)
{
    const int64_t k = s->k;
    for (int64_t i = 0; i < k; i++) {
        for (int64_t j = 0; j < k; j++) {
            double c = 1.0, size = (1 + i * 7919 % 13 * 0.2) * (1 + j * 7919 % 13 * 0.2);
            for (int64_t d = llabs(i - j); d > 0 && c > 1e-9; d--) c *= 0.9;
            s->h[i * k + j] = c * size * 1e6;
        }
        s->abs_sum[i] = 1e6;
    }
    s->n_tokens = 1000000;
    s->finished = true;
}

static void run(const char *label, const struct nb_solve_job *job)
{
    struct nb_err err = {0};
    struct nb_solve_report report;
    struct nb_qmat q;
    struct nb_arena arena;
    nb_arena_init(&arena);
    const double wall = seconds(CLOCK_MONOTONIC), cpu = seconds(CLOCK_PROCESS_CPUTIME_ID);
    if (nb_solver_find("gptq")->solve(&q, job, &arena, &report, &err)) {
        fprintf(stderr, "%s\n", err.text);
        exit(1);
    }
    printf("%-28s %8.4f %8.2f s wall %8.2f s cpu\n", label, report.loss / report.loss_rtn,
           seconds(CLOCK_MONOTONIC) - wall, seconds(CLOCK_PROCESS_CPUTIME_ID) - cpu);
    fflush(stdout);
    nb_arena_release(&arena);
}

int main(int argc, char **argv)
{
    if (argc < 4) return fprintf(stderr, "usage: %s ROWS COLS THREADS [BITS]\n", argv[0]), 2;
    struct nb_fmat w = {.rows = strtoll(argv[1], NULL, 10),
                        .cols = strtoll(argv[2], NULL, 10),
                        .ld = strtoll(argv[2], NULL, 10)};
    struct nb_err err = {0};
    struct nb_pool *pool = nb_pool_new((int)strtol(argv[3], NULL, 10), &err);
    struct nb_backend *be = NULL;
    struct nb_stats stats;
    if (!pool || nb_backend_new(&be, pool, NULL, &err) || nb_stats_init(&stats, w.cols, 0, &err)) {
        return fprintf(stderr, "%s\n", err.text), 1;
    }
    make_covariance(&stats);
    w.data = nb_alloc((size_t)(w.rows * w.cols), sizeof *w.data);
    struct nb_rng rng;
    nb_rng_init(&rng, 1);
    for (int64_t i = 0; w.data && i < w.rows * w.cols; i++)
        w.data[i] = (float)(0.02 * nb_rng_normal(&rng));

    struct nb_solve_opts o = {
        .grid.spec = {.elem = {.kind = NB_ELEM_INT,
                               .bits = argc > 4 ? (int)strtol(argv[4], NULL, 10) : 4,
                               .vec = 1},
                      .group_rows = 1,
                      .group_cols = 128,
                      .scale_dtype = NB_F16,
                      .zero = NB_ZERO_CODE,
                      .symmetric = true}};
    const struct nb_solve_job job = {&w, &stats, &o, be};
    nb_solve_opts_effort(&o, NB_EFFORT_FAST);
    o.order = NB_ORDER_NONE;
    run("gptq, no order", &job);
    o.order = NB_ORDER_GROUP;
    run("group order", &job);
    o.order = NB_ORDER_STATIC;
    run("static order", &job);
    o.order = NB_ORDER_PIVOTED;
    run("pivoted order", &job);
    o.order = NB_ORDER_AUTO;
    run("pivoted and group", &job);
    o.scale_trials = 2;
    run("+ scale trials", &job);
    o.cd_sweeps = 3;
    run("+ coordinate descent", &job);
    o.refit = true;
    run("+ scale re-fit", &job);
    nb_solve_opts_effort(&o, NB_EFFORT_BEST);
    o.beam = o.beam_sweeps = 0;
    run("+ group trials, restart", &job);
    o.beam = 8;
    run("+ beam in the restart", &job);
    o.beam_sweeps = 2;
    run("+ block beam (max)", &job);
    nb_stats_release(&stats);
    nb_free(w.data);
    nb_backend_free(be);
    nb_pool_free(pool);
    return 0;
}

/* SPDX-License-Identifier: Apache-2.0
 *
 * 02_blocks.c - what nb_block_solve reaches on dumped matrices, against the reference's encoder.
 *
 *   (built as 01_steps.c says)  build/lab-blocks TYPE EFFORT THREADS OUT FILE...
 *
 * A FILE holds i64 rows, columns, tokens; f32 weights; f64 sums x x^T, and (x_float - x) x^T or nothing. TYPE "Q4_K"; EFFORT fast, normal, best;
 * OUT a folder for decoded weights (FILE.q ours, FILE.ref the reference's; f32), or "-".
 * LAB_SWEEPS, LAB_TRIALS, LAB_REFIT, LAB_RESTARTS, LAB_BEAM, LAB_DAMP, LAB_ALPHA replace the effort's settings;
 * LAB_VERBOSE prints every file; LAB_PLAIN: FILE.ref without importance. Prints loss over the reference's loss and seconds, per file and in sum. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "numeric/block.h"
#include "quant/quant.h"

static double seconds(clockid_t clock)
{
    struct timespec t;
    clock_gettime(clock, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static void die(const char *what, const char *text)
{
    fprintf(stderr, "%s: %s\n", what, text);
    exit(1);
}

static void read_matrix(const char *path, struct nb_fmat *w, struct nb_stats *s)
{
    FILE *f = fopen(path, "rb");
    int64_t head[3];
    struct nb_err err = {0};
    if (!f || fread(head, sizeof head, 1, f) != 1) die(path, "cannot read");
    *w = (struct nb_fmat){.rows = head[0], .cols = head[1], .ld = head[1]};
    const size_t n = (size_t)(head[0] * head[1]), k = (size_t)head[1];
    w->data = nb_alloc(n, sizeof *w->data);
    if (nb_stats_init(s, head[1], NB_STATS_CROSS, &err)) die(path, err.text);
    if (!w->data || fread(w->data, sizeof *w->data, n, f) != n) die(path, "short");
    if (fread(s->h, sizeof *s->h, k * k, f) != k * k) die(path, "short");
    if (fread(s->d, sizeof *s->d, k * k, f) != k * k) {
        nb_free(s->d);
        s->d = NULL;
    }
    s->n_tokens = head[2];
    nb_stats_finish(s); /* the lower triangle repeats the upper one */
    fclose(f);
}

static void write_decoded(const char *folder, const char *path, const char *suffix,
                          const struct nb_blocks *b, const struct nb_fmat *w)
{
    char name[1024];
    const char *base = strrchr(path, '/');
    snprintf(name, sizeof name, "%s/%s.%s", folder, base ? base + 1 : path, suffix);
    FILE *f = fopen(name, "wb");
    float *row = nb_alloc((size_t)w->cols, sizeof *row);
    if (!f || !row) die(name, "cannot write");
    for (int64_t r = 0; r < w->rows; r++) {
        b->type->decode(b->data + (size_t)r * nb_block_row_bytes(b->type, w->cols), row, w->cols);
        fwrite(row, sizeof *row, (size_t)w->cols, f);
    }
    nb_free(row);
    fclose(f);
}

/* With diag(H) as importance, or plain. */
static void encode_reference(const struct nb_block_type *type, const struct nb_fmat *w,
                             const struct nb_stats *stats, unsigned char *out)
{
    float *importance = nb_alloc((size_t)w->cols, sizeof *importance);
    struct nb_err err = {0};
    if (!importance) die("reference", "no memory");
    for (int64_t j = 0; stats && j < w->cols; j++)
        importance[j] = (float)(stats->h[j * w->cols + j] / (double)stats->n_tokens);
    for (int64_t r = 0; r < w->rows; r++) {
        if (nb_block_encode(type, w->data + r * w->ld, stats ? importance : NULL, w->cols,
                            out + (size_t)r * nb_block_row_bytes(type, w->cols), &err))
            die("reference", err.text);
    }
    nb_free(importance);
}

int main(int argc, char **argv)
{
    if (argc < 6) return fprintf(stderr, "usage: %s TYPE EFFORT THREADS OUT FILE...\n", argv[0]), 2;
    const struct nb_block_type *type = nb_block_find(argv[1]);
    struct nb_err err = {0};
    struct nb_pool *pool = nb_pool_new((int)strtol(argv[3], NULL, 10), &err);
    struct nb_backend *be = NULL;
    if (!type || !pool || nb_backend_new(&be, pool, NULL, &err)) die(argv[1], err.text);
    struct nb_solve_opts o = {0};
    nb_solve_opts_effort(&o, !strcmp(argv[2], "fast")     ? NB_EFFORT_FAST
                             : !strcmp(argv[2], "normal") ? NB_EFFORT_NORMAL
                                                          : NB_EFFORT_BEST);
    if (getenv("LAB_SWEEPS")) o.cd_sweeps = (int)strtol(getenv("LAB_SWEEPS"), NULL, 10);
    if (getenv("LAB_TRIALS")) o.scale_trials = (int)strtol(getenv("LAB_TRIALS"), NULL, 10);
    if (getenv("LAB_REFIT")) o.refit = strtol(getenv("LAB_REFIT"), NULL, 10);
    if (getenv("LAB_RESTARTS")) o.restarts = (int)strtol(getenv("LAB_RESTARTS"), NULL, 10);
    if (getenv("LAB_BEAM")) o.beam = (int)strtol(getenv("LAB_BEAM"), NULL, 10);
    if (getenv("LAB_ALPHA")) o.gptaq_alpha = strtod(getenv("LAB_ALPHA"), NULL);
    if (getenv("LAB_DAMP")) o.damp = strtod(getenv("LAB_DAMP"), NULL);
    double log_sum = 0, loss = 0, reference = 0, cpu_sum = 0;
    for (int i = 5; i < argc; i++) {
        struct nb_fmat w;
        struct nb_stats stats;
        struct nb_solve_report r;
        read_matrix(argv[i], &w, &stats);
        unsigned char *out = nb_alloc((size_t)w.rows, nb_block_row_bytes(type, w.cols));
        const struct nb_solve_job job = {&w, &stats, &o, be};
        const double cpu = seconds(CLOCK_PROCESS_CPUTIME_ID);
        if (!out || nb_block_solve(type, &job, out, &r, &err)) die(argv[i], err.text);
        const double took = seconds(CLOCK_PROCESS_CPUTIME_ID) - cpu;
        if (getenv("LAB_VERBOSE"))
            printf("%-44s %8.5f %8.5f ratio %6.4f %6.2f s\n", argv[i], r.loss / r.loss_zero,
                   r.loss_rtn / r.loss_zero, r.loss / r.loss_rtn, took);
        loss += r.loss / r.loss_zero;
        reference += r.loss_rtn / r.loss_zero;
        log_sum += r.loss / r.loss_rtn;
        cpu_sum += took;
        if (strcmp(argv[4], "-"))
            write_decoded(argv[4], argv[i], "q", &(struct nb_blocks){type, out}, &w);
        if (strcmp(argv[4], "-")) {
            encode_reference(type, &w, getenv("LAB_PLAIN") ? NULL : &stats, out);
            write_decoded(argv[4], argv[i], "ref", &(struct nb_blocks){type, out}, &w);
        }
        nb_free(out);
        nb_free(w.data);
        nb_stats_release(&stats);
    }
    printf("%-7s %-7s relative loss %.6f reference %.6f ratio %.4f mean ratio %.4f, %.2f s cpu\n",
           argv[1], argv[2], loss / (argc - 5), reference / (argc - 5), loss / reference,
           log_sum / (argc - 5), cpu_sum);
    nb_backend_free(be);
    nb_pool_free(pool);
    return 0;
}

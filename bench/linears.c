/* SPDX-License-Identifier: Apache-2.0
 *
 * linears.c - how fast linears multiply, by weight and activation numbers, as CSV: numbers, rows of x, N, K, giga
 * multiply-adds and GB of packed weight per second of CPU time (times the threads), and the share of the ceiling:
 * for many rows of x the rate of the tile on operands in the first cache, for one row the rate at which as many
 * threads read memory. Ceilings are measured in the same run and come first. The weights of a line are many enough
 * to exceed the caches.
 *
 *   bench-linears [THREADS [N K]]      (default: 1 thread, 4096 4096) */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "backend/backend.h"
#include "backend/cpu/features.h"
#include "backend/cpu/ops.h"
#include "base/mem.h"
#include "base/rng.h"
#include "numeric/elems.h"

enum { PREFILL = 512, TILE_K = 256, TIME_MS = 400, TILES = 20000 };

struct bench {
    struct nb_pool *pool;
    struct nb_backend *be;
    struct nb_cpu_ops ops;
    int threads;
    int64_t n, k;
    float *x, *y;
    double f32, bf16, i8, read; /* ceilings: MACs/s, bytes/s, of all threads */
};

/* Seconds that a thread has worked on average: what else the machine does counts little. */
static double now(const struct bench *b)
{
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return ((double)t.tv_sec + 1e-9 * (double)t.tv_nsec) / b->threads;
}

static void *must(void *p)
{
    if (!p) {
        fputs("bench-linears: out of memory\n", stderr);
        exit(1);
    }
    return p;
}

/* ---- ceilings ---- */

static void tile_piece(void *ctx, size_t piece, int thread)
{
    (void)piece;
    (void)thread;
    const struct nb_tile_f32 *t = ctx;
    struct nb_cpu_ops ops;
    nb_cpu_ops_init(&ops, nb_cpu_detect());
    float *c = must(nb_calloc(NB_TILE_MAX_MR * NB_TILE_MAX_NR, sizeof *c));
    struct nb_tile_f32 mine = *t;
    const nb_tile_f32_fn fn = t->ldc == 1   ? ops.tile_i8
                              : t->ldc == 2 ? ops.tile_bf16
                                            : ops.tile_f32;
    mine.c = c;
    mine.ldc = ops.nr;
    for (int i = 0; i < TILES; i++) fn(&mine);
    nb_free(c);
}

/* MACs per second of a tile; which: 0 f32, 1 int8, 2 bf16. */
static double tile_rate(struct bench *b, int which)
{
    const struct nb_cpu_ops *ops = &b->ops;
    if (which == 2 && !ops->tile_bf16) return 0;
    float *a = must(nb_calloc((size_t)(TILE_K * ops->mr), sizeof *a));
    float *w = must(nb_calloc((size_t)(TILE_K * ops->nr), sizeof *w));
    struct nb_tile_f32 t = {
        .k = TILE_K, .a = a, .lda = ops->mr, .b = w, .ldb = ops->nr, .ldc = which, .rows = ops->mr};
    const int per = which == 0 ? 1 : which == 1 ? ops->code_k : 2;
    double best = 0;
    for (int i = 0; i < 3; i++) {
        const double start = now(b);
        nb_pool_run(b->pool, (size_t)b->threads, tile_piece, &t);
        const double macs = (double)TILES * TILE_K * per * ops->mr * ops->nr * b->threads;
        const double rate = macs / (now(b) - start);
        best = rate > best ? rate : best;
    }
    nb_free(a);
    nb_free(w);
    return best;
}

enum { READ_BYTES = 256 << 20, READ_PIECE = 1 << 20 };

static void read_piece(void *ctx, size_t piece, int thread)
{
    (void)thread;
    uint64_t *const *both = ctx;
    const uint64_t *p = both[0] + piece * (READ_PIECE / 8);
    uint64_t sums[8] = {0};
    for (int i = 0; i < READ_PIECE / 8; i += 8) {
        for (int j = 0; j < 8; j++) sums[j] += p[i + j];
    }
    for (int j = 1; j < 8; j++) sums[0] += sums[j];
    both[1][piece] = sums[0];
}

static double read_rate(struct bench *b)
{
    uint64_t *both[2] = {must(nb_alloc(READ_BYTES, 1)),
                         must(nb_calloc(READ_BYTES / READ_PIECE, 8))};
    memset(both[0], 1, READ_BYTES);
    double best = 0;
    for (int i = 0; i < 4; i++) {
        const double start = now(b);
        nb_pool_run(b->pool, READ_BYTES / READ_PIECE, read_piece, both);
        const double rate = READ_BYTES / (now(b) - start);
        best = rate > best ? rate : best;
    }
    nb_free(both[0]);
    nb_free(both[1]);
    return best;
}

/* ---- linears ---- */

struct numbers {
    const char *name;
    struct nb_qspec spec; /* elem.bits 0: dense f32 */
    bool bf16;
};

struct weight {
    struct nb_linear *lin; /* enough of them to exceed the caches */
    int count;
    double bytes; /* of one, packed */
};

static int init_dense(struct bench *b, struct nb_rng *rng, struct nb_linear *lin)
{
    struct nb_err err;
    float *w = must(nb_alloc((size_t)(b->n * b->k), sizeof *w));
    for (int64_t i = 0; i < b->n * b->k; i++) w[i] = (float)nb_rng_below(rng, 1000) * 1e-4f - 0.05f;
    const struct nb_fmat matrix = {.data = w, .rows = b->n, .cols = b->k, .ld = b->k};
    return nb_linear_init_f32(lin, b->be, "bench", &matrix, NULL,
                              &err); /* w leaks: it is borrowed */
}

static int init_quantized(struct bench *b, struct nb_rng *rng, const struct nb_qspec *spec,
                          struct nb_linear *lin)
{
    struct nb_err err;
    struct nb_qmat q;
    struct nb_arena arena;
    nb_arena_init(&arena);
    struct nb_weight w = {.name = "bench", .rows = b->n, .cols = b->k, .q = &q};
    int rc = nb_qmat_init(&q, spec, b->n, b->k, &arena, &err);
    if (!rc) {
        q.input_scale = 0.03f;
        for (int64_t i = 0; i < b->n * b->k; i++)
            q.codes[i] = (uint8_t)(nb_rng_below(rng, 1u << spec->elem.bits) & 0xf7);
        for (int64_t i = 0; i < nb_qmat_planes(&q); i++) q.scale.value[i] = 1e-4f;
        for (int64_t i = 0; q.zero.value && i < nb_qmat_planes(&q); i++)
            q.zero.value[i] = (float)(1 << (spec->elem.bits - 1));
        rc = nb_linear_init(lin, b->be, &w, &err);
    }
    nb_arena_release(&arena);
    if (rc) fprintf(stderr, "bench-linears: %s\n", err.text);
    return rc;
}

static struct weight make_weight(struct bench *b, const struct numbers *of)
{
    struct nb_rng rng;
    nb_rng_init(&rng, 1);
    const int bits = of->spec.elem.bits ? of->spec.elem.bits : 32;
    struct weight w = {.bytes = (double)b->n * (double)b->k * bits / 8};
    w.count = (int)(128e6 / w.bytes) + 1;
    w.lin = must(nb_calloc((size_t)w.count, sizeof *w.lin));
    for (int i = 0; i < w.count; i++) {
        if (of->spec.elem.bits ? init_quantized(b, &rng, &of->spec, &w.lin[i])
                               : init_dense(b, &rng, &w.lin[i]))
            exit(1);
    }
    return w;
}

static void measure(struct bench *b, const struct numbers *of, struct weight *w, int64_t m)
{
    const double macs = (double)m * (double)b->n * (double)b->k;
    double best = 0;
    for (int repeat = 0; repeat < 3; repeat++) {
        const double start = now(b);
        double spent = 0;
        int runs = 0;
        for (; spent < TIME_MS / 1e3; spent = now(b) - start, runs++) {
            const struct nb_linear_out out = {&w->lin[runs % w->count], b->y, b->n};
            nb_linear_run(b->be, &out, b->x, m, b->k);
        }
        best = runs / spent > best ? runs / spent : best;
    }
    const bool codes = !strcmp(nb_linear_kernel_name(w->lin), "int8");
    const double tile = codes ? b->i8 : of->bf16 ? b->bf16 : b->f32;
    const double ceiling = m == 1 ? b->read / w->bytes : tile / macs;
    printf("%s,%d,%d,%d,%.1f,%.2f,%.2f\n", of->name, (int)m, (int)b->n, (int)b->k,
           best * macs / 1e9, best * w->bytes / 1e9, best / ceiling);
    fflush(stdout);
}

static void measure_all(struct bench *b)
{
    const struct nb_elem int8 = {.kind = NB_ELEM_INT, .bits = 8, .vec = 1},
                         int4 = {.kind = NB_ELEM_INT, .bits = 4, .vec = 1};
    const struct numbers all[] = {
        {.name = "f32"},
        {.name = "bf16", .bf16 = true},
        {.name = "w8a8", .spec = {.elem = int8, .zero = NB_ZERO_CODE, .act = NB_ACT_INT8_TOKEN}},
        {.name = "w8a8 static",
         .spec = {.elem = int8, .zero = NB_ZERO_CODE, .act = NB_ACT_INT8_STATIC}},
        {.name = "llm.int8",
         .spec =
             {.elem = int8, .zero = NB_ZERO_CODE, .act = NB_ACT_INT8_OUTLIER, .act_threshold = 6}},
        {.name = "w8a8 g128",
         .spec = {.elem = int8, .group_cols = 128, .zero = NB_ZERO_CODE, .act = NB_ACT_INT8_TOKEN}},
        {.name = "w4a8 g128",
         .spec = {.elem = int4, .group_cols = 128, .zero = NB_ZERO_CODE, .act = NB_ACT_INT8_TOKEN}},
        {.name = "w8a16", .spec = {.elem = int8, .zero = NB_ZERO_CODE}},
        {.name = "w4a16 g128", .spec = {.elem = int4, .group_cols = 128, .zero = NB_ZERO_CODE}},
        {.name = "nf4", .spec = {.elem = nb_elem_nf4, .group_cols = 64, .flat = true}},
        {.name = "fp8 weights", .spec = {.elem = nb_elem_e4m3}},
        {.name = "fp8", .spec = {.elem = nb_elem_e4m3, .act = NB_ACT_FP8_TOKEN}},
        {.name = "nvfp4", .spec = {.elem = nb_elem_e2m1, .group_cols = 16, .act = NB_ACT_NVFP4}},
    };
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        if (all[i].bf16 && !nb_backend_has_bf16(b->be)) continue;
        struct numbers of = all[i];
        of.spec.scale_dtype = NB_F32;
        struct weight w = make_weight(b, &of);
        if (of.bf16) nb_backend_set_precision(b->be, NB_PRECISION_BF16);
        measure(b, &of, &w, PREFILL);
        if (!of.bf16) measure(b, &of, &w, 1);
        nb_backend_set_precision(b->be, NB_PRECISION_F32);
        for (int j = 0; j < w.count; j++) {
            if (!of.spec.elem.bits) nb_free((void *)w.lin[j].w.dense.data.data);
            nb_linear_release(&w.lin[j]);
        }
        nb_free(w.lin);
    }
}

static int64_t number(int argc, char **argv, int i, int64_t otherwise)
{
    if (i >= argc) return otherwise;
    char *end;
    const long long v = strtoll(argv[i], &end, 10);
    return *end || v < 1 || v > 1 << 20 ? 0 : v;
}

int main(int argc, char **argv)
{
    struct nb_err err;
    struct bench b = {.threads = (int)number(argc, argv, 1, 1),
                      .n = number(argc, argv, 2, 4096),
                      .k = number(argc, argv, 3, 4096)};
    if (!b.threads || !b.n || !b.k || argc == 3 || argc > 4) {
        fputs("usage: bench-linears [THREADS [N K]]\n", stderr);
        return 2;
    }
    struct nb_rng rng;
    nb_rng_init(&rng, 2);
    b.pool = must(nb_pool_new(b.threads, &err));
    if (nb_backend_new(&b.be, b.pool, NULL, &err)) {
        fprintf(stderr, "bench-linears: %s\n", err.text);
        return 1;
    }
    nb_cpu_ops_init(&b.ops, nb_cpu_detect());
    b.x = must(nb_alloc((size_t)(PREFILL * b.k), sizeof *b.x));
    b.y = must(nb_alloc((size_t)(PREFILL * b.n), sizeof *b.y));
    for (int64_t i = 0; i < PREFILL * b.k; i++) b.x[i] = (float)nb_rng_normal(&rng);
    for (int64_t i = 0; i < PREFILL; i++) b.x[i * b.k + b.k / 2] *= 8; /* an outlier column */
    b.f32 = tile_rate(&b, 0);
    b.i8 = tile_rate(&b, 1);
    b.bf16 = tile_rate(&b, 2);
    b.read = read_rate(&b);
    printf("# ceilings of %d threads: f32 %.1f, bf16 %.1f, int8 %.1f GMAC/s; memory %.1f GB/s\n",
           b.threads, b.f32 / 1e9, b.bf16 / 1e9, b.i8 / 1e9, b.read / 1e9);
    puts("numbers,m,n,k,gmac_per_s,weight_gb_per_s,share_of_ceiling");
    measure_all(&b);
    nb_free(b.x);
    nb_free(b.y);
    nb_backend_free(b.be);
    nb_pool_free(b.pool);
    return 0;
}

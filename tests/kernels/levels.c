/* SPDX-License-Identifier: Apache-2.0
 *
 * levels.c - see levels.h. */
#include "levels.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmocka.h>

#include "backend/cpu/features.h"

enum { GUARD = 64 };

int levels_get(struct level out[MAX_LEVELS])
{
    static const char *const names[] = {"generic", "avx2", "avx512",
                                        ""}; /* last: all this machine has */
    int n = 0;
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        unsigned features;
        struct nb_err err;
        if (nb_cpu_choose(&features, names[i], &err)) continue;
        memset(&out[n], 0, sizeof out[n]);
        out[n].name = names[i];
        nb_cpu_ops_init(&out[n].ops, features);
        n++;
    }
    return n;
}

static size_t mapping_bytes(size_t n)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    return (n * sizeof(float) + GUARD + page - 1) / page * page + page;
}

float *guarded_new(size_t n)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE), bytes = mapping_bytes(n);
    unsigned char *base =
        mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    assert_true(base != MAP_FAILED);
    assert_int_equal(mprotect(base + bytes - page, page, PROT_NONE), 0);
    unsigned char *p = base + bytes - page - n * sizeof(float);
    memset(p - GUARD, 0xa5, GUARD);
    return (float *)(void *)p;
}

void guarded_check(const float *p, size_t n)
{
    (void)n;
    const unsigned char *guard = (const unsigned char *)p - GUARD;
    for (int i = 0; i < GUARD; i++) assert_int_equal(guard[i], 0xa5);
}

void guarded_free(float *p, size_t n)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE), bytes = mapping_bytes(n);
    munmap((unsigned char *)p + n * sizeof(float) + page - bytes, bytes);
}

void fill_normal(struct nb_rng *rng, float *x, size_t n, float scale)
{
    for (size_t i = 0; i < n; i++) x[i] = (float)nb_rng_normal(rng) * scale;
}

void store_as(void *dst, float *x, enum nb_dtype type, size_t n)
{
    for (size_t i = 0; i < n; i++) x[i] = nb_round_to(x[i], type);
    assert_true(nb_from_f32(dst, x, type, n));
}

/* SPDX-License-Identifier: Apache-2.0
 *
 * rotate.c - randomized Hadamard rotations x R of any size k 2^n for which a Hadamard matrix of size k is known.
 *
 * R = diag(random signs) H / sqrt(n). H is the Kronecker product of a small matrix, from squares modulo a prime
 * (Paley's two constructions), and Sylvester's of size 2^n, which is applied by butterflies. A rotation spreads a
 * large weight or input over all columns, so that groups have no outliers.
 *
 * Source: algorithms, section 10.7; R. Paley, On orthogonal matrices, 1933. */
#include <inttypes.h>
#include <math.h>
#include <string.h>

#include "base/rng.h"
#include "quant/quant.h"

enum { LARGEST_BASE = 1024 };

static bool is_prime(int64_t q)
{
    if (q < 3 || q % 2 == 0) return false;
    for (int64_t d = 3; d * d <= q; d += 2) {
        if (q % d == 0) return false;
    }
    return true;
}

/* The prime that gives a matrix of this size: size - 1 (first construction), size / 2 - 1 (second); 0: none. */
static int64_t prime_for(int64_t size)
{
    if (size % 4) return 0;
    if (is_prime(size - 1)) return size - 1;
    const int64_t q = size / 2 - 1;
    return q % 4 == 1 && is_prime(q) ? q : 0;
}

/* Smallest size of a known matrix that leaves a power of two; 0: none. */
static int64_t base_of(int64_t n)
{
    int64_t odd = n;
    while (odd % 2 == 0) odd /= 2;
    if (odd == 1) return 1;
    for (int64_t base = 4 * odd; base <= n && base <= LARGEST_BASE; base *= 2) {
        if (n % base == 0 && prime_for(base)) return base;
    }
    return 0;
}

/* out [q]: 1 for squares modulo q, -1 for the others, 0 for 0. */
static void squares(int64_t q, double *out)
{
    out[0] = 0.0;
    for (int64_t i = 1; i < q; i++) out[i] = -1.0;
    for (int64_t i = 1; i < q; i++) out[i * i % q] = 1.0;
}

/* Entry (i, j) of the matrix bordered by ones around chi(i - j). */
static double bordered(const double *chi, int64_t q, int64_t i, int64_t j)
{
    if (i == 0 || j == 0) return i == j ? 0.0 : i == 0 || q % 4 == 1 ? 1.0 : -1.0;
    return chi[(i - j + q) % q];
}

static void paley(const double *chi, int64_t q, int64_t size, double *h)
{
    static const double around[2][2] = {{1, 1}, {1, -1}}, diagonal[2][2] = {{1, -1}, {-1, -1}};
    const bool first = size == q + 1;
    for (int64_t i = 0; i < size; i++) {
        for (int64_t j = 0; j < size; j++) {
            const int64_t a = first ? i : i / 2, b = first ? j : j / 2;
            const double c = bordered(chi, q, a, b);
            if (first) h[i * size + j] = c + (i == j ? 1.0 : 0.0);
            else h[i * size + j] = a == b ? diagonal[i % 2][j % 2] : c * around[i % 2][j % 2];
        }
    }
}

int nb_rotation_init(struct nb_rotation *r, int64_t n, uint64_t seed, struct nb_err *err)
{
    *r = (struct nb_rotation){.n = n, .base = n > 0 ? base_of(n) : 0};
    if (!r->base)
        return nb_fail(err, NB_E_SPEC, "no Hadamard matrix of size %" PRId64 " is known here", n);
    const size_t base = (size_t)r->base;
    const int64_t q = prime_for(r->base);
    double *chi = nb_alloc(base, sizeof *chi);
    r->h = nb_alloc(base * base, sizeof *r->h);
    r->sign = nb_alloc((size_t)n, sizeof *r->sign);
    if (!chi || !r->h || !r->sign) {
        nb_free(chi);
        nb_rotation_release(r);
        return nb_fail(err, NB_E_NOMEM, "no memory for a rotation of %" PRId64 " columns", n);
    }
    r->h[0] = 1.0;
    if (base > 1) {
        squares(q, chi);
        paley(chi, q, r->base, r->h);
    }
    nb_free(chi);
    struct nb_rng rng;
    nb_rng_init(&rng, seed);
    const double unit = 1.0 / sqrt((double)n);
    for (int64_t i = 0; i < n; i++) r->sign[i] = nb_rng_below(&rng, 2) ? unit : -unit;
    return 0;
}

void nb_rotation_release(struct nb_rotation *r)
{
    nb_free(r->h);
    nb_free(r->sign);
    *r = (struct nb_rotation){0};
}

static void butterflies(double *x, int64_t n)
{
    for (int64_t half = 1; half < n; half *= 2) {
        for (int64_t i = 0; i < n; i += 2 * half) {
            for (int64_t j = i; j < i + half; j++) {
                const double a = x[j], b = x[j + half];
                x[j] = a + b;
                x[j + half] = a - b;
            }
        }
    }
}

void nb_rotation_apply(const struct nb_rotation *r, double *x, double *scratch)
{
    const int64_t part = r->n / r->base;
    for (int64_t i = 0; i < r->n; i++) x[i] *= r->sign[i];
    for (int64_t b = 0; b < r->base; b++) butterflies(x + b * part, part);
    if (r->base == 1) return;
    memcpy(scratch, x, (size_t)r->n * sizeof *x);
    for (int64_t a = 0; a < r->base; a++) {
        double *to = x + a * part;
        memset(to, 0, (size_t)part * sizeof *to);
        for (int64_t b = 0; b < r->base; b++) {
            const double h = r->h[b * r->base + a], *from = scratch + b * part;
            for (int64_t i = 0; i < part; i++) to[i] += h * from[i];
        }
    }
}

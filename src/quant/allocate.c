/* SPDX-License-Identifier: Apache-2.0
 *
 * allocate.c - one choice per unit so that the losses add up to little and the bytes fit: the multiple-choice
 * knapsack, by dynamic programming over bytes.
 *
 * Bytes are counted above each unit's smallest choice, in their greatest common divisor. When that makes too
 * many levels they are counted in a coarser step, rounded up, so that the result still fits; single moves then use
 * up what rounding left. In either case the result is compared with every choice that is the same for all
 * units, so it is never worse than those. Sums run in the order of the units: the same on every machine.
 * Knows nothing of schemes or models. */
#include "quant/quant.h"

#include <inttypes.h>
#include <math.h>
#include <string.h>

#include "base/mem.h"

enum { MAX_CELLS = 1 << 26, MAX_CHOICES = 255 };

struct problem {
    const struct nb_allocation *a;
    uint64_t *least;   /* [n_units] bytes of the smallest choice */
    uint64_t base;     /* their sum */
    uint64_t step;     /* bytes of a level */
    bool exact;        /* every cost is whole steps */
    size_t n_levels;   /* 0 .. n_levels - 1 steps above base */
    double *best;      /* [n_levels] least loss of the units so far within so many steps */
    double *next;      /* [n_levels] */
    unsigned char *by; /* [n_units * n_levels] the choice made there */
};

static bool possible(const struct nb_allocation *a, size_t u, size_t c)
{
    return isfinite(a->loss[u * a->n_choices + c]);
}

static uint64_t gcd(uint64_t a, uint64_t b)
{
    while (b) {
        const uint64_t r = a % b;
        a = b;
        b = r;
    }
    return a;
}

/* Smallest and largest totals and the common divisor of what lies between. */
static int measure(struct problem *p, uint64_t *range, struct nb_err *err)
{
    const struct nb_allocation *a = p->a;
    uint64_t step = 0;
    *range = p->base = 0;
    for (size_t u = 0; u < a->n_units; u++) {
        uint64_t lo = UINT64_MAX, hi = 0;
        for (size_t c = 0; c < a->n_choices; c++) {
            const uint64_t b = a->bytes[u * a->n_choices + c];
            if (!possible(a, u, c)) continue;
            if (b < lo) lo = b;
            if (b > hi) hi = b;
        }
        if (lo == UINT64_MAX) return nb_fail(err, NB_E_SPEC, "unit %zu has no possible choice", u);
        for (size_t c = 0; c < a->n_choices; c++) {
            if (possible(a, u, c)) step = gcd(step, a->bytes[u * a->n_choices + c] - lo);
        }
        p->least[u] = lo;
        p->base += lo;
        *range += hi - lo;
    }
    p->step = step ? step : 1;
    return 0;
}

static int problem_init(struct problem *p, const struct nb_allocation *a, struct nb_err *err)
{
    memset(p, 0, sizeof *p);
    p->a = a;
    if (!a->n_units || !a->n_choices || a->n_choices > MAX_CHOICES)
        return nb_fail(err, NB_E_SPEC, "%zu units with %zu choices each cannot be allocated",
                       a->n_units, a->n_choices);
    p->least = nb_calloc(a->n_units, sizeof *p->least);
    if (!p->least) return nb_fail(err, NB_E_NOMEM, "no memory for %zu units", a->n_units);
    uint64_t range;
    int rc = measure(p, &range, err);
    if (rc) return rc;
    const uint64_t most = MAX_CELLS / a->n_units;
    p->exact = range / p->step < most;
    if (!p->exact) p->step = range / (most > 1 ? most - 1 : 1) + 1;
    p->n_levels = (size_t)(range / p->step) + 1 + (p->exact ? 0 : a->n_units);
    p->best = nb_calloc(p->n_levels, sizeof *p->best);
    p->next = nb_calloc(p->n_levels, sizeof *p->next);
    p->by = nb_calloc(a->n_units, p->n_levels);
    if (p->best && p->next && p->by) return 0;
    return nb_fail(err, NB_E_NOMEM, "no memory for %zu levels of %zu units", p->n_levels,
                   a->n_units);
}

static void problem_release(struct problem *p)
{
    nb_free(p->least);
    nb_free(p->best);
    nb_free(p->next);
    nb_free(p->by);
}

static size_t steps_of(const struct problem *p, size_t u, size_t c)
{
    const uint64_t over = p->a->bytes[u * p->a->n_choices + c] - p->least[u];
    return (size_t)((over + p->step - 1) / p->step);
}

/* best[s] after all units: the least loss of any assignment within s steps. */
static void fill(struct problem *p)
{
    const struct nb_allocation *a = p->a;
    for (size_t u = 0; u < a->n_units; u++) {
        unsigned char *by = p->by + u * p->n_levels;
        for (size_t s = 0; s < p->n_levels; s++) p->next[s] = INFINITY;
        for (size_t c = 0; c < a->n_choices; c++) {
            if (!possible(a, u, c)) continue;
            const size_t cost = steps_of(p, u, c);
            const double loss = a->loss[u * a->n_choices + c];
            for (size_t s = cost; s < p->n_levels; s++) {
                const double sum = p->best[s - cost] + loss;
                if (sum < p->next[s]) {
                    p->next[s] = sum;
                    by[s] = (unsigned char)c;
                }
            }
        }
        double *swap = p->best;
        p->best = p->next;
        p->next = swap;
    }
}

static void trace(const struct problem *p, size_t level, int *pick)
{
    for (size_t u = p->a->n_units; u-- > 0;) {
        pick[u] = p->by[u * p->n_levels + level];
        level -= steps_of(p, u, (size_t)pick[u]);
    }
}

struct nb_allocation_total nb_allocation_total(const struct nb_allocation *a, const int *pick)
{
    struct nb_allocation_total t = {0, 0};
    for (size_t u = 0; u < a->n_units; u++) {
        t.loss += a->loss[u * a->n_choices + (size_t)pick[u]];
        t.bytes += a->bytes[u * a->n_choices + (size_t)pick[u]];
    }
    return t;
}

/* The move of one unit that lowers the loss most and still fits; false: there is none. */
static bool improve(const struct nb_allocation *a, int *pick, uint64_t budget)
{
    const uint64_t bytes = nb_allocation_total(a, pick).bytes;
    double gain = 0;
    size_t unit = 0, choice = 0;
    for (size_t u = 0; u < a->n_units; u++) {
        const size_t now = u * a->n_choices + (size_t)pick[u];
        for (size_t c = 0; c < a->n_choices; c++) {
            const size_t to = u * a->n_choices + c;
            if (!possible(a, u, c) || bytes - a->bytes[now] + a->bytes[to] > budget) continue;
            if (a->loss[now] - a->loss[to] <= gain) continue;
            gain = a->loss[now] - a->loss[to];
            unit = u;
            choice = c;
        }
    }
    if (gain > 0) pick[unit] = (int)choice;
    return gain > 0;
}

/* Choice c for every unit that can have it, and pick's for the others. */
static void uniform(const struct nb_allocation *a, size_t c, const int *pick, int *out)
{
    for (size_t u = 0; u < a->n_units; u++) out[u] = possible(a, u, c) ? (int)c : pick[u];
}

/* A uniform choice takes over where it is better by the measure; limit is on the other one. */
static int compare_uniform(const struct nb_allocation *a, int *pick, bool by_bytes, double limit,
                           struct nb_err *err)
{
    int *other = nb_calloc(a->n_units, sizeof *other);
    if (!other) return nb_fail(err, NB_E_NOMEM, "no memory for %zu units", a->n_units);
    for (size_t c = 0; c < a->n_choices; c++) {
        uniform(a, c, pick, other);
        const struct nb_allocation_total now = nb_allocation_total(a, pick),
                                         t = nb_allocation_total(a, other);
        const bool better = by_bytes ? t.loss <= limit && t.bytes < now.bytes
                                     : (double)t.bytes <= limit && t.loss < now.loss;
        if (better) memcpy(pick, other, a->n_units * sizeof *pick);
    }
    nb_free(other);
    return 0;
}

int nb_allocate_bytes(const struct nb_allocation *a, uint64_t budget, int *pick, struct nb_err *err)
{
    struct problem p;
    int rc = problem_init(&p, a, err);
    if (!rc && budget < p.base) {
        rc = nb_fail(err, NB_E_SPEC,
                     "%" PRIu64 " bytes are not enough, the smallest choices take %" PRIu64, budget,
                     p.base);
    }
    if (!rc) {
        fill(&p);
        const uint64_t steps = (budget - p.base) / p.step;
        trace(&p, steps < p.n_levels ? (size_t)steps : p.n_levels - 1, pick);
        for (size_t i = 0; i < 4 * a->n_units && improve(a, pick, budget);) i++;
        rc = compare_uniform(a, pick, false, (double)budget, err);
    }
    problem_release(&p);
    return rc;
}

int nb_allocate_loss(const struct nb_allocation *a, double limit, int *pick, struct nb_err *err)
{
    struct problem p;
    int rc = problem_init(&p, a, err);
    if (!rc) {
        fill(&p);
        size_t s = 0;
        while (s < p.n_levels && !(p.best[s] <= limit)) s++;
        if (s == p.n_levels) {
            rc = nb_fail(err, NB_E_SPEC, "a loss of %g is not reached, the least is %g", limit,
                         p.best[p.n_levels - 1]);
        } else {
            trace(&p, s, pick);
            rc = compare_uniform(a, pick, true, limit, err);
        }
    }
    problem_release(&p);
    return rc;
}

/* SPDX-License-Identifier: Apache-2.0
 *
 * decide.c - pass, fail or undecided: intervals against tolerances, never a point estimate alone.
 *
 * Source: evaluation, section 1. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "eval/eval.h"

/* Normal quantile: kld and agreement come with a standard error over many positions. */
static const double z975 = 1.959963984540054;

struct check {
    const char *what;
    double value, lo, hi; /* 95 % interval */
    double limit;
    bool at_least; /* limit is a lower bound */
};

static enum nb_verdict judge(const struct check *c)
{
    if (!isfinite(c->value)) return NB_VERDICT_FAIL;
    if (!isfinite(c->lo) || !isfinite(c->hi)) return NB_VERDICT_UNDECIDED;
    if (c->at_least)
        return c->lo >= c->limit  ? NB_VERDICT_PASS
               : c->hi < c->limit ? NB_VERDICT_FAIL
                                  : NB_VERDICT_UNDECIDED;
    return c->hi <= c->limit  ? NB_VERDICT_PASS
           : c->lo > c->limit ? NB_VERDICT_FAIL
                              : NB_VERDICT_UNDECIDED;
}

static void describe(struct nb_eval_result *r, const struct check *c, enum nb_verdict v)
{
    const char *relation = c->at_least ? "at least" : "at most";
    if (v == NB_VERDICT_UNDECIDED && !isfinite(c->lo)) {
        snprintf(r->verdict_text, sizeof r->verdict_text,
                 "%s %.4f (%s %.4g asked): one window gives no interval", c->what, c->value,
                 relation, c->limit);
        return;
    }
    const char *state = v == NB_VERDICT_PASS   ? "inside"
                        : v == NB_VERDICT_FAIL ? "outside"
                                               : "too close to tell from";
    snprintf(r->verdict_text, sizeof r->verdict_text,
             "%s %.4f, 95 %% interval %.4f to %.4f, %s %s %.4g", c->what, c->value, c->lo, c->hi,
             state, relation, c->limit);
}

/* The worse verdict decides; SKIPPED < PASS < UNDECIDED < FAIL in rank. */
static int rank(enum nb_verdict v)
{
    static const int ranks[] = {[NB_VERDICT_SKIPPED] = 0,
                                [NB_VERDICT_PASS] = 1,
                                [NB_VERDICT_UNDECIDED] = 2,
                                [NB_VERDICT_FAIL] = 3};
    return ranks[v];
}

void nb_eval_decide(struct nb_eval_result *r, const struct nb_tolerance *tol)
{
    r->verdict = NB_VERDICT_SKIPPED;
    snprintf(r->verdict_text, sizeof r->verdict_text, "no tolerance was given");
    if (!r->has_compare) {
        snprintf(r->verdict_text, sizeof r->verdict_text, "nothing to compare with");
        return;
    }
    const struct nb_compare_result *c = &r->compare;
    double kld = z975 * c->kld_stderr, top = z975 * c->same_top_stderr;
    const struct check checks[] = {
        {"perplexity ratio", c->ppl_ratio, c->ppl_ratio_lo, c->ppl_ratio_hi, tol->ppl_ratio, false},
        {"mean KL divergence", c->kld_mean, c->kld_mean - kld, c->kld_mean + kld, tol->kld_mean,
         false},
        {"same top token", c->same_top, c->same_top - top, c->same_top + top, tol->same_top, true},
    };
    for (size_t i = 0; i < sizeof checks / sizeof *checks; i++) {
        if (isnan(checks[i].limit)) continue;
        enum nb_verdict v = judge(&checks[i]);
        if (rank(v) <= rank(r->verdict)) continue;
        r->verdict = v;
        describe(r, &checks[i], v);
    }
}

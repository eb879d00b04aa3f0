/* SPDX-License-Identifier: Apache-2.0
 *
 * gguf_rope.c - the rotary part of GGUF metadata -> rope_theta and rope_scaling.
 *
 * A GGUF holds the effect of Llama 3's scaling, one factor a frequency, not its four parameters. With
 * w the wavelength, a factor between 1 and the largest one means
 *
 *   s = (1/value - 1/factor) / (1 - 1/factor) = old / (high - low) / w - low / (high - low)
 *
 * a straight line in 1/w, from which old and high follow when low is 1: multiplying all three by one
 * number changes nothing. What is found is accepted if it gives the file's factors again. */
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "arch/family.h"
#include "arch/gguf.h"
#include "arch/gguf_read.h"
#include "base/mem.h"

/* ---- Llama 3's parameters from its factors ---- */

static bool gives(const struct nb_rope *r, const float *freqs, int64_t n)
{
    float *own = nb_alloc((size_t)n, sizeof *own);
    bool same = own != NULL;
    if (own) nb_rope_llama3_factors(r, 2 * n, own);
    for (int64_t i = 0; i < n && same; i++)
        same = fabs((double)own[i] - (double)freqs[i]) <= 1e-4 * fabs((double)freqs[i]);
    nb_free(own);
    return same;
}

static double wavelength(double theta, int64_t i, int64_t n)
{
    return 6.28318530717958647692 * pow(theta, (double)i / (double)n);
}

/* With low 1 and high 4 and at most one factor in between: from that one, or anything that parts the
 * ones from the largest. */
static double guess_original(const float *freqs, int64_t n, double theta, double factor)
{
    int64_t i = 0;
    while (i < n && freqs[i] <= 1) i++;
    if (i == n) return 0;
    double v = (double)freqs[i], w = wavelength(theta, i, n);
    if (v < factor) return w * (3 * (1 / v - 1 / factor) / (1 - 1 / factor) + 1);
    return i ? 2 * sqrt(w * wavelength(theta, i - 1, n)) : w / 2;
}

/* Line through the factors in between; false with fewer than two of them. */
static bool fit_line(const float *freqs, int64_t n, double theta, double factor, double *slope,
                     double *offset)
{
    double sx = 0, sy = 0, sxx = 0, sxy = 0, count = 0;
    for (int64_t i = 0; i < n; i++) {
        double v = (double)freqs[i];
        if (v <= 1 || v >= factor) continue;
        double x = 1 / wavelength(theta, i, n);
        double y = (1 / v - 1 / factor) / (1 - 1 / factor);
        sx += x;
        sy += y;
        sxx += x * x;
        sxy += x * y;
        count++;
    }
    double spread = count * sxx - sx * sx;
    if (count < 2 || !(spread > 0)) return false;
    *slope = (count * sxy - sx * sy) / spread;
    *offset = (sy - *slope * sx) / count;
    return true;
}

bool nb_arch_gguf_find_llama3(const float *freqs, int64_t n, struct nb_rope *r)
{
    double slope, offset;
    r->kind = NB_ROPE_LLAMA3;
    r->low_freq_factor = 1;
    r->high_freq_factor = 4; /* as every released model has it */
    r->original_max_position = 8192;
    r->factor = 1;
    for (int64_t i = 0; i < n; i++) r->factor = fmax(r->factor, (double)freqs[i]);
    if (gives(r, freqs, n)) return true;
    if (!(r->factor > 1)) return false;
    if (!fit_line(freqs, n, r->theta, r->factor, &slope, &offset)) {
        double old = guess_original(freqs, n, r->theta, r->factor);
        r->original_max_position = old >= 1 && old < 0x1p31 ? (int64_t)llround(old) : 1;
        return gives(r, freqs, n);
    }
    if (!(offset < 0)) return false;
    double high = 1 - 1 / offset, old = slope * (high - 1);
    if (!(high > 1 && high < 1e6 && old >= 1 && old < 0x1p31)) return false;
    r->original_max_position = (int64_t)llround(old);
    r->high_freq_factor = round(high * 1024) / 1024;
    if (gives(r, freqs, n)) return true;
    r->high_freq_factor = high;
    return gives(r, freqs, n);
}

/* ---- metadata ---- */

static int read_freqs(const struct nb_arch_gguf_reading *in, double theta, json_t *config,
                      struct nb_err *err)
{
    const struct nb_arch_gguf_facts *f = in->facts;
    if (f->n_rope_freqs != in->head_dim / 2) {
        return nb_fail(err, NB_E_FORMAT,
                       NB_ARCH_GGUF_ROPE_FREQS " has %" PRId64 " values, expected %" PRId64,
                       f->n_rope_freqs, in->head_dim / 2);
    }
    bool ones = true;
    for (int64_t i = 0; i < f->n_rope_freqs; i++) {
        ones = ones && f->rope_freqs[i] == 1.0f;
        if (f->rope_freqs[i] >= 1e-3f && f->rope_freqs[i] <= 1e6f) continue;
        return nb_fail(err, NB_E_FORMAT,
                       NB_ARCH_GGUF_ROPE_FREQS "[%" PRId64 "]: expected a factor of ordinary size, "
                                               "found %g",
                       i, (double)f->rope_freqs[i]);
    }
    if (ones) return 0;
    struct nb_rope r = {.theta = theta};
    if (!nb_arch_gguf_find_llama3(f->rope_freqs, f->n_rope_freqs, &r)) {
        return nb_fail(err, NB_E_SPEC,
                       NB_ARCH_GGUF_ROPE_FREQS
                       ": these are not the factors of llama3 rope with base %g",
                       theta);
    }
    return nb_arch_gguf_put(
        config, "rope_scaling",
        json_pack("{s:s, s:f, s:f, s:f, s:I}", "rope_type", "llama3", "factor", r.factor,
                  "low_freq_factor", r.low_freq_factor, "high_freq_factor", r.high_freq_factor,
                  "original_max_position_embeddings", (json_int_t)r.original_max_position),
        err);
}

static int read_yarn(const struct nb_arch_gguf_reading *in, double factor, json_t *config,
                     struct nb_err *err)
{
    int64_t original = in->context;
    double fast = 32, slow = 1, ratio = 1, attention = 0, extrapolation = 1;
    int rc = nb_arch_gguf_get_size(in, "rope.scaling.original_context_length", false, UINT32_MAX,
                                   &original, err);
    if (!rc) rc = nb_arch_gguf_get_real(in, "rope.scaling.yarn_beta_fast", false, &fast, err);
    if (!rc) rc = nb_arch_gguf_get_real(in, "rope.scaling.yarn_beta_slow", false, &slow, err);
    if (!rc)
        rc = nb_arch_gguf_get_real(in, "rope.scaling.yarn_ext_factor", false, &extrapolation, err);
    if (!rc)
        rc = nb_arch_gguf_get_real(in, "rope.scaling.yarn_attn_factor", false, &attention, err);
    if (!rc) rc = nb_arch_gguf_get_real(in, "rope.scaling.attn_factor", false, &ratio, err);
    if (rc) return rc;
    if (extrapolation != 1 && extrapolation >= 0) {
        return nb_fail(err, NB_E_SPEC,
                       NB_ARCH_GGUF_META
                       ": key '%s.rope.scaling.yarn_ext_factor': only 1 is supported, "
                       "found %g",
                       in->map->architecture, extrapolation);
    }
    /* yarn_attn_factor is a config's attention_factor; attn_factor comes on top of the formula. */
    if (attention <= 0 && ratio != 1) attention = ratio * (factor <= 1 ? 1 : 0.1 * log(factor) + 1);
    json_t *dict = json_pack("{s:s, s:f, s:I, s:f, s:f}", "rope_type", "yarn", "factor", factor,
                             "original_max_position_embeddings", (json_int_t)original, "beta_fast",
                             fast, "beta_slow", slow);
    if (attention > 0 && json_object_set_new(dict, "attention_factor", json_real(attention))) {
        json_decref(dict);
        dict = NULL;
    }
    return nb_arch_gguf_put(config, "rope_scaling", dict, err);
}

static int read_scaling(const struct nb_arch_gguf_reading *in, json_t *config, struct nb_err *err)
{
    const char *type = "linear";
    double factor = 0;
    int rc = nb_arch_gguf_get_real(in, "rope.scale_linear", false, &factor, err);
    if (!rc) rc = nb_arch_gguf_get_real(in, "rope.scaling.factor", false, &factor, err);
    if (!rc) rc = nb_arch_gguf_get_string(in, "rope.scaling.type", false, &type, err);
    if (rc || strcmp(type, "none") == 0) return rc;
    if (factor == 0) factor = 1; /* as llama.cpp takes it */
    if (!(factor > 0 && factor < 1e15)) {
        return nb_fail(err, NB_E_FORMAT,
                       NB_ARCH_GGUF_META
                       ": key '%s.rope.scaling.factor': expected a positive number, "
                       "found %g",
                       in->map->architecture, factor);
    }
    if (strcmp(type, "yarn") == 0) return read_yarn(in, factor, config, err);
    if (strcmp(type, "linear") != 0) {
        return nb_fail(err, NB_E_SPEC,
                       NB_ARCH_GGUF_META
                       ": rope scaling type '%.40s' is not supported, expected one of: "
                       "none, linear, yarn",
                       type);
    }
    if (factor == 1) return 0;
    return nb_arch_gguf_put(config, "rope_scaling",
                            json_pack("{s:s, s:f}", "rope_type", "linear", "factor", factor), err);
}

/* A list of the factors, which divide as they stand. */
static json_t *factors_json(const float *v, int64_t n)
{
    json_t *list = json_array();
    for (int64_t i = 0; list && i < n; i++) {
        if (json_array_append_new(list, json_real(nb_arch_gguf_shortest((double)v[i])))) {
            json_decref(list);
            list = NULL;
        }
    }
    return list;
}

static int check_factors(const struct nb_arch_gguf_reading *in, const char *name, const float *v,
                         int64_t n, struct nb_err *err)
{
    if (!v || n != in->rotary_dim / 2) {
        return nb_fail(err, NB_E_FORMAT, "%s has %" PRId64 " values, expected %" PRId64, name, n,
                       in->rotary_dim / 2);
    }
    for (int64_t i = 0; i < n; i++) {
        if (v[i] >= 1e-3f && v[i] <= 1e6f) continue;
        return nb_fail(err, NB_E_FORMAT,
                       "%s[%" PRId64 "]: expected a factor of ordinary size, found %g", name, i,
                       (double)v[i]);
    }
    return 0;
}

/* llama.cpp takes the factors whenever they are there. The cos/sin multiplier is written down only where
 * it is not what the two lengths give. */
static int read_longrope(const struct nb_arch_gguf_reading *in, int64_t original, json_t *config,
                         struct nb_err *err)
{
    const struct nb_arch_gguf_facts *f = in->facts;
    double attention = 1;
    int rc = check_factors(in, NB_ARCH_GGUF_ROPE_SHORT, f->rope_short, f->n_rope_short, err);
    if (!rc) rc = check_factors(in, NB_ARCH_GGUF_ROPE_LONG, f->rope_long, f->n_rope_long, err);
    if (!rc) rc = nb_arch_gguf_get_real(in, "rope.scaling.attn_factor", false, &attention, err);
    if (rc) return rc;
    if (!(attention > 0 && attention < 1e15) || original < 2) {
        return nb_fail(err, NB_E_FORMAT,
                       NB_ARCH_GGUF_META ": longrope with attn_factor %g and an original context "
                                         "of %" PRId64 " tokens makes no sense",
                       attention, original);
    }
    const struct nb_rope r = {.factor = (double)in->context / (double)original,
                              .original_max_position = original};
    json_t *dict = json_pack("{s:s, s:s, s:o, s:o}", "type", "longrope", "rope_type", "longrope",
                             "short_factor", factors_json(f->rope_short, f->n_rope_short),
                             "long_factor", factors_json(f->rope_long, f->n_rope_long));
    bool usual = (float)nb_rope_longrope_scaling(&r) == (float)attention;
    if (!usual && dict && json_object_set_new(dict, "attention_factor", json_real(attention))) {
        json_decref(dict);
        dict = NULL;
    }
    return nb_arch_gguf_put(config, "rope_scaling", dict, err);
}

/* Of architectures that take longrope: the original length, and the factors where there are any. */
static int read_factors(const struct nb_arch_gguf_reading *in, json_t *config, struct nb_err *err)
{
    int64_t original = in->context;
    int rc = nb_arch_gguf_get_size(in, "rope.scaling.original_context_length", false, UINT32_MAX,
                                   &original, err);
    if (!rc) {
        rc = nb_arch_gguf_put(config, "original_max_position_embeddings", json_integer(original),
                              err);
    }
    bool any = in->facts->rope_short || in->facts->rope_long;
    return rc || !any ? rc : read_longrope(in, original, config, err);
}

int nb_arch_gguf_read_rope(const struct nb_arch_gguf_reading *in, json_t *config,
                           struct nb_err *err)
{
    double theta = 10000, local;
    int rc = nb_arch_gguf_get_real(in, "rope.freq_base", false, &theta, err);
    local = in->map->local_rope ? 10000 : theta;
    if (!rc) rc = nb_arch_gguf_get_real(in, "rope.freq_base_swa", false, &local, err);
    if (!rc) rc = nb_arch_gguf_put(config, "rope_theta", json_real(theta), err);
    if (!rc && in->map->local_rope)
        rc = nb_arch_gguf_put(config, "rope_local_base_freq", json_real(local), err);
    if (!rc && !in->map->local_rope && local != theta) {
        rc = nb_fail(err, NB_E_SPEC,
                     NB_ARCH_GGUF_META
                     ": key '%s.rope.freq_base_swa': another base than freq_base is not "
                     "supported",
                     in->map->architecture);
    }
    if (!rc && (in->facts->rope_short || in->facts->rope_long) && !in->map->rope_factors) {
        rc = nb_fail(err, NB_E_SPEC, NB_ARCH_GGUF_ROPE_SHORT " is not supported in architecture %s",
                     in->map->architecture);
    }
    if (!rc && in->map->rope_factors) rc = read_factors(in, config, err);
    if (!rc && !json_object_get(config, "rope_scaling")) rc = read_scaling(in, config, err);
    if (rc || !in->facts->rope_freqs) return rc;
    if (!in->map->rope_freqs || json_object_get(config, "rope_scaling")) {
        return nb_fail(err, NB_E_SPEC,
                       NB_ARCH_GGUF_ROPE_FREQS " is not supported beside other rope scaling or in "
                                               "architecture %s",
                       in->map->architecture);
    }
    return read_freqs(in, theta, config, err);
}

/* SPDX-License-Identifier: Apache-2.0
 *
 * rope.c - rotary position parameters: where configs keep them, and the frequencies they mean.
 *
 * Old configs hold rope_theta and rope_scaling side by side, new ones one rope_parameters; the kind
 * is called rope_type or, older, type. Precedence and defaults follow the reference (transformers
 * 5, modeling_rope_utils): a non-empty rope_scaling wins over rope_parameters, the dictionary's
 * rope_theta wins over the one beside it, and original_max_position_embeddings beside it wins over
 * the dictionary's. Where attention types have parameters of their own, rope_scaling belongs to full
 * attention and is laid over its dictionary key by key. */
#include <inttypes.h>
#include <math.h>
#include <string.h>

#include "arch/family.h"
#include "base/mem.h"

static const struct {
    const char *name;
    enum nb_rope_kind kind;
} kinds[] = {
    {"default", NB_ROPE_DEFAULT}, {"linear", NB_ROPE_LINEAR}, {"dynamic", NB_ROPE_DYNAMIC},
    {"llama3", NB_ROPE_LLAMA3},   {"yarn", NB_ROPE_YARN},     {"longrope", NB_ROPE_LONGROPE},
    {"su", NB_ROPE_LONGROPE},
};

static int bad(const char *key, const char *expected, double found, struct nb_err *err)
{
    return nb_fail(err, NB_E_FORMAT, NB_CONFIG ": rope parameter '%s': expected %s, found %g", key,
                   expected, found);
}

/* A real number above `above`, of a size that f32 steps survive; *out is left alone when the key is
 * absent and not required. */
static int get_above(const json_t *dict, const char *key, bool required, double above, double *out,
                     struct nb_err *err)
{
    double v = above + 1;
    const json_t *given = dict ? json_object_get(dict, key) : NULL;
    if (!given || json_is_null(given)) {
        if (required)
            return nb_fail(err, NB_E_FORMAT, NB_CONFIG ": rope parameter '%s' is missing", key);
        return 0;
    }
    int rc = nb_json_get_real(dict, key, true, &v, NB_CONFIG, err);
    if (rc) return rc;
    if (!(v > above && v > 1e-9 && v < 1e15))
        return bad(key, above > 0 ? "a number above 1" : "a positive number", v, err);
    *out = v;
    return 0;
}

static int find_dict(const json_t *config, const json_t **dict, struct nb_err *err)
{
    static const char *const places[] = {"rope_scaling", "rope_parameters"};
    *dict = NULL;
    for (int i = 0; i < 2; i++) {
        const json_t *v = json_object_get(config, places[i]);
        if (!v || json_is_null(v)) continue;
        if (!json_is_object(v)) {
            return nb_fail(err, NB_E_FORMAT, NB_CONFIG ": key '%s': expected an object, found %s",
                           places[i], nb_json_type_name(v));
        }
        if (json_object_size(v) == 0) continue;
        *dict = v;
        return 0;
    }
    return 0;
}

static int read_kind(struct nb_rope *r, const json_t *dict, struct nb_err *err)
{
    const char *name = "default";
    int rc = nb_json_get_string(dict, "type", false, &name, NB_CONFIG, err);
    if (!rc) rc = nb_json_get_string(dict, "rope_type", false, &name, NB_CONFIG, err);
    if (rc) return rc;
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        if (strcmp(kinds[i].name, name) == 0) {
            r->kind = kinds[i].kind;
            return 0;
        }
    }
    return nb_fail(
        err, NB_E_SPEC,
        NB_CONFIG
        ": rope_type '%.40s' is not known, expected one of: default, linear, dynamic, llama3, "
        "yarn, longrope",
        name);
}

static int refuse_partial(const json_t *dict, struct nb_err *err)
{
    double share = 1;
    if (!dict) return 0;
    int rc = nb_json_get_real(dict, "partial_rotary_factor", false, &share, NB_CONFIG, err);
    if (rc || share == 1) return rc;
    return nb_fail(err, NB_E_SPEC,
                   NB_CONFIG ": partial_rotary_factor %g is not supported, expected 1", share);
}

/* What is rotated of each head: all, or with partial_rotary_factor its beginning. */
static int read_share(struct nb_arch *a, const json_t *config, const json_t *dict,
                      struct nb_err *err)
{
    static const char key[] = "partial_rotary_factor";
    double share = 1;
    int rc = nb_json_get_real(config, key, false, &share, NB_CONFIG, err);
    if (!rc && dict) rc = nb_json_get_real(dict, key, false, &share, NB_CONFIG, err);
    if (rc) return rc;
    if (!(share > 0 && share <= 1)) return bad(key, "a number above 0 up to 1", share, err);
    a->rotary_dim = (int64_t)((double)a->head_dim * share);
    if (a->rotary_dim >= 2 && a->rotary_dim % 2 == 0) return 0;
    return nb_fail(err, NB_E_FORMAT,
                   NB_CONFIG ": partial_rotary_factor %g of head_dim %" PRId64 " is %" PRId64
                             " dimensions, expected an even number",
                   share, a->head_dim, a->rotary_dim);
}

/* beside: where the key wins over the dictionary's, or NULL. */
static int read_original_length(struct nb_rope *r, const json_t *beside, const json_t *dict,
                                struct nb_err *err)
{
    static const char key[] = "original_max_position_embeddings";
    double v = (double)r->original_max_position;
    int rc = get_above(dict, key, false, 0, &v, err);
    if (!rc) rc = get_above(beside, key, false, 0, &v, err);
    if (rc) return rc;
    if (v != floor(v) || v > 0x1p31) return bad(key, "an integer", v, err);
    r->original_max_position = (int64_t)v;
    return 0;
}

static int read_llama3(struct nb_rope *r, const json_t *dict, struct nb_err *err)
{
    int rc = get_above(dict, "low_freq_factor", true, 0, &r->low_freq_factor, err);
    if (!rc) rc = get_above(dict, "high_freq_factor", true, 0, &r->high_freq_factor, err);
    if (!rc && r->high_freq_factor == r->low_freq_factor) {
        rc =
            bad("high_freq_factor", "another value than low_freq_factor", r->high_freq_factor, err);
    }
    return rc;
}

/* Absent and 0 mean the default, as in the reference. */
static int get_or_default(const json_t *dict, const char *key, double fallback, double *out,
                          struct nb_err *err)
{
    *out = 0;
    int rc = nb_json_get_real(dict, key, false, out, NB_CONFIG, err);
    if (rc) return rc;
    if (!(fabs(*out) < 1e15)) return bad(key, "a number of ordinary size", *out, err);
    if (*out == 0) *out = fallback;
    return 0;
}

static double yarn_mscale(double factor, double mscale)
{
    return factor <= 1 ? 1 : 0.1 * mscale * log(factor) + 1;
}

double nb_rope_yarn_scaling(const struct nb_rope *r)
{
    if (r->attention_factor > 0) return r->attention_factor;
    if (r->mscale != 0 && r->mscale_all_dim != 0) {
        return yarn_mscale(r->factor, r->mscale) / yarn_mscale(r->factor, r->mscale_all_dim);
    }
    return yarn_mscale(r->factor, 1);
}

static int read_yarn(struct nb_rope *r, const json_t *dict, struct nb_err *err)
{
    r->truncate = true;
    int rc = get_or_default(dict, "beta_fast", 32, &r->beta_fast, err);
    if (!rc) rc = get_or_default(dict, "beta_slow", 1, &r->beta_slow, err);
    if (!rc) rc = get_or_default(dict, "mscale", 0, &r->mscale, err);
    if (!rc) rc = get_or_default(dict, "mscale_all_dim", 0, &r->mscale_all_dim, err);
    if (!rc) rc = get_above(dict, "attention_factor", false, 0, &r->attention_factor, err);
    if (!rc) rc = nb_json_get_bool(dict, "truncate", false, &r->truncate, NB_CONFIG, err);
    if (rc) return rc;
    if (r->beta_fast <= 0) return bad("beta_fast", "a positive number", r->beta_fast, err);
    if (r->beta_slow <= 0) return bad("beta_slow", "a positive number", r->beta_slow, err);
    double scaling = nb_rope_yarn_scaling(r);
    if (!(scaling > 0 && scaling < 1e15))
        return bad("mscale", "a positive attention factor", scaling, err);
    return 0;
}

double nb_rope_longrope_scaling(const struct nb_rope *r)
{
    if (r->attention_factor > 0) return r->attention_factor;
    if (r->factor <= 1) return 1;
    return sqrt(1 + log(r->factor) / log((double)r->original_max_position));
}

/* rotary_dim/2 positive factors. */
static int read_factors(const struct nb_arch *a, const json_t *dict, const char *key, double **out,
                        struct nb_err *err)
{
    const json_t *list = json_object_get(dict, key);
    const int64_t n = a->rotary_dim / 2;
    if (!json_is_array(list) || (int64_t)json_array_size(list) != n) {
        return nb_fail(err, NB_E_FORMAT,
                       NB_CONFIG ": rope parameter '%s': expected a list of %" PRId64
                                 " numbers, one for every two rotated dimensions, found %zu",
                       key, n, json_array_size(list));
    }
    *out = nb_alloc((size_t)n, sizeof **out);
    if (!*out) return nb_fail(err, NB_E_NOMEM, "no memory for '%s'", key);
    for (int64_t i = 0; i < n; i++) {
        const json_t *v = json_array_get(list, (size_t)i);
        (*out)[i] = json_number_value(v);
        if (json_is_number(v) && (*out)[i] > 1e-9 && (*out)[i] < 1e15) continue;
        return bad(key, "positive numbers", (*out)[i], err);
    }
    return 0;
}

static int read_longrope(const struct nb_arch *a, struct nb_rope *r, const json_t *dict,
                         struct nb_err *err)
{
    r->factor = (double)a->max_position / (double)r->original_max_position;
    int rc = get_above(dict, "factor", false, 0, &r->factor, err);
    if (!rc) rc = get_above(dict, "attention_factor", false, 0, &r->attention_factor, err);
    if (!rc && r->original_max_position < 2)
        rc = bad("original_max_position_embeddings", "2 or more", 1, err);
    if (!rc) rc = read_factors(a, dict, "short_factor", &r->short_factor, err);
    return rc ? rc : read_factors(a, dict, "long_factor", &r->long_factor, err);
}

static void set_defaults(const struct nb_arch *a, struct nb_rope *r, double theta)
{
    *r = (struct nb_rope){.kind = NB_ROPE_DEFAULT,
                          .theta = theta,
                          .factor = 1,
                          .original_max_position = a->max_position};
}

static int read_scaling(const struct nb_arch *a, struct nb_rope *r, const json_t *beside,
                        const json_t *dict, struct nb_err *err)
{
    int rc = 0;
    if (r->kind == NB_ROPE_DEFAULT) return 0;
    if (r->kind == NB_ROPE_LLAMA3 || r->kind == NB_ROPE_YARN || r->kind == NB_ROPE_LONGROPE)
        rc = read_original_length(r, beside, dict, err);
    if (rc) return rc;
    if (r->kind == NB_ROPE_LONGROPE) return read_longrope(a, r, dict, err);
    const json_t *factor = json_object_get(dict, "factor");
    if (r->kind == NB_ROPE_YARN && factor && json_is_null(factor)) {
        r->factor = (double)a->max_position / (double)r->original_max_position;
    } else {
        rc = get_above(dict, "factor", true, 0, &r->factor, err);
    }
    if (!rc && r->kind == NB_ROPE_LLAMA3) rc = read_llama3(r, dict, err);
    if (!rc && r->kind == NB_ROPE_YARN) rc = read_yarn(r, dict, err);
    if (!rc && r->kind == NB_ROPE_DYNAMIC && a->rotary_dim < 4) {
        rc = nb_fail(err, NB_E_FORMAT,
                     NB_CONFIG ": dynamic rope needs a head_dim of 4 or more, found %" PRId64,
                     a->rotary_dim);
    }
    return rc;
}

static int read_dict(const struct nb_arch *a, struct nb_rope *r, const json_t *beside,
                     const json_t *dict, struct nb_err *err)
{
    int rc = get_above(dict, "rope_theta", false, 1, &r->theta, err);
    if (!rc) rc = read_kind(r, dict, err);
    return rc ? rc : read_scaling(a, r, beside, dict, err);
}

int nb_arch_read_rope(struct nb_arch *a, const json_t *config, const struct nb_dense_traits *traits,
                      struct nb_err *err)
{
    const json_t *dict;
    set_defaults(a, &a->rope, traits->default_theta > 0 ? traits->default_theta : 10000);
    if (traits->default_original_position)
        a->rope.original_max_position = traits->default_original_position;
    int rc = find_dict(config, &dict, err);
    if (!rc && traits->default_original_position)
        rc = read_original_length(&a->rope, config, dict, err);
    if (!rc) rc = get_above(config, "rope_theta", false, 1, &a->rope.theta, err);
    if (!rc && traits->partial_rotary) {
        rc = read_share(a, config, dict, err);
    } else if (!rc) {
        rc = refuse_partial(config, err);
        if (!rc) rc = refuse_partial(dict, err);
    }
    if (rc || !dict) return rc;
    if (!traits->yarn_is_longrope) return read_dict(a, &a->rope, config, dict, err);
    rc = get_above(dict, "rope_theta", false, 1, &a->rope.theta, err);
    if (!rc) rc = read_kind(&a->rope, dict, err);
    if (!rc && a->rope.kind == NB_ROPE_YARN) a->rope.kind = NB_ROPE_LONGROPE;
    return rc ? rc : read_scaling(a, &a->rope, config, dict, err);
}

/* rope_parameters[type] when it is there; *found tells whether any was. */
static int find_typed(const json_t *config, const char *type, const json_t **dict, bool *found,
                      struct nb_err *err)
{
    const json_t *all = json_object_get(config, "rope_parameters");
    *dict = NULL;
    if (!all || json_is_null(all)) return 0;
    if (!json_is_object(all)) {
        return nb_fail(err, NB_E_FORMAT,
                       NB_CONFIG ": key 'rope_parameters': expected an object, found %s",
                       nb_json_type_name(all));
    }
    const json_t *v = json_object_get(all, type);
    if (!v || json_is_null(v)) return 0;
    if (!json_is_object(v)) {
        return nb_fail(err, NB_E_FORMAT,
                       NB_CONFIG ": rope_parameters '%s': expected an object, found %s", type,
                       nb_json_type_name(v));
    }
    *dict = v;
    *found = true;
    return 0;
}

/* rope_scaling is laid over what rope_parameters says of full attention, as in the reference. */
static int read_full(struct nb_arch *a, const json_t *config, const json_t *dict,
                     struct nb_err *err)
{
    const json_t *scaling = json_object_get(config, "rope_scaling");
    json_t *merged = dict ? json_copy((json_t *)dict) : json_object();
    int rc = 0;
    if (!merged) return nb_fail(err, NB_E_NOMEM, "no memory for rope parameters");
    if (scaling && json_is_object(scaling)) {
        if (json_object_update(merged, (json_t *)scaling))
            rc = nb_fail(err, NB_E_NOMEM, "no memory for rope parameters");
    } else if (scaling && !json_is_null(scaling)) {
        rc = nb_fail(err, NB_E_FORMAT,
                     NB_CONFIG ": key 'rope_scaling': expected an object, found %s",
                     nb_json_type_name(scaling));
    }
    if (!rc) rc = get_above(config, "rope_theta", false, 1, &a->rope.theta, err);
    if (!rc) rc = read_dict(a, &a->rope, NULL, merged, err);
    json_decref(merged);
    return rc;
}

int nb_arch_read_rope_pair(struct nb_arch *a, const json_t *config, struct nb_err *err)
{
    const json_t *full, *local, *all = json_object_get(config, "rope_parameters");
    bool found = false;
    set_defaults(a, &a->rope, 1e6);
    set_defaults(a, &a->rope_local, 1e4);
    int rc = find_typed(config, "full_attention", &full, &found, err);
    if (!rc) rc = find_typed(config, "sliding_attention", &local, &found, err);
    if (!rc && !found && json_object_size(all) > 0) {
        rc = nb_fail(err, NB_E_FORMAT,
                     NB_CONFIG ": key 'rope_parameters': expected an object for full_attention and "
                               "one for sliding_attention");
    }
    if (!rc) rc = refuse_partial(config, err);
    if (!rc) rc = refuse_partial(full, err);
    if (!rc) rc = refuse_partial(local, err);
    if (!rc) rc = read_full(a, config, full, err);
    if (!rc) rc = get_above(config, "rope_local_base_freq", false, 1, &a->rope_local.theta, err);
    return rc || !local ? rc : read_dict(a, &a->rope_local, NULL, local, err);
}

/* theta^(2i/dim), each operation rounded to f32. */
static float wave(float theta, int64_t i, int64_t dim)
{
    float exponent = (float)(2 * i) / (float)dim;
    return (float)pow((double)theta, (double)exponent);
}

/* Dynamic NTK: one base for the whole sequence, grown by its length beyond max_position. */
static float dynamic_theta(const struct nb_arch *a, const struct nb_rope *r, int64_t length)
{
    if (length <= a->max_position) return (float)r->theta;
    float grown =
        (float)r->factor * (float)length / (float)a->max_position - (float)(r->factor - 1);
    double power = (double)a->rotary_dim / (double)(a->rotary_dim - 2);
    return (float)r->theta * (float)pow((double)grown, (double)(float)power);
}

static float llama3_frequency(const struct nb_rope *r, float inv)
{
    const float two_pi = 6.28318530717958647692f;
    float wavelength = two_pi / inv, old = (float)r->original_max_position;
    float low = (float)r->low_freq_factor, high = (float)r->high_freq_factor,
          factor = (float)r->factor;
    if (wavelength < old / high) return inv;
    if (wavelength > old / low) return inv / factor;
    float smooth = (old / wavelength - low) / (high - low);
    return (1 - smooth) * inv / factor + smooth * inv;
}

void nb_rope_llama3_factors(const struct nb_rope *r, int64_t head_dim, float *out)
{
    const double two_pi = 6.28318530717958647692, old = (double)r->original_max_position;
    for (int64_t i = 0; i < head_dim / 2; i++) {
        double wavelength = two_pi * pow(r->theta, (double)(2 * i) / (double)head_dim);
        double smooth =
            (old / wavelength - r->low_freq_factor) / (r->high_freq_factor - r->low_freq_factor);
        double value = 1 / ((1 - smooth) / r->factor + smooth);
        if (wavelength < old / r->high_freq_factor) value = 1;
        else if (wavelength > old / r->low_freq_factor) value = r->factor;
        out[i] = (float)value;
    }
}

/* The dimension whose wave turns `rotations` times within the original length. */
static double yarn_dimension(const struct nb_rope *r, double rotations, int64_t dim)
{
    const double two_pi = 6.28318530717958647692;
    return (double)dim * log((double)r->original_max_position / (rotations * two_pi)) /
           (2 * log(r->theta));
}

static void yarn_frequencies(const struct nb_rope *r, int64_t dim, double *inv_freq)
{
    double low = yarn_dimension(r, r->beta_fast, dim), high = yarn_dimension(r, r->beta_slow, dim);
    if (r->truncate) {
        low = floor(low);
        high = ceil(high);
    }
    if (low < 0) low = 0;
    if (high > (double)(dim - 1)) high = (double)(dim - 1);
    if (low == high) high += 0.001;
    for (int64_t i = 0; i < dim / 2; i++) {
        float w = wave((float)r->theta, i, dim);
        float ramp = ((float)i - (float)low) / (float)(high - low);
        ramp = ramp < 0 ? 0 : ramp > 1 ? 1 : ramp;
        float keep = 1 - ramp;
        inv_freq[i] = (double)(1.0f / ((float)r->factor * w) * (1 - keep) + 1.0f / w * keep);
    }
}

void nb_rope_frequencies(const struct nb_arch *a, const struct nb_rope *r, int64_t length,
                         double *inv_freq, double *scaling)
{
    const int64_t dim = a->rotary_dim;
    *scaling = 1;
    if (r->kind == NB_ROPE_YARN) {
        yarn_frequencies(r, dim, inv_freq);
        *scaling = nb_rope_yarn_scaling(r);
        return;
    }
    const double *divisors = NULL;
    if (r->kind == NB_ROPE_LONGROPE) {
        divisors = length > r->original_max_position ? r->long_factor : r->short_factor;
        *scaling = nb_rope_longrope_scaling(r);
    }
    float theta = r->kind == NB_ROPE_DYNAMIC ? dynamic_theta(a, r, length) : (float)r->theta;
    for (int64_t i = 0; i < dim / 2; i++) {
        float w = wave(theta, i, dim);
        float inv = 1.0f / (divisors ? (float)divisors[i] * w : w);
        if (r->kind == NB_ROPE_LINEAR) inv /= (float)r->factor;
        if (r->kind == NB_ROPE_LLAMA3) inv = llama3_frequency(r, inv);
        inv_freq[i] = (double)inv;
    }
}

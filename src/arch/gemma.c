/* SPDX-License-Identifier: Apache-2.0
 *
 * gemma.c - what Gemma 2 and 3 add to the dense plan: query_pre_attn_scalar, soft caps, and what is
 * refused. */
#include <math.h>

#include "arch/family.h"

/* A soft cap; null means none, an absent key the default. */
static int read_cap(const json_t *config, const char *key, double fallback, double *out,
                    struct nb_err *err)
{
    const json_t *v = json_object_get(config, key);
    *out = v ? 0 : fallback;
    if (!v || json_is_null(v)) return 0;
    int rc = nb_json_get_real(config, key, true, out, NB_CONFIG, err);
    if (!rc && !(*out > 1e-6 && *out < 1e9)) {
        rc = nb_fail(err, NB_E_FORMAT,
                     NB_CONFIG ": key '%s': expected a positive number or null, found %g", key,
                     *out);
    }
    return rc;
}

static int refuse_bidirectional(const json_t *config, struct nb_err *err)
{
    bool both = false;
    int rc = nb_json_get_bool(config, "use_bidirectional_attention", false, &both, NB_CONFIG, err);
    if (rc || !both) return rc;
    return nb_fail(err, NB_E_SPEC,
                   NB_CONFIG ": use_bidirectional_attention true is not supported, expected false");
}

int nb_arch_gemma_plan(struct nb_arch *a, const json_t *config, struct nb_dense_traits *traits,
                       const struct nb_gemma_defaults *defaults, struct nb_err *err)
{
    double scalar = 256;
    int rc = refuse_bidirectional(config, err);
    if (!rc)
        rc = nb_json_get_bool(config, "attention_bias", false, &traits->qkv_bias, NB_CONFIG, err);
    traits->o_bias = traits->qkv_bias;
    if (!rc) rc = nb_arch_dense_plan(a, config, traits, err);
    if (!rc) rc = nb_json_get_real(config, "query_pre_attn_scalar", false, &scalar, NB_CONFIG, err);
    if (!rc && !(scalar > 1e-6 && scalar < 1e9)) {
        rc =
            nb_fail(err, NB_E_FORMAT,
                    NB_CONFIG ": key 'query_pre_attn_scalar': expected a positive number, found %g",
                    scalar);
    }
    if (rc) return rc;
    a->attn_scale = 1 / sqrt(scalar);
    rc = read_cap(config, "final_logit_softcapping", defaults->final_softcap, &a->final_softcap,
                  err);
    if (rc || defaults->no_attn_softcap) return rc;
    return read_cap(config, "attn_logit_softcapping", defaults->attn_softcap, &a->attn_softcap,
                    err);
}

/* SPDX-License-Identifier: Apache-2.0
 *
 * numeric.h - number encodings and how a group of weights is fitted to one: fit, nearest, value.
 *
 * One grid interface for every solver: fit chooses (scale, zero) for a group, nearest picks the code of a
 * value under them. Scales are cast to the file's type before rounding, so the codes are chosen for the
 * stored scale. Source: algorithms, section 2. */
#ifndef NB_NUMERIC_NUMERIC_H
#define NB_NUMERIC_NUMERIC_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "base/pool.h"
#include "core/qmat.h"

enum nb_clip { NB_CLIP_NONE, NB_CLIP_MSE, NB_CLIP_WEIGHTED };
enum nb_sym_range {
    NB_SYM_REFERENCE,
    /* a / 7.5 */ NB_SYM_FULL /* largest magnitude at -2^(b-1), scale of either sign */
};

struct nb_grid_opts {
    struct nb_qspec spec;
    enum nb_clip clip;
    enum nb_sym_range sym_range;
    int zero_min; /* smallest zero code allowed (gptq v1: 1) */
    bool
        coarse; /* WEIGHTED: a third of the scales and no refinement, to compare many settings quickly */
    float
        tensor_amax; /* one scale for a whole matrix: largest magnitude it must reach, so that matrices which
                        * engines fuse get the same one; 0: the matrix's own */
};

struct nb_group_params {
    float scale, zero; /* as stored: scale rounded to spec.scale_dtype, zero an integer */
};

struct nb_lane_params { /* one scale and zero for each of n weights */
    const float *scale, *zero;
};

struct nb_numeric {
    const char *name; /* "int" */
    bool (*supports)(const struct nb_qspec *spec);
    /* Parameters for n weights w[0..n) with importance u[0..n) (NULL: 1). Never non-finite, |scale| >= 1e-5
     * (or the smallest the type can hold). */
    void (*fit)(const struct nb_grid_opts *opts, const float *w, const float *u, int64_t n,
                struct nb_group_params *out);
    unsigned (*nearest)(const struct nb_qspec *spec, float w, const struct nb_group_params *p);
    float (*value)(const struct nb_qspec *spec, unsigned code, const struct nb_group_params *p);
    /* nearest and value of n weights under one set of parameters; code or value may be NULL. */
    void (*round_group)(const struct nb_qspec *spec, const float *w, int64_t n,
                        const struct nb_group_params *p, uint8_t *code, float *value);
    /* The same with parameters of its own for each weight: one column, n rows. */
    void (*round_lanes)(const struct nb_qspec *spec, const float *w, int64_t n,
                        const struct nb_lane_params *p, uint8_t *code, float *value);
    /* The whole matrix by the rule of the format's own tools, which looks at weights alone (clip NONE, no statistics):
     * their bytes. w [rows, cols] f32; q is initialized for opts->spec. NULL: fit and round group by group. */
    int (*encode)(struct nb_qmat *q, const struct nb_grid_opts *opts, const float *w,
                  struct nb_pool *pool, struct nb_err *err);
    /* Scales that were chosen freely (q->scale.value) become what the file's two levels can hold: codes, supers,
     * offset and value. NULL: single level only. */
    int (*settle)(struct nb_qmat *q, const struct nb_grid_opts *opts, struct nb_err *err);
};
const struct nb_numeric *nb_numeric_for(const struct nb_qspec *spec); /* NULL: none */

/* |scale| limited to what the type stores and any level can multiply: at least 1e-5, at most 65504 (F16) or
 * 1e36; rounded to the type, sign kept. */
float nb_numeric_store_scale(float scale, enum nb_dtype t);

/* Group sizes that fit K, for messages: "32, 64, 128". */
void nb_usable_groups(int64_t k, char *out, size_t bytes);

#endif

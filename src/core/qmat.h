/* SPDX-License-Identifier: Apache-2.0
 *
 * qmat.h - the hub: one canonical quantized matrix between methods, formats and kernels.
 *
 * Plain, unpacked, in logical order and complete: enough to rebuild each supported file exactly.
 * nb_qmat_dequant_row is the only definition of what a quantized weight means; kernels, readers and
 * solvers are tested against it. Code here knows no file and no method. */
#ifndef NB_CORE_QMAT_H
#define NB_CORE_QMAT_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "base/mem.h"
#include "core/dtype.h"

enum nb_elem_kind {
    NB_ELEM_INT, /* code is an unsigned integer 0 .. 2^bits-1 */
    NB_ELEM_FLOAT, /* sign, exp, man bits; (5,2) has infinities and NaN, (4,3) NaN only, others neither */
    NB_ELEM_TABLE /* table[code * vec + i] */
};

struct nb_elem {
    enum nb_elem_kind kind;
    int bits;           /* per code */
    int exp, man;       /* FLOAT only */
    int vec;            /* weights per code; 1 but for vector tables */
    const float *table; /* TABLE only; lives as long as the program */
    const char *name;   /* for texts: "nf4"; NULL: by kind and bits */
};

enum nb_zero {
    NB_ZERO_NONE, /* w = scale * elem(code) */
    NB_ZERO_CODE, /* w = scale * (elem(code) - zero), zero an integer code */
    NB_ZERO_MIN   /* w = scale * elem(code) - min, min in weight units */
};

/* Numbers that a linear's input is rounded to before the product, all of them symmetric. Their scale is
 * amax / 127, 448, 6 over a token (one row of x), a group of act_group columns of a token, or the whole input; or
 * it was found in calibration: nb_qmat.input_scale. */
enum nb_act_kind {
    NB_ACT_NONE,
    NB_ACT_INT8_TOKEN,  /* int8, int32 sums */
    NB_ACT_INT8_STATIC, /* int8 of input_scale */
    NB_ACT_INT8_OUTLIER, /* LLM.int8: per token, columns with any |x| >= act_threshold left in float */
    NB_ACT_FP8_TOKEN,    /* E4M3 */
    NB_ACT_FP8_GROUP,
    NB_ACT_FP8_TENSOR, /* dynamic */
    NB_ACT_FP8_STATIC, /* of input_scale */
    NB_ACT_NVFP4, /* E2M1, groups of 16 under an E4M3 scale; input_scale is the file's global scale, which divides */
    NB_ACT_MXFP4, /* E2M1, groups of 32 under a power of two */
    NB_ACT_MXFP8  /* E4M3, the same */
};

struct nb_qspec { /* what kind of numbers; no data */
    struct nb_elem elem;
    int64_t group_rows, group_cols; /* weights sharing a scale: 1 x 128, 1 x K, 128 x 128, N x K */
    bool
        flat; /* groups are group_cols weights of the matrix read row by row, across the ends of rows */
    enum nb_dtype scale_dtype;  /* how scales (two levels: super-scales) are stored: F16, F32 ... */
    int64_t super_groups;       /* scales that share a super-scale; 0: single level */
    bool super_flat;            /* supers run over all scales of the matrix, not row by row */
    bool super_divides;         /* a scale is divided by its super-scale */
    int scale_bits, scale_zero; /* two levels: bits of a scale's code, and which code is scale 0 */
    const float *scale_table;   /* or what each code means; NULL: code - scale_zero */
    enum nb_zero zero;
    bool symmetric;       /* CODE zeros are all 2^(bits-1) */
    bool zero_implied;    /* CODE zeros belong to the format and are not stored */
    enum nb_act_kind act; /* activation numbers it was made for */
    int64_t act_group;    /* of NB_ACT_FP8_GROUP */
    float act_threshold;  /* of NB_ACT_INT8_OUTLIER; 0: no column is left out */
};

/* Scales or zeros of a matrix: value[group_row * n_groups + group], decoded f32, exact in the file's
 * type. Two levels: value = super[group_row * n_supers + group / super_groups] * (code - scale_zero) +
 * offset (a minimum has no scale_zero), with super_flat super[(group_row * n_groups + group) / super_groups];
 * codes are kept for the file. */
struct nb_plane {
    float *value;
    uint8_t *codes; /* NULL: single level */
    float *super;   /* NULL: single level */
    float offset;
};

struct nb_qmat {
    struct nb_qspec spec;
    int64_t rows, cols; /* N, K */
    int64_t n_groups; /* per group row: ceil(K / group_cols); flat: of the matrix, one group row */
    int64_t
        n_supers; /* per group row: ceil(n_groups / super_groups); super_flat: of the matrix; 0: single level */
    uint8_t *codes; /* [N, K], one byte per code (vec 1, bits <= 8), original column order */
    struct nb_plane scale, zero;
    const int32_t *col_group; /* [K] group per column (act-order); NULL: k / group_cols */
    float input_scale; /* of static activations, see enum nb_act_kind; 0: the spec needs none */
};

/* Fills spec/rows/cols/n_groups/n_supers and allocates codes and planes from arena (zeroed), with
 * super_groups > 0 those of both levels: of the scales, and of the zeros when they are minima. group_cols <= 0
 * in spec means K, group_rows <= 0 means 1; groups larger than the matrix become it; flat is dropped where groups end
 * with the rows. col_group stays NULL.
 * NB_E_NOMEM, or NB_E_SPEC for an empty matrix, elements of more than 8 bits or not of scalars, a FLOAT
 * whose parts do not add up, a TABLE without values, scale codes of more than 8 bits. */
int nb_qmat_init(struct nb_qmat *q, const struct nb_qspec *spec, int64_t rows, int64_t cols,
                 struct nb_arena *arena, struct nb_err *err);

/* Group of column k within its group row; not for flat. */
static inline int64_t nb_qmat_group(const struct nb_qmat *q, int64_t k)
{
    return q->col_group ? q->col_group[k] : k / q->spec.group_cols;
}

/* Index into scale.value / zero.value of weight (n, k). */
static inline int64_t nb_qmat_plane_index(const struct nb_qmat *q, int64_t n, int64_t k)
{
    if (q->spec.flat) return (n * q->cols + k) / q->spec.group_cols;
    return n / q->spec.group_rows * q->n_groups + nb_qmat_group(q, k);
}

int64_t nb_qmat_group_rows(const struct nb_qmat *q); /* how many group rows there are */
int64_t nb_qmat_planes(const struct nb_qmat *q);     /* scales of the matrix */
int64_t nb_qmat_supers(const struct nb_qmat *q);     /* super-scales of the matrix */

/* Two levels: the values of one group row from its codes and super-scales, one rounding per operation. */
void nb_qmat_fill_values(struct nb_qmat *q, int64_t group_row);

/* out[k] = weight (row, k), k in [0, K). f32 arithmetic: scale * (elem - zero), one rounding each. */
void nb_qmat_dequant_row(const struct nb_qmat *q, int64_t row, float *out);

float nb_elem_value(const struct nb_elem *e, unsigned code); /* vec 1 */

/* Bits per weight as stored in a file with this spec: codes, scales, zeros. */
double nb_qspec_bits_per_weight(const struct nb_qspec *spec, int64_t rows, int64_t cols);

/* "int4 sym g128" and the like; "int4 asym g32 scales int6 x8" with two levels. */
void nb_qspec_describe(const struct nb_qspec *spec, char *out, size_t bytes);

#endif

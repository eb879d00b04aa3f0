/* SPDX-License-Identifier: Apache-2.0
 *
 * kernels.h - one way to multiply by a weight, and how to find the one for a weight. */
#ifndef NB_BACKEND_KERNELS_H
#define NB_BACKEND_KERNELS_H

#include "backend/internal.h"

/* Rows of x as int8: x[i][k] = scale[i] * code[i*ld + k], but for the outlier columns, whose codes are 0. */
struct nb_codes {
    const int8_t *code;
    int64_t ld; /* a multiple of 4; codes are 0 from column K on */
    const float *scale;
    const int32_t *outlier; /* [n_outliers] columns, rising */
    const float *value;     /* [m, n_outliers]: x there */
    int64_t n_outliers;
};

/* y[i*ldy + n] = sum over k of x[i*ldx + k] * w[n][k], i in [0, m), n in [n0, n1) */
struct nb_gemm_job {
    const struct nb_weight *w;
    const void *packed;
    const float *x;
    struct nb_codes codes; /* instead of x, for a kernel that takes them */
    int64_t m, ldx;
    float *y;
    int64_t ldy;
    bool bf16;      /* products of bf16 pairs where a tile does the work */
    int64_t n0, n1; /* at most NB_BLOCK_N apart */
};

struct nb_gemm_kernel {
    const char *name;
    unsigned features; /* NB_CPU_* bits it needs */
    bool takes_codes;  /* x comes as job.codes */
    bool (*supports)(const struct nb_weight *w);
    /* Bytes of the packed form; 0: runs on the weight as it is. False when the size does not
     * fit. */
    bool (*packed_bytes)(const struct nb_cpu_ops *ops, const struct nb_weight *w, size_t *bytes);
    void (*pack)(const struct nb_cpu_ops *ops, const struct nb_weight *w, void *packed);
    int64_t m_step; /* rows of x per piece, 0: all (unpacking the weight is what costs) */
    int64_t n_step; /* rows of the weight per piece */
    /* One piece, on one thread. Must equal x dequant(w)^T within the bound of nb_tile_f32_fn. */
    void (*run)(const struct nb_cpu_ops *ops, const struct nb_scratch *s,
                const struct nb_gemm_job *job);
};

/* First of the table that fits: fastest first, the generic ones last. NULL: none. */
const struct nb_gemm_kernel *nb_gemm_kernel_find(const struct nb_weight *w, unsigned features);
const struct nb_gemm_kernel *const *nb_gemm_kernels(void); /* NULL-terminated */

extern const struct nb_gemm_kernel nb_gemm_dense, nb_gemm_int8, nb_gemm_qmat, nb_gemm_blocks;

/* Where f32 rows of a weight come from: out[0, n) = elements [k0, k0 + n) of a row; k0 is a multiple of
 * NB_BLOCK_K, and n too unless the row ends there. */
struct nb_row_source {
    const void *of;
    void (*load)(const void *of, int64_t row, int64_t k0, int64_t n, float *out);
};

/* A job of a kernel that has its weight as a source of rows. */
void nb_gemm_rows_run(const struct nb_cpu_ops *ops, const struct nb_scratch *s,
                      const struct nb_gemm_job *job, const struct nb_row_source *source);

#endif

/* SPDX-License-Identifier: Apache-2.0
 *
 * tile_simd.h - the register tile, once for every vector type. Included by an ISA's tile file with
 *
 *   T_REAL, T_VEC      element and vector type           T_LANES      elements per vector
 *   T_MR, T_NV         rows, vectors per row             T_NAME       name of the function to define
 *   T_LOAD T_STORE T_SET1 T_ZERO T_FMA(a,b,c) T_ADD
 *
 * T_MR * T_NV accumulators, T_NV panels of b and one broadcast must fit the registers. Each row count gets its
 * own copy of the loop, so that tails cost what they are worth and all copies sum in the same order. */

static inline __attribute__((always_inline)) void T_BODY(int rows, int64_t k, const T_REAL *a, int64_t lda,
                                                         const T_REAL *b, int64_t ldb, T_REAL *c, int64_t ldc,
                                                         bool add)
{
    T_VEC acc[T_MR][T_NV];
#pragma GCC unroll 16
    for (int r = 0; r < rows; r++) {
#pragma GCC unroll 4
        for (int v = 0; v < T_NV; v++) acc[r][v] = T_ZERO();
    }
    for (int64_t kk = 0; kk < k; kk++) {
        T_VEC bv[T_NV];
#pragma GCC unroll 4
        for (int v = 0; v < T_NV; v++) bv[v] = T_LOAD(b + v * T_LANES);
#pragma GCC unroll 16
        for (int r = 0; r < rows; r++) {
            T_VEC av = T_SET1(a[r]);
#pragma GCC unroll 4
            for (int v = 0; v < T_NV; v++) acc[r][v] = T_FMA(av, bv[v], acc[r][v]);
        }
        a += lda;
        b += ldb;
    }
#pragma GCC unroll 16
    for (int r = 0; r < rows; r++) {
#pragma GCC unroll 4
        for (int v = 0; v < T_NV; v++) {
            T_REAL *at = c + r * ldc + v * T_LANES;
            T_STORE(at, add ? T_ADD(T_LOAD(at), acc[r][v]) : acc[r][v]);
        }
    }
}

static void T_NAME(int64_t k, const T_REAL *a, int64_t lda, const T_REAL *b, int64_t ldb, T_REAL *c, int64_t ldc,
                   int rows, bool add)
{
    switch (rows) {
    case 1: T_BODY(1, k, a, lda, b, ldb, c, ldc, add); break;
    case 2: T_BODY(2, k, a, lda, b, ldb, c, ldc, add); break;
    case 3: T_BODY(3, k, a, lda, b, ldb, c, ldc, add); break;
    case 4: T_BODY(4, k, a, lda, b, ldb, c, ldc, add); break;
    case 5: T_BODY(5, k, a, lda, b, ldb, c, ldc, add); break;
    case 6: T_BODY(6, k, a, lda, b, ldb, c, ldc, add); break;
#if T_MR > 6
    case 7: T_BODY(7, k, a, lda, b, ldb, c, ldc, add); break;
    case 8: T_BODY(8, k, a, lda, b, ldb, c, ldc, add); break;
    case 9: T_BODY(9, k, a, lda, b, ldb, c, ldc, add); break;
    case 10: T_BODY(10, k, a, lda, b, ldb, c, ldc, add); break;
    case 11: T_BODY(11, k, a, lda, b, ldb, c, ldc, add); break;
    case 12: T_BODY(12, k, a, lda, b, ldb, c, ldc, add); break;
    case 13: T_BODY(13, k, a, lda, b, ldb, c, ldc, add); break;
    case 14: T_BODY(14, k, a, lda, b, ldb, c, ldc, add); break;
#endif
    }
}

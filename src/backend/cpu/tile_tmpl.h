/* SPDX-License-Identifier: Apache-2.0
 *
 * tile_tmpl.h - the register tile, once for every vector type. Included by an ISA's tile file with
 *
 *   T_REAL, T_VEC      element and vector type           T_LANES      elements per vector
 *   T_MR, T_NV         rows, vectors per row             T_ARGS       struct nb_tile_f32 or _f64
 *   T_NAME, T_BODY     names of the functions to define
 *   T_LOAD T_STORE T_SET1 T_ZERO T_FMA(a,b,c) T_ADD
 *
 * T_MR * T_NV accumulators, T_NV vectors of b and one broadcast must fit the registers. Each row
 * count gets its own copy of the loop, so that tails cost what they are worth and all copies sum in
 * the same order. */

static inline __attribute__((always_inline)) void T_BODY(const struct T_ARGS *t, int rows)
{
    const T_REAL *a = t->a, *b = t->b;
    const int64_t lda = t->lda, ldb = t->ldb, k = t->k;
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
    T_REAL *c = t->c;
    const bool add = t->add;
#pragma GCC unroll 16
    for (int r = 0; r < rows; r++) {
#pragma GCC unroll 4
        for (int v = 0; v < T_NV; v++) {
            T_REAL *at = c + r * t->ldc + v * T_LANES;
            T_STORE(at, add ? T_ADD(T_LOAD(at), acc[r][v]) : acc[r][v]);
        }
    }
}

static void T_NAME(const struct T_ARGS *t)
{
    switch (t->rows) {
    case 1: T_BODY(t, 1); break;
    case 2: T_BODY(t, 2); break;
    case 3: T_BODY(t, 3); break;
    case 4: T_BODY(t, 4); break;
    case 5: T_BODY(t, 5); break;
    case 6: T_BODY(t, 6); break;
#if T_MR > 6
    case 7: T_BODY(t, 7); break;
    case 8: T_BODY(t, 8); break;
    case 9: T_BODY(t, 9); break;
    case 10: T_BODY(t, 10); break;
    case 11: T_BODY(t, 11); break;
    case 12: T_BODY(t, 12); break;
    case 13: T_BODY(t, 13); break;
    case 14: T_BODY(t, 14); break;
#endif
    }
}

#undef T_ARGS
#undef T_REAL
#undef T_VEC
#undef T_LANES
#undef T_MR
#undef T_NV
#undef T_NAME
#undef T_BODY
#undef T_LOAD
#undef T_STORE
#undef T_SET1
#undef T_ZERO
#undef T_FMA
#undef T_ADD

/* SPDX-License-Identifier: Apache-2.0
 *
 * dtype.h - element types as safetensors names them (checkpoint formats, section 1.2). */
#ifndef NB_CORE_DTYPE_H
#define NB_CORE_DTYPE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* enum name, safetensors name, bits per element; in the reference's alignment order, smallest first */
#define NB_DTYPE_LIST(X)                                                                           \
    X(NB_BOOL, "BOOL", 8)                                                                          \
    X(NB_F4, "F4", 4)                                                                              \
    X(NB_F6_E2M3, "F6_E2M3", 6)                                                                    \
    X(NB_F6_E3M2, "F6_E3M2", 6)                                                                    \
    X(NB_U8, "U8", 8)                                                                              \
    X(NB_I8, "I8", 8)                                                                              \
    X(NB_F8_E5M2, "F8_E5M2", 8)                                                                    \
    X(NB_F8_E4M3, "F8_E4M3", 8)                                                                    \
    X(NB_F8_E8M0, "F8_E8M0", 8)                                                                    \
    X(NB_F8_E4M3FNUZ, "F8_E4M3FNUZ", 8)                                                            \
    X(NB_F8_E5M2FNUZ, "F8_E5M2FNUZ", 8)                                                            \
    X(NB_I16, "I16", 16)                                                                           \
    X(NB_U16, "U16", 16)                                                                           \
    X(NB_F16, "F16", 16)                                                                           \
    X(NB_BF16, "BF16", 16)                                                                         \
    X(NB_I32, "I32", 32)                                                                           \
    X(NB_U32, "U32", 32)                                                                           \
    X(NB_F32, "F32", 32)                                                                           \
    X(NB_C64, "C64", 64)                                                                           \
    X(NB_F64, "F64", 64)                                                                           \
    X(NB_I64, "I64", 64)                                                                           \
    X(NB_U64, "U64", 64)

enum nb_dtype {
#define X(name, text, bits) name,
    NB_DTYPE_LIST(X)
#undef X
        NB_DTYPE_COUNT
};

const char *nb_dtype_name(enum nb_dtype t);
int nb_dtype_bits(enum nb_dtype t);
bool nb_dtype_parse(const char *name, enum nb_dtype *out);
bool nb_dtype_is_weight(enum nb_dtype t); /* F16, BF16, F32 (what a dense weight may be) */

/* n elements of F16, BF16, F32, F64, F8_E4M3 or F8_E8M0 at src to f32. src needs no alignment. False: another type. */
bool nb_to_f32(float *dst, const void *src, enum nb_dtype t, size_t n);
/* n f32 to F16, BF16 or F32, round to nearest even. False: another type. */
bool nb_from_f32(void *dst, const float *src, enum nb_dtype t, size_t n);
/* x rounded to what type t can hold, back in f32 (F16, BF16, F32, F8_E4M3; other types: x). */
float nb_round_to(float x, enum nb_dtype t);

#endif

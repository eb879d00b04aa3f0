/* SPDX-License-Identifier: Apache-2.0
 *
 * dtype.c - see dtype.h. */
#include "core/dtype.h"

#include <string.h>

#include "base/fp8.h"
#include "base/half.h"

static const struct {
    const char *name;
    int bits;
} info[NB_DTYPE_COUNT] = {
#define X(name, text, bits) [name] = {text, bits},
    NB_DTYPE_LIST(X)
#undef X
};

const char *nb_dtype_name(enum nb_dtype t)
{
    return info[t].name;
}

int nb_dtype_bits(enum nb_dtype t)
{
    return info[t].bits;
}

bool nb_dtype_parse(const char *name, enum nb_dtype *out)
{
    for (int i = 0; i < NB_DTYPE_COUNT; i++) {
        if (strcmp(info[i].name, name) == 0) {
            *out = (enum nb_dtype)i;
            return true;
        }
    }
    return false;
}

bool nb_dtype_is_weight(enum nb_dtype t)
{
    return t == NB_F16 || t == NB_BF16 || t == NB_F32;
}

bool nb_to_f32(float *dst, const void *src, enum nb_dtype t, size_t n)
{
    const unsigned char *p = src;
    uint16_t h;
    double d;
    switch (t) {
    case NB_F32:
        if (n) memcpy(dst, src, n * sizeof *dst);
        return true;
    case NB_BF16:
        for (size_t i = 0; i < n; i++) {
            memcpy(&h, p + 2 * i, 2);
            dst[i] = nb_bf16_to_f32(h);
        }
        return true;
    case NB_F16:
        for (size_t i = 0; i < n; i++) {
            memcpy(&h, p + 2 * i, 2);
            dst[i] = nb_f16_to_f32(h);
        }
        return true;
    case NB_F64:
        for (size_t i = 0; i < n; i++) {
            memcpy(&d, p + 8 * i, 8);
            dst[i] = (float)d;
        }
        return true;
    case NB_F8_E4M3:
        for (size_t i = 0; i < n; i++) dst[i] = nb_e4m3_to_f32(p[i]);
        return true;
    case NB_F8_E8M0:
        for (size_t i = 0; i < n; i++) dst[i] = nb_e8m0_to_f32(p[i]);
        return true;
    default: return false;
    }
}

bool nb_from_f32(void *dst, const float *src, enum nb_dtype t, size_t n)
{
    unsigned char *p = dst;
    uint16_t h;
    switch (t) {
    case NB_F32:
        if (n) memcpy(dst, src, n * sizeof *src);
        return true;
    case NB_BF16:
        for (size_t i = 0; i < n; i++) {
            h = nb_f32_to_bf16(src[i]);
            memcpy(p + 2 * i, &h, 2);
        }
        return true;
    case NB_F16:
        for (size_t i = 0; i < n; i++) {
            h = nb_f32_to_f16(src[i]);
            memcpy(p + 2 * i, &h, 2);
        }
        return true;
    default: return false;
    }
}

float nb_round_to(float x, enum nb_dtype t)
{
    if (t == NB_F16) return nb_f16_to_f32(nb_f32_to_f16(x));
    if (t == NB_BF16) return nb_bf16_to_f32(nb_f32_to_bf16(x));
    if (t == NB_F8_E4M3) return nb_e4m3_to_f32(nb_f32_to_e4m3(x));
    return x;
}

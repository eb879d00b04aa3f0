/* SPDX-License-Identifier: Apache-2.0
 *
 * block.c - blocks in plain C: what every level must give to the byte. One lane at a time. */
#include <math.h>
#include <stdbool.h>
#include <stddef.h>
#include <string.h>

#include "numeric/block_layout.h"
#include "numeric/cpu/levels.h"

static void lookup16(const int8_t table[16], const uint8_t *code, int n, int8_t *out)
{
    for (int i = 0; i < n; i++) out[i] = table[code[i]];
}

enum { LANES = 1 };
typedef float VF;
typedef bool VM;

static inline VF v_set(float x)
{
    return x;
}

static inline VF v_load(const float *p)
{
    return *p;
}

static inline void v_store(float *p, VF x)
{
    *p = x;
}

static inline VF v_abs(VF x)
{
    return fabsf(x);
}

static inline VF v_sqrt(VF x)
{
    return sqrtf(x);
}

static inline VF v_min(VF a, VF b)
{
    return a < b ? a : b;
}

static inline VF v_max(VF a, VF b)
{
    return a > b ? a : b;
}

static inline VM v_less(VF a, VF b)
{
    return a < b;
}

static inline VM m_and(VM a, VM b)
{
    return a && b;
}

static inline VM m_or(VM a, VM b)
{
    return a || b;
}

static inline bool m_any(VM m)
{
    return m;
}

static inline VF v_pick(VM m, VF a, VF b)
{
    return m ? a : b;
}

static inline VF v_level(VF x, int lo, int hi)
{
    const int l = nb_block_nearest_int(x);
    return (float)(l < lo ? lo : l > hi ? hi : l);
}

#define LEVEL nb_block_generic
#define LEVEL_NAME "generic"
#include "numeric/cpu/decode_tmpl.h"
#include "numeric/cpu/search_tmpl.h"

#include "numeric/cpu/encode_tmpl.h"

#include "numeric/cpu/encode_k_tmpl.h"

#include "numeric/cpu/level_tmpl.h"

/* SPDX-License-Identifier: Apache-2.0
 *
 * blocks_grid.c - which values the blocks of a GGUF type can hold. Source: GGUF specification, section 4. */
#include <string.h>

#include "quant/blocks.h"

enum { TABLE_CODES = 16 };

static const float iq4[TABLE_CODES] = {-127, -104, -83, -65, -49, -35, -22, -10,
                                       1,    13,   25,  38,  53,  69,  89,  113};

/* A sum of steps instead of a search, so that rows go side by side. */
static inline float table_level(float x)
{
    float level = iq4[0];
    for (int i = 0; i + 1 < TABLE_CODES; i++) {
        const float middle = 0.5f * (iq4[i] + iq4[i + 1]), step = iq4[i + 1] - iq4[i];
        level += x > middle ? step : 0.0f;
    }
    return level;
}

static inline float table_index(float x)
{
    float index = 0.0f;
    for (int i = 0; i + 1 < TABLE_CODES; i++)
        index += x > 0.5f * (iq4[i] + iq4[i + 1]) ? 1.0f : 0.0f;
    return index;
}

void nb_block_levels(const struct nb_block_grid *g, const float x[NB_TILE], float level[NB_TILE])
{
    if (g->table) {
        for (int lane = 0; lane < NB_TILE; lane++) level[lane] = table_level(x[lane]);
        return;
    }
    const float lo = g->lo, hi = g->hi;
    for (int lane = 0; lane < NB_TILE; lane++) level[lane] = nb_block_whole(x[lane], lo, hi);
}

static inline float inverse_of(float scale)
{
    return scale != 0.0f ? 1.0f / scale : 0.0f;
}

/* ---- the numeric interface, with a min in weight units where others have a zero ---- */

struct range {
    float lo, hi;
};

static struct range range_of(const struct nb_qspec *spec)
{
    if (!spec->symmetric) return (struct range){0.0f, (float)((1 << spec->elem.bits) - 1)};
    const float half = (float)(1 << (spec->elem.bits - 1));
    /* -128 is left out at 8 bits: the type's own encoders never write it. */
    return (struct range){spec->elem.bits == 8 ? -127.0f : -half, half - 1.0f};
}

static float offset_of(const struct nb_qspec *spec)
{
    return spec->symmetric ? (float)(1 << (spec->elem.bits - 1)) : 0.0f;
}

static void integer_lanes(const struct nb_qspec *spec, const float *w, int64_t n,
                          const struct nb_lane_params *p, uint8_t *code, float *value)
{
    const struct range range = range_of(spec);
    const float offset = offset_of(spec);
    for (int64_t i = 0; i < n; i++) {
        const float x = (w[i] + p->zero[i]) * inverse_of(p->scale[i]);
        const float level = nb_block_whole(x, range.lo, range.hi);
        code[i] = (uint8_t)(int)(level + offset);
        value[i] = p->scale[i] * level - p->zero[i];
    }
}

static void table_lanes(const struct nb_qspec *spec, const float *w, int64_t n,
                        const struct nb_lane_params *p, uint8_t *code, float *value)
{
    (void)spec;
    for (int64_t i = 0; i < n; i++) {
        const float x = (w[i] + p->zero[i]) * inverse_of(p->scale[i]);
        code[i] = (uint8_t)(int)table_index(x);
        value[i] = p->scale[i] * table_level(x) - p->zero[i];
    }
}

static unsigned nearest(const struct nb_qspec *spec, float w, const struct nb_group_params *p)
{
    const float x = (w + p->zero) * inverse_of(p->scale);
    if (spec->elem.kind == NB_ELEM_TABLE) return (unsigned)table_index(x);
    const struct range range = range_of(spec);
    return (unsigned)(nb_block_whole(x, range.lo, range.hi) + offset_of(spec));
}

static float value_of(const struct nb_qspec *spec, unsigned code, const struct nb_group_params *p)
{
    const float level =
        spec->elem.kind == NB_ELEM_TABLE ? iq4[code & 15u] : (float)code - offset_of(spec);
    return p->scale * level - p->zero;
}

#define INTEGER                                                                                    \
    {                                                                                              \
        .name = "block", .nearest = nearest, .value = value_of, .round_lanes = integer_lanes       \
    }
#define TABLE                                                                                      \
    {                                                                                              \
        .name = "block", .nearest = nearest, .value = value_of, .round_lanes = table_lanes         \
    }

static const struct nb_block_grid grids[] = {
    {"Q2_K", 16, 16, 2, 0, 3, NULL, 0, 15, 15, INTEGER},
    {"Q3_K", 16, 16, 3, -4, 3, NULL, -32, 31, 0, INTEGER},
    {"Q4_K", 32, 8, 4, 0, 15, NULL, 0, 63, 63, INTEGER},
    {"Q5_K", 32, 8, 5, 0, 31, NULL, 0, 63, 63, INTEGER},
    {"Q6_K", 16, 16, 6, -32, 31, NULL, -128, 127, 0, INTEGER},
    {"Q4_0", 32, 1, 4, -8, 7, NULL, 1, 1, 0, INTEGER},
    {"Q4_1", 32, 1, 4, 0, 15, NULL, 1, 1, 1, INTEGER},
    {"Q5_0", 32, 1, 5, -16, 15, NULL, 1, 1, 0, INTEGER},
    {"Q5_1", 32, 1, 5, 0, 31, NULL, 1, 1, 1, INTEGER},
    {"Q8_0", 32, 1, 8, -127, 127, NULL, 1, 1, 0, INTEGER},
    {"IQ4_NL", 32, 1, 4, 0, 15, iq4, 1, 1, 0, TABLE},
    {"IQ4_XS", 32, 8, 4, 0, 15, iq4, -32, 31, 0, TABLE},
};

const struct nb_block_grid *nb_block_grid_find(const char *name)
{
    for (size_t i = 0; i < sizeof grids / sizeof *grids; i++) {
        if (!strcmp(grids[i].name, name)) return &grids[i];
    }
    return NULL;
}

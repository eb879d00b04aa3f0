/* SPDX-License-Identifier: Apache-2.0
 *
 * scheme.c - the table of schemes. Source: checkpoint formats, sections 4 to 6; algorithms, sections 5 to 8. */
#include "pipeline/scheme.h"

#include <stddef.h>
#include <strings.h>

#include "numeric/elems.h"

#define INT(n)                                                                                     \
    {                                                                                              \
        .kind = NB_ELEM_INT, .bits = n, .vec = 1                                                   \
    }
#define E4M3                                                                                       \
    {                                                                                              \
        .kind = NB_ELEM_FLOAT, .bits = 8, .exp = 4, .man = 3, .vec = 1, .name = "e4m3"             \
    }
#define E2M1                                                                                       \
    {                                                                                              \
        .kind = NB_ELEM_FLOAT, .bits = 4, .exp = 2, .man = 1, .vec = 1, .name = "e2m1"             \
    }
#define TABLE(values, text)                                                                        \
    {                                                                                              \
        .kind = NB_ELEM_TABLE, .bits = 4, .vec = 1, .table = values, .name = text                  \
    }

#define WEIGHT_ONLY(n, words)                                                                      \
    {                                                                                              \
        .name = words, .format = "gptq", .best = "awq+gptq", .free_group = true, .free_sym = true, \
        .spec = {.elem = INT(n),                                                                   \
                 .group_rows = 1,                                                                  \
                 .group_cols = 128,                                                                \
                 .zero = NB_ZERO_CODE,                                                             \
                 .scale_dtype = NB_SCALES_OF_FORMAT},                                              \
    }

#define INT8_ROWS                                                                                  \
    .elem = INT(8), .group_rows = 1, .group_cols = -1, .zero = NB_ZERO_CODE, .symmetric = true,    \
    .zero_implied = true, .scale_dtype = NB_F32

#define BITSANDBYTES_4BIT(words, values, text)                                                     \
    {                                                                                              \
        .name = words, .format = "bnb", .best = "gptq", .free_group = true, .nests = true,         \
        .spec = {.elem = TABLE(values, text),                                                      \
                 .group_rows = 1,                                                                  \
                 .group_cols = 64,                                                                 \
                 .flat = true,                                                                     \
                 .scale_dtype = NB_F32},                                                           \
    }

#define FP8(words, where, rows, cols, kind)                                                        \
    {                                                                                              \
        .name = words, .format = where, .best = "gptq",                                            \
        .spec = {.elem = E4M3,                                                                     \
                 .group_rows = rows,                                                               \
                 .group_cols = cols,                                                               \
                 .scale_dtype = NB_F32,                                                            \
                 .act = kind,                                                                      \
                 .act_group = (kind) == NB_ACT_FP8_GROUP ? 128 : 0},                               \
    }

#define NVFP4(words, kind)                                                                         \
    {                                                                                              \
        .name = words, .format = "compressed-tensors", .best = "gptq",                             \
        .spec = {.elem = E2M1,                                                                     \
                 .group_rows = 1,                                                                  \
                 .group_cols = 16,                                                                 \
                 .scale_dtype = NB_F32,                                                            \
                 .super_groups = NB_WHOLE,                                                         \
                 .super_flat = true,                                                               \
                 .super_divides = true,                                                            \
                 .scale_bits = 8,                                                                  \
                 .scale_table = nb_e4m3_values,                                                    \
                 .act = kind},                                                                     \
    }

#define MX(words, what, kind)                                                                      \
    {                                                                                              \
        .name = words, .format = "compressed-tensors", .best = "gptq",                             \
        .spec = {.elem = what,                                                                     \
                 .group_rows = 1,                                                                  \
                 .group_cols = 32,                                                                 \
                 .scale_dtype = NB_F8_E8M0,                                                        \
                 .act = kind},                                                                     \
    }

static const struct nb_scheme schemes[] = {
    WEIGHT_ONLY(2, "W2A16"),
    WEIGHT_ONLY(3, "W3A16"),
    WEIGHT_ONLY(4, "W4A16"),
    WEIGHT_ONLY(8, "W8A16"),
    {.name = "W8A8",
     .format = "compressed-tensors",
     .best = "smoothquant+gptq",
     .spec = {INT8_ROWS, .act = NB_ACT_INT8_TOKEN}},
    {.name = "W8A8_STATIC",
     .format = "compressed-tensors",
     .best = "smoothquant+gptq",
     .spec = {INT8_ROWS, .act = NB_ACT_INT8_STATIC}},
    {.name = "INT8",
     .format = "bnb",
     .best = "gptq",
     .spec = {INT8_ROWS, .act = NB_ACT_INT8_OUTLIER, .act_threshold = 6.0f}},
    BITSANDBYTES_4BIT("NF4", nb_nf4_values, "nf4"),
    BITSANDBYTES_4BIT("FP4", nb_fp4_values, "fp4"),
    FP8("FP8", "compressed-tensors", NB_WHOLE, -1, NB_ACT_FP8_STATIC),
    FP8("FP8_DYNAMIC", "compressed-tensors", 1, -1, NB_ACT_FP8_TOKEN),
    FP8("FP8_BLOCK", "fp8", 128, 128, NB_ACT_FP8_GROUP),
    NVFP4("NVFP4", NB_ACT_NVFP4),
    NVFP4("NVFP4A16", NB_ACT_NONE),
    MX("MXFP4", E2M1, NB_ACT_MXFP4),
    MX("MXFP4A16", E2M1, NB_ACT_NONE),
    MX("MXFP8", E4M3, NB_ACT_MXFP8),
    MX("MXFP8A16", E4M3, NB_ACT_NONE),
};

enum { N_SCHEMES = sizeof schemes / sizeof *schemes };

const struct nb_scheme *nb_scheme_find(const char *name)
{
    for (size_t i = 0; i < N_SCHEMES; i++) {
        if (!strcasecmp(schemes[i].name, name)) return &schemes[i];
    }
    return NULL;
}

const struct nb_scheme *nb_scheme_of_bits(int bits)
{
    for (size_t i = 0; i < N_SCHEMES; i++) {
        if (schemes[i].free_sym && schemes[i].spec.elem.bits == bits) return &schemes[i];
    }
    return NULL;
}

void nb_scheme_list(struct nb_strbuf *list)
{
    for (size_t i = 0; i < N_SCHEMES; i++)
        nb_strbuf_printf(list, "%s%s", i ? ", " : "", schemes[i].name);
}

/* SPDX-License-Identifier: Apache-2.0
 *
 * gguf_types.c - sizes of tensor types and of metadata values.
 *
 * What the bytes of a block mean is numeric/'s business; here only how many there are, so that a tensor
 * can be held against the file it stands in. Source: GGUF specification, sections 1.1 and 4. */
#include "container/gguf_part.h"

#include <inttypes.h>

#include "base/mem.h"
#include "container/gguf.h"

/* Indexed by id; a name without elements is a type that was taken out of the format. */
static const struct nb_gguf_type types[NB_GGUF_TYPE_IDS] = {
    {"F32", 0, 1, 4},         {"F16", 1, 1, 2},         {"Q4_0", 2, 32, 18},
    {"Q4_1", 3, 32, 20},      {"Q4_2", 4, 0, 0},        {"Q4_3", 5, 0, 0},
    {"Q5_0", 6, 32, 22},      {"Q5_1", 7, 32, 24},      {"Q8_0", 8, 32, 34},
    {"Q8_1", 9, 32, 36},      {"Q2_K", 10, 256, 84},    {"Q3_K", 11, 256, 110},
    {"Q4_K", 12, 256, 144},   {"Q5_K", 13, 256, 176},   {"Q6_K", 14, 256, 210},
    {"Q8_K", 15, 256, 292},   {"IQ2_XXS", 16, 256, 66}, {"IQ2_XS", 17, 256, 74},
    {"IQ3_XXS", 18, 256, 98}, {"IQ1_S", 19, 256, 50},   {"IQ4_NL", 20, 32, 18},
    {"IQ3_S", 21, 256, 110},  {"IQ2_S", 22, 256, 82},   {"IQ4_XS", 23, 256, 136},
    {"I8", 24, 1, 1},         {"I16", 25, 1, 2},        {"I32", 26, 1, 4},
    {"I64", 27, 1, 8},        {"F64", 28, 1, 8},        {"IQ1_M", 29, 256, 56},
    {"BF16", 30, 1, 2},       {"Q4_0_4_4", 31, 0, 0},   {"Q4_0_4_8", 32, 0, 0},
    {"Q4_0_8_8", 33, 0, 0},   {"TQ1_0", 34, 256, 54},   {"TQ2_0", 35, 256, 66},
    {"IQ4_NL_4_4", 36, 0, 0}, {"IQ4_NL_4_8", 37, 0, 0}, {"IQ4_NL_8_8", 38, 0, 0},
    {"MXFP4", 39, 32, 17},    {"NVFP4", 40, 64, 36},    {"Q1_0", 41, 128, 18},
    {"Q2_0", 42, 64, 18},
};

const struct nb_gguf_type *nb_gguf_type_by_id(int64_t id)
{
    if (id < 0 || id >= NB_GGUF_TYPE_IDS || types[id].elems == 0) return NULL;
    return &types[id];
}

const char *nb_gguf_type_removed(int64_t id)
{
    if (id < 0 || id >= NB_GGUF_TYPE_IDS || types[id].elems != 0) return NULL;
    return types[id].name;
}

static const struct {
    const char *name;
    size_t bytes;
} values[NB_GGUF_VALUES] = {
    [NB_GGUF_U8] = {"uint8", 1},    [NB_GGUF_I8] = {"int8", 1},    [NB_GGUF_U16] = {"uint16", 2},
    [NB_GGUF_I16] = {"int16", 2},   [NB_GGUF_U32] = {"uint32", 4}, [NB_GGUF_I32] = {"int32", 4},
    [NB_GGUF_F32] = {"float32", 4}, [NB_GGUF_BOOL] = {"bool", 1},  [NB_GGUF_STRING] = {"string", 0},
    [NB_GGUF_ARRAY] = {"array", 0}, [NB_GGUF_U64] = {"uint64", 8}, [NB_GGUF_I64] = {"int64", 8},
    [NB_GGUF_F64] = {"float64", 8},
};

const char *nb_gguf_value_name(enum nb_gguf_value type)
{
    return values[type].name;
}

size_t nb_gguf_value_bytes(enum nb_gguf_value type)
{
    return values[type].bytes;
}

int nb_gguf_tensor_bytes(const struct nb_gguf_type *type, const int64_t ne[NB_GGUF_MAX_DIMS],
                         const char *where, uint64_t *bytes, struct nb_err *err)
{
    if (ne[0] % type->elems) {
        return nb_fail(err, NB_E_FORMAT,
                       "%s: rows of %" PRId64 " are no whole number of %s blocks of %d", where,
                       ne[0], type->name, type->elems);
    }
    /* A dimension of 0 counts as 1 here, so that no product of some dimensions can overflow either. */
    size_t count = 1, size;
    bool fits = nb_mul((size_t)(ne[0] / type->elems), (size_t)type->bytes, &size);
    for (int i = 0; fits && i < NB_GGUF_MAX_DIMS; i++) {
        fits = nb_mul(count, ne[i] ? (size_t)ne[i] : 1, &count) && count <= INT64_MAX;
        if (fits && i > 0) fits = nb_mul(size, (size_t)ne[i], &size);
    }
    if (!fits || size > INT64_MAX) {
        return nb_fail(err, NB_E_FORMAT,
                       "%s: the size of %" PRId64 " x %" PRId64 " x %" PRId64 " x %" PRId64
                       " %s overflows 63 bits",
                       where, ne[0], ne[1], ne[2], ne[3], type->name);
    }
    *bytes = size;
    return 0;
}

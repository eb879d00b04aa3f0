/* SPDX-License-Identifier: Apache-2.0
 *
 * tile.c - tiles and packing in plain C: what the typedefs of ops.h mean. */
#include <string.h>

#include "backend/cpu/generic/level.h"
#include "base/half.h"

enum { MR = 4, NR = 8, MR64 = 4, NR64 = 4 };

static void tile_f32(const struct nb_tile_f32 *t)
{
    float acc[MR][NR] = {{0}};
    for (int64_t kk = 0; kk < t->k; kk++) {
        for (int r = 0; r < t->rows; r++) {
            for (int j = 0; j < NR; j++) acc[r][j] += t->a[kk * t->lda + r] * t->b[kk * t->ldb + j];
        }
    }
    for (int r = 0; r < t->rows; r++) {
        float *c = t->c + r * t->ldc;
        for (int j = 0; j < NR; j++) c[j] = t->add ? c[j] + acc[r][j] : acc[r][j];
    }
}

static void tile_f64(const struct nb_tile_f64 *t)
{
    double acc[MR64][NR64] = {{0}};
    for (int64_t kk = 0; kk < t->k; kk++) {
        for (int r = 0; r < t->rows; r++) {
            for (int j = 0; j < NR64; j++)
                acc[r][j] += t->a[kk * t->lda + r] * t->b[kk * t->ldb + j];
        }
    }
    for (int r = 0; r < t->rows; r++) {
        double *c = t->c + r * t->ldc;
        for (int j = 0; j < NR64; j++) c[j] = t->add ? c[j] + acc[r][j] : acc[r][j];
    }
}

static int32_t bits_of(const float *container)
{
    int32_t i;
    memcpy(&i, container, sizeof i);
    return i;
}

/* Pairs of 16 bits. */
static void tile_i8(const struct nb_tile_f32 *t)
{
    uint32_t acc[MR][NR] = {{0}};
    for (int64_t kk = 0; kk < t->k; kk++) {
        for (int r = 0; r < t->rows; r++) {
            const int32_t a = bits_of(t->a + kk * t->lda + r);
            for (int j = 0; j < NR; j++) {
                const int32_t b = bits_of(t->b + kk * t->ldb + j);
                acc[r][j] += (uint32_t)((int16_t)a * (int16_t)b) +
                             (uint32_t)((int16_t)(a >> 16) * (int16_t)(b >> 16));
            }
        }
    }
    for (int r = 0; r < t->rows; r++) {
        float *c = t->c + r * t->ldc;
        for (int j = 0; j < NR; j++) {
            const uint32_t sum = t->add ? (uint32_t)bits_of(c + j) + acc[r][j] : acc[r][j];
            memcpy(c + j, &sum, sizeof sum);
        }
    }
}

static float element(const void *src, enum nb_dtype type, int64_t i)
{
    uint16_t h;
    if (type == NB_F32) {
        float f;
        memcpy(&f, (const unsigned char *)src + i * 4, sizeof f);
        return f;
    }
    memcpy(&h, (const unsigned char *)src + i * 2, sizeof h);
    return type == NB_F16 ? nb_f16_to_f32(h) : nb_bf16_to_f32(h);
}

static void pack_rows_f32(const struct nb_pack *p)
{
    for (int64_t kk = 0; kk < p->k; kk++) {
        for (int r = 0; r < p->w; r++) {
            p->dst[kk * p->w + r] = r < p->rows ? element(p->src, p->type, r * p->ld + kk) : 0.0f;
        }
    }
}

static void pack_cols_f32(const struct nb_pack *p)
{
    const float *src = p->src;
    for (int64_t kk = 0; kk < p->k; kk++) {
        for (int r = 0; r < p->w; r++)
            p->dst[kk * p->w + r] = r < p->rows ? src[kk * p->ld + r] : 0.0f;
    }
}

static void pack_rows_f64(const struct nb_pack_f64 *p)
{
    for (int64_t kk = 0; kk < p->k; kk++) {
        for (int r = 0; r < p->w; r++)
            p->dst[kk * p->w + r] = r < p->rows ? p->src[r * p->ld + kk] : 0.0;
    }
}

static void dot(const struct nb_dot *d)
{
    for (int64_t r = 0; r < d->rows; r++) {
        for (int64_t i = 0; i < d->m; i++) {
            float lanes[8] = {
                0}; /* eight running sums: the rounding of a vector loop, and its speed */
            for (int64_t kk = 0; kk < d->k; kk++) {
                lanes[kk & 7] += d->x[i * d->ldx + kk] * element(d->w, d->type, r * d->ldw + kk);
            }
            d->y[i * d->ldy + r] = ((lanes[0] + lanes[4]) + (lanes[2] + lanes[6])) +
                                   ((lanes[1] + lanes[5]) + (lanes[3] + lanes[7]));
        }
    }
}

static void dequant_u8(float *dst, const uint8_t *code, int64_t n, float scale, float zero)
{
    for (int64_t i = 0; i < n; i++) dst[i] = ((float)code[i] - zero) * scale;
}

static void unpack_u4(uint8_t *code, const uint8_t *src, int64_t n)
{
    for (int64_t i = 0; i < n; i++) code[i] = (i & 1) ? src[i / 2] >> 4 : src[i / 2] & 15;
}

void nb_generic_tiles(struct nb_cpu_ops *ops)
{
    ops->tile_name = "generic";
    ops->mr = MR;
    ops->nr = NR;
    ops->tile_f32 = tile_f32;
    ops->pack_rows_f32 = pack_rows_f32;
    ops->pack_cols_f32 = pack_cols_f32;
    ops->mr64 = MR64;
    ops->nr64 = NR64;
    ops->tile_f64 = tile_f64;
    ops->pack_rows_f64 = pack_rows_f64;
    ops->code_k = 2;
    ops->tile_i8 = tile_i8;
    ops->dot = dot;
    ops->dequant_u8 = dequant_u8;
    ops->unpack_u4 = unpack_u4;
}

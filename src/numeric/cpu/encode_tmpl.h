/* SPDX-License-Identifier: Apache-2.0
 *
 * encode_tmpl.h - blocks of 32 elements from a row: plain rounding without importance, a search with it; and what
 * the encoders of K-blocks share. Included after search_tmpl.h. Source: GGUF specification, sections 5.2, 5.4,
 * 5.5. */

static inline int clamped(int v, int lo, int hi)
{
    v = v > lo ? v : lo;
    return v < hi ? v : hi;
}

/* x toward zero in [0, top]; NaN gives 0. */
static inline int truncated(float x, int top)
{
    x = x > 0.0f ? x : 0.0f;
    return (int)(x < (float)top ? x : (float)top);
}

static inline float f16_of(float x)
{
    return nb_f16_to_f32(nb_f32_to_f16(x));
}

static inline float magnitude_of(const float *x, int n)
{
    float top = 0.0f;
    for (int i = 0; i < n; i++) top = fabsf(x[i]) > top ? fabsf(x[i]) : top;
    return top;
}

/* Value of the largest magnitude, the first of equals; 0 in a block of zeros. */
static inline float extreme_value(const float *x, int n)
{
    const float top = magnitude_of(x, n);
    if (top == 0.0f) return 0.0f;
    for (int i = 0; i < n; i++) {
        if (fabsf(x[i]) == top) return x[i];
    }
    return 0.0f;
}

static inline float first_extreme(const float *scale, int n, int stride)
{
    float top = 0.0f, extreme = 0.0f;
    for (int i = 0; i < n; i++) {
        const float v = scale[i * stride];
        if (!(fabsf(v) > top)) continue;
        top = fabsf(v);
        extreme = v;
    }
    return extreme;
}

/* Sub-blocks [0, LANES) of n elements side by side; those from `count` on are zeros. */
static inline void gather(const float *src, int64_t count, int n, float *out)
{
    const int lanes = count < LANES ? (int)count : LANES;
    if (lanes < LANES) memset(out, 0, sizeof *out * (size_t)(n * LANES));
    for (int l = 0; l < lanes; l++) {
        for (int i = 0; i < n; i++) out[i * LANES + l] = src[l * n + i];
    }
}

/* w = w sqrt(s + x^2), s of each lane */
static inline void weigh(float *w, const float *x, int n, const float *s)
{
    const VF mean = v_load(s);
    for (int i = 0; i < n; i++) {
        const VF xi = v_load(x + i * LANES);
        v_store(w + i * LANES, v_load(w + i * LANES) * v_sqrt(mean + xi * xi));
    }
}

/* w = x^2 */
static inline void weigh_squares(float *w, const float *x, int n)
{
    for (int i = 0; i < n; i++) {
        const VF xi = v_load(x + i * LANES);
        v_store(w + i * LANES, xi * xi);
    }
}

/* 32 codes of 4 bits, or of 5 with the fifth bits at high. */
static inline void put_nibbles32(unsigned char *qs, unsigned char *high, const uint8_t *code)
{
    for (int i = 0; i < 16; i++) qs[i] = (unsigned char)((code[i] & 15) | (code[i + 16] & 15) << 4);
    if (!high) return;
    uint32_t bits = 0;
    for (int i = 0; i < 32; i++) bits |= (uint32_t)(code[i] >> 4 & 1) << i;
    for (int i = 0; i < 4; i++) high[i] = (unsigned char)(bits >> 8 * i & 255u);
}

/* Mean of x^2 over the row, in the order of the reference. */
static inline float row_mean_square(const float *x, int64_t n)
{
    float sum = 0.0f;
    for (int64_t i = 0; i < n; i++) sum += x[i] * x[i];
    return sum / (float)n;
}

/* Q4_0 and Q5_0: the extreme on code 0 (5 bits: high). */
static inline void encode_symmetric(const float *x, int64_t n, int half, int bytes,
                                    unsigned char *b)
{
    unsigned char *const end = b + n / 32 * bytes;
    for (; b < end; b += bytes, x += 32) {
        const float d = extreme_value(x, 32) / -(float)half;
        const float id = d != 0.0f ? 1.0f / d : 0.0f;
        uint8_t code[32];
        for (int i = 0; i < 32; i++)
            code[i] = (uint8_t)truncated(x[i] * id + ((float)half + 0.5f), 2 * half - 1);
        nb_block_put_half(b, nb_f32_to_f16(d));
        put_nibbles32(b + bytes - 16, half == 16 ? b + 2 : NULL, code);
    }
}

static inline void encode_symmetric_weighted(const float *x, const float *importance, int64_t n,
                                             int half, int bytes, unsigned char *b)
{
    float mean[LANES], xs[32 * LANES], ws[32 * LANES];
    const float row = row_mean_square(x, n);
    for (int l = 0; l < LANES; l++) mean[l] = row;
    for (int64_t i = 0; i < n; i += 32 * LANES) {
        struct fit fit;
        gather(x + i, (n - i) / 32, 32, xs);
        gather(importance + i, (n - i) / 32, 32, ws);
        weigh(ws, xs, 32, mean);
        fit_symmetric(xs, ws, 32, half, &fit);
        for (int l = 0; l < LANES && i + 32 * l < n; l++, b += bytes) {
            const float *v = x + i + 32 * l, inverse = fit.inverse[l];
            uint8_t code[32];
            for (int k = 0; k < 32; k++)
                code[k] = (uint8_t)(clamped(nb_block_nearest_int(inverse * v[k]), -half, half - 1) +
                                    half);
            if (inverse == 0.0f) memset(code, 0, sizeof code);
            nb_block_put_half(b, nb_f32_to_f16(fit.scale[l]));
            put_nibbles32(b + bytes - 16, half == 16 ? b + 2 : NULL, code);
        }
    }
}

/* Q4_1 and Q5_1: from the least value (code 0) to the largest. */
static inline void encode_shifted(const float *x, int64_t n, int top, int bytes, unsigned char *b)
{
    unsigned char *const end = b + n / 32 * bytes;
    for (; b < end; b += bytes, x += 32) {
        float lo = x[0], hi = x[0];
        for (int i = 1; i < 32; i++) {
            lo = x[i] < lo ? x[i] : lo;
            hi = x[i] > hi ? x[i] : hi;
        }
        const float d = (hi - lo) / (float)top, id = d != 0.0f ? 1.0f / d : 0.0f;
        uint8_t code[32];
        for (int i = 0; i < 32; i++) code[i] = (uint8_t)truncated((x[i] - lo) * id + 0.5f, top);
        nb_block_put_half(b, nb_f32_to_f16(d));
        nb_block_put_half(b + 2, nb_f32_to_f16(lo));
        put_nibbles32(b + bytes - 16, top == 31 ? b + 4 : NULL, code);
    }
}

static inline void encode_shifted_weighted(const float *x, const float *importance, int64_t n,
                                           int top, int bytes, unsigned char *b)
{
    const struct shifted_grid grid = {32, top, -0.9f, 0.05f, 36, false};
    float mean[LANES], xs[32 * LANES], ws[32 * LANES];
    const float row = row_mean_square(x, n);
    for (int l = 0; l < LANES; l++) mean[l] = row;
    for (int64_t i = 0; i < n; i += 32 * LANES) {
        struct fit fit;
        gather(x + i, (n - i) / 32, 32, xs);
        gather(importance + i, (n - i) / 32, 32, ws);
        weigh(ws, xs, 32, mean);
        fit_shifted(&grid, xs, ws, &fit);
        for (int l = 0; l < LANES && i + 32 * l < n; l++, b += bytes) {
            const float *v = x + i + 32 * l, inverse = fit.inverse[l], base = fit.base[l];
            uint8_t code[32];
            for (int k = 0; k < 32; k++)
                code[k] = (uint8_t)clamped(nb_block_nearest_int(inverse * (v[k] - base)), 0, top);
            nb_block_put_half(b, nb_f32_to_f16(fit.scale[l]));
            nb_block_put_half(b + 2, nb_f32_to_f16(fit.min[l]));
            put_nibbles32(b + bytes - 16, top == 31 ? b + 4 : NULL, code);
        }
    }
}

static void encode_q4_0(const float *x, const float *importance, int64_t n, void *out)
{
    if (importance) encode_symmetric_weighted(x, importance, n, 8, 18, out);
    else encode_symmetric(x, n, 8, 18, out);
}

static void encode_q5_0(const float *x, const float *importance, int64_t n, void *out)
{
    if (importance) encode_symmetric_weighted(x, importance, n, 16, 22, out);
    else encode_symmetric(x, n, 16, 22, out);
}

static void encode_q4_1(const float *x, const float *importance, int64_t n, void *out)
{
    if (importance) encode_shifted_weighted(x, importance, n, 15, 20, out);
    else encode_shifted(x, n, 15, 20, out);
}

static void encode_q5_1(const float *x, const float *importance, int64_t n, void *out)
{
    if (importance) encode_shifted_weighted(x, importance, n, 31, 24, out);
    else encode_shifted(x, n, 31, 24, out);
}

static void encode_q8_0(const float *x, const float *importance, int64_t n, void *out)
{
    unsigned char *b = out;
    (void)importance;
    for (int64_t i = 0; i < n; i += 32, b += 34) {
        const float d = magnitude_of(x + i, 32) / 127.0f, id = d != 0.0f ? 1.0f / d : 0.0f;
        nb_block_put_half(b, nb_f32_to_f16(d));
        for (int k = 0; k < 32; k++)
            b[2 + k] = (unsigned char)nb_block_round_away(x[i + k] * id, 127.0f);
    }
}

/* Index of the nearest of |values| 0 1 2 3 4 6 8 12 times d, of both signs the first best. */
static inline uint8_t nearest_fp4(float x, float d)
{
    int best = 0;
    float least = fabsf((float)nb_block_fp4_values[0] * d - x);
    for (int k = 1; k < 16; k++) {
        const float e = fabsf((float)nb_block_fp4_values[k] * d - x);
        best = e < least ? k : best;
        least = e < least ? e : least;
    }
    return (uint8_t)best;
}

/* The exponent of the largest value less two; below what e can say it is 0. */
static void encode_mxfp4(const float *x, const float *importance, int64_t n, void *out)
{
    unsigned char *b = out;
    (void)importance;
    for (int64_t i = 0; i < n; i += 32, b += 17) {
        const float top = magnitude_of(x + i, 32);
        const int e = top > 0.0f ? (int)floorf(log2f(top)) - 2 + 127 : 0;
        b[0] = (unsigned char)(e > 0 ? e : 0);
        const float d = nb_block_e8m0_half(b[0]);
        uint8_t code[32];
        for (int k = 0; k < 32; k++) code[k] = nearest_fp4(x[i + k], d);
        put_nibbles32(b + 1, NULL, code);
    }
}

/* SPDX-License-Identifier: Apache-2.0
 *
 * encode_k_tmpl.h - blocks of 256 elements from a row: the search of each sub-block, then of the block's own
 * scale of scales, then codes for what is stored. Included after encode_tmpl.h. LANES blocks are worked on at
 * once: their sub-blocks fill the lanes of the first search, the blocks those of the second.
 * Source: GGUF specification, sections 5.4 and 5.5. */

struct
    chunk { /* up to LANES blocks; arrays [sub-block][block], lanes without a block hold anything */
    const float *x, *importance;
    int blocks, subs, n; /* sub-blocks per block, elements of each */
    float scale[16 * LANES], offset[16 * LANES], inverse[16 * LANES], base[16 * LANES];
    float weight[16 * LANES]; /* sum of the weights of a sub-block */
    float mean[LANES];        /* of x^2, as the type takes it */
    float level[16 * LANES], level2[16 * LANES], d[LANES], dmin[LANES];
    uint8_t code[256 * LANES]; /* of the search by descent: natural order */
};

/* The blocks from element `at` of a row on. */
static inline void chunk_take(struct chunk *c, const float *x, const float *importance, int64_t at,
                              int64_t n)
{
    const int64_t blocks = (n - at) / (c->subs * c->n);
    c->x = x + at;
    c->importance = importance ? importance + at : NULL;
    c->blocks = blocks < LANES ? (int)blocks : LANES;
}

/* sum x^2 of each block times `share`; four blocks at a time, each in its own order. */
static inline void chunk_means(struct chunk *c, float share)
{
    for (int b = 0; b < c->blocks; b += 4) {
        const int last = c->blocks - b < 4 ? c->blocks - b - 1 : 3;
        const float *x[4];
        float sum[4] = {0};
        for (int k = 0; k < 4; k++) x[k] = c->x + 256 * (b + (k < last ? k : last));
        for (int i = 0; i < 256; i++) {
            for (int k = 0; k < 4; k++) sum[k] += x[k][i] * x[k][i];
        }
        for (int k = 0; k <= last; k++) c->mean[b + k] = sum[k] * share;
    }
}

/* Elements and, with importance, weights of sub-blocks [first, first + LANES). */
static inline void chunk_gather(const struct chunk *c, int first, float *xs, float *ws)
{
    const int count = c->blocks * c->subs - first;
    gather(c->x + first * c->n, count, c->n, xs);
    if (c->importance) gather(c->importance + first * c->n, count, c->n, ws);
}

static inline void chunk_weigh(const struct chunk *c, int first, const float *xs, float *ws)
{
    float mean[LANES];
    for (int l = 0; l < LANES; l++) {
        const int block = (first + l) / c->subs;
        mean[l] = block < c->blocks ? c->mean[block] : 0.0f;
    }
    weigh(ws, xs, c->n, mean);
}

static inline void chunk_keep(const struct chunk *c, int first, const float *lanes, float *kept)
{
    for (int l = 0; l < LANES; l++) {
        const int s = first + l;
        if (s < c->blocks * c->subs) kept[s % c->subs * LANES + s / c->subs] = lanes[l];
    }
}

static inline void chunk_keep_weights(struct chunk *c, int first, const float *ws)
{
    VF sum = v_set(0.0f);
    float lanes[LANES];
    for (int i = 0; i < c->n; i++) sum = sum + v_load(ws + i * LANES);
    v_store(lanes, sum);
    chunk_keep(c, first, lanes, c->weight);
}

/* rms(x) + |x| of each sub-block, or |x|. */
static inline void weigh_plainly(const float *xs, int n, bool absolute, float *ws)
{
    VF mean = v_set(0.0f);
    if (!absolute) {
        for (int i = 0; i < n; i++) mean = mean + v_load(xs + i * LANES) * v_load(xs + i * LANES);
        mean = v_sqrt(mean / v_set((float)n));
    }
    for (int i = 0; i < n; i++) {
        v_store(ws + i * LANES, mean + v_abs(v_load(xs + i * LANES)));
    }
}

/* ---- Q2_K, Q4_K, Q5_K: scale and minimum ---- */

static inline void search_shifted(struct chunk *c, const struct shifted_grid *grid)
{
    float xs[32 * LANES], ws[32 * LANES];
    for (int s = 0; s < c->blocks * c->subs; s += LANES) {
        struct fit fit;
        chunk_gather(c, s, xs, ws);
        if (c->importance) {
            chunk_weigh(c, s, xs, ws);
            chunk_keep_weights(c, s, ws);
        } else {
            weigh_plainly(xs, c->n, grid->absolute, ws);
        }
        fit_shifted(grid, xs, ws, &fit);
        for (int l = 0; l < LANES; l++) fit.min[l] = -fit.min[l];
        chunk_keep(c, s, fit.scale, c->scale);
        chunk_keep(c, s, fit.min, c->offset);
        chunk_keep(c, s, fit.inverse, c->inverse);
        chunk_keep(c, s, fit.base, c->base);
    }
}

/* Values >= 0 of a block as d times codes 0 .. top: the largest on top. */
static inline void scales_plainly(const struct chunk *c, const float *v, int top, float *level,
                                  float *d)
{
    for (int b = 0; b < c->blocks; b++) {
        float most = 0.0f;
        for (int j = 0; j < c->subs; j++) most = v[j * LANES + b] > most ? v[j * LANES + b] : most;
        const float inverse = most > 0.0f ? (float)top / most : 0.0f;
        for (int j = 0; j < c->subs; j++) {
            const int l = nb_block_nearest_int(inverse * v[j * LANES + b]);
            level[j * LANES + b] = (float)clamped(l, 0, top);
        }
        d[b] = most / (float)top;
    }
}

static inline void scales_of(struct chunk *c, int top)
{
    if (c->importance) {
        fit_scales(c->scale, c->weight, c->subs, top, c->level, c->d);
        fit_scales(c->offset, c->weight, c->subs, top, c->level2, c->dmin);
    } else {
        scales_plainly(c, c->scale, top, c->level, c->d);
        scales_plainly(c, c->offset, top, c->level2, c->dmin);
    }
}

/* Codes of a block for its stored scales; where a scale is 0, those of the search. */
static inline void round_shifted(const struct chunk *c, int b, int top, uint8_t *code)
{
    const float d = f16_of(c->d[b]), dmin = f16_of(c->dmin[b]);
    for (int j = 0; j < c->subs; j++) {
        const int at = j * LANES + b;
        const float *x = c->x + 256 * b + c->n * j;
        const float t = d * c->level[at], m = dmin * c->level2[at];
        uint8_t *q = code + c->n * j;
        if (t != 0.0f) {
            for (int i = 0; i < c->n; i++)
                q[i] = (uint8_t)clamped(nb_block_nearest_int((x[i] + m) / t), 0, top);
        } else {
            const float inverse = c->inverse[at], base = c->base[at];
            for (int i = 0; i < c->n; i++)
                q[i] = (uint8_t)clamped(nb_block_nearest_int(inverse * (x[i] - base)), 0, top);
        }
    }
}

/* Bytes 0 .. 15 of Q4_K and Q5_K. */
static inline void put_head(const struct chunk *c, int b, unsigned char *out)
{
    uint8_t scale[8], min[8];
    for (int j = 0; j < 8; j++) {
        scale[j] = (uint8_t)c->level[j * LANES + b];
        min[j] = (uint8_t)c->level2[j * LANES + b];
    }
    nb_block_put_half(out, nb_f32_to_f16(c->d[b]));
    nb_block_put_half(out + 2, nb_f32_to_f16(c->dmin[b]));
    nb_block_put_scale_mins(out + 4, scale, min);
}

static inline void put_nibbles256(unsigned char *qs, const uint8_t *code)
{
    for (int k = 0; k < 4; k++) {
        for (int r = 0; r < 32; r++)
            qs[32 * k + r] =
                (unsigned char)((code[64 * k + r] & 15) | (code[64 * k + 32 + r] & 15) << 4);
    }
}

static inline void put_pairs256(unsigned char *qs, const uint8_t *code)
{
    for (int h = 0; h < 2; h++) {
        const uint8_t *q = code + 128 * h;
        for (int r = 0; r < 32; r++)
            qs[32 * h + r] = (unsigned char)((q[r] & 3) | (q[r + 32] & 3) << 2 |
                                             (q[r + 64] & 3) << 4 | (q[r + 96] & 3) << 6);
    }
}

static void encode_q4_k(const float *x, const float *importance, int64_t n, void *out)
{
    static const struct shifted_grid plain = {32, 15, -1.0f, 0.1f, 20, false};
    static const struct shifted_grid weighted = {32, 15, -0.9f, 0.05f, 36, false};
    struct chunk c = {.subs = 8, .n = 32};
    unsigned char *bytes = out;
    for (int64_t i = 0; i < n; i += 256 * LANES) {
        chunk_take(&c, x, importance, i, n);
        if (importance) chunk_means(&c, 2.0f / 256.0f);
        search_shifted(&c, importance ? &weighted : &plain);
        scales_of(&c, 63);
        for (int b = 0; b < c.blocks; b++, bytes += 144) {
            uint8_t code[256];
            round_shifted(&c, b, 15, code);
            put_head(&c, b, bytes);
            put_nibbles256(bytes + 16, code);
        }
    }
}

static void encode_q5_k(const float *x, const float *importance, int64_t n, void *out)
{
    static const struct shifted_grid plain = {32, 31, -0.5f, 0.1f, 15, false};
    static const struct shifted_grid weighted = {32, 31, -0.9f, 0.05f, 36, false};
    struct chunk c = {.subs = 8, .n = 32};
    unsigned char *bytes = out;
    for (int64_t i = 0; i < n; i += 256 * LANES) {
        chunk_take(&c, x, importance, i, n);
        if (importance) chunk_means(&c, 2.0f / 256.0f);
        search_shifted(&c, importance ? &weighted : &plain);
        scales_of(&c, 63);
        for (int b = 0; b < c.blocks; b++, bytes += 176) {
            uint8_t code[256];
            round_shifted(&c, b, 31, code);
            put_head(&c, b, bytes);
            put_nibbles256(bytes + 48, code);
            for (int r = 0; r < 32; r++) {
                unsigned high = 0;
                for (int j = 0; j < 8; j++) high |= (unsigned)(code[32 * j + r] >> 4) << j;
                bytes[16 + r] = (unsigned char)high;
            }
        }
    }
}

static void encode_q2_k(const float *x, const float *importance, int64_t n, void *out)
{
    static const struct shifted_grid plain = {16, 3, -0.5f, 0.1f, 15, true};
    static const struct shifted_grid weighted = {16, 3, -0.9f, 0.05f, 36, false};
    struct chunk c = {.subs = 16, .n = 16};
    unsigned char *bytes = out;
    for (int64_t i = 0; i < n; i += 256 * LANES) {
        chunk_take(&c, x, importance, i, n);
        if (importance) chunk_means(&c, 1.0f / 256.0f);
        search_shifted(&c, importance ? &weighted : &plain);
        scales_of(&c, 15);
        for (int b = 0; b < c.blocks; b++, bytes += 84) {
            uint8_t code[256];
            round_shifted(&c, b, 3, code);
            for (int j = 0; j < 16; j++)
                bytes[j] = (unsigned char)((int)c.level[j * LANES + b] |
                                           (int)c.level2[j * LANES + b] << 4);
            put_pairs256(bytes + 16, code);
            nb_block_put_half(bytes + 80, nb_f32_to_f16(c.d[b]));
            nb_block_put_half(bytes + 82, nb_f32_to_f16(c.dmin[b]));
        }
    }
}

/* ---- Q3_K, Q6_K: scale alone ---- */

/* Scales by QX; weights are the importance (times sqrt(mean + x^2) when `shaped`) or x^2. */
static inline void search_symmetric(struct chunk *c, int half, bool shaped)
{
    float xs[16 * LANES], ws[16 * LANES];
    for (int s = 0; s < c->blocks * 16; s += LANES) {
        struct fit fit;
        chunk_gather(c, s, xs, ws);
        if (!c->importance) {
            weigh_squares(ws, xs, 16);
        } else if (shaped) {
            chunk_weigh(c, s, xs, ws);
            chunk_keep_weights(c, s, ws);
        }
        fit_symmetric(xs, ws, 16, half, &fit);
        chunk_keep(c, s, fit.scale, c->scale);
        chunk_keep(c, s, fit.inverse, c->inverse);
    }
}

static inline void search_by_descent(struct chunk *c)
{
    float xs[16 * LANES], level[16 * LANES], scale[LANES];
    for (int s = 0; s < c->blocks * 16; s += LANES) {
        gather(c->x + 16 * s, c->blocks * 16 - s, 16, xs);
        fit_by_descent(xs, level, scale);
        chunk_keep(c, s, scale, c->scale);
        for (int l = 0; l < LANES && s + l < c->blocks * 16; l++) {
            for (int i = 0; i < 16; i++) c->code[16 * (s + l) + i] = (uint8_t)level[i * LANES + l];
        }
    }
}

/* Codes -half .. half - 1 (stored plus half) of a block for its stored scales; level: signed scale codes. */
static inline void round_symmetric(const struct chunk *c, int b, int half, bool kept, uint8_t *code)
{
    const float d = f16_of(c->d[b]);
    for (int j = 0; j < 16; j++) {
        const int at = j * LANES + b;
        const float *x = c->x + 256 * b + 16 * j;
        const float t = d * c->level[at], inverse = c->inverse[at];
        uint8_t *q = code + 16 * j;
        if (t != 0.0f) {
            for (int i = 0; i < 16; i++)
                q[i] = (uint8_t)(clamped(nb_block_nearest_int(x[i] / t), -half, half - 1) + half);
        } else if (kept) {
            memcpy(q, c->code + 256 * b + 16 * j, 16);
        } else if (inverse != 0.0f) {
            for (int i = 0; i < 16; i++)
                q[i] = (uint8_t)(clamped(nb_block_nearest_int(inverse * x[i]), -half, half - 1) +
                                 half);
        } else {
            memset(q, 0, 16);
        }
    }
}

/* Signed scale codes of a block: the extreme on -half. False when all are 0. */
static inline bool signed_scales(struct chunk *c, int b, int half, float least)
{
    const float extreme = first_extreme(c->scale + b, 16, LANES);
    if (!(fabsf(extreme) >= least) || extreme == 0.0f) return false;
    const float inverse = -(float)half / extreme;
    for (int j = 0; j < 16; j++) {
        const int at = j * LANES + b;
        c->level[at] =
            (float)clamped(nb_block_nearest_int(inverse * c->scale[at]), -half, half - 1);
    }
    c->d[b] = 1.0f / inverse;
    return true;
}

static void encode_q6_k(const float *x, const float *importance, int64_t n, void *out)
{
    struct chunk c = {.subs = 16, .n = 16};
    unsigned char *bytes = out;
    for (int64_t i = 0; i < n; i += 256 * LANES) {
        chunk_take(&c, x, importance, i, n);
        search_symmetric(&c, 32, false);
        for (int b = 0; b < c.blocks; b++, bytes += 210) {
            uint8_t code[256];
            if (!signed_scales(&c, b, 128, TINY)) {
                memset(bytes, 0, 210);
                continue;
            }
            round_symmetric(&c, b, 32, false, code);
            for (int h = 0; h < 2; h++) {
                const uint8_t *q = code + 128 * h;
                for (int r = 0; r < 64; r++)
                    bytes[64 * h + r] = (unsigned char)((q[r] & 15) | (q[r + 64] & 15) << 4);
                for (int r = 0; r < 32; r++)
                    bytes[128 + 32 * h + r] =
                        (unsigned char)(q[r] >> 4 | (q[r + 32] >> 4) << 2 | (q[r + 64] >> 4) << 4 |
                                        (q[r + 96] >> 4) << 6);
            }
            for (int j = 0; j < 16; j++)
                bytes[192 + j] = (unsigned char)(int)c.level[j * LANES + b];
            nb_block_put_half(bytes + 208, nb_f32_to_f16(c.d[b]));
        }
    }
}

/* Scales of Q3_K: with importance a second search over the blocks, else the extreme on -32. */
static inline void q3_scales(struct chunk *c)
{
    if (c->importance) {
        struct fit fit;
        fit_symmetric(c->scale, c->weight, 16, 32, &fit);
        for (int b = 0; b < c->blocks; b++) {
            c->d[b] = fit.scale[b];
            for (int j = 0; j < 16; j++) {
                const int at = j * LANES + b;
                c->level[at] =
                    (float)clamped(nb_block_nearest_int(fit.inverse[b] * c->scale[at]), -32, 31);
                if (fit.inverse[b] == 0.0f) c->level[at] = -32.0f;
            }
        }
        return;
    }
    for (int b = 0; b < c->blocks; b++) {
        if (signed_scales(c, b, 32, 0.0f)) continue;
        c->d[b] = 0.0f;
        for (int j = 0; j < 16; j++) c->level[j * LANES + b] = -32.0f; /* bytes of zeros */
    }
}

static void encode_q3_k(const float *x, const float *importance, int64_t n, void *out)
{
    struct chunk c = {.subs = 16, .n = 16};
    unsigned char *bytes = out;
    for (int64_t i = 0; i < n; i += 256 * LANES) {
        chunk_take(&c, x, importance, i, n);
        if (importance) {
            chunk_means(&c, 2.0f / 256.0f);
            search_symmetric(&c, 4, true);
        } else {
            search_by_descent(&c);
        }
        q3_scales(&c);
        for (int b = 0; b < c.blocks; b++, bytes += 110) {
            uint8_t code[256], scale[16];
            round_symmetric(&c, b, 4, !importance, code);
            for (int r = 0; r < 32; r++) {
                unsigned high = 0;
                for (int j = 0; j < 8; j++) high |= (unsigned)(code[32 * j + r] >> 2) << j;
                bytes[r] = (unsigned char)high;
            }
            put_pairs256(bytes + 32, code);
            for (int j = 0; j < 16; j++) scale[j] = (uint8_t)((int)c.level[j * LANES + b] + 32);
            nb_block_put_q3_scales(bytes + 96, scale);
            nb_block_put_half(bytes + 108, nb_f32_to_f16(c.d[b]));
        }
    }
}

/* ---- IQ4: a table of 16 values ---- */

/* Codes of 32 elements: nearest table values of x * inverse, ties upward. */
static inline void table_codes(const float *x, float inverse, uint8_t *code)
{
    for (int i = 0; i < 32; i++) {
        const float v = x[i] * inverse;
        int k = 0;
        for (int t = 0; t < 15; t++) k += v >= nb_block_iq4_middle[t];
        code[i] = (uint8_t)k;
    }
}

/* Scales of sub-blocks [first, first + LANES) of 32, `subs` of them making a block. */
static inline void search_table(const struct chunk *c, int first, float *scale)
{
    float xs[32 * LANES], ws[32 * LANES];
    chunk_gather(c, first, xs, ws);
    if (c->importance) chunk_weigh(c, first, xs, ws);
    else weigh_squares(ws, xs, 32);
    fit_table(xs, ws, scale);
}

static void encode_iq4_xs(const float *x, const float *importance, int64_t n, void *out)
{
    struct chunk c = {.subs = 8, .n = 32};
    unsigned char *bytes = out;
    for (int64_t i = 0; i < n; i += 256 * LANES) {
        chunk_take(&c, x, importance, i, n);
        if (importance) chunk_means(&c, 2.0f / 256.0f);
        for (int s = 0; s < c.blocks * 8; s += LANES) {
            float scale[LANES];
            search_table(&c, s, scale);
            chunk_keep(&c, s, scale, c.scale);
        }
        for (int b = 0; b < c.blocks; b++, bytes += 136) {
            const float d = -first_extreme(c.scale + b, 8, LANES) / 32.0f;
            const float id = d != 0.0f ? 1.0f / d : 0.0f;
            uint8_t level[8], code[32];
            nb_block_put_half(bytes, nb_f32_to_f16(d));
            for (int j = 0; j < 8; j++) {
                const int l = clamped(nb_block_nearest_int(id * c.scale[j * LANES + b]), -32, 31);
                const float t = d * (float)l;
                level[j] = (uint8_t)(l + 32);
                table_codes(c.x + 256 * b + 32 * j, t != 0.0f ? 1.0f / t : 0.0f, code);
                put_nibbles32(bytes + 8 + 16 * j, NULL, code);
            }
            nb_block_put_iq4_xs_scales(bytes, level);
        }
    }
}

/* Blocks of 32, each with a mean of its own. */
static void encode_iq4_nl(const float *x, const float *importance, int64_t n, void *out)
{
    struct chunk c = {.subs = 1, .n = 32};
    unsigned char *bytes = out;
    for (int64_t i = 0; i < n; i += 32 * LANES) {
        float scale[LANES];
        chunk_take(&c, x, importance, i, n);
        for (int b = 0; b < c.blocks; b++) {
            float sum = 0.0f;
            for (int k = 0; k < 32; k++) sum += c.x[32 * b + k] * c.x[32 * b + k];
            c.mean[b] = sum * (2.0f / 32.0f);
        }
        search_table(&c, 0, scale);
        for (int b = 0; b < c.blocks; b++, bytes += 18) {
            uint8_t code[32];
            nb_block_put_half(bytes, nb_f32_to_f16(scale[b]));
            table_codes(c.x + 32 * b, scale[b] != 0.0f ? 1.0f / scale[b] : 0.0f, code);
            put_nibbles32(bytes + 2, NULL, code);
        }
    }
}

/* SPDX-License-Identifier: Apache-2.0
 *
 * bitsandbytes' encodings: worked examples and hashes of the formats document, every level equal to the plain one,
 * nearest is nearest, limits and refusals. Bytes of the library itself: tests/golden/test_bnb.c. */
#include <float.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "base/half.h"
#include "base/rng.h"
#include "base/sha256.h"
#include "numeric/bnb.h"
#include "numeric/elems.h"

static struct nb_qspec spec_4bit(const struct nb_elem *elem, int64_t block, bool nested)
{
    struct nb_qspec s = {
        .elem = *elem, .group_rows = 1, .group_cols = block, .flat = true, .scale_dtype = NB_F32};
    if (!nested) return s;
    s.super_groups = 256;
    s.super_flat = true;
    s.scale_bits = 8;
    s.scale_table = nb_dynamic_map;
    return s;
}

static struct nb_qspec spec_8bit(void)
{
    return (struct nb_qspec){.elem = {.kind = NB_ELEM_INT, .bits = 8, .vec = 1},
                             .group_rows = 1,
                             .group_cols = -1,
                             .scale_dtype = NB_F32,
                             .zero = NB_ZERO_CODE,
                             .symmetric = true,
                             .zero_implied = true,
                             .act = NB_ACT_INT8_OUTLIER,
                             .act_threshold = 6.0f};
}

static const struct nb_numeric *numeric_of(const struct nb_qspec *spec)
{
    const struct nb_numeric *n = nb_numeric_for(spec);
    assert_non_null(n);
    return n;
}

struct encoded {
    struct nb_arena arena;
    struct nb_qmat q;
};

static int try_encode(struct encoded *e, const struct nb_qspec *spec, int64_t rows, int64_t cols,
                      const float *w, struct nb_err *err)
{
    const struct nb_grid_opts opts = {.spec = *spec};
    nb_arena_init(&e->arena);
    assert_int_equal(nb_qmat_init(&e->q, spec, rows, cols, &e->arena, err), 0);
    return numeric_of(spec)->encode(&e->q, &opts, w, NULL, err);
}

static void encode(struct encoded *e, const struct nb_qspec *spec, int64_t rows, int64_t cols,
                   const float *w)
{
    struct nb_err err;
    if (try_encode(e, spec, rows, cols, w, &err)) fail_msg("%s", err.text);
}

static void pack(const uint8_t *codes, int n, uint8_t *out)
{
    for (int i = 0; i < n / 2; i++) out[i] = (uint8_t)(codes[2 * i] << 4 | codes[2 * i + 1]);
}

static void assert_hash(const void *data, size_t bytes, const char *hex)
{
    struct nb_sha256 h;
    char got[NB_SHA256_HEX];
    nb_sha256_init(&h);
    nb_sha256_add(&h, data, bytes);
    nb_sha256_finish(&h, got);
    assert_string_equal(got, hex);
}

/* Formats, 4.6. */
static void test_worked_examples(void **state)
{
    (void)state;
    static const char *const want[2] = {
        "000001111111122222333344455566677788999aaabbbccccddddeeeeeeeffff",
        "bbbbbbaaaaaaaadddddccccfffeeee9901166667774444555552222222233333"};
    float w[64];
    for (int i = 0; i < 64; i++) w[i] = (float)(i - 32) / 32.0f;
    for (int kind = 0; kind < 2; kind++) {
        const struct nb_qspec s = spec_4bit(kind ? &nb_elem_fp4 : &nb_elem_nf4, 64, false);
        struct encoded e;
        char text[65] = "";
        encode(&e, &s, 1, 64, w);
        for (int i = 0; i < 64; i++) text[i] = "0123456789abcdef"[e.q.codes[i] & 15];
        assert_string_equal(text, want[kind]);
        assert_true(e.q.scale.value[0] == 1.0f);
        nb_arena_release(&e.arena);
    }
    static const float rows[8] = {0.5f, -1, 0.25f, 2, 1, 1, -0.5f, 0};
    static const uint8_t codes[8] = {0xa0, 0x40, 0x90, 0xff, 255, 255, 64, 128};
    const struct nb_qspec s = spec_8bit();
    struct encoded e;
    encode(&e, &s, 2, 4, rows);
    assert_memory_equal(e.q.codes, codes, 8);
    assert_true(e.q.scale.value[0] == 2.0f / 127.0f && e.q.scale.value[1] == 1.0f / 127.0f);
    nb_arena_release(&e.arena);
}

/* Formats, 4.6: absmax 1, .5, .25, .75. */
static void test_double_quantization_example(void **state)
{
    (void)state;
    static const uint8_t codes[4] = {255, 47, 0, 207};
    static const float restored[4] = {1.0f, 0.50048828125f, 0.25263673067092896f, 0.74951171875f};
    static const float absmax[4] = {1.0f, 0.5f, 0.25f, 0.75f};
    const struct nb_qspec s = spec_4bit(&nb_elem_nf4, 32, true);
    float w[128];
    for (int i = 0; i < 128; i++) w[i] = absmax[i / 32] * (i % 32 ? 0.3f : -1.0f);
    struct encoded e;
    encode(&e, &s, 4, 32, w);
    assert_true(e.q.scale.offset == 0.625f && e.q.scale.super[0] == 0.375f);
    assert_memory_equal(e.q.scale.codes, codes, 4);
    for (int i = 0; i < 4; i++) assert_true(e.q.scale.value[i] == restored[i]);
    nb_arena_release(&e.arena);
}

/* Formats, 8.2; offset and nested_absmax are those of bitsandbytes 0.50.2 with torch 2.13 (golden/bnb/vectors.json). */
static void test_published_hashes(void **state)
{
    (void)state;
    static float w[4096];
    static uint8_t bytes[2048];
    uint32_t x = 2024;
    for (int i = 0; i < 4096; i++) {
        x = x * 1664525u + 1013904223u;
        w[i] = (float)((int32_t)(x >> 8) - (1 << 23)) * 0x1p-24f;
    }
    assert_hash(w, sizeof w, "71de162983d0ca1179d2dce483fe328d4e14f7d77804f7a8708a5405946b32b6");
    for (int kind = 0; kind < 2; kind++) {
        const struct nb_elem *elem = kind ? &nb_elem_fp4 : &nb_elem_nf4;
        const struct nb_qspec plain = spec_4bit(elem, 64, false),
                              nested = spec_4bit(elem, 64, true);
        struct encoded e;
        encode(&e, &plain, 32, 128, w);
        pack(e.q.codes, 4096, bytes);
        assert_hash(bytes, 2048,
                    kind ? "dd666beaddeaffc8a4ff6739ec7820b0f01f3b88650ba30d22edc1a640ede744"
                         : "f4db0df8d9b6f2b5d2bef58443de7ec57a45f383d38f5872942304f0f95dd9ea");
        assert_hash(e.q.scale.value, 256,
                    "6752bbbb3451220c09df198e8d205196b3af5d38f11bc8bb0da34eeabf217f8f");
        nb_arena_release(&e.arena);
        encode(&e, &nested, 32, 128, w);
        assert_hash(e.q.scale.codes, 64,
                    "18d26b181a01e5ac7e2f9e705895bdb4a5695965904ee566efb18ec4c6bc96fa");
        assert_true(e.q.scale.offset == 0.4923597276210785f);
        assert_int_equal(nb_f32_bits(e.q.scale.super[0]), 1013503328);
        nb_arena_release(&e.arena);
    }
}

/* torch.mean over the generator above as f32 in [0, 1), torch 2.13, one thread: sizes that leave vectors, floats and
 * levels of its cascade over. */
static void test_mean_is_torchs(void **state)
{
    (void)state;
    static const struct {
        int n;
        uint32_t bits;
    } want[] = {
        {1, 0x3e7482f4},     {2, 0x3f137db7},     {5, 0x3f0c57fe},     {7, 0x3f10be96},
        {8, 0x3f0059d0},     {9, 0x3ee817a0},     {31, 0x3f08a191},    {32, 0x3f0539b8},
        {33, 0x3f0212a9},    {63, 0x3efd5376},    {100, 0x3f019398},   {127, 0x3f065792},
        {511, 0x3efe8944},   {512, 0x3efe73b7},   {513, 0x3efe46be},   {520, 0x3eff2886},
        {1000, 0x3efb3fc9},  {2047, 0x3efb0e44},  {2048, 0x3efb1f30},  {5000, 0x3f00e261},
        {16384, 0x3f017e7c}, {32767, 0x3f002545}, {32768, 0x3f00245c}, {40000, 0x3f001e0c},
        {65536, 0x3eff5838}, {70001, 0x3eff5288},
    };
    static float x[70001];
    uint32_t seed = 7;
    for (size_t i = 0; i < sizeof x / sizeof *x; i++) {
        seed = seed * 1664525u + 1013904223u;
        x[i] = (float)(seed >> 8) * 0x1p-24f;
    }
    for (size_t i = 0; i < sizeof want / sizeof *want; i++)
        assert_int_equal(nb_f32_bits(nb_bnb_mean(x, want[i].n)), want[i].bits);
}

/* ---- levels ---- */

static void make_weights(struct nb_rng *rng, float *w, int n, int trial)
{
    static const float special[] = {0.0f,     -0.0f,      1.0f,      -1.0f, 1e-38f,
                                    -1e-42f,  65504.0f,   1e37f,     0.5f,  0x1p-24f,
                                    0x1p-25f, -0.583333f, 0.2083333f};
    const float scale = (float)pow(10.0, (double)(trial % 9 - 6));
    for (int i = 0; i < n; i++) {
        w[i] = scale * (float)nb_rng_normal(rng);
        if (trial % 4 == 0 && nb_rng_below(rng, 3) == 0)
            w[i] = special[nb_rng_below(rng, sizeof special / sizeof *special)];
        if (trial % 4 == 1) w[i] = (float)((int)nb_rng_below(rng, 41) - 20) / 32.0f;
    }
}

enum { MAX = 300 };

struct outputs {
    uint8_t code[MAX + 1], lane_code[MAX + 1], half_code[MAX + 1];
    float value[MAX + 1], lane_value[MAX + 1], error[2];
    struct nb_bnb_moments moments[2];
    uint32_t top;
};

static void run_level(const struct nb_bnb_level *l, int kind, int n, const float *const in[3],
                      struct outputs *o)
{
    const float *w = in[0], *u = in[1], *scale = in[2];
    memset(o, 0xa5, sizeof *o);
    const struct nb_bnb_scale s = nb_bnb_scale_of(scale[0]);
    l->round[kind](w, n, s, o->code, o->value);
    l->lanes[kind](w, scale, n, o->lane_code, o->lane_value);
    for (int i = 0; i < 2; i++) {
        o->error[i] = l->error[kind](w, i ? u : NULL, n, s);
        l->moments[kind](w, i ? u : NULL, n, s, &o->moments[i]);
    }
    o->top = l->top(w, n);
    const float a = nb_f16_to_f32(nb_f32_to_f16(nb_f32_from_bits(o->top)));
    if (a < 65505.0f) l->halves(w, n, a > 0.0f ? 127.0f / a : 0.0f, o->half_code);
}

static void test_levels_agree(void **state)
{
    (void)state;
    static struct outputs want, got, again;
    float w[MAX], u[MAX], scale[MAX];
    const float *const in[3] = {w, u, scale};
    struct nb_rng rng;
    nb_rng_init(&rng, 11);
    for (int trial = 0; trial < 600; trial++) {
        const int kind = trial % NB_BNB_KINDS, n = 1 + (int)nb_rng_below(&rng, MAX);
        make_weights(&rng, w, n, trial / 3);
        for (int i = 0; i < n; i++) {
            u[i] = (float)exp(2.0 * nb_rng_normal(&rng));
            scale[i] = fabsf(w[i]) + 1e-5f;
            if (nb_rng_below(&rng, 9) == 0) scale[i] = 1e-40f;
        }
        run_level(nb_bnb_level_at(0), kind, n, in, &want);
        assert_int_equal(want.code[n], 0xa5);
        for (int l = 1; nb_bnb_level_at(l); l++) {
            run_level(nb_bnb_level_at(l), kind, n, in, &got);
            if (memcmp(&got, &want, sizeof got) != 0)
                fail_msg("%s, kind %d, %d weights differ from plain C", nb_bnb_level_at(l)->name,
                         kind, n);
            memset(&again, 0xa5, sizeof again);
            nb_bnb_level_at(l)->round[kind](w, n, nb_bnb_scale_of(scale[0]), again.code, NULL);
            nb_bnb_level_at(l)->lanes[kind](w, scale, n, NULL, again.lane_value);
            assert_memory_equal(again.code, want.code, sizeof want.code);
            assert_memory_equal(again.lane_value, want.lane_value, sizeof want.lane_value);
        }
    }
}

/* ---- rounding ---- */

static const struct nb_qspec *each_spec(int i)
{
    static struct nb_qspec s[3];
    s[0] = spec_4bit(&nb_elem_nf4, 64, false);
    s[1] = spec_4bit(&nb_elem_fp4, 64, false);
    s[2] = spec_8bit();
    return &s[i];
}

static void test_nearest_is_nearest(void **state)
{
    (void)state;
    struct nb_rng rng;
    nb_rng_init(&rng, 3);
    for (int trial = 0; trial < 3000; trial++) {
        const struct nb_qspec *s = each_spec(trial % 3);
        const struct nb_numeric *n = numeric_of(s);
        struct nb_group_params p = {.scale = 0.01f + (float)nb_rng_below(&rng, 1000) * 0.001f,
                                    .zero = s->zero == NB_ZERO_CODE ? 128.0f : 0.0f};
        const int codes = 1 << s->elem.bits, first = codes == 256 ? 1 : 0;
        const float w = (codes == 256 ? 150.0f : 1.2f) * p.scale * (float)nb_rng_normal(&rng);
        const unsigned got = n->nearest(s, w, &p);
        float best = FLT_MAX;
        for (int c = first; c < codes; c++)
            best = fminf(best, fabsf(n->value(s, (unsigned)c, &p) - w));
        assert_true(fabsf(n->value(s, got, &p) - w) <= best + 2e-6f * p.scale);
        uint8_t code[2];
        float value[2];
        const float scale[2] = {p.scale, p.scale}, zero[2] = {p.zero, p.zero}, ws[2] = {w, w};
        n->round_lanes(s, ws, 2, &(struct nb_lane_params){scale, zero}, code, value);
        assert_true(code[1] == got && value[1] == n->value(s, got, &p));
        n->round_group(s, ws, 2, &p, code, value);
        assert_true(code[0] == got && value[0] == n->value(s, got, &p));
        /* every value decodes to itself */
        const float v = n->value(s, got, &p);
        assert_true(n->value(s, n->nearest(s, v, &p), &p) == v);
    }
}

/* ---- fit ---- */

static double error_of(const struct nb_qspec *s, const float *w, const float *u, int n,
                       const struct nb_group_params *p)
{
    double sum = 0;
    float value[256];
    numeric_of(s)->round_group(s, w, n, p, NULL, value);
    for (int i = 0; i < n; i++)
        sum += (u ? (double)u[i] : 1.0) * pow((double)value[i] - (double)w[i], 2);
    return sum;
}

/* Relative squared error on Gaussian weights in groups of 64 (algorithms, sections 5 and 14). */
static void test_fit_errors(void **state)
{
    (void)state;
    static const double none[3] = {0.00846, 0.0149, 3.51e-5},
                        searched[3] = {0.00725, 0.0135, 3.4e-5};
    for (int i = 0; i < 3; i++) {
        const struct nb_qspec *s = each_spec(i);
        struct nb_rng rng;
        nb_rng_init(&rng, 9);
        double plain = 0, best = 0, weighted[2] = {0, 0}, power = 0;
        for (int g = 0; g < 3000; g++) {
            float w[64], u[64];
            for (int k = 0; k < 64; k++) {
                w[k] = (float)nb_rng_normal(&rng);
                u[k] = (float)exp(nb_rng_normal(&rng));
                power += (double)w[k] * (double)w[k];
            }
            struct nb_group_params p, m, c;
            struct nb_grid_opts o = {.spec = *s};
            numeric_of(s)->fit(&o, w, NULL, 64, &p);
            o.clip = NB_CLIP_MSE;
            numeric_of(s)->fit(&o, w, u, 64, &m); /* mse looks at the weights alone */
            o.clip = NB_CLIP_WEIGHTED;
            numeric_of(s)->fit(&o, w, u, 64, &c);
            assert_true(m.scale > 0 && c.scale > 0);
            assert_true(error_of(s, w, NULL, 64, &m) <= error_of(s, w, NULL, 64, &p) * 1.00001);
            plain += error_of(s, w, NULL, 64, &p);
            best += error_of(s, w, NULL, 64, &m);
            weighted[0] += error_of(s, w, u, 64, &m);
            weighted[1] += error_of(s, w, u, 64, &c);
        }
        assert_true(fabs(plain / power - none[i]) < 0.03 * none[i]);
        assert_true(best / power < 1.005 * searched[i]);
        assert_true(weighted[1] < 0.99 * weighted[0]);
    }
}

static void test_fit_limits(void **state)
{
    (void)state;
    for (int i = 0; i < 3; i++) {
        const struct nb_qspec *s = each_spec(i);
        for (int clip = 0; clip < 3; clip++) {
            struct nb_grid_opts o = {.spec = *s, .clip = (enum nb_clip)clip};
            float w[70] = {0}, u[70] = {0};
            struct nb_group_params p;
            numeric_of(s)->fit(&o, w, u, 70, &p);
            assert_true(p.scale > 0 && isfinite(1.0f / p.scale));
            uint8_t code[70];
            numeric_of(s)->round_group(s, w, 70, &p, code, NULL);
            for (int k = 0; k < 70; k++) assert_true(numeric_of(s)->value(s, code[k], &p) == 0.0f);
            w[3] = INFINITY;
            numeric_of(s)->fit(&o, w, NULL, 70, &p);
            assert_true(isfinite(p.scale) && p.scale > 0);
            w[3] = NAN;
            numeric_of(s)->fit(&o, w, NULL, 70, &p);
            assert_true(isfinite(p.scale) && p.scale > 0);
            w[3] = 1e-20f;
            numeric_of(s)->fit(&o, w, NULL, 70, &p);
            assert_true(isfinite(1.0f / p.scale));
        }
    }
}

/* ---- matrices ---- */

static void test_same_for_any_threads(void **state)
{
    (void)state;
    enum { ROWS = 300, COLS = 1000 };
    static float w[ROWS * COLS];
    struct nb_rng rng;
    struct nb_err err;
    nb_rng_init(&rng, 21);
    for (int i = 0; i < ROWS * COLS; i++) w[i] = 0.02f * (float)nb_rng_normal(&rng);
    for (int i = 0; i < 3; i++) {
        struct nb_qspec s = i < 2 ? spec_4bit(&nb_elem_nf4, 64, i == 1) : spec_8bit();
        const struct nb_grid_opts o = {.spec = s};
        struct encoded e;
        encode(&e, &s, ROWS, COLS, w);
        const size_t planes = (size_t)nb_qmat_planes(&e.q);
        for (int threads = 2; threads <= 3; threads++) {
            struct nb_pool *pool = nb_pool_new(threads, &err);
            struct nb_qmat q;
            assert_int_equal(nb_qmat_init(&q, &s, ROWS, COLS, &e.arena, &err), 0);
            assert_int_equal(numeric_of(&s)->encode(&q, &o, w, pool, &err), 0);
            assert_memory_equal(q.codes, e.q.codes, ROWS * COLS);
            assert_memory_equal(q.scale.value, e.q.scale.value, planes * sizeof(float));
            nb_pool_free(pool);
        }
        if (i == 1) { /* values are what the hub makes of the codes */
            float *kept = nb_arena_alloc(&e.arena, planes, sizeof *kept);
            memcpy(kept, e.q.scale.value, planes * sizeof *kept);
            for (int64_t g = 0; g < nb_qmat_group_rows(&e.q); g++) nb_qmat_fill_values(&e.q, g);
            assert_memory_equal(kept, e.q.scale.value, planes * sizeof *kept);
        }
        nb_arena_release(&e.arena);
    }
}

/* Blocks run across rows, the last one is short; a block may be larger than a row and than the matrix. */
static void test_flat_blocks(void **state)
{
    (void)state;
    static const int64_t blocks[] = {32, 64, 128, 4096};
    float w[7 * 37];
    for (int i = 0; i < 7 * 37; i++) w[i] = sinf((float)(i * i)) * 0.3f;
    for (size_t b = 0; b < sizeof blocks / sizeof *blocks; b++) {
        const struct nb_qspec s = spec_4bit(&nb_elem_nf4, blocks[b], false);
        struct encoded e;
        encode(&e, &s, 7, 37, w);
        assert_int_equal(nb_qmat_planes(&e.q), (7 * 37 + blocks[b] - 1) / blocks[b]);
        float row[37];
        for (int64_t n = 0; n < 7; n++) {
            nb_qmat_dequant_row(&e.q, n, row);
            for (int64_t k = 0; k < 37; k++) {
                const int64_t i = n * 37 + k, from = i / blocks[b] * blocks[b];
                float a = 0;
                for (int64_t j = from; j < from + blocks[b] && j < 7 * 37; j++)
                    a = fmaxf(a, fabsf(w[j]));
                assert_true(fabsf(row[k] - w[i]) <= 0.153f * a);
                assert_true(e.q.scale.value[i / blocks[b]] == a);
            }
        }
        nb_arena_release(&e.arena);
    }
}

static void test_zero_blocks(void **state)
{
    (void)state;
    static const uint8_t zero[3] = {7, 0, 128};
    float w[3 * 64] = {0};
    w[70] = -3.0f; /* the middle row or block is not empty */
    for (int i = 0; i < 3; i++) {
        const struct nb_qspec *s = each_spec(i);
        struct encoded e;
        encode(&e, s, 3, 64, w);
        assert_true(e.q.scale.value[0] == 0.0f && e.q.scale.value[2] == 0.0f);
        for (int k = 0; k < 3 * 64; k++) assert_true(k == 70 || e.q.codes[k] == zero[i]);
        float row[64];
        nb_qmat_dequant_row(&e.q, 0, row);
        for (int k = 0; k < 64; k++) assert_true(row[k] == 0.0f);
        nb_arena_release(&e.arena);
    }
}

static void test_refusals(void **state)
{
    (void)state;
    struct nb_err err;
    struct encoded e;
    float w[128];
    for (int i = 0; i < 3; i++) {
        const struct nb_qspec *s = each_spec(i);
        static const float bad[] = {NAN, INFINITY, -INFINITY};
        for (int b = 0; b < 3; b++) {
            for (int k = 0; k < 128; k++) w[k] = 0.1f;
            w[67] = bad[b];
            assert_int_equal(try_encode(&e, s, 2, 64, w, &err), NB_E_NUMERIC);
            assert_non_null(strstr(err.text, "row 1, column 3 is not a finite number"));
            nb_arena_release(&e.arena);
        }
    }
    const struct nb_qspec eight = spec_8bit(), nested = spec_4bit(&nb_elem_nf4, 64, true);
    w[67] = 65520.0f;
    assert_int_equal(try_encode(&e, &eight, 2, 64, w, &err), NB_E_NUMERIC);
    assert_non_null(strstr(err.text, "row 1, column 3 is beyond 65520"));
    nb_arena_release(&e.arena);
    w[67] = nextafterf(65520.0f, 0.0f);
    assert_int_equal(try_encode(&e, &eight, 2, 64, w, &err), 0);
    nb_arena_release(&e.arena);
    for (int k = 0; k < 128; k++) w[k] = 3e38f;
    assert_int_equal(try_encode(&e, &nested, 2, 64, w, &err), NB_E_NUMERIC);
    assert_non_null(strstr(err.text, "choose plain absmax"));
    nb_arena_release(&e.arena);
    struct nb_qspec rows = spec_4bit(&nb_elem_nf4, 48, false); /* groups that end with the rows */
    rows.flat = false;
    assert_int_equal(try_encode(&e, &rows, 2, 64, w, &err), NB_E_SPEC);
    nb_arena_release(&e.arena);
}

/* Freely chosen scales: what is above 0 stays so, a second time changes nothing in 8 bits. */
static void test_settle(void **state)
{
    (void)state;
    struct nb_err err;
    struct nb_arena arena;
    struct nb_qmat q;
    nb_arena_init(&arena);
    struct nb_grid_opts o = {.spec = spec_4bit(&nb_elem_nf4, 64, true)};
    assert_int_equal(nb_qmat_init(&q, &o.spec, 40, 640, &arena, &err), 0);
    for (int i = 0; i < 400; i++) q.scale.value[i] = i % 7 ? 0.5f + 0.001f * (float)i : 1e-6f;
    assert_int_equal(numeric_of(&o.spec)->settle(&q, &o, &err), 0);
    for (int i = 0; i < 400; i++) {
        const float want = i % 7 ? 0.5f + 0.001f * (float)i : 1e-6f;
        assert_true(q.scale.value[i] > 0.0f && fabsf(q.scale.value[i] - want) < 0.005f);
    }
    o.spec = spec_4bit(&nb_elem_nf4, 64, false);
    assert_int_equal(nb_qmat_init(&q, &o.spec, 1, 64, &arena, &err), 0);
    q.scale.value[0] = 0.3f;
    assert_int_equal(numeric_of(&o.spec)->settle(&q, &o, &err), 0);
    assert_true(q.scale.value[0] == 0.3f);
    o.spec = spec_8bit();
    assert_int_equal(nb_qmat_init(&q, &o.spec, 1000, 8, &arena, &err), 0);
    for (int i = 0; i < 1000; i++) q.scale.value[i] = 0.01f + 1e-5f * (float)i;
    assert_int_equal(numeric_of(&o.spec)->settle(&q, &o, &err), 0);
    for (int i = 0; i < 1000; i++) {
        const float s = q.scale.value[i];
        assert_true(fabsf(s - (0.01f + 1e-5f * (float)i)) < 1e-8f && nb_bnb_int8_scale(s) == s);
    }
    nb_arena_release(&arena);
}

static void test_supports(void **state)
{
    (void)state;
    struct nb_qspec s = spec_4bit(&nb_elem_nf4, 64, true);
    assert_string_equal(numeric_of(&s)->name, "bnb4");
    s.super_flat = false;
    assert_null(nb_numeric_for(&s));
    s = spec_4bit(&nb_elem_fp4, 64, false);
    assert_string_equal(numeric_of(&s)->name, "bnb4");
    s.scale_dtype = NB_F16;
    assert_null(nb_numeric_for(&s));
    s = spec_4bit(&nb_elem_fp4, 64, false);
    s.elem.table = nb_dynamic_map;
    assert_null(nb_numeric_for(&s));
    s = spec_8bit();
    assert_string_equal(numeric_of(&s)->name, "bnb8");
    s.act = NB_ACT_INT8_TOKEN; /* W8A8 is plain int8 */
    assert_string_equal(numeric_of(&s)->name, "int");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_worked_examples),
        cmocka_unit_test(test_double_quantization_example),
        cmocka_unit_test(test_published_hashes),
        cmocka_unit_test(test_mean_is_torchs),
        cmocka_unit_test(test_levels_agree),
        cmocka_unit_test(test_nearest_is_nearest),
        cmocka_unit_test(test_fit_errors),
        cmocka_unit_test(test_fit_limits),
        cmocka_unit_test(test_same_for_any_threads),
        cmocka_unit_test(test_flat_blocks),
        cmocka_unit_test(test_zero_blocks),
        cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_settle),
        cmocka_unit_test(test_supports),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

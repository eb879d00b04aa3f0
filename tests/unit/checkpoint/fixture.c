/* SPDX-License-Identifier: Apache-2.0
 *
 * fixture.c - see fixture.h. */
#include "fixture.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "checkpoint/internal.h"
#include "support/tiny_model.h"

static size_t bytes_of(enum nb_dtype dtype, int rank, const int64_t *shape)
{
    size_t n = (size_t)nb_dtype_bits(dtype) / 8;
    for (int i = 0; i < rank; i++) n *= (size_t)shape[i];
    return n;
}

struct nb_model *fixture_open(const char *folder, const char *quant_config,
                              const struct fixture_tensor *t, size_t n)
{
    struct nb_err err;
    struct nb_st_writer *w = nb_st_writer_new();
    for (size_t i = 0; i < n; i++) {
        if (nb_st_writer_plan(w, t[i].name, t[i].dtype, t[i].rank, t[i].shape, &err))
            fail_msg("%s", err.text);
    }
    struct nb_st_writer_opts o = {.dir = folder};
    if (nb_st_writer_open(w, &o, &err)) fail_msg("%s", err.text);
    for (size_t i = 0; i < n; i++) {
        size_t bytes = bytes_of(t[i].dtype, t[i].rank, t[i].shape);
        if (nb_st_writer_put(w, t[i].name, t[i].data, bytes, &err)) fail_msg("%s", err.text);
    }
    if (nb_st_writer_finish(w, &err)) fail_msg("%s", err.text);
    nb_st_writer_free(w);

    struct nb_model *m = nb_xalloc(sizeof *m);
    m->dir = nb_xstrdup(folder);
    if (nb_safetensors_open(&m->tensors, folder, &err)) fail_msg("%s", err.text);
    m->quant_config = nb_json_parse(quant_config, strlen(quant_config), 64, "quant_config", &err);
    if (!m->quant_config) fail_msg("%s", err.text);
    if (nb_quant_config_checkpoint(m->quant_config, &m->checkpoint, &err)) fail_msg("%s", err.text);
    if (m->checkpoint->parse(m, &m->checkpoint_state, &err)) fail_msg("%s", err.text);
    return m;
}

void fixture_vector(struct nb_qmat *q, int bits, struct nb_arena *arena)
{
    struct nb_err err;
    struct nb_qspec spec = tiny_spec(bits, 32, false);
    if (nb_qmat_init(q, &spec, 64, 128, arena, &err)) fail_msg("%s", err.text);
    uint32_t x = 12345;
    for (int k = 0; k < 128; k++) {
        for (int n = 0; n < 64; n++) {
            x = x * 1664525u + 1013904223u;
            q->codes[n * 128 + k] = (uint8_t)(x >> (32 - bits));
        }
    }
    for (int g = 0; g < 4; g++) {
        for (int n = 0; n < 64; n++) {
            x = x * 1664525u + 1013904223u;
            q->zero.value[n * 4 + g] = (float)(1 + (x >> (32 - bits)) % ((1u << bits) - 1));
            q->scale.value[n * 4 + g] = 1;
        }
    }
}

const struct nb_packed_tensor *fixture_find(const struct nb_packed_tensor *t, int n,
                                            const char *suffix)
{
    for (int i = 0; i < n; i++) {
        if (!strcmp(t[i].suffix, suffix)) return &t[i];
    }
    fail_msg("no tensor %s", suffix);
    return NULL;
}

void fixture_hash(const struct nb_packed_tensor *t, int n, const char *suffix,
                  char hex[NB_SHA256_HEX])
{
    const struct nb_packed_tensor *p = fixture_find(t, n, suffix);
    nb_sha256_bytes(p->data, bytes_of(p->dtype, p->rank, p->shape), hex);
}

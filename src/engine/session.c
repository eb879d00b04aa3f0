/* SPDX-License-Identifier: Apache-2.0
 *
 * session.c - one growing sequence: its keys and values, and all memory a step needs, taken once.
 *
 * A prompt is fed in stretches of CHUNK tokens, so that a session's memory is the cache plus a
 * fixed part. */
#include <inttypes.h>
#include <string.h>

#include "base/mem.h"
#include "engine/internal.h"

enum { CHUNK = 512 };

struct nb_session {
    struct nb_engine *e;
    int64_t max_tokens, length, chunk;
    struct nb_rope_table rope;
    float *k, *v; /* [layers][max_tokens][kv width] */
    float *h, *x, *y, *scratch;
    float *memory; /* all of the above */
};

static int take_memory(struct nb_session *s, struct nb_err *err)
{
    const struct nb_arch *a = s->e->arch;
    const size_t kv = (size_t)(a->n_kv_heads * a->head_dim), width = (size_t)nb_pass_width(a);
    const size_t chunk = (size_t)s->chunk, scratch = (size_t)nb_pass_scratch_floats(a);
    size_t cache, work, total;
    bool fits = nb_mul((size_t)s->max_tokens, (size_t)a->n_layers, &cache) &&
                nb_mul(cache, kv, &cache) &&
                nb_mul(chunk, (size_t)a->hidden_size + 2 * width + scratch, &work) &&
                nb_mul(cache, 2, &total) && nb_add(total, work, &total);
    s->memory = fits ? nb_alloc(total, sizeof *s->memory) : NULL;
    if (!s->memory) {
        return nb_fail(err, NB_E_NOMEM, "no memory for a session of %" PRId64 " tokens",
                       s->max_tokens);
    }
    s->k = s->memory;
    s->v = s->k + cache;
    s->h = s->v + cache;
    s->x = s->h + chunk * (size_t)a->hidden_size;
    s->y = s->x + chunk * width;
    s->scratch = s->y + chunk * width;
    return nb_rope_table_reserve(&s->rope, a, s->chunk, err);
}

int nb_session_new(struct nb_session **out, struct nb_engine *e, int64_t max_tokens,
                   struct nb_err *err)
{
    *out = NULL;
    if (max_tokens < 1) {
        return nb_fail(err, NB_E_USAGE,
                       "a session of %" PRId64 " tokens was asked for, expected at least 1",
                       max_tokens);
    }
    struct nb_session *s = nb_xalloc(sizeof *s);
    s->e = e;
    s->max_tokens = max_tokens;
    s->chunk = max_tokens < CHUNK ? max_tokens : CHUNK;
    int rc = take_memory(s, err);
    if (rc) {
        nb_session_free(s);
        return rc;
    }
    *out = s;
    return 0;
}

void nb_session_free(struct nb_session *s)
{
    if (!s) return;
    nb_rope_table_release(&s->rope);
    nb_free(s->memory);
    nb_free(s);
}

int64_t nb_session_length(const struct nb_session *s)
{
    return s->length;
}

/* The t <= chunk tokens whose embeddings are in s->h, at the end of the sequence. Dynamic rope
 * takes its base from `whole`, the length after all tokens of this call, however they are cut. */
static void feed(struct nb_session *s, int64_t t, int64_t whole)
{
    struct nb_engine *e = s->e;
    const struct nb_arch *a = e->arch;
    const int64_t kv = a->n_kv_heads * a->head_dim;
    struct nb_pass p = {.t = t, .past = s->length, .rope = &s->rope, .scratch = s->scratch};
    nb_rope_table_fill(&s->rope, a, s->length, t, whole);
    for (int64_t l = 0; l < a->n_layers; l++) {
        p.k = s->k + l * s->max_tokens * kv;
        p.v = s->v + l * s->max_tokens * kv;
        nb_engine_layer(e->layers[l], &p, s->h, s->x, s->y);
    }
    s->length += t;
}

int nb_session_eval(struct nb_session *s, const int32_t *ids, int64_t n, float *logits,
                    struct nb_err *err)
{
    struct nb_engine *e = s->e;
    const struct nb_arch *a = e->arch;
    if (n < 1) return 0;
    if (n > s->max_tokens - s->length) {
        return nb_fail(err, NB_E_SPEC,
                       "%" PRId64 " tokens after %" PRId64 " do not fit a session of %" PRId64, n,
                       s->length, s->max_tokens);
    }
    if (*a->position_name && s->length + n > a->max_position) {
        return nb_fail(err, NB_E_SPEC,
                       "a sequence of %" PRId64 " tokens is too long: the model has %" PRId64
                       " positions",
                       s->length + n, a->max_position);
    }
    for (int64_t i = 0; i < n; i++) { /* all checked before any is fed */
        if (ids[i] < 0 || ids[i] >= a->vocab_size) {
            return nb_fail(err, NB_E_FORMAT,
                           "token %" PRId64 " has id %" PRId32 ", the vocabulary ends at %" PRId64,
                           i, ids[i], a->vocab_size - 1);
        }
    }
    const int64_t whole = s->length + n;
    int64_t t = 0;
    int rc = 0;
    for (int64_t at = 0; at < n && !rc; at += t) {
        t = n - at < s->chunk ? n - at : s->chunk;
        rc = nb_engine_embed(e, ids + at, s->length, t, s->h, err);
        if (!rc) feed(s, t, whole);
    }
    if (rc || !logits) return rc;
    float *last = s->h + (t - 1) * a->hidden_size;
    nb_engine_norm(e, last, 1);
    nb_engine_logits(e, last, 1, logits);
    return 0;
}

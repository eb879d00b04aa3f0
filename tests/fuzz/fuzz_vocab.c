/* SPDX-License-Identifier: Apache-2.0
 *
 * A GGUF vocabulary and a text: no crash; one that opens encodes the text with ids inside its size
 * and streams as it decodes, in whole characters; invalid UTF-8 is refused.
 *
 * Input: a byte (bits 0: model llama, 1: scores, 2: types, 4: add BOS, 5: add EOS, 6: space
 * prefix), a byte choosing the pre-tokenizer, tokens as {length, type, score, bytes} up to length
 * 255, merges as {length, bytes} up to length 255, and the text. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/strbuf.h"
#include "text/tokenizer.h"
#include "text/unicode.h"
#include "text/vocab.h"

enum { MAX = 4096 };

static const char *const pres[] = {"llama-bpe", "qwen2",       "gpt-2",  "tekken", "deepseek-llm",
                                   "smollm",    "deepseek-v3", "gpt-4o", "",       "chameleon"};

struct input {
    const uint8_t *p, *end;
};

static unsigned byte(struct input *in)
{
    return in->p < in->end ? *in->p++ : 255;
}

static struct nb_span bytes(struct input *in, size_t n)
{
    size_t left = (size_t)(in->end - in->p);
    struct nb_span s = {in->p, n < left ? n : left};
    in->p += s.bytes;
    return s;
}

static void check_text(const struct nb_tokenizer *t, struct nb_span text, unsigned flags)
{
    struct nb_err err;
    struct nb_ids ids = {0};
    size_t bad;
    const char *s = (const char *)text.data;
    int rc = nb_tokenizer_encode(t, s, text.bytes, flags, &ids, &err);
    if (!nb_utf8_check(s, text.bytes, &bad) && rc != NB_E_FORMAT) abort();
    struct nb_strbuf all, pieces;
    nb_strbuf_init(&all);
    nb_strbuf_init(&pieces);
    struct nb_detok *d = nb_detok_new(t, (flags & 1) != 0);
    for (size_t i = 0; i < ids.n && !rc; i++) {
        if (ids.data[i] < 0 || ids.data[i] >= nb_tokenizer_size(t)) abort();
        size_t before = pieces.len;
        if (nb_detok_push(d, ids.data[i], &pieces, &err)) abort();
        if (!nb_utf8_check(nb_strbuf_cstr(&pieces) + before, pieces.len - before, &bad)) abort();
    }
    if (!rc) {
        if (nb_detok_finish(d, &pieces, &err)) abort();
        if (nb_tokenizer_decode(t, ids.data, ids.n, (flags & 1) != 0, &all, &err)) abort();
        if (all.len != pieces.len || (all.len && memcmp(all.data, pieces.data, all.len) != 0))
            abort();
    }
    nb_detok_free(d);
    nb_strbuf_release(&all);
    nb_strbuf_release(&pieces);
    nb_ids_release(&ids);
}

static void read_vocab(struct nb_vocab *v, struct input *in, unsigned kind)
{
    static struct nb_span tokens[MAX], merges[MAX];
    static float scores[MAX];
    static int32_t types[MAX];
    for (unsigned n; v->n < MAX && (n = byte(in)) != 255; v->n++) {
        types[v->n] = (int32_t)byte(in);
        scores[v->n] = -(float)byte(in);
        tokens[v->n] = bytes(in, n);
    }
    for (unsigned n; v->n_merges < MAX && (n = byte(in)) != 255; v->n_merges++)
        merges[v->n_merges] = bytes(in, n);
    v->tokens = tokens;
    v->merges = merges;
    v->n_types = v->n_scores = v->n;
    if (kind & 2) v->scores = scores;
    if (kind & 4) v->types = types;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct input in = {data, data + size};
    struct nb_vocab v;
    nb_vocab_init(&v);
    unsigned kind = byte(&in);
    const char *model = kind & 1 ? "llama" : "gpt2";
    const char *pre = pres[byte(&in) % (sizeof pres / sizeof *pres)];
    v.model = (struct nb_span){(const unsigned char *)model, strlen(model)};
    v.pre = (struct nb_span){(const unsigned char *)pre, strlen(pre)};
    for (int f = 0; f < 3; f++) {
        static const enum nb_vocab_flag flags[] = {NB_VOCAB_ADD_BOS, NB_VOCAB_ADD_EOS,
                                                   NB_VOCAB_ADD_SPACE_PREFIX};
        v.flag[flags[f]] = kind >> (4 + f) & 1 ? NB_VOCAB_TRUE : NB_VOCAB_FALSE;
    }
    read_vocab(&v, &in, kind);
    struct nb_err err = {0};
    struct nb_tokenizer *t;
    int rc = nb_tokenizer_from_vocab(&t, &v, "fuzz", &err);
    if (rc && !err.text[0]) abort();
    int32_t ends[NB_VOCAB_ENDS_MAX];
    size_t n_ends = nb_vocab_end_ids(&v, ends, NB_VOCAB_ENDS_MAX);
    for (size_t i = 0; i < n_ends; i++) {
        if (ends[i] < 0 || (size_t)ends[i] >= v.n) abort();
    }
    if (!rc) {
        struct nb_span text = bytes(&in, SIZE_MAX);
        for (unsigned flags = 0; flags < 4; flags++) check_text(t, text, flags);
        nb_tokenizer_close(t);
    }
    nb_vocab_release(&v);
    return 0;
}

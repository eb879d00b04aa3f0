/* SPDX-License-Identifier: Apache-2.0
 *
 * words.c - see words.h. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

#include "base/strbuf.h"
#include "text/unicode.h"
#include "unit/text/words.h"

struct nb_span words_span(const char *text)
{
    return (struct nb_span){(const unsigned char *)text, strlen(text)};
}

void words_init(struct words *w, const char *model)
{
    nb_vocab_init(&w->v);
    w->v.model = words_span(model);
    w->v.tokens = w->tokens;
    w->v.types = w->types;
    if (strcmp(model, "llama") == 0) w->v.scores = w->scores;
    w->v.merges = w->merges;
}

int32_t words_add(struct words *w, const char *text, int32_t type, float score)
{
    size_t i = w->v.n++;
    assert_true(i < WORDS_MAX);
    w->tokens[i] = words_span(text);
    w->types[i] = type;
    w->scores[i] = score;
    w->v.n_types = w->v.n_scores = w->v.n;
    return (int32_t)i;
}

void words_merge(struct words *w, const char *merge)
{
    assert_true(w->v.n_merges < WORDS_MAX);
    w->merges[w->v.n_merges++] = words_span(merge);
}

static void add_copy(struct words *w, const char *text, int32_t type)
{
    char *copy = nb_arena_strdup(&w->v.arena, text);
    assert_non_null(copy);
    words_add(w, copy, type, 0);
}

void words_add_alphabet(struct words *w)
{
    for (unsigned b = 0; b < 256; b++) {
        char text[5] = {0};
        nb_utf8_put(nb_byte_to_char((unsigned char)b), text);
        add_copy(w, text, NB_VOCAB_NORMAL);
    }
}

void words_add_bytes(struct words *w)
{
    for (unsigned b = 0; b < 256; b++) {
        char text[8];
        snprintf(text, sizeof text, "<0x%02X>", b);
        add_copy(w, text, NB_VOCAB_BYTE);
    }
}

struct nb_tokenizer *words_open(const struct words *w)
{
    struct nb_err err;
    struct nb_tokenizer *t;
    if (nb_tokenizer_from_vocab(&t, &w->v, "t.gguf", &err)) fail_msg("%s", err.text);
    return t;
}

void words_refused(const struct words *w, int status, const char *text)
{
    struct nb_err err;
    struct nb_tokenizer *t;
    assert_int_equal(nb_tokenizer_from_vocab(&t, &w->v, "t.gguf", &err), status);
    assert_null(t);
    if (strncmp(err.text, text, strlen(text)) != 0) fail_msg("%s", err.text);
}

void words_encode(const struct nb_tokenizer *t, const char *text, unsigned flags, const char *want)
{
    struct nb_err err;
    struct nb_ids ids = {0};
    struct nb_strbuf b;
    nb_strbuf_init(&b);
    if (nb_tokenizer_encode(t, text, strlen(text), flags, &ids, &err)) fail_msg("%s", err.text);
    for (size_t i = 0; i < ids.n; i++) nb_strbuf_printf(&b, "%s%d", i ? " " : "", ids.data[i]);
    assert_string_equal(nb_strbuf_cstr(&b), want);
    nb_strbuf_release(&b);
    nb_ids_release(&ids);
}

void words_decode(const struct nb_tokenizer *t, const int32_t *ids, size_t n, bool skip_special,
                  const char *want)
{
    struct nb_err err;
    struct nb_strbuf b;
    nb_strbuf_init(&b);
    if (nb_tokenizer_decode(t, ids, n, skip_special, &b, &err)) fail_msg("%s", err.text);
    assert_string_equal(nb_strbuf_cstr(&b), want);
    nb_strbuf_release(&b);
}

/* SPDX-License-Identifier: Apache-2.0
 *
 * A tokenizer.json: no crash; one that opens encodes and decodes, its ids stay inside its size, and
 * the stream of pieces equals the text decoded at once, every piece whole characters. What a GGUF
 * vocabulary can be made of opens as one. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/strbuf.h"
#include "text/tokenizer.h"
#include "text/unicode.h"
#include "text/vocab.h"

static const char sample[] =
    "Hello, w\xc3\xb6rld's 123\r\n\t <s>[X] a\xcc\x81 \xe4\xbd\xa0\xe2\x96\x81 \xf0\x9f\x98\x80  aaaa ab";

static void check_decode(const struct nb_tokenizer *t, const int32_t *ids, size_t n, bool skip)
{
    struct nb_err err;
    struct nb_strbuf all, pieces;
    nb_strbuf_init(&all);
    nb_strbuf_init(&pieces);
    int rc = nb_tokenizer_decode(t, ids, n, skip, &all, &err);
    struct nb_detok *d = nb_detok_new(t, skip);
    int rc2 = 0;
    for (size_t i = 0; i <= n && !rc2; i++) {
        size_t bad, before = pieces.len;
        rc2 = i < n ? nb_detok_push(d, ids[i], &pieces, &err) : nb_detok_finish(d, &pieces, &err);
        if (!nb_utf8_check(nb_strbuf_cstr(&pieces) + before, pieces.len - before, &bad)) abort();
    }
    if (rc != rc2) abort();
    if (!rc && (all.len != pieces.len || (all.len && memcmp(all.data, pieces.data, all.len) != 0)))
        abort();
    nb_detok_free(d);
    nb_strbuf_release(&all);
    nb_strbuf_release(&pieces);
}

static void check_vocab(const uint8_t *data, size_t size)
{
    struct nb_err err = {0};
    struct nb_strbuf note;
    struct nb_vocab v;
    struct nb_tokenizer *t;
    struct nb_ids ids = {0};
    nb_strbuf_init(&note);
    json_t *root = nb_json_parse((const char *)data, size, 64, "tokenizer.json", &err);
    if (!root) abort();
    struct nb_vocab_source source = {.tokenizer = root, .what = "tokenizer.json"};
    if (!nb_tokenizer_vocab(&v, &source, &note, &err)) {
        if (nb_tokenizer_from_vocab(&t, &v, "tokenizer.json", &err)) abort();
        if (!nb_tokenizer_encode(t, sample, sizeof sample - 1, 0, &ids, &err))
            check_decode(t, ids.data, ids.n, false);
        nb_tokenizer_close(t);
        nb_vocab_release(&v);
    } else if (!err.text[0]) {
        abort();
    }
    nb_ids_release(&ids);
    nb_strbuf_release(&note);
    json_decref(root);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct nb_err err = {0};
    struct nb_tokenizer *t;
    if (nb_tokenizer_parse(&t, (const char *)data, size, "tokenizer.json", &err)) {
        if (!err.text[0]) abort();
        return 0;
    }
    struct nb_ids ids = {0};
    for (unsigned flags = 0; flags < 4; flags++) {
        if (nb_tokenizer_encode(t, sample, sizeof sample - 1, flags, &ids, &err)) continue;
        bool inside = true;
        for (size_t i = 0; i < ids.n; i++) {
            if (ids.data[i] < 0) abort();
            inside =
                inside && ids.data[i] < nb_tokenizer_size(t); /* a template may name any number */
        }
        if (!(flags & NB_ENCODE_TEMPLATE) && !inside) abort();
        if (inside) check_decode(t, ids.data, ids.n, flags & 1);
        ids.n = 0;
    }
    nb_ids_release(&ids);
    int32_t all[256];
    size_t n = (size_t)nb_tokenizer_size(t);
    if (n > 256) n = 256;
    for (size_t i = 0; i < n; i++) all[i] = (int32_t)i;
    check_decode(t, all, n, false);
    nb_tokenizer_close(t);
    check_vocab(data, size);
    return 0;
}

/* SPDX-License-Identifier: Apache-2.0
 *
 * A text in front of three tokenizers (the first byte chooses): byte-level with a Llama-3 pattern,
 * byte-level with NFC and added tokens of every flag, pieces with byte fallback. Invalid UTF-8 is
 * refused at the right byte, ids are inside the vocabulary, the stream equals the whole; the first
 * tokenizer gives the text back. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/strbuf.h"
#include "text/tokenizer.h"
#include "text/unicode.h"

#define PATTERN                                                                                                          \
    "{\"type\":\"Split\",\"pattern\":{\"Regex\":\"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\\\r\\\\n\\\\p{L}\\\\p{N}]?\\\\p{L}+|" \
    "\\\\p{N}{1,3}| ?[^\\\\s\\\\p{L}\\\\p{N}]+[\\\\r\\\\n]*|\\\\s*[\\\\r\\\\n]+|\\\\s+(?!\\\\S)|\\\\s+\"},"              \
    "\"behavior\":\"Isolated\",\"invert\":false}"
#define BYTE_LEVEL                                                                                 \
    "{\"type\":\"ByteLevel\",\"add_prefix_space\":false,\"trim_offsets\":true,\"use_regex\":false}"

/* The 256 byte characters and a few merges. */
static void byte_model(struct nb_strbuf *json)
{
    nb_strbuf_puts(json, "{\"model\":{\"type\":\"BPE\",\"vocab\":{");
    for (unsigned b = 0; b < 256; b++) {
        nb_strbuf_printf(json, "%s\"\\u%04x\":%u", b ? "," : "",
                         (unsigned)nb_byte_to_char((unsigned char)b), b);
    }
    nb_strbuf_puts(
        json,
        ",\"aa\":256,\"aaaa\":257,\"\\u0120a\":258,\"\\u0120\\u0120\":259,\"th\":260,\"the\":261},"
        "\"merges\":[\"t h\",\"a a\",\"\\u0120 \\u0120\",\"\\u0120 a\",\"th e\",\"aa aa\"]}");
}

static void piece_model(struct nb_strbuf *json)
{
    nb_strbuf_puts(
        json,
        "{\"model\":{\"type\":\"BPE\",\"byte_fallback\":true,\"fuse_unk\":true,\"unk_token\":\"<unk>\","
        "\"vocab\":{\"<unk>\":0");
    for (unsigned b = 0; b < 250; b++)
        nb_strbuf_printf(json, ",\"<0x%02X>\":%u", b, b + 1); /* some are missing */
    for (unsigned c = 0; c < 26; c++) nb_strbuf_printf(json, ",\"%c\":%u", 'a' + c, 251 + c);
    nb_strbuf_puts(
        json,
        ",\"\\u2581\":277,\"\\u2581a\":278,\"ab\":279,\"\\u2581\\u2581\":280},\"merges\":[[\"\\u2581\","
        "\"\\u2581\"],[\"\\u2581\",\"a\"],[\"a\",\"b\"]]},\"pre_tokenizer\":{\"type\":\"Metaspace\",\"replacement\":"
        "\"\\u2581\",\"prepend_scheme\":\"first\",\"split\":false},\"decoder\":{\"type\":\"Sequence\",\"decoders\":["
        "{\"type\":\"Replace\",\"pattern\":{\"String\":\"\\u2581\"},\"content\":\" \"},{\"type\":\"ByteFallback\"},"
        "{\"type\":\"Fuse\"},{\"type\":\"Strip\",\"content\":\" \",\"start\":1,\"stop\":0}]}}");
}

enum { SINGLE_WORD = 1, LSTRIP = 2, RSTRIP = 4, NORMALIZED = 8, SPECIAL = 16 };

static void token(struct nb_strbuf *json, const char *separator, const char *content,
                  unsigned flags)
{
    static const char *const names[] = {"single_word", "lstrip", "rstrip", "normalized", "special"};
    nb_strbuf_printf(json, "%s{\"content\":\"%s\"", separator, content);
    for (unsigned i = 0; i < 5; i++) {
        nb_strbuf_printf(json, ",\"%s\":%s", names[i], flags >> i & 1 ? "true" : "false");
    }
    nb_strbuf_putc(json, '}');
}

static void byte_level_json(struct nb_strbuf *json, bool flagged)
{
    byte_model(json);
    nb_strbuf_puts(json,
                   ",\"pre_tokenizer\":{\"type\":\"Sequence\",\"pretokenizers\":[" PATTERN
                   "," BYTE_LEVEL "]},\"decoder\":{\"type\":\"ByteLevel\"},\"added_tokens\":");
    token(json, "[", "<|end|>", SPECIAL);
    if (flagged) {
        token(json, ",", "[L]", LSTRIP | SPECIAL);
        token(json, ",", "[R]", RSTRIP | NORMALIZED);
        token(json, ",", "  ", LSTRIP | RSTRIP);
        token(json, ",", "the", SINGLE_WORD | LSTRIP | RSTRIP | NORMALIZED);
    }
    nb_strbuf_puts(json, flagged ? "],\"normalizer\":{\"type\":\"NFC\"}}" : "]}");
}

static struct nb_tokenizer *make(unsigned kind)
{
    struct nb_strbuf json;
    nb_strbuf_init(&json);
    if (kind == 2) piece_model(&json);
    else byte_level_json(&json, kind == 1);
    struct nb_err err;
    struct nb_tokenizer *t;
    if (nb_tokenizer_parse(&t, json.data, json.len, "fuzz", &err)) abort();
    nb_strbuf_release(&json);
    return t;
}

static void check_stream(const struct nb_tokenizer *t, const struct nb_ids *ids,
                         const struct nb_strbuf *all)
{
    struct nb_err err;
    struct nb_strbuf pieces;
    nb_strbuf_init(&pieces);
    struct nb_detok *d = nb_detok_new(t, false);
    for (size_t i = 0; i < ids->n; i++) {
        size_t bad, before = pieces.len;
        if (nb_detok_push(d, ids->data[i], &pieces, &err)) abort();
        if (!nb_utf8_check(nb_strbuf_cstr(&pieces) + before, pieces.len - before, &bad)) abort();
    }
    if (nb_detok_finish(d, &pieces, &err)) abort();
    if (pieces.len != all->len || (all->len && memcmp(pieces.data, all->data, all->len) != 0))
        abort();
    nb_detok_free(d);
    nb_strbuf_release(&pieces);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct nb_tokenizer *tokenizers[3];
    if (!tokenizers[0]) {
        for (unsigned k = 0; k < 3; k++) tokenizers[k] = make(k);
    }
    if (size == 0) return 0;
    unsigned kind = data[0] % 3;
    const struct nb_tokenizer *t = tokenizers[kind];
    const char *text = (const char *)data + 1;
    size_t n = size - 1, bad;
    struct nb_err err;
    struct nb_ids ids = {0};
    int rc = nb_tokenizer_encode(t, text, n, data[0] & 0x80 ? NB_ENCODE_PLAIN : 0, &ids, &err);
    if (rc != (nb_utf8_check(text, n, &bad) ? 0 : NB_E_FORMAT)) abort();
    if (!rc) {
        struct nb_strbuf all;
        nb_strbuf_init(&all);
        for (size_t i = 0; i < ids.n; i++) {
            if (ids.data[i] < 0 || ids.data[i] >= nb_tokenizer_size(t)) abort();
        }
        if (nb_tokenizer_decode(t, ids.data, ids.n, false, &all, &err)) abort();
        if (kind == 0 && (all.len != n || (n && memcmp(all.data, text, n) != 0))) abort();
        check_stream(t, &ids, &all);
        nb_strbuf_release(&all);
    }
    nb_ids_release(&ids);
    return 0;
}

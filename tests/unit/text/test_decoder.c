/* SPDX-License-Identifier: Apache-2.0
 *
 * test_decoder.c - what each step hands on at once and what it holds back. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <cmocka.h>

#include "base/mem.h"
#include "text/decoder.h"

/* Feeds tokens; out gets "|" behind what each of them released, and behind the finish. */
static int run(const char *json, const char *const *tokens, struct nb_strbuf *out,
               struct nb_err *err)
{
    json_t *part = nb_json_parse(json, strlen(json), 64, "part", err);
    assert_non_null(part);
    struct nb_decoder d;
    nb_strbuf_init(out);
    int rc = nb_decoder_init(&d, part, "t.json", err);
    json_decref(part);
    if (rc) return rc;
    struct nb_decoder_run *r = nb_xalloc(sizeof *r);
    r->decoder = &d;
    r->matcher = nb_matcher_new();
    r->out = out;
    for (int twice = 0; twice < 2; twice++) { /* a finished run begins anew */
        nb_strbuf_reset(out);
        for (size_t i = 0; tokens[i] && !rc; i++) {
            rc = nb_decoder_token(r, tokens[i], strlen(tokens[i]), err);
            nb_strbuf_putc(out, '|');
        }
        if (!rc) rc = nb_decoder_finish(r, err);
    }
    nb_decoder_run_release(r);
    nb_matcher_free(r->matcher);
    nb_free(r);
    nb_decoder_release(&d);
    return rc;
}

#define SEQ(parts) "{\"type\":\"Sequence\",\"decoders\":[" parts "]}"
#define BYTES "{\"type\":\"ByteLevel\"}"
#define FALLBACK "{\"type\":\"ByteFallback\"}"
#define FUSE "{\"type\":\"Fuse\"}"
#define STRIP(start, stop)                                                                         \
    "{\"type\":\"Strip\",\"content\":\"_\",\"start\":" #start ",\"stop\":" #stop "}"
#define REPLACE "{\"type\":\"Replace\",\"pattern\":{\"String\":\"ab\"},\"content\":\"X\"}"

static void releases(void **state)
{
    (void)state;
    static const struct {
        const char *part;
        const char *tokens[6];
        const char *want;
    } cases[] = {
        {"null", {"a", "b"}, "a| b|"},
        {BYTES, {"\xc3\xa4\xc2\xbd", "\xc5\x82x"}, "|\xe4\xbd\xa0x|"},
        {BYTES, {"\xc3\xa4\xc2\xbd", "x"}, "|\xef\xbf\xbdx|"},
        {BYTES, {"\xc3\xa4\xc2\xbd"}, "|\xef\xbf\xbd"},
        {BYTES, {"a b", "\xc4\xa0"}, "a b| |"},
        {FALLBACK, {"<0xC3>", "<0xA9>", "x"}, "||\xc3\xa9x|"},
        {FALLBACK, {"<0xC3>", "<0x41>", "x"}, "||\xef\xbf\xbd\xef\xbf\xbdx|"},
        {FALLBACK, {"<0xC3>", "<0xa9>"}, "||\xc3\xa9"},
        {FALLBACK, {"<0xG0>", "<0x+F>"}, "<0xG0>||\x0f"},
        {SEQ(FUSE "," STRIP(1, 0)), {"_", "_a", "_"}, "|_a|_|"},
        {SEQ(FUSE "," STRIP(1, 2)), {"_a", "_", "_", "b", "___"}, "a|||__b|_|"},
        {STRIP(1, 1), {"_a_", "__a", "___"}, "a|_a|_|"},
        {STRIP(2, 3), {"_", "a"}, "|a|"},
        {REPLACE, {"abab", "a", "b"}, "XX|a|b|"},
        {SEQ(FUSE "," REPLACE), {"a", "b"}, "||X"},
        {SEQ(BYTES "," STRIP(1, 0)), {"_\xc3\xa4", "_"}, "|\xef\xbf\xbd_|"},
        {SEQ(FUSE "," FALLBACK), {"<0x4", "1>"}, "||A"},
        {"{\"type\":\"Metaspace\",\"replacement\":\"_\"}", {"_a_", "_b"}, "a| b|"},
        {"{\"type\":\"Metaspace\",\"replacement\":\"_\",\"prepend_scheme\":\"never\"}",
         {"_a"},
         " a|"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct nb_err err;
        struct nb_strbuf out;
        if (run(cases[i].part, cases[i].tokens, &out, &err)) fail_msg("%s", err.text);
        assert_string_equal(nb_strbuf_cstr(&out), cases[i].want);
        nb_strbuf_release(&out);
    }
}

static void refusals(void **state)
{
    (void)state;
    static const char *const none[] = {NULL};
    struct nb_err err;
    struct nb_strbuf out;
    assert_int_equal(run("{\"type\":\"WordPiece\"}", none, &out, &err), NB_E_SPEC);
    assert_string_equal(err.text,
                        "t.json: decoder 'WordPiece' is not supported (supported: ByteLevel,"
                        " Metaspace, ByteFallback, Fuse, Replace, Strip, Sequence)");
    assert_int_equal(run(STRIP(-1, 0), none, &out, &err), NB_E_FORMAT);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(releases), cmocka_unit_test(refusals)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}

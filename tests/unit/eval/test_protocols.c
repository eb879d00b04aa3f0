/* SPDX-License-Identifier: Apache-2.0
 *
 * test_protocols.c - the segments of each protocol: which tokens are fed, which are scored, and how they weigh. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "eval/eval.h"

/* One token per letter: a is 1, b is 2 ...; <s> is 0 and stands in front by default. */
static const char with_bos[] =
    "{\"version\":\"1.0\",\"added_tokens\":[{\"id\":0,\"content\":\"<s>\",\"single_word\":false,\"lstrip\":false,"
    "\"rstrip\":false,\"normalized\":false,\"special\":true}],\"normalizer\":null,\"pre_tokenizer\":null,"
    "\"post_processor\":{\"type\":\"TemplateProcessing\",\"single\":[{\"SpecialToken\":{\"id\":\"<s>\",\"type_id\":0}},"
    "{\"Sequence\":{\"id\":\"A\",\"type_id\":0}}],\"pair\":[{\"Sequence\":{\"id\":\"A\",\"type_id\":0}},"
    "{\"Sequence\":{\"id\":\"B\",\"type_id\":1}}],\"special_tokens\":{\"<s>\":{\"id\":\"<s>\",\"ids\":[0],"
    "\"tokens\":[\"<s>\"]}}},\"decoder\":null,\"model\":{\"type\":\"BPE\",\"dropout\":null,\"unk_token\":null,"
    "\"continuing_subword_prefix\":null,\"end_of_word_suffix\":null,\"fuse_unk\":false,\"byte_fallback\":false,"
    "\"vocab\":{\"<s>\":0,\"a\":1,\"b\":2,\"c\":3,\"d\":4,\"e\":5,\"f\":6,\"g\":7,\"h\":8,\"i\":9,\"j\":10,\" \":11,"
    "\"=\":12,\"\\n\":13},\"merges\":[]}}";

static const char ten[] = "abcdefghij";

static int open_tokenizer(void **state)
{
    struct nb_err err = {0};
    struct nb_tokenizer *tok;
    if (nb_tokenizer_parse(&tok, with_bos, sizeof with_bos - 1, "tokenizer.json", &err)) {
        fail_msg("%s", err.text);
    }
    *state = tok;
    return 0;
}

static int close_tokenizer(void **state)
{
    nb_tokenizer_close(*state);
    return 0;
}

static struct nb_eval_request request(enum nb_eval_protocol p, const char *text)
{
    return (struct nb_eval_request){
        .protocol = p, .text = text, .bytes = strlen(text), .context = 8};
}

static void make(struct nb_eval_plan *plan, const struct nb_eval_request *q, void **state)
{
    struct nb_err err = {0};
    if (nb_eval_plan_make(plan, q, *state, &err)) fail_msg("%s", err.text);
}

/* Segment i: ids fed and scored, as letters ('0' is <s>), first target, weight, cluster. */
static void segment(const struct nb_eval_plan *p, int64_t i, const char *letters, int64_t first,
                    double weight, int64_t cluster)
{
    assert_true(i < p->n_segments);
    const struct nb_eval_segment *s = &p->segments[i];
    assert_int_equal(s->n, strlen(letters));
    for (int64_t t = 0; t < s->n; t++) {
        int32_t id = p->ids[s->offset + t];
        assert_int_equal(id ? "abcdefghij =\n"[id - 1] : '0', letters[t]);
    }
    assert_int_equal(s->first, first);
    assert_true(s->n_counted == weight);
    assert_int_equal(s->cluster, cluster);
}

static void test_windows(void **state)
{
    struct nb_eval_request q = request(NB_EVAL_WINDOWS, ten);
    struct nb_eval_plan p;
    q.window = 4;
    make(&p, &q, state);
    assert_int_equal(p.n_segments, 2); /* the tail "ij" is dropped, no BOS */
    segment(&p, 0, "abcd", 1, 3, 0);
    segment(&p, 1, "efgh", 1, 3, 1);
    assert_false(p.bos);
    nb_eval_plan_release(&p);
    q.limit = 1;
    make(&p, &q, state);
    assert_int_equal(p.n_segments, 1);
    nb_eval_plan_release(&p);
    q.limit = 0;
    q.stride = 3; /* overlapping: each token once */
    make(&p, &q, state);
    assert_int_equal(p.n_segments, 3);
    segment(&p, 0, "abcd", 1, 3, 0);
    segment(&p, 1, "defg", 1, 3, 1);
    segment(&p, 2, "ghij", 1, 3, 2);
    nb_eval_plan_release(&p);
    q.stride = 2;
    make(&p, &q, state);
    assert_int_equal(p.n_segments, 4);
    segment(&p, 1, "cdef", 2, 2, 1);
    nb_eval_plan_release(&p);
}

static void test_gptq_paper(void **state)
{
    struct nb_eval_request q = request(NB_EVAL_GPTQ_PAPER, ten);
    struct nb_eval_plan p;
    q.window = 4;
    make(&p, &q, state);
    assert_int_equal(p.n_segments, 2); /* one BOS at the very front, none per window */
    segment(&p, 0, "0abc", 1, 3, 0);
    segment(&p, 1, "defg", 1, 3, 1);
    assert_true(p.bos);
    nb_eval_plan_release(&p);
    /* the raw file of WikiText becomes rows */
    q = request(NB_EVAL_GPTQ_PAPER, " \n = a = \n b \n");
    q.window = 5;
    make(&p, &q, state);
    assert_true(p.wikitext_rows);
    segment(&p, 0, "0\n\n =", 1, 4, 0);
    nb_eval_plan_release(&p);
}

/* window 4, stride 2 over 0abcdefghij (11 tokens): [0abc] [bcde] [defg] [fghi] [hij]. */
static void test_transformers(void **state)
{
    struct nb_eval_request q = request(NB_EVAL_TRANSFORMERS, ten);
    struct nb_eval_plan p;
    q.window = 4;
    q.stride = 2;
    make(&p, &q, state);
    segment(&p, 0, "0abc", 1, 3, 0); /* 4 targets, 3 losses, weight 3 */
    segment(&p, 1, "bcde", 2, 1, 1); /* 2 targets, 2 losses, weight 1 */
    segment(&p, 2, "defg", 2, 1, 2);
    segment(&p, 3, "fghi", 2, 1, 3);
    assert_int_equal(p.n_segments, 4); /* the last window has one target: weight 0 */
    nb_eval_plan_release(&p);
    q.stride = 3; /* [0abc] [cdef] [fghi] [ij]: the last brings one new token, weight 0 */
    make(&p, &q, state);
    assert_int_equal(p.n_segments, 3);
    segment(&p, 2, "fghi", 1, 2, 2);
    nb_eval_plan_release(&p);
    q.stride = 4; /* disjoint: [0abc] [defg] [hij] */
    make(&p, &q, state);
    assert_int_equal(p.n_segments, 3);
    segment(&p, 1, "defg", 1, 3, 1);
    segment(&p, 2, "hij", 1, 2, 2);
    nb_eval_plan_release(&p);
    q.window = q.stride = 0; /* context 8; stride 512 does not fit, so disjoint */
    make(&p, &q, state);
    assert_int_equal(p.window, 8);
    assert_int_equal(p.stride, 8);
    nb_eval_plan_release(&p);
}

static void test_llamacpp(void **state)
{
    struct nb_eval_request q = request(NB_EVAL_LLAMACPP, ten);
    struct nb_eval_plan p;
    q.window = 4;
    make(&p, &q, state);
    assert_int_equal(p.n_segments,
                     2);             /* 11 tokens with BOS; the first of each window becomes BOS */
    segment(&p, 0, "0abc", 3, 1, 0); /* n/2 - 1 = 1 scored */
    segment(&p, 1, "0efg", 3, 1, 1);
    assert_int_equal(p.replaced[0], 0); /* what stood there is kept for the logits file */
    assert_int_equal(p.replaced[1], 4);
    nb_eval_plan_release(&p);
}

/* One trailing line feed goes, a second one stays; a special token in the text is letters. */
static void test_llamacpp_text(void **state)
{
    struct nb_eval_request q = request(NB_EVAL_LLAMACPP, "abc d<s>\n\n");
    struct nb_eval_plan p;
    struct nb_err err;
    q.window = 4;
    assert_int_equal(nb_eval_plan_make(&p, &q, *state, &err), NB_E_FORMAT);
    assert_string_equal(err.text, "the text has 7 tokens, protocol llama.cpp needs at least 8");
    q = request(NB_EVAL_LLAMACPP, "abc ef\n\n"); /* < > are no letters of this vocabulary */
    q.window = 4;
    make(&p, &q, state);
    assert_int_equal(p.n_ids, 8); /* BOS, six letters, one line feed */
    segment(&p, 1, "0ef\n", 3, 1, 1);
    nb_eval_plan_release(&p);
}

/* A tokenizer that ends texts by itself has no place in the protocol. */
static void test_llamacpp_end(void **state)
{
    (void)state;
    char text[sizeof with_bos + 200];
    const char *sequence = "{\"Sequence\":{\"id\":\"A\",\"type_id\":0}}]";
    const char *at = strstr(with_bos, sequence);
    assert_non_null(at);
    int n = snprintf(text, sizeof text,
                     "%.*s{\"Sequence\":{\"id\":\"A\",\"type_id\":0}},{\"SpecialToken\":"
                     "{\"id\":\"<s>\",\"type_id\":0}}]%s",
                     (int)(at - with_bos), with_bos, at + strlen(sequence));
    struct nb_tokenizer *tok;
    struct nb_err err = {0};
    if (nb_tokenizer_parse(&tok, text, (size_t)n, "tokenizer.json", &err)) fail_msg("%s", err.text);
    struct nb_eval_request q = request(NB_EVAL_LLAMACPP, ten);
    struct nb_eval_plan p;
    q.window = 4;
    assert_int_equal(nb_eval_plan_make(&p, &q, tok, &err), NB_E_SPEC);
    assert_string_equal(err.text,
                        "protocol llama.cpp is not defined for a tokenizer that ends each "
                        "text with a token of its own");
    nb_tokenizer_close(tok);
}

/* Windows of 4 over a page of 10: prefix + abcd, d|efgh, and the last reaches back: fgh|ij. */
static void test_lm_eval(void **state)
{
    struct nb_eval_request q = request(NB_EVAL_LM_EVAL, ten);
    struct nb_eval_plan p;
    q.window = 4;
    make(&p, &q, state);
    assert_int_equal(p.n_segments, 3);
    segment(&p, 0, "0abcd", 1, 4, 0);
    segment(&p, 1, "defgh", 1, 4, 0);
    segment(&p, 2, "fghij", 3, 2, 0);
    assert_int_equal(p.n_words, 1);
    assert_int_equal(p.n_bytes, 10);
    struct nb_eval_per_text t = nb_eval_per_text_of(&p, 2, 10); /* 10 bits in all */
    assert_true(fabs(t.word_perplexity - 1024) < 1e-9);
    assert_true(fabs(t.byte_perplexity - 2) < 1e-12);
    assert_true(fabs(t.bits_per_byte - 1) < 1e-12);
    nb_eval_plan_release(&p);
    q = request(NB_EVAL_LM_EVAL, " = a = \nb c\n = d = \ne\n");
    make(&p, &q, state);
    assert_int_equal(p.n_clusters, 2); /* pages */
    segment(&p, 0, "0 = a =\nb", 1, 8, 0);
    segment(&p, 1, "= a =\nb c", 7, 2, 0);
    assert_int_equal(p.n_segments, 4);
    segment(&p, 2, "0 = d =\ne", 1, 8, 1);
    segment(&p, 3, " = d =\ne\n", 8, 1, 1);
    nb_eval_plan_release(&p);
    q.prefix_id = -1;
    struct nb_err err;
    assert_int_equal(nb_eval_plan_make(&p, &q, *state, &err), NB_E_SPEC);
}

static void refused(struct nb_eval_request q, void **state, int status, const char *text)
{
    struct nb_eval_plan p;
    struct nb_err err;
    assert_int_equal(nb_eval_plan_make(&p, &q, *state, &err), status);
    assert_string_equal(err.text, text);
    assert_null(p.ids);
}

static void test_refusals(void **state)
{
    struct nb_eval_request q = request(NB_EVAL_WINDOWS, ten);
    q.window = 20;
    refused(q, state, NB_E_FORMAT, "the text has 10 tokens, protocol windows needs at least 20");
    q.window = 4;
    q.stride = 5;
    refused(q, state, NB_E_USAGE, "a stride of 5 is longer than the window of 4 tokens");
    q = request(NB_EVAL_LLAMACPP, ten);
    q.window = 6;
    refused(q, state, NB_E_FORMAT, "the text has 11 tokens, protocol llama.cpp needs at least 12");
    q.window = 3;
    refused(q, state, NB_E_USAGE, "a window of 3 tokens scores nothing, at least 4 are needed");
    q.window = 4;
    q.stride = 2;
    refused(q, state, NB_E_USAGE, "protocol llama.cpp has no stride");
    q = request(NB_EVAL_GPTQ_PAPER, ten);
    refused(q, state, NB_E_FORMAT,
            "the text has 11 tokens, protocol gptq-paper needs at least 2048");
    q = request(NB_EVAL_LM_EVAL, "");
    refused(q, state, NB_E_FORMAT, "the text has nothing to score");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_windows),       cmocka_unit_test(test_gptq_paper),
        cmocka_unit_test(test_transformers),  cmocka_unit_test(test_llamacpp),
        cmocka_unit_test(test_lm_eval),       cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_llamacpp_text), cmocka_unit_test(test_llamacpp_end),
    };
    return cmocka_run_group_tests(tests, open_tokenizer, close_tokenizer);
}

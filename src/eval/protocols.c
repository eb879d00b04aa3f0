/* SPDX-License-Identifier: Apache-2.0
 *
 * protocols.c - each published way to measure perplexity, as a plan of token segments.
 *
 * The same model and text differ by 30 % between them, so each is followed to the letter. Source: evaluation,
 * sections 2.1 to 2.4, and the tools named there. */
#include <inttypes.h>
#include <math.h>
#include <string.h>

#include "base/mem.h"
#include "base/sha256.h"
#include "base/strbuf.h"
#include "eval/eval.h"
#include "eval/logits.h"
#include "eval/wikitext.h"

enum { PAPER_WINDOW = 2048, STRIDE = 512, LLAMACPP_WINDOW = 512 };

const char *nb_eval_protocol_name(enum nb_eval_protocol p)
{
    static const char *const names[] = {"windows", "gptq-paper", "transformers", "llama.cpp",
                                        "lm-eval"};
    return names[p];
}

struct building {
    struct nb_eval_plan *plan;
    size_t segments_capacity, ids_capacity;
    int64_t limit;
};

static bool is_full(const struct building *b)
{
    return b->limit > 0 && b->plan->n_segments >= b->limit;
}

static int add_segment(struct building *b, const struct nb_eval_segment *s, struct nb_err *err)
{
    struct nb_eval_plan *p = b->plan;
    if (!nb_grow((void **)&p->segments, &b->segments_capacity, (size_t)p->n_segments,
                 sizeof *p->segments)) {
        return nb_fail(err, NB_E_NOMEM, "out of memory after %" PRId64 " windows", p->n_segments);
    }
    p->segments[p->n_segments++] = *s;
    if (s->cluster >= p->n_clusters) p->n_clusters = s->cluster + 1;
    return 0;
}

/* Windows of n tokens, `stride` apart; targets from `first` on, and none twice. The tail is dropped. */
static int add_windows(struct building *b, int64_t n, int64_t stride, int64_t first,
                       struct nb_err *err)
{
    int rc = 0;
    for (int64_t begin = 0; begin + n <= b->plan->n_ids && !rc && !is_full(b); begin += stride) {
        int64_t from = begin && n - stride > first ? n - stride : first;
        struct nb_eval_segment s = {.offset = begin,
                                    .n = n,
                                    .first = from,
                                    .n_counted = (double)(n - from),
                                    .cluster = b->plan->n_segments};
        rc = add_segment(b, &s, err);
    }
    return rc;
}

/* Windows that overlap: each scores what the one before did not reach. The model's own shift loses one target
 * per window only when the window's first token is one; the documentation's weight (targets - 1) loses one in
 * every window. */
static int add_strided(struct building *b, int64_t window, int64_t stride, struct nb_err *err)
{
    int64_t n = b->plan->n_ids, reached = 0, cluster = 0;
    int rc = 0;
    for (int64_t begin = 0; !rc && !is_full(b); begin += stride) {
        int64_t end = begin + window < n ? begin + window : n;
        int64_t targets = end - reached, first = end - begin - targets;
        struct nb_eval_segment s = {.offset = begin,
                                    .n = end - begin,
                                    .first = first < 1 ? 1 : first,
                                    .n_counted = (double)(targets - 1),
                                    .cluster = cluster};
        if (s.first < s.n && targets > 1) {
            rc = add_segment(b, &s, err);
            cluster++;
        }
        reached = end;
        if (end == n) break;
    }
    return rc;
}

static int append_ids(struct building *b, const int32_t *ids, size_t n, struct nb_err *err)
{
    struct nb_eval_plan *p = b->plan;
    size_t need = (size_t)p->n_ids + n;
    if (need > b->ids_capacity) {
        size_t capacity = need + need / 2;
        int32_t *grown = nb_realloc(p->ids, (size_t)p->n_ids * sizeof *ids, capacity * sizeof *ids);
        if (!grown)
            return nb_fail(err, NB_E_NOMEM, "out of memory after %" PRId64 " tokens", p->n_ids);
        p->ids = grown;
        b->ids_capacity = capacity;
    }
    if (n) memcpy(p->ids + p->n_ids, ids, n * sizeof *ids);
    p->n_ids += (int64_t)n;
    return 0;
}

/* One page, rolling: the first window sees only the prefix token and predicts up to `window` tokens, the others
 * the next `window`; the last one reaches back to a full window of context. */
static int add_page(struct building *b, const struct nb_ids *tokens, int64_t window, int32_t prefix,
                    struct nb_err *err)
{
    int64_t n = (int64_t)tokens->n, base = b->plan->n_ids, cluster = b->plan->n_clusters;
    int rc = append_ids(b, &prefix, 1, err);
    if (!rc) rc = append_ids(b, tokens->data, tokens->n, err);
    for (int64_t done = 0; done < n && !rc && !is_full(b);) {
        int64_t count = n - done < window ? n - done : window, end = done + count;
        int64_t begin = end > window ? end - window : 0; /* in tokens with the prefix in front */
        struct nb_eval_segment s = {.offset = base + begin,
                                    .n = end + 1 - begin,
                                    .first = done + 1 - begin,
                                    .n_counted = (double)count,
                                    .cluster = cluster};
        rc = add_segment(b, &s, err);
        done = end;
    }
    return rc;
}

static int make_lm_eval(struct building *b, const struct nb_eval_request *q,
                        const struct nb_tokenizer *tok, struct nb_err *err)
{
    struct nb_eval_plan *p = b->plan;
    struct nb_span *pages = NULL;
    size_t n = 0;
    p->window = q->window ? q->window : q->context;
    if (q->prefix_id < 0) {
        return nb_fail(
            err, NB_E_SPEC,
            "protocol lm-eval needs a BOS or EOS token before the text, the model has none");
    }
    int rc = nb_wikitext_pages(q->text, q->bytes, &pages, &n, err);
    for (size_t i = 0; i < n && !rc && !is_full(b); i++) {
        const char *page = (const char *)pages[i].data;
        struct nb_strbuf text;
        struct nb_ids ids = {0};
        nb_strbuf_init(&text);
        nb_wikitext_detokenize(page, pages[i].bytes, &text);
        rc = text.failed ? nb_fail(err, NB_E_NOMEM, "out of memory for page %zu", i)
                         : nb_tokenizer_encode(tok, nb_strbuf_cstr(&text), text.len, 0, &ids, err);
        if (!rc) rc = add_page(b, &ids, p->window, (int32_t)q->prefix_id, err);
        p->n_words += nb_wikitext_words(page, pages[i].bytes);
        p->n_bytes += (int64_t)pages[i].bytes;
        nb_ids_release(&ids);
        nb_strbuf_release(&text);
    }
    nb_free(pages);
    return rc;
}

/* Does the tokenizer put a token before the text by itself? *bos: which. *ends: and one behind it? */
static int find_bos(const struct nb_tokenizer *tok, int32_t *bos, bool *ends, struct nb_err *err)
{
    struct nb_ids plain = {0}, with = {0};
    *bos = -1;
    *ends = false;
    int rc = nb_tokenizer_encode(tok, "a", 1, 0, &plain, err);
    if (!rc) rc = nb_tokenizer_encode(tok, "a", 1, NB_ENCODE_TEMPLATE, &with, err);
    if (!rc && with.n > plain.n && (plain.n == 0 || with.data[0] != plain.data[0]))
        *bos = with.data[0];
    if (!rc) *ends = with.n > plain.n + (*bos >= 0);
    nb_ids_release(&plain);
    nb_ids_release(&with);
    return rc;
}

static int refuse_end(const struct nb_eval_plan *p, struct nb_err *err)
{
    return nb_fail(err, NB_E_SPEC,
                   "protocol %s is not defined for a tokenizer that ends each text with a token "
                   "of its own",
                   nb_eval_protocol_name(p->protocol));
}

static unsigned encode_flags(enum nb_eval_protocol p)
{
    if (p == NB_EVAL_WINDOWS) return 0;
    return p == NB_EVAL_LLAMACPP ? NB_ENCODE_TEMPLATE | NB_ENCODE_PLAIN : NB_ENCODE_TEMPLATE;
}

/* Text to plan->ids: WikiText's raw file in rows where the protocol scores rows; then BOS where it has one. */
static int encode(struct building *b, const struct nb_eval_request *q,
                  const struct nb_tokenizer *tok, int32_t *bos, struct nb_err *err)
{
    struct nb_eval_plan *p = b->plan;
    struct nb_strbuf rows;
    struct nb_ids ids = {0};
    nb_strbuf_init(&rows);
    bool joins = q->protocol == NB_EVAL_GPTQ_PAPER || q->protocol == NB_EVAL_TRANSFORMERS, ends;
    p->wikitext_rows = joins && nb_wikitext_is_raw(q->text, q->bytes);
    if (p->wikitext_rows) nb_wikitext_join_rows(q->text, q->bytes, &rows);
    const char *text = p->wikitext_rows ? nb_strbuf_cstr(&rows) : q->text;
    size_t bytes = p->wikitext_rows ? rows.len : q->bytes;
    int rc = rows.failed ? nb_fail(err, NB_E_NOMEM, "out of memory for the text")
                         : find_bos(tok, bos, &ends, err);
    if (q->protocol == NB_EVAL_WINDOWS) *bos = -1;
    if (q->protocol == NB_EVAL_LLAMACPP) {
        if (!rc && ends) rc = refuse_end(p, err);
        if (bytes && text[bytes - 1] == '\n') bytes--;
    }
    p->bos = *bos >= 0;
    if (!rc) rc = nb_tokenizer_encode(tok, text, bytes, encode_flags(q->protocol), &ids, err);
    if (!rc) rc = append_ids(b, ids.data, ids.n, err);
    nb_ids_release(&ids);
    nb_strbuf_release(&rows);
    return rc;
}

static int too_short(const struct nb_eval_plan *p, int64_t needed, struct nb_err *err)
{
    nb_fail(err, NB_E_FORMAT,
            "the text has %" PRId64 " tokens, protocol %s needs at least %" PRId64, p->n_ids,
            nb_eval_protocol_name(p->protocol), needed);
    return nb_err_hint(err, "give a longer text, or a smaller --window");
}

static int long_stride(const struct nb_eval_plan *p, struct nb_err *err)
{
    return nb_fail(err, NB_E_USAGE,
                   "a stride of %" PRId64 " is longer than the window of %" PRId64 " tokens",
                   p->stride, p->window);
}

/* llama.cpp: disjoint windows, second halves scored, BOS (or -1) in the place of each first token. */
static int add_halves(struct building *b, int32_t bos, struct nb_err *err)
{
    struct nb_eval_plan *p = b->plan;
    int rc = add_windows(b, p->window, p->window, p->window / 2 + 1, err);
    if (rc || bos < 0) return rc;
    p->replaced = nb_alloc((size_t)p->n_segments, sizeof *p->replaced);
    if (!p->replaced)
        return nb_fail(err, NB_E_NOMEM, "out of memory for %" PRId64 " windows", p->n_segments);
    for (int64_t i = 0; i < p->n_segments; i++) {
        int32_t *first = p->ids + p->segments[i].offset;
        p->replaced[i] = *first;
        *first = bos;
    }
    return 0;
}

static int make_from_ids(struct building *b, const struct nb_eval_request *q, int32_t bos,
                         struct nb_err *err)
{
    struct nb_eval_plan *p = b->plan;
    int64_t small = q->context < PAPER_WINDOW ? q->context : PAPER_WINDOW;
    switch (q->protocol) {
    case NB_EVAL_WINDOWS:
    case NB_EVAL_GPTQ_PAPER:
        p->window = q->window ? q->window : q->protocol == NB_EVAL_WINDOWS ? small : PAPER_WINDOW;
        if (p->n_ids < p->window) return too_short(p, p->window, err);
        p->stride = q->stride ? q->stride : p->window;
        if (p->stride > p->window) return long_stride(p, err);
        return add_windows(b, p->window, p->stride, 1, err);
    case NB_EVAL_TRANSFORMERS:
        p->window = q->window ? q->window : q->context;
        p->stride = q->stride ? q->stride : STRIDE < p->window ? STRIDE : p->window;
        if (p->stride > p->window) return long_stride(p, err);
        if (p->n_ids < 3) return too_short(p, 3, err);
        return add_strided(b, p->window, p->stride, err);
    default: break;
    }
    p->window = q->window ? q->window : LLAMACPP_WINDOW;
    if (p->n_ids < 2 * p->window) return too_short(p, 2 * p->window, err);
    return add_halves(b, bos, err);
}

int nb_eval_plan_make(struct nb_eval_plan *out, const struct nb_eval_request *q,
                      const struct nb_tokenizer *tokenizer, struct nb_err *err)
{
    memset(out, 0, sizeof *out);
    out->protocol = q->protocol;
    nb_sha256_bytes(q->text, q->bytes, out->text_sha256);
    struct building b = {.plan = out, .limit = q->limit};
    int64_t least = q->protocol == NB_EVAL_LLAMACPP ? 4 : 2;
    if (q->window && q->window < least) {
        return nb_fail(err, NB_E_USAGE,
                       "a window of %" PRId64 " tokens scores nothing, at least %" PRId64
                       " are needed",
                       q->window, least);
    }
    if (q->stride && q->protocol != NB_EVAL_TRANSFORMERS && q->protocol != NB_EVAL_WINDOWS) {
        nb_fail(err, NB_E_USAGE, "protocol %s has no stride", nb_eval_protocol_name(q->protocol));
        return nb_err_hint(err, "protocols windows and transformers have one");
    }
    int32_t bos = -1;
    int rc;
    if (q->protocol == NB_EVAL_LM_EVAL) {
        rc = make_lm_eval(&b, q, tokenizer, err);
    } else {
        rc = encode(&b, q, tokenizer, &bos, err);
        if (!rc) rc = make_from_ids(&b, q, bos, err);
    }
    if (!rc && out->n_segments == 0)
        rc = nb_fail(err, NB_E_FORMAT, "the text has nothing to score");
    if (rc) nb_eval_plan_release(out);
    return rc;
}

int nb_eval_plan_windows(struct nb_eval_plan *out, const struct nb_windows *w, struct nb_err *err)
{
    memset(out, 0, sizeof *out);
    struct building b = {.plan = out};
    if (w->seqlen < 2) {
        return nb_fail(err, NB_E_USAGE,
                       "a window of %" PRId64 " tokens scores nothing, at least 2 are needed",
                       w->seqlen);
    }
    out->window = w->seqlen;
    memcpy(out->text_sha256, w->text_sha256, sizeof out->text_sha256);
    int rc = append_ids(&b, w->ids, (size_t)(w->n_windows * w->seqlen), err);
    if (!rc) rc = add_windows(&b, w->seqlen, w->seqlen, 1, err);
    if (rc) nb_eval_plan_release(out);
    return rc;
}

int nb_eval_plan_logits(struct nb_eval_plan *out, const struct nb_eval_logits *logits,
                        const struct nb_tokenizer *tokenizer, int64_t limit, struct nb_err *err)
{
    struct nb_eval_logits_shape shape = nb_eval_logits_shape_of(logits);
    int64_t n = limit && limit < shape.n_windows ? limit : shape.n_windows;
    memset(out, 0, sizeof *out);
    out->protocol = NB_EVAL_LLAMACPP;
    out->window = shape.window;
    struct building b = {.plan = out};
    int32_t bos;
    bool ends;
    int rc = find_bos(tokenizer, &bos, &ends, err);
    if (!rc && ends) rc = refuse_end(out, err);
    if (!rc) out->bos = bos >= 0;
    if (!rc) rc = append_ids(&b, nb_eval_logits_ids(logits), (size_t)(n * shape.window), err);
    if (!rc) rc = add_halves(&b, bos, err);
    if (rc) nb_eval_plan_release(out);
    return rc;
}

void nb_eval_plan_release(struct nb_eval_plan *plan)
{
    nb_free(plan->ids);
    nb_free(plan->replaced);
    nb_free(plan->segments);
    memset(plan, 0, sizeof *plan);
}

struct nb_eval_per_text nb_eval_per_text_of(const struct nb_eval_plan *plan, double ppl,
                                            int64_t n_tokens)
{
    struct nb_eval_per_text t = {0};
    if (plan->n_words < 1) return t;
    double nll = log(ppl) * (double)n_tokens;
    t.word_perplexity = exp(nll / (double)plan->n_words);
    t.byte_perplexity = exp(nll / (double)plan->n_bytes);
    t.bits_per_byte = nll / ((double)plan->n_bytes * log(2.0));
    return t;
}

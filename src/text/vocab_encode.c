/* SPDX-License-Identifier: Apache-2.0
 *
 * vocab_encode.c - encodes with a GGUF vocabulary: special tokens, then the model on what is
 * between them.
 *
 * Source: llama_vocab::impl::tokenize in llama.cpp's src/llama-vocab.cpp. It puts U+FFFD for bytes
 * that are no UTF-8; such text does not come here. */
#include "text/ids.h"
#include "text/model.h"

struct encoding {
    const struct nb_tokenizer *t;
    const char *text;
    struct nb_ids *ids;
    bool behind_special; /* or at the start */
    struct nb_pre_run pre;
    struct nb_bpe_run bpe;
    struct nb_spm_run spm;
    struct nb_strbuf escaped;
};

static int take_word(void *ctx, const char *word, size_t n, struct nb_err *err)
{
    struct encoding *e = ctx;
    return nb_bpe_encode(&e->t->model, &e->bpe, word, n, e->ids, err);
}

/* Spaces become U+2581. */
static int encode_spm(struct encoding *e, const char *s, size_t n, struct nb_err *err)
{
    struct nb_strbuf *b = &e->escaped;
    nb_strbuf_reset(b);
    if (e->t->rules->space_prefix && e->behind_special) nb_strbuf_puts(b, "\xe2\x96\x81");
    for (size_t i = 0; i < n; i++) {
        if (s[i] == ' ') nb_strbuf_puts(b, "\xe2\x96\x81");
        else nb_strbuf_putc(b, s[i]);
    }
    if (b->failed) return nb_fail(err, NB_E_NOMEM, "tokenizer: no memory for %zu bytes of text", n);
    return nb_spm_encode(&e->t->rules->spm, &e->spm, b->data, b->len, e->ids, err);
}

static int take_piece(void *ctx, int32_t id, size_t start, size_t end, struct nb_err *err)
{
    struct encoding *e = ctx;
    int rc;
    if (id >= 0) rc = nb_ids_add(e->ids, id, err);
    else if (e->t->rules->is_spm) rc = encode_spm(e, e->text + start, end - start, err);
    else rc = nb_pretokenizer_run(&e->pre, e->text + start, end - start, start == 0, err);
    e->behind_special = id >= 0;
    return rc;
}

int nb_vocab_encode(const struct nb_tokenizer *t, const char *text, size_t bytes, unsigned flags,
                    struct nb_ids *ids, struct nb_err *err)
{
    const struct nb_vocab_rules *rules = t->rules;
    bool template = (flags & NB_ENCODE_TEMPLATE) != 0;
    struct encoding *e = nb_xalloc(sizeof *e);
    *e = (struct encoding){.t = t, .text = text, .ids = ids, .behind_special = true};
    e->pre = (struct nb_pre_run){
        .pre = &t->pre, .matcher = nb_matcher_new(), .take = take_word, .ctx = e};
    struct nb_special_cut cut = {&rules->specials, (flags & NB_ENCODE_PLAIN) != 0, take_piece, e};
    int rc = e->pre.matcher ? 0 : nb_fail(err, NB_E_NOMEM, "tokenizer: no memory for a matcher");
    if (!rc && template && rules->before >= 0) rc = nb_ids_add(ids, rules->before, err);
    if (!rc) rc = nb_specials_cut(&cut, text, bytes, err);
    if (!rc && template && rules->after >= 0) rc = nb_ids_add(ids, rules->after, err);
    nb_matcher_free(e->pre.matcher);
    nb_pre_run_release(&e->pre);
    nb_bpe_run_release(&e->bpe);
    nb_spm_run_release(&e->spm);
    nb_strbuf_release(&e->escaped);
    nb_free(e);
    return rc;
}

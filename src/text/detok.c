/* SPDX-License-Identifier: Apache-2.0
 *
 * detok.c - ids to text, all at once or as they come. The decoder's steps do the work. */
#include "base/mem.h"
#include "text/decoder.h"
#include "text/model.h"
#include "text/tokenizer.h"

struct nb_detok {
    const struct nb_tokenizer *t;
    bool skip_special;
    struct nb_decoder_run run;
};

struct nb_detok *nb_detok_new(const struct nb_tokenizer *t, bool skip_special)
{
    struct nb_detok *d = nb_xalloc(sizeof *d);
    d->t = t;
    d->skip_special = skip_special;
    d->run.decoder = &t->decoder;
    return d;
}

void nb_detok_free(struct nb_detok *d)
{
    if (!d) return;
    nb_decoder_run_release(&d->run);
    nb_matcher_free(d->run.matcher);
    nb_free(d);
}

/* Only decoders with a Replace match anything, so the scratch is made at the first token. */
static int prepare(struct nb_detok *d, struct nb_strbuf *out, struct nb_err *err)
{
    d->run.out = out;
    if (!d->run.matcher) d->run.matcher = nb_matcher_new();
    return d->run.matcher ? 0 : nb_fail(err, NB_E_NOMEM, "tokenizer: no memory for a matcher");
}

int nb_detok_push(struct nb_detok *d, int32_t id, struct nb_strbuf *out, struct nb_err *err)
{
    const struct nb_tokenizer *t = d->t;
    if (id < 0 || (size_t)id >= t->n_tokens) {
        return nb_fail(err, NB_E_FORMAT, "token id %d is outside the vocabulary of %zu", id,
                       t->n_tokens);
    }
    const struct nb_token *token = &t->tokens[id];
    bool left_out = !token->text || (d->skip_special && t->special[id]);
    if (left_out && !t->decoder.bytes) return 0;
    int rc = prepare(d, out, err);
    if (!rc && left_out) return nb_decoder_token(&d->run, "", 0, err);
    return rc ? rc : nb_decoder_token(&d->run, token->text, token->bytes, err);
}

int nb_detok_finish(struct nb_detok *d, struct nb_strbuf *out, struct nb_err *err)
{
    int rc = prepare(d, out, err);
    return rc ? rc : nb_decoder_finish(&d->run, err);
}

int nb_tokenizer_decode(const struct nb_tokenizer *t, const int32_t *ids, size_t n,
                        bool skip_special, struct nb_strbuf *out, struct nb_err *err)
{
    struct nb_detok *d = nb_detok_new(t, skip_special);
    int rc = 0;
    for (size_t i = 0; i < n && !rc; i++) rc = nb_detok_push(d, ids[i], out, err);
    if (!rc) rc = nb_detok_finish(d, out, err);
    nb_detok_free(d);
    return rc;
}

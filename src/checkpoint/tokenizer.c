/* SPDX-License-Identifier: Apache-2.0
 *
 * tokenizer.c - the tokenizer of a model: tokenizer.json of its folder, or the vocabulary in GGUF metadata. */
#include "text/tokenizer.h"

#include <string.h>

#include "base/file.h"
#include "checkpoint/internal.h"

static int from_gguf(struct nb_tokenizer **out, const struct nb_gguf *g, struct nb_err *err)
{
    struct nb_vocab v;
    int rc = nb_gguf_read_vocab(g, &v, err);
    if (!rc) rc = nb_tokenizer_from_vocab(out, &v, nb_gguf_part_path(g, 0), err);
    nb_vocab_release(&v);
    return rc;
}

bool nb_model_has_tokenizer(const struct nb_model *m)
{
    struct nb_span model = {0};
    if (m->gguf) {
        nb_gguf_get_string(m->gguf, "tokenizer.ggml.model", false, &model, NULL);
        return model.bytes && !(model.bytes == 4 && !memcmp(model.data, "none", 4)) &&
               !(model.bytes == 8 && !memcmp(model.data, "no_vocab", 8));
    }
    char *path = nb_path_join(m->dir, "tokenizer.json");
    bool there = nb_path_exists(path);
    nb_free(path);
    return there;
}

int nb_model_tokenizer(struct nb_tokenizer **out, const struct nb_model *m, struct nb_err *err)
{
    return m->gguf ? from_gguf(out, m->gguf, err) : nb_tokenizer_open(out, m->dir, err);
}

int nb_model_tokenizer_at(struct nb_tokenizer **out, const char *path, struct nb_err *err)
{
    if (!nb_gguf_is_model(path)) return nb_tokenizer_open(out, path, err);
    struct nb_gguf *g = NULL;
    int rc = nb_gguf_open(&g, path, err);
    if (!rc) rc = from_gguf(out, g, err);
    nb_gguf_close(g);
    return rc;
}

int nb_model_end_ids(const struct nb_model *m, int32_t *ids, size_t max, size_t *n,
                     struct nb_err *err)
{
    *n = 0;
    if (!m->gguf || !nb_model_has_tokenizer(m)) return 0;
    struct nb_vocab v;
    int rc = nb_gguf_read_vocab(m->gguf, &v, err);
    if (!rc) *n = nb_vocab_end_ids(&v, ids, max);
    nb_vocab_release(&v);
    return rc;
}

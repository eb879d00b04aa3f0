/* SPDX-License-Identifier: Apache-2.0
 *
 * lm.c - opens and closes a language model with all its parts; text to tokens and back. */
#include <inttypes.h>
#include <string.h>

#include "api/api.h"
#include "base/file.h"
#include "base/mem.h"
#include "base/strbuf.h"

int nb_runtime_init(struct nb_runtime *rt, int threads, const char *cpu, struct nb_err *err)
{
    memset(rt, 0, sizeof *rt);
    rt->pool = nb_pool_new(threads, err);
    if (!rt->pool) return err ? err->status : NB_E_NOMEM;
    int rc = nb_backend_new(&rt->be, rt->pool, cpu, err);
    if (rc) nb_runtime_release(rt);
    return rc;
}

void nb_runtime_release(struct nb_runtime *rt)
{
    nb_backend_free(rt->be);
    nb_pool_free(rt->pool);
    memset(rt, 0, sizeof *rt);
}

void nb_lm_opts_defaults(struct nb_lm_opts *opts)
{
    memset(opts, 0, sizeof *opts);
}

static void add_eos(struct nb_lm *lm, int64_t id)
{
    if (id < 0 || id >= lm->model->arch.vocab_size || lm->n_eos == NB_MAX_EOS) return;
    for (int i = 0; i < lm->n_eos; i++) {
        if (lm->eos[i] == id) return;
    }
    lm->eos[lm->n_eos++] = (int32_t)id;
}

/* Those that llama.cpp ends at. */
static int read_gguf_eos(struct nb_lm *lm, struct nb_err *err)
{
    int32_t ids[NB_MAX_EOS];
    size_t n = 0;
    int rc = nb_model_end_ids(lm->model, ids, NB_MAX_EOS, &n, err);
    for (size_t i = 0; i < n; i++) add_eos(lm, ids[i]);
    return rc;
}

/* Instruction models end their turns with tokens that only generation_config.json names. */
static int read_eos(struct nb_lm *lm, struct nb_err *err)
{
    for (int i = 0; i < lm->model->arch.n_eos; i++) add_eos(lm, lm->model->arch.eos_ids[i]);
    if (lm->model->gguf) return read_gguf_eos(lm, err);
    char *path = nb_path_join(lm->model->dir, "generation_config.json");
    json_t *config = nb_path_exists(path) ? nb_json_load(path, 1 << 20, err) : json_object();
    nb_free(path);
    if (!config) return err ? err->status : NB_E_FORMAT;
    const json_t *eos = json_object_get(config, "eos_token_id");
    if (json_is_integer(eos)) add_eos(lm, json_integer_value(eos));
    for (size_t i = 0; i < json_array_size(eos); i++) {
        const json_t *id = json_array_get(eos, i);
        if (json_is_integer(id)) add_eos(lm, json_integer_value(id));
    }
    json_decref(config);
    return 0;
}

int nb_lm_check_vocabulary(const struct nb_model *model, const struct nb_tokenizer *tokenizer,
                           int64_t *missing, struct nb_err *err)
{
    int64_t tokens = nb_tokenizer_size(tokenizer), rows = model->arch.vocab_size;
    if (missing) *missing = tokens < rows ? rows - tokens : 0;
    if (tokens <= rows) return 0;
    return nb_fail(err, NB_E_FORMAT,
                   "%s: %s has ids up to %" PRId64 ", the embedding has %" PRId64 " rows",
                   model->dir, model->gguf ? "the vocabulary" : "tokenizer.json", tokens - 1, rows);
}

bool nb_lm_vocabulary_gap(const struct nb_model *model, int64_t missing)
{
    return missing * 100 > model->arch.vocab_size;
}

int nb_lm_load(struct nb_lm **out, const char *dir, const struct nb_runtime *rt,
               bool need_tokenizer, struct nb_err *err)
{
    struct nb_lm *lm = nb_xalloc(sizeof *lm);
    lm->rt = rt;
    int rc = nb_model_open(&lm->model, dir, err);
    if (!rc && (need_tokenizer || nb_model_has_tokenizer(lm->model)))
        rc = nb_model_tokenizer(&lm->tokenizer, lm->model, err);
    if (!rc && lm->tokenizer) rc = nb_lm_check_vocabulary(lm->model, lm->tokenizer, NULL, err);
    if (!rc) rc = read_eos(lm, err);
    if (!rc) rc = nb_engine_new(&lm->engine, lm->model, rt->be, err);
    if (rc) nb_lm_close(lm);
    else *out = lm;
    return rc;
}

int nb_lm_open(struct nb_lm **out, const char *model, const struct nb_lm_opts *opts,
               struct nb_err *err)
{
    struct nb_lm_opts defaults;
    nb_lm_opts_defaults(&defaults);
    if (!opts) opts = &defaults;
    char *dir;
    int rc = nb_locate_model(model, &dir, err);
    if (rc) return rc;
    struct nb_runtime rt;
    struct nb_lm *lm = NULL;
    rc = nb_runtime_init(&rt, opts->threads, opts->cpu, err);
    if (!rc) {
        rc = nb_lm_load(&lm, dir, &rt, true, err);
        if (rc) nb_runtime_release(&rt);
    }
    nb_free(dir);
    if (rc) return rc;
    lm->own = rt;
    lm->rt = &lm->own;
    *out = lm;
    return 0;
}

void nb_lm_close(struct nb_lm *lm)
{
    if (!lm) return;
    nb_engine_free(lm->engine);
    nb_tokenizer_close(lm->tokenizer);
    nb_model_close(lm->model);
    if (lm->own.pool) nb_runtime_release(&lm->own);
    nb_free(lm);
}

int64_t nb_lm_vocabulary(const struct nb_lm *lm)
{
    return lm->model->arch.vocab_size;
}

int64_t nb_lm_context(const struct nb_lm *lm)
{
    return lm->model->arch.max_position;
}

int nb_lm_encode(const struct nb_lm *lm, const char *text, size_t bytes, unsigned flags,
                 struct nb_lm_ids *out, struct nb_err *err)
{
    struct nb_ids list = {0};
    unsigned f = (flags & NB_LM_PLAIN ? (unsigned)NB_ENCODE_PLAIN : 0u) |
                 (flags & NB_LM_TEMPLATE ? (unsigned)NB_ENCODE_TEMPLATE : 0u);
    int rc = nb_tokenizer_encode(lm->tokenizer, text, bytes, f, &list, err);
    if (rc) {
        nb_ids_release(&list);
        return rc;
    }
    *out =
        (struct nb_lm_ids){list.data, list.n}; /* nb_ids grows by nb_alloc, so nb_free takes it */
    return 0;
}

int nb_lm_decode(const struct nb_lm *lm, const int32_t *ids, size_t n, char **text, size_t *bytes,
                 struct nb_err *err)
{
    struct nb_strbuf out;
    nb_strbuf_init(&out);
    nb_strbuf_puts(&out, "");
    int rc = nb_tokenizer_decode(lm->tokenizer, ids, n, false, &out, err);
    if (!rc && out.failed)
        rc = nb_fail(err, NB_E_NOMEM, "out of memory for the text of %zu tokens", n);
    if (rc) {
        nb_strbuf_release(&out);
        return rc;
    }
    *text = out.data;
    *bytes = out.len;
    return 0;
}

void nb_lm_free(void *block)
{
    nb_free(block);
}

/* A token of tokenizer_config.json: a string, or an object with "content". */
static int64_t config_token(const json_t *config, const char *key, const struct nb_tokenizer *tok)
{
    const json_t *v = json_object_get(config, key);
    if (json_is_object(v)) v = json_object_get(v, "content");
    return json_is_string(v) ? nb_tokenizer_id(tok, json_string_value(v)) : -1;
}

int64_t nb_lm_prefix_id(const struct nb_lm *lm, const struct nb_tokenizer *tok)
{
    char *path = nb_path_join(lm->model->dir, "tokenizer_config.json");
    json_t *config = nb_path_exists(path) ? nb_json_load(path, 64 << 20, NULL) : NULL;
    nb_free(path);
    int64_t id = config_token(config, "bos_token", tok);
    if (id < 0) id = config_token(config, "eos_token", tok);
    json_decref(config);
    if (id < 0) id = lm->model->arch.bos_id;
    return id < 0 && lm->n_eos ? lm->eos[0] : id;
}

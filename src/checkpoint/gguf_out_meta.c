/* SPDX-License-Identifier: Apache-2.0
 *
 * gguf_out_meta.c - the metadata of a GGUF file that is made from a model: general keys, architecture,
 * tokenizer, and what the quantization used. No paths: only bare names of files. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "checkpoint/gguf_out_internal.h"

enum { MAX_JSON = 256 << 20, MAX_TEMPLATE = 16 << 20, MAX_TEXT = 127 };

/* Last part of a path, of "." and ".." what they stand for. nb_free. */
static char *bare_name(const char *path)
{
    char *whole = realpath(path, NULL), *name = nb_xstrdup(whole ? whole : path);
    size_t n = strlen(name);
    while (n > 1 && name[n - 1] == '/') name[--n] = '\0';
    const char *slash = strrchr(name, '/');
    char *copy = nb_xstrdup(slash && slash[1] ? slash + 1 : name);
    nb_err_clean(copy);
    nb_free(name);
    free(whole);
    return copy;
}

/* ---- of a folder ---- */

static int set_architecture(struct nb_gguf_out *o, struct nb_strbuf *notes, struct nb_err *err)
{
    json_t *list = NULL, *sentences = NULL, *v;
    size_t i;
    int rc = nb_arch_gguf_metadata(&o->model->arch, &list, &sentences, err);
    if (rc) return rc;
    char *name = o->opts.name ? nb_xstrdup(o->opts.name) : bare_name(o->model->dir);
    json_array_foreach(list, i, v)
    {
        const char *key = json_string_value(json_object_get(v, "key"));
        const char *type = json_string_value(json_object_get(v, "type"));
        const json_t *value = json_object_get(v, "value");
        /* The type decides: 10000 may be meant as a real. */
        if (!strcmp(type, "f32")) {
            rc = nb_gguf_writer_set_f32(o->writer, key, (float)json_number_value(value), err);
        } else {
            rc = nb_gguf_writer_set_json(o->writer, key, value, err);
        }
        if (!rc && i == 0) rc = nb_gguf_writer_set_string(o->writer, "general.type", "model", err);
        if (!rc && i == 0) rc = nb_gguf_writer_set_string(o->writer, "general.name", name, err);
        if (rc) break;
    }
    json_array_foreach(sentences, i, v)
    {
        if (notes) nb_strbuf_printf(notes, "%s\n", json_string_value(v));
    }
    nb_free(name);
    json_decref(list);
    json_decref(sentences);
    return rc;
}

/* *out NULL: there is no such file. */
static int load_json(const char *dir, const char *name, json_t **out, struct nb_err *err)
{
    char *path = nb_path_join(dir, name);
    int rc = 0;
    *out = NULL;
    if (nb_path_exists(path)) {
        *out = nb_json_load(path, MAX_JSON, err);
        if (!*out) rc = err ? err->status : NB_E_FORMAT;
    }
    nb_free(path);
    return rc;
}

static int set_vocabulary(struct nb_gguf_out *o, struct nb_strbuf *notes, struct nb_err *err)
{
    const struct nb_model *m = o->model;
    json_t *tokenizer = NULL, *config = NULL, *generation = NULL;
    char *text = NULL, *path = nb_path_join(m->dir, "chat_template.jinja");
    size_t bytes = 0;
    int rc = load_json(m->dir, "tokenizer.json", &tokenizer, err);
    if (!rc) rc = load_json(m->dir, "tokenizer_config.json", &config, err);
    if (!rc) rc = load_json(m->dir, "generation_config.json", &generation, err);
    if (!rc && nb_path_exists(path)) rc = nb_file_read(path, MAX_TEMPLATE, &text, &bytes, err);
    struct nb_vocab_source source = {.tokenizer = tokenizer,
                                     .tokenizer_config = config,
                                     .config = m->config,
                                     .generation = generation,
                                     .chat_template = {(const unsigned char *)text, bytes},
                                     .n_rows = (size_t)m->arch.vocab_size,
                                     .what = "tokenizer.json"};
    struct nb_vocab v;
    if (!rc) rc = nb_tokenizer_vocab(&v, &source, notes, err);
    if (!rc) {
        rc = nb_gguf_write_vocab(o->writer, &v, err);
        nb_vocab_release(&v);
    }
    nb_free(text);
    nb_free(path);
    json_decref(tokenizer);
    json_decref(config);
    json_decref(generation);
    return rc;
}

/* ---- of any source ---- */

/* What says how it is quantized goes to the end, where llama-quantize puts it. */
static int copy_metadata(struct nb_gguf_out *o, struct nb_err *err)
{
    const struct nb_gguf *g = o->model->gguf;
    int rc = 0;
    for (size_t i = 0; i < nb_gguf_kv_count(g) && !rc; i++) {
        const struct nb_gguf_kv *kv = nb_gguf_kv_at(g, i);
        if (!strcmp(kv->key, "general.quantization_version") ||
            !strcmp(kv->key, "general.file_type") || !strncmp(kv->key, "quantize.imatrix.", 17))
            continue;
        rc = nb_gguf_writer_copy(o->writer, kv, err);
    }
    return rc;
}

static int set_cut(struct nb_gguf_out *o, const char *key, const char *path, struct nb_err *err)
{
    const char *slash = strrchr(path, '/');
    char text[MAX_TEXT + 1];
    snprintf(text, sizeof text, "%s", slash ? slash + 1 : path);
    nb_err_clean(text);
    return nb_gguf_writer_set_string(o->writer, key, text, err);
}

static int set_imatrix(struct nb_gguf_out *o, struct nb_err *err)
{
    const struct nb_imatrix *im = o->opts.imatrix;
    int rc = 0;
    if (o->opts.imatrix_name) rc = set_cut(o, "quantize.imatrix.file", o->opts.imatrix_name, err);
    if (!rc && im->n_datasets) rc = set_cut(o, "quantize.imatrix.dataset", im->datasets[0], err);
    if (!rc) {
        rc = nb_gguf_writer_set_u32(o->writer, "quantize.imatrix.entries_count", (uint32_t)im->n,
                                    err);
    }
    if (!rc && im->n_chunks > 0) {
        rc = nb_gguf_writer_set_u32(o->writer, "quantize.imatrix.chunks_count",
                                    (uint32_t)im->n_chunks, err);
    }
    return rc;
}

int nb_gguf_out_metadata(struct nb_gguf_out *o, struct nb_strbuf *notes, struct nb_err *err)
{
    const bool folder = !o->model->gguf;
    uint32_t file_type = (uint32_t)o->opts.rules.preset->file_type;
    int rc = folder ? set_architecture(o, notes, err) : copy_metadata(o, err);
    if (!rc) rc = nb_gguf_writer_set_u32(o->writer, "general.quantization_version", 2, err);
    if (!rc) rc = nb_gguf_writer_set_u32(o->writer, "general.file_type", file_type, err);
    if (!rc && folder && nb_model_has_tokenizer(o->model)) {
        rc = set_vocabulary(o, notes, err);
    } else if (!rc && folder) {
        if (notes)
            nb_strbuf_puts(notes, "there is no tokenizer.json: the file has no vocabulary\n");
        rc = nb_gguf_writer_set_string(o->writer, "tokenizer.ggml.model", "none", err);
    }
    return rc || !o->opts.imatrix ? rc : set_imatrix(o, err);
}

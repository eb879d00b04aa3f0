/* SPDX-License-Identifier: Apache-2.0
 *
 * A GGUF file image: whatever the bytes, no crash; what is accepted lies inside the image without overlap,
 * and, planned and laid out by the writer, reads back as the same metadata and the same tensors. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "container/gguf.h"
#include "container/gguf_layout.h"

static void require(bool good)
{
    if (!good) abort();
}

static void check_kv(const struct nb_gguf *g, const struct nb_gguf_kv *kv, const uint8_t *data,
                     size_t size)
{
    require(kv->key[0] != 0);
    require(nb_gguf_kv_find(g, kv->key) == kv);
    require(kv->data.data >= data && kv->data.bytes <= size &&
            kv->data.data + kv->data.bytes <= data + size);
    if (kv->elem != NB_GGUF_STRING)
        require(kv->data.bytes == kv->count * nb_gguf_value_bytes(kv->elem));
    struct nb_span *strings = NULL;
    size_t n = 0;
    struct nb_err err;
    int rc = nb_gguf_get_strings(g, kv->key, true, &strings, &n, &err);
    require((rc == 0) == (kv->type == NB_GGUF_ARRAY && kv->elem == NB_GGUF_STRING));
    require(rc || n == kv->count);
    nb_free(strings);
}

static void check_tensors(const struct nb_gguf *g, const uint8_t *data, size_t size)
{
    const unsigned char *end = data;
    for (size_t i = 0; i < nb_gguf_count(g); i++) {
        const struct nb_gguf_tensor *t = nb_gguf_at(g, i);
        require(nb_gguf_find(g, t->name) == t);
        require(t->name[0] != 0 && strlen(t->name) <= NB_GGUF_MAX_NAME);
        require(t->data.data >= end && t->data.bytes <= size);
        end = t->data.data + t->data.bytes;
        require(end <= data + size);
        uint64_t elements = 1;
        for (int k = 0; k < NB_GGUF_MAX_DIMS; k++) elements *= (uint64_t)t->ne[k];
        require(elements / (uint64_t)t->type->elems * (uint64_t)t->type->bytes == t->data.bytes);
    }
}

/* Plans what g holds. False: it holds what the writer does not write. */
static bool plan(struct nb_gguf_writer *w, const struct nb_gguf *g)
{
    struct nb_err err;
    for (size_t i = 0; i < nb_gguf_kv_count(g); i++) {
        if (nb_gguf_writer_copy(w, nb_gguf_kv_at(g, i), &err)) return false;
    }
    for (size_t i = 0; i < nb_gguf_count(g); i++) {
        const struct nb_gguf_tensor *t = nb_gguf_at(g, i);
        if (nb_gguf_writer_plan(w, t->name, t->type->id, t->n_dims, t->ne, &err)) return false;
    }
    return nb_gguf_layout_make(&w->layout, "copy", 0, &err) == 0;
}

static void compare(const struct nb_gguf *g, const struct nb_gguf *h)
{
    require(nb_gguf_version(h) == 3 && nb_gguf_alignment(h) == NB_GGUF_ALIGN);
    require(nb_gguf_count(g) == nb_gguf_count(h) && nb_gguf_bytes(g) == nb_gguf_bytes(h));
    for (size_t i = 0; i < nb_gguf_count(g); i++) {
        const struct nb_gguf_tensor *a = nb_gguf_at(g, i), *b = nb_gguf_at(h, i);
        require(!strcmp(a->name, b->name) && a->type == b->type);
        require(!memcmp(a->ne, b->ne, sizeof a->ne));
    }
    for (size_t i = 0; i < nb_gguf_kv_count(h); i++) {
        const struct nb_gguf_kv *b = nb_gguf_kv_at(h, i), *a = nb_gguf_kv_find(g, b->key);
        require(a && a->type == b->type && a->elem == b->elem && a->count == b->count);
        require(a->data.bytes == b->data.bytes);
        if (a->elem != NB_GGUF_BOOL) require(!memcmp(a->data.data, b->data.data, a->data.bytes));
    }
}

static void round_trip(const struct nb_gguf *g)
{
    struct nb_gguf_writer *w = nb_gguf_writer_new();
    if (plan(w, g)) {
        const struct nb_gguf_file *f = &w->layout.files[0];
        unsigned char *image = nb_calloc(f->file_bytes, 1);
        struct nb_err err;
        struct nb_gguf *h = NULL;
        require(image != NULL);
        memcpy(image, f->head, f->head_bytes);
        require(!nb_gguf_parse(&h, (struct nb_span){image, f->file_bytes}, "copy", &err));
        compare(g, h);
        nb_gguf_close(h);
        nb_free(image);
    }
    nb_gguf_writer_free(w);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct nb_err err;
    struct nb_gguf *g;
    if (nb_gguf_parse(&g, (struct nb_span){data, size}, "image", &err)) {
        require(err.text[0] && !g);
        return 0;
    }
    for (size_t i = 0; i < nb_gguf_kv_count(g); i++) check_kv(g, nb_gguf_kv_at(g, i), data, size);
    check_tensors(g, data, size);
    json_t *metadata = nb_gguf_metadata_json(g, 16, &err);
    require(metadata != NULL);
    json_decref(metadata);
    round_trip(g);
    nb_gguf_close(g);
    return 0;
}

/* SPDX-License-Identifier: Apache-2.0
 *
 * gguf_rewrite.c - reads a GGUF model with our reader and writes it again with our writer, for peers to judge.
 *
 * usage: gguf_rewrite IN OUT [MAX_PART_BYTES]   tensors go out last to first, each in two pieces */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "container/gguf.h"

static int plan(struct nb_gguf_writer *w, const struct nb_gguf *g, struct nb_err *err)
{
    int rc = 0;
    for (size_t i = 0; !rc && i < nb_gguf_kv_count(g); i++)
        rc = nb_gguf_writer_copy(w, nb_gguf_kv_at(g, i), err);
    for (size_t i = 0; !rc && i < nb_gguf_count(g); i++) {
        const struct nb_gguf_tensor *t = nb_gguf_at(g, i);
        rc = nb_gguf_writer_plan(w, t->name, t->type->id, t->n_dims, t->ne, err);
    }
    return rc;
}

static int put(struct nb_gguf_writer *w, const struct nb_gguf *g, struct nb_err *err)
{
    int rc = 0;
    for (size_t i = nb_gguf_count(g); !rc && i-- > 0;) {
        const struct nb_gguf_tensor *t = nb_gguf_at(g, i);
        size_t half = t->data.bytes / 2;
        rc =
            nb_gguf_writer_put_at(w, t->name, half, t->data.data + half, t->data.bytes - half, err);
        if (!rc) rc = nb_gguf_writer_put_at(w, t->name, 0, t->data.data, half, err);
        nb_gguf_drop(g, t);
    }
    return rc ? rc : nb_gguf_writer_finish(w, err);
}

int main(int argc, char **argv)
{
    if (argc < 3) {
        fputs("usage: gguf_rewrite IN OUT [MAX_PART_BYTES]\n", stderr);
        return 2;
    }
    struct nb_err err;
    struct nb_gguf *g = NULL;
    struct nb_gguf_writer *w = nb_gguf_writer_new();
    struct nb_gguf_writer_opts o = {.path = argv[2],
                                    .max_part_bytes = argc > 3 ? strtoull(argv[3], NULL, 10) : 0};
    int rc = nb_gguf_open(&g, argv[1], &err);
    if (!rc) rc = plan(w, g, &err);
    if (!rc) rc = nb_gguf_writer_open(w, &o, &err);
    if (!rc) rc = put(w, g, &err);
    for (size_t i = 0; !rc && i < nb_gguf_writer_part_count(w); i++)
        printf("%s\n", nb_gguf_writer_part_path(w, i));
    if (rc) fprintf(stderr, "gguf_rewrite: %s\n", err.text);
    nb_gguf_writer_free(w);
    nb_gguf_close(g);
    return rc != 0;
}

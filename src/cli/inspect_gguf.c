/* SPDX-License-Identifier: Apache-2.0
 *
 * inspect_gguf.c - see inspect_gguf.h. */
#include "cli/inspect_gguf.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "base/strbuf.h"

enum { SHOWN_ELEMS = 8, SHOWN_BYTES = 200 };

/* With all arrays, cut short. */
static json_t *metadata_json(const struct nb_gguf *g)
{
    json_t *all = json_object();
    for (size_t i = 0; i < nb_gguf_kv_count(g); i++) {
        const struct nb_gguf_kv *kv = nb_gguf_kv_at(g, i);
        json_t *v = nb_gguf_kv_json(kv, SHOWN_ELEMS);
        if (v && kv->type == NB_GGUF_ARRAY) {
            v = json_pack("{s:s, s:I, s:o}", "array", nb_gguf_value_name(kv->elem), "count",
                          (json_int_t)kv->count, "first", v);
        }
        json_object_set_new(all, kv->key, v);
    }
    return all;
}

json_t *nb_cli_gguf_json(const struct nb_gguf *g, bool metadata)
{
    json_t *o =
        json_pack("{s:I, s:I, s:I, s:I}", "version", (json_int_t)nb_gguf_version(g), "alignment",
                  (json_int_t)nb_gguf_alignment(g), "parts", (json_int_t)nb_gguf_part_count(g),
                  "keys", (json_int_t)nb_gguf_kv_count(g));
    if (o && metadata) json_object_set_new(o, "metadata", metadata_json(g));
    return o;
}

void nb_cli_gguf_print_container(const struct nb_gguf *g)
{
    printf("container     GGUF version %" PRIu32 ", alignment %" PRIu32 ", %zu keys\n",
           nb_gguf_version(g), nb_gguf_alignment(g), nb_gguf_kv_count(g));
}

/* A name from a file, harmless for a terminal. */
static char *clean(const char *name)
{
    char *copy = nb_xstrdup(name);
    nb_err_clean(copy);
    return copy;
}

void nb_cli_gguf_print_metadata(const struct nb_gguf *g)
{
    for (size_t i = 0; i < nb_gguf_kv_count(g); i++) {
        const struct nb_gguf_kv *kv = nb_gguf_kv_at(g, i);
        struct nb_strbuf text;
        nb_strbuf_init(&text);
        json_t *v = nb_gguf_kv_json(kv, SHOWN_ELEMS);
        nb_json_dump(v, false, &text, NULL);
        char *key = clean(kv->key), *value = clean(nb_strbuf_cstr(&text));
        printf("%s = ", key);
        if (kv->type == NB_GGUF_ARRAY)
            printf("%" PRIu64 " %s: ", kv->count, nb_gguf_value_name(kv->elem));
        if (kv->type == NB_GGUF_STRING && strlen(value) > SHOWN_BYTES) {
            value[SHOWN_BYTES] = '\0';
            nb_err_clean(value); /* the cut may have split a letter */
            printf("%s ... (%zu bytes)\n", value, kv->data.bytes);
        } else {
            bool cut = kv->type == NB_GGUF_ARRAY && kv->count > SHOWN_ELEMS;
            printf("%s%s\n", value, cut ? " ..." : "");
        }
        nb_free(key);
        nb_free(value);
        json_decref(v);
        nb_strbuf_release(&text);
    }
}

/* Bytes by type, in the order of the types' ids. */
static json_t *bytes_by_type(const struct nb_gguf *g)
{
    uint64_t bytes[NB_GGUF_TYPE_IDS] = {0};
    for (size_t i = 0; i < nb_gguf_count(g); i++) {
        const struct nb_gguf_tensor *t = nb_gguf_at(g, i);
        bytes[t->type->id] += t->data.bytes;
    }
    json_t *types = json_object();
    for (int id = 0; id < NB_GGUF_TYPE_IDS; id++) {
        if (!bytes[id]) continue;
        json_object_set_new(types, nb_gguf_type_by_id(id)->name,
                            json_integer((json_int_t)bytes[id]));
    }
    return types;
}

static const char *file_name(const struct nb_gguf *g, const struct nb_gguf_tensor *t)
{
    const char *path = nb_gguf_part_path(g, t->part), *slash = strrchr(path, '/');
    return slash ? slash + 1 : path;
}

/* Row-major, as shapes are written elsewhere: the last dimension is ne[0]. */
static json_t *tensor_list(const struct nb_gguf *g)
{
    json_t *list = json_array();
    for (size_t i = 0; i < nb_gguf_count(g); i++) {
        const struct nb_gguf_tensor *t = nb_gguf_at(g, i);
        json_t *shape = json_array();
        for (int k = t->n_dims; k-- > 0;) json_array_append_new(shape, json_integer(t->ne[k]));
        json_t *o = json_pack("{s:o, s:s, s:o, s:I, s:o}", "name", nb_cli_string(t->name), "dtype",
                              t->type->name, "shape", shape, "bytes", (json_int_t)t->data.bytes,
                              "file", nb_cli_string(file_name(g, t)));
        json_array_append_new(list, o);
    }
    return list;
}

static void print_tensors(const struct nb_gguf *g)
{
    for (size_t i = 0; i < nb_gguf_count(g); i++) {
        const struct nb_gguf_tensor *t = nb_gguf_at(g, i);
        struct nb_strbuf shape;
        nb_strbuf_init(&shape);
        for (int k = t->n_dims; k-- > 0;)
            nb_strbuf_printf(&shape, "%" PRId64 "%s", t->ne[k], k ? "x" : "");
        char *name = clean(t->name);
        printf("%-56s %-8s %-16s %12zu  %s\n", name, t->type->name,
               t->n_dims ? nb_strbuf_cstr(&shape) : "scalar", t->data.bytes, file_name(g, t));
        nb_free(name);
        nb_strbuf_release(&shape);
    }
}

static void print_all(const struct nb_gguf *g, bool tensors, const char *problem)
{
    char size[32];
    size_t parts = nb_gguf_part_count(g);
    printf("file          %s\n", nb_gguf_part_path(g, 0));
    nb_cli_gguf_print_container(g);
    nb_format_bytes(nb_gguf_bytes(g), size, sizeof size);
    printf("tensors       %s in %zu tensors, %zu file%s:", size, nb_gguf_count(g), parts,
           parts == 1 ? "" : "s");
    json_t *types = bytes_by_type(g), *bytes;
    const char *type;
    json_object_foreach(types, type, bytes)
    {
        nb_format_bytes((uint64_t)json_integer_value(bytes), size, sizeof size);
        printf(" %s %s", type, size);
    }
    json_decref(types);
    printf("\nproblems      %s\n", problem);
    nb_cli_gguf_print_metadata(g);
    if (tensors) print_tensors(g);
}

int nb_cli_gguf_inspect(struct nb_cli *cli, const struct nb_gguf *g, bool tensors,
                        const char *problem, struct nb_err *err)
{
    if (!cli->json) {
        print_all(g, tensors, problem);
        return 0;
    }
    json_t *o =
        json_pack("{s:s, s:o, s:n, s:I, s:I, s:I, s:o, s:[o], s:o}", "command", "inspect", "model",
                  nb_cli_string(nb_gguf_part_path(g, 0)), "architecture", "bytes",
                  (json_int_t)nb_gguf_bytes(g), "files", (json_int_t)nb_gguf_part_count(g),
                  "tensors", (json_int_t)nb_gguf_count(g), "bytes_by_type", bytes_by_type(g),
                  "problems", nb_cli_string(problem), "gguf", nb_cli_gguf_json(g, true));
    if (o && tensors) json_object_set_new(o, "tensor_list", tensor_list(g));
    return nb_cli_emit(cli, o, err);
}

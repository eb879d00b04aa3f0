/* SPDX-License-Identifier: Apache-2.0
 *
 * safetensors_open.c - a file or a folder of shards as one table of named views.
 *
 * Which files: those the index names; without an index model.safetensors; without that every
 * *.safetensors of the folder (older tools named the file after the quantization). Files are mapped, so a
 * tensor costs memory only while it is used. */
#include "container/safetensors.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/mem.h"

enum { INDEX_MAX_BYTES = 256 << 20 };

static const char single_name[] = "model.safetensors";
static const char index_name[] = "model.safetensors.index.json";

struct shard {
    char *name;
    struct nb_map map;
    char *names; /* the tensors' names, one after the other */
};

struct item {
    struct nb_tensor tensor; /* first: a view handed out leads back to its item */
    size_t shard;
};

struct nb_safetensors {
    struct shard *shards;
    size_t n_shards, shard_capacity;
    struct item *items;
    size_t n_items, item_capacity;
    uint64_t bytes;
};

static bool ends_with(const char *s, const char *suffix)
{
    size_t n = strlen(s), m = strlen(suffix);
    return n >= m && !strcmp(s + n - m, suffix);
}

static int add_shard_name(struct nb_safetensors *st, const char *name, struct nb_err *err)
{
    if (!nb_grow((void **)&st->shards, &st->shard_capacity, st->n_shards, sizeof *st->shards)) {
        return nb_fail(err, NB_E_NOMEM, "no memory for a list of %zu shards", st->n_shards + 1);
    }
    st->shards[st->n_shards++] = (struct shard){.name = nb_xstrdup(name)};
    return 0;
}

static int by_shard_name(const void *a, const void *b)
{
    return strcmp(((const struct shard *)a)->name, ((const struct shard *)b)->name);
}

static int shards_of_index(struct nb_safetensors *st, const json_t *map, struct nb_err *err)
{
    const char *name;
    json_t *file;
    const char *last = ""; /* neighbours in an index mostly share their shard */
    json_object_foreach((json_t *)(uintptr_t)map, name, file)
    {
        const char *f = json_string_value(file);
        if (!strcmp(f, last)) continue;
        last = f;
        size_t i = 0;
        while (i < st->n_shards && strcmp(st->shards[i].name, f)) i++;
        if (i < st->n_shards) continue;
        int rc = add_shard_name(st, f, err);
        if (rc) return rc;
    }
    return 0;
}

/* The index of a folder: the standard name, or the only *.safetensors.index.json. NULL: none. */
static char *find_index(const char *dir, char **names, size_t n)
{
    const char *found = NULL;
    size_t count = 0;
    for (size_t i = 0; i < n; i++) {
        if (!strcmp(names[i], index_name)) return nb_path_join(dir, names[i]);
        if (ends_with(names[i], ".safetensors.index.json")) {
            found = names[i];
            count++;
        }
    }
    return count == 1 ? nb_path_join(dir, found) : NULL;
}

static int read_index(struct nb_safetensors *st, const char *path, json_t **map, struct nb_err *err)
{
    char *text;
    size_t bytes;
    int rc = nb_file_read(path, INDEX_MAX_BYTES, &text, &bytes, err);
    if (rc) return rc;
    rc = nb_safetensors_parse_index(text, bytes, path, map, err);
    nb_free(text);
    return rc ? rc : shards_of_index(st, *map, err);
}

static int shards_of_folder(struct nb_safetensors *st, const char *dir, char **names, size_t n,
                            struct nb_err *err)
{
    for (size_t i = 0; i < n; i++) {
        if (!strcmp(names[i], single_name)) return add_shard_name(st, names[i], err);
    }
    bool other = false;
    for (size_t i = 0; i < n; i++) {
        other = other || ends_with(names[i], ".bin") || ends_with(names[i], ".pt");
        if (!ends_with(names[i], ".safetensors")) continue;
        int rc = add_shard_name(st, names[i], err);
        if (rc) return rc;
    }
    if (st->n_shards) return 0;
    nb_fail(err, NB_E_NOTFOUND, "%s: holds no .safetensors file", dir);
    if (other)
        nb_err_hint(err, "weights in PyTorch's own format must be converted to safetensors first");
    return NB_E_NOTFOUND;
}

/* Takes over the views of shard i under names of our own, since the parsed header goes. */
static int append_items(struct nb_safetensors *st, size_t i, const struct nb_tensor *tensors,
                        size_t n)
{
    size_t name_bytes = 0;
    for (size_t k = 0; k < n; k++) name_bytes += strlen(tensors[k].name) + 1;
    char *at = st->shards[i].names = nb_alloc(name_bytes, 1);
    if (!at) return NB_E_NOMEM;
    for (size_t k = 0; k < n; k++) {
        if (!nb_grow((void **)&st->items, &st->item_capacity, st->n_items, sizeof *st->items)) {
            return NB_E_NOMEM;
        }
        struct item *item = &st->items[st->n_items++];
        *item = (struct item){tensors[k], i};
        size_t len = strlen(tensors[k].name) + 1;
        item->tensor.name = memcpy(at, tensors[k].name, len);
        at += len;
        st->bytes += tensors[k].data.bytes;
    }
    return 0;
}

static int load_shard(struct nb_safetensors *st, size_t i, const char *path, struct nb_err *err)
{
    struct shard *s = &st->shards[i];
    int rc = nb_map_open(&s->map, path, err);
    if (rc) return rc;
    struct nb_tensor *tensors;
    json_t *header;
    size_t n;
    rc = nb_safetensors_parse(s->map.span, path, &tensors, &n, &header, err);
    if (rc) return rc;
    if (append_items(st, i, tensors, n)) {
        rc = nb_fail(err, NB_E_NOMEM, "%s: no memory for %zu tensors", path, n);
    }
    nb_free(tensors);
    json_decref(header);
    return rc;
}

static int by_name(const void *a, const void *b)
{
    return strcmp(((const struct item *)a)->tensor.name, ((const struct item *)b)->tensor.name);
}

static int sort_items(struct nb_safetensors *st, const char *path, struct nb_err *err)
{
    if (st->n_items) qsort(st->items, st->n_items, sizeof *st->items, by_name);
    for (size_t i = 1; i < st->n_items; i++) {
        const struct item *a = &st->items[i - 1], *b = &st->items[i];
        if (!strcmp(a->tensor.name, b->tensor.name)) {
            return nb_fail(err, NB_E_FORMAT, "%s: tensor '%.120s' stands in %.100s and in %.100s",
                           path, a->tensor.name, st->shards[a->shard].name,
                           st->shards[b->shard].name);
        }
    }
    return 0;
}

/* Index and shards must tell the same. */
static int check_index(const struct nb_safetensors *st, const char *path, const json_t *map,
                       struct nb_err *err)
{
    const char *name;
    json_t *file;
    json_object_foreach((json_t *)(uintptr_t)map, name, file)
    {
        const struct nb_tensor *t = nb_safetensors_find(st, name);
        const char *f = json_string_value(file);
        if (!t) {
            return nb_fail(err, NB_E_FORMAT, "%s: tensor '%.120s' is not in %.120s", path, name, f);
        }
        if (strcmp(nb_safetensors_file_of(st, t), f)) {
            return nb_fail(err, NB_E_FORMAT,
                           "%s: tensor '%.120s' is said to be in %.100s but stands in %.100s", path,
                           name, f, nb_safetensors_file_of(st, t));
        }
    }
    for (size_t i = 0; i < st->n_items && st->n_items != json_object_size(map); i++) {
        const struct nb_tensor *t = &st->items[i].tensor;
        if (!json_object_get(map, t->name)) {
            return nb_fail(err, NB_E_FORMAT,
                           "%s: does not list tensor '%.120s', which stands in %.120s", path,
                           t->name, nb_safetensors_file_of(st, t));
        }
    }
    return 0;
}

static int open_folder(struct nb_safetensors *st, const char *dir, struct nb_err *err)
{
    char **names;
    size_t n;
    int rc = nb_dir_list(dir, &names, &n, err);
    if (rc) return rc;
    char *index = find_index(dir, names, n);
    json_t *map = NULL;
    rc = index ? read_index(st, index, &map, err) : shards_of_folder(st, dir, names, n, err);
    if (st->n_shards) qsort(st->shards, st->n_shards, sizeof *st->shards, by_shard_name);
    for (size_t i = 0; !rc && i < st->n_shards; i++) {
        char *path = nb_path_join(dir, st->shards[i].name);
        rc = load_shard(st, i, path, err);
        if (rc == NB_E_NOTFOUND && index) {
            nb_fail(err, NB_E_FORMAT, "%s: names %.160s, which is missing", index,
                    st->shards[i].name);
            rc = nb_err_hint(
                err, "the download is incomplete, or the index is left over from another model");
        }
        nb_free(path);
    }
    if (!rc) rc = sort_items(st, dir, err);
    if (!rc && map) rc = check_index(st, index, map, err);
    json_decref(map);
    nb_free(index);
    nb_dir_list_free(names, n);
    return rc;
}

static int open_file(struct nb_safetensors *st, const char *path, struct nb_err *err)
{
    const char *slash = strrchr(path, '/');
    int rc = add_shard_name(st, slash ? slash + 1 : path, err);
    if (!rc) rc = load_shard(st, 0, path, err);
    return rc ? rc : sort_items(st, path, err);
}

int nb_safetensors_open(struct nb_safetensors **out, const char *path, struct nb_err *err)
{
    *out = NULL;
    struct nb_safetensors *st = nb_xalloc(sizeof *st);
    int rc = nb_path_is_dir(path) ? open_folder(st, path, err) : open_file(st, path, err);
    if (rc) {
        nb_safetensors_close(st);
        return rc;
    }
    *out = st;
    return 0;
}

void nb_safetensors_close(struct nb_safetensors *st)
{
    if (!st) return;
    for (size_t i = 0; i < st->n_shards; i++) {
        nb_map_close(&st->shards[i].map);
        nb_free(st->shards[i].names);
        nb_free(st->shards[i].name);
    }
    nb_free(st->shards);
    nb_free(st->items);
    nb_free(st);
}

size_t nb_safetensors_count(const struct nb_safetensors *st)
{
    return st->n_items;
}

const struct nb_tensor *nb_safetensors_at(const struct nb_safetensors *st, size_t i)
{
    return &st->items[i].tensor;
}

size_t nb_safetensors_index_of(const struct nb_safetensors *st, const struct nb_tensor *t)
{
    return (size_t)((const struct item *)t - st->items);
}

const struct nb_tensor *nb_safetensors_find(const struct nb_safetensors *st, const char *name)
{
    size_t lo = 0, hi = st->n_items;
    while (lo < hi) {
        size_t mid = lo + (hi - lo) / 2;
        int c = strcmp(name, st->items[mid].tensor.name);
        if (!c) return &st->items[mid].tensor;
        if (c < 0) hi = mid;
        else lo = mid + 1;
    }
    return NULL;
}

size_t nb_safetensors_file_count(const struct nb_safetensors *st)
{
    return st->n_shards;
}

const char *nb_safetensors_file_name(const struct nb_safetensors *st, size_t i)
{
    return st->shards[i].name;
}

const char *nb_safetensors_file_of(const struct nb_safetensors *st, const struct nb_tensor *t)
{
    return st->shards[((const struct item *)t)->shard].name;
}

uint64_t nb_safetensors_bytes(const struct nb_safetensors *st)
{
    return st->bytes;
}

void nb_safetensors_drop_part(const struct nb_safetensors *st, const struct nb_tensor *t,
                              struct nb_span part)
{
    nb_map_drop(&st->shards[((const struct item *)t)->shard].map, part.data, part.bytes);
}

void nb_safetensors_drop(const struct nb_safetensors *st, const struct nb_tensor *t)
{
    nb_safetensors_drop_part(st, t, t->data);
}

/* SPDX-License-Identifier: Apache-2.0
 *
 * gguf_open.c - one file, a split set or a folder as one table of named views.
 *
 * The parts of a split set are complete GGUF files called PREFIX-00001-of-000NN.gguf; the first has the
 * model's metadata, all say how many there are. Files are mapped, so a tensor costs memory only while
 * it is used. Source: GGUF specification, section 1.9. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/mem.h"
#include "container/gguf.h"
#include "container/gguf_part.h"

enum { SPLIT_SUFFIX = sizeof "-00001-of-00001.gguf" - 1 };

static bool ends_with(const char *s, const char *suffix)
{
    size_t n = strlen(s), m = strlen(suffix);
    return n >= m && !strcmp(s + n - m, suffix);
}

static int five_digits(const char *s)
{
    int v = 0;
    for (int i = 0; i < 5; i++) v = 10 * v + (s[i] - '0');
    return v;
}

/* Is it PREFIX-NNNNN-of-NNNNN.gguf? *part counts from 1. */
static bool is_split_name(const char *name, int *part, int *count)
{
    size_t n = strlen(name);
    if (n <= SPLIT_SUFFIX) return false;
    const char *s = name + n - SPLIT_SUFFIX, *pattern = "-#####-of-#####.gguf";
    for (size_t i = 0; pattern[i]; i++) {
        if (pattern[i] == '#' ? s[i] < '0' || s[i] > '9' : s[i] != pattern[i]) return false;
    }
    *part = five_digits(s + 1);
    *count = five_digits(s + sizeof "-00001-of-" - 1);
    return true;
}

static int add_part(struct nb_gguf *g, const char *path, struct nb_err *err)
{
    struct nb_gguf_part *p = &g->parts[g->n_parts++];
    p->path = nb_xstrdup(path);
    int rc = nb_map_open(&p->map, path, err);
    p->image = p->map.span;
    return rc ? rc : nb_gguf_part_parse(p, err);
}

/* The split keys of a part; *count 0: none. */
static int split_keys(const struct nb_gguf_part *p, uint16_t *no, uint16_t *count,
                      struct nb_err *err)
{
    const struct nb_gguf_kv *kv;
    *no = *count = 0;
    int rc = nb_gguf_part_get(p, "split.count", false, NB_GGUF_U16, &kv, err);
    if (rc || !kv) return rc;
    memcpy(count, kv->data.data, sizeof *count);
    rc = nb_gguf_part_get(p, "split.no", *count > 0, NB_GGUF_U16, &kv, err);
    if (!rc && kv) memcpy(no, kv->data.data, sizeof *no);
    return rc;
}

static int check_split_total(const struct nb_gguf *g, struct nb_err *err)
{
    const struct nb_gguf_kv *kv;
    const struct nb_gguf_part *first = &g->parts[0];
    int rc = nb_gguf_part_get(first, "split.tensors.count", true, NB_GGUF_I32, &kv, err);
    if (rc) return rc;
    uint64_t total = 0;
    for (size_t i = 0; i < g->n_parts; i++) total += g->parts[i].n_tensors;
    int32_t expected = nb_gguf_i32_at(kv, 0);
    if (expected >= 0 && (uint64_t)expected == total) return 0;
    return nb_fail(err, NB_E_FORMAT,
                   "%s: split.tensors.count is %" PRId32 ", the %zu parts hold %" PRIu64 " tensors",
                   first->path, expected, g->n_parts, total);
}

static int open_split_part(struct nb_gguf *g, size_t i, uint16_t count, struct nb_err *err)
{
    const char *first = g->parts[0].path;
    size_t prefix = strlen(first) - SPLIT_SUFFIX, bytes = strlen(first) + 1;
    char *path = nb_xstrdup(first);
    snprintf(path + prefix, bytes - prefix, "-%05zu-of-%05d.gguf", i + 1, (int)count);
    int rc = add_part(g, path, err);
    if (rc == NB_E_NOTFOUND) {
        nb_fail(err, NB_E_FORMAT, "%s: is missing, part %zu of %d", path, i + 1, (int)count);
        rc = nb_err_hint(err, "all parts of a split model must lie in one folder");
    }
    uint16_t no = 0, of = 0;
    if (!rc) rc = split_keys(&g->parts[i], &no, &of, err);
    if (!rc && !of) {
        rc = nb_fail(err, NB_E_FORMAT, "%s: has no key 'split.count', expected part %zu of %d",
                     path, i + 1, (int)count);
    } else if (!rc && (no != i || of != count)) {
        rc = nb_fail(err, NB_E_FORMAT, "%s: says it is part %d of %d, expected part %zu of %d",
                     path, no + 1, (int)of, i + 1, (int)count);
    }
    nb_free(path);
    return rc;
}

static int open_split(struct nb_gguf *g, uint16_t no, uint16_t count, struct nb_err *err)
{
    const char *first = g->parts[0].path;
    if (no) {
        nb_fail(err, NB_E_FORMAT, "%s: is part %d of %d of a split model", first, no + 1,
                (int)count);
        return nb_err_hint(err, "name the first part, the others are found by it");
    }
    int part, of;
    if (!is_split_name(first, &part, &of) || part != 1 || of != count) {
        return nb_fail(err, NB_E_FORMAT,
                       "%s: is the first of %d parts, but is not called PREFIX-00001-of-%05d.gguf",
                       first, (int)count, (int)count);
    }
    struct nb_gguf_part *parts = nb_realloc(g->parts, sizeof *parts, count * sizeof *parts);
    if (!parts) return nb_fail(err, NB_E_NOMEM, "%s: no memory for %d parts", first, (int)count);
    memset(parts + 1, 0, (count - 1u) * sizeof *parts);
    g->parts = parts;
    int rc = 0;
    for (size_t i = 1; !rc && i < count; i++) rc = open_split_part(g, i, count, err);
    return rc ? rc : check_split_total(g, err);
}

static int open_file(struct nb_gguf *g, const char *path, struct nb_err *err)
{
    uint16_t no, count;
    int rc = add_part(g, path, err);
    if (!rc) rc = split_keys(&g->parts[0], &no, &count, err);
    return rc || count < 2 ? rc : open_split(g, no, count, err);
}

static int open_folder(struct nb_gguf *g, const char *dir, struct nb_err *err)
{
    char **names;
    size_t n, found = 0;
    int rc = nb_dir_list(dir, &names, &n, err);
    if (rc) return rc;
    const char *model = NULL, *other = NULL;
    for (size_t i = 0; i < n; i++) {
        int part = 1, of;
        if (!ends_with(names[i], ".gguf") || (is_split_name(names[i], &part, &of) && part != 1))
            continue;
        if (found++ == 0) model = names[i];
        else if (!other) other = names[i];
    }
    if (found == 1) {
        char *path = nb_path_join(dir, model);
        rc = open_file(g, path, err);
        nb_free(path);
    } else if (found) {
        nb_fail(err, NB_E_FORMAT, "%s: holds %zu GGUF models, among them %.120s and %.120s", dir,
                found, model, other);
        rc = nb_err_hint(err, "name the file");
    } else {
        rc = nb_fail(err, NB_E_NOTFOUND, "%s: holds no .gguf file", dir);
    }
    nb_dir_list_free(names, n);
    return rc;
}

static int compare_names(const void *a, const void *b, void *ctx)
{
    const struct nb_gguf_tensor *t = ctx;
    return strcmp(t[*(const size_t *)a].name, t[*(const size_t *)b].name);
}

/* T1: sorting finds a name that stands twice in n log n steps whatever the names are. */
static int sort_names(struct nb_gguf *g, struct nb_err *err)
{
    for (size_t i = 0; i < g->n_tensors; i++) g->by_name[i] = i;
    qsort_r(g->by_name, g->n_tensors, sizeof *g->by_name, compare_names, g->tensors);
    for (size_t i = 1; i < g->n_tensors; i++) {
        const struct nb_gguf_tensor *a = &g->tensors[g->by_name[i - 1]],
                                    *b = &g->tensors[g->by_name[i]];
        if (strcmp(a->name, b->name)) continue;
        const char *x = g->parts[a->part].path, *y = g->parts[b->part].path;
        if (a->part == b->part)
            return nb_fail(err, NB_E_FORMAT, "%s: tensor '%s' stands twice", x, a->name);
        return nb_fail(err, NB_E_FORMAT, "%s: tensor '%s' stands in %.180s, too",
                       a->part > b->part ? x : y, a->name, a->part > b->part ? y : x);
    }
    return 0;
}

/* A tensor without elements has no meaning in a model; other files may hold one. */
static int check_empty(const struct nb_gguf *g, struct nb_err *err)
{
    if (!nb_gguf_kv_find(g, "general.architecture")) return 0;
    for (size_t i = 0; i < g->n_tensors; i++) {
        const struct nb_gguf_tensor *t = &g->tensors[i];
        for (int k = 0; k < t->n_dims; k++) {
            if (t->ne[k]) continue;
            return nb_fail(err, NB_E_FORMAT, "%s: tensor '%s': dimension %d is 0",
                           g->parts[t->part].path, t->name, k);
        }
    }
    return 0;
}

/* One table of the tensors of all parts. */
static int join(struct nb_gguf *g, struct nb_err *err)
{
    for (size_t i = 0; i < g->n_parts; i++) g->n_tensors += g->parts[i].n_tensors;
    g->tensors = nb_alloc(g->n_tensors, sizeof *g->tensors);
    g->by_name = nb_alloc(g->n_tensors, sizeof *g->by_name);
    if (!g->tensors || !g->by_name) {
        return nb_fail(err, NB_E_NOMEM, "%s: no memory for %zu tensors", g->parts[0].path,
                       g->n_tensors);
    }
    size_t n = 0;
    for (size_t i = 0; i < g->n_parts; i++) {
        struct nb_gguf_part *p = &g->parts[i];
        for (size_t k = 0; k < p->n_tensors; k++, n++) {
            g->tensors[n] = p->tensors[k];
            g->tensors[n].part = i;
            g->bytes += p->tensors[k].data.bytes;
        }
        nb_free(p->tensors);
        p->tensors = NULL;
    }
    int rc = sort_names(g, err);
    return rc ? rc : check_empty(g, err);
}

static struct nb_gguf *new_handle(void)
{
    struct nb_gguf *g = nb_xalloc(sizeof *g);
    g->parts = nb_xalloc(sizeof *g->parts);
    return g;
}

static int hand_out(struct nb_gguf **out, struct nb_gguf *g, int rc, struct nb_err *err)
{
    if (!rc) rc = join(g, err);
    if (rc) nb_gguf_close(g);
    else *out = g;
    return rc;
}

int nb_gguf_open(struct nb_gguf **out, const char *path, struct nb_err *err)
{
    *out = NULL;
    struct nb_gguf *g = new_handle();
    int rc = nb_path_is_dir(path) ? open_folder(g, path, err) : open_file(g, path, err);
    return hand_out(out, g, rc, err);
}

int nb_gguf_parse(struct nb_gguf **out, struct nb_span image, const char *what, struct nb_err *err)
{
    *out = NULL;
    struct nb_gguf *g = new_handle();
    g->n_parts = 1;
    g->parts[0].path = nb_xstrdup(what);
    g->parts[0].image = image;
    return hand_out(out, g, nb_gguf_part_parse(&g->parts[0], err), err);
}

void nb_gguf_close(struct nb_gguf *g)
{
    if (!g) return;
    for (size_t i = 0; i < g->n_parts; i++) nb_gguf_part_release(&g->parts[i]);
    nb_free(g->parts);
    nb_free(g->tensors);
    nb_free(g->by_name);
    nb_free(g);
}

uint32_t nb_gguf_version(const struct nb_gguf *g)
{
    return g->parts[0].version;
}

uint32_t nb_gguf_alignment(const struct nb_gguf *g)
{
    return g->parts[0].alignment;
}

size_t nb_gguf_part_count(const struct nb_gguf *g)
{
    return g->n_parts;
}

const char *nb_gguf_part_path(const struct nb_gguf *g, size_t i)
{
    return g->parts[i].path;
}

uint64_t nb_gguf_part_bytes(const struct nb_gguf *g, size_t i)
{
    return g->parts[i].image.bytes;
}

size_t nb_gguf_count(const struct nb_gguf *g)
{
    return g->n_tensors;
}

const struct nb_gguf_tensor *nb_gguf_at(const struct nb_gguf *g, size_t i)
{
    return &g->tensors[i];
}

const struct nb_gguf_tensor *nb_gguf_find(const struct nb_gguf *g, const char *name)
{
    size_t lo = 0, hi = g->n_tensors;
    while (lo < hi) {
        size_t mid = lo + (hi - lo) / 2;
        const struct nb_gguf_tensor *t = &g->tensors[g->by_name[mid]];
        int c = strcmp(name, t->name);
        if (!c) return t;
        if (c < 0) hi = mid;
        else lo = mid + 1;
    }
    return NULL;
}

uint64_t nb_gguf_bytes(const struct nb_gguf *g)
{
    return g->bytes;
}

void nb_gguf_drop(const struct nb_gguf *g, const struct nb_gguf_tensor *t)
{
    nb_map_drop(&g->parts[t->part].map, t->data.data, t->data.bytes);
}

size_t nb_gguf_kv_count(const struct nb_gguf *g)
{
    return g->parts[0].n_kvs;
}

const struct nb_gguf_kv *nb_gguf_kv_at(const struct nb_gguf *g, size_t i)
{
    return &g->parts[0].kvs[i];
}

const struct nb_gguf_kv *nb_gguf_kv_find(const struct nb_gguf *g, const char *key)
{
    return nb_gguf_part_find(&g->parts[0], key);
}

/* SPDX-License-Identifier: Apache-2.0
 *
 * gguf_layout.c - see gguf_layout.h. Source: GGUF specification, sections 1.8 and 1.9. */
#include "container/gguf_layout.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "base/strbuf.h"

enum { VERSION = 3, HEADER_BYTES = 24, MAX_FILES = 65535 };

size_t nb_gguf_layout_find(const struct nb_gguf_layout *l, const char *key, bool *found)
{
    size_t lo = 0, hi = l->n_records;
    while (lo < hi) {
        size_t mid = lo + (hi - lo) / 2;
        int c = strcmp(key, l->records[l->by_key[mid]].key);
        if (!c) {
            *found = true;
            return l->by_key[mid];
        }
        if (c < 0) hi = mid;
        else lo = mid + 1;
    }
    *found = false;
    return lo;
}

static uint64_t padded(uint64_t bytes)
{
    uint64_t rest = bytes % NB_GGUF_ALIGN;
    return bytes + (rest ? NB_GGUF_ALIGN - rest : 0);
}

static void put_u32(struct nb_strbuf *b, uint32_t v)
{
    nb_strbuf_add(b, &v, sizeof v);
}

static void put_u64(struct nb_strbuf *b, uint64_t v)
{
    nb_strbuf_add(b, &v, sizeof v);
}

static void put_text(struct nb_strbuf *b, const char *text)
{
    put_u64(b, strlen(text));
    nb_strbuf_puts(b, text);
}

/* The keys that every part of a split set has. */
static void put_split_keys(struct nb_strbuf *b, const struct nb_gguf_layout *l, size_t no)
{
    uint16_t part = (uint16_t)no, count = (uint16_t)l->n_files;
    put_text(b, "split.no");
    put_u32(b, NB_GGUF_U16);
    nb_strbuf_add(b, &part, sizeof part);
    put_text(b, "split.count");
    put_u32(b, NB_GGUF_U16);
    nb_strbuf_add(b, &count, sizeof count);
    put_text(b, "split.tensors.count");
    put_u32(b, NB_GGUF_I32);
    put_u32(b, (uint32_t)l->n_tensors);
}

static void put_info(struct nb_strbuf *b, const struct nb_gguf_planned *t)
{
    put_text(b, t->name);
    put_u32(b, (uint32_t)t->n_dims);
    for (int i = 0; i < t->n_dims; i++) put_u64(b, (uint64_t)t->ne[i]);
    put_u32(b, (uint32_t)t->type->id);
    put_u64(b, t->offset);
}

static uint64_t info_bytes(const struct nb_gguf_planned *t)
{
    return 8 + strlen(t->name) + 4 + 8 * (uint64_t)t->n_dims + 4 + 8;
}

static uint64_t split_keys_bytes(void)
{
    return 3 * (8 + 4) + strlen("split.no") + strlen("split.count") +
           strlen("split.tensors.count") + 2 + 2 + 4;
}

static uint64_t records_bytes(const struct nb_gguf_layout *l)
{
    uint64_t sum = 0;
    for (size_t i = 0; i < l->n_records; i++) sum += l->records[i].bytes;
    return sum;
}

/* Tensors fill files in the order of adding; one that is larger than the limit stands alone, and the first
 * file may hold metadata only. Values of the split keys have fixed widths, so the length of a header is
 * known before the number of files. */
static void assign_parts(struct nb_gguf_layout *l, uint64_t limit)
{
    uint64_t head = HEADER_BYTES + records_bytes(l), data = 0;
    bool split = false;
    for (size_t i = 0; limit && i < l->n_tensors; i++) {
        head += info_bytes(&l->tensors[i]);
        data += padded(l->tensors[i].bytes);
    }
    if (limit && padded(head) + data > limit) split = true;
    head = HEADER_BYTES + records_bytes(l) + split_keys_bytes();
    data = 0;
    l->n_files = 1;
    for (size_t i = 0; i < l->n_tensors; i++) {
        struct nb_gguf_planned *t = &l->tensors[i];
        uint64_t info = info_bytes(t), size = padded(t->bytes);
        bool holds_some = i > 0 || l->n_records > 0;
        if (split && holds_some && padded(head + info) + data + size > limit) {
            l->n_files++;
            head = HEADER_BYTES + split_keys_bytes();
            data = 0;
        }
        t->part = l->n_files - 1;
        t->offset = data;
        head += info;
        data += size;
    }
}

static char *file_path(const char *path, size_t i, size_t n)
{
    if (n == 1) return nb_xstrdup(path);
    size_t len = strlen(path), bytes = len + sizeof "-00001-of-00001.gguf";
    if (len > 5 && !strcmp(path + len - 5, ".gguf")) len -= 5;
    char *p = nb_xalloc(bytes);
    snprintf(p, bytes, "%.*s-%05zu-of-%05zu.gguf", (int)len, path, i + 1, n);
    return p;
}

/* Header of file i, which holds tensors first..end-1. */
static int make_file(struct nb_gguf_layout *l, size_t i, size_t first, size_t end,
                     struct nb_err *err)
{
    struct nb_gguf_file *f = &l->files[i];
    struct nb_strbuf b;
    nb_strbuf_init(&b);
    bool split = l->n_files > 1;
    nb_strbuf_puts(&b, "GGUF");
    put_u32(&b, VERSION);
    put_u64(&b, end - first);
    put_u64(&b, (i == 0 ? l->n_records : 0) + (split ? 3 : 0));
    for (size_t k = 0; i == 0 && k < l->n_records; k++) {
        nb_strbuf_add(&b, l->records[k].data, l->records[k].bytes);
    }
    if (split) put_split_keys(&b, l, i);
    for (size_t k = first; k < end; k++) {
        put_info(&b, &l->tensors[k]);
        f->file_bytes = l->tensors[k].offset + padded(l->tensors[k].bytes);
    }
    while (!b.failed && b.len % NB_GGUF_ALIGN) nb_strbuf_putc(&b, 0);
    f->head_bytes = b.len;
    f->file_bytes += b.len;
    f->head = nb_alloc(b.len, 1);
    int rc = 0;
    if (b.failed || !f->head)
        rc = nb_fail(err, NB_E_NOMEM, "%s: no memory for its header", f->path);
    else memcpy(f->head, b.data, b.len);
    nb_strbuf_release(&b);
    return rc;
}

int nb_gguf_layout_make(struct nb_gguf_layout *l, const char *path, uint64_t max_part_bytes,
                        struct nb_err *err)
{
    assign_parts(l, max_part_bytes);
    if (l->n_files > MAX_FILES) {
        return nb_fail(err, NB_E_SPEC,
                       "%s: files of at most %" PRIu64 " bytes would be %zu, at most %d can be "
                       "numbered",
                       path, max_part_bytes, l->n_files, MAX_FILES);
    }
    l->files = nb_calloc(l->n_files, sizeof *l->files);
    if (!l->files) return nb_fail(err, NB_E_NOMEM, "no memory for %zu files", l->n_files);
    int rc = 0;
    for (size_t i = 0, first = 0; !rc && i < l->n_files; i++) {
        size_t end = first;
        while (end < l->n_tensors && l->tensors[end].part == i) end++;
        l->files[i].path = file_path(path, i, l->n_files);
        rc = make_file(l, i, first, end, err);
        first = end;
    }
    return rc;
}

void nb_gguf_layout_release(struct nb_gguf_layout *l)
{
    for (size_t i = 0; i < l->n_records; i++) {
        nb_free(l->records[i].key);
        nb_free(l->records[i].data);
    }
    for (size_t i = 0; l->files && i < l->n_files; i++) {
        nb_free(l->files[i].path);
        nb_free(l->files[i].head);
    }
    nb_free(l->records);
    nb_free(l->by_key);
    nb_free(l->tensors);
    nb_free(l->files);
}

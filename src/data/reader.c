/* SPDX-License-Identifier: Apache-2.0
 *
 * reader.c - see reader.h. */
#include "data/reader.h"

#include <string.h>

#include "base/embedded.h"
#include "base/file.h"
#include "base/json.h"
#include "base/mem.h"
#include "base/strbuf.h"
#include "data/data.h"

enum { FILE_MAX_BYTES = 512 * 1024 * 1024, ROW_DEPTH = 16 };

const char *nb_bundled_text(const char *name, size_t *bytes)
{
    for (const struct nb_embedded *f = nb_embedded_files; f->name; f++) {
        if (strcmp(f->name, name) != 0) continue;
        *bytes = f->bytes;
        return (const char *)f->data;
    }
    return NULL;
}

static const char *bundled_by_file_name(const char *name, size_t *bytes)
{
    if (strchr(name, '/')) return NULL;
    for (const struct nb_embedded *f = nb_embedded_files; f->name; f++) {
        const char *base = strrchr(f->name, '/');
        if (base && strcmp(base + 1, name) == 0) return nb_bundled_text(f->name, bytes);
    }
    return NULL;
}

int nb_text_read(const char *path, char **data, size_t *bytes, struct nb_err *err)
{
    const char *bundled = nb_path_exists(path) ? NULL : bundled_by_file_name(path, bytes);
    if (!bundled) return nb_file_read(path, FILE_MAX_BYTES, data, bytes, err);
    *data = nb_alloc(*bytes + 1, 1);
    if (!*data) return nb_fail(err, NB_E_NOMEM, "%s: no memory for %zu bytes", path, *bytes);
    memcpy(*data, bundled, *bytes + 1);
    return 0;
}

int nb_text_read_calibration(char **data, size_t *bytes, struct nb_err *err)
{
    static const char folder[] = "calibration/";
    struct nb_strbuf text;
    nb_strbuf_init(&text);
    nb_strbuf_puts(&text, "");
    for (const struct nb_embedded *f = nb_embedded_files; f->name; f++) {
        if (!strncmp(f->name, folder, sizeof folder - 1)) nb_strbuf_add(&text, f->data, f->bytes);
    }
    if (text.failed) {
        nb_strbuf_release(&text);
        return nb_fail(err, NB_E_NOMEM, "no memory for the bundled texts");
    }
    *data = text.data;
    *bytes = text.len;
    return 0;
}

static bool ends_with(const char *s, const char *suffix)
{
    size_t n = strlen(s), m = strlen(suffix);
    return n >= m && strcmp(s + n - m, suffix) == 0;
}

int nb_read_text(const struct nb_reading *r, const char *name, const char *text, size_t bytes,
                 struct nb_err *err)
{
    nb_sha256_add(r->hash, text, bytes);
    if (nb_tokenizer_encode(r->tok, text, bytes, 0, r->ids, err))
        return nb_err_prefix(err, "%s", name);
    return 0;
}

/* ---- rows ---- */

static int append_key(struct nb_strbuf *out, const json_t *row, const char *key, const char *what,
                      struct nb_err *err)
{
    const char *s;
    int rc = nb_json_get_string(row, key, true, &s, what, err);
    if (!rc) nb_strbuf_add(out, s, json_string_length(json_object_get(row, key)));
    return rc;
}

/* The text of one row. */
static int row_text(const json_t *row, struct nb_strbuf *out, const char *what, struct nb_err *err)
{
    if (json_object_get(row, "text")) return append_key(out, row, "text", what, err);
    if (json_object_get(row, "prompt") && json_object_get(row, "completion")) {
        int rc = append_key(out, row, "prompt", what, err);
        return rc ? rc : append_key(out, row, "completion", what, err);
    }
    if (json_object_get(row, "messages")) {
        return nb_fail(err, NB_E_SPEC,
                       "%s: rows with 'messages' need the model's chat template, which"
                       " this version cannot run; give 'text' rows",
                       what);
    }
    return nb_fail(err, NB_E_FORMAT,
                   "%s: expected an object with 'text', or with 'prompt' and"
                   " 'completion'; found %s without them",
                   what, nb_json_type_name(row));
}

static int read_row(const struct nb_reading *r, const char *what, const char *line, size_t n,
                    struct nb_err *err)
{
    json_t *row = nb_json_parse(line, n, ROW_DEPTH, what, err);
    if (!row) return err ? err->status : NB_E_FORMAT;
    struct nb_strbuf text;
    nb_strbuf_init(&text);
    int rc = row_text(row, &text, what, err);
    if (!rc && text.len) {
        nb_strbuf_puts(&text, "\n\n");
        if (text.failed) rc = nb_fail(err, NB_E_NOMEM, "%s: no memory for the row", what);
        else if (nb_tokenizer_encode(r->tok, text.data, text.len, 0, r->ids, err)) {
            rc = nb_err_prefix(err, "%s", what);
        }
    }
    nb_strbuf_release(&text);
    json_decref(row);
    return rc;
}

static bool is_blank(const char *s, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        if (!strchr(" \t\r", s[i])) return false;
    }
    return true;
}

static int read_rows(const struct nb_reading *r, const char *path, const char *data, size_t bytes,
                     struct nb_err *err)
{
    struct nb_strbuf what;
    nb_strbuf_init(&what);
    int rc = 0;
    size_t number = 0;
    for (size_t at = 0; at < bytes && !rc;) {
        const char *end = memchr(data + at, '\n', bytes - at);
        size_t n = end ? (size_t)(end - (data + at)) : bytes - at;
        number++;
        if (!is_blank(data + at, n)) {
            nb_strbuf_reset(&what);
            nb_strbuf_printf(&what, "%s line %zu", path, number);
            rc = read_row(r, nb_strbuf_cstr(&what), data + at, n, err);
        }
        at += n + 1;
    }
    nb_strbuf_release(&what);
    return rc;
}

/* ---- files and folders ---- */

static int read_file(const struct nb_reading *r, const char *path, struct nb_err *err)
{
    char *data;
    size_t bytes;
    int rc = nb_text_read(path, &data, &bytes, err);
    if (rc) return rc;
    if (ends_with(path, ".jsonl")) {
        nb_sha256_add(r->hash, data, bytes);
        rc = read_rows(r, path, data, bytes, err);
    } else {
        rc = nb_read_text(r, path, data, bytes, err);
    }
    nb_free(data);
    return rc;
}

static int read_folder(const struct nb_reading *r, const char *path, struct nb_err *err)
{
    char **names;
    size_t n, n_read = 0;
    int rc = nb_dir_list(path, &names, &n, err);
    if (rc) return rc;
    for (size_t i = 0; i < n && !rc; i++) {
        if (!ends_with(names[i], ".txt") && !ends_with(names[i], ".jsonl")) continue;
        char *file = nb_path_join(path, names[i]);
        rc = read_file(r, file, err);
        nb_free(file);
        n_read++;
    }
    if (!rc && n_read == 0) {
        rc = nb_fail(err, NB_E_FORMAT, "%s: no .txt or .jsonl file in this folder", path);
    }
    nb_dir_list_free(names, n);
    return rc;
}

int nb_read_source(const struct nb_reading *r, const char *path, struct nb_err *err)
{
    if (nb_path_is_dir(path)) return read_folder(r, path, err);
    return read_file(r, path, err);
}

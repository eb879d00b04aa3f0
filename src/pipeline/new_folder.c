/* SPDX-License-Identifier: Apache-2.0
 *
 * new_folder.c - see new_folder.h. */
#include "pipeline/new_folder.h"

#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "base/file.h"
#include "base/mem.h"
#include "checkpoint/checkpoint.h"
#include "nibble/version.h"

enum { MARK_BYTES = 1 << 16 };

static const char mark_name[] = "nibble-convert.json"; /* tells our folders from others */

static bool is_ours(const char *dir)
{
    char *path = nb_path_join(dir, mark_name);
    json_t *mark = nb_path_exists(path) ? nb_json_load(path, MARK_BYTES, NULL) : NULL;
    const char *producer = json_string_value(json_object_get(mark, "producer"));
    bool ours = producer && !strcmp(producer, "nibble");
    json_decref(mark);
    nb_free(path);
    return ours;
}

int nb_new_folder_check(struct nb_new_folder *f, struct nb_err *err)
{
    const char *out = f->out;
    size_t n = strlen(out);
    while (n > 1 && out[n - 1] == '/') n--;
    f->partial = nb_xalloc(n + sizeof ".partial");
    snprintf(f->partial, n + sizeof ".partial", "%.*s.partial", (int)n, out);
    if (nb_path_exists(f->partial) && !is_ours(f->partial)) {
        nb_fail(err, NB_E_EXISTS, "%s: is not from a run of nibble, so it is not used", f->partial);
        return nb_err_hint(err, "move it away, or give another folder with -o");
    }
    if (!nb_path_exists(out)) return 0;
    if (!f->overwrite || !is_ours(out)) {
        nb_fail(err, NB_E_EXISTS, "%s: exists already%s", out,
                f->overwrite ? " and is not a folder that nibble converted" : "");
        return nb_err_hint(err, "give another folder with -o");
    }
    return 0;
}

int nb_new_folder_json(const struct nb_new_folder *f, const char *name, const json_t *v,
                       struct nb_err *err)
{
    struct nb_strbuf text;
    nb_strbuf_init(&text);
    int rc = nb_json_dump(v, true, &text, err);
    nb_strbuf_putc(&text, '\n');
    char *path = nb_path_join(f->partial, name);
    if (!rc && text.failed) rc = nb_fail(err, NB_E_NOMEM, "no memory for %s", name);
    if (!rc) rc = nb_file_write(path, text.data, text.len, err);
    nb_free(path);
    nb_strbuf_release(&text);
    return rc;
}

int nb_new_folder_begin(struct nb_new_folder *f, struct nb_err *err)
{
    int rc = nb_path_exists(f->partial) ? nb_dir_remove_all(f->partial, err) : 0;
    if (!rc) rc = nb_dir_make(f->partial, err);
    if (rc) return rc;
    json_t *mark = json_pack("{s:s, s:s}", "producer", "nibble", "version", nb_version());
    rc = mark ? nb_new_folder_json(f, mark_name, mark, err)
              : nb_fail(err, NB_E_NOMEM, "no memory for %s", mark_name);
    json_decref(mark);
    return rc;
}

int nb_new_folder_publish(const struct nb_new_folder *f, struct nb_err *err)
{
    char *parent = nb_path_parent(f->out);
    int rc = nb_dir_sync(f->partial, err);
    if (!rc && nb_path_exists(f->out)) rc = nb_dir_remove_all(f->out, err);
    if (!rc) rc = nb_rename(f->partial, f->out, err);
    if (!rc) rc = nb_dir_sync(parent, err);
    nb_free(parent);
    return rc;
}

void nb_new_folder_abandon(const struct nb_new_folder *f)
{
    nb_dir_remove_all(f->partial, NULL);
}

void nb_new_folder_release(struct nb_new_folder *f)
{
    nb_free(f->partial);
    f->partial = NULL;
}

static int copy_side_file(const char *name, const char *from, const char *to_dir,
                          const struct nb_progress *progress, struct nb_err *err)
{
    struct stat st;
    if (name[0] == '.' || nb_model_file_kind(name) != NB_FILE_SIDE || nb_path_is_dir(from))
        return 0;
    if (stat(from, &st) || !S_ISREG(st.st_mode)) {
        nb_progress_warn(progress, "%s: is not copied, it is no regular file", from);
        return 0;
    }
    json_t *valid = json_string(name);
    json_decref(valid);
    if (!valid) {
        nb_progress_warn(progress, "%s: is not copied, its name is not UTF-8", from);
        return 0;
    }
    char *to = nb_path_join(to_dir, name);
    int rc = nb_file_copy(from, to, err);
    nb_free(to);
    return rc;
}

int nb_side_files_copy(const char *from, const char *to, const struct nb_progress *progress,
                       struct nb_err *err)
{
    char **names;
    size_t n;
    int rc = nb_dir_list(from, &names, &n, err);
    if (rc) return rc;
    for (size_t i = 0; i < n && !rc; i++) {
        char *path = nb_path_join(from, names[i]);
        if (strcmp(names[i], mark_name)) rc = copy_side_file(names[i], path, to, progress, err);
        nb_free(path);
    }
    nb_dir_list_free(names, n);
    return rc;
}

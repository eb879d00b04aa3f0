/* SPDX-License-Identifier: Apache-2.0
 *
 * place.c - where a run works and what it may replace: OUT.partial while it lasts, OUT by one rename.
 *
 * Nothing is deleted that nibble has not made: a folder is ours when it is empty, is a work folder of a
 * run, or has a manifest of ours in it. */
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "pipeline/run.h"

enum { MAX_MANIFEST_BYTES = 256 << 20 };

static bool has_our_manifest(const char *dir)
{
    char *path = nb_path_join(dir, "manifest.json");
    json_t *m = nb_path_exists(path) ? nb_json_load(path, MAX_MANIFEST_BYTES, NULL) : NULL;
    const char *producer = json_string_value(json_object_get(m, "producer"));
    bool ours = producer && !strcmp(producer, "nibble");
    json_decref(m);
    nb_free(path);
    return ours;
}

static bool is_ours(const char *dir)
{
    char **names;
    size_t n;
    if (!nb_path_is_dir(dir) || nb_dir_list(dir, &names, &n, NULL)) return false;
    nb_dir_list_free(names, n);
    char *work = nb_path_join(dir, NB_WORK_NAME);
    bool ours = n == 0 || nb_path_is_dir(work) || has_our_manifest(dir);
    nb_free(work);
    return ours;
}

/* Is `inner` the folder `outer` or somewhere below it? False when one of them is not there. */
static bool holds(const char *outer, const char *inner)
{
    char *a = realpath(outer, NULL), *b = realpath(inner, NULL);
    size_t n = a ? strlen(a) : 0;
    bool inside = a && b && !strncmp(a, b, n) && (b[n] == '/' || b[n] == '\0');
    free(a);
    free(b);
    return inside || nb_path_same(outer, inner);
}

static int check_name(const char *out, struct nb_err *err)
{
    const char *slash = strrchr(out, '/');
    const char *last = slash ? slash + 1 : out;
    if (*last && strcmp(last, ".") && strcmp(last, "..")) return 0;
    nb_fail(err, NB_E_USAGE,
            "'%s' cannot be the output: it appears by renaming and needs a name of its own", out);
    return nb_err_hint(err, "give a new folder with -o");
}

static int open_file(struct nb_run *r, struct nb_err *err)
{
    const char *slash = strrchr(r->out, '/'), *name = slash ? slash + 1 : r->out;
    const size_t n = strlen(name), suffix = strlen(".gguf");
    if (n <= suffix || strcmp(name + n - suffix, ".gguf")) {
        nb_fail(err, NB_E_USAGE, "%s: is not the name of a GGUF file", r->out);
        return nb_err_hint(err, "give one that ends in .gguf with -o");
    }
    r->file = nb_path_join(r->partial, name);
    if (r->opts->dry_run || !nb_path_exists(r->out)) return 0;
    if (r->opts->overwrite && !nb_path_is_dir(r->out)) return 0;
    nb_fail(err, NB_E_EXISTS, "%s: exists already", r->out);
    return nb_err_hint(err, "give another name with -o%s",
                       nb_path_is_dir(r->out) ? "" : ", or --overwrite to replace it");
}

int nb_place_open(struct nb_run *r, struct nb_err *err)
{
    const struct nb_quantize_opts *o = r->opts;
    size_t n = strlen(o->out_dir);
    r->out = nb_xstrdup(o->out_dir);
    while (n > 1 && r->out[n - 1] == '/') r->out[--n] = '\0';
    r->partial = nb_xalloc(n + 9);
    memcpy(r->partial, r->out, n);
    memcpy(r->partial + n, ".partial", 9);
    r->work = nb_path_join(r->partial, NB_WORK_NAME);
    int rc = check_name(r->out, err);
    if (rc) return rc;
    if (holds(r->out, o->model_dir) || holds(r->partial, o->model_dir)) {
        nb_fail(err, NB_E_USAGE,
                "%s: the output is the model itself or holds it; inputs are never modified",
                r->out);
        return nb_err_hint(err, "give another folder with -o");
    }
    if (o->gguf) return open_file(r, err);
    if (o->dry_run || !nb_path_exists(r->out)) return 0;
    if (!o->overwrite) {
        nb_fail(err, NB_E_EXISTS, "%s: exists already", r->out);
        return nb_err_hint(err, "give another folder with -o, or --overwrite to replace it");
    }
    if (!is_ours(r->out)) {
        nb_fail(err, NB_E_EXISTS, "%s: is not a folder that nibble wrote, so it is not replaced",
                r->out);
        return nb_err_hint(err, "give another folder with -o, or remove it yourself");
    }
    return 0;
}

int nb_place_enter(struct nb_run *r, struct nb_err *err)
{
    if (nb_path_exists(r->partial) && !is_ours(r->partial)) {
        nb_fail(err, NB_E_EXISTS,
                "%s: holds files that are not from a run of nibble, so it is not used", r->partial);
        return nb_err_hint(err, "move it away, or give another folder with -o");
    }
    int rc = nb_dir_make(r->work, err);
    if (rc) return rc;
    char *lock = nb_path_join(r->work, "lock");
    r->lock_fd = nb_lock_take(lock, err);
    nb_free(lock);
    return r->lock_fd < 0 ? err->status : 0;
}

/* The old OUT waits in the work folder of the new one and goes with it. A crash between the two renames
 * leaves it there, and the same command goes on from there. */
static int move_old_away(struct nb_run *r, const char *old, struct nb_err *err)
{
    if (!nb_path_exists(r->out)) return 0;
    if (!r->opts->overwrite) return nb_fail(err, NB_E_EXISTS, "%s: exists already", r->out);
    if (!is_ours(r->out))
        return nb_fail(err, NB_E_EXISTS, "%s: is not a folder that nibble wrote", r->out);
    int rc = nb_dir_remove_all(old, err);
    return rc ? rc : nb_rename(r->out, old, err);
}

/* The manifest and the parts go beside the place of OUT, the file that stands for the model last. */
static int publish_files(struct nb_run *r, struct nb_err *err)
{
    char **names, *parent = nb_path_parent(r->out);
    size_t n = 0;
    int rc = nb_dir_list(r->partial, &names, &n, err);
    for (int last = 0; last <= 1 && !rc; last++) {
        for (size_t i = 0; i < n && !rc; i++) {
            const size_t len = strlen(names[i]);
            const bool model = len > 5 && !strcmp(names[i] + len - 5, ".gguf");
            if (names[i][0] == '.' || model != (last == 1)) continue;
            char *from = nb_path_join(r->partial, names[i]), *to = nb_path_join(parent, names[i]);
            if (model && nb_path_exists(to) && !r->opts->overwrite)
                rc = nb_fail(err, NB_E_EXISTS, "%s: exists already", to);
            if (!rc) rc = nb_rename(from, to, err);
            nb_free(from);
            nb_free(to);
        }
    }
    if (!rc) rc = nb_dir_sync(parent, err);
    if (!rc) rc = nb_dir_remove_all(r->partial, err);
    nb_dir_list_free(names, n);
    nb_free(parent);
    return rc;
}

int nb_place_publish(struct nb_run *r, struct nb_err *err)
{
    if (r->file) return publish_files(r, err);
    char *old = nb_path_join(r->work, "replaced"), *parent = nb_path_parent(r->out);
    char *work = nb_path_join(r->out, NB_WORK_NAME);
    int rc = nb_dir_sync(r->partial, err);
    if (!rc) rc = move_old_away(r, old, err);
    if (!rc) rc = nb_rename(r->partial, r->out, err);
    if (!rc) rc = nb_dir_sync(parent, err);
    if (!rc) rc = nb_dir_remove_all(work, err);
    nb_free(old);
    nb_free(parent);
    nb_free(work);
    return rc;
}

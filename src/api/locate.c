/* SPDX-License-Identifier: Apache-2.0
 *
 * locate.c - the MODEL argument: a folder, a GGUF file, or a name in the Hugging Face cache.
 *
 * The cache root is HF_HUB_CACHE, HUGGINGFACE_HUB_CACHE, HF_HOME/hub, XDG_CACHE_HOME/huggingface/hub or
 * ~/.cache/huggingface/hub, in this order; below it models--ORG--NAME/refs/REVISION holds the commit and
 * models--ORG--NAME/snapshots/COMMIT the files. Nothing is downloaded. */
#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "api/api.h"
#include "base/file.h"
#include "base/mem.h"
#include "base/strbuf.h"

static bool cache_root(struct nb_strbuf *out)
{
    static const struct {
        const char *variable, *below;
    } places[] = {
        {"HF_HUB_CACHE", ""},
        {"HUGGINGFACE_HUB_CACHE", ""},
        {"HF_HOME", "/hub"},
        {"XDG_CACHE_HOME", "/huggingface/hub"},
        {"HOME", "/.cache/huggingface/hub"},
    };
    for (size_t i = 0; i < sizeof places / sizeof *places; i++) {
        const char *value = getenv(places[i].variable);
        if (!value || !*value) continue;
        nb_strbuf_printf(out, "%s%s", value, places[i].below);
        return true;
    }
    return false;
}

/* org/name[@revision] of letters, digits, '-', '_' and '.', neither part starting with '.'. */
static bool is_hub_name(const char *s, size_t *org, size_t *name)
{
    size_t slash = strcspn(s, "/");
    if (!s[slash]) return false;
    size_t end = strcspn(s, "@");
    if (end < slash || end - slash < 2 || slash == 0 || s[0] == '.' || s[slash + 1] == '.')
        return false;
    for (size_t i = 0; i < end; i++) {
        if (i != slash && !isalnum((unsigned char)s[i]) && !strchr("-_.", s[i])) return false;
    }
    *org = slash;
    *name = end - slash - 1;
    return true;
}

/* Commit named by refs/REVISION, or the revision itself when it is one. */
static void append_snapshot(struct nb_strbuf *out, const char *revision)
{
    struct nb_strbuf ref;
    nb_strbuf_init(&ref);
    nb_strbuf_printf(&ref, "%s/refs/%s", nb_strbuf_cstr(out), revision);
    char *commit = NULL;
    size_t bytes;
    if (nb_file_read(nb_strbuf_cstr(&ref), 256, &commit, &bytes, NULL) == 0) {
        commit[strcspn(commit, " \r\n/")] = '\0';
        nb_strbuf_printf(out, "/snapshots/%s", commit);
        nb_free(commit);
    } else {
        nb_strbuf_printf(out, "/snapshots/%s", revision);
    }
    nb_strbuf_release(&ref);
}

static int locate_in_cache(const char *model, size_t org, size_t name, char **dir,
                           struct nb_err *err)
{
    struct nb_strbuf path;
    nb_strbuf_init(&path);
    if (!cache_root(&path)) nb_strbuf_puts(&path, ".");
    nb_strbuf_printf(&path, "/models--%.*s--%.*s", (int)org, model, (int)name, model + org + 1);
    const char *revision = model[org + 1 + name] ? model + org + name + 2 : "main";
    if (strchr(revision, '/') || revision[0] == '.' || !revision[0]) {
        nb_strbuf_release(&path);
        return nb_fail(err, NB_E_USAGE, "%s: '%s' is not a revision", model, revision);
    }
    append_snapshot(&path, revision);
    int rc = 0;
    if (nb_path_is_dir(nb_strbuf_cstr(&path))) {
        *dir = nb_xstrdup(nb_strbuf_cstr(&path));
    } else {
        nb_fail(err, NB_E_NOTFOUND, "%s: neither a folder nor in the Hugging Face cache (%s)",
                model, nb_strbuf_cstr(&path));
        rc = nb_err_hint(err, "download it there first, or give the path of a model folder");
    }
    nb_strbuf_release(&path);
    return rc;
}

int nb_locate_model(const char *model, char **dir, struct nb_err *err)
{
    size_t org, name, n = strlen(model);
    if (nb_path_is_dir(model)) {
        *dir = nb_xstrdup(model);
        return 0;
    }
    struct stat st;
    if (stat(model, &st) && errno != ENOENT && errno != ENOTDIR) {
        return nb_fail_errno(err, "%s: cannot open", model);
    }
    if (nb_path_exists(model)) {
        if (n > 5 && strcmp(model + n - 5, ".gguf") == 0) {
            *dir = nb_xstrdup(model);
            return 0;
        }
        nb_fail(err, NB_E_FORMAT, "%s: is a file, expected a model folder or a .gguf file", model);
        return nb_err_hint(err, "give the folder that holds config.json");
    }
    if (is_hub_name(model, &org, &name)) return locate_in_cache(model, org, name, dir, err);
    return nb_fail(err, NB_E_NOTFOUND, "%s: no such folder", model);
}

/* SPDX-License-Identifier: Apache-2.0
 *
 * files.c - what each file of a model folder is for, by name. */
#include "checkpoint/internal.h"

#include <string.h>

#include "base/file.h"

static bool ends_with(const char *s, const char *suffix)
{
    size_t n = strlen(s), m = strlen(suffix);
    return n >= m && !strcmp(s + n - m, suffix);
}

static bool is_one_of(const char *name, const char *const *list)
{
    for (; *list; list++) {
        if (!strcmp(name, *list)) return true;
    }
    return false;
}

enum nb_file_kind nb_model_file_kind(const char *name)
{
    static const char *const quant[] = {"quantize_config.json", "quant_config.json", NULL};
    static const char *const ours[] = {"README.md", "manifest.json", "report.html", "report.json",
                                       NULL};
    static const char *const weights[] = {
        ".bin", ".pt",   ".pth",       ".ckpt",           ".h5",   ".msgpack",
        ".ot",  ".onnx", ".onnx_data", ".bin.index.json", ".gguf", NULL};
    if (ends_with(name, ".safetensors")) return NB_FILE_WEIGHTS;
    if (ends_with(name, ".safetensors.index.json")) return NB_FILE_INDEX;
    if (!strcmp(name, "config.json")) return NB_FILE_CONFIG;
    if (is_one_of(name, quant)) return NB_FILE_QUANT_CONFIG;
    if (is_one_of(name, ours) || !strncmp(name, ".git", 4)) return NB_FILE_OTHER;
    for (const char *const *w = weights; *w; w++) {
        if (ends_with(name, *w)) return NB_FILE_OTHER;
    }
    return NB_FILE_SIDE;
}

static int describe(struct nb_model_file *f, const char *path, bool hashes, struct nb_err *err)
{
    int rc = nb_file_size(path, &f->bytes, err);
    return rc || !hashes ? rc : nb_sha256_file(path, f->sha256, err);
}

int nb_model_files(const char *dir, bool hashes, struct nb_model_file **files, size_t *n,
                   struct nb_err *err)
{
    char **names;
    size_t count;
    *files = NULL;
    *n = 0;
    int rc = nb_dir_list(dir, &names, &count, err);
    if (rc) return rc;
    struct nb_model_file *list = nb_calloc(count + 1, sizeof *list);
    if (!list) rc = nb_fail(err, NB_E_NOMEM, "%s: no memory for a list of %zu files", dir, count);
    size_t kept = 0;
    for (size_t i = 0; !rc && i < count; i++) {
        char *path = nb_path_join(dir, names[i]);
        if (!nb_path_is_dir(path)) {
            struct nb_model_file *f = &list[kept++];
            f->name = nb_xstrdup(names[i]);
            f->kind = nb_model_file_kind(names[i]);
            rc = describe(f, path, hashes, err);
        }
        nb_free(path);
    }
    nb_dir_list_free(names, count);
    if (rc) {
        nb_model_files_free(list, kept);
        return rc;
    }
    *files = list;
    *n = kept;
    return 0;
}

void nb_model_files_free(struct nb_model_file *files, size_t n)
{
    for (size_t i = 0; files && i < n; i++) nb_free(files[i].name);
    nb_free(files);
}

/* SPDX-License-Identifier: Apache-2.0
 *
 * inputs.c - see inputs.h. Hashing a file takes about as long as encoding it without calibration, so it runs
 * beside the work and its result is asked for when the first of it is to be recorded. */
#include "pipeline/inputs.h"

#include <string.h>

#include "base/file.h"

static void *hash_all(void *arg)
{
    struct nb_inputs *in = arg;
    for (size_t i = 0; i < in->n && !in->rc; i++)
        in->rc = nb_sha256_file(in->files[i].path, in->files[i].sha256, &in->err);
    return NULL;
}

/* Takes path. */
static void add(struct nb_inputs *in, char *path)
{
    const char *slash = strrchr(path, '/');
    in->files[in->n++] = (struct nb_input_file){.path = path, .name = slash ? slash + 1 : path};
}

static char *copy_path(const char *path)
{
    const size_t bytes = strlen(path) + 1;
    char *copy = nb_xalloc(bytes);
    memcpy(copy, path, bytes);
    return copy;
}

static void list(struct nb_inputs *in, const struct nb_model *m, const char *dir)
{
    for (size_t i = 0; m->gguf && i < nb_gguf_part_count(m->gguf); i++)
        add(in, copy_path(nb_gguf_part_path(m->gguf, i)));
    if (m->gguf) return;
    for (size_t i = 0; i < nb_safetensors_file_count(m->tensors); i++)
        add(in, nb_path_join(dir, nb_safetensors_file_name(m->tensors, i)));
    add(in, nb_path_join(dir, "config.json"));
    char *tokenizer = nb_path_join(dir, "tokenizer.json");
    if (nb_path_exists(tokenizer)) add(in, tokenizer);
    else nb_free(tokenizer);
}

int nb_inputs_start(struct nb_inputs *in, const struct nb_model *model, const char *dir,
                    struct nb_err *err)
{
    memset(in, 0, sizeof *in);
    const size_t weights =
        model->gguf ? nb_gguf_part_count(model->gguf) : nb_safetensors_file_count(model->tensors);
    in->files = nb_calloc(weights + 2, sizeof *in->files);
    if (!in->files) return nb_fail(err, NB_E_NOMEM, "no memory for the list of %zu files", weights);
    list(in, model, dir);
    in->running = pthread_create(&in->thread, NULL, hash_all, in) == 0;
    if (!in->running) hash_all(in); /* no thread to be had: it takes longer */
    return 0;
}

static void join(struct nb_inputs *in)
{
    if (in->running) pthread_join(in->thread, NULL);
    in->running = false;
}

int nb_inputs_finish(struct nb_inputs *in, json_t **json, struct nb_err *err)
{
    join(in);
    *json = NULL;
    if (in->rc) {
        *err = in->err;
        return in->rc;
    }
    json_t *o = json_object();
    for (size_t i = 0; i < in->n; i++) {
        if (!json_object_set_new(o, in->files[i].name, json_string(in->files[i].sha256))) continue;
        json_decref(o);
        return nb_fail(err, NB_E_FORMAT, "%s: the name is not UTF-8 and cannot be listed",
                       in->files[i].path);
    }
    *json = o;
    return 0;
}

void nb_inputs_release(struct nb_inputs *in)
{
    join(in);
    for (size_t i = 0; i < in->n; i++) nb_free(in->files[i].path);
    nb_free(in->files);
    memset(in, 0, sizeof *in);
}

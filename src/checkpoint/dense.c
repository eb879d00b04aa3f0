/* SPDX-License-Identifier: Apache-2.0
 *
 * dense.c - the row of float models: no quantization config, no quantized module, nothing to pack. */
#include "checkpoint/internal.h"

static bool probe(const json_t *quant_config)
{
    (void)quant_config;
    return false;
}

static int parse(struct nb_model *m, void **state, struct nb_err *err)
{
    (void)m;
    (void)err;
    *state = NULL;
    return 0;
}

static void release(void *state)
{
    (void)state;
}

static bool is_quantized(const struct nb_model *m, const char *path)
{
    (void)m;
    (void)path;
    return false;
}

static int check(const struct nb_model *m, const char *path, int64_t rows, int64_t cols,
                 struct nb_err *err)
{
    (void)m;
    (void)rows;
    (void)cols;
    return nb_fail(err, NB_E_FORMAT, "'%s' is not quantized", path);
}

static int read_module(const struct nb_model *m, const struct nb_module_ref *ref,
                       struct nb_arena *arena, struct nb_qmat *out, struct nb_err *err)
{
    (void)arena;
    (void)out;
    return check(m, ref->path, ref->rows, ref->cols, err);
}

static bool owns(const struct nb_model *m, const char *path, const char *suffix)
{
    (void)m;
    (void)path;
    (void)suffix;
    return false;
}

const struct nb_checkpoint nb_checkpoint_dense = {
    .name = "dense",
    .summary = "float weights in the Hugging Face layout",
    .probe = probe,
    .parse = parse,
    .release = release,
    .is_quantized = is_quantized,
    .check = check,
    .read = read_module,
    .owns = owns,
    .scale_dtype = NB_F16,
};

/* SPDX-License-Identifier: Apache-2.0
 *
 * one_module.c - see one_module.h. */
#include "one_module.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/file.h"

enum { MOST_COLS = 64 };

static char folder[] = "/tmp/fuzz-module-XXXXXX", file[64];

static void remove_folder(void)
{
    nb_dir_remove_all(folder, NULL);
}

static void write_file(const uint8_t *data, size_t size)
{
    if (!file[0]) {
        if (!mkdtemp(folder)) abort();
        snprintf(file, sizeof file, "%s/model.safetensors", folder);
        atexit(remove_folder);
    }
    FILE *f = fopen(file, "wb");
    if (!f || fwrite(data, 1, size, f) != size || fclose(f)) abort();
}

static void use(const struct one_module *target, const struct nb_model *m, const struct nb_qmat *q,
                struct nb_arena *arena)
{
    struct nb_err err = {0};
    struct nb_packed_tensor t[NB_MAX_PACKED];
    float row[MOST_COLS];
    int n;
    for (int64_t r = 0; r < target->rows; r++) {
        nb_qmat_dequant_row(q, r, row);
        for (int64_t k = 0; k < target->cols; k++) {
            if (target->finite ? !isfinite(row[k]) : isnan(row[k])) abort();
        }
    }
    const struct nb_pack_opts opts = {
        .source = NB_F16, .storage = NB_U8, .order = q->col_group != NULL};
    if (m->checkpoint->pack(q, &opts, arena, t, &n, &err)) {
        if (!err.text[0]) abort();
    } else if (target->written) {
        target->written(m, q, t);
    }
}

static void read_module(const struct one_module *target, const struct nb_model *m)
{
    struct nb_err err = {0};
    struct nb_arena arena;
    struct nb_qmat q;
    const struct nb_module_ref ref = {.path = "p", .rows = target->rows, .cols = target->cols};
    nb_arena_init(&arena);
    m->checkpoint->is_quantized(m, "p");
    m->checkpoint->owns(m, "p", ".weight_scale");
    nb_model_tensor_is_finite(m, "p.weight");
    const bool checked = !m->checkpoint->check(m, "p", ref.rows, ref.cols, &err);
    if (!m->checkpoint->read(m, &ref, &arena, &q, &err)) {
        if (!checked) abort();
        use(target, m, &q, &arena);
    } else if (!err.text[0]) {
        abort();
    }
    nb_arena_release(&arena);
}

void one_module_try(const struct one_module *target, const uint8_t *data, size_t size)
{
    struct nb_err err = {0};
    struct nb_model m = {.checkpoint = target->checkpoint, .arch = {.head_name = "lm_head.weight"}};
    const uint8_t *line = size ? memchr(data, '\n', size) : NULL;
    if (!line) return;
    const size_t head = (size_t)(line - data);
    m.quant_config = nb_json_parse((const char *)data, head, NB_JSON_MAX_DEPTH, "config", &err);
    if (!m.quant_config) return;
    if (m.checkpoint->probe(m.quant_config)) {
        write_file(line + 1, size - head - 1);
        if (!nb_safetensors_open(&m.tensors, file, &err)) {
            if (!m.checkpoint->parse(&m, &m.checkpoint_state, &err)) read_module(target, &m);
            else if (!err.text[0]) abort();
            m.checkpoint->release(m.checkpoint_state);
            nb_safetensors_close(m.tensors);
        }
    }
    json_decref(m.quant_config);
}

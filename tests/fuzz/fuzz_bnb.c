/* SPDX-License-Identifier: Apache-2.0
 *
 * A linear of 4 x 24 as bitsandbytes stores it: the config on one line, then a safetensors file with the tensors of
 * module "p". What is read must have values, and written again and read again must be the same. The corpus comes from
 * make_bnb.py. */
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/file.h"
#include "checkpoint/bnb.h"
#include "checkpoint/internal.h"

enum { ROWS = 4, COLS = 24 };

static char folder[] = "/tmp/fuzz-bnb-XXXXXX", file[64];

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

/* The bytes of the codes come back, those of the scales too. */
static void use(const struct nb_model *m, const struct nb_qmat *q, struct nb_arena *arena)
{
    struct nb_err err = {0};
    struct nb_packed_tensor t[NB_MAX_PACKED];
    float row[COLS];
    int n;
    for (int64_t r = 0; r < ROWS; r++) {
        nb_qmat_dequant_row(q, r, row);
        for (int k = 0; k < COLS; k++) {
            if (isnan(row[k])) abort();
        }
    }
    if (m->checkpoint->pack(q, NULL, arena, t, &n, &err)) {
        if (!err.text[0]) abort();
        return;
    }
    const struct nb_tensor *weight = nb_module_tensor(m, "p", ".weight");
    if (memcmp(t[0].data, weight->data.data, weight->data.bytes)) abort();
}

static void read_module(const struct nb_model *m)
{
    struct nb_err err = {0};
    struct nb_arena arena;
    struct nb_qmat q;
    const struct nb_module_ref ref = {.path = "p", .rows = ROWS, .cols = COLS};
    nb_arena_init(&arena);
    const bool quantized = m->checkpoint->is_quantized(m, "p");
    m->checkpoint->owns(m, "p", ".weight.absmax");
    nb_model_tensor_is_finite(m, "p.weight");
    const bool checked = !m->checkpoint->check(m, "p", ROWS, COLS, &err);
    if (!m->checkpoint->read(m, &ref, &arena, &q, &err)) {
        if (!checked || !quantized) abort();
        use(m, &q, &arena);
    } else if (!err.text[0]) {
        abort();
    }
    nb_arena_release(&arena);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct nb_err err = {0};
    struct nb_model m = {.checkpoint = &nb_checkpoint_bnb, .arch = {.head_name = "lm_head.weight"}};
    const uint8_t *line = size ? memchr(data, '\n', size) : NULL;
    if (!line) return 0;
    const size_t head = (size_t)(line - data);
    m.quant_config = nb_json_parse((const char *)data, head, NB_JSON_MAX_DEPTH, "config", &err);
    if (!m.quant_config) return 0;
    write_file(line + 1, size - head - 1);
    if (nb_bnb_config_probe(m.quant_config) && !nb_safetensors_open(&m.tensors, file, &err)) {
        if (!m.checkpoint->parse(&m, &m.checkpoint_state, &err)) read_module(&m);
        else if (!err.text[0]) abort();
        m.checkpoint->release(m.checkpoint_state);
        nb_safetensors_close(m.tensors);
    }
    json_decref(m.quant_config);
    return 0;
}

/* SPDX-License-Identifier: Apache-2.0
 *
 * One linear of 32 x 64 as compressed-tensors stores it: the config on one line, then a safetensors file with the
 * tensors of module "p". What is read must be a matrix that rows can be taken of, and that is written again as the same.
 * The corpus comes from make_ct.py. */
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/file.h"
#include "checkpoint/internal.h"

enum { ROWS = 32, COLS = 64 };

static char folder[] = "/tmp/fuzz-ct-XXXXXX", file[64];

static void remove_folder(void)
{
    nb_dir_remove_all(folder, NULL);
}

static void make_folder(void)
{
    if (file[0]) return;
    if (!mkdtemp(folder)) abort();
    snprintf(file, sizeof file, "%s/model.safetensors", folder);
    atexit(remove_folder);
}

static bool write_file(const uint8_t *data, size_t size)
{
    FILE *f = fopen(file, "wb");
    if (!f) abort();
    const bool ok = fwrite(data, 1, size, f) == size;
    return !fclose(f) && ok;
}

/* Whatever was read must have values; what the writer takes back must read the same. */
static void use(const struct nb_model *m, const struct nb_qmat *q, struct nb_arena *arena)
{
    struct nb_err err;
    struct nb_packed_tensor t[NB_MAX_PACKED];
    float row[COLS];
    int n;
    for (int64_t r = 0; r < ROWS; r++) {
        nb_qmat_dequant_row(q, r, row);
        for (int k = 0; k < COLS; k++) {
            if (isnan(row[k])) abort();
        }
    }
    const struct nb_pack_opts opts = {.source = NB_F16, .order = q->col_group != NULL};
    if (m->checkpoint->pack(q, &opts, arena, t, &n, &err) && !err.text[0]) abort();
}

static void read_module(struct nb_model *m)
{
    struct nb_err err = {0};
    struct nb_arena arena;
    struct nb_qmat q;
    const struct nb_module_ref ref = {.path = "p", .rows = ROWS, .cols = COLS};
    nb_arena_init(&arena);
    const bool checked = !m->checkpoint->check(m, "p", ROWS, COLS, &err);
    if (!m->checkpoint->read(m, &ref, &arena, &q, &err)) {
        if (!checked) abort();
        use(m, &q, &arena);
    } else if (!err.text[0]) {
        abort();
    }
    nb_arena_release(&arena);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct nb_err err;
    struct nb_model m = {.arch = {.head_name = "lm_head.weight"}};
    const uint8_t *line = size ? memchr(data, '\n', size) : NULL;
    if (!line) return 0;
    const size_t head = (size_t)(line - data);
    m.quant_config = nb_json_parse((const char *)data, head, NB_JSON_MAX_DEPTH, "config", &err);
    if (!m.quant_config) return 0;
    make_folder();
    m.checkpoint = &nb_checkpoint_ct;
    if (m.checkpoint->probe(m.quant_config) && write_file(line + 1, size - head - 1) &&
        !nb_safetensors_open(&m.tensors, file, &err)) {
        if (!m.checkpoint->parse(&m, &m.checkpoint_state, &err)) read_module(&m);
        m.checkpoint->release(m.checkpoint_state);
        nb_safetensors_close(m.tensors);
    }
    json_decref(m.quant_config);
    return 0;
}

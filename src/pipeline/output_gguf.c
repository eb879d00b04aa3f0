/* SPDX-License-Identifier: Apache-2.0
 *
 * output_gguf.c - the output as one GGUF file: types first, since they decide what is solved; then tensors as
 * the layers finish. */
#include <string.h>

#include "numeric/block.h"
#include "pipeline/run.h"

int nb_output_gguf_types(struct nb_run *r, struct nb_err *err)
{
    const struct nb_gguf_opts *o = r->opts->gguf;
    int rc = nb_gguf_choice_make(&r->choice, o, r->model, err);
    if (rc) return rc;
    const struct nb_gguf_out_opts out = {
        .rules = r->choice.rules, .name = o->name, .requantize = o->requantize, .calibrated = true};
    return nb_gguf_out_new(&r->gguf, r->model, &out, &r->report->notes, err);
}

bool nb_output_gguf_solves(const struct nb_run *r, size_t item)
{
    const struct nb_gguf_item *it = nb_gguf_out_at(r->gguf, item);
    if (it->linear >= 0 && it->layer >= 0) return it->quantized;
    return r->recipe.head && item == nb_gguf_out_head(r->gguf);
}

/* Every tensor of the source is an item but a head that the embedding stands for. */
static int plan(struct nb_run *r, struct nb_err *err)
{
    (void)err;
    struct nb_quantize_report *q = r->report;
    for (size_t i = 0; i < nb_gguf_out_count(r->gguf); i++) {
        const struct nb_gguf_item *it = nb_gguf_out_at(r->gguf, i);
        if (!it->source[0]) continue; /* made, not taken */
        q->tensors_source++;
        if (it->quantized) q->tensors_quantized++;
        else q->tensors_copied++;
    }
    q->tensors_tied = nb_gguf_out_ties_head(r->gguf);
    q->tensors_source += q->tensors_tied;
    snprintf(q->scheme, sizeof q->scheme, "%s", r->choice.rules.preset->name);
    return 0;
}

static uint64_t bytes(const struct nb_run *r)
{
    return nb_gguf_out_bytes(r->gguf);
}

static int open_file(struct nb_run *r, struct nb_err *err)
{
    int rc = nb_gguf_out_open(r->gguf, r->file, r->opts->max_shard_bytes, r->resumed, err);
    for (size_t i = 0; i < nb_gguf_out_count(r->gguf) && !rc; i++) {
        const int64_t layer = nb_gguf_out_at(r->gguf, i)->layer;
        if (layer >= 0 && layer < r->layers_done) rc = nb_gguf_out_mark(r->gguf, i, err);
    }
    return rc && r->resumed ? nb_err_hint(err, "the work folder was damaged; --restart begins anew")
                            : rc;
}

static int copy(struct nb_run *r, int64_t layer, struct nb_err *err)
{
    int rc = 0;
    for (size_t i = 0; i < nb_gguf_out_count(r->gguf) && !rc; i++) {
        if (nb_gguf_out_at(r->gguf, i)->layer != layer || nb_output_gguf_solves(r, i)) continue;
        rc = nb_gguf_out_put_source(r->gguf, i, nb_backend_pool(r->be), err);
    }
    return rc;
}

int nb_output_gguf_linear(struct nb_run *r, int64_t layer, int i, const unsigned char *blocks,
                          struct nb_err *err)
{
    int n;
    const struct nb_arch_linear *linears = nb_arch_layer_linears(&r->model->arch, layer, &n);
    const struct nb_gguf_rows rows = {.n = linears[i].rows, .bytes = blocks};
    return nb_gguf_out_put_blocks(r->gguf, nb_gguf_out_linear(r->gguf, layer, i), &rows, err);
}

static int sync_file(struct nb_run *r, struct nb_err *err)
{
    return nb_gguf_out_sync(r->gguf, err);
}

static int close_file(struct nb_run *r, struct nb_err *err)
{
    return nb_gguf_out_finish(r->gguf, err);
}

const struct nb_sink nb_sink_gguf = {.plan = plan,
                                     .bytes = bytes,
                                     .open = open_file,
                                     .copy = copy,
                                     .sync = sync_file,
                                     .close = close_file};

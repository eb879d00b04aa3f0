/* SPDX-License-Identifier: Apache-2.0
 *
 * plain.c - a layer without calibration: each linear is read, encoded and written, and nothing is run.
 *
 * What counts here is bytes moved: one buffer in f32 and one arena serve every linear, so that their pages are
 * asked for once, and no linear becomes float again. */
#include <inttypes.h>

#include "pipeline/layer.h"

bool nb_run_layer_is_plain(const struct nb_run *r)
{
    const struct nb_recipe *c = &r->recipe;
    const struct nb_qspec *s = &c->solve.grid.spec;
    const bool own_scales =
        s->group_rows < NB_WHOLE; /* none in common with matrices that are fused */
    return c->solver && !c->solver->needs_hessian && !c->calibrates && !c->rotate && !r->gguf &&
           own_scales && !s->super_divides;
}

int nb_plain_open(struct nb_plain *p, const struct nb_arch *arch, struct nb_err *err)
{
    size_t most = 0;
    for (int64_t l = 0; l < arch->n_layers; l++) {
        int n;
        const struct nb_arch_linear *linears = nb_arch_layer_linears(arch, l, &n);
        for (int i = 0; i < n; i++) {
            const size_t weights = (size_t)linears[i].rows * (size_t)linears[i].cols;
            most = weights > most ? weights : most;
        }
    }
    nb_arena_init(&p->arena);
    nb_arena_init(&p->source);
    p->w = nb_alloc(most, sizeof *p->w);
    return p->w ? 0 : nb_fail(err, NB_E_NOMEM, "no memory for a linear of %zu weights", most);
}

void nb_plain_close(struct nb_plain *p)
{
    nb_arena_release(&p->arena);
    nb_arena_release(&p->source);
    nb_free(p->w);
    p->w = NULL;
}

static int encode(struct nb_run *r, struct nb_plain *p, int64_t layer, int i, struct nb_err *err)
{
    int n;
    const struct nb_arch *arch = &r->model->arch;
    const struct nb_arch_linear *lin = &nb_arch_layer_linears(arch, layer, &n)[i];
    const struct nb_module_spec *m = nb_recipe_module(&r->recipe, arch, layer, i);
    struct nb_weight weight;
    int rc = nb_model_linear(r->model, layer, lin, &p->source, &weight, err);
    if (rc) return rc;
    nb_weight_rows(&weight, nb_backend_pool(r->be), p->w);
    if (r->model->tensors && weight.dense.data.data)
        nb_safetensors_drop(r->model->tensors, &weight.dense);
    struct nb_solve_opts opts = r->recipe.solve;
    opts.grid.spec = m->spec;
    const struct nb_fmat w = {p->w, lin->rows, lin->cols, lin->cols};
    const struct nb_solve_job job = {&w, NULL, &opts, r->be};
    struct nb_solve_report s = {.ladder = ""};
    struct nb_qmat q;
    rc = r->recipe.solver->solve(&q, &job, &p->arena, &s, err);
    if (rc) return nb_err_prefix(err, "%s", m->path);
    rc = nb_output_put_qmat(r, m, &q, &p->arena, err);
    nb_arena_reset(&p->arena);
    nb_arena_reset(&p->source);
    if (!rc && nb_run_record(r, m, &s))
        rc = nb_fail(err, NB_E_NUMERIC, "%s: loss is not finite", m->path);
    return rc;
}

int nb_run_layer_plain(struct nb_run *r, struct nb_plain *p, int64_t layer, struct nb_err *err)
{
    int n, rc = 0;
    nb_arch_layer_linears(&r->model->arch, layer, &n);
    for (int i = 0; i < n && !rc; i++) {
        const struct nb_module_spec *m = nb_recipe_module(&r->recipe, &r->model->arch, layer, i);
        if (nb_progress_stop(r->progress)) return nb_fail(err, NB_E_INTERRUPTED, "interrupted");
        if (!m->quantized) continue;
        struct nb_progress_event e = {.phase = "quantize",
                                      .item = m->path,
                                      .done = (uint64_t)r->report->n_linears,
                                      .total = r->recipe.n_quantized,
                                      .loss = -1};
        nb_progress_report(r->progress, &e);
        rc = encode(r, p, layer, i, err);
    }
    return rc ? rc : r->sink->copy(r, layer, err);
}

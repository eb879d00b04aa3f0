/* SPDX-License-Identifier: Apache-2.0
 *
 * layer.c - one decoder layer: run an input, gather its statistics, solve the linears that read it, go on
 * with the quantized ones (true-sequential; algorithms, sections 1.1 and 1.2). */
#include "pipeline/layer.h"

#include <inttypes.h>
#include <string.h>

#include "pipeline/overflow.h"
#include "pipeline/ranges.h"

int64_t nb_run_chunk_windows(const struct nb_run *r, int64_t c)
{
    int64_t left = r->windows.n_windows - c * r->windows_per_chunk;
    return left < r->windows_per_chunk ? left : r->windows_per_chunk;
}

const int32_t *nb_run_chunk_ids(const struct nb_run *r, int64_t c)
{
    return r->windows.ids + c * r->windows_per_chunk * r->windows.seqlen;
}

struct nb_fmat nb_layer_work_matrix(const struct nb_layer_work *w, int i)
{
    const struct nb_arch_linear *lin = &w->linears[i];
    return (struct nb_fmat){w->w[i], lin->rows, lin->cols, lin->cols};
}

static void work_release(struct nb_layer_work *w)
{
    nb_layer_free(w->engine);
    nb_layer_free(w->engine_fp);
    for (int i = 0; i < w->n_linears; i++) {
        if (w->w) nb_free(w->w[i]);
        if (w->bias) nb_free(w->bias[i]);
    }
    nb_free(w->w);
    nb_free(w->bias);
    nb_free(w->bias_changed);
    for (int k = 0; k < NB_INPUT_COUNT; k++) nb_free(w->fold[k]);
}

int nb_layer_work_load_linear(struct nb_run *r, struct nb_layer_work *w, int i, struct nb_err *err)
{
    const struct nb_arch_linear *lin = &w->linears[i];
    struct nb_arena arena;
    nb_arena_init(&arena);
    struct nb_weight weight;
    int rc = nb_model_linear(r->model, w->index, lin, &arena, &weight, err);
    if (!rc) {
        nb_free(w->w[i]);
        nb_free(w->bias[i]);
        w->w[i] = nb_alloc((size_t)lin->rows * (size_t)lin->cols, sizeof(float));
        w->bias[i] = weight.bias.data.data ? nb_alloc((size_t)lin->rows, sizeof(float)) : NULL;
        if (!w->w[i] || (weight.bias.data.data && !w->bias[i])) {
            rc = nb_fail(err, NB_E_NOMEM, "layer %" PRId64 ": no memory for %s in f32", w->index,
                         lin->name);
        }
    }
    if (!rc) {
        nb_weight_rows(&weight, nb_backend_pool(r->be), w->w[i]);
        if (w->bias[i]) {
            nb_to_f32(w->bias[i], weight.bias.data.data, weight.bias.dtype, (size_t)lin->rows);
        }
        const struct nb_tensor *source = NULL; /* what the weight is a view or a copy of */
        if (r->model->tensors && weight.dense.data.data &&
            (!r->recipe.fp_stream || lin->branch != NB_BRANCH_MAIN))
            source = nb_safetensors_find(r->model->tensors, weight.dense.name);
        if (source) nb_safetensors_drop(r->model->tensors, source);
        rc = nb_layer_replace(w->engine, i, w->w[i], w->bias[i], err);
    }
    nb_arena_release(&arena);
    return rc;
}

void nb_layer_work_drop_linear(struct nb_layer_work *w, int i)
{
    nb_free(w->w[i]);
    nb_free(w->bias[i]);
    w->w[i] = w->bias[i] = NULL;
}

static int work_load(struct nb_run *r, struct nb_layer_work *w, int64_t index, struct nb_err *err)
{
    memset(w, 0, sizeof *w);
    w->index = index;
    w->fused_first = -1;
    w->linears = nb_arch_layer_linears(&r->model->arch, index, &w->n_linears);
    w->w = nb_calloc((size_t)w->n_linears, sizeof *w->w);
    w->bias = nb_calloc((size_t)w->n_linears, sizeof *w->bias);
    w->bias_changed = nb_calloc((size_t)w->n_linears, sizeof *w->bias_changed);
    if (!w->w || !w->bias || !w->bias_changed)
        return nb_fail(err, NB_E_NOMEM, "no memory for %d linears", w->n_linears);
    int rc = nb_layer_load(&w->engine, r->model, index, r->be, err);
    if (!rc && r->recipe.fp_stream) rc = nb_layer_load(&w->engine_fp, r->model, index, r->be, err);
    for (int i = 0; i < w->n_linears && !rc; i++) {
        if (w->linears[i].branch == NB_BRANCH_MAIN) rc = nb_layer_work_load_linear(r, w, i, err);
    }
    return rc;
}

/* One of the two hidden streams: its layer, residual stream and current input. */
struct stream {
    struct nb_layer *layer;
    struct nb_actstore *h, *x;
};

/* Chunk c through one step; the new input replaces x and is also *out. */
static int step_stream(struct nb_run *r, const struct stream *s, enum nb_input input, int64_t c,
                       float **out, struct nb_err *err)
{
    float *hp, *xp;
    int64_t n = nb_run_chunk_windows(r, c);
    int rc = nb_actstore_get(s->h, c, 1, &hp, err);
    if (!rc) rc = nb_actstore_get(s->x, c, input != NB_INPUT_ATTN, &xp, err);
    if (rc) return rc;
    const struct nb_layer_io io = {
        .h = hp, .x = xp, .y = r->step_out, .n_windows = n, .t = r->windows.seqlen};
    rc = nb_layer_step(s->layer, input, &io, err);
    if (rc) return rc;
    *out = r->step_out;
    rc = nb_actstore_swap(s->x, c, &r->step_out, err);
    if (!rc && input == NB_INPUT_MLP) rc = nb_actstore_put(s->h, c, err);
    return rc;
}

/* The float stream's input as the folded layer would see it, so that both streams have one scale. */
static const float *fold_input(struct nb_run *r, const float *x, int64_t rows, const float *s,
                               int64_t k)
{
    for (int64_t m = 0; m < rows; m++) {
        for (int64_t i = 0; i < k; i++) r->step_out[m * k + i] = x[m * k + i] / s[i];
    }
    return r->step_out;
}

int nb_layer_work_step(struct nb_run *r, struct nb_layer_work *w, enum nb_input input,
                       struct nb_stats *stats, struct nb_err *err)
{
    const struct stream quantized = {w->engine, &r->h, &r->x},
                        fp = {w->engine_fp, &r->h_fp, &r->x_fp};
    float largest = 0.0f;
    for (int64_t c = 0; c < r->n_chunks; c++) {
        if (nb_progress_stop(r->progress)) return nb_fail(err, NB_E_INTERRUPTED, "interrupted");
        float *x, *x_fp = NULL;
        int rc = step_stream(r, &quantized, input, c, &x, err);
        if (!rc && fp.layer) rc = step_stream(r, &fp, input, c, &x_fp, err);
        if (rc) return rc;
        int64_t rows = nb_run_chunk_windows(r, c) * r->windows.seqlen;
        const int64_t width = nb_layer_input_width(w->engine, input);
        nb_ranges_add(r, x, rows, width);
        largest = nb_overflow_largest(x, rows * width, largest);
        if (!stats) continue;
        const float *other = x_fp;
        if (x_fp && w->fold[input]) other = fold_input(r, x_fp, rows, w->fold[input], stats->k);
        rc = nb_stats_add(stats, r->be, &(struct nb_stats_input){x, other, rows}, err);
        if (rc) return rc;
    }
    nb_overflow_activations(r, w->index, input, largest);
    return 0;
}

static int finish_stream(struct nb_run *r, struct nb_layer *layer, struct nb_actstore *h,
                         struct nb_actstore *x, struct nb_err *err)
{
    const int64_t t = r->windows.seqlen;
    float largest = 0.0f;
    for (int64_t c = 0; c < r->n_chunks; c++) {
        float *hp, *xp;
        const int64_t n = nb_run_chunk_windows(r, c);
        int rc = nb_actstore_get(h, c, 1, &hp, err);
        if (!rc) rc = nb_actstore_get(x, c, 1, &xp, err);
        if (!rc) rc = nb_layer_finish(layer, hp, xp, n, t, err);
        if (!rc) largest = nb_overflow_largest(hp, n * t * r->model->arch.hidden_size, largest);
        if (!rc) rc = nb_actstore_put(h, c, err);
        if (rc) return rc;
    }
    if (h == &r->h) nb_overflow_activations(r, r->layers_done, NB_INPUT_COUNT, largest);
    return 0;
}

static int finish_streams(struct nb_run *r, struct nb_layer_work *w, bool more, struct nb_err *err)
{
    if (!r->recipe.calibrates || !more) return 0;
    int rc = finish_stream(r, w->engine, &r->h, &r->x, err);
    if (!rc && w->engine_fp) rc = finish_stream(r, w->engine_fp, &r->h_fp, &r->x_fp, err);
    return rc;
}

int nb_run_record(struct nb_run *r, const struct nb_module_spec *m, const struct nb_solve_report *s)
{
    struct nb_linear_report *l = &r->report->linears[r->report->n_linears++];
    memcpy(l->name, m->path, sizeof l->name);
    l->solve = *s;
    l->bits = m->spec.elem.bits;
    l->group = m->spec.group_cols;
    l->quantized = true;
    if (r->expert_load && r->expert_load->routed) {
        l->expert = true;
        l->tokens = r->expert_load->tokens;
        l->all_tokens = r->expert_load->all_tokens;
    }
    return json_array_append_new(r->journal_layers, nb_journal_report(l));
}

/* Nothing is folded into experts, so where AWQ or SmoothQuant would help rounding, they get a solver that does
 * without. */
static const struct nb_solver *solver_of(const struct nb_run *r, const struct nb_arch_linear *lin,
                                         const struct nb_qspec *spec)
{
    const struct nb_solver *gptq = nb_solver_find("gptq");
    const bool replaced = (r->recipe.awq || r->recipe.smooth) && lin->branch != NB_BRANCH_MAIN;
    return replaced && !r->recipe.solver->needs_hessian && gptq->supports(spec) ? gptq
                                                                                : r->recipe.solver;
}

/* The linear as codes of the recipe's solver; its working copy becomes what they mean. */
static int solve_codes(struct nb_run *r, struct nb_layer_work *w, int i,
                       const struct nb_solve_job *job, struct nb_solve_report *s,
                       struct nb_err *err)
{
    const struct nb_module_spec *m = nb_recipe_module(&r->recipe, &r->model->arch, w->index, i);
    const struct nb_solver *solver = solver_of(r, &w->linears[i], &m->spec);
    struct nb_solve_opts opts = *job->opts;
    struct nb_solve_job own = *job;
    struct nb_arena arena;
    nb_arena_init(&arena);
    opts.grid.spec = m->spec;
    opts.grid.tensor_amax = nb_layer_fused_amax(r, w, i);
    own.opts = &opts;
    if (r->recipe.calibrates && !job->stats) { /* the activations were not finite */
        solver = nb_solver_find("rtn");
        opts.grid.clip = NB_CLIP_MSE;
    }
    struct nb_qmat q;
    int rc = solver->solve(&q, &own, &arena, s, err);
    if (rc) nb_err_prefix(err, "%s", m->path);
    if (!rc) nb_ranges_input_scale(r, &q);
    if (!rc) nb_overflow_scales(r, m, &q);
    if (!rc && job->stats && job->stats->sum)
        rc = nb_bias_correct(r, w, i, &(struct nb_bias_job){job->stats, job->w, &q, r->be}, err);
    if (!rc) rc = nb_output_put_qmat(r, m, &q, &arena, err);
    if (!rc) {
        const struct nb_weight solved = {.rows = q.rows, .cols = q.cols, .q = &q};
        nb_weight_rows(&solved, nb_backend_pool(r->be), w->w[i]);
    }
    nb_arena_release(&arena);
    return rc;
}

/* The same as blocks of a GGUF file. */
static int solve_blocks(struct nb_run *r, struct nb_layer_work *w, int i,
                        const struct nb_solve_job *job, struct nb_solve_report *s,
                        struct nb_err *err)
{
    const struct nb_module_spec *m = nb_recipe_module(&r->recipe, &r->model->arch, w->index, i);
    const size_t row_bytes = nb_block_row_bytes(m->block, job->w->cols);
    unsigned char *bytes = nb_alloc((size_t)job->w->rows, row_bytes);
    if (!bytes) return nb_fail(err, NB_E_NOMEM, "%s: no memory for its blocks", m->path);
    int rc = nb_block_solve(m->block, job, bytes, s, err);
    if (rc) nb_err_prefix(err, "%s", m->path);
    if (!rc) rc = nb_output_gguf_linear(r, w->index, i, bytes, err);
    if (!rc) {
        const struct nb_weight solved = {
            .rows = job->w->rows, .cols = job->w->cols, .blocks = {m->block, bytes}};
        nb_weight_rows(&solved, nb_backend_pool(r->be), w->w[i]);
    }
    nb_free(bytes);
    return rc;
}

void nb_layer_work_warn_nonfinite(struct nb_run *r, const struct nb_layer_work *w,
                                  const char *linear)
{
    nb_progress_warn(r->progress,
                     "layer %" PRId64 ": calibration gave NaN or Inf at the input of %s; its "
                     "linears are rounded without statistics",
                     w->index, linear);
}

static void report_linear(const struct nb_run *r, const struct nb_module_spec *m)
{
    struct nb_progress_event e = {.phase = "quantize",
                                  .item = m->path,
                                  .done = (uint64_t)r->report->n_linears,
                                  .total = r->recipe.n_quantized,
                                  .loss = -1};
    nb_progress_report(r->progress, &e);
}

int nb_layer_work_solve(struct nb_run *r, struct nb_layer_work *w, int i,
                        const struct nb_stats *stats, struct nb_err *err)
{
    const struct nb_arch *arch = &r->model->arch;
    const struct nb_module_spec *m = nb_recipe_module(&r->recipe, arch, w->index, i);
    if (!m->quantized) return 0;
    report_linear(r, m);
    struct nb_solve_report s = {.ladder = ""};
    struct nb_fmat mat = nb_layer_work_matrix(w, i);
    struct nb_solve_opts opts = r->recipe.solve;
    if (w->linears[i].branch != NB_BRANCH_MAIN) opts.gptaq_alpha = 0; /* has no second stream */
    const struct nb_solve_job job = {&mat, stats, &opts, r->be};
    int rc = m->block ? solve_blocks(r, w, i, &job, &s, err) : solve_codes(r, w, i, &job, &s, err);
    if (!rc) rc = nb_layer_replace(w->engine, i, w->w[i], w->bias[i], err);
    if (!rc && nb_run_record(r, m, &s))
        rc = nb_fail(err, NB_E_NUMERIC, "%s: loss is not finite", m->path);
    return rc;
}

static bool input_is_quantized(const struct nb_run *r, const struct nb_layer_work *w,
                               enum nb_input input)
{
    for (int i = 0; i < w->n_linears; i++) {
        if (w->linears[i].input == input && w->linears[i].branch == NB_BRANCH_MAIN &&
            nb_recipe_module(&r->recipe, &r->model->arch, w->index, i)->quantized) {
            return true;
        }
    }
    return false;
}

static const char *first_linear(const struct nb_layer_work *w, enum nb_input input)
{
    int i = 0;
    while (i + 1 < w->n_linears && w->linears[i].input != input) i++;
    return w->linears[i].name;
}

static int solve_input(struct nb_run *r, struct nb_layer_work *w, enum nb_input input,
                       struct nb_err *err)
{
    bool wanted = input_is_quantized(r, w, input);
    struct nb_stats stats;
    bool have = wanted && r->recipe.calibrates;
    const unsigned what = (r->recipe.fp_stream ? NB_STATS_CROSS : 0) |
                          (nb_bias_takes_mean(r, w, input) ? NB_STATS_SUM : 0);
    int rc = have ? nb_stats_init(&stats, nb_layer_input_width(w->engine, input), what, err) : 0;
    if (rc) return rc;
    nb_ranges_begin(r, w->engine, input);
    if (r->recipe.calibrates) rc = nb_layer_work_step(r, w, input, have ? &stats : NULL, err);
    if (have) nb_stats_finish(&stats);
    if (have && stats.sum) nb_stats_centre(&stats);
    bool usable = have && nb_stats_are_finite(&stats);
    if (have && !usable && !rc) {
        nb_layer_work_warn_nonfinite(r, w, first_linear(w, input));
    }
    if (usable && !rc) rc = nb_stats_condense(&stats, err);
    for (int i = 0; i < w->n_linears && !rc; i++) {
        if (w->linears[i].input == input && w->linears[i].branch == NB_BRANCH_MAIN)
            rc = nb_layer_work_solve(r, w, i, usable ? &stats : NULL, err);
    }
    if (have) nb_stats_release(&stats);
    return rc;
}

static int put_norm(struct nb_run *r, struct nb_layer_work *w, enum nb_input input,
                    struct nb_err *err)
{
    const struct nb_arch *arch = &r->model->arch;
    const bool attn = input == NB_INPUT_ATTN;
    const float *norm = nb_layer_norm(w->engine, input),
                *bias = nb_layer_norm_bias(w->engine, input);
    const float offset = (float)arch->norm_offset;
    char name[NB_NAME_MAX * 2];
    nb_arch_name(arch, w->index, attn ? arch->attn_norm_name : arch->mlp_norm_name, name);
    float *stored = nb_alloc((size_t)arch->hidden_size, sizeof *stored);
    if (!stored) return nb_fail(err, NB_E_NOMEM, "no memory for tensor '%s'", name);
    for (int64_t k = 0; k < arch->hidden_size; k++) stored[k] = norm[k] - offset;
    int rc = nb_output_put_f32(r, name, stored, arch->hidden_size, err);
    nb_free(stored);
    if (rc || !bias) return rc;
    nb_arch_name(arch, w->index, attn ? arch->attn_norm_bias_name : arch->mlp_norm_bias_name, name);
    return nb_output_put_f32(r, name, bias, arch->hidden_size, err);
}

/* Norms and biases that a fold changed; the rest of the layer is copied byte for byte. */
static int put_changed(struct nb_run *r, struct nb_layer_work *w, struct nb_err *err)
{
    const struct nb_arch *arch = &r->model->arch;
    char name[NB_NAME_MAX * 2];
    int rc = r->sink->copy(r, w->index, err);
    for (int k = 0; k < NB_INPUT_COUNT && !rc; k++) {
        if (w->norm_changed[k]) rc = put_norm(r, w, (enum nb_input)k, err);
    }
    for (int i = 0; i < w->n_linears && !rc; i++) {
        if (!w->bias_changed[i]) continue;
        char inside[NB_NAME_MAX + 8];
        snprintf(inside, sizeof inside, "%s.bias", w->linears[i].name);
        nb_arch_name(arch, w->index, inside, name);
        rc = nb_output_put_f32(r, name, w->bias[i], w->linears[i].rows, err);
    }
    return rc;
}

static void report_layer(struct nb_run *r, int64_t layer, size_t first)
{
    double loss = 0, zero = 0;
    for (size_t i = first; i < r->report->n_linears; i++) {
        loss += r->report->linears[i].solve.loss;
        zero += r->report->linears[i].solve.loss_zero;
    }
    char item[48];
    snprintf(item, sizeof item, "layer %" PRId64 "/%" PRId64, layer + 1, r->model->arch.n_layers);
    struct nb_progress_event e = {.phase = "quantize",
                                  .item = item,
                                  .done = (uint64_t)r->report->n_linears,
                                  .total = r->recipe.n_quantized,
                                  .loss = zero > 0 ? loss / zero : -1,
                                  .item_done = true};
    nb_progress_report(r->progress, &e);
}

/* The source pages of a finished layer are not needed again. */
static void drop_layer(const struct nb_run *r, int64_t layer)
{
    for (size_t i = 0; i < r->n_ledger; i++) {
        if (r->ledger[i].layer == layer)
            nb_safetensors_drop(r->model->tensors, r->ledger[i].tensor);
    }
}

int nb_run_layer(struct nb_run *r, int64_t layer, struct nb_err *err)
{
    struct nb_layer_work w;
    size_t first = r->report->n_linears;
    int rc = work_load(r, &w, layer, err);
    if (!rc && r->recipe.awq) rc = nb_transform_awq(r, &w, err);
    if (!rc && r->recipe.smooth) rc = nb_transform_smooth(r, &w, err);
    const bool experts = nb_arch_has_experts(&r->model->arch, layer),
               more = layer + 1 < r->model->arch.n_layers || r->recipe.head;
    for (int k = 0; k < (experts ? NB_INPUT_DOWN : NB_INPUT_COUNT) && !rc; k++) {
        if (nb_progress_stop(r->progress)) rc = nb_fail(err, NB_E_INTERRUPTED, "interrupted");
        if (!rc) rc = solve_input(r, &w, (enum nb_input)k, err);
    }
    if (!rc) rc = experts ? nb_run_experts(r, &w, more, err) : finish_streams(r, &w, more, err);
    if (!rc) rc = put_changed(r, &w, err);
    if (!rc) rc = nb_ranges_put_kv(r, layer, err);
    work_release(&w);
    drop_layer(r, layer);
    if (rc) return rc == NB_E_INTERRUPTED ? rc : nb_err_prefix(err, "layer %" PRId64, layer);
    report_layer(r, layer, first);
    return 0;
}

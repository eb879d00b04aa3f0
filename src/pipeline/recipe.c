/* SPDX-License-Identifier: Apache-2.0
 *
 * recipe.c - see recipe.h. */
#include "pipeline/recipe.h"

#include <fnmatch.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "nibble/version.h"
#include "numeric/block.h"

void nb_quantize_defaults(struct nb_quantize_opts *o)
{
    *o = (struct nb_quantize_opts){.sym = -1, .gptaq_alpha = -1, .order = NB_ORDER_AUTO};
}

struct method {
    const char *name;
    bool awq;
    const char *solver; /* NULL: nothing is quantized */
};

static const struct method methods[] = {
    {"rtn", false, "rtn"},      {"gptq", false, "gptq"}, {"awq", true, "rtn"},
    {"awq+gptq", true, "gptq"}, {"none", false, NULL},
};

/* What wins on the embedded model and on random ones, see docs/quality.md. */
static const char *best_method(const char *effort)
{
    return strcmp(effort, "fast") == 0 ? "rtn" : "awq+gptq";
}

static int choose_method(struct nb_recipe *r, const struct nb_quantize_opts *o, struct nb_err *err)
{
    const char *effort = o->effort ? o->effort : "normal";
    if (strcmp(effort, "fast") && strcmp(effort, "normal") && strcmp(effort, "max")) {
        return nb_fail(err, NB_E_USAGE, "effort '%s' is unknown; known: fast, normal, max", effort);
    }
    const char *name = o->method ? o->method : "best";
    r->best = !strcmp(name, "best");
    if (r->best) name = o->gguf ? "gptq" : best_method(effort);
    if (o->gguf && strcmp(name, "gptq")) {
        return nb_fail(err, NB_E_SPEC,
                       "method '%s' is not available for gguf; possible: best, gptq, rtn, none",
                       name);
    }
    for (size_t i = 0; i < sizeof methods / sizeof *methods; i++) {
        if (strcmp(methods[i].name, name)) continue;
        memcpy(r->method, name, strlen(name) + 1);
        r->awq = methods[i].awq;
        r->solver = methods[i].solver ? nb_solver_find(methods[i].solver) : NULL;
        return 0;
    }
    return nb_fail(err, NB_E_USAGE,
                   "method '%s' is unknown; known: rtn, gptq, awq, awq+gptq, none, best", name);
}

static int choose_checkpoint(struct nb_recipe *r, const struct nb_quantize_opts *o,
                             struct nb_err *err)
{
    if (o->gguf) {
        r->format = "gguf";
        return 0;
    }
    const char *name = o->format ? o->format : r->solver ? "gptq" : "dense";
    r->checkpoint = nb_checkpoint_find(name);
    if (!r->checkpoint || (r->solver && !r->checkpoint->can_write)) {
        char known[128] = "";
        for (const struct nb_checkpoint *const *c = nb_checkpoints(); *c; c++) {
            if (!(*c)->can_write) continue;
            size_t n = strlen(known);
            snprintf(known + n, sizeof known - n, "%s%s", n ? ", " : "", (*c)->name);
        }
        return nb_fail(err, r->checkpoint ? NB_E_SPEC : NB_E_USAGE,
                       "format '%s' cannot hold a quantized model; possible: %s", name, known);
    }
    if (!r->solver && r->checkpoint->can_write) {
        return nb_fail(err, NB_E_SPEC,
                       "method none leaves weights in float, format %s holds codes; "
                       "possible: format dense",
                       name);
    }
    r->format = r->checkpoint->name;
    return 0;
}

static int choose_clip(struct nb_recipe *r, const struct nb_quantize_opts *o, struct nb_err *err)
{
    const char *clip = o->clip ? o->clip : "weighted";
    if (!strcmp(clip, "none")) r->solve.grid.clip = NB_CLIP_NONE;
    else if (!strcmp(clip, "mse")) r->solve.grid.clip = NB_CLIP_MSE;
    else if (!strcmp(clip, "weighted")) r->solve.grid.clip = NB_CLIP_WEIGHTED;
    else return nb_fail(err, NB_E_USAGE, "clip '%s' is unknown; known: none, mse, weighted", clip);
    return 0;
}

static enum nb_effort effort_of(const char *name)
{
    if (name && !strcmp(name, "fast")) return NB_EFFORT_FAST;
    return name && !strcmp(name, "max") ? NB_EFFORT_BEST : NB_EFFORT_NORMAL;
}

static int choose_numbers(struct nb_recipe *r, const struct nb_quantize_opts *o, struct nb_err *err)
{
    int bits = o->bits ? o->bits : 4;
    if (bits != 2 && bits != 3 && bits != 4 && bits != 8) {
        return nb_fail(err, NB_E_USAGE, "%d bits are not possible; possible: 2, 3, 4, 8", bits);
    }
    if (o->group < -1) {
        return nb_fail(err, NB_E_USAGE,
                       "groups of %" PRId64 " are not possible; give a size, or -1 for one "
                       "group per row",
                       o->group);
    }
    bool sym = o->sym < 0 ? r->checkpoint->sym_default : o->sym != 0;
    struct nb_qspec *s = &r->solve.grid.spec;
    s->elem = (struct nb_elem){.kind = NB_ELEM_INT, .bits = bits, .vec = 1};
    s->group_rows = 1;
    s->group_cols = o->group ? o->group : 128;
    s->scale_dtype = r->checkpoint->scale_dtype;
    s->zero = NB_ZERO_CODE;
    s->symmetric = sym;
    r->solve.grid.zero_min = sym ? 0 : r->checkpoint->zero_min;
    if (o->order == NB_ORDER_DYNAMIC && strncmp(r->checkpoint->name, "gptq", 4)) {
        return nb_fail(err, NB_E_SPEC,
                       "act-order dynamic needs g_idx, which format %s does not have; "
                       "possible: static, group, or format gptq",
                       r->checkpoint->name);
    }
    return 0;
}

static int choose_solving(struct nb_recipe *r, const struct nb_quantize_opts *o, struct nb_err *err)
{
    nb_solve_opts_effort(&r->solve, effort_of(o->effort));
    int rc = r->checkpoint ? choose_numbers(r, o, err) : 0;
    if (rc) return rc;
    r->solve.order = o->order;
    if (!(o->damp >= 0 && o->damp < 1)) {
        return nb_fail(err, NB_E_USAGE, "damping %g is not in [0, 1)", o->damp);
    }
    r->solve.damp = o->damp;
    if (!isfinite(o->gptaq_alpha)) {
        return nb_fail(err, NB_E_USAGE, "gptaq alpha %g is not a finite number", o->gptaq_alpha);
    }
    /* The float stream doubles the time of a run, so it comes with best and max only; docs/quality.md. */
    bool stream = r->best || (o->effort && !strcmp(o->effort, "max"));
    if (o->gptaq_alpha >= 0) r->solve.gptaq_alpha = o->gptaq_alpha;
    else if (!stream) r->solve.gptaq_alpha = 0;
    return choose_clip(r, o, err);
}

static bool matches(const char *const *globs, size_t n, const char *path)
{
    for (size_t i = 0; i < n; i++) {
        if (fnmatch(globs[i], path, 0) == 0) return true;
    }
    return false;
}

/* With --allow-nonfinite a weight that holds NaN or Inf stays as it is: no grid has such values. */
static bool is_quantizable(const struct nb_model *model, const struct nb_quantize_opts *o,
                           const char *path)
{
    char name[NB_NAME_MAX * 2 + 8];
    snprintf(name, sizeof name, "%s.weight", path);
    return !o->allow_nonfinite || nb_model_tensor_is_finite(model, name);
}

static int module_spec(struct nb_module_spec *m, const struct nb_recipe *r,
                       const struct nb_quantize_opts *o, const struct nb_arch_linear *lin,
                       struct nb_err *err)
{
    m->spec = r->solve.grid.spec;
    m->desc_act = r->solve.order == NB_ORDER_DYNAMIC;
    m->quantized = r->solver && (matches(o->include, o->n_include, m->path) ||
                                 !matches(o->ignore, o->n_ignore, m->path));
    if (!m->quantized) return 0;
    for (size_t i = 0; i < o->n_bits_for; i++) {
        if (fnmatch(o->bits_for[i].glob, m->path, 0)) continue;
        m->spec.elem.bits = o->bits_for[i].bits;
        break;
    }
    int b = m->spec.elem.bits;
    if (b != 2 && b != 3 && b != 4 && b != 8) {
        return nb_fail(err, NB_E_USAGE, "%s: %d bits are not possible; possible: 2, 3, 4, 8",
                       m->path, b);
    }
    if (!r->solver->supports(&m->spec)) {
        return nb_fail(err, NB_E_SPEC, "%s: method %s does not do %d bits", m->path,
                       r->solver->name, b);
    }
    int rc = r->checkpoint->can_write(&m->spec, lin->rows, lin->cols, m->desc_act, err);
    return rc ? nb_err_prefix(err, "%s", m->path) : 0;
}

/* How a GGUF file holds it: what is reported, and what is solved. */
static void block_spec(struct nb_module_spec *m, const struct nb_gguf_item *item)
{
    const struct nb_block_type *t = item->type;
    m->block = t;
    m->quantized = item->quantized;
    if (nb_block_qspec(t, &m->spec)) return;
    m->spec = (struct nb_qspec){
        .elem = {.kind = NB_ELEM_INT, .vec = 1}, .group_rows = 1, .group_cols = t->elems};
    m->spec.elem.bits = t->bytes * 8 / t->elems;
}

static int one_module(struct nb_module_spec *m, const struct nb_recipe *r,
                      const struct nb_quantize_opts *o, const struct nb_model *model,
                      const struct nb_arch_linear *lin, struct nb_err *err)
{
    int rc = module_spec(m, r, o, lin, err);
    if (!rc && m->quantized) m->quantized = is_quantizable(model, o, m->path);
    return rc;
}

static void head_module(struct nb_recipe *r, const struct nb_gguf_out *gguf)
{
    const struct nb_gguf_item *item = nb_gguf_out_at(gguf, nb_gguf_out_head(gguf));
    block_spec(&r->head_spec, item);
    snprintf(r->head_spec.path, sizeof r->head_spec.path, "%s", item->source);
    char *end = strstr(r->head_spec.path, ".weight");
    if (end) *end = '\0';
    r->head = item->quantized && nb_block_solvable(item->type);
    r->n_quantized += r->head;
}

static int choose_modules(struct nb_recipe *r, const struct nb_quantize_opts *o,
                          const struct nb_model *model, const struct nb_gguf_out *gguf,
                          struct nb_err *err)
{
    const struct nb_arch *arch = &model->arch;
    r->n_modules = (size_t)arch->n_layers * (size_t)arch->n_linears;
    r->modules = nb_calloc(r->n_modules, sizeof *r->modules);
    if (!r->modules) return nb_fail(err, NB_E_NOMEM, "no memory for %zu modules", r->n_modules);
    for (int64_t l = 0; l < arch->n_layers; l++) {
        for (int i = 0; i < arch->n_linears; i++) {
            struct nb_module_spec *m = &r->modules[l * arch->n_linears + i];
            nb_arch_name(arch, l, arch->linears[i].name, m->path);
            int rc = 0;
            if (gguf) block_spec(m, nb_gguf_out_at(gguf, nb_gguf_out_linear(gguf, l, i)));
            else rc = one_module(m, r, o, model, &arch->linears[i], err);
            if (rc) return rc;
            r->n_quantized += m->quantized;
        }
    }
    if (gguf) head_module(r, gguf);
    if (r->solver && !r->n_quantized) {
        if (gguf) return nb_fail(err, NB_E_SPEC, "the scheme quantizes no linear of this model");
        return nb_fail(err, NB_E_SPEC, "no linear is left to quantize: --ignore matches all %zu",
                       r->n_modules);
    }
    return 0;
}

/* A pattern that changes nothing is a typing error: the model would not be what was asked for. */
static int check_patterns(const struct nb_recipe *r, const struct nb_quantize_opts *o,
                          struct nb_err *err)
{
    for (size_t b = 0; b < o->n_bits_for; b++) {
        size_t i = 0;
        while (i < r->n_modules && fnmatch(o->bits_for[b].glob, r->modules[i].path, 0)) i++;
        if (i < r->n_modules) continue;
        return nb_fail(err, NB_E_USAGE,
                       "--bits-for '%s=%d' matches none of the %zu linears (the first is %s)",
                       o->bits_for[b].glob, o->bits_for[b].bits, r->n_modules, r->modules[0].path);
    }
    return 0;
}

static json_t *solver_json(const struct nb_solve_opts *o)
{
    return json_pack("{s:f, s:i, s:i, s:i, s:b, s:i, s:i, s:i}", "gptaq_alpha", o->gptaq_alpha,
                     "scale_trials", o->scale_trials, "group_trials", o->group_trials, "cd_sweeps",
                     o->cd_sweeps, "refit", (int)o->refit, "restarts", o->restarts, "beam", o->beam,
                     "beam_sweeps", o->beam_sweeps);
}

/* Every choice that reaches an output byte, by name, so that a changed one can be told apart. */
static int make_json(struct nb_recipe *r, struct nb_err *err)
{
    static const char *const clips[] = {"none", "mse", "weighted"};
    const struct nb_qspec *s = &r->solve.grid.spec;
    json_t *exceptions = json_object();
    for (size_t i = 0; i < r->n_modules; i++) {
        const struct nb_module_spec *m = &r->modules[i];
        if (m->block) json_object_set_new(exceptions, m->path, json_string(m->block->name));
        else if (r->solver && !m->quantized)
            json_object_set_new(exceptions, m->path, json_string("float"));
        else if (r->solver && m->spec.elem.bits != s->elem.bits)
            json_object_set_new(exceptions, m->path, json_integer(m->spec.elem.bits));
    }
    r->json = json_pack(
        "{s:s, s:s, s:i, s:I, s:b, s:s, s:s, s:f, s:o, s:b, s:s, s:I, s:I, s:I, s:I, s:o}",
        "method", r->method, "format", r->format, "bits", s->elem.bits, "group",
        (json_int_t)s->group_cols, "sym", (int)s->symmetric, "clip", clips[r->solve.grid.clip],
        "act_order", nb_order_name(r->solve.order), "damp", r->solve.damp, "solver",
        solver_json(&r->solve), "calibrates", (int)r->calibrates, "precision",
        r->precision == NB_PRECISION_BF16 ? "bf16" : "f32", "samples", (json_int_t)r->n_samples,
        "seqlen", (json_int_t)r->seqlen, "seed", (json_int_t)r->seed, "max_shard_bytes",
        (json_int_t)r->max_shard_bytes, "exceptions", exceptions);
    if (r->json && r->head)
        json_object_set_new(r->json, "head", json_string(r->head_spec.block->name));
    if (!r->json) return nb_fail(err, NB_E_NOMEM, "no memory for the recipe");
    return 0;
}

static int choose_precision(struct nb_recipe *r, const struct nb_quantize_opts *o,
                            struct nb_err *err)
{
    const char *name = o->precision ? o->precision : "f32";
    if (!strcmp(name, "f32")) r->precision = NB_PRECISION_F32;
    else if (!strcmp(name, "bf16")) r->precision = NB_PRECISION_BF16;
    else return nb_fail(err, NB_E_USAGE, "precision '%s' is unknown; known: f32, bf16", name);
    return 0;
}

int nb_recipe_make(struct nb_recipe *r, const struct nb_quantize_opts *o,
                   const struct nb_model *model, const struct nb_gguf_out *gguf, struct nb_err *err)
{
    memset(r, 0, sizeof *r);
    int rc = choose_method(r, o, err);
    if (!rc) rc = choose_precision(r, o, err);
    if (!rc) rc = choose_checkpoint(r, o, err);
    if (!rc && r->solver) rc = choose_solving(r, o, err);
    if (!rc) rc = choose_modules(r, o, model, gguf, err);
    if (!rc && r->solver) rc = check_patterns(r, o, err);
    if (rc) return rc;
    if (r->solver) {
        r->calibrates =
            r->awq || r->solver->needs_hessian || r->solve.grid.clip == NB_CLIP_WEIGHTED;
        r->fp_stream = r->solver->needs_hessian && r->solve.gptaq_alpha > 0;
    }
    int64_t context = model->arch.max_position;
    r->n_samples = o->calib.n_samples ? o->calib.n_samples : 128;
    r->seqlen = o->calib.seqlen ? o->calib.seqlen : context < 2048 ? context : 2048;
    r->seed = o->calib.seed;
    r->max_shard_bytes = o->max_shard_bytes;
    if (r->calibrates && (r->n_samples < 1 || r->seqlen < 2 || r->seqlen > context)) {
        return nb_fail(err, NB_E_USAGE,
                       "calibration of %" PRId64 " windows x %" PRId64
                       " tokens: windows must be at "
                       "least 1, tokens 2 to %" PRId64 " (the model's context)",
                       r->n_samples, r->seqlen, context);
    }
    snprintf(r->producer, sizeof r->producer, "nibble:%s", nb_version());
    struct nb_checkpoint_info info;
    nb_recipe_info(r, &info);
    rc = r->solver && r->checkpoint ? r->checkpoint->can_describe(&info, err) : 0;
    return rc ? rc : make_json(r, err);
}

void nb_recipe_info(const struct nb_recipe *r, struct nb_checkpoint_info *info)
{
    *info = (struct nb_checkpoint_info){.spec = r->solve.grid.spec,
                                        .modules = r->modules,
                                        .n_modules = r->n_modules,
                                        .desc_act = r->solve.order == NB_ORDER_DYNAMIC,
                                        .true_sequential = r->calibrates,
                                        .static_groups = r->solve.order != NB_ORDER_DYNAMIC,
                                        .damp = r->solve.damp,
                                        .producer = r->producer};
}

void nb_recipe_release(struct nb_recipe *r)
{
    nb_free(r->modules);
    json_decref(r->json);
    memset(r, 0, sizeof *r);
}

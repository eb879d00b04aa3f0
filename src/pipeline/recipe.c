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
#include "numeric/elems.h"

void nb_quantize_defaults(struct nb_quantize_opts *o)
{
    *o = (struct nb_quantize_opts){
        .sym = -1, .double_quant = -1, .gptaq_alpha = -1, .order = NB_ORDER_AUTO};
}

struct method {
    const char *name;
    bool awq, smooth;
    const char *solver; /* NULL: nothing is quantized */
};

static const struct method methods[] = {
    {"rtn", false, false, "rtn"},
    {"gptq", false, false, "gptq"},
    {"awq", true, false, "rtn"},
    {"awq+gptq", true, false, "gptq"},
    {"smoothquant", false, true, "rtn"},
    {"smoothquant+gptq", false, true, "gptq"},
    {"signround", false, false, "signround"},
    {"none", false, false, NULL},
};

static int choose_scheme(struct nb_recipe *r, const struct nb_quantize_opts *o, struct nb_err *err)
{
    if (o->gguf || (o->method && !strcmp(o->method, "none"))) return 0;
    if (!o->scheme) {
        r->scheme = nb_scheme_of_bits(o->bits ? o->bits : 4);
        if (r->scheme) return 0;
        return nb_fail(err, NB_E_USAGE, "%d bits are not possible; possible: 2, 3, 4, 8", o->bits);
    }
    r->scheme = nb_scheme_find(o->scheme);
    if (!r->scheme) {
        struct nb_strbuf known;
        nb_strbuf_init(&known);
        nb_scheme_list(&known);
        nb_fail(err, NB_E_SPEC,
                "scheme '%s' is unknown; known: %s; of GGUF files Q4_K_M and others", o->scheme,
                nb_strbuf_cstr(&known));
        nb_strbuf_release(&known);
        return err->status;
    }
    if (o->bits && o->bits != r->scheme->spec.elem.bits) {
        return nb_fail(err, NB_E_USAGE, "scheme %s has %d bits, not %d", r->scheme->name,
                       r->scheme->spec.elem.bits, o->bits);
    }
    return 0;
}

/* What wins on the embedded model and on random ones, see docs/quality.md. */
static const char *best_method(const struct nb_recipe *r, const struct nb_quantize_opts *o,
                               const char *effort)
{
    if (!strcmp(effort, "fast")) return "rtn";
    return o->gguf ? "gptq" : r->scheme->best;
}

static int choose_method(struct nb_recipe *r, const struct nb_quantize_opts *o, struct nb_err *err)
{
    const char *effort = o->effort ? o->effort : "normal";
    if (strcmp(effort, "fast") && strcmp(effort, "normal") && strcmp(effort, "max")) {
        return nb_fail(err, NB_E_USAGE, "effort '%s' is unknown; known: fast, normal, max", effort);
    }
    const char *name = o->method ? o->method : "best";
    r->best = !strcmp(name, "best");
    if (r->best) name = o->gguf ? "gptq" : best_method(r, o, effort);
    if (o->gguf && strcmp(name, "gptq")) {
        return nb_fail(err, NB_E_SPEC,
                       "method '%s' is not available for gguf; possible: best, gptq, rtn, none",
                       name);
    }
    for (size_t i = 0; i < sizeof methods / sizeof *methods; i++) {
        if (strcmp(methods[i].name, name)) continue;
        snprintf(r->method, sizeof r->method, "%s", name);
        r->awq = methods[i].awq;
        r->smooth = methods[i].smooth;
        r->solver = methods[i].solver ? nb_solver_find(methods[i].solver) : NULL;
        return 0;
    }
    return nb_fail(err, NB_E_USAGE,
                   "method '%s' is unknown; known: rtn, gptq, awq, awq+gptq, smoothquant, "
                   "smoothquant+gptq, signround, none, best",
                   name);
}

static int choose_checkpoint(struct nb_recipe *r, const struct nb_quantize_opts *o,
                             struct nb_err *err)
{
    if (o->gguf) {
        r->format = "gguf";
        return 0;
    }
    const char *name = o->format ? o->format : r->solver ? r->scheme->format : "dense";
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
    const bool plain = r->best && r->scheme && !r->scheme->free_sym && !r->solver->needs_hessian;
    const char *clip = o->clip ? o->clip : plain ? "none" : "weighted";
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

static int choose_levels(struct nb_recipe *r, const struct nb_quantize_opts *o, struct nb_err *err)
{
    struct nb_qspec *s = &r->solve.grid.spec;
    if (o->double_quant > 0 && !r->scheme->nests) {
        return nb_fail(err, NB_E_SPEC, "scheme %s has no double quantization; possible: NF4, FP4",
                       r->scheme->name);
    }
    if (!r->scheme->nests || o->double_quant == 0) return 0;
    s->super_groups = 256;
    s->super_flat = true;
    s->scale_bits = 8;
    s->scale_table = nb_dynamic_map;
    return 0;
}

static int choose_grid(struct nb_recipe *r, const struct nb_quantize_opts *o, struct nb_err *err)
{
    const struct nb_scheme *scheme = r->scheme;
    struct nb_qspec *s = &r->solve.grid.spec;
    if (!scheme->free_sym) {
        const bool sym = s->symmetric || s->zero == NB_ZERO_NONE;
        if (o->sym < 0 || (o->sym != 0) == sym) return 0;
        return nb_fail(err, NB_E_SPEC, "scheme %s has no zero points: leave out --asym",
                       scheme->name);
    }
    s->symmetric = o->sym < 0 ? r->checkpoint->sym_default : o->sym != 0;
    s->zero_implied = s->symmetric && r->checkpoint->implies_zeros;
    r->solve.grid.zero_min = s->symmetric ? 0 : r->checkpoint->zero_min;
    return 0;
}

static int choose_numbers(struct nb_recipe *r, const struct nb_quantize_opts *o, struct nb_err *err)
{
    const struct nb_scheme *scheme = r->scheme;
    struct nb_qspec *s = &r->solve.grid.spec;
    *s = scheme->spec;
    if (o->group < -1) {
        return nb_fail(err, NB_E_USAGE,
                       "groups of %" PRId64 " are not possible; give a size, or -1 for one "
                       "group per row",
                       o->group);
    }
    if (o->group && !scheme->free_group && o->group != s->group_cols) {
        return nb_fail(err, NB_E_SPEC, "the groups of scheme %s are fixed: leave out --group",
                       scheme->name);
    }
    if (o->group) s->group_cols = o->group;
    if (s->scale_dtype == NB_SCALES_OF_FORMAT) s->scale_dtype = r->checkpoint->scale_dtype;
    int rc = choose_grid(r, o, err);
    if (!rc) rc = choose_levels(r, o, err);
    if (rc) return rc;
    if (o->order == NB_ORDER_DYNAMIC && strncmp(r->checkpoint->name, "gptq", 4) &&
        strcmp(r->checkpoint->name, "compressed-tensors")) {
        return nb_fail(err, NB_E_SPEC,
                       "act-order dynamic needs g_idx, which format %s does not have; "
                       "possible: static, group, or format gptq",
                       r->checkpoint->name);
    }
    return 0;
}

/* What the container says beyond the numbers. */
static int choose_pack(struct nb_recipe *r, const struct nb_quantize_opts *o,
                       const struct nb_arch *arch, struct nb_err *err)
{
    static const struct {
        const char *name;
        enum nb_dtype type;
    } storages[] = {
        {"uint8", NB_U8}, {"float16", NB_F16}, {"bfloat16", NB_BF16}, {"float32", NB_F32}};
    r->pack = (struct nb_pack_opts){
        .source = arch->dtype, .storage = NB_U8, .order = r->solve.order == NB_ORDER_DYNAMIC};
    r->kv_scales = o->kv_scales;
    if (o->kv_scales && !r->checkpoint->kv_scales) {
        return nb_fail(err, NB_E_SPEC,
                       "format %s has no place for KV cache scales; possible: fp8, "
                       "compressed-tensors",
                       r->format);
    }
    if (!o->storage) return 0;
    if (strcmp(r->format, "bnb")) {
        return nb_fail(err, NB_E_SPEC, "--storage is for format bnb, not for %s", r->format);
    }
    for (size_t i = 0; i < sizeof storages / sizeof *storages; i++) {
        if (strcmp(storages[i].name, o->storage)) continue;
        r->pack.storage = storages[i].type;
        return 0;
    }
    return nb_fail(err, NB_E_USAGE,
                   "storage '%s' is unknown; known: uint8, float16, bfloat16, float32", o->storage);
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
    const struct nb_qspec *spec = &r->solve.grid.spec;
    /* Rounded inputs cost ten times what 8-bit weights do: there is nothing for it to repair. */
    const bool repairs = spec->act == NB_ACT_NONE || spec->elem.bits < 8;
    bool stream = (r->best && repairs) || (o->effort && !strcmp(o->effort, "max"));
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

/* The same of an expert's weight that lies in one tensor with the others'. */
static bool is_stack_finite(const struct nb_model *model, int64_t layer,
                            const struct nb_arch_linear *lin)
{
    int64_t row;
    const struct nb_tensor *t = nb_model_stacked(model, layer, lin, &row);
    return !t || nb_model_tensor_is_finite(model, t->name);
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
    if (b != r->scheme->spec.elem.bits && !(r->scheme->free_sym && nb_scheme_of_bits(b))) {
        return nb_fail(err, NB_E_USAGE, "%s: %d bits are not possible with scheme %s; possible: %s",
                       m->path, b, r->scheme->name,
                       r->scheme->free_sym ? "2, 3, 4, 8" : "to leave it float (--ignore)");
    }
    if (!r->solver->supports(&m->spec)) {
        char text[96];
        nb_qspec_describe(&m->spec, text, sizeof text);
        return nb_fail(err, NB_E_SPEC, "%s: method %s does not do %s; possible: rtn", m->path,
                       r->solver->name, text);
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

/* Routers and gates of shared experts: linears to a loader, never quantized. */
static void add_routers(struct nb_recipe *r, const struct nb_arch *arch)
{
    for (int64_t l = 0; l < arch->n_layers; l++) {
        if (!nb_arch_has_experts(arch, l)) continue;
        const char *const names[] = {arch->moe->router_name, arch->moe->shared_gate_name};
        for (int i = 0; i < 2; i++) {
            if (!names[i][0]) continue;
            struct nb_module_spec *m = &r->modules[r->n_modules + r->n_routers++];
            nb_arch_name(arch, l, names[i], m->path);
            m->path[strlen(m->path) - strlen(".weight")] = '\0';
        }
    }
}

static int choose_modules(struct nb_recipe *r, const struct nb_quantize_opts *o,
                          const struct nb_model *model, const struct nb_gguf_out *gguf,
                          struct nb_err *err)
{
    const struct nb_arch *arch = &model->arch;
    r->n_modules = (size_t)nb_arch_first_linear(arch, arch->n_layers);
    r->modules = nb_calloc(r->n_modules + 2 * (size_t)arch->n_layers, sizeof *r->modules);
    if (!r->modules) return nb_fail(err, NB_E_NOMEM, "no memory for %zu modules", r->n_modules);
    for (int64_t l = 0; l < arch->n_layers; l++) {
        int n;
        const struct nb_arch_linear *linears = nb_arch_layer_linears(arch, l, &n);
        for (int i = 0; i < n; i++) {
            struct nb_module_spec *m = &r->modules[nb_arch_first_linear(arch, l) + i];
            nb_arch_name(arch, l, linears[i].name, m->path);
            int rc = 0;
            if (gguf) block_spec(m, nb_gguf_out_at(gguf, nb_gguf_out_linear(gguf, l, i)));
            else rc = one_module(m, r, o, model, &linears[i], err);
            if (rc) return rc;
            if (m->quantized && o->allow_nonfinite)
                m->quantized = is_stack_finite(model, l, &linears[i]);
            r->n_quantized += m->quantized;
        }
    }
    add_routers(r, arch);
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
    return json_pack("{s:f, s:i, s:i, s:i, s:b, s:i, s:i, s:i, s:b}", "gptaq_alpha", o->gptaq_alpha,
                     "scale_trials", o->scale_trials, "group_trials", o->group_trials, "cd_sweeps",
                     o->cd_sweeps, "refit", (int)o->refit, "restarts", o->restarts, "beam", o->beam,
                     "beam_sweeps", o->beam_sweeps, "bias", (int)o->bias);
}

/* Choices that few runs make. */
static void add_choices(struct nb_recipe *r, const struct nb_quantize_opts *o)
{
    if (o->scheme && r->scheme)
        json_object_set_new(r->json, "scheme", json_string(r->scheme->name));
    if (r->scheme && r->scheme->nests)
        json_object_set_new(r->json, "double_quant",
                            json_boolean(r->solve.grid.spec.super_groups > 0));
    if (r->pack.storage != NB_U8 && r->checkpoint)
        json_object_set_new(r->json, "storage", json_string(nb_dtype_name(r->pack.storage)));
    if (r->act_percentile > 0)
        json_object_set_new(r->json, "act_percentile", json_real(r->act_percentile));
    if (r->kv_scales) json_object_set_new(r->json, "kv_scales", json_true());
    if (r->rotate) json_object_set_new(r->json, "rotate", json_true());
    if (r->moe_all_tokens) json_object_set_new(r->json, "moe_all_tokens", json_true());
}

/* Every choice that reaches an output byte, by name, so that a changed one can be told apart. */
static int make_json(struct nb_recipe *r, const struct nb_quantize_opts *o, struct nb_err *err)
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
    if (r->json) add_choices(r, o);
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

/* Are there activation scales to find? */
static bool has_static_act(const struct nb_recipe *r)
{
    const enum nb_act_kind act = r->solve.grid.spec.act;
    return act == NB_ACT_INT8_STATIC || act == NB_ACT_FP8_STATIC || act == NB_ACT_NVFP4;
}

int nb_recipe_make(struct nb_recipe *r, const struct nb_quantize_opts *o,
                   const struct nb_model *model, const struct nb_gguf_out *gguf, struct nb_err *err)
{
    memset(r, 0, sizeof *r);
    int rc = choose_scheme(r, o, err);
    if (!rc) rc = choose_method(r, o, err);
    if (!rc) rc = choose_precision(r, o, err);
    if (!rc) rc = choose_checkpoint(r, o, err);
    if (!rc && r->solver) rc = choose_solving(r, o, err);
    if (!rc && r->checkpoint) rc = choose_pack(r, o, &model->arch, err);
    if (!rc) rc = choose_modules(r, o, model, gguf, err);
    if (!rc && r->solver) rc = check_patterns(r, o, err);
    if (rc) return rc;
    r->rotate = o->rotate;
    if (r->solver) {
        r->act_percentile = o->act_percentile;
        r->moe_all_tokens = o->moe_all_tokens;
        r->calibrates = r->awq || r->smooth || r->solver->needs_hessian || r->kv_scales ||
                        r->solve.grid.clip == NB_CLIP_WEIGHTED || has_static_act(r);
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
    return rc ? rc : make_json(r, o, err);
}

void nb_recipe_info(const struct nb_recipe *r, struct nb_checkpoint_info *info)
{
    /* Loaders of gptq files know routers; a list of float modules would only make the config longer. */
    const bool named = r->checkpoint && strncmp(r->checkpoint->name, "gptq", 4);
    *info = (struct nb_checkpoint_info){.spec = r->solve.grid.spec,
                                        .modules = r->modules,
                                        .n_modules = r->n_modules + (named ? r->n_routers : 0),
                                        .desc_act = r->solve.order == NB_ORDER_DYNAMIC,
                                        .true_sequential = r->calibrates,
                                        .static_groups = r->solve.order != NB_ORDER_DYNAMIC,
                                        .damp = r->solve.damp,
                                        .pack = r->pack,
                                        .kv_scales = r->kv_scales,
                                        .producer = r->producer};
}

void nb_recipe_release(struct nb_recipe *r)
{
    nb_free(r->modules);
    json_decref(r->json);
    memset(r, 0, sizeof *r);
}

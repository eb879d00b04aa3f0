/* SPDX-License-Identifier: Apache-2.0
 *
 * mixed.c - see mixed.h. The measured table lies in the work folder beside the journal, under the identity
 * of the run, so that a run that is resumed decides the same without measuring again; measured again it would be
 * the same, too.
 *
 * 3 and 2 bits are taken only when 4 do not meet the target: newer engines load integers of 4 and 8 bits, and
 * what the others gain above 4 bits per weight is little. */
#include "pipeline/mixed.h"

#include <inttypes.h>
#include <math.h>
#include <string.h>

#include "base/file.h"
#include "pipeline/sensitivity.h"

enum { MAX_TABLE_BYTES = 64 << 20, COMMON_BITS = 4 };

bool nb_mixed_wanted(const struct nb_quantize_opts *o)
{
    return o->target_bytes > 0 || o->target_bits > 0 || o->target_kld > 0;
}

/* ---- can it be done at all? ---- */

/* Two linears of different bits: would the config say so? */
static int check_container(const struct nb_run *r, struct nb_err *err)
{
    struct nb_module_spec m[2] = {{.quantized = true}, {.quantized = true}};
    for (int i = 0; i < 2; i++) {
        snprintf(m[i].path, sizeof m[i].path, "model.layers.%d.mlp.down_proj", i);
        m[i].spec = r->recipe.solve.grid.spec;
        m[i].spec.elem.bits = i ? 8 : COMMON_BITS;
    }
    struct nb_checkpoint_info info;
    nb_recipe_info(&r->recipe, &info);
    info.spec = m[0].spec;
    info.modules = m;
    info.n_modules = 2;
    if (!r->recipe.checkpoint->can_describe(&info, NULL)) return 0;
    return nb_fail(err, NB_E_SPEC,
                   "format %s holds one scheme for all linears, so precision cannot be mixed; "
                   "possible: gptq, compressed-tensors",
                   r->recipe.format);
}

static int check(const struct nb_run *r, struct nb_err *err)
{
    const struct nb_quantize_opts *o = r->opts;
    if ((o->target_bytes > 0) + (o->target_bits > 0) + (o->target_kld > 0) > 1) {
        return nb_fail(err, NB_E_USAGE,
                       "options '--target-size', '--target-bits' and '--target-kld' exclude each "
                       "other");
    }
    if (o->gguf || !r->recipe.solver || !r->recipe.scheme || !r->recipe.scheme->free_sym) {
        return nb_fail(err, NB_E_SPEC,
                       "precision is mixed among integers of formats gptq and compressed-tensors; "
                       "leave out --scheme, or for GGUF files give --tensor-type");
    }
    if (!r->recipe.calibrates || !r->windows.n_windows) {
        return nb_fail(err, NB_E_SPEC,
                       "mixed precision needs calibration; possible: --clip weighted, or another "
                       "--method");
    }
    return check_container(r, err);
}

/* ---- the table between runs ---- */

static char *table_path(const struct nb_run *r)
{
    return nb_path_join(r->work, "sensitivity.json");
}

/* False: there is no table of this run. */
static bool load_table(const struct nb_run *r, struct nb_sensitivity *s)
{
    char *path = table_path(r);
    const bool try = !r->opts->dry_run && !r->opts->restart && nb_path_exists(path);
    json_t *j = try ? nb_json_load(path, MAX_TABLE_BYTES, NULL) : NULL;
    nb_free(path);
    const json_t *kld = json_object_get(j, "kld");
    const size_t n = s->n_units * s->n_candidates;
    bool ok = json_array_size(kld) == n && json_equal(json_object_get(j, "identity"), r->identity);
    for (size_t i = 0; i < n && ok; i++) {
        const json_t *v = json_array_get(kld, i);
        ok = isnan(s->kld[i]) ? json_is_null(v) : json_is_number(v) && json_number_value(v) >= 0;
    }
    for (size_t i = 0; i < n && ok; i++)
        if (!isnan(s->kld[i])) s->kld[i] = json_number_value(json_array_get(kld, i));
    json_decref(j);
    return ok;
}

static int save_table(const struct nb_run *r, const struct nb_sensitivity *s, struct nb_err *err)
{
    if (r->opts->dry_run) return 0;
    json_t *kld = json_array();
    for (size_t i = 0; i < s->n_units * s->n_candidates; i++)
        json_array_append_new(kld, isnan(s->kld[i]) ? json_null() : json_real(s->kld[i]));
    json_t *j = json_pack("{s:O, s:o}", "identity", r->identity, "kld", kld);
    struct nb_strbuf text;
    nb_strbuf_init(&text);
    int rc = j ? nb_json_dump(j, true, &text, err)
               : nb_fail(err, NB_E_NOMEM, "no memory for the sensitivity table");
    char *path = table_path(r);
    if (!rc) rc = nb_file_write(path, nb_strbuf_cstr(&text), text.len, err);
    nb_free(path);
    nb_strbuf_release(&text);
    json_decref(j);
    return rc;
}

/* ---- the choice ---- */

/* Of a linear's weight; one in a tensor of all experts has its share. */
static uint64_t source_bytes(const struct nb_run *r, const char *path,
                             const struct nb_arch_linear *lin)
{
    char name[NB_NAME_MAX * 2 + 8];
    snprintf(name, sizeof name, "%s.weight", path);
    const struct nb_tensor *t = nb_safetensors_find(r->model->tensors, name);
    return t ? t->data.bytes
             : (uint64_t)(lin->rows * lin->cols * nb_dtype_bits(r->model->arch.dtype) / 8);
}

/* Bytes of all tensors that no choice changes. */
static uint64_t fixed_bytes(const struct nb_run *r)
{
    const struct nb_arch *arch = &r->model->arch;
    uint64_t sum = 0;
    for (size_t i = 0; i < nb_model_tensor_count(r->model); i++) {
        struct nb_model_tensor t;
        nb_model_tensor_at(r->model, i, &t);
        const bool tied = arch->tie_word_embeddings && !strcmp(t.name, arch->head_name);
        if (!tied && !nb_arch_is_ignorable(arch, t.name)) sum += t.data.bytes;
    }
    for (int64_t l = 0; l < arch->n_layers; l++) {
        int n;
        const struct nb_arch_linear *lin = nb_arch_layer_linears(arch, l, &n);
        for (int i = 0; i < n; i++) {
            const struct nb_module_spec *m = nb_recipe_module(&r->recipe, arch, l, i);
            if (m->quantized) sum -= source_bytes(r, m->path, &lin[i]);
        }
    }
    return sum;
}

/* Units with something to choose, side by side; with bits NULL costs in bytes. */
struct table {
    struct nb_allocation a;
    size_t *unit; /* [a.n_units] */
    double *loss;
    uint64_t *cost;
    int *pick;
};

static void table_release(struct table *t)
{
    nb_free(t->unit);
    nb_free(t->loss);
    nb_free(t->cost);
    nb_free(t->pick);
}

/* by_bits: cost in bits of weights and scales alone. */
static int table_make(struct table *t, const struct nb_sensitivity *s, bool by_bits,
                      struct nb_err *err)
{
    memset(t, 0, sizeof *t);
    const size_t n = s->n_units * s->n_candidates;
    t->unit = nb_calloc(s->n_units, sizeof *t->unit);
    t->loss = nb_calloc(n, sizeof *t->loss);
    t->cost = nb_calloc(n, sizeof *t->cost);
    t->pick = nb_calloc(s->n_units, sizeof *t->pick);
    if (!t->unit || !t->loss || !t->cost || !t->pick)
        return nb_fail(err, NB_E_NOMEM, "no memory for %zu units", s->n_units);
    size_t k = 0;
    for (size_t u = 0; u < s->n_units; u++) {
        if (!(s->weights[u] > 0)) continue;
        for (size_t c = 0; c < s->n_candidates; c++) {
            const size_t from = u * s->n_candidates + c, to = k * s->n_candidates + c;
            t->loss[to] = s->kld[from];
            t->cost[to] = by_bits ? (uint64_t)llround(s->bits[from]) : s->bytes[from];
        }
        t->unit[k++] = u;
    }
    t->a = (struct nb_allocation){k, s->n_candidates, t->loss, t->cost};
    return 0;
}

/* Takes away what has fewer than `bits`, where the unit has something else; returns whether anything went. */
static bool drop_below(struct table *t, const struct nb_sensitivity *s, int bits)
{
    bool dropped = false;
    for (size_t u = 0; u < t->a.n_units; u++) {
        double *loss = t->loss + u * t->a.n_choices;
        bool left = false;
        for (size_t c = 0; c < t->a.n_choices; c++) {
            const bool low = !s->candidate[c].is_float && s->candidate[c].spec.elem.bits < bits;
            left = left || (!low && !s->candidate[c].is_float && isfinite(loss[c]));
        }
        for (size_t c = 0; c < t->a.n_choices && left; c++) {
            if (s->candidate[c].is_float || s->candidate[c].spec.elem.bits >= bits) continue;
            dropped = dropped || isfinite(loss[c]);
            loss[c] = NAN;
        }
    }
    return dropped;
}

static double all_weights(const struct nb_sensitivity *s)
{
    double n = 0;
    for (size_t u = 0; u < s->n_units; u++) n += s->weights[u];
    return n;
}

static int unreachable(const struct nb_run *r, const struct nb_sensitivity *s,
                       const struct table *t, struct nb_err *err)
{
    const struct nb_quantize_opts *o = r->opts;
    uint64_t least = 0;
    for (size_t u = 0; u < t->a.n_units; u++) {
        uint64_t smallest = UINT64_MAX;
        for (size_t c = 0; c < t->a.n_choices; c++) {
            const size_t at = u * t->a.n_choices + c;
            if (isfinite(t->loss[at]) && t->cost[at] < smallest) smallest = t->cost[at];
        }
        least += smallest;
    }
    if (o->target_kld > 0) {
        return nb_fail(
            err, NB_E_SPEC,
            "a divergence of %g nats per token is out of reach of what the options leave",
            o->target_kld);
    }
    if (o->target_bits > 0) {
        return nb_fail(err, NB_E_SPEC,
                       "%g bits per weight are out of reach; possible: %.3f or more",
                       o->target_bits, ceil(1000 * (double)least / all_weights(s)) / 1000);
    }
    const uint64_t fixed = fixed_bytes(r);
    return nb_fail(err, NB_E_SPEC,
                   "%" PRIu64 " bytes are out of reach: tensors that stay float take %" PRIu64
                   ", the linears at least %" PRIu64 "; possible: %" PRIu64 " or more",
                   o->target_bytes, fixed, least, fixed + least);
}

static int allocate(const struct nb_run *r, const struct nb_sensitivity *s, struct table *t,
                    struct nb_err *err)
{
    const struct nb_quantize_opts *o = r->opts;
    if (o->target_kld > 0) return nb_allocate_loss(&t->a, o->target_kld, t->pick, err);
    const uint64_t fixed = fixed_bytes(r);
    const uint64_t budget = o->target_bits > 0        ? (uint64_t)(o->target_bits * all_weights(s))
                            : o->target_bytes > fixed ? o->target_bytes - fixed
                                                      : 0;
    return nb_allocate_bytes(&t->a, budget, t->pick, err);
}

static int choose(const struct nb_run *r, const struct nb_sensitivity *s, struct table *t,
                  struct nb_err *err)
{
    struct table common;
    const bool by_bits = r->opts->target_bits > 0;
    int rc = table_make(t, s, by_bits, err);
    if (!rc) rc = table_make(&common, s, by_bits, err);
    else return rc;
    if (!rc && drop_below(&common, s, COMMON_BITS) && !allocate(r, s, &common, NULL)) {
        memcpy(t->pick, common.pick, t->a.n_units * sizeof *t->pick);
    } else if (!rc) {
        rc = allocate(r, s, t, err);
        if (rc == NB_E_SPEC) rc = unreachable(r, s, t, err);
    }
    table_release(&common);
    return rc;
}

/* ---- into the recipe ---- */

static bool same_candidate(const struct nb_qspec *a, const struct nb_qspec *b)
{
    return a->elem.bits == b->elem.bits && a->group_cols == b->group_cols;
}

/* What most weights got becomes the default, so that the config lists few exceptions. */
static void set_default(struct nb_run *r, const struct nb_sensitivity *s, const struct table *t)
{
    double most = 0;
    for (size_t c = 0; c < s->n_candidates; c++) {
        double n = 0;
        for (size_t k = 0; k < t->a.n_units; k++)
            if (t->pick[k] == (int)c) n += s->weights[t->unit[k]];
        if (s->candidate[c].is_float || !(n > most)) continue;
        most = n;
        r->recipe.solve.grid.spec = s->candidate[c].spec;
    }
}

static void set_modules(struct nb_run *r, const struct nb_sensitivity *s, const struct table *t)
{
    const struct nb_arch *arch = &r->model->arch;
    r->recipe.n_quantized = 0;
    for (size_t k = 0; k < t->a.n_units; k++) {
        const struct nb_candidate *c = &s->candidate[t->pick[k]];
        const int64_t layer = (int64_t)(t->unit[k] / NB_INPUT_COUNT);
        int n;
        const struct nb_arch_linear *lin = nb_arch_layer_linears(arch, layer, &n);
        for (int i = 0; i < n; i++) {
            struct nb_module_spec *m = &r->recipe.modules[nb_arch_first_linear(arch, layer) + i];
            if (lin[i].input != (enum nb_input)(t->unit[k] % NB_INPUT_COUNT) || !m->quantized)
                continue;
            m->quantized = !c->is_float;
            if (m->quantized) m->spec = c->spec;
            r->recipe.n_quantized += m->quantized;
        }
    }
}

/* The assignment in the recipe's words: what the journal compares. */
static int set_json(struct nb_run *r, const struct table *t, struct nb_err *err)
{
    const struct nb_qspec *base = &r->recipe.solve.grid.spec;
    json_t *j = r->recipe.json, *exceptions = json_object_get(j, "exceptions");
    int failed = json_object_set_new(j, "bits", json_integer(base->elem.bits));
    failed |= json_object_set_new(j, "group", json_integer((json_int_t)base->group_cols));
    for (size_t i = 0; i < r->recipe.n_modules; i++) {
        const struct nb_module_spec *m = &r->recipe.modules[i];
        char text[64] = "float";
        json_object_del(exceptions, m->path);
        if (m->quantized && same_candidate(&m->spec, base)) continue;
        if (m->quantized) nb_qspec_describe(&m->spec, text, sizeof text);
        failed |= json_object_set_new(exceptions, m->path, json_string(text));
    }
    const struct nb_quantize_opts *o = r->opts;
    const char *what = o->target_kld > 0 ? "kld" : o->target_bits > 0 ? "bits" : "bytes";
    const double target = o->target_kld > 0    ? o->target_kld
                          : o->target_bits > 0 ? o->target_bits
                                               : (double)o->target_bytes;
    failed |=
        json_object_set_new(j, "mixed",
                            json_pack("{s:s, s:f, s:f}", "target", what, "value", target,
                                      "predicted_kld", nb_allocation_total(&t->a, t->pick).loss));
    return failed ? nb_fail(err, NB_E_NOMEM, "no memory for the recipe") : 0;
}

static void describe_unit(struct nb_strbuf *b, const struct nb_candidate *c)
{
    if (c->is_float) nb_strbuf_puts(b, "float");
    else if (c->spec.group_cols < 0) nb_strbuf_printf(b, "%d", c->spec.elem.bits);
    else nb_strbuf_printf(b, "%dg%" PRId64, c->spec.elem.bits, c->spec.group_cols);
}

/* "q_proj/k_proj/v_proj": the last parts of the names of linears of one input, each once. */
static void name_unit(struct nb_strbuf *b, const struct nb_arch *arch, int64_t layer, int input)
{
    const size_t start = b->len;
    int n;
    const struct nb_arch_linear *lin = nb_arch_layer_linears(arch, layer, &n);
    for (int i = 0; i < n; i++) {
        const char *dot = strrchr(lin[i].name, '.'), *name = dot ? dot + 1 : lin[i].name;
        if (lin[i].input != (enum nb_input)input || strstr(nb_strbuf_cstr(b) + start, name))
            continue;
        nb_strbuf_printf(b, "%c%s", b->len == start ? ' ' : '/', name);
    }
}

/* One line per layer: linears that share an input, and what they get. */
static void write_report(struct nb_run *r, const struct nb_sensitivity *s, const struct table *t)
{
    struct nb_mixed_report *out = &r->report->mixed;
    out->predicted_kld = nb_allocation_total(&t->a, t->pick).loss;
    for (size_t k = 0; k < t->a.n_units; k++) {
        const size_t input = t->unit[k] % NB_INPUT_COUNT, layer = t->unit[k] / NB_INPUT_COUNT;
        if (k == 0 || t->unit[k - 1] / NB_INPUT_COUNT != layer)
            nb_strbuf_printf(&out->lines, "%slayer %zu:", k ? "\n" : "", layer);
        else nb_strbuf_putc(&out->lines, ',');
        name_unit(&out->lines, &r->model->arch, (int64_t)layer, (int)input);
        nb_strbuf_putc(&out->lines, ' ');
        describe_unit(&out->lines, &s->candidate[t->pick[k]]);
    }
    nb_strbuf_putc(&out->lines, '\n');
}

static int put(struct nb_run *r, const struct nb_sensitivity *s, const struct table *t,
               struct nb_err *err)
{
    set_default(r, s, t);
    set_modules(r, s, t);
    if (!r->recipe.n_quantized)
        return nb_fail(err, NB_E_SPEC,
                       "the target leaves every linear float; possible: a smaller one, or "
                       "--method none");
    struct nb_checkpoint_info info;
    nb_recipe_info(&r->recipe, &info);
    int rc = r->recipe.checkpoint->can_describe(&info, err);
    if (!rc) rc = set_json(r, t, err);
    if (!rc) write_report(r, s, t);
    return rc;
}

int nb_mixed_assign(struct nb_run *r, struct nb_err *err)
{
    struct nb_sensitivity s = {0};
    struct table t = {0};
    int rc = check(r, err);
    if (!rc) rc = nb_sensitivity_init(&s, r, err);
    if (!rc && !load_table(r, &s)) {
        rc = nb_sensitivity_measure(&s, r, err);
        if (!rc) rc = save_table(r, &s, err);
    }
    if (!rc) rc = choose(r, &s, &t, err);
    if (!rc) rc = put(r, &s, &t, err);
    table_release(&t);
    nb_sensitivity_release(&s);
    return rc;
}

/* SPDX-License-Identifier: Apache-2.0
 *
 * sensitivity_units.c - which schemes a unit could get, and what they take in the file. See sensitivity.h. */
#include <fnmatch.h>
#include <math.h>
#include <string.h>

#include "pipeline/sensitivity.h"

static bool wanted_bits(const struct nb_quantize_opts *o, int bits)
{
    return !o->bits || o->bits == bits;
}

static bool wanted_group(const struct nb_quantize_opts *o, int64_t group)
{
    return !o->group || o->group == group;
}

/* The grids between which loaders do not differ, largest first, without small groups at 8 bits, whose gain is
 * nothing; and the source's own numbers. */
static void list_candidates(struct nb_sensitivity *s, const struct nb_run *r)
{
    static const int bits[] = {8, 6, 5, 4, 3, 2};
    static const int64_t groups[] = {32, 64, 128, -1};
    for (size_t b = 0; b < sizeof bits / sizeof *bits; b++) {
        for (size_t g = 0; g < sizeof groups / sizeof *groups; g++) {
            if (!wanted_bits(r->opts, bits[b]) || !wanted_group(r->opts, groups[g])) continue;
            if (bits[b] >= 8 && groups[g] > 0 && groups[g] < 128 && !r->opts->group) continue;
            struct nb_candidate *c = &s->candidate[s->n_candidates++];
            c->spec = r->recipe.solve.grid.spec;
            c->spec.elem.bits = bits[b];
            c->spec.group_cols = groups[g];
        }
    }
    s->candidate[s->n_candidates++] = (struct nb_candidate){.is_float = true};
}

static int fixed_bits(const struct nb_quantize_opts *o, const char *path)
{
    for (size_t i = 0; i < o->n_bits_for; i++) {
        if (!fnmatch(o->bits_for[i].glob, path, 0)) return o->bits_for[i].bits;
    }
    return 0;
}

/* Can linear `lin` have it, and in how many bytes and bits? */
static bool linear_cost(const struct nb_run *r, const struct nb_candidate *c,
                        const struct nb_module_spec *m, const struct nb_arch_linear *lin,
                        uint64_t *bytes, double *bits)
{
    const struct nb_checkpoint *ck = r->recipe.checkpoint;
    const double n = (double)lin->rows * (double)lin->cols;
    const int fixed = fixed_bits(r->opts, m->path);
    if (c->is_float) {
        *bytes = (uint64_t)n * (uint64_t)nb_dtype_bits(r->model->arch.dtype) / 8;
        *bits = n * nb_dtype_bits(r->model->arch.dtype);
        return !fixed;
    }
    if (fixed && c->spec.elem.bits != fixed) return false;
    if (c->spec.group_cols > lin->cols || !r->recipe.solver->supports(&c->spec) ||
        ck->can_write(&c->spec, lin->rows, lin->cols, m->desc_act, NULL))
        return false;
    struct nb_packed_tensor t[NB_MAX_PACKED];
    const int tensors = ck->plan(&c->spec, lin->rows, lin->cols, &r->recipe.pack, t);
    *bytes = 0;
    for (int i = 0; i < tensors; i++) {
        uint64_t b = (uint64_t)nb_dtype_bits(t[i].dtype) / 8;
        for (int k = 0; k < t[i].rank; k++) b *= (uint64_t)t[i].shape[k];
        *bytes += b;
    }
    *bits = n * nb_qspec_bits_per_weight(&c->spec, lin->rows, lin->cols);
    return true;
}

static void unit_costs(struct nb_sensitivity *s, const struct nb_run *r, size_t unit)
{
    const struct nb_arch *arch = &r->model->arch;
    const int64_t layer = (int64_t)(unit / NB_INPUT_COUNT);
    int n_linears;
    const struct nb_arch_linear *linears = nb_arch_layer_linears(arch, layer, &n_linears);
    for (int i = 0; i < n_linears; i++) {
        const struct nb_arch_linear *lin = &linears[i];
        const struct nb_module_spec *m = nb_recipe_module(&r->recipe, arch, layer, i);
        if (lin->input != (enum nb_input)(unit % NB_INPUT_COUNT) || !m->quantized) continue;
        s->weights[unit] += (double)lin->rows * (double)lin->cols;
        for (size_t c = 0; c < s->n_candidates; c++) {
            const size_t at = unit * s->n_candidates + c;
            uint64_t bytes = 0;
            double bits = 0;
            if (!linear_cost(r, &s->candidate[c], m, lin, &bytes, &bits)) s->kld[at] = NAN;
            s->bytes[at] += bytes;
            s->bits[at] += bits;
        }
    }
}

int nb_sensitivity_init(struct nb_sensitivity *s, const struct nb_run *r, struct nb_err *err)
{
    memset(s, 0, sizeof *s);
    list_candidates(s, r);
    s->n_units = (size_t)r->model->arch.n_layers * NB_INPUT_COUNT;
    const size_t n = s->n_units * s->n_candidates;
    s->kld = nb_calloc(n, sizeof *s->kld);
    s->bytes = nb_calloc(n, sizeof *s->bytes);
    s->bits = nb_calloc(n, sizeof *s->bits);
    s->weights = nb_calloc(s->n_units, sizeof *s->weights);
    if (!s->kld || !s->bytes || !s->bits || !s->weights)
        return nb_fail(err, NB_E_NOMEM, "no memory for the sensitivity of %zu units", s->n_units);
    for (size_t u = 0; u < s->n_units; u++) {
        unit_costs(s, r, u);
        size_t c = 0;
        while (c < s->n_candidates && isnan(s->kld[u * s->n_candidates + c])) c++;
        if (c < s->n_candidates) continue;
        return nb_fail(
            err, NB_E_SPEC,
            "layer %zu: none of the schemes that the options leave fits all its linears; "
            "give fewer of --bits, --group and --bits-for",
            u / NB_INPUT_COUNT);
    }
    return 0;
}

void nb_sensitivity_release(struct nb_sensitivity *s)
{
    nb_free(s->kld);
    nb_free(s->bytes);
    nb_free(s->bits);
    nb_free(s->weights);
    memset(s, 0, sizeof *s);
}

/* SPDX-License-Identifier: Apache-2.0
 *
 * bias.c - where linears have a bias, it takes care of the mean of what rounding does to the output.
 *
 * The solver then sees inputs around their mean only (nb_stats_centre), and b += W E[x_fp] - Q E[x] afterwards. An
 * input is treated so when all linears that read it have a bias, since they share one Hessian. The bias is rounded to
 * the file's type; from 4 bits on that costs as much as the mean did (books-11m: 3 bits gain 1.5 %, 4 bits lose 1 %),
 * so only coarser codes are treated so. Source: algorithms, section 10.8; ours differs in solving for the centred
 * inputs. */
#include <stdio.h>

#include "pipeline/layer.h"

enum { MOST_BITS = 3 };

bool nb_bias_takes_mean(const struct nb_run *r, const struct nb_layer_work *w, enum nb_input input)
{
    if (!r->recipe.solve.bias || !r->recipe.solver || !r->recipe.solver->needs_hessian)
        return false;
    for (int i = 0; i < w->n_linears; i++) {
        const struct nb_module_spec *m = nb_recipe_module(&r->recipe, &r->model->arch, w->index, i);
        if (w->linears[i].input != input) continue;
        if (!w->bias[i] || !m->quantized || m->block || m->spec.elem.bits > MOST_BITS) return false;
    }
    return true;
}

int nb_bias_correct(struct nb_run *r, struct nb_layer_work *w, int i, const struct nb_bias_job *job,
                    struct nb_err *err)
{
    const int64_t rows = w->linears[i].rows;
    char name[NB_NAME_MAX * 2], inside[NB_NAME_MAX + 8];
    snprintf(inside, sizeof inside, "%s.bias", w->linears[i].name);
    nb_arch_name(&r->model->arch, w->index, inside, name);
    const struct nb_tensor *t = nb_safetensors_find(r->model->tensors, name);
    double *shift = nb_alloc((size_t)rows, sizeof *shift);
    int rc = shift ? nb_stats_bias(job, shift, err)
                   : nb_fail(err, NB_E_NOMEM, "no memory for the shift of a bias");
    for (int64_t n = 0; !rc && n < rows; n++) {
        const float b = (float)(w->bias[i][n] + shift[n]);
        w->bias[i][n] = t ? nb_round_to(b, t->dtype) : b;
    }
    if (!rc) w->bias_changed[i] = true;
    nb_free(shift);
    return rc;
}

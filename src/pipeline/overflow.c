/* SPDX-License-Identifier: Apache-2.0
 *
 * overflow.c - see overflow.h. Magnitudes are compared as bits, so that a pass over a chunk takes one instruction
 * a vector. */
#include "pipeline/overflow.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#define F16_MAX 65504.0f

static uint32_t magnitude(float x)
{
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    return bits & 0x7fffffffu;
}

float nb_overflow_largest(const float *x, int64_t n, float before)
{
    uint32_t most = magnitude(before);
    for (int64_t i = 0; i < n; i++) {
        const uint32_t m = magnitude(x[i]);
        most = m > most ? m : most;
    }
    float largest;
    memcpy(&largest, &most, sizeof largest);
    return isnan(largest) ? INFINITY : largest;
}

static void tell(struct nb_run *r, const char *text)
{
    nb_progress_warn(r->progress, "%s", text);
    nb_strbuf_printf(&r->report->notes, "%s\n", text);
}

/* "q_proj" of the linears that read it. */
static void name_input(const struct nb_run *r, int64_t layer, enum nb_input input, char out[64])
{
    int n;
    const struct nb_arch_linear *lin = nb_arch_layer_linears(&r->model->arch, layer, &n);
    snprintf(out, 64, "the residual stream behind it");
    for (int i = 0; i < n; i++) {
        const char *dot = strrchr(lin[i].name, '.');
        if (lin[i].input != input) continue;
        snprintf(out, 64, "the input of %.40s", dot ? dot + 1 : lin[i].name);
        return;
    }
}

void nb_overflow_activations(struct nb_run *r, int64_t layer, enum nb_input input, float largest)
{
    if (!(largest > F16_MAX) || !isfinite(largest))
        return; /* what is not finite is told elsewhere */
    char what[64], text[320];
    name_input(r, layer, input, what);
    snprintf(text, sizeof text,
             "layer %" PRId64
             ": %s reaches %.3g, beyond float16 (65504): an engine that computes in "
             "float16 gives NaN%s",
             layer, what, (double)largest,
             r->model->arch.dtype == NB_F16 ? "; config.json says float16, set bfloat16 there"
                                            : "; serve it in bfloat16");
    tell(r, text);
}

void nb_overflow_scales(struct nb_run *r, const struct nb_module_spec *m, const struct nb_qmat *q)
{
    const float largest = nb_overflow_largest(q->scale.value, nb_qmat_planes(q), 0.0f);
    const bool clipped = q->spec.scale_dtype == NB_F16 && largest >= F16_MAX;
    if (!clipped && !(largest > F16_MAX)) return;
    char text[320];
    if (clipped) {
        snprintf(text, sizeof text,
                 "%.120s: a scale is clipped to 65504, the largest float16; smaller groups, or a "
                 "format with BF16 or F32 scales, hold it",
                 m->path);
    } else {
        snprintf(text, sizeof text,
                 "%.120s: a scale of %.3g is beyond float16: an engine that casts scales to it "
                 "gives NaN; serve it in bfloat16",
                 m->path, (double)largest);
    }
    tell(r, text);
}

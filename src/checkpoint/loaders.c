/* SPDX-License-Identifier: Apache-2.0
 *
 * loaders.c - asks the table who can load a model, how, on how many GPUs, and what stands against it.
 *
 * Under tensor parallelism engines cut q, k, v, gate and up by outputs and o, down by inputs; the limits of a kernel
 * hold for the part that one GPU has. Shards that an engine fuses are asked as one matrix. */
#include "checkpoint/loaders.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

static bool format_listed(const char *formats, const char *format)
{
    const size_t n = strlen(format);
    for (const char *p = formats; (p = strstr(p, format)); p += n) {
        if ((p == formats || p[-1] == ' ') && (p[n] == '\0' || p[n] == ' ')) return true;
    }
    return false;
}

static enum nb_loader_kind kind_of(const struct nb_qspec *s)
{
    if (s->elem.kind == NB_ELEM_INT) return NB_LOADER_INT;
    if (s->elem.kind == NB_ELEM_TABLE) return NB_LOADER_TABLE;
    if (s->elem.bits == 4) return NB_LOADER_FP4;
    return s->scale_dtype == NB_F8_E8M0 ? NB_LOADER_MXFP8 : NB_LOADER_FP8;
}

static unsigned group_bit(int64_t group, int64_t cols)
{
    if (group <= 0 || group >= cols) return NB_LOADER_GROUP_ROW;
    return group == 32    ? NB_LOADER_GROUP_32
           : group == 64  ? NB_LOADER_GROUP_64
           : group == 128 ? NB_LOADER_GROUP_128
                          : NB_LOADER_GROUP_ANY;
}

struct part { /* of a linear, as one GPU holds it */
    const struct nb_loader_linear *linear;
    int64_t rows, cols;
    int gpus;
};

/* Does the row's kernel take it? reason (may be NULL) says why not. */
static bool fits(const struct nb_loader_row *r, const struct nb_loader_query *q,
                 const struct part *p, char reason[NB_LOADER_REASON])
{
    char none[NB_LOADER_REASON];
    char *out = reason ? reason : none;
    const struct nb_loader_linear *l = p->linear;
    const struct nb_qspec *s = &l->spec;
    const int bits = s->elem.bits;
    const bool padded = r->pads && !l->order;
    const char *name = l->name;
    if (r->kind == NB_LOADER_BLOCKS) return true;
    if (r->kind != NB_LOADER_ANY_KIND && r->kind != kind_of(s)) {
        snprintf(out, NB_LOADER_REASON, "%.60s: not in these numbers", name);
    } else if (r->bits && !(r->bits & 1u << bits)) {
        snprintf(out, NB_LOADER_REASON, "%.60s: not with %d bits", name, bits);
    } else if (!(r->acts & 1u << s->act)) {
        snprintf(out, NB_LOADER_REASON, "%.60s: not with these activations", name);
    } else if (r->sym_only && s->zero == NB_ZERO_CODE && !s->symmetric) {
        snprintf(out, NB_LOADER_REASON, "%.60s: symmetric only", name);
    } else if (!(r->groups & NB_LOADER_GROUP_ANY) &&
               !(r->groups & group_bit(s->group_cols, l->cols))) {
        snprintf(out, NB_LOADER_REASON, "%.60s: not in groups of %" PRId64, name, s->group_cols);
    } else if (l->order && !r->order) {
        snprintf(out, NB_LOADER_REASON, "%.60s: not with act-order", name);
    } else if (r->float16_only && q->dtype != NB_F16) {
        snprintf(out, NB_LOADER_REASON, "%s's kernel for it wants a float16 model", r->loader);
    } else if (r->one_gpu && p->gpus > 1) {
        snprintf(out, NB_LOADER_REASON, "one GPU only");
    } else if (!padded && r->k_multiple && p->cols % r->k_multiple) {
        snprintf(out, NB_LOADER_REASON, "%.60s: %" PRId64 " inputs%s are no multiple of %d", name,
                 p->cols, p->gpus > 1 ? " per GPU" : "", r->k_multiple);
    } else if (!padded && r->n_multiple && p->rows % r->n_multiple) {
        snprintf(out, NB_LOADER_REASON, "%.60s: %" PRId64 " outputs%s are no multiple of %d", name,
                 p->rows, p->gpus > 1 ? " per GPU" : "", r->n_multiple);
    } else if (p->gpus > 1 && s->elem.kind == NB_ELEM_INT && s->group_cols > 0 &&
               s->group_cols < l->cols && p->cols % s->group_cols) {
        snprintf(out, NB_LOADER_REASON,
                 "%.60s: %" PRId64 " inputs per GPU are no multiple of the group of %" PRId64, name,
                 p->cols, s->group_cols);
    } else {
        return true;
    }
    return false;
}

/* First row of this loader that takes it; NULL with the reason of the first, which is the fastest. */
static const struct nb_loader_row *serve(const struct nb_loader_row *first,
                                         const struct nb_loader_query *q, const struct part *p,
                                         char reason[NB_LOADER_REASON])
{
    bool told = false;
    for (const struct nb_loader_row *r = first; r->loader && !strcmp(r->loader, first->loader);
         r++) {
        if (!format_listed(r->formats, q->format)) continue;
        if (fits(r, q, p, told ? NULL : reason)) return r;
        told = true;
    }
    return NULL;
}

static bool is_cut_by_inputs(const struct nb_loader_linear *l)
{
    return l->input == NB_INPUT_O || l->input == NB_INPUT_DOWN;
}

/* Outputs of all shards that are fused with l; 0: an earlier one speaks for them. */
static int64_t fused_rows(const struct nb_loader_query *q, size_t i)
{
    const struct nb_loader_linear *l = &q->linears[i];
    int64_t rows = 0;
    for (size_t k = 0; k < q->n_linears; k++) {
        const struct nb_loader_linear *o = &q->linears[k];
        if (o->layer != l->layer || o->input != l->input || o->expert != l->expert) continue;
        if (k < i) return 0;
        rows += o->rows;
    }
    return rows;
}

/* All linears on so many GPUs. Adds the kernels to v where it is given. */
static bool serve_all(const struct nb_loader_row *first, const struct nb_loader_query *q, int gpus,
                      struct nb_loader_verdict *v, char reason[NB_LOADER_REASON])
{
    if (q->n_heads % gpus) {
        snprintf(reason, NB_LOADER_REASON, "%" PRId64 " heads cannot be shared by %d", q->n_heads,
                 gpus);
        return false;
    }
    for (size_t i = 0; i < q->n_linears; i++) {
        const struct nb_loader_linear *l = &q->linears[i];
        struct part p = {l, l->rows, l->cols, gpus};
        if (gpus > 1) {
            const bool by_inputs = is_cut_by_inputs(l);
            p.rows = by_inputs ? l->rows : fused_rows(q, i);
            if (!p.rows) continue;
            if ((by_inputs ? p.cols : p.rows) % gpus) {
                snprintf(reason, NB_LOADER_REASON, "%.60s cannot be cut in %d", l->name, gpus);
                return false;
            }
            if (by_inputs) p.cols /= gpus;
            else p.rows /= gpus;
        }
        const struct nb_loader_row *r = serve(first, q, &p, reason);
        if (!r) return false;
        if (!v) continue;
        v->slow = v->slow || r->slow;
        if (r != v->row) v->kernel = v->row && strcmp(v->kernel, r->kernel) ? "several" : r->kernel;
        v->row = r;
        v->device = r->device;
        v->source = r->source;
    }
    return true;
}

static void ask_one(struct nb_loader_verdict *v, const struct nb_loader_row *first,
                    const struct nb_loader_query *q)
{
    static const int gpus[NB_LOADER_N_GPUS] = {2, 4, 8};
    *v = (struct nb_loader_verdict){.loader = first->loader, .kernel = "", .device = ""};
    v->loads = serve_all(first, q, 1, v, v->reason);
    if (!v->loads) {
        v->kernel = v->device = "";
        v->source = first->source;
        return;
    }
    v->reason[0] = '\0';
    if (v->row && (v->row->library || v->row->kind == NB_LOADER_BLOCKS)) return;
    for (int i = 0; i < NB_LOADER_N_GPUS; i++) {
        char reason[NB_LOADER_REASON] = "";
        v->parallel[i] = serve_all(first, q, gpus[i], NULL, reason);
        if (!v->parallel[i] && !v->parallel_reason[0])
            snprintf(v->parallel_reason, sizeof v->parallel_reason, "%d: %s", gpus[i], reason);
    }
}

size_t nb_loaders_ask(const struct nb_loader_query *q, struct nb_loader_verdict out[NB_MAX_LOADERS])
{
    size_t n = 0;
    const struct nb_loader_row *r = nb_loader_rows;
    while (r->loader && n < NB_MAX_LOADERS) {
        const struct nb_loader_row *first = r;
        bool knows = false;
        for (; r->loader && !strcmp(r->loader, first->loader); r++)
            knows = knows || format_listed(r->formats, q->format);
        if (knows) {
            ask_one(&out[n++], first, q);
            continue;
        }
        out[n] = (struct nb_loader_verdict){
            .loader = first->loader, .kernel = "", .device = "", .source = first->source};
        snprintf(out[n++].reason, NB_LOADER_REASON, "does not read format %s", q->format);
    }
    return n;
}

/* ---- as text ---- */

void nb_loader_describe(const struct nb_loader_verdict *v, struct nb_strbuf *out)
{
    static const int gpus[NB_LOADER_N_GPUS] = {2, 4, 8};
    if (!v->loads) {
        nb_strbuf_printf(out, "no: %s", v->reason);
        return;
    }
    nb_strbuf_printf(out, "%s, kernel %s (%s)", v->slow ? "slowly" : "yes", v->kernel, v->device);
    bool any = false;
    for (int i = 0; i < NB_LOADER_N_GPUS; i++) {
        if (!v->parallel[i]) continue;
        nb_strbuf_printf(out, "%s%d", any ? ", " : "; tensor parallel ", gpus[i]);
        any = true;
    }
    if (v->parallel_reason[0]) nb_strbuf_printf(out, "; not %s", v->parallel_reason);
}

/* SPDX-License-Identifier: Apache-2.0
 *
 * gguf.c - see gguf.h. Encoding alone: no layer is run, so the model's size does not matter. */
#include <inttypes.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/file.h"
#include "checkpoint/checkpoint.h"
#include "numeric/block.h"
#include "pipeline/gguf.h"
#include "pipeline/gguf_choice.h"
#include "pipeline/pipeline.h"

enum { MAX_MANIFEST_BYTES = 256 << 20 };

struct run {
    const struct nb_gguf_opts *opts;
    const struct nb_progress *progress;
    struct nb_pool *pool;
    struct nb_gguf_report *report;
    struct nb_model *model;
    struct nb_imatrix imatrix;
    struct nb_gguf_choice choice;
    struct nb_gguf_out *out;
    char *partial, *work; /* OUT.gguf.partial, and the file in it */
    int lock_fd;
};

/* ---- places ---- */

static bool ends_with(const char *s, const char *suffix)
{
    size_t n = strlen(s), m = strlen(suffix);
    return n >= m && !strcmp(s + n - m, suffix);
}

static int check_place(struct run *r, struct nb_err *err)
{
    const struct nb_gguf_opts *o = r->opts;
    const char *slash = strrchr(o->out, '/'), *name = slash ? slash + 1 : o->out;
    if (!ends_with(name, ".gguf") || !strcmp(name, ".gguf")) {
        nb_fail(err, NB_E_USAGE, "%s: is not the name of a GGUF file", o->out);
        return nb_err_hint(err, "give one that ends in .gguf with -o");
    }
    if (nb_path_exists(o->out) && nb_path_same(o->out, o->model)) {
        return nb_fail(err, NB_E_USAGE,
                       "%s: the output is the model itself; inputs are never modified", o->out);
    }
    if (nb_path_exists(o->out) && !o->dry_run && (!o->overwrite || nb_path_is_dir(o->out))) {
        nb_fail(err, NB_E_EXISTS, "%s: exists already", o->out);
        return nb_err_hint(err, "give another name with -o%s",
                           nb_path_is_dir(o->out) ? "" : ", or --overwrite to replace it");
    }
    size_t n = strlen(o->out) + sizeof ".partial";
    r->partial = nb_xalloc(n);
    snprintf(r->partial, n, "%s.partial", o->out);
    r->work = nb_path_join(r->partial, name);
    return 0;
}

/* A folder of ours holds a lock; nothing else is touched. */
static int enter_place(struct run *r, struct nb_err *err)
{
    char *lock = nb_path_join(r->partial, "lock");
    int rc = 0;
    if (nb_path_exists(r->partial) && !nb_path_exists(lock)) {
        nb_fail(err, NB_E_EXISTS, "%s: is not from a run of nibble, so it is not used", r->partial);
        rc = nb_err_hint(err, "move it away, or give another name with -o");
    }
    if (!rc) rc = nb_dir_make(r->partial, err);
    if (!rc) {
        r->lock_fd = nb_lock_take(lock, err);
        if (r->lock_fd < 0) rc = err ? err->status : NB_E_BUSY;
    }
    nb_free(lock);
    return rc;
}

/* What `quantize` with calibration left beside an OUT that is replaced: it describes the old file. */
static void drop_old_manifest(const struct run *r)
{
    struct nb_strbuf path;
    nb_strbuf_init(&path);
    nb_strbuf_printf(&path, "%s.manifest.json", r->opts->out);
    const char *name = nb_strbuf_cstr(&path);
    json_t *m = nb_path_exists(name) ? nb_json_load(name, MAX_MANIFEST_BYTES, NULL) : NULL;
    const char *producer = json_string_value(json_object_get(m, "producer"));
    if (producer && !strcmp(producer, "nibble")) unlink(name);
    json_decref(m);
    nb_strbuf_release(&path);
}

static int publish(struct run *r, struct nb_err *err)
{
    char *parent = nb_path_parent(r->opts->out);
    size_t n = nb_gguf_out_file_count(r->out);
    int rc = 0;
    if (r->opts->overwrite) drop_old_manifest(r);
    for (size_t i = 0; i < n && !rc; i++) {
        const char *from = nb_gguf_out_file_path(r->out, i), *slash = strrchr(from, '/');
        char *to = n == 1 ? nb_xstrdup(r->opts->out) : nb_path_join(parent, slash + 1);
        uint64_t bytes = 0;
        rc = nb_file_size(from, &bytes, err);
        r->report->bytes += bytes;
        if (!rc && n > 1 && nb_path_exists(to) && !r->opts->overwrite)
            rc = nb_fail(err, NB_E_EXISTS, "%s: exists already", to);
        if (!rc) rc = nb_rename(from, to, err);
        nb_free(to);
    }
    r->report->n_files = n;
    if (!rc) rc = nb_dir_sync(parent, err);
    nb_free(parent);
    return rc;
}

/* ---- the work ---- */

static void count_type(struct nb_gguf_report *r, const struct nb_gguf_item *it)
{
    size_t i = 0;
    while (i < r->n_types && strcmp(r->types[i].type, it->type->name)) i++;
    if (i == NB_GGUF_MAX_TYPES) return;
    if (i == r->n_types) r->types[r->n_types++] = (struct nb_gguf_type_sum){it->type->name, 0, 0};
    r->types[i].tensors++;
    r->types[i].bytes += it->bytes;
}

static void describe(struct run *r)
{
    struct nb_gguf_report *q = r->report;
    double weights = 0, bits = 0;
    q->tensors = (int64_t)nb_gguf_out_count(r->out);
    q->bytes_source = nb_model_bytes(r->model);
    for (size_t i = 0; i < nb_gguf_out_count(r->out); i++) {
        const struct nb_gguf_item *it = nb_gguf_out_at(r->out, i);
        q->tensors_source += it->source[0] != '\0';
        q->quantized += it->quantized;
        q->weighted += it->importance != NULL;
        count_type(q, it);
        if (it->rows == 1) continue;
        weights += (double)it->rows * (double)it->cols;
        bits += 8 * (double)it->bytes;
    }
    q->tensors_tied = nb_gguf_out_ties_head(r->out);
    q->tensors_source += q->tensors_tied;
    q->bits_per_weight = weights > 0 ? bits / weights : 0;
}

static int plan(struct run *r, struct nb_err *err)
{
    struct nb_gguf_out_opts o = {.name = r->opts->name, .requantize = r->opts->requantize};
    int rc = check_place(r, err);
    if (!rc) rc = nb_model_open(&r->model, r->opts->model, err);
    if (!rc) rc = nb_gguf_choice_make(&r->choice, r->opts, r->model, err);
    if (!rc) {
        o.rules = r->choice.rules;
        snprintf(r->report->scheme, sizeof r->report->scheme, "%s", o.rules.preset->name);
    }
    if (!rc && r->opts->imatrix) {
        rc = nb_imatrix_open(&r->imatrix, r->opts->imatrix, err);
        o.imatrix = &r->imatrix;
        o.imatrix_name = r->opts->imatrix;
    }
    if (!rc) rc = nb_gguf_out_new(&r->out, r->model, &o, &r->report->notes, err);
    if (rc) return rc;
    describe(r);
    bool usable = false;
    for (size_t i = 0; i < nb_gguf_out_count(r->out); i++) {
        const struct nb_gguf_item *it = nb_gguf_out_at(r->out, i);
        usable |= it->layer >= 0 && it->quantized && nb_block_uses_importance(it->type);
    }
    if (r->imatrix.n && !r->report->weighted && usable) {
        nb_progress_warn(r->progress, "%s: names none of the tensors that are quantized",
                         r->opts->imatrix);
    }
    return 0;
}

static int write_tensors(struct run *r, struct nb_err *err)
{
    const size_t n = nb_gguf_out_count(r->out);
    int rc = 0;
    for (size_t i = 0; i < n && !rc; i++) {
        const struct nb_gguf_item *it = nb_gguf_out_at(r->out, i);
        if (nb_progress_stop(r->progress)) return nb_fail(err, NB_E_INTERRUPTED, "interrupted");
        rc = nb_gguf_out_put_source(r->out, i, r->pool, err);
        struct nb_progress_event event = {.phase = "write",
                                          .item = it->name,
                                          .done = i + 1,
                                          .total = n,
                                          .loss = -1,
                                          .item_done = i + 1 == n};
        if (!rc) nb_progress_report(r->progress, &event);
    }
    return rc;
}

static int run_gate(struct run *r, struct nb_err *err)
{
    const struct nb_windows none = {0};
    if (!r->opts->gate) return 0;
    struct nb_progress_event e = {.phase = "gate", .loss = -1};
    nb_progress_report(r->progress, &e);
    int rc = r->opts->gate(r->opts->gate_ctx, nb_gguf_out_file_path(r->out, 0), &none,
                           &r->report->gate, err);
    r->report->has_gate = rc == 0;
    return rc ? nb_err_prefix(err, "gate") : 0;
}

static int work(struct run *r, struct nb_err *err)
{
    int rc = enter_place(r, err);
    if (rc) return rc;
    rc = nb_gguf_out_open(r->out, r->work, r->opts->max_part_bytes, false, err);
    if (!rc) rc = write_tensors(r, err);
    if (!rc) rc = nb_gguf_out_finish(r->out, err);
    if (!rc) rc = run_gate(r, err);
    if (!rc) rc = publish(r, err);
    nb_dir_remove_all(r->partial, rc ? NULL : err);
    return rc;
}

static void release(struct run *r)
{
    nb_gguf_out_free(r->out);
    nb_imatrix_release(&r->imatrix);
    nb_model_close(r->model);
    nb_gguf_choice_release(&r->choice);
    nb_free(r->partial);
    nb_free(r->work);
    if (r->lock_fd >= 0) close(r->lock_fd);
}

int nb_gguf_quantize(struct nb_gguf_report *report, const struct nb_gguf_opts *opts,
                     struct nb_pool *pool, const struct nb_progress *progress, struct nb_err *err)
{
    double start = nb_clock_s();
    memset(report, 0, sizeof *report);
    nb_strbuf_init(&report->notes);
    struct run r = {
        .opts = opts, .progress = progress, .pool = pool, .report = report, .lock_fd = -1};
    int rc = plan(&r, err);
    if (!rc && !opts->dry_run) rc = work(&r, err);
    if (!rc && opts->dry_run) report->bytes = nb_gguf_out_bytes(r.out);
    release(&r);
    report->seconds = nb_clock_s() - start;
    report->peak_rss_bytes = nb_rss_peak_bytes();
    if (!rc && report->has_gate && report->gate.verdict == NB_VERDICT_FAIL) {
        nb_fail(err, NB_E_GATE, "%s: %s", opts->out, report->gate.verdict_text);
        rc = nb_err_hint(err, "try more bits, an importance matrix, or --method best");
    }
    return rc;
}

void nb_gguf_report_release(struct nb_gguf_report *r)
{
    nb_strbuf_release(&r->notes);
}

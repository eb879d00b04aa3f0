/* SPDX-License-Identifier: Apache-2.0
 *
 * quantize.c - one run from the model folder to the finished output, in the order of events. */
#include <inttypes.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/file.h"
#include "base/sha256.h"
#include "nibble/version.h"
#include "pipeline/layer.h"
#include "pipeline/mixed.h"
#include "pipeline/ranges.h"
#include "pipeline/rotate.h"
#include "pipeline/run.h"

enum { CHUNK_TOKENS = 4096 };

static int open_source(struct nb_run *r, struct nb_err *err)
{
    int rc = nb_model_open(&r->model, r->opts->model_dir, err);
    if (rc) return rc;
    if (r->model->gguf && !r->opts->gguf) {
        nb_fail(err, NB_E_SPEC, "%s: a GGUF file can only become another one (--format gguf)",
                r->opts->model_dir);
        return nb_err_hint(err, "for other formats make a folder of it first: nibble convert");
    }
    if (r->model->quant_config) {
        nb_fail(err, NB_E_SPEC, "%s: is quantized already (%s)", r->opts->model_dir,
                r->model->checkpoint->name);
        return nb_err_hint(err, "give the float model it was made from");
    }
    r->sink = r->opts->gguf ? &nb_sink_gguf : &nb_sink_folder;
    if (r->opts->gguf) rc = nb_output_gguf_types(r, err);
    if (!rc) rc = nb_recipe_make(&r->recipe, r->opts, r->model, r->gguf, err);
    if (rc || !r->recipe.calibrates) return rc;
    rc = nb_model_tokenizer(&r->tokenizer, r->model, err);
    if (rc) return rc;
    if (nb_tokenizer_size(r->tokenizer) > r->model->arch.vocab_size) {
        return nb_fail(
            err, NB_E_FORMAT,
            "%s: the tokenizer has %" PRId64 " tokens, the embedding only %" PRId64 " rows",
            r->opts->model_dir, nb_tokenizer_size(r->tokenizer), r->model->arch.vocab_size);
    }
    struct nb_calib_opts calib = r->opts->calib;
    calib.n_samples = r->recipe.n_samples;
    calib.seqlen = r->recipe.seqlen;
    rc = nb_calib_load(&r->windows, &calib, r->tokenizer, r->progress, err);
    if (rc) return rc;
    r->report->calib_samples = r->windows.n_windows;
    r->report->calib_tokens = r->windows.n_windows * r->windows.seqlen;
    memcpy(r->report->calib_sha256, r->windows.text_sha256, sizeof r->report->calib_sha256);
    return 0;
}

static int64_t widest_input(const struct nb_arch *arch)
{
    int64_t w = 0;
    for (int k = 0; k < NB_INPUT_COUNT; k++) {
        int64_t v = nb_input_width(arch, (enum nb_input)k);
        if (v > w) w = v;
    }
    return w;
}

static uint64_t memory_budget(const struct nb_run *r)
{
    return r->opts->memory_bytes ? r->opts->memory_bytes : nb_memory_free_bytes() / 2;
}

/* What --dry-run prints; the same formulas bound the real run. */
static void predict(struct nb_run *r)
{
    const struct nb_arch *arch = &r->model->arch;
    uint64_t layer = 0, largest = 0;
    int64_t k = 0; /* columns of the widest linear */
    for (int64_t l = 0; l < arch->n_layers; l++) {
        int n;
        const struct nb_arch_linear *lin = nb_arch_layer_linears(arch, l, &n);
        uint64_t sum = 0, expert = 0; /* of experts one is there at a time */
        for (int i = 0; i < n; i++) {
            uint64_t m = (uint64_t)(lin[i].rows * lin[i].cols) * sizeof(float);
            if (lin[i].branch == NB_BRANCH_MAIN) sum += m;
            else if (3 * m > expert) expert = 3 * m;
            if (m > largest) largest = m;
            if (lin[i].cols > k) k = lin[i].cols;
        }
        if (sum + expert > layer) layer = sum + expert;
    }
    uint64_t wide = (uint64_t)widest_input(arch), tokens = (uint64_t)r->report->calib_tokens;
    uint64_t act = tokens * ((uint64_t)arch->hidden_size + wide) * sizeof(float);
    if (r->recipe.fp_stream) act *= 2;
    uint64_t in_ram = act < memory_budget(r) ? act : memory_budget(r);
    uint64_t hessian = r->recipe.calibrates ? 2 * (uint64_t)k * (uint64_t)k * sizeof(double) : 0;
    r->report->plan_peak_bytes = layer + 2 * largest + hessian + in_ram + ((uint64_t)64 << 20);
    uint64_t hidden =
        r->recipe.calibrates ? 2 * tokens * (uint64_t)arch->hidden_size * sizeof(float) : 0;
    r->report->plan_disk_bytes = r->sink->bytes(r) + (act - in_ram) + hidden;
    if (r->recipe.rotate) r->report->plan_disk_bytes += nb_model_bytes(r->model);
}

static int open_store(struct nb_run *r, struct nb_actstore *s, const char *name, int64_t width,
                      uint64_t *budget, struct nb_err *err)
{
    char *path = nb_path_join(r->work, name);
    size_t floats = (size_t)(r->windows_per_chunk * r->windows.seqlen) * (size_t)width;
    int rc = nb_actstore_open(s, path, r->n_chunks, floats, budget, err);
    nb_free(path);
    return rc;
}

static int open_stores(struct nb_run *r, struct nb_err *err)
{
    const struct nb_arch *arch = &r->model->arch;
    uint64_t budget = memory_budget(r);
    int64_t d = arch->hidden_size, wide = widest_input(arch);
    r->windows_per_chunk = CHUNK_TOKENS / r->windows.seqlen;
    if (r->windows_per_chunk < 1) r->windows_per_chunk = 1;
    if (r->windows_per_chunk > r->windows.n_windows) r->windows_per_chunk = r->windows.n_windows;
    r->n_chunks = (r->windows.n_windows + r->windows_per_chunk - 1) / r->windows_per_chunk;
    int rc = open_store(r, &r->h, "spill-h", d, &budget, err);
    if (!rc) rc = open_store(r, &r->x, "spill-x", wide, &budget, err);
    if (!rc && r->recipe.fp_stream) rc = open_store(r, &r->h_fp, "spill-h-fp", d, &budget, err);
    if (!rc && r->recipe.fp_stream) rc = open_store(r, &r->x_fp, "spill-x-fp", wide, &budget, err);
    if (rc) return rc;
    r->step_out = nb_calloc(r->x.chunk_floats, sizeof(float));
    return r->step_out ? 0 : nb_fail(err, NB_E_NOMEM, "no memory for one chunk of activations");
}

static void close_stores(struct nb_run *r)
{
    nb_actstore_close(&r->h);
    nb_actstore_close(&r->x);
    nb_actstore_close(&r->h_fp);
    nb_actstore_close(&r->x_fp);
    nb_free(r->step_out);
    r->step_out = NULL;
}

static int embed_all(struct nb_run *r, struct nb_actstore *h, struct nb_err *err)
{
    for (int64_t c = 0; c < r->n_chunks; c++) {
        float *p;
        const int64_t n = nb_run_chunk_windows(r, c), t = r->windows.seqlen;
        int rc = nb_actstore_get(h, c, 0, &p, err);
        if (!rc) {
            memset(p, 0, h->chunk_floats * sizeof *p); /* a short last chunk has no stray bytes */
            for (int64_t w = 0; w < n && !rc; w++) {
                rc = nb_layer_embed(r->model, r->be, nb_run_chunk_ids(r, c) + w * t, t,
                                    p + w * t * r->model->arch.hidden_size, err);
            }
        }
        if (!rc) rc = nb_actstore_put(h, c, err);
        if (rc) return rc;
    }
    return 0;
}

static int run_layers(struct nb_run *r, struct nb_err *err)
{
    int rc = 0;
    enum nb_precision before = nb_backend_set_precision(r->be, r->recipe.precision);
    const bool left = r->layers_done < r->model->arch.n_layers || r->recipe.head;
    if (left && r->recipe.calibrates) {
        rc = open_stores(r, err);
        if (!rc && r->layers_done > 0) rc = nb_journal_load_activations(r, err);
        else if (!rc) rc = embed_all(r, &r->h, err);
        if (!rc && r->layers_done == 0 && r->recipe.fp_stream) rc = embed_all(r, &r->h_fp, err);
    }
    if (!rc) rc = nb_ranges_open(r, err);
    const bool plain = nb_run_layer_is_plain(r);
    struct nb_plain p = {.w = NULL};
    if (!rc && plain) rc = nb_plain_open(&p, &r->model->arch, err);
    while (!rc && r->layers_done < r->model->arch.n_layers) {
        rc = plain ? nb_run_layer_plain(r, &p, r->layers_done, err)
                   : nb_run_layer(r, r->layers_done, err);
        if (rc) break;
        r->layers_done++;
        rc = nb_journal_save(r, err);
    }
    if (!rc && r->recipe.head) rc = nb_run_head(r, err);
    if (plain) nb_plain_close(&p);
    close_stores(r);
    nb_backend_set_precision(r->be, before);
    return rc;
}

/* Over all quantized linears. */
static double bits_per_weight(const struct nb_recipe *p, const struct nb_arch *arch)
{
    double bits = 0, weights = 0;
    for (int64_t l = 0; l < arch->n_layers; l++) {
        int n;
        const struct nb_arch_linear *lin = nb_arch_layer_linears(arch, l, &n);
        for (int i = 0; i < n; i++) {
            const struct nb_module_spec *m = nb_recipe_module(p, arch, l, i);
            if (!m->quantized) continue;
            double size = (double)lin[i].rows * (double)lin[i].cols;
            bits +=
                size * (m->block ? 8.0 * m->block->bytes / m->block->elems
                                 : nb_qspec_bits_per_weight(&m->spec, lin[i].rows, lin[i].cols));
            weights += size;
        }
    }
    return weights > 0 ? bits / weights : 0;
}

static void describe(struct nb_run *r)
{
    struct nb_quantize_report *q = r->report;
    const struct nb_recipe *p = &r->recipe;
    memcpy(q->method, p->method, sizeof p->method);
    snprintf(q->format, sizeof q->format, "%s", p->format);
    const struct nb_qspec *spec = p->solver && !r->gguf ? &p->solve.grid.spec : NULL;
    q->bits = spec ? spec->elem.bits : 0;
    q->group = spec ? spec->group_cols : 0;
    q->sym = spec && spec->symmetric;
    if (p->scheme && r->opts->scheme) snprintf(q->scheme, sizeof q->scheme, "%s", p->scheme->name);
    q->bytes_source = nb_model_bytes(r->unturned ? r->unturned : r->model);
    if (r->model->arch.moe && (p->awq || p->smooth)) {
        nb_strbuf_printf(&q->notes,
                         "%s scales attention only: the input of the experts is also the "
                         "router's, which stays as it is; experts are solved by gptq\n",
                         p->awq ? "AWQ" : "SmoothQuant");
    }
    q->bits_per_weight = bits_per_weight(p, &r->model->arch);
}

/* The source is read: its hashes while everything else goes on. Once. */
static int enter(struct nb_run *r, struct nb_err *err)
{
    if (r->inputs.files) return 0;
    int rc = nb_inputs_start(&r->inputs, r->model, r->opts->model_dir, err);
    if (!rc && !r->opts->allow_nonfinite)
        rc = nb_model_scan_finite(r->model, nb_backend_pool(r->be), err);
    if (!rc) rc = nb_place_enter(r, err);
    r->journaled = nb_clock_s();
    return rc;
}

/* The rotated source takes the source's place. One that an earlier run made is trusted when there is a journal, since
 * that holds the source to what it was. */
static int rotate(struct nb_run *r, struct nb_err *err)
{
    if (!r->recipe.rotate) return 0;
    int rc = nb_rotate_check(r->model, err);
    if (!rc && r->opts->gguf)
        rc = nb_fail(err, NB_E_SPEC, "--rotate makes a folder, not a GGUF file");
    if (rc || r->opts->dry_run) return rc;
    rc = enter(r, err);
    if (rc) return rc;
    char *dir = nb_path_join(r->work, "rotated"), *journal = nb_path_join(r->work, "journal.json");
    if (r->opts->restart || !nb_path_exists(journal))
        rc = nb_path_exists(dir) ? nb_dir_remove_all(dir, err) : 0;
    struct nb_model *turned = NULL;
    if (!rc) rc = nb_rotate_model(r, dir, &turned, err);
    if (!rc) {
        r->unturned = r->model;
        r->model = turned;
    }
    nb_free(dir);
    nb_free(journal);
    return rc;
}

/* Mixed precision is decided by measuring, so the work folder is needed before the plan. */
static int mix(struct nb_run *r, struct nb_err *err)
{
    if (!nb_mixed_wanted(r->opts)) return 0;
    int rc = r->opts->dry_run ? 0 : enter(r, err);
    if (!rc && !r->opts->dry_run) rc = nb_journal_identify(r, err);
    return rc ? rc : nb_mixed_assign(r, err);
}

static int prepare(struct nb_run *r, struct nb_err *err)
{
    int rc = nb_place_open(r, err);
    if (!rc) rc = open_source(r, err);
    if (!rc) rc = rotate(r, err);
    if (!rc) rc = mix(r, err);
    if (!rc) {
        r->report->linears = nb_calloc(r->recipe.n_modules + 1, sizeof *r->report->linears);
        if (!r->report->linears) rc = nb_fail(err, NB_E_NOMEM, "no memory for the report");
    }
    if (!rc) rc = r->sink->plan(r, err);
    if (!rc) {
        describe(r);
        predict(r);
    }
    return rc;
}

static int work(struct nb_run *r, struct nb_err *err)
{
    int rc = enter(r, err);
    if (!rc) rc = nb_journal_open(r, err);
    if (!rc) rc = nb_journal_restore_reports(r, err);
    if (!rc) rc = r->sink->open(r, err);
    if (!rc && !r->file) rc = nb_run_copy_side_files(r, err);
    if (!rc) rc = r->sink->copy(r, -1, err);
    if (!rc) rc = run_layers(r, err);
    if (!rc) rc = r->sink->close(r, err);
    if (!rc) nb_experts_note(r);
    r->report->resumed = r->resumed;
    return rc ? rc : nb_run_finish(r, err);
}

static void run_release(struct nb_run *r)
{
    nb_st_writer_free(r->writer);
    nb_gguf_out_free(r->gguf);
    nb_gguf_choice_release(&r->choice);
    nb_free(r->file);
    nb_free(r->ledger);
    nb_windows_release(&r->windows);
    nb_recipe_release(&r->recipe);
    nb_ranges_close(r->ranges);
    nb_inputs_release(&r->inputs);
    nb_tokenizer_close(r->tokenizer);
    nb_model_close(r->model);
    nb_model_close(r->unturned);
    json_decref(r->identity);
    json_decref(r->journal_layers);
    nb_free(r->out);
    nb_free(r->partial);
    nb_free(r->work);
    if (r->lock_fd >= 0) close(r->lock_fd);
}

int nb_quantize(struct nb_quantize_report *report, const struct nb_quantize_opts *opts,
                struct nb_backend *be, const struct nb_progress *progress, struct nb_err *err)
{
    double start = nb_clock_s();
    memset(report, 0, sizeof *report);
    nb_strbuf_init(&report->notes);
    nb_strbuf_init(&report->mixed.lines);
    struct nb_quantize_opts chosen = *opts;
    bool bf16 = nb_backend_has_bf16(be);
    if (!chosen.precision) chosen.precision = bf16 ? "bf16" : "f32";
    if (!strcmp(chosen.precision, "bf16") && !bf16) {
        return nb_fail(err, NB_E_SPEC,
                       "precision bf16 is not faster on this machine's processor; possible: f32");
    }
    struct nb_run r = {
        .opts = &chosen, .progress = progress, .be = be, .report = report, .lock_fd = -1};
    int rc = prepare(&r, err);
    if (!rc && !opts->dry_run) rc = work(&r, err);
    run_release(&r);
    report->seconds = nb_clock_s() - start;
    report->peak_rss_bytes = nb_rss_peak_bytes();
    return rc;
}

void nb_quantize_report_release(struct nb_quantize_report *r)
{
    nb_free(r->linears);
    nb_strbuf_release(&r->notes);
    nb_strbuf_release(&r->mixed.lines);
    memset(r, 0, sizeof *r);
}

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

static int add_input(json_t *inputs, const char *path, const char *name, struct nb_err *err)
{
    char sha[NB_SHA256_HEX];
    int rc = nb_sha256_file(path, sha, err);
    if (!rc && json_object_set_new(inputs, name, json_string(sha)))
        rc = nb_fail(err, NB_E_FORMAT, "%s: the name is not UTF-8 and cannot be listed", path);
    return rc;
}

static int add_folder_input(const struct nb_run *r, json_t *inputs, const char *name,
                            struct nb_err *err)
{
    char *path = nb_path_join(r->opts->model_dir, name);
    int rc = add_input(inputs, path, name, err);
    nb_free(path);
    return rc;
}

static int list_inputs(const struct nb_run *r, json_t *inputs, struct nb_err *err)
{
    const struct nb_model *m = r->model;
    int rc = 0;
    for (size_t i = 0; m->gguf && i < nb_gguf_part_count(m->gguf) && !rc; i++) {
        const char *path = nb_gguf_part_path(m->gguf, i), *slash = strrchr(path, '/');
        rc = add_input(inputs, path, slash ? slash + 1 : path, err);
    }
    if (m->gguf) return rc;
    for (size_t i = 0; i < nb_safetensors_file_count(m->tensors) && !rc; i++)
        rc = add_folder_input(r, inputs, nb_safetensors_file_name(m->tensors, i), err);
    if (!rc) rc = add_folder_input(r, inputs, "config.json", err);
    char *tokenizer = nb_path_join(r->opts->model_dir, "tokenizer.json");
    if (!rc && nb_path_exists(tokenizer)) rc = add_folder_input(r, inputs, "tokenizer.json", err);
    nb_free(tokenizer);
    return rc;
}

/* Hashes of everything that can change an output byte. */
static int make_identity(struct nb_run *r, struct nb_err *err)
{
    json_t *inputs = json_object();
    int rc = list_inputs(r, inputs, err);
    r->identity = json_pack("{s:s, s:o, s:O, s:s}", "version", nb_version(), "inputs", inputs,
                            "recipe", r->recipe.json, "calibration", r->windows.sha256);
    if (!rc && !r->identity) rc = nb_fail(err, NB_E_NOMEM, "no memory for the journal");
    return rc;
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
    for (int i = 0; i < arch->n_linears; i++) {
        uint64_t m = (uint64_t)(arch->linears[i].rows * arch->linears[i].cols) * sizeof(float);
        layer += m;
        if (m > largest) largest = m;
    }
    uint64_t k = (uint64_t)widest_input(arch);
    uint64_t tokens = (uint64_t)r->report->calib_tokens;
    uint64_t act = tokens * ((uint64_t)arch->hidden_size + k) * sizeof(float);
    if (r->recipe.fp_stream) act *= 2;
    uint64_t in_ram = act < memory_budget(r) ? act : memory_budget(r);
    uint64_t hessian = r->recipe.calibrates ? 2 * k * k * sizeof(double) : 0;
    r->report->plan_peak_bytes = layer + 2 * largest + hessian + in_ram + ((uint64_t)64 << 20);
    uint64_t hidden =
        r->recipe.calibrates ? 2 * tokens * (uint64_t)arch->hidden_size * sizeof(float) : 0;
    r->report->plan_disk_bytes = r->sink->bytes(r) + (act - in_ram) + hidden;
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
        int64_t n = nb_run_chunk_windows(r, c) * r->windows.seqlen;
        int rc = nb_actstore_get(h, c, 0, &p, err);
        if (!rc) {
            memset(p, 0, h->chunk_floats * sizeof *p); /* a short last chunk has no stray bytes */
            rc = nb_layer_embed(r->model, r->be, nb_run_chunk_ids(r, c), n, p, err);
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
    while (!rc && r->layers_done < r->model->arch.n_layers) {
        rc = nb_run_layer(r, r->layers_done, err);
        if (rc) break;
        r->layers_done++;
        rc = nb_journal_save(r, err);
    }
    if (!rc && r->recipe.head) rc = nb_run_head(r, err);
    close_stores(r);
    nb_backend_set_precision(r->be, before);
    return rc;
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
    q->bytes_source = nb_model_bytes(r->model);
    double bits = 0, weights = 0;
    for (size_t i = 0; i < p->n_modules; i++) {
        const struct nb_arch_linear *lin =
            &r->model->arch.linears[i % (size_t)r->model->arch.n_linears];
        if (!p->modules[i].quantized) continue;
        double n = (double)lin->rows * (double)lin->cols;
        const struct nb_block_type *t = p->modules[i].block;
        bits += n * (t ? 8.0 * t->bytes / t->elems
                       : nb_qspec_bits_per_weight(&p->modules[i].spec, lin->rows, lin->cols));
        weights += n;
    }
    q->bits_per_weight = weights > 0 ? bits / weights : 0;
}

static int prepare(struct nb_run *r, struct nb_err *err)
{
    int rc = nb_place_open(r, err);
    if (!rc) rc = open_source(r, err);
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
    int rc = r->opts->allow_nonfinite ? 0 : nb_model_scan_finite(r->model, err);
    if (!rc) rc = make_identity(r, err);
    if (!rc) rc = nb_place_enter(r, err);
    if (!rc) rc = nb_journal_open(r, err);
    if (!rc) rc = nb_journal_restore_reports(r, err);
    if (!rc) rc = r->sink->open(r, err);
    if (!rc && !r->file) rc = nb_run_copy_side_files(r, err);
    if (!rc) rc = r->sink->copy(r, -1, err);
    if (!rc) rc = run_layers(r, err);
    if (!rc) rc = r->sink->close(r, err);
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
    nb_tokenizer_close(r->tokenizer);
    nb_model_close(r->model);
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
    memset(r, 0, sizeof *r);
}

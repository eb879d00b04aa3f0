/* SPDX-License-Identifier: Apache-2.0
 *
 * finish.c - what turns finished tensors into a model folder: side files, config, gate, manifest, model
 * card, and the one rename that makes OUT appear. */
#include <inttypes.h>
#include <math.h>
#include <string.h>

#include "base/file.h"
#include "base/sha256.h"
#include "nibble/version.h"
#include "pipeline/new_folder.h"
#include "pipeline/run.h"

enum { MAX_CONFIG_BYTES = 64 << 20 };

int nb_run_copy_side_files(struct nb_run *r, struct nb_err *err)
{
    return nb_side_files_copy(r->opts->model_dir, r->partial, r->progress, err);
}

/* The card of the source stays readable beside ours. */
static int copy_card(struct nb_run *r, struct nb_err *err)
{
    char *from = nb_path_join(r->opts->model_dir, "README.md");
    char *to = nb_path_join(r->partial, "README.source.md");
    int rc = nb_path_exists(from) ? nb_file_copy(from, to, err) : 0;
    nb_free(from);
    nb_free(to);
    return rc;
}

static int write_in_partial(struct nb_run *r, const char *name, const struct nb_strbuf *text,
                            struct nb_err *err)
{
    char *path = nb_path_join(r->partial, name);
    int rc = text->failed ? nb_fail(err, NB_E_NOMEM, "no memory for %s", name)
                          : nb_file_write(path, nb_strbuf_cstr(text), text->len, err);
    nb_free(path);
    return rc;
}

/* With damping by token count the config names the strongest that was used; 0 when none was. */
static double largest_damp(const struct nb_quantize_report *q)
{
    double damp = 0;
    for (size_t i = 0; i < q->n_linears; i++) {
        if (q->linears[i].solve.damp > damp) damp = q->linears[i].solve.damp;
    }
    return damp;
}

static int write_config(struct nb_run *r, struct nb_err *err)
{
    const char *source = r->unturned ? r->model->dir : r->opts->model_dir;
    char *path = nb_path_join(source, "config.json"), *text = NULL;
    size_t len;
    struct nb_strbuf quant, out;
    nb_strbuf_init(&quant);
    nb_strbuf_init(&out);
    int rc = nb_file_read(path, MAX_CONFIG_BYTES, &text, &len, err);
    struct nb_checkpoint_info info;
    nb_recipe_info(&r->recipe, &info);
    if (info.damp <= 0) info.damp = largest_damp(r->report);
    json_t *q = r->recipe.solver ? r->recipe.checkpoint->config(&info) : NULL;
    if (!rc && r->recipe.solver && !q)
        rc = nb_fail(err, NB_E_NOMEM, "no memory for the quantization config");
    if (!rc && q) rc = nb_json_dump(q, true, &quant, err);
    if (!rc && q) rc = nb_config_splice(&out, text, len, nb_strbuf_cstr(&quant), err);
    if (!rc && !q) nb_strbuf_add(&out, text, len);
    if (!rc) rc = write_in_partial(r, "config.json", &out, err);
    if (!rc && q && r->recipe.checkpoint->side_config) {
        nb_strbuf_putc(&quant, '\n');
        rc = write_in_partial(r, r->recipe.checkpoint->side_config, &quant, err);
    }
    json_decref(q);
    nb_strbuf_release(&quant);
    nb_strbuf_release(&out);
    nb_free(text);
    nb_free(path);
    return rc;
}

static json_t *number(double v)
{
    return isfinite(v) ? json_real(v) : json_null();
}

static json_t *gate_json(const struct nb_run *r)
{
    if (!r->report->has_gate) return json_pack("{s:s}", "verdict", "skipped");
    const struct nb_eval_result *g = &r->report->gate;
    const struct nb_compare_result *c = &g->compare;
    json_t *o = json_object();
    json_object_set_new(o, "verdict", json_string(nb_verdict_name(g->verdict)));
    json_object_set_new(o, "reason", json_string(g->verdict_text));
    json_object_set_new(o, "tolerance",
                        json_string(r->opts->gate_recipe ? r->opts->gate_recipe : ""));
    json_object_set_new(o, "text_sha256", json_string(g->text_sha256));
    json_object_set_new(o, "window", json_integer(g->window));
    json_object_set_new(o, "tokens", json_integer(g->n_tokens));
    json_object_set_new(o, "ppl", number(g->ppl));
    json_object_set_new(o, "ppl_base", number(c->ppl_base));
    json_object_set_new(o, "ppl_ratio", number(c->ppl_ratio));
    json_object_set_new(o, "ppl_ratio_ci95",
                        json_pack("[o, o]", number(c->ppl_ratio_lo), number(c->ppl_ratio_hi)));
    json_object_set_new(o, "kld_mean", number(c->kld_mean));
    json_object_set_new(o, "kld_p99", number(c->kld_p99));
    json_object_set_new(o, "same_top", number(c->same_top));
    return o;
}

static json_t *ledger_json(const struct nb_run *r)
{
    const struct nb_quantize_report *q = r->report;
    json_t *left_out = json_object();
    for (size_t i = 0; i < r->n_ledger; i++) {
        if (r->ledger[i].reason) {
            json_object_set_new(left_out, r->ledger[i].tensor->name,
                                json_string(r->ledger[i].reason));
        }
    }
    return json_pack("{s:I, s:I, s:I, s:I, s:I, s:o}", "source", (json_int_t)q->tensors_source,
                     "quantized", (json_int_t)q->tensors_quantized, "copied",
                     (json_int_t)q->tensors_copied, "tied", (json_int_t)q->tensors_tied, "dropped",
                     (json_int_t)q->tensors_dropped, "left_out", left_out);
}

/* The manifest itself, or what an interrupted run had written of it: gone when the new one is there. */
static bool is_manifest(const char *name, const char *manifest)
{
    const size_t n = strlen(manifest);
    return !strncmp(name, manifest, n) && (!name[n] || !strcmp(name + n, ".tmp"));
}

/* Every file of the output but the manifest. */
static int hash_files(struct nb_run *r, const char *manifest, json_t *files, struct nb_err *err)
{
    char **names;
    size_t n;
    int rc = nb_dir_list(r->partial, &names, &n, err);
    if (rc) return rc;
    r->report->bytes = 0;
    for (size_t i = 0; i < n && !rc; i++) {
        if (names[i][0] == '.' || is_manifest(names[i], manifest)) continue;
        char *path = nb_path_join(r->partial, names[i]);
        char sha[NB_SHA256_HEX] = "";
        uint64_t bytes = 0;
        rc = nb_sha256_file(path, sha, err);
        if (!rc) rc = nb_file_size(path, &bytes, err);
        r->report->bytes += bytes;
        json_t *entry = json_pack("{s:I, s:s}", "bytes", (json_int_t)bytes, "sha256", sha);
        if (!rc && json_object_set_new(files, names[i], entry)) {
            rc = nb_fail(err, NB_E_FORMAT, "%s: the name is not UTF-8 and cannot be listed", path);
        }
        nb_free(path);
    }
    nb_dir_list_free(names, n);
    return rc;
}

static int write_manifest(struct nb_run *r, struct nb_err *err)
{
    json_t *files = json_object();
    struct nb_strbuf name; /* a file has its manifest beside it */
    nb_strbuf_init(&name);
    const char *slash = r->file ? strrchr(r->file, '/') : NULL;
    if (r->file) nb_strbuf_printf(&name, "%s.", slash ? slash + 1 : r->file);
    nb_strbuf_puts(&name, "manifest.json");
    int rc = hash_files(r, nb_strbuf_cstr(&name), files, err);
    json_t *calib =
        r->recipe.calibrates
            ? json_pack("{s:I, s:I, s:s, s:s}", "samples", (json_int_t)r->windows.n_windows,
                        "tokens", (json_int_t)r->report->calib_tokens, "text_sha256",
                        r->windows.text_sha256, "ids_sha256", r->windows.sha256)
            : json_null();
    json_t *m = json_pack("{s:i, s:s, s:s, s:O, s:O, s:o, s:O, s:o, s:o, s:o}", "manifest_version",
                          1, "producer", "nibble", "version", nb_version(), "inputs",
                          json_object_get(r->identity, "inputs"), "recipe", r->recipe.json,
                          "calibration", calib, "layers", r->journal_layers, "tensors",
                          ledger_json(r), "gate", gate_json(r), "files", files);
    if (!rc && !m) rc = nb_fail(err, NB_E_NOMEM, "no memory for manifest.json");
    struct nb_strbuf text;
    nb_strbuf_init(&text);
    if (!rc) rc = nb_json_dump(m, true, &text, err);
    nb_strbuf_putc(&text, '\n');
    if (!rc) rc = write_in_partial(r, nb_strbuf_cstr(&name), &text, err);
    if (!r->file) r->report->bytes += text.len;
    nb_strbuf_release(&name);
    nb_strbuf_release(&text);
    json_decref(m);
    return rc;
}

static int run_gate(struct nb_run *r, struct nb_err *err)
{
    if (!r->opts->gate) return 0;
    struct nb_progress_event e = {.phase = "gate", .loss = -1};
    nb_progress_report(r->progress, &e);
    int rc = r->opts->gate(r->opts->gate_ctx, r->file ? r->file : r->partial, &r->windows,
                           &r->report->gate, err);
    r->report->has_gate = rc == 0;
    return rc ? nb_err_prefix(err, "gate") : 0;
}

int nb_run_finish(struct nb_run *r, struct nb_err *err)
{
    nb_journal_drop_activations(r);
    int rc = nb_journal_identify(r, err);
    if (!rc && !r->file) rc = copy_card(r, err);
    if (!rc && !r->file) rc = write_config(r, err);
    if (!rc) rc = run_gate(r, err);
    if (!rc && !r->file) rc = nb_run_write_card(r, err);
    if (!rc) rc = write_manifest(r, err);
    if (!rc) rc = nb_place_publish(r, err);
    if (rc) return rc;
    if (r->report->has_gate && r->report->gate.verdict == NB_VERDICT_FAIL) {
        nb_fail(err, NB_E_GATE, "%s: %s", r->opts->out_dir, r->report->gate.verdict_text);
        return nb_err_hint(
            err, "try more bits, a smaller group, --method best, or more calibration text");
    }
    return 0;
}

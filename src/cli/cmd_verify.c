/* SPDX-License-Identifier: Apache-2.0
 *
 * cmd_verify.c - nibble verify: is this folder whole? Structure, hashes against manifest.json, the ledger,
 * and a scan of every scale and weight for values that are not finite. */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "api/api.h"
#include "base/file.h"
#include "base/mem.h"
#include "base/sha256.h"
#include "cli/cli.h"
#include "cli/commands.h"

enum { MAX_MANIFEST_BYTES = 256 << 20 };

static const struct nb_option options[] = {
    {0, NULL, NB_OPTION_FLAG, 0, NULL, NULL, 0, 0},
};

struct verified {
    struct nb_cli *cli;
    const char *dir;
    struct nb_model *model;
    json_t *manifest; /* NULL: none */
    json_t *notes;    /* array of sentences: odd, not broken */
    int64_t files, modules, tensors;
};

static void add_note(struct verified *v, const char *text, const char *what)
{
    char sentence[400];
    snprintf(sentence, sizeof sentence, text, what);
    json_array_append_new(v->notes, nb_cli_string(sentence));
}

static bool stopped(const struct verified *v)
{
    return nb_progress_stop(&v->cli->progress);
}

static void report(const struct verified *v, const char *phase, const char *item, int64_t done,
                   int64_t total)
{
    struct nb_progress_event event = {
        .phase = phase, .item = item, .done = (uint64_t)done, .total = (uint64_t)total, .loss = -1};
    nb_progress_report(&v->cli->progress, &event);
}

static int load_manifest(struct verified *v, struct nb_err *err)
{
    if (v->model->gguf) return 0; /* one file, nothing beside it */
    char *path = nb_path_join(v->dir, "manifest.json");
    int rc = 0;
    if (nb_path_exists(path)) {
        v->manifest = nb_json_load(path, MAX_MANIFEST_BYTES, err);
        if (!v->manifest) rc = err->status;
        else if (!json_is_object(json_object_get(v->manifest, "files"))) {
            rc = nb_fail(err, NB_E_FORMAT, "%s: key 'files': expected an object, found %s", path,
                         nb_json_type_name(json_object_get(v->manifest, "files")));
        }
    } else {
        add_note(v, "no %s: hashes and ledger cannot be checked", "manifest.json");
    }
    nb_free(path);
    return rc;
}

static int check_file(struct verified *v, const char *name, const json_t *entry, struct nb_err *err)
{
    const char *expected = NULL;
    int64_t bytes = 0;
    int rc = nb_json_get_string(entry, "sha256", true, &expected, "manifest.json", err);
    if (!rc) rc = nb_json_get_int(entry, "bytes", true, &bytes, "manifest.json", err);
    if (rc) return nb_err_prefix(err, "%s", name);
    if (strchr(name, '/') || name[0] == '.') {
        return nb_fail(err, NB_E_FORMAT, "manifest.json: '%s' is not the name of a file beside it",
                       name);
    }
    char *path = nb_path_join(v->dir, name);
    char found[NB_SHA256_HEX];
    uint64_t size = 0;
    if (!nb_path_exists(path)) {
        rc = nb_fail(err, NB_E_FORMAT, "%s: is missing, manifest.json lists it", path);
    } else if ((rc = nb_file_size(path, &size, err)) == 0 && size != (uint64_t)bytes) {
        rc = nb_fail(err, NB_E_FORMAT, "%s: has %" PRIu64 " bytes, manifest.json says %" PRId64,
                     path, size, bytes);
    } else if (!rc && (rc = nb_sha256_file(path, found, err)) == 0 &&
               strcmp(found, expected) != 0) {
        rc = nb_fail(err, NB_E_FORMAT, "%s: SHA-256 is %.16s..., manifest.json says %.16s...", path,
                     found, expected);
    }
    if (rc)
        nb_err_hint(
            err, "the folder was changed or damaged after it was written; make or copy it again");
    nb_free(path);
    return rc;
}

static int check_files(struct verified *v, struct nb_err *err)
{
    json_t *files = json_object_get(v->manifest, "files"), *entry;
    const char *name;
    int64_t total = (int64_t)json_object_size(files);
    json_object_foreach(files, name, entry)
    {
        if (stopped(v)) return nb_fail(err, NB_E_INTERRUPTED, "interrupted");
        int rc = check_file(v, name, entry, err);
        if (rc) return rc;
        report(v, "hash", name, ++v->files, total);
    }
    if (!v->manifest || v->model->gguf) return 0;
    for (size_t i = 0; i < nb_safetensors_file_count(v->model->tensors); i++) {
        const char *shard = nb_safetensors_file_name(v->model->tensors, i);
        if (!json_object_get(files, shard)) {
            return nb_fail(err, NB_E_FORMAT, "%s/%s: holds weights, manifest.json does not list it",
                           v->dir, shard);
        }
    }
    return 0;
}

/* Every source tensor went somewhere, and as many modules are quantized as the manifest says. */
static int check_ledger(struct verified *v, struct nb_err *err)
{
    static const char *const fates[] = {"quantized", "copied", "tied", "dropped"};
    const json_t *ledger = json_object_get(v->manifest, "tensors");
    if (!v->manifest) return 0;
    if (!json_is_object(ledger))
        return nb_fail(err, NB_E_FORMAT, "manifest.json: key 'tensors' is missing");
    int64_t source = 0, sum = 0, quantized = 0;
    int rc = nb_json_get_int(ledger, "source", true, &source, "manifest.json", err);
    for (size_t i = 0; i < sizeof fates / sizeof *fates && !rc; i++) {
        int64_t n = 0;
        rc = nb_json_get_int(ledger, fates[i], true, &n, "manifest.json", err);
        sum += n;
        if (i == 0) quantized = n;
    }
    if (rc) return rc;
    if (sum != source) {
        return nb_fail(err, NB_E_FORMAT,
                       "manifest.json: %" PRId64 " tensors of the source, but %" PRId64
                       " accounted for",
                       source, sum);
    }
    if (quantized != v->modules) {
        return nb_fail(err, NB_E_FORMAT,
                       "manifest.json: %" PRId64 " quantized tensors, the folder has %" PRId64,
                       quantized, v->modules);
    }
    const char *verdict =
        json_string_value(json_object_get(json_object_get(v->manifest, "gate"), "verdict"));
    if (verdict && strcmp(verdict, "skipped") == 0) {
        add_note(v, "it was made with %s: what the quantization costs was not measured",
                 "--no-gate");
    } else if (verdict && strcmp(verdict, "pass") != 0) {
        add_note(v, "the quality gate said '%s' when this was made", verdict);
    }
    return 0;
}

static int scan_plane(const float *x, int64_t n, const char *name, const char *what,
                      struct nb_err *err)
{
    for (int64_t i = 0; i < n; i++) {
        if (!isfinite(x[i])) {
            return nb_fail(err, NB_E_FORMAT, "%s: %s %" PRId64 " is %s", name, what, i,
                           isnan(x[i]) ? "NaN" : "infinite");
        }
    }
    return 0;
}

/* Unpacks every linear: a packed tensor that cannot be read back is found here. */
static int scan_linears(struct verified *v, struct nb_err *err)
{
    const struct nb_model *m = v->model;
    const struct nb_arch *a = &m->arch;
    struct nb_arena arena;
    nb_arena_init(&arena);
    int rc = 0;
    for (int64_t l = 0; l < a->n_layers && !rc; l++) {
        if (stopped(v)) rc = nb_fail(err, NB_E_INTERRUPTED, "interrupted");
        for (int i = 0; i < a->n_linears && !rc; i++) {
            struct nb_weight w;
            nb_arena_reset(&arena);
            rc = nb_model_linear(m, l, &a->linears[i], &arena, &w, err);
            if (!rc && w.blocks.data)
                v->modules++; /* the scan of all tensors has seen its blocks */
            if (rc || !w.q) continue;
            int64_t planes =
                (w.q->rows + w.q->spec.group_rows - 1) / w.q->spec.group_rows * w.q->n_groups;
            v->modules++;
            if (w.q->scale.value) rc = scan_plane(w.q->scale.value, planes, w.name, "scale", err);
            if (!rc && w.q->zero.value)
                rc = scan_plane(w.q->zero.value, planes, w.name, "zero", err);
        }
        report(v, "unpack", NULL, l + 1, a->n_layers);
    }
    nb_arena_release(&arena);
    return rc;
}

static int check_tokenizer(struct verified *v, struct nb_err *err)
{
    const char *name = v->model->gguf ? "vocabulary" : "tokenizer.json";
    struct nb_tokenizer *tok = NULL;
    int64_t missing = 0;
    int rc = 0;
    if (nb_model_has_tokenizer(v->model)) {
        rc = nb_model_tokenizer(&tok, v->model, err);
        if (!rc) rc = nb_lm_check_vocabulary(v->model, tok, &missing, err);
        if (!rc && nb_lm_vocabulary_gap(v->model, missing)) {
            add_note(v, "%s has far fewer tokens than the embedding has rows", name);
        }
    } else {
        add_note(v, "no %s", name);
    }
    nb_tokenizer_close(tok);
    return rc;
}

static int verify(struct verified *v, struct nb_err *err)
{
    int rc = nb_model_open(&v->model, v->dir, err);
    if (!rc) v->tensors = (int64_t)nb_model_tensor_count(v->model);
    if (!rc) rc = check_tokenizer(v, err);
    if (!rc) rc = load_manifest(v, err);
    if (!rc && v->manifest) rc = check_files(v, err);
    if (!rc) rc = nb_model_scan_finite(v->model, err);
    if (!rc) rc = scan_linears(v, err);
    if (!rc) rc = check_ledger(v, err);
    /* Whatever is wrong with the contents, the answer of this command is the same: not whole. */
    if (rc == NB_E_NUMERIC) err->status = rc = NB_E_FORMAT;
    return rc;
}

static int print(struct verified *v, struct nb_err *err)
{
    if (v->cli->json) {
        return nb_cli_emit(v->cli,
                           json_pack("{s:s, s:o, s:b, s:I, s:I, s:I, s:O}", "command", "verify",
                                     "model", nb_cli_string(v->dir), "whole", 1, "tensors",
                                     (json_int_t)v->tensors, "quantized", (json_int_t)v->modules,
                                     "files_hashed", (json_int_t)v->files, "notes", v->notes),
                           err);
    }
    printf("whole: %" PRId64 " tensors, every value finite", v->tensors);
    if (v->modules) printf("; %" PRId64 " quantized modules unpacked", v->modules);
    if (v->manifest) printf("; %" PRId64 " files match their hashes", v->files);
    printf("\n");
    for (size_t i = 0; i < json_array_size(v->notes); i++) {
        printf("note: %s\n", json_string_value(json_array_get(v->notes, i)));
    }
    return 0;
}

static int run(struct nb_cli *cli, const void *opts, struct nb_err *err)
{
    (void)opts;
    char *dir = NULL;
    int rc = nb_locate_model(cli->args[0], &dir, err);
    if (rc) return rc;
    struct verified v = {.cli = cli, .dir = dir, .notes = json_array()};
    rc = verify(&v, err);
    if (!rc) rc = print(&v, err);
    json_decref(v.notes);
    json_decref(v.manifest);
    nb_model_close(v.model);
    nb_free(dir);
    return rc;
}

const struct nb_command nb_command_verify = {
    .name = "verify",
    .summary = "checks that a model folder is whole (exit 5 if not)",
    .usage = "MODEL [options]",
    .about = "Checks structure, hashes against manifest.json, the ledger of tensors, and that\n"
             "every scale and weight is finite. The first fault is named.",
    .example = "out/gptq",
    .options = options,
    .min_args = 1,
    .max_args = 1,
    .args = "MODEL",
    .run = run,
};

/* SPDX-License-Identifier: Apache-2.0
 *
 * cmd_verify.c - nibble verify: is this model whole? Hashes against the manifest, structure, the ledger, and
 * a scan of every scale and weight for values that are not finite.
 *
 * A folder holds its manifest as manifest.json, FILE.gguf has it beside it as FILE.gguf.manifest.json; the
 * parts of a split set share one, named after the file that they would be. */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "api/api.h"
#include "base/file.h"
#include "base/mem.h"
#include "base/sha256.h"
#include "base/strbuf.h"
#include "cli/cli.h"
#include "cli/commands.h"

enum { MAX_MANIFEST_BYTES = 256 << 20 };

static const struct nb_option options[] = {
    {0, NULL, NB_OPTION_FLAG, 0, NULL, NULL, 0, 0},
};

struct verified {
    struct nb_cli *cli;
    const char *dir; /* the folder, or the GGUF file */
    struct nb_model *model;
    char *place;         /* folder of the files that the manifest lists */
    char *manifest_name; /* bare */
    json_t *manifest;    /* NULL: none */
    json_t *notes;       /* array of sentences: odd, not broken */
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

/* PREFIX-00001-of-00003.gguf: length of PREFIX; 0 for other names. */
static size_t split_prefix(const char *name)
{
    static const char shape[] = "-00001-of-00000.gguf";
    size_t n = strlen(name), m = sizeof shape - 1;
    if (n <= m) return 0;
    for (size_t i = 0; i < m; i++) {
        char c = name[n - m + i];
        bool count = i > m - 11 && i < m - 5; /* how many there are */
        if (count ? c < '0' || c > '9' : c != shape[i]) return 0;
    }
    return n - m;
}

/* Sets place and manifest_name for a folder (files in it) or a GGUF file (itself and what is beside it). */
static int name_manifest(struct verified *v, const char *path, struct nb_err *err)
{
    struct nb_strbuf name;
    nb_strbuf_init(&name);
    nb_free(v->place);
    nb_free(v->manifest_name);
    if (nb_path_is_dir(path)) {
        v->place = nb_xstrdup(path);
    } else {
        const char *slash = strrchr(path, '/'), *bare = slash ? slash + 1 : path;
        size_t prefix = split_prefix(bare);
        v->place = nb_path_parent(path);
        nb_strbuf_printf(&name, "%.*s%s.", prefix ? (int)prefix : (int)strlen(bare), bare,
                         prefix ? ".gguf" : "");
    }
    nb_strbuf_puts(&name, "manifest.json");
    v->manifest_name = name.failed ? NULL : nb_xstrdup(nb_strbuf_cstr(&name));
    nb_strbuf_release(&name);
    return v->manifest_name ? 0 : nb_fail(err, NB_E_NOMEM, "no memory for a name");
}

static int load_manifest(struct verified *v, struct nb_err *err)
{
    char *path = nb_path_join(v->place, v->manifest_name);
    int rc = 0;
    if (nb_path_exists(path)) {
        v->manifest = nb_json_load(path, MAX_MANIFEST_BYTES, err);
        if (!v->manifest) rc = err->status;
        else if (!json_is_object(json_object_get(v->manifest, "files"))) {
            rc = nb_fail(err, NB_E_FORMAT, "%s: key 'files': expected an object, found %s", path,
                         nb_json_type_name(json_object_get(v->manifest, "files")));
        }
    }
    nb_free(path);
    return rc;
}

static int check_file(struct verified *v, const char *name, const json_t *entry, struct nb_err *err)
{
    const char *expected = NULL, *says = v->manifest_name;
    int64_t bytes = 0;
    int rc = nb_json_get_string(entry, "sha256", true, &expected, says, err);
    if (!rc) rc = nb_json_get_int(entry, "bytes", true, &bytes, says, err);
    if (rc) return nb_err_prefix(err, "%s", name);
    if (strchr(name, '/') || name[0] == '.') {
        return nb_fail(err, NB_E_FORMAT, "%s: '%s' is not the name of a file beside it", says,
                       name);
    }
    char *path = nb_path_join(v->place, name);
    char found[NB_SHA256_HEX];
    uint64_t size = 0;
    if (!nb_path_exists(path)) {
        rc = nb_fail(err, NB_E_FORMAT, "%s: is missing, %s lists it", path, says);
    } else if ((rc = nb_file_size(path, &size, err)) == 0 && size != (uint64_t)bytes) {
        rc = nb_fail(err, NB_E_FORMAT, "%s: has %" PRIu64 " bytes, %s says %" PRId64, path, size,
                     says, bytes);
    } else if (!rc && (rc = nb_sha256_file(path, found, err)) == 0 &&
               strcmp(found, expected) != 0) {
        rc = nb_fail(err, NB_E_FORMAT, "%s: SHA-256 is %.16s..., %s says %.16s...", path, found,
                     says, expected);
    }
    if (rc) {
        nb_err_hint(err,
                    "the %s was changed or damaged after it was written; make or copy it again",
                    nb_path_is_dir(v->dir) ? "folder" : "file");
    }
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
    return 0;
}

/* The manifest of what lies at `path`, if there is one, and the hashes in it. */
static int check_manifest(struct verified *v, const char *path, struct nb_err *err)
{
    int rc = name_manifest(v, path, err);
    if (!rc) rc = load_manifest(v, err);
    if (!rc && v->manifest) rc = check_files(v, err);
    return rc;
}

/* No file with weights that the manifest does not know. */
static int check_listed(struct verified *v, struct nb_err *err)
{
    const struct nb_model *m = v->model;
    const json_t *files = json_object_get(v->manifest, "files");
    if (!v->manifest) {
        add_note(v, "no %s: hashes and ledger cannot be checked", v->manifest_name);
        return 0;
    }
    const size_t n = m->gguf ? nb_gguf_part_count(m->gguf) : nb_safetensors_file_count(m->tensors);
    for (size_t i = 0; i < n; i++) {
        const char *name =
            m->gguf ? nb_gguf_part_path(m->gguf, i) : nb_safetensors_file_name(m->tensors, i);
        const char *slash = strrchr(name, '/'), *bare = slash ? slash + 1 : name;
        if (json_object_get(files, bare)) continue;
        return nb_fail(err, NB_E_FORMAT, "%s/%s: holds weights, %s does not list it", v->place,
                       bare, v->manifest_name);
    }
    return 0;
}

/* A GGUF file's ledger counts every tensor that went into blocks, not linears alone; those that were in
 * blocks of that type before are not among them. */
static int check_quantized(const struct verified *v, int64_t listed, struct nb_err *err)
{
    const struct nb_gguf *g = v->model->gguf;
    int64_t found = g ? 0 : v->modules;
    for (size_t i = 0; g && i < nb_gguf_count(g); i++) found += nb_gguf_at(g, i)->type->elems > 1;
    if (g ? listed <= found : listed == found) return 0;
    return nb_fail(err, NB_E_FORMAT, "%s: %" PRId64 " quantized tensors, the %s has %" PRId64,
                   v->manifest_name, listed, g ? "file" : "folder", found);
}

/* Every source tensor went somewhere, and as many modules are quantized as the manifest says. */
static int check_ledger(struct verified *v, struct nb_err *err)
{
    static const char *const fates[] = {"quantized", "copied", "tied", "dropped"};
    const json_t *ledger = json_object_get(v->manifest, "tensors");
    if (!v->manifest) return 0;
    const char *says = v->manifest_name;
    if (!json_is_object(ledger))
        return nb_fail(err, NB_E_FORMAT, "%s: key 'tensors' is missing", says);
    int64_t source = 0, sum = 0, quantized = 0;
    int rc = nb_json_get_int(ledger, "source", true, &source, says, err);
    for (size_t i = 0; i < sizeof fates / sizeof *fates && !rc; i++) {
        int64_t n = 0;
        rc = nb_json_get_int(ledger, fates[i], true, &n, says, err);
        sum += n;
        if (i == 0) quantized = n;
    }
    if (rc) return rc;
    if (sum != source) {
        return nb_fail(err, NB_E_FORMAT,
                       "%s: %" PRId64 " tensors of the source, but %" PRId64 " accounted for", says,
                       source, sum);
    }
    rc = check_quantized(v, quantized, err);
    if (rc) return rc;
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
        int n;
        const struct nb_arch_linear *linears = nb_arch_layer_linears(a, l, &n);
        for (int i = 0; i < n && !rc; i++) {
            struct nb_weight w;
            nb_arena_reset(&arena);
            rc = nb_model_linear(m, l, &linears[i], &arena, &w, err);
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

/* Hashes come first: a changed byte is a changed byte, whatever it would mean to a reader. */
static int verify(struct verified *v, struct nb_err *err)
{
    int rc = check_manifest(v, v->dir, err);
    if (!rc) rc = nb_model_open(&v->model, v->dir, err);
    if (!rc) v->tensors = (int64_t)nb_model_tensor_count(v->model);
    if (!rc && v->model->gguf && nb_path_is_dir(v->dir) && !v->manifest)
        rc = check_manifest(v, nb_gguf_part_path(v->model->gguf, 0), err);
    if (!rc) rc = check_tokenizer(v, err);
    if (!rc) rc = check_listed(v, err);
    if (!rc) rc = nb_model_scan_finite(v->model, NULL, err);
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
    if (v->manifest && v->files == 1) printf("; 1 file matches its hash");
    else if (v->manifest) printf("; %" PRId64 " files match their hashes", v->files);
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
    nb_free(v.place);
    nb_free(v.manifest_name);
    nb_model_close(v.model);
    nb_free(dir);
    return rc;
}

const struct nb_command nb_command_verify = {
    .name = "verify",
    .summary = "checks that a model is whole (exit 5 if not)",
    .usage = "MODEL [options]",
    .about =
        "Checks hashes against the manifest (manifest.json of a folder, FILE.gguf.manifest.json\n"
        "beside a file), structure, the ledger of tensors, and that every scale and weight\n"
        "is finite. The first fault is named.",
    .example = "out/gptq",
    .options = options,
    .min_args = 1,
    .max_args = 1,
    .args = "MODEL",
    .run = run,
};

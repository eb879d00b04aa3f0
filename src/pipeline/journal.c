/* SPDX-License-Identifier: Apache-2.0
 *
 * journal.c - what makes a run resumable: identity of the run, finished layers, live activations.
 *
 * OUT.partial/.nibble/ holds lock, journal.json and hidden.0/hidden.1 (written alternately, so that the
 * one the journal names is never the one being written). A layer counts as finished once its tensors,
 * then its activations, then the journal are on disk, in this order. */
#include <fcntl.h>
#include <inttypes.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/file.h"
#include "base/sha256.h"
#include "nibble/version.h"
#include "pipeline/run.h"

enum { MAX_JOURNAL_BYTES = 256 << 20, PLAIN_SECONDS = 10 };

static char *work_path(const struct nb_run *r, const char *name)
{
    return nb_path_join(r->work, name);
}

/* Names the first thing that differs between two identities. */
static void describe_change(const json_t *old, const json_t *now, char *out, size_t bytes)
{
    static const char *const parts[] = {"version", "recipe", "inputs", "calibration"};
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) {
        json_t *a = json_object_get(old, parts[i]), *b = json_object_get(now, parts[i]);
        if (json_equal(a, b)) continue;
        const char *key;
        json_t *v;
        json_object_foreach(b, key, v)
        {
            if (json_equal(json_object_get(a, key), v)) continue;
            snprintf(out, bytes, "%s '%s' changed", parts[i], key);
            return;
        }
        snprintf(out, bytes, "%s changed", parts[i]);
        return;
    }
    snprintf(out, bytes, "the journal is not readable");
}

int nb_journal_identify(struct nb_run *r, struct nb_err *err)
{
    if (r->identity) return 0;
    json_t *inputs;
    int rc = nb_inputs_finish(&r->inputs, &inputs, err);
    if (rc) return rc;
    r->identity = json_pack("{s:s, s:o, s:O, s:s}", "version", nb_version(), "inputs", inputs,
                            "recipe", r->recipe.json, "calibration", r->windows.sha256);
    return r->identity ? 0 : nb_fail(err, NB_E_NOMEM, "no memory for the journal");
}

void nb_journal_drop_activations(const struct nb_run *r)
{
    static const char *const hidden[] = {"hidden.0", "hidden.1"};
    for (size_t i = 0; i < 2; i++) {
        char *p = work_path(r, hidden[i]);
        unlink(p);
        nb_free(p);
    }
}

static int start_anew(struct nb_run *r, struct nb_err *err)
{
    char **names;
    size_t n;
    int rc = nb_dir_list(r->partial, &names, &n, err);
    if (rc) return rc;
    for (size_t i = 0; i < n && !rc; i++) {
        if (!strcmp(names[i], NB_WORK_NAME)) continue;
        char *p = nb_path_join(r->partial, names[i]);
        rc = nb_dir_remove_all(p, err);
        nb_free(p);
    }
    nb_dir_list_free(names, n);
    char *journal = work_path(r, "journal.json");
    unlink(journal);
    nb_free(journal);
    nb_journal_drop_activations(r);
    json_decref(r->journal_layers);
    r->journal_layers = json_array();
    r->layers_done = 0;
    r->resumed = false;
    return rc;
}

/* How many linears the journal of so many finished layers reports. */
static size_t n_reported(const struct nb_run *r, int64_t layers)
{
    size_t n = 0;
    for (size_t i = 0; i < (size_t)nb_arch_first_linear(&r->model->arch, layers); i++) {
        n += r->recipe.modules[i].quantized;
    }
    return n;
}

static int compare(struct nb_run *r, const json_t *journal, struct nb_err *err)
{
    const json_t *identity = json_object_get(journal, "identity");
    json_t *layers = json_object_get(journal, "layers");
    int64_t done = -1;
    nb_json_get_int(journal, "layers_done", true, &done, "journal", NULL);
    if (!json_equal(identity, r->identity) || done < 0 || done > r->model->arch.n_layers ||
        !json_is_array(layers) || json_array_size(layers) != n_reported(r, done)) {
        char what[160];
        describe_change(identity, r->identity, what, sizeof what);
        nb_fail(err, NB_E_EXISTS, "%s: holds an unfinished run of other settings: %s", r->partial,
                what);
        return nb_err_hint(err, "give the old settings to resume, or --restart to forget it");
    }
    json_decref(r->journal_layers);
    r->journal_layers = json_incref(layers);
    r->layers_done = done;
    r->resumed = true;
    return 0;
}

int nb_journal_open(struct nb_run *r, struct nb_err *err)
{
    char *path = work_path(r, "journal.json");
    bool there = nb_path_exists(path);
    json_t *journal =
        there && !r->opts->restart ? nb_json_load(path, MAX_JOURNAL_BYTES, err) : NULL;
    nb_free(path);
    if (there && !r->opts->restart && !journal) return nb_err_hint(err, "--restart begins anew");
    int rc = journal ? nb_journal_identify(r, err) : 0;
    if (!rc) rc = journal ? compare(r, journal, err) : start_anew(r, err);
    json_decref(journal);
    return rc;
}

static int write_store(struct nb_actstore *s, int fd, uint64_t *offset, struct nb_sha256 *hash,
                       const char *path, struct nb_err *err)
{
    for (int64_t c = 0; c < s->n_chunks; c++) {
        float *p;
        int rc = nb_actstore_get(s, c, 1, &p, err);
        if (rc) return rc;
        size_t bytes = s->chunk_floats * sizeof(float);
        rc = nb_pwrite_all(fd, p, bytes, *offset, path, err);
        if (rc) return rc;
        nb_sha256_add(hash, p, bytes);
        *offset += bytes;
    }
    return 0;
}

static int save_activations(struct nb_run *r, const char *name, char sha[NB_SHA256_HEX],
                            struct nb_err *err)
{
    char *path = work_path(r, name);
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    int rc = fd < 0 ? nb_fail_errno(err, "%s: cannot create", path) : 0;
    if (!rc) {
        struct nb_sha256 hash;
        uint64_t offset = 0;
        nb_sha256_init(&hash);
        rc = write_store(&r->h, fd, &offset, &hash, path, err);
        if (!rc && r->recipe.fp_stream) rc = write_store(&r->h_fp, fd, &offset, &hash, path, err);
        nb_sha256_finish(&hash, sha);
        if (!rc && fdatasync(fd)) rc = nb_fail_errno(err, "%s: cannot flush", path);
        close(fd);
    }
    nb_free(path);
    return rc;
}

/* Without calibration a layer takes less time than keeping it, and the hashes of the inputs are not there yet. */
static bool is_worth_keeping(const struct nb_run *r)
{
    return r->recipe.calibrates || nb_clock_s() - r->journaled >= PLAIN_SECONDS;
}

int nb_journal_save(struct nb_run *r, struct nb_err *err)
{
    if (!is_worth_keeping(r)) return 0;
    int rc = nb_journal_identify(r, err);
    if (rc) return rc;
    char name[16], sha[NB_SHA256_HEX] = "";
    snprintf(name, sizeof name, "hidden.%d", (int)(r->layers_done % 2));
    bool more = r->layers_done < r->model->arch.n_layers || r->recipe.head;
    rc = r->sink->sync(r, err);
    if (!rc && r->recipe.calibrates && more) rc = save_activations(r, name, sha, err);
    if (rc) return rc;
    json_t *j = json_pack("{s:O, s:I, s:O, s:{s:s, s:s}}", "identity", r->identity, "layers_done",
                          (json_int_t)r->layers_done, "layers", r->journal_layers, "hidden", "file",
                          name, "sha256", sha);
    struct nb_strbuf text;
    nb_strbuf_init(&text);
    rc = j ? nb_json_dump(j, true, &text, err)
           : nb_fail(err, NB_E_NOMEM, "no memory for the journal");
    char *path = work_path(r, "journal.json");
    if (!rc) rc = nb_file_write(path, nb_strbuf_cstr(&text), text.len, err);
    nb_free(path);
    nb_strbuf_release(&text);
    json_decref(j);
    r->journaled = nb_clock_s();
    return rc;
}

static int read_store(struct nb_actstore *s, int fd, uint64_t *offset, struct nb_sha256 *hash,
                      const char *path, struct nb_err *err)
{
    for (int64_t c = 0; c < s->n_chunks; c++) {
        float *p;
        int rc = nb_actstore_get(s, c, 0, &p, err);
        size_t bytes = s->chunk_floats * sizeof(float);
        if (!rc) rc = nb_pread_all(fd, p, bytes, *offset, path, err);
        if (rc) return rc;
        nb_sha256_add(hash, p, bytes);
        *offset += bytes;
        rc = nb_actstore_put(s, c, err);
        if (rc) return rc;
    }
    return 0;
}

int nb_journal_load_activations(struct nb_run *r, struct nb_err *err)
{
    char *jpath = work_path(r, "journal.json");
    json_t *journal = nb_json_load(jpath, MAX_JOURNAL_BYTES, err);
    nb_free(jpath);
    if (!journal) return err->status;
    const json_t *hidden = json_object_get(journal, "hidden");
    const char *name = json_string_value(json_object_get(hidden, "file"));
    const char *want = json_string_value(json_object_get(hidden, "sha256"));
    char *path = work_path(r, name && strchr(name, '/') == NULL ? name : "hidden.0");
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    int rc = fd < 0 ? nb_fail_errno(err, "%s: cannot open", path) : 0;
    if (!rc) {
        struct nb_sha256 hash;
        char sha[NB_SHA256_HEX];
        uint64_t offset = 0;
        nb_sha256_init(&hash);
        rc = read_store(&r->h, fd, &offset, &hash, path, err);
        if (!rc && r->recipe.fp_stream) rc = read_store(&r->h_fp, fd, &offset, &hash, path, err);
        nb_sha256_finish(&hash, sha);
        if (!rc && (!want || strcmp(sha, want))) {
            rc = nb_fail(err, NB_E_FORMAT, "%s: SHA-256 is not the journal's", path);
        }
        close(fd);
    }
    if (rc) nb_err_hint(err, "the work folder was damaged; --restart begins anew");
    nb_free(path);
    json_decref(journal);
    return rc;
}

json_t *nb_journal_report(const struct nb_linear_report *l)
{
    const struct nb_solve_report *s = &l->solve;
    json_t *v = json_pack("{s:s, s:f, s:f, s:f, s:f, s:s, s:s, s:i, s:I}", "name", l->name, "loss",
                          s->loss, "loss_rtn", s->loss_rtn, "loss_zero", s->loss_zero, "damp",
                          s->damp, "order", nb_order_name(s->order), "ladder", s->ladder, "bits",
                          l->bits, "group", (json_int_t)l->group);
    if (v && l->expert) {
        json_object_set_new(v, "tokens", json_integer(l->tokens));
        json_object_set_new(v, "all_tokens", json_boolean(l->all_tokens));
    }
    return v;
}

static enum nb_act_order order_named(const char *name)
{
    for (int o = NB_ORDER_AUTO; o <= NB_ORDER_DYNAMIC; o++) {
        if (name && !strcmp(name, nb_order_name((enum nb_act_order)o))) return (enum nb_act_order)o;
    }
    return NB_ORDER_NONE;
}

int nb_journal_restore_reports(struct nb_run *r, struct nb_err *err)
{
    size_t i;
    json_t *v;
    json_array_foreach(r->journal_layers, i, v)
    {
        struct nb_linear_report *l = &r->report->linears[r->report->n_linears++];
        const char *name = "", *order = NULL, *ladder = "";
        int64_t bits = 0;
        if (nb_json_get_string(v, "name", true, &name, "journal", err) ||
            nb_json_get_string(v, "order", true, &order, "journal", err) ||
            nb_json_get_string(v, "ladder", true, &ladder, "journal", err) ||
            nb_json_get_real(v, "loss", true, &l->solve.loss, "journal", err) ||
            nb_json_get_real(v, "loss_rtn", true, &l->solve.loss_rtn, "journal", err) ||
            nb_json_get_real(v, "loss_zero", true, &l->solve.loss_zero, "journal", err) ||
            nb_json_get_real(v, "damp", true, &l->solve.damp, "journal", err) ||
            nb_json_get_int(v, "bits", true, &bits, "journal", err) ||
            nb_json_get_int(v, "group", true, &l->group, "journal", err) ||
            nb_json_get_int(v, "tokens", false, &l->tokens, "journal", err) ||
            nb_json_get_bool(v, "all_tokens", false, &l->all_tokens, "journal", err)) {
            return err->status;
        }
        snprintf(l->name, sizeof l->name, "%s", name);
        snprintf(l->solve.ladder, sizeof l->solve.ladder, "%s", ladder);
        l->solve.order = order_named(order);
        l->bits = (int)bits;
        l->expert = json_object_get(v, "tokens") != NULL;
        l->quantized = true;
    }
    return 0;
}

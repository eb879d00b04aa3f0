/* SPDX-License-Identifier: Apache-2.0
 *
 * output.c - how results and errors leave the process: one JSON object or text on standard output, one
 * error line and at most one hint line on standard error. */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "api/api.h"
#include "base/mem.h"
#include "base/strbuf.h"
#include "cli/cli.h"
#include "data/data.h"

int nb_cli_emit(struct nb_cli *cli, json_t *obj, struct nb_err *err)
{
    struct nb_strbuf text;
    nb_strbuf_init(&text);
    int rc = obj ? nb_json_dump(obj, false, &text, err)
                 : nb_fail(err, NB_E_NOMEM, "cannot build the JSON result");
    if (!rc) {
        nb_progress_line_clear(&cli->line);
        nb_strbuf_putc(&text, '\n');
        fwrite(nb_strbuf_cstr(&text), 1, text.len, stdout);
        cli->printed = true;
    }
    nb_strbuf_release(&text);
    json_decref(obj);
    return rc;
}

json_t *nb_cli_real(double x)
{
    return isfinite(x) ? json_real(x) : json_null();
}

void nb_cli_print_error(struct nb_cli *cli, const struct nb_err *err)
{
    const char *name = cli->command ? cli->command->name : NULL;
    nb_progress_line_clear(&cli->line);
    fprintf(stderr, "nibble%s%s: %s\n", name ? " " : "", name ? name : "", err->text);
    if (err->hint[0]) fprintf(stderr, "hint: %s\n", err->hint);
    if (!cli->json || cli->printed) return;
    json_t *o = json_pack("{s:{s:s, s:o, s:o, s:i}}", "error", "status",
                          nb_status_text(err->status), "message", nb_cli_string(err->text), "hint",
                          nb_cli_string(err->hint), "exit", nb_status_exit(err->status));
    struct nb_err ignored;
    nb_cli_emit(cli, o, &ignored);
}

void nb_format_bytes(uint64_t bytes, char *out, size_t size)
{
    static const char *const units[] = {"bytes", "kB", "MB", "GB", "TB"};
    double x = (double)bytes;
    int u = 0;
    for (; x >= 999.5 && u < 4; u++) x /= 1000;
    if (u == 0) snprintf(out, size, "%" PRIu64 " bytes", bytes);
    else snprintf(out, size, "%.*f %s", x < 99.95 ? 1 : 0, x, units[u]);
}

void nb_format_count(int64_t n, char *out, size_t size)
{
    double x = (double)n;
    if (x >= 999.5e6) snprintf(out, size, "%.2f G", x / 1e9);
    else if (x >= 999.5e3) snprintf(out, size, "%.1f M", x / 1e6);
    else if (x >= 1e4) snprintf(out, size, "%.0f k", x / 1e3);
    else snprintf(out, size, "%" PRId64, n);
}

json_t *nb_cli_string(const char *text)
{
    json_t *s = json_string(text);
    if (s) return s;
    char *copy = nb_xstrdup(text);
    for (char *p = copy; *p; p++) {
        if ((unsigned char)*p >= 0x80) *p = '?';
    }
    s = json_string(copy);
    nb_free(copy);
    return s;
}

void nb_cli_warn_vocabulary(struct nb_cli *cli, const struct nb_lm *lm)
{
    int64_t rows = lm->model->arch.vocab_size, tokens = nb_tokenizer_size(lm->tokenizer);
    if (!nb_lm_vocabulary_gap(lm->model, rows - tokens)) return;
    nb_progress_warn(&cli->progress,
                     "the tokenizer has %" PRId64 " tokens, the embedding %" PRId64 " rows", tokens,
                     rows);
}

/* Standard input has no size beforehand: it is read in growing pieces. */
static int read_stdin(size_t max_bytes, char **data, size_t *bytes, struct nb_err *err)
{
    size_t capacity = 1 << 16, n = 0;
    char *p = nb_alloc(capacity, 1);
    while (p) {
        n += fread(p + n, 1, capacity - n - 1, stdin);
        if (n + 1 < capacity) break;
        if (capacity >= max_bytes) {
            nb_free(p);
            return nb_fail(err, NB_E_FORMAT, "standard input holds more than %zu bytes", max_bytes);
        }
        char *grown = nb_realloc(p, capacity, capacity * 2);
        if (!grown) nb_free(p);
        p = grown;
        capacity *= 2;
    }
    if (!p) return nb_fail(err, NB_E_NOMEM, "standard input: out of memory after %zu bytes", n);
    if (ferror(stdin)) {
        nb_free(p);
        return nb_fail_errno(err, "standard input");
    }
    p[n] = '\0';
    *data = p;
    *bytes = n;
    return 0;
}

int nb_cli_read(const char *path, char **data, size_t *bytes, struct nb_err *err)
{
    if (!path || strcmp(path, "-") == 0) return read_stdin((size_t)1 << 32, data, bytes, err);
    return nb_text_read(path, data, bytes, err);
}

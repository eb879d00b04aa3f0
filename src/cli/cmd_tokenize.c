/* SPDX-License-Identifier: Apache-2.0
 *
 * cmd_tokenize.c - nibble tokenize: text to ids and back. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "api/api.h"
#include "base/mem.h"
#include "base/strbuf.h"
#include "cli/cli.h"
#include "cli/commands.h"

struct tokenize_options {
    const char *text;
    bool bos, plain, decode, lines, skip_special;
};

static const struct nb_option options[] = {
    {0, "text", NB_OPTION_TEXT, offsetof(struct tokenize_options, text), "FILE",
     "read FILE (standard input)", 0, 0},
    {0, "bos", NB_OPTION_FLAG, offsetof(struct tokenize_options, bos), NULL,
     "add the BOS/EOS tokens of the tokenizer's template", 0, 0},
    {0, "plain", NB_OPTION_FLAG, offsetof(struct tokenize_options, plain), NULL,
     "special tokens written in the text are ordinary text", 0, 0},
    {0, "lines", NB_OPTION_FLAG, offsetof(struct tokenize_options, lines), NULL,
     "one array for each line of the text", 0, 0},
    {0, "decode", NB_OPTION_FLAG, offsetof(struct tokenize_options, decode), NULL,
     "ids in (a JSON array, or numbers between blanks), text out", 0, 0},
    {0, "skip-special", NB_OPTION_FLAG, offsetof(struct tokenize_options, skip_special), NULL,
     "with --decode: leave special tokens out", 0, 0},
    {0, NULL, NB_OPTION_FLAG, 0, NULL, NULL, 0, 0},
};

/* One line of input becomes one JSON value; without --lines the whole input is one line. */
typedef json_t *(*line_fn)(const struct nb_tokenizer *tok, const struct tokenize_options *o,
                           const char *s, size_t n, struct nb_err *err);

static json_t *encode_line(const struct nb_tokenizer *tok, const struct tokenize_options *o,
                           const char *s, size_t n, struct nb_err *err)
{
    unsigned flags =
        (o->plain ? (unsigned)NB_ENCODE_PLAIN : 0u) | (o->bos ? (unsigned)NB_ENCODE_TEMPLATE : 0u);
    struct nb_ids ids = {0};
    json_t *array = NULL;
    if (nb_tokenizer_encode(tok, s, n, flags, &ids, err) == 0) {
        array = json_array();
        for (size_t i = 0; i < ids.n; i++) json_array_append_new(array, json_integer(ids.data[i]));
    }
    nb_ids_release(&ids);
    return array;
}

/* Numbers with commas, brackets or blanks between them. */
static int parse_ids(const char *s, size_t n, struct nb_ids *ids, struct nb_err *err)
{
    const char *end = s + n;
    while (s < end) {
        if (strchr(" \t\r\n,[]", *s)) {
            s++;
            continue;
        }
        char *after;
        errno = 0;
        long long id = strtoll(s, &after, 10);
        if (after == s || errno || id < 0 || id > INT32_MAX) {
            size_t word = strcspn(s, " \t\r\n,[]");
            return nb_fail(err, NB_E_FORMAT, "expected token ids, found '%.*s'",
                           (int)(word < 20 ? word : 20), s);
        }
        if (!nb_grow((void **)&ids->data, &ids->capacity, ids->n, sizeof *ids->data)) {
            return nb_fail(err, NB_E_NOMEM, "out of memory after %zu ids", ids->n);
        }
        ids->data[ids->n++] = (int32_t)id;
        s = after;
    }
    return 0;
}

static json_t *decode_line(const struct nb_tokenizer *tok, const struct tokenize_options *o,
                           const char *s, size_t n, struct nb_err *err)
{
    struct nb_ids ids = {0};
    struct nb_strbuf text;
    json_t *string = NULL;
    nb_strbuf_init(&text);
    int rc = parse_ids(s, n, &ids, err);
    if (!rc) rc = nb_tokenizer_decode(tok, ids.data, ids.n, o->skip_special, &text, err);
    if (!rc) {
        string = json_stringn(nb_strbuf_cstr(&text), text.len);
        if (!string) nb_fail(err, NB_E_FORMAT, "the ids do not decode to UTF-8 text");
    }
    nb_strbuf_release(&text);
    nb_ids_release(&ids);
    return string;
}

static json_t *each_line(const struct nb_tokenizer *tok, const struct tokenize_options *o,
                         const char *s, size_t n, line_fn line, struct nb_err *err)
{
    if (!o->lines) return line(tok, o, s, n, err);
    json_t *all = json_array();
    size_t number = 1;
    for (size_t at = 0; at < n; number++) {
        const char *lf = memchr(s + at, '\n', n - at);
        size_t end = lf ? (size_t)(lf - s) : n;
        json_t *one = line(tok, o, s + at, end - at, err);
        if (!one) {
            nb_err_prefix(err, "line %zu", number);
            json_decref(all);
            return NULL;
        }
        json_array_append_new(all, one);
        at = end + 1;
    }
    return all;
}

static void print_value(const json_t *v, bool newline)
{
    if (json_is_string(v)) {
        fwrite(json_string_value(v), 1, json_string_length(v), stdout);
    } else {
        putchar('[');
        for (size_t i = 0; i < json_array_size(v); i++) {
            printf("%s%lld", i ? "," : "", (long long)json_integer_value(json_array_get(v, i)));
        }
        putchar(']');
    }
    if (newline) putchar('\n');
}

static int print(struct nb_cli *cli, const struct tokenize_options *o, json_t *result,
                 struct nb_err *err)
{
    if (cli->json) {
        const char *key = o->lines ? "lines" : o->decode ? "text" : "ids";
        return nb_cli_emit(cli, json_pack("{s:s, s:O}", "command", "tokenize", key, result), err);
    }
    if (!o->lines) {
        print_value(result, !o->decode); /* decoded text keeps its own end */
        return 0;
    }
    for (size_t i = 0; i < json_array_size(result); i++) {
        print_value(json_array_get(result, i), true);
    }
    return 0;
}

static int run(struct nb_cli *cli, const void *opts, struct nb_err *err)
{
    const struct tokenize_options *o = opts;
    char *dir = NULL, *input = NULL;
    size_t n = 0;
    struct nb_tokenizer *tok = NULL;
    json_t *result = NULL;
    int rc = nb_locate_model(cli->args[0], &dir, err);
    if (!rc) rc = nb_model_tokenizer_at(&tok, dir, err);
    if (!rc) rc = nb_cli_read(o->text, &input, &n, err);
    if (!rc) {
        result = each_line(tok, o, input, n, o->decode ? decode_line : encode_line, err);
        if (!result) rc = nb_err_prefix(err, "%s", o->text ? o->text : "standard input");
    }
    if (!rc) rc = print(cli, o, result, err);
    json_decref(result);
    nb_free(input);
    nb_tokenizer_close(tok);
    nb_free(dir);
    return rc;
}

const struct nb_command nb_command_tokenize = {
    .name = "tokenize",
    .summary = "text to token ids and back",
    .usage = "MODEL [--text FILE] [options]",
    .about = "Prints the ids of the text as one JSON array.",
    .example = "models/books-11m --text story.txt --lines",
    .options = options,
    .options_bytes = sizeof(struct tokenize_options),
    .min_args = 1,
    .max_args = 1,
    .args = "MODEL",
    .run = run,
};

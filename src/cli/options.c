/* SPDX-License-Identifier: Apache-2.0
 *
 * options.c - the option parser: a command describes its options in a table, this file fills its struct.
 *
 * Short (-n 64, -n64) and long (--tokens 64, --tokens=64) forms, options and words in any order, "--" ends
 * the options. What follows an option that takes a value is its value, even when it begins with '-'. */
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/cli.h"

static const struct nb_option common_options[] = {
    {'t', "threads", NB_OPTION_INT, offsetof(struct nb_cli, threads), "N", "threads", 1, 4096},
    {0, "json", NB_OPTION_FLAG, offsetof(struct nb_cli, json), NULL, "print one JSON object", 0, 0},
    {0, "quiet", NB_OPTION_FLAG, offsetof(struct nb_cli, quiet), NULL, "no progress", 0, 0},
    {0, "cpu", NB_OPTION_TEXT, offsetof(struct nb_cli, cpu), "LEVEL",
     "generic, avx2, avx512 (best there is)", 0, 0},
    {'h', "help", NB_OPTION_FLAG, offsetof(struct nb_cli, help), NULL, "this text", 0, 0},
    {0, NULL, NB_OPTION_FLAG, 0, NULL, NULL, 0, 0},
};

/* ---- values ---- */

bool nb_parse_size(const char *text, uint64_t *bytes)
{
    char *end;
    if (*text < '0' || *text > '9') return false;
    double n = strtod(text, &end);
    double unit = 1, step = 1024;
    const char *units = "KMGT", *u = *end ? strchr(units, *end & ~0x20) : NULL;
    if (u) {
        end++;
        if (end[0] == 'i') end++;
        else if (end[0] == 'B') step = 1000;
        for (const char *p = units; p <= u; p++) unit *= step;
    }
    if (*end == 'B') end++;
    n *= unit;
    if (*end || !(n >= 0 && n < 0x1p63)) return false;
    *bytes = (uint64_t)n;
    return true;
}

/* Index of word among "a|b|c", or -1. */
static int choice_index(const char *words, const char *word)
{
    size_t len = strlen(word);
    int index = 0;
    for (const char *p = words; p; index++) {
        const char *bar = strchr(p, '|');
        size_t n = bar ? (size_t)(bar - p) : strlen(p);
        if (n == len && memcmp(p, word, n) == 0) return index;
        p = bar ? bar + 1 : NULL;
    }
    return -1;
}

static int out_of_range(const struct nb_option *o, const char *text, struct nb_err *err)
{
    return nb_fail(err, NB_E_USAGE, "option '--%s': expected %.15g to %.15g, found %s", o->name,
                   o->min, o->max, text);
}

static int set_number(const struct nb_option *o, void *field, const char *text, struct nb_err *err)
{
    char *end;
    errno = 0;
    bool bounded = o->min != 0 || o->max != 0;
    if (o->kind == NB_OPTION_INT) {
        long long v = strtoll(text, &end, 10);
        if (end == text || *end) {
            return nb_fail(err, NB_E_USAGE, "option '--%s': expected an integer, found '%s'",
                           o->name, text);
        }
        if (errno || (bounded && ((double)v < o->min || (double)v > o->max)))
            return out_of_range(o, text, err);
        *(int64_t *)field = v;
        return 0;
    }
    double v = strtod(text, &end);
    if (end == text || *end || !isfinite(v)) {
        return nb_fail(err, NB_E_USAGE, "option '--%s': expected a number, found '%s'", o->name,
                       text);
    }
    if (bounded && (v < o->min || v > o->max)) return out_of_range(o, text, err);
    *(double *)field = v;
    return 0;
}

static int set_choice(const struct nb_option *o, void *field, const char *text, struct nb_err *err)
{
    int i = choice_index(o->value, text);
    if (i >= 0) {
        *(int *)field = i;
        return 0;
    }
    char list[256];
    size_t n = 0;
    for (const char *p = o->value; *p && n + 3 < sizeof list; p++) {
        if (*p == '|') list[n++] = ',';
        list[n++] = *p == '|' ? ' ' : *p;
    }
    list[n] = '\0';
    return nb_fail(err, NB_E_USAGE, "option '--%s': expected one of %s, found '%s'", o->name, list,
                   text);
}

static int set_value(const struct nb_option *o, void *base, const char *text, struct nb_err *err)
{
    void *field = (char *)base + o->offset;
    switch (o->kind) {
    case NB_OPTION_FLAG: *(bool *)field = true; return 0;
    case NB_OPTION_INT:
    case NB_OPTION_REAL: return set_number(o, field, text, err);
    case NB_OPTION_TEXT: *(const char **)field = text; return 0;
    case NB_OPTION_SIZE:
        if (nb_parse_size(text, field)) return 0;
        return nb_fail(err, NB_E_USAGE,
                       "option '--%s': expected a size such as 512M or 4G, found '%s'", o->name,
                       text);
    case NB_OPTION_CHOICE: return set_choice(o, field, text, err);
    case NB_OPTION_LIST: {
        struct nb_option_list *list = field;
        if (list->n == NB_OPTION_LIST_MAX) {
            return nb_fail(err, NB_E_USAGE, "option '--%s' is given more than %d times", o->name,
                           NB_OPTION_LIST_MAX);
        }
        list->items[list->n++] = text;
        return 0;
    }
    }
    return 0;
}

/* ---- finding ---- */

const char *nb_nearest_word(const char *word, const char *const *words)
{
    enum { MAX = 40 };
    size_t n = strlen(word);
    if (n == 0 || n > MAX) return NULL;
    const char *best = NULL;
    size_t best_distance = n / 3 + 1; /* one slip in three letters is still the same word */
    for (; *words; words++) {
        size_t m = strlen(*words), row[MAX + 1];
        if (m > MAX) continue;
        for (size_t i = 0; i <= n; i++) row[i] = i;
        for (size_t j = 1; j <= m; j++) {
            size_t diagonal = row[0];
            row[0] = j;
            for (size_t i = 1; i <= n; i++) {
                size_t change = diagonal + (word[i - 1] != (*words)[j - 1]);
                size_t step = (row[i] < row[i - 1] ? row[i] : row[i - 1]) + 1;
                diagonal = row[i];
                row[i] = change < step ? change : step;
            }
        }
        if (row[n] < best_distance || (!best && row[n] <= best_distance)) {
            best = *words;
            best_distance = row[n];
        }
    }
    return best;
}

struct found {
    const struct nb_option *option;
    void *base;
};

static bool same_name(const struct nb_option *o, const char *name, size_t n)
{
    return strlen(o->name) == n && memcmp(o->name, name, n) == 0;
}

/* By long name (letter 0) or by letter. */
static struct found find_option(struct nb_cli *cli, void *options, const char *name, size_t n,
                                char letter)
{
    const struct nb_option *tables[2] = {cli->command->options, common_options};
    void *bases[2] = {options, cli};
    for (int t = 0; t < 2; t++) {
        for (const struct nb_option *o = tables[t]; o && o->name; o++) {
            if (letter ? o->letter == letter : same_name(o, name, n))
                return (struct found){o, bases[t]};
        }
    }
    return (struct found){NULL, NULL};
}

static int unknown_option(const struct nb_cli *cli, const char *word, size_t n, struct nb_err *err)
{
    nb_fail(err, NB_E_USAGE, "unknown option '%.*s'", (int)n, word);
    const char *names[NB_OPTION_LIST_MAX + 8];
    size_t count = 0;
    const struct nb_option *tables[2] = {cli->command->options, common_options};
    for (int t = 0; t < 2; t++) {
        for (const struct nb_option *o = tables[t]; o && o->name && count < NB_OPTION_LIST_MAX;
             o++) {
            names[count++] = o->name;
        }
    }
    names[count] = NULL;
    char name[64] = "";
    if (n > 2 && n < sizeof name && word[1] == '-') memcpy(name, word + 2, n - 2);
    const char *near = nb_nearest_word(name, names);
    if (near) return nb_err_hint(err, "did you mean '--%s'?", near);
    return nb_err_hint(err, "'nibble %s -h' lists the options", cli->command->name);
}

/* ---- the words of the command line ---- */

/* argv[*i] is an option; *i moves to its value when that is a word of its own. */
static int parse_option(struct nb_cli *cli, int argc, char **argv, int *i, void *options,
                        struct nb_err *err)
{
    const char *word = argv[*i], *value = NULL;
    struct found f;
    if (word[1] == '-') {
        const char *equals = strchr(word, '=');
        size_t n = equals ? (size_t)(equals - word) : strlen(word);
        f = find_option(cli, options, word + 2, n - 2, 0);
        if (!f.option) return unknown_option(cli, word, n, err);
        if (equals) value = equals + 1;
    } else {
        f = find_option(cli, options, NULL, 0, word[1]);
        if (!f.option) return unknown_option(cli, word, strlen(word), err);
        if (word[2]) value = word + 2;
    }
    if (f.option->kind == NB_OPTION_FLAG) {
        if (value) return nb_fail(err, NB_E_USAGE, "option '--%s' takes no value", f.option->name);
    } else if (!value) {
        if (*i + 1 >= argc) {
            return nb_fail(err, NB_E_USAGE, "option '--%s' needs a value (%s)", f.option->name,
                           f.option->value);
        }
        value = argv[++*i];
    }
    return set_value(f.option, f.base, value, err);
}

static int add_word(struct nb_cli *cli, const char *word, struct nb_err *err)
{
    if (cli->n_args >= cli->command->max_args) {
        nb_fail(err, NB_E_USAGE, "unexpected word '%s'", word);
        return nb_err_hint(err, "usage: nibble %s %s", cli->command->name, cli->command->usage);
    }
    cli->args[cli->n_args++] = word;
    return 0;
}

int nb_options_parse(struct nb_cli *cli, int argc, char **argv, void *options, struct nb_err *err)
{
    bool words_only = false;
    for (int i = 0; i < argc && !cli->help; i++) {
        const char *word = argv[i];
        int rc;
        if (!words_only && strcmp(word, "--") == 0) {
            words_only = true;
            continue;
        }
        if (!words_only && word[0] == '-' && word[1])
            rc = parse_option(cli, argc, argv, &i, options, err);
        else rc = add_word(cli, word, err);
        if (rc) return rc;
    }
    if (cli->help || cli->n_args >= cli->command->min_args) return 0;
    nb_fail(err, NB_E_USAGE, "%s is missing", cli->command->args);
    return nb_err_hint(err, "usage: nibble %s %s", cli->command->name, cli->command->usage);
}

/* ---- help ---- */

/* "-n, --tokens N" into out; indented to the long names' column when the line begins with it. */
static size_t option_words(const struct nb_option *o, bool first, char *out, size_t size)
{
    char letter[8] = "";
    if (o->letter) snprintf(letter, sizeof letter, "-%c, ", o->letter);
    int n = snprintf(out, size, "%s%s--%s%s%s", first && !o->letter ? "    " : "", letter, o->name,
                     o->value ? " " : "", o->value ? o->value : "");
    return n > 0 && (size_t)n < size ? (size_t)n : size - 1;
}

static void print_options(const struct nb_option *o)
{
    enum { LEFT = 26 };
    char left[128];
    size_t n = 0;
    for (; o && o->name; o++) {
        n += option_words(o, n == 0, left + n, sizeof left - n);
        if (!o->help) {
            n += (size_t)snprintf(left + n, sizeof left - n, ", ");
            continue;
        }
        if (n <= LEFT) printf("  %-*s  %s\n", LEFT, left, o->help);
        else printf("  %s\n  %-*s  %s\n", left, LEFT, "", o->help);
        n = 0;
    }
}

void nb_options_help(const struct nb_command *c)
{
    printf("nibble %s %s\n", c->name, c->usage);
    if (c->about) printf("%s\n", c->about);
    printf("\n");
    print_options(c->options);
    printf("  -t, --threads N, --cpu generic|avx2|avx512, --json, --quiet, -h, --help\n");
    printf("\nExample: nibble %s %s\n", c->name, c->example);
}

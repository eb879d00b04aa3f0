/* SPDX-License-Identifier: Apache-2.0
 *
 * cli.h - what the commands of the program share: the command record, its options, how results and
 * errors leave the process.
 *
 * A command parses, calls the library and prints; it holds no algorithm. Results go to standard output,
 * progress, warnings and errors to standard error. */
#ifndef NB_CLI_CLI_H
#define NB_CLI_CLI_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "base/json.h"
#include "base/progress.h"
#include "cli/progress.h"

struct nb_cli;

/* ---- options: one table per command ---- */

enum nb_option_kind {                 /* type of the field in the command's options struct */
                      NB_OPTION_FLAG, /* bool */
                      NB_OPTION_INT,  /* int64_t */
                      NB_OPTION_REAL, /* double */
                      NB_OPTION_TEXT, /* const char *, borrowed from argv */
                      NB_OPTION_SIZE, /* uint64_t bytes: "512M", "4G", "1.5GiB"; K is 1024, KB is 1000 */
                      NB_OPTION_CHOICE, /* int: index of the word among those of `value` */
                      NB_OPTION_LIST    /* struct nb_option_list: may be given several times */
};

enum { NB_OPTION_LIST_MAX = 64 };

struct nb_option_list {
    const char *items[NB_OPTION_LIST_MAX];
    size_t n;
};

struct nb_option {
    char letter;      /* 'n', or 0 */
    const char *name; /* "tokens"; NULL ends a table */
    enum nb_option_kind kind;
    size_t offset;     /* of the field */
    const char *value; /* what help shows: "N"; for CHOICE the words: "rtn|gptq|awq" */
    const char *help;  /* NULL: shares the line and text of the next option */
    double min, max;   /* INT and REAL; both 0: any */
};

struct nb_command {
    const char *name, *summary;
    const char *usage;   /* after "nibble NAME": "MODEL -p TEXT [options]" */
    const char *about;   /* one or two lines below the usage, or NULL */
    const char *example; /* after "nibble NAME" */
    const struct nb_option *options;
    size_t options_bytes;   /* of the options struct */
    const void *defaults;   /* an options struct, or NULL: all zero */
    int min_args, max_args; /* words that are not options */
    const char *args;       /* their names for messages: "MODEL" */
    int (*run)(struct nb_cli *cli, const void *options, struct nb_err *err);
};

/* All commands in the order of `nibble help`; NULL-terminated. */
extern const struct nb_command *const nb_cli_commands[];

struct nb_cli {
    const struct nb_command *command;
    /* common options */
    int64_t threads; /* 0: all cores the process may use */
    bool json, quiet, help;
    const char *cpu;
    /* words that are not options, borrowed from argv */
    const char *args[8];
    int n_args;
    bool printed; /* the one JSON object is out */
    struct nb_progress_line line;
    struct nb_progress progress; /* to hand down */
};

/* Fills *options (options_bytes, defaults already copied) and the common options of cli from argv[0..argc),
 * the words after the command's name. NB_E_USAGE with the nearest known option as hint. Stops at -h. */
int nb_options_parse(struct nb_cli *cli, int argc, char **argv, void *options, struct nb_err *err);

/* The text of `nibble NAME -h` on standard output. */
void nb_options_help(const struct nb_command *command);

/* Word of `words` (NULL-terminated) with the smallest edit distance to `word`, NULL when none is near. */
const char *nb_nearest_word(const char *word, const char *const *words);

/* "4G" to bytes; false: not a size. */
bool nb_parse_size(const char *text, uint64_t *bytes);

/* ---- output ---- */

/* Prints obj (stolen) as the one JSON object of the command. */
int nb_cli_emit(struct nb_cli *cli, json_t *obj, struct nb_err *err);
/* A real, or null when x is not finite. */
json_t *nb_cli_real(double x);
/* text as a JSON string; bytes that are not UTF-8 become '?'. */
json_t *nb_cli_string(const char *text);
/* The error line, the hint line and, with --json and nothing printed yet, the error object. */
void nb_cli_print_error(struct nb_cli *cli, const struct nb_err *err);
/* "23.1 MB" (powers of 1000). */
void nb_format_bytes(uint64_t bytes, char *out, size_t size);
/* "11.5 M": 10^3, 10^6, 10^9. */
void nb_format_count(int64_t n, char *out, size_t size);

/* ---- interruption ---- */

/* SIGINT and SIGTERM set a flag that progress.stop reads; a second one ends the process at once. */
void nb_signals_install(void);
int nb_signals_caught(void); /* number of the signal, or 0 */

/* ---- input ---- */

/* Warns when the tokenizer has far fewer tokens than the embedding has rows. */
struct nb_lm;
void nb_cli_warn_vocabulary(struct nb_cli *cli, const struct nb_lm *lm);

/* A text file or bundled text (data/data.h), or standard input when path is NULL or "-". *data: nb_free; a NUL follows, not counted. */
int nb_cli_read(const char *path, char **data, size_t *bytes, struct nb_err *err);

#endif

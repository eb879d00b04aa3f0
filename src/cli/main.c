/* SPDX-License-Identifier: Apache-2.0
 *
 * main.c - the program nibble: finds the command, lets it run, turns its status into text and exit code. */
#include <malloc.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "cli/cli.h"
#include "nibble/version.h"

static void print_overview(void)
{
    printf("nibble %s - quantizes language models and proves what it did\n\n", nb_version());
    printf("usage: nibble COMMAND ...\n\n");
    for (const struct nb_command *const *c = nb_cli_commands; *c; c++) {
        printf("  %-10s  %s\n", (*c)->name, (*c)->summary);
    }
    printf("\n'nibble COMMAND -h' explains a command.\n");
    printf("\nExample: nibble quantize models/books-11m -o out\n");
}

static const struct nb_command *find_command(const char *name)
{
    for (const struct nb_command *const *c = nb_cli_commands; *c; c++) {
        if (strcmp((*c)->name, name) == 0) return *c;
    }
    return NULL;
}

static int unknown_command(const char *name, struct nb_err *err)
{
    const char *names[32] = {"help"};
    size_t n = 1;
    for (const struct nb_command *const *c = nb_cli_commands; *c && n < 31; c++) {
        names[n++] = (*c)->name;
    }
    nb_fail(err, NB_E_USAGE, "unknown command '%s'", name);
    const char *near = nb_nearest_word(name, names);
    if (near) return nb_err_hint(err, "did you mean '%s'?", near);
    return nb_err_hint(err, "'nibble help' lists the commands");
}

/* Results that did not reach the file or pipe are a failure, whatever the command thinks. */
static int flush_output(struct nb_err *err)
{
    if (fflush(stdout) == 0 && !ferror(stdout)) return 0;
    return nb_fail_errno(err, "standard output: cannot write");
}

static int exit_code(int status)
{
    if (status == NB_E_INTERRUPTED && nb_signals_caught() == SIGTERM) return 128 + SIGTERM;
    return nb_status_exit(status);
}

static void on_event(void *ctx, const struct nb_progress_event *event)
{
    struct nb_cli *cli = ctx;
    nb_progress_line_event(&cli->line, event);
}

static void on_warning(void *ctx, const char *sentence)
{
    struct nb_cli *cli = ctx;
    nb_progress_line_clear(&cli->line);
    fprintf(stderr, "nibble %s: warning: %s\n", cli->command->name, sentence);
}

static bool on_stop(void *ctx)
{
    (void)ctx;
    return nb_signals_caught() != 0;
}

static int run_command(struct nb_cli *cli, int argc, char **argv, struct nb_err *err)
{
    const struct nb_command *c = cli->command;
    void *options = nb_xalloc(c->options_bytes ? c->options_bytes : 1);
    if (c->defaults) memcpy(options, c->defaults, c->options_bytes);
    int rc = nb_options_parse(cli, argc, argv, options, err);
    if (!rc && cli->help) {
        nb_options_help(c);
    } else if (!rc) {
        nb_progress_line_init(&cli->line, c->name, cli->quiet);
        cli->progress = (struct nb_progress){on_event, on_warning, on_stop, cli};
        nb_signals_install();
        rc = c->run(cli, options, err);
        nb_progress_line_clear(&cli->line);
    }
    nb_free(options);
    return rc;
}

/* Matrices go back to the system when they are freed. By default glibc raises the limit above which it maps
 * with every block freed, and keeps hundreds of megabytes in its heap after some layers. */
static void keep_memory_low(void)
{
#ifdef __GLIBC__
    mallopt(M_MMAP_THRESHOLD, 1 << 20);
    mallopt(M_TRIM_THRESHOLD, 4 << 20);
#endif
}

int main(int argc, char **argv)
{
    keep_memory_low();
    struct nb_cli cli = {0};
    struct nb_err err = {0};
    int rc = 0;
    /* The error object is wanted even when the error stands before --json. */
    for (int i = 1; i < argc && strcmp(argv[i], "--") != 0; i++) {
        if (strcmp(argv[i], "--json") == 0) cli.json = true;
    }
    const char *name = argc > 1 ? argv[1] : "help";
    char help[] = "-h", *help_argv[] = {help};
    if (!strcmp(name, "--version")) {
        printf("nibble %s\n", nb_version());
    } else if (!strcmp(name, "help") && argc > 2) {
        cli.command = find_command(argv[2]);
        rc = cli.command ? run_command(&cli, 1, help_argv, &err) : unknown_command(argv[2], &err);
    } else if (!strcmp(name, "help") || !strcmp(name, "-h") || !strcmp(name, "--help")) {
        print_overview();
    } else {
        cli.command = find_command(name);
        rc =
            cli.command ? run_command(&cli, argc - 2, argv + 2, &err) : unknown_command(name, &err);
    }
    if (!rc) rc = flush_output(&err);
    if (rc) nb_cli_print_error(&cli, &err);
    fflush(stdout);
    return exit_code(rc);
}

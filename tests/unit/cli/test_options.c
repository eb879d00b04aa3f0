/* SPDX-License-Identifier: Apache-2.0
 *
 * test_options.c - the option parser: every kind of value, every way to get it wrong. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "cli/cli.h"

struct words {
    bool flag;
    int64_t number;
    double real;
    const char *text;
    uint64_t size;
    int choice;
    struct nb_option_list list;
};

static const struct nb_option options[] = {
    {'f', "flag", NB_OPTION_FLAG, offsetof(struct words, flag), NULL, "", 0, 0},
    {'n', "number", NB_OPTION_INT, offsetof(struct words, number), "N", "", -1, 100},
    {0, "real", NB_OPTION_REAL, offsetof(struct words, real), "X", "", 0, 1},
    {0, "text", NB_OPTION_TEXT, offsetof(struct words, text), "T", "", 0, 0},
    {0, "size", NB_OPTION_SIZE, offsetof(struct words, size), "SIZE", "", 0, 0},
    {0, "choice", NB_OPTION_CHOICE, offsetof(struct words, choice), "red|green|dark-blue", "", 0,
     0},
    {'l', "list", NB_OPTION_LIST, offsetof(struct words, list), "L", "", 0, 0},
    {0, NULL, NB_OPTION_FLAG, 0, NULL, NULL, 0, 0},
};

static const struct nb_command command = {.name = "test",
                                          .usage = "A [B]",
                                          .options = options,
                                          .options_bytes = sizeof(struct words),
                                          .min_args = 1,
                                          .max_args = 2,
                                          .args = "A"};

static struct nb_cli cli;
static struct words w;
static struct nb_err err;

/* Parses words of a line, split at blanks. */
static int parse(const char *line)
{
    static char copy[512];
    char *argv[80], *save = NULL;
    int argc = 0;
    snprintf(copy, sizeof copy, "%s", line);
    for (char *p = strtok_r(copy, " ", &save); p; p = strtok_r(NULL, " ", &save)) argv[argc++] = p;
    memset(&cli, 0, sizeof cli);
    memset(&w, 0, sizeof w);
    memset(&err, 0, sizeof err);
    cli.command = &command;
    return nb_options_parse(&cli, argc, argv, &w, &err);
}

static void good(const char *line)
{
    if (parse(line)) fail_msg("%s: %s", line, err.text);
}

static void bad(const char *line, const char *text)
{
    assert_int_equal(parse(line), NB_E_USAGE);
    assert_string_equal(err.text, text);
}

static void test_forms(void **state)
{
    (void)state;
    good("a -f -n 5 --real 0.25 --text=x=y --size 4G --choice dark-blue -l 1 --list 2 -l3 b");
    assert_true(w.flag);
    assert_int_equal(w.number, 5);
    assert_true(w.real == 0.25);
    assert_string_equal(w.text, "x=y");
    assert_true(w.size == (uint64_t)4 << 30);
    assert_int_equal(w.choice, 2);
    assert_int_equal(w.list.n, 3);
    assert_string_equal(w.list.items[2], "3");
    assert_int_equal(cli.n_args, 2);
    assert_string_equal(cli.args[1], "b");
    good("a -n -1"); /* a value may begin with '-' */
    assert_int_equal(w.number, -1);
    good("a -n5 --number 7"); /* the last one counts */
    assert_int_equal(w.number, 7);
    good("-- -f --number");
    assert_false(w.flag);
    assert_string_equal(cli.args[0], "-f");
    assert_string_equal(cli.args[1], "--number");
    good("- --text --flag");
    assert_string_equal(cli.args[0], "-");
    assert_string_equal(w.text, "--flag");
    assert_false(w.flag);
}

static void test_common(void **state)
{
    (void)state;
    good("a -t 3 --json --quiet --cpu avx2");
    assert_int_equal(cli.threads, 3);
    assert_true(cli.json && cli.quiet);
    assert_string_equal(cli.cpu, "avx2");
    good("-h");
    assert_true(cli.help);
    good("--help --nonsense"); /* help wins over what follows */
    assert_true(cli.help);
    bad("a -t 0", "option '--threads': expected 1 to 4096, found 0");
}

static void test_wrong_values(void **state)
{
    (void)state;
    bad("a -n x", "option '--number': expected an integer, found 'x'");
    bad("a -n 5x", "option '--number': expected an integer, found '5x'");
    bad("a -n 101", "option '--number': expected -1 to 100, found 101");
    bad("a -n 99999999999999999999",
        "option '--number': expected -1 to 100, found 99999999999999999999");
    bad("a --real nan", "option '--real': expected a number, found 'nan'");
    bad("a --real 1.5", "option '--real': expected 0 to 1, found 1.5");
    bad("a --size big", "option '--size': expected a size such as 512M or 4G, found 'big'");
    bad("a --choice blue",
        "option '--choice': expected one of red, green, dark-blue, found 'blue'");
    bad("a --flag=1", "option '--flag' takes no value");
    bad("a -fx", "option '--flag' takes no value");
    bad("a --text", "option '--text' needs a value (T)");
    bad("", "A is missing");
    assert_string_equal(err.hint, "usage: nibble test A [B]");
    bad("a b c", "unexpected word 'c'");
}

static void test_unknown(void **state)
{
    (void)state;
    bad("a --numbr 3", "unknown option '--numbr'");
    assert_string_equal(err.hint, "did you mean '--number'?");
    bad("a --chioce=red", "unknown option '--chioce'");
    assert_string_equal(err.hint, "did you mean '--choice'?");
    bad("a --jsn", "unknown option '--jsn'");
    assert_string_equal(err.hint, "did you mean '--json'?");
    bad("a --completely-different", "unknown option '--completely-different'");
    assert_string_equal(err.hint, "'nibble test -h' lists the options");
    bad("a -x", "unknown option '-x'");
    char line[400] = "a --";
    memset(line + 4, 'z', 300);
    assert_int_equal(parse(line), NB_E_USAGE);
}

static void test_list_limit(void **state)
{
    (void)state;
    char line[512] = "a";
    for (int i = 0; i < NB_OPTION_LIST_MAX; i++) memcpy(line + 1 + 4 * i, " -lx", 5);
    good(line);
    assert_int_equal(w.list.n, NB_OPTION_LIST_MAX);
    memcpy(line + 1 + 4 * NB_OPTION_LIST_MAX, " -lx", 5);
    bad(line, "option '--list' is given more than 64 times");
}

static void test_sizes(void **state)
{
    (void)state;
    const struct {
        const char *text;
        uint64_t bytes;
    } cases[] = {{"0", 0},
                 {"512", 512},
                 {"1k", 1024},
                 {"2K", 2048},
                 {"512M", 512u << 20},
                 {"4GiB", (uint64_t)4 << 30},
                 {"1KB", 1000},
                 {"5GB", 5000000000u},
                 {"1.5GiB", (uint64_t)3 << 29},
                 {"7B", 7},
                 {"1T", (uint64_t)1 << 40}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        uint64_t bytes = 1;
        if (!nb_parse_size(cases[i].text, &bytes)) fail_msg("%s", cases[i].text);
        assert_true(bytes == cases[i].bytes);
    }
    const char *wrong[] = {"",    "-1",  "G",    "4X",    "4GG",      "4 G",
                           "nan", "inf", "1e30", "4GiBB", "99999999T"};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        uint64_t bytes;
        if (nb_parse_size(wrong[i], &bytes)) fail_msg("%s is no size", wrong[i]);
    }
}

static void test_nearest(void **state)
{
    (void)state;
    const char *const words[] = {"quantize", "eval", "run", "inspect", NULL};
    assert_string_equal(nb_nearest_word("quantise", words), "quantize");
    assert_string_equal(nb_nearest_word("evla", words), "eval");
    assert_string_equal(nb_nearest_word("rnu", words), "run");
    assert_null(nb_nearest_word("serve", words));
    assert_null(nb_nearest_word("", words));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_forms),        cmocka_unit_test(test_common),
        cmocka_unit_test(test_wrong_values), cmocka_unit_test(test_unknown),
        cmocka_unit_test(test_list_limit),   cmocka_unit_test(test_sizes),
        cmocka_unit_test(test_nearest),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

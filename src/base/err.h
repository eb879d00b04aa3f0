/* SPDX-License-Identifier: Apache-2.0
 *
 * err.h - a status code plus one sentence that is already fit for the user.
 *
 * The place that knows the facts writes the sentence (what, where, found, expected); callers pass it
 * up and may prepend context; the command prints it once. No allocation, no thread-local state. */
#ifndef NB_BASE_ERR_H
#define NB_BASE_ERR_H

#include <stdarg.h>

/* name, value, text, exit code of the program (spec: command line contract) */
#define NB_STATUS_LIST(X)                                                                          \
    X(NB_OK, 0, "ok", 0)                                                                           \
    X(NB_E_FAIL, -1, "failure", 1)                                                                 \
    X(NB_E_USAGE, -2, "usage", 2)                                                                  \
    X(NB_E_SPEC, -3, "impossible", 3)                                                              \
    X(NB_E_NOMEM, -4, "no-memory", 4)                                                              \
    X(NB_E_NOSPACE, -5, "no-space", 4)                                                             \
    X(NB_E_FORMAT, -6, "format", 5)                                                                \
    X(NB_E_IO, -7, "io", 1)                                                                        \
    X(NB_E_NUMERIC, -8, "numeric", 1)                                                              \
    X(NB_E_GATE, -9, "gate", 6)                                                                    \
    X(NB_E_INTERRUPTED, -10, "interrupted", 130)                                                   \
    X(NB_E_EXISTS, -11, "exists", 1)                                                               \
    X(NB_E_BUSY, -12, "busy", 1)                                                                   \
    X(NB_E_NOTFOUND, -13, "not-found", 1)

enum nb_status {
#define X(name, value, text, code) name = value,
    NB_STATUS_LIST(X)
#undef X
};

#if defined(__GNUC__)
#define NB_PRINTF(fmt, args) __attribute__((format(printf, fmt, args)))
#else
#define NB_PRINTF(fmt, args)
#endif

struct nb_err {
    int status;     /* enum nb_status */
    char text[512]; /* one sentence: one line of valid UTF-8 without control characters */
    char hint[256]; /* remedy, or empty */
};

/* Sets status and sentence, clears the hint, returns status. err may be NULL (in all functions here).
 * Arguments may point into *err. What is too long is cut. */
int nb_fail(struct nb_err *err, int status, const char *fmt, ...) NB_PRINTF(3, 4);

/* Same, with errno's text appended: "<sentence>: <strerror>". ENOSPC and ENOMEM choose their status. */
int nb_fail_errno(struct nb_err *err, const char *fmt, ...) NB_PRINTF(2, 3);

/* Prepends "<context>: "; of a line that gets too long the context is cut first. Returns err->status so
 * that callers can return it (NB_E_FAIL when err is NULL). */
int nb_err_prefix(struct nb_err *err, const char *fmt, ...) NB_PRINTF(2, 3);

/* Sets the remedy line; keeps status and sentence. Returns err->status. */
int nb_err_hint(struct nb_err *err, const char *fmt, ...) NB_PRINTF(2, 3);

/* Makes text one line of valid UTF-8 in place, whatever a file name or token put into it: control
 * characters become spaces, bytes that are no UTF-8 become question marks. */
void nb_err_clean(char *text);

const char *nb_status_text(int status); /* "format" for NB_E_FORMAT, ... */
int nb_status_exit(int status);         /* exit code of the program */

#endif

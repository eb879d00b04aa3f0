/* SPDX-License-Identifier: Apache-2.0
 *
 * nibble/status.h - status codes and the error record of every function that can fail.
 *
 * The place that knows the facts writes one sentence (what, where, found, expected), fit for the user. */
#ifndef NIBBLE_STATUS_H
#define NIBBLE_STATUS_H

#include "nibble/version.h"

#ifdef __cplusplus
extern "C" {
#endif

/* name, value, text, exit code of the program */
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

struct nb_err {
    int status;     /* enum nb_status */
    char text[512]; /* one sentence, no newline */
    char hint[256]; /* remedy, or empty */
};

NB_API const char *nb_status_text(int status); /* "format" for NB_E_FORMAT, ... */
NB_API int nb_status_exit(int status);         /* exit code of the program */

#ifdef __cplusplus
}
#endif

#endif

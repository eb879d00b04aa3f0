/* SPDX-License-Identifier: Apache-2.0
 *
 * err.h - a status code plus one sentence that is already fit for the user.
 *
 * The place that knows the facts writes the sentence (what, where, found, expected); callers pass it
 * up and may prepend context; the command prints it once. No allocation, no thread-local state. */
#ifndef NB_BASE_ERR_H
#define NB_BASE_ERR_H

#include <stdarg.h>

#include "nibble/status.h"

#if defined(__GNUC__)
#define NB_PRINTF(fmt, args) __attribute__((format(printf, fmt, args)))
#else
#define NB_PRINTF(fmt, args)
#endif

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

#endif

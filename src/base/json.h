/* SPDX-License-Identifier: Apache-2.0
 *
 * json.h - strict JSON (jansson) with our limits and messages.
 *
 * Duplicate keys and nesting deeper than 64 are refused; every getter names the key and the type it
 * found. Other modules use jansson's json_t through these functions and jansson.h itself. */
#ifndef NB_BASE_JSON_H
#define NB_BASE_JSON_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "base/strbuf.h"

enum { NB_JSON_MAX_DEPTH = 64 };

/* Parses exactly one JSON value. `what` names the source in messages ("config.json"). NULL and *err set
 * (NB_E_FORMAT) on any error; result owned by the caller (json_decref). Depth is checked before parsing.
 * Strings may hold NUL (json_string_length tells), keys may not. A text with an integer beyond 64 bits
 * (Python writes 10^30 for "no limit") is taken with all its numbers as reals. */
json_t *nb_json_parse(const char *text, size_t len, int max_depth, const char *what,
                      struct nb_err *err);
/* Reads a whole file (at most max_bytes) and parses it. NB_E_NOTFOUND if there is no such file. */
json_t *nb_json_load(const char *path, size_t max_bytes, struct nb_err *err);

/* Typed getters. `obj` is an object (anything else has no keys). With `required` false a missing or null key leaves *out
 * alone. Return 0 or NB_E_FORMAT: "<what>: key '<key>': expected an integer, found a string". */
int nb_json_get_int(const json_t *obj, const char *key, bool required, int64_t *out,
                    const char *what, struct nb_err *err);
int nb_json_get_real(const json_t *obj, const char *key, bool required, double *out,
                     const char *what, struct nb_err *err); /* integer or real */
int nb_json_get_bool(const json_t *obj, const char *key, bool required, bool *out, const char *what,
                     struct nb_err *err);
int nb_json_get_string(const json_t *obj, const char *key, bool required, const char **out,
                       const char *what, struct nb_err *err); /* borrowed from obj */

const char *nb_json_type_name(const json_t *v); /* "an integer", "a string", ... */

/* Appends v in insertion order: compact, or with a two-space indent. Reals get the fewest digits (15 to 17)
 * that read back as the same number. NB_E_NOMEM (also for a NULL v, which jansson gives when it has no
 * memory), NB_E_FORMAT when nested deeper than NB_JSON_MAX_DEPTH. */
int nb_json_dump(const json_t *v, bool pretty, struct nb_strbuf *out, struct nb_err *err);

#endif

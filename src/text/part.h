/* SPDX-License-Identifier: Apache-2.0
 *
 * part.h - how a tokenizer.json names its parts: {"type": "NFC"}, null, or a Sequence of parts. */
#ifndef NB_TEXT_PART_H
#define NB_TEXT_PART_H

#include <stddef.h>

#include "base/err.h"
#include "base/json.h"

enum { NB_PARTS_MAX = 32 };

struct nb_part_list {
    const json_t *part[NB_PARTS_MAX]; /* borrowed */
    const char *type[NB_PARTS_MAX];
    size_t n;
};

/* Flattens part (null, absent, one part or nested Sequences whose children stand under
 * children_key) in order. role names it in messages ("normalizer"). NB_E_FORMAT for a bad shape,
 * NB_E_SPEC for too many. */
int nb_part_flatten(struct nb_part_list *list, const json_t *part, const char *children_key,
                    const char *role, const char *what, struct nb_err *err);

/* Refuses a part by name; known lists the types that would do. */
int nb_part_refuse(const char *role, const char *type, const char *known, const char *what,
                   struct nb_err *err);

/* A key holding a string of exactly one character into out (NUL-terminated UTF-8). */
int nb_part_char(const json_t *part, const char *key, char out[5], const char *what,
                 struct nb_err *err);

#endif

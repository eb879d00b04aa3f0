/* SPDX-License-Identifier: Apache-2.0
 *
 * scheme.h - the names people have for number formats (`--scheme NF4`), as specs. Internal to pipeline/. */
#ifndef NB_PIPELINE_SCHEME_H
#define NB_PIPELINE_SCHEME_H

#include <stdbool.h>

#include "base/strbuf.h"
#include "core/qmat.h"

/* In a scheme's spec: the type in which the container keeps scales. */
#define NB_SCALES_OF_FORMAT NB_DTYPE_COUNT
/* Rows, groups: all of them. Larger than any matrix, and times two it still fits. */
#define NB_WHOLE ((int64_t)1 << 40)

struct nb_scheme {
    const char *name;          /* "W4A16" */
    const char *format;        /* the container most engines load it from */
    const char *best;          /* what method best means for it */
    struct nb_qspec spec;      /* free_group: group_cols is the default */
    bool free_group, free_sym; /* -g, --sym and --asym may say otherwise */
    bool nests;                /* may have its scales quantized once more (double quantization) */
};

const struct nb_scheme *nb_scheme_find(const char *name); /* in any case; NULL: unknown */
/* The one that -w alone means: 2, 3, 4 and 8 bits; NULL for others. */
const struct nb_scheme *nb_scheme_of_bits(int bits);
void nb_scheme_list(struct nb_strbuf *list); /* "W2A16, W3A16, ..." */

#endif

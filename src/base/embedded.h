/* SPDX-License-Identifier: Apache-2.0
 *
 * embedded.h - files that are part of the library: the default calibration and evaluation texts.
 *
 * The table is generated at build time by tools/embed.c from data/calibration/ and data/evaluation/. */
#ifndef NB_BASE_EMBEDDED_H
#define NB_BASE_EMBEDDED_H

#include <stddef.h>

struct nb_embedded {
    const char *name;          /* path below data/: "calibration/essays.txt"; NULL ends the table */
    const unsigned char *data; /* a NUL follows the last byte, not counted */
    size_t bytes;
};

/* In byte order of the names. */
extern const struct nb_embedded nb_embedded_files[];

#endif

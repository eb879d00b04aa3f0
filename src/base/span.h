/* SPDX-License-Identifier: Apache-2.0
 *
 * span.h - a borrowed pointer and its length. A span never outlives the handle it came from. */
#ifndef NB_BASE_SPAN_H
#define NB_BASE_SPAN_H

#include <stddef.h>

struct nb_span {
    const unsigned char *data;
    size_t bytes;
};

#endif

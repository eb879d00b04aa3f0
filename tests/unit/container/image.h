/* SPDX-License-Identifier: Apache-2.0
 *
 * image.h - safetensors file images made from a header text. */
#ifndef TESTS_UNIT_CONTAINER_IMAGE_H
#define TESTS_UNIT_CONTAINER_IMAGE_H

#include <stddef.h>

struct image {
    unsigned char *bytes; /* free() */
    size_t n;
};

/* Length, header and n_data bytes of data (zeros when data is NULL). */
struct image image_make(const char *header, const void *data, size_t n_data);
/* The same with a header that may hold NUL. */
struct image image_make_raw(const void *header, size_t n_header, const void *data, size_t n_data);

#endif

/* SPDX-License-Identifier: Apache-2.0
 *
 * image.c - see image.h. */
#include "image.h"

#include <stdlib.h>
#include <string.h>

struct image image_make_raw(const void *header, size_t n_header, const void *data, size_t n_data)
{
    struct image im = {calloc(8 + n_header + n_data + 1, 1), 8 + n_header + n_data};
    if (!im.bytes) abort();
    for (int i = 0; i < 8; i++) im.bytes[i] = (unsigned char)(n_header >> 8 * i);
    memcpy(im.bytes + 8, header, n_header);
    if (data && n_data) memcpy(im.bytes + 8 + n_header, data, n_data);
    /* exactly sized, so that a sanitizer sees a read past the end */
    unsigned char *exact = malloc(im.n);
    if (!exact) abort();
    memcpy(exact, im.bytes, im.n);
    free(im.bytes);
    im.bytes = exact;
    return im;
}

struct image image_make(const char *header, const void *data, size_t n_data)
{
    return image_make_raw(header, strlen(header), data, n_data);
}

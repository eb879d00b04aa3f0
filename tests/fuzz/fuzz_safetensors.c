/* SPDX-License-Identifier: Apache-2.0
 *
 * A safetensors file image: whatever the bytes, no crash; and what is accepted tiles the data exactly. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "container/safetensors.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct nb_err err;
    struct nb_tensor *t;
    json_t *header;
    size_t n, bytes = 0;
    if (nb_safetensors_parse((struct nb_span){data, size}, "image", &t, &n, &header, &err)) {
        if (!err.text[0] || t || header) abort();
        return 0;
    }
    for (size_t i = 0; i < n; i++) {
        if (t[i].data.data < data || t[i].data.data + t[i].data.bytes > data + size) abort();
        if ((uint64_t)nb_tensor_count(&t[i]) * (uint64_t)nb_dtype_bits(t[i].dtype) !=
            8 * (uint64_t)t[i].data.bytes) {
            abort();
        }
        if (!strcmp(t[i].name, "__metadata__")) abort();
        bytes += t[i].data.bytes;
    }
    uint64_t length;
    memcpy(&length, data, sizeof length);
    if (8 + length + bytes != size) abort();
    nb_free(t);
    json_decref(header);
    return 0;
}

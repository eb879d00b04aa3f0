/* SPDX-License-Identifier: Apache-2.0
 *
 * A model.safetensors.index.json: no crash, and no accepted file name leaves the folder. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "container/safetensors.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct nb_err err;
    json_t *map;
    if (nb_safetensors_parse_index((const char *)data, size, "index", &map, &err)) {
        if (!err.text[0] || map) abort();
        return 0;
    }
    const char *name;
    json_t *file;
    json_object_foreach(map, name, file)
    {
        const char *s = json_string_value(file);
        if (!s || !s[0] || s[0] == '.' || strchr(s, '/') || strlen(s) != json_string_length(file))
            abort();
    }
    json_decref(map);
    return 0;
}

/* SPDX-License-Identifier: Apache-2.0
 *
 * safetensors_parse.c - one file image and one index: every rule of the format, no I/O.
 *
 *     0         8 bytes   N, little-endian: bytes of the header
 *     8         N bytes   JSON object: name -> {"dtype", "shape", "data_offsets": [begin, end]}
 *     8 + N     the rest  tensor data, offsets count from here: no gap, no overlap, nothing behind
 *
 * Accepts what the reference implementation accepts, except where a file could mean two things
 * (duplicate keys, unknown keys in an entry) or could make us work without end (rank, sizes). */
#include "container/safetensors.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"

enum { HEADER_MAX = 100000000, HEADER_DEPTH = 4 };

static const int64_t size_max = ((int64_t)1 << 48) - 1; /* cap of the published schema */

struct entry {
    uint64_t begin, end;
    struct nb_tensor tensor;
};

/* Looks at the header before a JSON tree is built of it. A tree costs some hundred bytes per object and
 * some forty per value, while the shortest tensor entry has 50 bytes and at most one comma in five: a
 * denser text is no header, and its tree could be many times the file. Also the only place to see "-0",
 * which JSON reads as the integer 0. */
static int check_density(const char *s, size_t n, const char *what, struct nb_err *err)
{
    size_t objects = 0, commas = 0;
    bool in_string = false;
    for (size_t i = 0; i < n; i++) {
        char c = s[i];
        if (in_string) {
            if (c == '\\') i++;
            else if (c == '"') in_string = false;
        } else if (c == '"') {
            in_string = true;
        } else if (c == '-') {
            return nb_fail(
                err, NB_E_FORMAT,
                "%s: header holds a negative number at byte %zu; sizes and offsets are not negative",
                what, i);
        } else if (c == '{' || c == '[') {
            objects += c == '{';
        } else if (c == ',') {
            commas++;
        }
    }
    if (objects > 2 + n / 48 || commas > 16 + n / 5) {
        return nb_fail(err, NB_E_FORMAT,
                       "%s: header is no table of tensors: %zu objects and %zu commas in %zu bytes",
                       what, objects, commas, n);
    }
    return 0;
}

/* The array `key` of non-negative integers. *n: how many fit into out, then how many there are. */
static int get_sizes(const json_t *entry, const char *key, int64_t *out, int *n, const char *where,
                     struct nb_err *err)
{
    const json_t *a = json_object_get(entry, key);
    if (!a) return nb_fail(err, NB_E_FORMAT, "%s has no '%s'", where, key);
    if (!json_is_array(a)) {
        return nb_fail(err, NB_E_FORMAT, "%s: '%s' is %s, expected an array", where, key,
                       nb_json_type_name(a));
    }
    size_t len = json_array_size(a);
    if (len > (size_t)*n) {
        return nb_fail(err, NB_E_FORMAT, "%s: '%s' has %zu entries, at most %d are allowed", where,
                       key, len, *n);
    }
    for (size_t i = 0; i < len; i++) {
        const json_t *v = json_array_get(a, i);
        if (!json_is_integer(v)) {
            return nb_fail(err, NB_E_FORMAT, "%s: '%s' holds %s, expected an integer", where, key,
                           nb_json_type_name(v));
        }
        out[i] = json_integer_value(v);
        if (out[i] < 0 || out[i] > size_max) {
            return nb_fail(err, NB_E_FORMAT,
                           "%s: '%s' holds %" PRId64 ", allowed are 0 to %" PRId64, where, key,
                           out[i], size_max);
        }
    }
    *n = (int)len;
    return 0;
}

static int get_dtype(const json_t *entry, enum nb_dtype *out, const char *where, struct nb_err *err)
{
    const char *dtype;
    int rc = nb_json_get_string(entry, "dtype", true, &dtype, where, err);
    if (rc) return rc;
    /* A NUL inside would end the C string early. */
    bool whole = strlen(dtype) == json_string_length(json_object_get(entry, "dtype"));
    if (!whole || !nb_dtype_parse(dtype, out)) {
        return nb_fail(err, NB_E_FORMAT, "%s: unknown dtype '%.32s'", where, dtype);
    }
    return 0;
}

/* Rule 4: shape x bits is whole bytes and equals the span. */
static int check_extent(const struct entry *e, const char *where, struct nb_err *err)
{
    const struct nb_tensor *t = &e->tensor;
    size_t count = 1, bits;
    bool fits = true;
    for (int i = 0; i < t->rank; i++) fits = fits && nb_mul(count, (size_t)t->shape[i], &count);
    if (!fits || !nb_mul(count, (size_t)nb_dtype_bits(t->dtype), &bits)) {
        return nb_fail(err, NB_E_FORMAT, "%s: the shape's size overflows 64 bits", where);
    }
    if (bits % 8) {
        return nb_fail(err, NB_E_FORMAT, "%s: %zu elements of %s are no whole number of bytes",
                       where, count, nb_dtype_name(t->dtype));
    }
    if (e->end < e->begin) {
        return nb_fail(err, NB_E_FORMAT, "%s ends at byte %" PRIu64 " before it begins at %" PRIu64,
                       where, e->end, e->begin);
    }
    if (e->end - e->begin != bits / 8) {
        return nb_fail(err, NB_E_FORMAT,
                       "%s: shape and dtype need %zu bytes, data_offsets hold %" PRIu64, where,
                       bits / 8, e->end - e->begin);
    }
    return 0;
}

static int parse_entry(struct entry *e, const char *name, const json_t *v, const char *what,
                       struct nb_err *err)
{
    char where[320];
    snprintf(where, sizeof where, "%.160s: tensor '%.120s'", what, name);
    if (!json_is_object(v)) {
        return nb_fail(err, NB_E_FORMAT, "%s is %s, expected an object", where,
                       nb_json_type_name(v));
    }
    int64_t offsets[2];
    int n_offsets = 2;
    *e = (struct entry){.tensor = {.name = name, .rank = NB_MAX_RANK}};
    int rc = get_dtype(v, &e->tensor.dtype, where, err);
    if (!rc) rc = get_sizes(v, "shape", e->tensor.shape, &e->tensor.rank, where, err);
    if (!rc) rc = get_sizes(v, "data_offsets", offsets, &n_offsets, where, err);
    if (rc) return rc;
    if (n_offsets != 2) {
        return nb_fail(err, NB_E_FORMAT, "%s: 'data_offsets' has %d entries, expected 2", where,
                       n_offsets);
    }
    if (json_object_size(v) != 3) {
        return nb_fail(err, NB_E_FORMAT, "%s has %zu keys, expected dtype, shape and data_offsets",
                       where, json_object_size(v));
    }
    e->begin = (uint64_t)offsets[0];
    e->end = (uint64_t)offsets[1];
    return check_extent(e, where, err);
}

static int check_metadata(const json_t *m, const char *what, struct nb_err *err)
{
    if (!m || json_is_null(m)) return 0;
    if (!json_is_object(m)) {
        return nb_fail(err, NB_E_FORMAT, "%s: __metadata__ is %s, expected an object", what,
                       nb_json_type_name(m));
    }
    const char *key;
    json_t *v;
    json_object_foreach((json_t *)(uintptr_t)m, key, v)
    {
        if (!json_is_string(v)) {
            return nb_fail(err, NB_E_FORMAT,
                           "%s: __metadata__ key '%.80s' is %s, expected a string", what, key,
                           nb_json_type_name(v));
        }
    }
    return 0;
}

static int by_offsets(const void *a, const void *b)
{
    const struct entry *x = a, *y = b;
    if (x->begin != y->begin) return x->begin < y->begin ? -1 : 1;
    if (x->end != y->end) return x->end < y->end ? -1 : 1;
    return strcmp(x->tensor.name, y->tensor.name);
}

/* Rules 3 and 5: the entries tile the buffer. */
static int check_tiling(const struct entry *e, size_t n, size_t buffer_bytes, const char *what,
                        struct nb_err *err)
{
    uint64_t at = 0;
    for (size_t i = 0; i < n; i++) {
        if (e[i].begin != at) {
            return nb_fail(err, NB_E_FORMAT,
                           "%s: tensor '%.120s' begins at byte %" PRIu64
                           " of the data, expected %" PRIu64 " (%s)",
                           what, e[i].tensor.name, e[i].begin, at,
                           e[i].begin > at ? "a hole" : "an overlap");
        }
        at = e[i].end;
        if (at > buffer_bytes) {
            return nb_fail(err, NB_E_FORMAT,
                           "%s: tensor '%.120s' ends at byte %" PRIu64
                           " of the data, the file has %zu",
                           what, e[i].tensor.name, at, buffer_bytes);
        }
    }
    if (at != buffer_bytes) {
        return nb_fail(err, NB_E_FORMAT, "%s: %" PRIu64 " bytes behind the last tensor", what,
                       buffer_bytes - at);
    }
    return 0;
}

/* From header text to a checked tree. */
static int parse_header(const unsigned char *image, size_t bytes, const char *what, json_t **header,
                        struct nb_err *err)
{
    if (bytes < 8) {
        return nb_fail(err, NB_E_FORMAT, "%s: has %zu bytes, a safetensors file has at least 8",
                       what, bytes);
    }
    uint64_t n = 0;
    for (int i = 7; i >= 0; i--) n = n << 8 | image[i];
    if (n > HEADER_MAX) {
        return nb_fail(err, NB_E_FORMAT, "%s: header of %" PRIu64 " bytes, at most %d are allowed",
                       what, n, HEADER_MAX);
    }
    if (n > bytes - 8) {
        return nb_fail(err, NB_E_FORMAT, "%s: header ends at byte %" PRIu64 ", the file has %zu",
                       what, n + 8, bytes);
    }
    const char *text = (const char *)image + 8;
    int rc = check_density(text, (size_t)n, what, err);
    if (rc) return rc;
    char name[320];
    snprintf(name, sizeof name, "%.300s: header", what);
    *header = nb_json_parse(text, (size_t)n, HEADER_DEPTH, name, err);
    if (!*header) return NB_E_FORMAT;
    if (!json_is_object(*header)) {
        return nb_fail(err, NB_E_FORMAT, "%s: header is %s, expected an object", what,
                       nb_json_type_name(*header));
    }
    return check_metadata(json_object_get(*header, "__metadata__"), what, err);
}

static int parse_entries(json_t *header, struct entry *e, size_t *n, const char *what,
                         struct nb_err *err)
{
    const char *name;
    json_t *v;
    *n = 0;
    json_object_foreach(header, name, v)
    {
        if (!strcmp(name, "__metadata__")) continue;
        int rc = parse_entry(&e[*n], name, v, what, err);
        if (rc) return rc;
        ++*n;
    }
    return 0;
}

int nb_safetensors_parse(struct nb_span image, const char *what, struct nb_tensor **tensors,
                         size_t *n, json_t **header, struct nb_err *err)
{
    *tensors = NULL;
    *n = 0;
    *header = NULL;
    struct entry *entries = NULL;
    int rc = parse_header(image.data, image.bytes, what, header, err);
    if (rc) goto out;
    size_t room = json_object_size(*header) + 1, count;
    entries = nb_alloc(room, sizeof *entries);
    *tensors = nb_alloc(room, sizeof **tensors);
    if (!entries || !*tensors) {
        rc = nb_fail(err, NB_E_NOMEM, "%s: no memory for %zu tensor entries", what, room);
        goto out;
    }
    rc = parse_entries(*header, entries, &count, what, err);
    if (rc) goto out;
    qsort(entries, count, sizeof *entries, by_offsets);
    const unsigned char *data = image.data + 8;
    for (int i = 7; i >= 0; i--) data += (size_t)image.data[i] << 8 * i;
    rc = check_tiling(entries, count, image.bytes - (size_t)(data - image.data), what, err);
    if (rc) goto out;
    for (size_t i = 0; i < count; i++) {
        entries[i].tensor.data =
            (struct nb_span){data + entries[i].begin, (size_t)(entries[i].end - entries[i].begin)};
        (*tensors)[i] = entries[i].tensor;
    }
    *n = count;
out:
    nb_free(entries);
    if (rc) {
        nb_free(*tensors);
        json_decref(*header);
        *tensors = NULL;
        *header = NULL;
    }
    return rc;
}

/* A shard name is a bare file name: nothing that could lead out of the folder. */
static bool is_bare_name(const json_t *v)
{
    const char *s = json_string_value(v);
    size_t n = strlen(s), suffix = strlen(".safetensors");
    return json_string_length(v) == n && s[0] != '.' && !strpbrk(s, "/\\") && n > suffix &&
           !strcmp(s + n - suffix, ".safetensors");
}

int nb_safetensors_parse_index(const char *text, size_t bytes, const char *what,
                               json_t **weight_map, struct nb_err *err)
{
    *weight_map = NULL;
    json_t *index = nb_json_parse(text, bytes, NB_JSON_MAX_DEPTH, what, err);
    if (!index) return NB_E_FORMAT;
    json_t *map = json_object_get(index, "weight_map");
    int rc = 0;
    if (!json_is_object(map)) {
        rc = nb_fail(err, NB_E_FORMAT, "%s: weight_map is %s, expected an object", what,
                     nb_json_type_name(map));
        goto out;
    }
    if (!json_object_size(map)) {
        rc = nb_fail(err, NB_E_FORMAT, "%s: weight_map is empty", what);
        goto out;
    }
    const char *name;
    json_t *v;
    json_object_foreach(map, name, v)
    {
        if (!json_is_string(v)) {
            rc = nb_fail(err, NB_E_FORMAT,
                         "%s: the file of tensor '%.120s' is %s, expected a string", what, name,
                         nb_json_type_name(v));
            break;
        }
        if (!is_bare_name(v)) {
            rc = nb_fail(
                err, NB_E_FORMAT,
                "%s: the file of tensor '%.120s' is '%.120s', expected a plain name ending in "
                ".safetensors",
                what, name, json_string_value(v));
            break;
        }
    }
    if (!rc) *weight_map = json_incref(map);
out:
    json_decref(index);
    return rc;
}

/* SPDX-License-Identifier: Apache-2.0
 *
 * part.c - see part.h. */
#include "text/part.h"

#include <string.h>

#include "text/unicode.h"

enum { DEPTH_MAX = 8 };

int nb_part_flatten(struct nb_part_list *list, const json_t *part, const char *children_key,
                    const char *role, const char *what, struct nb_err *err)
{
    list->n = 0;
    if (!part || json_is_null(part)) return 0;
    struct {
        const json_t *array; /* NULL: the single part itself */
        size_t next;
    } stack[DEPTH_MAX] = {{NULL, 0}};
    int depth = 1;
    while (depth) {
        const json_t *array = stack[depth - 1].array, *p = part;
        size_t i = stack[depth - 1].next++;
        if (array ? i >= json_array_size(array) : i > 0) {
            depth--;
            continue;
        }
        if (array) p = json_array_get(array, i);
        if (!json_is_object(p)) {
            return nb_fail(err, NB_E_FORMAT, "%s: %s: expected an object, found %s", what, role,
                           nb_json_type_name(p));
        }
        const char *type;
        int rc = nb_json_get_string(p, "type", true, &type, what, err);
        if (rc) return rc;
        if (strcmp(type, "Sequence") != 0) {
            if (list->n == NB_PARTS_MAX) {
                return nb_fail(err, NB_E_SPEC, "%s: more than %d parts in the %s", what,
                               NB_PARTS_MAX, role);
            }
            list->part[list->n] = p;
            list->type[list->n++] = type;
            continue;
        }
        const json_t *children = json_object_get(p, children_key);
        if (!json_is_array(children)) {
            return nb_fail(err, NB_E_FORMAT,
                           "%s: %s Sequence: key '%s': expected an array, found %s", what, role,
                           children_key, nb_json_type_name(children));
        }
        if (depth == DEPTH_MAX) {
            return nb_fail(err, NB_E_SPEC, "%s: %s: Sequences nested deeper than %d", what, role,
                           DEPTH_MAX);
        }
        stack[depth].array = children;
        stack[depth++].next = 0;
    }
    return 0;
}

int nb_part_refuse(const char *role, const char *type, const char *known, const char *what,
                   struct nb_err *err)
{
    return nb_fail(err, NB_E_SPEC, "%s: %s '%.64s' is not supported (supported: %s)", what, role,
                   type, known);
}

int nb_part_char(const json_t *part, const char *key, char out[5], const char *what,
                 struct nb_err *err)
{
    const char *s;
    int rc = nb_json_get_string(part, key, true, &s, what, err);
    if (rc) return rc;
    size_t n = json_string_length(json_object_get(part, key));
    if (n == 0 || n != nb_utf8_length((unsigned char)s[0])) {
        return nb_fail(err, NB_E_FORMAT, "%s: key '%s': expected one character, found '%.64s'",
                       what, key, s);
    }
    memcpy(out, s, n);
    out[n] = '\0';
    return 0;
}

/* SPDX-License-Identifier: Apache-2.0
 *
 * postprocessor.c - see postprocessor.h. ByteLevel only moves offsets, which nobody asks for. */
#include "text/postprocessor.h"

#include <string.h>

#include "base/mem.h"
#include "text/ids.h"
#include "text/part.h"

static int bad_template(const char *what, const char *problem, struct nb_err *err)
{
    return nb_fail(err, NB_E_FORMAT, "%s: TemplateProcessing: %s", what, problem);
}

static int add_special(struct nb_ids *ids, const json_t *piece, const json_t *special_tokens,
                       const char *what, struct nb_err *err)
{
    const char *name;
    int rc = nb_json_get_string(piece, "id", true, &name, what, err);
    if (rc) return rc;
    const json_t *list = json_object_get(json_object_get(special_tokens, name), "ids");
    if (!json_is_array(list)) {
        return nb_fail(
            err, NB_E_FORMAT,
            "%s: TemplateProcessing: special token '%.64s' has no ids under 'special_tokens'", what,
            name);
    }
    for (size_t i = 0; i < json_array_size(list) && !rc; i++) {
        const json_t *v = json_array_get(list, i);
        json_int_t id = json_is_integer(v) ? json_integer_value(v) : -1;
        if (id < 0 || id > INT32_MAX)
            return bad_template(what, "an id is not a number from 0 on", err);
        rc = nb_ids_add(ids, (int32_t)id, err);
    }
    return rc;
}

static int parse_template(struct nb_postprocessor *p, const json_t *part, const char *what,
                          struct nb_err *err)
{
    const json_t *single = json_object_get(part, "single");
    const json_t *special_tokens = json_object_get(part, "special_tokens");
    if (!json_is_array(single)) return bad_template(what, "key 'single': expected an array", err);
    int n_sequences = 0, rc = 0;
    for (size_t i = 0; i < json_array_size(single) && !rc; i++) {
        const json_t *piece = json_array_get(single, i);
        const json_t *special = json_object_get(piece, "SpecialToken");
        const json_t *sequence = json_object_get(piece, "Sequence");
        if (special) {
            rc = add_special(n_sequences ? &p->after : &p->before, special, special_tokens, what,
                             err);
        } else if (sequence) {
            const char *id;
            rc = nb_json_get_string(sequence, "id", true, &id, what, err);
            if (!rc && strcmp(id, "A") != 0) rc = bad_template(what, "sequence B in 'single'", err);
            n_sequences++;
        } else {
            rc = bad_template(what, "a piece is neither SpecialToken nor Sequence", err);
        }
    }
    if (!rc && n_sequences != 1) rc = bad_template(what, "'single' must hold one sequence", err);
    return rc;
}

int nb_postprocessor_init(struct nb_postprocessor *p, const json_t *part, const char *what,
                          struct nb_err *err)
{
    *p = (struct nb_postprocessor){0};
    struct nb_part_list list;
    int rc = nb_part_flatten(&list, part, "processors", "post_processor", what, err);
    bool seen = false;
    for (size_t i = 0; !rc && i < list.n; i++) {
        if (strcmp(list.type[i], "ByteLevel") == 0) continue;
        if (strcmp(list.type[i], "TemplateProcessing") != 0) {
            rc = nb_part_refuse("post_processor", list.type[i],
                                "TemplateProcessing, ByteLevel, Sequence", what, err);
        } else if (seen) {
            rc =
                nb_fail(err, NB_E_SPEC, "%s: two TemplateProcessing parts are not supported", what);
        } else {
            rc = parse_template(p, list.part[i], what, err);
            seen = true;
        }
    }
    if (rc) nb_postprocessor_release(p);
    return rc;
}

void nb_postprocessor_release(struct nb_postprocessor *p)
{
    nb_ids_release(&p->before);
    nb_ids_release(&p->after);
}

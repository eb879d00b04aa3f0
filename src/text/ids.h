/* SPDX-License-Identifier: Apache-2.0
 *
 * ids.h - appending to the growing list of tokenizer.h. */
#ifndef NB_TEXT_IDS_H
#define NB_TEXT_IDS_H

#include "base/mem.h"
#include "text/tokenizer.h"

static inline int nb_ids_add(struct nb_ids *ids, int32_t id, struct nb_err *err)
{
    if (!nb_grow((void **)&ids->data, &ids->capacity, ids->n, sizeof *ids->data)) {
        return nb_fail(err, NB_E_NOMEM, "tokenizer: no memory for %zu ids", ids->n + 1);
    }
    ids->data[ids->n++] = id;
    return 0;
}

#endif

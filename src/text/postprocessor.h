/* SPDX-License-Identifier: Apache-2.0
 *
 * postprocessor.h - the post_processor part: ids that the template puts before and after a text. */
#ifndef NB_TEXT_POSTPROCESSOR_H
#define NB_TEXT_POSTPROCESSOR_H

#include "base/err.h"
#include "base/json.h"
#include "text/tokenizer.h"

struct nb_postprocessor {
    struct nb_ids before, after;
};

/* part: the file's "post_processor" (NULL or null: nothing is added). NB_E_SPEC refuses by name. */
int nb_postprocessor_init(struct nb_postprocessor *p, const json_t *part, const char *what,
                          struct nb_err *err);
void nb_postprocessor_release(struct nb_postprocessor *p);

#endif

/* SPDX-License-Identifier: Apache-2.0
 *
 * checkpoints.c - the table: one line per ecosystem. The dense row stands last and claims nothing. */
#include "checkpoint/internal.h"

#include <string.h>

static const struct nb_checkpoint *const table[] = {
    &nb_checkpoint_gptq, &nb_checkpoint_gptq_v2, &nb_checkpoint_awq,   &nb_checkpoint_ct,
    &nb_checkpoint_bnb,  &nb_checkpoint_fp8,     &nb_checkpoint_dense, NULL,
};

const struct nb_checkpoint *const *nb_checkpoints(void)
{
    return table;
}

const struct nb_checkpoint *nb_checkpoint_find(const char *name)
{
    for (const struct nb_checkpoint *const *c = table; *c; c++) {
        if (!strcmp((*c)->name, name)) return *c;
    }
    return NULL;
}

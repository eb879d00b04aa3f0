/* SPDX-License-Identifier: Apache-2.0
 *
 * rotate_plan.h - what a rotation does to each tensor of a model. Internal to pipeline/. */
#ifndef NB_PIPELINE_ROTATE_PLAN_H
#define NB_PIPELINE_ROTATE_PLAN_H

#include "checkpoint/checkpoint.h"

enum nb_turn {
    NB_TURN_NONE,       /* copied */
    NB_TURN_NORM,       /* becomes one; its weight went into those who read after it */
    NB_TURN_READ,       /* [.., d]: rows times the norm, then R1; rows of values R2 as well */
    NB_TURN_WRITE,      /* [.., d, K]: columns R1; of the output of attention, rows R2 before */
    NB_TURN_WRITE_BIAS, /* [d] */
    NB_TURN_VALUE_BIAS  /* [N] from first_value on, head by head */
};

struct nb_turn_entry {
    const struct nb_tensor *from;
    const char *name; /* in the rotated model */
    enum nb_turn turn;
    char norm[NB_NAME_MAX * 2]; /* READ: tensor whose weight goes in; empty: none */
    int64_t first_value;        /* READ, VALUE_BIAS: first row of values; -1: none */
    bool heads;                 /* WRITE: the columns are heads of values */
};

struct nb_turn_plan {
    struct nb_turn_entry *entries;
    size_t n;
};

/* One entry for every tensor that the rotated model has. Release in any case. NB_E_NOMEM. */
int nb_turn_plan_make(struct nb_turn_plan *p, const struct nb_model *model, struct nb_err *err);
void nb_turn_plan_release(struct nb_turn_plan *p);

#endif

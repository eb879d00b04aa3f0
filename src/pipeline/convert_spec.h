/* SPDX-License-Identifier: Apache-2.0
 *
 * convert_spec.h - what a matrix of one container is called in another, if that can be exact. Internal to pipeline/. */
#ifndef NB_PIPELINE_CONVERT_SPEC_H
#define NB_PIPELINE_CONVERT_SPEC_H

#include "checkpoint/checkpoint.h"

struct
    nb_convert_sizes { /* of the whole model, since a matrix smaller than a group hides the group's size */
    int64_t group; /* largest group of one row that is less than a row; 0: there is none */
    int64_t block_rows, block_cols; /* of blocks; 0: there are none */
    bool order;                     /* a matrix has its columns in another order */
};
void nb_convert_sizes_add(struct nb_convert_sizes *s, const struct nb_qmat *q);

struct nb_convert_choice {
    struct nb_qspec spec;
    bool order; /* with a group number per column */
};

/* How `to` holds q exactly. NB_E_SPEC tells why it cannot. Needs about the packed size from arena, since the packers
 * have the last word. */
int nb_convert_spec(struct nb_convert_choice *out, const struct nb_qmat *q,
                    const struct nb_convert_sizes *sizes, const struct nb_checkpoint *to,
                    struct nb_arena *arena, struct nb_err *err);

/* q under another spec: a view, that shares codes, planes and order. */
void nb_convert_view(struct nb_qmat *out, const struct nb_qmat *q, const struct nb_qspec *spec);

/* The same codes, scales, zeros, order, input scale? NB_E_FAIL names what differs. */
int nb_convert_compare(const struct nb_qmat *a, const struct nb_qmat *b, struct nb_err *err);

#endif

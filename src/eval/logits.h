/* SPDX-License-Identifier: Apache-2.0
 *
 * logits.h - rows of llama.cpp's base-logits file. Internal to eval/; opened through eval.h. */
#ifndef NB_EVAL_LOGITS_H
#define NB_EVAL_LOGITS_H

#include "eval/eval.h"

struct nb_eval_logits_shape {
    int64_t window, vocabulary, n_windows;
};

struct nb_eval_logits_shape nb_eval_logits_shape_of(const struct nb_eval_logits *l);
const int32_t *nb_eval_logits_ids(const struct nb_eval_logits *l); /* [n_windows * window] */
/* Are all rows of a window log-probabilities? NB_E_FORMAT names the row. */
int nb_eval_logits_check(const struct nb_eval_logits *l, int64_t window, struct nb_err *err);
/* Row `row` of a checked window as log-probabilities, [vocabulary]. */
void nb_eval_logits_row(const struct nb_eval_logits *l, int64_t window, int64_t row, float *out);
/* The window's pages are not needed any more. */
void nb_eval_logits_drop(const struct nb_eval_logits *l, int64_t window);

/* One row of the file from logits [v]; out has nb_eval_logits_row_bytes(v). Not finite: zeros. */
size_t nb_eval_logits_row_bytes(int64_t v);
void nb_eval_logits_encode(unsigned char *out, const float *logits, int64_t v);

/* Writer: PATH.tmp until committed. Rows are appended in the order of the plan. */
struct nb_eval_logits_out {
    int fd; /* -1: closed */
    uint64_t offset;
    char *path, *tmp;
};
/* plan of protocol LLAMACPP; writes the header and the text's own tokens. *w is filled also on error. */
int nb_eval_logits_create(struct nb_eval_logits_out *w, const char *path,
                          const struct nb_eval_plan *plan, int64_t vocabulary, struct nb_err *err);
int nb_eval_logits_append(struct nb_eval_logits_out *w, const void *rows, size_t bytes,
                          struct nb_err *err);
int nb_eval_logits_commit(struct nb_eval_logits_out *w, struct nb_err *err);
/* Frees; a file that was not committed goes. Safe on a zeroed struct with fd -1. */
void nb_eval_logits_out_release(struct nb_eval_logits_out *w);

#endif

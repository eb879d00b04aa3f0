/* SPDX-License-Identifier: Apache-2.0
 *
 * A base-logits file: no crash, and every row that passes the check is a row of log-probabilities. */
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "eval/logits.h"
#include "eval/row.h"

static void read_rows(const struct nb_eval_logits *l)
{
    struct nb_eval_logits_shape s = nb_eval_logits_shape_of(l);
    const int32_t *ids = nb_eval_logits_ids(l);
    float *row = nb_alloc((size_t)s.vocabulary, sizeof *row);
    if (!row) return;
    for (int64_t w = 0; w < s.n_windows; w++) {
        struct nb_err err;
        if (nb_eval_logits_check(l, w, &err)) {
            if (err.status != NB_E_FORMAT) abort();
            continue;
        }
        for (int64_t r = 0; r < s.window - 1 - s.window / 2; r++) {
            struct nb_eval_row out;
            nb_eval_logits_row(l, w, r, row);
            for (int64_t i = 0; i < s.vocabulary; i++) {
                if (!(row[i] <= 0.01F && row[i] >= -60)) abort();
            }
            nb_eval_row_llamacpp(&out, row, row, s.vocabulary, ids[w * s.window]);
            if (!isfinite(out.kld) || !out.same_top) abort();
        }
    }
    nb_free(row);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct nb_eval_logits *l;
    struct nb_err err;
    unsigned char *copy = nb_alloc(size + 1, 1); /* aligned, as a mapped file is */
    if (!copy) return 0;
    memcpy(copy, data, size);
    if (nb_eval_logits_parse(&l, (struct nb_span){copy, size}, "file", &err)) {
        if (!err.text[0]) abort();
    } else {
        read_rows(l);
        nb_eval_logits_close(l);
    }
    nb_free(copy);
    return 0;
}

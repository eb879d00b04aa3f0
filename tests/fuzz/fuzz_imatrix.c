/* SPDX-License-Identifier: Apache-2.0
 *
 * A .dat importance matrix: no crash; what is accepted is in order, finite and not negative. */
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "checkpoint/imatrix.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct nb_err err;
    struct nb_imatrix im;
    memset(&err, 0, sizeof err);
    int rc = nb_imatrix_parse_dat(&im, (struct nb_span){data, size}, "imatrix", &err);
    if (rc && !err.text[0]) abort();
    size_t values = 0;
    for (size_t i = 0; !rc && i < im.n; i++) {
        const struct nb_imatrix_entry *e = &im.entries[i];
        if (i && strcmp(im.entries[i - 1].name, e->name) >= 0) abort();
        values += (size_t)e->cols;
        for (int64_t k = 0; k < e->cols; k++) {
            if (!(e->sums[k] >= 0 && isfinite(e->sums[k]))) abort();
        }
    }
    if (values > size / 4) abort();
    nb_imatrix_release(&im);
    return 0;
}

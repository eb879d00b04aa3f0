/* SPDX-License-Identifier: Apache-2.0
 *
 * A linear of 4 x 6 as quant_method fp8 stores it: finite values, and the codes come back. The corpus comes from
 * make_fp8.py. */
#include <stdlib.h>
#include <string.h>

#include "one_module.h"

static void same_codes(const struct nb_model *m, const struct nb_qmat *q,
                       const struct nb_packed_tensor *t)
{
    (void)m;
    if (memcmp(t[0].data, q->codes, (size_t)(q->rows * q->cols))) abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    one_module_try(&(struct one_module){.checkpoint = &nb_checkpoint_fp8,
                                        .rows = 4,
                                        .cols = 6,
                                        .finite = true,
                                        .written = same_codes},
                   data, size);
    return 0;
}

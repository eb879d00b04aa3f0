/* SPDX-License-Identifier: Apache-2.0
 *
 * A linear of 4 x 24 as bitsandbytes stores it; written again, its codes are the same bytes. The corpus comes from
 * make_bnb.py. */
#include <stdlib.h>
#include <string.h>

#include "one_module.h"

static void same_codes(const struct nb_model *m, const struct nb_qmat *q,
                       const struct nb_packed_tensor *t)
{
    (void)q;
    const struct nb_tensor *weight = nb_module_tensor(m, "p", ".weight");
    if (memcmp(t[0].data, weight->data.data, weight->data.bytes)) abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    one_module_try(
        &(struct one_module){
            .checkpoint = &nb_checkpoint_bnb, .rows = 4, .cols = 24, .written = same_codes},
        data, size);
    return 0;
}

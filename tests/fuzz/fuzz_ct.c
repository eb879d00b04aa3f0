/* SPDX-License-Identifier: Apache-2.0
 *
 * One linear of 32 x 64 as compressed-tensors stores it. What was read is written or refused; that the bytes are the
 * file's is tests/golden/test_ct.c's business, since several layouts mean the same. The corpus comes from make_ct.py. */
#include "one_module.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    one_module_try(&(struct one_module){.checkpoint = &nb_checkpoint_ct, .rows = 32, .cols = 64},
                   data, size);
    return 0;
}

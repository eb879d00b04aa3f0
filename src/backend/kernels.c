/* SPDX-License-Identifier: Apache-2.0
 *
 * kernels.c - the table of weight kernels, fastest first. A new kernel is one file and one line
 * here. */
#include "backend/kernels.h"

static const struct nb_gemm_kernel *const table[] = {
    &nb_gemm_dense, &nb_gemm_int8, &nb_gemm_qmat, &nb_gemm_blocks, NULL,
};

const struct nb_gemm_kernel *const *nb_gemm_kernels(void)
{
    return table;
}

const struct nb_gemm_kernel *nb_gemm_kernel_find(const struct nb_weight *w, unsigned features)
{
    for (int i = 0; table[i]; i++) {
        if ((table[i]->features & ~features) == 0 && table[i]->supports(w)) return table[i];
    }
    return NULL;
}

/* SPDX-License-Identifier: Apache-2.0
 *
 * one_module.h - what the fuzz targets of checkpoint readers share: an input is a quantization config on one line, then
 * a safetensors file with the tensors of module "p". */
#ifndef NB_FUZZ_ONE_MODULE_H
#define NB_FUZZ_ONE_MODULE_H

#include "checkpoint/internal.h"

struct one_module {
    const struct nb_checkpoint *checkpoint;
    int64_t rows, cols;
    bool finite; /* weights that are read must be, not only numbers */
    /* What pack made of the matrix that was read; may be NULL. To abort when it is wrong. */
    void (*written)(const struct nb_model *m, const struct nb_qmat *q,
                    const struct nb_packed_tensor *t);
};

/* Reads the module, looks at its rows, packs it. Aborts on a value that is no number, on an error without a sentence,
 * and where read takes what check refuses. */
void one_module_try(const struct one_module *target, const uint8_t *data, size_t size);

#endif

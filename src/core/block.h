/* SPDX-License-Identifier: Apache-2.0
 *
 * block.h - weights in the packed blocks of a GGUF file, run where they lie.
 *
 * A block type is one constant; the table of them is numeric/block.h. A matrix in blocks is a view: rows
 * back to back, each a whole number of blocks. Source: GGUF specification, section 4. */
#ifndef NB_CORE_BLOCK_H
#define NB_CORE_BLOCK_H

#include <stddef.h>
#include <stdint.h>

struct nb_block_type {
    const char *name; /* "Q4_K" */
    int id;           /* ggml_type in files */
    int elems, bytes; /* per block */
    /* n elements (whole blocks) to f32, bit for bit what the reference decodes. blocks needs no
     * alignment. */
    void (*decode)(const void *blocks, float *out, int64_t n);
};

struct nb_blocks { /* [rows, cols]; borrowed */
    const struct nb_block_type *type;
    const unsigned char *data; /* NULL: none */
};

static inline size_t nb_block_row_bytes(const struct nb_block_type *t, int64_t cols)
{
    return (size_t)(cols / t->elems) * (size_t)t->bytes;
}

#endif

/* SPDX-License-Identifier: Apache-2.0
 *
 * block.h - the block types of GGUF files: the table, encoding, and the way to and from the hub.
 *
 * Bytes and values are the reference's: decoding bit for bit, encoding byte for byte on every instruction
 * set. Source: GGUF specification, sections 4, 5.1 to 5.5 and 9. Knows no file and no tensor name. */
#ifndef NB_NUMERIC_BLOCK_H
#define NB_NUMERIC_BLOCK_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "base/mem.h"
#include "core/block.h"
#include "core/qmat.h"

/* The table: F32, F16, BF16 (1 element per block) and every quantized type. NULL: not a type we know. The
 * name is taken in any case: "Q4_K", "q4_k". */
const struct nb_block_type *nb_block_find(const char *name);
const struct nb_block_type *nb_block_by_id(int id);
const struct nb_block_type *nb_block_at(int i); /* i-th of the table, NULL after the last */

bool nb_block_can_encode(const struct nb_block_type *t);
/* The type is so coarse that the reference refuses to write it without an importance matrix. */
bool nb_block_needs_importance(const struct nb_block_type *t);
/* The reference's choice of codes depends on the importance. */
bool nb_block_uses_importance(const struct nb_block_type *t);

/* One row: n elements (a multiple of t->elems) to n / t->elems blocks at out, as the reference writes them
 * with `importance` (of each column, >= 0; NULL: none). Rows are independent; some types look at the whole
 * row, so pieces of one give other bytes.
 * NB_E_SPEC: t cannot be encoded, or n does not fit. NB_E_NUMERIC: a value is not finite, an importance is
 * not in [0, 1e18], or a value or a scale made from the values does not fit the type (f16 ends at 65504); the
 * text names the column and the value. On error out is void. */
int nb_block_encode(const struct nb_block_type *t, const float *x, const float *importance,
                    int64_t n, void *out, struct nb_err *err);

/* ---- blocks and the hub ---- */

/* The hub's spec of a type whose grid it can say (not the types of vectors, not Q8_1, Q8_K, not floats).
 * False: none. */
bool nb_block_qspec(const struct nb_block_type *t, struct nb_qspec *spec);
/* The type that stores this spec exactly; NULL: none. */
const struct nb_block_type *nb_block_for_qspec(const struct nb_qspec *spec);

/* A matrix of blocks as codes and planes, memory from arena. nb_qmat_dequant_row then gives what t->decode
 * gives, bit for bit. NB_E_SPEC when the type has no spec or cols is not a multiple of t->elems, NB_E_NOMEM. */
int nb_block_to_qmat(const struct nb_blocks *b, int64_t rows, int64_t cols, struct nb_qmat *q,
                     struct nb_arena *arena, struct nb_err *err);
/* And back: the same bytes that nb_block_to_qmat read, rows [row0, row0 + rows) to out. The planes' codes and
 * supers are what is stored; values are not looked at. NB_E_SPEC when q is not of t's spec, NB_E_NUMERIC when
 * a super-scale is no finite f16. */
int nb_block_from_qmat(const struct nb_block_type *t, const struct nb_qmat *q, int64_t row0,
                       int64_t rows, void *out, struct nb_err *err);

#endif

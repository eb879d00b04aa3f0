/* SPDX-License-Identifier: Apache-2.0
 *
 * gguf_image.h - GGUF file images put together piece by piece, right or wrong. */
#ifndef TESTS_UNIT_CONTAINER_GGUF_IMAGE_H
#define TESTS_UNIT_CONTAINER_GGUF_IMAGE_H

#include <stddef.h>
#include <stdint.h>

#include "base/strbuf.h"

void gguf_u8(struct nb_strbuf *b, uint8_t v);
void gguf_u16(struct nb_strbuf *b, uint16_t v);
void gguf_u32(struct nb_strbuf *b, uint32_t v);
void gguf_u64(struct nb_strbuf *b, uint64_t v);
void gguf_f32(struct nb_strbuf *b, float v);
void gguf_text(struct nb_strbuf *b, const char *text); /* length and bytes */

/* Starts an image: magic, version, counts. */
void gguf_begin(struct nb_strbuf *b, uint32_t version, uint64_t n_tensors, uint64_t n_kvs);
void gguf_key(struct nb_strbuf *b, const char *key, uint32_t type); /* the value follows */
void gguf_array(struct nb_strbuf *b, const char *key, uint32_t elem, uint64_t count);
void gguf_info(struct nb_strbuf *b, const char *name, uint32_t n_dims, const int64_t *dims,
               int32_t type, uint64_t offset);
void gguf_pad(struct nb_strbuf *b, size_t align); /* zeros up to a multiple */
void gguf_zeros(struct nb_strbuf *b, size_t n);

/* One file with the metadata record "general.architecture" = "llama" and one F32 tensor "a.weight" of
 * four elements 1 2 3 4: the minimal file of the format description. */
void gguf_minimal(struct nb_strbuf *b);

#endif

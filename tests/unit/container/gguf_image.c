/* SPDX-License-Identifier: Apache-2.0 */
#include "gguf_image.h"

#include <string.h>

void gguf_u8(struct nb_strbuf *b, uint8_t v)
{
    nb_strbuf_add(b, &v, sizeof v);
}

void gguf_u16(struct nb_strbuf *b, uint16_t v)
{
    nb_strbuf_add(b, &v, sizeof v);
}

void gguf_u32(struct nb_strbuf *b, uint32_t v)
{
    nb_strbuf_add(b, &v, sizeof v);
}

void gguf_u64(struct nb_strbuf *b, uint64_t v)
{
    nb_strbuf_add(b, &v, sizeof v);
}

void gguf_f32(struct nb_strbuf *b, float v)
{
    nb_strbuf_add(b, &v, sizeof v);
}

void gguf_text(struct nb_strbuf *b, const char *text)
{
    gguf_u64(b, strlen(text));
    nb_strbuf_puts(b, text);
}

void gguf_begin(struct nb_strbuf *b, uint32_t version, uint64_t n_tensors, uint64_t n_kvs)
{
    nb_strbuf_init(b);
    nb_strbuf_puts(b, "GGUF");
    gguf_u32(b, version);
    gguf_u64(b, n_tensors);
    gguf_u64(b, n_kvs);
}

void gguf_key(struct nb_strbuf *b, const char *key, uint32_t type)
{
    gguf_text(b, key);
    gguf_u32(b, type);
}

void gguf_array(struct nb_strbuf *b, const char *key, uint32_t elem, uint64_t count)
{
    gguf_key(b, key, 9);
    gguf_u32(b, elem);
    gguf_u64(b, count);
}

void gguf_info(struct nb_strbuf *b, const char *name, uint32_t n_dims, const int64_t *dims,
               int32_t type, uint64_t offset)
{
    gguf_text(b, name);
    gguf_u32(b, n_dims);
    for (uint32_t i = 0; i < n_dims; i++) gguf_u64(b, (uint64_t)dims[i]);
    gguf_u32(b, (uint32_t)type);
    gguf_u64(b, offset);
}

void gguf_zeros(struct nb_strbuf *b, size_t n)
{
    for (size_t i = 0; i < n; i++) nb_strbuf_putc(b, 0);
}

void gguf_pad(struct nb_strbuf *b, size_t align)
{
    gguf_zeros(b, (align - b->len % align) % align);
}

void gguf_minimal(struct nb_strbuf *b)
{
    gguf_begin(b, 3, 1, 1);
    gguf_key(b, "general.architecture", 8);
    gguf_text(b, "llama");
    gguf_info(b, "a.weight", 1, (int64_t[]){4}, 0, 0);
    gguf_pad(b, 32);
    for (int i = 1; i <= 4; i++) gguf_f32(b, (float)i);
    gguf_pad(b, 32);
}

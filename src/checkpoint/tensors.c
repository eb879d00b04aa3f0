/* SPDX-License-Identifier: Apache-2.0
 *
 * tensors.c - all the tensors of a model's files, whatever the container. */
#include <stdlib.h>
#include <string.h>

#include "checkpoint/internal.h"

size_t nb_model_tensor_count(const struct nb_model *m)
{
    return m->gguf ? nb_gguf_count(m->gguf) : nb_safetensors_count(m->tensors);
}

void nb_model_tensor_at(const struct nb_model *m, size_t i, struct nb_model_tensor *out)
{
    if (!m->gguf) {
        const struct nb_tensor *t = nb_safetensors_at(m->tensors, i);
        *out = (struct nb_model_tensor){.name = t->name,
                                        .type = nb_dtype_name(t->dtype),
                                        .file = nb_safetensors_file_of(m->tensors, t),
                                        .rank = t->rank,
                                        .data = t->data};
        memcpy(out->shape, t->shape, sizeof out->shape);
        return;
    }
    const struct nb_gguf_tensor *t = nb_gguf_at(m->gguf, i);
    *out = (struct nb_model_tensor){.name = t->name,
                                    .type = t->type->name,
                                    .file = nb_gguf_part_name(m->gguf, t->part),
                                    .rank = t->n_dims,
                                    .data = t->data};
    for (int k = 0; k < t->n_dims; k++) out->shape[k] = t->ne[t->n_dims - 1 - k];
}

uint64_t nb_model_bytes(const struct nb_model *m)
{
    return m->gguf ? nb_gguf_bytes(m->gguf) : nb_safetensors_bytes(m->tensors);
}

size_t nb_model_file_count(const struct nb_model *m)
{
    return m->gguf ? nb_gguf_part_count(m->gguf) : nb_safetensors_file_count(m->tensors);
}

/* Does `name` belong to layer l: "<prefix>l.", or with l -1 to none? */
static bool in_layer(const char *name, const char *prefix, size_t head, int64_t l)
{
    bool inside = !strncmp(name, prefix, head) && name[head] >= '0' && name[head] <= '9';
    char *end;
    if (l < 0 || !inside) return l < 0 && !inside;
    return strtoll(name + head, &end, 10) == l && *end == '.';
}

void nb_model_drop_layer(const struct nb_model *m, int64_t l)
{
    const char *prefix = m->gguf ? "blk." : m->arch.layer_prefix;
    size_t head = m->gguf ? strlen(prefix) : strcspn(prefix, "%");
    for (size_t i = 0; i < nb_model_tensor_count(m); i++) {
        if (m->gguf) {
            const struct nb_gguf_tensor *t = nb_gguf_at(m->gguf, i);
            if (in_layer(t->name, prefix, head, l)) nb_gguf_drop(m->gguf, t);
        } else {
            const struct nb_tensor *t = nb_safetensors_at(m->tensors, i);
            if (in_layer(t->name, prefix, head, l)) nb_safetensors_drop(m->tensors, t);
        }
    }
}

bool nb_model_is_quantized(const struct nb_model *m)
{
    for (size_t i = 0; m->gguf && i < nb_gguf_count(m->gguf); i++) {
        if (nb_gguf_at(m->gguf, i)->type->elems > 1) return true;
    }
    return m->quant_config != NULL;
}

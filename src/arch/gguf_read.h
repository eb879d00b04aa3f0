/* SPDX-License-Identifier: Apache-2.0
 *
 * gguf_read.h - GGUF metadata while it becomes a config.json; inside arch/ only. */
#ifndef NB_ARCH_GGUF_READ_H
#define NB_ARCH_GGUF_READ_H

#include "arch/family.h"
#include "arch/gguf.h"

#define NB_ARCH_GGUF_META "GGUF metadata" /* what messages call the source */

struct nb_arch_gguf_reading {
    const json_t *metadata;
    const struct nb_arch_gguf_facts *facts;
    const struct nb_arch_gguf_map *map;
    int64_t n_layers, n_heads, head_dim, rotary_dim, context; /* as far as read */
};

/* Keys of the architecture: key is what follows "llama.". Without `required` an absent key leaves *out
 * alone. Reals are the shortest decimals that are the same f32, so that 1e-6 stays 1e-6. size: from 1
 * to limit. */
int nb_arch_gguf_get_size(const struct nb_arch_gguf_reading *in, const char *key, bool required,
                          int64_t limit, int64_t *out, struct nb_err *err);
int nb_arch_gguf_get_real(const struct nb_arch_gguf_reading *in, const char *key, bool required,
                          double *out, struct nb_err *err);
int nb_arch_gguf_get_string(const struct nb_arch_gguf_reading *in, const char *key, bool required,
                            const char **out, struct nb_err *err);
const json_t *nb_arch_gguf_get(const struct nb_arch_gguf_reading *in, const char *key);

/* The shortest decimal that is the same f32; v itself where it is none. */
double nb_arch_gguf_shortest(double v);
/* config[key] = value, which is taken over; a NULL value is no memory. */
int nb_arch_gguf_put(json_t *config, const char *key, json_t *value, struct nb_err *err);

/* rope_theta, rope_scaling, rope_local_base_freq. */
int nb_arch_gguf_read_rope(const struct nb_arch_gguf_reading *in, json_t *config,
                           struct nb_err *err);
/* sliding_window and layer_types. */
int nb_arch_gguf_read_windows(const struct nb_arch_gguf_reading *in, json_t *config,
                              struct nb_err *err);

/* Parameters of llama3 rope with rope->theta whose n = head_dim/2 factors are freqs; false when there
 * are none. */
bool nb_arch_gguf_find_llama3(const float *freqs, int64_t n, struct nb_rope *rope);

#endif

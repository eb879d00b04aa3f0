/* SPDX-License-Identifier: Apache-2.0
 *
 * A config.json: no crash, and what is accepted can be asked about: sizes multiply, names have
 * shapes, rotary frequencies are finite. */
#include <math.h>
#include <stdint.h>
#include <stdlib.h>

#include "arch/arch.h"

static void ask(const struct nb_arch *a)
{
    double inv_freq[512], scaling;
    static const int64_t lengths[] = {1, 4096, INT32_MAX};
    for (int i = 0; i < (a->local_rope ? 6 : 3); i++) {
        const struct nb_rope *rope = i < 3 ? &a->rope : &a->rope_local;
        nb_rope_frequencies(a, rope, lengths[i % 3], inv_freq, &scaling);
        if (!(scaling > 0) || !isfinite(scaling)) abort();
        for (int64_t j = 0; j < a->rotary_dim / 2; j++) {
            if (!isfinite(inv_freq[j])) abort();
        }
    }
    if (nb_arch_parameters(a) <= 0) abort();
    for (int i = 0; i < a->n_linears; i++) {
        char name[NB_NAME_MAX * 2];
        nb_arch_name(a, a->n_layers - 1, a->linears[i].name, name);
        if (nb_arch_is_ignorable(a, name)) abort();
    }
    int rank;
    int64_t shape[2];
    if (!nb_arch_expected_shape(a, a->embed_name, &rank, shape) || rank != 2 ||
        shape[0] != a->vocab_size)
        abort();
    for (int64_t l = 0; l < a->n_layers; l++) {
        if (a->window[l] < 0) abort();
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct nb_err err;
    json_t *config =
        nb_json_parse((const char *)data, size, NB_JSON_MAX_DEPTH, "config.json", &err);
    if (!config) return 0;
    struct nb_arch arch;
    if (!nb_arch_from_config(&arch, config, &err)) {
        ask(&arch);
        nb_arch_release(&arch);
    } else if (!err.text[0]) {
        abort();
    }
    json_decref(config);
    return 0;
}

/* SPDX-License-Identifier: Apache-2.0
 *
 * GGUF metadata as JSON, with what the tensors say beside it: no crash, every refusal has its
 * sentence, and what is accepted comes back the same after another trip through metadata. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "arch/gguf.h"

enum { MAX_FREQS = 64 };

static bool fill(struct nb_arch *arch, const json_t *metadata,
                 const struct nb_arch_gguf_facts *facts)
{
    struct nb_err err = {0};
    json_t *config;
    bool good = nb_arch_gguf_config(metadata, facts, &config, &err) == 0;
    if (good != (config != NULL)) abort();
    if (good) {
        good = nb_arch_from_config(arch, config, &err) == 0;
        json_decref(config);
    }
    if (!good && !err.text[0]) abort();
    return good;
}

static json_t *as_object(const json_t *list)
{
    json_t *object = json_object();
    for (size_t i = 0; i < json_array_size(list); i++) {
        const json_t *e = json_array_get(list, i), *v = json_object_get(e, "value");
        const char *key = json_string_value(json_object_get(e, "key"));
        if (!json_is_real(v)) json_object_set(object, key, (json_t *)v);
        else json_object_set_new(object, key, json_real((double)(float)json_real_value(v)));
    }
    return object;
}

static void write_and_read(const struct nb_arch *arch, struct nb_arch_gguf_facts facts)
{
    struct nb_err err = {0};
    struct nb_arch again;
    json_t *list, *notes;
    float freqs[1024], shorts[1024], longs[1024];
    if (nb_arch_gguf_metadata(arch, &list, &notes, &err)) {
        if (!err.text[0] || list || notes) abort();
        return;
    }
    facts.n_rope_freqs = nb_arch_gguf_rope_freqs(arch, freqs);
    facts.rope_freqs = facts.n_rope_freqs ? freqs : NULL;
    facts.rope_short = facts.rope_long = NULL;
    facts.n_rope_short = facts.n_rope_long = 0;
    if (arch->rope.kind == NB_ROPE_LONGROPE) {
        if (!nb_arch_gguf_rope_factors(arch, 0, shorts) ||
            !nb_arch_gguf_rope_factors(arch, 1, longs))
            abort();
        facts.rope_short = shorts;
        facts.rope_long = longs;
        facts.n_rope_short = facts.n_rope_long = arch->rotary_dim / 2;
    }
    json_t *metadata = as_object(list);
    if (fill(&again, metadata, &facts)) {
        if (again.n_layers != arch->n_layers || again.head_dim != arch->head_dim) abort();
        for (int64_t l = 0; l < arch->n_layers; l++) {
            if (again.window[l] != arch->window[l]) abort();
        }
        nb_arch_release(&again);
    }
    json_decref(metadata);
    json_decref(list);
    json_decref(notes);
}

static void names(const struct nb_arch *arch)
{
    struct nb_arch_gguf_tensor there, back;
    for (int i = 0; i < arch->n_linears; i++) {
        char inside[NB_NAME_MAX + 8], name[NB_NAME_MAX * 2];
        snprintf(inside, sizeof inside, "%s.weight", arch->linears[i].name);
        nb_arch_name(arch, arch->n_layers - 1, inside, name);
        if (!nb_arch_gguf_from_hf(arch, name, &there) ||
            !nb_arch_gguf_to_hf(arch, there.name, &back) || strcmp(back.name, name) != 0)
            abort();
    }
}

static int64_t numbers(const json_t *list, float out[MAX_FREQS])
{
    size_t n = json_array_size(list);
    if (n > MAX_FREQS) n = MAX_FREQS;
    for (size_t i = 0; i < n; i++) out[i] = (float)json_number_value(json_array_get(list, i));
    return (int64_t)n;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct nb_err err;
    json_t *input = nb_json_parse((const char *)data, size, NB_JSON_MAX_DEPTH, "input", &err);
    if (!input) return 0;
    float freqs[MAX_FREQS], shorts[MAX_FREQS], longs[MAX_FREQS];
    int64_t flags = json_integer_value(json_object_get(input, "flags"));
    struct nb_arch_gguf_facts facts = {
        .vocab_size = json_integer_value(json_object_get(input, "vocab_size")),
        .has_output = flags & 1,
        .has_qkv_bias = flags & 2,
        .has_o_bias = flags & 4,
        .has_mlp_bias = flags & 8,
        .dtype = flags & 16 ? "float16" : NULL,
    };
    facts.n_rope_freqs = numbers(json_object_get(input, "rope_freqs"), freqs);
    facts.n_rope_short = numbers(json_object_get(input, "rope_short"), shorts);
    facts.n_rope_long = numbers(json_object_get(input, "rope_long"), longs);
    if (facts.n_rope_freqs) facts.rope_freqs = freqs;
    if (facts.n_rope_short) facts.rope_short = shorts;
    if (facts.n_rope_long) facts.rope_long = longs;
    struct nb_arch arch;
    if (fill(&arch, json_object_get(input, "metadata"), &facts)) {
        names(&arch);
        write_and_read(&arch, facts);
        nb_arch_release(&arch);
    }
    json_decref(input);
    return 0;
}

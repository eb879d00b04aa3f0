/* SPDX-License-Identifier: Apache-2.0
 *
 * gguf_choice.c - see gguf_choice.h. */
#include "pipeline/gguf_choice.h"

#include <string.h>

#include "numeric/block.h"

static int find_type(const char *name, const char *option, const struct nb_block_type **out,
                     struct nb_err *err)
{
    *out = NULL;
    if (!name) return 0;
    *out = nb_block_find(name);
    if (*out && nb_block_can_encode(*out)) return 0;
    nb_fail(err, NB_E_USAGE, "%s: '%s' is not a type that can be written", option, name);
    return nb_err_hint(err, "for example Q4_K, Q6_K, Q8_0, IQ4_XS, F16, BF16, F32");
}

static int find_overrides(struct nb_gguf_choice *c, const struct nb_gguf_opts *o,
                          struct nb_err *err)
{
    const size_t n = o->n_tensor_types;
    c->overrides = nb_calloc(n ? n : 1, sizeof *c->overrides);
    c->patterns = nb_calloc(n ? n : 1, sizeof *c->patterns);
    if (!c->overrides || !c->patterns)
        return nb_fail(err, NB_E_NOMEM, "no memory for %zu tensor types", n);
    for (size_t i = 0; i < n; i++) {
        const char *word = o->tensor_types[i], *equals = strrchr(word, '=');
        if (!equals || equals == word) {
            return nb_fail(err, NB_E_USAGE, "tensor type: expected PATTERN=TYPE, found '%s'", word);
        }
        c->patterns[c->n_patterns++] = nb_xstrdup(word);
        c->patterns[i][equals - word] = '\0';
        c->overrides[i].pattern = c->patterns[i];
        int rc = find_type(equals + 1, "tensor type", &c->overrides[i].type, err);
        if (rc) return rc;
    }
    return 0;
}

static const char *float_scheme(const struct nb_model *m)
{
    return m->arch.dtype == NB_F16 ? "F16" : m->arch.dtype == NB_F32 ? "F32" : "BF16";
}

int nb_gguf_choice_make(struct nb_gguf_choice *c, const struct nb_gguf_opts *o,
                        const struct nb_model *model, struct nb_err *err)
{
    *c = (struct nb_gguf_choice){0};
    struct nb_gguf_rules *rules = &c->rules;
    const char *scheme = o->scheme ? o->scheme : float_scheme(model);
    rules->preset = nb_gguf_preset_find(scheme);
    if (!rules->preset) {
        char names[400];
        nb_gguf_preset_names(names, sizeof names);
        return nb_fail(err, NB_E_USAGE, "scheme '%s' is not known; possible: %s", scheme, names);
    }
    int rc = find_overrides(c, o, err);
    if (!rc) rc = find_type(o->output_type, "output type", &rules->output, err);
    if (!rc) rc = find_type(o->embedding_type, "embedding type", &rules->embedding, err);
    rules->overrides = c->overrides;
    rules->n_overrides = o->n_tensor_types;
    rules->pure = o->pure;
    return rc;
}

void nb_gguf_choice_release(struct nb_gguf_choice *c)
{
    for (size_t i = 0; i < c->n_patterns; i++) nb_free(c->patterns[i]);
    nb_free(c->patterns);
    nb_free(c->overrides);
    *c = (struct nb_gguf_choice){0};
}

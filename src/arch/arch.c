/* SPDX-License-Identifier: Apache-2.0
 *
 * arch.c - the table of families, and questions about a filled struct nb_arch: names, shapes,
 * sizes. */
#include "arch/arch.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "arch/family.h"
#include "base/mem.h"
#include "base/strbuf.h"

static const struct nb_arch_family *const families[] = {
    &nb_arch_llama,  &nb_arch_mistral,     &nb_arch_qwen2,  &nb_arch_qwen3,
    &nb_arch_gemma2, &nb_arch_gemma3_text, &nb_arch_gemma3,
};

enum { N_FAMILIES = sizeof families / sizeof *families };

static const char *const known_types[N_FAMILIES + 1] = {"llama",  "mistral",     "qwen2",  "qwen3",
                                                        "gemma2", "gemma3_text", "gemma3", NULL};

const char *const *nb_arch_known_types(void)
{
    return known_types;
}

static int unknown_type(const char *model_type, struct nb_err *err)
{
    struct nb_strbuf list;
    nb_strbuf_init(&list);
    for (int i = 0; i < N_FAMILIES; i++)
        nb_strbuf_printf(&list, "%s%s", i ? ", " : "", known_types[i]);
    nb_fail(err, NB_E_SPEC, NB_CONFIG ": model_type '%.40s' is not known, expected one of: %s",
            model_type, nb_strbuf_cstr(&list));
    nb_strbuf_release(&list);
    return NB_E_SPEC;
}

int nb_arch_from_config(struct nb_arch *arch, const json_t *config, struct nb_err *err)
{
    memset(arch, 0, sizeof *arch);
    if (!json_is_object(config)) {
        return nb_fail(err, NB_E_FORMAT, NB_CONFIG ": expected an object, found %s",
                       nb_json_type_name(config));
    }
    const char *model_type = NULL;
    int rc = nb_json_get_string(config, "model_type", true, &model_type, NB_CONFIG, err);
    if (rc) return rc;
    for (int i = 0; i < N_FAMILIES; i++) {
        if (strcmp(families[i]->model_type, model_type) != 0) continue;
        snprintf(arch->model_type, sizeof arch->model_type, "%s", model_type);
        rc = families[i]->fill(arch, config, err);
        if (rc) nb_arch_release(arch);
        return rc;
    }
    return unknown_type(model_type, err);
}

const struct nb_arch_family *nb_arch_family_of(const struct nb_arch *arch)
{
    int i = 0;
    while (strcmp(families[i]->model_type, arch->model_type) != 0) i++;
    return families[i];
}

const struct nb_arch_family *nb_arch_family_by_gguf(const char *architecture)
{
    for (int i = 0; i < N_FAMILIES; i++) { /* llama stands before mistral, which shares its name */
        if (strcmp(families[i]->gguf.architecture, architecture) == 0) return families[i];
    }
    return NULL;
}

void nb_arch_list_gguf(struct nb_strbuf *list)
{
    for (int i = 0; i < N_FAMILIES; i++) {
        const char *name = families[i]->gguf.architecture;
        if (nb_arch_family_by_gguf(name) == families[i])
            nb_strbuf_printf(list, "%s%s", i ? ", " : "", name);
    }
}

void nb_arch_release(struct nb_arch *arch)
{
    nb_free(arch->window);
    arch->window = NULL;
}

void nb_arch_name(const struct nb_arch *arch, int64_t l, const char *name,
                  char out[NB_NAME_MAX * 2])
{
    /* The prefix is data, not a format string to trust blindly: split it at its one %d. */
    const char *mark = strstr(arch->layer_prefix, "%d");
    int before = (int)(mark - arch->layer_prefix);
    snprintf(out, NB_NAME_MAX * 2, "%.*s%" PRId64 "%s%.95s", before, arch->layer_prefix, l,
             mark + 2, name);
}

bool nb_arch_uses_local_rope(const struct nb_arch *arch, int64_t l)
{
    return arch->local_rope && arch->window[l] > 0;
}

const struct nb_arch_linear *nb_arch_linear_of(const struct nb_arch *arch, enum nb_role role)
{
    for (int i = 0; i < arch->n_linears; i++) {
        if (arch->linears[i].role == role) return &arch->linears[i];
    }
    return NULL;
}

int64_t nb_arch_parameters(const struct nb_arch *arch)
{
    int64_t layer = (arch->post_norm ? 4 : 2) * arch->hidden_size;
    if (arch->qk_norm) layer += 2 * arch->head_dim;
    for (int i = 0; i < arch->n_linears; i++) {
        const struct nb_arch_linear *lin = &arch->linears[i];
        layer += lin->rows * lin->cols + (lin->bias ? lin->rows : 0);
    }
    int64_t embed = arch->vocab_size * arch->hidden_size;
    return arch->n_layers * layer + embed * (arch->tie_word_embeddings ? 1 : 2) + arch->hidden_size;
}

const char *nb_arch_inside_layer(const char *prefix, int64_t n_layers, const char *name,
                                 int64_t *layer)
{
    const char *mark = strstr(prefix, "%d");
    size_t before = (size_t)(mark - prefix);
    if (strncmp(name, prefix, before) != 0) return NULL;
    const char *p = name + before;
    int64_t l = 0;
    int digits = 0;
    for (; *p >= '0' && *p <= '9'; p++, digits++) {
        if (digits > 5 || (digits == 1 && l == 0)) return NULL; /* too long, or a leading zero */
        l = l * 10 + (*p - '0');
    }
    if (!digits || l >= n_layers) return NULL;
    *layer = l;
    size_t after = strlen(mark + 2);
    return strncmp(p, mark + 2, after) == 0 ? p + after : NULL;
}

static bool vector(int64_t n, int *rank, int64_t shape[2])
{
    *rank = 1;
    shape[0] = n;
    shape[1] = 1;
    return true;
}

static bool matrix(int64_t rows, int64_t cols, int *rank, int64_t shape[2])
{
    *rank = 2;
    shape[0] = rows;
    shape[1] = cols;
    return true;
}

static bool same(const char *a, const char *b)
{
    return *b && strcmp(a, b) == 0;
}

bool nb_arch_expected_shape(const struct nb_arch *arch, const char *name, int *rank,
                            int64_t shape[2])
{
    if (same(name, arch->embed_name) || same(name, arch->head_name)) {
        return matrix(arch->vocab_size, arch->hidden_size, rank, shape);
    }
    if (same(name, arch->norm_name)) return vector(arch->hidden_size, rank, shape);
    int64_t layer;
    const char *rest = nb_arch_inside_layer(arch->layer_prefix, arch->n_layers, name, &layer);
    if (!rest) return false;
    if (same(rest, arch->attn_norm_name) || same(rest, arch->mlp_norm_name) ||
        same(rest, arch->post_attn_norm_name) || same(rest, arch->post_mlp_norm_name)) {
        return vector(arch->hidden_size, rank, shape);
    }
    if (same(rest, arch->q_norm_name) || same(rest, arch->k_norm_name)) {
        return vector(arch->head_dim, rank, shape);
    }
    for (int i = 0; i < arch->n_linears; i++) {
        const struct nb_arch_linear *lin = &arch->linears[i];
        size_t n = strlen(lin->name);
        if (strncmp(rest, lin->name, n) != 0) continue;
        if (strcmp(rest + n, ".weight") == 0) return matrix(lin->rows, lin->cols, rank, shape);
        if (lin->bias && strcmp(rest + n, ".bias") == 0) return vector(lin->rows, rank, shape);
    }
    return false;
}

bool nb_arch_is_other_part(const struct nb_arch *arch, const char *name)
{
    for (const char *const *p = arch->other_parts; p && *p; p++) {
        if (strncmp(name, *p, strlen(*p)) == 0) return true;
    }
    return false;
}

bool nb_arch_is_ignorable(const struct nb_arch *arch, const char *name)
{
    /* Caches that older savers stored beside the weights; all can be computed from the config. */
    static const char *const endings[] = {
        "rotary_emb.inv_freq",   "rotary_emb.original_inv_freq",
        "rotary_emb.cos_cached", "rotary_emb.sin_cached",
        "attn.masked_bias",      "attn.bias",
    };
    int rank;
    int64_t shape[2];
    if (nb_arch_expected_shape(arch, name, &rank, shape)) return false;
    size_t length = strlen(name);
    for (size_t i = 0; i < sizeof endings / sizeof *endings; i++) {
        size_t n = strlen(endings[i]);
        if (length < n || strcmp(name + length - n, endings[i]) != 0) continue;
        if (length == n || name[length - n - 1] == '.' || name[length - n - 1] == '_') return true;
    }
    return false;
}

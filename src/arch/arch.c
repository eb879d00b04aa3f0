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
    &nb_arch_llama,       &nb_arch_mistral, &nb_arch_qwen2,     &nb_arch_qwen3,     &nb_arch_gemma2,
    &nb_arch_gemma3_text, &nb_arch_gemma3,  &nb_arch_smollm3,   &nb_arch_phi3,      &nb_arch_olmo2,
    &nb_arch_gpt2,        &nb_arch_mixtral, &nb_arch_qwen2_moe, &nb_arch_qwen3_moe,
};

enum { N_FAMILIES = sizeof families / sizeof *families };

static const char *const known_types[N_FAMILIES + 1] = {
    "llama", "mistral", "qwen2", "qwen3",   "gemma2",    "gemma3_text", "gemma3", "smollm3",
    "phi3",  "olmo2",   "gpt2",  "mixtral", "qwen2_moe", "qwen3_moe",   NULL};

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
        const char *own = families[i]->gguf.architecture;
        if (own && strcmp(own, architecture) == 0) return families[i];
    }
    return NULL;
}

void nb_arch_list_gguf(struct nb_strbuf *list)
{
    for (int i = 0; i < N_FAMILIES; i++) {
        const char *name = families[i]->gguf.architecture;
        if (name && nb_arch_family_by_gguf(name) == families[i])
            nb_strbuf_printf(list, "%s%s", i ? ", " : "", name);
    }
}

void nb_arch_release(struct nb_arch *arch)
{
    nb_free(arch->window);
    nb_free(arch->no_rope);
    nb_free(arch->rope.short_factor);
    nb_free(arch->rope.long_factor);
    nb_free(arch->rope_local.short_factor);
    nb_free(arch->rope_local.long_factor);
    arch->window = NULL;
    arch->no_rope = NULL;
    arch->rope.short_factor = arch->rope.long_factor = NULL;
    arch->rope_local.short_factor = arch->rope_local.long_factor = NULL;
    nb_arch_moe_release(arch);
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

bool nb_arch_uses_rope(const struct nb_arch *arch, int64_t l)
{
    return arch->rotary_dim > 0 && !(arch->no_rope && arch->no_rope[l]);
}

int64_t nb_arch_qk_norm_width(const struct nb_arch *arch, bool key)
{
    int64_t heads = key ? arch->n_kv_heads : arch->n_heads;
    return arch->qk_norm_whole ? heads * arch->head_dim : arch->head_dim;
}

void nb_arch_drop_prefix(struct nb_arch *arch)
{
    char *const names[] = {arch->layer_prefix,   arch->embed_name, arch->norm_name,
                           arch->norm_bias_name, arch->head_name,  arch->position_name};
    const size_t n = strlen(arch->optional_prefix);
    for (size_t i = 0; n && i < sizeof names / sizeof *names; i++) {
        if (strncmp(names[i], arch->optional_prefix, n) == 0)
            memmove(names[i], names[i] + n, strlen(names[i] + n) + 1);
    }
    arch->optional_prefix[0] = '\0';
}

const struct nb_arch_linear *nb_arch_layer_linears(const struct nb_arch *arch, int64_t l, int *n)
{
    const bool experts = nb_arch_has_experts(arch, l);
    *n = experts ? arch->moe->n_linears : arch->n_linears;
    return experts ? arch->moe->linears : arch->linears;
}

int nb_arch_count_linears(const struct nb_arch *arch, int64_t l)
{
    int n;
    nb_arch_layer_linears(arch, l, &n);
    return n;
}

int64_t nb_arch_first_linear(const struct nb_arch *arch, int64_t l)
{
    return arch->moe ? arch->moe->first[l] : l * arch->n_linears;
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
    const int64_t d = arch->hidden_size;
    int64_t norms = 0, sum = d;
    if (*arch->attn_norm_name) norms += d;
    if (*arch->mlp_norm_name) norms += d;
    if (arch->post_norm) norms += 2 * d;
    if (arch->layer_norm) {
        norms += 2 * d;
        sum += d;
    }
    if (arch->qk_norm)
        norms += nb_arch_qk_norm_width(arch, false) + nb_arch_qk_norm_width(arch, true);
    if (*arch->position_name) sum += arch->max_position * d;
    for (int64_t l = 0; l < arch->n_layers; l++) {
        int n;
        const struct nb_arch_linear *lin = nb_arch_layer_linears(arch, l, &n);
        sum += norms;
        if (nb_arch_has_experts(arch, l))
            sum += (arch->moe->n_experts + !!arch->moe->shared_size) * d;
        for (int i = 0; i < n; i++)
            sum += lin[i].rows * lin[i].cols + (lin[i].bias ? lin[i].rows : 0);
    }
    int64_t embed = arch->vocab_size * arch->hidden_size;
    return sum + embed * (arch->tie_word_embeddings ? 1 : 2);
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
    if (same(name, arch->position_name))
        return matrix(arch->max_position, arch->hidden_size, rank, shape);
    if (same(name, arch->norm_name) || same(name, arch->norm_bias_name))
        return vector(arch->hidden_size, rank, shape);
    int64_t layer;
    const char *rest = nb_arch_inside_layer(arch->layer_prefix, arch->n_layers, name, &layer);
    if (!rest) return false;
    if (same(rest, arch->attn_norm_name) || same(rest, arch->mlp_norm_name) ||
        same(rest, arch->attn_norm_bias_name) || same(rest, arch->mlp_norm_bias_name) ||
        same(rest, arch->post_attn_norm_name) || same(rest, arch->post_mlp_norm_name)) {
        return vector(arch->hidden_size, rank, shape);
    }
    if (same(rest, arch->q_norm_name))
        return vector(nb_arch_qk_norm_width(arch, false), rank, shape);
    if (same(rest, arch->k_norm_name))
        return vector(nb_arch_qk_norm_width(arch, true), rank, shape);
    if (nb_arch_has_experts(arch, layer)) {
        if (same(rest, arch->moe->router_name))
            return matrix(arch->moe->n_experts, arch->hidden_size, rank, shape);
        if (same(rest, arch->moe->shared_gate_name))
            return matrix(1, arch->hidden_size, rank, shape);
    }
    int n_linears;
    const struct nb_arch_linear *linears = nb_arch_layer_linears(arch, layer, &n_linears);
    for (int i = 0; i < n_linears; i++) {
        const struct nb_arch_linear *lin = &linears[i];
        size_t n = strlen(lin->name);
        if (strncmp(rest, lin->name, n) != 0) continue;
        if (strcmp(rest + n, ".weight") == 0) {
            return lin->transposed ? matrix(lin->cols, lin->rows, rank, shape)
                                   : matrix(lin->rows, lin->cols, rank, shape);
        }
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

/* SPDX-License-Identifier: Apache-2.0
 *
 * gguf.c - tensors in GGUF's words: names both ways, rows of q and k, the factors of Llama 3's rope.
 *
 * llama.cpp rotates neighbouring rows of architecture llama, Hugging Face a row with the one half a
 * head further on; so the rows of q and k change places, and nothing else does. The trap in the names
 * is post_attention_layernorm: before the MLP in most families, after attention in Gemma. Roles in
 * struct nb_arch keep them apart. */
#include "arch/gguf.h"

#include <stdio.h>
#include <string.h>

#include "arch/family.h"

static const char block_prefix[] = "blk.%d.";

const char *nb_arch_gguf_architecture(const struct nb_arch *arch)
{
    return nb_arch_family_of(arch)->gguf.architecture;
}

/* ---- names ---- */

struct pair { /* inside a layer, or of the whole model */
    const char *hf, *gguf;
};

enum { N_NORMS = 8, N_WHOLE = 5 };

static void norm_names(const struct nb_arch *a, struct pair out[N_NORMS])
{
    const struct pair names[N_NORMS] = {
        {a->attn_norm_name, "attn_norm.weight"},
        {a->post_attn_norm_name, "post_attention_norm.weight"},
        {a->mlp_norm_name, "ffn_norm.weight"},
        {a->post_mlp_norm_name, "post_ffw_norm.weight"},
        {a->q_norm_name, "attn_q_norm.weight"},
        {a->k_norm_name, "attn_k_norm.weight"},
        {a->attn_norm_bias_name, "attn_norm.bias"},
        {a->mlp_norm_bias_name, "ffn_norm.bias"},
    };
    memcpy(out, names, sizeof names);
}

static void whole_names(const struct nb_arch *a, struct pair out[N_WHOLE])
{
    const struct pair names[N_WHOLE] = {
        {a->embed_name, "token_embd.weight"},
        {a->position_name, "position_embd.weight"},
        {a->norm_name, "output_norm.weight"},
        {a->norm_bias_name, "output_norm.bias"},
        {a->tie_word_embeddings ? "" : a->head_name, "output.weight"},
    };
    memcpy(out, names, sizeof names);
}

static const char *linear_name(enum nb_role role)
{
    switch (role) {
    case NB_ROLE_Q: return "attn_q";
    case NB_ROLE_K: return "attn_k";
    case NB_ROLE_V: return "attn_v";
    case NB_ROLE_O: return "attn_output";
    case NB_ROLE_GATE: return "ffn_gate";
    case NB_ROLE_UP: return "ffn_up";
    case NB_ROLE_DOWN: return "ffn_down";
    case NB_ROLE_QKV: return "attn_qkv";
    case NB_ROLE_GATE_UP: return "ffn_up";
    case NB_ROLE_COUNT: break;
    }
    return "";
}

static bool same(const char *a, const char *b)
{
    return *b && strcmp(a, b) == 0;
}

static void set_norm(const struct nb_arch *a, struct nb_arch_gguf_tensor *out)
{
    out->change = a->norm_offset != 0 ? NB_ARCH_GGUF_ADD_ONE : NB_ARCH_GGUF_AS_IS;
    out->heads = 0;
}

static void set_linear(const struct nb_arch *a, enum nb_role role, struct nb_arch_gguf_tensor *out)
{
    bool rotated = role == NB_ROLE_Q || role == NB_ROLE_K;
    out->change = NB_ARCH_GGUF_AS_IS;
    out->heads = 0;
    if (!rotated || !nb_arch_family_of(a)->gguf.permute) return;
    out->change = NB_ARCH_GGUF_PERMUTE_ROWS;
    out->heads = role == NB_ROLE_Q ? a->n_heads : a->n_kv_heads;
}

/* name is `base`.weight, or `base`.bias where the linear has one: which ending, or NULL. */
static const char *ending_of(const char *name, const char *base, bool bias)
{
    size_t n = strlen(base);
    if (strncmp(name, base, n) != 0) return NULL;
    if (strcmp(name + n, ".weight") == 0) return ".weight";
    return bias && strcmp(name + n, ".bias") == 0 ? ".bias" : NULL;
}

/* One direction or the other: the tables are the same. */
static bool translate(const struct nb_arch *a, const char *name, bool to_hf,
                      struct nb_arch_gguf_tensor *out)
{
    struct pair whole[N_WHOLE], norms[N_NORMS];
    whole_names(a, whole);
    for (int i = 0; i < N_WHOLE; i++) {
        if (!*whole[i].hf || !same(name, to_hf ? whole[i].gguf : whole[i].hf)) continue;
        snprintf(out->name, sizeof out->name, "%s", to_hf ? whole[i].hf : whole[i].gguf);
        out->change = NB_ARCH_GGUF_AS_IS;
        out->heads = 0;
        if (whole[i].hf == a->norm_name) set_norm(a, out);
        return true;
    }
    int64_t layer;
    const char *rest =
        nb_arch_inside_layer(to_hf ? block_prefix : a->layer_prefix, a->n_layers, name, &layer);
    if (!rest) return false;
    char inside[NB_NAME_MAX + 8] = "";
    norm_names(a, norms);
    for (int i = 0; i < N_NORMS; i++) {
        if (!*norms[i].hf || !same(rest, to_hf ? norms[i].gguf : norms[i].hf)) continue;
        snprintf(inside, sizeof inside, "%s", to_hf ? norms[i].hf : norms[i].gguf);
        set_norm(a, out);
    }
    for (int i = 0; i < a->n_linears; i++) {
        const struct nb_arch_linear *lin = &a->linears[i];
        const char *gguf = linear_name(lin->role),
                   *ending = ending_of(rest, to_hf ? gguf : lin->name, lin->bias);
        if (!ending) continue;
        snprintf(inside, sizeof inside, "%s%s", to_hf ? lin->name : gguf, ending);
        set_linear(a, lin->role, out);
        if (lin->transposed && strcmp(ending, ".weight") == 0) out->change = NB_ARCH_GGUF_TRANSPOSE;
    }
    if (!*inside) return false;
    if (to_hf) nb_arch_name(a, layer, inside, out->name);
    else snprintf(out->name, sizeof out->name, "blk.%d.%s", (int)layer, inside);
    return true;
}

bool nb_arch_gguf_from_hf(const struct nb_arch *arch, const char *hf_name,
                          struct nb_arch_gguf_tensor *out)
{
    return translate(arch, hf_name, false, out);
}

bool nb_arch_gguf_to_hf(const struct nb_arch *arch, const char *gguf_name,
                        struct nb_arch_gguf_tensor *out)
{
    return translate(arch, gguf_name, true, out);
}

/* ---- rows of q and k ---- */

int64_t nb_arch_gguf_hf_row(int64_t rows, int64_t heads, int64_t r)
{
    const int64_t dim = rows / heads, head = r / dim, at = r % dim;
    return head * dim + at % 2 * (dim / 2) + at / 2;
}

int64_t nb_arch_gguf_row(int64_t rows, int64_t heads, int64_t hf_row)
{
    const int64_t dim = rows / heads, head = hf_row / dim, at = hf_row % dim;
    return head * dim + at % (dim / 2) * 2 + at / (dim / 2);
}

/* ---- rope ---- */

int64_t nb_arch_gguf_rope_freqs(const struct nb_arch *arch, float *out)
{
    if (arch->rope.kind != NB_ROPE_LLAMA3) return 0;
    const int64_t half = arch->rotary_dim / 2;
    nb_rope_llama3_factors(&arch->rope, arch->rotary_dim, out);
    return half;
}

const char *nb_arch_gguf_rope_factors(const struct nb_arch *arch, int i, float *out)
{
    if (arch->rope.kind == NB_ROPE_LLAMA3)
        return i == 0 && nb_arch_gguf_rope_freqs(arch, out) ? NB_ARCH_GGUF_ROPE_FREQS : NULL;
    if (arch->rope.kind != NB_ROPE_LONGROPE || i > 1) return NULL;
    const double *factors = i == 0 ? arch->rope.short_factor : arch->rope.long_factor;
    for (int64_t k = 0; k < arch->rotary_dim / 2; k++) out[k] = (float)factors[k];
    return i == 0 ? NB_ARCH_GGUF_ROPE_SHORT : NB_ARCH_GGUF_ROPE_LONG;
}

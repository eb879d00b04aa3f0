/* SPDX-License-Identifier: Apache-2.0
 *
 * make-model.c - writes a synthetic model of any known family and size: config.json and safetensors with
 * seeded random weights, for tests and benches. Same options, same bytes. Streams: needs memory for one
 * tensor only.
 *
 * Families: llama, mistral, qwen2, qwen3, gemma2, gemma3.
 *
 *   make-model OUT --family qwen2 --hidden 896 --inter 4864 --layers 4 --heads 14 --kv-heads 2
 *              [--head-dim N] [--vocab N] [--context N] [--tied 0|1] [--dtype bf16|f16|f32] [--seed N] */
#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "arch/arch.h"
#include "base/file.h"
#include "base/mem.h"
#include "base/rng.h"
#include "container/safetensors.h"

struct shape_opts {
    const char *out, *family, *dtype;
    int64_t hidden, inter, layers, heads, kv_heads, head_dim, vocab, context, tied, seed, outliers;
    int64_t experts, top_k;
};

/* Scale of a tensor: 0.02 for matrices, near 1 for norms; a few input channels are larger, as in real
 * models. Irwin-Hall of four 16-bit numbers stands in for a normal: fast, and never far out. */
static float draw(struct nb_rng *rng)
{
    uint64_t v = nb_rng_next(rng);
    double s = (double)(v & 0xffff) + (double)(v >> 16 & 0xffff) + (double)(v >> 32 & 0xffff) +
               (double)(v >> 48);
    return (float)((s / 65535.0 - 2.0) * 1.7320508075688772);
}

static void fill_row(float *row, int64_t n, const char *name, const struct shape_opts *o,
                     float norm_offset, struct nb_rng *rng)
{
    bool norm = strstr(name, "norm") != NULL;
    for (int64_t i = 0; i < n; i++) {
        float v = draw(rng);
        row[i] = norm ? 1.0f + 0.1f * v : 0.02f * v;
        if (norm && o->outliers && i % 97 == 13) row[i] *= 4.0f;
        if (norm) row[i] -= norm_offset;
    }
}

static int put_tensor(struct nb_st_writer *w, const struct nb_arch *arch, const char *name,
                      const struct shape_opts *o, struct nb_err *err)
{
    int rank;
    int64_t shape[2];
    if (!nb_arch_expected_shape(arch, name, &rank, shape))
        return nb_fail(err, NB_E_FAIL, "%s: unknown", name);
    int64_t rows = rank == 2 ? shape[0] : 1, cols = rank == 2 ? shape[1] : shape[0];
    size_t element = (size_t)nb_dtype_bits(arch->dtype) / 8;
    float *row = nb_alloc((size_t)cols, sizeof *row);
    unsigned char *data = nb_alloc((size_t)(rows * cols), element);
    struct nb_rng rng;
    uint64_t h = 1469598103934665603u ^ (uint64_t)o->seed;
    for (const char *s = name; *s; s++) h = (h ^ (unsigned char)*s) * 1099511628211u;
    nb_rng_init(&rng, h);
    int rc = row && data ? 0 : nb_fail(err, NB_E_NOMEM, "%s: no memory", name);
    for (int64_t r = 0; r < rows && !rc; r++) {
        fill_row(row, cols, name, o, (float)arch->norm_offset, &rng);
        nb_from_f32(data + (size_t)(r * cols) * element, row, arch->dtype, (size_t)cols);
    }
    if (!rc) rc = nb_st_writer_put(w, name, data, (size_t)(rows * cols) * element, err);
    nb_free(row);
    nb_free(data);
    return rc;
}

typedef int (*each_fn)(struct nb_st_writer *w, const struct nb_arch *arch, const char *name,
                       const struct shape_opts *o, struct nb_err *err);

static int plan_tensor(struct nb_st_writer *w, const struct nb_arch *arch, const char *name,
                       const struct shape_opts *o, struct nb_err *err)
{
    (void)o;
    int rank;
    int64_t shape[2];
    if (!nb_arch_expected_shape(arch, name, &rank, shape))
        return 0; /* this family has no such tensor */
    return nb_st_writer_plan(w, name, arch->dtype, rank, shape, err);
}

static bool layer_has(const struct nb_arch *arch, int64_t l, const char *inside,
                      char name[NB_NAME_MAX * 2])
{
    int rank;
    int64_t shape[2];
    nb_arch_name(arch, l, inside, name);
    return nb_arch_expected_shape(arch, name, &rank, shape);
}

static int each_tensor(struct nb_st_writer *w, const struct nb_arch *arch, each_fn fn,
                       const struct shape_opts *o, struct nb_err *err)
{
    char name[NB_NAME_MAX * 2];
    int rc = fn(w, arch, arch->embed_name, o, err);
    for (int64_t l = 0; l < arch->n_layers && !rc; l++) {
        const char *norms[] = {arch->attn_norm_name,      arch->mlp_norm_name,
                               arch->post_attn_norm_name, arch->post_mlp_norm_name,
                               arch->q_norm_name,         arch->k_norm_name};
        for (int i = 0; i < 6 && !rc; i++) {
            if (norms[i][0] && layer_has(arch, l, norms[i], name)) rc = fn(w, arch, name, o, err);
        }
        const bool experts = nb_arch_has_experts(arch, l);
        if (!rc && experts && layer_has(arch, l, arch->moe->router_name, name))
            rc = fn(w, arch, name, o, err);
        if (!rc && experts && layer_has(arch, l, arch->moe->shared_gate_name, name))
            rc = fn(w, arch, name, o, err);
        int n;
        const struct nb_arch_linear *linears = nb_arch_layer_linears(arch, l, &n);
        for (int i = 0; i < n && !rc; i++) {
            char inside[NB_NAME_MAX + 8];
            snprintf(inside, sizeof inside, "%s.weight", linears[i].name);
            if (layer_has(arch, l, inside, name)) rc = fn(w, arch, name, o, err);
            snprintf(inside, sizeof inside, "%s.bias", linears[i].name);
            if (!rc && linears[i].bias && layer_has(arch, l, inside, name))
                rc = fn(w, arch, name, o, err);
        }
    }
    if (!rc) rc = fn(w, arch, arch->norm_name, o, err);
    if (!rc && !arch->tie_word_embeddings) rc = fn(w, arch, arch->head_name, o, err);
    return rc;
}

/* What Gemma's configs say besides; a window that tests can leave. */
static json_t *gemma_config(const struct shape_opts *o)
{
    int64_t window = o->context > 8 ? o->context / 4 : 2;
    return json_pack("{s:s, s:I, s:I}", "hidden_activation", "gelu_pytorch_tanh",
                     "query_pre_attn_scalar", (json_int_t)o->head_dim, "sliding_window",
                     (json_int_t)window);
}

/* All sizes of MLPs are the same. */
static json_t *experts_config(const struct shape_opts *o)
{
    return json_pack("{s:I, s:I, s:I, s:I, s:I}", "num_experts", (json_int_t)o->experts,
                     "num_local_experts", (json_int_t)o->experts, "num_experts_per_tok",
                     (json_int_t)o->top_k, "moe_intermediate_size", (json_int_t)o->inter,
                     "shared_expert_intermediate_size", (json_int_t)o->inter);
}

static json_t *make_config(const struct shape_opts *o)
{
    static const struct {
        const char *family, *type, *class;
    } families[] = {{"llama", "llama", "LlamaForCausalLM"},
                    {"mistral", "mistral", "MistralForCausalLM"},
                    {"qwen2", "qwen2", "Qwen2ForCausalLM"},
                    {"qwen3", "qwen3", "Qwen3ForCausalLM"},
                    {"gemma2", "gemma2", "Gemma2ForCausalLM"},
                    {"gemma3", "gemma3_text", "Gemma3ForCausalLM"},
                    {"mixtral", "mixtral", "MixtralForCausalLM"},
                    {"qwen2-moe", "qwen2_moe", "Qwen2MoeForCausalLM"},
                    {"qwen3-moe", "qwen3_moe", "Qwen3MoeForCausalLM"}};
    const char *class = "UnknownForCausalLM", *type = o->family;
    for (size_t i = 0; i < sizeof families / sizeof *families; i++) {
        if (strcmp(families[i].family, o->family)) continue;
        class = families[i].class;
        type = families[i].type;
    }
    bool gemma = !strncmp(o->family, "gemma", 5);
    const char *dtype = !strcmp(o->dtype, "f32")   ? "float32"
                        : !strcmp(o->dtype, "f16") ? "float16"
                                                   : "bfloat16";
    json_t *config = json_pack(
        "{s:[s], s:s, s:s, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:b, s:f, s:s, s:f, s:i, s:i}",
        "architectures", class, "model_type", type, "torch_dtype", dtype, "hidden_size",
        (json_int_t)o->hidden, "intermediate_size", (json_int_t)o->inter, "num_hidden_layers",
        (json_int_t)o->layers, "num_attention_heads", (json_int_t)o->heads, "num_key_value_heads",
        (json_int_t)o->kv_heads, "head_dim", (json_int_t)o->head_dim, "vocab_size",
        (json_int_t)o->vocab, "max_position_embeddings", (json_int_t)o->context,
        "tie_word_embeddings", (int)o->tied, "rms_norm_eps", 1e-6, "hidden_act",
        gemma ? "gelu_pytorch_tanh" : "silu", "rope_theta", 10000.0, "bos_token_id", 0,
        "eos_token_id", 0);
    json_t *more = gemma ? gemma_config(o) : o->experts ? experts_config(o) : NULL;
    if (more) json_object_update(config, more);
    json_decref(more);
    return config;
}

static int write_model(const struct shape_opts *o, struct nb_err *err)
{
    json_t *config = make_config(o);
    struct nb_arch arch;
    int rc = nb_arch_from_config(&arch, config, err);
    if (rc) return rc;
    struct nb_strbuf text;
    nb_strbuf_init(&text);
    struct nb_st_writer *w = nb_st_writer_new();
    struct nb_st_writer_opts opts = {.dir = o->out};
    rc = nb_dir_make(o->out, err);
    if (!rc) rc = nb_json_dump(config, true, &text, err);
    char *path = nb_path_join(o->out, "config.json");
    if (!rc) rc = nb_file_write(path, nb_strbuf_cstr(&text), text.len, err);
    if (!rc) rc = each_tensor(w, &arch, plan_tensor, o, err);
    if (!rc) rc = nb_st_writer_open(w, &opts, err);
    if (!rc) rc = each_tensor(w, &arch, put_tensor, o, err);
    if (!rc) rc = nb_st_writer_finish(w, err);
    nb_st_writer_free(w);
    nb_free(path);
    nb_strbuf_release(&text);
    nb_arch_release(&arch);
    json_decref(config);
    return rc;
}

static int64_t *number_option(struct shape_opts *o, const char *name)
{
    struct {
        const char *name;
        int64_t *value;
    } table[] = {
        {"--hidden", &o->hidden}, {"--inter", &o->inter},       {"--layers", &o->layers},
        {"--heads", &o->heads},   {"--kv-heads", &o->kv_heads}, {"--head-dim", &o->head_dim},
        {"--vocab", &o->vocab},   {"--context", &o->context},   {"--tied", &o->tied},
        {"--seed", &o->seed},     {"--outliers", &o->outliers}, {"--experts", &o->experts},
        {"--top-k", &o->top_k}};
    for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
        if (!strcmp(table[i].name, name)) return table[i].value;
    }
    return NULL;
}

int main(int argc, char **argv)
{
    struct shape_opts o = {.family = "qwen2",
                           .dtype = "bf16",
                           .hidden = 256,
                           .inter = 768,
                           .layers = 4,
                           .heads = 4,
                           .vocab = 8192,
                           .context = 2048,
                           .tied = 1,
                           .top_k = 2,
                           .outliers = 1};
    if (argc < 2 || argc % 2) {
        fputs(
            "usage: make-model OUT [--family F] [--hidden N] [--inter N] [--layers N] [--heads N]\n"
            "       [--kv-heads N] [--head-dim N] [--vocab N] [--context N] [--tied 0|1]\n"
            "       [--dtype bf16|f16|f32] [--seed N] [--outliers 0|1]\n"
            "       [--experts N] [--top-k N]      (families mixtral, qwen2-moe, qwen3-moe)\n",
            stderr);
        return 2;
    }
    o.out = argv[1];
    for (int i = 2; i + 1 < argc; i += 2) {
        int64_t *n = number_option(&o, argv[i]);
        if (!strcmp(argv[i], "--family")) o.family = argv[i + 1];
        else if (!strcmp(argv[i], "--dtype")) o.dtype = argv[i + 1];
        else if (n) *n = strtoll(argv[i + 1], NULL, 10);
        else {
            fprintf(stderr, "make-model: option '%s' is unknown\n", argv[i]);
            return 2;
        }
    }
    if (!o.kv_heads) o.kv_heads = o.heads;
    if (!o.head_dim) o.head_dim = o.heads ? o.hidden / o.heads : 0;
    struct nb_err err = {0};
    if (write_model(&o, &err)) {
        fprintf(stderr, "make-model: %s\n", err.text);
        return 1;
    }
    return 0;
}

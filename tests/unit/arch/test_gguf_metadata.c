/* SPDX-License-Identifier: Apache-2.0
 *
 * test_gguf_metadata.c - config.json -> GGUF metadata -> config.json for every family, what is noted,
 * what is refused on the way out, and hostile metadata on the way in. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "arch/gguf.h"
#include "base/mem.h"

#define SIZES                                                                                      \
    "\"vocab_size\": 100, \"hidden_size\": 64, \"intermediate_size\": 96, "                        \
    "\"num_hidden_layers\": 3, \"num_attention_heads\": 4, \"num_key_value_heads\": 2, "           \
    "\"head_dim\": 16, \"max_position_embeddings\": 512"
#define CONFIG(type, more) "{\"model_type\": \"" type "\", " SIZES more "}"
#define GEMMA ", \"query_pre_attn_scalar\": 16"

static json_t *parse(const char *text)
{
    struct nb_err err = {0};
    json_t *v = nb_json_parse(text, strlen(text), NB_JSON_MAX_DEPTH, "test", &err);
    if (!v) fail_msg("%s in %s", err.text, text);
    return v;
}

static void must_read(struct nb_arch *arch, const char *text)
{
    struct nb_err err = {0};
    json_t *config = parse(text);
    if (nb_arch_from_config(arch, config, &err)) fail_msg("%s", err.text);
    json_decref(config);
}

/* ---- writing ---- */

/* The list as "key type value" lines. */
static void check_list(const json_t *list, const char *const *lines)
{
    size_t n = 0;
    while (lines[n]) n++;
    for (size_t i = 0; i < json_array_size(list) || i < n; i++) {
        const json_t *e = json_array_get(list, i);
        struct nb_strbuf text;
        struct nb_err err;
        nb_strbuf_init(&text);
        nb_strbuf_printf(&text, "%s %s ", json_string_value(json_object_get(e, "key")),
                         json_string_value(json_object_get(e, "type")));
        assert_int_equal(nb_json_dump(json_object_get(e, "value"), false, &text, &err), 0);
        assert_string_equal(nb_strbuf_cstr(&text), i < n ? lines[i] : "(nothing)");
        nb_strbuf_release(&text);
    }
}

static void check_metadata(const char *config, const char *const *lines, const char *note)
{
    struct nb_err err = {0};
    struct nb_arch a;
    json_t *list, *notes;
    must_read(&a, config);
    if (nb_arch_gguf_metadata(&a, &list, &notes, &err)) fail_msg("%s", err.text);
    check_list(list, lines);
    assert_int_equal(json_array_size(notes), note ? 1 : 0);
    if (note) assert_string_equal(json_string_value(json_array_get(notes, 0)), note);
    json_decref(list);
    json_decref(notes);
    nb_arch_release(&a);
}

#define COMMON(arch)                                                                               \
    "general.architecture string \"" arch "\"", arch ".context_length u32 512",                    \
        arch ".embedding_length u32 64", arch ".block_count u32 3",                                \
        arch ".feed_forward_length u32 96", arch ".attention.head_count u32 4",                    \
        arch ".attention.head_count_kv u32 2", arch ".attention.key_length u32 16",                \
        arch ".attention.value_length u32 16"

static void test_write_llama(void **state)
{
    (void)state;
    static const char *const plain[] = {COMMON("llama"),
                                        "llama.attention.layer_norm_rms_epsilon f32 1e-05",
                                        "llama.vocab_size u32 100",
                                        "llama.rope.freq_base f32 500000.0",
                                        "llama.rope.dimension_count u32 16",
                                        NULL};
    check_metadata(CONFIG("llama", ", \"rms_norm_eps\": 1e-5, \"rope_theta\": 500000, "
                                   "\"rope_scaling\": {\"type\": \"llama3\", \"factor\": 8, "
                                   "\"low_freq_factor\": 1, \"high_freq_factor\": 4}"),
                   plain, NULL);
    check_metadata(CONFIG("mistral", ", \"rms_norm_eps\": 1e-5, \"rope_theta\": 500000, "
                                     "\"sliding_window\": 128"),
                   plain,
                   "the sliding window of 128 tokens is not in the file: llama.cpp attends to "
                   "everything, which is the same for up to 128 tokens");
    check_metadata(CONFIG("mistral", ", \"rms_norm_eps\": 1e-5, \"rope_theta\": 500000"), plain,
                   NULL); /* a window of 4096 that 512 positions never leave */
    check_metadata(CONFIG("llama", ", \"rms_norm_eps\": 1e-5, \"rope_theta\": 500000, "
                                   "\"rope_scaling\": {\"type\": \"dynamic\", \"factor\": 2}"),
                   plain,
                   "dynamic rope is not in the file: llama.cpp computes the same for up to 512 "
                   "tokens");
    static const char *const yarn[] = {COMMON("llama"),
                                       "llama.attention.layer_norm_rms_epsilon f32 1e-06",
                                       "llama.vocab_size u32 100",
                                       "llama.rope.freq_base f32 10000.0",
                                       "llama.rope.dimension_count u32 16",
                                       "llama.rope.scaling.type string \"yarn\"",
                                       "llama.rope.scaling.factor f32 4.0",
                                       "llama.rope.scaling.original_context_length u32 128",
                                       "llama.rope.scaling.attn_factor f32 2.0",
                                       "llama.rope.scaling.yarn_beta_slow f32 2.0",
                                       NULL};
    /* 0.1 ln 4 + 1, twice */
    check_metadata(CONFIG("llama", ", \"rope_scaling\": {\"type\": \"yarn\", \"factor\": 4, "
                                   "\"original_max_position_embeddings\": 128, \"beta_slow\": 2, "
                                   "\"attention_factor\": 2.2772588722239782}"),
                   yarn, NULL);
}

static void test_write_others(void **state)
{
    (void)state;
    static const char *const qwen2[] = {COMMON("qwen2"),
                                        "qwen2.attention.layer_norm_rms_epsilon f32 1e-06",
                                        "qwen2.rope.freq_base f32 1000000.0",
                                        "qwen2.rope.scaling.type string \"linear\"",
                                        "qwen2.rope.scaling.factor f32 2.0",
                                        NULL};
    check_metadata(CONFIG("qwen2", ", \"rope_theta\": 1e6, "
                                   "\"rope_scaling\": {\"type\": \"linear\", \"factor\": 2}"),
                   qwen2, NULL);
    static const char *const qwen3[] = {COMMON("qwen3"),
                                        "qwen3.attention.layer_norm_rms_epsilon f32 1e-06",
                                        "qwen3.rope.freq_base f32 10000.0", NULL};
    check_metadata(CONFIG("qwen3", ""), qwen3, NULL);
    static const char *const gemma2[] = {COMMON("gemma2"),
                                         "gemma2.attention.layer_norm_rms_epsilon f32 1e-06",
                                         "gemma2.attn_logit_softcapping f32 50.0",
                                         "gemma2.final_logit_softcapping f32 30.0",
                                         "gemma2.rope.freq_base f32 10000.0",
                                         "gemma2.attention.sliding_window u32 64",
                                         NULL};
    check_metadata(CONFIG("gemma2", GEMMA ", \"sliding_window\": 64"), gemma2, NULL);
    static const char *const gemma3[] = {COMMON("gemma3"),
                                         "gemma3.attention.layer_norm_rms_epsilon f32 1e-06",
                                         "gemma3.rope.freq_base f32 1000000.0",
                                         "gemma3.rope.freq_base_swa f32 10000.0",
                                         "gemma3.attention.sliding_window u32 64",
                                         NULL};
    check_metadata(CONFIG("gemma3_text", GEMMA ", \"sliding_window\": 64"), gemma3, NULL);
}

static void check_pattern(const char *config, const char *line)
{
    struct nb_err err = {0};
    struct nb_arch a;
    json_t *list, *notes;
    must_read(&a, config);
    assert_int_equal(nb_arch_gguf_metadata(&a, &list, &notes, &err), 0);
    const json_t *last = json_array_get(list, json_array_size(list) - 1);
    struct nb_strbuf text;
    nb_strbuf_init(&text);
    assert_int_equal(nb_json_dump(last, false, &text, &err), 0);
    assert_string_equal(nb_strbuf_cstr(&text), line);
    nb_strbuf_release(&text);
    json_decref(list);
    json_decref(notes);
    nb_arch_release(&a);
}

static void test_patterns(void **state)
{
    (void)state;
#define KEY "{\"key\":\"gemma3.attention.sliding_window_pattern\",\"type\":"
#define G3(more) CONFIG("gemma3_text", GEMMA ", \"sliding_window\": 64" more)
    check_pattern(G3(", \"sliding_window_pattern\": 3"), KEY "\"u32\",\"value\":3}");
    check_pattern(G3(", \"layer_types\": [\"full_attention\", \"sliding_attention\", "
                     "\"sliding_attention\"]"),
                  KEY "\"bool[]\",\"value\":[false,true,true]}");
    /* No window at all: the key that would say one is absent. */
    check_pattern(CONFIG("gemma3_text", GEMMA ", \"sliding_window_pattern\": 1"),
                  "{\"key\":\"gemma3.rope.freq_base_swa\",\"type\":\"f32\",\"value\":10000.0}");
    check_pattern(CONFIG("gemma2", GEMMA ", \"layer_types\": [\"full_attention\", "
                                         "\"full_attention\", \"full_attention\"]"),
                  "{\"key\":\"gemma2.attention.sliding_window_pattern\",\"type\":\"u32\","
                  "\"value\":1}");
    check_pattern(CONFIG("gemma2", GEMMA ", \"layer_types\": [\"sliding_attention\", "
                                         "\"sliding_attention\", \"sliding_attention\"]"),
                  "{\"key\":\"gemma2.attention.sliding_window_pattern\",\"type\":\"u32\","
                  "\"value\":0}");
}

static void must_not_write(const char *config, const char *message)
{
    struct nb_err err = {0};
    struct nb_arch a;
    json_t *list, *notes;
    must_read(&a, config);
    assert_int_equal(nb_arch_gguf_metadata(&a, &list, &notes, &err), NB_E_SPEC);
    assert_string_equal(err.text, message);
    assert_null(list);
    assert_null(notes);
    nb_arch_release(&a);
}

static void test_write_refusals(void **state)
{
    (void)state;
    must_not_write(CONFIG("llama", ", \"hidden_act\": \"gelu\""),
                   "llama.cpp computes llama with silu, and this model has another activation");
    must_not_write(CONFIG("gemma2", GEMMA ", \"hidden_activation\": \"gelu\""),
                   "llama.cpp computes gemma2 with gelu_pytorch_tanh, and this model has another "
                   "activation");
    must_not_write(CONFIG("qwen3", ", \"attention_bias\": true"),
                   "llama.cpp's qwen3 has no bias for self_attn.o_proj, and this model has one");
    must_not_write(CONFIG("gemma2", GEMMA ", \"tie_word_embeddings\": false"),
                   "llama.cpp's gemma2 has no head of its own (output.weight), and this model has "
                   "one");
    must_not_write(CONFIG("gemma3_text", ", \"query_pre_attn_scalar\": 20"),
                   "llama.cpp scales the scores of gemma3 by 1/sqrt(16), this model by 1/sqrt(20) "
                   "(query_pre_attn_scalar)");
    must_not_write(CONFIG("gemma2", GEMMA ", \"attn_logit_softcapping\": null"),
                   "llama.cpp caps scores and logits of gemma2 always, and this model has no "
                   "attn_logit_softcapping");
    must_not_write(CONFIG("gemma2", GEMMA ", \"final_logit_softcapping\": null"),
                   "llama.cpp caps scores and logits of gemma2 always, and this model has no "
                   "final_logit_softcapping");
    must_not_write(CONFIG("qwen2", ", \"rope_scaling\": {\"type\": \"llama3\", \"factor\": 8, "
                                   "\"low_freq_factor\": 1, \"high_freq_factor\": 4}"),
                   "llama.cpp's qwen2 cannot have llama3 rope");
    must_not_write(CONFIG("llama", ", \"rope_scaling\": {\"type\": \"llama3\", \"factor\": 8, "
                                   "\"low_freq_factor\": 4, \"high_freq_factor\": 1}"),
                   "llama.cpp's llama cannot have llama3 rope whose high_freq_factor is below "
                   "low_freq_factor");
    must_not_write(CONFIG("llama", ", \"rope_scaling\": {\"type\": \"yarn\", \"factor\": 4, "
                                   "\"truncate\": false}"),
                   "a GGUF cannot say yarn with truncate false, llama.cpp always truncates");
    must_not_write(CONFIG("gemma3_text", GEMMA ", \"rope_parameters\": {\"sliding_attention\": "
                                               "{\"rope_type\": \"linear\", \"factor\": 2}}"),
                   "a GGUF cannot say that the positions of layers with a window are scaled");
    must_not_write("{\"model_type\": \"llama\", \"vocab_size\": 100, \"hidden_size\": 64, "
                   "\"intermediate_size\": 96, \"num_hidden_layers\": 513, "
                   "\"num_attention_heads\": 4}",
                   "a GGUF holds at most 512 layers, this model has 513");
}

/* Gemma 2 and 3 of 27B scale scores otherwise than the head size says. */
static void test_odd_scale(void **state)
{
    (void)state;
    struct nb_err err = {0};
    struct nb_arch a;
    json_t *list, *notes, *metadata = json_object(), *config;
    must_read(&a, "{\"model_type\": \"gemma2\", \"vocab_size\": 100, \"hidden_size\": 96, "
                  "\"intermediate_size\": 96, \"num_hidden_layers\": 46, "
                  "\"num_attention_heads\": 4, \"num_key_value_heads\": 2, \"head_dim\": 16, "
                  "\"query_pre_attn_scalar\": 24}");
    assert_int_equal(nb_arch_gguf_metadata(&a, &list, &notes, &err), 0);
    for (size_t i = 0; i < json_array_size(list); i++) {
        const json_t *e = json_array_get(list, i);
        json_object_set(metadata, json_string_value(json_object_get(e, "key")),
                        json_object_get(e, "value"));
    }
    const struct nb_arch_gguf_facts facts = {.vocab_size = 100};
    assert_int_equal(nb_arch_gguf_config(metadata, &facts, &config, &err), 0);
    assert_int_equal(json_integer_value(json_object_get(config, "query_pre_attn_scalar")), 24);
    json_decref(list);
    json_decref(notes);
    json_decref(metadata);
    json_decref(config);
    nb_arch_release(&a);
}

/* ---- round trips ---- */

static void same_rope(const struct nb_rope *a, const struct nb_rope *b)
{
    assert_int_equal(a->kind, b->kind);
    assert_true(a->theta == b->theta && a->factor == b->factor);
    assert_true(a->low_freq_factor == b->low_freq_factor);
    assert_true(a->high_freq_factor == b->high_freq_factor);
    assert_true(a->beta_fast == b->beta_fast && a->beta_slow == b->beta_slow);
    assert_true(fabs(a->attention_factor - b->attention_factor) < 1e-6);
    if (a->kind == NB_ROPE_LLAMA3 || a->kind == NB_ROPE_YARN || a->kind == NB_ROPE_LONGROPE)
        assert_int_equal(a->original_max_position, b->original_max_position);
}

/* The angles, whatever the parameters are called. */
static void same_frequencies(const struct nb_arch *a, const struct nb_arch *b, int64_t length)
{
    double x[8] = {0}, y[8] = {0}, scale_a, scale_b;
    nb_rope_frequencies(a, &a->rope, length, x, &scale_a);
    nb_rope_frequencies(b, &b->rope, length, y, &scale_b);
    assert_true(fabs(scale_a - scale_b) <= 1e-6);
    for (int i = 0; i < 8; i++) assert_true(fabs(x[i] - y[i]) <= 1e-4 * fabs(x[i]));
}

static void same_arch(const struct nb_arch *a, const struct nb_arch *b)
{
    assert_int_equal(a->vocab_size, b->vocab_size);
    assert_int_equal(a->hidden_size, b->hidden_size);
    assert_int_equal(a->n_layers, b->n_layers);
    assert_int_equal(a->n_heads, b->n_heads);
    assert_int_equal(a->n_kv_heads, b->n_kv_heads);
    assert_int_equal(a->head_dim, b->head_dim);
    assert_int_equal(a->intermediate_size, b->intermediate_size);
    assert_int_equal(a->max_position, b->max_position);
    assert_true(a->rms_norm_eps == b->rms_norm_eps && a->norm_offset == b->norm_offset);
    assert_true(a->embed_scale == b->embed_scale && a->attn_scale == b->attn_scale);
    assert_true(a->attn_softcap == b->attn_softcap && a->final_softcap == b->final_softcap);
    assert_int_equal(a->hidden_act, b->hidden_act);
    assert_int_equal(a->tie_word_embeddings, b->tie_word_embeddings);
    assert_int_equal(a->qk_norm, b->qk_norm);
    assert_int_equal(a->dtype, b->dtype);
    assert_int_equal(a->bos_id, b->bos_id);
    assert_int_equal(a->n_eos, b->n_eos);
    assert_int_equal(a->n_linears, b->n_linears);
    for (int i = 0; i < a->n_linears; i++) {
        assert_string_equal(a->linears[i].name, b->linears[i].name);
        assert_int_equal(a->linears[i].bias, b->linears[i].bias);
    }
    for (int64_t l = 0; l < a->n_layers; l++) {
        assert_int_equal(a->window[l], b->window[l]);
        assert_int_equal(nb_arch_uses_rope(a, l), nb_arch_uses_rope(b, l));
    }
    assert_int_equal(a->rotary_dim, b->rotary_dim);
    same_rope(&a->rope, &b->rope);
    same_frequencies(a, b, 10);
    same_frequencies(a, b, 500);
    assert_int_equal(a->local_rope, b->local_rope);
    if (a->local_rope) same_rope(&a->rope_local, &b->rope_local);
}

static bool has_bias(const struct nb_arch *a, enum nb_role role)
{
    const struct nb_arch_linear *lin = nb_arch_linear_of(a, role);
    return lin && lin->bias;
}

/* As a reader of the file meets it: reals are f32. */
static json_t *as_read(const json_t *list)
{
    json_t *metadata = json_object();
    for (size_t i = 0; i < json_array_size(list); i++) {
        const json_t *e = json_array_get(list, i), *v = json_object_get(e, "value");
        const char *key = json_string_value(json_object_get(e, "key"));
        if (json_is_real(v))
            json_object_set_new(metadata, key, json_real((double)(float)json_real_value(v)));
        else json_object_set(metadata, key, (json_t *)v);
    }
    return metadata;
}

static void round_trip(const char *text, const char *model_type)
{
    struct nb_err err = {0};
    struct nb_arch a, b;
    json_t *list, *notes, *config = NULL;
    float freqs[8], longs[8];
    must_read(&a, text);
    if (nb_arch_gguf_metadata(&a, &list, &notes, &err)) fail_msg("%s", err.text);
    json_t *metadata = as_read(list);
    json_object_set_new(metadata, "tokenizer.ggml.bos_token_id", json_integer(7));
    json_object_set_new(metadata, "tokenizer.ggml.eos_token_id", json_integer(8));
    json_object_set_new(metadata, "tokenizer.ggml.eot_token_id", json_integer(9));
    struct nb_arch_gguf_facts facts = {.vocab_size = 100,
                                       .has_output = !a.tie_word_embeddings,
                                       .has_qkv_bias =
                                           has_bias(&a, NB_ROLE_Q) || has_bias(&a, NB_ROLE_QKV),
                                       .has_o_bias = has_bias(&a, NB_ROLE_O),
                                       .has_mlp_bias = has_bias(&a, NB_ROLE_UP),
                                       .dtype = "float16"};
    facts.n_rope_freqs = nb_arch_gguf_rope_freqs(&a, freqs);
    if (facts.n_rope_freqs) facts.rope_freqs = freqs;
    if (a.rope.kind == NB_ROPE_LONGROPE) {
        assert_string_equal(nb_arch_gguf_rope_factors(&a, 0, freqs), NB_ARCH_GGUF_ROPE_SHORT);
        assert_string_equal(nb_arch_gguf_rope_factors(&a, 1, longs), NB_ARCH_GGUF_ROPE_LONG);
        facts.rope_short = freqs;
        facts.rope_long = longs;
        facts.n_rope_short = facts.n_rope_long = a.rotary_dim / 2;
    }
    if (nb_arch_gguf_config(metadata, &facts, &config, &err)) fail_msg("%s", err.text);
    if (nb_arch_from_config(&b, config, &err)) fail_msg("%s", err.text);
    assert_string_equal(b.model_type, model_type);
    same_arch(&a, &b);
    json_decref(config);
    json_decref(metadata);
    json_decref(list);
    json_decref(notes);
    nb_arch_release(&a);
    nb_arch_release(&b);
}

#define TOKENS ", \"bos_token_id\": 7, \"eos_token_id\": [8, 9], \"torch_dtype\": \"float16\""

static void test_round_trips(void **state)
{
    (void)state;
    round_trip(CONFIG("llama", TOKENS ", \"rms_norm_eps\": 1e-5"), "llama");
    round_trip(CONFIG("llama", TOKENS ", \"attention_bias\": true, \"mlp_bias\": true, "
                                      "\"tie_word_embeddings\": true, \"rms_norm_eps\": 1.1e-5"),
               "llama");
    round_trip(CONFIG("llama", TOKENS ", \"rope_theta\": 500000, \"rope_scaling\": {\"rope_type\": "
                                      "\"llama3\", \"factor\": 8, \"low_freq_factor\": 1, "
                                      "\"high_freq_factor\": 4, "
                                      "\"original_max_position_embeddings\": 8192}"),
               "llama");
    round_trip(CONFIG("llama", TOKENS ", \"rope_scaling\": {\"rope_type\": \"linear\", "
                                      "\"factor\": 2.5}"),
               "llama");
    round_trip(CONFIG("llama",
                      TOKENS ", \"rope_scaling\": {\"rope_type\": \"yarn\", \"factor\": 4, "
                             "\"original_max_position_embeddings\": 128}"),
               "llama");
    round_trip(CONFIG("llama",
                      TOKENS ", \"rope_scaling\": {\"rope_type\": \"yarn\", \"factor\": 4, "
                             "\"original_max_position_embeddings\": 128, "
                             "\"attention_factor\": 1.5, \"beta_fast\": 20}"),
               "llama");
    round_trip(CONFIG("mistral", TOKENS ", \"sliding_window\": null"), "llama");
    round_trip(CONFIG("qwen2", TOKENS ", \"rope_theta\": 1e6"), "qwen2");
    round_trip(CONFIG("qwen3", TOKENS ", \"tie_word_embeddings\": true"), "qwen3");
    round_trip(CONFIG("smollm3", TOKENS ", \"rope_theta\": 5e6"), "smollm3");
    round_trip(CONFIG("olmo2", TOKENS ", \"rms_norm_eps\": 1e-5"), "olmo2");
    round_trip(CONFIG("phi3", TOKENS ", \"sliding_window\": 77"), "phi3");
    round_trip(CONFIG("phi3", TOKENS ", \"partial_rotary_factor\": 0.75, \"tie_word_embeddings\": "
                                     "true, \"original_max_position_embeddings\": 64, "
                                     "\"rope_scaling\": {\"type\": \"longrope\", "
                                     "\"short_factor\": [1, 1.1, 1.2, 1.3, 1.4, 1.5], "
                                     "\"long_factor\": [1, 2, 3.3, 4, 5, 6.0625]}"),
               "phi3");
    round_trip(CONFIG("phi3", TOKENS ", \"partial_rotary_factor\": 0.75, "
                                     "\"rope_scaling\": {\"type\": \"longrope\", "
                                     "\"attention_factor\": 1.25, "
                                     "\"short_factor\": [1, 1.1, 1.2, 1.3, 1.4, 1.5], "
                                     "\"long_factor\": [1, 2, 3.3, 4, 5, 6.0625]}"),
               "phi3");
    round_trip("{\"model_type\": \"gpt2\", \"vocab_size\": 100, \"n_embd\": 64, \"n_layer\": 3, "
               "\"n_head\": 4, \"n_positions\": 128, \"n_inner\": 96" TOKENS "}",
               "gpt2");
    round_trip(CONFIG("gemma2", TOKENS GEMMA), "gemma2");
    round_trip(CONFIG("gemma2", TOKENS GEMMA ", \"attn_logit_softcapping\": 20, "
                                             "\"final_logit_softcapping\": 10, "
                                             "\"sliding_window\": 64, \"layer_types\": "
                                             "[\"full_attention\", \"sliding_attention\", "
                                             "\"sliding_attention\"]"),
               "gemma2");
    round_trip(CONFIG("gemma3_text", TOKENS GEMMA), "gemma3_text");
    round_trip(CONFIG("gemma3_text",
                      TOKENS GEMMA ", \"sliding_window_pattern\": 2, \"rope_theta\": 5e5, "
                                   "\"rope_local_base_freq\": 1000, \"rope_scaling\": "
                                   "{\"rope_type\": \"linear\", \"factor\": 8}, "
                                   "\"final_logit_softcapping\": 30, "
                                   "\"tie_word_embeddings\": false"),
               "gemma3_text");
    round_trip(CONFIG("gemma3_text", TOKENS GEMMA ", \"sliding_window_pattern\": 1"),
               "gemma3_text");
}

/* ---- hostile metadata ---- */

#define META(arch)                                                                                 \
    "\"general.architecture\": \"" arch "\", \"" arch ".context_length\": 512, "                   \
    "\"" arch ".embedding_length\": 64, \"" arch ".block_count\": 3, "                             \
    "\"" arch ".feed_forward_length\": 96, \"" arch ".attention.head_count\": 4, "                 \
    "\"" arch ".attention.layer_norm_rms_epsilon\": 1e-6"

static struct nb_arch_gguf_facts plain_facts(void)
{
    return (struct nb_arch_gguf_facts){.vocab_size = 100, .has_output = true};
}

/* The metadata with the keys of `more` put in; null takes a key away. */
static int read_with(const char *base, const char *more, const struct nb_arch_gguf_facts *facts,
                     json_t **config, struct nb_err *err)
{
    json_t *metadata = parse(base), *changes = parse(more), *v;
    const char *key;
    json_object_foreach(changes, key, v)
    {
        if (json_is_null(v)) json_object_del(metadata, key);
        else json_object_set(metadata, key, v);
    }
    int rc = nb_arch_gguf_config(metadata, facts, config, err);
    json_decref(metadata);
    json_decref(changes);
    return rc;
}

static void refuse_with(const char *base, const char *more, const struct nb_arch_gguf_facts *facts,
                        int status, const char *message)
{
    struct nb_err err = {0};
    json_t *config;
    int rc = read_with(base, more, facts, &config, &err);
    assert_string_equal(err.text, message);
    assert_int_equal(rc, status);
    assert_null(config);
}

static void refuse(const char *more, int status, const char *message)
{
    struct nb_arch_gguf_facts facts = plain_facts();
    refuse_with("{" META("llama") "}", more, &facts, status, message);
}

static void test_read_defaults(void **state)
{
    (void)state;
    struct nb_err err = {0};
    struct nb_arch a;
    struct nb_arch_gguf_facts facts = plain_facts();
    json_t *config;
    assert_int_equal(read_with("{" META("llama") "}", "{}", &facts, &config, &err), 0);
    assert_int_equal(nb_arch_from_config(&a, config, &err), 0);
    assert_int_equal(a.n_kv_heads, 4);
    assert_int_equal(a.head_dim, 16);
    assert_true(a.rope.theta == 10000 && a.rope.kind == NB_ROPE_DEFAULT);
    assert_false(a.tie_word_embeddings);
    json_decref(config);
    nb_arch_release(&a);
    /* Lists of one value, rope factors that are all one, a factor of 0: what some files have. */
    float ones[8] = {1, 1, 1, 1, 1, 1, 1, 1};
    facts.rope_freqs = ones;
    facts.n_rope_freqs = 8;
    assert_int_equal(read_with("{" META("llama") "}",
                               "{\"llama.attention.head_count_kv\": [2, 2, 2], "
                               "\"llama.feed_forward_length\": [96, 96, 96], "
                               "\"llama.rope.scaling.factor\": 0.0}",
                               &facts, &config, &err),
                     0);
    assert_int_equal(nb_arch_from_config(&a, config, &err), 0);
    assert_int_equal(a.n_kv_heads, 2);
    assert_int_equal(a.rope.kind, NB_ROPE_DEFAULT);
    json_decref(config);
    nb_arch_release(&a);
    /* Gemma 2 without any of its own keys. */
    facts = (struct nb_arch_gguf_facts){.vocab_size = 100};
    assert_int_equal(read_with("{" META("gemma2") "}", "{}", &facts, &config, &err), 0);
    assert_int_equal(nb_arch_from_config(&a, config, &err), 0);
    assert_int_equal(a.window[0], 4096);
    assert_int_equal(a.window[1], 0);
    assert_true(a.attn_softcap == 50 && a.final_softcap == 30 && a.attn_scale == 0.25);
    assert_true(a.tie_word_embeddings);
    json_decref(config);
    nb_arch_release(&a);
}

static void test_missing_and_mistyped(void **state)
{
    (void)state;
    refuse("{\"general.architecture\": null}", NB_E_FORMAT,
           "GGUF metadata: key 'general.architecture' is missing");
    refuse("{\"general.architecture\": 3}", NB_E_FORMAT,
           "GGUF metadata: key 'general.architecture': expected a string, found an integer");
    refuse("{\"general.architecture\": \"bert\"}", NB_E_SPEC,
           "GGUF metadata: architecture 'bert' is not supported, expected one of: llama, qwen2, "
           "qwen3, gemma2, gemma3, smollm3, phi3, olmo2, gpt2");
    static const char *const required[] = {
        "context_length",      "embedding_length",     "block_count",
        "feed_forward_length", "attention.head_count", "attention.layer_norm_rms_epsilon"};
    for (size_t i = 0; i < sizeof required / sizeof *required; i++) {
        char more[128], message[128];
        snprintf(more, sizeof more, "{\"llama.%s\": null}", required[i]);
        snprintf(message, sizeof message, "GGUF metadata: key 'llama.%s' is missing", required[i]);
        refuse(more, NB_E_FORMAT, message);
    }
    refuse("{\"llama.block_count\": \"3\"}", NB_E_FORMAT,
           "GGUF metadata: key 'llama.block_count': expected an integer, found a string");
    refuse("{\"llama.attention.layer_norm_rms_epsilon\": true}", NB_E_FORMAT,
           "GGUF metadata: key 'llama.attention.layer_norm_rms_epsilon': expected a number, found "
           "a boolean");
    refuse("{\"llama.attention.head_count_kv\": 2.0}", NB_E_FORMAT,
           "GGUF metadata: key 'llama.attention.head_count_kv': expected an integer, found a real "
           "number");
}

static void test_out_of_bounds(void **state)
{
    (void)state;
    refuse("{\"llama.block_count\": 513}", NB_E_FORMAT,
           "GGUF metadata: key 'llama.block_count': expected an integer from 1 to 512, found 513");
    refuse("{\"llama.block_count\": 0}", NB_E_FORMAT,
           "GGUF metadata: key 'llama.block_count': expected an integer from 1 to 512, found 0");
    refuse("{\"llama.attention.head_count\": 0}", NB_E_FORMAT,
           "GGUF metadata: key 'llama.attention.head_count': expected an integer from 1 to "
           "2147483647, found 0");
    refuse("{\"llama.attention.head_count_kv\": 3}", NB_E_FORMAT,
           "GGUF metadata: llama.attention.head_count 4 is not a multiple of head_count_kv 3");
    refuse(
        "{\"llama.attention.head_count\": [4, 4]}", NB_E_FORMAT,
        "GGUF metadata: key 'llama.attention.head_count': expected 3 values, one for each layer, "
        "found 2");
    refuse(
        "{\"llama.attention.head_count\": [4, 4, 2]}", NB_E_SPEC,
        "GGUF metadata: key 'llama.attention.head_count': values that differ from layer to layer "
        "are not supported");
    refuse("{\"llama.attention.head_count\": [4, 4, \"4\"]}", NB_E_FORMAT,
           "GGUF metadata: key 'llama.attention.head_count': expected integers, found a string");
    refuse("{\"llama.attention.head_count\": [-1, -1, -1]}", NB_E_FORMAT,
           "GGUF metadata: key 'llama.attention.head_count': expected an integer from 1 to "
           "2147483647, found -1");
    refuse(
        "{\"llama.embedding_length\": 62}", NB_E_FORMAT,
        "GGUF metadata: llama.embedding_length 62 is not a multiple of head_count 4 and there is "
        "no key_length");
    refuse(
        "{\"llama.rope.dimension_count\": 18}", NB_E_FORMAT,
        "GGUF metadata: key 'llama.rope.dimension_count': expected an even number up to the head "
        "size 16, found 18");
    refuse(
        "{\"llama.rope.dimension_count\": 7}", NB_E_FORMAT,
        "GGUF metadata: key 'llama.rope.dimension_count': expected an even number up to the head "
        "size 16, found 7");
    refuse("{\"llama.rope.dimension_count\": 8}", NB_E_SPEC,
           "GGUF metadata: heads whose key_length 16, value_length 16 and rope.dimension_count 8 "
           "differ are not supported");
    refuse("{\"llama.attention.value_length\": 32}", NB_E_SPEC,
           "GGUF metadata: heads whose key_length 16, value_length 32 and rope.dimension_count 16 "
           "differ are not supported");
    refuse("{\"llama.expert_count\": 8, \"llama.expert_used_count\": 2}", NB_E_SPEC,
           "GGUF metadata: a mixture of 8 experts is not supported");
    refuse("{\"llama.expert_used_count\": 2}", NB_E_FORMAT,
           "GGUF metadata: key 'llama.expert_used_count': 2 experts are used of 0");
    refuse("{\"llama.vocab_size\": 99}", NB_E_FORMAT,
           "GGUF metadata: key 'llama.vocab_size' is 99, token_embd.weight has 100 rows");
    refuse(
        "{\"tokenizer.ggml.bos_token_id\": 100}", NB_E_FORMAT,
        "GGUF metadata: key 'tokenizer.ggml.bos_token_id' is 100, the vocabulary has 100 tokens");
    refuse("{\"tokenizer.ggml.eos_token_id\": -1}", NB_E_FORMAT,
           "GGUF metadata: key 'tokenizer.ggml.eos_token_id' is -1, the vocabulary has 100 tokens");
}

static void test_rope_refusals(void **state)
{
    (void)state;
    refuse("{\"llama.rope.scaling.type\": \"longrope\", \"llama.rope.scaling.factor\": 2}",
           NB_E_SPEC,
           "GGUF metadata: rope scaling type 'longrope' is not supported, expected one of: none, "
           "linear, yarn");
    refuse("{\"llama.rope.scaling.factor\": -2}", NB_E_FORMAT,
           "GGUF metadata: key 'llama.rope.scaling.factor': expected a positive number, found -2");
    refuse("{\"llama.rope.freq_base_swa\": 5}", NB_E_SPEC,
           "GGUF metadata: key 'llama.rope.freq_base_swa': another base than freq_base is not "
           "supported");
    refuse("{\"llama.rope.scaling.type\": \"yarn\", \"llama.rope.scaling.factor\": 2, "
           "\"llama.rope.scaling.yarn_ext_factor\": 0.5}",
           NB_E_SPEC,
           "GGUF metadata: key 'llama.rope.scaling.yarn_ext_factor': only 1 is supported, found "
           "0.5");
    float freqs[8] = {1, 1, 2, 1, 3, 1, 5, 8};
    struct nb_arch_gguf_facts facts = plain_facts();
    facts.rope_freqs = freqs;
    facts.n_rope_freqs = 8;
    refuse_with("{" META("llama") "}", "{}", &facts, NB_E_SPEC,
                "rope_freqs.weight: these are not the factors of llama3 rope with base 10000");
    facts.n_rope_freqs = 7;
    refuse_with("{" META("llama") "}", "{}", &facts, NB_E_FORMAT,
                "rope_freqs.weight has 7 values, expected 8");
    facts.n_rope_freqs = 8;
    freqs[3] = NAN;
    refuse_with("{" META("llama") "}", "{}", &facts, NB_E_FORMAT,
                "rope_freqs.weight[3]: expected a factor of ordinary size, found nan");
    freqs[3] = 0;
    refuse_with("{" META("llama") "}", "{}", &facts, NB_E_FORMAT,
                "rope_freqs.weight[3]: expected a factor of ordinary size, found 0");
    refuse_with("{" META("llama") "}", "{\"llama.rope.scaling.factor\": 2}", &facts, NB_E_SPEC,
                "rope_freqs.weight is not supported beside other rope scaling or in architecture "
                "llama");
    facts = (struct nb_arch_gguf_facts){.vocab_size = 100, .rope_freqs = freqs, .n_rope_freqs = 8};
    refuse_with("{" META("gemma2") "}", "{}", &facts, NB_E_SPEC,
                "rope_freqs.weight is not supported beside other rope scaling or in architecture "
                "gemma2");
}

static void test_family_refusals(void **state)
{
    (void)state;
    struct nb_arch_gguf_facts facts = plain_facts();
    facts.has_qkv_bias = true;
    refuse_with("{" META("llama") "}", "{}", &facts, NB_E_SPEC,
                "llama: attention has biases on q, k and v only, which a config.json cannot say");
    facts.has_qkv_bias = false;
    refuse_with("{" META("qwen2") "}", "{}", &facts, NB_E_SPEC,
                "qwen2: expected biases on q, k and v and on nothing else");
#define SWA "GGUF metadata: key 'gemma3.attention.sliding_window"
    facts = (struct nb_arch_gguf_facts){.vocab_size = 100};
    const char *base = "{" META("gemma3") ", \"gemma3.attention.sliding_window\": 64}";
    refuse_with(base, "{\"gemma3.attention.sliding_window\": -1}", &facts, NB_E_FORMAT,
                SWA "': expected a number of tokens, found -1");
    refuse_with(base, "{\"gemma3.attention.sliding_window_pattern\": \"x\"}", &facts, NB_E_FORMAT,
                SWA "_pattern': expected a period or one value for each layer");
    refuse_with(base, "{\"gemma3.attention.sliding_window_pattern\": [true]}", &facts, NB_E_FORMAT,
                SWA "_pattern': expected 3 values, one for each layer, found 1");
    refuse_with(base, "{\"gemma3.attention.sliding_window_pattern\": [true, 1, \"x\"]}", &facts,
                NB_E_FORMAT, SWA "_pattern': expected booleans, found a string");
    refuse_with(
        "{" META("gemma2") "}", "{\"gemma2.attention.sliding_window\": 0}", &facts, NB_E_FORMAT,
        "GGUF metadata: key 'gemma2.attention.sliding_window': expected a number of tokens, "
        "found 0");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_write_llama),     cmocka_unit_test(test_write_others),
        cmocka_unit_test(test_patterns),        cmocka_unit_test(test_write_refusals),
        cmocka_unit_test(test_odd_scale),       cmocka_unit_test(test_round_trips),
        cmocka_unit_test(test_read_defaults),   cmocka_unit_test(test_missing_and_mistyped),
        cmocka_unit_test(test_out_of_bounds),   cmocka_unit_test(test_rope_refusals),
        cmocka_unit_test(test_family_refusals),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

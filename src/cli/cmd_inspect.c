/* SPDX-License-Identifier: Apache-2.0
 *
 * cmd_inspect.c - nibble inspect: what a model folder holds, from headers and configs alone; no weight is
 * touched. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "api/api.h"
#include "base/file.h"
#include "base/mem.h"
#include "base/strbuf.h"
#include "cli/cli.h"
#include "cli/commands.h"

struct inspect_options {
    bool tensors;
};

static const struct nb_option options[] = {
    {0, "tensors", NB_OPTION_FLAG, offsetof(struct inspect_options, tensors), NULL,
     "list every tensor: type, shape, bytes, file", 0, 0},
    {0, NULL, NB_OPTION_FLAG, 0, NULL, NULL, 0, 0},
};

struct inspected {
    const struct nb_model *model;
    struct nb_tokenizer *tokenizer; /* NULL: none */
    size_t template_bytes;          /* 0: none */
    uint64_t type_bytes[NB_DTYPE_COUNT];
    json_t *problems; /* array of sentences */
};

static void add_problem(struct inspected *in, const char *sentence)
{
    json_array_append_new(in->problems, nb_cli_string(sentence));
}

static bool has_file(const char *dir, const char *name)
{
    char *path = nb_path_join(dir, name);
    bool there = nb_path_exists(path);
    nb_free(path);
    return there;
}

/* The chat template stands in a file of its own or in tokenizer_config.json. */
static size_t template_bytes(const char *dir)
{
    char *path = nb_path_join(dir, "chat_template.jinja");
    uint64_t bytes = 0;
    bool alone = nb_path_exists(path) && nb_file_size(path, &bytes, NULL) == 0;
    nb_free(path);
    if (alone) return (size_t)bytes;
    path = nb_path_join(dir, "tokenizer_config.json");
    json_t *config = nb_path_exists(path) ? nb_json_load(path, 64 << 20, NULL) : NULL;
    nb_free(path);
    const json_t *t = json_object_get(config, "chat_template");
    size_t n = json_is_string(t) ? json_string_length(t) : 0;
    for (size_t i = 0; i < json_array_size(t); i++) { /* several templates with names */
        n += json_string_length(json_object_get(json_array_get(t, i), "template"));
    }
    json_decref(config);
    return n;
}

static void look_at_tokenizer(struct inspected *in)
{
    struct nb_err err;
    char text[192];
    if (!has_file(in->model->dir, "tokenizer.json")) {
        add_problem(in, "tokenizer.json is missing: text cannot be turned into tokens");
        return;
    }
    int64_t missing = 0;
    if (nb_tokenizer_open(&in->tokenizer, in->model->dir, &err) ||
        nb_lm_check_vocabulary(in->model, in->tokenizer, &missing, &err)) {
        add_problem(in, err.text);
    } else if (nb_lm_vocabulary_gap(in->model, missing)) {
        snprintf(text, sizeof text,
                 "the tokenizer has %" PRId64 " tokens, the embedding %" PRId64 " rows: %" PRId64
                 " rows have no text",
                 nb_tokenizer_size(in->tokenizer), in->model->arch.vocab_size, missing);
        add_problem(in, text);
    }
}

static void look(struct inspected *in)
{
    const struct nb_model *m = in->model;
    for (size_t i = 0; i < nb_safetensors_count(m->tensors); i++) {
        const struct nb_tensor *t = nb_safetensors_at(m->tensors, i);
        in->type_bytes[t->dtype] += t->data.bytes;
    }
    in->template_bytes = template_bytes(m->dir);
    look_at_tokenizer(in);
    if (!m->quant_config && in->type_bytes[m->arch.dtype] == 0) {
        char text[128];
        snprintf(text, sizeof text, "config.json says %s, no tensor has this type",
                 nb_dtype_name(m->arch.dtype));
        add_problem(in, text);
    }
}

/* The words of the quantization configs we know, under one name each. */
static json_t *quantization(const struct nb_model *m)
{
    static const struct {
        const char *name, *other;
    } keys[] = {{"bits", "w_bit"},      {"group_size", "q_group_size"},
                {"sym", NULL},          {"zero_point", NULL},
                {"desc_act", NULL},     {"version", NULL},
                {"quant_method", NULL}, {"checkpoint_format", NULL}};
    if (!m->quant_config) return json_null();
    json_t *q = json_pack("{s:s}", "format", m->checkpoint->name);
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
        json_t *v = json_object_get(m->quant_config, keys[i].name);
        if (!v && keys[i].other) v = json_object_get(m->quant_config, keys[i].other);
        if (v && !json_is_null(v)) json_object_set(q, keys[i].name, v);
    }
    double weights = (double)nb_arch_parameters(&m->arch);
    json_object_set_new(
        q, "bits_per_weight",
        nb_cli_real(8 * (double)nb_safetensors_bytes(m->tensors) / (weights > 0 ? weights : 1)));
    return q;
}

static json_t *tensor_list(const struct nb_model *m)
{
    json_t *list = json_array();
    for (size_t i = 0; i < nb_safetensors_count(m->tensors); i++) {
        const struct nb_tensor *t = nb_safetensors_at(m->tensors, i);
        json_t *shape = json_array();
        for (int k = 0; k < t->rank; k++) json_array_append_new(shape, json_integer(t->shape[k]));
        json_t *o =
            json_pack("{s:o, s:s, s:o, s:I, s:o}", "name", nb_cli_string(t->name), "dtype",
                      nb_dtype_name(t->dtype), "shape", shape, "bytes", (json_int_t)t->data.bytes,
                      "file", nb_cli_string(nb_safetensors_file_of(m->tensors, t)));
        json_array_append_new(list, o);
    }
    return list;
}

static json_t *architecture(const struct nb_arch *a)
{
    return json_pack("{s:s, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:b}", "model_type",
                     a->model_type, "layers", (json_int_t)a->n_layers, "hidden_size",
                     (json_int_t)a->hidden_size, "intermediate_size",
                     (json_int_t)a->intermediate_size, "heads", (json_int_t)a->n_heads, "kv_heads",
                     (json_int_t)a->n_kv_heads, "head_dim", (json_int_t)a->head_dim, "vocabulary",
                     (json_int_t)a->vocab_size, "context", (json_int_t)a->max_position, "tied_head",
                     (int)a->tie_word_embeddings);
}

static int emit(struct nb_cli *cli, const struct inspect_options *o, const struct inspected *in,
                struct nb_err *err)
{
    const struct nb_model *m = in->model;
    json_t *types = json_object();
    for (int t = 0; t < NB_DTYPE_COUNT; t++) {
        if (!in->type_bytes[t]) continue;
        json_object_set_new(types, nb_dtype_name((enum nb_dtype)t),
                            json_integer((json_int_t)in->type_bytes[t]));
    }
    json_t *tokenizer = json_null();
    if (in->tokenizer) {
        tokenizer = json_pack("{s:I, s:s}", "tokens", (json_int_t)nb_tokenizer_size(in->tokenizer),
                              "sha256", nb_tokenizer_sha256(in->tokenizer));
    }
    json_t *result =
        json_pack("{s:s, s:o, s:o, s:I, s:I, s:I, s:I, s:o, s:o, s:o, s:I, s:O}", "command",
                  "inspect", "model", nb_cli_string(m->dir), "architecture", architecture(&m->arch),
                  "parameters", (json_int_t)nb_arch_parameters(&m->arch), "bytes",
                  (json_int_t)nb_safetensors_bytes(m->tensors), "files",
                  (json_int_t)nb_safetensors_file_count(m->tensors), "tensors",
                  (json_int_t)nb_safetensors_count(m->tensors), "bytes_by_type", types,
                  "quantization", quantization(m), "tokenizer", tokenizer, "chat_template_bytes",
                  (json_int_t)in->template_bytes, "problems", in->problems);
    if (result && o->tensors) json_object_set_new(result, "tensor_list", tensor_list(m));
    return nb_cli_emit(cli, result, err);
}

static void print_weights(const struct inspected *in)
{
    const struct nb_model *m = in->model;
    char size[32];
    nb_format_bytes(nb_safetensors_bytes(m->tensors), size, sizeof size);
    size_t files = nb_safetensors_file_count(m->tensors);
    printf("weights       %s in %zu tensors, %zu file%s:", size, nb_safetensors_count(m->tensors),
           files, files == 1 ? "" : "s");
    for (int t = 0; t < NB_DTYPE_COUNT; t++) {
        if (!in->type_bytes[t]) continue;
        nb_format_bytes(in->type_bytes[t], size, sizeof size);
        printf(" %s %s", nb_dtype_name((enum nb_dtype)t), size);
    }
    printf("\n");
}

static void print_quantization(const struct nb_model *m)
{
    json_t *q = quantization(m);
    if (json_is_null(q)) {
        printf("quantization  none\n");
    } else {
        printf("quantization  %s", m->checkpoint->name);
        const char *key;
        json_t *v;
        json_object_foreach(q, key, v)
        {
            if (!strcmp(key, "format") || !strcmp(key, "bits_per_weight")) continue;
            if (json_is_integer(v))
                printf(", %s %" JSON_INTEGER_FORMAT, key, json_integer_value(v));
            else if (json_is_boolean(v)) printf(", %s %s", key, json_is_true(v) ? "true" : "false");
            else if (json_is_string(v)) printf(", %s %s", key, json_string_value(v));
        }
        printf("; %.2f bits per parameter in all\n",
               json_real_value(json_object_get(q, "bits_per_weight")));
    }
    json_decref(q);
}

static void print_tensors(const struct nb_model *m)
{
    for (size_t i = 0; i < nb_safetensors_count(m->tensors); i++) {
        const struct nb_tensor *t = nb_safetensors_at(m->tensors, i);
        struct nb_strbuf shape;
        nb_strbuf_init(&shape);
        for (int k = 0; k < t->rank; k++) {
            nb_strbuf_printf(&shape, "%s%" PRId64, k ? "x" : "", t->shape[k]);
        }
        printf("%-56s %-8s %-16s %12zu  %s\n", t->name, nb_dtype_name(t->dtype),
               t->rank ? nb_strbuf_cstr(&shape) : "scalar", t->data.bytes,
               nb_safetensors_file_of(m->tensors, t));
        nb_strbuf_release(&shape);
    }
}

static void print(const struct inspect_options *o, const struct inspected *in)
{
    const struct nb_arch *a = &in->model->arch;
    char count[32];
    nb_format_count(nb_arch_parameters(a), count, sizeof count);
    printf("model         %s\n", in->model->dir);
    printf("architecture  %s: %" PRId64 " layer%s, hidden %" PRId64 ", MLP %" PRId64 ", %" PRId64
           " heads (%" PRId64 " kv) of %" PRId64 "\n",
           a->model_type, a->n_layers, a->n_layers == 1 ? "" : "s", a->hidden_size,
           a->intermediate_size, a->n_heads, a->n_kv_heads, a->head_dim);
    printf("              vocabulary %" PRId64 ", context %" PRId64 ", head %s\n", a->vocab_size,
           a->max_position, a->tie_word_embeddings ? "tied to the embedding" : "of its own");
    printf("parameters    %s\n", count);
    print_weights(in);
    print_quantization(in->model);
    if (in->tokenizer) {
        printf("tokenizer     %" PRId64 " tokens, SHA-256 %.16s\n",
               nb_tokenizer_size(in->tokenizer), nb_tokenizer_sha256(in->tokenizer));
    } else {
        printf("tokenizer     none\n");
    }
    if (in->template_bytes) printf("template      %zu bytes\n", in->template_bytes);
    else printf("template      none\n");
    size_t n = json_array_size(in->problems);
    if (n == 0) printf("problems      none found\n");
    for (size_t i = 0; i < n; i++) {
        printf("%s%s\n", i ? "              " : "problems      ",
               json_string_value(json_array_get(in->problems, i)));
    }
    if (o->tensors) print_tensors(in->model);
}

static int run(struct nb_cli *cli, const void *opts, struct nb_err *err)
{
    const struct inspect_options *o = opts;
    char *dir = NULL;
    struct nb_model *model = NULL;
    int rc = nb_locate_model(cli->args[0], &dir, err);
    if (!rc) rc = nb_model_open(&model, dir, err);
    if (!rc) {
        struct inspected in = {.model = model, .problems = json_array()};
        look(&in);
        if (cli->json) rc = emit(cli, o, &in, err);
        else print(o, &in);
        json_decref(in.problems);
        nb_tokenizer_close(in.tokenizer);
    }
    nb_model_close(model);
    nb_free(dir);
    return rc;
}

const struct nb_command nb_command_inspect = {
    .name = "inspect",
    .summary = "what a model folder holds, and what looks wrong",
    .usage = "MODEL [options]",
    .about = "Reads headers and configs only: architecture, parameters, quantization, sizes.",
    .example = "models/books-11m --tensors",
    .options = options,
    .options_bytes = sizeof(struct inspect_options),
    .min_args = 1,
    .max_args = 1,
    .args = "MODEL",
    .run = run,
};

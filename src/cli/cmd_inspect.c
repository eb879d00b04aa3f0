/* SPDX-License-Identifier: Apache-2.0
 *
 * cmd_inspect.c - nibble inspect: what a model folder or GGUF file holds, from headers and configs; of a quantized
 * folder one linear of each kind is read, to tell who can load it. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "api/api.h"
#include "base/file.h"
#include "base/mem.h"
#include "base/strbuf.h"
#include "cli/cli.h"
#include "cli/commands.h"
#include "cli/inspect_gguf.h"
#include "numeric/block.h"

struct inspect_options {
    bool tensors, metadata;
};

static const struct nb_option options[] = {
    {0, "tensors", NB_OPTION_FLAG, offsetof(struct inspect_options, tensors), NULL,
     "list every tensor: type, shape, bytes, file", 0, 0},
    {0, "metadata", NB_OPTION_FLAG, offsetof(struct inspect_options, metadata), NULL,
     "list the metadata of a GGUF file", 0, 0},
    {0, NULL, NB_OPTION_FLAG, 0, NULL, NULL, 0, 0},
};

struct inspected {
    const struct nb_model *model;
    struct nb_tokenizer *tokenizer; /* NULL: none */
    size_t template_bytes;          /* 0: none */
    json_t *types;                  /* name -> bytes, in the order of the tables of types */
    json_t *problems;               /* array of sentences */
    struct nb_loader_verdict loaders[NB_MAX_LOADERS];
    size_t n_loaders; /* 0: a float model */
};

static void add_problem(struct inspected *in, const char *sentence)
{
    json_array_append_new(in->problems, nb_cli_string(sentence));
}

/* The chat template stands in a file of its own or in tokenizer_config.json; in a GGUF file under a key. */
static size_t template_bytes(const struct nb_model *m)
{
    const char *dir = m->dir;
    if (m->gguf) {
        struct nb_span text = {0};
        nb_gguf_get_string(m->gguf, "tokenizer.chat_template", false, &text, NULL);
        return text.bytes;
    }
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
    if (!nb_model_has_tokenizer(in->model)) {
        add_problem(in, in->model->gguf
                            ? "there is no vocabulary: text cannot be turned into tokens"
                            : "tokenizer.json is missing: text cannot be turned into tokens");
        return;
    }
    int64_t missing = 0;
    if (nb_model_tokenizer(&in->tokenizer, in->model, &err) ||
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

static void move_type(json_t *from, json_t *to, const char *name)
{
    json_t *v = json_object_get(from, name);
    if (v && !json_object_get(to, name)) json_object_set(to, name, v);
}

static json_t *count_types(const struct nb_model *m)
{
    json_t *found = json_object(), *sorted = json_object();
    for (size_t i = 0; i < nb_model_tensor_count(m); i++) {
        struct nb_model_tensor t;
        nb_model_tensor_at(m, i, &t);
        json_int_t before = json_integer_value(json_object_get(found, t.type));
        json_object_set_new(found, t.type, json_integer(before + (json_int_t)t.data.bytes));
    }
    for (int t = 0; t < NB_DTYPE_COUNT; t++)
        move_type(found, sorted, nb_dtype_name((enum nb_dtype)t));
    for (int t = 0; nb_block_at(t); t++) move_type(found, sorted, nb_block_at(t)->name);
    json_decref(found);
    return sorted;
}

static void ask_loaders(struct inspected *in)
{
    struct nb_loader_query q;
    struct nb_loader_linear *linears;
    struct nb_err err;
    if (nb_loader_query_of(&q, &linears, in->model, &err)) add_problem(in, err.text);
    else if (q.n_linears) in->n_loaders = nb_loaders_ask(&q, in->loaders);
    nb_free(linears);
}

static void look(struct inspected *in)
{
    const struct nb_model *m = in->model;
    in->types = count_types(m);
    in->template_bytes = template_bytes(m);
    look_at_tokenizer(in);
    ask_loaders(in);
    if (!nb_model_is_quantized(m) && !json_object_get(in->types, nb_dtype_name(m->arch.dtype))) {
        char text[128];
        snprintf(text, sizeof text, "config.json says %s, no tensor has this type",
                 nb_dtype_name(m->arch.dtype));
        add_problem(in, text);
    }
}

static json_t *loaders_json(const struct inspected *in)
{
    static const char *const gpus[NB_LOADER_N_GPUS] = {"2", "4", "8"};
    json_t *list = json_array();
    for (size_t i = 0; i < in->n_loaders; i++) {
        const struct nb_loader_verdict *v = &in->loaders[i];
        json_t *parallel = json_object();
        for (int k = 0; k < NB_LOADER_N_GPUS; k++)
            json_object_set_new(parallel, gpus[k], json_boolean(v->parallel[k]));
        json_array_append_new(
            list, json_pack("{s:s, s:b, s:b, s:s, s:s, s:s, s:o, s:s, s:s}", "loader", v->loader,
                            "loads", (int)v->loads, "slow", (int)v->slow, "kernel", v->kernel,
                            "device", v->device, "reason", v->reason, "tensor_parallel", parallel,
                            "tensor_parallel_reason", v->parallel_reason, "source", v->source));
    }
    return list;
}

static void print_loaders(const struct inspected *in)
{
    for (size_t i = 0; i < in->n_loaders; i++) {
        struct nb_strbuf line;
        nb_strbuf_init(&line);
        nb_loader_describe(&in->loaders[i], &line);
        printf("%s%-14s %s\n", i ? "              " : "loaders       ", in->loaders[i].loader,
               nb_strbuf_cstr(&line));
        nb_strbuf_release(&line);
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
    if (!nb_model_is_quantized(m)) return json_null();
    json_t *q = json_pack("{s:s}", "format", m->gguf ? "gguf" : m->checkpoint->name);
    uint32_t file_type = UINT32_MAX;
    if (m->gguf) nb_gguf_get_u32(m->gguf, "general.file_type", false, &file_type, NULL);
    const char *name = nb_gguf_file_type_name(file_type);
    if (name) json_object_set_new(q, "file_type", json_string(name));
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
        json_t *v = json_object_get(m->quant_config, keys[i].name);
        if (!v && keys[i].other) v = json_object_get(m->quant_config, keys[i].other);
        if (v && !json_is_null(v)) json_object_set(q, keys[i].name, v);
    }
    double weights = (double)nb_arch_parameters(&m->arch);
    json_object_set_new(q, "bits_per_weight",
                        nb_cli_real(8 * (double)nb_model_bytes(m) / (weights > 0 ? weights : 1)));
    return q;
}

static json_t *tensor_list(const struct nb_model *m)
{
    json_t *list = json_array();
    for (size_t i = 0; i < nb_model_tensor_count(m); i++) {
        struct nb_model_tensor t;
        nb_model_tensor_at(m, i, &t);
        json_t *shape = json_array();
        for (int k = 0; k < t.rank; k++) json_array_append_new(shape, json_integer(t.shape[k]));
        json_t *o = json_pack("{s:o, s:s, s:o, s:I, s:o}", "name", nb_cli_string(t.name), "dtype",
                              t.type, "shape", shape, "bytes", (json_int_t)t.data.bytes, "file",
                              nb_cli_string(t.file));
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
    json_t *tokenizer = json_null();
    if (in->tokenizer) {
        tokenizer = json_pack("{s:I, s:s}", "tokens", (json_int_t)nb_tokenizer_size(in->tokenizer),
                              "sha256", nb_tokenizer_sha256(in->tokenizer));
    }
    json_t *result = json_pack(
        "{s:s, s:o, s:o, s:I, s:I, s:I, s:I, s:O, s:o, s:o, s:I, s:O}", "command", "inspect",
        "model", nb_cli_string(m->dir), "architecture", architecture(&m->arch), "parameters",
        (json_int_t)nb_arch_parameters(&m->arch), "bytes", (json_int_t)nb_model_bytes(m), "files",
        (json_int_t)nb_model_file_count(m), "tensors", (json_int_t)nb_model_tensor_count(m),
        "bytes_by_type", in->types, "quantization", quantization(m), "tokenizer", tokenizer,
        "chat_template_bytes", (json_int_t)in->template_bytes, "problems", in->problems);
    if (result && m->gguf)
        json_object_set_new(result, "gguf", nb_cli_gguf_json(m->gguf, o->metadata));
    if (result) json_object_set_new(result, "loaders", loaders_json(in));
    if (result && o->tensors) json_object_set_new(result, "tensor_list", tensor_list(m));
    return nb_cli_emit(cli, result, err);
}

static void print_weights(const struct inspected *in)
{
    const struct nb_model *m = in->model;
    char size[32];
    nb_format_bytes(nb_model_bytes(m), size, sizeof size);
    size_t files = nb_model_file_count(m);
    printf("weights       %s in %zu tensors, %zu file%s:", size, nb_model_tensor_count(m), files,
           files == 1 ? "" : "s");
    const char *type;
    json_t *bytes;
    json_object_foreach(in->types, type, bytes)
    {
        nb_format_bytes((uint64_t)json_integer_value(bytes), size, sizeof size);
        printf(" %s %s", type, size);
    }
    printf("\n");
}

static void print_quantization(const struct nb_model *m)
{
    json_t *q = quantization(m);
    if (json_is_null(q)) {
        printf("quantization  none\n");
    } else {
        printf("quantization  %s", json_string_value(json_object_get(q, "format")));
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
    for (size_t i = 0; i < nb_model_tensor_count(m); i++) {
        struct nb_model_tensor t;
        struct nb_strbuf shape;
        nb_model_tensor_at(m, i, &t);
        nb_strbuf_init(&shape);
        for (int k = 0; k < t.rank; k++) {
            nb_strbuf_printf(&shape, "%s%" PRId64, k ? "x" : "", t.shape[k]);
        }
        printf("%-56s %-8s %-16s %12zu  %s\n", t.name, t.type,
               t.rank ? nb_strbuf_cstr(&shape) : "scalar", t.data.bytes, t.file);
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
    if (in->model->gguf) nb_cli_gguf_print_container(in->model->gguf);
    print_quantization(in->model);
    if (in->tokenizer) {
        printf("tokenizer     %" PRId64 " tokens, SHA-256 %.16s\n",
               nb_tokenizer_size(in->tokenizer), nb_tokenizer_sha256(in->tokenizer));
    } else {
        printf("tokenizer     none\n");
    }
    if (in->template_bytes) printf("template      %zu bytes\n", in->template_bytes);
    else printf("template      none\n");
    print_loaders(in);
    size_t n = json_array_size(in->problems);
    if (n == 0) printf("problems      none found\n");
    for (size_t i = 0; i < n; i++) {
        printf("%s%s\n", i ? "              " : "problems      ",
               json_string_value(json_array_get(in->problems, i)));
    }
    if (o->metadata && in->model->gguf) nb_cli_gguf_print_metadata(in->model->gguf);
    if (o->tensors) print_tensors(in->model);
}

/* A GGUF file that could not be opened as a model still shows what it holds; *err says why it is none. */
static int inspect_no_model(struct nb_cli *cli, const char *path, bool tensors, int status,
                            struct nb_err *err)
{
    struct nb_gguf *g = NULL;
    bool may_be = (status == NB_E_SPEC || status == NB_E_FORMAT) && !nb_path_is_dir(path);
    if (!may_be || nb_gguf_open(&g, path, NULL)) return status;
    char problem[sizeof err->text];
    struct nb_span type = {0};
    nb_gguf_get_string(g, "general.type", false, &type, NULL);
    if (!type.bytes || (type.bytes == 5 && !memcmp(type.data, "model", 5))) {
        snprintf(problem, sizeof problem, "%s", err->text);
    } else {
        snprintf(problem, sizeof problem, "no model: general.type is '%.*s'",
                 type.bytes < 64 ? (int)type.bytes : 64, (const char *)type.data);
        nb_err_clean(problem);
    }
    int rc = nb_cli_gguf_inspect(cli, g, tensors, problem, err);
    nb_gguf_close(g);
    return rc;
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
        json_decref(in.types);
        json_decref(in.problems);
        nb_tokenizer_close(in.tokenizer);
    } else if (dir) {
        rc = inspect_no_model(cli, dir, o->tensors, rc, err);
    }
    nb_model_close(model);
    nb_free(dir);
    return rc;
}

const struct nb_command nb_command_inspect = {
    .name = "inspect",
    .summary = "what a model folder or GGUF file holds, and what looks wrong",
    .usage = "MODEL [options]",
    .about =
        "Reads headers and configs: architecture, parameters, quantization, sizes, who can load it.",
    .example = "models/books-11m --tensors",
    .options = options,
    .options_bytes = sizeof(struct inspect_options),
    .min_args = 1,
    .max_args = 1,
    .args = "MODEL",
    .run = run,
};

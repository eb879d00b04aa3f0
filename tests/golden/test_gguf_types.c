/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include <cmocka.h>

#include "base/file.h"
#include "base/json.h"
#include "base/mem.h"
#include "checkpoint/gguf_types.h"
#include "numeric/block.h"
#include "support/folder.h"

enum { MAX_OVERRIDES = 4 };

struct model {
    const json_t *json;
    int64_t layers;
    struct nb_gguf_facts facts;
    struct nb_gguf_shape *shapes;
    char (*names)[64];
    size_t n;
};

static int64_t number(const json_t *m, const char *key)
{
    return json_integer_value(json_object_get(m, key));
}

static void add(struct model *m, const char *name, int64_t cols, int64_t rows)
{
    snprintf(m->names[m->n], sizeof m->names[m->n], "%s", name);
    m->shapes[m->n] = (struct nb_gguf_shape){
        m->names[m->n], {cols, rows, 1, 1}, nb_block_find(rows > 1 ? "F16" : "F32")};
    m->n++;
}

static void add_layer(struct model *m, int64_t l)
{
    int64_t hidden = number(m->json, "hidden"), ffn = number(m->json, "ffn");
    int64_t q = number(m->json, "heads") * number(m->json, "head_dim");
    int64_t kv = number(m->json, "kv_heads") * number(m->json, "head_dim");
    const struct {
        const char *role;
        int64_t cols, rows;
    } parts[] = {{"attn_norm", hidden, 1},  {"attn_q", hidden, q},      {"attn_k", hidden, kv},
                 {"attn_v", hidden, kv},    {"attn_output", q, hidden}, {"ffn_norm", hidden, 1},
                 {"ffn_gate", hidden, ffn}, {"ffn_up", hidden, ffn},    {"ffn_down", ffn, hidden}};
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) {
        char name[64];
        snprintf(name, sizeof name, "blk.%d.%s.weight", (int)l, parts[i].role);
        add(m, name, parts[i].cols, parts[i].rows);
    }
}

/* Layers from the last to the first: the order of the tensors must not matter. */
static void make_model(struct model *m, const json_t *json)
{
    *m = (struct model){.json = json, .layers = number(json, "n_layers")};
    size_t room = (size_t)m->layers * 9 + 3;
    m->shapes = calloc(room, sizeof *m->shapes);
    m->names = calloc(room, sizeof *m->names);
    assert_non_null(m->shapes);
    assert_non_null(m->names);
    m->facts = (struct nb_gguf_facts){
        .architecture = json_string_value(json_object_get(json, "arch")),
        .n_layers = m->layers,
        .n_heads = number(json, "heads"),
        .n_kv_heads = number(json, "kv_heads"),
    };
    for (int64_t l = m->layers - 1; l >= 0; l--) add_layer(m, l);
    add(m, "token_embd.weight", number(json, "hidden"), number(json, "vocab"));
    if (!json_is_true(json_object_get(json, "tied")))
        add(m, "output.weight", number(json, "hidden"), number(json, "vocab"));
    add(m, "output_norm.weight", number(json, "hidden"), 1);
}

/* Is layer l in "0-3+6+9-11"? */
static bool in_layers(const char *list, size_t n, long l)
{
    for (size_t at = 0; at < n;) {
        char *end;
        long from = strtol(list + at, &end, 10), to = from;
        if (*end == '-') to = strtol(end + 1, &end, 10);
        if (l >= from && l <= to) return true;
        at = (size_t)(end - list) + 1;
    }
    return false;
}

/* Type of a tensor in a TABLE (see make.py). */
static void expected(const char *table, const char *name, char out[32])
{
    char role[64] = "";
    int layer = -1, used = 0;
    if (sscanf(name, "blk.%d.%n", &layer, &used) == 1 && used) {
        snprintf(role, sizeof role, "blk.%.*s", (int)(strlen(name + used) - 7), name + used);
    } else {
        layer = -1;
        snprintf(role, sizeof role, "%.*s", (int)(strlen(name) - 7), name);
    }
    assert_int_equal(sscanf(table, "default %31[^|]", out), 1);
    for (const char *p = strchr(table, '|'); p; p = strchr(p + 1, '|')) {
        size_t n = strlen(role), length = strcspn(p + 1, "|");
        if (strncmp(p + 1, role, n) || p[1 + n] != ' ') continue;
        const char *s = p + 2 + n, *end = p + 1 + length;
        if (layer < 0) {
            snprintf(out, 32, "%.*s", (int)(end - s), s);
            continue;
        }
        while (s < end) {
            size_t part = strcspn(s, ",|"), type = strcspn(s, ":");
            if (in_layers(s + type + 1, part - type - 1, layer))
                snprintf(out, 32, "%.*s", (int)type, s);
            s += part + 1;
        }
    }
}

struct options {
    struct nb_gguf_rules rules;
    struct nb_gguf_override overrides[MAX_OVERRIDES];
    char text[256];
};

static const struct nb_block_type *type_of(const char *name)
{
    const struct nb_block_type *t = nb_block_find(name);
    assert_non_null(t);
    return t;
}

/* "Q4_K_M --output-tensor-type q8_0" as llama-quantize takes it. */
static void parse_options(struct options *o, const char *key)
{
    *o = (struct options){.rules = {.overrides = o->overrides}};
    snprintf(o->text, sizeof o->text, "%s", key);
    char *save, *word = strtok_r(o->text, " ", &save);
    o->rules.preset = nb_gguf_preset_find(word);
    assert_non_null(o->rules.preset);
    while ((word = strtok_r(NULL, " ", &save))) {
        if (!strcmp(word, "imatrix")) continue;
        if (!strcmp(word, "--pure")) o->rules.pure = true;
        else if (!strcmp(word, "--leave-output-tensor")) o->rules.keep_output = true;
        else if (!strcmp(word, "--output-tensor-type"))
            o->rules.output = type_of(strtok_r(NULL, " ", &save));
        else if (!strcmp(word, "--token-embedding-type"))
            o->rules.embedding = type_of(strtok_r(NULL, " ", &save));
        else if (!strcmp(word, "--tensor-type")) {
            char *pattern = strtok_r(NULL, " ", &save), *equals = strchr(pattern, '=');
            *equals = '\0';
            o->overrides[o->rules.n_overrides++] =
                (struct nb_gguf_override){pattern, type_of(equals + 1)};
        } else fail_msg("unknown option %s", word);
    }
}

static size_t check_table(struct model *m, const char *key, const char *table)
{
    struct options o;
    struct nb_err err;
    parse_options(&o, key);
    m->facts.imatrix = strstr(key, " imatrix") != NULL;
    const struct nb_block_type **types = calloc(m->n, sizeof *types);
    assert_non_null(types);
    int rc = nb_gguf_choose_types(&m->facts, &o.rules, m->shapes, m->n, types, &err);
    if (rc == NB_E_SPEC && o.rules.embedding &&
        number(m->json, "hidden") % o.rules.embedding->elems) {
        free(types); /* llama-quantize names the type here and fails when it comes to write it */
        return 0;
    }
    if (rc) fail_msg("%s: %s", key, err.text);
    for (size_t i = 0; i < m->n; i++) {
        char want[32];
        if (m->shapes[i].ne[1] == 1) snprintf(want, sizeof want, "F32");
        else expected(table, m->shapes[i].name, want);
        if (strcasecmp(want, types[i]->name)) {
            fail_msg("%s, %s: %s is %s, expected %s",
                     json_string_value(json_object_get(m->json, "name")), key, m->shapes[i].name,
                     types[i]->name, want);
        }
    }
    free(types);
    return m->n;
}

static size_t check_family(const char *name)
{
    char file[64];
    struct nb_err err;
    snprintf(file, sizeof file, "tests/golden/gguf-types/%s.json", name);
    char *path = source_path(file);
    json_t *root = nb_json_load(path, 16 << 20, &err), *m, *table;
    assert_non_null(root);
    free(path);
    size_t i, checked = 0;
    const char *key;
    json_array_foreach(json_object_get(root, "models"), i, m)
    {
        struct model model;
        json_t *types = json_object_get(m, "types");
        make_model(&model, m);
        json_object_foreach(types, key, table)
        {
            const char *text = json_string_value(table);
            if (!strcmp(text, "=")) { /* as without the matrix */
                char plain[64];
                snprintf(plain, sizeof plain, "%.*s", (int)(strlen(key) - strlen(" imatrix")), key);
                text = json_string_value(json_object_get(types, plain));
            }
            checked += check_table(&model, key, text);
        }
        free(model.shapes);
        free(model.names);
    }
    json_decref(root);
    return checked;
}

static void test_families(void **state)
{
    static const char *const families[] = {"llama", "mistral", "qwen2",
                                           "qwen3", "gemma2",  "gemma3"};
    (void)state;
    for (size_t i = 0; i < sizeof families / sizeof *families; i++)
        assert_true(check_family(families[i]) > 10000);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_families)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* SPDX-License-Identifier: Apache-2.0
 *
 * gguf_types.c - see gguf_types.h.
 *
 * Most tensors get the preset's type; what is known to be sensitive (values and output of attention, the second
 * MLP matrix of some layers, the head) gets more bits. Counters run over the tensors in the order of
 * nb_gguf_compare_names; where experts are mixed in, the layer is read from the name instead. */
#include "checkpoint/gguf_types.h"

#include <ctype.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/mem.h"
#include "numeric/block.h"
#include "text/regex.h"

enum {
    F32 = 0,
    F16 = 1,
    Q4_0 = 2,
    Q4_1 = 3,
    Q5_0 = 6,
    Q5_1 = 7,
    Q8_0 = 8,
    Q2_K = 10,
    Q3_K = 11,
    Q4_K = 12,
    Q5_K = 13,
    Q6_K = 14,
    IQ2_XXS = 16,
    IQ2_XS = 17,
    IQ3_XXS = 18,
    IQ1_S = 19,
    IQ4_NL = 20,
    IQ3_S = 21,
    IQ2_S = 22,
    IQ4_XS = 23,
    IQ1_M = 29,
    BF16 = 30,
    TQ1_0 = 34,
    TQ2_0 = 35,
    MXFP4 = 39,
    Q1_0 = 41,
    Q2_0 = 42
};

enum { /* general.file_type */
       FILE_F32 = 0,
       FILE_F16 = 1,
       FILE_Q4_0 = 2,
       FILE_Q4_1 = 3,
       FILE_Q8_0 = 7,
       FILE_Q5_0 = 8,
       FILE_Q5_1 = 9,
       FILE_Q2_K = 10,
       FILE_Q3_K_S = 11,
       FILE_Q3_K_M = 12,
       FILE_Q3_K_L = 13,
       FILE_Q4_K_S = 14,
       FILE_Q4_K_M = 15,
       FILE_Q5_K_S = 16,
       FILE_Q5_K_M = 17,
       FILE_Q6_K = 18,
       FILE_IQ2_XXS = 19,
       FILE_IQ2_XS = 20,
       FILE_Q2_K_S = 21,
       FILE_IQ3_XS = 22,
       FILE_IQ3_XXS = 23,
       FILE_IQ1_S = 24,
       FILE_IQ4_NL = 25,
       FILE_IQ3_S = 26,
       FILE_IQ3_M = 27,
       FILE_IQ2_S = 28,
       FILE_IQ2_M = 29,
       FILE_IQ4_XS = 30,
       FILE_IQ1_M = 31,
       FILE_BF16 = 32,
       FILE_TQ1_0 = 36,
       FILE_TQ2_0 = 37,
       FILE_MXFP4_MOE = 38,
       FILE_Q1_0 = 40,
       FILE_Q2_0 = 41
};

/* Sets of file types as bits; all ids are below 64. */
#define IS(file, set) ((set) >> (file)&1)
#define BIT(file) (UINT64_C(1) << (file))

static const struct nb_gguf_preset presets[] = {
    {"Q2_K", FILE_Q2_K, Q2_K},
    {"Q2_K_S", FILE_Q2_K_S, Q2_K},
    {"Q3_K_S", FILE_Q3_K_S, Q3_K},
    {"Q3_K_M", FILE_Q3_K_M, Q3_K},
    {"Q3_K_L", FILE_Q3_K_L, Q3_K},
    {"Q4_0", FILE_Q4_0, Q4_0},
    {"Q4_1", FILE_Q4_1, Q4_1},
    {"Q4_K_S", FILE_Q4_K_S, Q4_K},
    {"Q4_K_M", FILE_Q4_K_M, Q4_K},
    {"Q5_0", FILE_Q5_0, Q5_0},
    {"Q5_1", FILE_Q5_1, Q5_1},
    {"Q5_K_S", FILE_Q5_K_S, Q5_K},
    {"Q5_K_M", FILE_Q5_K_M, Q5_K},
    {"Q6_K", FILE_Q6_K, Q6_K},
    {"Q8_0", FILE_Q8_0, Q8_0},
    {"IQ4_NL", FILE_IQ4_NL, IQ4_NL},
    {"IQ4_XS", FILE_IQ4_XS, IQ4_XS},
    {"F16", FILE_F16, F16},
    {"BF16", FILE_BF16, BF16},
    {"F32", FILE_F32, F32},
    {"MXFP4_MOE", FILE_MXFP4_MOE, MXFP4},
    {"TQ1_0", FILE_TQ1_0, TQ1_0},
    {"TQ2_0", FILE_TQ2_0, TQ2_0},
    {"IQ1_S", FILE_IQ1_S, IQ1_S},
    {"IQ1_M", FILE_IQ1_M, IQ1_M},
    {"IQ2_XXS", FILE_IQ2_XXS, IQ2_XXS},
    {"IQ2_XS", FILE_IQ2_XS, IQ2_XS},
    {"IQ2_S", FILE_IQ2_S, IQ2_XS},
    {"IQ2_M", FILE_IQ2_M, IQ2_S},
    {"IQ3_XXS", FILE_IQ3_XXS, IQ3_XXS},
    {"IQ3_XS", FILE_IQ3_XS, IQ3_S},
    {"IQ3_S", FILE_IQ3_S, IQ3_S},
    {"IQ3_M", FILE_IQ3_M, IQ3_S},
    {"Q1_0", FILE_Q1_0, Q1_0},
    {"Q2_0", FILE_Q2_0, Q2_0},
};

enum { N_PRESETS = sizeof presets / sizeof *presets };

const struct nb_gguf_preset *nb_gguf_preset_find(const char *name)
{
    static const char *const aliases[][2] = {
        {"Q3_K", "Q3_K_M"}, {"Q4_K", "Q4_K_M"}, {"Q5_K", "Q5_K_M"}};
    for (size_t i = 0; i < sizeof aliases / sizeof *aliases; i++) {
        if (!strcasecmp(name, aliases[i][0])) name = aliases[i][1];
    }
    for (size_t i = 0; i < N_PRESETS; i++) {
        if (!strcasecmp(name, presets[i].name)) return &presets[i];
    }
    return NULL;
}

const char *nb_gguf_file_type_name(int64_t file_type)
{
    for (size_t i = 0; i < N_PRESETS; i++) {
        if (presets[i].file_type == file_type) return presets[i].name;
    }
    return NULL;
}

void nb_gguf_preset_names(char *out, size_t bytes)
{
    size_t n = 0;
    out[0] = '\0';
    for (size_t i = 0; i < N_PRESETS && n < bytes; i++) {
        n += (size_t)snprintf(out + n, bytes - n, "%s%s", i ? ", " : "", presets[i].name);
    }
}

/* ---- names ---- */

/* N of "blk.N.", or -1. */
static int64_t layer_of(const char *name)
{
    char *end;
    if (strncmp(name, "blk.", 4) || !isdigit((unsigned char)name[4])) return -1;
    long long l = strtoll(name + 4, &end, 10);
    return *end == '.' ? l : -1;
}

int nb_gguf_compare_names(const char *a, const char *b)
{
    int64_t la = layer_of(a), lb = layer_of(b);
    if (la != lb) return la < lb ? -1 : 1;
    return strcmp(a, b);
}

enum category { EMBEDDING, Q, K, V, ATTENTION_OUTPUT, UP, GATE, DOWN, OUTPUT, OTHER };

static enum category category_of(const char *name)
{
    static const struct {
        const char *part;
        enum category category;
    } parts[] = {
        {"attn_qkv.weight", V}, {"attn_kv_b.weight", V}, {"attn_v.weight", V},
        {"attn_k.weight", K},   {"attn_q.weight", Q},    {"attn_output.weight", ATTENTION_OUTPUT},
        {"ffn_up", UP},         {"ffn_gate", GATE},      {"ffn_down", DOWN},
    };
    if (!strcmp(name, "output.weight")) return OUTPUT;
    if (!strcmp(name, "token_embd.weight")) return EMBEDDING;
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) {
        if (strstr(name, parts[i].part)) return parts[i].category;
    }
    return OTHER;
}

/* Matrices named weight; norms and the gates that choose experts stay as they are. */
static bool is_eligible(const struct nb_gguf_rules *rules, const struct nb_gguf_shape *s)
{
    size_t n = strlen(s->name);
    if (s->ne[1] == 1 && s->ne[2] == 1 && s->ne[3] == 1) return false;
    if (n < 6 || strcmp(s->name + n - 6, "weight")) return false;
    if (!strcmp(s->name, "position_embd.weight") || strstr(s->name, "_norm.weight") ||
        strstr(s->name, "ffn_gate_inp.weight"))
        return false;
    return !rules->keep_output || strcmp(s->name, "output.weight");
}

/* ---- the rules ---- */

struct chooser {
    const struct nb_gguf_facts *facts;
    const struct nb_gguf_rules *rules;
    int file;         /* file type */
    bool tied;        /* there is no output.weight */
    bool large;       /* of the size class in which 8 heads share a value matrix */
    int64_t i_v, n_v; /* value matrices so far and in all */
    int64_t i_down;   /* second MLP matrices so far */
    int64_t i_gate, i_up;
    struct nb_regex **patterns;
    struct nb_matcher *matcher;
};

/* First and last eighth of the layers, and every third between. */
static bool more_bits(int64_t i, int64_t n)
{
    return i < n / 8 || i >= 7 * n / 8 || (i - n / 8) % 3 == 2;
}

static bool shares_heads(const struct chooser *c) /* at least four query heads per key head */
{
    return c->facts->n_kv_heads && c->facts->n_heads / c->facts->n_kv_heads >= 4;
}

static const uint64_t low_bits = BIT(FILE_IQ2_XXS) | BIT(FILE_IQ2_XS) | BIT(FILE_IQ2_S) |
                                 BIT(FILE_IQ2_M) | BIT(FILE_IQ1_S) | BIT(FILE_IQ1_M);
static const uint64_t small_iq2 = BIT(FILE_IQ2_S) | BIT(FILE_IQ2_M);

static int choose_output(const struct chooser *c, int64_t cols, int type)
{
    if (c->rules->output) return c->rules->output->id;
    if (c->file == FILE_MXFP4_MOE || cols % nb_block_by_id(type)->elems) return Q8_0;
    if (IS(c->file, low_bits | BIT(FILE_IQ3_XXS))) return Q5_K;
    return type == Q8_0 ? Q8_0 : Q6_K;
}

static int choose_embedding(const struct chooser *c, int type)
{
    if (IS(c->file, BIT(FILE_IQ2_XXS) | BIT(FILE_IQ2_XS) | BIT(FILE_IQ1_S) | BIT(FILE_IQ1_M)))
        return Q2_K;
    if (IS(c->file, small_iq2 | BIT(FILE_IQ3_XXS))) return IQ3_S;
    if (IS(c->file, BIT(FILE_TQ1_0) | BIT(FILE_TQ2_0) | BIT(FILE_Q2_0))) return Q4_K;
    return type;
}

static int choose_low_bits(struct chooser *c, enum category category, int type)
{
    const bool small = IS(c->file, small_iq2);
    switch (category) {
    case V:
        c->i_v++;
        if (shares_heads(c) || c->facts->n_experts >= 4) return Q4_K;
        return small ? IQ3_S : Q2_K;
    case K: return c->facts->n_experts == 8 ? Q4_K : type;
    case DOWN:
        if (c->i_down++ < c->facts->n_layers / 8) return small ? IQ3_S : Q2_K;
        return type;
    case ATTENTION_OUTPUT:
        if (c->facts->n_experts == 8) return Q5_K;
        if (IS(c->file, BIT(FILE_IQ1_S) | BIT(FILE_IQ1_M))) return IQ2_XXS;
        return small ? IQ3_S : type;
    default: return type;
    }
}

static int choose_value(const struct chooser *c, int type)
{
    const int64_t i = c->i_v, n = c->n_v;
    switch (c->file) {
    case FILE_Q2_K: return shares_heads(c) ? Q4_K : Q3_K;
    case FILE_IQ3_XXS: return shares_heads(c) ? Q4_K : c->facts->imatrix ? IQ3_XXS : IQ3_S;
    case FILE_Q2_K_S:
    case FILE_IQ3_XS:
    case FILE_IQ3_S: return shares_heads(c) ? Q4_K : type;
    case FILE_IQ3_M: return Q4_K;
    case FILE_Q3_K_M: return i < 2 ? Q5_K : Q4_K;
    case FILE_Q3_K_L: return Q5_K;
    case FILE_IQ4_NL:
    case FILE_IQ4_XS: return shares_heads(c) ? Q5_K : type;
    case FILE_Q4_K_M:
    case FILE_Q5_K_M: return more_bits(i, n) ? Q6_K : type;
    case FILE_Q4_K_S: return i < 4 ? Q5_K : type;
    default: return type;
    }
}

static int choose_down(const struct chooser *c, int64_t i, int type)
{
    const int64_t n = c->facts->n_layers;
    const bool first = i < n / 8, imatrix = c->facts->imatrix;
    switch (c->file) {
    case FILE_Q2_K: return Q3_K;
    case FILE_Q2_K_S: return first ? Q4_K : type;
    case FILE_IQ3_XXS: return imatrix ? type : first ? Q4_K : Q3_K;
    case FILE_Q3_K_M: return i < n / 16 ? Q5_K : Q4_K;
    case FILE_IQ3_M: return first || (c->facts->n_experts == 8 && more_bits(i, n)) ? Q4_K : type;
    case FILE_Q3_K_L: return Q5_K;
    case FILE_Q4_K_M:
    case FILE_Q5_K_M: return more_bits(i, n) ? Q6_K : type;
    case FILE_IQ4_NL:
    case FILE_IQ4_XS:
    case FILE_Q4_K_S: return first && (c->file == FILE_Q4_K_S || !imatrix) ? Q5_K : type;
    case FILE_Q4_0: return first && imatrix ? Q4_1 : type;
    case FILE_Q5_0: return first && imatrix ? Q5_1 : type;
    default: return type;
    }
}

static int choose_attention_output(const struct chooser *c, int type)
{
    if (c->facts->n_experts == 8) {
        const uint64_t raised = BIT(FILE_Q2_K) | BIT(FILE_IQ3_XS) | BIT(FILE_IQ3_XXS) |
                                BIT(FILE_Q3_K_S) | BIT(FILE_Q3_K_M) | BIT(FILE_IQ4_NL) |
                                BIT(FILE_Q4_K_S) | BIT(FILE_Q4_K_M) | BIT(FILE_IQ3_S) |
                                BIT(FILE_IQ3_M) | BIT(FILE_IQ4_XS);
        return IS(c->file, raised) ? Q5_K : type;
    }
    switch (c->file) {
    case FILE_Q2_K: return Q3_K;
    case FILE_IQ3_XXS: return IQ3_S;
    case FILE_Q3_K_M:
    case FILE_IQ3_M: return Q4_K;
    case FILE_Q3_K_L: return Q5_K;
    default: return type;
    }
}

static int choose_query_or_key(const struct chooser *c, enum category category, int type)
{
    if (category == K && c->facts->n_experts == 8) return Q8_0;
    return c->file == FILE_IQ3_XS ? IQ3_XXS : c->file == FILE_IQ3_XXS ? IQ2_S : type;
}

/* Layer of an MLP matrix: by counting, or from the name where experts are mixed in. */
static int mlp_layer(const struct chooser *c, const char *name, int64_t counted, int64_t *layer,
                     struct nb_err *err)
{
    *layer = counted;
    if (c->facts->n_experts <= 1) return 0;
    *layer = layer_of(name);
    if (*layer >= 0 && *layer < c->facts->n_layers) return 0;
    return nb_fail(err, NB_E_FORMAT, "tensor '%s': its layer is not one of the model's %" PRId64,
                   name, c->facts->n_layers);
}

static int choose_in_layer(struct chooser *c, const char *name, enum category category, int *type,
                           struct nb_err *err)
{
    int64_t layer = 0;
    int rc = 0;
    switch (category) {
    case V:
        *type = choose_value(c, *type);
        if (c->large && (*type == Q3_K || *type == Q4_K)) *type = Q5_K;
        if (c->facts->n_experts == 8) *type = Q8_0;
        c->i_v++;
        break;
    case Q:
    case K: *type = choose_query_or_key(c, category, *type); break;
    case DOWN:
        rc = mlp_layer(c, name, c->i_down++, &layer, err);
        if (!rc) *type = choose_down(c, layer, *type);
        break;
    case ATTENTION_OUTPUT: *type = choose_attention_output(c, *type); break;
    case GATE:
    case UP: {
        const int64_t n = c->facts->n_layers;
        rc = mlp_layer(c, name, category == GATE ? c->i_gate++ : c->i_up++, &layer, err);
        if (!rc && c->file == FILE_IQ3_XS && layer >= n / 8 && layer < 7 * n / 8) *type = IQ3_XXS;
        break;
    }
    default: break;
    }
    return rc;
}

static int choose_by_rules(struct chooser *c, const struct nb_gguf_shape *s, int *type,
                           struct nb_err *err)
{
    enum category category = category_of(s->name);
    if (category == OUTPUT || (c->tied && category == EMBEDDING)) {
        *type = choose_output(c, s->ne[0], *type);
    } else if (c->file == FILE_MXFP4_MOE) {
        *type = s->ne[2] > 1 ? MXFP4 : Q8_0;
    } else if (category == EMBEDDING) {
        *type = choose_embedding(c, *type);
    } else if (IS(c->file, low_bits)) {
        *type = choose_low_bits(c, category, *type);
    } else {
        return choose_in_layer(c, s->name, category, type, err);
    }
    return 0;
}

/* For rows that are no whole number of blocks: the nearest type with blocks of 32, else F16. */
static int fall_back(int64_t cols, int type)
{
    static const int smaller[][2] = {
        {Q2_K, Q4_0},    {Q3_K, Q4_0},    {Q4_K, Q5_0},      {Q5_K, Q5_1},
        {Q6_K, Q8_0},    {TQ1_0, Q4_0},   {TQ2_0, Q4_0},     {Q2_0, Q4_0},
        {IQ1_S, IQ4_NL}, {IQ1_M, IQ4_NL}, {IQ2_XXS, IQ4_NL}, {IQ2_XS, IQ4_NL},
        {IQ2_S, IQ4_NL}, {IQ3_S, IQ4_NL}, {IQ4_XS, IQ4_NL},  {IQ3_XXS, IQ4_NL},
    };
    if (cols % nb_block_by_id(type)->elems == 0) return type;
    for (size_t i = 0; i < sizeof smaller / sizeof *smaller; i++) {
        if (type != smaller[i][0]) continue;
        type = smaller[i][1];
        break;
    }
    return cols % nb_block_by_id(type)->elems ? F16 : type;
}

/* *type: of the first override that matches; untouched when none does. */
static int match_overrides(const struct chooser *c, const char *name, int *type, bool *matched,
                           struct nb_err *err)
{
    *matched = false;
    for (size_t i = 0; i < c->rules->n_overrides; i++) {
        struct nb_regex_iter it = {0};
        int found = nb_regex_next(c->patterns[i], c->matcher, name, strlen(name), &it, err);
        if (found < 0) return found;
        if (!found) continue;
        *type = c->rules->overrides[i].type->id;
        *matched = true;
        return 0;
    }
    return 0;
}

static int choose(struct chooser *c, const struct nb_gguf_shape *s, int *type, struct nb_err *err)
{
    const struct nb_gguf_rules *rules = c->rules;
    enum category category = category_of(s->name);
    *type = s->type->id;
    if (!is_eligible(rules, s)) return 0;
    if (rules->embedding && category == EMBEDDING) {
        *type = rules->embedding->id;
        return 0;
    }
    if (rules->output && category == OUTPUT) {
        *type = rules->output->id;
        return 0;
    }
    *type = rules->preset->type;
    if (nb_block_by_id(*type)->elems == 1) return 0; /* a float type takes no exceptions */
    bool manual;
    int rc = match_overrides(c, s->name, type, &manual, err);
    if (!rc && !manual && !rules->pure) rc = choose_by_rules(c, s, type, err);
    if (!rc) *type = fall_back(s->ne[0], *type);
    return rc;
}

/* ---- all tensors ---- */

bool nb_gguf_needs_imatrix(const char *name, const struct nb_block_type *type,
                           const struct nb_gguf_preset *preset)
{
    if (!strcmp(name, "token_embd.weight") || !strcmp(name, "output.weight")) return false;
    switch (type->id) {
    case IQ3_XXS:
    case IQ2_XXS:
    case IQ2_XS:
    case IQ2_S:
    case IQ1_M:
    case IQ1_S: return true;
    case Q2_K: return preset->file_type == FILE_Q2_K_S;
    default: return false;
    }
}

static int check_choice(const struct chooser *c, const struct nb_gguf_shape *s,
                        const struct nb_block_type *type, struct nb_err *err)
{
    if (type == s->type) return 0;
    if (s->ne[0] % type->elems) {
        nb_fail(err, NB_E_SPEC,
                "tensor '%s': rows of %" PRId64 " weights are no whole blocks of %s (%d weights)",
                s->name, s->ne[0], type->name, type->elems);
        return nb_err_hint(err, "possible: %s, F16, BF16, F32",
                           s->ne[0] % 32 ? "types without blocks" : "Q4_0, Q5_0, Q8_0, IQ4_NL");
    }
    if (c->facts->imatrix || !nb_gguf_needs_imatrix(s->name, type, c->rules->preset)) return 0;
    nb_fail(err, NB_E_SPEC, "tensor '%s': type %s in a %s file needs an importance matrix", s->name,
            type->name, c->rules->preset->name);
    return nb_err_hint(err, "give one, or another type");
}

static int compile(struct chooser *c, struct nb_err *err)
{
    const size_t n = c->rules->n_overrides;
    if (!n) return 0;
    c->patterns = nb_calloc(n, sizeof(struct nb_regex *));
    c->matcher = nb_matcher_new();
    if (!c->patterns || !c->matcher)
        return nb_fail(err, NB_E_NOMEM, "no memory for %zu patterns", n);
    int rc = 0;
    for (size_t i = 0; i < n && !rc; i++) {
        char *lower = nb_xstrdup(c->rules->overrides[i].pattern);
        for (char *p = lower; *p; p++) *p = (char)tolower((unsigned char)*p);
        rc = nb_regex_new(&c->patterns[i], lower, strlen(lower), false, "tensor type", err);
        if (rc == NB_E_FORMAT || rc == NB_E_SPEC) {
            if (err) err->status = NB_E_USAGE;
            rc = NB_E_USAGE;
        }
        nb_free(lower);
    }
    return rc;
}

static void count(struct chooser *c, const struct nb_gguf_shape *shapes, size_t n)
{
    const struct nb_gguf_facts *f = c->facts;
    c->tied = true;
    for (size_t i = 0; i < n; i++) {
        enum category category = category_of(shapes[i].name);
        c->n_v += category == V;
        if (category == OUTPUT) c->tied = false;
    }
    bool llama = !strcmp(f->architecture, "llama") && f->n_heads != f->n_kv_heads;
    c->large = f->n_layers == 80 && (llama || !strcmp(f->architecture, "qwen2"));
}

static int by_name(const void *a, const void *b, void *shapes)
{
    const struct nb_gguf_shape *s = shapes;
    return nb_gguf_compare_names(s[*(const size_t *)a].name, s[*(const size_t *)b].name);
}

int nb_gguf_choose_types(const struct nb_gguf_facts *facts, const struct nb_gguf_rules *rules,
                         const struct nb_gguf_shape *shapes, size_t n,
                         const struct nb_block_type **types, struct nb_err *err)
{
    struct chooser c = {.facts = facts, .rules = rules, .file = rules->preset->file_type};
    size_t *order = nb_alloc(n ? n : 1, sizeof *order);
    if (!order) return nb_fail(err, NB_E_NOMEM, "no memory to order %zu tensors", n);
    for (size_t i = 0; i < n; i++) order[i] = i;
    qsort_r(order, n, sizeof *order, by_name, (void *)(uintptr_t)shapes);
    count(&c, shapes, n);
    int rc = compile(&c, err);
    for (size_t i = 0; i < n && !rc; i++) {
        const struct nb_gguf_shape *s = &shapes[order[i]];
        int id = s->type->id;
        rc = choose(&c, s, &id, err);
        types[order[i]] = id == s->type->id ? s->type : nb_block_by_id(id);
        if (!rc) rc = check_choice(&c, s, types[order[i]], err);
    }
    for (size_t i = 0; c.patterns && i < rules->n_overrides; i++) nb_regex_free(c.patterns[i]);
    nb_free(c.patterns);
    nb_matcher_free(c.matcher);
    nb_free(order);
    return rc;
}

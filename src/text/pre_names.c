/* SPDX-License-Identifier: Apache-2.0
 *
 * pre_names.c - see pre_names.h. A new name is one line in the table.
 *
 * The patterns say what llama.cpp's matcher does, which is not always what it is given: outside
 * ASCII it knows categories only as a whole (so \p{Lu} is any letter), and white space stands for
 * itself only in \s, never as a member of a range of code points.
 *
 * Source: the table of regexes in llama.cpp's src/llama-vocab.cpp (2026) and the matchers in its
 * src/unicode.cpp. Names with code of their own there (kimi-k2, afmoe, tiny_aya, gemma4, superbpe
 * and others) are not known here. */
#include "text/pre_names.h"

#include <string.h>

#include "text/unicode.h"

#define CONTRACTION "(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])"
#define WORD "[^\\r\\n\\p{L}\\p{N}]?\\p{L}+"
#define SYMBOLS " ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*"
#define SPACES "\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"
#define CL(numbers) CONTRACTION "|" WORD "|" numbers "|" SYMBOLS "|" SPACES

#define LLAMA3 CL("\\p{N}{1,3}")
#define QWEN2 CL("\\p{N}")
#define GPT2 "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+"

/* A letter that is no small one of ASCII, and one that is no capital of ASCII. */
#define NOT_LOWER "(?:(?=\\p{L})[^a-z])"
#define NOT_UPPER "(?:(?=\\p{L})[^A-Z])"
#define CASED(end)                                                                                 \
    "[^\\r\\n\\p{L}\\p{N}]?" NOT_LOWER "*" NOT_UPPER "+" end "|[^\\r\\n\\p{L}\\p{N}]?" NOT_LOWER   \
    "+" NOT_UPPER "*" end
#define MARKED_NOT_LOWER "(?:(?=[\\p{L}\\p{M}])[^a-z])"
#define MARKED_NOT_UPPER "(?:(?=[\\p{L}\\p{M}])[^A-Z])"
#define MARKED_CASED(end)                                                                          \
    "[^\\r\\n\\p{L}\\p{N}]?" MARKED_NOT_LOWER "*" MARKED_NOT_UPPER "+" end                         \
    "|[^\\r\\n\\p{L}\\p{N}]?" MARKED_NOT_LOWER "+" MARKED_NOT_UPPER "*" end
#define SYMBOLS_SLASH " ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]*"

/* Chinese and Japanese of deepseek-llm (U+0800 to U+4E00 without its white space, U+AC00 to
 * U+D7FF) and of deepseek-v3. */
#define CJK                                                                                        \
    "[\\x{4e00}-\\x{9fa5}\\x{800}-\\x{167f}\\x{1681}-\\x{1fff}\\x{200b}-\\x{2027}"                 \
    "\\x{202a}-\\x{202e}\\x{2030}-\\x{205e}\\x{2060}-\\x{2fff}\\x{3001}-\\x{4dff}"                 \
    "\\x{ac00}-\\x{d7ff}]+"
#define CJK3 "[\\x{4e00}-\\x{9fa5}\\x{3040}-\\x{309f}\\x{30a0}-\\x{30ff}]+"
#define ASCII_PUNCTUATION_WORD "[!\"#$%&'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+"
#define MARKED_WORD "[^\\r\\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+"

/* The letters of deepseek-llm. */
#define DEEPSEEK_LETTERS                                                                           \
    "A-Za-z\\x{b5}\\x{c0}-\\x{d6}\\x{d8}-\\x{f6}\\x{f8}-\\x{1ba}\\x{1bc}-\\x{1bf}"                 \
    "\\x{1c4}-\\x{293}\\x{295}-\\x{2af}\\x{370}-\\x{373}\\x{376}\\x{377}\\x{37b}-\\x{37d}"         \
    "\\x{37f}\\x{386}\\x{388}-\\x{38a}\\x{38c}\\x{38e}-\\x{3a1}\\x{3a3}-\\x{3f5}"                  \
    "\\x{3f7}-\\x{481}\\x{48a}-\\x{52f}\\x{531}-\\x{556}\\x{10a0}-\\x{10c5}"                       \
    "\\x{13a0}-\\x{13f5}\\x{13f8}-\\x{13fd}\\x{1c90}-\\x{1cba}\\x{1cbd}-\\x{1cbf}"                 \
    "\\x{1d00}-\\x{1d2b}\\x{1d6b}-\\x{1d77}\\x{1d79}-\\x{1d9a}\\x{1e00}-\\x{1f15}"                 \
    "\\x{1f18}-\\x{1f1d}\\x{1f20}-\\x{1f45}\\x{1f48}-\\x{1f4d}\\x{1f50}-\\x{1f57}"                 \
    "\\x{1f59}\\x{1f5b}\\x{1f5d}\\x{1f5f}-\\x{1f7d}\\x{1f80}-\\x{1fb4}\\x{1fb6}-\\x{1fbc}"         \
    "\\x{1fbe}\\x{1fc2}-\\x{1fc4}\\x{1fc6}-\\x{1fcc}\\x{1fd0}-\\x{1fd3}"                           \
    "\\x{1fd6}-\\x{1fdb}\\x{1fe0}-\\x{1fec}\\x{1ff2}-\\x{1ff4}\\x{1ff6}-\\x{1ffc}"                 \
    "\\x{2102}\\x{2107}\\x{210a}-\\x{2113}\\x{2115}\\x{2119}-\\x{211d}\\x{2124}\\x{2126}"          \
    "\\x{2128}\\x{212a}-\\x{212d}\\x{212f}-\\x{2134}\\x{2139}\\x{213c}-\\x{213f}"                  \
    "\\x{2145}-\\x{2149}\\x{214e}\\x{2183}\\x{2184}\\x{2c00}-\\x{2c7b}\\x{2c7e}-\\x{2ce4}"         \
    "\\x{2ceb}-\\x{2cee}\\x{2cf2}\\x{2cf3}\\x{a640}-\\x{a66d}\\x{a680}-\\x{a69b}"                  \
    "\\x{a722}-\\x{a76f}\\x{a771}-\\x{a787}\\x{a78b}-\\x{a78e}\\x{ab70}-\\x{abbf}"                 \
    "\\x{fb00}-\\x{fb06}\\x{fb13}-\\x{fb17}\\x{ff21}-\\x{ff3a}\\x{ff41}-\\x{ff5a}"                 \
    "\\x{10400}-\\x{1044f}\\x{104b0}-\\x{104d3}\\x{104d8}-\\x{104fb}\\x{10c80}-\\x{10cb2}"         \
    "\\x{10cc0}-\\x{10cf2}\\x{118a0}-\\x{118df}\\x{1e900}-\\x{1e943}"

#define BLOOM " ?[^(\\s|.,!?\\x{2026}\\x{3002}\\x{ff0c}\\x{3001}\\x{964}\\x{6d4}\\x{60c})]+"

static const struct nb_pre_rule rules[] = {
    {.names = "llama-bpe llama3 llama-v3 falcon3 falcon-h1 pixtral midm-2.0 lfm2 jina-v5-nano",
     .regex = {LLAMA3},
     .ignore_merges = true,
     .add_bos = true},
    {.names = "dbrx smaug-bpe", .regex = {LLAMA3}},
    {.names = "chatglm-bpe", .regex = {LLAMA3}, .no_bos = true},
    {.names = "glm4 glm5", .regex = {LLAMA3}, .ignore_merges = true, .no_bos = true},
    {.names = "minicpm5", .regex = {"\\p{N}{1,3}", CL("\\p{N}+")}, .ignore_merges = true},
    {.names = "qwen2 deepseek-r1-qwen megrez stablelm2 hunyuan solar-open grok-2 kormo f2llmv2 "
              "bailingmoe bailingmoe2 llada-moe",
     .regex = {QWEN2}},
    {.names = "qwen35",
     .regex = {CONTRACTION "|[^\\r\\n\\p{L}\\p{N}]?[\\p{L}\\p{M}]+|\\p{N}|"
                           " ?[^\\s\\p{L}\\p{M}\\p{N}]+[\\r\\n]*|" SPACES}},
    {.names = "ufakzeka", .regex = {WORD "|\\p{N}|" SYMBOLS "|" SPACES}},
    {.names = "laguna", .regex = {"[^\\n]+|[\\n]+", QWEN2}},
    {.names = "gpt-2 phi-2 gigachat mpt olmo jais trillion granite-docling exaone4 a.x-4.0 mellum "
              "modern-bert roberta-bpe jina-es jina-de jina-v2-es jina-v2-de jina-v1-en "
              "jina-v2-code",
     .regex = {GPT2}},
    {.names = "smollm starcoder refact command-r codeshell exaone minerva-7b mellum2",
     .regex = {"\\p{N}", GPT2}},
    {.names = "tekken",
     .regex = {CASED("") "|\\p{N}|" SYMBOLS_SLASH "|" SPACES},
     .ignore_merges = true,
     .add_bos = true},
    {.names = "gpt-4o llama4 kanana2 talkie minimax-m2",
     .regex = {CASED(CONTRACTION "?") "|\\p{N}{1,3}|" SYMBOLS_SLASH "|" SPACES}},
    {.names = "granite-embed-multi-97m",
     .regex = {MARKED_CASED(CONTRACTION "?") "|\\p{N}{1,3}|" SYMBOLS_SLASH "|" SPACES},
     .ignore_merges = true},
    {.names = "youtu",
     .regex = {"[\\x{ac00}-\\x{d7a3}\\x{3131}-\\x{318e}]+|[\\x{ff01}\\x{2026}\\x{201c}\\x{201d}"
               "\\x{2018}\\x{2019}\\x{2014}\\x{ff1a}\\x{ff1b}\\x{ff0c}\\x{3001}-\\x{303f}"
               "\\x{fe30}-\\x{fe4f}]+|[\\x{3105}-\\x{312f}]+|" CJK3,
               "[^\\r\\n\\p{L}\\p{N}]?[\\p{L}\\p{M}]+" CONTRACTION "?|\\p{N}|" SYMBOLS_SLASH
               "|" SPACES},
     .ignore_merges = true},
    {.names = "deepseek-llm",
     .regex = {"[\\r\\n]", "\\s?[" DEEPSEEK_LETTERS "]+",
               "\\s?[!-/:-~\\x{ff01}-\\x{ff0f}\\x{ff1a}-\\x{ff5e}\\x{2018}-\\x{201f}"
               "\\x{3001}-\\x{3002}]+",
               "\\s+\\z", CJK, "\\p{N}+"}},
    {.names = "deepseek-coder", .regex = {"[\\r\\n]", "\\s?\\p{L}+", "\\s?\\p{P}+", CJK, "\\p{N}"}},
    {.names = "deepseek-v3 hunyuan-dense joyai-llm hy_v4",
     .regex = {"\\p{N}{1,3}", CJK3,
               ASCII_PUNCTUATION_WORD "|" MARKED_WORD "| ?[\\p{P}\\p{S}]+[\\r\\n]*|" SPACES}},
    {.names = "spark2_5",
     .regex = {"\\p{N}{1,3}", CJK3,
               ASCII_PUNCTUATION_WORD "|" MARKED_WORD
                                      "| ?[\\p{P}\\p{S}]+|[\\r\\n]|\\s+(?!\\S)|\\s+",
               "\\p{N}"}},
    {.names = "seed-coder",
     .regex = {CONTRACTION "|" WORD "|\\p{N}| ?[^\\s\\p{L}\\p{N}\\r\\n]+|" SPACES}},
    {.names = "exaone-moe",
     .regex = {CONTRACTION "|[^\\r\\n\\p{L}\\p{N}]?(?:\\p{L}\\p{M}*(?: \\p{L}\\p{M}*)*)+|\\p{N}|"
                           " ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]?|" SPACES}},
    {.names = "jais-2",
     .regex = {CONTRACTION "|" WORD "|\\p{N}{1,3}|" SYMBOLS
                           "|\\s*[\\r\\n]+|\\s{512}(?!\\S)|\\s{256}(?!\\S)|\\s{128}(?!\\S)|"
                           "\\s{64}(?!\\S)|\\s{32}(?!\\S)|\\s{16}(?!\\S)|\\s{8}(?!\\S)|"
                           "\\s{4}(?!\\S)|\\s{1,2}(?!\\S)|\\s{1}"}},
    {.names = "falcon", .regex = {"[\\p{P}\\$\\+<=>\\^~\\|`]+", GPT2, "[0-9][0-9][0-9]"}},
    {.names = "poro-chat bloom gpt3-finnish", .regex = {BLOOM}},
    {.names = "viking", .regex = {BLOOM, "\\p{N}"}},
    {.names = "chameleon",
     .regex = {"<sentinel:[0-9]+>", "IMGIMG[A-I]{1,4}Z", "[\\t\\n]|    |  ", "\\p{N}",
               "[\\p{P}!-/:-@\\[-`{-~]", GPT2},
     .add_bos = true},
    {.names = "default",
     .regex = {"[\\p{P}\\$\\+<=>\\^~\\|]+", GPT2, "\\p{N}+", "[0-9][0-9][0-9]"}},
};

enum { N_RULES = sizeof rules / sizeof *rules };

/* The next of the names at *p, or false. */
static bool next_name(const char **p, struct nb_span *name)
{
    while (**p == ' ') ++*p;
    size_t n = strcspn(*p, " ");
    *name = (struct nb_span){(const unsigned char *)*p, n};
    *p += n;
    return n > 0;
}

const struct nb_pre_rule *nb_pre_rule_find(struct nb_span name)
{
    if (name.bytes == 0) return &rules[N_RULES - 1];
    for (size_t i = 0; i < N_RULES; i++) {
        struct nb_span one;
        for (const char *p = rules[i].names; next_name(&p, &one);) {
            if (one.bytes == name.bytes && memcmp(one.data, name.data, name.bytes) == 0)
                return &rules[i];
        }
    }
    return NULL;
}

void nb_pre_rule_list(struct nb_strbuf *out)
{
    const char *separator = "";
    for (size_t i = 0; i < N_RULES; i++) {
        struct nb_span one;
        for (const char *p = rules[i].names; next_name(&p, &one);) {
            nb_strbuf_puts(out, separator);
            nb_strbuf_add(out, one.data, one.bytes);
            separator = ", ";
        }
    }
}

/* ---- choosing a name ---- */

/* What files write and the patterns of the table that mean the same, replaced in this order. */
static const struct {
    const char *from, *to;
} spellings[] = {
    {"\r", "\\r"},
    {"\n", "\\n"},
    {"\\\"", "\""},
    {"(?i:'s|'t|'re|'ve|'m|'ll|'d)", CONTRACTION},
    {"'(?i:[sdmt]|ll|ve|re)", CONTRACTION},
    {"?+", "?"},
    {"++", "+"},
    {"|\\s*[\\r\\n]|", "|\\s*[\\r\\n]+|"},
};

#define FIRST_UPPER                                                                                \
    "[^\\r\\n\\p{L}\\p{N}]?[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]*[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]+"
#define ALL_UPPER                                                                                  \
    "[^\\r\\n\\p{L}\\p{N}]?[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]+[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]*"
#define DEEPSEEK_SOURCE                                                                            \
    "[\\r\\n]\n\\s?[" DEEPSEEK_LETTERS "]+\n\\s?[!-/:-~\\x{ff01}-\\x{ff0f}\\x{ff1a}-\\x{ff5e}"     \
    "\\x{2018}-\\x{201f}\\x{3000}-\\x{3002}]+\n\\s+$\n"                                            \
    "[\\x{4e00}-\\x{9fa5}\\x{800}-\\x{4e00}\\x{ac00}-\\x{d7ff}]+\n"
static const char knows_ascii_case[] =
    "outside ASCII llama.cpp does not tell capitals, small letters and marks apart when it cuts";

/* Patterns of files for which llama.cpp has something of its own. */
static const struct {
    const char *patterns, *name, *difference;
} sources[] = {
    {FIRST_UPPER "|" ALL_UPPER "|\\p{N}|" SYMBOLS_SLASH "|" SPACES, "tekken", knows_ascii_case},
    {FIRST_UPPER CONTRACTION "?|" ALL_UPPER CONTRACTION "?|\\p{N}{1,3}|" SYMBOLS_SLASH "|" SPACES,
     "gpt-4o", knows_ascii_case},
    {DEEPSEEK_SOURCE "\\p{N}+", "deepseek-llm", NULL},
    {DEEPSEEK_SOURCE "\\p{N}", "deepseek-llm", "llama.cpp does not cut between digits"},
    {"[\\r\\n]\n\\s?\\p{L}+\n\\s?\\p{P}+\n"
     "[\\x{4e00}-\\x{9fa5}\\x{800}-\\x{4e00}\\x{ac00}-\\x{d7ff}]+\n\\p{N}",
     "deepseek-coder", NULL},
};

static void replace_all(struct nb_strbuf *b, const char *from, const char *to)
{
    size_t n = strlen(from);
    struct nb_strbuf out;
    nb_strbuf_init(&out);
    for (const char *p = nb_strbuf_cstr(b), *hit; *p; p = hit + n) {
        hit = strstr(p, from);
        nb_strbuf_add(&out, p, hit ? (size_t)(hit - p) : strlen(p));
        if (!hit) break;
        nb_strbuf_puts(&out, to);
    }
    out.failed = out.failed || b->failed;
    nb_strbuf_release(b);
    *b = out;
}

/* Appends a pattern in the table's spelling. */
static void add_pattern(struct nb_strbuf *out, const char *pattern)
{
    struct nb_strbuf b;
    nb_strbuf_init(&b);
    for (const char *p = pattern; *p;) {
        uint32_t c;
        size_t n = nb_utf8_next(p, &c);
        if (c < 0x80) nb_strbuf_putc(&b, *p);
        else nb_strbuf_printf(&b, "\\x{%x}", (unsigned)c);
        p += n;
    }
    for (size_t i = 0; i < sizeof spellings / sizeof *spellings; i++)
        replace_all(&b, spellings[i].from, spellings[i].to);
    if (out->len) nb_strbuf_putc(out, '\n');
    nb_strbuf_puts(out, nb_strbuf_cstr(&b));
    out->failed = out->failed || b.failed;
    nb_strbuf_release(&b);
}

static bool is_true(const json_t *part, const char *key, bool otherwise)
{
    const json_t *v = json_object_get(part, key);
    return json_is_boolean(v) ? json_is_true(v) : otherwise;
}

/* The patterns of the whole section, one a line; false when a part is none. */
static bool write_patterns(struct nb_strbuf *out, const struct nb_part_list *list)
{
    bool bytes = false;
    for (size_t i = 0; i < list->n; i++) {
        const json_t *part = list->part[i];
        const char *type = list->type[i];
        if (bytes) return false; /* what follows would cut characters of the alphabet */
        if (strcmp(type, "ByteLevel") == 0) {
            if (is_true(part, "use_regex", true)) add_pattern(out, GPT2);
            bytes = true;
        } else if (strcmp(type, "Digits") == 0) {
            add_pattern(out, is_true(part, "individual_digits", false) ? "\\p{N}" : "\\p{N}+");
        } else if (strcmp(type, "Split") == 0) {
            const char *behavior = json_string_value(json_object_get(part, "behavior"));
            bool invert = is_true(part, "invert", false);
            const char *regex =
                json_string_value(json_object_get(json_object_get(part, "pattern"), "Regex"));
            if (!regex || !behavior) return false;
            if (strcmp(behavior, invert ? "Removed" : "Isolated") != 0) return false;
            add_pattern(out, regex);
        } else {
            return false;
        }
    }
    return bytes;
}

static bool same_patterns(const struct nb_pre_rule *rule, const char *patterns)
{
    for (size_t i = 0; i < NB_PRE_REGEXES_MAX && rule->regex[i]; i++) {
        size_t n = strlen(rule->regex[i]);
        if (strncmp(patterns, rule->regex[i], n) != 0) return false;
        patterns += n;
        bool last = i + 1 == NB_PRE_REGEXES_MAX || !rule->regex[i + 1];
        if (*patterns != (last ? '\0' : '\n')) return false;
        patterns += !last;
    }
    return true;
}

static void choose(struct nb_pre_choice *out, const char *patterns, bool ignore_merges)
{
    const struct nb_pre_rule *rule = NULL;
    for (size_t i = 0; i < sizeof sources / sizeof *sources && !rule; i++) {
        if (strcmp(sources[i].patterns, patterns) != 0) continue;
        struct nb_span name = {(const unsigned char *)sources[i].name, strlen(sources[i].name)};
        rule = nb_pre_rule_find(name);
        out->difference = sources[i].difference;
    }
    bool by_source = rule != NULL;
    for (size_t i = 0; i < N_RULES && !by_source; i++) {
        if (!same_patterns(&rules[i], patterns)) continue;
        if (!rule ||
            (rule->ignore_merges != ignore_merges && rules[i].ignore_merges == ignore_merges))
            rule = &rules[i];
    }
    if (!rule) return;
    struct nb_span name;
    const char *p = rule->names;
    next_name(&p, &name);
    memcpy(out->name, name.data, name.bytes);
    out->ignore_merges = rule->ignore_merges;
}

int nb_pre_name_choose(struct nb_pre_choice *out, const struct nb_part_list *list,
                       bool ignore_merges, const char *what, struct nb_err *err)
{
    *out = (struct nb_pre_choice){0};
    struct nb_strbuf patterns;
    nb_strbuf_init(&patterns);
    bool known = write_patterns(&patterns, list);
    int rc = 0;
    if (patterns.failed) rc = nb_fail(err, NB_E_NOMEM, "%s: no memory for the pre_tokenizer", what);
    else if (known) choose(out, nb_strbuf_cstr(&patterns), ignore_merges);
    nb_strbuf_release(&patterns);
    return rc;
}

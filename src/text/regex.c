/* SPDX-License-Identifier: Apache-2.0
 *
 * regex.c - see regex.h. The only file that knows PCRE2. */
#include "text/regex.h"

#include <string.h>

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include "base/mem.h"
#include "text/unicode.h"

enum {
    PATTERN_MAX_BYTES = 64 * 1024,
    JIT_STACK_START = 32 * 1024,
    JIT_STACK_MAX = 16 * 1024 * 1024,
    HEAP_LIMIT_KB = 256 * 1024,
    STEPS_BASE = 1000 * 1000,
    STEPS_PER_BYTE = 64
};

struct nb_regex {
    char *pattern; /* as in the file, for messages; the needle of a literal */
    size_t bytes;
    pcre2_code *code; /* NULL: literal */
    bool jit;
};

struct nb_matcher {
    pcre2_match_data *data;
    pcre2_match_context *context;
    pcre2_jit_stack *stack;
};

static int compile(struct nb_regex *re, const char *what, struct nb_err *err)
{
    struct nb_strbuf translated;
    nb_strbuf_init(&translated);
    pcre2_compile_context *context = NULL;
    int rc = nb_regex_translate(&translated, re->pattern, re->bytes, what, err);
    if (rc) goto out;
    context = pcre2_compile_context_create(NULL);
    if (!context) {
        rc = nb_fail(err, NB_E_NOMEM, "%s: no memory for a regex", what);
        goto out;
    }
    pcre2_set_newline(context, PCRE2_NEWLINE_LF);
    int code;
    PCRE2_SIZE at;
    re->code = pcre2_compile((PCRE2_SPTR)translated.data, translated.len,
                             PCRE2_UTF | PCRE2_UCP | PCRE2_MULTILINE | PCRE2_NEVER_BACKSLASH_C,
                             &code, &at, context);
    if (!re->code) {
        char text[120] = "";
        pcre2_get_error_message(code, (PCRE2_UCHAR *)text, sizeof text);
        rc = nb_fail(err, NB_E_SPEC, "%s: regex '%.120s' cannot be used: %s", what, re->pattern,
                     text);
        goto out;
    }
    re->jit = pcre2_jit_compile(re->code, PCRE2_JIT_COMPLETE) == 0;
out:
    pcre2_compile_context_free(context);
    nb_strbuf_release(&translated);
    return rc;
}

int nb_regex_new(struct nb_regex **out, const char *pattern, size_t bytes, bool literal,
                 const char *what, struct nb_err *err)
{
    *out = NULL;
    if (bytes == 0) return nb_fail(err, NB_E_SPEC, "%s: an empty pattern is not supported", what);
    if (bytes > PATTERN_MAX_BYTES) {
        return nb_fail(err, NB_E_SPEC, "%s: pattern of %zu bytes, at most %d are accepted", what,
                       bytes, PATTERN_MAX_BYTES);
    }
    struct nb_regex *re = nb_xalloc(sizeof *re);
    re->pattern = nb_xalloc(bytes + 1);
    memcpy(re->pattern, pattern, bytes);
    re->bytes = bytes;
    int rc = literal ? 0 : compile(re, what, err);
    if (rc) {
        nb_regex_free(re);
        return rc;
    }
    *out = re;
    return 0;
}

int nb_regex_from_json(struct nb_regex **out, const json_t *part, const char *key, const char *what,
                       struct nb_err *err)
{
    *out = NULL;
    const json_t *p = json_object_get(part, key);
    const json_t *regex = json_object_get(p, "Regex"), *string = json_object_get(p, "String");
    const json_t *chosen = regex ? regex : string;
    if (!json_is_string(chosen) || (regex && string)) {
        return nb_fail(err, NB_E_FORMAT,
                       "%s: key '%s': expected an object with a \"String\" or a \"Regex\"", what,
                       key);
    }
    return nb_regex_new(out, json_string_value(chosen), json_string_length(chosen), !regex, what,
                        err);
}

void nb_regex_free(struct nb_regex *re)
{
    if (!re) return;
    pcre2_code_free(re->code);
    nb_free(re->pattern);
    nb_free(re);
}

struct nb_matcher *nb_matcher_new(void)
{
    struct nb_matcher *m = nb_xalloc(sizeof *m);
    m->data = pcre2_match_data_create(1, NULL);
    m->context = pcre2_match_context_create(NULL);
    if (!m->data || !m->context) {
        nb_matcher_free(m);
        return NULL;
    }
    pcre2_set_heap_limit(m->context, HEAP_LIMIT_KB);
    return m;
}

void nb_matcher_free(struct nb_matcher *m)
{
    if (!m) return;
    pcre2_jit_stack_free(m->stack);
    pcre2_match_context_free(m->context);
    pcre2_match_data_free(m->data);
    nb_free(m);
}

/* One search from `from` on; PCRE2's result. The first kilobytes of JIT stack are on the machine
 * stack; only a pattern that needs more gets its own, past that the interpreter with its heap. */
static int search(const struct nb_regex *re, struct nb_matcher *m, const char *s, size_t n,
                  size_t from)
{
    uint64_t steps = STEPS_BASE + (uint64_t)n * STEPS_PER_BYTE;
    pcre2_set_match_limit(m->context, steps > UINT32_MAX ? UINT32_MAX : (uint32_t)steps);
    if (re->jit) {
        int rc = pcre2_jit_match(re->code, (PCRE2_SPTR)s, n, from, PCRE2_NO_UTF_CHECK, m->data,
                                 m->context);
        if (rc == PCRE2_ERROR_JIT_STACKLIMIT && !m->stack) {
            m->stack = pcre2_jit_stack_create(JIT_STACK_START, JIT_STACK_MAX, NULL);
            pcre2_jit_stack_assign(m->context, NULL, m->stack);
            rc = pcre2_jit_match(re->code, (PCRE2_SPTR)s, n, from, PCRE2_NO_UTF_CHECK, m->data,
                                 m->context);
        }
        if (rc != PCRE2_ERROR_JIT_STACKLIMIT) return rc;
    }
    return pcre2_match(re->code, (PCRE2_SPTR)s, n, from, PCRE2_NO_UTF_CHECK | PCRE2_NO_JIT, m->data,
                       m->context);
}

static int report(const struct nb_regex *re, int rc, size_t at, struct nb_err *err)
{
    switch (rc) {
    case PCRE2_ERROR_MATCHLIMIT:
    case PCRE2_ERROR_DEPTHLIMIT:
        return nb_fail(err, NB_E_FORMAT,
                       "tokenizer: regex '%.120s' needs too many steps at byte %zu of the text",
                       re->pattern, at);
    case PCRE2_ERROR_HEAPLIMIT:
    case PCRE2_ERROR_NOMEMORY:
        return nb_fail(err, NB_E_NOMEM,
                       "tokenizer: regex '%.120s' needs too much memory at byte %zu of the text",
                       re->pattern, at);
    default:
        return nb_fail(err, NB_E_FAIL,
                       "tokenizer: regex '%.120s' failed at byte %zu (PCRE2 error %d)", re->pattern,
                       at, rc);
    }
}

static bool find_literal(const struct nb_regex *re, const char *s, size_t n,
                         struct nb_regex_iter *it)
{
    const char *hit = memmem(s + it->next, n - it->next, re->pattern, re->bytes);
    if (!hit) return false;
    it->start = (size_t)(hit - s);
    it->end = it->next = it->start + re->bytes;
    return true;
}

int nb_regex_next(const struct nb_regex *re, struct nb_matcher *m, const char *s, size_t n,
                  struct nb_regex_iter *it, struct nb_err *err)
{
    if (!re->code) return find_literal(re, s, n, it);
    while (it->next <= n) {
        int rc = search(re, m, s, n, it->next);
        if (rc == PCRE2_ERROR_NOMATCH) break;
        if (rc < 0) return report(re, rc, it->next, err);
        const PCRE2_SIZE *v = pcre2_get_ovector_pointer(m->data);
        size_t start = v[0], end = v[1];
        if (end == start && it->matched && it->last_match_end == end) {
            it->next += it->next < n ? nb_utf8_length((unsigned char)s[it->next]) : 1;
            continue;
        }
        it->start = start;
        it->end = it->next = it->last_match_end = end;
        it->matched = true;
        return 1;
    }
    it->next = n + 1;
    return 0;
}

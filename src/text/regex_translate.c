/* SPDX-License-Identifier: Apache-2.0
 *
 * regex_translate.c - an Oniguruma pattern (Ruby syntax) rewritten for PCRE2.
 *
 * Most of the syntax is shared. What differs and is rewritten: \s, \w, \b, \h, \v and POSIX
 * brackets (other sets of characters), \p{...} (other names; script names mean Script, not
 * Script_Extensions), (?m) (dot matches newline), {,n}, \uHHHH, groups (nothing here needs their
 * captures). What differs and is refused: {n,m}+ and {n}?, nested classes and && in them,
 * references, conditionals, named groups, options that change in mid-pattern, \W inside brackets.
 *
 * Sources: Oniguruma's doc/RE and doc/UNICODE_PROPERTIES, pcre2pattern(3) of PCRE2 10.42. */
#include <ctype.h>
#include <string.h>

#include "text/regex.h"
#include "text/unicode.h"

/* White_Space; PCRE2's own \s has U+180E too. And its complement, for \S inside brackets. */
#define SPACE                                                                                      \
    "\\x09-\\x0d\\x20\\x85\\xa0\\x{1680}\\x{2000}-\\x{200a}\\x{2028}\\x{2029}\\x{202f}\\x{205f}\\x{3000}"
#define NOT_SPACE                                                                                       \
    "\\x00-\\x08\\x0e-\\x1f\\x21-\\x84\\x86-\\x9f\\xa1-\\x{167f}\\x{1681}-\\x{1fff}\\x{200b}-\\x{2027}" \
    "\\x{202a}-\\x{202e}\\x{2030}-\\x{205e}\\x{2060}-\\x{2fff}\\x{3001}-\\x{10ffff}"
#define WORD "\\p{Alphabetic}\\p{M}\\p{Nd}\\p{Pc}"
/* Outside brackets Oniguruma counts the superscripts and fractions of Latin-1 as word characters
 * too. */
#define WORD_ALONE WORD "\\xb2\\xb3\\xb9\\xbc-\\xbe"
#define HEX "0-9a-fA-F"

struct scan {
    const char *p, *end, *begin;
    struct nb_strbuf *out;
    const char *what;
    struct nb_err *err;
};

static int refuse(const struct scan *s, const char *construct)
{
    return nb_fail(s->err, NB_E_SPEC, "%s: regex '%.120s': %s is not supported", s->what, s->begin,
                   construct);
}

static void emit(struct scan *s, const char *text)
{
    nb_strbuf_puts(s->out, text);
}

/* A set, alone or as a member of the class that is open. */
static void emit_set(struct scan *s, bool in_class, const char *members)
{
    if (in_class) emit(s, members);
    else nb_strbuf_printf(s->out, "[%s]", members);
}

static void emit_char(struct scan *s, unsigned long c)
{
    nb_strbuf_printf(s->out, "\\x{%lx}", c);
}

/* Names that Oniguruma and PCRE2 write differently, or that are a set of ours; both lower-case
 * without spaces, hyphens and underscores. to NULL: the value is a set. */
static const struct {
    const char *name, *to, *set;
} properties[] = {
    {"letter", "L", NULL},
    {"lc", "L&", NULL},
    {"uppercaseletter", "Lu", NULL},
    {"lowercaseletter", "Ll", NULL},
    {"titlecaseletter", "Lt", NULL},
    {"modifierletter", "Lm", NULL},
    {"otherletter", "Lo", NULL},
    {"mark", "M", NULL},
    {"combiningmark", "M", NULL},
    {"nonspacingmark", "Mn", NULL},
    {"spacingmark", "Mc", NULL},
    {"enclosingmark", "Me", NULL},
    {"number", "N", NULL},
    {"decimalnumber", "Nd", NULL},
    {"digit", "Nd", NULL},
    {"letternumber", "Nl", NULL},
    {"othernumber", "No", NULL},
    {"punctuation", "P", NULL},
    {"symbol", "S", NULL},
    {"mathsymbol", "Sm", NULL},
    {"currencysymbol", "Sc", NULL},
    {"modifiersymbol", "Sk", NULL},
    {"othersymbol", "So", NULL},
    {"separator", "Z", NULL},
    {"spaceseparator", "Zs", NULL},
    {"other", "C", NULL},
    {"control", "Cc", NULL},
    {"format", "Cf", NULL},
    {"any", "Any", NULL},
    {"alpha", "Alphabetic", NULL},
    {"alphabetic", "Alphabetic", NULL},
    {"upper", "Uppercase", NULL},
    {"uppercase", "Uppercase", NULL},
    {"lower", "Lowercase", NULL},
    {"lowercase", "Lowercase", NULL},
    {"emoji", "Emoji", NULL},
    {"emojipresentation", "Emoji_Presentation", NULL},
    {"emojimodifier", "Emoji_Modifier", NULL},
    {"emojicomponent", "Emoji_Component", NULL},
    {"extendedpictographic", "Extended_Pictographic", NULL},
    {"ideographic", "Ideographic", NULL},
    {"space", NULL, SPACE},
    {"whitespace", NULL, SPACE},
    {"word", NULL, WORD_ALONE},
    {"alnum", NULL, "\\p{Alphabetic}\\p{Nd}"},
};

static bool is_category(const char *name)
{
    static const char all[] = " l lu ll lt lm lo m mn mc me n nd nl no p pc pd ps pe pi pf po"
                              " s sm sc sk so z zs zl zp c cc cf cs co cn ";
    char spaced[8];
    size_t n = strlen(name);
    if (n == 0 || n > 2) return false;
    spaced[0] = ' ';
    memcpy(spaced + 1, name, n);
    memcpy(spaced + 1 + n, " ", 2);
    return strstr(all, spaced) != NULL;
}

/* name: normalized. negated: the complement. */
static int emit_property(struct scan *s, bool in_class, const char *name, bool negated)
{
    const char *p = negated ? "P" : "p";
    if (is_category(name)) {
        nb_strbuf_printf(s->out, "\\%s{%c%s}", p, toupper((unsigned char)name[0]), name + 1);
        return 0;
    }
    for (size_t i = 0; i < sizeof properties / sizeof *properties; i++) {
        if (strcmp(properties[i].name, name) != 0) continue;
        if (properties[i].to) {
            nb_strbuf_printf(s->out, "\\%s{%s}", p, properties[i].to);
            return 0;
        }
        if (!negated) {
            bool word = strcmp(name, "word") == 0;
            emit_set(s, in_class, word && in_class ? WORD : properties[i].set);
            return 0;
        }
        if (in_class) return refuse(s, "this negated property inside brackets");
        nb_strbuf_printf(s->out, "[^%s]", properties[i].set);
        return 0;
    }
    nb_strbuf_printf(s->out, "\\%s{sc:%s}", p, name); /* a script; PCRE2 refuses an unknown one */
    return 0;
}

/* At the '{' of \p{...} or behind "[:" of a POSIX bracket: the name up to `close`, normalized. */
static int read_name(struct scan *s, const char *close, char name[64], bool *negated)
{
    size_t n = 0;
    *negated = false;
    if (s->p < s->end && *s->p == '^') {
        *negated = true;
        s->p++;
    }
    size_t closing = strlen(close);
    while ((size_t)(s->end - s->p) >= closing && memcmp(s->p, close, closing) != 0) {
        char c = *s->p++;
        if (c == ' ' || c == '_' || c == '-') continue;
        if (!isalnum((unsigned char)c) || n == 63) return refuse(s, "this property name");
        name[n++] = (char)tolower((unsigned char)c);
    }
    name[n] = '\0';
    if ((size_t)(s->end - s->p) < closing || n == 0)
        return refuse(s, "an unfinished property name");
    s->p += closing;
    return 0;
}

/* \xHH, \x{H...}, \uHHHH; s->p is behind the letter. */
static int hex_escape(struct scan *s, char letter)
{
    bool braces = letter == 'x' && s->p < s->end && *s->p == '{';
    if (braces) s->p++;
    size_t most = braces ? 8 : letter == 'x' ? 2 : 4, n = 0;
    unsigned long c = 0;
    for (; n < most && s->p < s->end && isxdigit((unsigned char)*s->p); n++, s->p++) {
        char d = (char)tolower((unsigned char)*s->p);
        c = c * 16 + (unsigned long)(d <= '9' ? d - '0' : d - 'a' + 10);
    }
    if (braces) {
        if (s->p == s->end || *s->p != '}') return refuse(s, "this \\x{...}");
        s->p++;
    }
    if (n == 0 || (letter == 'u' && n != 4)) return refuse(s, "an unfinished hexadecimal escape");
    if (letter == 'x' && !braces && c >= 0x80) return refuse(s, "a raw byte (\\x80 to \\xff)");
    if (c > 0x10ffff || (c >= 0xd800 && c <= 0xdfff)) return refuse(s, "this code point");
    emit_char(s, c);
    return 0;
}

static int word_boundary(struct scan *s, bool is)
{
    nb_strbuf_printf(s->out,
                     is ? "(?:(?<=[%s])(?![%s])|(?<![%s])(?=[%s]))"
                        : "(?:(?<=[%s])(?=[%s])|(?<![%s])(?![%s]))",
                     WORD_ALONE, WORD_ALONE, WORD_ALONE, WORD_ALONE);
    return 0;
}

static int property_escape(struct scan *s, bool in_class, bool negated)
{
    char name[64];
    bool caret;
    if (s->p == s->end || *s->p != '{') return refuse(s, "\\p without braces");
    s->p++;
    int rc = read_name(s, "}", name, &caret);
    return rc ? rc : emit_property(s, in_class, name, negated != caret);
}

/* At the character behind a backslash. *single: it stands for one character (may begin a range). */
static int escape(struct scan *s, bool in_class, bool *single)
{
    *single = false;
    if (s->p == s->end) return refuse(s, "a backslash at the end");
    char c = *s->p++;
    switch (c) {
    case 's': emit_set(s, in_class, SPACE); return 0;
    case 'S': emit_set(s, in_class, NOT_SPACE); return 0;
    case 'w': emit_set(s, in_class, in_class ? WORD : WORD_ALONE); return 0;
    case 'W':
        if (in_class) return refuse(s, "\\W inside brackets");
        emit(s, "[^" WORD_ALONE "]");
        return 0;
    case 'd': emit(s, "\\p{Nd}"); return 0;
    case 'D': emit(s, "\\P{Nd}"); return 0;
    case 'h': emit_set(s, in_class, HEX); return 0;
    case 'p':
    case 'P': return property_escape(s, in_class, c == 'P');
    case 'b':
    case 'B':
        if (!in_class) return word_boundary(s, c == 'b');
        if (c == 'B') return refuse(s, "\\B inside brackets");
        break;
    case 'A':
    case 'z':
    case 'Z':
        if (in_class) return refuse(s, "an anchor inside brackets");
        nb_strbuf_printf(s->out, "\\%c", c);
        return 0;
    case 'x':
    case 'u': *single = true; return hex_escape(s, c);
    default: break;
    }
    *single = true;
    static const char from[] = "nrtfaevb0", to[] = "\n\r\t\f\a\x1b\v\b";
    const char *at = strchr(from, c);
    if (at && c != '\0' && !(c == '0' && s->p < s->end && isdigit((unsigned char)*s->p))) {
        emit_char(s, (unsigned char)to[at - from]); /* '0' finds the NUL that ends `to` */
        return 0;
    }
    if ((unsigned char)c >= 0x80) {
        nb_strbuf_putc(s->out, c); /* the rest of the character follows as ordinary bytes */
        return 0;
    }
    if (isalnum((unsigned char)c) || (unsigned char)c < 0x20) {
        char construct[32] = "the escape '\\?'";
        construct[13] = isalnum((unsigned char)c) ? c : '?';
        return refuse(s, construct);
    }
    nb_strbuf_printf(s->out, "\\%c", c);
    return 0;
}

static int posix_bracket(struct scan *s)
{
    char name[64];
    bool negated;
    s->p += 2;
    int rc = read_name(s, ":]", name, &negated);
    if (rc) return rc;
    static const char *const known[] = {"alpha", "digit", "upper", "lower",
                                        "space", "word",  "alnum"};
    size_t i = 0;
    while (i < sizeof known / sizeof *known && strcmp(known[i], name) != 0) i++;
    if (i == sizeof known / sizeof *known) return refuse(s, "this POSIX bracket");
    return emit_property(s, true, name, negated);
}

static bool begins_set(const struct scan *s, const char *p)
{
    return s->end - p >= 2 && p[0] == '\\' && strchr("sSwWdDhHpP", p[1]) && p[1];
}

/* At the character behind '['. A hyphen is an operator only between two single characters. */
static int class(struct scan *s)
{
    emit(s, "[");
    if (s->p < s->end && *s->p == '^') {
        emit(s, "^");
        s->p++;
    }
    bool first = true, can_range = false, range = false;
    while (s->p < s->end && (*s->p != ']' || first)) {
        char c = *s->p;
        bool single = true;
        first = false;
        if (c == '[') {
            if (s->end - s->p < 2 || s->p[1] != ':') return refuse(s, "a class inside a class");
            int rc = posix_bracket(s);
            if (rc) return rc;
            single = false;
        } else if (c == '&' && s->end - s->p >= 2 && s->p[1] == '&') {
            return refuse(s, "'&&' inside brackets");
        } else if (c == '-') {
            s->p++;
            bool joins =
                can_range && s->p < s->end && *s->p != ']' && *s->p != '[' && !begins_set(s, s->p);
            emit(s, joins ? "-" : "\\-");
            range = joins;
            can_range = false;
            continue;
        } else if (c == '\\') {
            s->p++;
            int rc = escape(s, true, &single);
            if (rc) return rc;
        } else if (c == ']') {
            s->p++;
            emit(s, "\\]");
        } else {
            nb_strbuf_putc(s->out, c);
            s->p++;
        }
        /* Bytes that continue a character change nothing: they are copied as single too. */
        can_range = single && !range;
        while (s->p < s->end && ((unsigned char)*s->p & 0xc0) == 0x80)
            nb_strbuf_putc(s->out, *s->p++);
        range = false;
    }
    if (s->p == s->end) return refuse(s, "an unfinished class");
    s->p++;
    emit(s, "]");
    return 0;
}

/* (?i:  (?m-i:  and, at the very start, (?i). s->p is behind "(?". */
static int options(struct scan *s)
{
    bool at_start = s->p - s->begin == 2;
    emit(s, "(?");
    while (s->p < s->end && strchr("im-", *s->p) && *s->p) {
        nb_strbuf_putc(s->out, *s->p == 'm' ? 's' : *s->p);
        s->p++;
    }
    if (s->p == s->end || (*s->p != ':' && *s->p != ')')) return refuse(s, "this kind of group");
    if (*s->p == ')' && !at_start) return refuse(s, "an option in mid-pattern");
    nb_strbuf_putc(s->out, *s->p++);
    return 0;
}

/* At the character behind '('. */
static int group(struct scan *s)
{
    if (s->p < s->end && *s->p == '*') return refuse(s, "'(*'");
    if (s->p == s->end || *s->p != '?') {
        emit(s, "(?:");
        return 0;
    }
    static const char *const plain[] = {"?:", "?=", "?!", "?>", "?<=", "?<!"};
    for (size_t i = 0; i < sizeof plain / sizeof *plain; i++) {
        size_t n = strlen(plain[i]);
        if ((size_t)(s->end - s->p) < n || memcmp(s->p, plain[i], n) != 0) continue;
        s->p += n;
        nb_strbuf_printf(s->out, "(%s", plain[i]);
        return 0;
    }
    s->p++;
    return options(s);
}

/* At '{'. {n}, {n,}, {n,m}, {,m} are intervals, anything else is a literal brace. */
static int interval(struct scan *s)
{
    const char *p = s->p + 1, *low = p;
    while (p < s->end && isdigit((unsigned char)*p)) p++;
    size_t low_digits = (size_t)(p - low), high_digits = 0;
    bool comma = p < s->end && *p == ',';
    const char *high = p;
    if (comma) {
        high = ++p;
        while (p < s->end && isdigit((unsigned char)*p)) p++;
        high_digits = (size_t)(p - high);
    }
    if (p == s->end || *p != '}' || low_digits + high_digits == 0) {
        emit(s, "\\{");
        s->p++;
        return 0;
    }
    s->p = p + 1;
    char next = '\0';
    if (s->p < s->end) next = *s->p;
    if (next == '+') return refuse(s, "an interval followed by '+'");
    if (next == '?' && !comma) return refuse(s, "'{n}?'");
    nb_strbuf_putc(s->out, '{');
    if (low_digits) nb_strbuf_add(s->out, low, low_digits);
    else nb_strbuf_putc(s->out, '0');
    if (comma) nb_strbuf_putc(s->out, ',');
    nb_strbuf_add(s->out, high, high_digits);
    nb_strbuf_putc(s->out, '}');
    return 0;
}

int nb_regex_translate(struct nb_strbuf *out, const char *pattern, size_t bytes, const char *what,
                       struct nb_err *err)
{
    struct scan s = {pattern, pattern + bytes, pattern, out, what, err};
    int rc = 0;
    while (s.p < s.end && !rc) {
        bool single;
        char c = *s.p;
        switch (c) {
        case '\\':
            s.p++;
            rc = escape(&s, false, &single);
            break;
        case '[':
            s.p++;
            rc = class(&s);
            break;
        case '(':
            s.p++;
            rc = group(&s);
            break;
        case '{': rc = interval(&s); break;
        default: nb_strbuf_putc(out, c); s.p++;
        }
    }
    if (!rc && out->failed) return nb_fail(err, NB_E_NOMEM, "%s: no memory for a regex", what);
    return rc;
}

/* SPDX-License-Identifier: Apache-2.0
 *
 * unicode.h - UTF-8 and the character classes that tokenizers ask for.
 *
 * Text is checked once at the door (nb_utf8_check); everything behind it may assume valid UTF-8. */
#ifndef NB_TEXT_UNICODE_H
#define NB_TEXT_UNICODE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* True when s[0..n) is valid UTF-8 (no surrogates, no overlong forms); else *bad is the offset of
 * the first byte that is not. */
bool nb_utf8_check(const char *s, size_t n, size_t *bad);

/* Length of the valid character at s, or of the bytes that a decoder replaces by one U+FFFD (the
 * longest prefix of a valid character, at least 1; Unicode 15, section 3.9). *valid tells which.
 * *more: the bytes end too early to say (n > 0). */
size_t nb_utf8_span(const unsigned char *s, size_t n, bool *valid, bool *more);

size_t nb_utf8_length(unsigned char lead);       /* of a valid character, 1 .. 4 */
size_t nb_utf8_next(const char *s, uint32_t *c); /* decodes; bytes consumed */
size_t nb_utf8_put(uint32_t c, char out[4]);     /* encodes; bytes written */
size_t nb_utf8_previous(const char *s, size_t end,
                        uint32_t *c); /* the character before s + end > s */

bool nb_char_is_space(uint32_t c);   /* White_Space */
bool nb_char_is_word(uint32_t c);    /* \w: Alphabetic, M, Nd, Pc, Join_Control */
bool nb_char_is_numeric(uint32_t c); /* N */
bool nb_char_is_punct(uint32_t c);   /* P, and the ASCII symbols */

/* The byte-level alphabet of GPT-2: every byte as a printable character. */
uint32_t nb_byte_to_char(unsigned char byte); /* < 0x144 */
int nb_char_to_byte(uint32_t c);              /* -1: not in the alphabet */

#endif

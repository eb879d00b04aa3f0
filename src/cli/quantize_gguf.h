/* SPDX-License-Identifier: Apache-2.0
 *
 * quantize_gguf.h - the part of `nibble quantize` and `nibble convert` that makes GGUF files. */
#ifndef NB_CLI_QUANTIZE_GGUF_H
#define NB_CLI_QUANTIZE_GGUF_H

#include "cli/quantize_options.h"

/* --format gguf, or an output that ends in .gguf and no other format. */
bool nb_cli_wants_gguf(const struct nb_quantize_words *w);
/* Encoding alone will do: no method asked for that needs calibration, or importances are given. */
bool nb_cli_encodes_gguf(const struct nb_quantize_words *w);
/* Checks what the words mean for a GGUF file; o points into w. NB_E_USAGE. */
int nb_cli_gguf_words(const struct nb_quantize_words *w, struct nb_gguf_opts *o,
                      struct nb_err *err);
int nb_cli_quantize_gguf(struct nb_cli *cli, const struct nb_quantize_words *w, struct nb_err *err);

/* Runs it and prints the result as command `name`. opts->gate and so on are the caller's. */
int nb_cli_write_gguf(struct nb_cli *cli, const char *name, const struct nb_gguf_opts *opts,
                      struct nb_pool *pool, struct nb_err *err);

/* Notes of a report, one per line: as a JSON array, or printed. */
json_t *nb_cli_lines(const struct nb_strbuf *text);
void nb_cli_print_notes(const struct nb_strbuf *text);

bool nb_cli_ends_with(const char *s, const char *suffix);

#endif

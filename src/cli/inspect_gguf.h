/* SPDX-License-Identifier: Apache-2.0
 *
 * inspect_gguf.h - the part of `nibble inspect` that looks at a GGUF file as a container. */
#ifndef NB_CLI_INSPECT_GGUF_H
#define NB_CLI_INSPECT_GGUF_H

#include <stdbool.h>

#include "cli/cli.h"
#include "container/gguf.h"

/* Version, alignment, parts, number of keys; with metadata also their values, arrays cut short. */
json_t *nb_cli_gguf_json(const struct nb_gguf *g, bool metadata);
void nb_cli_gguf_print_container(const struct nb_gguf *g);
/* One line per key; long values cut short, bytes that a terminal obeys replaced. */
void nb_cli_gguf_print_metadata(const struct nb_gguf *g);

/* A GGUF file that is no model we know (an importance matrix, a vocabulary, another architecture): shows what
 * any GGUF file has. `problem` says why it is none. */
int nb_cli_gguf_inspect(struct nb_cli *cli, const struct nb_gguf *g, bool tensors,
                        const char *problem, struct nb_err *err);

#endif

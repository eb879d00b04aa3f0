/* SPDX-License-Identifier: Apache-2.0
 *
 * commands.c - the command table, in the order of `nibble help`. */
#include "cli/commands.h"

const struct nb_command *const nb_cli_commands[] = {
    &nb_command_quantize, &nb_command_convert,
    &nb_command_imatrix,  &nb_command_eval,
    &nb_command_run,      &nb_command_inspect,
    &nb_command_verify,   &nb_command_tokenize,
    &nb_command_doctor,   NULL,
};

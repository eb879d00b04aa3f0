/* SPDX-License-Identifier: Apache-2.0
 *
 * commands.h - the commands, one cmd_<name>.c each; commands.c puts them in order. */
#ifndef NB_CLI_COMMANDS_H
#define NB_CLI_COMMANDS_H

#include "cli/cli.h"

extern const struct nb_command nb_command_quantize;
extern const struct nb_command nb_command_convert;
extern const struct nb_command nb_command_imatrix;
extern const struct nb_command nb_command_eval;
extern const struct nb_command nb_command_run;
extern const struct nb_command nb_command_inspect;
extern const struct nb_command nb_command_verify;
extern const struct nb_command nb_command_tokenize;
extern const struct nb_command nb_command_doctor;

#endif

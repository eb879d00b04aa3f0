/* SPDX-License-Identifier: Apache-2.0
 *
 * eval_output.h - how nibble eval shows its result: lines, or one JSON object. */
#ifndef NB_CLI_EVAL_OUTPUT_H
#define NB_CLI_EVAL_OUTPUT_H

#include "cli/cli.h"
#include "eval/eval.h"

struct nb_eval_output {
    struct nb_cli *cli;
    const char *against; /* the model or logits file compared with, as typed; or NULL */
    bool gated;
    const char *backend; /* as nb_backend_describe has it */
    const struct nb_eval_plan *plan;
    const struct nb_eval_result *result;
};

int nb_eval_output_json(const struct nb_eval_output *o, struct nb_err *err);
void nb_eval_output_print(const struct nb_eval_output *o);

#endif

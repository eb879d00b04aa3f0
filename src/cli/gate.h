/* SPDX-License-Identifier: Apache-2.0
 *
 * gate.h - the quality gate of a quantization run: tolerances, evaluation text, and the measurement. */
#ifndef NB_CLI_GATE_H
#define NB_CLI_GATE_H

#include "backend/backend.h"
#include "cli/cli.h"
#include "core/result.h"
#include "data/data.h"

/* "ratio=1.05,kld=0.1,top=0.8", any of them. NB_E_USAGE names what is wrong. */
int nb_tolerance_parse(const char *text, struct nb_tolerance *out, struct nb_err *err);
void nb_tolerance_default(struct nb_tolerance *out); /* perplexity ratio <= 1.05 */
/* "perplexity ratio <= 1.05" and so on, one line. */
void nb_tolerance_describe(const struct nb_tolerance *tol, char *out, size_t size);

struct nb_gate {
    struct nb_cli *cli;
    struct nb_backend *be;
    const char *model_dir; /* the float model */
    const char *eval_text; /* NULL: the bundled text */
    uint64_t memory_bytes; /* for hidden states */
    struct nb_tolerance tolerance;
    struct nb_windows windows; /* of the evaluation text */
    char tokenizer_sha256[65];
    bool compared; /* with the calibration text, when it was opened */
};

/* Reads and cuts the evaluation text, so that a text that cannot be used is told before the work. With calib
 * (may be NULL) it is also compared with that calibration text. Release also after an error. */
int nb_gate_open(struct nb_gate *g, const struct nb_calib_opts *calib, struct nb_err *err);
void nb_gate_release(struct nb_gate *g);

/* The pipeline's callback (ctx: struct nb_gate): measures folder dir against the float model. */
int nb_gate_run(void *ctx, const char *dir, const struct nb_windows *calibration,
                struct nb_eval_result *result, struct nb_err *err);

/* The result as the field "gate" of quantize's JSON, and as text on stdout. NULL: there was no gate. */
json_t *nb_gate_json(const struct nb_eval_result *g);
void nb_gate_print(const struct nb_eval_result *g);

#endif

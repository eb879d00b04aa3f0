/* SPDX-License-Identifier: Apache-2.0
 *
 * inputs.h - SHA-256 of the files a run reads, found on a thread of its own while the run works. Internal to
 * pipeline/. */
#ifndef NB_PIPELINE_INPUTS_H
#define NB_PIPELINE_INPUTS_H

#include <pthread.h>

#include "checkpoint/checkpoint.h"

struct nb_input_file {
    char *path;
    const char *name; /* what the manifest calls it; inside path */
    char sha256[NB_SHA256_HEX];
};

struct nb_inputs {
    struct nb_input_file *files;
    size_t n;
    pthread_t thread;
    bool running;
    int rc;            /* of the thread */
    struct nb_err err; /* when rc */
};

/* Lists the weights, config.json and tokenizer.json of model, opened from dir, and begins to hash them. Release
 * with nb_inputs_release, also after an error. */
int nb_inputs_start(struct nb_inputs *in, const struct nb_model *model, const char *dir,
                    struct nb_err *err);
/* Waits for the thread; *json: {name: sha256}, new reference. May be called once. */
int nb_inputs_finish(struct nb_inputs *in, json_t **json, struct nb_err *err);
void nb_inputs_release(struct nb_inputs *in); /* waits too */

#endif

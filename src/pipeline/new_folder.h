/* SPDX-License-Identifier: Apache-2.0
 *
 * new_folder.h - a model folder that appears whole: made as OUT.partial, renamed when finished. For conversions, which
 * are short enough to begin anew after an interruption. Internal to pipeline/. */
#ifndef NB_PIPELINE_NEW_FOLDER_H
#define NB_PIPELINE_NEW_FOLDER_H

#include <stdbool.h>

#include "base/err.h"
#include "base/json.h"
#include "base/progress.h"

struct nb_new_folder {
    const char *out; /* borrowed */
    bool overwrite;  /* replace a folder that was made this way */
    char *partial;   /* OUT.partial; owned */
};

/* Before any work: neither OUT nor OUT.partial is something of somebody else's. NB_E_EXISTS names what is there. */
int nb_new_folder_check(struct nb_new_folder *f, struct nb_err *err);
/* OUT.partial, empty but for our mark. */
int nb_new_folder_begin(struct nb_new_folder *f, struct nb_err *err);
int nb_new_folder_json(const struct nb_new_folder *f, const char *name, const json_t *v,
                       struct nb_err *err);
int nb_new_folder_publish(const struct nb_new_folder *f, struct nb_err *err);
void nb_new_folder_abandon(const struct nb_new_folder *f); /* after an error: nothing is left */
void nb_new_folder_release(struct nb_new_folder *f);

/* Tokenizer, generation config, custom code: what belongs to every copy of a model. Hidden files are left out, since
 * manifest and verify know none; what cannot be copied is a warning. */
int nb_side_files_copy(const char *from, const char *to, const struct nb_progress *progress,
                       struct nb_err *err);

#endif

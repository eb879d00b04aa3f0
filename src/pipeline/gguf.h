/* SPDX-License-Identifier: Apache-2.0
 *
 * gguf.h - a model as one GGUF file, without calibration: each tensor read, encoded and written in turn.
 *
 * Part of the interface of pipeline/ (pipeline.h includes it). Work lies in OUT.gguf.partial, a folder; the
 * file appears under its name by one rename. The same model, options and version give the same bytes. */
#ifndef NB_PIPELINE_GGUF_H
#define NB_PIPELINE_GGUF_H

#include <stdbool.h>
#include <stdint.h>

#include "backend/backend.h"
#include "base/err.h"
#include "base/progress.h"
#include "base/strbuf.h"
#include "core/result.h"

struct nb_windows;
struct nb_gguf_out;

struct nb_gguf_opts {
    const char *model, *out;         /* MODEL's folder or file; OUT.gguf */
    const char *scheme;              /* "Q4_K_M", "BF16"; NULL: the source's float type */
    const char *const *tensor_types; /* "PATTERN=TYPE" */
    size_t n_tensor_types;
    const char *output_type, *embedding_type; /* NULL: by the scheme's rules */
    const char *imatrix;                      /* file, or NULL */
    const char *name;                         /* general.name, or NULL */
    bool pure, requantize, overwrite, dry_run;
    uint64_t max_part_bytes; /* 0: one file */
    int (*gate)(void *ctx, const char *path, const struct nb_windows *calibration,
                struct nb_eval_result *result, struct nb_err *err); /* NULL: none */
    void *gate_ctx;
};

struct nb_gguf_type_sum { /* of the tensors of one type */
    const char *type;
    int64_t tensors;
    uint64_t bytes;
};

enum { NB_GGUF_MAX_TYPES = 32 };

struct nb_gguf_report {
    char scheme[16];
    int64_t tensors, tensors_source,
        tensors_tied;            /* of the file; of the model, and left out of it */
    int64_t quantized, weighted; /* weighted: by an importance matrix */
    struct nb_gguf_type_sum types[NB_GGUF_MAX_TYPES];
    size_t n_types;
    double bits_per_weight; /* over all matrices */
    uint64_t bytes, bytes_source;
    size_t n_files;
    struct nb_strbuf notes; /* one line each: what a GGUF file cannot say of this model */
    bool has_gate;
    struct nb_eval_result gate;
    double seconds;
    uint64_t peak_rss_bytes;
};
void nb_gguf_report_release(struct nb_gguf_report *r);

/* Runs it all. NB_E_USAGE and NB_E_SPEC for what cannot be asked for or written, before any work; NB_E_EXISTS
 * when OUT is there and may not be replaced; NB_E_GATE when OUT was written but is outside the tolerance;
 * NB_E_INTERRUPTED when progress->stop said so. What is unfinished is removed. report: also after an error
 * to be released. */
int nb_gguf_quantize(struct nb_gguf_report *report, const struct nb_gguf_opts *opts,
                     struct nb_pool *pool, const struct nb_progress *progress, struct nb_err *err);

#endif

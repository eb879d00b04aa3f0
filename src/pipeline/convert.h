/* SPDX-License-Identifier: Apache-2.0
 *
 * convert.h - one folder container to another, every code and scale unchanged. Part of the interface of pipeline/
 * (pipeline.h includes it). */
#ifndef NB_PIPELINE_CONVERT_H
#define NB_PIPELINE_CONVERT_H

#include "pipeline/unpack.h"

/* A quantized folder as opts->format: the name of a checkpoint that writes, or "dense" for floats of opts->type (NULL:
 * the source's). Other tensors and the side files are copied byte for byte. All matrices are read back from the new
 * files and compared before OUT appears by one rename. A GGUF file goes to nb_unpack.
 *
 * Exact means: the same codes, scales, zeros, order and input scale under the same reading. Where the format cannot
 * hold that, NB_E_SPEC names the linear, the reason and the nearest formats that can, before any work. */
int nb_convert(struct nb_unpack_report *report, const struct nb_unpack_opts *opts,
               struct nb_pool *pool, const struct nb_progress *progress, struct nb_err *err);

#endif

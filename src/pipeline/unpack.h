/* SPDX-License-Identifier: Apache-2.0
 *
 * unpack.h - a GGUF file as a Hugging Face folder: floats, or codes as they are where another format holds
 * them exactly. Part of the interface of pipeline/ (pipeline.h includes it). */
#ifndef NB_PIPELINE_UNPACK_H
#define NB_PIPELINE_UNPACK_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "base/pool.h"
#include "base/progress.h"
#include "base/strbuf.h"

struct nb_unpack_opts {
    const char *model, *out; /* any MODEL with GGUF weights; a folder that is not there yet */
    const char
        *type; /* "bf16" "f16" "f32" of the floats; NULL: the source's, f16 of a quantized one */
    const char *format; /* "gptq": linears of Q4_0 or Q8_0, code by code; NULL: floats */
    uint64_t max_shard_bytes;
    bool overwrite; /* replace a folder that nibble wrote this way */
};

struct nb_unpack_report {
    int64_t tensors, quantized; /* quantized: linears whose codes were kept */
    uint64_t bytes, bytes_source;
    struct nb_strbuf notes; /* one line each: what is missing or was rounded */
    double seconds;
    uint64_t peak_rss_bytes;
};
void nb_unpack_report_release(struct nb_unpack_report *r);

/* Writes weights, config.json and, for a byte-level vocabulary with a known pre-tokenizer, tokenizer.json; for
 * others a note tells what is missing. The folder appears by one rename. NB_E_SPEC when `format` cannot hold a linear
 * exactly, by name, before any work. */
int nb_unpack(struct nb_unpack_report *report, const struct nb_unpack_opts *opts,
              struct nb_pool *pool, const struct nb_progress *progress, struct nb_err *err);

#endif

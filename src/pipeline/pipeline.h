/* SPDX-License-Identifier: Apache-2.0
 *
 * pipeline.h - the quantization run: a model folder in, a verified quantized folder out.
 *
 * One decoder layer is resident at a time. Work and journal live in OUT.partial; OUT appears by one
 * rename when everything is whole and checked. The same command resumes, and the final bytes depend on
 * inputs and recipe only: not on threads, memory limit, interruptions or time. */
#ifndef NB_PIPELINE_PIPELINE_H
#define NB_PIPELINE_PIPELINE_H

#include <stdbool.h>
#include <stdint.h>

#include "arch/arch.h"
#include "backend/backend.h"
#include "base/err.h"
#include "base/progress.h"
#include "core/result.h"
#include "data/data.h"
#include "pipeline/convert.h"
#include "pipeline/gguf.h"
#include "pipeline/unpack.h"
#include "quant/quant.h"

/* The quality gate: measures the folder `dir` (packed weights read back from disk) against the source
 * model and fills *result with a verdict. Provided by the command, since evaluation is a sibling. */
typedef int (*nb_gate_fn)(void *ctx, const char *dir, const struct nb_windows *calibration,
                          struct nb_eval_result *result, struct nb_err *err);

struct nb_bits_for { /* --bits-for GLOB=8 */
    const char *glob;
    int bits;
};

struct nb_quantize_opts {
    const char *model_dir, *out_dir;
    const char *method; /* "rtn" "gptq" "awq" "awq+gptq" "none" "best"; NULL: best */
    const char *effort; /* "fast" "normal" "max"; NULL: normal */
    const char
        *format; /* "gptq" "awq" "bnb" ...; NULL: the one most engines load the scheme from */
    const char *scheme; /* "W8A8" "NF4" ... as scheme.c names them; NULL: integers of `bits` */
    int bits;           /* 0: the scheme's, or 4 */
    int64_t group;      /* 0: the scheme's, or 128; -1: per channel */
    int sym;            /* -1: by format; 0 asym; 1 sym */
    int double_quant;   /* NF4, FP4: scales quantized once more; -1: yes */
    const char
        *storage; /* bnb: type the 4-bit bytes are stored as, "uint8" "bfloat16" ...; NULL: uint8 */
    double
        act_percentile; /* static activation scales reach it, in percent; 0: the largest magnitude */
    bool kv_scales;     /* k_scale and v_scale of a float8 KV cache are measured and written */
    bool rotate;        /* residual stream and heads rotated (R1, R2) before anything else */
    bool moe_all_tokens;   /* every calibration token goes to every expert's statistics */
    uint64_t target_bytes; /* of all tensors: mixed precision that fits; 0: none */
    double target_bits;    /* the same in bits per weight of the quantized linears; 0: none */
    double target_kld;     /* mixed precision, the smallest below it; 0: none */
    enum nb_act_order order;
    double damp;           /* 0: by token count */
    const char *clip;      /* "none" "mse" "weighted"; NULL: weighted */
    double gptaq_alpha;    /* < 0: by method; 0: off */
    const char *precision; /* of calibration: "f32", "bf16"; NULL: bf16 where this machine has it */
    struct nb_calib_opts calib; /* n_samples 0: 128; seqlen 0: min(2048, context) */
    const char *const *ignore, *const *include;
    size_t n_ignore, n_include;
    const struct nb_bits_for *bits_for;
    size_t n_bits_for;
    uint64_t memory_bytes;    /* for calibration activations in RAM; 0: half of what is free */
    uint64_t max_shard_bytes; /* 0: the container's default */
    const struct nb_gguf_opts
        *gguf; /* the file's scheme and types; NULL: a folder is made. out_dir is the
                                      * file; format, bits, group, sym, ignore, include are not for it */
    bool restart, overwrite, dry_run, allow_nonfinite;
    nb_gate_fn gate; /* NULL: no gate, the card says "not verified" */
    void *gate_ctx;
    const char *gate_recipe; /* tolerances as one line for manifest and card, or NULL */
};
void nb_quantize_defaults(struct nb_quantize_opts *o);

struct nb_linear_report {
    char name[NB_NAME_MAX * 2]; /* module path */
    struct nb_solve_report solve;
    int bits;
    int64_t group;
    bool quantized;
    bool expert;     /* one that the router picks */
    bool all_tokens; /* of an expert: calibrated on all tokens, not on those that it gets */
    int64_t tokens;  /* of an expert: calibration tokens that it gets */
};

struct nb_mixed_report { /* mixed precision; lines empty without it */
    struct nb_strbuf
        lines;            /* one per layer: "layer 0: q_proj/k_proj/v_proj 8, o_proj 4g128, ..." */
    double predicted_kld; /* nats per token, from the sensitivities of the parts */
};

struct nb_quantize_report {
    char method[32], format[32];
    char scheme[16]; /* by name, or of a GGUF file; else empty */
    int bits;
    int64_t group;
    bool sym;
    struct nb_mixed_report mixed;
    struct nb_strbuf notes;           /* one line each: what the file cannot say of the model */
    struct nb_linear_report *linears; /* owned; nb_quantize_report_release */
    size_t n_linears;
    int64_t tensors_source, tensors_quantized, tensors_copied, tensors_tied, tensors_dropped;
    uint64_t bytes; /* of all files of OUT */
    uint64_t bytes_source;
    double bits_per_weight; /* over quantized linears, scales and zeros included */
    int64_t calib_tokens, calib_samples;
    char calib_sha256[65];
    bool resumed;                              /* layers of an earlier run were kept */
    uint64_t plan_peak_bytes, plan_disk_bytes; /* predicted (what --dry-run prints) */
    bool has_gate;
    struct nb_eval_result gate;
    double seconds;
    uint64_t peak_rss_bytes;
};
void nb_quantize_report_release(struct nb_quantize_report *r);

/* Runs it all. 0; NB_E_GATE when OUT was written but is outside the tolerance (report filled, OUT marked
 * as failed); NB_E_INTERRUPTED when progress->stop said so (resumable); NB_E_SPEC for what cannot be
 * written, before any work; else the first error, with OUT.partial left for resuming. */
int nb_quantize(struct nb_quantize_report *report, const struct nb_quantize_opts *opts,
                struct nb_backend *be, const struct nb_progress *progress, struct nb_err *err);

#endif

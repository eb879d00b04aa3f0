/* SPDX-License-Identifier: Apache-2.0
 *
 * run.h - what the parts of one quantization run share. Internal to pipeline/. */
#ifndef NB_PIPELINE_RUN_H
#define NB_PIPELINE_RUN_H

#include "checkpoint/checkpoint.h"
#include "engine/engine.h"
#include "pipeline/actstore.h"
#include "pipeline/gguf_choice.h"
#include "pipeline/inputs.h"
#include "pipeline/pipeline.h"
#include "pipeline/recipe.h"

#define NB_WORK_NAME ".nibble" /* folder inside OUT.partial: lock, journal, activations */

enum nb_fate { NB_FATE_COPIED, NB_FATE_QUANTIZED, NB_FATE_TIED, NB_FATE_DROPPED };

struct nb_ledger_entry { /* what becomes of one source tensor */
    const struct nb_tensor *tensor;
    enum nb_fate fate;
    int64_t layer;      /* -1: outside the decoder layers */
    int linear;         /* index in its layer's linears, or -1: none, or several */
    const char *reason; /* for dropped and tied ones */
};

struct nb_run;
struct nb_ranges;

struct nb_expert_load { /* what an expert's linear was calibrated on */
    bool routed,
        all_tokens; /* routed: no shared expert; all_tokens: on more than the router sends */
    int64_t tokens; /* that the router sends */
};

/* What the output is: a folder of safetensors (output.c) or one GGUF file (output_gguf.c). */
struct nb_sink {
    int (*plan)(struct nb_run *r, struct nb_err *err); /* after the recipe; fills report's counts */
    uint64_t (*bytes)(const struct nb_run *r);         /* of all tensors */
    int (*open)(struct nb_run *r, struct nb_err *err); /* anew, or with layers_done layers in it */
    int (*copy)(struct nb_run *r, int64_t layer,       /* what is not solved; -1: outside layers */
                struct nb_err *err);
    int (*sync)(struct nb_run *r, struct nb_err *err);
    int (*close)(struct nb_run *r, struct nb_err *err); /* checks that all is there */
};
extern const struct nb_sink nb_sink_folder, nb_sink_gguf;

struct nb_run {
    const struct nb_quantize_opts *opts;
    const struct nb_progress *progress;
    struct nb_backend *be;
    struct nb_quantize_report *report;
    struct nb_model *model;
    struct nb_model *unturned; /* with --rotate the source; model is what it became */
    struct nb_tokenizer *tokenizer;
    struct nb_recipe recipe;
    struct nb_windows windows; /* calibration; empty when the recipe needs none */

    struct nb_ledger_entry *ledger; /* in writing order */
    size_t n_ledger;
    const struct nb_sink *sink;
    struct nb_st_writer *writer;

    struct nb_gguf_choice choice; /* of a GGUF file, as the next two */
    struct nb_gguf_out *gguf;
    char *file; /* in OUT.partial, bare name as OUT's; NULL: OUT is a folder */

    char *out, *partial, *work; /* OUT without trailing slashes, OUT.partial, OUT.partial/.nibble */
    int lock_fd;
    struct nb_inputs inputs;
    json_t *identity;       /* hashes of inputs, recipe, calibration; NULL: not asked for yet */
    double journaled;       /* when, by nb_clock_s */
    json_t *journal_layers; /* reports of finished layers */
    int64_t layers_done;
    bool resumed;
    const struct nb_expert_load *expert_load; /* of the linear being solved; NULL: of no expert */

    struct nb_actstore h, x;       /* residual stream and current input, quantized */
    struct nb_actstore h_fp, x_fp; /* float stream, when the recipe asks for it */
    int64_t windows_per_chunk, n_chunks;
    float *step_out;          /* one chunk of the widest input */
    struct nb_ranges *ranges; /* ranges.h; NULL: no scale is found in calibration */
};

/* Windows in chunk c (the last may be short) and the ids of its first. */
int64_t nb_run_chunk_windows(const struct nb_run *r, int64_t c);
const int32_t *nb_run_chunk_ids(const struct nb_run *r, int64_t c);

/* place.c: the folders. open checks what the options say, before any work, and makes nothing; enter makes
 * the work folder and locks it; publish turns OUT.partial into OUT and removes the work folder. */
int nb_place_open(struct nb_run *r, struct nb_err *err);
int nb_place_enter(struct nb_run *r, struct nb_err *err);
int nb_place_publish(struct nb_run *r, struct nb_err *err);

/* output.c: tensors of a folder that a layer has solved or changed */
int nb_output_put_f32(struct nb_run *r, const char *name, const float *v, int64_t n,
                      struct nb_err *err);
int nb_output_put_qmat(struct nb_run *r, const struct nb_module_spec *m, const struct nb_qmat *q,
                       struct nb_arena *arena, struct nb_err *err);

/* output_gguf.c: decides the types before there is a recipe; then the linear i of a layer as bytes of its
 * type, and the head. */
int nb_output_gguf_types(struct nb_run *r, struct nb_err *err);
int nb_output_gguf_linear(struct nb_run *r, int64_t layer, int i, const unsigned char *bytes,
                          struct nb_err *err);
/* Item of the head when it is solved with statistics of its own. */
bool nb_output_gguf_solves(const struct nb_run *r, size_t item);

/* head.c: the head of a GGUF file from the activations after the last layer */
int nb_run_head(struct nb_run *r, struct nb_err *err);

/* journal.c: hashes of everything that can change an output byte, in r->identity */
int nb_journal_identify(struct nb_run *r, struct nb_err *err);
int nb_journal_open(struct nb_run *r,
                    struct nb_err *err); /* in a locked folder: compare or create, layers_done */
int nb_journal_save(struct nb_run *r,
                    struct nb_err *err); /* after a layer: activations, then the journal */
int nb_journal_load_activations(struct nb_run *r, struct nb_err *err);
void nb_journal_drop_activations(
    const struct nb_run *r); /* of no use once every layer is finished */
json_t *nb_journal_report(const struct nb_linear_report *l);
int nb_journal_restore_reports(struct nb_run *r, struct nb_err *err);

/* layer.c: one decoder layer; reports go to report and journal */
int nb_run_record(struct nb_run *r, const struct nb_module_spec *m,
                  const struct nb_solve_report *s);
int nb_run_layer(struct nb_run *r, int64_t layer, struct nb_err *err);

/* experts.c: a line in the report's notes on how many tokens the experts saw. */
void nb_experts_note(struct nb_run *r);

/* finish.c: side files (copied before the work, so that an unreadable one is noticed then); and config,
 * gate, manifest, card, rename */
int nb_run_copy_side_files(struct nb_run *r, struct nb_err *err);
int nb_run_finish(struct nb_run *r, struct nb_err *err);

/* config.c: appends to out the text of config.json with the quantization config `value` (JSON text) put in;
 * every other byte stays as the user wrote it. */
int nb_config_splice(struct nb_strbuf *out, const char *text, size_t len, const char *value,
                     struct nb_err *err);

/* card.c: README.md of the output */
int nb_run_write_card(const struct nb_run *r, struct nb_err *err);

#endif

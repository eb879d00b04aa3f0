/* SPDX-License-Identifier: Apache-2.0
 *
 * bnb.h - what the files of the bitsandbytes row share: its tensors, its config and the quant_state blob. */
#ifndef NB_CHECKPOINT_BNB_H
#define NB_CHECKPOINT_BNB_H

#include "checkpoint/checkpoint.h"

/* The tensors of a linear, 4 bits. */
enum nb_bnb_tensor {
    NB_BNB_WEIGHT,
    NB_BNB_ABSMAX,
    NB_BNB_QUANT_MAP,
    NB_BNB_STATE,
    NB_BNB_NESTED_ABSMAX,
    NB_BNB_NESTED_MAP,
    NB_BNB_TENSORS_4BIT
};
/* Suffix behind the module's path; of the state for NF4 or FP4. */
const char *nb_bnb_suffix(enum nb_bnb_tensor t, bool nf4);

/* 8 bits. */
enum { NB_BNB_CODES, NB_BNB_SCB, NB_BNB_FORMAT, NB_BNB_TENSORS_8BIT };
extern const char *const nb_bnb_suffixes_8bit[NB_BNB_TENSORS_8BIT];

bool nb_bnb_is_4bit(const struct nb_qspec *spec); /* by its elements; anything else is LLM.int8 */
bool nb_bnb_is_nf4(const struct nb_qspec *spec);
bool nb_bnb_is_block_size(int64_t n); /* 32, 64 ... 4096 */

/* ---- config: bnb_config.c ---- */

struct nb_bnb_config {
    float threshold; /* llm_int8_threshold */
};

bool nb_bnb_config_probe(const json_t *quant_config);
int nb_bnb_config_parse(struct nb_bnb_config *c, const json_t *quant_config, struct nb_err *err);
int nb_bnb_can_describe(const struct nb_checkpoint_info *info, struct nb_err *err);
json_t *nb_bnb_config_make(const struct nb_checkpoint_info *info);

/* ---- the blob: bnb_state.c ---- */

struct nb_bnb_state {
    bool nf4; /* else FP4 */
    int64_t block, rows, cols;
    enum nb_dtype dtype; /* of the weight it came from */
    bool nested;
    float offset; /* nested */
};

enum { NB_BNB_STATE_MAX = 512 };

/* what: the tensor's name. NB_E_FORMAT naming it: not the JSON that bitsandbytes takes, or values that contradict each
 * other. */
int nb_bnb_state_parse(struct nb_bnb_state *s, struct nb_span text, const char *what,
                       struct nb_err *err);
/* The text as bitsandbytes writes it, without NUL. A nested one is padded with spaces to a length that does not depend on
 * the offset. Returns the length. */
size_t nb_bnb_state_print(const struct nb_bnb_state *s, char out[NB_BNB_STATE_MAX]);

/* ---- writing: bnb_pack.c ---- */

int nb_bnb_can_write(const struct nb_qspec *spec, int64_t rows, int64_t cols, bool desc_act,
                     struct nb_err *err);
int nb_bnb_plan(const struct nb_qspec *spec, int64_t rows, int64_t cols,
                const struct nb_pack_opts *opts, struct nb_packed_tensor out[NB_MAX_PACKED]);
int nb_bnb_pack(const struct nb_qmat *q, const struct nb_pack_opts *opts, struct nb_arena *arena,
                struct nb_packed_tensor out[NB_MAX_PACKED], int *n, struct nb_err *err);

#endif

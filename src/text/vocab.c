/* SPDX-License-Identifier: Apache-2.0
 *
 * vocab.c - an empty vocabulary and the names of its keys. */
#include "text/vocab.h"

#include <string.h>

void nb_vocab_init(struct nb_vocab *v)
{
    *v = (struct nb_vocab){0};
    nb_arena_init(&v->arena);
    for (int i = 0; i < NB_VOCAB_N_SPECIAL; i++) v->special[i] = -1;
}

void nb_vocab_release(struct nb_vocab *v)
{
    nb_arena_release(&v->arena);
    nb_vocab_init(v);
}

const char *nb_vocab_special_key(enum nb_vocab_special s)
{
    static const char *const keys[NB_VOCAB_N_SPECIAL] = {
        [NB_VOCAB_BOS] = "bos_token_id",         [NB_VOCAB_EOS] = "eos_token_id",
        [NB_VOCAB_EOT] = "eot_token_id",         [NB_VOCAB_EOM] = "eom_token_id",
        [NB_VOCAB_UNK] = "unknown_token_id",     [NB_VOCAB_SEP] = "seperator_token_id",
        [NB_VOCAB_PAD] = "padding_token_id",     [NB_VOCAB_MASK] = "mask_token_id",
        [NB_VOCAB_FIM_PRE] = "fim_pre_token_id", [NB_VOCAB_FIM_SUF] = "fim_suf_token_id",
        [NB_VOCAB_FIM_MID] = "fim_mid_token_id", [NB_VOCAB_FIM_PAD] = "fim_pad_token_id",
        [NB_VOCAB_FIM_REP] = "fim_rep_token_id", [NB_VOCAB_FIM_SEP] = "fim_sep_token_id"};
    return keys[s];
}

const char *nb_vocab_flag_key(enum nb_vocab_flag f)
{
    static const char *const keys[NB_VOCAB_N_FLAGS] = {
        [NB_VOCAB_ADD_BOS] = "add_bos_token",
        [NB_VOCAB_ADD_EOS] = "add_eos_token",
        [NB_VOCAB_ADD_SEP] = "add_sep_token",
        [NB_VOCAB_ADD_SPACE_PREFIX] = "add_space_prefix",
        [NB_VOCAB_REMOVE_EXTRA_WHITESPACES] = "remove_extra_whitespaces"};
    return keys[f];
}

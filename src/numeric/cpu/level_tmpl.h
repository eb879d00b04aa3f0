/* SPDX-License-Identifier: Apache-2.0
 *
 * level_tmpl.h - the entry of a level, from the functions of the other templates. */
const struct nb_block_level LEVEL = {
    .name = LEVEL_NAME,
    .decode =
        {
            [NB_BLOCK_Q4_0] = decode_q4_0,
            [NB_BLOCK_Q4_1] = decode_q4_1,
            [NB_BLOCK_Q5_0] = decode_q5_0,
            [NB_BLOCK_Q5_1] = decode_q5_1,
            [NB_BLOCK_Q8_0] = decode_q8_0,
            [NB_BLOCK_Q2_K] = decode_q2_k,
            [NB_BLOCK_Q3_K] = decode_q3_k,
            [NB_BLOCK_Q4_K] = decode_q4_k,
            [NB_BLOCK_Q5_K] = decode_q5_k,
            [NB_BLOCK_Q6_K] = decode_q6_k,
            [NB_BLOCK_IQ4_NL] = decode_iq4_nl,
            [NB_BLOCK_IQ4_XS] = decode_iq4_xs,
            [NB_BLOCK_MXFP4] = decode_mxfp4,
        },
    .encode =
        {
            [NB_BLOCK_Q4_0] = encode_q4_0,
            [NB_BLOCK_Q4_1] = encode_q4_1,
            [NB_BLOCK_Q5_0] = encode_q5_0,
            [NB_BLOCK_Q5_1] = encode_q5_1,
            [NB_BLOCK_Q8_0] = encode_q8_0,
            [NB_BLOCK_Q2_K] = encode_q2_k,
            [NB_BLOCK_Q3_K] = encode_q3_k,
            [NB_BLOCK_Q4_K] = encode_q4_k,
            [NB_BLOCK_Q5_K] = encode_q5_k,
            [NB_BLOCK_Q6_K] = encode_q6_k,
            [NB_BLOCK_IQ4_NL] = encode_iq4_nl,
            [NB_BLOCK_IQ4_XS] = encode_iq4_xs,
            [NB_BLOCK_MXFP4] = encode_mxfp4,
        },
};

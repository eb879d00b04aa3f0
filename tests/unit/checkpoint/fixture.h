/* SPDX-License-Identifier: Apache-2.0
 *
 * fixture.h - a model that is only a quantization config and a few tensors, and the vectors of the formats
 * document, section 8.1. */
#ifndef TESTS_UNIT_CHECKPOINT_FIXTURE_H
#define TESTS_UNIT_CHECKPOINT_FIXTURE_H

#include "checkpoint/checkpoint.h"

struct fixture_tensor {
    const char *name;
    enum nb_dtype dtype;
    int rank;
    int64_t shape[2];
    const void *data;
};

/* A model without architecture, its files in folder. Ends the test on any error. */
struct nb_model *fixture_open(const char *folder, const char *quant_config,
                              const struct fixture_tensor *t, size_t n);

/* Codes and zeros of section 8.1: K = 128, N = 64, groups of 32; scales are 1. Memory from arena. */
void fixture_vector(struct nb_qmat *q, int bits, struct nb_arena *arena);

/* SHA-256 of the packed tensor with that suffix. */
void fixture_hash(const struct nb_packed_tensor *t, int n, const char *suffix,
                  char hex[NB_SHA256_HEX]);
const struct nb_packed_tensor *fixture_find(const struct nb_packed_tensor *t, int n,
                                            const char *suffix);

#endif

/* SPDX-License-Identifier: Apache-2.0
 *
 * loaders.h - a row of the table of programs that load quantized models. Private to checkpoint/; the
 * question is asked through nb_loaders_ask. */
#ifndef NB_CHECKPOINT_LOADERS_H
#define NB_CHECKPOINT_LOADERS_H

#include "checkpoint/checkpoint.h"

enum nb_loader_kind {
    NB_LOADER_ANY_KIND,
    NB_LOADER_INT,
    NB_LOADER_TABLE, /* NF4, FP4 of bitsandbytes */
    NB_LOADER_FP8,   /* E4M3 with float scales */
    NB_LOADER_FP4,   /* E2M1 in small groups: NVFP4, MXFP4 */
    NB_LOADER_MXFP8, /* E4M3 under powers of two */
    NB_LOADER_BLOCKS /* of GGUF files */
};

enum {
    NB_LOADER_GROUP_ROW = 1,
    NB_LOADER_GROUP_32 = 2,
    NB_LOADER_GROUP_64 = 4,
    NB_LOADER_GROUP_128 = 8,
    NB_LOADER_GROUP_ANY = 16
};

struct nb_loader_row {
    const char *loader, *formats; /* formats: names with a space between them */
    enum nb_loader_kind kind;
    unsigned bits,
        acts;        /* one bit for each bit width, and for each enum nb_act_kind; bits 0: all */
    unsigned groups; /* of integers */
    int k_multiple, n_multiple; /* of the part of a matrix that one GPU holds; 0: any */
    bool sym_only, order, float16_only, one_gpu;
    bool pads;    /* without act-order a matrix of any size is padded to the kernel's */
    bool library; /* runs a model in one process: says nothing of tensor parallelism */
    bool slow;    /* works, but this is no path to serve from */
    const char *kernel, *device, *source;
};

/* Ends with a row without loader; rows of one loader stand together. */
extern const struct nb_loader_row nb_loader_rows[];

#endif

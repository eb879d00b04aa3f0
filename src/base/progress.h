/* SPDX-License-Identifier: Apache-2.0
 *
 * progress.h - how long work tells the command what it is doing. Nothing below cli/ prints. */
#ifndef NB_BASE_PROGRESS_H
#define NB_BASE_PROGRESS_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"

struct nb_progress_event {
    const char *phase; /* "calibrate", "quantize", "gate", ... */
    const char *item;  /* layer or tensor name, or NULL */
    uint64_t done, total;
    double loss;    /* < 0: none */
    bool item_done; /* a line may be printed for this item */
};

typedef void (*nb_progress_fn)(void *ctx, const struct nb_progress_event *event);
typedef void (*nb_warn_fn)(void *ctx, const char *sentence);

/* Callbacks handed down by the command; each may be NULL. `stop` is polled between pieces of work. */
struct nb_progress {
    nb_progress_fn report;
    nb_warn_fn warn;
    bool (*stop)(void *ctx);
    void *ctx;
};

void nb_progress_report(const struct nb_progress *p, const struct nb_progress_event *event);
/* One sentence, cleaned as error texts are. */
void nb_progress_warn(const struct nb_progress *p, const char *fmt, ...) NB_PRINTF(2, 3);
bool nb_progress_stop(const struct nb_progress *p);

#endif

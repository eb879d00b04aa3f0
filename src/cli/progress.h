/* SPDX-License-Identifier: Apache-2.0
 *
 * progress.h - progress on standard error: one line redrawn on a terminal, one plain line per finished
 * item elsewhere, nothing with --quiet. */
#ifndef NB_CLI_PROGRESS_H
#define NB_CLI_PROGRESS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/progress.h"

struct nb_progress_line {
    const char *command;
    bool quiet, terminal;
    bool drawn;     /* a line stands on the terminal */
    char phase[32]; /* of the last event */
    uint64_t
        phase_from; /* done when the phase was first seen: a resumed run does not count twice */
    double phase_s; /* clock when the phase began */
    double drawn_s; /* clock of the last drawing */
};

void nb_progress_line_init(struct nb_progress_line *line, const char *command, bool quiet);
void nb_progress_line_event(struct nb_progress_line *line, const struct nb_progress_event *event);
/* Clears the terminal line, so that other text can be printed. */
void nb_progress_line_clear(struct nb_progress_line *line);

/* One event as text: at most size-1 bytes, columns wide at most (0: no bar, for plain lines).
 * elapsed: seconds since the phase began. */
void nb_progress_format(char *out, size_t size, int columns, const struct nb_progress_line *line,
                        const struct nb_progress_event *event, double elapsed);

#endif

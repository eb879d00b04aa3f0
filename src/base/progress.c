/* SPDX-License-Identifier: Apache-2.0
 *
 * progress.c - see progress.h. */
#include "base/progress.h"

#include <stdarg.h>
#include <stdio.h>

void nb_progress_report(const struct nb_progress *p, const struct nb_progress_event *event)
{
    if (p && p->report) p->report(p->ctx, event);
}

void nb_progress_warn(const struct nb_progress *p, const char *fmt, ...)
{
    if (!p || !p->warn) return;
    char text[512];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    nb_err_clean(text);
    p->warn(p->ctx, text);
}

bool nb_progress_stop(const struct nb_progress *p)
{
    return p && p->stop && p->stop(p->ctx);
}

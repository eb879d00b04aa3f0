/* SPDX-License-Identifier: Apache-2.0
 *
 * progress.c - see progress.h. */
#include "cli/progress.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "base/clock.h"

static const double redraw_s = 0.1;

void nb_progress_line_init(struct nb_progress_line *line, const char *command, bool quiet)
{
    memset(line, 0, sizeof *line);
    line->command = command;
    line->quiet = quiet;
    line->terminal = isatty(STDERR_FILENO) == 1;
}

static int terminal_columns(void)
{
    struct winsize w;
    if (ioctl(STDERR_FILENO, TIOCGWINSZ, &w) == 0 && w.ws_col > 20) return w.ws_col;
    return 80;
}

/* "2:10", "1:02:10"; "-:--" when not known. */
static void format_duration(char *out, size_t size, double seconds)
{
    if (!(seconds >= 0 && seconds < 1e7)) {
        snprintf(out, size, "-:--");
        return;
    }
    long s = (long)(seconds + 0.5);
    if (s >= 3600) snprintf(out, size, "%ld:%02ld:%02ld", s / 3600, s / 60 % 60, s % 60);
    else snprintf(out, size, "%ld:%02ld", s / 60, s % 60);
}

static void format_bar(char *out, size_t size, uint64_t done, uint64_t total)
{
    enum { WIDTH = 10 };
    uint64_t full = total ? done * WIDTH / total : 0;
    size_t n = 0;
    for (uint64_t i = 0; i < WIDTH && n + 1 < size; i++) out[n++] = i < full ? '#' : '.';
    out[n] = '\0';
}

void nb_progress_format(char *out, size_t size, int columns, const struct nb_progress_line *line,
                        const struct nb_progress_event *event, double elapsed)
{
    uint64_t done = event->done > event->total && event->total ? event->total : event->done;
    uint64_t here = done > line->phase_from ? done - line->phase_from : 0;
    double rate = elapsed > 0 ? (double)here / elapsed : 0;
    char bar[16] = "", count[64] = "", item[160] = "", loss[40] = "", pace[32] = "", eta[32] = "";
    if (event->total) snprintf(count, sizeof count, " %" PRIu64 "/%" PRIu64, done, event->total);
    if (event->item) snprintf(item, sizeof item, " %s", event->item);
    if (event->loss >= 0) snprintf(loss, sizeof loss, "  loss %.4g", event->loss);
    if (rate > 0) snprintf(pace, sizeof pace, rate < 10 ? "  %.2f/s" : "  %.0f/s", rate);
    const char *phase = event->phase ? event->phase : "";
    double rss = (double)nb_rss_bytes() / 0x1p20;
    if (columns) {
        if (event->total) {
            format_bar(bar, sizeof bar, done, event->total);
            format_duration(eta, sizeof eta, rate > 0 ? (double)(event->total - done) / rate : -1);
        }
        int n = snprintf(out, size, "%s%s [%s]%s%s%s  ETA %s  RSS %.0f MiB", phase, count, bar,
                         item, loss, pace, eta[0] ? eta : "-:--", rss);
        /* The item gives way first: a line that wraps cannot be redrawn. */
        if (n >= columns) {
            size_t over = (size_t)(n - columns) + 1, have = strlen(item);
            item[have > over ? have - over : 0] = '\0';
            snprintf(out, size, "%s%s [%s]%s%s%s  ETA %s  RSS %.0f MiB", phase, count, bar, item,
                     loss, pace, eta[0] ? eta : "-:--", rss);
            if ((size_t)columns < size) out[columns - 1] = '\0';
        }
        return;
    }
    char took[32];
    format_duration(took, sizeof took, elapsed);
    snprintf(out, size, "%s%s%s%s%s  %s  RSS %.0f MiB", phase, count, item, loss, pace, took, rss);
}

void nb_progress_line_event(struct nb_progress_line *line, const struct nb_progress_event *event)
{
    if (line->quiet) return;
    double now = nb_clock_s();
    const char *phase = event->phase ? event->phase : "";
    if (strncmp(line->phase, phase, sizeof line->phase - 1) != 0 || line->phase_s == 0) {
        snprintf(line->phase, sizeof line->phase, "%s", phase);
        line->phase_s = now;
        line->phase_from = event->done && !event->item_done ? event->done : 0;
    }
    char text[512];
    if (line->terminal) {
        bool last = event->total && event->done >= event->total;
        if (now - line->drawn_s < redraw_s && !last) return;
        int columns = terminal_columns();
        nb_progress_format(text, sizeof text, columns, line, event, now - line->phase_s);
        fprintf(stderr, "\r%s\033[K", text);
        fflush(stderr);
        line->drawn = true;
        line->drawn_s = now;
    } else if (event->item_done) {
        nb_progress_format(text, sizeof text, 0, line, event, now - line->phase_s);
        fprintf(stderr, "%s: %s\n", line->command, text);
    }
}

void nb_progress_line_clear(struct nb_progress_line *line)
{
    if (!line->drawn) return;
    fputs("\r\033[K", stderr);
    fflush(stderr);
    line->drawn = false;
}

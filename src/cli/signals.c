/* SPDX-License-Identifier: Apache-2.0
 *
 * signals.c - SIGINT and SIGTERM ask the work to stop at its next safe point.
 *
 * The one mutable global of the program: a signal handler has no other place to write to. */
#include <signal.h>
#include <string.h>

#include "cli/cli.h"

static volatile sig_atomic_t caught;

static void on_signal(int number)
{
    caught = number;
}

void nb_signals_install(void)
{
    struct sigaction action;
    memset(&action, 0, sizeof action);
    action.sa_handler = on_signal;
    /* The default action returns after the first one: whoever asks twice does not want to wait. */
    action.sa_flags = (int)SA_RESETHAND;
    sigemptyset(&action.sa_mask);
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
}

int nb_signals_caught(void)
{
    return (int)caught;
}

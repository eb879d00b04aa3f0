/* SPDX-License-Identifier: Apache-2.0
 *
 * measure.c - runs a command and prints one CSV line: wall seconds, CPU seconds, peak RSS in MiB, exit code.
 * The command's standard output goes nowhere; its standard error passes through.
 *
 *   measure LABEL COMMAND [ARGUMENTS...] */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static double seconds(struct timeval t)
{
    return (double)t.tv_sec + 1e-6 * (double)t.tv_usec;
}

int main(int argc, char **argv)
{
    if (argc < 3) {
        fputs("usage: measure LABEL COMMAND [ARGUMENTS...]\n", stderr);
        return 2;
    }
    double start = now();
    pid_t pid = fork();
    if (pid < 0) {
        perror("measure: fork");
        return 1;
    }
    if (pid == 0) {
        int fd = open("/dev/null", O_WRONLY);
        if (fd >= 0) dup2(fd, STDOUT_FILENO);
        execvp(argv[2], argv + 2);
        perror(argv[2]);
        _exit(127);
    }
    int status;
    struct rusage use;
    if (wait4(pid, &status, 0, &use) < 0) {
        perror("measure: wait4");
        return 1;
    }
    int code = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
    printf("%s,%.3f,%.3f,%.1f,%d\n", argv[1], now() - start,
           seconds(use.ru_utime) + seconds(use.ru_stime), (double)use.ru_maxrss / 1024.0, code);
    return code;
}

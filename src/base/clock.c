/* SPDX-License-Identifier: Apache-2.0
 *
 * clock.c - see clock.h. */
#include "base/clock.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

double nb_clock_s(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

uint64_t nb_rss_bytes(void)
{
    unsigned long long total = 0, resident = 0;
    FILE *f = fopen("/proc/self/statm", "r");
    if (!f) return 0;
    if (fscanf(f, "%llu %llu", &total, &resident) != 2) resident = 0;
    fclose(f);
    return resident * (uint64_t)sysconf(_SC_PAGESIZE);
}

uint64_t nb_rss_peak_bytes(void)
{
    struct rusage r;
    if (getrusage(RUSAGE_SELF, &r)) return 0;
    return (uint64_t)r.ru_maxrss * 1024;
}

static uint64_t read_number(const char *path)
{
    unsigned long long v = 0;
    FILE *f = fopen(path, "r");
    if (!f) return 0;
    if (fscanf(f, "%llu", &v) != 1) v = 0;
    fclose(f);
    return v;
}

/* Number of the line of a file that begins with key, or 0. */
static uint64_t read_key(const char *path, const char *key)
{
    uint64_t value = 0;
    char line[128];
    FILE *f = fopen(path, "r");
    if (!f) return 0;
    size_t n = strlen(key);
    while (fgets(line, sizeof line, f)) {
        if (strncmp(line, key, n) == 0 && (line[n] == ' ' || line[n] == ':')) {
            value = strtoull(line + n + 1, NULL, 10);
        }
    }
    fclose(f);
    return value;
}

uint64_t nb_memory_free_bytes(void)
{
    uint64_t bytes = read_key("/proc/meminfo", "MemAvailable") * 1024;
    uint64_t limit = read_number("/sys/fs/cgroup/memory.max");
    if (limit) {
        /* The page cache of a group counts as used, but gives way. */
        uint64_t used = read_number("/sys/fs/cgroup/memory.current");
        uint64_t cache = read_key("/sys/fs/cgroup/memory.stat", "inactive_file");
        used -= cache < used ? cache : used;
        uint64_t left = limit > used ? limit - used : 0;
        if (!bytes || left < bytes) bytes = left;
    }
    return bytes;
}

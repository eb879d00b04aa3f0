/* SPDX-License-Identifier: Apache-2.0
 *
 * replay_main.c - runs a fuzz target without libFuzzer, over saved inputs.
 *
 * usage: fuzz_<x> FOLDER|FILE...   a folder stands for its files, in byte order of their names
 *
 * Each input runs as it is, then cut short and with bytes changed in a fixed pseudo-random way, so that
 * an ordinary test run under a sanitizer already walks the error paths. The empty input always runs.
 * Inputs are handed over in blocks of exactly their size: a read past the end is seen. */
#include <dirent.h>
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { VARIATIONS = 24, VARIED_BYTES = 1 << 16 };

static uint32_t next(uint32_t *state) /* xorshift32 */
{
    *state ^= *state << 13;
    *state ^= *state >> 17;
    *state ^= *state << 5;
    return *state;
}

static void run_copy(const uint8_t *data, size_t size, uint32_t *state)
{
    uint8_t *copy = malloc(size ? size : 1);
    if (!copy) abort();
    if (size) memcpy(copy, data, size);
    if (state && size) {
        for (uint32_t n = 1 + next(state) % 4; n; n--) {
            copy[next(state) % size] = (uint8_t)next(state);
        }
    }
    LLVMFuzzerTestOneInput(copy, size);
    free(copy);
}

static void run_input(const uint8_t *data, size_t size)
{
    run_copy(data, size, NULL);
    if (!size || size > VARIED_BYTES) return;
    uint32_t state = 2463534242u;
    for (int i = 0; i < VARIATIONS; i++) {
        run_copy(data, next(&state) % size, NULL);
        run_copy(data, size, &state);
    }
}

static int run_file(const char *path)
{
    FILE *f = fopen(path, "rb");
    if (!f) {
        fprintf(stderr, "%s: %s\n", path, strerror(errno));
        return 1;
    }
    uint8_t *data = NULL;
    size_t size = 0, capacity = 0, n;
    do {
        if (size == capacity) {
            capacity = capacity ? 2 * capacity : 4096;
            data = realloc(data, capacity);
            if (!data) abort();
        }
        n = fread(data + size, 1, capacity - size, f);
        size += n;
    } while (n);
    fclose(f);
    run_input(data, size);
    free(data);
    return 0;
}

static int visible(const struct dirent *entry)
{
    return entry->d_name[0] != '.';
}

static int run_folder(const char *path, int *n_inputs)
{
    struct dirent **names;
    int n = scandir(path, &names, visible, alphasort);
    if (n < 0) {
        fprintf(stderr, "%s: %s\n", path, strerror(errno));
        return 1;
    }
    int rc = 0;
    for (int i = 0; i < n; i++) {
        char file[4096];
        snprintf(file, sizeof file, "%s/%s", path, names[i]->d_name);
        rc |= run_file(file);
        free(names[i]);
    }
    free(names);
    *n_inputs += n;
    return rc;
}

int main(int argc, char **argv)
{
    int rc = 0, n_inputs = 0;
    run_input(NULL, 0);
    for (int i = 1; i < argc; i++) {
        struct stat st;
        if (stat(argv[i], &st)) {
            fprintf(stderr, "%s: %s\n", argv[i], strerror(errno));
            rc = 1;
        } else if (S_ISDIR(st.st_mode)) {
            rc |= run_folder(argv[i], &n_inputs);
        } else {
            rc |= run_file(argv[i]);
            n_inputs++;
        }
    }
    printf("%d saved inputs replayed\n", n_inputs);
    return rc;
}

/* SPDX-License-Identifier: Apache-2.0
 *
 * folder.c - see folder.h. */
#include "support/folder.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/file.h"

static char *join(const char *a, const char *b)
{
    size_t n = strlen(a) + strlen(b) + 2;
    char *p = malloc(n);
    assert_non_null(p);
    snprintf(p, n, "%s/%s", a, b);
    return p;
}

char *folder_make(void)
{
    const char *tmp = getenv("NB_TEST_TMP");
    char *path = join(tmp ? tmp : "/tmp", "nibble-test-XXXXXX");
    if (!mkdtemp(path)) fail_msg("cannot make %s", path);
    return path;
}

void folder_remove(char *folder)
{
    struct nb_err err;
    if (nb_dir_remove_all(folder, &err)) fail_msg("%s", err.text);
    free(folder);
}

void folder_write(const char *folder, const char *name, const void *data, size_t bytes)
{
    char *path = join(folder, name);
    FILE *f = fopen(path, "wb");
    if (!f || (bytes && fwrite(data, 1, bytes, f) != bytes) || fclose(f))
        fail_msg("cannot write %s", path);
    free(path);
}

void folder_text(const char *folder, const char *name, const char *text)
{
    folder_write(folder, name, text, strlen(text));
}

char *source_path(const char *relative)
{
    const char *root = getenv("NB_SOURCE_DIR");
    return join(root ? root : ".", relative);
}

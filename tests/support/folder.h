/* SPDX-License-Identifier: Apache-2.0
 *
 * folder.h - temporary folders and files for tests; any failure ends the test. */
#ifndef TESTS_SUPPORT_FOLDER_H
#define TESTS_SUPPORT_FOLDER_H

#include <stddef.h>

/* A fresh empty folder below NB_TEST_TMP (or /tmp). Give back with folder_remove, which deletes it. */
char *folder_make(void);
void folder_remove(char *folder);

/* folder/name with these bytes; an existing file is replaced. */
void folder_write(const char *folder, const char *name, const void *data, size_t bytes);
void folder_text(const char *folder, const char *name, const char *text);

/* Path of a file of the repository (NB_SOURCE_DIR, or the working directory). Free with free(). */
char *source_path(const char *relative);

#endif

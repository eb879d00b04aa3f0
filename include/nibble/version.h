/* SPDX-License-Identifier: Apache-2.0
 *
 * nibble/version.h - version of the library, and how its public functions are marked. */
#ifndef NIBBLE_VERSION_H
#define NIBBLE_VERSION_H

#define NB_VERSION_MAJOR 0
#define NB_VERSION_MINOR 1
#define NB_VERSION_PATCH 0
#define NB_VERSION "0.1.0"

/* Everything else in the library is hidden: only functions marked NB_API can be linked against. */
#if defined(__GNUC__)
#define NB_API __attribute__((visibility("default")))
#else
#define NB_API
#endif

#ifdef __cplusplus
extern "C" {
#endif

/* Version of the library that is running, as "major.minor.patch"; NB_VERSION is the one compiled against. */
NB_API const char *nb_version(void);

#ifdef __cplusplus
}
#endif

#endif

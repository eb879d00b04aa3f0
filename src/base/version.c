/* SPDX-License-Identifier: Apache-2.0
 *
 * version.c - see nibble/version.h. */
#include "nibble/version.h"

const char *nb_version(void)
{
    return NB_VERSION;
}

/* SPDX-License-Identifier: Apache-2.0
 *
 * clock.h - time that never runs backwards, and how much memory this process holds. */
#ifndef NB_BASE_CLOCK_H
#define NB_BASE_CLOCK_H

#include <stdint.h>

double nb_clock_s(void);          /* monotonic seconds */
uint64_t nb_rss_bytes(void);      /* resident now; 0 if unknown */
uint64_t nb_rss_peak_bytes(void); /* highest so far; 0 if unknown */
uint64_t nb_memory_free_bytes(
    void); /* available to new work (MemAvailable, cgroup limit); 0 if unknown */

#endif

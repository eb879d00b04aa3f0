/* SPDX-License-Identifier: Apache-2.0
 *
 * test_clock.c - time that only grows; memory figures of the right size. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/clock.h"
#include "base/mem.h"

static void time_grows_in_seconds(void **state)
{
    (void)state;
    double last = nb_clock_s(), start = last;
    for (int i = 0; i < 1000; i++) {
        double now = nb_clock_s();
        assert_true(now >= last);
        last = now;
    }
    struct timespec pause = {.tv_nsec = 20 * 1000 * 1000};
    start = nb_clock_s();
    nanosleep(&pause, NULL);
    double passed = nb_clock_s() - start;
    assert_true(passed >= 0.0199 && passed < 30);
}

static void memory_is_counted_in_bytes(void **state)
{
    (void)state;
    enum { MANY = 48 << 20 };
    uint64_t before = nb_rss_bytes();
    assert_true(before > 100 * 1000);
    unsigned char *p = nb_alloc(MANY, 1);
    memset(p, 1, MANY);
    uint64_t with = nb_rss_bytes(), peak = nb_rss_peak_bytes();
    assert_true(with >= before + MANY / 2);
    assert_true(peak >= with - MANY / 4); /* the kernel counts in batches */
    nb_free(p);
    assert_true(nb_rss_peak_bytes() >= peak);
}

static void free_memory_is_plausible(void **state)
{
    (void)state;
    uint64_t all = (uint64_t)sysconf(_SC_PHYS_PAGES) * (uint64_t)sysconf(_SC_PAGESIZE);
    uint64_t free_bytes = nb_memory_free_bytes();
    assert_true(free_bytes > 0 && free_bytes <= all);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(time_grows_in_seconds),
        cmocka_unit_test(memory_is_counted_in_bytes),
        cmocka_unit_test(free_memory_is_plausible),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

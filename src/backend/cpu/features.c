/* SPDX-License-Identifier: Apache-2.0
 *
 * features.c - see features.h. The compiler's runtime reads CPUID and XCR0, so a level that the
 * operating system has not enabled is not reported. */
#include "backend/cpu/features.h"

#if defined(__x86_64__)
#include <cpuid.h>
#endif
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "base/strbuf.h"

static const struct {
    const char *name;
    unsigned bit, mask; /* mask: what stays when lowered to this level; 0: cannot be asked for */
} levels[] = {
    {"avx2", NB_CPU_AVX2, NB_CPU_AVX2},
    {"avx512", NB_CPU_AVX512, NB_CPU_AVX2 | NB_CPU_AVX512},
    {"avx512_vnni", NB_CPU_AVX512_VNNI, 0},
    {"avx512_bf16", NB_CPU_AVX512_BF16, 0},
    {"amx", NB_CPU_AMX, 0},
};

enum { N_LEVELS = sizeof levels / sizeof *levels };

#if defined(__x86_64__)
/* clang 14 does not know this one by name. */
static bool has_f16c(void)
{
    unsigned a, b, c, d;
    return __get_cpuid(1, &a, &b, &c, &d) && (c & bit_F16C);
}
#endif

unsigned nb_cpu_detect(void)
{
    unsigned f = 0;
#if defined(__x86_64__)
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && has_f16c()) {
        f |= NB_CPU_AVX2;
    }
    if (f && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
        __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl")) {
        f |= NB_CPU_AVX512;
        if (__builtin_cpu_supports("avx512vnni")) f |= NB_CPU_AVX512_VNNI;
        if (__builtin_cpu_supports("avx512bf16")) f |= NB_CPU_AVX512_BF16;
    }
#endif
    return f;
}

int nb_cpu_choose(unsigned *features, const char *level, struct nb_err *err)
{
    unsigned have = nb_cpu_detect();
    *features = have;
    if (!level || !*level) return 0;
    if (strcmp(level, "generic") == 0) {
        *features = 0;
        return 0;
    }
    for (int i = 0; i < N_LEVELS; i++) {
        if (strcmp(levels[i].name, level) != 0 || !levels[i].mask) continue;
        if (!(have & levels[i].bit)) {
            char text[96];
            nb_cpu_describe(have, text, sizeof text);
            return nb_fail(err, NB_E_SPEC, "CPU level '%s' was asked for, but this machine has: %s",
                           level, text);
        }
        *features = have & levels[i].mask;
        return 0;
    }
    return nb_fail(err, NB_E_USAGE,
                   "CPU level '%.32s' is not known, expected one of: generic, avx2, avx512", level);
}

void nb_cpu_describe(unsigned features, char *out, size_t bytes)
{
    size_t used = 0;
    if (bytes) *out = '\0';
    for (int i = 0; i < N_LEVELS; i++) {
        if (!(features & levels[i].bit)) continue;
        int n = snprintf(out + used, bytes - used, "%s%s", used ? " " : "", levels[i].name);
        if (n < 0 || (size_t)n >= bytes - used) return;
        used += (size_t)n;
    }
    if (!used) snprintf(out, bytes, "generic");
}

/* SPDX-License-Identifier: Apache-2.0
 *
 * cmd_doctor.c - nibble doctor: what this machine offers, and whether the numeric library computes right. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "api/api.h"
#include "base/clock.h"
#include "base/file.h"
#include "cli/cli.h"
#include "cli/commands.h"
#include "nibble/version.h"

static const struct nb_option options[] = {
    {0, NULL, NB_OPTION_FLAG, 0, NULL, NULL, 0, 0},
};

/* Value of "model name" in /proc/cpuinfo, or "unknown". */
static void cpu_name(char *out, size_t size)
{
    snprintf(out, size, "unknown");
    FILE *f = fopen("/proc/cpuinfo", "r");
    char line[256];
    while (f && fgets(line, sizeof line, f)) {
        const char *colon = strchr(line, ':');
        if (strncmp(line, "model name", 10) != 0 || !colon) continue;
        snprintf(out, size, "%s", colon + 2);
        out[strcspn(out, "\n")] = '\0';
        break;
    }
    if (f) fclose(f);
}

static int run(struct nb_cli *cli, const void *opts, struct nb_err *err)
{
    (void)opts;
    char cpu[128], backend[256], memory[32], disk[32];
    cpu_name(cpu, sizeof cpu);
    struct nb_runtime rt;
    int rc = nb_runtime_init(&rt, (int)cli->threads, cli->cpu, err); /* runs the self-check */
    if (rc) return nb_err_prefix(err, "self-check");
    nb_backend_describe(rt.be, backend, sizeof backend);
    int threads = nb_pool_threads(rt.pool);
    nb_runtime_release(&rt);
    uint64_t free_memory = nb_memory_free_bytes(), free_disk = nb_path_free_bytes(".");
    if (cli->json) {
        return nb_cli_emit(
            cli,
            json_pack("{s:s, s:s, s:o, s:i, s:o, s:s, s:I, s:I}", "command", "doctor", "version",
                      nb_version(), "cpu", nb_cli_string(cpu), "threads", threads, "backend",
                      nb_cli_string(backend), "self_check", "pass", "memory_free_bytes",
                      (json_int_t)free_memory, "disk_free_bytes", (json_int_t)free_disk),
            err);
    }
    nb_format_bytes(free_memory, memory, sizeof memory);
    nb_format_bytes(free_disk, disk, sizeof disk);
    printf("nibble      %s\n", nb_version());
    printf("cpu         %s\n", cpu);
    printf("threads     %d\n", threads);
    printf("backend     %s\n", backend);
    printf("self-check  matrix product, symmetric update and Cholesky agree with known results\n");
    printf("memory      %s free\n", memory);
    printf("disk        %s free here\n", disk);
    return 0;
}

const struct nb_command nb_command_doctor = {
    .name = "doctor",
    .summary = "what this machine offers, and whether it computes right",
    .usage = "[options]",
    .example = "--json",
    .options = options,
    .run = run,
};

// SPDX-License-Identifier: MIT
// Copyright (c) the poolmalloc authors

// mallinfo2, mallopt, malloc_stats, malloc_info.

#include "entry/reports.h"

#include <errno.h>
#include <malloc.h>

#include "config/options.h"
#include "core/life.h"
#include "entry/entry.h"
#include "insight/report.h"
#include "insight/usage.h"

// All zero in a handler that interrupted the library.
static struct pm_usage read_usage(void) {
    struct pm_usage usage = { 0 };
    pm_life_start();
    if (pm_entry_begin()) {
        pm_usage_read(&usage);
        pm_entry_end();
    }
    return usage;
}

struct pm_mallinfo2 pm_entry_mallinfo2(void) {
    const struct pm_usage usage = read_usage();
    return (struct pm_mallinfo2){
        .arena = usage.in_arenas,
        .ordblks = usage.free_blocks,
        .hblks = usage.huge_blocks,
        .hblkhd = usage.huge_bytes,
        .uordblks = usage.used,
        .fordblks = usage.free,
        .keepcost = usage.free_pools,
    };
}

int pm_entry_mallopt(int parameter, int value) {
    (void)value;
    switch (parameter) {
    case M_MXFAST:
    case M_TRIM_THRESHOLD:
    case M_TOP_PAD:
    case M_MMAP_THRESHOLD:
    case M_MMAP_MAX:
    case M_CHECK_ACTION:
    case M_PERTURB:
    case M_ARENA_TEST:
    case M_ARENA_MAX: return 1;
    default: return 0;
    }
}

void pm_entry_stats(void) {
    pm_life_start();
    if (pm_entry_begin()) {
        pm_report_write(2, PM_STATS_TEXT);
        pm_entry_end();
    }
}

int pm_entry_info(int options, FILE *to) {
    if (options != 0) {
        errno = EINVAL;
        return -1;
    }
    const struct pm_usage usage = read_usage();
    // The elements that readers of glibc's report look for.
    const int written = fprintf(
        to,
        "<malloc version=\"1\">\n<heap nr=\"0\">\n<sizes>\n</sizes>\n"
        "<total type=\"fast\" count=\"0\" size=\"0\"/>\n"
        "<total type=\"rest\" count=\"%zu\" size=\"%zu\"/>\n"
        "<system type=\"current\" size=\"%zu\"/>\n<system type=\"max\" size=\"%zu\"/>\n"
        "<aspace type=\"total\" size=\"%zu\"/>\n<aspace type=\"mprotect\" size=\"%zu\"/>\n</heap>\n"
        "<total type=\"fast\" count=\"0\" size=\"0\"/>\n"
        "<total type=\"rest\" count=\"%zu\" size=\"%zu\"/>\n"
        "<total type=\"mmap\" count=\"%zu\" size=\"%zu\"/>\n"
        "<system type=\"current\" size=\"%zu\"/>\n<system type=\"max\" size=\"%zu\"/>\n"
        "<aspace type=\"total\" size=\"%zu\"/>\n<aspace type=\"mprotect\" size=\"%zu\"/>\n"
        "</malloc>\n",
        usage.free_blocks, usage.free, usage.in_arenas, usage.in_arenas, usage.in_arenas,
        usage.in_arenas, usage.free_blocks, usage.free, usage.huge_blocks, usage.huge_bytes,
        usage.in_arenas, usage.in_arenas, usage.in_arenas, usage.in_arenas);
    return written < 0 ? -1 : 0;
}

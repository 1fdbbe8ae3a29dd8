// SPDX-License-Identifier: MIT
// Copyright (c) the poolmalloc authors

// libc's reporting names, about our heap.

#include <limits.h>
#include <malloc.h>
#include <stdio.h>

#include "base/attributes.h"
#include "entry/entry.h"
#include "entry/reports.h"

PM_EXPORT struct mallinfo2 mallinfo2(void) {
    const struct pm_mallinfo2 info = pm_entry_mallinfo2();
    return (struct mallinfo2){
        .arena = info.arena,
        .ordblks = info.ordblks,
        .hblks = info.hblks,
        .hblkhd = info.hblkhd,
        .uordblks = info.uordblks,
        .fordblks = info.fordblks,
        .keepcost = info.keepcost,
    };
}

// The old structure has room for 2 GiB; more is shown as the most that fits.
static int narrow(size_t n) {
    return n > INT_MAX ? INT_MAX : (int)n;
}

static struct mallinfo narrow_info(void) {
    const struct pm_mallinfo2 info = pm_entry_mallinfo2();
    return (struct mallinfo){
        .arena = narrow(info.arena),
        .ordblks = narrow(info.ordblks),
        .hblks = narrow(info.hblks),
        .hblkhd = narrow(info.hblkhd),
        .uordblks = narrow(info.uordblks),
        .fordblks = narrow(info.fordblks),
        .keepcost = narrow(info.keepcost),
    };
}

PM_EXPORT struct mallinfo mallinfo(void) {
    return narrow_info();
}

PM_EXPORT int mallopt(int parameter, int value) {
    return pm_entry_mallopt(parameter, value);
}

PM_EXPORT int malloc_trim(size_t pad) {
    (void)pad;
    return pm_entry_trim();
}

PM_EXPORT void malloc_stats(void) {
    pm_entry_stats();
}

PM_EXPORT int malloc_info(int options, FILE *to) {
    return pm_entry_info(options, to);
}

PM_EXPORT struct mallinfo __libc_mallinfo(void);
PM_EXPORT int __libc_mallopt(int parameter, int value);

struct mallinfo __libc_mallinfo(void) {
    return narrow_info();
}

int __libc_mallopt(int parameter, int value) {
    return pm_entry_mallopt(parameter, value);
}

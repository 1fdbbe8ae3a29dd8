// SPDX-License-Identifier: MIT
// Copyright (c) the poolmalloc authors
//
// The figures of one run and the line they are printed as. The workloads and the launcher of real
// programs share them, so that bench/run reads one format.

#ifndef PM_BENCH_FIGURES_H
#define PM_BENCH_FIGURES_H

#include <sys/resource.h>

struct bench_figures {
    double seconds;
    double cpu; // user and system time of all threads
    long peak_kib;
    long minor_faults;
    long major_faults;
};

// The value in KiB of a line `KEY: VALUE kB` of a file in /proc; -1 where there is none. It asks
// the allocator for nothing.
long bench_kib_of(const char *path, const char *key);

// Monotonic, in seconds.
double bench_clock(void);

// All figures but the seconds, as the kernel accounted them.
struct bench_figures bench_figures_of(const struct rusage *usage);

// Prints `seconds=... cpu=... peak_kib=...` without a newline, so that the caller can add its own.
void bench_figures_print(const struct bench_figures *figures);

#endif

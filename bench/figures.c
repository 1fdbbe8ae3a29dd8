// SPDX-License-Identifier: MIT
// Copyright (c) the poolmalloc authors
//
// Clock and resource usage of one run, and their printed form.

#include "figures.h"

#include <stdio.h>
#include <time.h>

double bench_clock(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

static double seconds_of(struct timeval time) {
    return (double)time.tv_sec + (double)time.tv_usec / 1e6;
}

struct bench_figures bench_figures_of(const struct rusage *usage) {
    return (struct bench_figures){
        .cpu = seconds_of(usage->ru_utime) + seconds_of(usage->ru_stime),
        .peak_kib = usage->ru_maxrss,
        .minor_faults = usage->ru_minflt,
        .major_faults = usage->ru_majflt,
    };
}

void bench_figures_print(const struct bench_figures *figures) {
    printf("seconds=%.6f cpu=%.6f peak_kib=%ld minor_faults=%ld major_faults=%ld", figures->seconds,
           figures->cpu, figures->peak_kib, figures->minor_faults, figures->major_faults);
}

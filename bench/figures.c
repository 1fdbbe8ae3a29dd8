// SPDX-License-Identifier: MIT
// Copyright (c) the poolmalloc authors
//
// Clock and resource usage of one run, and their printed form.

#include "figures.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

long bench_kib_of(const char *path, const char *key) {
    char text[8192]; // several times what status and smaps_rollup have
    size_t length = 0;
    const int file = open(path, O_RDONLY | O_CLOEXEC);
    if (file < 0) {
        return -1;
    }
    for (ssize_t got = 1; got > 0; length += got > 0 ? (size_t)got : 0) {
        got = read(file, text + length, sizeof text - 1 - length);
    }
    close(file);
    text[length] = '\0';
    const size_t key_length = strlen(key);
    for (const char *line = text; line != NULL; line = strchr(line, '\n')) {
        line += *line == '\n';
        if (strncmp(line, key, key_length) == 0 && line[key_length] == ':') {
            return strtol(line + key_length + 1, NULL, 10);
        }
    }
    return -1;
}

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

// SPDX-License-Identifier: MIT
// Copyright (c) the poolmalloc authors
//
// What the statistics victim has in use at its end: the test looks for that in the report.

#ifndef TESTS_PRELOAD_STATS_H
#define TESTS_PRELOAD_STATS_H

enum {
    STATS_SMALL_COUNT = 5000,
    STATS_SMALL_SIZE = 100,
    STATS_LARGE_COUNT = 10,
    STATS_LARGE_SIZE = 200 << 10,
    STATS_HUGE_COUNT = 2,
    STATS_HUGE_SIZE = 8 << 20,
    STATS_CHILDREN_COUNT = 3,
};

#endif

// SPDX-License-Identifier: MIT
// Copyright (c) the poolmalloc authors
//
// Short stress runs on the preloaded library; `make check-storm` has the long ones.

#include "preload.h"

static void run_stress(const char *threads, const char *lives, const char *seed,
                       const char *max_live) {
    const char *const argv[] = { preload_beside("../stress/stress"),
                                 "--ops",
                                 "60000",
                                 "--threads",
                                 threads,
                                 "--lives",
                                 lives,
                                 "--seed",
                                 seed,
                                 "--max-live",
                                 max_live,
                                 NULL };
    struct spawned spawned =
        preload_run(&(struct spawn){ .argv = argv, .seconds = PRELOAD_SECONDS });
    preload_check_clean("stress", &spawned);
    spawn_drop(&spawned);
}

#define STRESS(name, ...)                                 \
    Test(stress, name, .timeout = PRELOAD_TEST_SECONDS) { \
        run_stress(__VA_ARGS__);                          \
    }

STRESS(one_thread, "1", "1", "101", "200000000")
STRESS(two_threads, "2", "4", "102", "200000000")
STRESS(six_threads, "6", "4", "103", "200000000")
STRESS(short_lived_threads, "4", "300", "104", "50000000")
STRESS(little_live_memory, "2", "4", "105", "2000000")

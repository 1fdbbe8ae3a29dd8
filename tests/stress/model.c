// SPDX-License-Identifier: MIT
// Copyright (c) the poolmalloc authors
//
// The stress run on the pm_ names, linked with the allocator's body: what sanitizer builds run,
// with the audit on.

#include "stress.h"

#include "../harness.h"

#define STRESS(name, ...)                                                              \
    Test(stress, name, .timeout = 600) {                                               \
        struct stress_options options = { __VA_ARGS__, .audit = true, .quiet = true }; \
        cr_assert(stress_run(&options));                                               \
    }

STRESS(one_thread_keeps_all_promises, .threads = 1, .ops = 60000, .seed = 1, .max_live = 64 << 20,
       .lives = 2)
STRESS(little_live_memory, .threads = 1, .ops = 60000, .seed = 2, .max_live = 1 << 20, .lives = 2)
STRESS(two_threads_keep_all_promises, .threads = 2, .ops = 40000, .seed = 3, .max_live = 64 << 20,
       .lives = 4)
STRESS(many_threads_keep_all_promises, .threads = 8, .ops = 15000, .seed = 4, .max_live = 64 << 20,
       .lives = 5)
STRESS(short_lived_threads_keep_all_promises, .threads = 4, .ops = 20000, .seed = 5,
       .max_live = 32 << 20, .lives = 100)

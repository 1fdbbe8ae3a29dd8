// SPDX-License-Identifier: MIT
// Copyright (c) the poolmalloc authors
//
// Starts victims: programs that run with the allocator under test preloaded. The library is
// src/.libs/libpoolmalloc.so of the build tree; TEST_POOLMALLOC_LIB names another one, or none when
// it is empty.

#ifndef TESTS_PRELOAD_PRELOAD_H
#define TESTS_PRELOAD_PRELOAD_H

#include "../spawn.h"

#include <criterion/criterion.h>

enum {
    PRELOAD_SECONDS = 100, // the longest a victim may run
    PRELOAD_TEST_SECONDS = PRELOAD_SECONDS + 20,
    PRELOAD_ARGUMENTS_COUNT = 8,
};

// The file `name` beside the running test program, in the build tree.
const char *preload_beside(const char *name);

// The library to preload; "" for none.
const char *preload_library(void);

// Runs `spawn` with the library preloaded and without any POOLMALLOC_ option but those in its env.
struct spawned preload_run(const struct spawn *spawn);

// Fails unless the program ended well and the allocator said nothing on stderr.
void preload_check_clean(const char *what, const struct spawned *spawned);

// The lines on stderr that the allocator wrote; the first of them is copied to `line`.
int preload_sentences(const struct spawned *spawned, size_t size, char *line);

struct preload_victim {
    const char *name;                               // of the case
    const char *arguments[PRELOAD_ARGUMENTS_COUNT]; // of the case
    const char *program;                            // NULL: "victim"
    const char *env[4];
    size_t address_space;
    bool bare; // without preload
};

// Runs one case of a victim. What it returns has to be dropped.
struct spawned preload_victim(const struct preload_victim *victim);

// Runs one case that must end well; a victim that can't do its work here (exit code 77) skips the
// test.
void preload_victim_passes(const struct preload_victim *victim);

// One Criterion test for each case of a .def file.
#define PRELOAD_CASE_TEST(suite, promise)                                    \
    Test(suite, promise, .timeout = PRELOAD_TEST_SECONDS) {                  \
        preload_victim_passes(&(struct preload_victim){ .name = #promise }); \
    }

#endif

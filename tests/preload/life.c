// SPDX-License-Identifier: MIT
// Copyright (c) the poolmalloc authors
//
// The allocator serves from before the first constructor to after the last destructor, in threads
// that come and go, across fork, and in signal handlers.

#include "preload.h"

#include <string.h>

#define CASE(name) PRELOAD_CASE_TEST(life, name)
#include "life.def"
#undef CASE

#define CASE(name) PRELOAD_CASE_TEST(fork, name)
#include "fork.def"
#undef CASE

#define CASE(name) PRELOAD_CASE_TEST(signals, name)
#include "signal.def"
#undef CASE

Test(life, calls_before_constructors_are_served, .timeout = PRELOAD_TEST_SECONDS) {
    preload_victim_passes(&(struct preload_victim){ .name = "all", .program = "victim_early" });
}

// Their locks may be held by threads that wait for ours.
Test(fork, handlers_of_linked_libraries_run_before_ours, .timeout = PRELOAD_TEST_SECONDS) {
    preload_victim_passes(&(struct preload_victim){ .name = "forks", .program = "victim_early" });
}

Test(life, thread_local_destructors_allocate, .timeout = PRELOAD_TEST_SECONDS) {
#if TESTS_HAVE_CXX
    preload_victim_passes(&(struct preload_victim){ .name = "thread_local_destructors_allocate",
                                                    .program = "victim_cxx" });
#else
    cr_skip("no C++ compiler was found");
#endif
}

Test(life, destructors_allocate, .timeout = PRELOAD_TEST_SECONDS) {
    struct spawned spawned =
        preload_victim(&(struct preload_victim){ .name = "exit_handlers_allocate" });
    preload_check_clean("exit_handlers_allocate", &spawned);
    cr_assert(strcmp(spawned.out, "destructor\n") == 0, "%s", spawned.out);
    spawn_drop(&spawned);
}

static void open_library(const char *how) {
    const char *const library = preload_library();
    if (*library == '\0') {
        cr_skip("no library to open");
    }
    preload_victim_passes(&(struct preload_victim){
        .name = "open_library", .arguments = { library, how }, .bare = true });
}

Test(life, library_may_be_opened_at_run_time, .timeout = PRELOAD_TEST_SECONDS) {
    open_library(NULL);
}

Test(life, library_may_be_opened_by_threads, .timeout = PRELOAD_TEST_SECONDS) {
    open_library("in threads only");
}

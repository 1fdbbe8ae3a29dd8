// SPDX-License-Identifier: MIT
// Copyright (c) the poolmalloc authors
//
// What the unit tests share.

#ifndef TESTS_UNIT_H
#define TESTS_UNIT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "../harness.h"

#include "check/audit.h"

// Sanitizers bring memory, and rules, of their own.
#if defined __SANITIZE_THREAD__
#    define UNIT_THREAD_SANITIZER 1
#elif defined __SANITIZE_ADDRESS__
#    define UNIT_ADDRESS_SANITIZER 1
#elif defined __has_feature
#    if __has_feature(thread_sanitizer)
#        define UNIT_THREAD_SANITIZER 1
#    elif __has_feature(address_sanitizer)
#        define UNIT_ADDRESS_SANITIZER 1
#    endif
#endif
#ifndef UNIT_THREAD_SANITIZER
#    define UNIT_THREAD_SANITIZER 0
#endif
#ifndef UNIT_ADDRESS_SANITIZER
#    define UNIT_ADDRESS_SANITIZER 0
#endif

// Far more than any test needs; sanitizers on a loaded machine take their time.
#define UNIT_SECONDS           120
#define UNIT_TEST(suite, name) Test(suite, name, .timeout = UNIT_SECONDS)

// An assertion that costs nothing while it holds and may stand in threads and in forked children.
// More arguments are a format and its values.
#define CHECK(condition, ...)                                           \
    do {                                                                \
        if (!(condition)) {                                             \
            unit_fail(__FILE__, __LINE__, #condition, " " __VA_ARGS__); \
        }                                                               \
    } while (0)

void unit_fail(const char *file, int line, const char *condition, const char *format, ...)
    __attribute__((noreturn, format(printf, 4, 5)));

// The equations of all structures hold.
#define AUDIT() CHECK(pm_audit() == 0)

// Calls a function in a thread of its own and waits for its end.
void unit_in_thread(void (*function)(void *), void *argument);

// Calls a function in a forked child; fails when it fails, or doesn't return. True in all other
// cases.
bool unit_in_child(void (*function)(void *), void *argument);

// A block of n bytes; without memory the test fails.
char *unit_take(size_t n);

// Threads that allocate and free blocks of all kinds, from the one call to the other; at most
// UNIT_BUSY_MAX.
#define UNIT_BUSY_MAX 8
void unit_start_busy_threads(unsigned count);
void unit_stop_busy_threads(void);

// Signals to the calling thread, without pause from the one call to the other, whose handler
// replaces blocks of all kinds. The flags are sigaction's, besides SA_RESTART.
void unit_start_signals(int flags);
unsigned unit_signals_handled(void);
void unit_stop_signals(void);

// What is written to stderr between the two calls.
void unit_capture(void);
const char *unit_captured(void);

// Makes a mistake in a forked child: it ends the child, with a line that has this sentence.
void unit_stopped(const char *sentence, void (*mistake)(void));

// Numbers that are the same in each run.
uint64_t unit_random(void);
static inline size_t unit_below(size_t limit) {
    return (size_t)(unit_random() % limit);
}

// Writes a pattern into a block, and tells whether it is still there.
void unit_fill(void *block, size_t size, uint64_t seed);
bool unit_filled(const void *block, size_t size, uint64_t seed);
bool unit_is_zero(const void *block, size_t size);

#endif

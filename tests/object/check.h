// SPDX-License-Identifier: MIT
// Copyright (c) the poolmalloc authors
//
// What the tests of objects share.

#ifndef TESTS_OBJECT_CHECK_H
#define TESTS_OBJECT_CHECK_H

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include "../harness.h"

#include "poolobject.h"

// Far more than any test needs; sanitizers on a loaded machine take their time.
#define CHECK_SECONDS            300
#define OBJECT_TEST(suite, name) Test(suite, name, .timeout = CHECK_SECONDS)

// May stand in callbacks, threads and forked children. More arguments are a format and its values.
#define CHECK(condition, ...)                                            \
    do {                                                                 \
        if (!(condition)) {                                              \
            check_fail(__FILE__, __LINE__, #condition, " " __VA_ARGS__); \
        }                                                                \
    } while (0)

// What a failure is to tell besides: NULL, or a text that it ends with.
__attribute__((weak)) const char *check_hint;

__attribute__((noreturn, format(printf, 4, 5), unused)) static void check_fail(
    const char *file, int line, const char *condition, const char *format, ...) {
    va_list args;
    fflush(stdout);
    fprintf(stderr, "%s:%d: not true: %s", file, line, condition);
    va_start(args, format);
    vfprintf(stderr, format, args);
    va_end(args);
    fprintf(stderr, "\n%s%s", check_hint != NULL ? check_hint : "", check_hint != NULL ? "\n" : "");
    fflush(stderr);
    abort();
}

// Numbers that are the same in each run.
static inline uint64_t check_random(uint64_t *seed) {
    uint64_t z = (*seed += UINT64_C(0x9e3779b97f4a7c15));
    z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
    return z ^ (z >> 31);
}

#endif

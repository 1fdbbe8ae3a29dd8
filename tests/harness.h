// SPDX-License-Identifier: MIT
// Copyright (c) the poolmalloc authors
//
// What unit tests include in place of Criterion. It is Criterion, but in ThreadSanitizer builds:
// there Criterion's own runner can't start, and the part of it that unit tests use (Test with a
// timeout, cr_assert, cr_expect, cr_skip) is served from here, each test in a process of its own.

#ifndef TESTS_HARNESS_H
#define TESTS_HARNESS_H

#if defined __has_feature
#    if __has_feature(thread_sanitizer)
#        define HARNESS_OWN 1
#    endif
#endif
#if defined __SANITIZE_THREAD__
#    define HARNESS_OWN 1
#endif

#if !defined HARNESS_OWN

#    include <criterion/criterion.h>

#else

#    include <stdbool.h>
#    include <stdio.h>
#    include <stdlib.h>
#    include <sys/wait.h>
#    include <unistd.h>

enum {
    HARNESS_FAILS = 1,
    HARNESS_SKIPS = 77,
    HARNESS_SLOWDOWN = 3, // what the sanitizer makes of a timeout
};

struct harness_test {
    const char *suite, *name;
    void (*body)(void);
    unsigned timeout; // seconds
    void (*init)(void);
    void (*fini)(void);
    struct harness_test *next;
};

// Both are common to all files of a program.
__attribute__((weak)) struct harness_test *harness_tests;
__attribute__((weak)) bool harness_failed;

#    define Test(suite_name, test_name, ...)                                                    \
        static void harness_##suite_name##_##test_name(void);                                   \
        static struct harness_test harness_row_##suite_name##_##test_name = {                   \
            .suite = #suite_name,                                                               \
            .name = #test_name,                                                                 \
            .body = harness_##suite_name##_##test_name,                                         \
            __VA_ARGS__                                                                         \
        };                                                                                      \
        __attribute__((constructor)) static void harness_add_##suite_name##_##test_name(void) { \
            harness_row_##suite_name##_##test_name.next = harness_tests;                        \
            harness_tests = &harness_row_##suite_name##_##test_name;                            \
        }                                                                                       \
        static void harness_##suite_name##_##test_name(void)

#    define cr_expect(condition, ...)                                             \
        do {                                                                      \
            if (!(condition)) {                                                   \
                printf("# %s:%d: not true: %s ", __FILE__, __LINE__, #condition); \
                printf(" " __VA_ARGS__);                                          \
                printf("\n");                                                     \
                harness_failed = true;                                            \
            }                                                                     \
        } while (0)

#    define cr_assert(condition, ...)                         \
        do {                                                  \
            if (!(condition)) {                               \
                cr_expect(false && (condition), __VA_ARGS__); \
                fflush(stdout);                               \
                _exit(HARNESS_FAILS);                         \
            }                                                 \
        } while (0)

#    define cr_assert_fail(...) cr_assert(false, __VA_ARGS__)

#    define cr_skip(...)              \
        do {                          \
            printf("# " __VA_ARGS__); \
            printf("\n");             \
            fflush(stdout);           \
            _exit(HARNESS_SKIPS);     \
        } while (0)

static inline int harness_child(const struct harness_test *test) {
    alarm(test->timeout * HARNESS_SLOWDOWN);
    if (test->init != NULL) {
        test->init();
    }
    test->body();
    if (test->fini != NULL) {
        test->fini();
    }
    fflush(stdout);
    return harness_failed ? HARNESS_FAILS : 0;
}

// Speaks TAP, as Criterion does when the wrapper runs it. Ends a child by exit, so that the
// sanitizer's own verdict counts.
__attribute__((weak)) int main(void) {
    unsigned number = 0;
    for (const struct harness_test *test = harness_tests; test != NULL; test = test->next) {
        fflush(stdout);
        const pid_t child = fork();
        if (child == 0) {
            exit(harness_child(test));
        }
        int status = -1;
        waitpid(child, &status, 0);
        const bool skipped = WIFEXITED(status) && WEXITSTATUS(status) == HARNESS_SKIPS;
        printf("%s %u - %s::%s%s\n", status == 0 || skipped ? "ok" : "not ok", ++number,
               test->suite, test->name, skipped ? " # SKIP" : "");
    }
    printf("1..%u\n", number);
    return 0;
}

#endif

#endif

// SPDX-License-Identifier: MIT
// Copyright (c) the poolmalloc authors
//
// The victim: one program with many named cases, run under preload by the tests, which only look at
// how it ended and what it printed. A case that finds a promise broken says so on stderr and exits
// with 1.

#ifndef TESTS_PRELOAD_VICTIM_H
#define TESTS_PRELOAD_VICTIM_H

#include <errno.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

struct victim_case {
    const char *name;
    void (*run)(char **arguments); // NULL-terminated
};

// Each file's cases, ended by one without a name.
extern const struct victim_case victim_contract_cases[], victim_aligned_cases[],
    victim_realloc_cases[], victim_report_cases[], victim_misuse_cases[], victim_life_cases[],
    victim_fork_cases[], victim_signal_cases[], victim_limits_cases[], victim_deepbind_cases[],
    victim_stats_cases[];

enum {
    VICTIM_FAILS = 1,
    VICTIM_SKIPS = 77,
};

#define COUNT_OF(array) (sizeof(array) / sizeof *(array))

// Says what is wrong and ends the victim at once; the rest of the arguments tell where in a table
// it was.
#define CHECK(condition, ...)                                                                    \
    do {                                                                                         \
        if (!(condition)) {                                                                      \
            dprintf(2, "%s:%d: not true: %s (errno %d)", __FILE__, __LINE__, #condition, errno); \
            dprintf(2, " " __VA_ARGS__);                                                         \
            dprintf(2, "\n");                                                                    \
            _exit(VICTIM_FAILS);                                                                 \
        }                                                                                        \
    } while (0)

#define SKIP(...)                \
    do {                         \
        dprintf(2, __VA_ARGS__); \
        _exit(VICTIM_SKIPS);     \
    } while (0)

// A pattern that depends on the block and the place in it, so that overlapping blocks disagree.
void victim_fill(void *block, size_t size, unsigned seed);
// Where the first wrong byte is, or `size`.
size_t victim_wrong(const void *block, size_t size, unsigned seed);
size_t victim_nonzero(const void *block, size_t size);

// Sizes from 1 byte to 16 MiB, denser where classes are.
size_t victim_next_size(size_t size);

// xorshift: the same numbers in each run.
uint64_t victim_random(uint64_t *state);

// Resident / mapped bytes of this process, read without allocating.
size_t victim_resident(void);
size_t victim_mapped(void);

// The function of that name in the global scope, NULL when nobody has it.
typedef void (*victim_function)(void);
victim_function victim_symbol(const char *name);

// Starts `count` threads on `body` (each gets its number as pointer) and waits for all of them.
void victim_threads(unsigned count, void *(*body)(void *));

#endif

// SPDX-License-Identifier: MIT
// Copyright (c) the poolmalloc authors
//
// A stress run with a shadow model. What every block holds, how long it is and who may free it is
// recorded outside the heap under test; each block is looked at before it is given back or changes
// hands.

#ifndef TESTS_STRESS_STRESS_H
#define TESTS_STRESS_STRESS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct stress_options {
    unsigned threads;
    uint64_t ops;    // of each thread
    uint64_t seed;   // the same seed and one thread: the same calls
    size_t max_live; // bytes in use at a time, all threads together
    unsigned lives;  // each thread ends and is started anew so often, its blocks living on
    bool audit;      // walk the allocator's structures whenever no thread runs, if it can
    bool quiet;      // say only what is wrong
};

extern const struct stress_options stress_defaults;

// Runs to the end; says on stderr what it did. False when a promise was broken, which it tells
// first.
bool stress_run(const struct stress_options *options);

#endif

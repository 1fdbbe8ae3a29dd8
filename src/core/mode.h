// SPDX-License-Identifier: MIT
// Copyright (c) the poolmalloc authors

// A mode is what the misses call; entry chooses it. There is one.

#ifndef PM_CORE_MODE_H
#define PM_CORE_MODE_H

#include <stdbool.h>
#include <stddef.h>

#include "core/verdict.h"

// Called by a thread that has a heap (or has ended), never while it is inside another of these.
// Sizes are at most PTRDIFF_MAX, alignments powers of two; NULL means that there is no memory.
struct pm_mode {
    const char *name;
    void *(*malloc)(size_t n, bool zero);
    void *(*aligned)(size_t align, size_t n);
    // Not called for NULL or for n == 0. The block is unchanged when the result is NULL.
    void *(*realloc)(void *block, size_t n, enum pm_verdict *verdict);
    enum pm_verdict (*free)(void *block);
    size_t (*usable_size)(const void *block, enum pm_verdict *verdict);
};

extern const struct pm_mode pm_mode_default;

#endif

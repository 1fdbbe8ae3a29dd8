// SPDX-License-Identifier: MIT
// Copyright (c) the poolmalloc authors

// The age of free memory.

#ifndef PM_CORE_CLOCK_H
#define PM_CORE_CLOCK_H

#include <stdint.h>

// Milliseconds; read from the OS once in PM_CLOCK_EVERY calls, else the last value.
uint32_t pm_clock(void);

// Milliseconds from `then` to `now`; 0 when `now` was read before, as by another thread.
static inline uint32_t pm_clock_since(uint32_t then, uint32_t now) {
    return (int32_t)(now - then) > 0 ? now - then : 0;
}

#endif

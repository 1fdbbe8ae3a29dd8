// SPDX-License-Identifier: MIT
// Copyright (c) the poolmalloc authors

// The age of free memory.

#ifndef PM_CORE_CLOCK_H
#define PM_CORE_CLOCK_H

#include <stdbool.h>
#include <stdint.h>

#include "config/options.h"

// Milliseconds; read from the OS once in PM_CLOCK_EVERY calls, else the last value.
uint32_t pm_clock(void);

// The same, read from the OS.
uint32_t pm_clock_now(void);

// Milliseconds from `then` to `now`; 0 when `now` was read before, as by another thread.
static inline uint32_t pm_clock_since(uint32_t then, uint32_t now) {
    return (int32_t)(now - then) > 0 ? now - then : 0;
}

// Is memory that was freed then to be purged?
static inline bool pm_clock_is_old(uint32_t freed_at, uint32_t now) {
    return pm_clock_since(freed_at, now) > pm_options.purge_delay;
}

#endif

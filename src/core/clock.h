// SPDX-License-Identifier: MIT
// Copyright (c) the poolmalloc authors

// The age of free memory.

#ifndef PM_CORE_CLOCK_H
#define PM_CORE_CLOCK_H

#include <stdbool.h>
#include <stdint.h>

#include "base/attributes.h"
#include "config/limits.h"
#include "config/options.h"

// Milliseconds; some calls, and about one millisecond, behind the OS's.
uint32_t pm_clock(void);

// The same, read from the OS.
uint32_t pm_clock_now(void);

// The same as the last time, without a look.
uint32_t pm_clock_last(void);

// Milliseconds from `then` to `now`, up to 49 days; 0 when `now` was read before, as by another
// thread.
PM_INLINE uint32_t pm_clock_since(uint32_t then, uint32_t now) {
    const uint32_t passed = now - then;
    return passed > UINT32_MAX - PM_CLOCK_SKEW_MS ? 0 : passed;
}

// Is memory that was freed then to be purged?
PM_INLINE bool pm_clock_is_old(uint32_t freed_at, uint32_t now) {
    return pm_clock_since(freed_at, now) > pm_options.purge_delay;
}

#endif

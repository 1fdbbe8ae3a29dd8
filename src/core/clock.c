// SPDX-License-Identifier: MIT
// Copyright (c) the poolmalloc authors

// A clock that costs a system call only now and then.

#include "core/clock.h"

#include "base/atomic.h"
#include "config/limits.h"
#include "os/os.h"

// Races lose a count or show an older time, which only delays a purge.
static uint32_t calls, last;

uint32_t pm_clock_now(void) {
    const uint32_t now = pm_os_clock();
    pm_set(&last, now);
    return now;
}

uint32_t pm_clock(void) {
    const uint32_t call = pm_get(&calls);
    pm_set(&calls, call + 1);
    return call % PM_CLOCK_EVERY == 0 ? pm_clock_now() : pm_get(&last);
}

uint32_t pm_clock_last(void) {
    return pm_get(&last);
}

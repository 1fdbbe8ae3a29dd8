// SPDX-License-Identifier: MIT
// Copyright (c) the poolmalloc authors

// A clock that costs a system call only now and then.

#include "core/clock.h"

#include "base/atomic.h"
#include "config/limits.h"
#include "os/os.h"

// Races show an older time, which only delays a purge.
static uint32_t last;
static uint64_t last_ticks;

// A thread's own: one for all would be a line that every miss writes.
static PM_TLS uint32_t calls;

uint32_t pm_clock_now(void) {
    const uint32_t now = pm_os_clock();
    pm_set(&last, now);
    return now;
}

// Has a millisecond passed since the OS was asked?
static bool has_ticked(void) {
    const uint64_t ticks = pm_cpu_ticks();
    if (ticks - pm_get(&last_ticks) < pm_cpu_ticks_per_ms()) {
        return false;
    }
    pm_set(&last_ticks, ticks);
    return true;
}

uint32_t pm_clock(void) {
    return calls++ % PM_CLOCK_EVERY == 0 && has_ticked() ? pm_clock_now() : pm_get(&last);
}

uint32_t pm_clock_last(void) {
    return pm_get(&last);
}

// SPDX-License-Identifier: MIT
// Copyright (c) the poolmalloc authors

// One page from which memory goes back to the OS.

#include "core/age.h"

#include "base/atomic.h"
#include "base/attributes.h"
#include "config/options.h"
#include "core/arena.h"
#include "core/clock.h"
#include "core/heap.h"
#include "core/huge.h"
#include "core/run.h"

// What threads have left that allocated in their end.
static void trim_ended(void) {
    pm_lock(&pm_ended_lock);
    pm_heap_trim(&pm_ended_heap);
    pm_unlock(&pm_ended_lock);
}

void pm_age_all(uint32_t now) {
    trim_ended();
    pm_heaps_reclaim(false);
    pm_arenas_age(now);
    pm_runs_age(now);
    pm_huge_age(now);
}

void pm_age(void) {
    static uint32_t aged_at;
    const uint32_t now = pm_clock();
    uint32_t last = pm_get(&aged_at);
    if (PM_UNLIKELY(pm_clock_since(last, now) > pm_options.purge_delay / 2) &&
        __atomic_compare_exchange_n(&aged_at, &last, now, false, __ATOMIC_RELAXED,
                                    __ATOMIC_RELAXED)) {
        if (pm_thread.heap != PM_HEAP_ENDED) {
            pm_heap_trim(pm_thread.heap);
        }
        pm_age_all(now);
    }
}

size_t pm_age_trim(void) {
    if (pm_thread.heap != PM_HEAP_ENDED) {
        pm_heap_trim(pm_thread.heap);
    }
    trim_ended();
    const size_t inner = pm_heaps_reclaim(true);
    return inner + pm_arenas_trim() + pm_runs_trim() + pm_huge_trim();
}

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
#include "core/keep.h"
#include "core/reclaim.h"
#include "core/run.h"

size_t pm_keep_grown;

// What threads have left that allocated in their end.
static size_t trim_ended(bool all) {
    pm_lock(&pm_ended_lock);
    const size_t bytes = pm_heap_trim_pools(&pm_ended_heap, all);
    pm_unlock(&pm_ended_lock);
    return bytes;
}

static size_t trim_own(bool all) {
    return pm_thread.heap == PM_HEAP_ENDED ? 0 : pm_heap_trim_pools(pm_thread.heap, all);
}

void pm_age_all(uint32_t now) {
    trim_ended(false);
    pm_heaps_reclaim(false);
    pm_arenas_age(now);
    pm_runs_age(now);
    pm_huge_age(now);
}

// Memory was taken anew: what is no longer wanted elsewhere makes room for it.
static void keep_step(size_t grown) {
    static size_t seen_grown;
    size_t seen = pm_get(&seen_grown);
    if (PM_UNLIKELY((ptrdiff_t)(grown - seen) >= (ptrdiff_t)PM_KEEP_STEP) &&
        __atomic_compare_exchange_n(&seen_grown, &seen, grown, false, __ATOMIC_RELAXED,
                                    __ATOMIC_RELAXED)) {
        if (pm_thread.heap != PM_HEAP_ENDED) {
            pm_heap_purge_inside(pm_thread.heap, grown - seen);
        }
        const uint32_t now = pm_clock();
        pm_arenas_age(now);
        pm_runs_age(now);
        pm_huge_age(now);
    }
}

// True for one of the threads that ask, when more than `interval` has passed since.
static bool is_time(uint32_t *since, uint32_t now, uint32_t interval) {
    uint32_t last = pm_get(since);
    return PM_UNLIKELY(pm_clock_since(last, now) > interval) &&
           __atomic_compare_exchange_n(since, &last, now, false, __ATOMIC_RELAXED,
                                       __ATOMIC_RELAXED);
}

void pm_age(void) {
    static uint32_t aged_at, part_at;
    keep_step(pm_get(&pm_keep_grown));
    const uint32_t now = pm_clock();
    if (is_time(&aged_at, now, pm_options.purge_delay / 2)) {
        trim_own(false);
        pm_age_all(now);
    } else if (is_time(&part_at, now, pm_options.purge_delay / PM_RECLAIM_PARTS)) {
        pm_heaps_reclaim_more();
    }
}

// First of others, which brings what any thread has freed into one of the own pools.
static size_t trim_inside(void) {
    const size_t bytes = pm_heaps_reclaim(true) + trim_ended(true);
    return bytes + trim_own(true);
}

size_t pm_age_trim(void) {
    size_t inner = trim_inside();
    // Arenas with much to be purged inside leave their huge pages first.
    if (pm_arenas_have_due()) {
        inner += pm_arenas_trim();
        inner += trim_inside();
    }
    return inner + pm_arenas_trim() + pm_runs_trim() + pm_huge_trim();
}

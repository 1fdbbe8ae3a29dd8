// SPDX-License-Identifier: MIT
// Copyright (c) the poolmalloc authors

// The default mode: each request goes to the structure for its size, each address to the structure
// that the address map names.

#include <string.h>

#include "base/bits.h"
#include "core/age.h"
#include "core/classes.h"
#include "core/emergency.h"
#include "core/heap.h"
#include "core/huge.h"
#include "core/large.h"
#include "core/libcs.h"
#include "core/limit.h"
#include "core/misuse.h"
#include "core/mode.h"
#include "core/run.h"
#include "os/os.h"

static uintptr_t pool_block(pm_class class, bool exact) {
    uintptr_t damaged = 0, block;
    struct pm_heap *const heap = pm_thread.heap;
    if (PM_LIKELY(heap != PM_HEAP_ENDED)) {
        block = pm_heap_take_block(heap, class, exact, &damaged);
    } else {
        pm_lock(&pm_ended_lock);
        block = pm_heap_take_block(&pm_ended_heap, class, exact, &damaged);
        pm_unlock(&pm_ended_lock);
    }
    if (PM_UNLIKELY(damaged != 0)) {
        pm_misuse("malloc", (const void *)damaged, PM_LIST_OVERWRITTEN);
    }
    return block;
}

// When memory is refused, by the OS or a limit: everything that is kept for later requests goes
// back, and the request is tried once more. A block that a thread had chained may serve it, where
// no page went. False when no room would do.
static bool reclaim(size_t n) {
    const bool can = pm_limit_can_ever_allow(n);
    if (can) {
        pm_age_trim();
    }
    return can;
}

static void *any_block(size_t n, bool zero) {
    return n <= PM_MEDIUM_MAX ? (void *)pool_block(pm_class_of(n), false)
                              : pm_large_malloc(n, PM_BLOCK_ALIGN, zero);
}

static void *default_malloc(size_t n, bool zero) {
    pm_age();
    void *block = any_block(n, zero);
    if (PM_UNLIKELY(block == NULL) && reclaim(n)) {
        block = any_block(n, zero);
    }
    if (zero && block != NULL && n <= PM_MEDIUM_MAX) {
        memset(block, 0, n);
    }
    return block;
}

static void *any_aligned(size_t align, size_t n) {
    return pm_class_can_align(align, n) ? (void *)pool_block(pm_class_aligned(align, n), true)
                                        : pm_large_malloc(n, align, false);
}

static void *default_aligned(size_t align, size_t n) {
    pm_age();
    void *const block = any_aligned(align, pm_max(n, 1));
    return PM_UNLIKELY(block == NULL) && reclaim(n) ? any_aligned(align, pm_max(n, 1)) : block;
}

// What an address is whose slot is no arena, and where no huge block starts; *usable is set for
// blocks of libc's and of the emergency memory.
static enum pm_verdict elsewhere(const void *at, size_t *usable) {
    enum pm_verdict verdict;
    *usable = 0;
    if ((uintptr_t)at >> PM_ADDRESS_BITS != 0 || (uintptr_t)at < pm_os_page_size()) {
        return PM_NOT_A_POINTER;
    }
    if (pm_emergency_owns(at)) {
        *usable = pm_emergency_size(at, &verdict);
        return verdict;
    }
    switch (pm_map_kind(at)) {
    case PM_SLOT_HUGE:
    case PM_SLOT_HUGE_INNER:
        // Behind a huge block's end the slot is not ours.
        pm_huge_size(at, &verdict);
        if (verdict != PM_STRAY) {
            return verdict;
        }
        break;
    case PM_SLOT_TOMBSTONE: return pm_libcs_block(at, usable) ? PM_LIBCS : PM_DOUBLE_FREE;
    default: break;
    }
    return pm_libcs_block(at, usable) ? PM_LIBCS : PM_STRAY;
}

static enum pm_verdict pool_free(void *block, unsigned bits) {
    struct pm_heap *const heap = pm_thread.heap;
    if (PM_LIKELY(heap != PM_HEAP_ENDED)) {
        return pm_heap_free_block(heap, block, bits);
    }
    pm_lock(&pm_ended_lock);
    const enum pm_verdict verdict = pm_heap_free_block(&pm_ended_heap, block, bits);
    pm_unlock(&pm_ended_lock);
    return verdict;
}

static enum pm_verdict default_free(void *block) {
    enum pm_verdict verdict = PM_STRAY;
    size_t usable;
    switch (pm_map_kind(block)) {
    case PM_SLOT_SMALL: return pool_free(block, PM_SMALL_POOL_BITS);
    case PM_SLOT_MEDIUM: return pool_free(block, PM_MEDIUM_POOL_BITS);
    case PM_SLOT_RUNS: return pm_run_free(pm_runs_of(PM_RUNS_SMALL, block), block);
    case PM_SLOT_LARGE_RUNS: return pm_run_free(pm_runs_of(PM_RUNS_LARGE, block), block);
    case PM_SLOT_HUGE: verdict = pm_huge_free(block); break;
    default: break;
    }
    if (verdict == PM_STRAY) {
        verdict = elsewhere(block, &usable);
        return verdict == PM_DONE ? pm_emergency_free(block) : verdict;
    }
    return verdict;
}

static size_t pool_size(const void *block, unsigned bits, enum pm_verdict *verdict) {
    *verdict = pm_heap_prove(block, bits);
    return *verdict == PM_DONE ? pm_classes[pm_pool_of(block, bits)->shared.class].size : 0;
}

static size_t default_usable_size(const void *block, enum pm_verdict *verdict) {
    size_t usable;
    switch (pm_map_kind(block)) {
    case PM_SLOT_SMALL: return pool_size(block, PM_SMALL_POOL_BITS, verdict);
    case PM_SLOT_MEDIUM: return pool_size(block, PM_MEDIUM_POOL_BITS, verdict);
    case PM_SLOT_RUNS: return pm_run_size(pm_runs_of(PM_RUNS_SMALL, block), block, verdict);
    case PM_SLOT_LARGE_RUNS:
        return pm_run_size(pm_runs_of(PM_RUNS_LARGE, block), block, verdict);
    case PM_SLOT_HUGE: usable = pm_huge_size(block, verdict); break;
    default: *verdict = PM_STRAY; break;
    }
    if (*verdict == PM_STRAY) {
        *verdict = elsewhere(block, &usable);
    }
    return usable;
}

static void *default_realloc(void *block, size_t n, enum pm_verdict *verdict) {
    const size_t size = default_usable_size(block, verdict);
    if (*verdict != PM_DONE) {
        return NULL;
    }
    void *moved = pm_block_resize(block, size, n);
    if (moved != NULL) {
        return moved;
    }
    moved = pm_large_malloc_growing(size, n);
    if (moved == NULL) {
        moved = default_malloc(n, false);
    }
    if (moved == NULL && n <= size) {
        return block;
    }
    if (moved != NULL) {
        memcpy(moved, block, pm_min(size, n));
        *verdict = default_free(block);
    }
    return moved;
}

const struct pm_mode pm_mode_default = {
    .name = "default",
    .malloc = default_malloc,
    .aligned = default_aligned,
    .realloc = default_realloc,
    .free = default_free,
    .usable_size = default_usable_size,
};

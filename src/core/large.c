// SPDX-License-Identifier: MIT
// Copyright (c) the poolmalloc authors

// By the size of a request, or by the kind of the slot of an address.

#include "core/large.h"

#include "base/bits.h"
#include "core/classes.h"
#include "core/huge.h"
#include "core/map.h"
#include "core/run.h"

void *pm_large_malloc(size_t n, size_t align, bool zero) {
    const size_t room = n + (align > (size_t)1 << PM_RUN_UNIT_BITS ? align : 0);
    static const enum pm_runs_kind kinds[] = { PM_RUNS_SMALL, PM_RUNS_LARGE };
    void *block = NULL;
    for (unsigned i = 0; i < sizeof kinds / sizeof *kinds && block == NULL; i++) {
        if (room <= pm_run_max(kinds[i])) {
            block = pm_run_malloc(pm_runs_home(kinds[i]), n, align, zero);
        }
    }
    // A limit on the address space may leave room for a block but not for another arena.
    return block != NULL ? block : pm_huge_malloc(n, align, zero);
}

void *pm_large_malloc_growing(size_t size, size_t n) {
    if (n <= size || n - size > size / 4 || n <= PM_MEDIUM_MAX) {
        return NULL;
    }
    // Long ones leave the arenas: from then on they move without copying.
    return n <= pm_run_max(PM_RUNS_SMALL) ? pm_run_malloc_growing(pm_runs_home(PM_RUNS_SMALL), n)
                                          : pm_huge_malloc(n, PM_BLOCK_ALIGN, false);
}

static bool resize_run(enum pm_runs_kind kind, size_t least, void *block, size_t n) {
    return n > least && n <= pm_run_max(kind) && pm_run_resize(pm_runs_of(kind, block), block, n);
}

void *pm_block_resize(void *block, size_t size, size_t n) {
    switch (pm_map_kind(block)) {
    case PM_SLOT_RUNS: return resize_run(PM_RUNS_SMALL, PM_MEDIUM_MAX / 2, block, n) ? block : NULL;
    case PM_SLOT_LARGE_RUNS:
        return resize_run(PM_RUNS_LARGE, pm_run_max(PM_RUNS_SMALL) / 2, block, n) ? block : NULL;
    // NULL also when the OS could not move the pages, as where the program has split the mapping.
    // One that is small because an arena did not fit grows as it is, and one that shrinks by half
    // moves.
    case PM_SLOT_HUGE:
        return n >= size || n > pm_run_max(PM_RUNS_LARGE) / 2 ? pm_huge_resize(block, n) : NULL;
    // Of a pool, or emergency memory, which has blocks of any size.
    default: return size <= PM_MEDIUM_MAX && pm_class_fits(size, n) ? block : NULL;
    }
}

enum pm_verdict pm_large_free(void *at) {
    switch (pm_map_kind(at)) {
    case PM_SLOT_RUNS: return pm_run_free(pm_runs_of(PM_RUNS_SMALL, at), at);
    case PM_SLOT_LARGE_RUNS: return pm_run_free(pm_runs_of(PM_RUNS_LARGE, at), at);
    case PM_SLOT_HUGE: return pm_huge_free(at);
    default: return PM_STRAY;
    }
}

void pm_large_set_owner(void *block, struct pm_heap *owner) {
    switch (pm_map_kind(block)) {
    case PM_SLOT_RUNS: pm_run_set_owner(pm_runs_of(PM_RUNS_SMALL, block), block, owner); break;
    case PM_SLOT_LARGE_RUNS:
        pm_run_set_owner(pm_runs_of(PM_RUNS_LARGE, block), block, owner);
        break;
    default: pm_huge_set_owner(block, owner); break;
    }
}

struct pm_heap *pm_large_owner(const void *block) {
    switch (pm_map_kind(block)) {
    case PM_SLOT_RUNS: return pm_run_owner(pm_runs_of(PM_RUNS_SMALL, block), block);
    case PM_SLOT_LARGE_RUNS: return pm_run_owner(pm_runs_of(PM_RUNS_LARGE, block), block);
    case PM_SLOT_HUGE: return pm_huge_owner(block);
    default: return NULL;
    }
}

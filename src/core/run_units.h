// SPDX-License-Identifier: MIT
// Copyright (c) the poolmalloc authors

// The units of run arenas: which are free, how free runs are joined and cut, and which are dirty.
// For run.c; what the rest of the library knows of runs is in run.h. All but the inline functions
// are for who holds the lock of the shard, where nothing else is said.
//
// Free runs are listed by length, and a set of lengths tells which lists are not empty. Units that
// leave the lists say INNER until their run has its next state, which is the caller's to say.

#ifndef PM_CORE_RUN_UNITS_H
#define PM_CORE_RUN_UNITS_H

#include "base/atomic.h"
#include "core/run.h"

PM_INLINE size_t pm_run_arena_bytes(const struct pm_runs *runs) {
    return PM_ARENA_UNITS << runs->unit_bits;
}

PM_INLINE struct pm_run_arena *pm_run_arena_of(const struct pm_runs *runs, const void *at) {
    return (struct pm_run_arena *)((uintptr_t)at & ~(pm_run_arena_bytes(runs) - 1));
}

PM_INLINE size_t pm_run_unit_of(const struct pm_runs *runs, const void *at) {
    return ((uintptr_t)at & (pm_run_arena_bytes(runs) - 1)) >> runs->unit_bits;
}

PM_INLINE char *pm_run_address(const struct pm_runs *runs, const struct pm_run_arena *arena,
                               size_t unit) {
    return (char *)arena + (unit << runs->unit_bits);
}

// Others read single states, and take a run without the lock (claim, take_latest).
PM_INLINE void pm_unit_set_state(struct pm_run_arena *arena, size_t unit,
                                 enum pm_unit_state state) {
    __atomic_store_n(&arena->state[unit], (uint8_t)state, __ATOMIC_RELEASE);
}

PM_INLINE enum pm_unit_state pm_unit_state_of(const struct pm_run_arena *arena, size_t unit) {
    return (enum pm_unit_state)pm_get(&arena->state[unit]);
}

// Units of an arena that may be resident and not zero.
struct pm_dirt {
    uint64_t word[PM_DIRTY_WORDS];
};

// So many units more in use; modulo SIZE_MAX + 1, so also fewer.
PM_INLINE void pm_units_change_used(struct pm_runs *runs, struct pm_run_arena *arena, size_t by) {
    pm_add(&runs->used_units, by);
    arena->thp.used += (uint32_t)by;
}

size_t pm_units_count_dirty(const struct pm_run_arena *arena, size_t unit, size_t count);
void pm_units_set_dirty(struct pm_run_arena *arena, size_t unit, size_t count, bool dirty);

// Units of the pages in which the arena gives memory back.
size_t pm_units_of_page(const struct pm_runs *runs, const struct pm_run_arena *arena);

// The first unit of the run that a unit is of. Without the lock, as far as others leave the run
// alone.
size_t pm_units_first(const struct pm_run_arena *arena, size_t unit);

// Puts a free run that has no free neighbour on the lists; `resident` is its count of dirty units.
// All but its ends say INNER already.
void pm_units_list(struct pm_runs *runs, struct pm_run_arena *arena, size_t unit, size_t count,
                   size_t resident, uint32_t now);

// Takes a free run off the lists. Its units say INNER afterwards.
void pm_units_unlist(struct pm_runs *runs, struct pm_run *run);

// Makes [unit, unit + count), of which `resident` units are dirty and all but the first say INNER,
// a free run, joined with free neighbours.
void pm_units_free(struct pm_runs *runs, struct pm_run_arena *arena, size_t unit, size_t count,
                   size_t resident, uint32_t now);

// The shortest free run of at least `count` units; NULL when there is none.
struct pm_run *pm_units_fit(struct pm_runs *runs, size_t count);

// Cuts `count` units at a multiple of `align` out of a free run that is long enough for it, and
// tells which of them were dirty. Returns the first; all say INNER.
size_t pm_units_cut(struct pm_runs *runs, struct pm_run *run, size_t count, size_t align,
                    struct pm_dirt *found);

#endif

// SPDX-License-Identifier: MIT
// Copyright (c) the poolmalloc authors

// Pool arenas: where heaps get pools and give them back.

#ifndef PM_CORE_ARENA_H
#define PM_CORE_ARENA_H

#include "core/keep.h"
#include "core/lock.h"
#include "core/pool.h"

// The arenas of one pool size; every field but `touched` is written under `lock`.
struct pm_arenas {
    struct pm_lock lock;
    uint32_t bits;
    struct pm_list every;                           // all arenas
    struct pm_list by_free[PM_ARENA_POOLS_MAX + 1]; // by number of free pools
    uint64_t filled;                                // bit i: by_free[i + 1] has an arena
    struct pm_list resident; // free pools with resident pages, last freed first
    struct pm_list warm;     // the same, of arenas that ask for huge pages
    struct pm_list sparse;   // of these the sparse ones, the latest first
    size_t resident_bytes;   // touched bytes of both
    size_t taken;            // pools that heaps hold, or that are full or abandoned
    size_t touched;          // bytes of these that may be resident; atomic
    size_t count;            // arenas
    size_t empty;            // of these, wholly free
    size_t due;              // pools to be purged inside, of arenas that ask for huge pages
    // By class, the pool that it gave back last, while that is resident and free.
    struct pm_pool *latest[PM_CLASS_COUNT];
    struct pm_keep keep;
    struct pm_thp_sample sample;
    size_t made, unmade; // arenas mapped and unmapped so far
};

enum pm_arenas_kind { PM_ARENAS_SMALL, PM_ARENAS_MEDIUM, PM_ARENAS_COUNT };

extern struct pm_arenas pm_arenas[PM_ARENAS_COUNT];

// Heaps that threads use: each may have a partly touched pool of every class. Under the heaps'
// lock.
extern uint32_t pm_arena_users;

void pm_arenas_start(void);

// A free pool set up for a class, owned by `owner`, with nothing handed out: a resident one, which
// is the one that the class gave back last, else the least touched of PM_FIT_LOOK; else one of the
// fullest arena, else one of a new arena. NULL when there is no memory. It starts without a free
// list also when it was of the same class before: blocks in the order of their addresses serve
// better than blocks in the order of their frees.
struct pm_pool *pm_arena_take(pm_class class, struct pm_heap *owner);

// Takes back a pool without blocks in use, which is on no list any more.
void pm_arena_give_back(struct pm_pool *pool);

// So many bytes more of a pool that is not free may be resident; modulo SIZE_MAX + 1, so also
// fewer.
void pm_arena_count_touched(const struct pm_pool *pool, size_t bytes);

// The pool, not free, is to be purged inside, as soon as its arena does not ask for huge pages any
// more; or not after all.
void pm_arena_mark_due(struct pm_pool *pool, bool due);

// Is there one?
bool pm_arenas_have_due(void);

// Makes more blocks of the pool and puts them on its list, which is empty: a page, or what is
// resident. The caller owns the pool. False when the pool is carved to its end, or a limit is
// reached.
bool pm_pool_carve(struct pm_pool *pool);

// Purges free pools that are too much or too old.
void pm_arenas_age(uint32_t now);

// Gives the pages of all free pools, and all empty arenas, back to the OS. Returns bytes given
// back.
size_t pm_arenas_trim(void);

#endif

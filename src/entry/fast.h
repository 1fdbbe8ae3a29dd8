// SPDX-License-Identifier: MIT
// Copyright (c) the poolmalloc authors

// The fast paths of malloc and free.
//
// Budget, for a small block of the thread's own heap (tests/budget holds the instructions):
//     malloc  8 loads (TLS offset, heap, pool, list, key, link, used, heap), 5 stores (busy, list,
//             used, block, not busy), 3 branches
//     free    13 loads (window, map, TLS offset, heap, owner, divisor, bound, block, two keys,
//             list, used, heap), 5 stores (busy, block, used, list, not busy), 6 branches
// no atomic operation, no call. Everything rare makes them answer "not done": no block on the list,
// not a small pool, not this thread's, not a block, perhaps free already, the pool's last block.

#ifndef PM_ENTRY_FAST_H
#define PM_ENTRY_FAST_H

#include "core/heap.h"
#include "entry/entry.h"

// The thread is busy from the first look at its heap to the last store, so that a handler which
// interrupts it is served elsewhere and finds, and leaves, the lists whole. The heap that goes back
// into the thread's word is read anew: waiting for the word's own old value would chain each call
// to the one before.
PM_INLINE struct pm_heap *pm_fast_enter(void) {
    struct pm_heap *const heap = pm_thread.fast;
    pm_set(&pm_thread.fast, PM_BUSY_HEAP);
    pm_signal_fence();
    return heap;
}

PM_INLINE void pm_fast_leave(struct pm_heap *heap) {
    pm_signal_fence();
    pm_set(&pm_thread.fast, heap);
}

// A block from the current pool of a lane, whose pools have these bits; NULL: not done.
PM_INLINE void *pm_fast_pop(size_t lane, unsigned bits) {
    struct pm_heap *const heap = pm_fast_enter();
    struct pm_pool *const pool = pm_get(&heap->lane[lane]);
    void *const block = (void *)pm_pool_pop(pool, bits);
    if (PM_UNLIKELY(block == NULL)) {
        pm_fast_leave(heap);
        return NULL;
    }
    pm_fast_leave(pm_thread.heap);
    return block;
}

// Frees a block of a pool arena. False: nothing was changed.
PM_INLINE bool pm_fast_push(void *at, unsigned bits) {
    const uintptr_t block = (uintptr_t)at, offset = block & (PM_POOL_BYTES(bits) - 1);
    struct pm_pool *const pool = pm_pool_of(at, bits);
    struct pm_heap *const heap = pm_fast_enter();
    if (PM_UNLIKELY(pm_get(&pool->shared.owner) != heap) ||
        PM_UNLIKELY(!pm_pool_has_block(pool, offset)) ||
        PM_UNLIKELY(pm_link_suspected(block, pool->shared.key))) {
        pm_fast_leave(heap);
        return false;
    }
    if (PM_UNLIKELY(pm_pool_push(pool, block))) {
        pm_free_emptied(pool, at);
        return true;
    }
    pm_fast_leave(pm_thread.heap);
    return true;
}

// Bytes of a block of a pool arena that is handed out, whoever owns it; 0: not done.
PM_INLINE size_t pm_fast_size(const void *at, unsigned bits) {
    const struct pm_pool *const pool = pm_pool_of(at, bits);
    if (PM_UNLIKELY(pm_get(&pool->shared.owner) == PM_OWNER_ARENA) ||
        PM_UNLIKELY(!pm_pool_has_block(pool, (uintptr_t)at & (PM_POOL_BYTES(bits) - 1))) ||
        PM_UNLIKELY(pm_link_suspected((uintptr_t)at, pool->shared.key))) {
        return 0;
    }
    return pm_classes[pm_get(&pool->shared.class)].size;
}

// A block of at least n bytes, or NULL: not done.
PM_INLINE void *pm_fast_malloc(size_t n) {
    // Inside the comparison that pm_lane_of makes, so that the usual sizes make no other.
    if (PM_UNLIKELY(n > PM_LANE_LINEAR_MAX) && n > PM_SMALL_MAX) {
        return NULL;
    }
    return pm_fast_pop(pm_lane_of(n), PM_SMALL_POOL_BITS);
}

// Frees an address in a slot of this kind. True: done. False: nothing was changed.
PM_INLINE bool pm_fast_free_in(enum pm_slot_kind kind, void *at) {
    if (PM_LIKELY(kind == PM_SLOT_SMALL)) {
        return pm_fast_push(at, PM_SMALL_POOL_BITS);
    }
    return kind == PM_SLOT_MEDIUM && pm_fast_push(at, PM_MEDIUM_POOL_BITS);
}

// True: done. False: nothing was changed, as for every address outside the window of the map.
PM_INLINE bool pm_fast_free(void *at) {
    return pm_fast_free_in(pm_map_kind_near(at), at);
}

#endif

// SPDX-License-Identifier: MIT
// Copyright (c) the poolmalloc authors

// What a heap does with its pools: the lanes of a class hold its current pool, a bin the listed
// ones. For the files of core that move pools between the two and elsewhere; what else a heap
// offers is in heap.h. All but what only reads is for who holds the heap's lock, where nothing else
// is said.

#ifndef PM_CORE_HEAP_POOLS_H
#define PM_CORE_HEAP_POOLS_H

#include "core/heap.h"

PM_INLINE void pm_heap_set_lanes(struct pm_heap *heap, pm_class class, struct pm_pool *pool) {
    const struct pm_class_info *const info = &pm_classes[class];
    for (unsigned i = 0; i < info->lanes; i++) {
        pm_set(&heap->lane[info->lane + i], pool);
    }
}

// What the lanes of a class hold: its current pool, or its host's, or PM_NO_POOL.
PM_INLINE struct pm_pool *pm_heap_lane(const struct pm_heap *heap, pm_class class) {
    return pm_get(&heap->lane[pm_classes[class].lane]);
}

PM_INLINE bool pm_heap_is_guest(const struct pm_heap *heap, pm_class class) {
    const struct pm_pool *const pool = pm_heap_lane(heap, class);
    return pool != PM_NO_POOL && pool->shared.class != class;
}

PM_INLINE struct pm_pool *pm_heap_current(const struct pm_heap *heap, pm_class class) {
    return pm_heap_is_guest(heap, class) ? PM_NO_POOL : pm_heap_lane(heap, class);
}

PM_INLINE void pm_pool_set_state(struct pm_pool *pool, enum pm_pool_state state) {
    pm_set(&pool->shared.state, (uint8_t)state);
}

PM_INLINE struct pm_pool *pm_pool_of_link(struct pm_list *link) {
    return PM_LIST_ENTRY(link, struct pm_pool, owned.link);
}

PM_INLINE struct pm_pool *pm_pool_of_rest(struct pm_list *link) {
    return PM_LIST_ENTRY(link, struct pm_pool, inner.rest);
}

PM_INLINE uint32_t pm_pool_remote_count(const struct pm_pool *pool) {
    return (uint32_t)(pm_get(&pool->remote.word) >> PM_REMOTE_COUNT_SHIFT);
}

// Is a current pool without a block in use?
PM_INLINE bool pm_pool_is_spare(const struct pm_pool *pool) {
    return pm_pool_remote_count(pool) + 1 == pm_get(&pool->owned.used);
}

// Has less than a part of its blocks free.
PM_INLINE bool pm_pool_is_nearly_full(const struct pm_pool *pool, uint32_t part) {
    const uint32_t in_use = pool->owned.used - pm_pool_remote_count(pool), end = pool->owned.end;
    return in_use * pm_classes[pool->shared.class].size > end - end / part;
}

// Takes a current pool out of all lanes, its own class's and those of its guests.
void pm_heap_clear_lanes(struct pm_heap *heap, const struct pm_pool *pool);

// Puts a pool at the back of its bin, and takes it off.
void pm_heap_list_pool(struct pm_heap *heap, struct pm_pool *pool);
void pm_heap_unlist_pool(struct pm_heap *heap, struct pm_pool *pool);

// -> LISTED: a pool that free blocks have come to.
void pm_heap_list_freed_into(struct pm_heap *heap, struct pm_pool *pool);

// FULL -> LISTED, of a private heap.
void pm_heap_leave_full(struct pm_heap *heap, struct pm_pool *pool);

// The pool is the last one to be looked at for memory that can be purged inside.
void pm_heap_look_later(struct pm_heap *heap, struct pm_pool *pool);

// Makes the remote list the free list, which is empty, or of no use since every block of the pool
// is free. So no block is touched: the two lists are never joined. The caller owns the pool.
void pm_pool_collect(struct pm_pool *pool);

#endif

// SPDX-License-Identifier: MIT
// Copyright (c) the poolmalloc authors

// Frees of blocks of pools, all that the fast path leaves: the proof of an error, and the first
// free into a full pool. Frees into pools that the thread does not own are in remote.c.

#include "core/heap.h"
#include "core/heap_pools.h"
#include "core/inner.h"
#include "core/limit.h"
#include "core/remote.h"

// Proves or dispels the suspicion that a block is free already.
static bool is_free(const struct pm_pool *pool, uintptr_t block) {
    const uint64_t word = pm_link_read(block, pool->shared.key);
    if (!pm_link_sound(word, block, pool->shared.bits)) {
        return false;
    }
    // In this order, since chains are sent to the remote list, and the owner makes that the other.
    return pm_chains_lead_to(pool, block) ||
           pm_list_leads_to(pool, pm_get(&pool->remote.word) & PM_REMOTE_LIST_MASK, block) ||
           pm_list_leads_to(pool, pm_get(&pool->owned.list), block);
}

enum pm_verdict pm_heap_prove(const void *at, unsigned bits) {
    const uintptr_t block = (uintptr_t)at;
    const struct pm_pool *const pool = pm_pool_of(at, bits);
    const size_t offset = block & (PM_POOL_BYTES(bits) - 1);
    const uint64_t divisor = pm_get(&pool->shared.divisor);
    const bool carved = offset < pm_get(&pool->shared.carved);
    if (block % PM_BLOCK_ALIGN != 0) {
        return PM_UNALIGNED;
    }
    if (divisor == 0 || offset >= pool->owned.end) {
        return PM_NEVER_HANDED_OUT;
    }
    if (offset * divisor >= divisor) {
        return carved ? PM_INSIDE : PM_NEVER_HANDED_OUT;
    }
    if (!carved) {
        return PM_NEVER_HANDED_OUT;
    }
    if (pm_inner_is_away(pool, offset / pm_classes[pool->shared.class].size)) {
        return PM_DOUBLE_FREE;
    }
    const enum pm_pool_state state = pm_get(&pool->shared.state);
    if (state == PM_POOL_FREE || state == PM_POOL_PURGING) {
        return PM_DOUBLE_FREE;
    }
    if (pm_link_suspected(block, pool->shared.key) && is_free(pool, block)) {
        return PM_DOUBLE_FREE;
    }
    return PM_DONE;
}

enum pm_verdict pm_heap_free_block(struct pm_heap *heap, void *at, unsigned bits) {
    struct pm_pool *const pool = pm_pool_of(at, bits);
    const uintptr_t block = (uintptr_t)at;
    const size_t offset = block & (PM_POOL_BYTES(bits) - 1);
    if (!pm_pool_has_block(pool, offset) || pm_link_suspected(block, pool->shared.key) ||
        pm_get(&pool->shared.owner) == PM_OWNER_ARENA) {
        const enum pm_verdict verdict = pm_heap_prove(at, bits);
        if (verdict != PM_DONE) {
            return verdict;
        }
    }
    if (pm_get(&pool->shared.owner) == heap) {
        if (PM_UNLIKELY(pm_get(&pool->shared.state) == PM_POOL_FULL)) {
            pm_lock(&heap->lock);
            pm_heap_leave_full(heap, pool);
            pm_unlock(&heap->lock);
        }
        const bool last = pm_pool_push(pool, block);
        if (last) {
            return pm_heap_pool_emptied(heap, pool) ? PM_DONE : PM_DOUBLE_FREE;
        }
        // Every free of it takes this way, until all is back. Where memory is limited that can
        // wait.
        if (pm_get(&pool->shared.state) == PM_POOL_CURRENT && pm_inner_has_away(pool) &&
            !pm_limit_is_set()) {
            pm_lock(&heap->lock);
            heap->inside_restored += pm_inner_restore(pool);
            pm_unlock(&heap->lock);
        }
        return PM_DONE;
    }
    pm_remote_free(heap, pool, block);
    return PM_DONE;
}

// SPDX-License-Identifier: MIT
// Copyright (c) the poolmalloc authors

// Frees of blocks of pools, all that the fast path leaves: the proof of an error, the first free
// into a full pool, and frees into pools that the thread does not own.

#include "core/abandoned.h"
#include "core/arena.h"
#include "core/heap.h"
#include "core/heap_pools.h"
#include "core/inner.h"
#include "core/limit.h"

// Is the block on this list? Read while others may change the list: links are followed only where
// they are sound, and a list that leads to the block proves that it is free, since a block in use
// is on no list while its free has not been done.
static bool list_leads_to(const struct pm_pool *pool, uintptr_t from, uintptr_t block) {
    const unsigned bits = pool->shared.bits;
    const size_t most = PM_POOL_BYTES(bits) / PM_BLOCK_ALIGN;
    for (size_t i = 0; i < most && from != 0; i++) {
        if (from == block) {
            return true;
        }
        const uintptr_t next = pm_link_read(from, pool->shared.key);
        if (!pm_link_sound(next, from, bits)) {
            return false;
        }
        from = next;
    }
    return false;
}

// Proves or dispels the suspicion that a block is free already.
static bool is_free(const struct pm_pool *pool, uintptr_t block) {
    const uint64_t word = pm_link_read(block, pool->shared.key);
    if (!pm_link_sound(word, block, pool->shared.bits)) {
        return false;
    }
    // In this order, since the owner makes the remote list the other one.
    return list_leads_to(pool, pm_get(&pool->remote.word) & PM_REMOTE_LIST_MASK, block) ||
           list_leads_to(pool, pm_get(&pool->owned.list), block);
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

// FULL or ABANDONED -> LISTED, ABANDONED or FREE: `block` is freed into a pool that is nobody's.
// The heap's lock is held around the claim, so that no fork finds the pool between two owners.
// False when the remote word has changed, and nothing else did.
static bool adopt(struct pm_heap *heap, struct pm_pool *pool, uintptr_t block, uint64_t *remote) {
    const bool listed = (*remote & PM_REMOTE_WAITING) != 0;
    struct pm_list *const bin = &heap->bin[pool->shared.class];
    pm_lock(&heap->lock);
    if (!pm_pool_claim(pool, remote)) {
        pm_unlock(&heap->lock);
        return false;
    }
    if (listed) {
        pm_abandoned_remove(pool);
    }
    // From now on others tell this heap when they seem to have freed the last block.
    pm_set(&pool->shared.owner, heap);
    pm_pool_push(pool, block);
    if (pm_pool_remote_count(pool) == pool->owned.used) {
        pm_pool_collect(pool);
        pm_arena_give_back(pool);
    } else if (pm_get(&pool->shared.home) == heap || pm_list_empty(bin)) {
        pm_set(&pool->shared.home, heap);
        pm_heap_list_freed_into(heap, pool);
    } else {
        pm_pool_abandon(pool);
    }
    pm_unlock(&heap->lock);
    return true;
}

// The first free by another into a FULL pool of a private heap, whose block is in use still.
// *remote tells what the remote word is then.
static void tell_room(struct pm_pool *pool, uint64_t *remote) {
    const uint64_t telling = (*remote & ~PM_REMOTE_WAITING) | PM_REMOTE_TELLING;
    if (!__atomic_compare_exchange_n(&pool->remote.word, remote, telling, false, __ATOMIC_ACQUIRE,
                                     __ATOMIC_ACQUIRE)) {
        return;
    }
    *remote = telling;
    struct pm_heap *const owner = pm_get(&pool->shared.owner);
    struct pm_pool *first = pm_get(&owner->told);
    do {
        pm_set(&pool->remote.told, first);
    } while (!__atomic_compare_exchange_n(&owner->told, &first, pool, false, __ATOMIC_RELEASE,
                                          __ATOMIC_RELAXED));
}

// Pushes a block on the remote list. False when the remote word has changed, which *remote tells.
// After the exchange this thread touches neither block, pool nor arena. When it seems to be the
// last block in use, the owner is told, whose heap is never unmapped; a mistake costs the owner a
// look.
static bool push_remote(struct pm_pool *pool, uintptr_t block, uint64_t *remote) {
    const uint64_t full = PM_REMOTE_OWNED | PM_REMOTE_WAITING;
    if (PM_UNLIKELY((*remote & full) == full)) {
        tell_room(pool, remote);
        return false;
    }
    const uint64_t pushed = (*remote & ~PM_REMOTE_LIST_MASK) + PM_REMOTE_ONE + block;
    struct pm_heap *const owner = pm_get(&pool->shared.owner);
    const pm_class class = pm_get(&pool->shared.class);
    // A pool that its owner allocates from need not be told of; and the owner writes its line all
    // the time.
    const bool last = pm_get(&pool->shared.state) != PM_POOL_CURRENT &&
                      pushed >> PM_REMOTE_COUNT_SHIFT >= pm_get(&pool->owned.used);
    pm_link_write(block, *remote & PM_REMOTE_LIST_MASK, pool->shared.key);
    if (!__atomic_compare_exchange_n(&pool->remote.word, remote, pushed, false, __ATOMIC_RELEASE,
                                     __ATOMIC_ACQUIRE)) {
        return false;
    }
    if (PM_UNLIKELY(last) && owner != PM_OWNER_NOBODY && owner != PM_OWNER_ARENA) {
        pm_heap_tell_freed(owner, class);
    }
    return true;
}

// Is a block, freed by a thread of this heap, pushed on the remote list? Else the pool is to be
// adopted: it is FULL, or was the heap's own. While a pool waits, its count of used blocks stays;
// its last block is not pushed, so that who frees it takes the pool.
static bool is_pushed(const struct pm_heap *heap, const struct pm_pool *pool, uint64_t remote) {
    return (remote & PM_REMOTE_OWNED) ||
           ((remote & PM_REMOTE_WAITING) && pm_get(&pool->shared.home) != heap &&
            (remote >> PM_REMOTE_COUNT_SHIFT) + 1 != pm_get(&pool->owned.used));
}

// Frees a block of a pool that another heap owns, or none.
static void free_remote(struct pm_heap *heap, struct pm_pool *pool, uintptr_t block) {
    uint64_t remote = __atomic_load_n(&pool->remote.word, __ATOMIC_ACQUIRE);
    do {
        while (!is_pushed(heap, pool, remote)) {
            if (adopt(heap, pool, block, &remote)) {
                return;
            }
        }
    } while (!push_remote(pool, block, &remote));
}

bool pm_heap_push_remote(void *at, unsigned bits) {
    struct pm_pool *const pool = pm_pool_of(at, bits);
    const uintptr_t block = (uintptr_t)at;
    uint64_t remote = __atomic_load_n(&pool->remote.word, __ATOMIC_ACQUIRE);
    const struct pm_heap *const heap = pm_thread.heap, *const owner = pm_get(&pool->shared.owner);
    if (owner == PM_OWNER_ARENA || owner == heap ||
        !(pm_pool_has_block(pool, block & (PM_POOL_BYTES(bits) - 1)) ||
          (pm_get(&pool->shared.state) == PM_POOL_FULL && pm_get(&pool->inner.away) == 0 &&
           pm_pool_has_carved(pool, block & (PM_POOL_BYTES(bits) - 1)))) ||
        pm_link_suspected(block, pool->shared.key)) {
        return false;
    }
    bool tried = false;
    for (; is_pushed(heap, pool, remote); tried = true) {
        if (push_remote(pool, block, &remote)) {
            return true;
        }
    }
    if (tried) {
        // The link that the try has written would make the block look free.
        pm_set((pm_link *)block, 0);
    }
    return false;
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
    free_remote(heap, pool, block);
    return PM_DONE;
}

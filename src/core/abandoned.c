// SPDX-License-Identifier: MIT
// Copyright (c) the poolmalloc authors

// Pools whose heap has ended, and pools with room that the heap which adopts them has no use for.

#include "core/abandoned.h"

#include "core/arena.h"
#include "core/heap_pools.h"

static struct pm_abandoned *abandoned_of(const struct pm_pool *pool) {
    return &pm_heaps.abandoned[pool->shared.class];
}

bool pm_pool_claim(struct pm_pool *pool, uint64_t *remote) {
    PM_ASSERT((*remote & PM_REMOTE_OWNED) == 0);
    const uint64_t owned = (*remote & ~PM_REMOTE_WAITING) | PM_REMOTE_OWNED;
    return __atomic_compare_exchange_n(&pool->remote.word, remote, owned, false, __ATOMIC_ACQUIRE,
                                       __ATOMIC_ACQUIRE);
}

// Both under the lock of the class.
static void list_abandoned(struct pm_pool *pool) {
    struct pm_abandoned *const abandoned = abandoned_of(pool);
    pm_list_push_back(&abandoned->pools, &pool->owned.link);
    pm_add(&abandoned->count, 1);
}

static void unlist_abandoned(struct pm_pool *pool) {
    pm_list_remove(&pool->owned.link);
    pm_add(&abandoned_of(pool)->count, -1);
}

// Claims the first pool of a list that is not claimed by a free yet, which then takes it off the
// list itself. Unless `any` will do, nearly full pools go to the back: frees are just coming to
// them, and who takes one misses again soon, and writes to what those frees write. NULL when there
// is none. Under the lock of the class.
static struct pm_pool *claim_listed(struct pm_list *pools, bool any) {
    const struct pm_list *const last = pools->prev;
    unsigned passed = 0;
    for (struct pm_list *link = pools->next, *next; link != pools; link = next) {
        struct pm_pool *const pool = pm_pool_of_link(link);
        uint64_t remote = pm_get(&pool->remote.word);
        next = link->next;
        if (!any && pm_pool_is_nearly_full(pool, PM_PICK_ABANDONED_MIN)) {
            pm_list_remove(link);
            pm_list_push_back(pools, link);
            passed++;
        } else {
            while (!(remote & PM_REMOTE_OWNED)) {
                if (pm_pool_claim(pool, &remote)) {
                    return pool;
                }
            }
        }
        if (link == last || passed == PM_PICK_PASS) {
            break;
        }
    }
    return NULL;
}

struct pm_pool *pm_abandoned_take(pm_class class, bool any) {
    struct pm_abandoned *const abandoned = &pm_heaps.abandoned[class];
    if (pm_get(&abandoned->count) == 0) {
        return NULL;
    }
    pm_lock(&abandoned->lock);
    struct pm_pool *const claimed = claim_listed(&abandoned->pools, any);
    if (claimed != NULL) {
        unlist_abandoned(claimed);
    }
    pm_unlock(&abandoned->lock);
    return claimed;
}

void pm_abandoned_remove(struct pm_pool *pool) {
    struct pm_abandoned *const abandoned = abandoned_of(pool);
    pm_lock(&abandoned->lock);
    unlist_abandoned(pool);
    pm_unlock(&abandoned->lock);
}

void pm_pool_abandon(struct pm_pool *pool) {
    struct pm_abandoned *const abandoned = abandoned_of(pool);
    const unsigned state = pm_get(&pool->shared.state);
    if (state == PM_POOL_CURRENT || state == PM_POOL_FULL) {
        pm_set(&pool->inner.seen_used, PM_INNER_NEVER_LOOKED);
    }
    pm_lock(&abandoned->lock);
    pm_pool_set_state(pool, PM_POOL_ABANDONED);
    list_abandoned(pool);
    pm_set(&pool->shared.owner, PM_OWNER_NOBODY);
    uint64_t remote = pm_get(&pool->remote.word);
    bool empty;
    do {
        empty = remote >> PM_REMOTE_COUNT_SHIFT == pool->owned.used;
        if (empty) {
            unlist_abandoned(pool);
            break;
        }
    } while (!__atomic_compare_exchange_n(&pool->remote.word, &remote,
                                          (remote & ~PM_REMOTE_OWNED) | PM_REMOTE_WAITING, false,
                                          __ATOMIC_RELEASE, __ATOMIC_RELAXED));
    pm_unlock(&abandoned->lock);
    if (empty) {
        pm_pool_collect(pool);
        pm_arena_give_back(pool);
    }
}

// SPDX-License-Identifier: MIT
// Copyright (c) the poolmalloc authors

// Memory that threads hold which are outside of the library, as those that sleep are: their pools
// without a block in use go back, the others are purged inside, and the blocks that they have
// chained go to their pools. The run that waits in a heap's place goes back of any thread.

#include "core/reclaim.h"

#include "base/bits.h"
#include "core/abandoned.h"
#include "core/arena.h"
#include "core/heap.h"
#include "core/heap_pools.h"
#include "core/inner.h"
#include "core/remote.h"
#include "os/os.h"

// Pools of a heap that are hidden from its thread, for now: those without a block in use, and those
// that are due to be purged inside. Current ones are out of their lanes. All seem to be nobody's,
// so that what is freed goes to their remote lists. Under the heap's lock.
struct hidden {
    struct pm_pool *current[PM_CLASS_COUNT];
    unsigned count;
    struct pm_list listed; // by their places in the heap's list of all listed pools
};

static void hide_listed(struct pm_pool *pool, struct hidden *hidden) {
    pm_list_remove(&pool->inner.rest);
    pm_list_push_back(&hidden->listed, &pool->inner.rest);
    pm_set(&pool->shared.owner, PM_OWNER_NOBODY);
}

static void hide_freed(struct pm_heap *heap, pm_class class, struct hidden *hidden) {
    if ((pm_get(&heap->freed[class / 64]) >> (class % 64) & 1) == 0) {
        return;
    }
    __atomic_fetch_and(&heap->freed[class / 64], ~(UINT64_C(1) << (class % 64)), __ATOMIC_ACQUIRE);
    PM_LIST_EACH(link, &heap->bin[class]) {
        struct pm_pool *const pool = pm_pool_of_link(link);
        if (pm_pool_remote_count(pool) == pm_get(&pool->owned.used)) {
            hide_listed(pool, hidden);
        }
    }
}

static void hide_due(struct pm_heap *heap, bool all, struct hidden *hidden) {
    const struct pm_list *const last = heap->rest.prev, *link = &heap->rest;
    size_t bytes = 0; // at most
    for (size_t looks = PM_INNER_POOLS; link != last; looks--) {
        if (!all && (looks == 0 || bytes >= PM_INNER_BYTES)) {
            break;
        }
        struct pm_pool *const pool = pm_pool_of_rest(heap->rest.next);
        link = &pool->inner.rest;
        pm_heap_look_later(heap, pool);
        if (pm_inner_is_due(pool, all)) {
            hide_listed(pool, hidden);
            bytes += PM_POOL_BYTES(pool->shared.bits);
        }
    }
}

static void hide(struct pm_heap *heap, bool all, struct hidden *hidden) {
    hidden->count = 0;
    pm_list_init(&hidden->listed);
    for (unsigned class = 0; class < PM_CLASS_COUNT; class ++) {
        struct pm_pool *const pool = pm_heap_current(heap, (pm_class) class);
        if (pool != PM_NO_POOL && (pm_pool_is_spare(pool) || pm_inner_is_due(pool, all))) {
            pm_heap_clear_lanes(heap, pool);
            pm_set(&pool->shared.owner, PM_OWNER_NOBODY);
            hidden->current[hidden->count++] = pool;
        }
        hide_freed(heap, (pm_class) class, hidden);
    }
    hide_due(heap, all, hidden);
}

static bool hides_any(const struct hidden *hidden) {
    return hidden->count != 0 || !pm_list_empty(&hidden->listed);
}

// Purges inside of the pools that keep blocks in use. The thread is outside.
static size_t purge_hidden(const struct hidden *hidden) {
    size_t bytes = 0;
    bool looked = false;
    for (unsigned i = 0; i < hidden->count; i++) {
        if (!pm_pool_is_spare(hidden->current[i])) {
            bytes += pm_inner_purge(hidden->current[i]);
            looked = true;
        }
    }
    PM_LIST_EACH(link, &hidden->listed) {
        bytes += pm_inner_purge(pm_pool_of_rest(link));
        looked = true;
    }
    // Who finds a pool to be the heap's again finds its list as it is now, which is made anew also
    // where the OS refuses all pages.
    if (looked) {
        pm_os_barrier();
    }
    return bytes;
}

// CURRENT -> FREE without a block in use, when the thread is outside; else back into its lanes.
static void settle_current(struct pm_heap *heap, struct pm_pool *pool, bool outside) {
    if (outside && pm_pool_is_spare(pool)) {
        pm_add(&pool->owned.used, -1);
        pm_pool_collect(pool);
        pm_arena_give_back(pool);
    } else {
        pm_set(&pool->shared.owner, heap);
        pm_heap_set_lanes(heap, pool->shared.class, pool);
    }
}

// LISTED -> FREE when others have freed all, and the thread is outside; else it is the heap's
// again, and from then on the thread frees into it. Who freed its last block meanwhile found nobody
// to tell.
static void settle_listed(struct pm_heap *heap, struct pm_pool *pool, bool outside) {
    if (outside && pm_pool_remote_count(pool) == pm_get(&pool->owned.used)) {
        pm_heap_unlist_pool(heap, pool);
        pm_pool_collect(pool);
        pm_arena_give_back(pool);
    } else {
        pm_set(&pool->shared.owner, heap);
        pm_heap_tell_freed(heap, pool->shared.class);
    }
}

// Returns bytes purged inside.
static size_t settle(struct pm_heap *heap, struct hidden *hidden, bool outside) {
    const size_t bytes = outside ? purge_hidden(hidden) : 0;
    for (unsigned i = 0; i < hidden->count; i++) {
        settle_current(heap, hidden->current[i], outside);
    }
    PM_LIST_EACH(link, &hidden->listed) {
        pm_list_remove(link);
        pm_list_push_back(&heap->rest, link);
        settle_listed(heap, pm_pool_of_rest(link), outside);
    }
    return bytes;
}

// Is the thread outside of the library, and all that it did there visible? A thread marks itself
// busy before it looks at its lanes or chains, or frees. After the first barrier, either its mark
// is visible, or it finds lanes and owners as they are now, and its chains closed, and then waits
// for the lock of the heap, or frees as others do. After the second one, what it stored before it
// took the mark away is visible.
static bool is_outside(const struct pm_heap *heap) {
    struct pm_heap *fast;
    // The words of a thread that was ended without its destructors may be gone.
    return pm_os_barrier() && pm_os_peek(&heap->user->fast, &fast, sizeof fast) &&
           fast != PM_BUSY_HEAP && pm_os_barrier();
}

// Sends what the heap's thread has freed and holds back, where it is the caller, or outside. Under
// the heap's lock.
static void send_chains(struct pm_heap *heap) {
    if (heap->user == &pm_thread) {
        pm_chains_send(heap);
    } else if (heap->user != NULL && pm_chains_close(heap)) {
        if (is_outside(heap)) {
            pm_chains_send(heap);
        }
        pm_chains_open(heap);
    }
}

// A pool without blocks in use is safe from its thread's frees, which need a block, once none of
// them is under way; and from its mallocs, which need a lane. A listed pool that seems to be
// nobody's is safe from its frees.
static size_t reclaim(struct pm_heap *heap, bool all) {
    struct hidden hidden;
    size_t bytes = 0;
    pm_run_empty_place(heap);
    pm_lock(&heap->lock);
    send_chains(heap);
    if (heap->user != NULL && heap->user != &pm_thread) {
        hide(heap, all, &hidden);
        if (hides_any(&hidden)) {
            bytes = settle(heap, &hidden, is_outside(heap));
        }
    }
    pm_unlock(&heap->lock);
    return bytes;
}

// Purges inside of the abandoned pools of a class, as of listed ones.
static size_t purge_abandoned(pm_class class, bool all) {
    const size_t count = pm_get(&pm_heaps.abandoned[class].count);
    size_t bytes = 0;
    for (size_t looks = all ? count : pm_min(count, PM_INNER_POOLS); looks != 0; looks--) {
        // So that no fork finds the pool between two owners.
        pm_lock(&pm_heaps.lock);
        struct pm_pool *const pool = pm_abandoned_take(class, true);
        if (pool != NULL) {
            if (pm_inner_is_due(pool, all)) {
                bytes += pm_inner_purge(pool);
            }
            pm_pool_abandon(pool);
        }
        pm_unlock(&pm_heaps.lock);
        if (pool == NULL || (!all && bytes >= PM_INNER_BYTES)) {
            break;
        }
    }
    return bytes;
}

// The next heap in turn; heaps are never unmapped.
static size_t reclaim_next(bool all) {
    pm_lock(&pm_heaps.lock);
    const struct pm_list *link =
        pm_heaps.looked_at == NULL ? &pm_heaps.every : &pm_heaps.looked_at->every;
    link = link->next == &pm_heaps.every ? pm_heaps.every.next : link->next;
    pm_heaps.looked_at = PM_LIST_ENTRY(link, struct pm_heap, every);
    const size_t bytes = reclaim(pm_heaps.looked_at, all);
    const size_t unseen = pm_get(&pm_heaps.unseen);
    pm_set(&pm_heaps.unseen, unseen - (unseen != 0));
    pm_unlock(&pm_heaps.lock);
    return bytes;
}

// At most so many heaps, and so much of what rests.
static size_t reclaim_heaps(size_t most, bool all) {
    size_t bytes = 0;
    for (size_t i = 0; i < most && (all || bytes < PM_INNER_BYTES); i++) {
        bytes += reclaim_next(all);
    }
    return bytes;
}

bool pm_heaps_reclaim_more(void) {
    const size_t unseen = pm_get(&pm_heaps.unseen);
    reclaim_heaps(pm_min(unseen, PM_RECLAIM_HEAPS), false);
    return unseen != 0;
}

// What one thread has freed may be the last that kept another's pool.
static void send_all_chains(void) {
    pm_lock(&pm_heaps.lock);
    PM_LIST_EACH(link, &pm_heaps.every) {
        struct pm_heap *const heap = PM_LIST_ENTRY(link, struct pm_heap, every);
        pm_lock(&heap->lock);
        send_chains(heap);
        pm_unlock(&heap->lock);
    }
    pm_unlock(&pm_heaps.lock);
}

size_t pm_heaps_reclaim(bool all) {
    if (all) {
        send_all_chains();
    }
    const size_t count = pm_get(&pm_heaps.count);
    if (pm_get(&pm_heaps.unseen) == 0) {
        pm_set(&pm_heaps.unseen, count);
    }
    size_t bytes = reclaim_heaps(all ? count : pm_min(count, PM_RECLAIM_HEAPS), all);
    for (unsigned class = 0; class < PM_CLASS_COUNT; class ++) {
        bytes += purge_abandoned((pm_class) class, all);
    }
    return bytes;
}

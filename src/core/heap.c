// SPDX-License-Identifier: MIT
// Copyright (c) the poolmalloc authors

// The misses of heaps, frees from outside, and what becomes of pools.
//
// Who may do what to a pool without a lock is decided by its remote word: the thread that has set
// the owned bit (or took the pool from an arena) is its owner until it clears the bit. All other
// threads only push blocks on the remote list, and read.
//
// A private heap owns all its pools, the FULL ones too. Who frees into one of these tells the heap
// (tell_room), so that what others free serves before the heap takes another pool.

#include "core/heap.h"

#include <string.h>

#include "base/bits.h"
#include "core/arena.h"
#include "core/inner.h"
#include "core/limit.h"
#include "core/meta.h"
#include "os/os.h"

const struct pm_pool pm_no_pool_header;
struct pm_pool *const pm_empty_lanes[PM_LANE_COUNT + 1] = { [0 ... PM_LANE_COUNT] = PM_NO_POOL };
struct pm_heap pm_ended_heap;
struct pm_lock pm_ended_lock = PM_LOCK_INIT(PM_RANK_HEAPS);
struct pm_heaps pm_heaps = { .lock = PM_LOCK_INIT(PM_RANK_HEAPS) };
PM_TLS struct pm_thread pm_thread = { .fast = PM_NO_HEAP };

static void set_lanes(struct pm_heap *heap, pm_class class, struct pm_pool *pool) {
    const struct pm_class_info *const info = &pm_classes[class];
    for (unsigned i = 0; i < info->lanes; i++) {
        pm_set(&heap->lane[info->lane + i], pool);
    }
}

// What the lanes of a class hold: its current pool, or its host's, or PM_NO_POOL.
static struct pm_pool *lane_of(const struct pm_heap *heap, pm_class class) {
    return pm_get(&heap->lane[pm_classes[class].lane]);
}

static bool is_guest(const struct pm_heap *heap, pm_class class) {
    const struct pm_pool *const pool = lane_of(heap, class);
    return pool != PM_NO_POOL && pool->shared.class != class;
}

static struct pm_pool *current_of(const struct pm_heap *heap, pm_class class) {
    return is_guest(heap, class) ? PM_NO_POOL : lane_of(heap, class);
}

// Takes a current pool out of the lanes of its guests.
static void clear_guests(struct pm_heap *heap, const struct pm_pool *pool) {
    for (pm_class class = 0; heap->guests != 0 && class < pool->shared.class; class ++) {
        if (lane_of(heap, class) == pool) {
            set_lanes(heap, class, PM_NO_POOL);
            heap->guests--;
        }
    }
}

// Takes a current pool out of all lanes.
static void clear_lanes(struct pm_heap *heap, const struct pm_pool *pool) {
    set_lanes(heap, pool->shared.class, PM_NO_POOL);
    clear_guests(heap, pool);
}

static bool was_guest(const struct pm_heap *heap, pm_class class) {
    return (heap->were_guests[class / 64] >> (class % 64) & 1) != 0;
}

static void set_state(struct pm_pool *pool, enum pm_pool_state state) {
    pm_set(&pool->shared.state, (uint8_t)state);
}

static struct pm_pool *pool_of_link(struct pm_list *link) {
    return PM_LIST_ENTRY(link, struct pm_pool, owned.link);
}

static struct pm_pool *pool_of_rest(struct pm_list *link) {
    return PM_LIST_ENTRY(link, struct pm_pool, inner.rest);
}

static void look_later(struct pm_heap *heap, struct pm_pool *pool) {
    pm_list_remove(&pool->inner.rest);
    pm_list_push_back(&heap->rest, &pool->inner.rest);
}

static struct pm_abandoned *abandoned_of(const struct pm_pool *pool) {
    return &pm_heaps.abandoned[pool->shared.class];
}

static uint32_t remote_count(const struct pm_pool *pool) {
    return (uint32_t)(pm_get(&pool->remote.word) >> PM_REMOTE_COUNT_SHIFT);
}

// Is a current pool without a block in use?
static bool is_spare(const struct pm_pool *pool) {
    return remote_count(pool) + 1 == pm_get(&pool->owned.used);
}

void pm_heap_tell_freed(struct pm_heap *heap, pm_class class) {
    __atomic_fetch_or(&heap->freed[class / 64], UINT64_C(1) << (class % 64), __ATOMIC_RELEASE);
}

// Makes the remote list the free list, which is empty, or of no use since every block of the pool
// is free. So no block is touched: the two lists are never joined.
static void collect(struct pm_pool *pool) {
    if ((pm_get(&pool->remote.word) & ~PM_REMOTE_FLAGS) == 0) {
        return;
    }
    const uint64_t taken =
        __atomic_fetch_and(&pool->remote.word, PM_REMOTE_FLAGS, __ATOMIC_ACQUIRE);
    const uint32_t count = (uint32_t)(taken >> PM_REMOTE_COUNT_SHIFT);
    PM_ASSERT(pool->owned.list == 0 || count == pool->owned.used);
    pm_set(&pool->owned.list, taken & PM_REMOTE_LIST_MASK);
    pm_add(&pool->owned.used, -count);
}

// The same in a private heap. While the bound is 0, its own frees take the way out of line, where the
// first one lists the pool. One that is telling is on the list of those told of, or about to be.
static bool keep_full(struct pm_heap *heap, struct pm_pool *pool) {
    uint64_t remote = pm_get(&pool->remote.word);
    const uint64_t full = remote & PM_REMOTE_TELLING ? remote : PM_REMOTE_OWNED | PM_REMOTE_WAITING;
    if ((remote & ~PM_REMOTE_FLAGS) != 0 ||
        !__atomic_compare_exchange_n(&pool->remote.word, &remote, full, false, __ATOMIC_RELEASE,
                                     __ATOMIC_RELAXED)) {
        return false;
    }
    set_state(pool, PM_POOL_FULL);
    pm_add(&pool->owned.used, -1);
    pm_set(&pool->shared.bound, 0);
    pm_list_push_back(&heap->full, &pool->owned.link);
    return true;
}

// CURRENT -> FULL: no block is left. False when remote frees brought some, and nothing changed.
static bool detach(struct pm_heap *heap, struct pm_pool *pool) {
    if (PM_UNLIKELY(heap->is_private)) {
        return keep_full(heap, pool);
    }
    set_state(pool, PM_POOL_FULL);
    pm_set(&pool->shared.owner, PM_OWNER_NOBODY);
    pm_add(&pool->owned.used, -1);
    uint64_t remote = PM_REMOTE_OWNED;
    if (PM_LIKELY(__atomic_compare_exchange_n(&pool->remote.word, &remote, 0, false,
                                              __ATOMIC_RELEASE, __ATOMIC_RELAXED))) {
        return true;
    }
    pm_add(&pool->owned.used, 1);
    pm_set(&pool->shared.owner, heap);
    set_state(pool, PM_POOL_CURRENT);
    return false;
}

// -> CURRENT. The pool is owned by the heap and on no list.
static void set_current(struct pm_heap *heap, struct pm_pool *pool) {
    if (PM_UNLIKELY(pool->inner.is_marked)) {
        pm_arena_mark_due(pool, false);
    }
    set_state(pool, PM_POOL_CURRENT);
    pm_set(&pool->shared.home, heap);
    pm_add(&pool->owned.used, 1);
    heap->guests -= is_guest(heap, pool->shared.class);
    set_lanes(heap, pool->shared.class, pool);
}

// A class of which a heap needs few blocks costs it a page. So a class takes its first blocks from the
// current pool of a slightly larger one, as its guest, until that has none on its list. Once only.
static struct pm_pool *host_of(struct pm_heap *heap, pm_class class) {
    const size_t most = pm_class_host_max(pm_classes[class].size);
    if (pm_classes[class].size > PM_GUEST_MAX || was_guest(heap, class) ||
        lane_of(heap, class) != PM_NO_POOL || !pm_list_empty(&heap->bin[class]) ||
        (!heap->is_private && pm_get(&pm_heaps.abandoned[class].count) != 0)) {
        return NULL;
    }
    for (pm_class larger = class + 1; pm_classes[larger].size <= most; larger++) {
        struct pm_pool *const pool = current_of(heap, larger);
        if (pool != PM_NO_POOL && pm_get(&pool->owned.list) != 0) {
            return pool;
        }
    }
    return NULL;
}

// Both under the heap's lock.
static void list_pool(struct pm_heap *heap, struct pm_pool *pool) {
    const pm_class class = pool->shared.class;
    pm_list_push_back(&heap->bin[class], &pool->owned.link);
    heap->listed[class]++;
    pm_set(&pool->inner.seen_used, PM_INNER_NEVER_LOOKED);
    pm_list_push_back(&heap->rest, &pool->inner.rest);
    heap->listed_bytes += PM_POOL_BYTES(pool->shared.bits);
}

static void unlist_pool(struct pm_heap *heap, struct pm_pool *pool) {
    const pm_class class = pool->shared.class;
    pm_list_remove(&pool->owned.link);
    heap->listed[class]--;
    pm_list_remove(&pool->inner.rest);
    heap->listed_bytes -= PM_POOL_BYTES(pool->shared.bits);
}

// Has less than a part of its blocks free.
static bool is_nearly_full(const struct pm_pool *pool, uint32_t part) {
    const uint32_t in_use = pool->owned.used - remote_count(pool), end = pool->owned.end;
    return in_use * pm_classes[pool->shared.class].size > end - end / part;
}

// Moves nearly full pools from the front of a bin to its back; false when PICK_PASS did not suffice.
static bool pass_nearly_full(struct pm_heap *heap, pm_class class) {
    for (unsigned i = 0; i < PM_PICK_PASS; i++) {
        struct pm_pool *const first = pool_of_link(heap->bin[class].next);
        if (!is_nearly_full(first, PM_PICK_FREE_MIN)) {
            return true;
        }
        unlist_pool(heap, first);
        list_pool(heap, first);
    }
    return false;
}

// The first pool of the bin that is at least half in use, else the fullest of the first few, off the
// bin: the longest waiting has gathered the most frees, and sparse pools are left to drain. Unless
// `any` will do, nearly full pools of a bin of several are passed by: with another pool in use, all
// wait longer and gather more. NULL when there is none.
static struct pm_pool *pick_listed(struct pm_heap *heap, pm_class class, bool any) {
    const struct pm_list *const bin = &heap->bin[class];
    const bool choosy = !any && heap->listed[class] >= PM_PICK_LOOK;
    struct pm_pool *best = NULL;
    unsigned looked = 0;
    if (choosy && !pass_nearly_full(heap, class)) {
        return NULL;
    }
    PM_LIST_EACH(link, bin) {
        struct pm_pool *const pool = pool_of_link(link);
        if (!choosy || !is_nearly_full(pool, PM_PICK_FREE_MIN)) {
            if (best == NULL || pool->owned.used > best->owned.used) {
                best = pool;
            }
            if (pool->owned.used * pm_classes[class].size >= pool->owned.end / 2) {
                break;
            }
        }
        if (++looked == PM_PICK_LOOK) {
            break;
        }
    }
    if (best != NULL) {
        unlist_pool(heap, best);
    }
    return best;
}

// Sets the owned bit of a pool that is nobody's, whose remote word was *remote. False when the word
// has changed, which *remote tells.
static bool claim(struct pm_pool *pool, uint64_t *remote) {
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

// Claims the first pool of a list that is not claimed by a free yet, which then takes it off the list
// itself. Unless `any` will do, nearly full pools go to the back: frees are just coming to them, and who
// takes one misses again soon, and writes to what those frees write. NULL when there is none. Under the
// lock of the class.
static struct pm_pool *claim_listed(struct pm_list *pools, bool any) {
    const struct pm_list *const last = pools->prev;
    unsigned passed = 0;
    for (struct pm_list *link = pools->next, *next; link != pools; link = next) {
        struct pm_pool *const pool = pool_of_link(link);
        uint64_t remote = pm_get(&pool->remote.word);
        next = link->next;
        if (!any && is_nearly_full(pool, PM_PICK_ABANDONED_MIN)) {
            pm_list_remove(link);
            pm_list_push_back(pools, link);
            passed++;
        } else {
            while (!(remote & PM_REMOTE_OWNED)) {
                if (claim(pool, &remote)) {
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

// Takes an ABANDONED pool off its list, nobody's as yet but owned by the caller.
static struct pm_pool *claim_abandoned(pm_class class, bool any) {
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

// All blocks in the pools of a private heap are its own.
static struct pm_pool *take_abandoned(struct pm_heap *heap, pm_class class, bool any) {
    struct pm_pool *const taken = heap->is_private ? NULL : claim_abandoned(class, any);
    if (taken != NULL) {
        pm_set(&taken->shared.owner, heap);
    }
    return taken;
}

// True when the pool has a block on its list now.
static bool replenish(struct pm_heap *heap, struct pm_pool *pool) {
    if (pool->owned.list == 0) {
        collect(pool);
    }
    if (pool->owned.list == 0) {
        clear_guests(heap, pool);
        heap->inside_restored += pm_inner_restore(pool);
    }
    return pool->owned.list != 0 || (!pm_inner_has_away(pool) && pm_pool_carve(pool));
}

// Looks at so many of the listed pools, each once at most, and purges inside where it is due. Returns
// bytes given back. The caller uses the heap, and holds its lock.
static size_t purge_inside(struct pm_heap *heap, size_t looks, bool all) {
    const struct pm_list *const last = heap->rest.prev, *link = &heap->rest;
    size_t bytes = 0;
    for (; looks != 0 && link != last && (all || bytes < PM_INNER_BYTES); looks--) {
        struct pm_pool *const pool = pool_of_rest(heap->rest.next);
        link = &pool->inner.rest;
        look_later(heap, pool);
        if (pm_inner_is_due(pool, all)) {
            bytes += pm_inner_purge(pool);
        }
    }
    return bytes;
}

// The same as the heap's memory grows, or much of it may be about to become free.
static void purge_some_inside(struct pm_heap *heap, size_t looks) {
    if (heap->listed_bytes >= PM_INNER_LEAST &&
        heap->inside_restored * PM_INNER_VAIN <= heap->inside_purged + PM_INNER_LEAST) {
        heap->inside_purged += purge_inside(heap, looks, false);
    }
}

// Lists a pool that free blocks have come to.
static void list_freed_into(struct pm_heap *heap, struct pm_pool *pool) {
    set_state(pool, PM_POOL_LISTED);
    list_pool(heap, pool);
    if (heap->listed_bytes > heap->listed_most) {
        heap->listed_most = heap->listed_bytes;
        purge_some_inside(heap, PM_INNER_LOOK);
    }
}

// FULL, of a private heap -> off its list; its frees are checked in line again.
static void unlist_full(struct pm_pool *pool) {
    pm_list_remove(&pool->owned.link);
    __atomic_fetch_and(&pool->remote.word, ~PM_REMOTE_WAITING, __ATOMIC_RELAXED);
    if (!pm_inner_has_away(pool)) {
        pm_pool_set_carved(pool, pool->shared.carved);
    }
}

// FULL -> LISTED, of a private heap. Under its lock.
static void leave_full(struct pm_heap *heap, struct pm_pool *pool) {
    unlist_full(pool);
    list_freed_into(heap, pool);
}

// FULL -> LISTED: the pools that the heap is told of. Some may have been listed meanwhile. Under the
// heap's lock.
static void list_told(struct pm_heap *heap) {
    if (PM_LIKELY(pm_get(&heap->told) == NULL)) {
        return;
    }
    struct pm_pool *pool = __atomic_exchange_n(&heap->told, NULL, __ATOMIC_ACQUIRE);
    while (pool != NULL) {
        struct pm_pool *const next = pm_get(&pool->remote.told);
        __atomic_fetch_and(&pool->remote.word, ~PM_REMOTE_TELLING, __ATOMIC_RELAXED);
        if (pm_get(&pool->shared.state) == PM_POOL_FULL) {
            leave_full(heap, pool);
        }
        pool = next;
    }
}

// The same for all into which others have freed: who was about to tell may have ended there, by a fork or
// a jump out of a handler.
static void list_untold(struct pm_heap *heap) {
    PM_LIST_EACH(link, &heap->full) {
        if (remote_count(pool_of_link(link)) != 0) {
            leave_full(heap, pool_of_link(link));
        }
    }
}

// CURRENT, LISTED -> FREE: a pool without blocks in use, off its lanes and its bin. Who has told of it
// did so before its block was freed, so that the list of those told of has it, or never will.
static void give_back(struct pm_heap *heap, struct pm_pool *pool) {
    collect(pool);
    if (PM_UNLIKELY(heap->is_private)) {
        list_told(heap);
        pm_add(&heap->pool_bytes, -PM_POOL_BYTES(pool->shared.bits));
        // Who was about to tell of it has ended there, by a fork: no block is in use.
        pm_set(&pool->remote.word, PM_REMOTE_OWNED);
    }
    pm_arena_give_back(pool);
}

// LISTED -> FREE: the pools of a bin of which others have freed all blocks.
static void give_back_freed(struct pm_heap *heap, pm_class class) {
    PM_LIST_EACH(link, &heap->bin[class]) {
        struct pm_pool *const pool = pool_of_link(link);
        if (remote_count(pool) == pool->owned.used) {
            unlist_pool(heap, pool);
            give_back(heap, pool);
        }
    }
}

// The same for all classes in which others said so.
static void give_back_all_freed(struct pm_heap *heap) {
    list_told(heap);
    for (unsigned word = 0; word < PM_CLASS_WORDS; word++) {
        uint64_t classes = pm_get(&heap->freed[word]);
        if (PM_UNLIKELY(classes != 0)) {
            classes = __atomic_exchange_n(&heap->freed[word], 0, __ATOMIC_ACQUIRE);
        }
        for (; classes != 0; classes &= classes - 1) {
            give_back_freed(heap, (pm_class)(word * 64 + pm_lowest_bit(classes)));
        }
    }
}

// A free pool of the arenas; NULL without memory.
static struct pm_pool *take_free(struct pm_heap *heap, pm_class class) {
    struct pm_pool *const pool = pm_arena_take(class, heap);
    if (PM_UNLIKELY(heap->is_private) && pool != NULL) {
        pm_add(&heap->pool_bytes, PM_POOL_BYTES(pool->shared.bits));
    }
    return pool;
}

// Makes a pool with a free block current, or another's a host; NULL without memory. Under the heap's lock.
static struct pm_pool *refill(struct pm_heap *heap, pm_class class, bool exact) {
    give_back_all_freed(heap);
    struct pm_pool *const host = exact ? NULL : host_of(heap, class);
    if (host != NULL) {
        set_lanes(heap, class, host);
        heap->guests++;
        heap->were_guests[class / 64] |= UINT64_C(1) << (class % 64);
        return host;
    }
    struct pm_pool *pool = current_of(heap, class);
    while (pool == PM_NO_POOL || !replenish(heap, pool)) {
        if (pool != PM_NO_POOL) {
            if (!detach(heap, pool)) {
                continue;
            }
            clear_lanes(heap, pool);
        }
        pool = pick_listed(heap, class, false);
        if (pool == NULL) {
            pool = take_abandoned(heap, class, false);
        }
        if (pool == NULL) {
            pool = take_free(heap, class);
            purge_some_inside(heap, PM_INNER_LOOK);
        }
        if (pool == NULL) {
            pool = pick_listed(heap, class, true);
        }
        if (pool == NULL) {
            pool = take_abandoned(heap, class, true);
        }
        if (pool == NULL) {
            return NULL;
        }
        set_current(heap, pool);
    }
    return pool;
}

uintptr_t pm_heap_take_block(struct pm_heap *heap, pm_class class, bool exact, uintptr_t *damaged) {
    const unsigned bits = pm_class_pool_bits(class);
    struct pm_pool *pool = current_of(heap, class);
    uintptr_t block = pm_pool_pop(pool, bits);
    if (PM_LIKELY(block == 0 && pool->owned.list == 0)) {
        pm_lock(&heap->lock);
        pm_add(&heap->misses, 1);
        pool = refill(heap, class, exact);
        pm_unlock(&heap->lock);
        if (pool == NULL) {
            return 0;
        }
        block = pm_pool_pop(pool, bits);
    }
    if (PM_UNLIKELY(block == 0)) {
        *damaged = pool->owned.list;
    }
    return block;
}

bool pm_heap_pool_emptied(struct pm_heap *heap, struct pm_pool *pool) {
    if (pm_get(&pool->shared.state) != PM_POOL_LISTED) {
        return false;
    }
    pm_lock(&heap->lock);
    unlist_pool(heap, pool);
    give_back(heap, pool);
    pm_unlock(&heap->lock);
    return true;
}

// An owned pool, off its bin and its lanes -> ABANDONED or FREE.
static void abandon(struct pm_pool *pool) {
    struct pm_abandoned *const abandoned = abandoned_of(pool);
    pm_lock(&abandoned->lock);
    set_state(pool, PM_POOL_ABANDONED);
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
        collect(pool);
        pm_arena_give_back(pool);
    }
}

// FULL or ABANDONED -> LISTED, ABANDONED or FREE: `block` is freed into a pool that is nobody's.
// The heap's lock is held around the claim, so that no fork finds the pool between two owners.
// False when the remote word has changed, and nothing else did.
static bool adopt(struct pm_heap *heap, struct pm_pool *pool, uintptr_t block, uint64_t *remote) {
    const bool listed = (*remote & PM_REMOTE_WAITING) != 0;
    struct pm_list *const bin = &heap->bin[pool->shared.class];
    pm_lock(&heap->lock);
    if (!claim(pool, remote)) {
        pm_unlock(&heap->lock);
        return false;
    }
    if (listed) {
        struct pm_abandoned *const abandoned = abandoned_of(pool);
        pm_lock(&abandoned->lock);
        unlist_abandoned(pool);
        pm_unlock(&abandoned->lock);
    }
    // From now on others tell this heap when they seem to have freed the last block.
    pm_set(&pool->shared.owner, heap);
    pm_pool_push(pool, block);
    if (remote_count(pool) == pool->owned.used) {
        collect(pool);
        pm_arena_give_back(pool);
    } else if (pm_get(&pool->shared.home) == heap || pm_list_empty(bin)) {
        pm_set(&pool->shared.home, heap);
        list_freed_into(heap, pool);
    } else {
        abandon(pool);
    }
    pm_unlock(&heap->lock);
    return true;
}

// The first free by another into a FULL pool of a private heap, whose block is in use still. *remote
// tells what the remote word is then.
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
    return list_leads_to(pool, pm_get(&pool->owned.list), block) ||
           list_leads_to(pool, pm_get(&pool->remote.word) & PM_REMOTE_LIST_MASK, block);
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
            leave_full(heap, pool);
            pm_unlock(&heap->lock);
        }
        const bool last = pm_pool_push(pool, block);
        if (last) {
            return pm_heap_pool_emptied(heap, pool) ? PM_DONE : PM_DOUBLE_FREE;
        }
        // Every free of it takes this way, until all is back. Where memory is limited that can wait.
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

static void init_heap(struct pm_heap *heap) {
    heap->lock = (struct pm_lock)PM_LOCK_INIT(PM_RANK_HEAP);
    for (unsigned lane = 0; lane < PM_LANE_COUNT; lane++) {
        heap->lane[lane] = PM_NO_POOL;
    }
    for (unsigned class = 0; class < PM_CLASS_COUNT; class ++) {
        pm_list_init(&heap->bin[class]);
    }
    pm_list_init(&heap->rest);
    pm_list_init(&heap->full);
    for (unsigned kind = 0; kind < PM_RUNS_COUNT; kind++) {
        pm_list_init(&heap->runs[kind]);
    }
    pm_list_init(&heap->huge);
}

static void add_heap(struct pm_heap *heap) {
    init_heap(heap);
    pm_list_push_back(&pm_heaps.every, &heap->every);
    pm_add(&pm_heaps.count, 1);
}

void pm_heaps_start(void) {
    pm_list_init(&pm_heaps.every);
    pm_list_init(&pm_heaps.idle);
    pm_list_init(&pm_heaps.private_heaps);
    pm_list_init(&pm_heaps.private_idle);
    for (unsigned class = 0; class < PM_CLASS_COUNT; class ++) {
        pm_heaps.abandoned[class].lock = (struct pm_lock)PM_LOCK_INIT(PM_RANK_ABANDONED);
        pm_list_init(&pm_heaps.abandoned[class].pools);
    }
    add_heap(&pm_ended_heap);
}

struct pm_heap *pm_heap_open(void) {
    // The first heap needs no mapping.
    static struct pm_heap first;
    static bool first_taken;
    struct pm_heap *heap = NULL;
    pm_lock(&pm_heaps.lock);
    if (!pm_list_empty(&pm_heaps.idle)) {
        heap = PM_LIST_ENTRY(pm_heaps.idle.next, struct pm_heap, idle);
        pm_list_remove(&heap->idle);
        heap->ended = false;
    } else {
        heap = first_taken ? pm_meta_alloc(sizeof *heap, PM_LINE_BYTES) : &first;
        if (heap != NULL) {
            first_taken = true;
            add_heap(heap);
        }
    }
    if (heap != NULL) {
        pm_add(&pm_arena_users, 1);
        pm_lock(&heap->lock);
        heap->user = &pm_thread;
        pm_unlock(&heap->lock);
    }
    pm_unlock(&pm_heaps.lock);
    if (heap != NULL) {
        heap->in_miss = false;
    }
    return heap;
}

// Takes the current pool of a class out of its lanes; NULL when there is none.
static struct pm_pool *drop_current(struct pm_heap *heap, pm_class class) {
    struct pm_pool *const pool = current_of(heap, class);
    if (pool == PM_NO_POOL) {
        return NULL;
    }
    clear_lanes(heap, pool);
    pm_add(&pool->owned.used, -1);
    return pool;
}

size_t pm_heap_trim_pools(struct pm_heap *heap, bool all) {
    size_t bytes = 0;
    pm_lock(&heap->lock);
    list_told(heap);
    list_untold(heap);
    for (unsigned class = 0; class < PM_CLASS_COUNT; class ++) {
        struct pm_pool *const pool = current_of(heap, (pm_class) class);
        if (pool != PM_NO_POOL && is_spare(pool)) {
            drop_current(heap, (pm_class) class);
            give_back(heap, pool);
        } else if (pool != PM_NO_POOL && pm_inner_is_due(pool, all)) {
            bytes += pm_inner_purge(pool);
        }
        give_back_freed(heap, (pm_class) class);
    }
    heap->inside_purged /= 2;
    heap->inside_restored /= 2;
    bytes += purge_inside(heap, all ? SIZE_MAX : PM_INNER_POOLS, all);
    pm_unlock(&heap->lock);
    return bytes;
}

// Pools of a heap that are hidden from its thread, for now: those without a block in use, and those that
// are due to be purged inside. Current ones are out of their lanes, listed ones without blocks off their
// bins; those with blocks seem to be nobody's, so that what is freed goes to their remote lists. Under the
// heap's lock.
struct hidden {
    struct pm_pool *current[PM_CLASS_COUNT];
    unsigned count;
    struct pm_list freed; // by their links
    struct pm_list due;   // by their places in the heap's list of all listed pools
};

static void hide_freed(struct pm_heap *heap, pm_class class, struct hidden *hidden) {
    if ((pm_get(&heap->freed[class / 64]) >> (class % 64) & 1) == 0) {
        return;
    }
    __atomic_fetch_and(&heap->freed[class / 64], ~(UINT64_C(1) << (class % 64)), __ATOMIC_ACQUIRE);
    PM_LIST_EACH(link, &heap->bin[class]) {
        struct pm_pool *const pool = pool_of_link(link);
        if (remote_count(pool) == pm_get(&pool->owned.used)) {
            unlist_pool(heap, pool);
            pm_list_push_back(&hidden->freed, &pool->owned.link);
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
        struct pm_pool *const pool = pool_of_rest(heap->rest.next);
        link = &pool->inner.rest;
        look_later(heap, pool);
        if (pm_inner_is_due(pool, all)) {
            pm_list_remove(&pool->inner.rest);
            pm_list_push_back(&hidden->due, &pool->inner.rest);
            pm_set(&pool->shared.owner, PM_OWNER_NOBODY);
            bytes += PM_POOL_BYTES(pool->shared.bits);
        }
    }
}

static void hide(struct pm_heap *heap, bool all, struct hidden *hidden) {
    hidden->count = 0;
    pm_list_init(&hidden->freed);
    pm_list_init(&hidden->due);
    for (unsigned class = 0; class < PM_CLASS_COUNT; class ++) {
        struct pm_pool *const pool = current_of(heap, (pm_class) class);
        if (pool != PM_NO_POOL && (is_spare(pool) || pm_inner_is_due(pool, all))) {
            clear_lanes(heap, pool);
            pm_set(&pool->shared.owner, PM_OWNER_NOBODY);
            hidden->current[hidden->count++] = pool;
        }
        hide_freed(heap, (pm_class) class, hidden);
    }
    hide_due(heap, all, hidden);
}

static bool hides_any(const struct hidden *hidden) {
    return hidden->count != 0 || !pm_list_empty(&hidden->freed) || !pm_list_empty(&hidden->due);
}

// Purges inside of the pools that keep blocks in use. The thread is outside.
static size_t purge_hidden(const struct hidden *hidden) {
    size_t bytes = 0;
    for (unsigned i = 0; i < hidden->count; i++) {
        bytes += is_spare(hidden->current[i]) ? 0 : pm_inner_purge(hidden->current[i]);
    }
    PM_LIST_EACH(link, &hidden->due) {
        bytes += pm_inner_purge(pool_of_rest(link));
    }
    // Who finds a pool to be the heap's again finds its list as it is now.
    if (bytes != 0) {
        pm_os_barrier();
    }
    return bytes;
}

// CURRENT -> FREE without a block in use, when the thread is outside; else back into its lanes.
static void settle_current(struct pm_heap *heap, struct pm_pool *pool, bool outside) {
    if (outside && is_spare(pool)) {
        pm_add(&pool->owned.used, -1);
        collect(pool);
        pm_arena_give_back(pool);
    } else {
        pm_set(&pool->shared.owner, heap);
        set_lanes(heap, pool->shared.class, pool);
    }
}

// LISTED -> FREE when others have freed all, and the thread is outside; else it is the heap's again, and from
// then on the thread frees into it. Who freed its last block meanwhile found nobody to tell.
static void settle_listed(struct pm_heap *heap, struct pm_pool *pool, bool outside) {
    if (outside && remote_count(pool) == pm_get(&pool->owned.used)) {
        unlist_pool(heap, pool);
        collect(pool);
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
    PM_LIST_EACH(link, &hidden->freed) {
        struct pm_pool *const pool = pool_of_link(link);
        pm_list_remove(link);
        list_pool(heap, pool);
        settle_listed(heap, pool, outside);
    }
    PM_LIST_EACH(link, &hidden->due) {
        pm_list_remove(link);
        pm_list_push_back(&heap->rest, link);
        settle_listed(heap, pool_of_rest(link), outside);
    }
    return bytes;
}

// Is the thread outside of the library, and all that it did there visible? A thread marks itself
// busy before it looks at its lanes, or frees. After the first barrier, either its mark is visible, or
// it finds lanes and owners as they are now, and then waits for the lock of the heap, or frees as
// others do. After the second one, what it stored before it took the mark away is visible.
static bool is_outside(const struct pm_heap *heap) {
    struct pm_heap *fast;
    // The words of a thread that was ended without its destructors may be gone.
    return pm_os_barrier() && pm_os_peek(&heap->user->fast, &fast, sizeof fast) &&
           fast != PM_BUSY_HEAP && pm_os_barrier();
}

// A pool without blocks in use is safe from its thread's frees, which need a block, once none of them is
// under way; and from its mallocs, which need a lane. A listed pool that seems to be nobody's is safe
// from its frees.
static size_t reclaim(struct pm_heap *heap, bool all) {
    struct hidden hidden;
    size_t bytes = 0;
    pm_lock(&heap->lock);
    if (heap->user != NULL && heap->user != &pm_thread) {
        hide(heap, all, &hidden);
        if (hides_any(&hidden)) {
            bytes = settle(heap, &hidden, is_outside(heap));
        }
    }
    pm_unlock(&heap->lock);
    return bytes;
}

void pm_heap_purge_inside(struct pm_heap *heap, size_t grown) {
    pm_lock(&heap->lock);
    purge_some_inside(heap, pm_min(PM_INNER_POOLS, PM_INNER_LOOK * (grown >> PM_SMALL_POOL_BITS)));
    pm_unlock(&heap->lock);
}

// Purges inside of the abandoned pools of a class, as of listed ones.
static size_t purge_abandoned(pm_class class, bool all) {
    const size_t count = pm_get(&pm_heaps.abandoned[class].count);
    size_t bytes = 0;
    for (size_t looks = all ? count : pm_min(count, PM_INNER_POOLS); looks != 0; looks--) {
        // So that no fork finds the pool between two owners.
        pm_lock(&pm_heaps.lock);
        struct pm_pool *const pool = claim_abandoned(class, true);
        if (pool != NULL) {
            if (pm_inner_is_due(pool, all)) {
                bytes += pm_inner_purge(pool);
            }
            abandon(pool);
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

size_t pm_heaps_reclaim(bool all) {
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

static void abandon_all(struct pm_heap *heap) {
    pm_lock(&heap->lock);
    heap->user = NULL;
    for (unsigned class = 0; class < PM_CLASS_COUNT; class ++) {
        struct pm_pool *const current = drop_current(heap, (pm_class) class);
        if (current != NULL) {
            abandon(current);
        }
        while (!pm_list_empty(&heap->bin[class])) {
            struct pm_pool *const pool = pool_of_link(heap->bin[class].next);
            unlist_pool(heap, pool);
            abandon(pool);
        }
    }
    pm_unlock(&heap->lock);
}

void pm_heap_close(struct pm_heap *heap) {
    abandon_all(heap);
    pm_lock(&pm_heaps.lock);
    heap->ended = true;
    pm_add(&pm_arena_users, -1);
    pm_list_push_front(&pm_heaps.idle, &heap->idle);
    pm_unlock(&pm_heaps.lock);
}

struct pm_heap *pm_heap_begin_private(void *context) {
    struct pm_heap *heap;
    pm_lock(&pm_heaps.lock);
    if (!pm_list_empty(&pm_heaps.private_idle)) {
        heap = PM_LIST_ENTRY(pm_heaps.private_idle.next, struct pm_heap, idle);
        pm_list_remove(&heap->idle);
    } else {
        heap = pm_meta_alloc(sizeof *heap, PM_LINE_BYTES);
    }
    if (heap != NULL) {
        init_heap(heap);
        heap->is_private = true;
        heap->context = context;
        pm_list_push_back(&pm_heaps.private_heaps, &heap->every);
    }
    pm_unlock(&pm_heaps.lock);
    return heap;
}

int pm_heap_each_pool(struct pm_heap *heap,
                      int (*act)(struct pm_heap *heap, struct pm_pool *pool, void *arg),
                      void *arg) {
    int answer = 0;
    PM_LIST_EACH(link, &heap->full) {
        answer = act(heap, pool_of_link(link), arg);
        if (answer != 0) {
            return answer;
        }
    }
    for (unsigned class = 0; class < PM_CLASS_COUNT; class ++) {
        PM_LIST_EACH(link, &heap->bin[class]) {
            answer = act(heap, pool_of_link(link), arg);
            if (answer != 0) {
                return answer;
            }
        }
        struct pm_pool *const current = current_of(heap, (pm_class) class);
        answer = current == PM_NO_POOL ? 0 : act(heap, current, arg);
        if (answer != 0) {
            return answer;
        }
    }
    return answer;
}

// CURRENT, LISTED, FULL -> FREE, with all blocks.
static int give_up(struct pm_heap *heap, struct pm_pool *pool, void *arg) {
    (void)arg;
    switch (pm_get(&pool->shared.state)) {
    case PM_POOL_CURRENT: clear_lanes(heap, pool); break;
    case PM_POOL_LISTED: unlist_pool(heap, pool); break;
    default: unlist_full(pool); break;
    }
    pm_set(&pool->owned.list, 0);
    pm_set(&pool->owned.used, 0);
    pm_set(&pool->remote.word, PM_REMOTE_OWNED);
    pm_arena_give_back(pool);
    return 0;
}

void pm_heap_end_private(struct pm_heap *heap) {
    pm_lock(&heap->lock);
    pm_heap_each_pool(heap, give_up, NULL);
    pm_unlock(&heap->lock);
    pm_lock(&pm_heaps.lock);
    pm_list_remove(&heap->every);
    // As a new one.
    memset(heap, 0, sizeof *heap);
    heap->is_private = true;
    pm_list_push_front(&pm_heaps.private_idle, &heap->idle);
    pm_unlock(&pm_heaps.lock);
}

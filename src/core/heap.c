// SPDX-License-Identifier: MIT
// Copyright (c) the poolmalloc authors

// The misses of heaps, and how heaps begin and end. Frees are in free.c
// and remote.c.
//
// Who may do what to a pool without a lock is decided by its remote word: the thread that has set
// the owned bit (or took the pool from an arena) is its owner until it clears the bit. All other
// threads only push blocks on the remote list, and read.
//
// A private heap owns all its pools, the FULL ones too. Who frees into one of these tells the heap
// (remote.c, tell_room), so that what others free serves before the heap takes another pool.

#include "core/heap.h"

#include <string.h>

#include "base/bits.h"
#include "core/abandoned.h"
#include "core/arena.h"
#include "core/heap_pools.h"
#include "core/inner.h"
#include "core/meta.h"
#include "core/remote.h"
#include "os/os.h"

const struct pm_pool pm_no_pool_header;
struct pm_pool *const pm_empty_lanes[PM_LANE_COUNT + 1] = { [0 ... PM_LANE_COUNT] = PM_NO_POOL };
struct pm_heap pm_ended_heap;
struct pm_lock pm_ended_lock = PM_LOCK_INIT(PM_RANK_HEAPS);
struct pm_heaps pm_heaps = { .lock = PM_LOCK_INIT(PM_RANK_HEAPS) };
PM_TLS struct pm_thread pm_thread = { .fast = PM_NO_HEAP };

// Takes a current pool out of the lanes of its guests.
static void clear_guests(struct pm_heap *heap, const struct pm_pool *pool) {
    for (pm_class class = 0; heap->guests != 0 && class < pool->shared.class; class ++) {
        if (pm_heap_lane(heap, class) == pool) {
            pm_heap_set_lanes(heap, class, PM_NO_POOL);
            heap->guests--;
        }
    }
}

void pm_heap_clear_lanes(struct pm_heap *heap, const struct pm_pool *pool) {
    pm_heap_set_lanes(heap, pool->shared.class, PM_NO_POOL);
    clear_guests(heap, pool);
}

static bool was_guest(const struct pm_heap *heap, pm_class class) {
    return (heap->were_guests[class / 64] >> (class % 64) & 1) != 0;
}

void pm_heap_look_later(struct pm_heap *heap, struct pm_pool *pool) {
    pm_list_remove(&pool->inner.rest);
    pm_list_push_back(&heap->rest, &pool->inner.rest);
}

void pm_heap_tell_freed(struct pm_heap *heap, pm_class class) {
    __atomic_fetch_or(&heap->freed[class / 64], UINT64_C(1) << (class % 64), __ATOMIC_RELEASE);
}

void pm_pool_collect(struct pm_pool *pool) {
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

// As detach, in a private heap. While the bound is 0, its own frees take the way out of line, where
// the first one lists the pool. One that is telling is on the list of those told of, or about to
// be.
static bool keep_full(struct pm_heap *heap, struct pm_pool *pool) {
    uint64_t remote = pm_get(&pool->remote.word);
    const uint64_t full = remote & PM_REMOTE_TELLING ? remote : PM_REMOTE_OWNED | PM_REMOTE_WAITING;
    if ((remote & ~PM_REMOTE_FLAGS) != 0 ||
        !__atomic_compare_exchange_n(&pool->remote.word, &remote, full, false, __ATOMIC_RELEASE,
                                     __ATOMIC_RELAXED)) {
        return false;
    }
    pm_pool_set_state(pool, PM_POOL_FULL);
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
    pm_pool_set_state(pool, PM_POOL_FULL);
    pm_set(&pool->shared.owner, PM_OWNER_NOBODY);
    pm_add(&pool->owned.used, -1);
    uint64_t remote = PM_REMOTE_OWNED;
    if (PM_LIKELY(__atomic_compare_exchange_n(&pool->remote.word, &remote, 0, false,
                                              __ATOMIC_RELEASE, __ATOMIC_RELAXED))) {
        return true;
    }
    pm_add(&pool->owned.used, 1);
    pm_set(&pool->shared.owner, heap);
    pm_pool_set_state(pool, PM_POOL_CURRENT);
    return false;
}

// -> CURRENT. The pool is owned by the heap and on no list.
static void set_current(struct pm_heap *heap, struct pm_pool *pool) {
    if (PM_UNLIKELY(pool->inner.is_marked)) {
        pm_arena_mark_due(pool, false);
    }
    pm_pool_set_state(pool, PM_POOL_CURRENT);
    pm_set(&pool->shared.home, heap);
    pm_add(&pool->owned.used, 1);
    heap->guests -= pm_heap_is_guest(heap, pool->shared.class);
    pm_heap_set_lanes(heap, pool->shared.class, pool);
}

// A class of which a heap needs few blocks costs it a page. So a class takes its first blocks from
// the current pool of a slightly larger one, as its guest, until that has none on its list. Once
// only.
static struct pm_pool *host_of(struct pm_heap *heap, pm_class class) {
    const size_t most = pm_class_host_max(pm_classes[class].size);
    if (pm_classes[class].size > PM_GUEST_MAX || was_guest(heap, class) ||
        pm_heap_lane(heap, class) != PM_NO_POOL || !pm_list_empty(&heap->bin[class]) ||
        (!heap->is_private && pm_get(&pm_heaps.abandoned[class].count) != 0)) {
        return NULL;
    }
    for (pm_class larger = class + 1; pm_classes[larger].size <= most; larger++) {
        struct pm_pool *const pool = pm_heap_current(heap, larger);
        if (pool != PM_NO_POOL && pm_get(&pool->owned.list) != 0) {
            return pool;
        }
    }
    return NULL;
}

void pm_heap_list_pool(struct pm_heap *heap, struct pm_pool *pool) {
    const pm_class class = pool->shared.class;
    pm_list_push_back(&heap->bin[class], &pool->owned.link);
    heap->listed[class]++;
    pm_set(&pool->inner.seen_used, PM_INNER_NEVER_LOOKED);
    pm_list_push_back(&heap->rest, &pool->inner.rest);
    heap->listed_bytes += PM_POOL_BYTES(pool->shared.bits);
}

void pm_heap_unlist_pool(struct pm_heap *heap, struct pm_pool *pool) {
    const pm_class class = pool->shared.class;
    pm_list_remove(&pool->owned.link);
    heap->listed[class]--;
    pm_list_remove(&pool->inner.rest);
    heap->listed_bytes -= PM_POOL_BYTES(pool->shared.bits);
}

// Moves nearly full pools from the front of a bin to its back; false when PICK_PASS did not
// suffice.
static bool pass_nearly_full(struct pm_heap *heap, pm_class class) {
    for (unsigned i = 0; i < PM_PICK_PASS; i++) {
        struct pm_pool *const first = pm_pool_of_link(heap->bin[class].next);
        if (!pm_pool_is_nearly_full(first, PM_PICK_FREE_MIN)) {
            return true;
        }
        pm_heap_unlist_pool(heap, first);
        pm_heap_list_pool(heap, first);
    }
    return false;
}

// The first pool of the bin that is at least half in use, else the fullest of the first few, off
// the bin: the longest waiting has gathered the most frees, and sparse pools are left to drain.
// Unless `any` will do, nearly full pools of a bin of several are passed by: with another pool in
// use, all wait longer and gather more. NULL when there is none.
static struct pm_pool *pick_listed(struct pm_heap *heap, pm_class class, bool any) {
    const struct pm_list *const bin = &heap->bin[class];
    const bool choosy = !any && heap->listed[class] >= PM_PICK_LOOK;
    struct pm_pool *best = NULL;
    unsigned looked = 0;
    if (choosy && !pass_nearly_full(heap, class)) {
        return NULL;
    }
    PM_LIST_EACH(link, bin) {
        struct pm_pool *const pool = pm_pool_of_link(link);
        if (!choosy || !pm_pool_is_nearly_full(pool, PM_PICK_FREE_MIN)) {
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
        pm_heap_unlist_pool(heap, best);
    }
    return best;
}

// All blocks in the pools of a private heap are its own.
static struct pm_pool *take_abandoned(struct pm_heap *heap, pm_class class, bool any) {
    struct pm_pool *const taken = heap->is_private ? NULL : pm_abandoned_take(class, any);
    if (taken != NULL) {
        pm_set(&taken->shared.owner, heap);
    }
    return taken;
}

// True when the pool has a block on its list now.
static bool replenish(struct pm_heap *heap, struct pm_pool *pool) {
    if (pool->owned.list == 0) {
        pm_pool_collect(pool);
    }
    if (pool->owned.list == 0) {
        clear_guests(heap, pool);
        heap->inside_restored += pm_inner_restore(pool);
    }
    return pool->owned.list != 0 || (!pm_inner_has_away(pool) && pm_pool_carve(pool));
}

// Looks at so many of the listed pools, each once at most, and purges inside where it is due.
// Returns bytes given back. The caller uses the heap, and holds its lock.
static size_t purge_inside(struct pm_heap *heap, size_t looks, bool all) {
    const struct pm_list *const last = heap->rest.prev, *link = &heap->rest;
    size_t bytes = 0;
    for (; looks != 0 && link != last && (all || bytes < PM_INNER_BYTES); looks--) {
        struct pm_pool *const pool = pm_pool_of_rest(heap->rest.next);
        link = &pool->inner.rest;
        pm_heap_look_later(heap, pool);
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

void pm_heap_list_freed_into(struct pm_heap *heap, struct pm_pool *pool) {
    pm_pool_set_state(pool, PM_POOL_LISTED);
    pm_heap_list_pool(heap, pool);
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

void pm_heap_leave_full(struct pm_heap *heap, struct pm_pool *pool) {
    unlist_full(pool);
    pm_heap_list_freed_into(heap, pool);
}

// FULL -> LISTED: the pools that the heap is told of. Some may have been listed meanwhile. Under
// the heap's lock.
static void list_told(struct pm_heap *heap) {
    if (PM_LIKELY(pm_get(&heap->told) == NULL)) {
        return;
    }
    struct pm_pool *pool = __atomic_exchange_n(&heap->told, NULL, __ATOMIC_ACQUIRE);
    while (pool != NULL) {
        struct pm_pool *const next = pm_get(&pool->remote.told);
        __atomic_fetch_and(&pool->remote.word, ~PM_REMOTE_TELLING, __ATOMIC_RELAXED);
        if (pm_get(&pool->shared.state) == PM_POOL_FULL) {
            pm_heap_leave_full(heap, pool);
        }
        pool = next;
    }
}

// The same for all into which others have freed: who was about to tell may have ended there, by a
// fork or a jump out of a handler.
static void list_untold(struct pm_heap *heap) {
    PM_LIST_EACH(link, &heap->full) {
        if (pm_pool_remote_count(pm_pool_of_link(link)) != 0) {
            pm_heap_leave_full(heap, pm_pool_of_link(link));
        }
    }
}

// CURRENT, LISTED -> FREE: a pool without blocks in use, off its lanes and its bin. Who has told of
// it did so before its block was freed, so that the list of those told of has it, or never will.
static void give_back(struct pm_heap *heap, struct pm_pool *pool) {
    pm_pool_collect(pool);
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
        struct pm_pool *const pool = pm_pool_of_link(link);
        if (pm_pool_remote_count(pool) == pool->owned.used) {
            pm_heap_unlist_pool(heap, pool);
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
    if (pool != NULL) {
        pm_set(&pool->shared.chain, pm_chain_most(heap, pm_classes[class].size));
    }
    if (PM_UNLIKELY(heap->is_private) && pool != NULL) {
        pm_add(&heap->pool_bytes, PM_POOL_BYTES(pool->shared.bits));
    }
    return pool;
}

// A pool with a free block that is no heap's current one, from where it costs the least memory;
// NULL when there is none left, and no memory for another. Under the heap's lock.
static struct pm_pool *next_pool(struct pm_heap *heap, pm_class class) {
    struct pm_pool *pool = pick_listed(heap, class, false);
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
    return pool != NULL ? pool : take_abandoned(heap, class, true);
}

// Before a class touches fresh memory for one or a few blocks, a slightly larger one lends it a
// block that is there: what one class has too much another has too little of. NULL when none can,
// or the class has something else left. In a private heap no size depends on what is resident, so
// that a program's run repeats.
static struct pm_pool *lender_of(const struct pm_heap *heap, pm_class class) {
    const size_t size = pm_classes[class].size, most = size + size / PM_LEND_MORE;
    const struct pm_pool *const pool = pm_heap_current(heap, class);
    if (size < PM_LEND_MIN || heap->is_private || !pm_list_empty(&heap->bin[class]) ||
        pm_get(&pm_heaps.abandoned[class].count) != 0 || pool->owned.list != 0 ||
        pm_pool_remote_count(pool) != 0 ||
        pool->owned.touched >= pm_get(&pool->shared.carved) + size) {
        return NULL;
    }
    const unsigned bits = pm_class_pool_bits(class);
    for (pm_class larger = class + 1; larger < PM_CLASS_COUNT; larger++) {
        if (pm_classes[larger].size > most || pm_class_pool_bits(larger) != bits) {
            break;
        }
        struct pm_pool *const lender = pm_heap_current(heap, larger);
        if (pm_get(&lender->owned.list) != 0) {
            return lender;
        }
    }
    return NULL;
}

// Makes a pool with a free block current, or another's a host, or finds one that lends a block;
// NULL without memory. Under the heap's lock.
static struct pm_pool *refill(struct pm_heap *heap, pm_class class, bool exact) {
    give_back_all_freed(heap);
    struct pm_pool *const host = exact ? NULL : host_of(heap, class);
    if (host != NULL) {
        pm_heap_set_lanes(heap, class, host);
        heap->guests++;
        heap->were_guests[class / 64] |= UINT64_C(1) << (class % 64);
        return host;
    }
    struct pm_pool *pool = exact ? NULL : lender_of(heap, class);
    if (pool != NULL) {
        return pool;
    }
    pool = pm_heap_current(heap, class);
    while (pool == PM_NO_POOL || !replenish(heap, pool)) {
        if (pool != PM_NO_POOL) {
            if (!detach(heap, pool)) {
                continue;
            }
            pm_heap_clear_lanes(heap, pool);
        }
        pool = next_pool(heap, class);
        if (pool == NULL) {
            return NULL;
        }
        set_current(heap, pool);
    }
    return pool;
}

uintptr_t pm_heap_take_block(struct pm_heap *heap, pm_class class, bool exact, uintptr_t *damaged) {
    const unsigned bits = pm_class_pool_bits(class);
    struct pm_pool *pool = pm_heap_current(heap, class);
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
    pm_heap_unlist_pool(heap, pool);
    give_back(heap, pool);
    pm_unlock(&heap->lock);
    return true;
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
    for (unsigned shard = 0; shard < PM_RUNS_COUNT; shard++) {
        pm_list_init(&heap->runs[shard]);
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
    // Now, while there is one thread.
    pm_heaps.has_barrier = pm_os_prepare_barrier();
}

// Where the heap is noted that was opened last by a thread with words like these.
static struct pm_heap **noted(const struct pm_thread *user) {
    return &pm_heaps.noted[(uintptr_t)user * UINT64_C(0x9e3779b97f4a7c15) >> (64 - PM_NOTED_BITS)];
}

// The heap of a thread that began to allocate in the last round of its destructors, and so was
// never closed: the words of this one are where its words were. Found unless another thread was
// noted since.
static struct pm_heap *left_open(void) {
    struct pm_heap *const heap = *noted(&pm_thread);
    return heap != NULL && pm_get(&heap->user) == &pm_thread && !heap->in_miss ? heap : NULL;
}

static struct pm_heap *new_heap(void) {
    // The first heap needs no mapping.
    static struct pm_heap first;
    static bool first_taken;
    struct pm_heap *const heap = first_taken ? pm_meta_alloc(sizeof *heap, PM_LINE_BYTES) : &first;
    if (heap != NULL) {
        first_taken = true;
        add_heap(heap);
    }
    return heap;
}

static struct pm_heap *idle_heap(void) {
    struct pm_heap *const heap = PM_LIST_ENTRY(pm_heaps.idle.next, struct pm_heap, idle);
    pm_list_remove(&heap->idle);
    heap->ended = false;
    heap->home = (struct pm_run_home){ .shard = heap->home.shard };
    return heap;
}

struct pm_heap *pm_heap_open(void) {
    pm_lock(&pm_heaps.lock);
    struct pm_heap *heap = left_open();
    if (heap == NULL) {
        heap = pm_list_empty(&pm_heaps.idle) ? new_heap() : idle_heap();
    }
    if (heap != NULL && heap->user == NULL) {
        *noted(&pm_thread) = heap;
        pm_add(&pm_arena_users, 1);
        pm_lock(&heap->lock);
        pm_set(&heap->user, &pm_thread);
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
    struct pm_pool *const pool = pm_heap_current(heap, class);
    if (pool == PM_NO_POOL) {
        return NULL;
    }
    pm_heap_clear_lanes(heap, pool);
    pm_add(&pool->owned.used, -1);
    return pool;
}

size_t pm_heap_trim_pools(struct pm_heap *heap, bool all) {
    size_t bytes = 0;
    pm_run_empty_place(heap);
    pm_lock(&heap->lock);
    list_told(heap);
    list_untold(heap);
    for (unsigned class = 0; class < PM_CLASS_COUNT; class ++) {
        struct pm_pool *const pool = pm_heap_current(heap, (pm_class) class);
        if (pool != PM_NO_POOL && pm_pool_is_spare(pool)) {
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

void pm_heap_purge_inside(struct pm_heap *heap, size_t grown) {
    pm_lock(&heap->lock);
    purge_some_inside(heap, pm_min(PM_INNER_POOLS, PM_INNER_LOOK * (grown >> PM_SMALL_POOL_BITS)));
    pm_unlock(&heap->lock);
}

static void abandon_all(struct pm_heap *heap) {
    pm_lock(&heap->lock);
    pm_chains_send(heap);
    pm_set(&heap->user, NULL);
    for (unsigned class = 0; class < PM_CLASS_COUNT; class ++) {
        struct pm_pool *const current = drop_current(heap, (pm_class) class);
        if (current != NULL) {
            pm_pool_abandon(current);
        }
        while (!pm_list_empty(&heap->bin[class])) {
            struct pm_pool *const pool = pm_pool_of_link(heap->bin[class].next);
            pm_heap_unlist_pool(heap, pool);
            pm_pool_abandon(pool);
        }
    }
    pm_unlock(&heap->lock);
}

void pm_heap_close(struct pm_heap *heap) {
    pm_run_empty_place(heap);
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
        if (heap != NULL) {
            init_heap(heap);
            heap->is_private = true;
        }
    }
    if (heap != NULL) {
        heap->ended = false;
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
        answer = act(heap, pm_pool_of_link(link), arg);
        if (answer != 0) {
            return answer;
        }
    }
    for (unsigned class = 0; class < PM_CLASS_COUNT; class ++) {
        PM_LIST_EACH(link, &heap->bin[class]) {
            answer = act(heap, pm_pool_of_link(link), arg);
            if (answer != 0) {
                return answer;
            }
        }
        struct pm_pool *const current = pm_heap_current(heap, (pm_class) class);
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
    case PM_POOL_CURRENT: pm_heap_clear_lanes(heap, pool); break;
    case PM_POOL_LISTED: pm_heap_unlist_pool(heap, pool); break;
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
    // Nothing is left of it but that it has no pools, so that who uses it further is told so.
    memset(heap, 0, sizeof *heap);
    init_heap(heap);
    heap->is_private = heap->ended = true;
    pm_list_push_front(&pm_heaps.private_idle, &heap->idle);
    pm_unlock(&pm_heaps.lock);
}

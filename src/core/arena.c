// SPDX-License-Identifier: MIT
// Copyright (c) the poolmalloc authors

// Arenas are kept by their number of free pools, so that the fullest one with room is found, and an
// arena is moved, in constant time. Free pools that are resident are on a list, last freed first: a
// class gets the one back that it gave back last, else the least touched of the few at its front;
// they are purged from its back, by amount and by age. Those of arenas that ask for huge pages are
// on another list, and are re-used before them.

#include "core/arena.h"

#include <string.h>

#include "base/bits.h"
#include "core/clock.h"
#include "core/inner.h"
#include "core/limit.h"
#include "core/random.h"
#include "core/thp.h"
#include "os/os.h"

struct pm_arenas pm_arenas[PM_ARENAS_COUNT] = {
    [PM_ARENAS_SMALL] = { .lock = PM_LOCK_INIT(PM_RANK_ARENAS), .bits = PM_SMALL_POOL_BITS },
    [PM_ARENAS_MEDIUM] = { .lock = PM_LOCK_INIT(PM_RANK_ARENAS), .bits = PM_MEDIUM_POOL_BITS },
};

uint32_t pm_arena_users;

static struct pm_arenas *arenas_of(unsigned bits) {
    return &pm_arenas[bits == PM_SMALL_POOL_BITS ? PM_ARENAS_SMALL : PM_ARENAS_MEDIUM];
}

static enum pm_slot_kind slot_kind(const struct pm_arenas *arenas) {
    return arenas->bits == PM_SMALL_POOL_BITS ? PM_SLOT_SMALL : PM_SLOT_MEDIUM;
}

void pm_arenas_start(void) {
    for (unsigned kind = 0; kind < PM_ARENAS_COUNT; kind++) {
        pm_list_init(&pm_arenas[kind].every);
        pm_list_init(&pm_arenas[kind].resident);
        pm_list_init(&pm_arenas[kind].warm);
        pm_list_init(&pm_arenas[kind].sparse);
        for (unsigned i = 0; i <= PM_ARENA_POOLS_MAX; i++) {
            pm_list_init(&pm_arenas[kind].by_free[i]);
        }
    }
}

// Pools of an arena of these bits: not the place of the headers, and not the last one where the
// page that is never handed out would be all of it.
static unsigned pools_of(unsigned bits) {
    return (unsigned)PM_ARENA_POOLS(bits) - 1 - (pm_os_page_size() >= PM_POOL_BYTES(bits));
}

static uint64_t pool_bit(const struct pm_pool *pool) {
    return UINT64_C(1) << pm_pool_index(pool);
}

static unsigned free_count(const struct pm_arena *arena) {
    return pm_count_bits(arena->head.free);
}

static bool is_empty(const struct pm_arena *arena) {
    return free_count(arena) == arena->head.pools;
}

static void count_touched(struct pm_arenas *arenas, size_t bytes) {
    __atomic_fetch_add(&arenas->touched, bytes, __ATOMIC_RELAXED);
}

void pm_arena_count_touched(const struct pm_pool *pool, size_t bytes) {
    count_touched(arenas_of(pool->shared.bits), bytes);
}

// Puts an arena on, or takes it off, the list for its number of free pools.
static void list_arena(struct pm_arenas *arenas, struct pm_arena *arena) {
    const unsigned count = free_count(arena);
    pm_list_push_front(&arenas->by_free[count], &arena->head.link);
    if (count > 0) {
        arenas->filled |= UINT64_C(1) << (count - 1);
    }
    arenas->empty += is_empty(arena);
}

static void unlist_arena(struct pm_arenas *arenas, struct pm_arena *arena) {
    const unsigned count = free_count(arena);
    pm_list_remove(&arena->head.link);
    if (count > 0 && pm_list_empty(&arenas->by_free[count])) {
        arenas->filled &= ~(UINT64_C(1) << (count - 1));
    }
    arenas->empty -= is_empty(arena);
}

static void change_free(struct pm_arenas *arenas, struct pm_arena *arena, uint64_t free) {
    unlist_arena(arenas, arena);
    arena->head.free = free;
    list_arena(arenas, arena);
    arena->thp.used = arena->head.pools - free_count(arena);
    pm_thp_update(&arena->thp, &arenas->sparse);
}

static void change_due(struct pm_arenas *arenas, struct pm_arena *arena, uint64_t due) {
    const size_t before = arena->thp.due;
    arena->head.due = due;
    arena->thp.due = pm_count_bits(due);
    pm_add(&arenas->due, arena->thp.due - before);
    pm_thp_update(&arena->thp, &arenas->sparse);
}

void pm_arena_mark_due(struct pm_pool *pool, bool due) {
    struct pm_arenas *const arenas = arenas_of(pool->shared.bits);
    struct pm_arena *const arena = pm_arena_of(pool);
    pm_lock(&arenas->lock);
    if (arena->thp.asks) {
        const uint64_t others = arena->head.due & ~pool_bit(pool);
        change_due(arenas, arena, due ? others | pool_bit(pool) : others);
    }
    pm_unlock(&arenas->lock);
    pm_set(&pool->inner.is_marked, due);
}

bool pm_arenas_have_due(void) {
    size_t due = 0;
    for (unsigned kind = 0; kind < PM_ARENAS_COUNT; kind++) {
        due += pm_get(&pm_arenas[kind].due);
    }
    return due != 0;
}

// Puts a free pool with resident pages on, or takes it off, the list that its arena has it on.
// change_free comes after.
static void list_resident(struct pm_arenas *arenas, struct pm_pool *pool, uint32_t now) {
    struct pm_arena *const arena = pm_arena_of(pool);
    pm_set(&pool->owned.freed_at, now);
    pm_list_push_front(arena->thp.asks ? &arenas->warm : &arenas->resident, &pool->owned.link);
    pm_add(&arenas->resident_bytes, pool->owned.touched);
    arena->thp.free++;
}

static void unlist_resident(struct pm_arenas *arenas, struct pm_pool *pool) {
    struct pm_pool **const latest = &arenas->latest[pool->shared.class];
    if (*latest == pool) {
        *latest = NULL;
    }
    pm_list_remove(&pool->owned.link);
    pm_add(&arenas->resident_bytes, -(size_t)pool->owned.touched);
    pm_arena_of(pool)->thp.free--;
}

static void add_arena(struct pm_arenas *arenas, struct pm_arena *arena, bool asks) {
    const unsigned count = pools_of(arenas->bits);
    arena->head.bits = arenas->bits;
    arena->head.pools = count;
    // Bits 1 to count: pool 0 is the place of the headers.
    arena->head.free = (UINT64_MAX >> (PM_ARENA_POOLS_MAX - 1 - count)) & ~UINT64_C(1);
    arena->none.owner = PM_OWNER_ARENA;
    arena->none.bits = (uint8_t)arenas->bits;
    arena->thp.asks = asks;
    pm_map_mark(arena, PM_SLOT_BYTES, slot_kind(arenas), slot_kind(arenas));
    pm_lock(&arenas->lock);
    pm_list_push_back(&arenas->every, &arena->head.every);
    pm_add(&arenas->count, 1);
    arenas->made++;
    pm_thp_made(&arenas->sample, arena, asks);
    list_arena(arenas, arena);
    pm_unlock(&arenas->lock);
}

static void remove_arena(struct pm_arenas *arenas, struct pm_arena *arena) {
    PM_ASSERT(is_empty(arena));
    for (uint64_t left = arena->head.opened; left != 0; left &= left - 1) {
        struct pm_pool *const pool = (struct pm_pool *)arena + pm_lowest_bit(left);
        if (pool->owned.link.next != NULL) {
            unlist_resident(arenas, pool);
            pm_keep_purged(&arenas->keep, pool->owned.touched);
        }
    }
    pm_thp_update(&arena->thp, &arenas->sparse);
    unlist_arena(arenas, arena);
    pm_list_remove(&arena->head.every);
    pm_thp_gone(&arenas->sample, arena);
    pm_add(&arenas->count, -1);
    arenas->unmade++;
    pm_map_mark(arena, PM_SLOT_BYTES, PM_SLOT_TOMBSTONE, PM_SLOT_TOMBSTONE);
}

// False when the process has as many mappings as it may have: the arena stays, as a new one.
static bool unmap_arena(struct pm_arenas *arenas, struct pm_arena *arena) {
    if (pm_os_unmap(arena, PM_SLOT_BYTES) == 0) {
        pm_map_gave_back(arena, PM_SLOT_BYTES);
        return true;
    }
    if (pm_os_purge(arena, PM_SLOT_BYTES) != 0) {
        memset(arena, 0, PM_ARENA_POOLS(arenas->bits) * sizeof(struct pm_pool));
    }
    add_arena(arenas, arena, false);
    return false;
}

static struct pm_surplus surplus_now(struct pm_arenas *arenas, uint32_t now) {
    const size_t touched = pm_get(&arenas->touched), due = arenas->due << arenas->bits;
    const size_t keep = pm_keep_limit(&arenas->keep, touched - pm_min(due, touched), 1, now);
    return (struct pm_surplus){ .keep = keep, .spare = 1, .now = now };
}

static bool is_pool_surplus(const struct pm_arenas *arenas, const struct pm_surplus *surplus) {
    return !pm_list_empty(&arenas->resident) &&
           (arenas->resident_bytes > surplus->keep ||
            pm_surplus_has_old(
                surplus,
                PM_LIST_ENTRY(arenas->resident.prev, struct pm_pool, owned.link)->owned.freed_at));
}

// The arena that leaves its huge pages; NULL when there is none.
static struct pm_arena *sparse_surplus(const struct pm_arenas *arenas,
                                       const struct pm_surplus *surplus) {
    if (surplus->all && !pm_list_empty(&arenas->warm)) {
        return pm_arena_of(arenas->warm.prev);
    }
    if (pm_list_empty(&arenas->sparse)) {
        return NULL;
    }
    struct pm_arena *const arena = pm_arena_of(arenas->sparse.prev);
    const size_t idle = arenas->resident_bytes + (arenas->due << arenas->bits);
    return idle > surplus->keep || pm_surplus_has_old(surplus, arena->thp.sparse_at) ? arena : NULL;
}

static bool is_arena_surplus(const struct pm_arenas *arenas, const struct pm_surplus *surplus) {
    return arenas->empty > surplus->spare &&
           (arenas->resident_bytes == 0 || arenas->resident_bytes > surplus->keep);
}

static bool is_purge_due(const struct pm_arenas *arenas, const struct pm_surplus *surplus) {
    return is_pool_surplus(arenas, surplus) || is_arena_surplus(arenas, surplus) ||
           sparse_surplus(arenas, surplus) != NULL;
}

// Pools that are off all lists, and an arena that is; `leaving` is the pools' own, and leaves its
// huge pages.
struct purge {
    struct pm_pool *pool[PM_ARENA_POOLS_MAX];
    unsigned count;
    struct pm_arena *arena, *leaving;
};

static void choose_pool(struct pm_arenas *arenas, struct pm_pool *pool, struct purge *chosen) {
    struct pm_arena *const arena = pm_arena_of(pool);
    unlist_resident(arenas, pool);
    pm_keep_purged(&arenas->keep, pool->owned.touched);
    change_free(arenas, arena, arena->head.free & ~pool_bit(pool));
    pm_set(&pool->shared.state, PM_POOL_PURGING);
    chosen->pool[chosen->count++] = pool;
}

static void choose_arena(struct pm_arenas *arenas, struct pm_arena *arena, struct purge *chosen) {
    remove_arena(arenas, arena);
    chosen->arena = arena;
}

// A free pool as pm_arena_give_back leaves it, but for its pages: its header may never have been
// written.
static void open_untouched(struct pm_arena *arena, struct pm_pool *pool) {
    pm_set(&pool->shared.bits, (uint8_t)arena->head.bits);
    pm_set(&pool->shared.owner, PM_OWNER_ARENA);
    pm_set(&pool->remote.word, PM_REMOTE_OWNED);
    pm_set(&arena->head.opened, arena->head.opened | pool_bit(pool));
}

// All that is free in the arena is purged, also what only huge pages made resident, and the arena
// is as any other from now on.
static void leave_huge_pages(struct pm_arenas *arenas, struct pm_arena *arena,
                             struct purge *chosen) {
    for (uint64_t left = arena->head.free; left != 0; left &= left - 1) {
        struct pm_pool *const pool = (struct pm_pool *)arena + pm_lowest_bit(left);
        if (pool->owned.link.next == NULL) {
            open_untouched(arena, pool);
            list_resident(arenas, pool, 0);
        }
        choose_pool(arenas, pool, chosen);
    }
    pm_set(&arena->thp.asks, false);
    change_due(arenas, arena, 0);
    chosen->leaving = arena;
}

static void choose_purge(struct pm_arenas *arenas, const struct pm_surplus *surplus,
                         struct purge *chosen) {
    chosen->count = 0;
    chosen->arena = chosen->leaving = NULL;
    while (chosen->count < PM_PURGE_BATCH && is_pool_surplus(arenas, surplus)) {
        struct pm_pool *const pool =
            PM_LIST_ENTRY(arenas->resident.prev, struct pm_pool, owned.link);
        struct pm_arena *const arena = pm_arena_of(pool);
        if (is_empty(arena) && arenas->empty > surplus->spare) {
            choose_arena(arenas, arena, chosen);
            return;
        }
        choose_pool(arenas, pool, chosen);
    }
    if (chosen->count != 0) {
        return;
    }
    struct pm_arena *const sparse = sparse_surplus(arenas, surplus);
    if (is_arena_surplus(arenas, surplus)) {
        const struct pm_list *const empty = &arenas->by_free[pools_of(arenas->bits)];
        choose_arena(arenas, PM_LIST_ENTRY(empty->prev, struct pm_arena, head.link), chosen);
    } else if (sparse != NULL && is_empty(sparse)) {
        choose_arena(arenas, sparse, chosen);
    } else if (sparse != NULL) {
        leave_huge_pages(arenas, sparse, chosen);
    }
}

// The OS refuses to purge locked pages (mlock): such a pool stays resident, as if freed just now.
static size_t purge_chosen(struct pm_arenas *arenas, const struct purge *chosen, uint32_t now) {
    size_t bytes = 0;
    if (chosen->leaving != NULL) {
        pm_os_leave_huge_pages(chosen->leaving, PM_SLOT_BYTES);
    }
    for (unsigned i = 0; i < chosen->count; i++) {
        struct pm_pool *const pool = chosen->pool[i];
        const size_t touched = chosen->leaving != NULL
                                   ? PM_POOL_BYTES(arenas->bits)
                                   : pm_round_up(pool->owned.touched, pm_os_page_size());
        if (pm_os_purge((void *)pm_pool_base(pool), touched) == 0) {
            pm_set(&pool->owned.touched, 0);
            bytes += touched;
        }
    }
    if (chosen->count != 0) {
        pm_lock(&arenas->lock);
        for (unsigned i = 0; i < chosen->count; i++) {
            struct pm_pool *const pool = chosen->pool[i];
            struct pm_arena *const arena = pm_arena_of(pool);
            pm_set(&pool->shared.state, PM_POOL_FREE);
            if (pool->owned.touched != 0) {
                list_resident(arenas, pool, now);
            }
            change_free(arenas, arena, arena->head.free | pool_bit(pool));
        }
        pm_unlock(&arenas->lock);
    }
    if (chosen->arena != NULL && unmap_arena(arenas, chosen->arena)) {
        bytes += PM_SLOT_BYTES;
    }
    return bytes;
}

static size_t purge(struct pm_arenas *arenas, struct pm_surplus surplus) {
    size_t bytes = 0, gained;
    struct purge chosen;
    do {
        pm_lock(&arenas->lock);
        choose_purge(arenas, &surplus, &chosen);
        pm_unlock(&arenas->lock);
        gained = purge_chosen(arenas, &chosen, surplus.now);
        bytes += gained;
    } while (gained != 0 || chosen.leaving != NULL);
    return bytes;
}

void pm_arenas_age(uint32_t now) {
    for (unsigned kind = 0; kind < PM_ARENAS_COUNT; kind++) {
        struct pm_arenas *const arenas = &pm_arenas[kind];
        pm_lock(&arenas->lock);
        const struct pm_surplus surplus = surplus_now(arenas, now);
        pm_unlock(&arenas->lock);
        purge(arenas, surplus);
    }
}

size_t pm_arenas_trim(void) {
    size_t bytes = 0;
    for (unsigned kind = 0; kind < PM_ARENAS_COUNT; kind++) {
        bytes += purge(&pm_arenas[kind], (struct pm_surplus){ .now = pm_clock(), .all = true });
    }
    return bytes;
}

// Of a list that is not empty. One that the class had, whose pages it has touched already, else the
// least touched one of those freed last: a pool that goes from class to class becomes resident as
// far as the neediest of them.
static struct pm_pool *pick_resident(const struct pm_arenas *arenas, const struct pm_list *resident,
                                     pm_class class) {
    struct pm_pool *const had = arenas->latest[class], *best = NULL;
    unsigned looked = 0;
    if (had != NULL && pm_arena_of(had)->thp.asks == (resident == &arenas->warm)) {
        return had;
    }
    PM_LIST_EACH(link, resident) {
        struct pm_pool *const pool = PM_LIST_ENTRY(link, struct pm_pool, owned.link);
        if (best == NULL || pool->owned.touched < best->owned.touched) {
            best = pool;
        }
        if (++looked == PM_FIT_LOOK) {
            break;
        }
    }
    return best;
}

// A resident pool, else the first one of the fullest arena, else NULL.
static struct pm_pool *take_free(struct pm_arenas *arenas, pm_class class) {
    struct pm_arena *arena;
    struct pm_pool *pool;
    const struct pm_list *const resident =
        pm_list_empty(&arenas->warm) ? &arenas->resident : &arenas->warm;
    if (!pm_list_empty(resident)) {
        pool = pick_resident(arenas, resident, class);
        arena = pm_arena_of(pool);
        unlist_resident(arenas, pool);
    } else if (arenas->filled != 0) {
        pm_keep_missed(&arenas->keep, PM_POOL_BYTES(arenas->bits));
        const struct pm_list *const fullest = &arenas->by_free[pm_lowest_bit(arenas->filled) + 1];
        arena = PM_LIST_ENTRY(fullest->next, struct pm_arena, head.link);
        pool = (struct pm_pool *)arena + pm_lowest_bit(arena->head.free);
    } else {
        return NULL;
    }
    change_free(arenas, arena, arena->head.free & ~pool_bit(pool));
    pm_set(&arena->head.opened, arena->head.opened | pool_bit(pool));
    pm_add(&arenas->taken, 1);
    count_touched(arenas, pool->owned.touched);
    return pool;
}

// Does the program touch what it has, as far as one arena tells that is half in use? Under the
// lock.
static bool is_touched(const struct pm_arenas *arenas) {
    const struct pm_arena *const arena = arenas->sample.arena;
    size_t in_use = 0, resident = 0;
    if (!pm_thp_can_tell(&arenas->sample) || 2 * arena->thp.used < arena->head.pools) {
        return false;
    }
    for (uint64_t left = arena->head.opened & ~arena->head.free; left != 0; left &= left - 1) {
        const struct pm_pool *const pool = (const struct pm_pool *)arena + pm_lowest_bit(left);
        if (pm_get(&pool->shared.state) != PM_POOL_PURGING) {
            const size_t touched = pm_round_up(pm_get(&pool->owned.touched), pm_os_page_size());
            in_use += touched - pm_inner_bytes(pool);
            resident += pm_os_resident((const void *)pm_pool_base(pool), touched);
        }
    }
    return pm_thp_is_touched(in_use, resident);
}

// What counts is what an average heap has: a huge page makes the untouched parts of pools resident.
static bool wants_huge_pages(struct pm_arenas *arenas, size_t in_use) {
    if (!pm_thp_is_large(in_use, in_use / pm_max(pm_get(&pm_arena_users), 1))) {
        return pm_options.thp == PM_THP_ALWAYS;
    }
    pm_lock(&arenas->lock);
    const bool touched = is_touched(arenas);
    pm_unlock(&arenas->lock);
    return touched;
}

// Returns whether the arena asks for huge pages: one of medium pools not for its first, which would
// be resident for the sake of the headers.
static bool advise(struct pm_arenas *arenas, struct pm_arena *arena, size_t in_use) {
    const bool asks = wants_huge_pages(arenas, in_use);
    pm_os_advise_huge_pages(arena, PM_SLOT_BYTES, asks);
    if (asks && arenas->bits == PM_MEDIUM_POOL_BITS) {
        pm_os_advise_huge_pages(arena, PM_HUGE_PAGE_BYTES, false);
    }
    return asks;
}

// One more arena, unless another thread has brought one meanwhile. False without memory.
static bool grow(struct pm_arenas *arenas) {
    struct pm_arena *arena = NULL;
    pm_lock(&pm_grow_lock);
    pm_lock(&arenas->lock);
    const bool grown =
        arenas->filled != 0 || !pm_list_empty(&arenas->resident) || !pm_list_empty(&arenas->warm);
    const size_t in_use = arenas->taken << arenas->bits;
    pm_unlock(&arenas->lock);
    if (!grown) {
        arena = pm_map_slots(PM_SLOT_BYTES, PM_SLOT_BYTES, false);
    }
    if (arena != NULL) {
        add_arena(arenas, arena, advise(arenas, arena, in_use));
    }
    pm_unlock(&pm_grow_lock);
    return grown || arena != NULL;
}

static void set_up(struct pm_pool *pool, pm_class class, unsigned bits) {
    struct pm_pool_owned *const owned = &pool->owned;
    struct pm_pool_shared *const shared = &pool->shared;
    const size_t size = pm_classes[class].size;
    pm_set(&shared->bits, (uint8_t)bits);
    const bool last = pm_pool_index(pool) == PM_ARENA_POOLS(bits) - 1;
    const size_t room = PM_POOL_BYTES(bits) - (last ? pm_os_page_size() : 0);
    pm_add(&shared->serial, 1);
    const uint64_t key =
        pm_random((uintptr_t)pool ^ shared->serial << PM_ADDRESS_BITS) | PM_KEY_BITS;
    pm_set(&owned->key, key);
    pm_set(&shared->key, key);
    pm_set(&owned->list, 0);
    pm_set(&owned->end, (uint32_t)(room / size * size));
    pm_pool_set_carved(pool, 0);
    pm_set(&shared->class, class);
    pm_set(&shared->divisor, pm_classes[class].divisor);
    pm_set(&pool->remote.word, PM_REMOTE_OWNED);
    pm_set(&pool->inner.seen_used, PM_INNER_NEVER_LOOKED);
}

struct pm_pool *pm_arena_take(pm_class class, struct pm_heap *owner) {
    const unsigned bits = pm_class_pool_bits(class);
    struct pm_arenas *const arenas = arenas_of(bits);
    struct pm_pool *pool;
    // It is carved by the page, and then asked again.
    if (!pm_limit_allows(pm_max(pm_classes[class].size, pm_os_page_size()))) {
        return NULL;
    }
    do {
        pm_lock(&arenas->lock);
        pool = take_free(arenas, class);
        pm_unlock(&arenas->lock);
        if (pool == NULL && !grow(arenas)) {
            return NULL;
        }
    } while (pool == NULL);
    set_up(pool, class, bits);
    PM_ASSERT(pool->owned.used == 0);
    pm_set(&pool->shared.owner, owner);
    return pool;
}

void pm_arena_give_back(struct pm_pool *pool) {
    struct pm_arenas *const arenas = arenas_of(pool->shared.bits);
    struct pm_arena *const arena = pm_arena_of(pool);
    const uint32_t now = pm_clock();
    PM_ASSERT(pool->owned.used == 0 && pm_get(&pool->remote.word) == PM_REMOTE_OWNED);
    pm_set(&pool->shared.owner, PM_OWNER_ARENA);
    pm_lock(&arenas->lock);
    pm_set(&pool->shared.state, PM_POOL_FREE);
    list_resident(arenas, pool, now);
    arenas->latest[pool->shared.class] = pool;
    if (PM_UNLIKELY(pool->inner.is_marked)) {
        pm_set(&pool->inner.is_marked, false);
        change_due(arenas, arena, arena->head.due & ~pool_bit(pool));
    }
    pm_add(&arenas->taken, -1);
    pm_inner_forget(pool);
    count_touched(arenas, -(size_t)pool->owned.touched);
    change_free(arenas, arena, arena->head.free | pool_bit(pool));
    const struct pm_surplus surplus = surplus_now(arenas, now);
    const bool due = is_purge_due(arenas, &surplus);
    pm_unlock(&arenas->lock);
    if (PM_UNLIKELY(due)) {
        purge(arenas, surplus);
    }
}

bool pm_pool_carve(struct pm_pool *pool) {
    const size_t size = pm_classes[pool->shared.class].size;
    const size_t start = pm_get(&pool->shared.carved), end = pool->owned.end;
    const size_t touched = pool->owned.touched, page = pm_os_page_size();
    PM_ASSERT(pool->owned.list == 0);
    if (start >= end) {
        return false;
    }
    size_t stop = pm_round_up(start + size, page);
    if (touched > stop) {
        stop = pm_min(touched, pm_round_up(start + PM_CARVE_RESIDENT_BYTES, page));
    }
    const size_t count = pm_max(pm_min(stop, end) - start, size) / size;
    const size_t stop_touched = pm_max(touched, start + count * size),
                 more = stop_touched - touched;
    // A pool that was just taken has room for one step at least.
    if (more != 0) {
        if (start != 0 && !pm_limit_allows(more)) {
            return false;
        }
        count_touched(arenas_of(pool->shared.bits), more);
    }
    const uintptr_t first = pm_pool_base(pool) + start, last = first + (count - 1) * size;
    for (uintptr_t block = first; block < last; block += size) {
        pm_link_write(block, block + size, pool->owned.key);
    }
    pm_link_write(last, 0, pool->owned.key);
    pm_pool_set_carved(pool, (uint32_t)(start + count * size));
    pm_set(&pool->owned.touched, (uint32_t)stop_touched);
    pm_signal_fence();
    pm_set(&pool->owned.list, first);
    return true;
}

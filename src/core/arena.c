// SPDX-License-Identifier: MIT
// Copyright (c) the poolmalloc authors

// Arenas are kept by their number of free pools, so that the fullest one with room is found, and an
// arena is moved, in constant time. Free pools that are resident are on one list, last freed first:
// they are re-used from its front and purged from its back, by amount and by age.

#include "core/arena.h"

#include <string.h>

#include "base/bits.h"
#include "core/clock.h"
#include "core/random.h"
#include "core/thp.h"
#include "os/os.h"

struct pm_arenas pm_arenas[PM_ARENAS_COUNT] = {
    [PM_ARENAS_SMALL] = { .lock = PM_LOCK_INIT(PM_RANK_ARENAS), .bits = PM_SMALL_POOL_BITS },
    [PM_ARENAS_MEDIUM] = { .lock = PM_LOCK_INIT(PM_RANK_ARENAS), .bits = PM_MEDIUM_POOL_BITS },
};

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
}

static void list_resident(struct pm_arenas *arenas, struct pm_pool *pool, uint32_t now) {
    pm_set(&pool->owned.freed_at, now);
    pm_list_push_front(&arenas->resident, &pool->owned.link);
    arenas->resident_bytes += pool->owned.touched;
}

static void unlist_resident(struct pm_arenas *arenas, struct pm_pool *pool) {
    pm_list_remove(&pool->owned.link);
    arenas->resident_bytes -= pool->owned.touched;
}

static void add_arena(struct pm_arenas *arenas, struct pm_arena *arena) {
    const unsigned count = pools_of(arenas->bits);
    arena->head.bits = arenas->bits;
    arena->head.pools = count;
    // Bits 1 to count: pool 0 is the place of the headers.
    arena->head.free = (UINT64_MAX >> (PM_ARENA_POOLS_MAX - 1 - count)) & ~UINT64_C(1);
    arena->none.owner = PM_OWNER_ARENA;
    arena->none.bits = (uint8_t)arenas->bits;
    pm_map_mark(arena, PM_SLOT_BYTES, slot_kind(arenas), slot_kind(arenas));
    pm_lock(&arenas->lock);
    pm_list_push_back(&arenas->every, &arena->head.every);
    arenas->count++;
    arenas->made++;
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
    unlist_arena(arenas, arena);
    pm_list_remove(&arena->head.every);
    arenas->count--;
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
    add_arena(arenas, arena);
    return false;
}

// What to purge: the oldest resident pools, while they exceed `keep` bytes or are older than the
// delay. An arena that is wholly free goes as a whole, but for `spare` of them.
struct surplus {
    size_t keep, spare;
    uint32_t now;
};

struct purge {
    struct pm_pool *pool[PM_PURGE_BATCH];
    unsigned count;
    struct pm_arena *arena;
};

static void choose_purge(struct pm_arenas *arenas, const struct surplus *surplus,
                         struct purge *chosen) {
    chosen->count = 0;
    chosen->arena = NULL;
    while (chosen->count < PM_PURGE_BATCH && !pm_list_empty(&arenas->resident)) {
        struct pm_pool *const pool =
            PM_LIST_ENTRY(arenas->resident.prev, struct pm_pool, owned.link);
        if (arenas->resident_bytes <= surplus->keep &&
            pm_clock_since(pool->owned.freed_at, surplus->now) <= PM_PURGE_DELAY_MS) {
            return;
        }
        struct pm_arena *const arena = pm_arena_of(pool);
        if (is_empty(arena) && arenas->empty > surplus->spare) {
            remove_arena(arenas, arena);
            chosen->arena = arena;
            return;
        }
        unlist_resident(arenas, pool);
        pm_keep_purged(&arenas->keep, pool->owned.touched);
        change_free(arenas, arena, arena->head.free & ~pool_bit(pool));
        pm_set(&pool->shared.state, PM_POOL_PURGING);
        chosen->pool[chosen->count++] = pool;
    }
    if (chosen->count == 0 && arenas->empty > surplus->spare) {
        struct pm_list *const empty = &arenas->by_free[pools_of(arenas->bits)];
        chosen->arena = PM_LIST_ENTRY(empty->next, struct pm_arena, head.link);
        remove_arena(arenas, chosen->arena);
    }
}

// The OS refuses to purge locked pages (mlock): such a pool stays resident, as if freed just now.
static size_t purge_chosen(struct pm_arenas *arenas, const struct purge *chosen, uint32_t now) {
    size_t bytes = 0;
    for (unsigned i = 0; i < chosen->count; i++) {
        struct pm_pool *const pool = chosen->pool[i];
        const size_t touched = pm_round_up(pool->owned.touched, pm_os_page_size());
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

static size_t purge(struct pm_arenas *arenas, struct surplus surplus) {
    size_t bytes = 0, gained;
    do {
        struct purge chosen;
        pm_lock(&arenas->lock);
        choose_purge(arenas, &surplus, &chosen);
        pm_unlock(&arenas->lock);
        gained = purge_chosen(arenas, &chosen, surplus.now);
        bytes += gained;
    } while (gained != 0);
    return bytes;
}

void pm_arenas_age(uint32_t now) {
    for (unsigned kind = 0; kind < PM_ARENAS_COUNT; kind++) {
        struct pm_arenas *const arenas = &pm_arenas[kind];
        pm_lock(&arenas->lock);
        const size_t keep = pm_keep_limit(&arenas->keep, arenas->taken << arenas->bits, now);
        pm_unlock(&arenas->lock);
        purge(arenas, (struct surplus){ .keep = keep, .spare = 1, .now = now });
    }
}

size_t pm_arenas_trim(void) {
    size_t bytes = 0;
    for (unsigned kind = 0; kind < PM_ARENAS_COUNT; kind++) {
        bytes += purge(&pm_arenas[kind], (struct surplus){ .now = pm_clock() });
    }
    return bytes;
}

// The pool freed last, else the first one of the fullest arena, else NULL.
static struct pm_pool *take_free(struct pm_arenas *arenas) {
    struct pm_arena *arena;
    struct pm_pool *pool;
    if (!pm_list_empty(&arenas->resident)) {
        pool = PM_LIST_ENTRY(arenas->resident.next, struct pm_pool, owned.link);
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
    arenas->taken++;
    return pool;
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
}

struct pm_pool *pm_arena_take(pm_class class, struct pm_heap *owner) {
    const unsigned bits = pm_class_pool_bits(class);
    struct pm_arenas *const arenas = arenas_of(bits);
    struct pm_pool *pool;
    for (;;) {
        pm_lock(&arenas->lock);
        pool = take_free(arenas);
        const size_t in_use = arenas->taken << bits;
        pm_unlock(&arenas->lock);
        if (pool != NULL) {
            break;
        }
        struct pm_arena *const arena = pm_map_slots(PM_SLOT_BYTES, PM_SLOT_BYTES, false);
        if (arena == NULL) {
            return NULL;
        }
        pm_thp_refuse_small(arena, PM_SLOT_BYTES, in_use);
        add_arena(arenas, arena);
    }
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
    arenas->taken--;
    change_free(arenas, arena, arena->head.free | pool_bit(pool));
    const size_t keep = pm_keep_limit(&arenas->keep, arenas->taken << arenas->bits, now);
    const struct pm_pool *const oldest =
        PM_LIST_ENTRY(arenas->resident.prev, struct pm_pool, owned.link);
    const bool due = arenas->resident_bytes > keep ||
                     pm_clock_since(oldest->owned.freed_at, now) > PM_PURGE_DELAY_MS;
    pm_unlock(&arenas->lock);
    if (PM_UNLIKELY(due)) {
        purge(arenas, (struct surplus){ .keep = keep, .spare = 1, .now = now });
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
    const uintptr_t first = pm_pool_base(pool) + start, last = first + (count - 1) * size;
    for (uintptr_t block = first; block < last; block += size) {
        pm_link_write(block, block + size, pool->owned.key);
    }
    pm_link_write(last, 0, pool->owned.key);
    pm_pool_set_carved(pool, (uint32_t)(start + count * size));
    pm_set(&pool->owned.touched, (uint32_t)pm_max(touched, start + count * size));
    pm_signal_fence();
    pm_set(&pool->owned.list, first);
    return true;
}

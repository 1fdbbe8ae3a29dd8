// SPDX-License-Identifier: MIT
// Copyright (c) the poolmalloc authors

// Every equation has one line here, under the words of the header that states it.

#include "check/audit.h"

#include "base/bits.h"
#include "base/format.h"
#include "core/arena.h"
#include "core/heap.h"
#include "core/huge.h"
#include "core/inner.h"
#include "core/map.h"
#include "core/remote.h"
#include "core/run.h"
#include "os/os.h"

struct audit {
    size_t faults;
    size_t waiting; // runs
};

static void check(struct audit *audit, bool holds, const char *equation, const void *at) {
    if (!holds) {
        char line[PM_LINE_MAX];
        const size_t length =
            pm_format(line, sizeof line, "poolmalloc: audit: %p: %s\n", at, equation);
        pm_os_write(2, line, length);
        audit->faults++;
    }
}

// Length of a list of blocks of the pool; an unsound link ends it.
static size_t count_list(struct audit *audit, const struct pm_pool *pool, uintptr_t block) {
    const size_t most = PM_POOL_BYTES(pool->shared.bits) / PM_BLOCK_ALIGN;
    const uintptr_t base = pm_pool_base(pool);
    size_t count = 0;
    while (block != 0 && count <= most) {
        if (!pm_pool_has_carved(pool, block - base) ||
            pm_inner_is_away(pool, (block - base) / pm_classes[pool->shared.class].size)) {
            check(audit, false, "a free list leads to a place where no block is", pool);
            break;
        }
        const uintptr_t next = pm_link_read(block, pool->shared.key);
        if (!pm_link_sound(next, block, pool->shared.bits)) {
            check(audit, false, "a link leads out of its pool", (const void *)block);
            break;
        }
        count++;
        block = next;
    }
    return count;
}

static size_t count_away(const struct pm_pool *pool) {
    const size_t carved = pool->shared.carved / pm_classes[pool->shared.class].size;
    size_t away = 0;
    for (size_t i = 0; i < carved; i++) {
        away += pm_inner_is_away(pool, i);
    }
    return away;
}

static bool on_list(const struct pm_list *list, const struct pm_list *link) {
    PM_LIST_EACH(at, list) {
        if (at == link) {
            return true;
        }
    }
    return false;
}

static void audit_pool(struct audit *audit, const struct pm_arenas *arenas,
                       const struct pm_pool *pool) {
    const struct pm_arena *const arena = pm_arena_of(pool);
    const unsigned state = pool->shared.state;
    const bool free = (arena->head.free >> pm_pool_index(pool) & 1) != 0;
    struct pm_heap *const owner = pool->shared.owner;
    const struct pm_list *const link = &pool->owned.link;
    const size_t size = pm_classes[pool->shared.class].size;
    const uint64_t remote = pool->remote.word;
    const bool telling = (remote & PM_REMOTE_TELLING) != 0;
    const bool kept = state == PM_POOL_FULL && (remote & PM_REMOTE_OWNED) != 0;
    check(audit, free == (state == PM_POOL_FREE), "free set = pools in state FREE", pool);
    check(audit,
          (remote & PM_REMOTE_OWNED) != 0 || state == PM_POOL_FULL || state == PM_POOL_ABANDONED,
          "not owned = FULL or ABANDONED", pool);
    check(audit,
          ((remote & PM_REMOTE_WAITING) != 0) == (state == PM_POOL_ABANDONED || (kept && !telling)),
          "waiting = ABANDONED, or FULL in a private heap and not telling", pool);
    check(audit, !telling || pm_heap_is_private(owner), "telling: of a private heap", pool);
    check(audit, pool->owned.key == pool->shared.key, "both lines have the same key", pool);
    check(
        audit,
        pool->shared.bound ==
            (pool->inner.away != 0 || kept ? 0 : pool->shared.carved * pool->shared.divisor),
        "bound = carved * divisor, or 0 when blocks are put away or a private heap's pool is FULL",
        pool);
    check(audit, pool->inner.away == count_away(pool), "away = blocks in pages purged inside",
          pool);
    check(audit, (pool->inner.away == 0) == (pm_inner_bytes(pool) == 0),
          "none is put away = no page is purged inside", pool);
    check(audit, pool->shared.carved <= pool->owned.end && pool->shared.carved % size == 0,
          "carved is whole blocks up to the end", pool);
    if (state == PM_POOL_FREE || state == PM_POOL_PURGING) {
        check(audit, owner == PM_OWNER_ARENA, "FREE = owned by the arena", pool);
        check(audit, pool->owned.used == 0, "FREE: used = 0", pool);
        check(audit, (link->next != NULL) == (state == PM_POOL_FREE && pool->owned.touched != 0),
              "FREE and resident = on the list of resident pools", pool);
        check(audit,
              link->next == NULL ||
                  on_list(arena->thp.asks ? &arenas->warm : &arenas->resident, link),
              "its link is on that list, or on the one of arenas that ask for huge pages", pool);
        return;
    }
    const size_t listed = count_list(audit, pool, pool->owned.list);
    const size_t pushed = count_list(audit, pool, remote & PM_REMOTE_LIST_MASK);
    const size_t current = state == PM_POOL_CURRENT;
    check(audit, pushed == remote >> PM_REMOTE_COUNT_SHIFT, "remote count = remote list", pool);
    check(audit,
          pool->shared.carved / size == listed + pool->inner.away + pool->owned.used - current,
          "carved = on the list + put away + used - (1 when CURRENT)", pool);
    check(audit, (pool->inner.rest.next != NULL) == (state == PM_POOL_LISTED),
          "LISTED = on its heap's list of all listed pools", pool);
    switch (state) {
    case PM_POOL_CURRENT: {
        const struct pm_class_info *const info = &pm_classes[pool->shared.class];
        for (unsigned i = 0; i < info->lanes; i++) {
            check(audit, owner->lane[info->lane + i] == pool, "CURRENT = in its lanes", pool);
        }
        check(audit, link->next == NULL, "CURRENT: on no list", pool);
        break;
    }
    case PM_POOL_LISTED:
        check(audit, pool->owned.used != 0, "LISTED: used > 0", pool);
        check(audit, on_list(&owner->bin[pool->shared.class], link), "LISTED = in its bin", pool);
        break;
    case PM_POOL_FULL:
        check(audit, kept ? pm_heap_is_private(owner) : owner == PM_OWNER_NOBODY,
              "FULL: nobody's, or owned by a private heap", pool);
        check(audit, kept ? on_list(&owner->full, link) : link->next == NULL,
              "FULL: on no list, or on that of its private heap", pool);
        break;
    case PM_POOL_ABANDONED:
        check(audit, owner == PM_OWNER_NOBODY, "ABANDONED: nobody's", pool);
        check(audit, on_list(&pm_heaps.abandoned[pool->shared.class].pools, link),
              "ABANDONED = on the list of its class", pool);
        break;
    default: check(audit, false, "a pool that was taken has a state", pool);
    }
}

static void audit_bins(struct audit *audit, const struct pm_heap *heap) {
    size_t all = 0, bytes = 0, rest = 0, guests = 0;
    for (unsigned class = 0; class < PM_CLASS_COUNT; class ++) {
        uint32_t listed = 0;
        PM_LIST_EACH(link, &heap->bin[class]) {
            listed++;
            bytes += PM_POOL_BYTES(pm_class_pool_bits((pm_class) class));
        }
        all += listed;
        const struct pm_pool *const pool = heap->lane[pm_classes[class].lane];
        guests += pool != PM_NO_POOL && pool->shared.class != class;
        check(audit, pool == PM_NO_POOL || pool->shared.state == PM_POOL_CURRENT,
              "what is in a lane is CURRENT", heap);
        check(audit, listed == heap->listed[class], "listed = pools in the bin", heap);
    }
    PM_LIST_EACH(link, &heap->rest) {
        rest++;
    }
    check(audit, guests == heap->guests, "guests = classes whose lanes hold another's pool", heap);
    check(audit, rest == all, "all listed pools are on one list, too", heap);
    check(audit, bytes == heap->listed_bytes, "listed_bytes = bytes of the listed pools", heap);
}

static void audit_chains(struct audit *audit, struct pm_heap *heap) {
    for (unsigned i = 0; i < PM_CHAINS; i++) {
        const struct pm_chain *const chain = &heap->chain[i];
        const uintptr_t first = pm_chain_first(chain->word);
        if (first == 0) {
            check(audit, chain->word == 0, "no first block = no chain", chain);
            continue;
        }
        const struct pm_pool *const pool = pm_pool_of((const void *)first, PM_SMALL_POOL_BITS);
        check(audit, pm_chain_of(heap, first) == chain, "a chain is in its pool's place", chain);
        check(audit, count_list(audit, pool, first) == pm_chain_count(chain->word),
              "count = blocks chained", chain);
        check(audit, pm_chain_count(chain->word) <= pool->shared.chain,
              "a chain takes so many, and none of a private heap's pool", pool);
        check(audit, pm_link_read(chain->last, pool->shared.key) == 0,
              "a chain ends with its last block", chain);
        check(audit, pool->owned.used >= pm_chain_count(chain->word), "chained blocks are in use",
              pool);
    }
    check(audit, !heap->chains_closed, "chains are closed under the heap's lock only", heap);
}

struct private_audit {
    struct audit *audit;
    size_t bytes;
};

static int audit_private_pool(struct pm_heap *heap, struct pm_pool *pool, void *arg) {
    struct private_audit *const private = arg;
    check(private->audit, pool->shared.owner == heap, "a private heap owns its pools", pool);
    private->bytes += PM_POOL_BYTES(pool->shared.bits);
    return 0;
}

static void audit_private(struct audit *audit, struct pm_heap *heap) {
    struct private_audit private = { audit, 0 };
    size_t blocks = 0, bytes = 0, size;
    pm_heap_each_pool(heap, audit_private_pool, &private);
    for (const struct pm_pool *pool = heap->told; pool != NULL; pool = pool->remote.told) {
        check(audit, (pool->remote.word & PM_REMOTE_TELLING) != 0, "told of = telling", pool);
    }
    check(audit, private.bytes == heap->pool_bytes, "pool_bytes = bytes of its pools", heap);
    for (unsigned shard = 0; shard < PM_RUNS_COUNT; shard++) {
        PM_LIST_EACH(link, &heap->runs[shard]) {
            const void *const run = pm_run_of_link(&pm_runs[shard], link, &size);
            check(audit, pm_run_owner(&pm_runs[shard], run) == heap, "its runs are in use", run);
            blocks++;
            bytes += size;
        }
    }
    PM_LIST_EACH(link, &heap->huge) {
        const void *const huge = pm_huge_of_link(link, &size);
        check(audit, pm_huge_owner(huge) == heap, "its huge blocks are in use", huge);
        blocks++;
        bytes += size;
    }
    check(audit, blocks == heap->large_blocks, "large_blocks = its runs and huge blocks", heap);
    check(audit, bytes == heap->large_bytes, "large_bytes = bytes of these", heap);
}

static void audit_thp(struct audit *audit, const struct pm_thp_arena *thp,
                      const struct pm_list *sparse, size_t free, size_t used) {
    check(audit, thp->free == free, "free = its free and resident pools or units", thp);
    check(audit, thp->used == used, "used = its pools or units that are not free", thp);
    check(audit, on_list(sparse, &thp->sparse) == pm_thp_is_sparse(thp),
          "sparse = asks for huge pages, and has so much free", thp);
}

// Is the arena the one that shows what the program touches?
static bool is_sample(struct audit *audit, const struct pm_thp_sample *sample, const void *arena,
                      const struct pm_thp_arena *thp) {
    check(audit, sample->arena != arena || !thp->asks, "the sample refuses huge pages", arena);
    return sample->arena == arena;
}

static void audit_arenas(struct audit *audit, const struct pm_arenas *arenas) {
    size_t count = 0, empty = 0, taken = 0, touched = 0, resident = 0, due = 0, samples = 0;
    size_t latest = 0;
    for (pm_class class = 0; class < PM_CLASS_COUNT; class ++) {
        latest += arenas->latest[class] != NULL;
    }
    PM_LIST_EACH(link, &arenas->every) {
        struct pm_arena *const arena = PM_LIST_ENTRY(link, struct pm_arena, head.every);
        const unsigned free = pm_count_bits(arena->head.free);
        check(audit, on_list(&arenas->by_free[free], &arena->head.link),
              "an arena is listed by its number of free pools", arena);
        check(audit, free == 0 || (arenas->filled >> (free - 1) & 1) != 0,
              "filled = lists that have an arena", arena);
        count++;
        size_t warm = 0;
        empty += free == arena->head.pools;
        for (unsigned i = 1; i <= arena->head.pools; i++) {
            if ((arena->head.opened >> i & 1) != 0) {
                const struct pm_pool *const pool = (const struct pm_pool *)arena + i;
                audit_pool(audit, arenas, pool);
                taken += pool->shared.owner != PM_OWNER_ARENA;
                touched += pool->shared.owner != PM_OWNER_ARENA
                               ? pool->owned.touched - pm_inner_bytes(pool)
                               : 0;
                if (pool->shared.state == PM_POOL_FREE) {
                    resident += pool->owned.touched;
                    warm += pool->owned.touched != 0;
                    latest -=
                        pool->owned.touched != 0 && arenas->latest[pool->shared.class] == pool;
                }
            }
        }
        audit_thp(audit, &arena->thp, &arenas->sparse, warm, arena->head.pools - free);
        samples += is_sample(audit, &arenas->sample, arena, &arena->thp);
        check(audit, (arena->head.due & arena->head.free) == 0, "no free pool is due", arena);
        check(audit, arena->thp.due == pm_count_bits(arena->head.due), "due = its pools that are",
              arena);
        due += arena->thp.due;
    }
    check(audit, latest == 0, "what a class gave back last is free, resident and of that class",
          arenas);
    check(audit, samples == (arenas->sample.arena != NULL), "the sample is one arena", arenas);
    check(audit, due == arenas->due, "due = pools to be purged inside", arenas);
    check(audit, count == arenas->count, "count = arenas on the list", arenas);
    check(audit, empty == arenas->empty, "empty = arenas that are wholly free", arenas);
    check(audit, taken == arenas->taken, "taken = pools that are not free", arenas);
    check(audit, touched == arenas->touched, "touched = touched bytes of pools that are not free",
          arenas);
    check(audit, resident == arenas->resident_bytes, "resident = touched bytes of free pools",
          arenas);
}

static void audit_runs(struct audit *audit, const struct pm_runs *runs) {
    size_t used = 0, resident = 0, empty = 0, samples = 0;
    PM_LIST_EACH(link, &runs->every) {
        const struct pm_run_arena *const arena = PM_LIST_ENTRY(link, struct pm_run_arena, every);
        bool after_free = false;
        size_t free_units = 0, used_units = 0;
        check(audit, runs->slot_kind != PM_SLOT_RUNS || runs == &pm_runs[arena->shard],
              "an arena knows its shard", arena);
        for (size_t unit = 1; unit < PM_ARENA_UNITS;) {
            const struct pm_run *const run = &arena->run[unit];
            const unsigned state = pm_get(&arena->state[unit]);
            const bool free = state == PM_UNIT_FREE;
            check(audit, run->units >= 1 && unit + run->units <= PM_ARENA_UNITS,
                  "runs fill their arena", run);
            check(audit,
                  free || state == PM_UNIT_USED || state == PM_UNIT_LATEST ||
                      state == PM_UNIT_PURGING,
                  "a run starts FREE, USED, LATEST or PURGING", run);
            check(audit, !(free && after_free), "no two free runs are neighbours", run);
            for (size_t i = 1; i < run->units && unit + i < PM_ARENA_UNITS; i++) {
                const bool last = free && i == run->units - 1;
                check(audit, arena->state[unit + i] == (last ? PM_UNIT_LAST : PM_UNIT_INNER),
                      "the later units of a run are INNER, the last of a free one LAST", run);
            }
            if (free) {
                check(audit, on_list(&runs->fit[run->units], &run->fit),
                      "a free run is listed by its length", run);
                check(audit, (run->purgeable != 0) == (run->age.next != NULL),
                      "a purgeable free run is listed by its age", run);
                check(audit,
                      arena->thp.asks ? run->purgeable <= run->resident
                                      : run->purgeable == run->resident,
                      "all is purgeable where no huge page is asked for", run);
                free_units += run->resident;
                empty += run->units == PM_ARENA_UNITS - 1;
            } else if (state == PM_UNIT_USED) {
                check(audit,
                      run->owner == NULL || on_list(&run->owner->runs[runs - pm_runs], &run->fit),
                      "a run of a private heap is on its list", run);
                used_units += run->units;
            } else if (state == PM_UNIT_LATEST) {
                check(audit, run->owner == NULL, "a run that waits has no owner", run);
                used_units += run->units;
                audit->waiting++;
            }
            after_free = free;
            unit += pm_max(run->units, 1);
        }
        audit_thp(audit, &arena->thp, &runs->sparse, free_units, used_units);
        samples += is_sample(audit, &runs->sample, arena, &arena->thp);
        resident += free_units;
        used += used_units;
    }
    check(audit, samples == (runs->sample.arena != NULL), "the sample is one arena", runs);
    check(audit, used == runs->used_units, "used = units of runs in use", runs);
    check(audit, resident == runs->resident_units, "resident = units of free runs", runs);
    check(audit, empty == runs->empty, "empty = run arenas that are wholly free", runs);
}

static void audit_huge(struct audit *audit) {
    size_t used = 0, cached = 0;
    PM_LIST_EACH(link, &pm_huge_blocks.used) {
        struct pm_huge *const huge = PM_LIST_ENTRY(link, struct pm_huge, link);
        check(audit, *pm_map_huge(huge->at) == huge, "a huge block is found by its slot", huge);
        check(audit, pm_map_kind(huge->at) == PM_SLOT_HUGE, "the map knows it", huge);
        used += huge->size;
    }
    PM_LIST_EACH(link, &pm_huge_blocks.cached) {
        cached += PM_LIST_ENTRY(link, struct pm_huge, link)->size;
    }
    check(audit, used == pm_huge_blocks.used_bytes, "used bytes = huge blocks", &pm_huge_blocks);
    check(audit, cached == pm_huge_blocks.cached_bytes, "cached bytes = the cache",
          &pm_huge_blocks);
}

size_t pm_audit(void) {
    struct audit audit = { 0 };
    size_t places = 0;
    pm_lock(&pm_heaps.lock);
    PM_LIST_EACH(heap, &pm_heaps.every) {
        pm_lock(&PM_LIST_ENTRY(heap, struct pm_heap, every)->lock);
    }
    PM_LIST_EACH(heap, &pm_heaps.private_heaps) {
        pm_lock(&PM_LIST_ENTRY(heap, struct pm_heap, every)->lock);
    }
    for (unsigned kind = 0; kind < PM_ARENAS_COUNT; kind++) {
        pm_lock(&pm_arenas[kind].lock);
    }
    for (unsigned shard = 0; shard < PM_RUNS_COUNT; shard++) {
        pm_lock(&pm_runs[shard].lock);
    }
    pm_lock(&pm_huge_blocks.lock);
    PM_LIST_EACH(heap, &pm_heaps.every) {
        audit_bins(&audit, PM_LIST_ENTRY(heap, struct pm_heap, every));
        audit_chains(&audit, PM_LIST_ENTRY(heap, struct pm_heap, every));
        const uintptr_t word = pm_get(&PM_LIST_ENTRY(heap, struct pm_heap, every)->latest);
        check(&audit, word == 0 || pm_run_is_waiting(word), "a place tells of a run that waits",
              PM_LIST_ENTRY(heap, struct pm_heap, every));
        places += word != 0;
    }
    PM_LIST_EACH(heap, &pm_heaps.private_heaps) {
        audit_bins(&audit, PM_LIST_ENTRY(heap, struct pm_heap, every));
        audit_private(&audit, PM_LIST_ENTRY(heap, struct pm_heap, every));
    }
    for (unsigned kind = 0; kind < PM_ARENAS_COUNT; kind++) {
        audit_arenas(&audit, &pm_arenas[kind]);
    }
    for (unsigned shard = 0; shard < PM_RUNS_COUNT; shard++) {
        audit_runs(&audit, &pm_runs[shard]);
    }
    // More may be: a fork, or a jump out of a handler, leaves what a thread had in hands.
    check(&audit, places <= audit.waiting, "what is in a place waits", &pm_heaps);
    audit_huge(&audit);
    pm_unlock(&pm_huge_blocks.lock);
    for (unsigned shard = 0; shard < PM_RUNS_COUNT; shard++) {
        pm_unlock(&pm_runs[shard].lock);
    }
    for (unsigned kind = 0; kind < PM_ARENAS_COUNT; kind++) {
        pm_unlock(&pm_arenas[kind].lock);
    }
    PM_LIST_EACH(heap, &pm_heaps.private_heaps) {
        pm_unlock(&PM_LIST_ENTRY(heap, struct pm_heap, every)->lock);
    }
    PM_LIST_EACH(heap, &pm_heaps.every) {
        pm_unlock(&PM_LIST_ENTRY(heap, struct pm_heap, every)->lock);
    }
    pm_unlock(&pm_heaps.lock);
    return audit.faults;
}

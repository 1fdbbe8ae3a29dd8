// SPDX-License-Identifier: MIT
// Copyright (c) the poolmalloc authors

// The misses of private heaps, their large blocks, and the walk over all blocks.

#include "core/private.h"

#include <string.h>

#include "base/bits.h"
#include "core/age.h"
#include "core/arena.h"
#include "core/huge.h"
#include "core/inner.h"
#include "core/limit.h"
#include "core/misuse.h"
#include "core/mode.h"
#include "poolmalloc.h"

struct pm_heap *pm_private_begin(void *context) {
    return pm_heap_begin_private(context);
}

static void *pool_block(struct pm_heap *heap, pm_class class, bool exact) {
    uintptr_t damaged = 0;
    const uintptr_t block = pm_heap_take_block(heap, class, exact, &damaged);
    if (PM_UNLIKELY(damaged != 0)) {
        pm_misuse("pm_heap_malloc", (const void *)damaged, PM_LIST_OVERWRITTEN);
    }
    return (void *)block;
}

static void *owned(struct pm_heap *heap, void *large) {
    if (large != NULL) {
        pm_large_set_owner(large, heap);
    }
    return large;
}

static void *any_block(struct pm_heap *heap, size_t n, bool zero) {
    return n <= PM_MEDIUM_MAX ? pool_block(heap, pm_class_of(n), false)
                              : owned(heap, pm_large_malloc(n, PM_BLOCK_ALIGN, zero));
}

// When memory is refused: the heap's own pools can serve other classes, or large blocks.
static bool reclaim(struct pm_heap *heap, size_t n) {
    if (!pm_limit_can_ever_allow(n)) {
        return false;
    }
    const size_t pools = heap->pool_bytes, bytes = pm_heap_trim_pools(heap, true);
    return pm_age_trim() + bytes != 0 || heap->pool_bytes != pools;
}

void *pm_private_malloc(struct pm_heap *heap, size_t n, bool zero) {
    pm_age();
    void *block = any_block(heap, n, zero);
    if (PM_UNLIKELY(block == NULL) && reclaim(heap, n)) {
        block = any_block(heap, n, zero);
    }
    if (zero && block != NULL && n <= PM_MEDIUM_MAX) {
        memset(block, 0, n);
    }
    return block;
}

static void *any_aligned(struct pm_heap *heap, size_t align, size_t n) {
    return pm_class_can_align(align, n) ? pool_block(heap, pm_class_aligned(align, n), true)
                                        : owned(heap, pm_large_malloc(n, align, false));
}

void *pm_private_aligned(struct pm_heap *heap, size_t align, size_t n) {
    pm_age();
    void *const block = any_aligned(heap, align, pm_max(n, 1));
    return PM_UNLIKELY(block == NULL) && reclaim(heap, n) ? any_aligned(heap, align, pm_max(n, 1))
                                                          : block;
}

enum pm_verdict pm_private_prove(const struct pm_heap *heap, const void *block, size_t *size) {
    enum pm_verdict verdict;
    *size = pm_mode_default.usable_size(block, &verdict);
    return verdict == PM_DONE && pm_private_owner(block) != heap ? PM_ANOTHER_HEAPS : verdict;
}

enum pm_verdict pm_private_free(struct pm_heap *heap, void *block) {
    size_t size;
    const enum pm_verdict verdict = pm_private_prove(heap, block, &size);
    if (verdict != PM_DONE) {
        return verdict;
    }
    switch (pm_map_kind(block)) {
    case PM_SLOT_SMALL: return pm_heap_free_block(heap, block, PM_SMALL_POOL_BITS);
    case PM_SLOT_MEDIUM: return pm_heap_free_block(heap, block, PM_MEDIUM_POOL_BITS);
    default: return pm_large_free(block);
    }
}

void *pm_private_realloc(struct pm_heap *heap, void *block, size_t n, enum pm_verdict *verdict) {
    size_t size;
    *verdict = pm_private_prove(heap, block, &size);
    if (*verdict != PM_DONE) {
        return NULL;
    }
    void *moved = pm_block_resize(block, size, n);
    if (moved != NULL) {
        return moved;
    }
    moved = owned(heap, pm_large_malloc_growing(size, n));
    if (moved == NULL) {
        moved = pm_private_malloc(heap, n, false);
    }
    if (moved == NULL && n <= size) {
        return block;
    }
    if (moved != NULL) {
        memcpy(moved, block, pm_min(size, n));
        *verdict = pm_private_free(heap, block);
    }
    return moved;
}

// What a walk does with each block, and how a heap's blocks are counted.
struct walk {
    int (*visit)(void *block, size_t size, void *arg);
    void *arg;
};

// A set of places in a pool, one for each step of the smallest distance between its blocks: there
// are as many in a small pool as in a medium one.
#define PLACES (PM_POOL_BYTES(PM_SMALL_POOL_BITS) / PM_BLOCK_ALIGN)

_Static_assert(PM_SMALL_MAX % (PM_POOL_BYTES(PM_MEDIUM_POOL_BITS) / PLACES) == 0,
               "the blocks of medium pools start at places");

struct places {
    uint64_t word[PLACES / 64];
    unsigned shift; // bytes of a place
};

static bool has_place(const struct places *places, size_t offset) {
    const size_t place = offset >> places->shift;
    return (places->word[place / 64] >> (place % 64) & 1) != 0;
}

static void add_place(struct places *places, size_t offset) {
    const size_t place = offset >> places->shift;
    places->word[place / 64] |= UINT64_C(1) << (place % 64);
}

// Adds the blocks of a list that has `count` of them; one that comes back to itself never ends.
static void add_list(struct places *free, const struct pm_pool *pool, uintptr_t block,
                     size_t count) {
    const uintptr_t base = pm_pool_base(pool);
    const uint64_t key = pool->shared.key, divisor = pool->shared.divisor;
    const uint64_t bound = pool->shared.carved * divisor;
    const unsigned bits = pool->shared.bits;
    uintptr_t from = block;
    while (count != 0 && block != 0 && pm_link_sound(block, from, bits) &&
           PM_LIKELY((block - base) * divisor < bound)) {
        add_place(free, block - base);
        from = block;
        block = pm_link_read(block, key);
        count--;
    }
    // A list that ends early is whole: who was stopped in a fast path, by a fork or a jump, has
    // lost a block.
    if (PM_UNLIKELY(block != 0)) {
        pm_misuse("pm_heap_walk", (const void *)from, PM_LIST_OVERWRITTEN);
    }
}

static int visit_all(const struct pm_pool *pool, const struct walk *walk) {
    const size_t size = pm_classes[pool->shared.class].size, carved = pool->shared.carved;
    char *const base = (char *)pm_pool_base(pool);
    int answer = 0;
    for (size_t offset = 0; answer == 0 && offset < carved; offset += size) {
        answer = walk->visit(base + offset, size, walk->arg);
    }
    return answer;
}

static void find_free(struct places *free, const struct pm_pool *pool) {
    const size_t size = pm_classes[pool->shared.class].size, carved = pool->shared.carved;
    const uint64_t remote = __atomic_load_n(&pool->remote.word, __ATOMIC_ACQUIRE);
    const size_t used = pool->owned.used - (pool->shared.state == PM_POOL_CURRENT);
    free->shift = pool->shared.bits - pm_log2(PLACES);
    add_list(free, pool, pool->owned.list, carved / size - used - pool->inner.away);
    add_list(free, pool, remote & PM_REMOTE_LIST_MASK, remote >> PM_REMOTE_COUNT_SHIFT);
    for (size_t i = 0; pm_inner_has_away(pool) && i < carved / size; i++) {
        if (pm_inner_is_away(pool, i)) {
            add_place(free, i * size);
        }
    }
}

static PM_NOINLINE int visit_used(const struct pm_pool *pool, const struct walk *walk) {
    const size_t size = pm_classes[pool->shared.class].size, carved = pool->shared.carved;
    char *const base = (char *)pm_pool_base(pool);
    struct places free = { 0 };
    int answer = 0;
    find_free(&free, pool);
    for (size_t offset = 0; answer == 0 && offset < carved; offset += size) {
        if (!has_place(&free, offset)) {
            answer = walk->visit(base + offset, size, walk->arg);
        }
    }
    return answer;
}

static int walk_pool(struct pm_heap *heap, struct pm_pool *pool, void *arg) {
    (void)heap;
    const uint32_t in_use = pm_pool_in_use(pool);
    const size_t size = pm_classes[pool->shared.class].size;
    return in_use == 0                            ? 0
           : in_use * size == pool->shared.carved ? visit_all(pool, arg)
                                                  : visit_used(pool, arg);
}

// The lists of large blocks change only where a large block of this heap does.
static int walk_large(struct pm_heap *heap, const struct walk *walk) {
    size_t size;
    int answer = 0;
    for (unsigned shard = 0; shard < PM_RUNS_COUNT; shard++) {
        PM_LIST_EACH(link, &heap->runs[shard]) {
            void *const run = pm_run_of_link(&pm_runs[shard], link, &size);
            answer = walk->visit(run, size, walk->arg);
            if (answer != 0) {
                return answer;
            }
        }
    }
    PM_LIST_EACH(link, &heap->huge) {
        void *const huge = pm_huge_of_link(link, &size);
        answer = walk->visit(huge, size, walk->arg);
        if (answer != 0) {
            return answer;
        }
    }
    return answer;
}

int pm_private_walk(struct pm_heap *heap, int (*visit)(void *block, size_t size, void *arg),
                    void *arg) {
    struct walk walk = { visit, arg };
    const int answer = pm_heap_each_pool(heap, walk_pool, &walk);
    return answer != 0 ? answer : walk_large(heap, &walk);
}

static int count_pool(struct pm_heap *heap, struct pm_pool *pool, void *arg) {
    (void)heap;
    struct pm_heap_stats *const stats = arg;
    const uint32_t in_use = pm_pool_in_use(pool);
    stats->pools++;
    stats->blocks += in_use;
    stats->bytes += in_use * (size_t)pm_classes[pool->shared.class].size;
    return 0;
}

void pm_private_stats(struct pm_heap *heap, struct pm_heap_stats *to) {
    const size_t large_bytes = pm_get(&heap->large_bytes);
    *to = (struct pm_heap_stats){
        .blocks = pm_get(&heap->large_blocks),
        .bytes = large_bytes,
        .large_blocks = pm_get(&heap->large_blocks),
        .large_bytes = large_bytes,
        .held = pm_get(&heap->pool_bytes) + large_bytes,
    };
    pm_heap_each_pool(heap, count_pool, to);
}

size_t pm_private_trim(struct pm_heap *heap) {
    size_t bytes = pm_heap_trim_pools(heap, true);
    pm_run_empty_own_place();
    bytes += pm_arenas_trim();
    return bytes + pm_runs_trim() + pm_huge_trim();
}

static int free_large(void *block, size_t size, void *arg) {
    (void)size;
    (void)arg;
    pm_large_free(block);
    return 0;
}

void pm_private_end(struct pm_heap *heap) {
    struct walk walk = { free_large, NULL };
    walk_large(heap, &walk);
    pm_heap_end_private(heap);
}

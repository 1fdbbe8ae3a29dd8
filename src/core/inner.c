// SPDX-License-Identifier: MIT
// Copyright (c) the poolmalloc authors

// Free blocks are found on the pool's lists, whose links stay where they are.

#include "core/inner.h"

#include "base/bits.h"
#include "os/os.h"

_Static_assert(PM_POOL_BYTES(PM_MEDIUM_POOL_BITS) / PM_SMALL_MAX <= 64, "blocks fit a word");

bool pm_inner_pages(const struct pm_pool *pool, size_t index, uintptr_t *start, uintptr_t *end) {
    const size_t size = pm_classes[pool->shared.class].size;
    const uintptr_t block = pm_pool_base(pool) + index * size;
    *start = pm_round_up(block + sizeof(pm_link), pm_os_page_size());
    *end = pm_round_down(block + size, pm_os_page_size());
    return *start < *end;
}

// The blocks of a list, by index. It may grow at its front meanwhile.
static uint64_t blocks_of(const struct pm_pool *pool, uintptr_t block) {
    const uintptr_t base = pm_pool_base(pool);
    const size_t size = pm_classes[pool->shared.class].size;
    uint64_t blocks = 0;
    // A damaged list is malloc's to report.
    while (block != 0 && pm_pool_has_block(pool, block - base)) {
        const uint64_t bit = UINT64_C(1) << ((block - base) / size);
        const uintptr_t next = pm_link_read(block, pool->shared.key);
        if ((blocks & bit) != 0 || !pm_link_sound(next, block, pool->shared.bits)) {
            break;
        }
        blocks |= bit;
        block = next;
    }
    return blocks;
}

size_t pm_inner_purge(struct pm_pool *pool, bool now) {
    struct pm_pool_inner *const inner = &pool->inner;
    const uint32_t used = pm_get(&pool->owned.used);
    size_t bytes = 0;
    const struct pm_arena *const arena = pm_arena_of(pool);
    // Of an arena that asks for huge pages no parts of them go.
    if (pm_get(&arena->thp.asks) && pm_pool_base(pool) - (uintptr_t)arena >= PM_HUGE_PAGE_BYTES) {
        return 0;
    }
    const bool same = inner->seen_used == used;
    inner->seen_used = used;
    if (!same && !now) {
        return 0;
    }
    uint64_t left = blocks_of(pool, pm_get(&pool->owned.list)) |
                    blocks_of(pool, pm_get(&pool->remote.word) & PM_REMOTE_LIST_MASK);
    for (left &= ~inner->purged; left != 0; left &= left - 1) {
        const unsigned index = pm_lowest_bit(left);
        uintptr_t start, end;
        if (!pm_inner_pages(pool, index, &start, &end)) {
            continue;
        }
        // The OS refuses locked pages (mlock).
        if (pm_os_purge((void *)start, end - start) != 0) {
            break;
        }
        pm_set(&inner->purged, inner->purged | UINT64_C(1) << index);
        bytes += end - start;
    }
    return bytes;
}

// SPDX-License-Identifier: MIT
// Copyright (c) the poolmalloc authors

// What can be purged is found by walking the lists of free blocks: a page goes when each block in
// it was met there, or was put away before. The list that stays is made anew, in order of
// addresses.

#include "core/inner.h"

#include <string.h>

#include "base/bits.h"
#include "core/arena.h"
#include "core/limit.h"
#include "os/os.h"

#define BLOCKS_MAX (PM_POOL_BYTES(PM_SMALL_POOL_BITS) / PM_BLOCK_ALIGN)

_Static_assert(PM_POOL_BYTES(PM_MEDIUM_POOL_BITS) / PM_SMALL_MAX <= BLOCKS_MAX, "all blocks fit");

// Sets of blocks, by index, and of pages.
struct blocks {
    uint64_t word[BLOCKS_MAX / 64];
};
struct pages {
    uint64_t word[PM_POOL_PAGE_WORDS];
};

static bool has_bit(const uint64_t *words, size_t bit) {
    return (pm_get(&words[bit / 64]) >> (bit % 64) & 1) != 0;
}

static void set_bit(uint64_t *words, size_t bit, bool value) {
    const uint64_t mask = UINT64_C(1) << (bit % 64), old = pm_get(&words[bit / 64]);
    pm_set(&words[bit / 64], value ? old | mask : old & ~mask);
}

// Both ends belong to it.
struct span {
    size_t first, last;
};

static size_t block_size(const struct pm_pool *pool) {
    return pm_classes[pool->shared.class].size;
}

static size_t carved_blocks(const struct pm_pool *pool) {
    return pm_get(&pool->shared.carved) / block_size(pool);
}

// The pages that a block lies in.
static struct span pages_of(const struct pm_pool *pool, size_t index) {
    const size_t size = block_size(pool), page = pm_os_page_size();
    return (struct span){ index * size / page, (index * size + size - 1) / page };
}

// The blocks that lie in these pages; there is one.
static struct span blocks_in(const struct pm_pool *pool, struct span pages) {
    const size_t size = block_size(pool), page = pm_os_page_size();
    return (struct span){ pages.first * page / size,
                          pm_min(((pages.last + 1) * page - 1) / size, carved_blocks(pool) - 1) };
}

static bool lies_in(const struct pm_pool *pool, size_t index, const uint64_t *pages) {
    const struct span span = pages_of(pool, index);
    for (size_t page = span.first; page <= span.last; page++) {
        if (has_bit(pages, page)) {
            return true;
        }
    }
    return false;
}

bool pm_inner_is_away(const struct pm_pool *pool, size_t index) {
    return pm_inner_has_away(pool) && lies_in(pool, index, pool->inner.purged);
}

size_t pm_inner_bytes(const struct pm_pool *pool) {
    size_t pages = 0;
    for (size_t i = 0; i < PM_POOL_PAGE_WORDS; i++) {
        pages += pm_count_bits(pm_get(&pool->inner.purged[i]));
    }
    return pages * pm_os_page_size();
}

// Of an arena that asks for huge pages, no parts of them go.
static bool is_in_huge_page(const struct pm_pool *pool) {
    const struct pm_arena *const arena = pm_arena_of(pool);
    return pm_get(&arena->thp.asks) &&
           (pool->shared.bits == PM_SMALL_POOL_BITS ||
            pm_pool_base(pool) - (uintptr_t)arena >= PM_HUGE_PAGE_BYTES);
}

static bool is_current(const struct pm_pool *pool) {
    return pm_get(&pool->shared.state) == PM_POOL_CURRENT;
}

bool pm_inner_is_due(struct pm_pool *pool, bool all) {
    struct pm_pool_inner *const inner = &pool->inner;
    const uint64_t remote = pm_get(&pool->remote.word) >> PM_REMOTE_COUNT_SHIFT;
    const uint32_t in_use = pm_get(&pool->owned.used) - (uint32_t)remote - is_current(pool);
    if (inner->seen_used != in_use) {
        pm_set(&inner->seen_used, in_use);
        pm_set(&inner->looks, 0);
    } else if (inner->looks < PM_INNER_REFUSED) {
        pm_set(&inner->looks, inner->looks + 1);
    }
    // Each block in use keeps its pages, so many at least.
    const size_t kept = in_use * pm_max(block_size(pool), pm_os_page_size());
    const size_t carved = pm_get(&pool->shared.carved);
    const bool is_sparse = kept < carved - carved / PM_INNER_SHARE;
    const bool rests = inner->looks >= PM_INNER_REST && inner->looks < PM_INNER_REFUSED;
    // Who lists or abandons a pool that has served has it looked at anew; a current one may change
    // without a trace.
    const bool done = inner->looks == PM_INNER_DONE && !is_current(pool);
    const bool parts_go = !is_in_huge_page(pool), due = is_sparse && (all || rests);
    // A current pool would be marked still when it is full.
    const bool marked = due && !parts_go && !is_current(pool);
    if (PM_UNLIKELY(marked != inner->is_marked)) {
        pm_arena_mark_due(pool, marked);
    }
    return parts_go && !done && (all || due);
}

// Adds the blocks of a list. Returns how many; 0 when it is damaged, which is malloc's to report.
static size_t add_list(struct blocks *free, const struct pm_pool *pool, uintptr_t block) {
    const uintptr_t base = pm_pool_base(pool);
    const size_t size = block_size(pool);
    size_t count = 0;
    while (block != 0) {
        if (!pm_pool_has_carved(pool, block - base) || has_bit(free->word, (block - base) / size)) {
            return 0;
        }
        set_bit(free->word, (block - base) / size, true);
        count++;
        const uintptr_t next = pm_link_read(block, pool->shared.key);
        if (!pm_link_sound(next, block, pool->shared.bits)) {
            return 0;
        }
        block = next;
    }
    return count;
}

// The blocks that are free while the remote word is `remote`. False when a list is damaged.
static bool find_free(struct blocks *free, const struct pm_pool *pool, uint64_t remote) {
    const size_t listed =
        carved_blocks(pool) - (pool->owned.used - is_current(pool)) - pool->inner.away;
    const size_t pushed = remote >> PM_REMOTE_COUNT_SHIFT;
    if (add_list(free, pool, pool->owned.list) != listed ||
        add_list(free, pool, remote & PM_REMOTE_LIST_MASK) != pushed) {
        return false;
    }
    for (size_t i = 0; pm_inner_has_away(pool) && i < carved_blocks(pool); i++) {
        if (lies_in(pool, i, pool->inner.purged)) {
            set_bit(free->word, i, true);
        }
    }
    return true;
}

// The pages in which all blocks are free, and that were not purged before. Returns how many.
static size_t choose_pages(struct pages *chosen, const struct pm_pool *pool,
                           const struct blocks *free) {
    const size_t page = pm_os_page_size(), carved = pm_get(&pool->shared.carved);
    const size_t pages = carved == pool->owned.end ? (carved + page - 1) / page : carved / page;
    size_t count = 0;
    for (size_t i = 0; i < pages; i++) {
        const struct span blocks = blocks_in(pool, (struct span){ i, i });
        size_t block = blocks.first;
        while (block <= blocks.last && has_bit(free->word, block)) {
            block++;
        }
        if (block > blocks.last && !has_bit(pool->inner.purged, i)) {
            set_bit(chosen->word, i, true);
            count++;
        }
    }
    return count;
}

// Adds these pages to those purged inside, and lists the free blocks that lie in none.
static void put_away(struct pm_pool *pool, const struct blocks *free, const struct pages *chosen) {
    const uintptr_t base = pm_pool_base(pool);
    const size_t size = block_size(pool);
    uintptr_t list = 0;
    uint32_t away = 0;
    for (size_t i = 0; i < PM_POOL_PAGE_WORDS; i++) {
        pm_set(&pool->inner.purged[i], pool->inner.purged[i] | chosen->word[i]);
    }
    for (size_t i = carved_blocks(pool); i-- > 0;) {
        if (!has_bit(free->word, i)) {
            continue;
        }
        if (lies_in(pool, i, pool->inner.purged)) {
            away++;
        } else {
            pm_link_write(base + i * size, list, pool->owned.key);
            list = base + i * size;
        }
    }
    pm_set(&pool->shared.bound, 0);
    pm_set(&pool->inner.away, away);
    pm_set(&pool->owned.list, list);
}

// Lists the blocks that were put away for these pages, and lie in no other that is purged.
static void restore(struct pm_pool *pool, struct span pages) {
    const uintptr_t base = pm_pool_base(pool);
    const size_t size = block_size(pool);
    const struct span blocks = blocks_in(pool, pages);
    struct pages before;
    uintptr_t list = pool->owned.list;
    uint32_t away = pool->inner.away;
    memcpy(before.word, pool->inner.purged, sizeof before.word);
    for (size_t page = pages.first; page <= pages.last; page++) {
        set_bit(pool->inner.purged, page, false);
    }
    for (size_t i = blocks.last + 1; i-- > blocks.first;) {
        if (lies_in(pool, i, before.word) && !lies_in(pool, i, pool->inner.purged)) {
            pm_link_write(base + i * size, list, pool->owned.key);
            list = base + i * size;
            away--;
        }
    }
    pm_set(&pool->inner.away, away);
    if (away == 0) {
        pm_pool_set_carved(pool, pool->shared.carved);
    }
    pm_signal_fence();
    pm_set(&pool->owned.list, list);
}

// Purges these pages, in as few calls as may be. What the OS refuses, as it does for locked pages
// (mlock), is restored.
static size_t purge_pages(struct pm_pool *pool, const struct pages *chosen) {
    const uintptr_t base = pm_pool_base(pool);
    const size_t page = pm_os_page_size(), pages = PM_POOL_BYTES(pool->shared.bits) / page;
    size_t bytes = 0;
    for (size_t first = 0, last; first < pages; first = last + 1) {
        last = first;
        if (!has_bit(chosen->word, first)) {
            continue;
        }
        while (last + 1 < pages && has_bit(chosen->word, last + 1)) {
            last++;
        }
        const size_t length = (last + 1 - first) * page;
        if (pm_os_purge((void *)(base + first * page), length) == 0) {
            bytes += length;
        } else {
            restore(pool, (struct span){ first, last });
            pm_set(&pool->inner.looks, PM_INNER_REFUSED);
        }
    }
    return bytes;
}

size_t pm_inner_purge(struct pm_pool *pool) {
    struct blocks free = { 0 };
    struct pages chosen = { 0 };
    uint64_t remote = __atomic_load_n(&pool->remote.word, __ATOMIC_ACQUIRE);
    const uint32_t pushed = (uint32_t)(remote >> PM_REMOTE_COUNT_SHIFT);
    // A pool of which others have freed all is given back as a whole.
    if (pushed == pool->owned.used) {
        return 0;
    }
    const bool some = find_free(&free, pool, remote) && choose_pages(&chosen, pool, &free) != 0;
    if (some && !__atomic_compare_exchange_n(&pool->remote.word, &remote, remote & PM_REMOTE_FLAGS,
                                             false, __ATOMIC_ACQUIRE, __ATOMIC_RELAXED)) {
        return 0;
    }
    pm_set(&pool->inner.looks, PM_INNER_DONE);
    if (!some) {
        return 0;
    }
    pm_add(&pool->owned.used, -pushed);
    put_away(pool, &free, &chosen);
    const size_t bytes = purge_pages(pool, &chosen);
    pm_arena_count_touched(pool, -bytes);
    return bytes;
}

size_t pm_inner_restore(struct pm_pool *pool) {
    size_t page = 0;
    if (!pm_inner_has_away(pool)) {
        return 0;
    }
    while (!has_bit(pool->inner.purged, page)) {
        page++;
        PM_ASSERT(page < 64 * PM_POOL_PAGE_WORDS);
    }
    const size_t first = blocks_in(pool, (struct span){ page, page }).first;
    const struct span pages = { page, pages_of(pool, first).last };
    size_t count = 0;
    for (size_t i = pages.first; i <= pages.last; i++) {
        count += has_bit(pool->inner.purged, i);
    }
    const size_t bytes = count * pm_os_page_size();
    if (!pm_limit_allows(bytes)) {
        return 0;
    }
    pm_arena_count_touched(pool, bytes);
    restore(pool, pages);
    return bytes;
}

void pm_inner_forget(struct pm_pool *pool) {
    if (PM_UNLIKELY(pm_inner_has_away(pool))) {
        pm_arena_count_touched(pool, pm_inner_bytes(pool));
        for (size_t i = 0; i < PM_POOL_PAGE_WORDS; i++) {
            pm_set(&pool->inner.purged[i], 0);
        }
        pm_set(&pool->inner.away, 0);
        pm_pool_set_carved(pool, pool->shared.carved);
    }
}

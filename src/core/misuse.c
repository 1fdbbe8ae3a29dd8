// SPDX-License-Identifier: MIT
// Copyright (c) the poolmalloc authors

// One format and one exit for all misuse.

#include "core/misuse.h"

#include "base/atomic.h"
#include "base/format.h"
#include "config/limits.h"
#include "core/huge.h"
#include "core/map.h"
#include "core/pool.h"
#include "core/run.h"
#include "os/os.h"

static const char *const texts[PM_VERDICT_COUNT] = {
    [PM_DONE] = "served",
    [PM_LIBCS] = "a block of libc's own malloc",
    [PM_DOUBLE_FREE] = "double free: already free",
    [PM_INSIDE] = "not a block but an address inside a block",
    [PM_UNALIGNED] = "not aligned to 16 bytes, so no block",
    [PM_NEVER_HANDED_OUT] = "never handed out: no block was made here",
    [PM_STRAY] = "stray address: in nobody's heap (stack, static or mapped memory, or wild)",
    [PM_NOT_A_POINTER] = "not a pointer: no program has memory here",
    [PM_ANOTHER_HEAPS] = "a block of another heap than the one that was named",
    [PM_NO_PRIVATE_HEAPS] = "a block of no private heap",
    [PM_ENDED_HEAP] = "a heap that has been destroyed",
    [PM_LIST_OVERWRITTEN] = "free list overwritten: the program wrote to this block after its free",
};

static size_t describe_pool(char *to, size_t size, const void *at, unsigned bits) {
    const struct pm_pool *const pool = pm_pool_of(at, bits);
    if (pm_get(&pool->shared.divisor) == 0) {
        return pm_format(to, size, "; no pool was made here");
    }
    const uintptr_t base = pm_pool_base(pool), offset = (uintptr_t)at - base;
    const size_t block = pm_classes[pm_get(&pool->shared.class)].size;
    return pm_format(to, size, "; class of %zu bytes, pool %p, block %zu at %p%s", block,
                     (void *)base, offset / block, (void *)(base + offset / block * block),
                     pm_get(&pool->shared.state) == PM_POOL_FREE ? ", the whole pool is free" : "");
}

static size_t describe_run(char *to, size_t size, const void *at, enum pm_runs_kind kind) {
    const void *start;
    bool free;
    const size_t bytes = pm_run_around(pm_runs_of(kind, at), at, &start, &free);
    return pm_format(to, size,
                     free ? "; in a free run of %zu bytes at %p" : "; run of %zu bytes at %p",
                     bytes, start);
}

static size_t describe_huge(char *to, size_t size, const void *at) {
    const char *slot = (const char *)pm_slot_of(at);
    while (pm_map_kind(slot) == PM_SLOT_HUGE_INNER) {
        slot -= PM_SLOT_BYTES;
    }
    struct pm_huge **const entry = pm_map_huge(slot);
    const struct pm_huge *const huge = entry == NULL ? NULL : pm_get(entry);
    return huge == NULL
               ? 0
               : pm_format(to, size, "; huge block of %zu bytes at %p", huge->size, huge->at);
}

static size_t describe(char *to, size_t size, const void *at) {
    switch (pm_map_kind(at)) {
    case PM_SLOT_SMALL: return describe_pool(to, size, at, PM_SMALL_POOL_BITS);
    case PM_SLOT_MEDIUM: return describe_pool(to, size, at, PM_MEDIUM_POOL_BITS);
    case PM_SLOT_RUNS: return describe_run(to, size, at, PM_RUNS_SMALL);
    case PM_SLOT_LARGE_RUNS: return describe_run(to, size, at, PM_RUNS_LARGE);
    case PM_SLOT_HUGE:
    case PM_SLOT_HUGE_INNER: return describe_huge(to, size, at);
    case PM_SLOT_TOMBSTONE: return pm_format(to, size, "; its memory was given back to the system");
    default: return 0;
    }
}

void pm_misuse(const char *function, const void *at, enum pm_verdict verdict) {
    char line[PM_LINE_MAX];
    size_t length =
        pm_format(line, sizeof line, "poolmalloc: %s(%p): %s", function, at, texts[verdict]);
    length += describe(line + length, sizeof line - length, at);
    length += pm_format(line + length, sizeof line - length, "\n");
    pm_os_write(2, line, length);
    pm_os_abort();
}

// SPDX-License-Identifier: MIT
// Copyright (c) the poolmalloc authors

// The walker. Each header is copied once and what it lacks is computed as a remainder, so that the
// rows sum also while other threads allocate.

#include "insight/snapshot.h"

#include <string.h>

#include "base/atomic.h"
#include "base/bits.h"
#include "core/inner.h"
#include "core/remote.h"
#include "os/os.h"

// Bounds for lists that are read while they change, or from a damaged core.
#define LIST_MAX ((size_t)1 << 24)

struct walk {
    struct pm_snapshot *snapshot;
    const struct pm_reader *reader;
    struct pm_root root;
    unsigned unit_bits; // of the run arenas being walked
};

static bool get(const struct walk *walk, const void *at, void *to, size_t size) {
    return walk->reader->read(walk->reader->context, (uintptr_t)at, to, size);
}

// Calls `visit` with the address of each element of a list whose head stands at `head`.
static bool each(struct walk *walk, const struct pm_list *head, size_t link_offset,
                 bool (*visit)(struct walk *, const char *)) {
    struct pm_list link;
    if (!get(walk, head, &link, sizeof link)) {
        return false;
    }
    for (size_t i = 0; link.next != head; i++) {
        const char *const element = (const char *)link.next - link_offset;
        if (i == LIST_MAX || !visit(walk, element) || !get(walk, link.next, &link, sizeof link)) {
            return false;
        }
    }
    return true;
}

static void count_pool(struct walk *walk, const struct pm_pool *pool, size_t bytes) {
    struct pm_balance *const balance = &walk->snapshot->balance;
    const unsigned state = pool->shared.state;
    const size_t size =
        pool->shared.class < PM_CLASS_COUNT ? pm_classes[pool->shared.class].size : 0;
    if (state == PM_POOL_UNUSED || state == PM_POOL_FREE || state == PM_POOL_PURGING || size == 0) {
        const size_t touched =
            state == PM_POOL_UNUSED ? 0 : pm_round_up(pool->owned.touched, pm_os_page_size());
        balance->pools_resident += pm_min(touched, bytes);
        balance->pools_purged += bytes - pm_min(touched, bytes);
        return;
    }
    const size_t end = pm_min(pool->owned.end, bytes), carved = pm_min(pool->shared.carved, end);
    const size_t others = (state == PM_POOL_CURRENT) + (pool->remote.word >> PM_REMOTE_COUNT_SHIFT);
    const size_t used = pool->owned.used > others ? pool->owned.used - others : 0;
    const size_t live = pm_min(used, carved / size);
    balance->blocks_in_use += live * size;
    // The header was read while it changes.
    const size_t purged = pm_min(pm_inner_bytes(pool), carved - live * size);
    balance->blocks_free += carved - live * size - purged;
    balance->blocks_purged += purged;
    balance->never_carved += end - carved;
    balance->quantization += bytes - end;
    struct pm_class_use *const use = &walk->snapshot->classes[pool->shared.class];
    use->pools++;
    use->in_use += live;
    use->available += end / size - live;
    if (live != 0) {
        use->pinned += carved - live * size - purged;
        use->sparse += live * 10 < end / size;
        walk->snapshot->pinned += carved - live * size - purged;
    }
}

static bool count_thp(struct walk *walk, const struct pm_thp_arena *at) {
    bool asks;
    if (!get(walk, &at->asks, &asks, sizeof asks)) {
        return false;
    }
    walk->snapshot->huge_page_arenas += asks;
    return true;
}

static bool visit_arena(struct walk *walk, const char *at) {
    struct pm_arena_head head;
    if (!get(walk, at, &head, sizeof head) ||
        (head.bits != PM_SMALL_POOL_BITS && head.bits != PM_MEDIUM_POOL_BITS)) {
        return false;
    }
    const size_t bytes = PM_POOL_BYTES(head.bits);
    const size_t count = pm_min(head.pools, PM_ARENA_POOLS(head.bits) - 1);
    for (size_t i = 1; i <= count; i++) {
        struct pm_pool pool = { .shared.state = PM_POOL_UNUSED };
        const bool opened = (head.opened >> i & 1) != 0;
        if (opened && !get(walk, at + i * sizeof pool, &pool, sizeof pool)) {
            return false;
        }
        count_pool(walk, &pool, bytes);
    }
    walk->snapshot->balance.arena_headers += PM_SLOT_BYTES - count * bytes;
    walk->snapshot->mapped += PM_SLOT_BYTES;
    walk->snapshot->pool_arenas++;
    return count_thp(walk, &((const struct pm_arena *)at)->thp);
}

static bool visit_run_arena(struct walk *walk, const char *at) {
    struct pm_balance *const balance = &walk->snapshot->balance;
    const struct pm_run_arena *const arena = (const struct pm_run_arena *)at;
    const unsigned unit_bits = walk->unit_bits;
    size_t counted = 1;
    while (counted < PM_ARENA_UNITS) {
        struct pm_run run;
        uint8_t state;
        if (!get(walk, &arena->run[counted], &run, sizeof run) ||
            !get(walk, &arena->state[counted], &state, sizeof state)) {
            return false;
        }
        const size_t units = pm_min(pm_max(run.units, 1), PM_ARENA_UNITS - counted);
        if (state == PM_UNIT_USED) {
            balance->runs_in_use += units << unit_bits;
        } else {
            const size_t resident = state == PM_UNIT_LATEST ? units : pm_min(run.resident, units);
            balance->runs_resident += resident << unit_bits;
            balance->runs_purged += (units - resident) << unit_bits;
        }
        counted += units;
    }
    balance->run_headers += (size_t)1 << unit_bits;
    walk->snapshot->mapped += PM_ARENA_UNITS << unit_bits;
    walk->snapshot->run_arenas++;
    return count_thp(walk, &arena->thp);
}

static bool visit_huge(struct walk *walk, const char *at) {
    struct pm_huge huge;
    if (!get(walk, at, &huge, sizeof huge)) {
        return false;
    }
    const bool used = huge.state == PM_HUGE_USED;
    *(used ? &walk->snapshot->balance.huge_in_use : &walk->snapshot->balance.huge_cached) +=
        huge.size;
    *(used ? &walk->snapshot->huge_blocks : &walk->snapshot->huge_cached) += 1;
    walk->snapshot->mapped += huge.size;
    return true;
}

// What a thread has freed and holds back counted as in use in its pool, which was read before. Of
// another process, the pool may be gone by now.
static void count_chain(struct walk *walk, const struct pm_chain *chain) {
    const void *const first = (const void *)pm_chain_first(chain->word);
    pm_class class;
    if (first == NULL || !get(walk, &pm_pool_of(first, PM_SMALL_POOL_BITS)->shared.class, &class,
                              sizeof class) ||
        class >= PM_CLASS_COUNT) {
        return;
    }
    struct pm_class_use *const use = &walk->snapshot->classes[class];
    const size_t blocks = pm_min(pm_chain_count(chain->word), use->in_use);
    const size_t bytes = blocks * pm_classes[class].size;
    walk->snapshot->balance.blocks_in_use -= bytes;
    walk->snapshot->balance.blocks_free += bytes;
    walk->snapshot->pinned += bytes;
    use->in_use -= blocks;
    use->available += blocks;
    use->pinned += bytes;
}

static bool count_chains(struct walk *walk, const struct pm_heap *heap) {
    enum { PART = PM_CHAINS / 4 };
    struct pm_chain part[PART];
    for (unsigned i = 0; i < PM_CHAINS; i += PART) {
        if (!get(walk, &heap->chain[i], part, sizeof part)) {
            return false;
        }
        for (unsigned j = 0; j < PART; j++) {
            count_chain(walk, &part[j]);
        }
    }
    return true;
}

static bool visit_heap(struct walk *walk, const char *at) {
    const struct pm_heap *const heap = (const struct pm_heap *)at;
    uint64_t misses;
    if (!get(walk, &heap->misses, &misses, sizeof misses) || !count_chains(walk, heap)) {
        return false;
    }
    walk->snapshot->heaps++;
    walk->snapshot->misses += misses;
    return true;
}

static bool visit_private(struct walk *walk, const char *at) {
    const struct pm_heap *const heap = (const struct pm_heap *)at;
    size_t pools, large;
    uint64_t misses;
    if (!get(walk, &heap->pool_bytes, &pools, sizeof pools) ||
        !get(walk, &heap->large_bytes, &large, sizeof large) ||
        !get(walk, &heap->misses, &misses, sizeof misses)) {
        return false;
    }
    walk->snapshot->private_heaps++;
    walk->snapshot->private_bytes += pools + large;
    walk->snapshot->misses += misses;
    return true;
}

static bool same_layout(const struct pm_root *root) {
    return memcmp(root->magic, PM_ROOT_MAGIC, sizeof PM_ROOT_MAGIC) == 0 &&
           root->version == PM_ROOT_VERSION && root->bytes == sizeof *root &&
           root->arenas_bytes == sizeof(struct pm_arenas) &&
           root->pool_bytes == sizeof(struct pm_pool) &&
           root->runs_bytes == sizeof(struct pm_runs) &&
           root->run_arena_bytes == sizeof(struct pm_run_arena) &&
           root->huge_bytes == sizeof(struct pm_huge) &&
           root->heap_bytes == sizeof(struct pm_heap) &&
           root->heaps_bytes == sizeof(struct pm_heaps) &&
           root->meta_bytes == sizeof(struct pm_meta) && root->slot_bits == PM_SLOT_BITS &&
           root->class_count == PM_CLASS_COUNT && root->lane_count == PM_LANE_COUNT;
}

bool pm_snapshot_read(struct pm_snapshot *snapshot, const struct pm_reader *reader, uintptr_t at) {
    struct walk walk = { .snapshot = snapshot, .reader = reader };
    memset(snapshot, 0, sizeof *snapshot);
    if (!get(&walk, (const void *)at, &walk.root, sizeof walk.root) || !same_layout(&walk.root)) {
        return false;
    }
    const struct pm_root *const root = &walk.root;
    for (unsigned kind = 0; kind < PM_ARENAS_COUNT; kind++) {
        size_t made;
        if (!get(&walk, &root->arenas[kind].made, &made, sizeof made) ||
            !each(&walk, &root->arenas[kind].every, offsetof(struct pm_arena_head, every),
                  visit_arena)) {
            return false;
        }
        snapshot->pool_arenas_made += made;
    }
    struct pm_meta meta;
    if (!get(&walk, root->meta, &meta, sizeof meta)) {
        return false;
    }
    snapshot->balance.metadata += meta.mapped;
    snapshot->mapped += meta.mapped;
    for (unsigned i = 0; i < PM_EMERGENCY_CHUNKS; i++) {
        struct pm_emergency_chunk *at_chunk, chunk;
        if (!get(&walk, &root->emergency[i], &at_chunk, sizeof at_chunk) ||
            (at_chunk != NULL && !get(&walk, at_chunk, &chunk, sizeof chunk))) {
            return false;
        }
        if (at_chunk != NULL) {
            snapshot->balance.metadata += chunk.size;
            snapshot->mapped += chunk.size;
        }
    }
    for (unsigned shard = 0; shard < PM_RUNS_COUNT; shard++) {
        if (!get(&walk, &root->runs[shard].unit_bits, &walk.unit_bits, sizeof walk.unit_bits) ||
            walk.unit_bits > PM_SLOT_BITS ||
            !each(&walk, &root->runs[shard].every, offsetof(struct pm_run_arena, every),
                  visit_run_arena)) {
            return false;
        }
    }
    return each(&walk, &root->huge_blocks->used, offsetof(struct pm_huge, link), visit_huge) &&
           each(&walk, &root->huge_blocks->cached, offsetof(struct pm_huge, link), visit_huge) &&
           each(&walk, &root->heaps->every, offsetof(struct pm_heap, every), visit_heap) &&
           each(&walk, &root->heaps->private_heaps, offsetof(struct pm_heap, every), visit_private);
}

// By words, since other threads write to the headers: what is read is whole words of them, some
// older than others.
static bool read_own(void *context, uintptr_t at, void *to, size_t size) {
    (void)context;
    const char *const from = (const char *)at;
    size_t done = 0;
    for (; done + sizeof(uint64_t) <= size && at % sizeof(uint64_t) == 0;
         done += sizeof(uint64_t)) {
        const uint64_t word = pm_get((const uint64_t *)(const void *)(from + done));
        memcpy((char *)to + done, &word, sizeof word);
    }
    for (; done < size; done++) {
        ((char *)to)[done] = pm_get(from + done);
    }
    return true;
}

// Of all that is walked.
static void each_lock(void (*act)(struct pm_lock *)) {
    act(&pm_heaps.lock);
    for (unsigned kind = 0; kind < PM_ARENAS_COUNT; kind++) {
        act(&pm_arenas[kind].lock);
    }
    for (unsigned shard = 0; shard < PM_RUNS_COUNT; shard++) {
        act(&pm_runs[shard].lock);
    }
    act(&pm_huge_blocks.lock);
}

bool pm_snapshot_own(struct pm_snapshot *snapshot) {
    each_lock(pm_lock);
    const struct pm_reader reader = { .read = read_own };
    const bool done = pm_snapshot_read(snapshot, &reader, (uintptr_t)&pm_own_root);
    each_lock(pm_unlock);
    return done;
}

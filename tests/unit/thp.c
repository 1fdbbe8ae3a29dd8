// SPDX-License-Identifier: MIT
// Copyright (c) the poolmalloc authors
//
// core/thp: which memory refuses huge pages, and which asks for them.

#include "fake_os.h"
#include "pools.h"
#include "unit.h"

#include "config/options.h"
#include "core/arena.h"
#include "core/run.h"
#include "poolmalloc.h"

#define TEST(name) UNIT_TEST(thp, name)
#define MIB ((size_t)1 << 20)

enum {
    ARENA_POOLS = PM_ARENA_POOLS(PM_SMALL_POOL_BITS) - 1,
    LARGE_HEAP = PM_THP_FROM >> PM_SMALL_POOL_BITS,  // pools
    LARGE_HEAP_MEDIUM = PM_THP_FROM >> PM_MEDIUM_POOL_BITS
};

static struct pm_pool *pools[LARGE_HEAP + 2 * ARENA_POOLS];

// Takes pools of blocks of n bytes until the next one needs another arena.
static unsigned fill_arena(unsigned count, size_t n) {
    const struct pm_arenas *const arenas = n > PM_SMALL_MAX ? MEDIUM_ARENAS : SMALL_ARENAS;
    while (arenas->filled != 0) {
        pools_take_many(&pools[count++], 1, n, false);
    }
    return count;
}

static unsigned fill_large_heap(size_t n, unsigned pools_of_it) {
    pools_take_many(pools, pools_of_it, n, false);
    return fill_arena(pools_of_it, n);
}

TEST(a_small_heap_refuses_huge_pages_in_arenas) {
    pools_take_many(pools, ARENA_POOLS + 1, 64, false);
    CHECK(fake_count(FAKE_REFUSE) == 2 && fake_count(FAKE_ASK) == 0, "two arenas");
    pools_take_many(pools, 1, 20000, false);
    CHECK(fake_count(FAKE_REFUSE) == 3 && fake_count(FAKE_ASK) == 0, "medium pools");
    void *const run = pm_malloc(100000);
    CHECK(run != NULL && fake_count(FAKE_REFUSE) == 4 && fake_count(FAKE_ASK) == 0, "runs");
    pm_free(run);
}

TEST(large_blocks_are_left_to_the_system) {
    pools_take_many(pools, 1, 64, false);
    const uint32_t before = fake_count(FAKE_REFUSE);
    for (size_t n = 4 * MIB; n <= 64 * MIB; n *= 4) {
        void *const block = pm_malloc(n);
        CHECK(block != NULL);
        pm_free(block);
    }
    CHECK(fake_count(FAKE_ASK) == 0 && fake_count(FAKE_REFUSE) == before);
}

TEST(a_large_heap_has_what_the_system_gives) {
    const unsigned small = fill_large_heap(64, LARGE_HEAP);
    const uint32_t refused = fake_count(FAKE_REFUSE);
    CHECK(refused == SMALL_ARENAS->count && fake_count(FAKE_ASK) == 0);
    pools_take_many(&pools[small], 1, 64, false);
    CHECK(fake_count(FAKE_REFUSE) == refused, "one more arena of small pools");
    // Each kind counts for itself.
    pools_take_many(pools, 1, 60000, false);
    CHECK(fake_count(FAKE_REFUSE) == refused + 1, "the first arena of medium pools");
    const unsigned medium = fill_large_heap(60000, LARGE_HEAP_MEDIUM);
    const uint32_t now = fake_count(FAKE_REFUSE);
    pools_take_many(&pools[medium], 1, 60000, false);
    CHECK(fake_count(FAKE_REFUSE) == now && fake_count(FAKE_ASK) == 0);
    AUDIT();
}

TEST(short_runs_of_a_large_heap_have_what_the_system_gives) {
    enum { RUN = 1 << 20 };
    static void *blocks[PM_THP_FROM / RUN + 8];
    unsigned count = 0;
    while (pm_runs[PM_RUNS_SMALL].used_units << PM_RUN_UNIT_BITS < PM_THP_FROM) {
        CHECK((blocks[count++] = pm_malloc(RUN)) != NULL);
    }
    const uint32_t refused = fake_count(FAKE_REFUSE);
    const size_t arenas = pm_runs[PM_RUNS_SMALL].count;
    while (pm_runs[PM_RUNS_SMALL].count == arenas) {
        CHECK((blocks[count++] = pm_malloc(RUN)) != NULL);
    }
    CHECK(fake_count(FAKE_REFUSE) == refused && fake_count(FAKE_ASK) == 0);
    while (count > 0) {
        pm_free(blocks[--count]);
    }
    AUDIT();
}

// Pools of both kinds, runs of both kinds and a huge block: one advice each, and this one.
static void check_all_memory(enum pm_thp thp, enum fake_call expected) {
    pm_options.thp = thp;
    pools_take_many(pools, 1, 64, false);
    pools_take_many(pools, 1, 20000, false);
    CHECK(fake_count(expected) == 2);
    static const size_t sizes[] = { 100000, 4 * MIB, 64 * MIB };
    for (unsigned i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        void *const block = pm_malloc(sizes[i]);
        CHECK(block != NULL && fake_count(expected) == 3 + i, "%zu", sizes[i]);
        pm_free(block);
    }
    const unsigned count = fill_large_heap(64, LARGE_HEAP);
    pools_take_many(&pools[count], 1, 64, false);
    CHECK(fake_count(FAKE_ASK) == 0 || fake_count(FAKE_REFUSE) == 0);
    AUDIT();
}

TEST(never_refuses_them_for_all_memory) {
    check_all_memory(PM_THP_NEVER, FAKE_REFUSE);
}

TEST(always_asks_for_them_for_all_memory) {
    check_all_memory(PM_THP_ALWAYS, FAKE_ASK);
}

TEST(a_kernel_without_huge_pages_changes_nothing) {
    fake_fail(FAKE_REFUSE, 0, FAKE_ALL);
    const unsigned count = fill_large_heap(64, LARGE_HEAP);
    pools_take_many(&pools[count], 1, 64, true);
    pools_give_many(pools, count + 1);
    AUDIT();
}

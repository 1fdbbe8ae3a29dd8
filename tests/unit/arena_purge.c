// SPDX-License-Identifier: MIT
// Copyright (c) the poolmalloc authors
//
// core/arena: what goes back to the system, and when.

#include "fake_os.h"
#include "pools.h"
#include "unit.h"

#include "core/clock.h"
#include "os/os.h"
#include "poolmalloc.h"

#include <string.h>

#define TEST(name) UNIT_TEST(arena_purge, name)

enum { ARENA_POOLS = PM_ARENA_POOLS(PM_SMALL_POOL_BITS) - 1, MANY = 4 * ARENA_POOLS };

#define NOW 100000u

static struct pm_pool *pools[MANY];

TEST(free_memory_beyond_the_bound_goes_back_the_oldest_first) {
    fake_clock(NOW);
    pools_take_many(pools, MANY, 1024, true);
    unsigned oldest = 0;
    for (unsigned i = 0; i < MANY; i++) {
        pools_give(pools[i]);
        const size_t in_use = SMALL_ARENAS->taken << PM_SMALL_POOL_BITS;
        CHECK(SMALL_ARENAS->resident_bytes <= pm_keep_limit(&SMALL_ARENAS->keep, in_use, 1, NOW));
        AUDIT();
        // Arenas go as a whole: nothing of them can be read.
        while (oldest < i && (pm_map_kind(pools[oldest]) == PM_SLOT_TOMBSTONE ||
                              pools[oldest]->owned.touched == 0)) {
            oldest++;
        }
        for (unsigned j = oldest; j <= i; j++) {
            CHECK(pm_map_kind(pools[j]) == PM_SLOT_SMALL && pools[j]->owned.touched != 0,
                  "%u went before %u", j, oldest);
        }
    }
    CHECK(oldest > 0 && fake_count(FAKE_PURGE) > 0);
    CHECK(SMALL_ARENAS->resident_bytes > PM_KEEP_BYTES / 2, "more went than had to");
}

TEST(purged_pools_have_no_pages_and_serve_again) {
    // The last one keeps the arena.
    pools_take_many(pools, 9, 64, true);
    memset((void *)pm_pool_base(pools[3]), 0x5a, 65536);
    CHECK(pools_resident(pools[3]));
    pools_give_many(pools, 8);
    CHECK(pm_arenas_trim() == 8 * PM_POOL_BYTES(PM_SMALL_POOL_BITS));
    AUDIT();
    for (unsigned i = 0; i < 8; i++) {
        CHECK(!pools_resident(pools[i]) && pools[i]->owned.touched == 0, "%u", i);
        CHECK(pools[i]->shared.state == PM_POOL_FREE);
    }
    CHECK(pm_arenas_trim() == 0, "there is nothing left");
    pools_take_many(pools, 8, 64, true);
    AUDIT();
}

TEST(free_pools_stay_until_the_delay_is_over) {
    fake_clock(NOW);
    pools_take_many(pools, 10, 64, false);
    pools_give_many(pools, 4);
    fake_clock(NOW + PM_PURGE_DELAY_MS);
    pools_give(pools[4]);
    CHECK(fake_count(FAKE_PURGE) == 0);
    fake_clock(NOW + PM_PURGE_DELAY_MS + 1);
    pools_give(pools[5]);
    CHECK(fake_count(FAKE_PURGE) == 4);
    for (unsigned i = 0; i < 6; i++) {
        CHECK((pools[i]->owned.touched == 0) == (i < 4), "%u", i);
    }
    AUDIT();
}

// Large requests are misses.
static void *miss_of_malloc(void) {
    return pm_malloc(100000);
}

static void *miss_of_the_aligned_functions(void) {
    return pm_aligned_alloc(64, 100000);
}

static void expect_age(void *(*miss)(void)) {
    fake_clock(NOW);
    pools_take_many(pools, 2, 64, false);
    pools_give(pools[0]);
    pm_free(miss());
    CHECK(pools_resident(pools[0]));
    fake_clock(NOW + 2 * PM_PURGE_DELAY_MS);
    void *const block = miss();
    CHECK(!pools_resident(pools[0]));
    pm_free(block);
}

TEST(misses_of_malloc_purge_what_is_old) {
    expect_age(miss_of_malloc);
}

TEST(misses_of_the_aligned_functions_purge_what_is_old) {
    expect_age(miss_of_the_aligned_functions);
}

TEST(the_clock_may_wrap) {
    fake_clock(UINT32_MAX - 5);
    pools_take_many(pools, 4, 64, false);
    pools_give_many(pools, 2);
    fake_clock(PM_PURGE_DELAY_MS - 10);
    pools_give(pools[2]);
    CHECK(fake_count(FAKE_PURGE) == 0);
    fake_clock(PM_PURGE_DELAY_MS);
    pools_give(pools[3]);
    CHECK(fake_count(FAKE_PURGE) == 2);
}

TEST(a_machine_may_be_up_for_weeks) {
    static const uint32_t days_30 = 30u * 24 * 3600 * 1000;
    CHECK(pm_clock_since(0, days_30) == days_30, "the first look");
    fake_clock(days_30);
    pools_take_many(pools, 2, 64, false);
    pools_give(pools[0]);
    pm_arenas_age(days_30 + PM_PURGE_DELAY_MS + 1);
    CHECK(fake_count(FAKE_PURGE) == 1);
    CHECK(pm_clock_since(days_30 + 5, days_30) == 0, "read by another thread before");
}

// Two threads read the clock, and the one that read it later is the first to get the lock.
TEST(a_pool_freed_after_the_clock_was_read_is_not_old) {
    fake_clock(NOW);
    pools_take_many(pools, 2, 64, false);
    pools_give(pools[0]);
    pools[0]->owned.freed_at = NOW + 4;
    pools_give(pools[1]);
    CHECK(fake_count(FAKE_PURGE) == 0 && pools[0]->owned.touched != 0);
}

TEST(empty_arenas_but_one_go_back) {
    fake_clock(NOW);
    pools_take_many(pools, MANY, 64, false);
    CHECK(SMALL_ARENAS->count == 4);
    fake_clock(NOW + PM_PURGE_DELAY_MS + 1);
    pools_give_many(pools, MANY - 1);
    fake_clock(NOW + 3 * PM_PURGE_DELAY_MS);
    pools_give(pools[MANY - 1]);
    CHECK(SMALL_ARENAS->count == 1 && SMALL_ARENAS->empty == 1);
    CHECK(SMALL_ARENAS->made == 4 && SMALL_ARENAS->unmade == 3);
    AUDIT();
    unsigned there = 0;
    for (unsigned i = 0; i < MANY; i += ARENA_POOLS) {
        char byte;
        const bool ours = pm_map_kind(pools[i]) == PM_SLOT_SMALL;
        CHECK(pm_os_peek(pools[i], &byte, 1) == ours, "%u", i);
        there += ours;
    }
    CHECK(there == 1);
    pools_take_many(pools, MANY, 64, false);
    CHECK(SMALL_ARENAS->made == 7);
    AUDIT();
}

TEST(trimming_gives_all_empty_arenas_back) {
    pools_take_many(pools, MANY, 64, false);
    pools_give_many(pools, MANY);
    CHECK(pm_arenas_trim() >= PM_SLOT_BYTES);
    CHECK(SMALL_ARENAS->count == 0 && SMALL_ARENAS->empty == 0 && SMALL_ARENAS->filled == 0);
    CHECK(pm_arenas_trim() == 0);
    AUDIT();
}

TEST(an_arena_with_a_pool_in_use_stays) {
    pools_take_many(pools, MANY, 64, false);
    for (unsigned i = 0; i < MANY; i++) {
        if (i % ARENA_POOLS != 30) {
            pools_give(pools[i]);
        }
    }
    pm_arenas_trim();
    CHECK(SMALL_ARENAS->count == 4 && SMALL_ARENAS->empty == 0 && SMALL_ARENAS->taken == 4);
    AUDIT();
}

// A process has only so many mappings, and unmapping in the middle of one makes two.
TEST(an_arena_that_the_system_does_not_take_back_stays_usable) {
    pools_take_many(pools, MANY, 64, true);
    fake_fail(FAKE_UNMAP, 0, FAKE_ALL);
    pools_give_many(pools, MANY);
    pm_arenas_trim();
    CHECK(SMALL_ARENAS->count == 4 && fake_count(FAKE_UNMAP) != 0);
    AUDIT();
    const uint32_t mapped = fake_count(FAKE_MAP);
    pools_take_many(pools, MANY, 1024, true);
    CHECK(fake_count(FAKE_MAP) == mapped, "the four arenas serve");
    AUDIT();
    fake_heal();
    pools_give_many(pools, MANY);
    pm_arenas_trim();
    CHECK(SMALL_ARENAS->count == 0);
    AUDIT();
}

TEST(giving_back_ends_when_the_system_takes_no_arena) {
    pools_take_many(pools, MANY, 1024, true);
    fake_fail(FAKE_UNMAP, 0, FAKE_ALL);
    pools_give_many(pools, MANY);
    CHECK(fake_count(FAKE_UNMAP) < 10 * MANY, "it asks again and again");
    AUDIT();
}

// Locked memory can't be purged.
TEST(pools_that_the_system_does_not_purge_stay_usable) {
    fake_fail(FAKE_PURGE, 0, FAKE_ALL);
    for (unsigned round = 0; round < 3; round++) {
        pools_take_many(pools, ARENA_POOLS, 64u << round, true);
        AUDIT();
        pools_give_many(pools, ARENA_POOLS);
        pm_arenas_trim();
        AUDIT();
    }
}

TEST(an_arena_neither_taken_back_nor_purged_stays_usable) {
    pools_take_many(pools, MANY, 64, true);
    fake_fail(FAKE_UNMAP, 0, FAKE_ALL);
    fake_fail(FAKE_PURGE, 0, FAKE_ALL);
    pools_give_many(pools, MANY);
    pm_arenas_trim();
    AUDIT();
    pools_take_many(pools, MANY, 64, true);
    AUDIT();
}

TEST(every_order_of_giving_back_ends_without_an_arena) {
    for (unsigned round = 0; round < 20; round++) {
        pools_take_many(pools, MANY, 64, false);
        for (unsigned left = MANY; left > 0; left--) {
            const size_t at = unit_below(left);
            pools_give(pools[at]);
            pools[at] = pools[left - 1];
            if (left % 50 == 0) {
                pm_arenas_trim();
                AUDIT();
            }
        }
        pm_arenas_trim();
        CHECK(SMALL_ARENAS->count == 0 && SMALL_ARENAS->taken == 0, "round %u", round);
        AUDIT();
    }
}

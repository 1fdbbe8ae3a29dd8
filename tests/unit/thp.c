// SPDX-License-Identifier: MIT
// Copyright (c) the poolmalloc authors
//
// core/thp: which memory asks for huge pages, which refuses them, and when it leaves them.

#include "fake_os.h"
#include "pools.h"
#include "unit.h"

#include "config/options.h"
#include "core/arena.h"
#include "core/run.h"
#include "poolmalloc.h"

#include "base/bits.h"
#include "os/os.h"

#include <string.h>

#define TEST(name) UNIT_TEST(thp, name)
#define MIB        ((size_t)1 << 20)

enum {
    ARENA_POOLS = PM_ARENA_POOLS(PM_SMALL_POOL_BITS) - 1,
    LARGE_HEAP = PM_THP_FROM >> PM_SMALL_POOL_BITS, // pools
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
    fake_resident(true);
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

TEST(large_blocks_of_a_small_heap_are_left_to_the_system) {
    pools_take_many(pools, 1, 64, false);
    const uint32_t before = fake_count(FAKE_REFUSE);
    for (size_t n = 4 * MIB; n <= 64 * MIB; n *= 4) {
        void *const block = pm_malloc(n);
        CHECK(block != NULL);
        pm_free(block);
    }
    CHECK(fake_count(FAKE_ASK) == 0 && fake_count(FAKE_REFUSE) == before);
}

TEST(a_large_heap_asks_for_huge_pages) {
    const unsigned small = fill_large_heap(64, LARGE_HEAP);
    const uint32_t refused = fake_count(FAKE_REFUSE);
    CHECK(refused == SMALL_ARENAS->count && fake_count(FAKE_ASK) == 0);
    pools_take_many(&pools[small], 1, 64, false);
    CHECK(fake_count(FAKE_ASK) == 1 && pm_arena_of(pools[small])->thp.asks);
    CHECK(fake_count(FAKE_REFUSE) == refused);
    AUDIT();
}

TEST(pools_of_which_the_program_touches_little_refuse) {
    fill_large_heap(60000, LARGE_HEAP_MEDIUM);
    fake_resident(false);
    CHECK(fake_count(FAKE_ASK) == 0);
    for (unsigned i = 0; i < 3; i++) {
        pools_take_many(pools, 1, 60000, true);
        fill_arena(1, 60000);
    }
    CHECK(fake_count(FAKE_ASK) == 0, "a block was asked for, and one of its pages used");
    // What was touched meanwhile counts.
    fake_resident(true);
    pools_take_many(pools, 1, 60000, true);
    CHECK(fake_count(FAKE_ASK) == 1);
    AUDIT();
}

TEST(one_arena_after_some_that_ask_shows_what_is_touched) {
    fill_large_heap(64, LARGE_HEAP);
    const uint32_t refused = fake_count(FAKE_REFUSE);
    for (unsigned i = 1; i <= 2 * (PM_THP_ASKING + 1); i++) {
        pools_take_many(pools, 1, 64, false);
        fill_arena(1, 64);
        CHECK(fake_count(FAKE_REFUSE) == refused + i / (PM_THP_ASKING + 1), "after %u", i);
        CHECK(fake_count(FAKE_ASK) == i - i / (PM_THP_ASKING + 1), "after %u", i);
    }
    AUDIT();
}

TEST(without_an_arena_that_shows_it_the_next_one_does) {
    const unsigned count = fill_large_heap(64, LARGE_HEAP);
    pools_give_many(&pools[count - ARENA_POOLS], ARENA_POOLS);
    pm_arenas_trim();
    CHECK(SMALL_ARENAS->sample.arena == NULL, "it has gone");
    pools_take_many(&pools[count - ARENA_POOLS], ARENA_POOLS, 64, false);
    CHECK(fake_count(FAKE_ASK) == 0);
    pools_take_many(&pools[count], 1, 64, false);
    CHECK(fake_count(FAKE_ASK) == 1);
    AUDIT();
}

TEST(a_heap_that_needs_many_mappings_asks_no_more) {
    SMALL_ARENAS->taken = PM_THP_UPTO >> PM_SMALL_POOL_BITS;
    pools_take_many(pools, 1, 64, false);
    CHECK(fake_count(FAKE_ASK) == 0 && fake_count(FAKE_REFUSE) == 1);
    SMALL_ARENAS->taken = 1;
    AUDIT();
}

TEST(each_thread_has_to_have_so_much) {
    pm_arena_users = 2;
    const unsigned small = fill_large_heap(64, LARGE_HEAP);
    pools_take_many(&pools[small], 1, 64, false);
    CHECK(fake_count(FAKE_ASK) == 0 && fake_count(FAKE_REFUSE) == SMALL_ARENAS->count);
    pm_arena_users = 0;
}

TEST(each_kind_counts_for_itself) {
    fill_large_heap(64, LARGE_HEAP);
    const uint32_t refused = fake_count(FAKE_REFUSE);
    pools_take_many(pools, 1, 60000, false);
    CHECK(fake_count(FAKE_REFUSE) == refused + 1, "the first arena of medium pools");
    const unsigned medium = fill_large_heap(60000, LARGE_HEAP_MEDIUM);
    CHECK(fake_count(FAKE_ASK) == 0);
    pools_take_many(&pools[medium], 1, 60000, false);
    CHECK(fake_count(FAKE_ASK) == 1);
    AUDIT();
}

// Takes runs until the next one needs an arena that asks; blocks[*count - 1] is in the last before.
enum { RUN = 1 << 20, RUNS_MAX = 2 * PM_THP_FROM / RUN };
static void *blocks[RUNS_MAX + 1];

static unsigned fill_with_runs(void) {
    unsigned count = 0;
    fake_resident(true);
    while (pm_runs[PM_RUNS_SMALL].used_units << PM_RUN_UNIT_BITS < PM_THP_FROM) {
        CHECK((blocks[count++] = pm_malloc(RUN)) != NULL);
    }
    return count;
}

static struct pm_run_arena *run_arena_of(const void *at) {
    return (struct pm_run_arena *)((uintptr_t)at & ~PM_SLOT_MASK);
}

// Goes on until a run is in an arena that asks.
static unsigned fill_to_asking(void) {
    unsigned count = fill_with_runs();
    const uint32_t refused = fake_count(FAKE_REFUSE), asked = fake_count(FAKE_ASK);
    do {
        CHECK(count < RUNS_MAX && (blocks[count++] = pm_malloc(RUN)) != NULL);
    } while (!run_arena_of(blocks[count - 1])->thp.asks);
    CHECK(fake_count(FAKE_REFUSE) == refused && fake_count(FAKE_ASK) == asked + 1);
    return count;
}

// The first arena of large runs.
static void *fill_large_arena(void) {
    CHECK(pm_malloc(pm_run_max(PM_RUNS_LARGE)) != NULL);
    void *const other = pm_malloc(pm_run_max(PM_RUNS_LARGE));
    CHECK(other != NULL && pm_runs[PM_RUNS_LARGE].count == 1);
    return other;
}

TEST(runs_of_which_the_program_touches_little_refuse) {
    unsigned count = fill_with_runs();
    fake_resident(false);
    while (count < RUNS_MAX) {
        CHECK((blocks[count++] = pm_malloc(RUN)) != NULL);
    }
    fill_large_arena();
    CHECK(pm_malloc(4 * MIB) != NULL && fake_count(FAKE_ASK) == 0);
    AUDIT();
}

TEST(an_arena_with_little_in_use_shows_nothing) {
    void *large[6];
    fill_with_runs();
    for (unsigned i = 0; i < 6; i++) {
        CHECK((large[i] = pm_malloc(20 * MIB)) != NULL);
    }
    CHECK(pm_runs[PM_RUNS_LARGE].count == 1);
    for (unsigned i = 1; i < 6; i += 2) {
        pm_free(large[i]);
    }
    CHECK(pm_malloc(40 * MIB) != NULL && pm_runs[PM_RUNS_LARGE].count == 2);
    CHECK(fake_count(FAKE_ASK) == 0);
    AUDIT();
}

TEST(runs_of_a_large_heap_ask) {
    unsigned count = fill_to_asking();
    AUDIT();
    void *const first = fill_large_arena();
    CHECK(fake_count(FAKE_ASK) == 1, "the first of the large ones shows what is touched");
    void *const large = pm_malloc(4 * MIB);
    CHECK(large != NULL && fake_count(FAKE_ASK) == 2, "runs of both kinds count together");
    pm_free(large);
    pm_free(first);
    while (count > 0) {
        pm_free(blocks[--count]);
    }
    AUDIT();
}

// The pools of an arena that asks, and one more.
#define NOW 100000u
enum { EIGHTH = ARENA_POOLS / (PM_THP_SPARSE + 1) }; // an eighth of those that stay in use
static struct pm_pool *asking[ARENA_POOLS];

static void take_asking_arena(void) {
    fake_clock(NOW);
    fill_large_heap(64, LARGE_HEAP);
    pools_take_many(asking, ARENA_POOLS, 64, true);
    CHECK(pm_arena_of(asking[0])->thp.asks &&
          pm_arena_of(asking[0]) == pm_arena_of(asking[ARENA_POOLS - 1]));
}

TEST(a_few_free_pools_do_not_break_a_huge_page) {
    enum { FEW = ARENA_POOLS / (PM_THP_SPARSE + 1) - 1 };
    take_asking_arena();
    pools_give_many(asking, FEW);
    fake_clock(NOW + 10 * PM_PURGE_DELAY_MS);
    pm_arenas_age(NOW + 10 * PM_PURGE_DELAY_MS);
    CHECK(fake_count(FAKE_LEAVE) == 0 && fake_count(FAKE_PURGE) == 0);
    CHECK(pools_resident(asking[0]) && pm_arena_of(asking[0])->thp.asks);
    AUDIT();
}

TEST(an_arena_leaves_its_huge_pages_when_it_was_sparse_for_the_delay) {
    take_asking_arena();
    pools_give_many(asking, EIGHTH);
    pm_arenas_age(NOW + PM_PURGE_DELAY_MS);
    CHECK(fake_count(FAKE_LEAVE) == 0 && fake_count(FAKE_PURGE) == 0, "it is not over");
    AUDIT();
    pm_arenas_age(NOW + PM_PURGE_DELAY_MS + 1);
    CHECK(fake_count(FAKE_LEAVE) == 1 && fake_count(FAKE_PURGE) == EIGHTH);
    CHECK(!pools_resident(asking[0]) && !pm_arena_of(asking[0])->thp.asks);
    AUDIT();
    // From now on it is purged as any other.
    pools_give(asking[EIGHTH]);
    fake_clock(NOW + 3 * PM_PURGE_DELAY_MS);
    pm_arenas_age(NOW + 3 * PM_PURGE_DELAY_MS);
    CHECK(fake_count(FAKE_LEAVE) == 1 && fake_count(FAKE_PURGE) == EIGHTH + 1);
    AUDIT();
}

TEST(pools_taken_again_end_the_delay) {
    take_asking_arena();
    pools_give_many(asking, EIGHTH);
    pools_take_many(asking, 1, 64, false);
    CHECK(pm_arena_of(asking[0])->thp.free == EIGHTH - 1,
          "free pools of asking arenas serve first");
    fake_clock(NOW + PM_PURGE_DELAY_MS);
    pools_give(asking[0]);
    pm_arenas_age(NOW + PM_PURGE_DELAY_MS + 1);
    CHECK(fake_count(FAKE_LEAVE) == 0 && fake_count(FAKE_PURGE) == 0);
    AUDIT();
}

TEST(free_pools_of_asking_arenas_serve_before_one_that_the_class_had) {
    struct pm_pool *const had = pools_take(80, false);
    take_asking_arena();
    pools_give(had);
    pools_give(asking[0]);
    CHECK(pools_take(80, false) == asking[0]);
    CHECK(pools_take(80, false) == had);
    AUDIT();
}

TEST(an_arena_that_leaves_its_huge_pages_changes_no_pool_that_a_class_had) {
    struct pm_pool *const had = pools_take(16, true), *const other = pools_take(80, false);
    fake_clock(NOW);
    fill_large_heap(64, LARGE_HEAP);
    // The rest of the arena stays untouched.
    pools_take_many(asking, ARENA_POOLS - 2, 64, true);
    CHECK(pm_arena_of(asking[0])->thp.asks);
    pools_give_many(asking, EIGHTH);
    fake_clock(NOW + PM_PURGE_DELAY_MS);
    pools_give(other);
    pools_give(had);
    pm_arenas_age(NOW + PM_PURGE_DELAY_MS + 1);
    CHECK(fake_count(FAKE_LEAVE) == 1 && pools_resident(had) && pools_resident(other));
    CHECK(pools_take(16, false) == had);
    AUDIT();
}

TEST(an_asking_arena_that_is_wholly_free_goes_as_a_whole) {
    take_asking_arena();
    pools_give_many(asking, ARENA_POOLS);
    CHECK(pm_map_kind(asking[0]) == PM_SLOT_SMALL, "one stays");
    pm_arenas_age(NOW + PM_PURGE_DELAY_MS + 1);
    CHECK(pm_map_kind(asking[0]) == PM_SLOT_TOMBSTONE, "but not for long");
    CHECK(fake_count(FAKE_LEAVE) == 0 && fake_count(FAKE_PURGE) == 0);
    AUDIT();
}

TEST(trim_takes_what_is_free_in_arenas_that_ask) {
    take_asking_arena();
    pools_give_many(asking, 2);
    const unsigned count = fill_to_asking();
    blocks[count] = pm_malloc(RUN);
    pm_free(blocks[count - 1]);
    pm_run_empty_place(pm_thread.heap);
    CHECK(pm_arenas_trim() == 2 * PM_POOL_BYTES(PM_SMALL_POOL_BITS));
    CHECK(!pools_resident(asking[0]) && !pools_resident(asking[1]));
    CHECK(pm_runs_trim() >= RUN && fake_count(FAKE_LEAVE) == 2);
    CHECK(pm_arenas_trim() + pm_runs_trim() == 0, "there is nothing left");
    AUDIT();
}

TEST(locked_memory_in_an_arena_that_leaves_stays_as_it_is) {
    take_asking_arena();
    pools_give_many(asking, ARENA_POOLS / 2);
    fake_fail(FAKE_PURGE, 0, FAKE_ALL);
    CHECK(pm_arenas_trim() == 0);
    CHECK(pools_resident(asking[0]));
    AUDIT();
    fake_heal();
    CHECK(pm_arenas_trim() > 0);
    AUDIT();
}

// Three runs of a large arena that asks: 0.5, 4 and 0.5 MiB and more of them, so that the middle
// one has whole huge pages and ends that are none.
TEST(too_much_in_runs_that_ask_goes_in_whole_huge_pages) {
    fake_clock(NOW);
    pm_options.purge_keep = PM_KEEP_KINDS * PM_KEEP_BYTES;
    unsigned count = fill_with_runs();
    char *large[16];
    unsigned made = 0;
    fill_large_arena();
    for (size_t room = 30 * MIB; room > 5 * MIB; room -= 5 * MIB) {
        CHECK((large[made++] = pm_malloc(5 * MIB - MIB / 2)) != NULL);
        memset(large[made - 1], 1, 5 * MIB - MIB / 2);
    }
    struct pm_runs *const runs = &pm_runs[PM_RUNS_LARGE];
    CHECK(fake_count(FAKE_ASK) == 1 && made >= 4);
    const size_t most = PM_KEEP_BYTES >> runs->unit_bits;
    for (unsigned i = 0; i + 1 < made; i += 2) {
        pm_free(large[i]);
        AUDIT();
    }
    CHECK(fake_count(FAKE_PURGE) > 0 && fake_count(FAKE_LEAVE) == 0);
    CHECK(runs->resident_units <= most + 2 * (2 * MIB >> runs->unit_bits) * made);
    // The first one was the oldest: what is purged of it are whole huge pages.
    const uintptr_t first = pm_round_up((uintptr_t)large[0], 2 * MIB);
    char byte;
    CHECK(pm_os_peek((char *)first, &byte, 1) && byte == 0);
    CHECK(large[0][0] == 1 || ((uintptr_t)large[0] & (2 * MIB - 1)) == 0, "its start stayed");
    // What is old goes to the last unit.
    pm_runs_age(NOW + PM_PURGE_DELAY_MS + 1);
    CHECK(fake_count(FAKE_LEAVE) == 1 && runs->resident_units == 0);
    AUDIT();
    while (count > 0) {
        pm_free(blocks[--count]);
    }
    AUDIT();
}

// Pools of both kinds, runs of both kinds and a huge block: one advice each, and this one.
static void check_all_memory(enum pm_thp thp, enum fake_call expected, enum fake_call other) {
    pm_options.thp = thp;
    pools_take_many(pools, 1, 64, false);
    pools_take_many(pools, 1, 20000, false);
    CHECK(fake_count(expected) == 2);
    const uint32_t others = fake_count(other);
    static const size_t sizes[] = { 100000, 4 * MIB, 64 * MIB };
    for (unsigned i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        void *const block = pm_malloc(sizes[i]);
        CHECK(block != NULL && fake_count(expected) == 3 + i, "%zu", sizes[i]);
        pm_free(block);
    }
    const unsigned count = fill_large_heap(64, LARGE_HEAP);
    pools_take_many(&pools[count], 1, 64, false);
    CHECK(fake_count(other) == others);
    AUDIT();
}

TEST(never_refuses_them_for_all_memory) {
    check_all_memory(PM_THP_NEVER, FAKE_REFUSE, FAKE_ASK);
    CHECK(fake_count(FAKE_ASK) == 0);
}

TEST(always_asks_for_them_for_all_memory) {
    check_all_memory(PM_THP_ALWAYS, FAKE_ASK, FAKE_REFUSE);
    CHECK(fake_count(FAKE_REFUSE) == 1, "but where the headers of medium pools are");
}

TEST(a_kernel_without_huge_pages_changes_nothing) {
    fake_fail(FAKE_REFUSE, 0, FAKE_ALL);
    fake_fail(FAKE_ASK, 0, FAKE_ALL);
    fake_fail(FAKE_LEAVE, 0, FAKE_ALL);
    const unsigned count = fill_large_heap(64, LARGE_HEAP);
    pools_take_many(&pools[count], 1, 64, true);
    pools_give_many(pools, count + 1);
    CHECK(pm_arenas_trim() != 0);
    AUDIT();
}

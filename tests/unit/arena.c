// SPDX-License-Identifier: MIT
// Copyright (c) the poolmalloc authors
//
// core/arena: which pool is taken, and what it is made into.

#include "fake_os.h"
#include "pools.h"
#include "unit.h"

#include "os/os.h"

#include <pthread.h>
#include <sched.h>

#define TEST(name) UNIT_TEST(arena, name)

enum {
    ARENA_POOLS = PM_ARENA_POOLS(PM_SMALL_POOL_BITS) - 1,
    MEDIUM_ARENA_POOLS = PM_ARENA_POOLS(PM_MEDIUM_POOL_BITS) - 1
};

TEST(all_pools_of_an_arena_are_taken_before_another_is_mapped) {
    static const struct {
        struct pm_arenas *arenas;
        size_t n;
        unsigned pools;
    } rows[] = { { SMALL_ARENAS, 64, ARENA_POOLS }, { MEDIUM_ARENAS, 20000, MEDIUM_ARENA_POOLS } };
    for (unsigned row = 0; row < sizeof rows / sizeof *rows; row++) {
        struct pm_pool *pools[3 * ARENA_POOLS];
        for (unsigned i = 0; i < 3 * rows[row].pools; i++) {
            pools[i] = pools_take(rows[row].n, false);
            CHECK(pools[i] != NULL && pm_pool_index(pools[i]) >= 1);
            CHECK(rows[row].arenas->count == i / rows[row].pools + 1, "after %u", i);
            CHECK(rows[row].arenas->taken == i + 1);
            AUDIT();
        }
        for (unsigned i = 0; i < 3 * rows[row].pools; i++) {
            pools_give(pools[i]);
            AUDIT();
        }
        CHECK(rows[row].arenas->taken == 0);
    }
}

TEST(the_slots_of_arenas_say_what_they_hold) {
    const struct pm_pool *const small = pools_take(64, false);
    const struct pm_pool *const medium = pools_take(PM_MEDIUM_MAX, false);
    CHECK(pm_map_kind(small) == PM_SLOT_SMALL && pm_map_kind(medium) == PM_SLOT_MEDIUM);
    CHECK(pm_map_kind((void *)pm_pool_base(small)) == PM_SLOT_SMALL);
    CHECK(pm_pool_of((void *)(pm_pool_base(small) + 1000), PM_SMALL_POOL_BITS) == small);
    CHECK(pm_pool_of((void *)(pm_pool_base(medium) + PM_POOL_BYTES(PM_MEDIUM_POOL_BITS) - 1),
                     PM_MEDIUM_POOL_BITS) == medium);
}

TEST(the_pool_freed_last_is_taken_first) {
    struct pm_pool *pools[10];
    pools_take_many(pools, 10, 64, false);
    static const unsigned order[] = { 3, 9, 0, 5 };
    for (unsigned i = 0; i < 4; i++) {
        pools_give(pools[order[i]]);
        AUDIT();
    }
    for (unsigned i = 4; i > 0; i--) {
        CHECK(pools_take(64, false) == pools[order[i - 1]], "%u", i);
        AUDIT();
    }
}

TEST(a_class_takes_a_pool_back_that_it_had) {
    struct pm_pool *const mine = pools_take(64, false), *const others = pools_take(80, false);
    pools_give(mine);
    pools_give(others);
    CHECK(pools_take(64, false) == mine);
    CHECK(pools_take(80, false) == others);
    AUDIT();
}

TEST(a_class_that_had_none_takes_the_least_touched_pool) {
    struct pm_pool *const one_page = pools_take(64, false), *const whole = pools_take(80, true);
    pools_give(one_page);
    pools_give(whole);
    CHECK(whole->owned.touched > one_page->owned.touched);
    CHECK(pools_take(96, false) == one_page);
    CHECK(pools_take(112, false) == whole);
    AUDIT();
}

TEST(the_least_touched_is_looked_for_among_a_few) {
    struct pm_pool *pools[PM_FIT_LOOK + 1];
    pools[0] = pools_take(80, false);
    pools_take_many(pools + 1, PM_FIT_LOOK, 80, true);
    pools_give_many(pools, PM_FIT_LOOK + 1);
    CHECK(pools_take(96, false) == pools[PM_FIT_LOOK]);
    AUDIT();
}

TEST(resident_pools_are_taken_before_untouched_ones) {
    struct pm_pool *pools[ARENA_POOLS + 5];
    pools_take_many(pools, ARENA_POOLS + 5, 64, false);
    // Of the fuller arena, and not resident.
    pools_give(pools[0]);
    CHECK(pm_arenas_trim() != 0);
    pools_give(pools[ARENA_POOLS + 2]);
    CHECK(pools_take(64, false) == pools[ARENA_POOLS + 2]);
    CHECK(pools_take(64, false) == pools[0]);
}

// Two arenas with a number of free pools each, none of them resident.
static void check_fullest(unsigned free_of_first, unsigned free_of_second) {
    struct pm_pool *pools[2 * ARENA_POOLS], *more[2 * ARENA_POOLS];
    pools_take_many(pools, 2 * ARENA_POOLS, 64, false);
    const uintptr_t first = pm_slot_of(pools[0]), second = pm_slot_of(pools[ARENA_POOLS]);
    pools_give_many(pools, free_of_first);
    pools_give_many(pools + ARENA_POOLS, free_of_second);
    pm_arenas_trim();
    AUDIT();
    const bool first_is_fuller = free_of_first < free_of_second;
    const unsigned fewer = first_is_fuller ? free_of_first : free_of_second;
    for (unsigned i = 0; i < free_of_first + free_of_second; i++) {
        more[i] = pools_take(64, false);
        CHECK(pm_slot_of(more[i]) == ((i < fewer) == first_is_fuller ? first : second),
              "%u free and %u free: take %u", free_of_first, free_of_second, i);
        AUDIT();
    }
    CHECK(SMALL_ARENAS->count == 2);
    pools_give_many(more, free_of_first + free_of_second);
    pools_give_many(pools + free_of_first, ARENA_POOLS - free_of_first);
    pools_give_many(pools + ARENA_POOLS + free_of_second, ARENA_POOLS - free_of_second);
    pm_arenas_trim();
}

TEST(the_fullest_arena_serves_first) {
    check_fullest(1, 2);
    check_fullest(2, 1);
    check_fullest(5, 60);
    check_fullest(60, 5);
    check_fullest(61, 62);
    check_fullest(1, 62);
}

// Every block of a pool, and nothing else.
static void check_blocks(const struct pm_pool *pool, size_t size) {
    const size_t bytes = PM_POOL_BYTES(pool->shared.bits);
    const bool last = pm_pool_index(pool) == PM_ARENA_POOLS(pool->shared.bits) - 1;
    const size_t room = last ? bytes - pm_os_page_size() : bytes;
    CHECK(pool->shared.carved == pool->owned.end && pool->owned.end <= room);
    CHECK(room - pool->owned.end < size, "%zu: a block more has room", size);
    CHECK(pool->owned.used == pool->owned.end / size);
    for (size_t offset = 0; offset < bytes; offset += PM_BLOCK_ALIGN) {
        CHECK(pm_pool_has_block(pool, offset) == (offset % size == 0 && offset < pool->owned.end));
    }
    unit_fill((void *)pm_pool_base(pool), pool->owned.end, size);
}

TEST(blocks_fill_their_pool_and_leave_the_arenas_last_page) {
    for (unsigned class = 0; class < PM_CLASS_COUNT; class++) {
        const size_t size = pm_classes[class].size;
        const unsigned count = class < PM_CLASS_SMALL_COUNT ? ARENA_POOLS : MEDIUM_ARENA_POOLS;
        struct pm_pool *pools[ARENA_POOLS];
        pools_take_many(pools, count, size, false);
        for (unsigned i = 0; i < count; i++) {
            if (pm_pool_index(pools[i]) == 1 || pm_pool_index(pools[i]) == count) {
                pools_give(pools[i]);
                struct pm_pool *const whole = pools_take(size, true);
                CHECK(whole == pools[i]);
                check_blocks(whole, size);
            }
        }
        AUDIT();
        pools_give_many(pools, count);
        pm_arenas_trim();
    }
}

TEST(fresh_memory_is_carved_by_the_page) {
    for (unsigned class = 0; class < PM_CLASS_COUNT; class++) {
        const size_t size = pm_classes[class].size, page = pm_os_page_size();
        struct pm_pool *const pool = pm_arena_take((pm_class)class, PM_OWNER_NOBODY);
        for (size_t before = 0; pm_pool_carve(pool); before = pool->shared.carved) {
            const size_t fresh = pool->shared.carved - before;
            CHECK(fresh >= size && fresh < size + page, "%zu of %zu", fresh, size);
            CHECK(pool->owned.touched == pool->shared.carved);
            while (pm_pool_pop(pool, pool->shared.bits) != 0) {
            }
        }
        CHECK(pool->owned.used == pool->owned.end / size);
        CHECK(!pm_pool_carve(pool), "carved to its end");
    }
}

TEST(a_pool_that_comes_back_starts_anew) {
    static const size_t sizes[] = { 64, 640 };
    for (unsigned i = 0; i < 2; i++) {
        struct pm_pool *const pool = pools_take(64, true);
        const uint64_t key = pool->owned.key;
        pools_give(pool);
        CHECK(pm_arena_take(pm_class_of(sizes[i]), PM_OWNER_NOBODY) == pool);
        CHECK(pool->owned.list == 0 && pool->shared.carved == 0 && pool->owned.key != key);
        CHECK(pool->shared.divisor == pm_classes[pm_class_of(sizes[i])].divisor);
        // Its pages are still there, and are carved in larger steps.
        CHECK(pm_pool_carve(pool) && pool->shared.carved > pm_os_page_size());
        CHECK(pool->owned.list == pm_pool_base(pool));
    }
}

TEST(keys_differ_and_never_look_like_an_address) {
    enum { COUNT = 2 * ARENA_POOLS };
    struct pm_pool *pools[COUNT];
    pools_take_many(pools, COUNT, 64, false);
    for (unsigned i = 0; i < COUNT; i++) {
        const uint64_t key = pools[i]->owned.key;
        CHECK(key == pools[i]->shared.key);
        CHECK(key >> PM_ADDRESS_BITS != 0 && key % PM_BLOCK_ALIGN != 0);
        for (unsigned j = 0; j < i; j++) {
            CHECK(pools[j]->owned.key != key);
        }
    }
}

TEST(without_memory_no_pool_is_taken_and_later_it_goes_on) {
    struct pm_pool *pools[ARENA_POOLS];
    pools_take_many(pools, ARENA_POOLS, 64, false);
    fake_fail(FAKE_MAP, 0, FAKE_ALL);
    for (unsigned i = 0; i < 10; i++) {
        CHECK(pools_take(64, false) == NULL);
        CHECK(pools_take(20000, false) == NULL);
        AUDIT();
    }
    CHECK(SMALL_ARENAS->taken == ARENA_POOLS && SMALL_ARENAS->count == 1);
    // What is freed serves without the system.
    pools_give(pools[7]);
    CHECK(pools_take(64, false) == pools[7]);
    CHECK(pools_take(64, false) == NULL);
    fake_heal();
    CHECK(pools_take(64, false) != NULL);
    CHECK(pools_take(20000, false) != NULL);
    AUDIT();
}

enum { THREADS = 4, ROUNDS = 200, HELD = 20 };

static void *take_and_give(void *argument) {
    const uintptr_t id = (uintptr_t)argument;
    struct pm_pool *held[HELD] = { NULL };
    for (unsigned round = 0; round < ROUNDS; round++) {
        const unsigned at = (unsigned)(round * (7 + id)) % HELD;
        if (held[at] != NULL) {
            CHECK(pm_get((uint64_t *)pm_pool_base(held[at])) == (uint64_t)(id << 32 | at));
            pools_give(held[at]);
        }
        held[at] = pools_take(64 << (round % 4), false);
        pm_set((uint64_t *)pm_pool_base(held[at]), (uint64_t)(id << 32 | at));
    }
    for (unsigned i = 0; i < HELD; i++) {
        if (held[i] != NULL) {
            pools_give(held[i]);
        }
    }
    return NULL;
}

TEST(threads_take_pools_of_their_own) {
    pthread_t threads[THREADS];
    for (uintptr_t i = 0; i < THREADS; i++) {
        CHECK(pthread_create(&threads[i], NULL, take_and_give, (void *)(i + 1)) == 0);
    }
    for (unsigned i = 0; i < THREADS; i++) {
        pthread_join(threads[i], NULL);
    }
    CHECK(SMALL_ARENAS->taken == 0);
    AUDIT();
}

// The first thread's mapping takes until the others want one, too.
static void let_others_run(void) {
    for (unsigned i = 0; i < 2000; i++) {
        sched_yield();
    }
}

static void take_one(void *pool) {
    *(struct pm_pool **)pool = pools_take(64, false);
}

static void *take_in_thread(void *pool) {
    unit_in_thread(take_one, pool);
    return NULL;
}

TEST(threads_that_need_an_arena_at_a_time_share_one) {
    enum { SHARERS = 16 };
    static struct pm_pool *taken[SHARERS];
    pthread_t threads[SHARERS];
    fake_hook(FAKE_MAP, let_others_run);
    for (unsigned i = 0; i < SHARERS; i++) {
        CHECK(pthread_create(&threads[i], NULL, take_in_thread, &taken[i]) == 0);
    }
    for (unsigned i = 0; i < SHARERS; i++) {
        CHECK(pthread_join(threads[i], NULL) == 0 && taken[i] != NULL);
    }
    fake_hook(FAKE_MAP, NULL);
    CHECK(SMALL_ARENAS->count == 1, "%zu arenas", SMALL_ARENAS->count);
    AUDIT();
}

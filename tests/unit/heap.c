// SPDX-License-Identifier: MIT
// Copyright (c) the poolmalloc authors
//
// core/heap: one thread, its pools and their states.

#include "fake_os.h"
#include "unit.h"

#include "core/arena.h"
#include "core/heap.h"
#include "core/life.h"
#include "poolmalloc.h"

#define TEST(name) UNIT_TEST(heap, name)

enum { BLOCK = 1024, POOL_BLOCKS = 64 };  // the class of BLOCK fills its pools

static struct pm_pool *pool_of(const void *block) {
    return pm_pool_of(block, PM_SMALL_POOL_BITS);
}

static size_t taken(void) {
    return pm_arenas[PM_ARENAS_SMALL].taken;
}

// All blocks of a pool; it is full, and current until the next request.
static void take_pool(char *blocks[POOL_BLOCKS]) {
    do {
        blocks[0] = unit_take(BLOCK);
    } while (pool_of(blocks[0])->shared.carved > 4096 || pool_of(blocks[0])->owned.used != 2);
    for (unsigned i = 1; i < POOL_BLOCKS; i++) {
        blocks[i] = unit_take(BLOCK);
        CHECK(pool_of(blocks[i]) == pool_of(blocks[0]), "%u", i);
    }
}

TEST(the_block_freed_last_is_served_first) {
    for (unsigned class = 0; class < PM_CLASS_COUNT; class++) {
        const size_t n = pm_classes[class].size;
        char *const a = unit_take(n), *const b = unit_take(n), *const c = unit_take(n);
        CHECK(a != b && b != c && a != c);
        pm_free(a);
        pm_free(c);
        pm_free(b);
        CHECK(unit_take(n) == b && unit_take(n) == c && unit_take(n) == a, "%zu", n);
        AUDIT();
        pm_free(a);
        pm_free(b);
        pm_free(c);
        AUDIT();
    }
}

// Else the free of a block that was never written to would be suspected, and proved the long way.
TEST(a_served_block_does_not_look_free) {
    for (unsigned class = 0; class < PM_CLASS_SMALL_COUNT; class++) {
        for (unsigned i = 0; i < 20; i++) {
            char *const block = unit_take(pm_classes[class].size);
            CHECK(!pm_link_suspected((uintptr_t)block, pool_of(block)->shared.key));
            if (i % 2 == 0) {
                pm_free(block);
            }
        }
    }
}

TEST(blocks_of_one_class_share_a_pool_and_never_overlap) {
    for (size_t n = 0; n <= PM_MEDIUM_MAX; n += n < 600 ? 5 : 509) {
        char *blocks[20];
        for (unsigned i = 0; i < 20; i++) {
            blocks[i] = unit_take(n);
            CHECK((uintptr_t)blocks[i] % PM_BLOCK_ALIGN == 0);
            unit_fill(blocks[i], n, i);
        }
        for (unsigned i = 0; i < 20; i++) {
            CHECK(unit_filled(blocks[i], n, i), "%zu: %u", n, i);
            pm_free(blocks[i]);
        }
        AUDIT();
    }
}

TEST(every_lane_of_a_class_leads_to_its_current_pool) {
    for (size_t n = 513; n <= 576; n++) {
        char *const one = unit_take(n), *const other = unit_take(576);
        CHECK(pool_of(one) == pool_of(other), "%zu", n);
        pm_free(one);
        pm_free(other);
    }
    AUDIT();
}

TEST(a_full_pool_leaves_its_heap_and_its_first_free_brings_it_back) {
    char *first[POOL_BLOCKS], *second[POOL_BLOCKS];
    take_pool(first);
    const struct pm_pool *const pool = pool_of(first[0]);
    CHECK(pool->shared.state == PM_POOL_CURRENT && pool->shared.owner == pm_thread.heap);
    take_pool(second);
    CHECK(pool->shared.state == PM_POOL_FULL && pool->shared.owner == PM_OWNER_NOBODY);
    CHECK(pool->remote.word == 0 && pool->owned.used == POOL_BLOCKS);
    AUDIT();
    pm_free(first[10]);
    CHECK(pool->shared.state == PM_POOL_LISTED && pool->shared.owner == pm_thread.heap);
    CHECK(pool->owned.used == POOL_BLOCKS - 1);
    AUDIT();
    CHECK(unit_take(BLOCK) == first[10], "it serves the next miss");
    CHECK(pool->shared.state == PM_POOL_CURRENT);
    CHECK(pool_of(second[0])->shared.state == PM_POOL_FULL);
    AUDIT();
}

TEST(a_pool_that_loses_its_last_block_goes_back) {
    char *first[POOL_BLOCKS], *second[POOL_BLOCKS];
    take_pool(first);
    take_pool(second);
    const size_t before = taken();
    for (unsigned i = 0; i < POOL_BLOCKS; i++) {
        pm_free(first[i]);
        CHECK(taken() == before - (i == POOL_BLOCKS - 1));
        AUDIT();
    }
    CHECK(pool_of(first[0])->shared.state == PM_POOL_FREE);
    for (unsigned i = 0; i < POOL_BLOCKS; i++) {
        pm_free(second[i]);
        AUDIT();
    }
    CHECK(taken() == before - 1, "the current pool stays");
}

static char *pools[PM_PICK_LOOK + 1][POOL_BLOCKS];

// Full pools, of which all but the last lose some blocks, so that they wait in this order.
static void lose(const unsigned lost[PM_PICK_LOOK]) {
    for (unsigned i = 0; i <= PM_PICK_LOOK; i++) {
        take_pool(pools[i]);
    }
    for (unsigned i = 0; i < PM_PICK_LOOK; i++) {
        for (unsigned j = 0; j < lost[i]; j++) {
            pm_free(pools[i][j]);
        }
    }
    AUDIT();
}

static void expect_order(const unsigned order[PM_PICK_LOOK], const unsigned lost[PM_PICK_LOOK]) {
    for (unsigned i = 0; i < PM_PICK_LOOK; i++) {
        for (unsigned j = 0; j < lost[order[i]]; j++) {
            CHECK(pool_of(unit_take(BLOCK)) == pool_of(pools[order[i]][0]), "%u of pool %u", j, i);
        }
        AUDIT();
    }
}

TEST(of_pools_half_in_use_the_longest_waiting_is_served_first) {
    static const unsigned lost[] = { 9, 3, 20, 5 }, order[] = { 0, 1, 2, 3 };
    lose(lost);
    expect_order(order, lost);
}

TEST(of_sparse_pools_the_fullest_of_the_first_few_is_served_first) {
    static const unsigned lost[] = { POOL_BLOCKS - 2, POOL_BLOCKS - 9, POOL_BLOCKS - 1,
                                     POOL_BLOCKS - 5 };
    static const unsigned order[] = { 1, 3, 0, 2 };
    lose(lost);
    expect_order(order, lost);
}

TEST(a_sparse_pool_waits_behind_one_half_in_use) {
    static const unsigned lost[] = { POOL_BLOCKS - 2, 3, POOL_BLOCKS - 1, 5 };
    static const unsigned order[] = { 1, 3, 0, 2 };
    lose(lost);
    expect_order(order, lost);
}

enum { TINY = 16, TINY_BLOCKS = 4096, TINY_MIN = TINY_BLOCKS / PM_PICK_FREE_MIN };

// Full pools of tiny blocks of which each has lost one, in front of a full current pool. `lost`
// gets the free blocks, `next` one that is still in use.
static void lose_one_each(char *lost[PM_PICK_LOOK], char *next[PM_PICK_LOOK]) {
    for (unsigned i = 0; i <= PM_PICK_LOOK; i++) {
        char *block;
        do {
            block = unit_take(TINY);
        } while (pool_of(block)->owned.list != 0 ||
                 pool_of(block)->shared.carved < pool_of(block)->owned.end);
        if (i < PM_PICK_LOOK) {
            lost[i] = block;
            next[i] = (char *)pm_pool_base(pool_of(block));
        }
    }
    for (unsigned i = 0; i < PM_PICK_LOOK; i++) {
        pm_free(lost[i]);
        CHECK(pool_of(lost[i])->shared.state == PM_POOL_LISTED);
    }
    AUDIT();
}

TEST(nearly_full_pools_wait_where_there_are_several) {
    char *lost[PM_PICK_LOOK], *next[PM_PICK_LOOK];
    lose_one_each(lost, next);
    const size_t before = taken();
    char *const block = unit_take(TINY);
    CHECK(taken() == before + 1, "another pool serves meanwhile");
    while (pool_of(block)->shared.state == PM_POOL_CURRENT) {
        unit_take(TINY);
    }
    CHECK(taken() == before + 2 && pool_of(lost[0])->shared.state == PM_POOL_LISTED);
    // One of them has gathered enough, and the pool that serves now is used up.
    for (unsigned i = 1; i < TINY_MIN; i++) {
        pm_free(next[0] + i * TINY);
    }
    char *last;
    do {
        last = unit_take(TINY);
    } while (taken() == before + 2 && pool_of(last) != pool_of(lost[0]));
    CHECK(pool_of(last) == pool_of(lost[0]) && taken() == before + 2);
    AUDIT();
}

TEST(a_nearly_full_pool_does_not_keep_others_from_serving) {
    char *lost[PM_PICK_LOOK], *next[PM_PICK_LOOK];
    lose_one_each(lost, next);
    // The last to come has gathered enough; the others wait in front of it.
    for (unsigned i = 1; i < TINY_MIN; i++) {
        pm_free(next[PM_PICK_LOOK - 1] + i * TINY);
    }
    const size_t before = taken();
    CHECK(pool_of(unit_take(TINY)) == pool_of(lost[PM_PICK_LOOK - 1]) && taken() == before);
    AUDIT();
}

TEST(nearly_full_pools_serve_where_there_is_no_memory) {
    char *lost[PM_PICK_LOOK], *next[PM_PICK_LOOK];
    lose_one_each(lost, next);
    fake_fail(FAKE_MAP, 0, FAKE_ALL);
    while (pm_malloc(PM_SMALL_MAX) != NULL) {
    }
    for (unsigned i = 0; i < PM_PICK_LOOK; i++) {
        CHECK(pm_malloc(TINY) == lost[i], "%u", i);
    }
    CHECK(pm_malloc(TINY) == NULL);
    AUDIT();
    fake_heal();
    unit_take(TINY);
    AUDIT();
}

TEST(an_empty_request_is_a_block) {
    char *const a = unit_take(0), *const b = unit_take(0);
    CHECK(a != b && pm_malloc_usable_size(a) == 16);
    pm_free(a);
    pm_free(b);
    pm_free(NULL);
    AUDIT();
}

TEST(without_memory_there_is_no_block_and_later_it_goes_on) {
    static char *blocks[200000];
    unsigned count = 0;
    unit_take(64);
    fake_fail(FAKE_MAP, 0, FAKE_ALL);
    while ((blocks[count] = pm_malloc(64)) != NULL) {
        CHECK(++count < 200000);
    }
    AUDIT();
    CHECK(pm_malloc(64) == NULL && pm_malloc(48) == NULL && pm_malloc(PM_MEDIUM_MAX) == NULL);
    AUDIT();
    // A freed block serves, in its place.
    pm_free(blocks[count / 2]);
    CHECK(pm_malloc(64) == blocks[count / 2] && pm_malloc(64) == NULL);
    AUDIT();
    fake_heal();
    CHECK(pm_malloc(64) != NULL && pm_malloc(PM_MEDIUM_MAX) != NULL);
    while (count > 0) {
        pm_free(blocks[--count]);
    }
    AUDIT();
}

_Static_assert(PM_CLASS_SMALL_COUNT >= 64, "a class for each bit");

TEST(a_damaged_link_is_found_when_its_block_is_served) {
    for (unsigned bit = 0; bit < 64; bit++) {
        const size_t n = pm_classes[bit].size;
        char *const a = unit_take(n), *const b = unit_take(n);
        uintptr_t damaged = 0;
        pm_free(b);
        pm_free(a);
        *(uint64_t *)a ^= UINT64_C(1) << bit;
        const bool inside = bit >= 4 && bit < PM_SMALL_POOL_BITS;
        const uintptr_t block = pm_heap_take_block(pm_thread.heap, pm_class_of(n), true, &damaged);
        CHECK((block == 0 && damaged == (uintptr_t)a) != inside, "bit %u", bit);
    }
}

struct row {
    size_t n;
    char *block;
};

TEST(random_work_keeps_all_equations_and_all_bytes) {
    enum { LIVE = 2000, STEPS = 30000 };
    static struct row live[LIVE];
    unsigned count = 0;
    for (unsigned i = 0; i < STEPS; i++) {
        // Phases in which the heap grows, and in which it shrinks.
        const bool grow = unit_below(100) < (i / 3000 % 2 ? 30u : 70u);
        if (count == 0 || (grow && count < LIVE)) {
            const size_t n = unit_below(unit_below(4) == 0 ? PM_MEDIUM_MAX + 1 : 700);
            live[count] = (struct row){ n, unit_take(n) };
            unit_fill(live[count].block, n, (uintptr_t)live[count].block);
            count++;
        } else {
            struct row *const one = &live[unit_below(count)];
            CHECK(unit_filled(one->block, one->n, (uintptr_t)one->block));
            pm_free(one->block);
            *one = live[--count];
        }
        if (i % 50 == 0) {
            AUDIT();
        }
        if (i % 5000 == 0) {
            pm_malloc_trim(0);
            AUDIT();
        }
    }
    while (count > 0) {
        count--;
        CHECK(unit_filled(live[count].block, live[count].n, (uintptr_t)live[count].block));
        pm_free(live[count].block);
    }
    AUDIT();
    CHECK(taken() <= PM_CLASS_SMALL_COUNT);
}

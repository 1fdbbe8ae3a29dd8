// SPDX-License-Identifier: MIT
// Copyright (c) the poolmalloc authors
//
// core/heap: classes of which a heap needs few blocks, as guests in the pools of larger ones.

#include "unit.h"

#include "core/arena.h"
#include "core/heap.h"
#include "poolmalloc.h"

#include <string.h>

#define TEST(name) UNIT_TEST(guests, name)

static struct pm_pool *pool_of(const void *block) {
    return pm_pool_of(block, PM_SMALL_POOL_BITS);
}

static size_t pools_taken(void) {
    return pm_arenas[PM_ARENAS_SMALL].taken;
}

TEST(a_few_blocks_of_many_sizes_share_pages) {
    enum { LARGEST = 512 };
    static char *block[LARGEST / PM_BLOCK_ALIGN];
    for (unsigned i = LARGEST / PM_BLOCK_ALIGN; i-- > 0;) {
        const size_t n = (i + 1) * PM_BLOCK_ALIGN;
        block[i] = unit_take(n);
        const size_t usable = pm_malloc_usable_size(block[i]);
        CHECK(usable >= n &&
              usable <= n + (n * 3 / 4 > PM_BLOCK_ALIGN ? n * 3 / 4 : PM_BLOCK_ALIGN));
        unit_fill(block[i], usable, i);
    }
    CHECK(pools_taken() < LARGEST / PM_BLOCK_ALIGN / 2, "%zu pools", pools_taken());
    AUDIT();
    for (unsigned i = 0; i < LARGEST / PM_BLOCK_ALIGN; i++) {
        CHECK(unit_filled(block[i], pm_malloc_usable_size(block[i]), i));
        pm_free(block[i]);
    }
    AUDIT();
}

TEST(a_guest_that_needs_more_has_a_pool_of_its_own) {
    const void *const host = unit_take(96);
    const struct pm_pool *const pool = pool_of(host);
    CHECK(pool_of(unit_take(80)) == pool && pm_thread.heap->guests == 1);
    unsigned count = 1;
    while (pool_of(unit_take(80)) == pool) {
        count++;
    }
    CHECK(count < 4096 / 96, "a page at most");
    CHECK(pm_thread.heap->guests == 0 && pool->shared.state == PM_POOL_CURRENT);
    CHECK(pool_of(unit_take(96)) == pool);
    AUDIT();
}

TEST(a_class_is_a_guest_for_one_page) {
    static char *block[2000];
    unsigned of_hosts = 0;
    for (unsigned i = 0; i < 2000; i += 2) {
        block[i] = unit_take(32);
        block[i + 1] = unit_take(16);
        of_hosts += pm_malloc_usable_size(block[i + 1]) == 32;
    }
    CHECK(of_hosts > 0 && of_hosts <= 4096 / 32, "%u", of_hosts);
    AUDIT();
}

TEST(a_block_of_a_guest_stays_where_its_size_stays) {
    static const size_t sizes[] = { 1, 16, 17, 24, 40, 64, 100, 500 };
    for (unsigned i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        for (size_t host = 1024; host > sizes[i]; host -= PM_BLOCK_ALIGN) {
            unit_take(host);
        }
        char *const block = unit_take(sizes[i]);
        CHECK(pm_realloc(block, sizes[i]) == block, "%zu", sizes[i]);
    }
}

TEST(the_blocks_of_guests_are_aligned_as_they_must_be) {
    unit_take(80);
    CHECK(pool_of(unit_take(64))->shared.class == pm_class_of(80), "a guest");
    for (unsigned i = 0; i < 200; i++) {
        const uintptr_t block = (uintptr_t)pm_aligned_alloc(64, 64);
        CHECK(block != 0 && block % 64 == 0);
    }
    AUDIT();
}

static void free_all(void *blocks) {
    for (char **block = blocks; *block != NULL; block++) {
        pm_free(*block);
    }
}

// A pool that has lost its last block is anybody's: no lane of the heap leads there any more.
TEST(a_guest_leaves_with_its_host) {
    enum { COUNT = PM_POOL_BYTES(PM_SMALL_POOL_BITS) / 512 + 1 };
    static char *block[COUNT + 1];
    block[0] = unit_take(512);
    const struct pm_pool *const pool = pool_of(block[0]);
    const void *const guest = unit_take(400);
    CHECK(pool_of(guest) == pool && pm_thread.heap->guests == 1);
    unsigned count = 1;
    do {
        block[count] = unit_take(512);
    } while (pool_of(block[count++]) == pool);
    CHECK(pool->shared.state == PM_POOL_FULL && pm_thread.heap->guests == 0);
    AUDIT();
    unit_in_thread(free_all, block);
    CHECK(pool_of(unit_take(400)) != pool);
    AUDIT();
}

TEST(trim_takes_a_pool_from_its_guests) {
    void *const host = unit_take(512), *const guest = unit_take(400);
    CHECK(pool_of(guest) == pool_of(host));
    pm_free(host);
    pm_free(guest);
    CHECK(pm_malloc_trim(0) == 1 && pools_taken() == 0 && pm_thread.heap->guests == 0);
    AUDIT();
    unit_take(400);
    AUDIT();
}

// Before it touches fresh memory; and not when it has a block of its own left.
TEST(a_class_borrows_what_a_larger_one_has_free) {
    enum { LENT = 5 };
    static char *larger[LENT];
    const size_t n = 12000, more = 14000;
    char *const own = unit_take(n);
    for (unsigned i = 0; i < LENT; i++) {
        larger[i] = unit_take(more);
    }
    for (unsigned i = 0; i < LENT; i++) {
        pm_free(larger[i]);
    }
    const size_t touched = pm_arenas[PM_ARENAS_MEDIUM].resident_bytes;
    for (unsigned i = LENT; i-- > 0;) {
        char *const lent = unit_take(n);
        CHECK(lent == larger[i], "the one freed last of those that are left");
        unit_fill(lent, n, i);
    }
    CHECK(pm_arenas[PM_ARENAS_MEDIUM].resident_bytes == touched);
    AUDIT();
    for (unsigned i = 0; i < LENT; i++) {
        CHECK(unit_filled(larger[i], n, i));
        pm_free(larger[i]);
    }
    pm_free(own);
    CHECK(unit_take(n) == own, "its own first");
    AUDIT();
}

TEST(no_block_is_lent_where_the_size_must_be_exact_or_half_would_be_wasted) {
    pm_free(unit_take(20000));
    CHECK(pm_malloc_usable_size(unit_take(12000)) < 18000);
    pm_free(unit_take(14000));
    char *const aligned = pm_aligned_alloc(4096, 12000);
    CHECK(aligned != NULL && (uintptr_t)aligned % 4096 == 0);
    AUDIT();
}

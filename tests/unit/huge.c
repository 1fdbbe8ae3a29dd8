// SPDX-License-Identifier: MIT
// Copyright (c) the poolmalloc authors
//
// core/huge: mappings, their cache, and what is said of wrong addresses.

#include "fake_os.h"
#include "unit.h"

#include "base/bits.h"
#include "core/huge.h"
#include "core/map.h"
#include "core/meta.h"
#include "os/os.h"

#include <pthread.h>

#define TEST(name) UNIT_TEST(huge, name)
#define MIB ((size_t)1 << 20)
#define NOW 100000u

static char *take(size_t n) {
    char *const at = pm_huge_malloc(n, PM_BLOCK_ALIGN, false);
    CHECK(at != NULL);
    at[0] = at[n - 1] = 1;
    return at;
}

// As if experience had shown that much is worth keeping.
static void keep_much(void) {
    fake_clock(NOW);
    pm_huge_blocks.keep = (struct pm_keep){ .extra = 256 * MIB, .at = NOW };
}

static void give(void *at) {
    CHECK(pm_huge_free(at) == PM_DONE);
}

static size_t size_of(const void *at) {
    enum pm_verdict verdict;
    const size_t size = pm_huge_size(at, &verdict);
    CHECK(verdict == PM_DONE);
    return size;
}

TEST(blocks_start_at_slots_and_are_aligned_as_asked) {
    static const size_t sizes[] = { 1, 5000, 3 * MIB, 4 * MIB, 4 * MIB + 1, 17 * MIB };
    for (unsigned i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        for (size_t align = 16; align <= 128 * MIB; align *= 8) {
            char *const at = pm_huge_malloc(sizes[i], align, true);
            CHECK(at != NULL && (uintptr_t)at % pm_max(align, PM_SLOT_BYTES) == 0);
            CHECK(unit_is_zero(at, sizes[i]));
            CHECK(size_of(at) == pm_round_up(sizes[i], pm_os_page_size()));
            CHECK(pm_map_kind(at) == PM_SLOT_HUGE && *pm_map_huge(at) != NULL);
            for (size_t slot = PM_SLOT_BYTES; slot < sizes[i]; slot += PM_SLOT_BYTES) {
                CHECK(pm_map_kind(at + slot) == PM_SLOT_HUGE_INNER);
            }
            AUDIT();
        }
    }
}

TEST(a_freed_block_serves_the_next_request_of_its_size) {
    keep_much();
    for (unsigned round = 0; round < 10; round++) {
        char *const at = take(20 * MIB);
        give(at);
        AUDIT();
        const uint32_t mapped = fake_count(FAKE_MAP), purged = fake_count(FAKE_PURGE);
        // Zeros are made by a purge, where they are asked for.
        const bool zero = round % 2 != 0;
        CHECK(pm_huge_malloc(20 * MIB, 16, zero) == at && fake_count(FAKE_MAP) == mapped);
        CHECK((fake_count(FAKE_PURGE) != purged) == zero && unit_is_zero(at, 4096) == zero);
        AUDIT();
        give(at);
    }
}

TEST(a_block_that_the_system_does_not_purge_is_cleared) {
    keep_much();
    char *const at = take(20 * MIB);
    give(at);
    fake_fail(FAKE_PURGE, 0, FAKE_ALL);
    CHECK(pm_huge_malloc(20 * MIB, 16, true) == at && unit_is_zero(at, 20 * MIB));
}

TEST(the_cache_is_bounded_in_number) {
    keep_much();
    enum { COUNT = 3 * PM_HUGE_CACHE_COUNT };
    char *blocks[COUNT];
    for (unsigned i = 0; i < COUNT; i++) {
        blocks[i] = take(4096 * (i + 1));
    }
    for (unsigned i = 0; i < COUNT; i++) {
        give(blocks[i]);
        CHECK(pm_huge_blocks.cached_count <= PM_HUGE_CACHE_COUNT);
        AUDIT();
    }
    CHECK(pm_huge_blocks.cached_count > 0 && pm_huge_blocks.used_count == 0);
}

TEST(the_cache_is_bounded_in_bytes) {
    enum { COUNT = 40 };
    char *blocks[COUNT];
    fake_clock(NOW);
    for (unsigned i = 0; i < COUNT; i++) {
        blocks[i] = take(20 * MIB);
    }
    for (unsigned i = 0; i < COUNT; i++) {
        give(blocks[i]);
        const size_t most = pm_keep_limit(&pm_huge_blocks.keep, pm_huge_blocks.used_bytes, 1, NOW);
        CHECK(pm_huge_blocks.cached_bytes <= most, "%zu", pm_huge_blocks.cached_bytes);
        AUDIT();
    }
}

TEST(cached_blocks_age) {
    fake_clock(NOW);
    char *const first = take(MIB), *const second = take(MIB), *const third = take(MIB);
    give(first);
    fake_clock(NOW + PM_PURGE_DELAY_MS);
    give(second);
    CHECK(pm_huge_blocks.cached_count == 2);
    fake_clock(NOW + PM_PURGE_DELAY_MS + 1);
    give(third);
    CHECK(pm_huge_blocks.cached_count == 2 && pm_map_kind(first) == PM_SLOT_TOMBSTONE);
    AUDIT();
}

TEST(trimming_empties_the_cache) {
    char *const first = take(MIB), *const second = take(3 * MIB);
    give(first);
    give(second);
    CHECK(pm_huge_trim() == 4 * MIB);
    CHECK(pm_huge_blocks.cached_count == 0 && pm_huge_blocks.cached_bytes == 0);
    CHECK(pm_huge_trim() == 0);
    char byte;
    CHECK(!pm_os_peek(first, &byte, 1) && !pm_os_peek(second, &byte, 1));
    AUDIT();
}

TEST(what_was_unmapped_leaves_a_tombstone_at_its_start_alone) {
    char *const at = take(10 * MIB);
    give(at);
    pm_huge_trim();
    CHECK(pm_map_kind(at) == PM_SLOT_TOMBSTONE && *pm_map_huge(at) == NULL);
    CHECK(pm_map_kind(at + PM_SLOT_BYTES) == PM_SLOT_NONE);
    CHECK(pm_map_kind(at + 2 * PM_SLOT_BYTES) == PM_SLOT_NONE);
}

TEST(misuse_is_told) {
    keep_much();
    enum pm_verdict verdict;
    char *const at = take(9 * MIB);
    CHECK(pm_huge_free(at + 8) == PM_UNALIGNED && pm_huge_free(at + 16) == PM_INSIDE);
    CHECK(pm_huge_free(at + PM_SLOT_BYTES) == PM_INSIDE);
    CHECK(pm_huge_free(at + 9 * MIB - 16) == PM_INSIDE);
    CHECK(pm_huge_free(at + 9 * MIB) == PM_STRAY, "behind its end");
    CHECK(pm_huge_size(at + 4096, &verdict) == 0 && verdict == PM_INSIDE);
    CHECK(pm_huge_resize(at + 4096, 20 * MIB) == NULL);
    AUDIT();
    give(at);
    CHECK(pm_huge_free(at) == PM_DOUBLE_FREE);
    CHECK(pm_huge_size(at, &verdict) == 0 && verdict == PM_DOUBLE_FREE);
    CHECK(pm_huge_resize(at, 20 * MIB) == NULL);
    AUDIT();
    CHECK(take(9 * MIB) == at);
    give(at);
}

TEST(without_memory_there_is_no_block_and_later_it_goes_on) {
    keep_much();
    char *const at = take(20 * MIB);
    fake_fail(FAKE_MAP, 0, FAKE_ALL);
    for (unsigned i = 0; i < 100; i++) {
        CHECK(pm_huge_malloc(20 * MIB, 16, false) == NULL);
        AUDIT();
    }
    give(at);
    CHECK(pm_huge_malloc(20 * MIB, 16, false) == at, "what is cached serves");
    fake_heal();
    CHECK(pm_huge_malloc(20 * MIB, 16, false) != NULL);
    CHECK(pm_huge_malloc(PTRDIFF_MAX - 4096, 16, false) == NULL);
    AUDIT();
}

// The k-th mapping may be the block, its aligned second try, a leaf, a descriptor.
TEST(a_failure_anywhere_leaves_all_in_order) {
    static const enum fake_call calls[] = { FAKE_MAP, FAKE_RESERVE, FAKE_UNMAP, FAKE_MOVE,
                                            FAKE_RESIZE, FAKE_PURGE };
    for (unsigned call = 0; call < sizeof calls / sizeof *calls; call++) {
        for (unsigned k = 0; k < 6; k++) {
            char *blocks[6] = { NULL };
            fake_fail(calls[call], k, 1 + k % 2);
            for (unsigned i = 0; i < 6; i++) {
                blocks[i] = pm_huge_malloc((i + 1) * MIB + 4096, MIB << i, false);
                CHECK(blocks[i] == NULL || (uintptr_t)blocks[i] % (MIB << i) == 0);
                AUDIT();
            }
            for (unsigned i = 0; i < 6; i++) {
                if (blocks[i] != NULL) {
                    blocks[i][0] = blocks[i][(i + 1) * MIB + 4095] = 1;
                    give(blocks[i]);
                    AUDIT();
                }
            }
            pm_huge_trim();
            AUDIT();
            fake_heal();
        }
    }
    CHECK(pm_huge_blocks.used_count == 0);
}

TEST(memory_that_the_system_does_not_take_back_is_forgotten) {
    keep_much();
    char *const at = take(5 * MIB);
    give(at);
    fake_fail(FAKE_UNMAP, 0, FAKE_ALL);
    pm_huge_trim();
    CHECK(pm_huge_blocks.cached_count == 0 && pm_map_kind(at) == PM_SLOT_TOMBSTONE);
    AUDIT();
    fake_heal();
    char *const other = take(5 * MIB);
    CHECK(other != at);
    give(other);
    AUDIT();
}

// Each new range of addresses costs metadata for good.
TEST(addresses_that_went_back_are_used_again) {
    size_t mapped = 0;
    for (unsigned i = 0; i < 3000; i++) {
        give(take(40 * MIB));
        pm_huge_trim();
        if (i == 100) {
            mapped = pm_meta.mapped;
        }
    }
    CHECK(pm_meta.mapped == mapped, "%zu bytes more of metadata", pm_meta.mapped - mapped);
}

static void *work_in_thread(void *argument) {
    const uint64_t seed = (uintptr_t)argument;
    for (unsigned i = 0; i < 200; i++) {
        const size_t n = (1 + (i * 7 + seed) % 5) * MIB;
        char *const at = pm_huge_malloc(n, 16, false);
        CHECK(at != NULL);
        unit_fill(at, 64, seed);
        unit_fill(at + n - 64, 64, seed + 1);
        if (i % 3 == 0) {
            char *const moved = pm_huge_resize(at, n + MIB);
            CHECK(moved != NULL && unit_filled(moved, 64, seed));
            CHECK(unit_filled(moved + n - 64, 64, seed + 1));
            give(moved);
        } else {
            CHECK(unit_filled(at, 64, seed) && unit_filled(at + n - 64, 64, seed + 1));
            give(at);
        }
    }
    return NULL;
}

TEST(threads_get_blocks_of_their_own) {
    pthread_t threads[4];
    for (uintptr_t i = 0; i < 4; i++) {
        CHECK(pthread_create(&threads[i], NULL, work_in_thread, (void *)(i + 1)) == 0);
    }
    for (unsigned i = 0; i < 4; i++) {
        pthread_join(threads[i], NULL);
    }
    CHECK(pm_huge_blocks.used_count == 0 && pm_huge_blocks.used_bytes == 0);
    AUDIT();
}

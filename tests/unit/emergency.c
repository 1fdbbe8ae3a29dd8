// SPDX-License-Identifier: MIT
// Copyright (c) the poolmalloc authors
//
// core/emergency: blocks for handlers that interrupt a malloc.

#include "fake_os.h"
#include "unit.h"

#include "config/limits.h"
#include "core/emergency.h"

#include <pthread.h>

#define TEST(name) UNIT_TEST(emergency, name)

static size_t mapped(void) {
    size_t bytes = 0;
    for (unsigned i = 0; i < PM_EMERGENCY_CHUNKS && pm_emergency_chunks[i] != NULL; i++) {
        bytes += pm_emergency_chunks[i]->size;
    }
    return bytes;
}

TEST(blocks_are_aligned_zeroed_and_apart) {
    static const size_t aligns[] = { 1, 16, 64, 256, 4096, 65536, 1 << 20 };
    char *last = NULL;
    size_t last_size = 0;
    for (unsigned i = 0; i < sizeof aligns / sizeof *aligns; i++) {
        for (size_t n = 0; n <= 300; n += 37) {
            char *const block = pm_emergency_malloc(n, aligns[i]);
            CHECK(block != NULL && (uintptr_t)block % (aligns[i] > 16 ? aligns[i] : 16) == 0);
            CHECK(unit_is_zero(block, n));
            unit_fill(block, n, n + i);
            CHECK(last == NULL || unit_filled(last, last_size, last_size + (n == 0 ? i - 1 : i)));
            last = block;
            last_size = n;
        }
    }
}

TEST(it_knows_its_own) {
    static char mine[64];
    CHECK(!pm_emergency_owns(mine) && !pm_emergency_owns(NULL));
    char *const block = pm_emergency_malloc(100, 16);
    char *const large = pm_emergency_malloc(200000, 16);
    CHECK(block != NULL && large != NULL);
    CHECK(pm_emergency_owns(block) && pm_emergency_owns(block + 50));
    CHECK(pm_emergency_owns(large) && pm_emergency_owns(large + 199999));
    CHECK(!pm_emergency_owns(mine) && !pm_emergency_owns(large + (1 << 20)));
}

TEST(sizes_are_remembered) {
    enum pm_verdict verdict;
    for (size_t n = 0; n < 200; n++) {
        void *const block = pm_emergency_malloc(n, 16);
        CHECK(pm_emergency_size(block, &verdict) >= n && verdict == PM_DONE);
    }
}

TEST(misuse_is_told) {
    enum pm_verdict verdict;
    char *const block = pm_emergency_malloc(256, 16);
    CHECK(pm_emergency_free(block + 8) == PM_UNALIGNED);
    CHECK(pm_emergency_free(block + 128) == PM_INSIDE);
    CHECK(pm_emergency_size(block + 128, &verdict) == 0 && verdict == PM_INSIDE);
    CHECK(pm_emergency_free((char *)((uintptr_t)block & ~(uintptr_t)4095)) == PM_NEVER_HANDED_OUT);
    CHECK(pm_emergency_free(block) == PM_DONE);
    CHECK(pm_emergency_free(block) == PM_DOUBLE_FREE);
    CHECK(pm_emergency_size(block, &verdict) == 0 && verdict == PM_DOUBLE_FREE);
}

TEST(what_is_freed_is_used_again_when_nothing_beside_it_lives) {
    char *blocks[10];
    for (unsigned i = 0; i < 10; i++) {
        blocks[i] = pm_emergency_malloc(64, 16);
        unit_fill(blocks[i], 64, i);
    }
    for (unsigned i = 1; i < 10; i++) {
        CHECK(pm_emergency_free(blocks[i]) == PM_DONE);
        char *const other = pm_emergency_malloc(64, 16);
        CHECK(other > blocks[9] && unit_is_zero(other, 64), "%u", i);
        CHECK(pm_emergency_free(other) == PM_DONE);
    }
    CHECK(unit_filled(blocks[0], 64, 0));
    CHECK(pm_emergency_free(blocks[0]) == PM_DONE);
    char *const again = pm_emergency_malloc(64, 16);
    CHECK(again == blocks[0] && unit_is_zero(again, 64));
}

TEST(it_comes_to_an_end_and_goes_on_when_memory_returns) {
    size_t count = 0;
    fake_fail(FAKE_MAP, 3, FAKE_ALL);
    while (pm_emergency_malloc(PM_EMERGENCY_BYTES / 8, 16) != NULL) {
        CHECK(++count < 1000, "memory has no end");
    }
    CHECK(count >= 3 * 7 && pm_emergency_malloc(PM_EMERGENCY_BYTES, 16) == NULL);
    CHECK(mapped() >= 3 * PM_EMERGENCY_BYTES && mapped() >= count * PM_EMERGENCY_BYTES / 8);
    fake_heal();
    CHECK(pm_emergency_malloc(PM_EMERGENCY_BYTES, 16) != NULL);
}

TEST(the_systems_refusal_is_passed_on) {
    fake_fail(FAKE_MAP, 0, FAKE_ALL);
    CHECK(pm_emergency_malloc(64, 16) == NULL);
    fake_heal();
    CHECK(pm_emergency_malloc(PTRDIFF_MAX - 4096, 16) == NULL);
    CHECK(pm_emergency_malloc(64, 16) != NULL);
}

TEST(nothing_is_mapped_before_the_first_block) {
    CHECK(mapped() == 0 && pm_emergency_chunks[0] == NULL);
}

// ThreadSanitizer doesn't see that a chunk which came second was unmapped: there, the first one has
// to do.
enum { THREADS = 4, BLOCKS = UNIT_THREAD_SANITIZER ? 150 : 2000 };

static void *fill_many(void *argument) {
    const uint64_t seed = (uintptr_t)argument;
    static __thread char *blocks[BLOCKS];
    for (unsigned i = 0; i < BLOCKS; i++) {
        blocks[i] = pm_emergency_malloc(48, 16);
        CHECK(blocks[i] != NULL);
        unit_fill(blocks[i], 48, seed);
    }
    for (unsigned i = 0; i < BLOCKS; i++) {
        CHECK(unit_filled(blocks[i], 48, seed));
        CHECK(pm_emergency_free(blocks[i]) == PM_DONE);
    }
    return NULL;
}

TEST(threads_get_blocks_of_their_own) {
    pthread_t threads[THREADS];
    CHECK(!UNIT_THREAD_SANITIZER || pm_emergency_malloc(1, 16) != NULL);
    for (uintptr_t i = 0; i < THREADS; i++) {
        CHECK(pthread_create(&threads[i], NULL, fill_many, (void *)(i + 1)) == 0);
    }
    for (unsigned i = 0; i < THREADS; i++) {
        pthread_join(threads[i], NULL);
    }
}

// SPDX-License-Identifier: MIT
// Copyright (c) the poolmalloc authors
//
// core/heap: what sleeping threads hold, and who can have it.

#include "fake_os.h"
#include "unit.h"

#include "core/arena.h"
#include "core/heap.h"
#include "core/reclaim.h"
#include "os/os.h"
#include "poolmalloc.h"

#include <pthread.h>
#include <sched.h>

#define TEST(name)   UNIT_TEST(reclaim, name)
#define SMALL_ARENAS (&pm_arenas[PM_ARENAS_SMALL])

enum { SIZES = 40, EACH = 30 };

static pthread_barrier_t both;
static void *blocks[SIZES][EACH];

static void take_all(void) {
    for (unsigned i = 0; i < SIZES; i++) {
        for (unsigned j = 0; j < EACH; j++) {
            CHECK((blocks[i][j] = pm_malloc(16 + 100 * i)) != NULL);
        }
    }
}

// Frees every block from the `first` on, in steps.
static void free_from(unsigned first, unsigned step) {
    for (unsigned i = 0; i < SIZES; i++) {
        for (unsigned j = first; j < EACH; j += step) {
            pm_free(blocks[i][j]);
        }
    }
}

static void *sleep_over_free_blocks(void *unused) {
    take_all();
    free_from(0, 1);
    pthread_barrier_wait(&both);
    pthread_barrier_wait(&both);
    take_all();
    free_from(0, 1);
    return unused;
}

static pthread_t start(void *(*body)(void *)) {
    pthread_t thread;
    if (UNIT_THREAD_SANITIZER) {
        cr_skip("it can't see the barrier that this is about");
    }
    pm_free(pm_malloc(1));
    CHECK(pthread_barrier_init(&both, NULL, 2) == 0);
    CHECK(pthread_create(&thread, NULL, body, NULL) == 0);
    pthread_barrier_wait(&both);
    return thread;
}

static void end(pthread_t thread) {
    pthread_barrier_wait(&both);
    CHECK(pthread_join(thread, NULL) == 0);
    AUDIT();
}

TEST(empty_pools_of_a_sleeping_thread_can_be_had_by_others) {
    const pthread_t thread = start(sleep_over_free_blocks);
    CHECK(SMALL_ARENAS->taken > SIZES / 2, "%zu pools", SMALL_ARENAS->taken);
    pm_heaps_reclaim(false);
    CHECK(SMALL_ARENAS->taken <= 2, "%zu pools", SMALL_ARENAS->taken);
    AUDIT();
    end(thread);
}

static void *sleep_over_blocks_in_use(void *unused) {
    take_all();
    free_from(0, 2);
    pthread_barrier_wait(&both);
    pthread_barrier_wait(&both);
    for (unsigned i = 0; i < SIZES; i++) {
        for (unsigned j = 0; j < EACH; j += 2) {
            blocks[i][j] = pm_malloc(16 + 100 * i);
        }
    }
    free_from(0, 1);
    return unused;
}

TEST(pools_with_blocks_in_use_stay_the_threads_own) {
    const pthread_t thread = start(sleep_over_blocks_in_use);
    const size_t taken = SMALL_ARENAS->taken;
    pm_heaps_reclaim(true);
    CHECK(SMALL_ARENAS->taken == taken);
    AUDIT();
    end(thread);
}

static void *sleep_over_blocks_that_others_free(void *unused) {
    take_all();
    free_from(0, 2);
    pthread_barrier_wait(&both);
    pthread_barrier_wait(&both);
    take_all();
    free_from(0, 1);
    return unused;
}

TEST(blocks_freed_to_a_sleeping_thread_come_back_to_use) {
    const pthread_t thread = start(sleep_over_blocks_that_others_free);
    free_from(1, 2);
    pm_heaps_reclaim(true);
    CHECK(SMALL_ARENAS->taken <= 2, "%zu pools", SMALL_ARENAS->taken);
    AUDIT();
    end(thread);
}

// As a thread that the scheduler has stopped between two steps of a fast path.
static void *stop_in_a_fast_path(void *unused) {
    take_all();
    free_from(0, 1);
    struct pm_heap *const heap = pm_thread.fast;
    pm_set(&pm_thread.fast, PM_BUSY_HEAP);
    pthread_barrier_wait(&both);
    pthread_barrier_wait(&both);
    CHECK(heap->lane[pm_lane_of(16)]->shared.owner == heap);
    pm_set(&pm_thread.fast, heap);
    take_all();
    free_from(0, 1);
    return unused;
}

TEST(a_thread_inside_the_library_keeps_its_pools) {
    const pthread_t thread = start(stop_in_a_fast_path);
    const size_t taken = SMALL_ARENAS->taken;
    pm_heaps_reclaim(true);
    CHECK(SMALL_ARENAS->taken == taken);
    AUDIT();
    end(thread);
}

TEST(trim_takes_them_at_once) {
    const pthread_t thread = start(sleep_over_free_blocks);
    CHECK(pm_malloc_trim(0) == 1);
    CHECK(SMALL_ARENAS->taken == 0 && SMALL_ARENAS->count == 0);
    end(thread);
}

enum { MEDIUM = 32768, MEDIUM_COUNT = PM_POOL_BYTES(PM_MEDIUM_POOL_BITS) / MEDIUM };

// Two listed pools of medium blocks: of the first, others free all; of the second, one block stays,
// which the sleeper frees while its heap is looked at.
static char *two_pools[2 * MEDIUM_COUNT + 1];
static struct pm_pool *second;

static void *free_while_looked_at(void *unused) {
    for (unsigned i = 0; i <= 2 * MEDIUM_COUNT; i++) {
        two_pools[i] = unit_take(MEDIUM);
    }
    second = pm_pool_of(two_pools[MEDIUM_COUNT], PM_MEDIUM_POOL_BITS);
    pm_free(two_pools[0]);
    for (unsigned i = MEDIUM_COUNT; i < 2 * MEDIUM_COUNT - 1; i++) {
        pm_free(two_pools[i]);
    }
    pthread_barrier_wait(&both);
    pthread_barrier_wait(&both);
    pm_free(two_pools[2 * MEDIUM_COUNT - 1]);
    pthread_barrier_wait(&both);
    pm_free(two_pools[2 * MEDIUM_COUNT]);
    return unused;
}

// In the second barrier the thread is known to be outside; then it frees its block, to a pool that
// seems to be nobody's.
static void let_it_free(void) {
    if (fake_count(FAKE_BARRIER) == 2) {
        pthread_barrier_wait(&both);
        while (pm_get(&second->remote.word) >> PM_REMOTE_COUNT_SHIFT == 0) {
            sched_yield();
        }
    }
}

TEST(a_block_freed_during_the_look_is_its_threads_to_count) {
    const pthread_t thread = start(free_while_looked_at);
    for (unsigned i = 1; i < MEDIUM_COUNT; i++) {
        pm_free(two_pools[i]);
    }
    fake_hook(FAKE_BARRIER, let_it_free);
    pm_heaps_reclaim(true);
    fake_hook(FAKE_BARRIER, NULL);
    // The third one comes after looks at lists that are made anew, though nothing was purged.
    CHECK(fake_count(FAKE_BARRIER) == 3);
    CHECK(pm_arenas[PM_ARENAS_MEDIUM].taken == 1, "both pools are free, its current one stays");
    end(thread);
}

TEST(where_the_kernel_has_no_barrier_all_stays) {
    const pthread_t thread = start(sleep_over_blocks_that_others_free);
    const size_t taken = SMALL_ARENAS->taken;
    free_from(1, 2);
    fake_fail(FAKE_BARRIER, 0, FAKE_ALL);
    pm_heaps_reclaim(true);
    CHECK(SMALL_ARENAS->taken == taken);
    AUDIT();
    fake_heal();
    pm_heaps_reclaim(true);
    CHECK(SMALL_ARENAS->taken <= 2, "and is not forgotten");
    end(thread);
}

enum { MANY = 3 * PM_RECLAIM_HEAPS };
static pthread_barrier_t all_of_many;

static void *sleep_beside_many(void *unused) {
    pm_free(unit_take(100));
    pthread_barrier_wait(&all_of_many);
    pthread_barrier_wait(&all_of_many);
    return unused;
}

TEST(many_sleeping_threads_have_their_turn_part_by_part) {
    pthread_t threads[MANY];
    if (UNIT_THREAD_SANITIZER) {
        cr_skip("it can't see the barrier that this is about");
    }
    CHECK(pthread_barrier_init(&all_of_many, NULL, MANY + 1) == 0);
    // The first misses of a process look by age, which no thread is to do while others sleep
    // already.
    unit_take(100);
    unit_take(1000);
    for (unsigned i = 0; i < MANY; i++) {
        CHECK(pthread_create(&threads[i], NULL, sleep_beside_many, NULL) == 0);
    }
    pthread_barrier_wait(&all_of_many);
    const size_t taken = SMALL_ARENAS->taken;
    CHECK(taken >= MANY);
    pm_heaps_reclaim(false);
    CHECK(SMALL_ARENAS->taken >= taken - PM_RECLAIM_HEAPS, "%zu of %zu", SMALL_ARENAS->taken,
          taken);
    while (pm_heaps_reclaim_more()) {
    }
    CHECK(SMALL_ARENAS->taken <= taken - MANY, "%zu of %zu", SMALL_ARENAS->taken, taken);
    AUDIT();
    pthread_barrier_wait(&all_of_many);
    for (unsigned i = 0; i < MANY; i++) {
        CHECK(pthread_join(threads[i], NULL) == 0);
    }
}

TEST(threads_at_work_lose_nothing) {
    unit_start_busy_threads(4);
    for (unsigned i = 0; i < 3000; i++) {
        pm_heaps_reclaim(i % 10 == 0);
    }
    unit_stop_busy_threads();
    AUDIT();
}

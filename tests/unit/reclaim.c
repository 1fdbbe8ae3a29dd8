// SPDX-License-Identifier: MIT
// Copyright (c) the poolmalloc authors
//
// core/heap: what sleeping threads hold, and who can have it.

#include "fake_os.h"
#include "unit.h"

#include "core/arena.h"
#include "core/heap.h"
#include "os/os.h"
#include "poolmalloc.h"

#include <criterion/criterion.h>
#include <pthread.h>
#include <sched.h>
#include <string.h>
#include <sys/mman.h>

#define TEST(name) UNIT_TEST(reclaim, name)
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
        cr_skip_test("it can't see the barrier that this is about");
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

// A pool's worth of medium blocks, and one more so that the pool is full and not current.
enum { MEDIUM = 32768, MEDIUM_COUNT = PM_POOL_BYTES(PM_MEDIUM_POOL_BITS) / MEDIUM };
static char *medium[MEDIUM_COUNT + 1];

static void take_medium_pool(void) {
    for (unsigned i = 0; i <= MEDIUM_COUNT; i++) {
        medium[i] = unit_take(MEDIUM);
        memset(medium[i], (int)i + 1, MEDIUM);
    }
}

static bool is_resident(const char *block, size_t page) {
    unsigned char resident;
    CHECK(mincore((void *)(block + page * pm_os_page_size()), pm_os_page_size(), &resident) == 0);
    return (resident & 1) != 0;
}

TEST(a_few_blocks_in_use_do_not_pin_the_pages_of_the_others) {
    take_medium_pool();
    for (unsigned i = 1; i < MEDIUM_COUNT; i++) {
        pm_free(medium[i]);
    }
    CHECK(pm_malloc_trim(0) == 1);
    for (unsigned i = 1; i < MEDIUM_COUNT; i++) {
        CHECK(is_resident(medium[i], 0), "the page of the link stays");
        for (size_t page = 1; page < MEDIUM / pm_os_page_size(); page++) {
            CHECK(!is_resident(medium[i], page), "block %u, page %zu", i, page);
        }
    }
    for (size_t i = 0; i < MEDIUM; i++) {
        CHECK(medium[0][i] == 1, "the block in use is as it was");
    }
    AUDIT();
    CHECK(pm_malloc_trim(0) == 0, "there is nothing left");
    pm_free(medium[MEDIUM_COUNT]);
    take_medium_pool();
    AUDIT();
}

TEST(what_rests_for_two_looks_is_purged_inside) {
    take_medium_pool();
    pm_free(medium[1]);
    pm_heaps_reclaim(false);
    CHECK(is_resident(medium[1], 1), "the first look");
    pm_free(medium[2]);
    pm_heaps_reclaim(false);
    CHECK(is_resident(medium[1], 1) && is_resident(medium[2], 1), "a block was freed meanwhile");
    pm_heaps_reclaim(false);
    CHECK(!is_resident(medium[1], 1) && !is_resident(medium[2], 1));
    CHECK(is_resident(medium[0], 1) && is_resident(medium[3], 1));
    AUDIT();
}

TEST(blocks_that_others_have_freed_are_purged_inside) {
    take_medium_pool();
    pm_free(medium[1]);
    unit_in_thread(pm_free, medium[2]);
    pm_heaps_reclaim(true);
    CHECK(!is_resident(medium[1], 1) && !is_resident(medium[2], 1));
    AUDIT();
}

TEST(blocks_of_any_medium_size_keep_their_contents) {
    enum { COUNT = 400, STEPS = 4000 };
    static struct {
        unsigned char *at;
        size_t size;
        unsigned char mark;
    } held[COUNT];
    for (unsigned step = 0; step < STEPS; step++) {
        const size_t slot = unit_below(COUNT);
        if (held[slot].at != NULL) {
            for (size_t i = 0; i < held[slot].size; i += 509) {
                CHECK(held[slot].at[i] == held[slot].mark);
            }
            pm_free(held[slot].at);
            held[slot].at = NULL;
        } else {
            held[slot].size = PM_SMALL_MAX + 1 + unit_below(PM_MEDIUM_MAX - PM_SMALL_MAX);
            held[slot].mark = (unsigned char)step;
            held[slot].at = (unsigned char *)unit_take(held[slot].size);
            memset(held[slot].at, held[slot].mark, held[slot].size);
        }
        if (step % 16 == 0) {
            pm_heaps_reclaim(step % 64 == 0);
        }
    }
    AUDIT();
}

TEST(locked_memory_stays) {
    take_medium_pool();
    pm_free(medium[1]);
    fake_fail(FAKE_PURGE, 0, FAKE_ALL);
    pm_heaps_reclaim(true);
    CHECK(is_resident(medium[1], 1));
    fake_heal();
    pm_heaps_reclaim(true);
    CHECK(!is_resident(medium[1], 1));
}

// Two listed pools of medium blocks: of the first, others free all; of the second, one block stays, which
// the sleeper frees while its heap is looked at.
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

// In the second barrier the thread is known to be outside; then it frees its block, up to the lock.
static void let_it_free(void) {
    if (fake_count(FAKE_BARRIER) == 2) {
        pthread_barrier_wait(&both);
        while (pm_get(&second->owned.used) != 0) {
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
    CHECK(fake_count(FAKE_BARRIER) == 2);
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

TEST(threads_at_work_lose_nothing) {
    unit_start_busy_threads(4);
    for (unsigned i = 0; i < 3000; i++) {
        pm_heaps_reclaim(i % 10 == 0);
    }
    unit_stop_busy_threads();
    AUDIT();
}

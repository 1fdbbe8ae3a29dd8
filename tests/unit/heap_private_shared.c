// SPDX-License-Identifier: MIT
// Copyright (c) the poolmalloc authors
//
// core/private: private heaps among threads, forks, signals, refusals and mistakes.

#include "fake_os.h"
#include "unit.h"

#include "config/options.h"
#include "core/arena.h"
#include "core/emergency.h"
#include "core/heap.h"
#include "core/huge.h"
#include "core/limit.h"
#include "core/run.h"
#include "poolmalloc.h"

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define TEST(name) UNIT_TEST(heap_private_shared, name)
#define MIB        ((size_t)1 << 20)

enum { BLOCK = 1024, POOL_BLOCKS = 64 }; // the class of BLOCK fills its pools

static struct pm_pool *pool_of(const void *block) {
    return pm_pool_of(block, PM_SMALL_POOL_BITS);
}

static struct pm_heap *begin(void) {
    struct pm_heap *const heap = pm_heap_new(NULL);
    CHECK(heap != NULL);
    return heap;
}

static char *take(struct pm_heap *heap, size_t n) {
    char *const block = pm_heap_malloc(heap, n);
    CHECK(block != NULL && pm_heap_of(block) == heap);
    return block;
}

struct blocks {
    char *at[32 * POOL_BLOCKS];
    unsigned count, step;
};

static void take_blocks(struct pm_heap *heap, struct blocks *blocks) {
    for (unsigned i = 0; i < blocks->count; i++) {
        blocks->at[i] = take(heap, BLOCK);
        unit_fill(blocks->at[i], BLOCK, i);
    }
}

static void free_each(void *argument) {
    struct blocks *const blocks = argument;
    for (unsigned i = 0; i < blocks->count; i += blocks->step) {
        CHECK(unit_filled(blocks->at[i], BLOCK, i));
        pm_free(blocks->at[i]);
        blocks->at[i] = NULL;
    }
}

TEST(what_others_free_in_full_pools_serves_before_the_heap_takes_another) {
    struct blocks blocks = { .count = 32 * POOL_BLOCKS, .step = POOL_BLOCKS };
    struct pm_heap *const heap = begin();
    take_blocks(heap, &blocks);
    CHECK(pool_of(blocks.at[0])->shared.state == PM_POOL_FULL);
    const size_t before = pm_heap_bytes(heap);
    AUDIT();
    unit_in_thread(free_each, &blocks);
    CHECK(pool_of(blocks.at[1])->shared.owner == heap, "still the heap's");
    AUDIT();
    for (unsigned i = 0; i < blocks.count; i += blocks.step) {
        blocks.at[i] = take(heap, BLOCK);
        unit_fill(blocks.at[i], BLOCK, i);
        AUDIT();
    }
    CHECK(pm_heap_bytes(heap) == before);
    // Once more: the pools are full again.
    unit_in_thread(free_each, &blocks);
    AUDIT();
    for (unsigned i = 0; i < blocks.count; i += blocks.step) {
        blocks.at[i] = take(heap, BLOCK);
        unit_fill(blocks.at[i], BLOCK, i);
    }
    CHECK(pm_heap_bytes(heap) == before);
    for (unsigned i = 0; i < blocks.count; i++) {
        CHECK(unit_filled(blocks.at[i], BLOCK, i));
    }
    AUDIT();
    pm_heap_destroy(heap);
    AUDIT();
}

TEST(pools_that_others_have_emptied_go_back) {
    struct blocks blocks = { .count = 32 * POOL_BLOCKS, .step = 1 };
    struct pm_heap *const heap = begin();
    take_blocks(heap, &blocks);
    unit_in_thread(free_each, &blocks);
    AUDIT();
    // Found by a miss of any class.
    take(heap, 5000);
    CHECK(pm_heap_bytes(heap) <= 3 * PM_POOL_BYTES(PM_SMALL_POOL_BITS), "%zu", pm_heap_bytes(heap));
    AUDIT();
    pm_heap_destroy(heap);
}

TEST(a_pool_that_both_sides_empty_goes_back) {
    struct blocks blocks = { .count = 2 * POOL_BLOCKS, .step = 2 };
    struct pm_heap *const heap = begin();
    take_blocks(heap, &blocks);
    unit_in_thread(free_each, &blocks);
    for (unsigned i = 1; i < blocks.count; i += 2) {
        pm_heap_free(heap, blocks.at[i]);
        AUDIT();
    }
    pm_heap_trim(heap);
    CHECK(pm_heap_bytes(heap) == 0, "%zu", pm_heap_bytes(heap));
    AUDIT();
    pm_heap_destroy(heap);
}

static size_t sum;
static int add_size(void *block, size_t size, void *arg) {
    (void)block;
    ++*(unsigned *)arg;
    sum += size;
    return 0;
}

// A full pool of which a thread was about to tell when it was stopped.
static struct pm_pool *stop_telling(struct pm_heap *heap, struct blocks *blocks) {
    blocks->count = 2 * POOL_BLOCKS;
    blocks->step = POOL_BLOCKS;
    take_blocks(heap, blocks);
    struct pm_pool *const pool = pool_of(blocks->at[0]);
    CHECK(pool->remote.word == (PM_REMOTE_OWNED | PM_REMOTE_WAITING));
    pool->remote.word = PM_REMOTE_OWNED | PM_REMOTE_TELLING;
    AUDIT();
    // Meanwhile the pool serves, and is full again.
    pm_heap_free(heap, blocks->at[1]);
    CHECK(pool->shared.state == PM_POOL_LISTED);
    while (pool_of(take(heap, BLOCK)) != pool || pool->owned.list != 0) {
    }
    take(heap, BLOCK);
    CHECK(pool->shared.state == PM_POOL_FULL && pool->remote.word >> PM_REMOTE_COUNT_SHIFT == 0);
    unit_in_thread(free_each, blocks);
    CHECK(pool->remote.word >> PM_REMOTE_COUNT_SHIFT == 1 && heap->told != pool, "told of twice");
    AUDIT();
    return pool;
}

TEST(a_thread_that_is_late_to_tell_of_a_pool_is_heard) {
    struct blocks blocks;
    struct pm_heap *const heap = begin();
    struct pm_pool *const pool = stop_telling(heap, &blocks);
    pool->remote.told = heap->told;
    heap->told = pool;
    AUDIT();
    // Found by the next miss; and others may tell of it again.
    take(heap, 5000);
    CHECK(pool->shared.state == PM_POOL_LISTED && !(pool->remote.word & PM_REMOTE_TELLING));
    AUDIT();
    pm_heap_destroy(heap);
    AUDIT();
}

TEST(a_trim_finds_pools_of_which_nobody_will_tell) {
    struct blocks blocks;
    struct pm_heap *const heap = begin();
    struct pm_pool *const pool = stop_telling(heap, &blocks);
    for (unsigned i = 2; i < 40; i++) {
        pm_heap_free(heap, blocks.at[i]);
    }
    pm_heap_trim(heap);
    CHECK(pool->shared.state == PM_POOL_LISTED && pool->inner.away > 0);
    CHECK((pool->remote.word & PM_REMOTE_TELLING) != 0, "until it is told of");
    AUDIT();
    pm_heap_destroy(heap);
    AUDIT();
}

TEST(a_pool_goes_back_after_it_has_left_the_list_of_those_told_of) {
    struct blocks blocks = { .count = 2 * POOL_BLOCKS };
    struct pm_heap *const heap = begin();
    take_blocks(heap, &blocks);
    struct pm_pool *const pool = pool_of(blocks.at[0]);
    pool->remote.word = PM_REMOTE_OWNED | PM_REMOTE_TELLING;
    heap->told = pool;
    AUDIT();
    for (unsigned i = 0; i < POOL_BLOCKS; i++) {
        pm_heap_free(heap, blocks.at[i]);
    }
    CHECK(pool->shared.state == PM_POOL_FREE && heap->told == NULL);
    CHECK(pool->remote.word == PM_REMOTE_OWNED);
    AUDIT();
    pm_heap_destroy(heap);
}

TEST(a_walk_passes_by_what_others_have_freed) {
    struct blocks blocks = { .count = 10 * POOL_BLOCKS + 7, .step = 3 };
    struct pm_heap *const heap = begin();
    unsigned seen = 0;
    take_blocks(heap, &blocks);
    unit_in_thread(free_each, &blocks);
    CHECK(pm_heap_walk(heap, add_size, &seen) == 0 &&
          seen == blocks.count - (blocks.count + 2) / 3);
    struct pm_heap_stats stats;
    pm_heap_stats(heap, &stats);
    CHECK(stats.blocks == seen && stats.bytes == seen * BLOCK);
    pm_heap_destroy(heap);
}

static void *waits[2];

static int is_not_freed(void *block, size_t size, void *arg) {
    (void)size, (void)arg;
    CHECK(block != waits[0]);
    return 0;
}

static void trim_and_destroy(void *heap) {
    CHECK(pm_malloc(10) == NULL && errno == ENOMEM, "the thread can't have a heap");
    CHECK(pm_heap_bytes(heap) > PM_POOL_BYTES(PM_SMALL_POOL_BITS));
    CHECK(pm_heap_trim(heap) == 1);
    // These wait for a call that gives memory back, or for the next miss of any thread.
    pm_heap_free(heap, waits[0]);
    CHECK(pm_heap_walk(heap, is_not_freed, NULL) == 0);
    pm_heap_free(heap, waits[1]);
    pm_heap_destroy(heap);
    CHECK(pm_heaps.private_idle.next == &((struct pm_heap *)heap)->idle, "it has ended");
    fake_heal();
    char *const block = pm_malloc(10);
    CHECK(block != NULL, "later it can");
    pm_free(block);
}

TEST(a_thread_that_can_have_no_heap_ends_those_of_others) {
    struct pm_heap *const heap = begin();
    take(heap, 8000);
    pm_heap_free(heap, take(heap, 60000));
    waits[0] = take(heap, 100000);
    waits[1] = take(heap, 3 * MIB);
    // Metadata that is mapped already would do for a heap.
    fake_fail(FAKE_MAP, 0, FAKE_ALL);
    while (pm_heap_new(NULL) != NULL) {
    }
    unit_in_thread(trim_and_destroy, heap);
    AUDIT();
}

static void free_large(void *argument) {
    char **const blocks = argument;
    for (unsigned i = 0; i < 3; i++) {
        CHECK(pm_malloc_usable_size(blocks[i]) >= 100000);
        char *const moved = pm_realloc(blocks[i], 80 * MIB);
        CHECK(moved != NULL && unit_filled(moved, 100000, i));
        pm_free(moved);
    }
}

TEST(large_blocks_leave_the_heap_by_the_hands_of_others) {
    struct pm_heap *const heap = begin();
    char *blocks[] = { take(heap, 100000), take(heap, 3 * MIB), take(heap, 64 * MIB) };
    for (unsigned i = 0; i < 3; i++) {
        unit_fill(blocks[i], 100000, i);
    }
    CHECK(pm_heap_bytes(heap) > 23 * MIB);
    unit_in_thread(free_large, blocks);
    CHECK(pm_heap_bytes(heap) == 0, "%zu", pm_heap_bytes(heap));
    AUDIT();
    pm_heap_destroy(heap);
}

// Blocks that one thread makes and two free, while it goes on.
enum { RING = 256, ROUNDS = 40000, CONSUMERS = 2 };
static char *ring[CONSUMERS][RING];

static void *consume(void *argument) {
    char **const slots = argument;
    for (unsigned i = 0; i < ROUNDS; i++) {
        char *block;
        while ((block = __atomic_exchange_n(&slots[i % RING], NULL, __ATOMIC_ACQUIRE)) == NULL) {
            sched_yield();
        }
        CHECK(unit_filled(block, 16, i));
        pm_free(block);
    }
    return NULL;
}

TEST(a_heap_serves_while_two_threads_free_its_blocks) {
    static const size_t sizes[] = { 16, 16, 16, 100, 1024, 8000, 30000, 16, 500, 16, 100000 };
    struct pm_heap *const heap = begin();
    pthread_t consumers[CONSUMERS];
    for (unsigned c = 0; c < CONSUMERS; c++) {
        CHECK(pthread_create(&consumers[c], NULL, consume, ring[c]) == 0);
    }
    char *kept[100] = { NULL };
    for (unsigned i = 0; i < ROUNDS; i++) {
        for (unsigned c = 0; c < CONSUMERS; c++) {
            char *const block = take(heap, sizes[(i + c) % (sizeof sizes / sizeof *sizes)]);
            unit_fill(block, 16, i);
            while (__atomic_load_n(&ring[c][i % RING], __ATOMIC_RELAXED) != NULL) {
                sched_yield();
            }
            __atomic_store_n(&ring[c][i % RING], block, __ATOMIC_RELEASE);
        }
        if (i % 5 == 0) {
            pm_heap_free(heap, kept[i / 5 % 100]);
            kept[i / 5 % 100] = take(heap, sizes[i / 5 % 7]);
        }
    }
    for (unsigned c = 0; c < CONSUMERS; c++) {
        pthread_join(consumers[c], NULL);
    }
    AUDIT();
    for (unsigned i = 0; i < 100; i++) {
        pm_heap_free(heap, kept[i]);
    }
    pm_heap_trim(heap);
    CHECK(pm_heap_bytes(heap) == 0, "%zu", pm_heap_bytes(heap));
    AUDIT();
    pm_heap_destroy(heap);
}

// One heap that threads hand to each other.
static struct {
    pthread_mutex_t lock;
    struct pm_heap *heap;
    char *at[512];
    size_t n[512];
} handed = { .lock = PTHREAD_MUTEX_INITIALIZER };

static void *use_handed(void *argument) {
    uint64_t random = (uintptr_t)argument;
    for (unsigned round = 0; round < 300; round++) {
        pthread_mutex_lock(&handed.lock);
        for (unsigned step = 0; step < 50; step++) {
            random = random * UINT64_C(6364136223846793005) + 1442695040888963407;
            const unsigned i = random >> 55;
            const size_t n = (random >> 40) % (i < 4 ? 200000 : 3000);
            CHECK(handed.at[i] == NULL || unit_filled(handed.at[i], handed.n[i], i));
            pm_heap_free(handed.heap, handed.at[i]);
            handed.at[i] = take(handed.heap, n);
            handed.n[i] = n;
            unit_fill(handed.at[i], n, i);
        }
        pthread_mutex_unlock(&handed.lock);
    }
    return NULL;
}

TEST(a_heap_is_handed_from_thread_to_thread) {
    pthread_t threads[4];
    handed.heap = begin();
    for (uintptr_t i = 0; i < 4; i++) {
        CHECK(pthread_create(&threads[i], NULL, use_handed, (void *)(i + 1)) == 0);
    }
    for (unsigned i = 0; i < 4; i++) {
        pthread_join(threads[i], NULL);
    }
    AUDIT();
    pm_heap_destroy(handed.heap);
    AUDIT();
}

static void *use_own(void *nothing) {
    for (unsigned round = 0; round < 30; round++) {
        struct pm_heap *const heap = begin();
        for (size_t n = 1; n < 200000; n += n / 7 + 1) {
            unit_fill(take(heap, n), n, n);
            pm_free(unit_take(n));
        }
        pm_heap_destroy(heap);
    }
    return nothing;
}

TEST(heaps_of_several_threads_are_used_at_the_same_time) {
    pthread_t threads[4];
    for (unsigned i = 0; i < 4; i++) {
        CHECK(pthread_create(&threads[i], NULL, use_own, NULL) == 0);
    }
    for (unsigned i = 0; i < 4; i++) {
        pthread_join(threads[i], NULL);
    }
    CHECK(pm_list_empty(&pm_heaps.private_heaps));
    AUDIT();
}

static void leave_some(void *argument) {
    struct blocks *const blocks = argument;
    for (unsigned i = 0; i < blocks->count; i++) {
        blocks->at[i] = unit_take(BLOCK);
    }
}

TEST(a_heap_takes_no_pool_with_blocks_of_others) {
    // A thread that has ended leaves a pool with room.
    struct blocks blocks = { .count = 3 };
    unit_in_thread(leave_some, &blocks);
    CHECK(pool_of(blocks.at[0])->shared.state == PM_POOL_ABANDONED);
    struct pm_heap *const heap = begin();
    unsigned seen = 0;
    char *const host = take(heap, BLOCK + 100);
    CHECK(pool_of(take(heap, BLOCK)) == pool_of(host), "a guest, as if there were none");
    take(heap, BLOCK - 1);
    CHECK(pm_heap_walk(heap, add_size, &seen) == 0 && seen == 3);
    pm_heap_destroy(heap);
}

static struct pm_heap *forked, *stormed;
static struct blocks forks = { .count = 300, .step = 1 };

static void go_on(void *nothing) {
    (void)nothing;
    for (unsigned i = 0; i < forks.count; i++) {
        CHECK(unit_filled(forks.at[i], BLOCK, i));
        pm_heap_free(forked, forks.at[i]);
        pm_free(take(forked, i * 50));
    }
    pm_heap_trim(forked);
    pm_heap_destroy(forked);
    struct pm_heap *const fresh = begin();
    take(fresh, 100);
    pm_heap_destroy(fresh);
    unit_take(100);
}

TEST(a_heap_goes_on_in_the_child_of_fork) {
    forked = begin();
    take_blocks(forked, &forks);
    unit_in_child(go_on, NULL);
    go_on(NULL);
    AUDIT();
}

static pthread_barrier_t locked;
static bool is_done, has_forked;

// As in the middle of a miss, which ends when the fork waits for it.
static void *hold_lock(void *nothing) {
    pm_lock(&forked->lock);
    pthread_barrier_wait(&locked);
    while ((pm_get(&forked->lock.word) & PM_LOCK_WAITED) == 0 && !pm_get(&has_forked)) {
        sched_yield();
    }
    pm_set(&is_done, true);
    pm_unlock(&forked->lock);
    return nothing;
}

static void go_on_after_the_miss(void *nothing) {
    CHECK(pm_get(&is_done));
    go_on(nothing);
}

TEST(a_fork_waits_for_the_miss_of_a_heap) {
    pthread_t thread;
    if (UNIT_THREAD_SANITIZER) {
        cr_skip("ThreadSanitizer gives up after a fork of several threads");
    }
    forked = begin();
    take_blocks(forked, &forks);
    pthread_barrier_init(&locked, NULL, 2);
    CHECK(pthread_create(&thread, NULL, hold_lock, NULL) == 0);
    pthread_barrier_wait(&locked);
    unit_in_child(go_on_after_the_miss, NULL);
    pm_set(&has_forked, true);
    pthread_join(thread, NULL);
    go_on(NULL);
}

static bool stop;

static void *storm(void *nothing) {
    for (size_t n = 1; !__atomic_load_n(&stop, __ATOMIC_RELAXED); n = n * 7 % 250007) {
        char *const block = take(stormed, n);
        struct pm_heap *const heap = begin();
        pm_free(take(heap, n));
        pm_heap_free(stormed, block);
        take(heap, n % 20000);
        pm_heap_destroy(heap);
    }
    return nothing;
}

TEST(a_fork_among_busy_heaps_leaves_locks_that_work) {
    pthread_t thread;
    if (UNIT_THREAD_SANITIZER) {
        cr_skip("ThreadSanitizer gives up after a fork of several threads");
    }
    stormed = begin();
    CHECK(pthread_create(&thread, NULL, storm, NULL) == 0);
    for (unsigned i = 0; i < 30; i++) {
        forked = begin();
        take_blocks(forked, &forks);
        unit_in_child(go_on, NULL);
        pm_heap_destroy(forked);
    }
    __atomic_store_n(&stop, true, __ATOMIC_RELAXED);
    pthread_join(thread, NULL);
    AUDIT();
}

// In the middle of misses of a private heap, as a handler would.
static unsigned inside;
static struct pm_heap *handlers;
static char *handlers_block;

static void allocate_inside(void) {
    static bool nested;
    if (nested) {
        return;
    }
    nested = true;
    for (size_t n = 10; n < 200000; n *= 20) {
        char *const block = pm_malloc(n);
        CHECK(pm_emergency_owns(block), "%zu", n);
        pm_free(block);
    }
    // A heap of its own: what it has ready, and no more.
    char *const ready = pm_heap_malloc(handlers, 100);
    CHECK(ready != NULL);
    pm_heap_free(handlers, ready);
    errno = 0;
    CHECK(pm_heap_malloc(handlers, 100000) == NULL && errno == ENOMEM);
    CHECK(pm_heap_new(NULL) == NULL && pm_heap_trim(handlers) == 0);
    pm_heap_free(handlers, handlers_block);
    handlers_block = NULL;
    nested = false;
    inside++;
}

TEST(a_handler_that_interrupts_a_miss_waits_for_nobody) {
    static const size_t sizes[] = { 100, 5000, 20000, 100000, 3 * MIB, 64 * MIB };
    handlers = begin();
    struct pm_heap *const heap = begin();
    pm_heap_free(handlers, take(handlers, 100));
    take(handlers, 100);
    for (unsigned call = 0; call < FAKE_WAIT; call++) {
        fake_hook((enum fake_call)call, allocate_inside);
    }
    for (unsigned i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        char *blocks[40];
        const unsigned count = sizes[i] > MIB ? 3 : 40;
        handlers_block = NULL;
        for (unsigned j = 0; j < count; j++) {
            blocks[j] = pm_heap_realloc(heap, pm_heap_malloc(heap, sizes[i]), 2 * sizes[i]);
        }
        for (unsigned j = 0; j < count; j++) {
            pm_heap_free(heap, blocks[j]);
        }
        AUDIT();
    }
    pm_heap_trim(heap);
    pm_heap_destroy(heap);
    for (unsigned call = 0; call < FAKE_WAIT; call++) {
        fake_hook((enum fake_call)call, NULL);
    }
    CHECK(inside > 10, "%u", inside);
    AUDIT();
}

TEST(a_large_block_that_a_handler_frees_inside_a_miss_is_free_later) {
    struct pm_heap *const heap = begin();
    char *const block = take(heap, 100000), *const small = take(heap, 24);
    pm_free(unit_take(10));
    pm_thread.heap->in_miss = true;
    pm_thread.fast = PM_BUSY_HEAP;
    pm_lock(&pm_runs[PM_RUNS_SMALL].lock);
    pm_heap_free(heap, block);
    pm_heap_free(heap, small);
    pm_unlock(&pm_runs[PM_RUNS_SMALL].lock);
    pm_thread.heap->in_miss = false;
    pm_thread.fast = pm_thread.heap;
    unit_take(5000);
    struct pm_heap_stats stats;
    pm_heap_stats(heap, &stats);
    CHECK(stats.large_blocks == 0 && stats.blocks == 0);
    pm_heap_destroy(heap);
    AUDIT();
}

// Signals without pause, while the thread uses a private heap.
TEST(signals_while_a_thread_uses_a_private_heap) {
    static const size_t sizes[] = { 24, 500, 8000, 20000, 100000, 24, 5000, 40 };
    static char *kept[64];
    struct pm_heap *const heap = begin();
    pm_free(unit_take(1));
    unit_start_signals(0);
    for (unsigned i = 0; i < 2000000 && unit_signals_handled() < 10000; i++) {
        CHECK(kept[i % 64] == NULL || unit_filled(kept[i % 64], 24, i % 64));
        pm_heap_free(heap, kept[i % 64]);
        kept[i % 64] = take(heap, sizes[i / 7 % 8]);
        unit_fill(kept[i % 64], 24, i % 64);
    }
    unit_stop_signals();
    AUDIT();
    pm_heap_destroy(heap);
    AUDIT();
}

// A little of everything; true when all of it was served.
static bool try_all(struct pm_heap *heap) {
    static const size_t sizes[] = { 16, 1000, 20000, 100000, 3 * MIB, 64 * MIB };
    char *blocks[6];
    bool served = true;
    for (unsigned i = 0; i < 6; i++) {
        errno = 0;
        blocks[i] = pm_heap_malloc(heap, sizes[i]);
        CHECK((blocks[i] == NULL) == (errno == ENOMEM));
        served = served && blocks[i] != NULL;
        if (blocks[i] != NULL) {
            unit_fill(blocks[i], sizes[i], i);
            char *const moved = pm_heap_realloc(heap, blocks[i], 3 * sizes[i]);
            served = served && moved != NULL;
            blocks[i] = moved != NULL ? moved : blocks[i];
            CHECK(unit_filled(blocks[i], sizes[i] < 64 ? sizes[i] : 64, i));
        }
    }
    for (unsigned i = 0; i < 6; i++) {
        pm_heap_free(heap, blocks[i]);
    }
    return served;
}

TEST(each_single_refusal_is_survived) {
    unit_take(1);
    for (unsigned call = 0; call <= FAKE_MOVE; call++) {
        bool whole = false;
        for (uint32_t pass = 0; pass < 100 && !whole; pass++) {
            pm_malloc_trim(0);
            const uint32_t before = fake_count((enum fake_call)call);
            fake_fail((enum fake_call)call, pass, 1);
            struct pm_heap *const heap = pm_heap_new(NULL);
            if (heap != NULL) {
                try_all(heap);
                AUDIT();
                pm_heap_trim(heap);
                pm_heap_destroy(heap);
            }
            whole = fake_count((enum fake_call)call) - before <= pass;
            fake_heal();
            AUDIT();
        }
        CHECK(whole, "%u", call);
    }
}

TEST(without_memory_everything_stays_as_it_was) {
    struct blocks blocks = { .count = 0, .step = 1 };
    struct pm_heap *const heap = begin();
    char *const block = take(heap, 20);
    take(heap, 200000);
    fake_fail(FAKE_MAP, 0, FAKE_ALL);
    while (blocks.count < 32 * POOL_BLOCKS) {
        char *const taken = pm_heap_malloc(heap, BLOCK);
        if (taken == NULL) {
            CHECK(errno == ENOMEM);
            break;
        }
        unit_fill(taken, BLOCK, blocks.count);
        blocks.at[blocks.count++] = taken;
    }
    char *rest = NULL;
    for (char *taken; (taken = pm_heap_malloc(heap, 8192)) != NULL; rest = taken) {
        *(char **)taken = rest;
    }
    AUDIT();
    CHECK(pm_heap_malloc(heap, 80 * MIB) == NULL && errno == ENOMEM);
    CHECK(pm_heap_realloc(heap, block, 80 * MIB) == NULL && errno == ENOMEM);
    CHECK(pm_heap_of(block) == heap);
    unsigned seen = 0;
    CHECK(pm_heap_walk(heap, add_size, &seen) == 0 && seen > blocks.count);
    while (rest != NULL) {
        char *const next = *(char **)rest;
        pm_heap_free(heap, rest);
        rest = next;
    }
    for (unsigned i = 0; i < blocks.count; i++) {
        CHECK(unit_filled(blocks.at[i], BLOCK, i));
        pm_heap_free(heap, blocks.at[i]);
    }
    take(heap, BLOCK);
    fake_heal();
    take(heap, 80 * MIB);
    AUDIT();
    pm_heap_destroy(heap);
}

TEST(a_limit_refuses_and_lets_the_heap_go_on) {
    struct blocks blocks = { .count = 0 };
    struct pm_heap *const heap = begin();
    take(heap, BLOCK);
    pm_options.limit_hard = pm_limit_footprint() + MIB;
    unit_capture();
    while (blocks.count < 32 * POOL_BLOCKS &&
           (blocks.at[blocks.count] = pm_heap_malloc(heap, BLOCK)) != NULL) {
        unit_fill(blocks.at[blocks.count], BLOCK, blocks.count);
        blocks.count++;
    }
    unit_captured();
    CHECK(errno == ENOMEM && blocks.count > 900 && blocks.count < 1100, "%u", blocks.count);
    AUDIT();
    CHECK(pm_heap_malloc(heap, 2 * MIB) == NULL && errno == ENOMEM);
    // What the heap frees serves it again: other classes, and large blocks.
    for (unsigned i = 0; i < blocks.count; i++) {
        CHECK(unit_filled(blocks.at[i], BLOCK, i));
        pm_heap_free(heap, blocks.at[i]);
    }
    pm_heap_free(heap, take(heap, MIB / 2));
    for (unsigned i = 0; i < 200; i++) {
        take(heap, 3000);
    }
    AUDIT();
    pm_options.limit_hard = PM_OPTION_UNSET;
    pm_heap_destroy(heap);
    AUDIT();
}

TEST(at_a_limit_a_heap_gives_up_the_pools_that_it_keeps) {
    struct blocks blocks = { .count = 900 };
    struct pm_heap *const heap = begin();
    pm_heap_free(heap, take(heap, 100000));
    pm_malloc_trim(0);
    pm_options.limit_hard = pm_limit_footprint() + MIB;
    take_blocks(heap, &blocks);
    for (unsigned i = 0; i < blocks.count; i++) {
        pm_heap_free(heap, blocks.at[i]);
    }
    CHECK(pm_heap_bytes(heap) != 0);
    unit_capture();
    char *const large = pm_heap_malloc(heap, MIB - 16384);
    unit_captured();
    CHECK(large != NULL);
    AUDIT();
    pm_options.limit_hard = PM_OPTION_UNSET;
    pm_heap_destroy(heap);
}

TEST(wild_sizes_are_refused) {
    struct pm_heap *const heap = begin();
    char *const block = take(heap, 100);
    unit_fill(block, 100, 1);
    static const size_t wild[] = { (size_t)PTRDIFF_MAX + 1, SIZE_MAX, PTRDIFF_MAX };
    for (unsigned i = 0; i < 3; i++) {
        errno = 0;
        CHECK(pm_heap_malloc(heap, wild[i]) == NULL && errno == ENOMEM);
        errno = 0;
        CHECK(pm_heap_realloc(heap, block, wild[i]) == NULL && errno == ENOMEM);
        errno = 0;
        CHECK(pm_heap_calloc(heap, wild[i] / 2, 4) == NULL && errno == ENOMEM);
    }
    CHECK(unit_filled(block, 100, 1));
    AUDIT();
    pm_heap_destroy(heap);
}

// Mistakes: each ends the program with its sentence.
static struct pm_heap *mine;

#define MISTAKE(name, sentence, ...) \
    static void name(void) {         \
        __VA_ARGS__;                 \
    }                                \
    TEST(name##_is_stopped) {        \
        mine = begin();              \
        unit_stopped(sentence, name);  \
    }

static void free_mine(void *block) {
    pm_heap_free(mine, block);
}

static const size_t kinds[] = { 100, 20000, 100000, 3 * MIB, 64 * MIB };

MISTAKE(a_block_of_a_threads_heap,
        "): a block of another heap than the one that was named; class of 112",
        free_mine(unit_take(100)))
MISTAKE(a_large_block_of_a_threads_heap, "a block of another heap than the one that was named",
        free_mine(unit_take(100000)))
MISTAKE(a_huge_block_of_a_threads_heap, "a block of another heap than the one that was named",
        free_mine(unit_take(64 * MIB)))
MISTAKE(a_block_of_another_private_heap, "a block of another heap than the one that was named",
        free_mine(take(begin(), 100)))
MISTAKE(a_medium_block_of_another_private_heap,
        "a block of another heap than the one that was named", free_mine(take(begin(), 20000)))
MISTAKE(a_run_of_another_private_heap, "a block of another heap than the one that was named",
        free_mine(take(begin(), 100000)))
MISTAKE(a_realloc_of_another_heaps_block, "pm_heap_realloc(",
        (void)!pm_heap_realloc(mine, unit_take(100), 1000))
MISTAKE(a_realloc_to_nothing_of_another_heaps_block, "pm_heap_realloc(",
        (void)!pm_heap_realloc(mine, unit_take(100), 0))
MISTAKE(a_threads_block_as_one_of_any_private_heap, "): a block of no private heap; class of 112",
        pm_heap_free_any(unit_take(100)))
MISTAKE(an_address_inside_a_block_of_any_heap, "pm_heap_free_any(",
        pm_heap_free_any(take(mine, 100) + 16))
MISTAKE(an_address_inside_a_block, "an address inside a block", free_mine(take(mine, 100) + 16))
MISTAKE(an_unaligned_address, "not aligned to 16 bytes", free_mine(take(mine, 100) + 1))
MISTAKE(an_address_that_was_never_handed_out, "never handed out",
        free_mine(take(mine, 100) + 112 * 500))
MISTAKE(a_local_array, "stray address", char local[64]; memset(local, 0, sizeof local);
        free_mine(local))

// Ends `mine` after some use, so that the library has more of it than its place.
static struct pm_heap *ended(void) {
    for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++) {
        take(mine, kinds[i]);
    }
    pm_heap_destroy(mine);
    return mine;
}

static int visit_none(void *block, size_t size, void *arg) {
    (void)block, (void)size, (void)arg;
    return 0;
}

#define ENDED "): a heap that has been destroyed"
MISTAKE(a_heap_destroyed_twice, ENDED, pm_heap_destroy(ended()))
MISTAKE(a_malloc_of_an_ended_heap, ENDED, (void)!pm_heap_malloc(ended(), 100))
MISTAKE(a_medium_malloc_of_an_ended_heap, ENDED, (void)!pm_heap_malloc(ended(), 20000))
MISTAKE(a_large_malloc_of_an_ended_heap, ENDED, (void)!pm_heap_malloc(ended(), MIB))
MISTAKE(a_calloc_of_an_ended_heap, ENDED, (void)!pm_heap_calloc(ended(), 10, 10))
MISTAKE(an_aligned_malloc_of_an_ended_heap, ENDED, (void)!pm_heap_aligned_alloc(ended(), 64, 64))
MISTAKE(a_realloc_of_an_ended_heap, ENDED, char *const block = take(mine, 100);
        (void)!pm_heap_realloc(ended(), block, 1000))
MISTAKE(a_free_of_an_ended_heap, ENDED, char *const block = take(mine, 100); ended();
        free_mine(block))
MISTAKE(a_walk_of_an_ended_heap, ENDED, pm_heap_walk(ended(), visit_none, NULL))
MISTAKE(a_trim_of_an_ended_heap, ENDED, pm_heap_trim(ended()))

static void free_libcs(void) {
    free_mine(malloc(100));
}

TEST(a_block_of_libc_is_stopped) {
    if (UNIT_THREAD_SANITIZER || UNIT_ADDRESS_SANITIZER) {
        cr_skip("a sanitizer serves them");
    }
    mine = begin();
    unit_stopped("a block of libc's own malloc", free_libcs);
}

static void free_twice_of(size_t n, bool between) {
    char *const block = take(mine, n), *const other = take(mine, n);
    take(mine, n);
    free_mine(block);
    if (between) {
        free_mine(other);
    }
    free_mine(block);
}

#define TWICE(name, kind)                                                         \
    MISTAKE(name, "double free: already free", free_twice_of(kinds[kind], false)) \
    MISTAKE(name##_with_others_between, "double free: already free",              \
            free_twice_of(kinds[kind], true))

TWICE(a_small_block_freed_twice, 0)
TWICE(a_medium_block_freed_twice, 1)
TWICE(a_run_freed_twice, 2)
TWICE(a_large_run_freed_twice, 3)
TWICE(a_huge_block_freed_twice, 4)

static void free_here(void *block) {
    pm_free(block);
}

static void free_twice_by_two(void) {
    struct blocks blocks = { .count = 3 * POOL_BLOCKS };
    take_blocks(mine, &blocks);
    unit_in_thread(free_here, blocks.at[5]);
    free_mine(blocks.at[5]);
}

MISTAKE(a_block_freed_by_another_thread_and_by_the_heap, "double free: already free",
        free_twice_by_two())

static void free_twice_by_another(void) {
    struct blocks blocks = { .count = 3 * POOL_BLOCKS };
    take_blocks(mine, &blocks);
    free_mine(blocks.at[5]);
    unit_in_thread(free_here, blocks.at[5]);
}

MISTAKE(a_block_freed_by_the_heap_and_by_another_thread, "double free: already free",
        free_twice_by_another())

static void free_after_destroy(size_t n) {
    char *const block = take(mine, n);
    take(mine, n);
    pm_heap_destroy(mine);
    pm_free(block);
}

MISTAKE(a_small_block_of_a_heap_that_has_ended, "double free: already free",
        free_after_destroy(100))
MISTAKE(a_large_block_of_a_heap_that_has_ended, "double free: already free",
        free_after_destroy(100000))

static void overwrite(void) {
    char *blocks[3];
    for (unsigned i = 0; i < 3; i++) {
        blocks[i] = take(mine, 100);
    }
    free_mine(blocks[0]);
    free_mine(blocks[1]);
    memset(blocks[1], 'x', 8);
}

MISTAKE(a_malloc_from_a_damaged_list, "pm_heap_malloc(", overwrite(); take(mine, 100);
        take(mine, 100))
MISTAKE(a_walk_over_a_damaged_list, "free list overwritten", unsigned seen = 0; overwrite();
        pm_heap_walk(mine, add_size, &seen))

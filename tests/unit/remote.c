// SPDX-License-Identifier: MIT
// Copyright (c) the poolmalloc authors
//
// core/remote: blocks that a thread frees into pools of others, and holds back for a while.

#include "fake_os.h"
#include "unit.h"

#include "config/options.h"
#include "core/arena.h"
#include "core/heap.h"
#include "core/mode.h"
#include "core/reclaim.h"
#include "core/remote.h"
#include "insight/snapshot.h"
#include "poolmalloc.h"

#include <pthread.h>

#define TEST(name) UNIT_TEST(remote, name)

enum { BLOCK = 64, POOL_BLOCKS = PM_POOL_BYTES(PM_SMALL_POOL_BITS) / BLOCK };

_Static_assert(PM_CHAIN_BYTES / BLOCK >= PM_CHAIN_BLOCKS, "a chain takes CHAIN_BLOCKS of them");

// Blocks of another thread, which stays outside of the library until it is told to end.
static char *theirs[3 * PM_CHAINS * POOL_BLOCKS];
static unsigned asked;
static size_t asked_size;
static pthread_barrier_t both;
static pthread_t other;

static void *hold_blocks(void *unused) {
    for (unsigned i = 0; i < asked; i++) {
        theirs[i] = unit_take(asked_size);
        unit_fill(theirs[i], asked_size, i);
    }
    pthread_barrier_wait(&both);
    pthread_barrier_wait(&both);
    return unused;
}

static void start_holder(unsigned count, size_t size) {
    asked = count;
    asked_size = size;
    pm_free(unit_take(1));
    CHECK(pthread_barrier_init(&both, NULL, 2) == 0);
    CHECK(pthread_create(&other, NULL, hold_blocks, NULL) == 0);
    pthread_barrier_wait(&both);
}

static void end_holder(void) {
    pthread_barrier_wait(&both);
    CHECK(pthread_join(other, NULL) == 0);
    AUDIT();
}

static struct pm_pool *pool_of(const void *block) {
    return pm_pool_of(block, PM_SMALL_POOL_BITS);
}

static unsigned pushed(const void *block) {
    return (unsigned)(pm_get(&pool_of(block)->remote.word) >> PM_REMOTE_COUNT_SHIFT);
}

static unsigned chained(const void *block) {
    return pm_chain_count(pm_chain_of(pm_thread.heap, (uintptr_t)block)->word);
}

static void free_theirs(unsigned from, unsigned to) {
    for (unsigned i = from; i < to; i++) {
        CHECK(unit_filled(theirs[i], asked_size, i));
        pm_free(theirs[i]);
    }
}

TEST(blocks_of_one_pool_reach_it_together) {
    start_holder(POOL_BLOCKS / 2, BLOCK);
    free_theirs(0, PM_CHAIN_BLOCKS);
    CHECK(chained(theirs[0]) == PM_CHAIN_BLOCKS && pushed(theirs[0]) == 0);
    AUDIT();
    free_theirs(PM_CHAIN_BLOCKS, PM_CHAIN_BLOCKS + 1);
    CHECK(chained(theirs[0]) == 1 && pushed(theirs[0]) == PM_CHAIN_BLOCKS);
    AUDIT();
    end_holder();
}

// The first block of another pool whose chain has the same place.
static char *rival_of(const char *block) {
    const struct pm_chain *const chain = pm_chain_of(pm_thread.heap, (uintptr_t)block);
    for (unsigned i = 0; i < asked; i++) {
        if (pool_of(theirs[i]) != pool_of(block) &&
            pm_chain_of(pm_thread.heap, (uintptr_t)theirs[i]) == chain) {
            return theirs[i];
        }
    }
    unit_fail(__FILE__, __LINE__, "there are more pools than places", " ");
}

// Three arenas: the pools of each but one have all places but one.
TEST(a_pool_that_needs_the_place_sends_the_chain_in_it) {
    start_holder(3 * PM_CHAINS * POOL_BLOCKS, BLOCK);
    // The last pool has an owner, the others are full and nobody's.
    char *const last = theirs[asked - 1], *const full = theirs[0];
    CHECK(pool_of(last)->shared.state == PM_POOL_CURRENT);
    CHECK(pool_of(full)->shared.state == PM_POOL_FULL);
    char *const instead[] = { rival_of(last), rival_of(full) };
    pm_free(last);
    CHECK(chained(last) == 1);
    pm_free(instead[0]);
    CHECK(pushed(last) == 1 && pm_chain_first(pm_chain_of(pm_thread.heap, (uintptr_t)last)->word) ==
                                   (uintptr_t)instead[0]);
    AUDIT();
    pm_free(full);
    CHECK(pm_pool_in_use(pool_of(full)) == POOL_BLOCKS);
    pm_free(instead[1]);
    CHECK(pm_pool_in_use(pool_of(full)) == POOL_BLOCKS - 1);
    AUDIT();
    end_holder();
}

static void free_one_and_end(void *block) {
    pm_free(unit_take(1));  // a thread without a heap pushes each block
    pm_free(block);
    CHECK(chained(block) == 1);
}

TEST(a_thread_that_ends_holds_nothing_back) {
    start_holder(10, BLOCK);
    unit_in_thread(free_one_and_end, theirs[0]);
    CHECK(pushed(theirs[0]) == 1);
    AUDIT();
    end_holder();
}

TEST(trim_sends_what_any_thread_holds_back) {
    start_holder(10, BLOCK);
    free_theirs(0, 10);
    CHECK(chained(theirs[0]) == 10);
    if (UNIT_THREAD_SANITIZER) {
        end_holder();
        cr_skip("it can't see the barrier that this is about");
    }
    const size_t before = pm_arenas[PM_ARENAS_SMALL].taken;
    pm_malloc_trim(0);
    CHECK(chained(theirs[0]) == 0);
    CHECK(pm_arenas[PM_ARENAS_SMALL].taken < before, "their pool goes back");
    AUDIT();
    end_holder();
}

static struct pm_heap *looked_at;

static void *free_and_sleep(void *unused) {
    pm_free(unit_take(1));
    looked_at = pm_thread.heap;
    free_theirs(0, 10);
    CHECK(chained(theirs[0]) == 10);
    pthread_barrier_wait(&both);
    pthread_barrier_wait(&both);
    CHECK(chained(theirs[0]) == 0);
    free_theirs(10, 20);
    CHECK(chained(theirs[10]) == 10, "its chains are open again");
    return unused;
}

// While the thread is looked for, and its chains are sent, it chains nothing.
static void see_that_they_are_closed(void) {
    CHECK(looked_at->chains_closed || pm_chain_of(looked_at, (uintptr_t)theirs[0])->word == 0);
}

TEST(what_a_sleeping_thread_holds_back_is_sent_by_who_ages_memory) {
    if (UNIT_THREAD_SANITIZER) {
        cr_skip("it can't see the barrier that this is about");
    }
    asked_size = BLOCK;
    for (unsigned i = 0; i < 20; i++) {
        theirs[i] = unit_take(BLOCK);
        unit_fill(theirs[i], BLOCK, i);
    }
    CHECK(pthread_barrier_init(&both, NULL, 2) == 0);
    CHECK(pthread_create(&other, NULL, free_and_sleep, NULL) == 0);
    pthread_barrier_wait(&both);
    CHECK(pushed(theirs[0]) == 0);
    fake_hook(FAKE_BARRIER, see_that_they_are_closed);
    pm_heaps_reclaim(false);
    fake_hook(FAKE_BARRIER, NULL);
    CHECK(pushed(theirs[0]) == 10 && fake_count(FAKE_BARRIER) >= 2);
    AUDIT();
    end_holder();
}

static void *free_and_stop_inside(void *unused) {
    pm_free(unit_take(1));
    free_theirs(0, 10);
    struct pm_heap *const heap = pm_thread.fast;
    pm_set(&pm_thread.fast, PM_BUSY_HEAP);
    pthread_barrier_wait(&both);
    pthread_barrier_wait(&both);
    CHECK(chained(theirs[0]) == 10);
    pm_set(&pm_thread.fast, heap);
    return unused;
}

TEST(a_thread_inside_the_library_keeps_its_chains) {
    if (UNIT_THREAD_SANITIZER) {
        cr_skip("it can't see the barrier that this is about");
    }
    asked_size = BLOCK;
    for (unsigned i = 0; i < 20; i++) {
        theirs[i] = unit_take(BLOCK);
        unit_fill(theirs[i], BLOCK, i);
    }
    CHECK(pthread_barrier_init(&both, NULL, 2) == 0);
    CHECK(pthread_create(&other, NULL, free_and_stop_inside, NULL) == 0);
    pthread_barrier_wait(&both);
    pm_heaps_reclaim(true);
    CHECK(pushed(theirs[0]) == 0);
    end_holder();
    CHECK(pushed(theirs[0]) == 10, "sent by its end");
}

// FULL, so nobody's: who sends the chain may have it.
TEST(a_full_pool_is_adopted_with_all_that_is_chained) {
    start_holder(2 * POOL_BLOCKS, BLOCK);
    struct pm_pool *const pool = pool_of(theirs[0]);
    CHECK(pool->shared.state == PM_POOL_FULL && pool_of(theirs[POOL_BLOCKS - 1]) == pool);
    free_theirs(0, PM_CHAIN_BLOCKS);
    CHECK(pool->shared.state == PM_POOL_FULL && pool->owned.used == POOL_BLOCKS);
    AUDIT();
    free_theirs(PM_CHAIN_BLOCKS, PM_CHAIN_BLOCKS + 1);
    CHECK(pool->shared.state == PM_POOL_LISTED && pool->shared.owner == pm_thread.heap);
    CHECK(pool->owned.used - pushed(theirs[0]) == POOL_BLOCKS - PM_CHAIN_BLOCKS - 1);
    AUDIT();
    end_holder();
}

static void free_half(void *unused) {
    (void)unused;
    free_theirs(POOL_BLOCKS / 2, POOL_BLOCKS);
}

TEST(the_last_chain_of_an_abandoned_pool_gives_it_back) {
    start_holder(POOL_BLOCKS, BLOCK);
    end_holder();
    struct pm_pool *const pool = pool_of(theirs[0]);
    CHECK(pool->shared.state == PM_POOL_ABANDONED);
    unit_in_thread(free_half, NULL);
    free_theirs(0, POOL_BLOCKS / 2);
    pm_heaps_reclaim(true);
    CHECK(pool->shared.state == PM_POOL_FREE);
    AUDIT();
}

// Freed by one thread, while the pools of its own bin have room: nobody adopts them for good.
TEST(no_chain_keeps_a_pool_that_has_lost_all_else) {
    start_holder(4 * POOL_BLOCKS, BLOCK);
    free_theirs(0, PM_CHAIN_BLOCKS + 1);
    CHECK(pool_of(theirs[0])->shared.state == PM_POOL_LISTED);
    for (unsigned i = 1; i < 3; i++) {
        struct pm_pool *const pool = pool_of(theirs[i * POOL_BLOCKS]);
        CHECK(pool->shared.state == PM_POOL_FULL);
        free_theirs(i * POOL_BLOCKS, (i + 1) * POOL_BLOCKS);
        CHECK(pool->shared.state == PM_POOL_FREE);
        AUDIT();
    }
    end_holder();
}

TEST(where_memory_is_limited_each_block_is_pushed) {
    pm_options.limit_hard = (size_t)1 << 40;
    start_holder(20, BLOCK);
    free_theirs(0, 20);
    CHECK(chained(theirs[0]) == 0 && pushed(theirs[0]) == 20);
    pm_options.limit_hard = PM_OPTION_UNSET;
    end_holder();
}

// Its link is written anew when the chain is sent, so what the program wrote must be told by then.
static void overwrite_the_last_of_a_chain(void) {
    start_holder(20, BLOCK);
    free_theirs(0, 3);
    unit_fill(theirs[0], BLOCK, 7);
    pm_malloc_trim(0);
}

TEST(a_chained_block_that_was_written_to_is_told) {
    unit_stopped("free list overwritten", overwrite_the_last_of_a_chain);
}

static void free_again(void *block) {
    CHECK(pm_heap_prove(block, PM_SMALL_POOL_BITS) == PM_DOUBLE_FREE);
    CHECK(!pm_heap_push_remote(block, PM_SMALL_POOL_BITS));
    CHECK(pm_mode_default.free(block) == PM_DOUBLE_FREE);
}

TEST(a_chained_block_is_free_to_any_thread) {
    start_holder(20, BLOCK);
    free_theirs(0, 12);
    for (unsigned i = 0; i < 12; i++) {
        free_again(theirs[i]);
        unit_in_thread(free_again, theirs[i]);
    }
    CHECK(pm_heap_prove(theirs[12], PM_SMALL_POOL_BITS) == PM_DONE);
    AUDIT();
    end_holder();
}

TEST(a_handler_inside_a_chaining_free_pushes) {
    start_holder(20, BLOCK);
    free_theirs(0, 2);
    struct pm_heap *const heap = pm_thread.fast;
    pm_set(&pm_thread.fast, PM_BUSY_HEAP);
    free_theirs(2, 5);
    pm_set(&pm_thread.fast, heap);
    CHECK(chained(theirs[0]) == 2 && pushed(theirs[0]) == 3);
    AUDIT();
    end_holder();
}

TEST(large_blocks_and_those_of_private_heaps_are_not_held_back) {
    start_holder(4, PM_CHAIN_BYTES / 2 + 1);
    free_theirs(0, 4);
    CHECK(pushed(theirs[0]) == 4);
    end_holder();
    pm_heap *const heap = pm_heap_new(NULL);
    char *blocks[20];
    for (unsigned i = 0; i < 20; i++) {
        CHECK((blocks[i] = pm_heap_malloc(heap, BLOCK)) != NULL);
    }
    for (unsigned i = 0; i < 20; i++) {
        pm_free(blocks[i]);
        CHECK(chained(blocks[i]) == 0 && pushed(blocks[i]) == i + 1);
    }
    pm_heap_destroy(heap);
    AUDIT();
}

TEST(statistics_count_what_is_held_back_as_free) {
    struct pm_snapshot before, after;
    start_holder(20, BLOCK);
    CHECK(pm_snapshot_own(&before));
    free_theirs(0, 12);
    CHECK(chained(theirs[0]) == 12 && pm_snapshot_own(&after));
    CHECK(before.balance.blocks_in_use - after.balance.blocks_in_use == 12 * BLOCK);
    CHECK(after.balance.blocks_free - before.balance.blocks_free == 12 * BLOCK);
    const pm_class class = pm_class_of(BLOCK);
    CHECK(before.classes[class].in_use - after.classes[class].in_use == 12);
    end_holder();
}

static void find_all_free(void *unused) {
    (void)unused;
    CHECK(pushed(theirs[0]) == 10, "the child has sent the chain of the thread it has lost");
    AUDIT();
    for (unsigned i = 0; i < 10; i++) {
        unit_take(BLOCK);
    }
    AUDIT();
}

static void *free_and_wait(void *unused) {
    pm_free(unit_take(1));
    free_theirs(0, 10);
    pthread_barrier_wait(&both);
    pthread_barrier_wait(&both);
    return unused;
}

TEST(a_forks_child_sends_what_its_lost_threads_held_back) {
    if (UNIT_THREAD_SANITIZER) {
        cr_skip("ThreadSanitizer gives up after a fork of several threads");
    }
    asked_size = BLOCK;
    for (unsigned i = 0; i < 10; i++) {
        theirs[i] = unit_take(BLOCK);
        unit_fill(theirs[i], BLOCK, i);
    }
    CHECK(pthread_barrier_init(&both, NULL, 2) == 0);
    CHECK(pthread_create(&other, NULL, free_and_wait, NULL) == 0);
    pthread_barrier_wait(&both);
    CHECK(unit_in_child(find_all_free, NULL));
    CHECK(pushed(theirs[0]) == 0);
    end_holder();
}

// Many threads that free each other's blocks, while others look at what they hold back.
enum { MEMBERS = 4, SHARED = 4096 };
static char *shared[SHARED];

static void *exchange(void *unused) {
    for (unsigned i = 0; i < 100000; i++) {
        char *const mine = unit_take(16 + i % 300);
        char **const place = &shared[(i * UINT64_C(0x9e3779b97f4a7c15)) % SHARED];
        pm_free(__atomic_exchange_n(place, mine, __ATOMIC_ACQ_REL));
    }
    return unused;
}

TEST(threads_that_free_each_others_blocks_lose_none) {
    pthread_t members[MEMBERS];
    for (unsigned i = 0; i < MEMBERS; i++) {
        CHECK(pthread_create(&members[i], NULL, exchange, NULL) == 0);
    }
    for (unsigned i = 0; i < 300; i++) {
        pm_heaps_reclaim(i % 2 == 0);
    }
    for (unsigned i = 0; i < MEMBERS; i++) {
        CHECK(pthread_join(members[i], NULL) == 0);
    }
    AUDIT();
    for (unsigned i = 0; i < SHARED; i++) {
        pm_free(shared[i]);
    }
    pm_malloc_trim(0);
    CHECK(pm_arenas[PM_ARENAS_SMALL].taken == 0);
    AUDIT();
}

// SPDX-License-Identifier: MIT
// Copyright (c) the poolmalloc authors
//
// core/heap: several threads, and whose pools are whose.

#include "fake_os.h"
#include "unit.h"

#include "core/arena.h"
#include "core/heap.h"
#include "core/mode.h"
#include "core/remote.h"
#include "poolmalloc.h"

#include <pthread.h>

#define TEST(name) UNIT_TEST(heap_owner, name)

enum { BLOCK = 1024, POOL_BLOCKS = 64 };  // the class of BLOCK fills its pools

static struct pm_pool *pool_of(const void *block) {
    return pm_pool_of(block, PM_SMALL_POOL_BITS);
}

static size_t remote_count(const struct pm_pool *pool) {
    return pm_get(&pool->remote.word) >> PM_REMOTE_COUNT_SHIFT;
}

struct blocks {
    char *at[4 * POOL_BLOCKS];
    unsigned count;
    struct pm_heap *heap;  // of the thread that had it last
};

static void take_all(void *argument) {
    struct blocks *const blocks = argument;
    for (unsigned i = 0; i < blocks->count; i++) {
        blocks->at[i] = unit_take(BLOCK);
        unit_fill(blocks->at[i], BLOCK, i);
    }
    blocks->heap = pm_thread.heap;
}

static void free_all(void *argument) {
    struct blocks *const blocks = argument;
    for (unsigned i = 0; i < blocks->count; i++) {
        pm_free(blocks->at[i]);
    }
    blocks->heap = pm_thread.heap;
}

TEST(remote_frees_wait_in_the_pool_and_are_collected_by_a_miss) {
    struct blocks blocks = { .count = POOL_BLOCKS };
    take_all(&blocks);
    struct pm_pool *const pool = pool_of(blocks.at[0]);
    struct blocks some = { .count = 10 };
    for (unsigned i = 0; i < 10; i++) {
        some.at[i] = blocks.at[6 * i];
    }
    unit_in_thread(free_all, &some);
    CHECK(remote_count(pool) == 10 && pool->shared.owner == pm_thread.heap);
    AUDIT();
    for (unsigned i = 0; i < 10; i++) {
        char *const block = unit_take(BLOCK);
        CHECK(pool_of(block) == pool && remote_count(pool) == 0);
        CHECK(block == some.at[9 - i], "the last freed first");
        AUDIT();
    }
    CHECK(pool_of(unit_take(BLOCK)) != pool);
    AUDIT();
}

TEST(a_free_into_a_full_pool_makes_the_freeing_thread_its_owner) {
    struct blocks blocks = { .count = POOL_BLOCKS };
    take_all(&blocks);
    struct pm_pool *const pool = pool_of(blocks.at[0]);
    unit_take(BLOCK);
    CHECK(pool->shared.state == PM_POOL_FULL);
    struct blocks one = { .count = 1, .at = { blocks.at[5] } };
    unit_in_thread(free_all, &one);
    // Its thread has ended since: the pool waits for whoever misses next.
    CHECK(pool->shared.state == PM_POOL_ABANDONED && pool->owned.used == POOL_BLOCKS - 1);
    AUDIT();
}

TEST(pools_of_an_ended_thread_serve_the_next_miss_of_another) {
    struct blocks blocks = { .count = 10 };
    unit_in_thread(take_all, &blocks);
    struct pm_pool *const pool = pool_of(blocks.at[0]);
    CHECK(pool->shared.state == PM_POOL_ABANDONED && pool->shared.owner == PM_OWNER_NOBODY);
    CHECK(blocks.heap->ended);
    AUDIT();
    char *const block = unit_take(BLOCK);
    CHECK(pool_of(block) == pool && pool->shared.state == PM_POOL_CURRENT);
    CHECK(pool->shared.owner == pm_thread.heap);
    AUDIT();
    for (unsigned i = 0; i < 10; i++) {
        CHECK(unit_filled(blocks.at[i], BLOCK, i));
        pm_free(blocks.at[i]);
        AUDIT();
    }
}

static void send_chains(void) {
    pm_lock(&pm_thread.heap->lock);
    pm_chains_send(pm_thread.heap);
    pm_unlock(&pm_thread.heap->lock);
}

static void take_pool(struct pm_pool **of_first) {
    *of_first = pool_of(unit_take(BLOCK));
    for (unsigned i = 1; i < POOL_BLOCKS; i++) {
        CHECK(pool_of(unit_take(BLOCK)) == *of_first, "block %u", i);
    }
}

TEST(abandoned_pools_wait_until_a_part_is_free_and_all_have_their_turn) {
    enum { POOLS = PM_PICK_PASS + 1, PART = POOL_BLOCKS / PM_PICK_ABANDONED_MIN };
    static struct blocks full[POOLS];
    struct pm_pool *taken;
    unit_take(16);  // else this thread gets the heap of one that has ended
    for (unsigned i = 0; i < POOLS; i++) {
        full[i].count = POOL_BLOCKS;
        unit_in_thread(take_all, &full[i]);
        CHECK(pool_of(full[i].at[0])->shared.state == PM_POOL_ABANDONED);
    }
    for (unsigned i = 0; i < POOLS; i++) {
        for (unsigned j = 1; j < PART; j++) {
            pm_free(full[i].at[j]);
        }
    }
    send_chains();
    AUDIT();
    take_pool(&taken);
    CHECK(pm_heaps.abandoned[pm_class_of(BLOCK)].count == POOLS, "a nearly full one was taken");
    // Now the last of those that were passed by.
    struct blocks *const roomy = &full[PM_PICK_PASS - 1];
    pm_free(roomy->at[0]);
    send_chains();
    take_pool(&taken);
    CHECK(taken != pool_of(roomy->at[0]), "more were passed by than may be");
    AUDIT();
    for (unsigned i = 0; i < PART; i++) {
        CHECK(pool_of(unit_take(BLOCK)) == pool_of(roomy->at[0]));
    }
    AUDIT();
    // Without memory for another pool, one that is nearly full serves.
    fake_fail(FAKE_MAP, 0, FAKE_ALL);
    const size_t left = pm_heaps.abandoned[pm_class_of(BLOCK)].count;
    while (pm_heaps.abandoned[pm_class_of(BLOCK)].count == left) {
        unit_take(BLOCK);
    }
    fake_heal();
    AUDIT();
}

TEST(the_last_free_into_an_abandoned_pool_gives_it_back) {
    struct blocks blocks = { .count = 3 * POOL_BLOCKS / 2 };
    unit_in_thread(take_all, &blocks);
    const size_t before = pm_arenas[PM_ARENAS_SMALL].taken;
    CHECK(before == 2);
    for (unsigned i = 0; i < blocks.count; i++) {
        pm_free(blocks.at[i]);
        AUDIT();
    }
    CHECK(pm_arenas[PM_ARENAS_SMALL].taken == 0);
    CHECK(pm_heaps.abandoned[pm_class_of(BLOCK)].count == 0);
}

TEST(a_thread_without_blocks_leaves_no_pools) {
    for (unsigned i = 0; i < 20; i++) {
        struct blocks blocks = { .count = 3 * POOL_BLOCKS };
        unit_in_thread(take_all, &blocks);
        unit_in_thread(free_all, &blocks);
        AUDIT();
    }
    CHECK(pm_arenas[PM_ARENAS_SMALL].taken == 0);
}

TEST(heaps_are_used_again_by_the_next_thread) {
    struct blocks blocks = { .count = 1 };
    unit_in_thread(take_all, &blocks);
    const struct pm_heap *const heap = blocks.heap;
    const size_t count = pm_heaps.count;
    for (unsigned i = 0; i < 50; i++) {
        unit_in_thread(free_all, &blocks);
        CHECK(blocks.heap == heap);
        unit_in_thread(take_all, &blocks);
        CHECK(blocks.heap == heap && pm_heaps.count == count);
        AUDIT();
    }
}

TEST(a_double_free_by_another_thread_is_told) {
    struct blocks blocks = { .count = POOL_BLOCKS };
    take_all(&blocks);
    struct pm_pool *const pool = pool_of(blocks.at[0]);
    // On the owner's list, on the remote list, in a full pool's, in a free pool.
    pm_free(blocks.at[0]);
    struct blocks one = { .count = 1, .at = { blocks.at[1] } };
    unit_in_thread(free_all, &one);
    for (unsigned i = 0; i < 2; i++) {
        CHECK(pm_mode_default.free(blocks.at[i]) == PM_DOUBLE_FREE, "%u by its owner", i);
        CHECK(pm_heap_free_block(NULL, blocks.at[i], PM_SMALL_POOL_BITS) == PM_DOUBLE_FREE, "%u",
              i);
        CHECK(pm_heap_free_block(&pm_ended_heap, blocks.at[i], PM_SMALL_POOL_BITS) ==
              PM_DOUBLE_FREE);
    }
    CHECK(remote_count(pool) == 1);
    AUDIT();
    unit_take(BLOCK);
    unit_take(BLOCK);
    unit_take(BLOCK);
    CHECK(pool->shared.state == PM_POOL_FULL);
    pm_free(blocks.at[7]);
    CHECK(pm_heap_free_block(&pm_ended_heap, blocks.at[7], PM_SMALL_POOL_BITS) == PM_DOUBLE_FREE);
    AUDIT();
}

// A damaged link must be told, not mended: also in a list that other threads made.
TEST(a_damaged_link_of_a_remote_free_is_not_lost) {
    struct blocks blocks = { .count = POOL_BLOCKS };
    take_all(&blocks);
    struct pm_pool *const pool = pool_of(blocks.at[0]);
    struct blocks some = { .count = 10 };
    for (unsigned i = 0; i < 10; i++) {
        some.at[i] = blocks.at[i];
    }
    unit_in_thread(free_all, &some);
    *(uint64_t *)blocks.at[5] = 0x4141414141414141;
    // A block on the owner's own list, so that both lists are joined.
    pm_free(blocks.at[30]);
    pm_heap_close(pm_thread.heap);
    struct pm_heap *const heap = pm_heap_open();
    uintptr_t damaged = 0;
    for (unsigned i = 0; i < POOL_BLOCKS && damaged == 0; i++) {
        const uintptr_t block = pm_heap_take_block(heap, pm_class_of(BLOCK), true, &damaged);
        CHECK(damaged != 0 || block != 0);
        if (damaged == 0 && pm_pool_of((void *)block, PM_SMALL_POOL_BITS) != pool) {
            break;
        }
    }
    CHECK(damaged == (uintptr_t)blocks.at[5], "nobody has seen it");
}

TEST(without_memory_for_a_heap_a_thread_gets_no_block) {
    static struct pm_thread others[1000]; // whose heaps these seem to be
    struct pm_heap *heap;
    unit_take(16);
    pm_set(&pm_thread.heap->user, &others[0]);
    fake_fail(FAKE_MAP, 0, FAKE_ALL);
    for (unsigned i = 1; (heap = pm_heap_open()) != NULL; i++) {
        CHECK(i < 1000);
        pm_set(&heap->user, &others[i]);
        AUDIT();
    }
    AUDIT();
    fake_heal();
    heap = pm_heap_open();
    CHECK(heap != NULL);
    pm_heap_close(heap);
    AUDIT();
    CHECK(pm_heap_open() == heap);
}

// Threads in a ring: each frees what the one before it allocated, while that one goes on.
enum { THREADS = 4, ROUNDS = 60, BATCH = 150 };

struct seat {
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    char *batch[BATCH];
    size_t size[BATCH];
    bool full;
    unsigned id;
};

static struct seat seats[THREADS];

static void pass_on(struct seat *to, char *const *batch, const size_t *size) {
    pthread_mutex_lock(&to->lock);
    while (to->full) {
        pthread_cond_wait(&to->changed, &to->lock);
    }
    for (unsigned i = 0; i < BATCH; i++) {
        to->batch[i] = batch[i];
        to->size[i] = size[i];
    }
    to->full = true;
    pthread_cond_signal(&to->changed);
    pthread_mutex_unlock(&to->lock);
}

static void free_batch(struct seat *seat) {
    char *batch[BATCH];
    size_t size[BATCH];
    pthread_mutex_lock(&seat->lock);
    while (!seat->full) {
        pthread_cond_wait(&seat->changed, &seat->lock);
    }
    for (unsigned i = 0; i < BATCH; i++) {
        batch[i] = seat->batch[i];
        size[i] = seat->size[i];
    }
    seat->full = false;
    pthread_cond_signal(&seat->changed);
    pthread_mutex_unlock(&seat->lock);
    for (unsigned i = 0; i < BATCH; i++) {
        CHECK(unit_filled(batch[i], size[i], (uintptr_t)batch[i]));
        pm_free(batch[i]);
    }
}

static void *sit(void *argument) {
    struct seat *const seat = argument;
    uint64_t random = seat->id + 1;
    for (unsigned round = 0; round < ROUNDS; round++) {
        char *batch[BATCH];
        size_t size[BATCH];
        for (unsigned i = 0; i < BATCH; i++) {
            random = random * UINT64_C(6364136223846793005) + 1442695040888963407;
            size[i] = (random >> 33) % (i % 10 == 0 ? 20000 : 400);
            batch[i] = unit_take(size[i]);
            unit_fill(batch[i], size[i], (uintptr_t)batch[i]);
        }
        pass_on(&seats[(seat->id + 1) % THREADS], batch, size);
        free_batch(seat);
    }
    return NULL;
}

TEST(threads_that_free_each_others_blocks_keep_all_equations_and_all_bytes) {
    for (unsigned life = 0; life < 3; life++) {
        for (unsigned i = 0; i < THREADS; i++) {
            seats[i].id = i;
            pthread_mutex_init(&seats[i].lock, NULL);
            pthread_cond_init(&seats[i].changed, NULL);
        }
        for (unsigned i = 0; i < THREADS; i++) {
            CHECK(pthread_create(&seats[i].thread, NULL, sit, &seats[i]) == 0);
        }
        for (unsigned i = 0; i < THREADS; i++) {
            pthread_join(seats[i].thread, NULL);
        }
        AUDIT();
        for (unsigned kind = 0; kind < PM_ARENAS_COUNT; kind++) {
            CHECK(pm_arenas[kind].taken == 0, "%zu pools are lost", pm_arenas[kind].taken);
        }
    }
}

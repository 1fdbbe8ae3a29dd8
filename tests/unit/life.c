// SPDX-License-Identifier: MIT
// Copyright (c) the poolmalloc authors
//
// core/life: threads that start and end.

#include "fake_os.h"
#include "unit.h"

#include "core/arena.h"
#include "core/heap.h"
#include "core/life.h"
#include "poolmalloc.h"

#include <limits.h>
#include <pthread.h>
#include <string.h>

#define TEST(name) UNIT_TEST(life, name)

static size_t taken(void) {
    return pm_arenas[PM_ARENAS_SMALL].taken + pm_arenas[PM_ARENAS_MEDIUM].taken;
}

TEST(starting_again_changes_nothing) {
    char *const block = pm_malloc(100);
    const struct pm_heap *const heap = pm_thread.heap;
    CHECK(pm_life_started());
    pm_life_start();
    CHECK(pm_thread.heap == heap && pm_thread.fast == heap);
    pm_free(block);
    CHECK(pm_malloc(100) == block);
    AUDIT();
}

static void use_all_classes(void *nothing) {
    (void)nothing;
    static _Thread_local char *blocks[PM_CLASS_COUNT][3];
    for (unsigned class = 0; class < PM_CLASS_COUNT; class++) {
        for (unsigned i = 0; i < 3; i++) {
            blocks[class][i] = pm_malloc(pm_classes[class].size);
            CHECK(blocks[class][i] != NULL);
            memset(blocks[class][i], 1, pm_classes[class].size);
        }
    }
    for (unsigned class = 0; class < PM_CLASS_COUNT; class++) {
        for (unsigned i = 0; i < 3; i++) {
            pm_free(blocks[class][i]);
        }
    }
}

TEST(a_thread_that_ends_gives_its_pools_back) {
    unit_in_thread(use_all_classes, NULL);
    CHECK(taken() == 0, "%zu", taken());
    AUDIT();
}

TEST(a_thread_without_requests_has_no_heap) {
    const size_t count = pm_heaps.count;
    unit_in_thread((void (*)(void *))pm_free, NULL);
    CHECK(pm_heaps.count == count);
}

// A key made after ours, whose destructor is called after ours, several times.
static pthread_key_t late_key;
static char *late_blocks[8];
static unsigned late_calls;

static void late(void *value) {
    CHECK(pm_thread.heap == PM_HEAP_ENDED, "ours came first");
    char *const kept = value, *const mine = pm_malloc(200);
    CHECK(mine != NULL && mine != kept);
    pm_free(kept);
    memset(mine, 2, 200);
    char *const grown = pm_realloc(pm_calloc(10, 10), 3000);
    CHECK(grown != NULL && unit_is_zero(grown, 100));
    char *const large = pm_malloc(100000);
    CHECK(large != NULL && pm_malloc_usable_size(large) >= 100000);
    pm_free(large);
    pm_free(grown);
    late_blocks[late_calls++] = mine;
    if (late_calls % 3 != 0) {
        pthread_setspecific(late_key, mine);
    }
}

static void end_late(void *nothing) {
    (void)nothing;
    CHECK(pthread_setspecific(late_key, pm_malloc(200)) == 0);
}

TEST(destructors_after_ours_are_served) {
    if (UNIT_THREAD_SANITIZER) {
        cr_skip("ThreadSanitizer has left the thread before the last round");
    }
    CHECK(pthread_key_create(&late_key, late) == 0);
    for (unsigned i = 0; i < 2; i++) {
        late_calls = 0;
        unit_in_thread(end_late, NULL);
        CHECK(late_calls == 3);
        AUDIT();
        CHECK(late_blocks[2][0] == 2 && late_blocks[2][199] == 2);
        pm_free(late_blocks[2]);
        AUDIT();
    }
}

enum { THREADS = 4, LIVES = 100 };

static void *live_often(void *argument) {
    const uintptr_t id = (uintptr_t)argument;
    char *blocks[30];
    for (unsigned i = 0; i < 30; i++) {
        blocks[i] = pm_malloc(16 * (i + id));
        CHECK(blocks[i] != NULL);
        unit_fill(blocks[i], 16 * (i + id), id);
    }
    for (unsigned i = 0; i < 30; i++) {
        CHECK(unit_filled(blocks[i], 16 * (i + id), id));
        pm_free(blocks[i]);
    }
    return NULL;
}

TEST(threads_that_come_and_go_leave_nothing) {
    for (unsigned life = 0; life < LIVES; life++) {
        pthread_t threads[THREADS];
        for (uintptr_t i = 0; i < THREADS; i++) {
            CHECK(pthread_create(&threads[i], NULL, live_often, (void *)(i + 1)) == 0);
        }
        for (unsigned i = 0; i < THREADS; i++) {
            pthread_join(threads[i], NULL);
        }
    }
    AUDIT();
    CHECK(taken() == 0);
    CHECK(pm_heaps.count <= THREADS + 2, "%zu heaps", pm_heaps.count);
}

static pthread_key_t late_key;

static void allocate_in_the_last_round(void *rounds) {
    if ((uintptr_t)rounds < PTHREAD_DESTRUCTOR_ITERATIONS) {
        pthread_setspecific(late_key, (void *)((uintptr_t)rounds + 1));
    } else {
        CHECK(pm_thread.heap == NULL);
        unit_take(5000);
        pm_free(pm_malloc(100));
    }
}

static void *begin_late(void *unused) {
    pthread_setspecific(late_key, (void *)(uintptr_t)1);
    return unused;
}

// No destructor of ours is called any more, but the next thread with the same words has their heap.
TEST(threads_that_begin_to_allocate_in_their_last_round_leave_no_heaps) {
    if (UNIT_THREAD_SANITIZER) {
        cr_skip("ThreadSanitizer has left the thread before the last round");
    }
    CHECK(pthread_key_create(&late_key, allocate_in_the_last_round) == 0);
    for (unsigned i = 0; i < 100; i++) {
        pthread_t thread;
        CHECK(pthread_create(&thread, NULL, begin_late, NULL) == 0);
        pthread_join(thread, NULL);
    }
    CHECK(pm_heaps.count <= 4, "%zu heaps", pm_heaps.count);
    AUDIT();
}

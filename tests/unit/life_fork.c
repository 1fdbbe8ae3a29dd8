// SPDX-License-Identifier: MIT
// Copyright (c) the poolmalloc authors
//
// core/life: what a child finds whose parent was forked in the middle of other threads' work.

#include "fake_os.h"
#include "unit.h"

#include "core/arena.h"
#include "core/heap.h"
#include "core/huge.h"
#include "core/life.h"
#include "core/run.h"
#include "poolmalloc.h"

#include <pthread.h>
#include <sched.h>
#include <semaphore.h>
#include <stdlib.h>
#include <string.h>

#define TEST(name) UNIT_TEST(life_fork, name)
#define MIB ((size_t)1 << 20)
#define NOW 100000u

static size_t taken(void) {
    return pm_arenas[PM_ARENAS_SMALL].taken + pm_arenas[PM_ARENAS_MEDIUM].taken;
}

static void use_everything(void *nothing) {
    (void)nothing;
    static const size_t sizes[] = { 1, 100, 1000, 8000, 20000, 100000, 3 * MIB, 70 * MIB };
    enum { COUNT = sizeof sizes / sizeof *sizes };
    char *blocks[COUNT][4];
    for (unsigned i = 0; i < COUNT; i++) {
        for (unsigned j = 0; j < 4; j++) {
            blocks[i][j] = pm_malloc(sizes[i]);
            CHECK(blocks[i][j] != NULL);
            unit_fill(blocks[i][j], sizes[i], j);
        }
    }
    for (unsigned i = 0; i < COUNT; i++) {
        for (unsigned j = 0; j < 4; j++) {
            CHECK(unit_filled(blocks[i][j], sizes[i], j));
            pm_free(blocks[i][j]);
        }
    }
}

enum { THREADS = 3 };
static unsigned busy;  // threads that the process had at its fork
static bool is_over;

// A thread that ended in the middle of a fast path has lost a block; nothing else may be wrong.
static void audit_child(void) {
    static const char lost[] = "carved = on the list + put away + used";
    unit_capture();
    const size_t faults = pm_audit();
    const char *line = unit_captured();
    CHECK(faults <= busy, "%s", line);
    for (size_t i = 0; i < faults; i++, line = strchr(line, '\n') + 1) {
        CHECK(strstr(line, lost) != NULL && strstr(line, lost) < strchr(line, '\n'), "%s", line);
    }
}

static void live_as_child(void *nothing) {
    audit_child();
    use_everything(nothing);
    audit_child();
    pm_malloc_trim(0);
    audit_child();
}

static void have_children(void *nothing) {
    live_as_child(nothing);
    unit_in_thread(use_everything, NULL);
    unit_in_child(live_as_child, NULL);
    audit_child();
}

TEST(a_child_allocates_starts_threads_and_forks) {
    use_everything(NULL);
    unit_in_child(have_children, NULL);
    AUDIT();
}

static void with_busy_threads(void (*act)(void)) {
    unit_start_busy_threads(THREADS);
    busy = THREADS;
    act();
    unit_stop_busy_threads();
}

static void fork_often(void) {
    for (unsigned i = 0; i < 60; i++) {
        // AddressSanitizer's own malloc doesn't always survive such a fork: no threads there.
        const bool threads = i % 4 == 0 && !UNIT_ADDRESS_SANITIZER;
        unit_in_child(threads ? have_children : live_as_child, NULL);
        free(malloc(100));
        sched_yield();
    }
}

TEST(children_of_a_busy_process_find_all_in_order) {
    if (UNIT_THREAD_SANITIZER) {
        cr_skip("ThreadSanitizer gives up after a fork of several threads");
    }
    with_busy_threads(fork_often);
    AUDIT();
    CHECK(taken() == 0);
}

// A thread that stands still inside a call to the system, until its process has been forked, or the
// forking thread has to wait for a lock.
static sem_t reached;
static pthread_t standing;
static bool stood, forked;

static void stand_still(void) {
    if (!pthread_equal(pthread_self(), standing) || stood) {
        return;
    }
    stood = true;
    const uint32_t waits = fake_count(FAKE_WAIT);
    sem_post(&reached);
    while (!__atomic_load_n(&forked, __ATOMIC_ACQUIRE) && fake_count(FAKE_WAIT) == waits) {
        sched_yield();
    }
}

static void *stand_in(void *act) {
    standing = pthread_self();
    ((void (*)(void))act)();
    if (!stood) {
        sem_post(&reached);
    }
    return NULL;
}

static void fork_beside(void (*act)(void), void (*child)(void *)) {
    pthread_t thread;
    sem_init(&reached, 0, 0);
    stood = forked = false;
    CHECK(pthread_create(&thread, NULL, stand_in, (void *)act) == 0);
    sem_wait(&reached);
    CHECK(stood, "it did not come there");
    unit_in_child(child, NULL);
    __atomic_store_n(&forked, true, __ATOMIC_RELEASE);
    pthread_join(thread, NULL);
    AUDIT();
}

// What the other thread has not freed yet.
enum { HELD = 200 };
static char *held[HELD];

static void free_one(unsigned at) {
    char *const block = held[at];
    held[at] = NULL;
    pm_free(block);
}

static void free_the_rest(void *nothing) {
    (void)nothing;
    static const enum fake_call hooked[] = { FAKE_PURGE, FAKE_CLOCK };
    for (unsigned i = 0; i < 2; i++) {
        fake_hook(hooked[i], NULL);
    }
    AUDIT();
    for (unsigned i = 0; i < HELD; i++) {
        free_one(i);
    }
    AUDIT();
    pm_malloc_trim(0);
    AUDIT();
    CHECK(taken() == 0, "%zu pools are lost", taken());
    CHECK(pm_runs[PM_RUNS_SMALL].used_units == 0);
    live_as_child(NULL);
}

static void hold(size_t n) {
    for (unsigned i = 0; i < HELD; i++) {
        held[i] = pm_malloc(n);
        CHECK(held[i] != NULL);
        memset(held[i], 1, n);
    }
    // Every other one first, so that they stay apart; each time the last ones have become old.
    for (unsigned i = 0; i < 2 * HELD; i += 2) {
        fake_clock(NOW + i * PM_PURGE_DELAY_MS);
        free_one(i % HELD + i / HELD);
    }
}

static void hold_pools(void) {
    hold(8192);
}

static void hold_runs(void) {
    hold(100000);
}

TEST(a_child_forked_while_pools_are_purged_goes_on) {
    fake_hook(FAKE_PURGE, stand_still);
    fork_beside(hold_pools, free_the_rest);
}

TEST(a_child_forked_while_a_pool_is_given_back_goes_on) {
    fake_clock(NOW);
    fake_hook(FAKE_CLOCK, stand_still);
    fork_beside(hold_pools, free_the_rest);
}

TEST(a_child_forked_while_runs_are_purged_goes_on) {
    fake_hook(FAKE_PURGE, stand_still);
    fork_beside(hold_runs, free_the_rest);
}

// Frees into a current pool that was purged inside, which restore it; and trims beside it what
// ended threads have left.
static void *thin_and_restore(void *unused) {
    enum { COUNT = 500 };
    static char *block[COUNT];
    while (!pm_get(&is_over)) {
        for (unsigned i = 0; i < COUNT; i++) {
            block[i] = pm_malloc(64);
        }
        for (unsigned i = 0; i < COUNT; i++) {
            if (i % 250 >= 4) {
                pm_free(block[i]);
            }
        }
        pm_malloc_trim(0);
        for (unsigned i = 0; i < COUNT; i++) {
            if (i % 250 < 4) {
                pm_free(block[i]);
            }
        }
    }
    return unused;
}

static void leave_pools(void *unused) {
    (void)unused;
    for (size_t n = 16; n <= 2048; n += 16) {
        CHECK(pm_malloc(n) != NULL);
    }
}

TEST(children_find_all_in_order_while_pools_are_purged_inside) {
    pthread_t thread;
    if (UNIT_THREAD_SANITIZER) {
        cr_skip("ThreadSanitizer gives up after a fork of several threads");
    }
    unit_in_thread(leave_pools, NULL);
    busy = 1;
    CHECK(pthread_create(&thread, NULL, thin_and_restore, NULL) == 0);
    for (unsigned i = 0; i < 300; i++) {
        unit_in_child(live_as_child, NULL);
    }
    pm_set(&is_over, true);
    CHECK(pthread_join(thread, NULL) == 0);
    AUDIT();
}

static char *others[100];

static void take_and_wait(void) {
    for (unsigned i = 0; i < 100; i++) {
        others[i] = pm_malloc(500 + i * 10);
        unit_fill(others[i], 500, i);
    }
    stand_still();
    for (unsigned i = 0; i < 100; i++) {
        pm_free(others[i]);
    }
}

static void inherit(void *nothing) {
    (void)nothing;
    AUDIT();
    for (unsigned i = 0; i < 100; i++) {
        CHECK(unit_filled(others[i], 500, i));
        pm_free(others[i]);
        AUDIT();
    }
    CHECK(taken() == 0, "%zu", taken());
}

TEST(a_child_inherits_the_pools_of_threads_it_has_not) {
    fork_beside(take_and_wait, inherit);
    CHECK(taken() == 0);
}

static void fork_here(void *nothing) {
    unit_in_child(live_as_child, nothing);
}

TEST(a_thread_without_a_heap_may_fork) {
    use_everything(NULL);
    unit_in_thread(fork_here, NULL);
    AUDIT();
}

static pthread_key_t late_key;

static void end_late(void *nothing) {
    pm_free(pm_malloc(100));
    CHECK(pthread_setspecific(late_key, &late_key) == 0);
    (void)nothing;
}

TEST(a_thread_that_has_ended_may_fork) {
    CHECK(pthread_key_create(&late_key, fork_here) == 0);
    unit_in_thread(end_late, NULL);
    AUDIT();
}

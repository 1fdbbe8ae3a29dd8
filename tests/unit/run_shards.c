// SPDX-License-Identifier: MIT
// Copyright (c) the poolmalloc authors
//
// core/run: the shards of short runs, and who takes from which.

#include "fake_os.h"
#include "unit.h"

#include "core/heap.h"
#include "core/limit.h"
#include "core/run.h"
#include "poolmalloc.h"

#include <pthread.h>
#include <sched.h>
#include <string.h>

#define TEST(name) UNIT_TEST(run_shards, name)

static const size_t unit = (size_t)1 << PM_RUN_UNIT_BITS;

static uint32_t home(void) {
    return pm_thread.heap->home.shard;
}

static uint32_t shard_of(const void *at) {
    return (uint32_t)(pm_runs_of(PM_RUNS_SMALL, at) - pm_runs);
}

static char *take(size_t units) {
    char *const at = pm_malloc(units * unit);
    CHECK(at != NULL);
    at[0] = at[units * unit - 1] = 1;
    return at;
}

// The thread's next take in the first shard finds that it has had to wait so often, and has freed
// so many. Nothing waits in its place afterwards.
static void look(uint32_t waits, uint32_t own_frees, uint32_t other_frees) {
    pm_free(pm_malloc(1));
    pm_thread.heap->home = (struct pm_run_home){ .takes = PM_SHARD_LOOK - 1,
                                                 .waits = waits,
                                                 .own_frees = own_frees,
                                                 .other_frees = other_frees };
    pm_free(take(9));
    pm_run_empty_own_place();
}

static void move_on(void) {
    look(PM_SHARD_WAITS, PM_SHARD_OWN, PM_SHARD_OTHERS);
}

TEST(threads_that_do_not_wait_share_one) {
    pm_free(pm_malloc(1));
    for (unsigned i = 0; i < 3 * PM_SHARD_LOOK; i++) {
        pm_free(take(10 + i % 2));
    }
    CHECK(home() == 0 && pm_thread.heap->home.waits == 0);
    for (unsigned shard = 1; shard < PM_RUN_SHARDS; shard++) {
        CHECK(pm_runs[shard].count == 0);
    }
    AUDIT();
}

static pthread_barrier_t held, done;

// Has the lock whenever the other thread wants it, and gives it back when that waits.
static void *hold_the_lock(void *unused) {
    for (unsigned i = 0; i < PM_SHARD_WAITS; i++) {
        pm_lock(&pm_runs[0].lock);
        pthread_barrier_wait(&held);
        while ((pm_get(&pm_runs[0].lock.word) & PM_LOCK_WAITED) == 0) {
            sched_yield();
        }
        pm_unlock(&pm_runs[0].lock);
        pthread_barrier_wait(&done);
    }
    return unused;
}

static void take_and_give(void) {
    pm_free(take(10));
    pm_run_empty_own_place();
}

TEST(a_thread_that_often_waits_moves_to_a_shard_of_its_own) {
    pthread_t holder;
    pthread_barrier_init(&held, NULL, 2);
    pthread_barrier_init(&done, NULL, 2);
    pm_free(pm_malloc(1));
    take_and_give(); // makes the arena
    pm_thread.heap->home = (struct pm_run_home){ 0 };
    for (unsigned i = 0; i < PM_SHARD_LOOK - PM_SHARD_WAITS; i++) {
        take_and_give();
    }
    CHECK(home() == 0);
    CHECK(pthread_create(&holder, NULL, hold_the_lock, NULL) == 0);
    for (unsigned i = 0; i < PM_SHARD_WAITS; i++) {
        CHECK(home() == 0, "%u", i);
        pthread_barrier_wait(&held);
        take_and_give();
        pthread_barrier_wait(&done);
    }
    pthread_join(holder, NULL);
    CHECK(home() == 1 && shard_of(take(20)) == 1);
    AUDIT();
}

TEST(who_seldom_waits_or_frees_what_others_took_stays) {
    look(PM_SHARD_WAITS - 1, PM_SHARD_OWN, 0);
    CHECK(home() == 0);
    look(PM_SHARD_WAITS, PM_SHARD_OWN - 1, 0);
    CHECK(home() == 0, "it hands on what it takes");
    look(PM_SHARD_WAITS, PM_SHARD_OWN, PM_SHARD_OTHERS + 1);
    CHECK(home() == 0, "others hand on to it");
    look(PM_SHARD_WAITS, PM_SHARD_OWN, PM_SHARD_OTHERS);
    CHECK(home() == 1);
}

static void take_in_thread(void *to) {
    *(char **)to = take(20);
}

TEST(frees_are_counted_by_who_took) {
    char *others, *const own = take(20);
    unit_in_thread(take_in_thread, &others);
    const struct pm_run_home *const counts = &pm_thread.heap->home;
    pm_free(own);
    CHECK(counts->own_frees == 0, "it waits, and may be taken again");
    CHECK(take(20) == own);
    pm_free(own);
    pm_free(others);
    CHECK(counts->own_frees == 1 && counts->other_frees == 0);
    pm_run_empty_own_place();
    CHECK(counts->own_frees == 1 && counts->other_frees == 1);
    AUDIT();
}

static void move_on_once(void *shard) {
    pm_free(pm_malloc(1));
    *(uint32_t *)shard = home();
    CHECK(pm_thread.heap->home.takes == 0 && pm_thread.heap->home.own_frees == 0);
    if (home() == 0) {
        move_on();
    }
    take_and_give();
}

TEST(a_heap_keeps_its_shard_for_the_next_thread) {
    uint32_t shard = 9;
    for (unsigned i = 0; i < 3; i++) {
        unit_in_thread(move_on_once, &shard);
        CHECK(shard == (i > 0), "%u: %u", i, shard);
    }
    AUDIT();
}

TEST(a_run_goes_back_to_its_shard) {
    char *const first = take(20);
    move_on();
    char *const second = take(30), *const third = take(40);
    CHECK(shard_of(first) == 0 && shard_of(second) == 1);
    CHECK(pm_malloc_usable_size(first) == 20 * unit && pm_malloc_usable_size(second) == 30 * unit);
    CHECK(pm_runs[0].used_units == 20 && pm_runs[1].used_units == 70);
    pm_free(third);
    CHECK(pm_realloc(second, 50 * unit) == second && pm_runs[1].used_units == 50);
    pm_free(first);
    pm_free(second);
    pm_run_empty_own_place();
    CHECK(pm_runs[0].used_units == 0 && pm_runs[1].used_units == 0);
    AUDIT();
}

// Whatever waits in the thread's place, of whichever shard.
TEST(runs_of_two_shards_are_freed_by_one_thread) {
    char *of[2][20];
    for (unsigned shard = 0; shard < 2; shard++) {
        for (unsigned i = 0; i < 20; i++) {
            of[shard][i] = take(10 + i % 3);
        }
        if (shard == 0) {
            move_on();
        }
    }
    CHECK(shard_of(of[0][19]) == 0 && shard_of(of[1][0]) == 1);
    for (unsigned i = 0; i < 20; i++) {
        pm_free(of[i % 2][i]);
        AUDIT();
        pm_free(of[1 - i % 2][i]);
        AUDIT();
        if (i % 5 == 0) {
            pm_free(take(11));
        }
    }
    pm_run_empty_own_place();
    CHECK(pm_runs[0].used_units == 0 && pm_runs[1].used_units == 0);
    AUDIT();
}

TEST(a_shard_with_its_share_of_arenas_takes_what_others_have_free) {
    enum { ARENAS = 4, RUNS = 2 * ARENAS };
    char *many[RUNS];
    for (unsigned i = 0; i < RUNS; i++) {
        many[i] = take(PM_RUN_UNITS_MAX);
    }
    for (unsigned i = 0; i < RUNS; i += 2) {
        pm_free(many[i]);
    }
    move_on();
    CHECK(pm_runs[0].count == ARENAS);
    // Two shards, so as many arenas each before it goes to the others.
    for (unsigned i = 0; i < RUNS + ARENAS; i++) {
        CHECK(shard_of(take(PM_RUN_UNITS_MAX)) == (i < RUNS), "%u", i);
    }
    CHECK(pm_runs[0].count == ARENAS && pm_runs[1].count == ARENAS);
    CHECK(shard_of(take(PM_RUN_UNITS_MAX)) == 1 && pm_runs[1].count == ARENAS + 1);
    AUDIT();
}

TEST(a_shard_without_memory_for_an_arena_takes_from_others) {
    pm_free(take(20));
    move_on();
    fake_fail(FAKE_MAP, 0, FAKE_ALL);
    char *const at = take(30);
    CHECK(shard_of(at) == 0 && home() == 1 && pm_runs[1].count == 0);
    fake_heal();
    CHECK(shard_of(take(30)) == 1);
    AUDIT();
}

TEST(all_shards_are_counted_and_given_back) {
    char *at[PM_RUN_SHARDS];
    pm_malloc_trim(0);
    const size_t before = pm_limit_in_use();
    for (unsigned i = 0; i < PM_RUN_SHARDS; i++) {
        CHECK(home() == i);
        at[i] = take(50);
        memset(at[i], 1, 50 * unit);
        move_on();
    }
    CHECK(home() >= 1 && home() < PM_RUN_SHARDS, "any but the first, as there are no more");
    const size_t runs = pm_limit_in_use() - before;
    CHECK(runs >= PM_RUN_SHARDS * 50 * unit && runs < (PM_RUN_SHARDS * 50 + 5) * unit, "%zu", runs);
    for (unsigned i = 0; i < PM_RUN_SHARDS; i++) {
        CHECK(shard_of(at[i]) == i);
        pm_free(at[i]);
    }
    pm_malloc_trim(0);
    for (unsigned i = 0; i < PM_RUN_SHARDS; i++) {
        CHECK(pm_runs[i].used_units == 0 && pm_runs[i].resident_units == 0);
    }
    AUDIT();
}

TEST(private_heaps_have_runs_of_several) {
    pm_heap *const heap = pm_heap_new(NULL);
    char *const first = pm_heap_malloc(heap, 20 * unit);
    move_on();
    char *const second = pm_heap_malloc(heap, 20 * unit);
    CHECK(shard_of(first) == 0 && shard_of(second) == 1);
    CHECK(pm_heap_of(first) == heap && pm_heap_of(second) == heap);
    CHECK(pm_heap_bytes(heap) >= 40 * unit);
    AUDIT();
    pm_free(first);
    AUDIT();
    pm_heap_destroy(heap);
    CHECK(pm_runs[0].used_units == 0 && pm_runs[1].used_units == 0);
    AUDIT();
}

static void free_it(void *at) {
    CHECK(pm_run_free(pm_runs_of(PM_RUNS_SMALL, at), at) == PM_DONE);
    CHECK(pm_run_free(pm_runs_of(PM_RUNS_SMALL, at), at) == PM_DOUBLE_FREE);
}

TEST(a_second_free_is_seen_in_any) {
    char *const first = take(20);
    move_on();
    char *const second = take(20);
    unit_in_thread(free_it, first);
    unit_in_thread(free_it, second);
    AUDIT();
}

TEST(shards_that_hold_anything_share_what_may_stay) {
    const size_t floor = PM_KEEP_BYTES / unit;
    fake_clock(1000);
    char *const first = take(5);
    move_on();
    pm_runs_age(1000);
    CHECK(home() == 1);
    for (unsigned sharers = 1; sharers <= 2; sharers++) {
        // The second time something is in use in the first one.
        char *const second = take(2 * floor / 5), *const third = take(2 * floor / 5);
        take(5);
        if (sharers == 1) {
            pm_free(first);
            pm_run_empty_own_place();
            pm_runs[0].keep.extra = 0;
            pm_malloc_trim(0);
        } else {
            pm_thread.heap->home.shard = 0;
            take(5);
            pm_thread.heap->home.shard = 1;
        }
        pm_runs_age(1000);
        pm_free(second);
        pm_free(third);
        pm_run_empty_own_place();
        pm_runs[1].keep.extra = 0;
        pm_runs_age(1000);
        const size_t resident = pm_runs[1].resident_units;
        CHECK(sharers == 1 ? resident > floor / 2 : resident <= floor / 2, "%u: %zu", sharers,
              resident);
        AUDIT();
    }
}

TEST(free_runs_of_all_shards_age) {
    fake_clock(1000);
    take(5);
    move_on();
    take(5);
    pm_free(take(20));
    pm_run_empty_own_place();
    CHECK(pm_runs[1].resident_units >= 20);
    fake_clock(1000 + PM_PURGE_DELAY_MS + 1);
    pm_runs_age(1000 + PM_PURGE_DELAY_MS + 1);
    CHECK(pm_runs[1].resident_units == 0);
    AUDIT();
}

// Has the lock of the second shard when the process forks, until the fork wants it.
static bool forked;

static void *hold_the_second(void *unused) {
    pm_lock(&pm_runs[1].lock);
    pthread_barrier_wait(&held);
    while ((pm_get(&pm_runs[1].lock.word) & PM_LOCK_WAITED) == 0 && !pm_get(&forked)) {
        sched_yield();
    }
    pm_unlock(&pm_runs[1].lock);
    pthread_barrier_wait(&done);
    return unused;
}

static void use_in_child(void *waiting) {
    CHECK(pm_get(&pm_runs[1].lock.word) == 0);
    CHECK(take(20) == waiting && home() == 1);
    pm_free(waiting);
    take_and_give();
    AUDIT();
}

TEST(a_fork_waits_for_each_of_them) {
    pthread_t holder;
    move_on();
    char *const waiting = take(20);
    take(5);
    pm_free(waiting);
    pthread_barrier_init(&held, NULL, 2);
    pthread_barrier_init(&done, NULL, 2);
    CHECK(pthread_create(&holder, NULL, hold_the_second, NULL) == 0);
    pthread_detach(holder); // the child could not join it
    pthread_barrier_wait(&held);
    unit_in_child(use_in_child, waiting);
    pm_set(&forked, true);
    pthread_barrier_wait(&done);
    AUDIT();
}

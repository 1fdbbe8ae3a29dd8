// SPDX-License-Identifier: MIT
// Copyright (c) the poolmalloc authors
//
// entry: a signal handler that allocates while its thread is inside the library. POSIX forbids it;
// it must not hang, and the lists stay whole.

#include "fake_os.h"
#include "unit.h"

#include "core/arena.h"
#include "core/emergency.h"
#include "core/heap.h"
#include "core/huge.h"
#include "core/run.h"
#include "poolmalloc.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <unistd.h>

#define TEST(name) UNIT_TEST(reentry, name)
#define MIB        ((size_t)1 << 20)

// The state in which a miss is interrupted, and its end.
static void interrupt_a_miss(void) {
    pm_thread.heap->in_miss = true;
    pm_thread.fast = PM_BUSY_HEAP;
}

static void resume(void) {
    pm_thread.heap->in_miss = false;
    pm_thread.fast = pm_thread.heap;
}

TEST(a_request_inside_a_miss_is_served_by_emergency_memory) {
    static const size_t sizes[] = { 0, 10, 1000, 20000, 100000, 3 * MIB };
    pm_free(pm_malloc(10));
    for (unsigned i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        interrupt_a_miss();
        char *const blocks[] = { pm_malloc(sizes[i]), pm_calloc(1, sizes[i]),
                                 pm_realloc(NULL, sizes[i]), pm_aligned_alloc(4096, sizes[i]),
                                 pm_valloc(sizes[i]) };
        for (unsigned j = 0; j < 5; j++) {
            CHECK(blocks[j] != NULL && pm_emergency_owns(blocks[j]), "%zu by %u", sizes[i], j);
            CHECK(pm_malloc_usable_size(blocks[j]) >= sizes[i]);
            CHECK((uintptr_t)blocks[j] % (j < 3 ? 16 : 4096) == 0);
            unit_fill(blocks[j], sizes[i], j);
        }
        char *const grown = pm_realloc(blocks[0], sizes[i] + 100);
        CHECK(pm_emergency_owns(grown) && unit_filled(grown, sizes[i] > 64 ? 64 : sizes[i], 0));
        pm_free(blocks[1]);
        resume();
        AUDIT();
        for (unsigned j = 2; j < 5; j++) {
            CHECK(unit_filled(blocks[j], sizes[i], j));
            pm_free(blocks[j]);
        }
        // Outside, a block of emergency memory becomes an ordinary one.
        char *const ordinary = pm_realloc(grown, 3 * sizes[i] + 500);
        CHECK(!pm_emergency_owns(ordinary));
        pm_free(ordinary);
        AUDIT();
    }
}

// Of any size, while pools have classes for some only.
TEST(a_block_of_a_miss_shrinks_outside) {
    static const size_t sizes[] = { 70000, 198000, 3 * MIB };
    pm_free(pm_malloc(10));
    for (unsigned i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        interrupt_a_miss();
        char *const block = pm_malloc(sizes[i]);
        CHECK(pm_emergency_owns(block));
        unit_fill(block, sizes[i] / 3, i);
        resume();
        char *const shrunk = pm_realloc(block, sizes[i] / 3);
        CHECK(shrunk != NULL && unit_filled(shrunk, sizes[i] / 3, i));
        pm_free(shrunk);
        AUDIT();
    }
}

TEST(a_realloc_inside_a_miss_keeps_the_bytes) {
    static const size_t sizes[] = { 10, 1000, 20000 };
    for (unsigned i = 0; i < 3; i++) {
        char *const block = pm_malloc(sizes[i]);
        unit_fill(block, sizes[i], i);
        interrupt_a_miss();
        char *const moved = pm_realloc(block, 2 * sizes[i]);
        CHECK(pm_emergency_owns(moved) && unit_filled(moved, sizes[i] < 64 ? sizes[i] : 64, i));
        resume();
        AUDIT();
        pm_free(moved);
    }
}

TEST(a_failed_realloc_inside_a_miss_loses_nothing) {
    char *const block = pm_malloc(100000);
    unit_fill(block, 100000, 1);
    pm_lock(&pm_runs[PM_RUNS_SMALL].lock);
    interrupt_a_miss();
    char *const before = pm_malloc(100);
    pm_free(before);
    errno = 0;
    char *const moved = pm_realloc(block, 200000);
    CHECK(moved != NULL || errno == ENOMEM);
    char *const after = pm_malloc(100);
    CHECK(moved != NULL || before == after, "emergency memory was taken and not given back");
    pm_free(after);
    resume();
    pm_unlock(&pm_runs[PM_RUNS_SMALL].lock);
    CHECK(moved != NULL || unit_filled(block, 100000, 1));
    AUDIT();
}

TEST(a_free_inside_a_miss_takes_no_lock) {
    char *small[100], *medium = pm_malloc(20000), *run = pm_malloc(100000),
                      *huge = pm_malloc(70 * MIB);
    for (unsigned i = 0; i < 100; i++) {
        small[i] = pm_malloc(1000);
    }
    char *const large = pm_malloc(5 * MIB);
    struct pm_lock *const locks[] = { &pm_thread.heap->lock,
                                      &pm_arenas[PM_ARENAS_SMALL].lock,
                                      &pm_arenas[PM_ARENAS_MEDIUM].lock,
                                      &pm_runs[PM_RUNS_SMALL].lock,
                                      &pm_runs[PM_RUNS_LARGE].lock,
                                      &pm_huge_blocks.lock };
    enum { LOCKS = sizeof locks / sizeof *locks };
    for (unsigned i = 0; i < LOCKS; i++) {
        pm_lock(locks[i]);
    }
    interrupt_a_miss();
    for (unsigned i = 0; i < 100; i++) {
        pm_free(small[i]);
    }
    pm_free(medium);
    pm_free(run);
    pm_free(large);
    pm_free(huge);
    CHECK(pm_malloc_trim(0) == 0);
    resume();
    for (unsigned i = LOCKS; i > 0; i--) {
        pm_unlock(locks[i - 1]);
    }
    AUDIT();
    for (unsigned i = 0; i < 200; i++) {
        CHECK(pm_malloc(1000) != NULL);
    }
    AUDIT();
}

TEST(a_size_is_told_inside_a_miss_without_a_lock) {
    static const size_t sizes[] = { 100, 20000, 100000, 5 * MIB, 70 * MIB };
    enum { SIZES = sizeof sizes / sizeof *sizes };
    char *blocks[SIZES];
    for (unsigned i = 0; i < SIZES; i++) {
        blocks[i] = pm_malloc(sizes[i]);
    }
    pm_lock(&pm_runs[PM_RUNS_SMALL].lock);
    pm_lock(&pm_runs[PM_RUNS_LARGE].lock);
    pm_lock(&pm_huge_blocks.lock);
    interrupt_a_miss();
    alarm(UNIT_SECONDS / 4);
    for (unsigned i = 0; i < SIZES; i++) {
        CHECK(pm_malloc_usable_size(blocks[i]) >= sizes[i], "%zu", sizes[i]);
    }
    resume();
    pm_unlock(&pm_huge_blocks.lock);
    pm_unlock(&pm_runs[PM_RUNS_LARGE].lock);
    pm_unlock(&pm_runs[PM_RUNS_SMALL].lock);
}

// Another thread, on its way through all locks as for a fork, waits for the one that was held at
// the interruption.
static pthread_barrier_t taken;

static void *take_in_order(void *nothing) {
    pm_lock(&pm_runs[PM_RUNS_SMALL].lock);
    pthread_barrier_wait(&taken);
    pm_lock(&pm_huge_blocks.lock);
    pm_unlock(&pm_huge_blocks.lock);
    pm_unlock(&pm_runs[PM_RUNS_SMALL].lock);
    return nothing;
}

TEST(a_free_inside_a_miss_waits_for_nobody) {
    pthread_t other;
    char *const block = pm_malloc(100000);
    pthread_barrier_init(&taken, NULL, 2);
    pm_lock(&pm_huge_blocks.lock);
    interrupt_a_miss();
    CHECK(pthread_create(&other, NULL, take_in_order, NULL) == 0);
    pthread_barrier_wait(&taken);
    alarm(UNIT_SECONDS / 4);
    pm_free(block);
    resume();
    pm_unlock(&pm_huge_blocks.lock);
    pthread_join(other, NULL);
    AUDIT();
}

// As a handler that blocks no signal would, in the middle of real misses.
static unsigned inside;

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
    nested = false;
    inside++;
}

TEST(every_call_to_the_system_is_made_inside) {
    static const size_t sizes[] = { 100, 5000, 20000, 100000, 3 * MIB, 70 * MIB };
    for (unsigned call = 0; call < FAKE_WAIT; call++) {
        fake_hook((enum fake_call)call, allocate_inside);
    }
    for (unsigned i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        char *blocks[40];
        const unsigned count = sizes[i] > MIB ? 3 : 40;
        for (unsigned j = 0; j < count; j++) {
            blocks[j] = pm_realloc(pm_malloc(sizes[i]), 2 * sizes[i]);
        }
        for (unsigned j = 0; j < count; j++) {
            pm_free(blocks[j]);
        }
        AUDIT();
    }
    pm_malloc_trim(0);
    for (unsigned call = 0; call < FAKE_WAIT; call++) {
        fake_hook((enum fake_call)call, NULL);
    }
    CHECK(inside > 10);
    AUDIT();
}

static char *in_handler[2];

static void allocate_once(int signal) {
    (void)signal;
    in_handler[0] = pm_malloc(100);
    in_handler[1] = pm_malloc(100000);
}

static void allocate_here(void *nothing) {
    (void)nothing;
    allocate_once(0);
}

static void handle(void (*handler)(int), int flags) {
    struct sigaction action = { .sa_handler = handler, .sa_flags = flags };
    CHECK(sigaction(SIGUSR1, &action, NULL) == 0);
}

TEST(a_handler_inside_a_fast_path_is_served_by_emergency_memory) {
    pm_free(pm_malloc(100));
    handle(allocate_once, 0);
    pm_thread.fast = PM_BUSY_HEAP;
    CHECK(raise(SIGUSR1) == 0);
    pm_thread.fast = pm_thread.heap;
    CHECK(pm_emergency_owns(in_handler[0]) && pm_emergency_owns(in_handler[1]));
    pm_free(in_handler[0]);
    pm_free(in_handler[1]);
    AUDIT();
}

TEST(a_handler_outside_of_the_library_is_served_as_any_caller) {
    pm_free(pm_malloc(100));
    handle(allocate_once, 0);
    CHECK(raise(SIGUSR1) == 0);
    CHECK(!pm_emergency_owns(in_handler[0]) && !pm_emergency_owns(in_handler[1]));
    AUDIT();
}

TEST(a_thread_that_jumped_out_of_a_fast_path_goes_on) {
    char *const block = pm_malloc(100);
    pm_thread.fast = PM_BUSY_HEAP;
    pm_free(block);
    char *const large = pm_malloc(100000), *const small = pm_malloc(100);
    CHECK(!pm_emergency_owns(large) && !pm_emergency_owns(small));
    CHECK(pm_thread.fast == pm_thread.heap);
    AUDIT();
}

TEST(a_fork_inside_a_miss_neither_hangs_nor_breaks_the_parent) {
    pm_free(pm_malloc(100));
    pm_lock(&pm_thread.heap->lock);
    pm_lock(&pm_arenas[PM_ARENAS_SMALL].lock);
    interrupt_a_miss();
    unit_in_child(allocate_here, NULL);
    resume();
    pm_unlock(&pm_arenas[PM_ARENAS_SMALL].lock);
    pm_unlock(&pm_thread.heap->lock);
    AUDIT();
}

// Signals without pause, while the thread does one thing again and again.
static void storm(void (*act)(unsigned i), int flags) {
    pm_free(pm_malloc(1));
    unit_start_signals(flags);
    for (unsigned i = 0; i < 2000000 && unit_signals_handled() < 20000; i++) {
        act(i);
    }
    unit_stop_signals();
    AUDIT();
}

#define STORM(name, act)                  \
    TEST(signals_while_a_thread_##name) { \
        storm(act, 0);                    \
    }

static char *kept[64];

static void malloc_and_free(unsigned i) {
    static const size_t sizes[] = { 24, 500, 8000, 20000, 100000, 24, 5000, 40 };
    CHECK(kept[i % 64] == NULL || unit_filled(kept[i % 64], 24, 1000 + i % 64));
    pm_free(kept[i % 64]);
    kept[i % 64] = pm_malloc(sizes[i / 7 % 8]);
    unit_fill(kept[i % 64], 24, 1000 + i % 64);
}

static void fill_and_empty(unsigned i) {
    const unsigned at = i % 128;
    if (at < 64) {
        kept[at] = pm_malloc(5000);
    } else {
        pm_free(kept[at - 64]);
        kept[at - 64] = NULL;
    }
}

static void change_size(unsigned i) {
    kept[0] = pm_realloc(kept[0], 1 + i * 977 % 200000);
}

static void ask_size(unsigned i) {
    if (kept[0] == NULL) {
        kept[0] = pm_malloc(100000);
        kept[1] = pm_malloc(70 * MIB);
    }
    CHECK(pm_malloc_usable_size(kept[i % 2]) >= 100000);
}

static void trim(unsigned i) {
    malloc_and_free(i);
    pm_malloc_trim(0);
}

static void ask_usage(unsigned i) {
    malloc_and_free(i);
    CHECK(pm_mallinfo2().arena > 0 || i < 2);
}

static void write_report(unsigned i) {
    if (i == 0) {
        const int nowhere = open("/dev/null", O_WRONLY | O_CLOEXEC);
        CHECK(dup2(nowhere, STDERR_FILENO) == STDERR_FILENO);
    }
    malloc_and_free(i);
    pm_malloc_stats();
}

STORM(mallocs_and_frees, malloc_and_free)
STORM(fills_and_empties_pools, fill_and_empty)
STORM(changes_sizes, change_size)
STORM(asks_for_sizes, ask_size)
STORM(trims, trim)
STORM(asks_for_usage, ask_usage)
STORM(writes_reports, write_report)

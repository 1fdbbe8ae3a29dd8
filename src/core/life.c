// SPDX-License-Identifier: MIT
// Copyright (c) the poolmalloc authors

// Threads come without notice and end through the destructor of a thread-specific key. What a
// thread frees or allocates after that goes to the heap of ended threads, under a lock.

#include "core/life.h"

#include <pthread.h>

#include "base/atomic.h"
#include "core/arena.h"
#include "core/heap.h"
#include "core/huge.h"
#include "core/meta.h"
#include "core/remote.h"
#include "core/run.h"

enum { NOT_STARTED, STARTING, STARTED };

static uint32_t state;
static pthread_key_t key;
static bool has_key;

static void end_thread(void *value) {
    struct pm_heap *const heap = value;
    pm_set(&pm_thread.fast, PM_BUSY_HEAP);
    pm_signal_fence();
    pm_thread.heap = PM_HEAP_ENDED;
    pm_heap_close(heap);
    pm_signal_fence();
    pm_set(&pm_thread.fast, PM_NO_HEAP);
}

bool pm_life_started(void) {
    return __atomic_load_n(&state, __ATOMIC_ACQUIRE) == STARTED;
}

void pm_life_start(void) {
    uint32_t seen = NOT_STARTED;
    if (pm_life_started()) {
        return;
    }
    if (!__atomic_compare_exchange_n(&state, &seen, STARTING, false, __ATOMIC_ACQUIRE,
                                     __ATOMIC_ACQUIRE)) {
        while (!pm_life_started()) {
            pm_cpu_pause();
        }
        return;
    }
    pm_arenas_start();
    pm_runs_start();
    pm_huge_start();
    pm_heaps_start();
    // Without a key, the pools of ended threads stay where they are.
    has_key = pthread_key_create(&key, end_thread) == 0;
    __atomic_store_n(&state, STARTED, __ATOMIC_RELEASE);
}

bool pm_life_begin_thread(void) {
    pm_life_start();
    struct pm_heap *const heap = pm_heap_open();
    if (heap == NULL) {
        return false;
    }
    pm_thread.heap = heap;
    pm_thread.fast = heap;
    pm_signal_fence();
    if (has_key) {
        // May allocate, which the heap serves by now.
        pthread_setspecific(key, heap);
    }
    return true;
}

// Calls `act` for every lock but that of the heaps, in the order of ranks. The lock of the heaps is
// held, or nobody else is there: it keeps the list of heaps as it is.
static void for_all_lower_locks(void (*act)(struct pm_lock *)) {
    act(&pm_ended_lock);
    PM_LIST_EACH(link, &pm_heaps.every) {
        act(&PM_LIST_ENTRY(link, struct pm_heap, every)->lock);
    }
    PM_LIST_EACH(link, &pm_heaps.private_heaps) {
        act(&PM_LIST_ENTRY(link, struct pm_heap, every)->lock);
    }
    for (unsigned class = 0; class < PM_CLASS_COUNT; class ++) {
        act(&pm_heaps.abandoned[class].lock);
    }
    act(&pm_grow_lock);
    for (unsigned kind = 0; kind < PM_ARENAS_COUNT; kind++) {
        act(&pm_arenas[kind].lock);
    }
    for (unsigned shard = 0; shard < PM_RUNS_COUNT; shard++) {
        act(&pm_runs[shard].lock);
    }
    act(&pm_huge_blocks.lock);
    act(&pm_meta.lock);
}

static bool has_heap(void) {
    return pm_thread.heap != NULL && pm_thread.heap != PM_HEAP_ENDED;
}

// A handler that forks after it interrupted a miss finds locks that its own thread holds, and
// structures in the middle of a change: then nothing is taken, and the child adopts nothing.
static bool interrupted(void) {
    return pm_thread.fast == PM_BUSY_HEAP && (!has_heap() || pm_thread.heap->in_miss);
}

// What a thread was doing: a handler may fork inside a fast path.
struct doing {
    struct pm_heap *fast;
    bool in_miss;
};

// From the first lock to the last, a thread that forks is busy and in a miss: what other libraries'
// handlers, and handlers of signals, ask for meanwhile is served elsewhere.
static struct doing become_busy(void) {
    struct doing before = { .fast = pm_thread.fast };
    pm_set(&pm_thread.fast, PM_BUSY_HEAP);
    if (has_heap()) {
        before.in_miss = pm_thread.heap->in_miss;
        pm_thread.heap->in_miss = true;
    }
    pm_signal_fence();
    return before;
}

static void go_on(struct doing before) {
    pm_signal_fence();
    if (has_heap()) {
        pm_thread.heap->in_miss = before.in_miss;
    }
    pm_signal_fence();
    pm_set(&pm_thread.fast, before.fast);
}

// The thread that has taken the locks for a fork. Written under all of them.
static uint64_t forker;
static struct doing before_fork;

static bool is_forking(void) {
    return pm_get(&forker) == pm_lock_self();
}

void pm_life_before_fork(void) {
    if (!pm_life_started() || interrupted()) {
        return;
    }
    const struct doing before = become_busy();
    pm_lock(&pm_heaps.lock);
    for_all_lower_locks(pm_lock);
    before_fork = before;
    pm_set(&forker, pm_lock_self());
}

void pm_life_after_fork_in_parent(void) {
    if (is_forking()) {
        const struct doing before = before_fork;
        pm_set(&forker, 0);
        for_all_lower_locks(pm_unlock);
        pm_unlock(&pm_heaps.lock);
        go_on(before);
    }
}

// The other threads are gone: at any point of a fast path, which loses at most a chain each, or of
// a purge or a mapping between two locks, which loses what it had in hands. Private heaps go on.
void pm_life_after_fork_in_child(void) {
    if (!pm_life_started()) {
        return;
    }
    const bool forking = is_forking();
    pm_lock_reset(&pm_heaps.lock);
    for_all_lower_locks(pm_lock_reset);
    PM_LIST_EACH(link, &pm_heaps.every) {
        pm_chains_open(PM_LIST_ENTRY(link, struct pm_heap, every));
    }
    if (!forking) {
        return;
    }
    pm_set(&forker, 0);
    PM_LIST_EACH(link, &pm_heaps.every) {
        struct pm_heap *const heap = PM_LIST_ENTRY(link, struct pm_heap, every);
        if (heap != pm_thread.heap && heap != &pm_ended_heap && !heap->ended) {
            heap->in_miss = false;
            pm_heap_close(heap);
        }
    }
    go_on(before_fork);
}

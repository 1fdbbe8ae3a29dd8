// SPDX-License-Identifier: MIT
// Copyright (c) the poolmalloc authors

// Locks, and the order in which they are taken.
//
// A thread takes a lock only while the highest that it holds ranks lower. Fork takes all of them in
// this order, and fork, the audit and the snapshot alone take several of one rank, as they are
// listed. A holder makes no system call under a lock that many threads share (all but HEAPS,
// HEAP and GROW), but for mincore, once for a new arena of a large heap. A lock knows its holder,
// so that a signal handler, or a fork inside one, can see that the interrupted code of its own
// thread holds it.

#ifndef PM_CORE_LOCK_H
#define PM_CORE_LOCK_H

#include <stdbool.h>
#include <stdint.h>

#include "base/attributes.h"
#include "core/thread.h"

enum pm_rank {
    PM_RANK_HEAPS,     // the lists of heaps, and the heap of ended threads
    PM_RANK_HEAP,      // one heap: its bins
    PM_RANK_ABANDONED, // the abandoned pools of one class
    PM_RANK_GROW,      // the mapping of one more arena
    PM_RANK_ARENAS,    // the pool arenas of one kind, their free pools
    PM_RANK_RUNS,      // run arenas and their runs
    PM_RANK_HUGE,      // huge blocks and their cache
    PM_RANK_META,      // metadata chunks, leaves of the address map
    PM_RANK_COUNT
};

// The word is the holder's &pm_thread, 0 while free; its lowest bit is set when threads may wait
// for its lower half. Taking it and naming the holder is one step, so that a handler can rely on
// it.
struct pm_lock {
    uint64_t word; // atomic
    uint32_t rank; // enum pm_rank
    uint32_t unused;
};

#define PM_LOCK_WAITED UINT64_C(1)
#define PM_LOCK_INIT(of) \
    { .rank = (of) }

void pm_lock_slow(struct pm_lock *lock);
void pm_lock_wake(struct pm_lock *lock);
void pm_lock_check_taking(const struct pm_lock *lock);
void pm_lock_check_giving(const struct pm_lock *lock);

// After fork, in the child: whoever held it is gone.
void pm_lock_reset(struct pm_lock *lock);

PM_INLINE uint64_t pm_lock_self(void) {
    return (uint64_t)(uintptr_t)&pm_thread;
}

PM_INLINE bool pm_lock_mine(const struct pm_lock *lock) {
    return (__atomic_load_n(&lock->word, __ATOMIC_RELAXED) & ~PM_LOCK_WAITED) == pm_lock_self();
}

// Returns whether another thread had it.
PM_INLINE bool pm_lock_waited(struct pm_lock *lock) {
    if (PM_CHECKS) {
        pm_lock_check_taking(lock);
    }
    uint64_t word = 0;
    if (PM_UNLIKELY(!__atomic_compare_exchange_n(&lock->word, &word, pm_lock_self(), false,
                                                 __ATOMIC_ACQUIRE, __ATOMIC_RELAXED))) {
        pm_lock_slow(lock);
        return true;
    }
    return false;
}

PM_INLINE void pm_lock(struct pm_lock *lock) {
    (void)pm_lock_waited(lock);
}

PM_INLINE void pm_unlock(struct pm_lock *lock) {
    if (PM_CHECKS) {
        pm_lock_check_giving(lock);
    }
    if (PM_UNLIKELY(__atomic_exchange_n(&lock->word, 0, __ATOMIC_RELEASE) & PM_LOCK_WAITED)) {
        pm_lock_wake(lock);
    }
}

#endif

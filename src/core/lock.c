// SPDX-License-Identifier: MIT
// Copyright (c) the poolmalloc authors

// The waiting half of the locks, and the rank check of checks builds.

#include "core/lock.h"

#include "base/atomic.h"
#include "config/limits.h"
#include "os/os.h"

// How many locks of each rank the thread holds; kept in checks builds only.
struct held {
    uint8_t count[PM_RANK_COUNT];
};

#if PM_CHECKS
static PM_TLS struct held held;
#else
static struct held held;
#endif

static bool try_take(struct pm_lock *lock, uint64_t taken) {
    uint64_t word = 0;
    return pm_get(&lock->word) == 0 &&
           __atomic_compare_exchange_n(&lock->word, &word, taken, false, __ATOMIC_ACQUIRE,
                                       __ATOMIC_RELAXED);
}

// What a waiter sleeps on.
static uint32_t *lower_half(struct pm_lock *lock) {
    return (uint32_t *)(void *)&lock->word;
}

void pm_lock_slow(struct pm_lock *lock) {
    const uint64_t begin = pm_cpu_ticks();
    do {
        if (try_take(lock, pm_lock_self())) {
            return;
        }
        pm_cpu_pause();
    } while (pm_cpu_ticks() - begin < pm_cpu_ticks_per_ms() / PM_LOCK_SPIN_PART);
    // Others may wait as well, which the next holder must not forget.
    while (!try_take(lock, pm_lock_self() | PM_LOCK_WAITED)) {
        uint64_t word = pm_get(&lock->word);
        if (word != 0 && ((word & PM_LOCK_WAITED) != 0 ||
                          __atomic_compare_exchange_n(&lock->word, &word, word | PM_LOCK_WAITED,
                                                      false, __ATOMIC_RELAXED, __ATOMIC_RELAXED))) {
            pm_os_wait(lower_half(lock), (uint32_t)(word | PM_LOCK_WAITED));
        }
    }
}

void pm_lock_wake(struct pm_lock *lock) {
    pm_os_wake(lower_half(lock), 1);
}

void pm_lock_reset(struct pm_lock *lock) {
    pm_set(&lock->word, 0);
    if (PM_CHECKS) {
        held = (struct held){ 0 };
    }
}

void pm_lock_check_taking(const struct pm_lock *lock) {
    PM_ASSERT(!pm_lock_mine(lock));
    for (unsigned rank = lock->rank + 1; rank < PM_RANK_COUNT; rank++) {
        PM_ASSERT(held.count[rank] == 0);
    }
    held.count[lock->rank]++;
}

void pm_lock_check_giving(const struct pm_lock *lock) {
    PM_ASSERT(pm_lock_mine(lock) && held.count[lock->rank] > 0);
    held.count[lock->rank]--;
}

// SPDX-License-Identifier: MIT
// Copyright (c) the poolmalloc authors

// Relaxed access to fields that one thread writes and others may read. On the machines that we
// serve these are plain loads and stores; they only tell the compiler and ThreadSanitizer that the
// sharing is meant. Stronger orders are spelled out where they are needed.

#ifndef PM_BASE_ATOMIC_H
#define PM_BASE_ATOMIC_H

#include <stdbool.h>
#include <stdint.h>

#include "base/attributes.h"

#define pm_get(field)        __atomic_load_n((field), __ATOMIC_RELAXED)
#define pm_set(field, value) __atomic_store_n((field), (value), __ATOMIC_RELAXED)

// For counters with one writer at a time: not an atomic addition.
#define pm_add(field, value) pm_set((field), pm_get(field) + (value))

// The same by one, for a uint32_t; the second is true when zero is reached. Compilers never make
// one instruction of an atomic load and an atomic store, though on x86 a reader can't tell.
PM_INLINE void pm_count_up(uint32_t *count) {
#if defined(__x86_64__)
    __asm__("addl $1, %0" : "+m"(*count) : : "cc");
#else
    pm_add(count, 1);
#endif
}

PM_INLINE bool pm_count_down(uint32_t *count) {
#if defined(__x86_64__)
    bool zero;
    __asm__("subl $1, %0" : "+m"(*count), "=@ccz"(zero));
    return zero;
#else
    const uint32_t left = pm_get(count) - 1;
    pm_set(count, left);
    return left == 0;
#endif
}

// Keeps the order of stores for a signal handler, or a fork, that stops this thread in between.
#define pm_signal_fence() __atomic_signal_fence(__ATOMIC_SEQ_CST)

PM_INLINE void pm_cpu_pause(void) {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#else
    __asm__ volatile("yield");
#endif
}

// The processor's counter of time. It may differ from one processor to the next.
PM_INLINE uint64_t pm_cpu_ticks(void) {
#if defined(__x86_64__)
    return __builtin_ia32_rdtsc();
#else
    uint64_t ticks;
    __asm__ volatile("mrs %0, cntvct_el0" : "=r"(ticks));
    return ticks;
#endif
}

// About as much as it counts in a millisecond; on x86 in 0.2 to 1, as the speed is not known.
PM_INLINE uint64_t pm_cpu_ticks_per_ms(void) {
#if defined(__x86_64__)
    return 1 << 20;
#else
    uint64_t per_second;
    __asm__ volatile("mrs %0, cntfrq_el0" : "=r"(per_second));
    return per_second / 1000;
#endif
}

#endif

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

#endif

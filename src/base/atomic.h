// SPDX-License-Identifier: MIT
// Copyright (c) the poolmalloc authors

// Relaxed access to fields that one thread writes and others may read. On the machines that we
// serve these are plain loads and stores; they only tell the compiler and ThreadSanitizer that the
// sharing is meant. Stronger orders are spelled out where they are needed.

#ifndef PM_BASE_ATOMIC_H
#define PM_BASE_ATOMIC_H

#include "base/attributes.h"

#define pm_get(field)        __atomic_load_n((field), __ATOMIC_RELAXED)
#define pm_set(field, value) __atomic_store_n((field), (value), __ATOMIC_RELAXED)

// For counters with one writer at a time: not an atomic addition.
#define pm_add(field, value) pm_set((field), pm_get(field) + (value))

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

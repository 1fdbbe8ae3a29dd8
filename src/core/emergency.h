// SPDX-License-Identifier: MIT
// Copyright (c) the poolmalloc authors

// Blocks for signal handlers that allocate inside an interrupted malloc. POSIX forbids it, programs
// do it: such a request takes no lock and touches no heap.

#ifndef PM_CORE_EMERGENCY_H
#define PM_CORE_EMERGENCY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/verdict.h"

// n zeroed bytes at a multiple of align (a power of two), or NULL. Any thread, any handler.
void *pm_emergency_malloc(size_t n, size_t align);

// Is this an address in emergency memory?
bool pm_emergency_owns(const void *at);

// For addresses that it owns.
enum pm_verdict pm_emergency_free(void *block);
size_t pm_emergency_size(const void *block, enum pm_verdict *verdict);

// What the memory is cut from; published once, never taken away.
#define PM_EMERGENCY_CHUNKS 64

struct pm_emergency_chunk {
    size_t size;
    uint64_t state; // blocks in use and bytes used; atomic
};

extern struct pm_emergency_chunk *pm_emergency_chunks[PM_EMERGENCY_CHUNKS];

#endif

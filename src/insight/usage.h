// SPDX-License-Identifier: MIT
// Copyright (c) the poolmalloc authors

// The figures of mallinfo2(3) and malloc_info(3), about our heap.

#ifndef PM_INSIGHT_USAGE_H
#define PM_INSIGHT_USAGE_H

#include <stdbool.h>
#include <stddef.h>

struct pm_usage {
    size_t in_arenas;   // bytes mapped for pools and runs
    size_t free_blocks; // free blocks in pools
    size_t free_pools;  // bytes of free pools and runs that are resident
    size_t huge_blocks; // number of huge blocks
    size_t huge_bytes;  // their bytes
    size_t used;        // bytes in use in pools and runs
    size_t free;        // in_arenas - used
};

// False, and all zero, when there is no memory to look.
bool pm_usage_read(struct pm_usage *usage);

#endif

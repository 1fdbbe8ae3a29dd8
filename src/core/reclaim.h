// SPDX-License-Identifier: MIT
// Copyright (c) the poolmalloc authors

// Memory of sleeping threads.

#ifndef PM_CORE_RECLAIM_H
#define PM_CORE_RECLAIM_H

#include <stdbool.h>
#include <stddef.h>

// Gives back pools without a block in use, and purges inside of others, in heaps of threads that
// are outside the library, as those that sleep are: of PM_RECLAIM_HEAPS heaps what rests, or of all
// heaps everything; and in abandoned pools. Returns bytes purged inside. The caller holds no lock.
size_t pm_heaps_reclaim(bool all);

// What rests in the next PM_RECLAIM_HEAPS heaps of those that the last pm_heaps_reclaim has left;
// false when none is left.
bool pm_heaps_reclaim_more(void);

#endif

// SPDX-License-Identifier: MIT
// Copyright (c) the poolmalloc authors

// Limits on the memory of the heap (POOLMALLOC_LIMIT), so that a program is told ENOMEM before the
// kernel kills it.
//
// What counts is the footprint: what blocks, pools and runs in use take, free memory that is
// resident, and metadata. It is summed up from the counters of the structures when memory is about
// to be taken into use that was not resident; threads that do so at once may pass a limit by what
// they take.

#ifndef PM_CORE_LIMIT_H
#define PM_CORE_LIMIT_H

#include <stdbool.h>
#include <stddef.h>

#include "base/attributes.h"
#include "config/limits.h"
#include "config/options.h"

// After the options were read; by one thread.
void pm_limit_attach(void);

// Bytes touched in pools that heaps hold, of runs and of huge blocks in use.
size_t pm_limit_in_use(void);

// Bytes that count: these, free memory that is resident, and metadata.
size_t pm_limit_footprint(void);

PM_INLINE bool pm_limit_is_set(void) {
    return pm_options.limit_soft != PM_OPTION_UNSET || pm_options.limit_hard != PM_OPTION_UNSET;
}

// Is more than the soft limit taken?
PM_INLINE bool pm_limit_is_passed(void) {
    return pm_options.limit_soft != PM_OPTION_UNSET && pm_limit_footprint() > pm_options.limit_soft;
}

// Could a request of n bytes be met if everything else went back?
PM_INLINE bool pm_limit_can_ever_allow(size_t n) {
    return n >> PM_ADDRESS_BITS == 0 && n <= pm_options.limit_hard;
}

// May `more` bytes be taken into use? Above the soft limit, free memory goes back first. The caller
// holds at most the lock of its heap.
bool pm_limit_allows(size_t more);

#endif

// SPDX-License-Identifier: MIT
// Copyright (c) the poolmalloc authors

// Transparent huge pages.
//
// Memory in huge pages costs a quarter to touch first, and programs that walk through much of it
// miss the translation cache less. But a huge page is resident as a whole, what is purged of one part
// stays charged to the process until the kernel splits it, and the kernel puts purged parts together
// into huge pages again. So by default (`auto`) arenas ask for them only in a large heap, and refuse
// them in a small one, also where the system gives them to everyone. An arena that asks gives back
// whole huge pages only, until it is sparse, for the purge delay or while too much is free: then it
// leaves them, for good, and is purged as any other. Pools that blocks in use pin, but that could be purged
// inside, count as free there.

#ifndef PM_CORE_THP_H
#define PM_CORE_THP_H

#include <stddef.h>

#include "base/attributes.h"
#include "base/list.h"
#include "config/limits.h"
#include "config/options.h"
#include "core/clock.h"
#include "os/os.h"

// Of an arena; under the lock of its kind. Counts are of pools, or of units.
struct pm_thp_arena {
    struct pm_list sparse; // on the list of sparse arenas of its kind, the latest first
    uint32_t sparse_at;    // since when (milliseconds)
    uint32_t free;         // free and resident
    uint32_t used;         // neither free nor purged
    uint32_t due;          // of these, to be purged inside
    bool asks;             // for huge pages
};

// Memory for blocks larger than huge pages: in `auto` it has what the system gives.
PM_INLINE void pm_thp_advise_large(void *at, size_t size) {
    if (PM_UNLIKELY(pm_options.thp != PM_THP_AUTO)) {
        pm_os_advise_huge_pages(at, size, pm_options.thp == PM_THP_ALWAYS);
    }
}

// Does a new arena ask, of a kind of which `in_use` bytes are, `share` of them for each of its users?
// Where there is a limit, every page counts.
PM_INLINE bool pm_thp_asks(size_t in_use, size_t share) {
    return pm_options.thp == PM_THP_ALWAYS ||
           (pm_options.thp == PM_THP_AUTO && share >= PM_THP_FROM && in_use < PM_THP_UPTO &&
            pm_options.limit_hard == PM_OPTION_UNSET);
}

// Is an arena that asks sparse? While it has something free and resident, or due to be purged inside: at
// least 1/PM_THP_SPARSE of what is in use.
PM_INLINE bool pm_thp_is_sparse(const struct pm_thp_arena *thp) {
    const uint32_t idle = thp->free + thp->due;
    return thp->asks && idle != 0 && idle * PM_THP_SPARSE >= thp->used - thp->due;
}

// To be called when a change of the counts is complete.
PM_INLINE void pm_thp_update(struct pm_thp_arena *thp, struct pm_list *sparse) {
    const bool was = thp->sparse.next != NULL;
    const bool is = pm_thp_is_sparse(thp);
    if (PM_UNLIKELY(is != was)) {
        if (is) {
            thp->sparse_at = pm_clock_last();
            pm_list_push_front(sparse, &thp->sparse);
        } else {
            pm_list_remove(&thp->sparse);
        }
    }
}

#endif

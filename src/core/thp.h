// SPDX-License-Identifier: MIT
// Copyright (c) the poolmalloc authors

// Transparent huge pages.
//
// Memory in huge pages costs a quarter to touch first, and programs that walk through much of it
// miss the translation cache less. But a huge page is resident as a whole, what is purged of one
// part stays charged to the process until the kernel splits it, and the kernel puts purged parts
// together into huge pages again. So by default (`auto`) arenas ask for them only in a large heap
// of which the program touches nearly all, and refuse them otherwise, also where the system gives
// them to everyone. An arena that asks gives back whole huge pages only, until it is sparse, for
// the purge delay or while too much is free: then it leaves them, for good, and is purged as any
// other. Pools that blocks in use pin, but that could be purged inside, count as free there.

#ifndef PM_CORE_THP_H
#define PM_CORE_THP_H

#include <stddef.h>

#include "base/attributes.h"
#include "base/list.h"
#include "config/limits.h"
#include "config/options.h"
#include "core/clock.h"
#include "os/os.h"

// Of an arena; under the lock that it is under. Counts are of pools, or of units.
struct pm_thp_arena {
    struct pm_list sparse; // on the list of sparse arenas, the latest first
    uint32_t sparse_at;    // since when (milliseconds)
    uint32_t free;         // free and resident
    uint32_t used;         // neither free nor purged
    uint32_t due;          // of these, to be purged inside
    bool asks;             // for huge pages
};

// The latest arena of a kind that refuses huge pages shows whether the program touches what it has.
// Under the lock that the arenas are under.
struct pm_thp_sample {
    const void *arena; // NULL when it has gone
    uint32_t asking;   // arenas made since, which all ask
};

PM_INLINE void pm_thp_made(struct pm_thp_sample *sample, const void *arena, bool asks) {
    *sample = asks ? (struct pm_thp_sample){ sample->arena, sample->asking + 1 }
                   : (struct pm_thp_sample){ arena, 0 };
}

PM_INLINE void pm_thp_gone(struct pm_thp_sample *sample, const void *arena) {
    if (sample->arena == arena) {
        sample->arena = NULL;
    }
}

// Is it there, and not too old?
PM_INLINE bool pm_thp_can_tell(const struct pm_thp_sample *sample) {
    return sample->arena != NULL && sample->asking < PM_THP_ASKING;
}

// Memory for blocks larger than huge pages: in `auto` it has what the system gives.
PM_INLINE void pm_thp_advise_large(void *at, size_t size) {
    if (PM_UNLIKELY(pm_options.thp != PM_THP_AUTO)) {
        pm_os_advise_huge_pages(at, size, pm_options.thp == PM_THP_ALWAYS);
    }
}

// May a new arena ask, of a kind of which `in_use` bytes are, `share` of them for each of its
// users? Where there is a limit, every page counts.
PM_INLINE bool pm_thp_is_large(size_t in_use, size_t share) {
    return pm_options.thp == PM_THP_AUTO && share >= PM_THP_FROM && in_use < PM_THP_UPTO &&
           pm_options.limit_hard == PM_OPTION_UNSET;
}

// Of so many bytes in use, so many are resident: are they all touched, but for what may be wasted?
PM_INLINE bool pm_thp_is_touched(size_t in_use, size_t resident) {
    return resident + in_use / PM_THP_WASTE >= in_use;
}

// Is an arena that asks sparse? While it has something free and resident, or due to be purged
// inside: at least 1/PM_THP_SPARSE of what is in use.
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

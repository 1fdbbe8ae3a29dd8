// SPDX-License-Identifier: MIT
// Copyright (c) the poolmalloc authors

// How much free memory may stay resident.
//
// A floor, or a share of what is in use, and on top of it what experience shows: memory that was
// purged and is needed again within the purge delay was purged in vain, and several times as much
// may stay the next time. That extra halves with every delay that passes, so that a program which
// fills and empties its heap over and over pays for its pages now and then, and one that has become
// smaller for good gives them back. It is bounded by what the whole heap has in use: a program that
// has freed nearly all may never call again. POOLMALLOC_PURGE=keep= names the bound instead, for
// all kinds, and above a soft limit a small share of it.

#ifndef PM_CORE_KEEP_H
#define PM_CORE_KEEP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/atomic.h"
#include "base/attributes.h"
#include "base/bits.h"
#include "config/limits.h"
#include "config/options.h"
#include "core/clock.h"
#include "core/limit.h"

// What to purge: free and resident memory above `keep`, in the units of its kind, and what has been
// free for longer than the delay. An arena that is wholly free goes as a whole, but for `spare` of
// them.
struct pm_surplus {
    size_t keep, spare;
    uint32_t now;
    bool all; // whatever its age
};

PM_INLINE bool pm_surplus_has_old(const struct pm_surplus *surplus, uint32_t since) {
    return surplus->all || pm_clock_is_old(since, surplus->now);
}

// Under the lock of the structure that it belongs to.
struct pm_keep {
    size_t extra;  // bytes
    size_t purged; // bytes purged within about a delay, and not taken again
    uint32_t at;   // when both were halved last (milliseconds)
};

// Bytes without pages that all kinds have taken into use, but for those purged in vain; atomic.
extern size_t pm_keep_grown;

// Bytes that may stay resident while `in_use` bytes are in use, for one of the `sharers` of what
// does not depend on that.
PM_INLINE size_t pm_keep_limit(struct pm_keep *keep, size_t in_use, uint32_t sharers,
                               uint32_t now) {
    if (PM_UNLIKELY(pm_limit_is_passed())) {
        return pm_options.limit_soft / PM_LIMIT_STEP / PM_KEEP_KINDS / sharers;
    }
    if (PM_UNLIKELY(pm_options.purge_keep != PM_OPTION_UNSET)) {
        return pm_options.purge_keep / PM_KEEP_KINDS / sharers;
    }
    const uint32_t delays = pm_clock_since(keep->at, now) / PM_PURGE_DELAY_MS;
    if (PM_UNLIKELY(delays != 0)) {
        const unsigned halvings = delays < 63 ? delays : 63;
        keep->extra >>= halvings;
        keep->purged >>= halvings;
        keep->at = now;
    }
    size_t extra = keep->extra;
    if (PM_UNLIKELY(extra > PM_KEEP_EXTRA / sharers)) {
        extra = pm_min(extra, (PM_KEEP_EXTRA + PM_KEEP_TIMES * pm_limit_in_use()) / sharers);
    }
    return pm_max(PM_KEEP_BYTES / sharers, in_use / PM_KEEP_SHARE) + extra;
}

PM_INLINE void pm_keep_purged(struct pm_keep *keep, size_t bytes) {
    keep->purged += bytes;
}

// Memory without pages was taken into use.
PM_INLINE void pm_keep_missed(struct pm_keep *keep, size_t bytes) {
    const size_t vain = pm_min(bytes, keep->purged);
    keep->purged -= vain;
    keep->extra += PM_KEEP_VAIN * vain;
    __atomic_fetch_add(&pm_keep_grown, bytes - vain, __ATOMIC_RELAXED);
}

#endif

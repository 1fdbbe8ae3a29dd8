// SPDX-License-Identifier: MIT
// Copyright (c) the poolmalloc authors

// libc's reporting figures, as sums over the balance sheet.

#include "insight/usage.h"

#include "base/bits.h"
#include "insight/snapshot.h"
#include "os/os.h"

bool pm_usage_read(struct pm_usage *usage) {
    *usage = (struct pm_usage){ 0 };
    const size_t size = pm_round_up(sizeof(struct pm_snapshot), pm_os_page_size());
    struct pm_snapshot *const snapshot = pm_os_map(NULL, size);
    if (snapshot == NULL) {
        return false;
    }
    const bool done = pm_snapshot_own(snapshot);
    if (done) {
        const struct pm_balance *const balance = &snapshot->balance;
        for (unsigned class = 0; class < PM_CLASS_COUNT; class ++) {
            usage->free_blocks += snapshot->classes[class].available;
        }
        usage->huge_blocks = snapshot->huge_blocks;
        usage->huge_bytes = balance->huge_in_use;
        usage->used = balance->blocks_in_use + balance->runs_in_use;
        usage->in_arenas =
            snapshot->mapped - balance->huge_in_use - balance->huge_cached - balance->metadata;
        usage->free = usage->in_arenas - usage->used;
        usage->free_pools = balance->pools_resident + balance->runs_resident;
    }
    pm_os_unmap(snapshot, size);
    return done;
}

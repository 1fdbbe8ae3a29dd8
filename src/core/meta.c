// SPDX-License-Identifier: MIT
// Copyright (c) the poolmalloc authors

// Metadata is cut off chunks that are mapped when the last one is used up.

#include "core/meta.h"

#include "base/atomic.h"
#include "base/bits.h"
#include "config/limits.h"
#include "os/os.h"

struct pm_meta pm_meta = { .lock = PM_LOCK_INIT(PM_RANK_META) };

// The mapping is made outside the lock; when another thread was faster, both chunks are used up
// one after the other.
static bool add_chunk(size_t size) {
    const size_t bytes = pm_max(pm_round_up(size, pm_os_page_size()), PM_META_CHUNK_BYTES);
    char *const chunk = pm_os_map(NULL, bytes);
    if (chunk == NULL) {
        return false;
    }
    pm_lock(&pm_meta.lock);
    pm_meta.at = chunk;
    pm_meta.left = bytes;
    pm_add(&pm_meta.mapped, bytes);
    pm_unlock(&pm_meta.lock);
    return true;
}

void *pm_meta_alloc(size_t size, size_t align) {
    do {
        char *result = NULL;
        pm_lock(&pm_meta.lock);
        const size_t skip = (size_t) - (uintptr_t)pm_meta.at & (align - 1);
        if (pm_meta.left >= skip + size) {
            result = pm_meta.at + skip;
            pm_meta.at += skip + size;
            pm_meta.left -= skip + size;
        }
        pm_unlock(&pm_meta.lock);
        if (result != NULL) {
            return result;
        }
    } while (add_chunk(size));
    return NULL;
}

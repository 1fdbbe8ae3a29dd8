// SPDX-License-Identifier: MIT
// Copyright (c) the poolmalloc authors

// The root: one exported object from which a debugger, a core file or another process reaches every
// heap, arena, pool and large block. Its version changes with the layout of anything it leads to.

#ifndef PM_CORE_ROOT_H
#define PM_CORE_ROOT_H

#include <stdint.h>

#include "base/attributes.h"
#include "core/arena.h"
#include "core/emergency.h"
#include "core/heap.h"
#include "core/huge.h"
#include "core/meta.h"
#include "core/run.h"

#define PM_ROOT_MAGIC   "poolmalloc root"
#define PM_ROOT_VERSION 7

struct pm_root {
    char magic[16];
    uint32_t version;
    uint32_t bytes; // of this structure
    // Sizes of what the pointers lead to, so that a reader can refuse what it does not know.
    uint32_t arenas_bytes, pool_bytes, runs_bytes, run_arena_bytes, huge_bytes;
    uint32_t heap_bytes, heaps_bytes, meta_bytes;
    uint32_t slot_bits, class_count, lane_count;
    const struct pm_class_info *classes;
    const struct pm_arenas *arenas; // PM_ARENAS_COUNT of them
    const struct pm_runs *runs;     // PM_RUNS_COUNT of them
    const struct pm_huge_blocks *huge_blocks;
    const struct pm_heaps *heaps;
    const struct pm_meta *meta;
    const struct pm_map *map;
    struct pm_emergency_chunk *const *emergency; // PM_EMERGENCY_CHUNKS of them, NULL from some on
};

// The root that a look-up by name finds: where two of our libraries are loaded, the first one's.
// The library's own is pm_own_root.
extern const struct pm_root pm_root PM_EXPORT;
extern const struct pm_root pm_own_root;

#endif

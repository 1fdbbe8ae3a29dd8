// SPDX-License-Identifier: MIT
// Copyright (c) the poolmalloc authors

// The root.

#include "core/root.h"

const struct pm_root pm_own_root = {
    .magic = PM_ROOT_MAGIC,
    .version = PM_ROOT_VERSION,
    .bytes = sizeof(struct pm_root),
    .arenas_bytes = sizeof(struct pm_arenas),
    .pool_bytes = sizeof(struct pm_pool),
    .runs_bytes = sizeof(struct pm_runs),
    .run_arena_bytes = sizeof(struct pm_run_arena),
    .huge_bytes = sizeof(struct pm_huge),
    .heap_bytes = sizeof(struct pm_heap),
    .heaps_bytes = sizeof(struct pm_heaps),
    .meta_bytes = sizeof(struct pm_meta),
    .slot_bits = PM_SLOT_BITS,
    .class_count = PM_CLASS_COUNT,
    .lane_count = PM_LANE_COUNT,
    .classes = pm_classes,
    .arenas = pm_arenas,
    .runs = pm_runs,
    .huge_blocks = &pm_huge_blocks,
    .heaps = &pm_heaps,
    .meta = &pm_meta,
    .map = &pm_map,
    .emergency = pm_emergency_chunks,
};

extern const struct pm_root pm_root __attribute__((alias("pm_own_root")));

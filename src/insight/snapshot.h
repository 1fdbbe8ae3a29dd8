// SPDX-License-Identifier: MIT
// Copyright (c) the poolmalloc authors

// Where the memory is: a balance sheet and a table of classes, computed from the headers.
//
// One walker serves this process, another process and a core file: it reaches everything from the
// root through a function that reads memory.

#ifndef PM_INSIGHT_SNAPSHOT_H
#define PM_INSIGHT_SNAPSHOT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/classes.h"
#include "core/root.h"

// The rows of the balance sheet, in bytes; they sum to the bytes mapped.
#define PM_BALANCE_ROWS(row)                                                                     \
    row(blocks_in_use, "blocks in use, rounded up to their class")                               \
        row(blocks_free, "free blocks in pools") row(blocks_purged,                              \
                                                     "free blocks in pools, purged inside")      \
            row(never_carved, "space in pools that was never carved")                            \
                row(quantization, "quantization: space at the ends of pools")                    \
                    row(pools_resident, "free pools, resident")                                  \
                        row(pools_purged, "free pools, purged or never used")                    \
                            row(arena_headers, "headers of pool arenas") row(runs_in_use,        \
                                                                             "page runs in use") \
                                row(runs_resident, "free page runs, resident")                   \
                                    row(runs_purged, "free page runs, purged or never used")     \
                                        row(run_headers, "headers of run arenas")                \
                                            row(huge_in_use, "huge blocks in use")               \
                                                row(huge_cached,                                 \
                                                    "huge blocks kept for the next request")     \
                                                    row(metadata, "metadata and emergency memory")

struct pm_balance {
#define PM_BALANCE_FIELD(name, text) size_t name;
    PM_BALANCE_ROWS(PM_BALANCE_FIELD)
#undef PM_BALANCE_FIELD
};

struct pm_class_use {
    size_t pools, in_use, available; // pools with blocks of the class; blocks
    size_t pinned;                   // bytes of free blocks in pools that blocks in use hold
    size_t sparse; // pools with less than a tenth of their blocks in use, and some
};

struct pm_snapshot {
    struct pm_balance balance;
    size_t mapped; // what the rows sum to
    struct pm_class_use classes[PM_CLASS_COUNT];
    size_t pinned; // sum over the classes
    size_t pool_arenas, pool_arenas_made, run_arenas, huge_page_arenas;
    size_t huge_blocks, huge_cached, heaps, misses;
    size_t private_heaps, private_bytes; // of the program; of their pools and large blocks
};

struct pm_reader {
    // Copies `size` bytes from an address of the process that is looked at; false when it can't.
    bool (*read)(void *context, uintptr_t at, void *to, size_t size);
    void *context;
};

// Walks from the root at `root`. False when something can't be read or is of another version. The
// caller sees to it that arenas and huge blocks don't vanish meanwhile; blocks may come and go.
bool pm_snapshot_read(struct pm_snapshot *snapshot, const struct pm_reader *reader, uintptr_t root);

// The snapshot of this process, under the locks that keep arenas in place.
bool pm_snapshot_own(struct pm_snapshot *snapshot);

#endif

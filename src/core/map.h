// SPDX-License-Identifier: MIT
// Copyright (c) the poolmalloc authors

// The address map: which kind of memory of ours lies in each slot of the address space.
//
// All that we map for blocks starts at a slot boundary, and a slot holds blocks of one kind. The
// map has two levels, a root in zeroed static memory and leaves of a byte a slot; it costs nothing
// until used. The leaves around the first mapping lie side by side: in this window the fast paths
// look once.
//
// A kind is written before the first block of its slot is handed out and read by threads that were
// handed a block (or were given something that is none: every value is then as good as another), so
// relaxed access is enough. Nothing of an address is read before the map has said that it is ours.

#ifndef PM_CORE_MAP_H
#define PM_CORE_MAP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/atomic.h"
#include "base/attributes.h"
#include "config/limits.h"
#include "core/lock.h"

enum pm_slot_kind {
    PM_SLOT_NONE,       // not ours
    PM_SLOT_SMALL,      // an arena of small pools
    PM_SLOT_MEDIUM,     // an arena of medium pools
    PM_SLOT_RUNS,       // a run arena of one slot
    PM_SLOT_LARGE_RUNS, // a run arena of 32
    PM_SLOT_HUGE,       // the start of a huge block
    PM_SLOT_HUGE_INNER, // a later slot of one; what follows its end in the last slot is not ours
    PM_SLOT_TOMBSTONE,  // large blocks were here and were given back; not ours any more
    PM_SLOT_KIND_COUNT
};

struct pm_huge;

struct pm_map {
    // The leaf of all ranges that have none. A range's entry is the distance from here to its leaf,
    // so that zeroed memory means this leaf, and the look-up needs no branch.
    uint8_t absent[PM_LEAF_SLOTS];
    uintptr_t leaf[PM_LEAF_COUNT];
    // Descriptors of huge blocks by their first slot; a table is made with a range's first one.
    struct pm_huge **huge[PM_LEAF_COUNT];
    uintptr_t window_start; // where a leaf's range starts; 0 before the first mapping
    uint8_t window[PM_WINDOW_LEAVES * PM_LEAF_SLOTS];
};

extern struct pm_map pm_map;

PM_INLINE uint8_t *pm_map_leaf(uintptr_t address) {
    // Sums of integers: a leaf is no part of the array from which its distance is counted.
    const uintptr_t distance = pm_get(&pm_map.leaf[address >> (PM_SLOT_BITS + PM_LEAF_BITS)]);
    return (uint8_t *)((uintptr_t)pm_map.absent + distance);
}

PM_INLINE enum pm_slot_kind pm_map_kind(const void *at) {
    const uintptr_t address = (uintptr_t)at;
    if (PM_UNLIKELY(address >> PM_ADDRESS_BITS)) {
        return PM_SLOT_NONE;
    }
    return (enum pm_slot_kind)pm_get(
        &pm_map_leaf(address)[(address >> PM_SLOT_BITS) & (PM_LEAF_SLOTS - 1)]);
}

// The same where the address lies in the window; PM_SLOT_NONE elsewhere, and before the first
// mapping as good as any.
PM_INLINE enum pm_slot_kind pm_map_kind_near(const void *at) {
    const uintptr_t slot = ((uintptr_t)at - pm_get(&pm_map.window_start)) >> PM_SLOT_BITS;
    if (PM_UNLIKELY(slot >= sizeof pm_map.window)) {
        return PM_SLOT_NONE;
    }
    return (enum pm_slot_kind)pm_get(&pm_map.window[slot]);
}

// Start of the slot of an address.
PM_INLINE uintptr_t pm_slot_of(const void *at) {
    return (uintptr_t)at & ~PM_SLOT_MASK;
}

// Makes leaves (and, for huge blocks, the table of descriptors) for `size` bytes from `at` on, so
// that pm_map_mark can't fail. False when there is no memory for them.
bool pm_map_prepare(const void *at, size_t size, bool huge);

// Sets the kind of the slots that [at, at + size) touches: `first` for its first slot, `rest` for
// the others. `at` is the start of a slot; the range has been prepared.
void pm_map_mark(const void *at, size_t size, enum pm_slot_kind first, enum pm_slot_kind rest);

// The entry of the huge block that starts in the slot of `at`; NULL where no table was made.
struct pm_huge **pm_map_huge(const void *at);

// Memory for `size` bytes (a multiple of the page) that starts at a multiple of `align` (a power of
// two, at least a slot), mapped and prepared, but not marked. NULL when the OS or a limit refuses.
void *pm_map_slots(size_t size, size_t align, bool huge);

// Held while an arena is mapped and added, also during the system call: of many threads that need
// one at a time, one maps it, and the others find it. Else each would have an arena of its own, and
// huge pages would make it resident.
extern struct pm_lock pm_grow_lock;

// Addresses that pm_map_slots gave are unmapped: they serve again before lower ones do.
void pm_map_gave_back(const void *at, size_t size);

// The same as address space only, to move pages to.
void *pm_map_reserve_slots(size_t size);

#endif

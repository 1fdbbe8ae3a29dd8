// SPDX-License-Identifier: MIT
// Copyright (c) the poolmalloc authors

// Making leaves, marking slots, and getting mappings that start at a slot.

#include "core/map.h"

#include <errno.h>

#include "base/bits.h"
#include "core/meta.h"
#include "os/os.h"

struct pm_map pm_map;

// Where the kernel is likely to have room that is aligned already: below the last mapping, since it
// places mappings top down. Racing writers are harmless.
static uintptr_t hint;

struct pm_lock pm_grow_lock = PM_LOCK_INIT(PM_RANK_GROW);

#define LEAF_BITS (PM_SLOT_BITS + PM_LEAF_BITS)

static size_t leaf_index(uintptr_t address) {
    return address >> LEAF_BITS;
}

static size_t slot_index(uintptr_t address) {
    return (address >> PM_SLOT_BITS) & (PM_LEAF_SLOTS - 1);
}

// Fixes the window around the first mapping. It may reach over both ends of the address space,
// modulo 2^64; but a start of 0 would mean that there is none yet.
static void place_window(uintptr_t address) {
    const uintptr_t first = leaf_index(address) - PM_WINDOW_BELOW;
    uintptr_t none = 0;
    __atomic_compare_exchange_n(&pm_map.window_start, &none, (first != 0 ? first : 1) << LEAF_BITS,
                                false, __ATOMIC_RELAXED, __ATOMIC_RELAXED);
}

// The leaf's place in the window, or else zeroed memory of its own; NULL without memory.
static uint8_t *leaf_place(size_t index) {
    const uintptr_t ahead = ((uintptr_t)index << LEAF_BITS) - pm_get(&pm_map.window_start);
    if (PM_LIKELY(ahead >> LEAF_BITS < PM_WINDOW_LEAVES)) {
        return &pm_map.window[ahead >> PM_SLOT_BITS];
    }
    return pm_meta_alloc(PM_LEAF_SLOTS, PM_LINE_BYTES);
}

// Both tables are published by a compare-and-exchange; a thread that comes second leaves its
// zeroed memory unused, which is rare enough to lose it.
static bool prepare_leaf(size_t index, bool huge) {
    if (pm_get(&pm_map.leaf[index]) == 0) {
        uint8_t *const leaf = leaf_place(index);
        if (leaf == NULL) {
            return false;
        }
        uintptr_t none = 0;
        __atomic_compare_exchange_n(&pm_map.leaf[index], &none,
                                    (uintptr_t)leaf - (uintptr_t)pm_map.absent, false,
                                    __ATOMIC_RELEASE, __ATOMIC_RELAXED);
    }
    if (huge && pm_get(&pm_map.huge[index]) == NULL) {
        struct pm_huge **const table = pm_meta_alloc(PM_LEAF_SLOTS * sizeof *table, sizeof *table);
        if (table == NULL) {
            return false;
        }
        struct pm_huge **none = NULL;
        __atomic_compare_exchange_n(&pm_map.huge[index], &none, table, false, __ATOMIC_RELEASE,
                                    __ATOMIC_RELAXED);
    }
    return true;
}

bool pm_map_prepare(const void *at, size_t size, bool huge) {
    const uintptr_t first = (uintptr_t)at, last = first + size - 1;
    if (last >> PM_ADDRESS_BITS) {
        return false;
    }
    if (PM_UNLIKELY(pm_get(&pm_map.window_start) == 0)) {
        place_window(first);
    }
    for (size_t index = leaf_index(first); index <= leaf_index(last); index++) {
        if (!prepare_leaf(index, huge && index == leaf_index(first))) {
            return false;
        }
    }
    return true;
}

void pm_map_mark(const void *at, size_t size, enum pm_slot_kind first, enum pm_slot_kind rest) {
    enum pm_slot_kind kind = first;
    for (size_t done = 0; done < size; done += PM_SLOT_BYTES, kind = rest) {
        const uintptr_t address = (uintptr_t)at + done;
        uint8_t *const leaf = pm_map_leaf(address);
        PM_ASSERT(leaf != pm_map.absent);
        pm_set(&leaf[slot_index(address)], (uint8_t)kind);
    }
}

struct pm_huge **pm_map_huge(const void *at) {
    const uintptr_t address = (uintptr_t)at;
    struct pm_huge **const table =
        __atomic_load_n(&pm_map.huge[leaf_index(address)], __ATOMIC_ACQUIRE);
    return table == NULL ? NULL : &table[slot_index(address)];
}

// A mapping that is larger by almost `align`, cut down to the aligned part.
static void *map_and_cut(size_t size, size_t align, bool reserve) {
    const size_t page = pm_os_page_size(), room = size + align - page;
    char *const at = reserve ? pm_os_reserve(room) : pm_os_map(NULL, room);
    if (at == NULL) {
        return NULL;
    }
    const size_t head = (size_t) - (uintptr_t)at & (align - 1), tail = room - head - size;
    // A refusal to cut leaves address space behind, never memory: the parts were not touched.
    if (head != 0) {
        pm_os_unmap(at, head);
    }
    if (tail != 0) {
        pm_os_unmap(at + head + size, tail);
    }
    return at + head;
}

void *pm_map_slots(size_t size, size_t align, bool huge) {
    char *at = NULL;
    const uintptr_t below = pm_get(&hint);
    if (below > size) {
        at = pm_os_map((void *)pm_round_down(below - size, align), size);
        if (at != NULL && ((uintptr_t)at & (align - 1)) != 0) {
            pm_os_unmap(at, size);
            at = NULL;
        }
    }
    if (at == NULL) {
        at = map_and_cut(size, align, false);
    }
    if (at == NULL) {
        return NULL;
    }
    if (!pm_map_prepare(at, size, huge)) {
        pm_os_unmap(at, size);
        return NULL;
    }
    pm_set(&hint, (uintptr_t)at);
    return at;
}

void pm_map_gave_back(const void *at, size_t size) {
    const uintptr_t end = pm_round_up((uintptr_t)at + size, PM_SLOT_BYTES);
    if (end > pm_get(&hint)) {
        pm_set(&hint, end);
    }
}

void *pm_map_reserve_slots(size_t size) {
    return map_and_cut(size, PM_SLOT_BYTES, true);
}

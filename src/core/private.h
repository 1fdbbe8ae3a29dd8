// SPDX-License-Identifier: MIT
// Copyright (c) the poolmalloc authors

// Private heaps: what poolmalloc.h promises of them, behind their fast paths.
//
// Each is a heap as a thread's, but for three things. Who uses it is the program's affair, so that
// no thread's word leads to it, and nobody hides pools from its user. It keeps its FULL pools
// (core/heap.c). And it knows its large blocks, which are on lists of its own under the locks of
// their structures.
//
// The caller uses the heap, is inside of the library and holds no lock, where nothing else is said.

#ifndef PM_CORE_PRIVATE_H
#define PM_CORE_PRIVATE_H

#include <stdbool.h>
#include <stddef.h>

#include "core/heap.h"
#include "core/large.h"
#include "core/verdict.h"

struct pm_heap_stats;

// NULL without memory.
struct pm_heap *pm_private_begin(void *context);
void pm_private_end(struct pm_heap *heap);

// n is at most PTRDIFF_MAX; NULL without memory, with everything as it was.
void *pm_private_malloc(struct pm_heap *heap, size_t n, bool zero);

// align is a power of two, n + align at most PTRDIFF_MAX.
void *pm_private_aligned(struct pm_heap *heap, size_t align, size_t n);

// Not called for NULL or n == 0. The block is unchanged when the result is NULL.
void *pm_private_realloc(struct pm_heap *heap, void *block, size_t n, enum pm_verdict *verdict);

// Anything but PM_DONE changed nothing.
enum pm_verdict pm_private_free(struct pm_heap *heap, void *block);

// Is this a block in use of this heap? If not, what else. Reads only, needs no place in the
// library.
enum pm_verdict pm_private_prove(const struct pm_heap *heap, const void *block, size_t *size);

// Needs no place in the library, in which `visit` may be.
int pm_private_walk(struct pm_heap *heap, int (*visit)(void *block, size_t size, void *arg),
                    void *arg);

// Any thread that uses the heap; needs no place in the library.
void pm_private_stats(struct pm_heap *heap, struct pm_heap_stats *to);

// Returns bytes given back.
size_t pm_private_trim(struct pm_heap *heap);

// The private heap of a block; NULL for all other addresses. Any thread that has the block.
PM_INLINE struct pm_heap *pm_private_owner(const void *block) {
    enum pm_slot_kind kind = pm_map_kind_near(block);
    if (PM_UNLIKELY(kind == PM_SLOT_NONE)) {
        kind = pm_map_kind(block);
    }
    if (PM_UNLIKELY(kind != PM_SLOT_SMALL && kind != PM_SLOT_MEDIUM)) {
        return pm_large_owner(block);
    }
    const unsigned bits = kind == PM_SLOT_SMALL ? PM_SMALL_POOL_BITS : PM_MEDIUM_POOL_BITS;
    struct pm_heap *const owner = pm_get(&pm_pool_of(block, bits)->shared.owner);
    return pm_heap_is_private(owner) ? owner : NULL;
}

#endif

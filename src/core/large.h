// SPDX-License-Identifier: MIT
// Copyright (c) the poolmalloc authors

// Large blocks, whether they are runs or huge blocks; and what realloc does before it copies.

#ifndef PM_CORE_LARGE_H
#define PM_CORE_LARGE_H

#include <stdbool.h>
#include <stddef.h>

#include "core/verdict.h"

struct pm_heap;

// At least n bytes at a multiple of align (a power of two), or NULL. With `zero` the n bytes read
// as zero. n + align is at most PTRDIFF_MAX.
void *pm_large_malloc(size_t n, size_t align, bool zero);

// A block of n bytes for one of `size` that grows in small steps, with room behind it that spares
// it the next moves; NULL when it does not, or there is none.
void *pm_large_malloc_growing(size_t size, size_t n);

// Makes a block in use of `size` bytes, of any kind, one of n: as it is, or after its structure has
// changed it in place or moved its pages. Returns its address, or NULL with the block as it was.
void *pm_block_resize(void *block, size_t size, size_t n);

// Frees an address in a slot of large blocks.
enum pm_verdict pm_large_free(void *at);

// Gives a large block, just handed out, to a private heap, until it is freed.
void pm_large_set_owner(void *block, struct pm_heap *owner);

// The private heap of a large block in use; NULL without one, and for an address in no such slot.
struct pm_heap *pm_large_owner(const void *block);

#endif

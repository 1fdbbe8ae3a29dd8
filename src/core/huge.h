// SPDX-License-Identifier: MIT
// Copyright (c) the poolmalloc authors

// Huge blocks: a mapping each, which starts at a slot; their descriptors lie elsewhere.
//
// A freed one is kept for a while, within bounds, for the next request of about its size. Growing
// and shrinking moves pages, never bytes.

#ifndef PM_CORE_HUGE_H
#define PM_CORE_HUGE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/list.h"
#include "core/keep.h"
#include "core/lock.h"
#include "core/verdict.h"

enum pm_huge_state {
    PM_HUGE_USED,
    PM_HUGE_CACHED,
    PM_HUGE_BUSY, // being resized by its owner: any other use is wrong
    PM_HUGE_GONE
};

struct pm_heap;

struct pm_huge {
    struct pm_list link; // USED: huge blocks; CACHED: the cache, last freed first; GONE: spare ones
    struct pm_list owned;  // USED: those of its private heap, if it has one
    struct pm_heap *owner; // the private heap; else NULL
    void *at;
    size_t size;       // bytes mapped, all of them the program's
    uint32_t freed_at; // CACHED: milliseconds
    uint32_t state;    // enum pm_huge_state
};

struct pm_huge_blocks {
    struct pm_lock lock;
    struct pm_list used, cached, spare;
    size_t used_count, used_bytes, cached_count, cached_bytes;
    struct pm_keep keep;
};

extern struct pm_huge_blocks pm_huge_blocks;

void pm_huge_start(void);

// At least n bytes at a multiple of align (a power of two), or NULL. With `zero` the n bytes read
// as zero. n + align is at most PTRDIFF_MAX.
void *pm_huge_malloc(size_t n, size_t align, bool zero);

// Frees the huge block that starts at `at`, an address in a slot of one.
enum pm_verdict pm_huge_free(void *at);

// Bytes of the huge block that starts at `at`; 0 and a verdict when none does.
size_t pm_huge_size(const void *at, enum pm_verdict *verdict);

// Changes the size of a huge block in use, moving its pages where it must; the new address, or NULL
// with the block as it was. n is at most PTRDIFF_MAX.
void *pm_huge_resize(void *at, size_t n);

// Gives a huge block, just handed out, to a private heap, until it is freed.
void pm_huge_set_owner(void *at, struct pm_heap *owner);

// The private heap of a huge block in use that the caller has; NULL without one.
struct pm_heap *pm_huge_owner(const void *at);

// The huge block in use whose link on its heap's list this is; and its bytes.
void *pm_huge_of_link(struct pm_list *link, size_t *bytes);

// Unmaps cached blocks that are too much or too old.
void pm_huge_age(uint32_t now);

// Unmaps all cached blocks. Returns bytes given back.
size_t pm_huge_trim(void);

#endif

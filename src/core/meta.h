// SPDX-License-Identifier: MIT
// Copyright (c) the poolmalloc authors

// Memory for the library's own structures: zeroed, never given back, re-used by its owner.

#ifndef PM_CORE_META_H
#define PM_CORE_META_H

#include <stddef.h>

#include "core/lock.h"

struct pm_meta {
    struct pm_lock lock;
    char *at;      // the rest of the current chunk
    size_t left;   // its bytes
    size_t mapped; // bytes of all chunks
};

extern struct pm_meta pm_meta;

// `size` zeroed bytes at a multiple of `align` (a power of two, at most a page), or NULL.
void *pm_meta_alloc(size_t size, size_t align);

#endif

// SPDX-License-Identifier: MIT
// Copyright (c) the poolmalloc authors

// The inner pages of free blocks: those that lie wholly inside one and so hold no link. Survivors of a
// program's load pin their pools; of medium blocks, most of such a pool can go back all the same.

#ifndef PM_CORE_INNER_H
#define PM_CORE_INNER_H

#include <stddef.h>

#include "core/pool.h"

// The inner pages of the block with this index: [*start, *end). False when it has none.
bool pm_inner_pages(const struct pm_pool *pool, size_t index, uintptr_t *start, uintptr_t *end);

// Purges the inner pages of the free blocks of a pool, all now, or where nothing was freed since the
// last look. The pool is LISTED, and the caller holds the lock of its heap: blocks may be freed
// meanwhile, but none is handed out. Returns bytes given back.
size_t pm_inner_purge(struct pm_pool *pool, bool now);

#endif

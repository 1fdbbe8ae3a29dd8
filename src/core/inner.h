// SPDX-License-Identifier: MIT
// Copyright (c) the poolmalloc authors

// Pages inside of pools that blocks in use pin. Survivors of a program's load keep their pools from
// being free; the pages between them can go back all the same.
//
// A page is purged inside when all blocks that lie in it, wholly or in part, are free. These blocks
// are put away: they leave the pool's lists, whose links would be lost with the page, until the
// page is restored. While a pool has a block put away, its bound is 0, so that each free of it
// takes the way out of line, where a block that was put away is told from one in use.

#ifndef PM_CORE_INNER_H
#define PM_CORE_INNER_H

#include <stddef.h>

#include "core/pool.h"

PM_INLINE bool pm_inner_has_away(const struct pm_pool *pool) {
    return pm_get(&pool->inner.away) != 0;
}

// Is a block put away? A true answer stays true while nobody allocates from the pool; and a block
// in use is never put away.
bool pm_inner_is_away(const struct pm_pool *pool, size_t index);

// Looks at a pool that is neither full nor free: is it to be purged inside? With `all` every pool
// is that has changed since it was purged inside last; else those in which nothing was freed for
// some looks, and of which a good part will go. The caller holds the lock of its heap, if it has
// one.
bool pm_inner_is_due(struct pm_pool *pool, bool all);

// Purges inside of a pool all pages that can be. Its owner is at a miss, or the pool was hidden
// from it. Returns bytes given back.
size_t pm_inner_purge(struct pm_pool *pool);

// Puts the first blocks that were put away back on the pool's list: a page of them, or one block.
// Returns bytes that will be resident again; 0 when there is none, or a limit is reached. Its owner
// is at a miss.
size_t pm_inner_restore(struct pm_pool *pool);

// Of a pool without blocks in use: none is put away any more.
void pm_inner_forget(struct pm_pool *pool);

// Bytes purged inside.
size_t pm_inner_bytes(const struct pm_pool *pool);

#endif

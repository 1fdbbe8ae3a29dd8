// SPDX-License-Identifier: MIT
// Copyright (c) the poolmalloc authors

// Abandoned pools: they have room and no owner, and wait on a list of their class for a heap that
// misses. Frees only push to them, until one frees the last block.

#ifndef PM_CORE_ABANDONED_H
#define PM_CORE_ABANDONED_H

#include "core/heap.h"

// Sets the owned bit of a pool that is nobody's, whose remote word was *remote. False when the word
// has changed, which *remote tells.
bool pm_pool_claim(struct pm_pool *pool, uint64_t *remote);

// An owned pool, off its bin and its lanes -> ABANDONED or FREE.
void pm_pool_abandon(struct pm_pool *pool);

// Takes an ABANDONED pool off its list, nobody's as yet but owned by the caller; unless `any` will
// do, none that is nearly full. NULL when there is none.
struct pm_pool *pm_abandoned_take(pm_class class, bool any);

// The same for one that the caller has claimed.
void pm_abandoned_remove(struct pm_pool *pool);

#endif

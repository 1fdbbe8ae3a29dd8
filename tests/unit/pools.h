// SPDX-License-Identifier: MIT
// Copyright (c) the poolmalloc authors
//
// Pools taken from the arenas and given back as a heap does it, without a heap.

#ifndef TESTS_UNIT_POOLS_H
#define TESTS_UNIT_POOLS_H

#include <stdbool.h>

#include "core/arena.h"

#define SMALL_ARENAS (&pm_arenas[PM_ARENAS_SMALL])
#define MEDIUM_ARENAS (&pm_arenas[PM_ARENAS_MEDIUM])

// A pool with a page of blocks in use, or with all that it has; full and nobody's. NULL without
// memory.
struct pm_pool *pools_take(size_t n, bool whole);

// Frees all its blocks and gives it back.
void pools_give(struct pm_pool *pool);

// The same for several.
void pools_take_many(struct pm_pool **pools, unsigned count, size_t n, bool whole);
void pools_give_many(struct pm_pool *const *pools, unsigned count);

// Are the first bytes of the pool in memory?
bool pools_resident(const struct pm_pool *pool);

#endif

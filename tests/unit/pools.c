// SPDX-License-Identifier: MIT
// Copyright (c) the poolmalloc authors
//
// Pools without a heap.

#include "pools.h"

#include "unit.h"

#include "os/os.h"

#include <sys/mman.h>

struct pm_pool *pools_take(size_t n, bool whole) {
    const pm_class class = pm_class_of(n);
    struct pm_pool *const pool = pm_arena_take(class, PM_OWNER_NOBODY);
    if (pool == NULL) {
        return NULL;
    }
    do {
        while (pm_pool_pop(pool, pool->shared.bits) != 0) {
        }
    } while ((whole || pool->owned.used == 0) && pm_pool_carve(pool));
    pm_set(&pool->shared.state, PM_POOL_FULL);
    pm_set(&pool->remote.word, 0);
    return pool;
}

void pools_give(struct pm_pool *pool) {
    const size_t size = pm_classes[pool->shared.class].size;
    pm_set(&pool->remote.word, PM_REMOTE_OWNED);
    for (size_t offset = pool->shared.carved; offset > 0; offset -= size) {
        CHECK(pm_pool_push(pool, pm_pool_base(pool) + offset - size) == (offset == size));
    }
    pm_arena_give_back(pool);
}

void pools_take_many(struct pm_pool **pools, unsigned count, size_t n, bool whole) {
    for (unsigned i = 0; i < count; i++) {
        pools[i] = pools_take(n, whole);
        CHECK(pools[i] != NULL);
    }
}

void pools_give_many(struct pm_pool *const *pools, unsigned count) {
    for (unsigned i = 0; i < count; i++) {
        pools_give(pools[i]);
    }
}

bool pools_resident(const struct pm_pool *pool) {
    unsigned char there;
    CHECK(mincore((void *)pm_pool_base(pool), pm_os_page_size(), &there) == 0);
    return (there & 1) != 0;
}

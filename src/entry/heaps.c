// SPDX-License-Identifier: MIT
// Copyright (c) the poolmalloc authors

// Private heaps: their functions of poolmalloc.h.
//
// Budget, for a small block (tests/budget holds the instructions):
//     malloc  5 loads (pool, list, key, link, used), 3 stores (list, used, block), 3 branches
//     free    10 loads (window, map, owner, divisor, bound, block, two keys, list, used), 3 stores
//             (block, used, list), 6 branches
// no atomic operation, no call, and no thread-local word: a handler that interrupts these has a
// heap of its own, its thread's, or another private one.

#include "poolmalloc.h"

#include <errno.h>
#include <stdint.h>
#include <string.h>

#include "base/bits.h"
#include "core/misuse.h"
#include "core/private.h"
#include "entry/entry.h"

// A block of the lane's current pool; NULL: not done.
PM_INLINE void *pop(struct pm_heap *heap, size_t lane, unsigned bits) {
    return (void *)pm_pool_pop(pm_get(&heap->lane[lane]), bits);
}

PM_INLINE void *fast_malloc(struct pm_heap *heap, size_t n) {
    // As in pm_fast_malloc: inside the comparison that pm_lane_of makes.
    if (PM_UNLIKELY(n > PM_LANE_LINEAR_MAX) && n > PM_SMALL_MAX) {
        return NULL;
    }
    return pop(heap, pm_lane_of(n), PM_SMALL_POOL_BITS);
}

// The fast paths find nothing in a heap that has ended; the others look first.
static void expect_live(const struct pm_heap *heap, const char *function) {
    if (PM_UNLIKELY(heap->ended)) {
        pm_misuse(function, heap, PM_ENDED_HEAP);
    }
}

static void *out_of_memory(void) {
    errno = ENOMEM;
    return NULL;
}

static void *allocate(struct pm_heap *heap, size_t n, bool zero) {
    expect_live(heap, "pm_heap_malloc");
    if (PM_UNLIKELY(n > PTRDIFF_MAX) || PM_UNLIKELY(!pm_entry_begin())) {
        return out_of_memory();
    }
    void *const at = pm_private_malloc(heap, n, zero);
    pm_entry_end();
    return PM_LIKELY(at != NULL) ? at : out_of_memory();
}

// Medium blocks take the fast path one call further.
static PM_NOINLINE void *malloc_miss(struct pm_heap *heap, size_t n) {
    if (n > PM_SMALL_MAX && n <= PM_MEDIUM_MAX) {
        void *const at = pop(heap, pm_lane_of(n), PM_MEDIUM_POOL_BITS);
        if (PM_LIKELY(at != NULL)) {
            return at;
        }
    }
    return allocate(heap, n, false);
}

static void release(struct pm_heap *heap, const char *function, void *at) {
    enum pm_verdict verdict;
    size_t size;
    expect_live(heap, function);
    if (PM_LIKELY(pm_entry_begin())) {
        verdict = pm_private_free(heap, at);
        pm_entry_end();
    } else {
        // It comes back as what other threads free does.
        verdict = pm_private_prove(heap, at, &size);
        verdict = verdict == PM_DONE ? pm_entry_free_later(at) : verdict;
    }
    if (PM_UNLIKELY(verdict != PM_DONE)) {
        pm_misuse(function, at, verdict);
    }
}

// The last block of a pool was freed. Where the library can't be entered, the pool waits for the
// miss or the trim that finds it.
static PM_NOINLINE void emptied(struct pm_heap *heap, struct pm_pool *pool, void *at) {
    bool sound = pm_get(&pool->shared.state) == PM_POOL_LISTED;
    if (PM_LIKELY(pm_entry_begin())) {
        sound = pm_heap_pool_emptied(heap, pool);
        pm_entry_end();
    } else {
        pm_heap_tell_freed(heap, pool->shared.class);
    }
    if (PM_UNLIKELY(!sound)) {
        pm_misuse("pm_heap_free", at, PM_DOUBLE_FREE);
    }
}

// A block in use of a pool of this heap: what it looks like, and no more than that.
PM_INLINE bool is_mine(struct pm_heap *heap, const struct pm_pool *pool, const void *at,
                       unsigned bits) {
    const uintptr_t offset = (uintptr_t)at & (PM_POOL_BYTES(bits) - 1);
    return PM_LIKELY(pm_get(&pool->shared.owner) == heap) &&
           PM_LIKELY(pm_pool_has_block(pool, offset)) &&
           PM_LIKELY(!pm_link_suspected((uintptr_t)at, pool->shared.key));
}

// False: nothing was changed.
PM_INLINE bool push(struct pm_heap *heap, void *at, unsigned bits) {
    struct pm_pool *const pool = pm_pool_of(at, bits);
    if (!is_mine(heap, pool, at, bits)) {
        return false;
    }
    if (PM_UNLIKELY(pm_pool_push(pool, (uintptr_t)at))) {
        emptied(heap, pool, at);
    }
    return true;
}

// An address in a slot of this kind. False: nothing was changed.
PM_INLINE bool push_in(struct pm_heap *heap, enum pm_slot_kind kind, void *at) {
    if (PM_LIKELY(kind == PM_SLOT_SMALL)) {
        return push(heap, at, PM_SMALL_POOL_BITS);
    }
    return kind == PM_SLOT_MEDIUM && push(heap, at, PM_MEDIUM_POOL_BITS);
}

static PM_NOINLINE void free_miss(struct pm_heap *heap, const char *function, void *at) {
    // Outside the window of the map the fast path ends before it begins.
    if (at != NULL && !push_in(heap, pm_map_kind(at), at)) {
        release(heap, function, at);
    }
}

PM_INLINE void fast_free(struct pm_heap *heap, void *at) {
    if (PM_UNLIKELY(!push_in(heap, pm_map_kind_near(at), at))) {
        free_miss(heap, "pm_heap_free", at);
    }
}

// What belongs to no private heap is no block for this function.
static PM_NOINLINE void free_any_miss(void *at) {
    struct pm_heap *const heap = pm_private_owner(at);
    if (PM_LIKELY(heap != NULL)) {
        free_miss(heap, "pm_heap_free_any", at);
    } else if (at != NULL) {
        size_t size;
        const enum pm_verdict verdict = pm_private_prove(NULL, at, &size);
        pm_misuse("pm_heap_free_any", at, verdict == PM_DONE ? PM_NO_PRIVATE_HEAPS : verdict);
    }
}

PM_EXPORT void *pm_heap_malloc(struct pm_heap *heap, size_t n) {
    void *const block = fast_malloc(heap, n);
    return PM_LIKELY(block != NULL) ? block : malloc_miss(heap, n);
}

PM_EXPORT void pm_heap_free(struct pm_heap *heap, void *block) {
    fast_free(heap, block);
}

PM_EXPORT void pm_heap_free_sized(struct pm_heap *heap, void *block, size_t n) {
    (void)n;
    fast_free(heap, block);
}

PM_EXPORT void pm_heap_free_any(void *block) {
    if (PM_LIKELY(pm_map_kind_near(block) == PM_SLOT_SMALL)) {
        struct pm_heap *const owner = pm_get(&pm_pool_of(block, PM_SMALL_POOL_BITS)->shared.owner);
        if (PM_LIKELY(pm_heap_is_private(owner)) &&
            PM_LIKELY(push(owner, block, PM_SMALL_POOL_BITS))) {
            return;
        }
    }
    free_any_miss(block);
}

PM_EXPORT void *pm_heap_calloc(struct pm_heap *heap, size_t count, size_t size) {
    size_t n;
    if (PM_UNLIKELY(__builtin_mul_overflow(count, size, &n))) {
        return out_of_memory();
    }
    void *const block = fast_malloc(heap, n);
    return PM_LIKELY(block != NULL) ? memset(block, 0, n) : allocate(heap, n, true);
}

PM_EXPORT void *pm_heap_aligned_alloc(struct pm_heap *heap, size_t align, size_t n) {
    size_t sum;
    if (PM_UNLIKELY(!pm_is_power_of_two(align))) {
        errno = EINVAL;
        return NULL;
    }
    expect_live(heap, "pm_heap_aligned_alloc");
    if (__builtin_add_overflow(n, align, &sum) || sum > PTRDIFF_MAX || !pm_entry_begin()) {
        return out_of_memory();
    }
    void *const at = pm_private_aligned(heap, align, n);
    pm_entry_end();
    return PM_LIKELY(at != NULL) ? at : out_of_memory();
}

// Bytes of a block in a pool of this heap; 0 for all else.
static size_t pool_size(struct pm_heap *heap, const void *at) {
    const enum pm_slot_kind kind = pm_map_kind(at);
    if (kind != PM_SLOT_SMALL && kind != PM_SLOT_MEDIUM) {
        return 0;
    }
    const unsigned bits = kind == PM_SLOT_SMALL ? PM_SMALL_POOL_BITS : PM_MEDIUM_POOL_BITS;
    const struct pm_pool *const pool = pm_pool_of(at, bits);
    return is_mine(heap, pool, at, bits) ? pm_classes[pool->shared.class].size : 0;
}

static void *reallocate(struct pm_heap *heap, void *block, size_t n) {
    enum pm_verdict verdict;
    expect_live(heap, "pm_heap_realloc");
    if (PM_UNLIKELY(n > PTRDIFF_MAX) || PM_UNLIKELY(!pm_entry_begin())) {
        return out_of_memory();
    }
    void *const moved = pm_private_realloc(heap, block, n, &verdict);
    pm_entry_end();
    if (PM_UNLIKELY(verdict != PM_DONE)) {
        pm_misuse("pm_heap_realloc", block, verdict);
    }
    return PM_LIKELY(moved != NULL) ? moved : out_of_memory();
}

PM_EXPORT void *pm_heap_realloc(struct pm_heap *heap, void *block, size_t n) {
    if (block == NULL) {
        return pm_heap_malloc(heap, n);
    }
    if (n == 0) {
        release(heap, "pm_heap_realloc", block);
        return NULL;
    }
    const size_t size = pool_size(heap, block);
    if (size != 0 && pm_class_fits(size, n)) {
        return block;
    }
    void *const moved = size != 0 ? fast_malloc(heap, n) : NULL;
    if (moved == NULL) {
        return reallocate(heap, block, n);
    }
    memcpy(moved, block, pm_min(size, n));
    fast_free(heap, block);
    return moved;
}

PM_EXPORT struct pm_heap *pm_heap_of(const void *block) {
    return pm_private_owner(block);
}

PM_EXPORT void *pm_heap_context_of(const void *block) {
    const struct pm_heap *const heap = pm_private_owner(block);
    return PM_LIKELY(heap != NULL) ? heap->context : NULL;
}

PM_EXPORT struct pm_heap *pm_heap_new(void *context) {
    if (!pm_entry_begin()) {
        return out_of_memory();
    }
    struct pm_heap *const heap = pm_private_begin(context);
    pm_entry_end();
    return PM_LIKELY(heap != NULL) ? heap : out_of_memory();
}

PM_EXPORT void *pm_heap_context(const struct pm_heap *heap) {
    return heap->context;
}

static void settle(void *nothing) {
    (void)nothing;
    pm_entry_settle();
}

PM_EXPORT int pm_heap_walk(struct pm_heap *heap, int (*visit)(void *block, size_t size, void *arg),
                           void *arg) {
    expect_live(heap, "pm_heap_walk");
    pm_entry_give(settle, NULL);
    return pm_private_walk(heap, visit, arg);
}

PM_EXPORT void pm_heap_stats(const struct pm_heap *heap, struct pm_heap_stats *to) {
    pm_private_stats((struct pm_heap *)heap, to);
}

PM_EXPORT size_t pm_heap_bytes(const struct pm_heap *heap) {
    return pm_get(&heap->pool_bytes) + pm_get(&heap->large_bytes);
}

struct trim {
    struct pm_heap *heap;
    size_t bytes;
};

static void trim(void *argument) {
    struct trim *const trim = argument;
    trim->bytes = pm_private_trim(trim->heap);
}

PM_EXPORT int pm_heap_trim(struct pm_heap *heap) {
    struct trim done = { .heap = heap };
    expect_live(heap, "pm_heap_trim");
    return pm_entry_give(trim, &done) && done.bytes != 0;
}

static void destroy(void *heap) {
    pm_entry_settle();
    pm_private_end(heap);
}

PM_EXPORT void pm_heap_destroy(struct pm_heap *heap) {
    if (heap != NULL) {
        expect_live(heap, "pm_heap_destroy");
        pm_entry_give(destroy, heap);
    }
}

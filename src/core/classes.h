// SPDX-License-Identifier: MIT
// Copyright (c) the poolmalloc authors

// Size classes, and the lanes through which a heap finds the pool for a request.
//
// A lane is an index that a size gives without a look-up: (n + 15) / 16 up to LANE_LINEAR_MAX, then
// eight to each doubling. Up to there, the classes over LINEAR_MAX take several lanes each.

#ifndef PM_CORE_CLASSES_H
#define PM_CORE_CLASSES_H

#include <stddef.h>
#include <stdint.h>

#include "base/attributes.h"
#include "base/bits.h"
#include "config/limits.h"

#define PM_LANE_LINEAR_MAX   1024
#define PM_LANE_LINEAR_COUNT (PM_LANE_LINEAR_MAX / PM_BLOCK_ALIGN + 1)

enum {
    PM_CLASS_LINEAR_COUNT = PM_LINEAR_MAX / PM_BLOCK_ALIGN,
    PM_CLASS_SMALL_COUNT = PM_CLASS_LINEAR_COUNT + 4 * 8,
    PM_CLASS_COUNT = PM_CLASS_SMALL_COUNT + 3 * 8,
    PM_LANE_COUNT = PM_LANE_LINEAR_COUNT + 6 * 8
};

typedef uint8_t pm_class;

struct pm_class_info {
    uint32_t size; // bytes of a block
    uint8_t lane;  // its first lane
    uint8_t lanes; // how many it has
    // 2^64 / size, rounded down, plus 1. For offsets in a pool, modulo 2^64: offset * divisor <
    // divisor exactly when size divides the offset, and the products of multiples grow with them.
    uint64_t divisor;
};

extern const struct pm_class_info pm_classes[PM_CLASS_COUNT];

// n is at most MEDIUM_MAX.
PM_INLINE size_t pm_lane_of(size_t n) {
    if (PM_LIKELY(n <= PM_LANE_LINEAR_MAX)) {
        return (n + PM_BLOCK_ALIGN - 1) / PM_BLOCK_ALIGN;
    }
    const unsigned top = pm_log2(n - 1);
    return PM_LANE_LINEAR_COUNT + (top - 10) * 8 + (((n - 1) >> (top - 3)) & 7);
}

PM_INLINE pm_class pm_class_of(size_t n) {
    const size_t lane = pm_lane_of(n);
    const size_t exact = PM_CLASS_LINEAR_COUNT, linear = PM_LANE_LINEAR_COUNT;
    if (lane <= exact) {
        return (pm_class)(lane == 0 ? 0 : lane - 1);
    }
    return (pm_class)(lane < linear ? exact + (lane - exact - 1) / 4 : exact + 8 + lane - linear);
}

// The largest blocks that a class of `size` bytes may have as a guest (core/heap.c).
PM_INLINE size_t pm_class_host_max(size_t size) {
    return size + pm_max(size * 3 / 4, PM_BLOCK_ALIGN);
}

// May a block of `size` bytes in a pool go on as one of n? One that lost more than half of its
// bytes is worth a copy, unless it might get the like again.
PM_INLINE bool pm_class_fits(size_t size, size_t n) {
    return n <= size &&
           (n > size / 2 || size <= pm_class_host_max(pm_classes[pm_class_of(n)].size));
}

// Can a pool serve n bytes (not 0) at a multiple of align, a power of two?
PM_INLINE bool pm_class_can_align(size_t align, size_t n) {
    return align <= PM_MEDIUM_MAX && n <= PM_MEDIUM_MAX && pm_round_up(n, align) <= PM_MEDIUM_MAX;
}

// Then: the first class whose blocks all lie at multiples of align, pools being aligned themselves.
// There is one: the power of two that is not below both.
PM_INLINE pm_class pm_class_aligned(size_t align, size_t n) {
    pm_class class = pm_class_of(pm_round_up(n, align));
    while ((pm_classes[class].size & (align - 1)) != 0) {
        class ++;
    }
    return class;
}

// Bits of the pools that hold blocks of a class.
PM_INLINE unsigned pm_class_pool_bits(pm_class class) {
    return class < PM_CLASS_SMALL_COUNT ? PM_SMALL_POOL_BITS : PM_MEDIUM_POOL_BITS;
}

#endif

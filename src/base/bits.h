// SPDX-License-Identifier: MIT
// Copyright (c) the poolmalloc authors

// Rounding, powers of two, bit scans, and the mixing function behind keys.

#ifndef PM_BASE_BITS_H
#define PM_BASE_BITS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/attributes.h"

PM_INLINE bool pm_is_power_of_two(size_t n) {
    return n != 0 && (n & (n - 1)) == 0;
}

// `to` is a power of two. The sum must not overflow: callers have refused sizes over PTRDIFF_MAX.
PM_INLINE size_t pm_round_up(size_t n, size_t to) {
    return (n + to - 1) & ~(to - 1);
}

PM_INLINE size_t pm_round_down(size_t n, size_t to) {
    return n & ~(to - 1);
}

// Position of the highest set bit; n is not 0.
PM_INLINE unsigned pm_log2(size_t n) {
    return 63u - (unsigned)__builtin_clzl(n);
}

// Position of the lowest set bit; n is not 0.
PM_INLINE unsigned pm_lowest_bit(uint64_t n) {
    return (unsigned)__builtin_ctzl(n);
}

// Number of set bits. The compiler's own is a call into a table where the machine can't be relied
// on to have an instruction for it.
PM_INLINE unsigned pm_count_bits(uint64_t n) {
    n -= n >> 1 & UINT64_C(0x5555555555555555);
    n = (n & UINT64_C(0x3333333333333333)) + (n >> 2 & UINT64_C(0x3333333333333333));
    n = (n + (n >> 4)) & UINT64_C(0x0f0f0f0f0f0f0f0f);
    return (unsigned)(n * UINT64_C(0x0101010101010101) >> 56);
}

PM_INLINE size_t pm_min(size_t a, size_t b) {
    return a < b ? a : b;
}

PM_INLINE size_t pm_max(size_t a, size_t b) {
    return a > b ? a : b;
}

// A bijection of 64 bits in which each bit of the input reaches all bits of the output
// (the finisher of a multiplicative hash: two rounds of xor-shift and multiply).
PM_INLINE uint64_t pm_mix(uint64_t x) {
    x ^= x >> 32;
    x *= UINT64_C(0xd6e8feb86659fd93);
    x ^= x >> 32;
    x *= UINT64_C(0xd6e8feb86659fd93);
    x ^= x >> 32;
    return x;
}

#endif

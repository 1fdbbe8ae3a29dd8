// SPDX-License-Identifier: MIT
// Copyright (c) the poolmalloc authors
//
// base/bits, against the same counted slowly.

#include "unit.h"

#include "base/bits.h"

UNIT_TEST(bits, powers_of_two_have_one_bit) {
    for (size_t n = 0; n < 5000; n++) {
        CHECK(pm_is_power_of_two(n) == (__builtin_popcountl(n) == 1), "%zu", n);
    }
    for (unsigned bit = 0; bit < 64; bit++) {
        CHECK(pm_is_power_of_two((size_t)1 << bit));
        CHECK(bit == 0 || !pm_is_power_of_two(((size_t)1 << bit) | 1));
    }
}

UNIT_TEST(bits, rounding_goes_to_the_next_multiple) {
    for (size_t to = 1; to <= 4096; to *= 2) {
        for (size_t n = 0; n < 3 * to + 2; n++) {
            CHECK(pm_round_up(n, to) == (n + to - 1) / to * to, "%zu to %zu", n, to);
            CHECK(pm_round_down(n, to) == n / to * to, "%zu to %zu", n, to);
        }
    }
    CHECK(pm_round_up(PTRDIFF_MAX, 4096) == (size_t)1 << 63);
}

UNIT_TEST(bits, highest_and_lowest_bits_are_found) {
    for (unsigned low = 0; low < 64; low++) {
        for (unsigned high = low; high < 64; high++) {
            const uint64_t n = UINT64_C(1) << low | UINT64_C(1) << high;
            CHECK(pm_log2(n) == high && pm_lowest_bit(n) == low, "%u to %u", low, high);
        }
    }
    CHECK(pm_log2(SIZE_MAX) == 63 && pm_lowest_bit(UINT64_MAX) == 0);
}

UNIT_TEST(bits, smaller_and_larger) {
    CHECK(pm_min(3, 5) == 3 && pm_min(5, 3) == 3 && pm_min(4, 4) == 4);
    CHECK(pm_max(3, 5) == 5 && pm_max(5, 3) == 5 && pm_max(0, SIZE_MAX) == SIZE_MAX);
}

UNIT_TEST(bits, mixing_brings_each_bit_to_all_bits) {
    uint32_t flips[64][64] = { { 0 } };
    enum { ROUNDS = 2000 };
    for (unsigned round = 0; round < ROUNDS; round++) {
        const uint64_t input = unit_random();
        for (unsigned in = 0; in < 64; in++) {
            const uint64_t changed = pm_mix(input) ^ pm_mix(input ^ UINT64_C(1) << in);
            CHECK(changed != 0, "two inputs, one output");
            for (unsigned out = 0; out < 64; out++) {
                flips[in][out] += changed >> out & 1;
            }
        }
    }
    for (unsigned in = 0; in < 64; in++) {
        for (unsigned out = 0; out < 64; out++) {
            CHECK(flips[in][out] > ROUNDS / 3 && flips[in][out] < ROUNDS * 2 / 3,
                  "bit %u changed bit %u %u times", in, out, flips[in][out]);
        }
    }
}

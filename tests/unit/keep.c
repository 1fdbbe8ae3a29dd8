// SPDX-License-Identifier: MIT
// Copyright (c) the poolmalloc authors
//
// core/keep: how much free memory may stay.

#include "unit.h"

#include "core/huge.h"
#include "core/keep.h"

#define TEST(name) UNIT_TEST(keep, name)
#define NOW        100000u
#define MIB        ((size_t)1 << 20)
#define ALL        SIZE_MAX // is resident

TEST(a_floor_or_a_share_of_what_is_in_use_may_stay) {
    struct pm_keep keep = { .at = NOW };
    CHECK(pm_keep_limit(&keep, 0, 1, NOW) == PM_KEEP_BYTES);
    CHECK(pm_keep_limit(&keep, PM_KEEP_BYTES, 1, NOW) == PM_KEEP_BYTES);
    CHECK(pm_keep_limit(&keep, 1024 * MIB, 1, NOW) == 1024 * MIB / PM_KEEP_SHARE);
}

TEST(several_times_what_was_purged_in_vain_may_stay_the_next_time) {
    struct pm_keep keep = { .at = NOW };
    pm_keep_missed(&keep, 5 * MIB);
    CHECK(pm_keep_limit(&keep, 0, 1, NOW) == PM_KEEP_BYTES, "fresh memory teaches nothing");
    pm_keep_purged(&keep, 3 * MIB);
    CHECK(pm_keep_limit(&keep, 0, 1, NOW) == PM_KEEP_BYTES);
    pm_keep_missed(&keep, 2 * MIB);
    CHECK(pm_keep_limit(&keep, 0, 1, NOW) == PM_KEEP_BYTES + PM_KEEP_VAIN * 2 * MIB);
    pm_keep_missed(&keep, 9 * MIB);
    CHECK(pm_keep_limit(&keep, 0, 1, NOW) == PM_KEEP_BYTES + PM_KEEP_VAIN * 3 * MIB,
          "no more than was purged");
}

TEST(it_is_bounded_by_what_the_whole_heap_has_in_use) {
    struct pm_keep keep = { .extra = 1024 * MIB, .at = NOW };
    CHECK(pm_keep_limit(&keep, 0, 1, NOW) == PM_KEEP_BYTES + PM_KEEP_EXTRA);
    pm_huge_blocks.used_bytes = 10 * MIB;
    CHECK(pm_keep_limit(&keep, 0, 1, NOW) ==
          PM_KEEP_BYTES + PM_KEEP_EXTRA + PM_KEEP_TIMES * 10 * MIB);
    pm_huge_blocks.used_bytes = 1024 * MIB;
    CHECK(pm_keep_limit(&keep, 0, 1, NOW) == PM_KEEP_BYTES + 1024 * MIB);
    pm_huge_blocks.used_bytes = 0;
}

TEST(sharers_divide_what_does_not_depend_on_what_is_in_use) {
    struct pm_keep keep = { .extra = 1024 * MIB, .at = NOW };
    CHECK(pm_keep_limit(&keep, 0, 4, NOW) == (PM_KEEP_BYTES + PM_KEEP_EXTRA) / 4);
    keep.extra = 0;
    CHECK(pm_keep_limit(&keep, 1024 * MIB, 4, NOW) == 1024 * MIB / PM_KEEP_SHARE);
}

TEST(it_is_forgotten_by_halves) {
    struct pm_keep keep = { .extra = 64 * MIB, .purged = 16 * MIB, .at = NOW };
    pm_huge_blocks.used_bytes = 64 * MIB;
    CHECK(pm_keep_limit(&keep, 0, 1, NOW + PM_PURGE_DELAY_MS - 1) == PM_KEEP_BYTES + 64 * MIB);
    CHECK(pm_keep_limit(&keep, 0, 1, NOW + PM_PURGE_DELAY_MS) == PM_KEEP_BYTES + 32 * MIB);
    CHECK(pm_keep_limit(&keep, 0, 1, NOW + 3 * PM_PURGE_DELAY_MS) == PM_KEEP_BYTES + 8 * MIB);
    CHECK(keep.purged == 2 * MIB);
    CHECK(pm_keep_limit(&keep, 0, 1, NOW + 1000 * PM_PURGE_DELAY_MS) == PM_KEEP_BYTES);
}

TEST(the_clock_may_wrap) {
    pm_huge_blocks.used_bytes = 64 * MIB;
    struct pm_keep keep = { .extra = 64 * MIB, .at = UINT32_MAX - 5 };
    CHECK(pm_keep_limit(&keep, 0, 1, 5) == PM_KEEP_BYTES + 64 * MIB);
}

// Threads read the clock before they wait for the lock: the later reader may be the first to get
// it. A trim looks from the future on purpose.
TEST(a_look_from_before_the_last_one_forgets_nothing) {
    pm_huge_blocks.used_bytes = 64 * MIB;
    struct pm_keep keep = { .extra = 64 * MIB, .at = NOW };
    CHECK(pm_keep_limit(&keep, 0, 1, NOW - 1) == PM_KEEP_BYTES + 64 * MIB);
    CHECK(pm_keep_limit(&keep, 0, 1, NOW + 4) == PM_KEEP_BYTES + 64 * MIB);
}

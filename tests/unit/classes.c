// SPDX-License-Identifier: MIT
// Copyright (c) the poolmalloc authors
//
// core/classes: every size, every lane, every offset.

#include "unit.h"

#include "core/classes.h"

#define TEST(name) UNIT_TEST(classes, name)

TEST(every_size_has_the_smallest_class_that_holds_it) {
    for (size_t n = 0; n <= PM_MEDIUM_MAX; n++) {
        const pm_class class = pm_class_of(n);
        CHECK(class < PM_CLASS_COUNT, "%zu", n);
        CHECK(pm_classes[class].size >= n, "%zu", n);
        CHECK(class == 0 || pm_classes[class - 1].size < n, "%zu", n);
    }
}

TEST(waste_is_within_bounds) {
    for (size_t n = 1; n <= PM_MEDIUM_MAX; n++) {
        const size_t size = pm_classes[pm_class_of(n)].size;
        if (n <= PM_LINEAR_MAX) {
            CHECK(size - n < PM_BLOCK_ALIGN, "%zu in %zu", n, size);
        } else {
            CHECK((size - n) * 8 < n, "%zu in %zu: more than 12.5 %%", n, size);
        }
    }
}

TEST(sizes_grow_and_are_aligned) {
    for (unsigned class = 0; class < PM_CLASS_COUNT; class++) {
        CHECK(pm_classes[class].size % PM_BLOCK_ALIGN == 0, "class %u", class);
        CHECK(class == 0 || pm_classes[class].size > pm_classes[class - 1].size, "class %u", class);
        CHECK(pm_class_of(pm_classes[class].size) == class, "class %u", class);
    }
    CHECK(pm_classes[PM_CLASS_SMALL_COUNT - 1].size == PM_SMALL_MAX);
    CHECK(pm_classes[PM_CLASS_COUNT - 1].size == PM_MEDIUM_MAX);
}

TEST(every_lane_belongs_to_one_class) {
    unsigned lane = 0;
    for (unsigned class = 0; class < PM_CLASS_COUNT; class++) {
        CHECK(pm_classes[class].lane == lane && pm_classes[class].lanes > 0, "class %u", class);
        lane += pm_classes[class].lanes;
    }
    CHECK(lane == PM_LANE_COUNT);
}

TEST(the_lane_of_a_size_is_one_of_its_class) {
    for (size_t n = 0; n <= PM_MEDIUM_MAX; n++) {
        const struct pm_class_info *const info = &pm_classes[pm_class_of(n)];
        const size_t lane = pm_lane_of(n);
        CHECK(lane >= info->lane && lane < (size_t)info->lane + info->lanes, "%zu", n);
    }
}

TEST(the_divisor_finds_the_starts_of_blocks_and_nothing_else) {
    for (unsigned class = 0; class < PM_CLASS_COUNT; class++) {
        const size_t size = pm_classes[class].size;
        const uint64_t divisor = pm_classes[class].divisor;
        const size_t bytes = PM_POOL_BYTES(pm_class_pool_bits((pm_class)class));
        for (size_t offset = 0; offset < bytes; offset++) {
            CHECK((offset * divisor < divisor) == (offset % size == 0), "%zu of %zu", offset, size);
            // Where only half of the pool is carved.
            const size_t carved = bytes / 2 / size * size;
            CHECK((offset * divisor < carved * divisor) == (offset % size == 0 && offset < carved),
                  "%zu of %zu", offset, size);
        }
    }
}

TEST(a_pool_holds_several_blocks_of_its_class) {
    for (unsigned class = 0; class < PM_CLASS_COUNT; class++) {
        const size_t bytes = PM_POOL_BYTES(pm_class_pool_bits((pm_class)class));
        CHECK(bytes / pm_classes[class].size >= 8, "class %u", class);
        CHECK((class < PM_CLASS_SMALL_COUNT) == (bytes == PM_POOL_BYTES(PM_SMALL_POOL_BITS)));
    }
}

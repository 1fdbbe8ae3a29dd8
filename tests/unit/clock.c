// SPDX-License-Identifier: MIT
// Copyright (c) the poolmalloc authors
//
// core/clock: how it follows the time of the OS.

#include "fake_os.h"
#include "unit.h"

#include "base/atomic.h"
#include "core/clock.h"

#define TEST(name) UNIT_TEST(clock, name)

// Looks until the processor's counter has gone on far enough.
static void wait_until(uint32_t now) {
    const uint64_t start = pm_cpu_ticks();
    while (pm_clock() != now) {
        CHECK(pm_cpu_ticks() - start < 1000000 * pm_cpu_ticks_per_ms(), "it never looks");
    }
}

TEST(it_sees_the_time_that_the_os_has_come_to) {
    fake_time(5000);
    wait_until(5000);
    fake_time(7000);
    CHECK(pm_clock_last() == 5000);
    wait_until(7000);
    CHECK(pm_clock_last() == 7000);
}

TEST(the_os_is_asked_only_when_the_counter_has_gone_on) {
    wait_until(1000000);
    const uint64_t start = pm_cpu_ticks();
    const uint32_t before = fake_count(FAKE_CLOCK);
    for (unsigned i = 0; i < 100000; i++) {
        pm_clock();
    }
    const uint64_t ticks = pm_cpu_ticks() - start;
    const uint32_t asked = fake_count(FAKE_CLOCK) - before;
    CHECK(asked <= ticks / pm_cpu_ticks_per_ms() + 1, "%u", asked);
}

TEST(time_passes_between_two_readings_only_forward) {
    CHECK(pm_clock_since(100, 350) == 250);
    CHECK(pm_clock_since(350, 100) == 0, "read before, by another thread");
    CHECK(pm_clock_since(UINT32_MAX - 9, 10) == 20, "it wraps");
}

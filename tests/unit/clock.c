// SPDX-License-Identifier: MIT
// Copyright (c) the poolmalloc authors
//
// core/clock: how it follows the time of the OS.

#include "fake_os.h"
#include "unit.h"

#include "core/clock.h"

#define TEST(name) UNIT_TEST(clock, name)

// Ends when the processor's counter has gone on far enough.
static void wait_until(uint32_t now) {
    while (pm_clock() != now) {
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

TEST(a_look_at_the_os_is_a_look_for_all) {
    fake_time(5000);
    CHECK(pm_clock_now() == 5000);
    CHECK(pm_clock_last() == 5000 && pm_clock() == 5000);
}

static void look(void *seen) {
    *(uint32_t *)seen = pm_clock();
}

TEST(a_thread_sees_what_others_have_seen) {
    fake_clock(9000);
    uint32_t seen = 0;
    unit_in_thread(look, &seen);
    CHECK(seen == 9000);
}

TEST(time_passes_between_two_readings_only_forward) {
    CHECK(pm_clock_since(100, 350) == 250);
    CHECK(pm_clock_since(350, 100) == 0, "read before, by another thread");
    CHECK(pm_clock_since(UINT32_MAX - 9, 10) == 20, "it wraps");
}

// SPDX-License-Identifier: MIT
// Copyright (c) the poolmalloc authors
//
// core/run: where runs are cut, how they join, and what of them is zero.

#include "fake_os.h"
#include "unit.h"

#include "core/map.h"
#include "core/run.h"
#include "base/bits.h"
#include "os/os.h"

#include <string.h>

// Every test is made with both kinds of runs.
static struct pm_runs *runs;
static size_t unit, run_max;

#define TEST(name)                                                                 \
    static void check_##name(void);                                                \
    UNIT_TEST(run, name) {                                                         \
        for (unsigned i = 0; i < 2; i++) {                                         \
            const enum pm_runs_kind kind = i == 0 ? PM_RUNS_SMALL : PM_RUNS_LARGE; \
            runs = &pm_runs[kind];                                                 \
            unit = (size_t)1 << runs->unit_bits;                                   \
            run_max = pm_run_max(kind);                                            \
            check_##name();                                                        \
        }                                                                          \
    }                                                                              \
    static void check_##name(void)

enum { UNITS = PM_ARENA_UNITS - 1 };

static uintptr_t arena_of(const void *at) {
    return pm_round_down((uintptr_t)at, PM_ARENA_UNITS * unit);
}

static char *take(size_t units) {
    char *const at = pm_run_malloc(runs, units * unit, PM_BLOCK_ALIGN, false);
    CHECK(at != NULL);
    memset(at, 0x5a, unit);
    at[units * unit - 1] = 0x5a;
    return at;
}

static void give(void *at) {
    CHECK(pm_run_free(runs, at) == PM_DONE);
}

static size_t size_of(const void *at) {
    enum pm_verdict verdict;
    const size_t size = pm_run_size(runs, at, &verdict);
    CHECK(verdict == PM_DONE);
    return size;
}

TEST(runs_are_whole_units_inside_one_arena) {
    for (size_t n = 1; n <= run_max; n += n < 10 * unit ? unit / 4 + 3 : 8 * unit - 1) {
        char *const at = pm_run_malloc(runs, n, PM_BLOCK_ALIGN, true);
        CHECK(at != NULL && unit_is_zero(at, n) && (uintptr_t)at % unit == 0, "%zu", n);
        CHECK(size_of(at) == pm_round_up(n, unit), "%zu", n);
        CHECK(arena_of(at) == arena_of(at + n - 1) && arena_of(at) != (uintptr_t)at);
        CHECK(pm_map_kind(at) == runs->slot_kind && pm_map_kind(at + n - 1) == runs->slot_kind);
        AUDIT();
    }
    CHECK(size_of(take(PM_RUN_UNITS_MAX)) == run_max);
}

TEST(runs_are_aligned_as_asked) {
    for (size_t align = 16; align <= run_max / 2; align *= align < 4096 ? 256 : 2) {
        for (size_t units = 1; units * unit + align <= run_max; units += 13) {
            char *const at = pm_run_malloc(runs, units * unit, align, false);
            CHECK(at != NULL && (uintptr_t)at % align == 0, "%zu at %zu", units, align);
            CHECK(size_of(at) == units * unit);
            AUDIT();
        }
    }
}

TEST(the_best_fit_is_taken) {
    // Holes of several lengths, kept apart.
    static const size_t holes[] = { 7, 3, 12, 5, 40 };
    enum { HOLES = sizeof holes / sizeof *holes };
    char *hole[HOLES];
    for (unsigned i = 0; i < HOLES; i++) {
        hole[i] = take(holes[i]);
        take(1);
    }
    // The rest of the arena is in use.
    take(UNITS - 67 - HOLES - 100);
    take(100);
    for (unsigned i = 0; i < HOLES; i++) {
        give(hole[i]);
    }
    AUDIT();
    static const struct {
        size_t units;
        unsigned hole;
        size_t offset;
    } rows[] = { { 4, 3, 0 },  { 3, 1, 0 },  { 1, 3, 4 },   { 6, 0, 0 },
                 { 13, 4, 0 }, { 12, 2, 0 }, { 27, 4, 13 }, { 1, 0, 6 } };
    for (unsigned row = 0; row < sizeof rows / sizeof *rows; row++) {
        CHECK(take(rows[row].units) == hole[rows[row].hole] + rows[row].offset * unit, "row %u",
              row);
        AUDIT();
    }
    CHECK(runs->count == 1);
}

TEST(a_run_that_will_grow_gets_room_behind_it_where_there_is_any) {
    char *const tight = take(6), *const between = take(1), *const roomy = take(8),
                *const end = take(1);
    char *const rest = take(PM_RUN_UNITS_MAX), *const last = take(UNITS - 16 - PM_RUN_UNITS_MAX);
    give(tight);
    give(roomy);
    char *const growing = pm_run_malloc_growing(runs, 4 * unit);
    CHECK(growing == roomy && size_of(growing) == 4 * unit);
    CHECK(pm_run_resize(runs, growing, 8 * unit) && !pm_run_resize(runs, growing, 9 * unit));
    CHECK(pm_run_malloc_growing(runs, 4 * unit) == tight, "no room: the best fit");
    AUDIT();
    give(growing);
    give(tight);
    give(between);
    give(end);
    give(rest);
    give(last);
}

TEST(neighbours_join_in_every_order) {
    static const unsigned lengths[] = { 3, 1, 7, 2 };
    for (unsigned order = 0; order < 24; order++) {
        char *joined[4];
        for (unsigned i = 0; i < 4; i++) {
            joined[i] = take(lengths[i]);
        }
        // The order as a permutation: which of those left goes next.
        unsigned left = 4;
        for (unsigned code = order, base = 4; left > 0; code /= base, base--) {
            const unsigned at = code % base;
            give(joined[at]);
            memmove(joined + at, joined + at + 1, (left - at - 1) * sizeof *joined);
            left--;
            AUDIT();
        }
        CHECK(runs->empty == 1 && runs->used_units == 0, "order %u", order);
        CHECK(runs->filled[UNITS / 64] == UINT64_C(1) << UNITS % 64, "one run of all units");
    }
}

static char *zeroes(size_t n) {
    char *const at = pm_run_malloc(runs, n, 16, true);
    CHECK(at != NULL);
    return at;
}

TEST(fresh_and_purged_runs_need_no_zeroes_and_used_ones_do) {
    take(1); // keeps the arena
    char *at = zeroes(6 * unit);
    CHECK(pm_os_resident(at, 6 * unit) == 0 && unit_is_zero(at, 6 * unit));
    memset(at, 0x5a, 6 * unit);
    give(at);
    CHECK(zeroes(2 * unit) == at && unit_is_zero(at, 2 * unit));
    give(at);
    CHECK(pm_runs_trim() == 6 * unit);
    AUDIT();
    CHECK(zeroes(6 * unit) == at);
    CHECK(pm_os_resident(at, 6 * unit) == 0 && unit_is_zero(at, 6 * unit));
}

TEST(one_used_unit_in_a_run_is_cleared_alone) {
    enum { LENGTH = 70 };
    take(1); // keeps the arena
    for (size_t dirty = 0; dirty < LENGTH; dirty++) {
        char *const whole = take(LENGTH);
        give(whole);
        pm_runs_trim();
        // Cut the unit out, and purge it alone not.
        char *const before = dirty == 0 ? NULL : zeroes(dirty * unit);
        char *const one = zeroes(1);
        CHECK(one == whole + dirty * unit && pm_os_resident(one, unit) == 0);
        if (before != NULL) {
            give(before);
            pm_runs_trim();
        }
        memset(one, 1, unit);
        give(one);
        AUDIT();
        CHECK(runs->resident_units == 1);
        CHECK(zeroes(LENGTH * unit) == whole, "%zu", dirty);
        CHECK(pm_os_resident(whole, LENGTH * unit) == unit && unit_is_zero(whole, LENGTH * unit));
        give(whole);
    }
}

// Locked memory can't be purged: it keeps what was in it.
TEST(a_run_that_the_system_does_not_purge_is_cleared) {
    char *const at = take(4);
    take(1); // keeps the arena
    give(at);
    fake_fail(FAKE_PURGE, 0, FAKE_ALL);
    pm_runs_trim();
    AUDIT();
    CHECK(zeroes(4 * unit) == at && unit_is_zero(at, 4 * unit));
}

TEST(zeroes_are_written_where_a_run_was_used_and_nowhere_else) {
    enum { LENGTH = 70, USED = 9 };
    take(1); // keeps the arena
    char *const at = take(LENGTH);
    give(at);
    pm_runs_trim();
    char *const before = take(20), *const used = take(USED);
    CHECK(before == at && used == at + 20 * unit);
    give(before);
    pm_runs_trim();
    memset(used, 0x5a, USED * unit);
    give(used);
    CHECK(zeroes(LENGTH * unit - 100) == at);
    CHECK(pm_os_resident(at, 20 * unit) == 0 && pm_os_resident(used, USED * unit) == USED * unit);
    CHECK(pm_os_resident(used + USED * unit, (LENGTH - 20 - USED) * unit) == 0);
    CHECK(unit_is_zero(at, LENGTH * unit - 100));
    AUDIT();
}

TEST(a_run_that_shrinks_gives_back_what_is_too_much) {
    enum { COUNT = 12 };
    char *at[COUNT];
    for (size_t i = 0; i < COUNT; i++) {
        at[i] = take(PM_RUN_UNITS_MAX / 2);
    }
    for (size_t i = 0; i < COUNT; i++) {
        CHECK(pm_run_resize(runs, at[i], unit));
    }
    CHECK(runs->resident_units * unit <= 2 * PM_KEEP_BYTES, "%zu", runs->resident_units);
    AUDIT();
}

TEST(a_run_grows_into_a_free_neighbour_and_nowhere_else) {
    char *const first = take(3), *const second = take(4), *const third = take(2);
    unit_fill(first, 3 * unit, 1);
    unit_fill(third, 2 * unit, 3);
    CHECK(!pm_run_resize(runs, first, 4 * unit), "in use");
    AUDIT();
    give(second);
    CHECK(!pm_run_resize(runs, first, 8 * unit), "too small");
    CHECK(size_of(first) == 3 * unit);
    AUDIT();
    CHECK(pm_run_resize(runs, first, 4 * unit - 5) && size_of(first) == 4 * unit);
    AUDIT();
    CHECK(pm_run_resize(runs, first, 7 * unit) && size_of(first) == 7 * unit);
    AUDIT();
    CHECK(!pm_run_resize(runs, first, 7 * unit + 1));
    CHECK(pm_run_free(runs, second) == PM_INSIDE);
    CHECK(unit_filled(first, 3 * unit, 1) && unit_filled(third, 2 * unit, 3));
    give(first);
    AUDIT();
}

TEST(a_run_that_shrinks_gives_its_end_away) {
    char *const first = take(9), *const second = take(1);
    unit_fill(first, 2 * unit, 1);
    for (size_t units = 9; units > 2; units -= 3) {
        CHECK(pm_run_resize(runs, first, units * unit));
        CHECK(size_of(first) == units * unit);
        AUDIT();
    }
    CHECK(pm_run_resize(runs, first, 2 * unit));
    CHECK(take(7) == first + 2 * unit);
    CHECK(unit_filled(first, 2 * unit, 1));
    give(second);
    AUDIT();
}

TEST(the_last_run_of_an_arena_does_not_grow) {
    take(100);
    take(100);
    char *const last = take(UNITS - 200);
    CHECK(arena_of(last + (UNITS - 200) * unit) != arena_of(last));
    CHECK(!pm_run_resize(runs, last, (UNITS - 199) * unit));
    AUDIT();
}

TEST(misuse_is_told) {
    take(1); // keeps the arena
    char *const at = take(5), *const behind = take(1), *const arena = (char *)arena_of(at);
    CHECK(pm_run_free(runs, at + 8) == PM_UNALIGNED && pm_run_free(runs, at + 16) == PM_INSIDE);
    CHECK(pm_run_free(runs, at + unit) == PM_INSIDE);
    CHECK(pm_run_free(runs, at + 3 * unit + 160) == PM_INSIDE);
    CHECK(pm_run_free(runs, arena) == PM_NEVER_HANDED_OUT);
    CHECK(pm_run_free(runs, arena + 4096) == PM_NEVER_HANDED_OUT);
    CHECK(pm_run_free(runs, behind + unit * 3) == PM_NEVER_HANDED_OUT);
    give(at);
    CHECK(pm_run_free(runs, at) == PM_DOUBLE_FREE);
    AUDIT();
    give(behind);
    CHECK(pm_run_free(runs, at) == PM_DOUBLE_FREE && pm_run_free(runs, behind) == PM_DOUBLE_FREE);
    pm_runs_trim();
    CHECK(pm_run_free(runs, at) == PM_DOUBLE_FREE && pm_run_free(runs, behind) == PM_DOUBLE_FREE,
          "purged");
    enum pm_verdict verdict;
    CHECK(pm_run_size(runs, at, &verdict) == 0 && verdict == PM_DOUBLE_FREE);
    AUDIT();
}

TEST(without_memory_there_is_no_run_and_later_it_goes_on) {
    char *const at = take(100);
    take(100);
    fake_fail(FAKE_MAP, 0, FAKE_ALL);
    CHECK(pm_run_malloc(runs, 100 * unit, 16, false) == NULL);
    AUDIT();
    CHECK(pm_run_malloc(runs, 50 * unit, 16, false) != NULL, "what is mapped serves");
    give(at);
    CHECK(take(100) == at);
    fake_heal();
    CHECK(pm_run_malloc(runs, 100 * unit, 16, false) != NULL);
    CHECK(runs->count == 2);
    AUDIT();
}

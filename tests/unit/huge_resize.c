// SPDX-License-Identifier: MIT
// Copyright (c) the poolmalloc authors
//
// core/huge: blocks that grow, shrink, move, and are made of cached ones.

#include "fake_os.h"
#include "unit.h"

#include "base/bits.h"
#include "core/huge.h"
#include "core/map.h"
#include "os/os.h"
#include "poolmalloc.h"

#include <sys/mman.h>

#define TEST(name) UNIT_TEST(huge_resize, name)
#define MIB        ((size_t)1 << 20)

// The first and the last bytes of what two sizes share.
static void mark_ends(char *at, size_t size) {
    unit_fill(at, 4096, 1);
    unit_fill(at + size - 4096, 4096, 2);
}

static bool ends_are_there(const char *at, size_t size) {
    return unit_filled(at, 4096, 1) && unit_filled(at + size - 4096, 4096, 2);
}

static char *take(size_t n) {
    char *const at = pm_huge_malloc(n, PM_BLOCK_ALIGN, false);
    CHECK(at != NULL);
    return at;
}

// The map says of a block's slots that they are its, and of the next nothing.
static void check_block(const char *at, size_t size) {
    enum pm_verdict verdict;
    CHECK(pm_huge_size(at, &verdict) == pm_round_up(size, pm_os_page_size()));
    CHECK((uintptr_t)at % PM_SLOT_BYTES == 0 && pm_map_kind(at) == PM_SLOT_HUGE);
    for (size_t slot = PM_SLOT_BYTES; slot < size; slot += PM_SLOT_BYTES) {
        CHECK(pm_map_kind(at + slot) == PM_SLOT_HUGE_INNER);
    }
    CHECK(pm_map_kind(at + pm_round_up(size, PM_SLOT_BYTES)) != PM_SLOT_HUGE_INNER);
    AUDIT();
}

TEST(every_change_of_size_keeps_the_contents) {
    static const size_t sizes[] = { 8192, 3 * MIB, 4 * MIB, 4 * MIB + 4096, 21 * MIB, 64 * MIB };
    enum { COUNT = sizeof sizes / sizeof *sizes };
    for (unsigned from = 0; from < COUNT; from++) {
        for (unsigned to = 0; to < COUNT; to++) {
            const size_t kept = pm_min(sizes[from], sizes[to]);
            char *const at = take(sizes[from]);
            mark_ends(at, kept);
            char *const moved = pm_huge_resize(at, sizes[to]);
            CHECK(moved != NULL && ends_are_there(moved, kept), "%u to %u", from, to);
            check_block(moved, sizes[to]);
            CHECK(moved == at || pm_map_kind(at) == PM_SLOT_TOMBSTONE);
            moved[sizes[to] - 1] = 1;
            CHECK(pm_huge_free(moved) == PM_DONE);
            pm_huge_trim();
            AUDIT();
        }
    }
}

// What stands behind it makes it move.
static char *grown(size_t size, size_t n) {
    char *const at = pm_malloc(size);
    CHECK(at != NULL && pm_malloc(size) != NULL);
    unit_fill(at, size, 1);
    char *const moved = pm_realloc(at, n);
    CHECK(moved != NULL && moved != at && unit_filled(moved, size, 1));
    AUDIT();
    return moved;
}

TEST(a_long_run_that_grows_in_small_steps_leaves_the_arenas) {
    char *const at = grown(5 * MIB, 6 * MIB);
    CHECK(pm_map_kind(at) == PM_SLOT_HUGE);
    char *const again = pm_realloc(at, 60 * MIB);
    CHECK(pm_map_kind(again) == PM_SLOT_HUGE && unit_filled(again, 5 * MIB, 1));
    pm_free(again);
    CHECK(pm_map_kind(grown(5 * MIB, 10 * MIB)) == PM_SLOT_LARGE_RUNS, "a large step");
    CHECK(pm_map_kind(grown(MIB, MIB + 100000)) == PM_SLOT_RUNS, "a short run");
}

TEST(growing_gives_zeros_behind_the_old_end) {
    char *const at = take(3 * MIB);
    unit_fill(at, 3 * MIB, 1);
    char *const moved = pm_huge_resize(at, 9 * MIB);
    CHECK(unit_filled(moved, 3 * MIB, 1) && unit_is_zero(moved + 3 * MIB, 6 * MIB));
}

TEST(a_block_moves_when_it_has_no_room_to_grow) {
    char *const at = take(3 * MIB);
    mark_ends(at, 3 * MIB);
    fake_fail(FAKE_RESIZE, 0, FAKE_ALL);
    char *const moved = pm_huge_resize(at, 30 * MIB);
    CHECK(moved != NULL && moved != at && ends_are_there(moved, 3 * MIB));
    CHECK(pm_map_kind(at) == PM_SLOT_TOMBSTONE && *pm_map_huge(at) == NULL);
    check_block(moved, 30 * MIB);
    char byte;
    CHECK(!pm_os_peek(at, &byte, 1), "its old place is free");
}

// Its place would be lost, for a refusal may come when it was unmapped already.
TEST(no_place_is_reserved_for_a_move_that_the_system_will_refuse) {
    pm_huge_blocks.keep.extra = 256 * MIB;
    fake_clock(0);
    char *const at = take(16 * MIB);
    unit_fill(at, MIB, 1);
    CHECK(mprotect(at + 10 * MIB, 4096, PROT_READ) == 0, "now the mapping is several");
    const uint32_t reserved = fake_count(FAKE_RESERVE);
    CHECK(pm_huge_resize(at, 30 * MIB) == NULL && fake_count(FAKE_RESERVE) == reserved);
    check_block(at, 16 * MIB);
    CHECK(mprotect(at + 10 * MIB, 4096, PROT_READ | PROT_WRITE) == 0);
    CHECK(mprotect(at + 15 * MIB, 4096, PROT_READ) == 0);
    CHECK(pm_huge_free(at) == PM_DONE);
    char *const again = take(8 * MIB);
    CHECK(again == at && fake_count(FAKE_RESERVE) == reserved, "what it cuts off is not kept");
    check_block(again, 8 * MIB);
}

TEST(shrinking_gives_the_end_back) {
    char *const at = take(30 * MIB);
    mark_ends(at, 5 * MIB);
    at[30 * MIB - 1] = 1;
    CHECK(pm_huge_resize(at, 5 * MIB) == at && ends_are_there(at, 5 * MIB));
    check_block(at, 5 * MIB);
    char byte;
    CHECK(!pm_os_peek(at + 5 * MIB, &byte, 1) && !pm_os_peek(at + 30 * MIB - 1, &byte, 1));
    CHECK(pm_map_kind(at + 2 * PM_SLOT_BYTES) == PM_SLOT_NONE);
}

TEST(a_refusal_to_shrink_leaves_the_block_larger) {
    char *const at = take(30 * MIB);
    mark_ends(at, 30 * MIB);
    fake_fail(FAKE_UNMAP, 0, FAKE_ALL);
    CHECK(pm_huge_resize(at, 5 * MIB) == at && ends_are_there(at, 30 * MIB));
    check_block(at, 30 * MIB);
    fake_heal();
    CHECK(pm_huge_resize(at, 5 * MIB) == at);
    check_block(at, 5 * MIB);
}

TEST(a_refusal_to_grow_leaves_the_block_as_it_was) {
    static const enum fake_call second[] = { FAKE_RESERVE, FAKE_MOVE };
    for (unsigned i = 0; i < 2; i++) {
        char *const at = take(9 * MIB);
        mark_ends(at, 9 * MIB);
        fake_fail(FAKE_RESIZE, 0, FAKE_ALL);
        fake_fail(second[i], 0, FAKE_ALL);
        CHECK(pm_huge_resize(at, 30 * MIB) == NULL && ends_are_there(at, 9 * MIB));
        check_block(at, 9 * MIB);
        fake_heal();
        char *const moved = pm_huge_resize(at, 30 * MIB);
        CHECK(moved != NULL && ends_are_there(moved, 9 * MIB));
        check_block(moved, 30 * MIB);
    }
}

TEST(a_size_that_no_system_has_leaves_the_block_as_it_was) {
    char *const at = take(9 * MIB);
    mark_ends(at, 9 * MIB);
    CHECK(pm_huge_resize(at, PTRDIFF_MAX) == NULL);
    CHECK(pm_huge_resize(at, (size_t)1 << 50) == NULL);
    CHECK(ends_are_there(at, 9 * MIB));
    check_block(at, 9 * MIB);
}

// A request of one size after a block of another was freed: made of its pages, whole and of the
// size asked.
TEST(cached_blocks_are_cut_and_grown_to_the_size_asked) {
    static const size_t sizes[] = { 8192, 300 * 1024, 3 * MIB, 4 * MIB, 17 * MIB, 19 * MIB };
    enum { COUNT = sizeof sizes / sizeof *sizes };
    pm_huge_blocks.keep.extra = 256 * MIB;
    fake_clock(0);
    for (unsigned cached = 0; cached < COUNT; cached++) {
        for (unsigned asked = 0; asked < COUNT; asked++) {
            for (unsigned refused = 0; refused <= FAKE_CALL_COUNT; refused++) {
                char *const old = take(sizes[cached]);
                CHECK(pm_huge_free(old) == PM_DONE);
                if (refused < FAKE_CLOCK && refused != FAKE_MAP) {
                    fake_fail((enum fake_call)refused, 0, FAKE_ALL);
                }
                const bool zero = (cached + asked + refused) % 2 != 0;
                char *const at = pm_huge_malloc(sizes[asked], 16, zero);
                fake_heal();
                enum pm_verdict verdict;
                CHECK(at != NULL && pm_huge_size(at, &verdict) >= sizes[asked]);
                AUDIT();
                CHECK(!zero || unit_is_zero(at, sizes[asked]));
                mark_ends(at, sizes[asked]);
                char *const other = take(sizes[cached]);
                mark_ends(other, sizes[cached]);
                CHECK(ends_are_there(at, sizes[asked]));
                CHECK(pm_huge_free(at) == PM_DONE && pm_huge_free(other) == PM_DONE);
                AUDIT();
                pm_huge_trim();
            }
        }
    }
    CHECK(pm_huge_blocks.used_bytes == 0);
}

struct block {
    char *at;
    size_t size;
};

TEST(random_work_keeps_all_equations_and_all_bytes) {
    enum { LIVE = 12, STEPS = 3000 };
    static struct block live[LIVE];
    unsigned count = 0;
    fake_clock(0);
    pm_huge_blocks.keep.extra = 64 * MIB;
    for (unsigned i = 0; i < STEPS; i++) {
        if (i % 20 == 0) {
            static const enum fake_call calls[] = { FAKE_UNMAP, FAKE_RESERVE, FAKE_MOVE,
                                                    FAKE_RESIZE, FAKE_MAP };
            fake_heal();
            fake_fail(calls[unit_below(5)], (uint32_t)unit_below(5), (uint32_t)unit_below(5));
        }
        const size_t size = 8192 + unit_below(unit_below(2) ? 2 * MIB : 24 * MIB);
        struct block *const one = &live[count == 0 ? 0 : unit_below(count)];
        const size_t what = unit_below(10);
        const bool zero = unit_below(2) != 0;
        if (count == 0 || (what < 4 && count < LIVE)) {
            char *const at = pm_huge_malloc(size, 16, zero);
            if (at != NULL) {
                CHECK(!zero || (at[0] == 0 && at[size / 2] == 0 && at[size - 1] == 0));
                live[count++] = (struct block){ at, size };
                mark_ends(at, size);
            }
        } else if (what < 7) {
            CHECK(ends_are_there(one->at, one->size));
            char *const at = pm_huge_resize(one->at, size);
            if (at != NULL) {
                CHECK(unit_filled(at, 4096, 1) &&
                      (size < one->size || ends_are_there(at, one->size)));
                *one = (struct block){ at, size };
                mark_ends(at, size);
            } else {
                CHECK(ends_are_there(one->at, one->size));
            }
        } else {
            CHECK(ends_are_there(one->at, one->size));
            CHECK(pm_huge_free(one->at) == PM_DONE);
            *one = live[--count];
        }
        AUDIT();
    }
    for (unsigned i = 0; i < count; i++) {
        CHECK(ends_are_there(live[i].at, live[i].size) && pm_huge_free(live[i].at) == PM_DONE);
    }
    CHECK(pm_huge_blocks.used_bytes == 0);
    AUDIT();
}

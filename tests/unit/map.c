// SPDX-License-Identifier: MIT
// Copyright (c) the poolmalloc authors
//
// core/map: the kind of every address.

#include "fake_os.h"
#include "unit.h"

#include "core/huge.h"
#include "core/map.h"
#include "os/os.h"
#include "poolmalloc.h"

#include <stdlib.h>

#define TEST(name) UNIT_TEST(map, name)

// Places that no test maps, three leaves apart from anything else.
#define LEAF_BYTES (PM_SLOT_BYTES << PM_LEAF_BITS)
#define PLACE ((uintptr_t)0x123 * LEAF_BYTES)

static const char *address(uintptr_t at) {
    return (const char *)at;
}

TEST(nothing_is_ours_at_the_start) {
    static int data;
    int stack;
    void *const libcs = malloc(100);
    CHECK(pm_map_kind(&data) == PM_SLOT_NONE && pm_map_kind(&stack) == PM_SLOT_NONE);
    CHECK(pm_map_kind(libcs) == PM_SLOT_NONE && pm_map_kind(NULL) == PM_SLOT_NONE);
    free(libcs);
    for (uintptr_t at = 0; at >> PM_ADDRESS_BITS == 0; at += PM_SLOT_BYTES) {
        CHECK(pm_map_kind(address(at)) == PM_SLOT_NONE, "%#lx", at);
        CHECK(at % LEAF_BYTES != 0 || pm_map_huge(address(at)) == NULL, "%#lx", at);
    }
}

TEST(addresses_that_no_program_has_are_nobodys) {
    CHECK(pm_map_prepare(address(PLACE), PM_SLOT_BYTES, false));
    pm_map_mark(address(PLACE), PM_SLOT_BYTES, PM_SLOT_SMALL, PM_SLOT_SMALL);
    for (unsigned bit = PM_ADDRESS_BITS; bit < 64; bit++) {
        CHECK(pm_map_kind(address(PLACE | (uintptr_t)1 << bit)) == PM_SLOT_NONE, "bit %u", bit);
    }
    CHECK(pm_map_kind(address(UINTPTR_MAX)) == PM_SLOT_NONE);
    CHECK(!pm_map_prepare(address((uintptr_t)1 << PM_ADDRESS_BITS), PM_SLOT_BYTES, false));
    CHECK(!pm_map_prepare(address(((uintptr_t)1 << PM_ADDRESS_BITS) - PM_SLOT_BYTES),
                          2 * PM_SLOT_BYTES, false));
}

TEST(marking_changes_the_slots_of_the_range_alone) {
    // In the middle of a leaf, at both its ends, and over two leaves.
    static const uintptr_t starts[] = { 100 * PM_SLOT_BYTES, 0, LEAF_BYTES - PM_SLOT_BYTES,
                                        LEAF_BYTES - 3 * PM_SLOT_BYTES, 2 * LEAF_BYTES };
    static const size_t sizes[] = { 1, PM_SLOT_BYTES, PM_SLOT_BYTES + 1, 5 * PM_SLOT_BYTES };
    for (unsigned i = 0; i < sizeof starts / sizeof *starts; i++) {
        for (unsigned j = 0; j < sizeof sizes / sizeof *sizes; j++) {
            const uintptr_t at = PLACE + starts[i];
            const size_t slots = (sizes[j] + PM_SLOT_BYTES - 1) / PM_SLOT_BYTES;
            CHECK(pm_map_prepare(address(at), sizes[j], false));
            CHECK(pm_map_kind(address(at)) == PM_SLOT_NONE, "prepared is not marked");
            pm_map_mark(address(at), sizes[j], PM_SLOT_HUGE, PM_SLOT_HUGE_INNER);
            for (size_t slot = 0; slot < slots; slot++) {
                const enum pm_slot_kind kind = slot == 0 ? PM_SLOT_HUGE : PM_SLOT_HUGE_INNER;
                const uintptr_t start = at + slot * PM_SLOT_BYTES;
                CHECK(pm_map_kind(address(start)) == kind);
                CHECK(pm_map_kind(address(start + 1)) == kind);
                CHECK(pm_map_kind(address(start + PM_SLOT_BYTES - 1)) == kind);
            }
            CHECK(pm_map_kind(address(at - 1)) == PM_SLOT_NONE, "%u %u", i, j);
            CHECK(pm_map_kind(address(at + slots * PM_SLOT_BYTES)) == PM_SLOT_NONE, "%u %u", i, j);
            pm_map_mark(address(at), sizes[j], PM_SLOT_NONE, PM_SLOT_NONE);
            CHECK(pm_map_kind(address(at)) == PM_SLOT_NONE);
        }
    }
}

TEST(the_window_tells_the_same_as_the_map_where_it_is_and_nothing_elsewhere) {
    pm_free(pm_malloc(1)); // places it
    const uintptr_t start = pm_map.window_start, end = start + sizeof pm_map.window * PM_SLOT_BYTES;
    CHECK(start != 0 && start % LEAF_BYTES == 0);
    CHECK(PLACE < start || PLACE >= end, "%#lx", start);
    const uintptr_t places[] = { start, end - PM_SLOT_BYTES, start - PM_SLOT_BYTES, end, PLACE };
    for (unsigned i = 0; i < sizeof places / sizeof *places; i++) {
        const bool near = places[i] - start < end - start;
        if (pm_map_kind(address(places[i])) != PM_SLOT_NONE || places[i] >> PM_ADDRESS_BITS != 0) {
            continue;
        }
        CHECK(pm_map_prepare(address(places[i]), PM_SLOT_BYTES, false));
        pm_map_mark(address(places[i]), PM_SLOT_BYTES, PM_SLOT_RUNS, PM_SLOT_RUNS);
        CHECK(pm_map_kind(address(places[i])) == PM_SLOT_RUNS, "%u", i);
        CHECK(pm_map_kind_near(address(places[i])) == (near ? PM_SLOT_RUNS : PM_SLOT_NONE), "%u",
              i);
        pm_map_mark(address(places[i]), PM_SLOT_BYTES, PM_SLOT_NONE, PM_SLOT_NONE);
    }
    CHECK(pm_map_kind_near(NULL) == PM_SLOT_NONE);
    CHECK(pm_map_kind_near(address(UINTPTR_MAX)) == PM_SLOT_NONE);
}

TEST(every_kind_can_be_told) {
    CHECK(pm_map_prepare(address(PLACE), PM_SLOT_BYTES * PM_SLOT_KIND_COUNT, false));
    for (unsigned kind = 0; kind < PM_SLOT_KIND_COUNT; kind++) {
        pm_map_mark(address(PLACE + kind * PM_SLOT_BYTES), 1, (enum pm_slot_kind)kind,
                    PM_SLOT_NONE);
    }
    for (unsigned kind = 0; kind < PM_SLOT_KIND_COUNT; kind++) {
        CHECK(pm_map_kind(address(PLACE + kind * PM_SLOT_BYTES)) == kind);
    }
}

TEST(a_table_of_huge_blocks_is_made_for_their_first_slot) {
    const uintptr_t last = PLACE + LEAF_BYTES - PM_SLOT_BYTES;
    CHECK(pm_map_prepare(address(last), 2 * PM_SLOT_BYTES, false));
    CHECK(pm_map_huge(address(last)) == NULL);
    CHECK(pm_map_prepare(address(last), 2 * PM_SLOT_BYTES, true));
    struct pm_huge **const entry = pm_map_huge(address(last));
    CHECK(entry != NULL && *entry == NULL);
    CHECK(pm_map_huge(address(last + PM_SLOT_BYTES - 1)) == entry, "an entry a slot");
    CHECK(pm_map_huge(address(last - PM_SLOT_BYTES)) == entry - 1);
    CHECK(pm_map_huge(address(last + PM_SLOT_BYTES)) == NULL, "no block starts there");
    struct pm_huge block;
    *entry = &block;
    CHECK(pm_map_prepare(address(last), 2 * PM_SLOT_BYTES, true));
    CHECK(*pm_map_huge(address(last)) == &block, "preparing again keeps it");
}

TEST(without_memory_for_leaves_nothing_is_prepared) {
    fake_fail(FAKE_MAP, 0, FAKE_ALL);
    uintptr_t at = PLACE;
    while (pm_map_prepare(address(at), PM_SLOT_BYTES, true)) {
        CHECK(pm_map_huge(address(at)) != NULL);
        at += LEAF_BYTES;
        CHECK(at < PLACE + 1000 * LEAF_BYTES, "memory has no end");
    }
    CHECK(pm_map_kind(address(at)) == PM_SLOT_NONE);
    CHECK(!pm_map_prepare(address(at), PM_SLOT_BYTES, true));
    fake_heal();
    CHECK(pm_map_prepare(address(at), PM_SLOT_BYTES, true));
}

TEST(slots_are_aligned_writable_and_unmarked) {
    for (size_t align = PM_SLOT_BYTES; align <= (size_t)256 << 20; align *= 2) {
        for (size_t size = pm_os_page_size(); size <= 3 * PM_SLOT_BYTES;
             size = size * 5 / 4096 * 4096) {
            char *const at = pm_map_slots(size, align, true);
            CHECK(at != NULL && (uintptr_t)at % align == 0, "%zu at %zu", size, align);
            CHECK(pm_map_kind(at) == PM_SLOT_NONE && pm_map_huge(at) != NULL);
            CHECK(at[0] == 0 && at[size - 1] == 0);
            at[0] = at[size - 1] = 1;
            CHECK(pm_os_unmap(at, size) == 0);
        }
    }
}

TEST(slots_are_refused_when_the_system_refuses) {
    fake_fail(FAKE_MAP, 0, FAKE_ALL);
    CHECK(pm_map_slots(PM_SLOT_BYTES, PM_SLOT_BYTES, false) == NULL);
    fake_fail(FAKE_RESERVE, 0, FAKE_ALL);
    CHECK(pm_map_reserve_slots(PM_SLOT_BYTES) == NULL);
    fake_heal();
    CHECK(pm_map_slots(PTRDIFF_MAX - 4095, PM_SLOT_BYTES, false) == NULL);
    char *const at = pm_map_slots(PM_SLOT_BYTES, PM_SLOT_BYTES, false);
    CHECK(at != NULL);
    *at = 1;
    void *const reserved = pm_map_reserve_slots(3 * PM_SLOT_BYTES);
    CHECK(reserved != NULL && (uintptr_t)reserved % PM_SLOT_BYTES == 0);
}

// The k-th of its mappings may be any: the aligned try, the larger one, a leaf.
TEST(slots_are_whole_or_none_whichever_mapping_fails) {
    for (unsigned k = 0; k < 6; k++) {
        for (unsigned unmap = 0; unmap < 2; unmap++) {
            fake_fail(FAKE_MAP, k, 1);
            fake_fail(FAKE_UNMAP, 0, unmap ? FAKE_ALL : 0);
            for (unsigned i = 0; i < 8; i++) {
                char *const at = pm_map_slots(PM_SLOT_BYTES, 4 * PM_SLOT_BYTES, true);
                if (at != NULL) {
                    CHECK((uintptr_t)at % (4 * PM_SLOT_BYTES) == 0);
                    at[0] = at[PM_SLOT_BYTES - 1] = 1;
                }
            }
            fake_heal();
        }
    }
}

// SPDX-License-Identifier: MIT
// Copyright (c) the poolmalloc authors
//
// entry: what the public functions say when there is no memory, and what they do to errno and to
// the bytes.

#include "fake_os.h"
#include "unit.h"

#include "config/limits.h"
#include "core/classes.h"
#include "core/heap.h"
#include "core/map.h"
#include "poolmalloc.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define TEST(name) UNIT_TEST(entry, name)
#define MIB ((size_t)1 << 20)

enum { KEPT = 4711 };  // what errno held before

// Every function that serves memory, as one of a size.
static void *by_calloc(size_t n) {
    return pm_calloc(1, n);
}
static void *by_realloc(size_t n) {
    return pm_realloc(NULL, n);
}
static void *by_reallocarray(size_t n) {
    return pm_reallocarray(NULL, n, 1);
}
static void *by_aligned_alloc(size_t n) {
    return pm_aligned_alloc(256, n);
}
static void *by_memalign(size_t n) {
    return pm_memalign(100, n);
}
static void *by_posix_memalign(size_t n) {
    void *block = NULL;
    const int before = errno, error = pm_posix_memalign(&block, 64, n);
    CHECK((error == 0) == (block != NULL) && (error == 0 || error == ENOMEM) && errno == before);
    errno = error == 0 ? before : error;
    return block;
}

static void *(*const makers[])(size_t n) = {
    pm_malloc,   by_calloc,         by_realloc, by_reallocarray, by_aligned_alloc,
    by_memalign, by_posix_memalign, pm_valloc,  pm_pvalloc,
};
enum { MAKERS = sizeof makers / sizeof *makers };

static const size_t sizes[] = { 0,     1,      16,      17,      512,      513,      4000,
                                8192,  8193,   20000,   32768,   32769,    100000,   2 * MIB,
                                3 * MIB, 10 * MIB, 17 * MIB, 70 * MIB };
enum { SIZES = sizeof sizes / sizeof *sizes };

// As after the program has mapped so much that later arenas lie far from the first.
TEST(blocks_outside_the_window_of_the_map_are_freed_and_handed_out_again) {
    static const size_t sizes_of_pools[] = { 16, 100, 5000, 20000 };
    for (unsigned i = 0; i < sizeof sizes_of_pools / sizeof *sizes_of_pools; i++) {
        char *const block = pm_malloc(sizes_of_pools[i]);
        const uintptr_t start = pm_map.window_start;
        CHECK(block != NULL && pm_map_kind_near(block) != PM_SLOT_NONE);
        pm_map.window_start = PM_SLOT_BYTES << PM_LEAF_BITS;
        CHECK(pm_map_kind_near(block) == PM_SLOT_NONE);
        pm_free(block);
        CHECK(pm_malloc(sizes_of_pools[i]) == block);
        CHECK(pm_malloc_usable_size(block) >= sizes_of_pools[i]);
        CHECK(pm_realloc(block, sizes_of_pools[i] - 1) == block);
        pm_free(block);
        pm_map.window_start = start;
    }
}

TEST(success_leaves_errno_alone) {
    for (unsigned maker = 0; maker < MAKERS; maker++) {
        for (unsigned i = 0; i < SIZES; i++) {
            errno = KEPT;
            char *const block = makers[maker](sizes[i]);
            CHECK(block != NULL && errno == KEPT, "%u: %zu", maker, sizes[i]);
            CHECK(pm_malloc_usable_size(block) >= sizes[i] && errno == KEPT);
            unit_fill(block, pm_malloc_usable_size(block), i);
            pm_free(block);
            CHECK(errno == KEPT);
            pm_malloc_trim(0);
            CHECK(errno == KEPT);
        }
        AUDIT();
    }
}

// Until the memory that is there has gone. All blocks, to be freed.
static char **served;

static void exhaust(void *(*make)(size_t n), size_t n) {
    unsigned count = 0;
    for (;;) {
        errno = KEPT;
        char **const block = make(n < sizeof *served ? sizeof *served : n);
        if (block == NULL) {
            CHECK(errno == ENOMEM);
            return;
        }
        CHECK(errno == KEPT && ++count < 1000000);
        *block = (char *)served;
        served = block;
    }
}

TEST(without_memory_all_functions_give_null_and_enomem_and_go_on_later) {
    for (unsigned maker = 0; maker < MAKERS; maker++) {
        for (unsigned i = 0; i < SIZES; i++) {
            fake_fail(FAKE_MAP, 0, FAKE_ALL);
            fake_fail(FAKE_RESERVE, 0, FAKE_ALL);
            exhaust(makers[maker], sizes[i]);
            AUDIT();
            errno = KEPT;
            fake_heal();
            char *const block = makers[maker](sizes[i]);
            CHECK(block != NULL && errno == KEPT, "%u: %zu", maker, sizes[i]);
            pm_free(block);
            while (served != NULL) {
                char **const next = (char **)*served;
                pm_free(served);
                served = next;
            }
            AUDIT();
        }
    }
}

// Nothing is lost when the k-th call fails, whichever it is.
TEST(each_single_failure_is_survived) {
    for (unsigned call = 0; call < FAKE_CLOCK; call++) {
        for (unsigned k = 0; k < 12; k++) {
            char *blocks[SIZES] = { NULL };
            fake_fail((enum fake_call)call, k, 1 + k % 3);
            for (unsigned i = 0; i < SIZES; i++) {
                blocks[i] = pm_malloc(sizes[i]);
                if (blocks[i] != NULL) {
                    unit_fill(blocks[i], sizes[i], i);
                }
                AUDIT();
            }
            for (unsigned i = 0; i < SIZES; i++) {
                char *const moved =
                    blocks[i] == NULL ? NULL : pm_realloc(blocks[i], sizes[i] * 2 + 1);
                CHECK(blocks[i] == NULL || unit_filled(moved != NULL ? moved : blocks[i],
                                                       sizes[i] < 64 ? sizes[i] : 64, i));
                pm_free(moved != NULL ? moved : blocks[i]);
                AUDIT();
            }
            pm_malloc_trim(0);
            fake_heal();
            AUDIT();
        }
    }
}

TEST(a_realloc_without_memory_leaves_the_block_as_it_was) {
    static const enum fake_call calls[] = { FAKE_MAP, FAKE_RESERVE, FAKE_RESIZE, FAKE_MOVE };
    for (unsigned i = 1; i < SIZES; i++) {
        char *const block = pm_malloc(sizes[i]);
        unit_fill(block, sizes[i], i);
        for (unsigned j = 0; j < 4; j++) {
            fake_fail(calls[j], 0, FAKE_ALL);
        }
        errno = KEPT;
        CHECK(pm_realloc(block, 300 * MIB) == NULL && errno == ENOMEM, "%zu", sizes[i]);
        CHECK(pm_reallocarray(block, 300, MIB) == NULL);
        CHECK(unit_filled(block, sizes[i], i));
        AUDIT();
        // To shrink is always possible.
        errno = KEPT;
        char *const small = pm_realloc(block, 1);
        CHECK(small != NULL && small[0] == (char)(unsigned char)(((uint64_t)i * 31) | 1));
        CHECK(errno == KEPT, "%zu", sizes[i]);
        fake_heal();
        pm_free(small);
        AUDIT();
    }
}

static void without_a_heap(void *argument) {
    fake_fail(FAKE_MAP, 0, FAKE_ALL);
    // What metadata is left serves heaps; they are never given back.
    while (pm_heap_open() != NULL) {
    }
    errno = KEPT;
    CHECK(pm_malloc(10) == NULL && errno == ENOMEM);
    CHECK(pm_calloc(10, 10) == NULL && pm_malloc(100000) == NULL && pm_valloc(10) == NULL);
    errno = KEPT;
    pm_free(argument);
    CHECK(errno == KEPT);
    fake_heal();
    char *const block = pm_malloc(10);
    CHECK(block != NULL && pm_thread.heap != NULL);
    pm_free(block);
}

TEST(a_thread_that_gets_no_heap_frees_and_goes_on_later) {
    char *const block = pm_malloc(100);
    unit_in_thread(without_a_heap, block);
    CHECK(pm_malloc(100) != NULL);
    AUDIT();
}

TEST(requests_beyond_all_bounds_give_null_and_enomem) {
    static const size_t wild[] = { SIZE_MAX, SIZE_MAX - 4096, (size_t)PTRDIFF_MAX + 1,
                                   PTRDIFF_MAX, PTRDIFF_MAX - 4096, (size_t)1 << 60 };
    char *const kept = pm_malloc(100);
    unit_fill(kept, 100, 1);
    for (unsigned i = 0; i < sizeof wild / sizeof *wild; i++) {
        for (unsigned maker = 0; maker < MAKERS; maker++) {
            errno = KEPT;
            CHECK(makers[maker](wild[i]) == NULL && errno == ENOMEM, "%u: %zu", maker, wild[i]);
        }
        errno = KEPT;
        CHECK(pm_realloc(kept, wild[i]) == NULL && errno == ENOMEM && unit_filled(kept, 100, 1));
        errno = KEPT;
        CHECK(pm_aligned_alloc((size_t)1 << 62, wild[i]) == NULL && errno == ENOMEM);
    }
    static const size_t factors[][2] = { { SIZE_MAX, 2 }, { (size_t)1 << 32, (size_t)1 << 32 },
                                         { SIZE_MAX / 3 + 1, 3 }, { 2, PTRDIFF_MAX } };
    for (unsigned i = 0; i < sizeof factors / sizeof *factors; i++) {
        errno = KEPT;
        CHECK(pm_calloc(factors[i][0], factors[i][1]) == NULL && errno == ENOMEM);
        errno = KEPT;
        CHECK(pm_reallocarray(kept, factors[i][0], factors[i][1]) == NULL && errno == ENOMEM);
        CHECK(unit_filled(kept, 100, 1));
    }
    AUDIT();
}

TEST(bad_alignments_are_refused) {
    static const size_t bad[] = { 0, 3, 24, 100, SIZE_MAX };
    void *block = &block;
    for (unsigned i = 0; i < sizeof bad / sizeof *bad; i++) {
        errno = KEPT;
        CHECK(pm_posix_memalign(&block, bad[i], 10) == EINVAL && errno == KEPT && block == &block);
        CHECK(pm_aligned_alloc(bad[i], 10) == NULL && errno == EINVAL);
    }
    CHECK(pm_posix_memalign(&block, 4, 10) == EINVAL && block == &block, "less than a pointer");
    errno = KEPT;
    CHECK(pm_memalign(SIZE_MAX, 10) == NULL && errno == EINVAL);
}

TEST(alignments_are_kept) {
    for (size_t align = 1; align <= 256 * MIB; align *= 2) {
        for (unsigned i = 0; i < SIZES; i++) {
            char *const block = pm_memalign(align == 1 ? 0 : align - 1, sizes[i]);
            CHECK(block != NULL && (uintptr_t)block % (align < 16 ? 16 : align) == 0, "%zu", align);
            CHECK(pm_malloc_usable_size(block) >= sizes[i]);
            pm_free_aligned_sized(block, align, sizes[i]);
        }
        AUDIT();
    }
}

TEST(calloc_clears_what_was_used_before) {
    for (unsigned round = 0; round < 3; round++) {
        for (unsigned i = 0; i < SIZES; i++) {
            char *blocks[3];
            for (unsigned j = 0; j < 3; j++) {
                blocks[j] = pm_calloc(sizes[i] / 2 + 1, 2);
                CHECK(unit_is_zero(blocks[j], sizes[i]), "%zu", sizes[i]);
                memset(blocks[j], 0xa5, pm_malloc_usable_size(blocks[j]));
            }
            for (unsigned j = 0; j < 3; j++) {
                pm_free_sized(blocks[j], sizes[i]);
            }
        }
    }
    AUDIT();
}

TEST(realloc_keeps_the_bytes_from_any_size_to_any_other) {
    for (unsigned from = 0; from < SIZES; from++) {
        for (unsigned to = 0; to < SIZES; to++) {
            const size_t kept = sizes[from] < sizes[to] ? sizes[from] : sizes[to];
            char *const block = pm_malloc(sizes[from]);
            unit_fill(block, kept, 5);
            errno = KEPT;
            char *const moved = pm_realloc(block, sizes[to]);
            CHECK(errno == KEPT && (moved != NULL) == (sizes[to] != 0));
            if (moved != NULL) {
                CHECK(unit_filled(moved, kept, 5), "%zu to %zu", sizes[from], sizes[to]);
                CHECK(pm_malloc_usable_size(moved) >= sizes[to]);
                pm_free(moved);
            }
            AUDIT();
        }
    }
}

TEST(realloc_within_a_class_does_not_move) {
    for (unsigned class = 0; class < PM_CLASS_COUNT; class++) {
        const size_t size = pm_classes[class].size;
        char *const block = pm_malloc(size);
        for (size_t n = class == 0 ? 1 : pm_classes[class - 1].size + 1; n <= size; n++) {
            CHECK(pm_realloc(block, n) == block, "%zu to %zu", size, n);
        }
        pm_free(block);
    }
}

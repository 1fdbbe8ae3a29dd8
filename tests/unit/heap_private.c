// SPDX-License-Identifier: MIT
// Copyright (c) the poolmalloc authors
//
// core/private: blocks, walk, figures and the end of a private heap, in one thread.

#include "fake_os.h"
#include "unit.h"

#include "core/arena.h"
#include "core/huge.h"
#include "core/limit.h"
#include "core/meta.h"
#include "core/private.h"
#include "core/run.h"
#include "poolmalloc.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define TEST(name) UNIT_TEST(heap_private, name)
#define MIB        ((size_t)1 << 20)

enum {
    FIRST = sizeof(uint64_t)
}; // bytes at the start of a block that tell its place in the shadow

static size_t sizes[PM_CLASS_COUNT + 6];
static unsigned size_count;

static void init_sizes(void) {
    static const size_t large[] = { 65537, 200000, 2 * MIB, 3 * MIB, 16 * MIB, 64 * MIB };
    for (unsigned class = 0; class < PM_CLASS_COUNT; class ++) {
        sizes[size_count++] = pm_classes[class].size;
    }
    for (unsigned i = 0; i < sizeof large / sizeof *large; i++) {
        sizes[size_count++] = large[i];
    }
}

static struct pm_heap *begin(void) {
    struct pm_heap *const heap = pm_heap_new(NULL);
    CHECK(heap != NULL);
    return heap;
}

// What the program knows of a heap's blocks.
enum { SHADOW = 4096 };
static struct {
    char *at;
    size_t n;
    unsigned seen;
} shadow[SHADOW];

static void put(unsigned i, char *at, size_t n) {
    const uint64_t first = i;
    CHECK(at != NULL && n >= FIRST && (uintptr_t)at % PM_BLOCK_ALIGN == 0);
    shadow[i].at = at;
    shadow[i].n = n;
    memcpy(at, &first, FIRST);
    unit_fill(at + FIRST, n - FIRST, i);
}

static bool is_whole(unsigned i, size_t n) {
    uint64_t first;
    memcpy(&first, shadow[i].at, FIRST);
    return first == i && unit_filled(shadow[i].at + FIRST, n - FIRST, i);
}

static char *drop(unsigned i) {
    char *const at = shadow[i].at;
    CHECK(at == NULL || is_whole(i, shadow[i].n), "%u of %zu bytes", i, shadow[i].n);
    shadow[i].at = NULL;
    return at;
}

struct seen {
    struct pm_heap *heap;
    size_t blocks, bytes, pools;
    const char *last;
};

static int see(void *block, size_t size, void *arg) {
    struct seen *const seen = arg;
    uint64_t i;
    memcpy(&i, block, FIRST);
    CHECK(i < SHADOW && shadow[i].at == block, "a block that is not in use: %p", block);
    CHECK(shadow[i].seen++ == 0, "%p twice", block);
    CHECK(size == pm_malloc_usable_size(block) && size >= shadow[i].n);
    CHECK(pm_heap_of(block) == seen->heap);
    const enum pm_slot_kind kind = pm_map_kind(block);
    if (kind == PM_SLOT_SMALL || kind == PM_SLOT_MEDIUM) {
        const unsigned bits = kind == PM_SLOT_SMALL ? PM_SMALL_POOL_BITS : PM_MEDIUM_POOL_BITS;
        const bool same =
            seen->last != NULL && ((uintptr_t)block ^ (uintptr_t)seen->last) >> bits == 0;
        CHECK(!same || (const char *)block > seen->last, "descending");
        seen->pools += !same;
    }
    seen->last = block;
    seen->blocks++;
    seen->bytes += size;
    return 0;
}

// The walk meets what the shadow has, and nothing else; figures and equations agree.
static void check_walk(struct pm_heap *heap) {
    struct seen seen = { .heap = heap };
    struct pm_heap_stats stats;
    size_t blocks = 0;
    CHECK(pm_heap_walk(heap, see, &seen) == 0);
    for (unsigned i = 0; i < SHADOW; i++) {
        CHECK(shadow[i].seen == (shadow[i].at != NULL), "%u of %zu bytes", i, shadow[i].n);
        blocks += shadow[i].seen;
        shadow[i].seen = 0;
    }
    pm_heap_stats(heap, &stats);
    CHECK(seen.blocks == blocks && stats.blocks == blocks && stats.bytes == seen.bytes);
    CHECK(stats.held == pm_heap_bytes(heap) && stats.held >= stats.bytes);
    CHECK(stats.pools >= seen.pools);
    AUDIT();
}

TEST(blocks_of_every_size_are_the_heaps_own) {
    init_sizes();
    int context;
    struct pm_heap *const heap = pm_heap_new(&context);
    CHECK(pm_heap_context(heap) == &context);
    for (unsigned i = 0; i < size_count; i++) {
        put(3 * i, pm_heap_malloc(heap, sizes[i]), sizes[i]);
        char *const zero = pm_heap_calloc(heap, (sizes[i] + 7) / 8, 8);
        CHECK(unit_is_zero(zero, sizes[i]), "%zu", sizes[i]);
        put(3 * i + 1, zero, sizes[i]);
        put(3 * i + 2, pm_heap_realloc(heap, NULL, sizes[i]), sizes[i]);
    }
    check_walk(heap);
    for (unsigned i = 0; i < 3 * size_count; i++) {
        pm_heap_free(heap, drop(i));
    }
    check_walk(heap);
    // calloc of what was used before.
    for (unsigned i = 0; i < size_count; i++) {
        char *const zero = pm_heap_calloc(heap, 1, sizes[i]);
        CHECK(unit_is_zero(zero, sizes[i]), "%zu", sizes[i]);
        put(i, zero, sizes[i]);
        pm_heap_free_sized(heap, drop(i), sizes[i]);
    }
    pm_heap_free(heap, NULL);
    pm_heap_free_sized(heap, NULL, 100);
    check_walk(heap);
    pm_heap_destroy(heap);
    AUDIT();
}

TEST(blocks_lie_at_multiples_of_what_was_asked_for) {
    struct pm_heap *const heap = begin();
    unsigned i = 0;
    for (size_t align = 1; align <= 256 * MIB; align *= 2) {
        // A guest of the class would lie where its host's blocks do.
        put(i++, pm_heap_malloc(heap, 48), 48);
        for (size_t n = 8; n <= MIB; n = 5 * n + 3) {
            char *const block = pm_heap_aligned_alloc(heap, align, n);
            CHECK((uintptr_t)block % align == 0 && pm_malloc_usable_size(block) >= n);
            CHECK(pm_heap_of(block) == heap, "%zu at %zu", n, align);
            put(i++, block, n);
        }
        check_walk(heap);
    }
    while (i-- > 0) {
        pm_heap_free(heap, drop(i));
    }
    check_walk(heap);
    CHECK(pm_heap_aligned_alloc(heap, 64, 0) != NULL, "an empty request is a block");
    pm_heap_destroy(heap);
}

TEST(what_can_not_be_aligned_is_an_error) {
    struct pm_heap *const heap = begin();
    static const size_t wrong[] = { 0, 3, 48, SIZE_MAX };
    volatile size_t too_large = SIZE_MAX - 10; // the compiler would tell
    for (unsigned i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        errno = 0;
        CHECK(pm_heap_aligned_alloc(heap, wrong[i], 100) == NULL && errno == EINVAL);
    }
    errno = 0;
    CHECK(pm_heap_aligned_alloc(heap, (size_t)1 << 63, 1) == NULL && errno == ENOMEM);
    errno = 0;
    CHECK(pm_heap_aligned_alloc(heap, 64, too_large) == NULL && errno == ENOMEM);
    fake_fail(FAKE_MAP, 0, FAKE_ALL);
    errno = 0;
    CHECK(pm_heap_aligned_alloc(heap, 4096, 100 * MIB) == NULL && errno == ENOMEM);
    fake_heal();
    CHECK(pm_heap_aligned_alloc(heap, 4096, 100 * MIB) != NULL);
    AUDIT();
    pm_heap_destroy(heap);
}

TEST(realloc_keeps_the_bytes_and_the_heap_from_any_size_to_any_other) {
    init_sizes();
    struct pm_heap *const heap = begin();
    for (unsigned i = 0; i < size_count; i += 5) {
        for (unsigned j = 0; j < size_count; j += 3) {
            put(0, pm_heap_malloc(heap, sizes[i]), sizes[i]);
            char *const moved = pm_heap_realloc(heap, shadow[0].at, sizes[j]);
            CHECK(moved != NULL && pm_heap_of(moved) == heap);
            shadow[0].at = moved;
            const size_t kept = sizes[i] < sizes[j] ? sizes[i] : sizes[j];
            CHECK(is_whole(0, kept < 64 ? kept : 64), "%zu to %zu", sizes[i], sizes[j]);
            put(0, moved, sizes[j]);
            pm_heap_free(heap, drop(0));
        }
    }
    put(0, pm_heap_malloc(heap, 100), 100);
    CHECK(pm_heap_realloc(heap, drop(0), 0) == NULL);
    check_walk(heap);
    pm_heap_destroy(heap);
}

TEST(only_blocks_of_private_heaps_have_one) {
    init_sizes();
    struct pm_heap *const heap = begin(), *const other = begin();
    char *block = NULL;
    for (unsigned i = 0; i < size_count; i++) {
        block = pm_malloc(sizes[i]);
        CHECK(pm_heap_of(block) == NULL, "%zu", sizes[i]);
        pm_free(block);
        block = pm_heap_malloc(heap, sizes[i]);
        char *const others = pm_heap_malloc(other, sizes[i]);
        CHECK(pm_heap_of(block) == heap && pm_heap_of(others) == other, "%zu", sizes[i]);
        pm_heap_free(heap, block);
        pm_heap_free(other, others);
    }
    static char static_bytes[100];
    char *const libcs = malloc(100);
    CHECK(pm_heap_of(NULL) == NULL && pm_heap_of(static_bytes) == NULL &&
          pm_heap_of(libcs) == NULL);
    CHECK(pm_heap_of(&block) == NULL && pm_heap_of((void *)-16) == NULL);
    free(libcs);
    // The same memory, in the hands of a thread's heap.
    block = pm_heap_malloc(heap, 3 * MIB);
    pm_heap_destroy(heap);
    pm_heap_destroy(other);
    char *const again = pm_malloc(3 * MIB);
    CHECK(again == block && pm_heap_of(again) == NULL);
    pm_free(again);
    AUDIT();
}

// Sizes of which the small ones are many.
static size_t random_size(void) {
    static const size_t most[] = { 64, 300, 1000, 8000, 60000, 300000, 4 * MIB, 64 * MIB };
    static const unsigned times[] = { 500, 300, 150, 80, 30, 10, 3, 1 };
    unsigned at = 0;
    for (size_t left = unit_below(1074); left >= times[at]; at++) {
        left -= times[at];
    }
    return FIRST + unit_below(most[at] - FIRST);
}

// Of `live` places, one is changed in some way.
static void change(struct pm_heap *heap, unsigned live) {
    const unsigned i = (unsigned)unit_below(live);
    const size_t n = random_size();
    switch (shadow[i].at == NULL ? 0 : 1 + unit_below(8)) {
    case 0:
        put(i, unit_below(4) == 0 ? pm_heap_calloc(heap, 1, n) : pm_heap_malloc(heap, n), n);
        break;
    case 1:
    case 2:
    case 3: pm_heap_free(heap, drop(i)); break;
    case 4: pm_heap_free_sized(heap, drop(i), shadow[i].n); break;
    case 5: pm_free(drop(i)); break;
    case 6: {
        char *const moved = pm_realloc(drop(i), n);
        if (pm_heap_of(moved) == heap) {
            put(i, moved, n);
        } else {
            pm_free(moved);
        }
        break;
    }
    default: put(i, pm_heap_realloc(heap, drop(i), n), n);
    }
}

TEST(random_operations_agree_with_a_shadow) {
    struct pm_heap *const heap = begin();
    for (unsigned round = 0; round < 60; round++) {
        // Growing, shrinking and small ones in turn.
        const unsigned live = round % 3 == 0 ? SHADOW : round % 3 == 1 ? 500 : 40;
        for (unsigned i = live; i < SHADOW; i++) {
            pm_heap_free(heap, drop(i));
        }
        for (unsigned step = 0; step < 4000; step++) {
            change(heap, live);
        }
        if (round % 5 == 4) {
            pm_heap_trim(heap);
        }
        check_walk(heap);
    }
    for (unsigned i = 0; i < SHADOW; i++) {
        pm_heap_free(heap, drop(i));
    }
    pm_heap_trim(heap);
    check_walk(heap);
    CHECK(pm_heap_bytes(heap) == 0, "%zu", pm_heap_bytes(heap));
    pm_heap_destroy(heap);
    AUDIT();
}

static int add_away(struct pm_heap *heap, struct pm_pool *pool, void *arg) {
    (void)heap;
    *(size_t *)arg += pool->inner.away;
    return 0;
}

static size_t away(struct pm_heap *heap) {
    size_t sum = 0;
    pm_heap_each_pool(heap, add_away, &sum);
    return sum;
}

TEST(a_walk_passes_by_blocks_that_were_put_away) {
    struct pm_heap *const heap = begin();
    for (unsigned i = 0; i < SHADOW; i++) {
        put(i, pm_heap_malloc(heap, 112), 112);
    }
    for (unsigned i = 0; i < SHADOW; i++) {
        if (i % 300 != 7) {
            pm_heap_free(heap, drop(i));
        }
    }
    CHECK(pm_heap_trim(heap) == 1);
    CHECK(away(heap) > 1000);
    check_walk(heap);
    // They come back, first those on the lists.
    const size_t before = pm_heap_bytes(heap);
    for (unsigned i = 0; i < SHADOW; i += 2) {
        if (shadow[i].at == NULL) {
            put(i, pm_heap_malloc(heap, 112), 112);
        }
    }
    CHECK(pm_heap_bytes(heap) == before);
    check_walk(heap);
    pm_heap_destroy(heap);
    AUDIT();
}

TEST(a_walk_meets_guests_once) {
    struct pm_heap *const heap = begin();
    put(0, pm_heap_malloc(heap, 112), 112);
    put(1, pm_heap_malloc(heap, 96), 96);
    put(2, pm_heap_malloc(heap, 80), 80);
    struct pm_heap_stats stats;
    pm_heap_stats(heap, &stats);
    CHECK(stats.pools == 1 && stats.blocks == 3 && stats.bytes == 3 * 112);
    check_walk(heap);
    pm_heap_free(heap, drop(1));
    check_walk(heap);
    pm_heap_destroy(heap);
}

static int stop_at(void *block, size_t size, void *arg) {
    unsigned *const left = arg;
    (void)block;
    (void)size;
    return --*left == 0 ? 42 : 0;
}

TEST(a_walk_stops_when_it_is_told_to) {
    init_sizes();
    struct pm_heap *const heap = begin();
    for (unsigned i = 0; i < size_count; i++) {
        put(i, pm_heap_malloc(heap, sizes[i]), sizes[i]);
    }
    for (unsigned i = 1; i <= size_count; i++) {
        unsigned left = i;
        CHECK(pm_heap_walk(heap, stop_at, &left) == 42 && left == 0);
    }
    unsigned left = size_count + 1;
    CHECK(pm_heap_walk(heap, stop_at, &left) == 0 && left == 1);
    pm_heap_destroy(heap);
}

static int allocate_elsewhere(void *block, size_t size, void *arg) {
    (void)block;
    pm_free(pm_malloc(size));
    pm_heap_free(arg, pm_heap_malloc(arg, size));
    return 0;
}

TEST(other_heaps_may_be_used_in_a_walk) {
    init_sizes();
    struct pm_heap *const heap = begin(), *const other = begin();
    for (unsigned i = 0; i < size_count; i++) {
        put(i, pm_heap_malloc(heap, sizes[i]), sizes[i]);
    }
    CHECK(pm_heap_walk(heap, allocate_elsewhere, other) == 0);
    check_walk(heap);
    pm_heap_destroy(other);
    pm_heap_destroy(heap);
}

static void fill(struct pm_heap *heap) {
    for (unsigned i = 0; i < 3000; i++) {
        CHECK(pm_heap_malloc(heap, FIRST + i % 9000) != NULL);
    }
    CHECK(pm_heap_malloc(heap, 100000) != NULL && pm_heap_malloc(heap, 3 * MIB) != NULL);
    CHECK(pm_heap_malloc(heap, 64 * MIB) != NULL);
}

static size_t runs_in_use(void) {
    size_t units = 0;
    for (unsigned shard = 0; shard < PM_RUNS_COUNT; shard++) {
        units += pm_runs[shard].used_units;
    }
    return units;
}

TEST(destroy_gives_all_back) {
    unit_take(100);
    pm_malloc_trim(0);
    const size_t small = pm_arenas[PM_ARENAS_SMALL].taken,
                 medium = pm_arenas[PM_ARENAS_MEDIUM].taken;
    const size_t runs = runs_in_use(), huge = pm_huge_blocks.used_count;
    const size_t in_use = pm_limit_in_use();
    struct pm_heap *const heap = begin();
    fill(heap);
    CHECK(pm_heap_bytes(heap) > 27 * MIB && pm_limit_in_use() > in_use + 27 * MIB);
    AUDIT();
    pm_heap_destroy(heap);
    CHECK(pm_arenas[PM_ARENAS_SMALL].taken == small && pm_arenas[PM_ARENAS_MEDIUM].taken == medium);
    CHECK(runs_in_use() == runs);
    CHECK(pm_huge_blocks.used_count == huge && pm_limit_in_use() == in_use);
    AUDIT();
    pm_heap_destroy(NULL);
}

TEST(many_heaps_one_after_the_other_take_the_memory_of_one) {
    size_t meta = 0;
    for (unsigned i = 0; i < 300; i++) {
        struct pm_heap *const heap = begin();
        fill(heap);
        // From a heap that has ended, nothing is left.
        CHECK(heap->told == NULL && heap->misses < 3500);
        pm_heap_destroy(heap);
        if (i == 0) {
            meta = pm_meta.mapped;
        }
        CHECK(pm_meta.mapped == meta, "at %u", i);
    }
    pm_malloc_trim(0);
    CHECK(pm_limit_footprint() < 4 * MIB, "%zu", pm_limit_footprint());
    AUDIT();
}

static size_t resident(void) {
    static char text[4096];
    size_t pages = 0;
    FILE *const file = fopen("/proc/self/statm", "r");
    CHECK(file != NULL);
    setbuf(file, text);
    CHECK(fscanf(file, "%*u %zu", &pages) == 1);
    fclose(file);
    return pages * (size_t)sysconf(_SC_PAGESIZE);
}

TEST(an_empty_heap_and_one_with_a_block_take_less_than_64_KiB) {
    enum { HEAPS = 200 };
    struct pm_heap *heaps[HEAPS];
    if (UNIT_THREAD_SANITIZER || UNIT_ADDRESS_SANITIZER) {
        cr_skip("the sanitizer has pages of its own");
    }
    pm_heap_destroy(begin());
    const size_t before = resident();
    for (unsigned i = 0; i < HEAPS; i++) {
        heaps[i] = begin();
        CHECK(pm_heap_bytes(heaps[i]) == 0);
    }
    const size_t empty = resident();
    CHECK(empty - before <= HEAPS * (size_t)16384, "%zu bytes", (empty - before) / HEAPS);
    for (unsigned i = 0; i < HEAPS; i++) {
        *(char *)pm_heap_malloc(heaps[i], 100) = 1;
    }
    CHECK(resident() - before <= HEAPS * (size_t)65536, "%zu bytes", (resident() - before) / HEAPS);
    for (unsigned i = 0; i < HEAPS; i++) {
        pm_heap_destroy(heaps[i]);
    }
}

TEST(a_threads_heap_is_no_page_larger_for_private_ones) {
    CHECK(sizeof(struct pm_heap) <= 4096 && offsetof(struct pm_heap, context) <= 3072);
}

TEST(full_pools_are_found_again_by_the_heaps_own_frees) {
    struct pm_heap *const heap = begin();
    for (unsigned i = 0; i < SHADOW; i++) {
        put(i, pm_heap_malloc(heap, 1024), 1024);
    }
    const size_t before = pm_heap_bytes(heap);
    for (unsigned i = 5; i < SHADOW; i += 64) {
        pm_heap_free(heap, drop(i));
    }
    check_walk(heap);
    for (unsigned i = 5; i < SHADOW; i += 64) {
        put(i, pm_heap_malloc(heap, 1024), 1024);
    }
    CHECK(pm_heap_bytes(heap) == before);
    check_walk(heap);
    // And go, when they are empty.
    for (unsigned i = 0; i < SHADOW; i++) {
        pm_heap_free(heap, drop(i));
    }
    CHECK(pm_heap_bytes(heap) <= PM_POOL_BYTES(PM_SMALL_POOL_BITS));
    check_walk(heap);
    pm_heap_destroy(heap);
}

// The figures of the process, too.
TEST(the_statistics_name_private_heaps) {
    struct pm_heap *const heap = begin(), *const other = begin();
    fill(heap);
    unit_capture();
    pm_malloc_stats();
    const char *const text = unit_captured();
    char line[200];
    const char *const count = strstr(text, "  private heaps ");
    CHECK(count != NULL && strtoul(strchr(count, '=') + 1, NULL, 10) == 2, "%s", text);
    const char *const bytes = strstr(text, "  bytes in pools and large blocks of these ");
    CHECK(bytes != NULL);
    size_t length = 0;
    for (const char *at = strchr(bytes, '=') + 1; *at != '\n'; at++) {
        if (*at >= '0' && *at <= '9') {
            line[length++] = *at;
        }
    }
    line[length] = '\0';
    CHECK(strtoul(line, NULL, 10) == pm_heap_bytes(heap), "%s", line);
    pm_heap_destroy(heap);
    pm_heap_destroy(other);
}

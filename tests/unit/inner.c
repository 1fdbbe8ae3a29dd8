// SPDX-License-Identifier: MIT
// Copyright (c) the poolmalloc authors
//
// core/inner: pages inside of pools that blocks in use pin.

#include "fake_os.h"
#include "unit.h"

#include "base/bits.h"
#include "core/arena.h"
#include "core/clock.h"
#include "core/heap.h"
#include "core/inner.h"
#include "core/reclaim.h"
#include "os/os.h"
#include "poolmalloc.h"

#include <pthread.h>
#include <string.h>
#include <sys/mman.h>

#define TEST(name) UNIT_TEST(inner, name)

static bool is_resident(uintptr_t at) {
    const size_t page = pm_os_page_size();
    unsigned char resident;
    CHECK(mincore((void *)pm_round_down(at, page), page, &resident) == 0);
    return (resident & 1) != 0;
}

static struct pm_pool *pool_of(const void *block) {
    return pm_pool_of(block, pm_map_kind(block) == PM_SLOT_SMALL ? PM_SMALL_POOL_BITS
                                                                 : PM_MEDIUM_POOL_BITS);
}

static size_t resident_pages(const struct pm_pool *pool) {
    size_t count = 0;
    for (uintptr_t at = pm_pool_base(pool);
         at < pm_pool_base(pool) + PM_POOL_BYTES(pool->shared.bits); at += pm_os_page_size()) {
        count += is_resident(at);
    }
    return count;
}

// Looks as often as it takes to see that nothing is freed.
static size_t look(unsigned times) {
    size_t bytes = 0;
    for (unsigned i = 0; i < times; i++) {
        bytes += pm_heap_trim_pools(pm_thread.heap, false);
    }
    return bytes;
}

#define ENOUGH (PM_INNER_REST + 1)

// The blocks of a full pool, in order of their addresses, and one more so that it is not current.
enum { BLOCKS_MAX = PM_POOL_BYTES(PM_SMALL_POOL_BITS) / PM_BLOCK_ALIGN };
static char *held[BLOCKS_MAX + 1];

static unsigned take_full_pool(size_t size) {
    unsigned count = 0;
    do {
        held[count] = unit_take(size);
        memset(held[count], 0x5a, size);
    } while (pool_of(held[count]) == pool_of(held[0]) && ++count != 0);
    return count;
}

static void free_all_but(unsigned count, unsigned kept) {
    for (unsigned i = 0; i < count; i++) {
        if (i != kept) {
            pm_free(held[i]);
        }
    }
}

// One block in use keeps the pages that it lies in, and of a pool of any size no other.
TEST(a_block_in_use_pins_its_pages_only) {
    static const size_t sizes[] = { 16,   48,   64,   576,  1000,  3000,
                                    4096, 5120, 8192, 9216, 32768, 65536 };
    for (unsigned i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        const unsigned count = take_full_pool(sizes[i]), kept = count / 2;
        const struct pm_pool *const pool = pool_of(held[kept]);
        const uintptr_t at = (uintptr_t)held[kept], page = pm_os_page_size();
        const size_t size = pm_classes[pool->shared.class].size;
        free_all_but(count, kept);
        CHECK(pm_malloc_trim(0) == 1);
        CHECK(resident_pages(pool) == (at + size - 1) / page - at / page + 1, "%zu: %zu pages",
              sizes[i], resident_pages(pool));
        for (size_t j = 0; j < sizes[i]; j++) {
            CHECK(held[kept][j] == 0x5a);
        }
        AUDIT();
        CHECK(pm_malloc_trim(0) == 0, "there is nothing left");
        pm_free(held[kept]);
        pm_free(held[count]);
        CHECK(pm_malloc_trim(0) == 1);
        AUDIT();
    }
}

TEST(what_rests_is_purged_and_what_is_freed_into_is_not) {
    const unsigned count = take_full_pool(64);
    const struct pm_pool *const pool = pool_of(held[0]);
    free_all_but(count - 1, 0);
    look(PM_INNER_REST);
    CHECK(pm_inner_bytes(pool) == 0, "not yet");
    pm_free(held[count - 1]);
    look(PM_INNER_REST);
    CHECK(pm_inner_bytes(pool) == 0, "a block was freed meanwhile");
    CHECK(look(1) != 0 && resident_pages(pool) == 1);
    AUDIT();
    const unsigned calls = fake_count(FAKE_PURGE);
    look(2 * ENOUGH);
    CHECK(fake_count(FAKE_PURGE) == calls, "once is enough");
}

// A trim walks all free blocks of a pool: not again while nothing has changed.
TEST(a_trim_leaves_out_what_has_not_changed_since_the_last) {
    const unsigned count = take_full_pool(64);
    struct pm_pool *const pool = pool_of(held[0]);
    free_all_but(count - 2, 0);
    CHECK(pm_malloc_trim(0) == 1 && !pm_inner_is_due(pool, true));
    pm_free(held[count - 2]);
    CHECK(pm_inner_is_due(pool, true), "a block was freed");
    CHECK(pm_malloc_trim(0) == 0 && !pm_inner_is_due(pool, true));
    unit_in_thread(pm_free, held[count - 1]);
    CHECK(pm_inner_is_due(pool, true), "another thread has freed one");
    AUDIT();
}

// The thread's end abandons what it took: with as many blocks in use as at the last look, but other
// pages.
static void take_and_free(void *of) {
    static char *taken[2 * BLOCKS_MAX];
    unsigned count = 0, of_pool = 0;
    while (of_pool < 100) {
        CHECK(count < 2 * BLOCKS_MAX);
        taken[count] = unit_take(64);
        memset(taken[count], 1, 64);
        of_pool += pool_of(taken[count++]) == of;
    }
    while (count-- != 0) {
        pm_free(taken[count]);
    }
}

static void leave_a_pool(void *unused) {
    (void)unused;
    free_all_but(take_full_pool(64), 0);
}

TEST(a_pool_that_served_since_is_trimmed_anew_after_its_threads_end) {
    unit_in_thread(leave_a_pool, NULL);
    struct pm_pool *const pool = pool_of(held[0]);
    CHECK(pm_malloc_trim(0) == 1 && resident_pages(pool) == 1);
    unit_in_thread(take_and_free, pool);
    CHECK(pool->shared.state == PM_POOL_ABANDONED && resident_pages(pool) > 1);
    CHECK(pm_malloc_trim(0) == 1 && resident_pages(pool) == 1);
    AUDIT();
}

// Giving back costs a walk, and more when what went is needed again.
TEST(a_request_that_no_trim_could_meet_purges_nothing) {
    const unsigned count = take_full_pool(64);
    free_all_but(count, 0);
    CHECK(pm_malloc(PTRDIFF_MAX) == NULL && pm_malloc((size_t)1 << PM_ADDRESS_BITS) == NULL);
    CHECK(pm_memalign((size_t)1 << 21, (size_t)1 << PM_ADDRESS_BITS) == NULL);
    CHECK(fake_count(FAKE_PURGE) == 0);
    pm_options.limit_hard = (size_t)64 << 20;
    CHECK(pm_malloc(pm_options.limit_hard + 1) == NULL && fake_count(FAKE_PURGE) == 0);
    CHECK(pm_malloc(pm_options.limit_hard) == NULL && fake_count(FAKE_PURGE) != 0);
    AUDIT();
}

TEST(well_used_pools_are_left_alone) {
    const unsigned count = take_full_pool(64);
    for (unsigned i = 0; i < count; i += 2) {
        pm_free(held[i]);
    }
    look(ENOUGH);
    CHECK(fake_count(FAKE_PURGE) == 0);
    AUDIT();
}

TEST(blocks_that_others_have_freed_are_purged_too) {
    const unsigned count = take_full_pool(32768);
    const struct pm_pool *const pool = pool_of(held[0]);
    for (unsigned i = 2; i < count; i += 2) {
        pm_free(held[i]);
    }
    for (unsigned i = 1; i < count; i += 2) {
        unit_in_thread(pm_free, held[i]);
    }
    CHECK(look(ENOUGH) != 0);
    CHECK(resident_pages(pool) == 32768 / pm_os_page_size());
    AUDIT();
}

TEST(a_pool_of_which_others_have_freed_the_rest_is_left_to_go_as_a_whole) {
    const unsigned count = take_full_pool(4096);
    struct pm_pool *const pool = pool_of(held[0]);
    free_all_but(count - 1, 0);
    unit_in_thread(pm_free, held[0]);
    unit_in_thread(pm_free, held[count - 1]);
    CHECK(pool->shared.state == PM_POOL_LISTED && pm_inner_purge(pool) == 0);
    AUDIT();
    pm_heap_trim_pools(pm_thread.heap, false);
    CHECK(pool->shared.state == PM_POOL_FREE);
}

// A pool with one block in use, and most pages purged inside.
static struct pm_pool *thin_pool(size_t size, unsigned *count) {
    *count = take_full_pool(size);
    struct pm_pool *const pool = pool_of(held[0]);
    free_all_but(*count, 0);
    CHECK(look(ENOUGH) != 0 && pm_inner_has_away(pool));
    return pool;
}

static enum pm_verdict free_again(void *at) {
    return pm_heap_free_block(pm_thread.heap, at, pool_of(at)->shared.bits);
}

TEST(a_double_free_of_a_block_that_was_put_away_is_found) {
    static const size_t sizes[] = { 16, 576, 4096, 9216, 65536 };
    for (unsigned i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        unsigned count;
        struct pm_pool *const pool = thin_pool(sizes[i], &count);
        for (unsigned j = 1; j < count; j++) {
            CHECK(free_again(held[j]) == PM_DOUBLE_FREE, "block %u of %zu bytes", j, sizes[i]);
        }
        CHECK(pm_heap_prove(held[0], pool->shared.bits) == PM_DONE);
        AUDIT();
        pm_free(held[0]);
        CHECK(pool->shared.state == PM_POOL_FREE && pm_inner_bytes(pool) == 0);
        CHECK(free_again(held[1]) == PM_DOUBLE_FREE);
        AUDIT();
    }
}

static void free_from_outside(void *at) {
    CHECK(!pm_heap_push_remote(at, PM_SMALL_POOL_BITS),
          "not without a look whether it was put away");
    pm_free(at);
}

TEST(blocks_in_use_of_such_a_pool_are_freed_by_all) {
    const unsigned count = take_full_pool(64);
    struct pm_pool *const pool = pool_of(held[0]);
    free_all_but(count - 2, 0);
    CHECK(look(ENOUGH) != 0);
    unit_in_thread(free_from_outside, held[0]);
    AUDIT();
    pm_free(held[count - 1]);
    pm_free(held[count - 2]);
    pm_free(pm_malloc(64));
    pm_malloc_trim(0);
    CHECK(pool->shared.state == PM_POOL_FREE || pm_map_kind(pool) == PM_SLOT_TOMBSTONE);
    AUDIT();
}

TEST(each_block_that_was_put_away_is_handed_out_once) {
    static const size_t sizes[] = { 16, 80, 576, 4096, 5120, 9216, 65536 };
    for (unsigned i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        unsigned count;
        struct pm_pool *const pool = thin_pool(sizes[i], &count);
        const uint32_t used = pool->owned.used;
        static char *again[2 * BLOCKS_MAX];
        unsigned taken = 0, of_pool = 0;
        while (of_pool + used < count) {
            CHECK(taken < 2 * BLOCKS_MAX);
            again[taken] = unit_take(sizes[i]);
            CHECK(unit_is_zero(again[taken], 8), "no link is left in it");
            memset(again[taken], 0x77, sizes[i]);
            of_pool += pool_of(again[taken++]) == pool;
        }
        AUDIT();
        CHECK(!pm_inner_has_away(pool) && pool->shared.bound != 0);
        for (size_t j = 0; j < sizes[i]; j++) {
            CHECK(held[0][j] == 0x5a);
        }
        while (taken-- != 0) {
            pm_free(again[taken]);
        }
        pm_free(held[0]);
        pm_free(held[count]);
        pm_malloc_trim(0);
        AUDIT();
    }
}

// Each such free takes the way out of line, so it must not stay that way.
TEST(frees_into_a_pool_that_serves_again_restore_it) {
    unsigned count;
    struct pm_pool *const pool = thin_pool(64, &count);
    char *block;
    do {
        block = unit_take(64);
    } while (pool_of(block) != pool);
    for (unsigned i = 0; i < PM_POOL_BYTES(PM_SMALL_POOL_BITS) / pm_os_page_size(); i++) {
        pm_free(block);
        block = unit_take(64);
        CHECK(pool_of(block) == pool);
        AUDIT();
    }
    CHECK(!pm_inner_has_away(pool) && pool->shared.bound != 0);
}

// Locked memory can't be purged.
TEST(what_the_system_refuses_to_purge_stays_on_the_list) {
    const unsigned count = take_full_pool(64);
    struct pm_pool *const pool = pool_of(held[0]);
    free_all_but(count, 0);
    fake_fail(FAKE_PURGE, 0, FAKE_ALL);
    CHECK(look(ENOUGH) == 0);
    CHECK(!pm_inner_has_away(pool) && pool->shared.bound != 0);
    AUDIT();
    fake_heal();
    CHECK(pm_malloc_trim(0) == 1 && resident_pages(pool) == 1);
    AUDIT();
}

// A link that a program has overwritten is malloc's to report: the pool stays as it is.
TEST(a_damaged_list_is_left_as_it_is) {
    const unsigned count = take_full_pool(64);
    struct pm_pool *const pool = pool_of(held[0]);
    free_all_but(count, 0);
    const uintptr_t list = pool->owned.list;
    memset(held[count / 2], 0x41, 8);
    pm_heap_trim_pools(pm_thread.heap, true);
    CHECK(fake_count(FAKE_PURGE) == 0 && pool->owned.list == list);
}

// More than may wait, in pools of one block in use each.
enum { MANY = 3 * PM_INNER_LEAST / 1024 };
static char *many[MANY];

static void leave_survivors(void) {
    for (unsigned i = 0; i < MANY; i++) {
        many[i] = unit_take(1024);
    }
    for (unsigned i = 0; i < MANY; i++) {
        if (i % 64 != 0) {
            pm_free(many[i]);
        }
    }
}

static size_t purged_bytes(void) {
    size_t bytes = 0;
    for (unsigned i = 0; i < MANY; i += 64) {
        bytes += pm_inner_bytes(pool_of(many[i]));
    }
    return bytes;
}

TEST(what_survivors_pin_goes_while_the_others_are_freed) {
    leave_survivors();
    CHECK(purged_bytes() > PM_INNER_LEAST, "%zu bytes", purged_bytes());
    AUDIT();
}

TEST(what_survivors_pin_makes_room_for_large_blocks) {
    pm_free(unit_take(1));
    pm_thread.heap->listed_most = SIZE_MAX; // frees look at nothing
    leave_survivors();
    CHECK(purged_bytes() == 0);
    for (unsigned i = 0; i < 16; i++) {
        unit_take(PM_KEEP_STEP);
    }
    CHECK(purged_bytes() > 2 * PM_INNER_LEAST, "%zu bytes", purged_bytes());
    AUDIT();
}

enum { LARGE = 3 * PM_THP_FROM / 2 / 1024 };
static char *large[LARGE];

// All of them, but one in so many freed.
static struct pm_pool *fill_large_heap(unsigned nth, bool is_kept) {
    for (unsigned i = 0; i < LARGE; i++) {
        large[i] = unit_take(1024);
    }
    for (unsigned i = LARGE / 2; i < LARGE; i++) {
        if ((i % nth == 0) != is_kept) {
            pm_free(large[i]);
            large[i] = NULL;
        }
    }
    struct pm_pool *const pool = pool_of(large[LARGE * 3 / 4 + 1 - is_kept]);
    CHECK(pm_arena_of(pool)->thp.asks);
    return pool;
}

// An arena that asks for huge pages gives back none of their parts, so it leaves them first.
TEST(survivors_do_not_pin_huge_pages) {
    const unsigned calls = fake_count(FAKE_LEAVE);
    const struct pm_pool *const pool = fill_large_heap(64, true);
    look(ENOUGH);
    AUDIT();
    pm_arenas_age(pm_clock());
    CHECK(!pm_arena_of(pool)->thp.asks && fake_count(FAKE_LEAVE) != calls);
    AUDIT();
    CHECK(look(ENOUGH) != 0 && pm_inner_bytes(pool) != 0);
    AUDIT();
}

TEST(trim_leaves_huge_pages_that_are_well_used) {
    const struct pm_pool *const pool = fill_large_heap(64, false);
    pm_malloc_trim(0);
    CHECK(pm_arena_of(pool)->thp.asks && pm_inner_bytes(pool) == 0);
    AUDIT();
}

TEST(trim_purges_inside_of_arenas_that_left_their_huge_pages) {
    const struct pm_pool *const pool = fill_large_heap(64, true);
    CHECK(pm_malloc_trim(0) == 1);
    CHECK(!pm_arena_of(pool)->thp.asks && pm_inner_bytes(pool) != 0);
    AUDIT();
    CHECK(pm_malloc_trim(0) == 0, "at once");
}

TEST(a_pool_that_serves_again_is_not_due_any_more) {
    struct pm_pool *const pool = fill_large_heap(64, true);
    look(ENOUGH);
    CHECK(pm_arenas[PM_ARENAS_SMALL].due != 0 && pool->inner.is_marked);
    unsigned full = 0;
    for (unsigned i = LARGE / 2; i < LARGE; i++) {
        large[i] = large[i] == NULL ? unit_take(1024) : large[i];
    }
    for (unsigned i = LARGE / 2; i < LARGE; i++) {
        const struct pm_pool *const served = pool_of(large[i]);
        if (served->shared.state == PM_POOL_FULL) {
            CHECK(!served->inner.is_marked);
            full++;
        }
    }
    CHECK(full > LARGE / 4, "%u", full);
    AUDIT();
}

TEST(purging_in_vain_ends) {
    for (unsigned round = 0; round < 20; round++) {
        leave_survivors();
        for (unsigned i = 0; i < MANY; i++) {
            pm_heap_purge_inside(pm_thread.heap, PM_POOL_BYTES(PM_SMALL_POOL_BITS));
        }
        for (unsigned i = 0; i < MANY; i++) {
            if (i % 64 != 0) {
                many[i] = unit_take(1024);
            }
        }
        AUDIT();
        for (unsigned i = 0; i < MANY; i++) {
            pm_free(many[i]);
        }
    }
    const struct pm_heap *const heap = pm_thread.heap;
    CHECK(heap->inside_restored * PM_INNER_VAIN > heap->inside_purged);
    const unsigned calls = fake_count(FAKE_PURGE);
    leave_survivors();
    pm_heap_purge_inside(pm_thread.heap, MANY * 1024);
    CHECK(fake_count(FAKE_PURGE) == calls);
}

TEST(current_pools_are_purged_too) {
    enum { COUNT = 500 };
    for (unsigned i = 0; i < COUNT; i++) {
        held[i] = unit_take(64);
    }
    const struct pm_pool *const pool = pool_of(held[0]);
    free_all_but(COUNT, 0);
    CHECK(look(ENOUGH) != 0);
    // The page that is carved in part stays.
    CHECK(pool->shared.state == PM_POOL_CURRENT && resident_pages(pool) <= 2);
    AUDIT();
    for (unsigned i = 1; i < COUNT; i++) {
        held[i] = unit_take(64);
        CHECK(pool_of(held[i]) == pool);
    }
    AUDIT();
}

// Holds one block of a pool, the first of `held`, when it ends or sleeps.
static void leave_a_block(void *unused) {
    enum { COUNT = 500 };
    (void)unused;
    for (unsigned i = 0; i < COUNT; i++) {
        held[i] = unit_take(64);
    }
    free_all_but(COUNT, 0);
}

TEST(pools_of_ended_threads_are_purged_too) {
    unit_in_thread(leave_a_block, NULL);
    const struct pm_pool *const pool = pool_of(held[0]);
    CHECK(pool->shared.state == PM_POOL_ABANDONED);
    CHECK(pm_heaps_reclaim(true) != 0);
    CHECK(pool->shared.state == PM_POOL_ABANDONED && resident_pages(pool) <= 2);
    AUDIT();
    for (unsigned i = 1; i < 500; i++) {
        held[i] = unit_take(64);
        CHECK(pool_of(held[i]) == pool);
    }
    AUDIT();
    pm_free(held[0]);
    AUDIT();
}

static pthread_barrier_t both;

static void *sleep_over_a_block(void *unused) {
    leave_a_block(NULL);
    pthread_barrier_wait(&both);
    pthread_barrier_wait(&both);
    for (unsigned i = 1; i < 500; i++) {
        held[i] = unit_take(64);
        CHECK(pool_of(held[i]) == pool_of(held[0]));
    }
    pthread_barrier_wait(&both);
    pthread_barrier_wait(&both);
    return unused;
}

TEST(pools_of_sleeping_threads_are_purged_too) {
    pthread_t thread;
    if (UNIT_THREAD_SANITIZER) {
        cr_skip("it can't see the barrier that this is about");
    }
    pm_free(pm_malloc(1));
    CHECK(pthread_barrier_init(&both, NULL, 2) == 0);
    CHECK(pthread_create(&thread, NULL, sleep_over_a_block, NULL) == 0);
    pthread_barrier_wait(&both);
    for (unsigned i = 0; i < ENOUGH; i++) {
        // As while the thread is in a call.
        fake_fail(FAKE_BARRIER, 0, FAKE_ALL);
        CHECK(pm_heaps_reclaim(false) == 0);
        AUDIT();
    }
    fake_heal();
    CHECK(pm_heaps_reclaim(false) != 0, "and it is not forgotten");
    CHECK(resident_pages(pool_of(held[0])) <= 2);
    AUDIT();
    pthread_barrier_wait(&both);
    pthread_barrier_wait(&both);
    AUDIT();
    pthread_barrier_wait(&both);
    CHECK(pthread_join(thread, NULL) == 0);
    AUDIT();
}

// Blocks of all sizes, taken and freed at random while pools are looked at.
TEST(blocks_of_any_size_keep_their_contents) {
    enum { COUNT = 3000, STEPS = 40000 };
    static struct {
        unsigned char *at;
        size_t size;
        uint64_t seed;
    } kept[COUNT];
    for (unsigned step = 0; step < STEPS; step++) {
        const size_t slot = unit_below(COUNT);
        // Few stay for some thousand steps, then many.
        const bool drain = step / 4000 % 2 != 0;
        if (kept[slot].at != NULL) {
            CHECK(unit_filled(kept[slot].at, kept[slot].size, kept[slot].seed));
            pm_free(kept[slot].at);
            kept[slot].at = NULL;
        } else if (!drain || unit_below(20) == 0) {
            kept[slot].size = 1 + unit_below((size_t)16 << unit_below(12));
            kept[slot].seed = step;
            kept[slot].at = (unsigned char *)unit_take(kept[slot].size);
            unit_fill(kept[slot].at, kept[slot].size, step);
        }
        if (step % 16 == 0) {
            pm_heap_trim_pools(pm_thread.heap, step % 64 == 0);
        }
        if (step % 4000 == 0) {
            AUDIT();
        }
    }
    AUDIT();
}

static void *give_to_others(void *blocks) {
    char **const at = blocks;
    for (unsigned i = 0; i < 2000; i++) {
        at[i] = unit_take(100 + i % 700);
        unit_fill(at[i], 100 + i % 700, i);
    }
    return NULL;
}

// Pools of ended threads, and those that threads use while others look at them.
TEST(threads_at_work_keep_what_they_have) {
    static char *at[2000];
    unit_start_busy_threads(4);
    for (unsigned i = 0; i < 200; i++) {
        pthread_t thread;
        CHECK(pthread_create(&thread, NULL, give_to_others, at) == 0);
        for (unsigned j = 0; j < 10; j++) {
            pm_heaps_reclaim(j % 3 == 0);
        }
        CHECK(pthread_join(thread, NULL) == 0);
        for (unsigned j = 0; j < 2000; j++) {
            CHECK(unit_filled(at[j], 100 + j % 700, j));
            pm_free(at[j]);
        }
    }
    unit_stop_busy_threads();
    AUDIT();
}

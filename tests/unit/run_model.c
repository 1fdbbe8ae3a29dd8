// SPDX-License-Identifier: MIT
// Copyright (c) the poolmalloc authors
//
// core/run: what goes back to the system, and random work against a model.

#include "fake_os.h"
#include "unit.h"

#include "base/bits.h"
#include "core/arena.h"
#include "core/heap.h"
#include "core/map.h"
#include "core/run.h"
#include "os/os.h"
#include "poolmalloc.h"

#include <pthread.h>
#include <string.h>

#define TEST(name) UNIT_TEST(run_model, name)
#define NOW        100000u

static struct pm_runs *const runs = &pm_runs[PM_RUNS_SMALL];
static const size_t unit = (size_t)1 << PM_RUN_UNIT_BITS;

enum { UNITS = PM_ARENA_UNITS - 1, MANY = 600 };

static char *many[MANY];

static void take_many(size_t n, unsigned count) {
    for (unsigned i = 0; i < count; i++) {
        many[i] = pm_run_malloc(runs, n, PM_BLOCK_ALIGN, false);
        CHECK(many[i] != NULL);
        memset(many[i], 1, n);
    }
}

static void give_many(unsigned first, unsigned count, unsigned step) {
    for (unsigned i = first; i < count; i += step) {
        CHECK(pm_run_free(runs, many[i]) == PM_DONE);
    }
}

TEST(free_runs_beyond_the_bound_go_back) {
    fake_clock(NOW);
    take_many(unit, MANY);
    for (unsigned i = 0; i < MANY; i++) {
        give_many(i, i + 1, 1);
        const size_t in_use = runs->used_units * unit;
        CHECK(runs->resident_units * unit <= pm_keep_limit(&runs->keep, in_use, 1, NOW) ||
                  runs->resident_units == UNITS,
              "%zu units after %u", runs->resident_units, i);
        AUDIT();
    }
}

TEST(free_runs_stay_until_the_delay_is_over) {
    fake_clock(NOW);
    take_many(unit, 10);
    give_many(0, 4, 2);
    fake_clock(NOW + PM_PURGE_DELAY_MS);
    give_many(4, 5, 1);
    CHECK(fake_count(FAKE_PURGE) == 0);
    fake_clock(NOW + PM_PURGE_DELAY_MS + 1);
    give_many(6, 7, 1);
    CHECK(fake_count(FAKE_PURGE) == 2 && runs->resident_units == 2);
    AUDIT();
}

TEST(a_run_freed_after_the_clock_was_read_is_not_old) {
    fake_clock(NOW);
    take_many(unit, 10);
    give_many(0, 1, 1);
    ((struct pm_run_arena *)pm_slot_of(many[0]))->run[1].freed_at = NOW + 4;
    give_many(2, 3, 1);
    CHECK(fake_count(FAKE_PURGE) == 0);
}

TEST(trimming_purges_every_free_run) {
    fake_clock(NOW);
    runs->keep = (struct pm_keep){ .extra = (size_t)64 << 20, .at = NOW };
    take_many(2 * unit, MANY);
    give_many(0, MANY, 2);
    CHECK(runs->resident_units == MANY);
    CHECK(pm_runs_trim() == MANY * unit, "%zu units are left", runs->resident_units);
    CHECK(runs->resident_units == 0);
    AUDIT();
}

TEST(empty_arenas_but_one_go_back_and_are_remembered) {
    enum { COUNT = 8 };
    take_many(UNITS / 2 * unit, COUNT + 1);
    CHECK(runs->count == COUNT / 2 + 1);
    void *const last = pm_run_malloc(runs, 2 * unit, 16, false);
    fake_clock(NOW);
    give_many(0, COUNT, 1);
    fake_clock(NOW + PM_PURGE_DELAY_MS + 1);
    CHECK(pm_run_free(runs, last) == PM_DONE);
    CHECK(runs->empty == 1 && runs->count == 2, "%zu of %zu", runs->empty, runs->count);
    AUDIT();
    unsigned ours = 0;
    for (unsigned i = 0; i < COUNT; i += 2) {
        char byte;
        const enum pm_slot_kind kind = pm_map_kind(many[i]);
        CHECK(kind == PM_SLOT_RUNS || kind == PM_SLOT_TOMBSTONE);
        CHECK(pm_os_peek(many[i], &byte, 1) == (kind == PM_SLOT_RUNS));
        ours += kind == PM_SLOT_RUNS;
    }
    CHECK(ours == 1);
}

TEST(trimming_gives_all_empty_arenas_back) {
    take_many(UNITS / 2 * unit, 8);
    give_many(0, 8, 1);
    CHECK(pm_runs_trim() >= PM_SLOT_BYTES);
    CHECK(runs->count == 0 && runs->empty == 0 && runs->resident_units == 0);
    CHECK(pm_runs_trim() == 0);
    AUDIT();
}

TEST(an_arena_that_the_system_does_not_take_back_stays_usable) {
    enum { COUNT = 8 };
    for (unsigned purge = 0; purge < 2; purge++) {
        take_many(UNITS / 2 * unit, COUNT);
        const size_t count = runs->count;
        fake_fail(FAKE_UNMAP, 0, FAKE_ALL);
        fake_fail(FAKE_PURGE, 0, purge ? FAKE_ALL : 0);
        give_many(0, COUNT, 1);
        pm_runs_trim();
        CHECK(runs->count == count);
        AUDIT();
        const uint32_t mapped = fake_count(FAKE_MAP);
        for (unsigned i = 0; i < COUNT; i++) {
            many[i] = pm_run_malloc(runs, UNITS / 2 * unit, 16, true);
            CHECK(unit_is_zero(many[i], UNITS / 2 * unit));
        }
        CHECK(fake_count(FAKE_MAP) == mapped, "the arenas serve");
        AUDIT();
        fake_heal();
        give_many(0, COUNT, 1);
        pm_runs_trim();
        CHECK(runs->count == 0);
        AUDIT();
    }
}

// --- The run that a thread freed last ------------------------------------------------------------

static char *take_waiting(size_t units) {
    char *const at = pm_malloc(units * unit);
    CHECK(at != NULL && pm_get(&pm_thread.heap->latest) == 0);
    return at;
}

static bool waits(const void *at) {
    const uintptr_t units = at != NULL ? 50 : 0;
    return pm_get(&pm_thread.heap->latest) == ((uintptr_t)at | units);
}

TEST(the_run_freed_last_serves_the_next_request_of_its_length) {
    char *const before = take_waiting(40), *const at = take_waiting(50);
    take_waiting(60);
    pm_free(before);
    for (unsigned i = 0; i < 4; i++) {
        pm_free(at);
        CHECK(waits(at) && runs->used_units == 110);
        AUDIT();
        memset(at, 0x5a, 50 * unit);
        char *const again = i % 2 == 0 ? take_waiting(50) : pm_calloc(50, unit);
        CHECK(again == at && (i % 2 == 0 || unit_is_zero(at, 50 * unit)));
        AUDIT();
    }
    pm_free(at);
    CHECK(take_waiting(90) == before, "it was joined with what is free before it");
    CHECK(runs->used_units == 150);
    AUDIT();
    pm_free(before);
    CHECK(pm_malloc_usable_size(take_waiting(89)) == 89 * unit, "it is cut");
    AUDIT();
}

TEST(what_waits_makes_room_for_its_neighbour) {
    char *const at = take_waiting(40), *const behind = take_waiting(50);
    take_waiting(60);
    pm_free(behind);
    CHECK(waits(behind) && pm_realloc(at, 90 * unit) == at && waits(NULL));
    AUDIT();
}

TEST(what_waits_is_proved_as_any_other) {
    take_waiting(1);
    char *const at = take_waiting(50);
    const void *start;
    bool free;
    pm_free(at);
    CHECK(waits(at));
    for (size_t i = 0; i < 50; i += 7) {
        CHECK(pm_run_free(runs, at + i * unit) == PM_DOUBLE_FREE);
        CHECK(pm_run_around(runs, at + i * unit, &start, &free) == 50 * unit && start == at &&
              free);
    }
    enum pm_verdict verdict;
    CHECK(pm_run_size(runs, at, &verdict) == 0 && verdict == PM_DOUBLE_FREE);
    AUDIT();
}

static void trim(void *unused) {
    (void)unused;
    pm_malloc_trim(0);
}

static void leave_a_run(void *unused) {
    (void)unused;
    char *const at = take_waiting(50);
    memset(at, 1, 50 * unit);
    pm_free(at);
    CHECK(waits(at));
}

TEST(what_waits_goes_back_by_trim_of_any_thread_by_age_and_at_the_end) {
    pm_free(pm_malloc(1));
    for (unsigned way = 0; way < 4; way++) {
        leave_a_run(NULL);
        switch (way) {
        case 0: trim(NULL); break;
        case 1: unit_in_thread(trim, NULL); break;
        case 2: pm_heap_trim_pools(pm_thread.heap, false); break;
        default: pm_free(pm_malloc(100 * unit)); break;
        }
        CHECK(way == 3 || waits(NULL), "way %u", way);
        pm_malloc_trim(0);
        CHECK(runs->used_units == 0 && runs->resident_units == 0);
        AUDIT();
    }
    unit_in_thread(leave_a_run, NULL);
    CHECK(runs->used_units == 0);
    AUDIT();
}

// The requests that no run of this length can serve.
static void ask_aligned(void) {
    CHECK(pm_aligned_alloc((size_t)1 << 20, 50 * unit) != NULL);
}
static void grow(void) {
    CHECK(pm_run_malloc_growing(runs, 50 * unit) != NULL);
}
static void trim_private(void) {
    pm_heap *const heap = pm_heap_new(NULL);
    CHECK(pm_heap_trim(heap) == 1);
    pm_heap_destroy(heap);
}

TEST(what_waits_goes_back_before_requests_that_it_can_not_serve) {
    static void (*const ways[])(void) = { ask_aligned, grow, trim_private };
    pm_free(pm_malloc(1));
    take_waiting(1); // so that the run is not at the head of a slot
    for (unsigned way = 0; way < sizeof ways / sizeof *ways; way++) {
        leave_a_run(NULL);
        ways[way]();
        CHECK(waits(NULL), "way %u", way);
        AUDIT();
    }
}

TEST(what_waits_stays_when_a_long_run_is_asked_for) {
    pm_free(pm_malloc(1));
    char *const at = take_waiting(50);
    pm_free(at);
    CHECK(pm_malloc(pm_run_max(PM_RUNS_SMALL) + 1) != NULL && waits(at));
    AUDIT();
}

TEST(runs_of_private_heaps_do_not_wait) {
    pm_free(pm_malloc(1));
    pm_heap *const heap = pm_heap_new(NULL);
    leave_a_run(NULL);
    char *const at = pm_heap_malloc(heap, 50 * unit);
    CHECK(waits(NULL) && pm_heap_of(at) == heap);
    pm_free(at);
    CHECK(waits(NULL) && runs->used_units == 0);
    AUDIT();
    pm_heap_destroy(heap);
}

// A thread takes and frees; the others empty its place under its feet.
static bool stop;

static void *empty_places(void *heap) {
    while (!pm_get(&stop)) {
        pm_run_empty_place(heap);
    }
    return NULL;
}

TEST(a_place_is_emptied_while_its_thread_uses_it) {
    pthread_t thread;
    pm_free(pm_malloc(1));
    CHECK(pthread_create(&thread, NULL, empty_places, pm_thread.heap) == 0);
    for (unsigned i = 0; i < 20000; i++) {
        char *const at = take_waiting(50);
        at[0] = at[50 * unit - 1] = (char)i;
        CHECK(pm_run_size(runs, at, &(enum pm_verdict){ PM_DONE }) == 50 * unit);
        pm_free(at);
    }
    pm_set(&stop, true);
    pthread_join(thread, NULL);
    pm_run_empty_own_place();
    CHECK(runs->used_units == 0);
    AUDIT();
}

static void check_does_not_wait(void) {
    pm_free(take_waiting(50));
    CHECK(waits(NULL) && runs->used_units == 0);
}

TEST(nothing_waits_where_purging_is_bound) {
    pm_free(pm_malloc(1));
    leave_a_run(NULL);
    pm_options.purge_keep = (size_t)64 << 20;
    check_does_not_wait();
    pm_options.purge_keep = PM_OPTION_UNSET;
    pm_options.purge_delay = 0;
    check_does_not_wait();
    AUDIT();
}

TEST(long_runs_and_runs_under_a_limit_do_not_wait) {
    pm_free(pm_malloc(1));
    pm_arena_users = 16;
    char *const at = take_waiting(PM_KEEP_BYTES / 16 / unit + 1), *const other = take_waiting(50);
    pm_free(at);
    CHECK(waits(NULL));
    pm_arena_users = 1;
    pm_options.limit_hard = (size_t)64 << 20;
    pm_free(other);
    CHECK(waits(NULL) && runs->used_units == 0);
    AUDIT();
}

// Each is freed by both, and one of them hears of it.
static void *contested[2];
static unsigned refused;

static pthread_barrier_t both;

static void *free_contested(void *unused) {
    pm_free(pm_malloc(1)); // with a place
    pthread_barrier_wait(&both);
    for (unsigned i = 0; i < 2; i++) {
        const enum pm_verdict verdict = pm_run_free(runs, contested[i]);
        CHECK(verdict == PM_DONE || verdict == PM_DOUBLE_FREE);
        __atomic_fetch_add(&refused, verdict == PM_DOUBLE_FREE, __ATOMIC_RELAXED);
    }
    return unused;
}

TEST(of_two_threads_that_free_a_run_one_is_refused) {
    if (UNIT_THREAD_SANITIZER) {
        cr_skip("ThreadSanitizer reports what the program does wrong");
    }
    CHECK(pthread_barrier_init(&both, NULL, 2) == 0);
    for (unsigned round = 0; round < 200; round++) {
        pthread_t threads[2];
        refused = 0;
        for (unsigned i = 0; i < 2; i++) {
            contested[i] = pm_run_malloc(runs, 50 * unit, 16, false);
        }
        for (unsigned i = 0; i < 2; i++) {
            CHECK(pthread_create(&threads[i], NULL, free_contested, NULL) == 0);
        }
        for (unsigned i = 0; i < 2; i++) {
            pthread_join(threads[i], NULL);
        }
        CHECK(refused == 2 && runs->used_units == 0, "%u refused", refused);
        AUDIT();
    }
}

// --- Random work ---------------------------------------------------------------------------------

struct run {
    char *at;
    size_t size;
    uint64_t seed;
};

static void check_run(const struct run *run) {
    enum pm_verdict verdict;
    CHECK(pm_run_size(runs, run->at, &verdict) == pm_round_up(run->size, unit));
    CHECK(unit_filled(run->at, run->size, run->seed), "%p of %zu bytes", run->at, run->size);
}

static size_t random_size(void) {
    const size_t most = unit_below(8) == 0 ? pm_run_max(PM_RUNS_SMALL) : 12 * unit;
    return 1 + unit_below(most);
}

static bool take_random(struct run *run, bool may_fail) {
    const size_t size = random_size();
    size_t align = (size_t)16 << unit_below(16);
    if (size + align > pm_run_max(PM_RUNS_SMALL)) {
        align = 16;
    }
    const bool zero = unit_below(4) == 0;
    char *const at = pm_run_malloc(runs, size, align, zero);
    if (at == NULL) {
        CHECK(may_fail);
        return false;
    }
    CHECK((uintptr_t)at % align == 0 && (uintptr_t)at % unit == 0);
    CHECK(!zero || unit_is_zero(at, size));
    *run = (struct run){ at, size, unit_random() };
    unit_fill(at, size, run->seed);
    return true;
}

static void resize_random(struct run *run) {
    const size_t size = random_size(), kept = pm_min(size, run->size);
    check_run(run);
    if (pm_run_resize(runs, run->at, size)) {
        run->size = size;
        // The pattern depends on the size; of the old one, what is before both ends must be there.
        CHECK(kept < 64 || unit_filled(run->at, 64, run->seed));
        unit_fill(run->at, size, run->seed);
    } else {
        CHECK(size > run->size);
    }
    check_run(run);
}

static void work(unsigned steps, bool refusing) {
    enum { LIVE = 60 };
    static struct run live[LIVE];
    unsigned count = 0;
    for (unsigned i = 0; i < steps; i++) {
        if (refusing && i % 50 == 0) {
            fake_heal();
            fake_fail((enum fake_call[]){ FAKE_MAP, FAKE_UNMAP, FAKE_PURGE }[unit_below(3)], 0,
                      FAKE_ALL);
        }
        const size_t what = unit_below(100);
        struct run *const one = &live[count == 0 ? 0 : unit_below(count)];
        if (count == 0 || (what < 50 && count < LIVE)) {
            count += take_random(&live[count], refusing);
        } else if (what < 70) {
            resize_random(one);
        } else if (what < 99) {
            check_run(one);
            CHECK(pm_run_free(runs, one->at) == PM_DONE);
            *one = live[--count];
        } else {
            pm_runs_trim();
        }
        AUDIT();
    }
    fake_heal();
    for (unsigned i = 0; i < count; i++) {
        check_run(&live[i]);
        CHECK(pm_run_free(runs, live[i].at) == PM_DONE);
    }
    AUDIT();
    pm_runs_trim();
    CHECK(runs->used_units == 0 && runs->count == 0);
}

TEST(random_work_keeps_all_equations_and_all_bytes) {
    work(4000, false);
}

TEST(random_work_on_a_system_that_refuses_keeps_all_equations_and_all_bytes) {
    work(4000, true);
}

static void *work_in_thread(void *argument) {
    pm_free(pm_malloc(1)); // with a place
    uint64_t random = (uintptr_t)argument;
    char *held[8] = { NULL };
    for (unsigned i = 0; i < 2000; i++) {
        random = random * UINT64_C(6364136223846793005) + 1442695040888963407;
        const unsigned at = random >> 60 & 7;
        if (held[at] == NULL) {
            held[at] = pm_run_malloc(runs, (1 + (random >> 33) % 8) * unit, 16, false);
            CHECK(held[at] != NULL);
            memset(held[at], (int)(uintptr_t)argument, 64);
        } else {
            CHECK(held[at][0] == (char)(uintptr_t)argument && held[at][63] == held[at][0]);
            CHECK(pm_run_free(runs, held[at]) == PM_DONE);
            held[at] = NULL;
        }
    }
    for (unsigned i = 0; i < 8; i++) {
        CHECK(held[i] == NULL || pm_run_free(runs, held[i]) == PM_DONE);
    }
    return NULL;
}

TEST(threads_get_runs_of_their_own) {
    pthread_t threads[4];
    for (uintptr_t i = 0; i < 4; i++) {
        CHECK(pthread_create(&threads[i], NULL, work_in_thread, (void *)(i + 1)) == 0);
    }
    for (unsigned i = 0; i < 4; i++) {
        pthread_join(threads[i], NULL);
    }
    CHECK(runs->used_units == 0);
    AUDIT();
}

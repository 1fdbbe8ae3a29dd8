// SPDX-License-Identifier: MIT
// Copyright (c) the poolmalloc authors

// Requests for runs, the places of threads, growth and purging. What happens to the units of an
// arena is in run_units.c.

#include "core/run.h"

#include <string.h>

#include "base/atomic.h"
#include "base/bits.h"
#include "core/arena.h"
#include "core/clock.h"
#include "core/heap.h"
#include "core/limit.h"
#include "core/map.h"
#include "core/run_units.h"
#include "core/thp.h"
#include "os/os.h"

// Apart, for programs without large blocks: pages that are not touched.
static struct pm_list fit_lists[PM_RUNS_COUNT][PM_ARENA_UNITS];

struct pm_runs pm_runs[PM_RUNS_COUNT] = {
    [PM_RUNS_SMALL... PM_RUNS_LARGE - 1] = { .lock = PM_LOCK_INIT(PM_RANK_RUNS),
                                             .unit_bits = PM_RUN_UNIT_BITS,
                                             .slot_kind = PM_SLOT_RUNS },
    [PM_RUNS_LARGE] = { .lock = PM_LOCK_INIT(PM_RANK_RUNS),
                        .unit_bits = PM_LARGE_RUN_UNIT_BITS,
                        .slot_kind = PM_SLOT_LARGE_RUNS },
};

// Shards of short runs that threads have taken from: these have had their turn.
static uint32_t shards = 1;
// How many of them have anything in use, or resident, as of the last look at their age.
static uint32_t sharing = 1;

void pm_runs_start(void) {
    for (unsigned shard = 0; shard < PM_RUNS_COUNT; shard++) {
        struct pm_runs *const runs = &pm_runs[shard];
        runs->fit = fit_lists[shard];
        pm_list_init(&runs->every);
        pm_list_init(&runs->age);
        pm_list_init(&runs->sparse);
    }
}

static bool is_short(const struct pm_runs *runs) {
    return runs->slot_kind == PM_SLOT_RUNS;
}

// How many shards share what is allowed for the kind.
static uint32_t sharers(const struct pm_runs *runs) {
    return is_short(runs) ? pm_get(&sharing) : 1;
}

// The heap of the thread; NULL without one.
static struct pm_heap *own_heap(void) {
    return pm_thread.heap == PM_HEAP_ENDED ? NULL : pm_thread.heap;
}

struct pm_runs *pm_runs_home(enum pm_runs_kind kind) {
    const struct pm_heap *const heap = own_heap();
    return &pm_runs[kind == PM_RUNS_SMALL && heap != NULL ? heap->home.shard : kind];
}

// One that no thread has had yet, while there are such; then any but the first.
static uint32_t another_shard(void) {
    uint32_t count = pm_get(&shards);
    while (count < PM_RUN_SHARDS) {
        if (__atomic_compare_exchange_n(&shards, &count, count + 1, false, __ATOMIC_RELAXED,
                                        __ATOMIC_RELAXED)) {
            return count;
        }
    }
    return 1 + (uint32_t)(pm_cpu_ticks() >> 4) % (PM_RUN_SHARDS - 1);
}

// What a run in use remembers of a heap.
static uint32_t name_of(const struct pm_heap *heap) {
    return (uint32_t)((uintptr_t)heap >> 4);
}

// Takes the lock to take a run. A thread that has often had to wait for that of the first shard
// moves to another one; but only if it frees what it takes, since it meets threads that do that in
// any shard.
static void lock_shard(struct pm_runs *runs) {
    struct pm_heap *const heap = own_heap();
    const bool waited = pm_lock_waited(&runs->lock);
    if (heap == NULL || heap->home.shard != 0 || runs != pm_runs) {
        return;
    }
    struct pm_run_home *const home = &heap->home;
    home->waits += waited;
    if (PM_UNLIKELY(++home->takes == PM_SHARD_LOOK)) {
        const bool moves = home->waits >= PM_SHARD_WAITS && home->own_frees >= PM_SHARD_OWN &&
                           home->other_frees <= PM_SHARD_OTHERS;
        *home = (struct pm_run_home){ .shard = moves ? another_shard() : 0 };
    }
}

static void count_free(const struct pm_runs *runs, const void *at) {
    const struct pm_run *const run = &pm_run_arena_of(runs, at)->run[pm_run_unit_of(runs, at)];
    struct pm_heap *const heap = own_heap();
    if (heap != NULL && heap->home.shard == 0) {
        const bool own = pm_get(&run->taker) == name_of(heap);
        heap->home.own_frees += own;
        heap->home.other_frees += !own;
    }
}

static size_t units_for(const struct pm_runs *runs, size_t n) {
    return (n + ((size_t)1 << runs->unit_bits) - 1) >> runs->unit_bits;
}

static void add_arena(struct pm_runs *runs, struct pm_run_arena *arena, bool asks) {
    arena->shard = (uint32_t)(runs - pm_runs);
    pm_map_mark(arena, pm_run_arena_bytes(runs), runs->slot_kind, runs->slot_kind);
    // All units are INNER, unit 0 for good: it is never joined and never found.
    arena->thp.asks = asks;
    pm_lock(&runs->lock);
    pm_list_push_back(&runs->every, &arena->every);
    pm_thp_made(&runs->sample, arena, asks);
    pm_add(&runs->count, 1);
    const size_t count = PM_ARENA_UNITS - 1;
    pm_units_list(runs, arena, 1, count, pm_units_count_dirty(arena, 1, count), 0);
    pm_unlock(&runs->lock);
}

// FREE -> USED, of a part.
static void *use_run(struct pm_runs *runs, struct pm_run *run, size_t count, size_t align,
                     struct pm_dirt *found) {
    struct pm_run_arena *const arena = pm_run_arena_of(runs, run);
    const size_t unit = pm_units_cut(runs, run, count, align, found);
    pm_set(&arena->run[unit].units, (uint32_t)count);
    pm_set(&arena->run[unit].taker, name_of(own_heap()));
    pm_unit_set_state(arena, unit, PM_UNIT_USED);
    return pm_run_address(runs, arena, unit);
}

// A run of `count` units, cut out of the shortest free run of at least `room`; NULL without one.
static void *take_run(struct pm_runs *runs, size_t count, size_t room, size_t align,
                      struct pm_dirt *found) {
    void *at = NULL;
    lock_shard(runs);
    struct pm_run *const run = pm_units_fit(runs, room);
    if (run != NULL) {
        at = use_run(runs, run, count, align, found);
    }
    pm_unlock(&runs->lock);
    return at;
}

// In runs of both kinds.
static size_t bytes_in_use(void) {
    size_t bytes = 0;
    for (unsigned shard = 0; shard < PM_RUNS_COUNT; shard++) {
        bytes += pm_get(&pm_runs[shard].used_units) << pm_runs[shard].unit_bits;
    }
    return bytes;
}

// Does the program touch what it has, as far as one arena tells that is half in use? Under the
// lock.
static bool is_touched(const struct pm_runs *runs) {
    const struct pm_run_arena *const arena = runs->sample.arena;
    size_t in_use = 0, resident = 0;
    if (!pm_thp_can_tell(&runs->sample) || 2 * arena->thp.used < PM_ARENA_UNITS - 1) {
        return false;
    }
    for (size_t unit = 1; unit < PM_ARENA_UNITS; unit += arena->run[unit].units) {
        const enum pm_unit_state state = pm_unit_state_of(arena, unit);
        if (state == PM_UNIT_USED || state == PM_UNIT_LATEST) {
            const size_t bytes = (size_t)arena->run[unit].units << runs->unit_bits;
            in_use += bytes;
            resident += pm_os_resident(pm_run_address(runs, arena, unit), bytes);
        }
    }
    return pm_thp_is_touched(in_use, resident);
}

static bool wants_huge_pages(struct pm_runs *runs) {
    const size_t in_use = bytes_in_use();
    if (!pm_thp_is_large(in_use, in_use)) {
        return pm_options.thp == PM_THP_ALWAYS;
    }
    pm_lock(&runs->lock);
    const bool touched = is_touched(runs);
    pm_unlock(&runs->lock);
    return touched;
}

// Returns whether the arena asks for huge pages.
static bool advise(struct pm_runs *runs, struct pm_run_arena *arena) {
    const bool asks = wants_huge_pages(runs);
    if (asks || is_short(runs)) {
        pm_os_advise_huge_pages(arena, pm_run_arena_bytes(runs), asks);
    } else {
        pm_thp_advise_large(arena, pm_run_arena_bytes(runs));
    }
    return asks;
}

// One more arena, unless another thread has brought room for so many units meanwhile. False without
// memory.
static bool grow(struct pm_runs *runs, size_t room) {
    struct pm_run_arena *arena = NULL;
    pm_lock(&pm_grow_lock);
    pm_lock(&runs->lock);
    const bool grown = pm_units_fit(runs, room) != NULL;
    pm_unlock(&runs->lock);
    if (!grown) {
        arena = pm_map_slots(pm_run_arena_bytes(runs), pm_run_arena_bytes(runs), false);
    }
    if (arena != NULL) {
        add_arena(runs, arena, advise(runs, arena));
    }
    pm_unlock(&pm_grow_lock);
    return grown || arena != NULL;
}

// The same, out of the other shards.
static void *take_elsewhere(const struct pm_runs *runs, size_t count, size_t room, size_t align,
                            struct pm_dirt *found) {
    void *at = NULL;
    for (unsigned shard = 0; is_short(runs) && at == NULL && shard < PM_RUN_SHARDS; shard++) {
        if (&pm_runs[shard] != runs && pm_get(&pm_runs[shard].count) != 0) {
            at = take_run(&pm_runs[shard], count, room, align, found);
        }
    }
    return at;
}

// Has the shard of short runs as many arenas as the others on average? Only then it takes what
// these have free before it makes another one: threads that have moved apart would meet there.
static bool has_its_share(const struct pm_runs *runs) {
    size_t all = 0, having = 0;
    for (unsigned shard = 0; is_short(runs) && shard < PM_RUN_SHARDS; shard++) {
        const size_t count = pm_get(&pm_runs[shard].count);
        all += count;
        having += count != 0;
    }
    return pm_get(&runs->count) * having >= all;
}

// The same, out of a new arena if need be.
static void *take_or_grow(struct pm_runs *runs, size_t count, size_t align, struct pm_dirt *found) {
    const size_t room = count + (align >> runs->unit_bits) - 1;
    void *at = take_run(runs, count, room, align, found);
    if (at == NULL && has_its_share(runs)) {
        at = take_elsewhere(runs, count, room, align, found);
    }
    while (at == NULL && grow(runs, room)) {
        at = take_run(runs, count, room, align, found);
    }
    return at != NULL ? at : take_elsewhere(runs, count, room, align, found);
}

// Makes the units of a new run read as zero that were found dirty. The others stay as they are:
// many were never touched, or given back.
static void clear(const struct pm_runs *runs, char *at, size_t n, const struct pm_dirt *found) {
    const size_t bytes = (size_t)1 << runs->unit_bits;
    for (size_t w = 0; w < PM_DIRTY_WORDS; w++) {
        for (uint64_t left = found->word[w]; left != 0; left &= left - 1) {
            char *const unit =
                pm_run_address(runs, pm_run_arena_of(runs, at), w * 64 + pm_lowest_bit(left));
            memset(unit, 0, pm_min(bytes, (size_t)(at + n - unit)));
        }
    }
}

static struct pm_surplus surplus_now(struct pm_runs *runs, uint32_t now) {
    const size_t used = runs->used_units << runs->unit_bits;
    const size_t keep = pm_keep_limit(&runs->keep, used, sharers(runs), now) >> runs->unit_bits;
    return (struct pm_surplus){ .keep = keep, .spare = 1, .now = now };
}

static struct pm_run *oldest_run(const struct pm_runs *runs) {
    return pm_list_empty(&runs->age) ? NULL : PM_LIST_ENTRY(runs->age.prev, struct pm_run, age);
}

static bool is_run_surplus(const struct pm_runs *runs, const struct pm_surplus *surplus) {
    const struct pm_run *const oldest = oldest_run(runs);
    return oldest != NULL &&
           (runs->resident_units > surplus->keep || pm_surplus_has_old(surplus, oldest->freed_at));
}

// The arena that leaves its huge pages; NULL when there is none.
static struct pm_run_arena *sparse_surplus(const struct pm_runs *runs,
                                           const struct pm_surplus *surplus) {
    if (surplus->all) {
        PM_LIST_EACH(link, &runs->every) {
            struct pm_run_arena *const arena = PM_LIST_ENTRY(link, struct pm_run_arena, every);
            if (arena->thp.asks && arena->thp.free != 0) {
                return arena;
            }
        }
    }
    if (pm_list_empty(&runs->sparse)) {
        return NULL;
    }
    struct pm_run_arena *const arena =
        PM_LIST_ENTRY(runs->sparse.prev, struct pm_run_arena, thp.sparse);
    return runs->resident_units > surplus->keep || pm_surplus_has_old(surplus, arena->thp.sparse_at)
               ? arena
               : NULL;
}

static bool is_purge_due(const struct pm_runs *runs, const struct pm_surplus *surplus) {
    return is_run_surplus(runs, surplus) || sparse_surplus(runs, surplus) != NULL;
}

// A run that is off all lists, and of which `units` are too many.
struct purge {
    struct pm_run *run;
    size_t units;
    bool whole;   // its arena goes, too
    bool leaving; // its arena leaves its huge pages
};

// All that is free in the arena is purgeable from now on, also what only huge pages made resident.
// Returns one of its runs.
static struct pm_run *leave_huge_pages(struct pm_runs *runs, struct pm_run_arena *arena) {
    pm_set(&arena->thp.asks, false);
    struct pm_run *last = NULL;
    for (size_t unit = 1; unit < PM_ARENA_UNITS; unit += arena->run[unit].units) {
        struct pm_run *const run = &arena->run[unit];
        if (pm_unit_state_of(arena, unit) == PM_UNIT_FREE) {
            const uint32_t freed_at = run->freed_at;
            pm_units_unlist(runs, run);
            pm_units_set_dirty(arena, unit, run->units, true);
            pm_units_list(runs, arena, unit, run->units, run->units, freed_at);
            last = run;
        }
    }
    pm_thp_update(&arena->thp, &runs->sparse);
    PM_ASSERT(last != NULL);
    return last;
}

static struct purge choose_purge(struct pm_runs *runs, const struct pm_surplus *surplus) {
    struct purge chosen = { 0 };
    if (is_run_surplus(runs, surplus)) {
        chosen.run = oldest_run(runs);
    } else {
        struct pm_run_arena *const sparse = sparse_surplus(runs, surplus);
        if (sparse != NULL) {
            chosen.leaving = true;
            chosen.run = leave_huge_pages(runs, sparse);
        } else if (runs->resident_units == 0 && runs->empty > surplus->spare) {
            chosen.run = PM_LIST_ENTRY(runs->fit[PM_ARENA_UNITS - 1].prev, struct pm_run, fit);
        }
    }
    struct pm_run *const run = chosen.run;
    if (run == NULL) {
        return chosen;
    }
    struct pm_run_arena *const arena = pm_run_arena_of(runs, run);
    chosen.whole = run->units == PM_ARENA_UNITS - 1 && runs->empty > surplus->spare;
    chosen.units = chosen.whole ? run->resident
                   : chosen.leaving || pm_surplus_has_old(surplus, run->freed_at)
                       ? run->purgeable
                       : pm_min(run->purgeable, runs->resident_units - surplus->keep);
    pm_keep_purged(&runs->keep, chosen.units << runs->unit_bits);
    pm_units_unlist(runs, run);
    pm_thp_update(&arena->thp, &runs->sparse);
    if (chosen.whole) {
        pm_list_remove(&arena->every);
        pm_thp_gone(&runs->sample, arena);
        pm_add(&runs->count, -1);
        pm_map_mark(arena, pm_run_arena_bytes(runs), PM_SLOT_TOMBSTONE, PM_SLOT_TOMBSTONE);
    } else {
        pm_unit_set_state(arena, (size_t)(run - arena->run), PM_UNIT_PURGING);
    }
    return chosen;
}

// False when the process has as many mappings as it may have: the arena stays, as a new one.
static bool unmap_arena(struct pm_runs *runs, struct pm_run_arena *arena) {
    if (pm_os_unmap(arena, pm_run_arena_bytes(runs)) == 0) {
        pm_map_gave_back(arena, pm_run_arena_bytes(runs));
        return true;
    }
    if (pm_os_purge(arena, pm_run_arena_bytes(runs)) != 0) {
        memset(arena, 0, sizeof *arena);
        pm_units_set_dirty(arena, 1, PM_ARENA_UNITS - 1, true);
    }
    add_arena(runs, arena, false);
    return false;
}

// Purges the last `units` purgeable units of a run, in whole pages, and puts it back. False when
// the OS refuses, as it does for locked pages (mlock).
static bool purge_run(struct pm_runs *runs, struct pm_run *run, size_t units) {
    struct pm_run_arena *const arena = pm_run_arena_of(runs, run);
    const size_t unit = (size_t)(run - arena->run), count = run->units;
    // A word of the dirty set is shared with other runs.
    pm_lock(&runs->lock);
    const size_t page_units = pm_units_of_page(runs, arena);
    const size_t least = pm_round_up(unit, page_units);
    const size_t end = pm_round_down(unit + count, page_units);
    size_t first = end;
    for (size_t dirty = 0; first > least && dirty < units; first--) {
        dirty += pm_units_count_dirty(arena, first - 1, 1);
    }
    first = pm_round_down(first, page_units);
    pm_unlock(&runs->lock);
    const uint32_t now = pm_clock();
    // Where pages are larger than units, the ends may share theirs with a run in use and stay.
    const bool purged = first < end && pm_os_purge(pm_run_address(runs, arena, first),
                                                   (end - first) << runs->unit_bits) == 0;
    pm_lock(&runs->lock);
    if (purged) {
        pm_units_set_dirty(arena, first, end - first, false);
    }
    pm_units_free(runs, arena, unit, count, pm_units_count_dirty(arena, unit, count), now);
    pm_unlock(&runs->lock);
    return purged;
}

static size_t purge(struct pm_runs *runs, struct pm_surplus surplus) {
    size_t bytes = 0;
    bool done, leaving;
    do {
        pm_lock(&runs->lock);
        const struct purge chosen = choose_purge(runs, &surplus);
        pm_unlock(&runs->lock);
        if (chosen.leaving && !chosen.whole) {
            pm_os_leave_huge_pages(pm_run_arena_of(runs, chosen.run), pm_run_arena_bytes(runs));
        }
        done = chosen.run != NULL &&
               (chosen.whole ? unmap_arena(runs, pm_run_arena_of(runs, chosen.run))
                             : purge_run(runs, chosen.run, chosen.units));
        bytes += !done          ? 0
                 : chosen.whole ? pm_run_arena_bytes(runs)
                                : chosen.units << runs->unit_bits;
        // The run of an arena that leaves its huge pages need not have a page to give.
        leaving = chosen.leaving;
    } while (done || leaving);
    return bytes;
}

// The word of a place: the run's address, and in the bits that are zero there its shard, since its
// arena may be gone when another thread reads the word, and its units.
#define WAITING_UNIT_BITS 8

_Static_assert(PM_RUN_UNITS_MAX < 1 << WAITING_UNIT_BITS &&
                   PM_RUN_SHARDS <= 1 << (PM_RUN_UNIT_BITS - WAITING_UNIT_BITS),
               "they fit");

static uintptr_t waiting_word(const struct pm_runs *runs, const void *at, size_t units) {
    return (uintptr_t)at | (uintptr_t)(runs - pm_runs) << WAITING_UNIT_BITS | units;
}

static void *waiting_run(uintptr_t word) {
    return (void *)pm_round_down(word, (uintptr_t)1 << PM_RUN_UNIT_BITS);
}

static size_t waiting_shard(uintptr_t word) {
    return word % ((uintptr_t)1 << PM_RUN_UNIT_BITS) >> WAITING_UNIT_BITS;
}

static size_t waiting_units(uintptr_t word) {
    return word % ((uintptr_t)1 << WAITING_UNIT_BITS);
}

// The place of the thread's heap; NULL without one.
static uintptr_t *own_place(void) {
    struct pm_heap *const heap = own_heap();
    return heap == NULL ? NULL : &heap->latest;
}

// Takes what waits; false when another thread was first. Who has the word has the run.
static bool empty_of(uintptr_t *place, uintptr_t word) {
    return __atomic_compare_exchange_n(place, &word, 0, false, __ATOMIC_ACQUIRE, __ATOMIC_RELAXED);
}

// USED -> LATEST, by who frees it. False when another thread was first, or it is no run in use.
static bool claim(struct pm_run_arena *arena, size_t unit) {
    uint8_t state = PM_UNIT_USED;
    return __atomic_compare_exchange_n(&arena->state[unit], &state, PM_UNIT_LATEST, false,
                                       __ATOMIC_ACQUIRE, __ATOMIC_RELAXED);
}

// Under the lock.
static void leave_owner(const struct pm_runs *runs, struct pm_run *run) {
    if (PM_UNLIKELY(run->owner != NULL)) {
        pm_list_remove(&run->fit);
        pm_heap_count_large(run->owner, (size_t)-1, -((size_t)run->units << runs->unit_bits));
        pm_set(&run->owner, NULL);
    }
}

// LATEST -> FREE. Under the lock.
static void give_back(struct pm_runs *runs, void *at, uint32_t now) {
    struct pm_run_arena *const arena = pm_run_arena_of(runs, at);
    const size_t unit = pm_run_unit_of(runs, at), count = arena->run[unit].units;
    PM_ASSERT(pm_unit_state_of(arena, unit) == PM_UNIT_LATEST);
    leave_owner(runs, &arena->run[unit]);
    pm_units_change_used(runs, arena, -count);
    pm_units_free(runs, arena, unit, count, count, now);
}

// Units were freed: purges, outside of the lock, if there are too many now.
static void unlock_and_purge(struct pm_runs *runs, uint32_t now) {
    const struct pm_surplus surplus = surplus_now(runs, now);
    const bool due = is_purge_due(runs, &surplus);
    pm_unlock(&runs->lock);
    if (PM_UNLIKELY(due)) {
        purge(runs, surplus);
    }
}

// A fork finds the run in its place, or on the lists: it is taken under the lock.
static void empty_place(uintptr_t *place) {
    const uintptr_t word = place == NULL ? 0 : pm_get(place);
    if (word == 0) {
        return;
    }
    struct pm_runs *const runs = &pm_runs[waiting_shard(word)];
    const uint32_t now = pm_clock();
    pm_lock(&runs->lock);
    if (empty_of(place, word)) {
        if (place == own_place()) {
            count_free(runs, waiting_run(word));
        }
        give_back(runs, waiting_run(word), now);
    }
    unlock_and_purge(runs, now);
}

void pm_run_empty_place(struct pm_heap *heap) {
    empty_place(&heap->latest);
}

void pm_run_empty_own_place(void) {
    empty_place(own_place());
}

// LATEST -> USED, when the thread's is of the length; if not, it goes back, since others may be cut
// out of it.
static void *take_latest(const struct pm_runs *runs, size_t count, size_t align) {
    uintptr_t *const place = is_short(runs) ? own_place() : NULL;
    const uintptr_t word = place != NULL ? pm_get(place) : 0;
    void *const at = waiting_run(word);
    if (waiting_units(word) != count || (uintptr_t)at % align != 0) {
        empty_place(place);
        return NULL;
    }
    if (!empty_of(place, word)) {
        return NULL;
    }
    struct pm_run_arena *const arena = pm_run_arena_of(runs, at);
    const size_t unit = pm_run_unit_of(runs, at);
    pm_set(&arena->run[unit].taker, name_of(own_heap()));
    pm_unit_set_state(arena, unit, PM_UNIT_USED);
    return at;
}

bool pm_run_is_waiting(uintptr_t word) {
    const struct pm_runs *const runs = &pm_runs[waiting_shard(word)];
    const void *const at = waiting_run(word);
    const struct pm_run_arena *const arena = pm_run_arena_of(runs, at);
    const size_t unit = pm_run_unit_of(runs, at);
    return is_short(runs) && pm_runs_of(PM_RUNS_SMALL, at) == runs &&
           pm_unit_state_of(arena, unit) == PM_UNIT_LATEST &&
           arena->run[unit].units == waiting_units(word);
}

// Would it wait, if it is a run in use? So long that all threads together keep what the free runs
// of its shard may.
static bool may_wait(const struct pm_runs *runs, const void *at) {
    const struct pm_run *const run = &pm_run_arena_of(runs, at)->run[pm_run_unit_of(runs, at)];
    const size_t bytes = (size_t)pm_get(&run->units) << runs->unit_bits;
    const size_t used = pm_get(&runs->used_units) << runs->unit_bits;
    return is_short(runs) && (uintptr_t)at % ((size_t)1 << runs->unit_bits) == 0 &&
           pm_get(&run->owner) == NULL &&
           bytes * pm_get(&pm_arena_users) <= pm_max(PM_KEEP_BYTES, used / PM_KEEP_SHARE) &&
           pm_options.purge_keep == PM_OPTION_UNSET && pm_options.purge_delay != 0 &&
           !pm_limit_is_set();
}

void *pm_run_malloc(struct pm_runs *runs, size_t n, size_t align, bool zero) {
    const size_t count = units_for(runs, n);
    struct pm_dirt found;
    align = pm_max(align, (size_t)1 << runs->unit_bits);
    char *at = take_latest(runs, count, align);
    if (at != NULL) {
        return zero ? memset(at, 0, n) : at;
    }
    if (pm_limit_allows(count << runs->unit_bits)) {
        at = take_or_grow(runs, count, align, &found);
    }
    if (at != NULL && zero) {
        clear(runs, at, n, &found);
    }
    return at;
}

void *pm_run_malloc_growing(struct pm_runs *runs, size_t n) {
    const size_t count = units_for(runs, n), align = (size_t)1 << runs->unit_bits;
    struct pm_dirt found;
    pm_run_empty_own_place();
    if (!pm_limit_allows(count << runs->unit_bits)) {
        return NULL;
    }
    void *const at = take_run(runs, count, 2 * count, align, &found);
    return at != NULL ? at : take_or_grow(runs, count, align, &found);
}

static void age(struct pm_runs *runs, uint32_t now) {
    pm_lock(&runs->lock);
    const struct pm_surplus surplus = surplus_now(runs, now);
    pm_unlock(&runs->lock);
    purge(runs, surplus);
}

void pm_runs_age(uint32_t now) {
    uint32_t with_short = 0;
    for (unsigned shard = 0; shard < PM_RUNS_COUNT; shard++) {
        struct pm_runs *const runs = &pm_runs[shard];
        if (pm_get(&runs->count) != 0) {
            age(runs, now);
            with_short += is_short(runs) &&
                          (pm_get(&runs->used_units) != 0 || pm_get(&runs->resident_units) != 0);
        }
    }
    pm_set(&sharing, pm_max(with_short, 1));
}

size_t pm_runs_trim(void) {
    size_t bytes = 0;
    for (unsigned shard = 0; shard < PM_RUNS_COUNT; shard++) {
        bytes += purge(&pm_runs[shard], (struct pm_surplus){ .now = pm_clock(), .all = true });
    }
    return bytes;
}

// What `at` is, under the lock, or for a block that the caller has: nobody else changes that.
static enum pm_verdict prove(const struct pm_runs *runs, const void *at) {
    const struct pm_run_arena *const arena = pm_run_arena_of(runs, at);
    const size_t unit = pm_run_unit_of(runs, at);
    const enum pm_unit_state state = pm_unit_state_of(arena, unit);
    if ((uintptr_t)at % PM_BLOCK_ALIGN != 0) {
        return PM_UNALIGNED;
    }
    if (unit == 0) {
        return PM_NEVER_HANDED_OUT;
    }
    if (state == PM_UNIT_USED && (uintptr_t)at % ((size_t)1 << runs->unit_bits) == 0) {
        return PM_DONE;
    }
    return pm_unit_state_of(arena, pm_units_first(arena, unit)) == PM_UNIT_USED ? PM_INSIDE
           : pm_units_count_dirty(arena, unit, 1) || arena->run[unit].units     ? PM_DOUBLE_FREE
                                                                            : PM_NEVER_HANDED_OUT;
}

void pm_run_set_owner(struct pm_runs *runs, void *at, struct pm_heap *owner) {
    struct pm_run *const run = &pm_run_arena_of(runs, at)->run[pm_run_unit_of(runs, at)];
    pm_lock(&runs->lock);
    pm_set(&run->owner, owner);
    pm_list_push_back(&owner->runs[runs - pm_runs], &run->fit);
    pm_heap_count_large(owner, 1, (size_t)run->units << runs->unit_bits);
    pm_unlock(&runs->lock);
}

struct pm_heap *pm_run_owner(const struct pm_runs *runs, const void *at) {
    return prove(runs, at) == PM_DONE
               ? pm_get(&pm_run_arena_of(runs, at)->run[pm_run_unit_of(runs, at)].owner)
               : NULL;
}

void *pm_run_of_link(const struct pm_runs *runs, struct pm_list *link, size_t *bytes) {
    const struct pm_run *const run = PM_LIST_ENTRY(link, struct pm_run, fit);
    const struct pm_run_arena *const arena = pm_run_arena_of(runs, run);
    *bytes = (size_t)run->units << runs->unit_bits;
    return pm_run_address(runs, arena, (size_t)(run - arena->run));
}

enum pm_verdict pm_run_free(struct pm_runs *runs, void *at) {
    struct pm_run_arena *const arena = pm_run_arena_of(runs, at);
    const size_t unit = pm_run_unit_of(runs, at);
    uintptr_t *const place = may_wait(runs, at) ? own_place() : NULL;
    const uintptr_t word = waiting_word(runs, at, arena->run[unit].units);
    const uintptr_t before = place != NULL ? pm_get(place) : 0;
    if (place != NULL && before == 0 && claim(arena, unit)) {
        __atomic_store_n(place, word, __ATOMIC_RELEASE);
        return PM_DONE;
    }
    const uint32_t now = pm_clock();
    pm_lock(&runs->lock);
    enum pm_verdict verdict = prove(runs, at);
    if (verdict == PM_DONE && !claim(arena, unit)) {
        verdict = PM_DOUBLE_FREE; // by two threads at once
    }
    if (verdict == PM_DONE) {
        // It takes the place of one of the same shard, whose lock this is.
        void *out = at;
        if (before != 0 && runs == &pm_runs[waiting_shard(before)] && empty_of(place, before)) {
            __atomic_store_n(place, word, __ATOMIC_RELEASE);
            out = waiting_run(before);
        }
        count_free(runs, out);
        give_back(runs, out, now);
    }
    unlock_and_purge(runs, now);
    return verdict;
}

size_t pm_run_size(struct pm_runs *runs, const void *at, enum pm_verdict *verdict) {
    *verdict = prove(runs, at);
    const size_t size =
        *verdict == PM_DONE
            ? (size_t)pm_get(&pm_run_arena_of(runs, at)->run[pm_run_unit_of(runs, at)].units)
            : 0;
    return size << runs->unit_bits;
}

bool pm_run_resize(struct pm_runs *runs, void *at, size_t n) {
    struct pm_run_arena *const arena = pm_run_arena_of(runs, at);
    const size_t unit = pm_run_unit_of(runs, at), count = units_for(runs, n);
    struct pm_run *const run = &arena->run[unit];
    const size_t old = run->units, next = unit + old;
    const uint32_t now = pm_clock();
    struct pm_dirt found;
    if (count > old) {
        pm_run_empty_own_place();
        if (!pm_limit_allows((count - old) << runs->unit_bits)) {
            return false;
        }
    }
    pm_lock(&runs->lock);
    if (count > old && (next == PM_ARENA_UNITS || pm_unit_state_of(arena, next) != PM_UNIT_FREE ||
                        old + arena->run[next].units < count)) {
        pm_unlock(&runs->lock);
        return false;
    }
    if (count > old) {
        pm_units_cut(runs, &arena->run[next], count - old, 1, &found);
    }
    run->units = (uint32_t)count;
    if (count < old) {
        pm_units_change_used(runs, arena, count - old);
        pm_units_free(runs, arena, unit + count, old - count, old - count, now);
    }
    if (PM_UNLIKELY(run->owner != NULL)) {
        pm_heap_count_large(run->owner, 0, (count - old) << runs->unit_bits);
    }
    unlock_and_purge(runs, now);
    return true;
}

size_t pm_run_around(const struct pm_runs *runs, const void *at, const void **start, bool *free) {
    const struct pm_run_arena *const arena = pm_run_arena_of(runs, at);
    const size_t unit = pm_units_first(arena, pm_run_unit_of(runs, at));
    const enum pm_unit_state state = pm_unit_state_of(arena, unit);
    *free = state == PM_UNIT_FREE || state == PM_UNIT_LATEST;
    *start = pm_run_address(runs, arena, unit);
    return (size_t)pm_get(&arena->run[unit].units) << runs->unit_bits;
}

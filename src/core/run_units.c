// SPDX-License-Identifier: MIT
// Copyright (c) the poolmalloc authors

// Best fit over the lengths of free runs, joining and cutting.

#include "core/run_units.h"

#include "base/bits.h"
#include "core/thp.h"
#include "os/os.h"

// The bits of word `w` that belong to units [unit, unit + count).
static uint64_t dirty_mask(size_t w, size_t unit, size_t count) {
    const size_t low = w * 64, from = pm_max(unit, low), to = pm_min(unit + count, low + 64);
    return from >= to ? 0 : (UINT64_MAX >> (64 - (to - from))) << (from - low);
}

size_t pm_units_count_dirty(const struct pm_run_arena *arena, size_t unit, size_t count) {
    size_t dirty = 0;
    for (size_t w = unit / 64; w <= (unit + count - 1) / 64; w++) {
        dirty += pm_count_bits(arena->dirty[w] & dirty_mask(w, unit, count));
    }
    return dirty;
}

void pm_units_set_dirty(struct pm_run_arena *arena, size_t unit, size_t count, bool dirty) {
    for (size_t w = unit / 64; w <= (unit + count - 1) / 64; w++) {
        const uint64_t mask = dirty_mask(w, unit, count);
        arena->dirty[w] = dirty ? arena->dirty[w] | mask : arena->dirty[w] & ~mask;
    }
}

size_t pm_units_of_page(const struct pm_runs *runs, const struct pm_run_arena *arena) {
    const size_t page = arena->thp.asks ? PM_HUGE_PAGE_BYTES : pm_os_page_size();
    return pm_max(page >> runs->unit_bits, 1);
}

// How many of the units of a free run a purge may give back now: those of whole pages, in an arena
// that asks for them of whole huge pages.
static size_t count_purgeable(const struct pm_runs *runs, const struct pm_run_arena *arena,
                              size_t unit, size_t count, size_t resident) {
    const size_t page_units = pm_units_of_page(runs, arena);
    if (page_units == 1 || resident == 0) {
        return resident;
    }
    const size_t first = pm_round_up(unit, page_units),
                 end = pm_round_down(unit + count, page_units);
    return first < end ? pm_units_count_dirty(arena, first, end - first) : 0;
}

static bool has_free(const struct pm_runs *runs, size_t units) {
    return (runs->filled[units / 64] >> (units % 64) & 1) != 0;
}

void pm_units_list(struct pm_runs *runs, struct pm_run_arena *arena, size_t unit, size_t count,
                   size_t resident, uint32_t now) {
    struct pm_run *const run = &arena->run[unit];
    pm_unit_set_state(arena, unit + count - 1, PM_UNIT_LAST);
    pm_unit_set_state(arena, unit, PM_UNIT_FREE);
    run->units = arena->run[unit + count - 1].units = (uint32_t)count;
    run->freed_at = now;
    PM_ASSERT(resident == pm_units_count_dirty(arena, unit, count));
    run->resident = (uint32_t)resident;
    run->purgeable = (uint32_t)count_purgeable(runs, arena, unit, count, resident);
    if (!has_free(runs, count)) {
        pm_list_init(&runs->fit[count]);
        runs->filled[count / 64] |= UINT64_C(1) << (count % 64);
    }
    pm_list_push_front(&runs->fit[count], &run->fit);
    if (run->purgeable != 0) {
        pm_list_push_front(&runs->age, &run->age);
    }
    pm_add(&runs->resident_units, resident);
    arena->thp.free += (uint32_t)resident;
    runs->empty += count == PM_ARENA_UNITS - 1;
}

void pm_units_unlist(struct pm_runs *runs, struct pm_run *run) {
    struct pm_run_arena *const arena = pm_run_arena_of(runs, run);
    const size_t count = run->units, unit = (size_t)(run - arena->run);
    pm_unit_set_state(arena, unit, PM_UNIT_INNER);
    pm_unit_set_state(arena, unit + count - 1, PM_UNIT_INNER);
    pm_list_remove(&run->fit);
    if (pm_list_empty(&runs->fit[count])) {
        runs->filled[count / 64] &= ~(UINT64_C(1) << (count % 64));
    }
    if (run->purgeable != 0) {
        pm_list_remove(&run->age);
    }
    pm_add(&runs->resident_units, -(size_t)run->resident);
    arena->thp.free -= run->resident;
    runs->empty -= count == PM_ARENA_UNITS - 1;
}

void pm_units_free(struct pm_runs *runs, struct pm_run_arena *arena, size_t unit, size_t count,
                   size_t resident, uint32_t now) {
    pm_unit_set_state(arena, unit, PM_UNIT_INNER);
    const size_t after = unit + count;
    if (after < PM_ARENA_UNITS && pm_unit_state_of(arena, after) == PM_UNIT_FREE) {
        pm_units_unlist(runs, &arena->run[after]);
        count += arena->run[after].units;
        resident += arena->run[after].resident;
    }
    if (pm_unit_state_of(arena, unit - 1) == PM_UNIT_LAST ||
        pm_unit_state_of(arena, unit - 1) == PM_UNIT_FREE) {
        const size_t before = unit - arena->run[unit - 1].units;
        pm_units_unlist(runs, &arena->run[before]);
        count += unit - before;
        resident += arena->run[before].resident;
        unit = before;
    }
    pm_units_list(runs, arena, unit, count, resident, now);
    pm_thp_update(&arena->thp, &runs->sparse);
}

struct pm_run *pm_units_fit(struct pm_runs *runs, size_t count) {
    uint64_t mask = UINT64_MAX << (count % 64);
    for (size_t w = count / 64; w < PM_ARENA_UNITS / 64; w++, mask = UINT64_MAX) {
        if (runs->filled[w] & mask) {
            const size_t length = w * 64 + pm_lowest_bit(runs->filled[w] & mask);
            return PM_LIST_ENTRY(runs->fit[length].next, struct pm_run, fit);
        }
    }
    return NULL;
}

static void find_dirt(struct pm_dirt *found, const struct pm_run_arena *arena, size_t unit,
                      size_t count) {
    *found = (struct pm_dirt){ 0 };
    for (size_t w = unit / 64; w <= (unit + count - 1) / 64; w++) {
        found->word[w] = arena->dirty[w] & dirty_mask(w, unit, count);
    }
}

size_t pm_units_cut(struct pm_runs *runs, struct pm_run *run, size_t count, size_t align,
                    struct pm_dirt *found) {
    struct pm_run_arena *const arena = pm_run_arena_of(runs, run);
    const size_t start = (size_t)(run - arena->run), length = run->units;
    const size_t unit = pm_round_up(start, pm_max(align >> runs->unit_bits, 1));
    const uint32_t freed_at = run->freed_at;
    const bool all = run->resident == length;
    const size_t dirty = all ? count : pm_units_count_dirty(arena, unit, count);
    size_t resident = run->resident - dirty;
    pm_units_unlist(runs, run);
    if (unit > start) {
        const size_t before = all ? unit - start : pm_units_count_dirty(arena, start, unit - start);
        pm_units_list(runs, arena, start, unit - start, before, freed_at);
        resident -= before;
    }
    if (unit + count < start + length) {
        const size_t rest = start + length - unit - count;
        pm_units_list(runs, arena, unit + count, rest, resident, freed_at);
    }
    pm_keep_missed(&runs->keep, (count - dirty) << runs->unit_bits);
    find_dirt(found, arena, unit, count);
    if (!all) {
        pm_units_set_dirty(arena, unit, count, true);
    }
    pm_units_change_used(runs, arena, count);
    pm_thp_update(&arena->thp, &runs->sparse);
    return unit;
}

size_t pm_units_first(const struct pm_run_arena *arena, size_t unit) {
    enum pm_unit_state state = pm_unit_state_of(arena, unit);
    while (unit > 1 && (state == PM_UNIT_INNER || state == PM_UNIT_LAST)) {
        state = pm_unit_state_of(arena, --unit);
    }
    return unit;
}

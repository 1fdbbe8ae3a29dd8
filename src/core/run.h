// SPDX-License-Identifier: MIT
// Copyright (c) the poolmalloc authors

// Large blocks: page runs of whole units in run arenas.
//
// There are two kinds of run arena: of a slot, for runs of up to about 2 MiB, and of 32 slots with
// units 32 times as large, for runs of up to about 64 MiB. The first unit of an arena holds its
// header; the others are cut into runs, each in use or free, and no two free ones are neighbours.
// A run is found by best fit in constant time, since there are few lengths.
//
// The arenas for short runs are in shards, each under one lock, but for the places of threads
// (pm_run_empty_place). Heaps start in the first shard; one whose thread often has to wait for its
// lock moves to another, and stays there. A run goes back to the shard that it is of.

#ifndef PM_CORE_RUN_H
#define PM_CORE_RUN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/list.h"
#include "config/limits.h"
#include "core/keep.h"
#include "core/lock.h"
#include "core/thp.h"
#include "core/verdict.h"

// The first unit of a run says its state. The others are INNER, but for the last one of a longer
// free run. States are written under the lock, but for those of the run that a thread frees or
// takes again: USED and LATEST.
enum pm_unit_state {
    PM_UNIT_INNER,
    PM_UNIT_FREE,
    PM_UNIT_LAST,
    PM_UNIT_USED,
    PM_UNIT_LATEST,  // freed, waits in the place of a thread
    PM_UNIT_PURGING, // free, but its pages are being given back; on no list
};

#define PM_DIRTY_WORDS (PM_ARENA_UNITS / 64)

struct pm_heap;

// A run, at its first unit.
struct pm_run {
    struct pm_list fit; // FREE: runs of its length; USED: those of its private heap, if it has one
    union {
        struct pm_list age;    // FREE and purgeable: last freed first; else NULL
        struct pm_heap *owner; // USED, LATEST: the private heap; else NULL
    };
    uint32_t units; // its length; also kept at the last unit of a free run
    union {
        uint32_t resident; // FREE: how many of its units may be resident
        uint32_t taker;    // USED, LATEST: whose thread took it (name_of in run.c)
    };
    uint32_t purgeable; // of these, those in whole huge pages where its arena asks for them
    uint32_t freed_at;  // FREE: milliseconds
};

// A thread's shard of short runs; and while that is the first one, how often lately the thread took
// one under the lock, had to wait for that, and gave back one that it had taken, or that it hadn't.
struct pm_run_home {
    uint32_t shard;
    uint32_t takes, waits, own_frees, other_frees;
};

struct pm_run_arena {
    struct pm_list every;
    uint64_t dirty[PM_DIRTY_WORDS]; // units that may be resident and not zero
    uint32_t shard;                 // never changes
    uint8_t state[PM_ARENA_UNITS];  // enum pm_unit_state
    struct pm_thp_arena thp;
    struct pm_run run[PM_ARENA_UNITS];
};

_Static_assert(sizeof(struct pm_run_arena) <= (size_t)1 << PM_RUN_UNIT_BITS, "it fits unit 0");

// The run arenas of one shard; `unit_bits`, `slot_kind` and `fit` never change, the rest is under
// `lock`.
struct pm_runs {
    _Alignas(PM_LINE_BYTES) struct pm_lock lock;
    uint32_t unit_bits;
    uint32_t slot_kind; // enum pm_slot_kind
    struct pm_list every;
    struct pm_list *fit;                  // free runs by length; set up where `filled` says so
    uint64_t filled[PM_ARENA_UNITS / 64]; // lengths that have one
    struct pm_list age;                   // purgeable free runs, last freed first
    struct pm_list sparse;                // sparse arenas, the latest first
    size_t count, empty;                  // arenas; of these wholly free
    size_t used_units, resident_units;    // runs that wait in places are used
    struct pm_keep keep;
    struct pm_thp_sample sample;
};

// The first shard of each kind; long runs have one only.
enum pm_runs_kind { PM_RUNS_SMALL, PM_RUNS_LARGE = PM_RUN_SHARDS, PM_RUNS_COUNT };

extern struct pm_runs pm_runs[PM_RUNS_COUNT];

void pm_runs_start(void);

// The shard of a kind that the thread takes runs from.
struct pm_runs *pm_runs_home(enum pm_runs_kind kind);

// The shard that the run arena around an address is of, in a slot of the kind.
PM_INLINE struct pm_runs *pm_runs_of(enum pm_runs_kind kind, const void *at) {
    const uintptr_t bytes = PM_ARENA_UNITS << PM_RUN_UNIT_BITS;
    const struct pm_run_arena *const arena = (const void *)((uintptr_t)at & ~(bytes - 1));
    return &pm_runs[kind == PM_RUNS_SMALL ? arena->shard % PM_RUN_SHARDS : PM_RUNS_LARGE];
}

// Bytes of the longest run of a kind.
PM_INLINE size_t pm_run_max(enum pm_runs_kind kind) {
    return PM_RUN_UNITS_MAX << (kind == PM_RUNS_SMALL ? PM_RUN_UNIT_BITS : PM_LARGE_RUN_UNIT_BITS);
}

// A run of n bytes or more (1 to pm_run_max) at a multiple of align (a power of two; n + align is
// at most pm_run_max where it is larger than a unit), or NULL. With `zero` the n bytes read as
// zero. Of this shard, or of another of the kind where an arena would have to be made.
void *pm_run_malloc(struct pm_runs *runs, size_t n, size_t align, bool zero);

// The same for a run that will grow: at the head of a free run twice as long, where there is one.
void *pm_run_malloc_growing(struct pm_runs *runs, size_t n);

// Frees the run that starts at `at`, an address in a run arena of the kind.
enum pm_verdict pm_run_free(struct pm_runs *runs, void *at);

// Bytes of the run that starts at `at`; 0 and a verdict when none does.
size_t pm_run_size(struct pm_runs *runs, const void *at, enum pm_verdict *verdict);

// A short run that a thread has freed waits in a place of its heap, without any lock and as it is,
// for the thread's next request of a short one: that takes the run if it is of the same length, and
// gives it back if it is not, as others do from time to time. These give it back.
void pm_run_empty_place(struct pm_heap *heap);
void pm_run_empty_own_place(void);

// Does a place's word tell of a run that waits, as that is? For who holds the locks of all shards.
bool pm_run_is_waiting(uintptr_t word);

// Changes the length of a run in use where it is; false when its neighbour leaves no room.
bool pm_run_resize(struct pm_runs *runs, void *at, size_t n);

// Gives a run, just handed out, to a private heap, until it is freed.
void pm_run_set_owner(struct pm_runs *runs, void *at, struct pm_heap *owner);

// The private heap of a run in use that the caller has; NULL without one.
struct pm_heap *pm_run_owner(const struct pm_runs *runs, const void *at);

// The run in use whose link on its heap's list this is; and its bytes.
void *pm_run_of_link(const struct pm_runs *runs, struct pm_list *link, size_t *bytes);

// Purges free runs that are too much or too old.
void pm_runs_age(uint32_t now);

// Gives the pages of all free runs, and empty arenas, back to the OS. Returns bytes given back.
size_t pm_runs_trim(void);

// Start and length of the run, in use or free, that an address in a run arena lies in; for reports.
size_t pm_run_around(const struct pm_runs *runs, const void *at, const void **start, bool *free);

#endif

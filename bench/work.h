// SPDX-License-Identifier: MIT
// Copyright (c) the poolmalloc authors
//
// What the workloads share: their parameters, what each thread holds, and the small helpers of the
// timed loops. The workloads call plain malloc and free; memory of their own comes from mmap, so
// the allocator under test sees nothing but the blocks that the workload is about.

#ifndef PM_BENCH_WORK_H
#define PM_BENCH_WORK_H

#include "figures.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

// What the program writes into a block that it got.
enum bench_touch {
    BENCH_TOUCH_NONE,
    BENCH_TOUCH_BYTE,
    BENCH_TOUCH_WORD,
    BENCH_TOUCH_PAGES, // one byte of each page
    BENCH_TOUCH_ALL,
    BENCH_TOUCH_COUNT
};

enum bench_order { BENCH_ORDER_LIFO, BENCH_ORDER_FIFO, BENCH_ORDER_RANDOM, BENCH_ORDER_COUNT };

// How sizes from size to max are drawn: each doubling as often as another, or most of them small.
enum bench_spread { BENCH_SPREAD_EVEN, BENCH_SPREAD_SMALL, BENCH_SPREAD_COUNT };

// Counts are for all threads together.
struct bench_params {
    size_t threads;
    size_t operations;
    size_t live;     // blocks held at a time
    size_t size;     // bytes, the smallest request
    size_t max;      // the largest; 0: all are of `size`
    size_t align;    // the largest alignment asked for (aligned)
    size_t step;     // growth in bytes; 0: by half of the size (realloc)
    size_t lifetime; // operations of one thread before it ends (server, burst)
    size_t bytes;    // requested bytes held at a time (phases, drift, refill)
    size_t keep;     // of a thousand blocks, how many outlive the load (phases, sleepers, burst)
    size_t idle;     // seconds at rest between the two looks at resident memory (footprint modes)
    size_t seed;
    enum bench_touch touch;
    enum bench_order order;
    enum bench_spread spread;
};

enum { BENCH_SIZE_COUNT = 1024, BENCH_PAGE = 4096, BENCH_CACHE_LINE = 64 };

// One thread's share of the work. Sizes are drawn beforehand and gone through in turn; the table is
// small so that it doesn't push the blocks out of the cache.
struct bench_worker {
    const struct bench_params *params;
    size_t index;
    size_t operations;
    size_t live;
    void **slots;      // `live` of them, empty at the start
    uint32_t *turn;    // a permutation of the slots, where the order is random
    uint32_t *lengths; // bytes asked for by slot, where the mode rests
    uint32_t *sizes;
    uint64_t random;
};

struct bench_mode {
    const char *name;
    const char *isolates;
    struct bench_params defaults;
    void (*prepare)(const struct bench_params *params); // NULL where nothing is shared
    // Frees what its own slots hold; where the mode rests, keeps what survives the load and calls
    // bench_rest() at the end.
    void (*body)(struct bench_worker *worker);
    void (*finish)(void); // NULL, or frees what was shared
    bool rests;
    bool spawns; // starts its `threads` threads itself: one worker, on the main thread
};

// What was seen at rest, in place of what main sees at the end.
struct bench_at_rest {
    double end; // of the load
    struct rusage usage;
    long peak_kib;
    long idle_kib;
};

extern const struct bench_mode bench_pair, bench_bulk, bench_replace, bench_tree, bench_realloc,
    bench_calloc, bench_aligned;
extern const struct bench_mode bench_handoff, bench_remote, bench_server, bench_spawn;
extern const struct bench_mode bench_phases, bench_drift, bench_sleepers, bench_burst, bench_refill,
    bench_short;

_Noreturn void bench_fail(const char *what);

// Zeroed and faulted in, so that it costs nothing in the timed part.
void *bench_map(size_t bytes);

// All that bench_map() gave, which is resident and stays so.
long bench_mapped_kib(void);

// The end of a worker's load. All but the last of the `workers` sleep; the last one looks at the
// memory of the process, prints `live_kib=... after_kib=... anon_kib=...` as the sign that the load
// has ended, sleeps for `idle` seconds, looks again and wakes the others. Nobody calls the
// allocator meanwhile. `bytes` are those that the worker still holds.
void bench_rest(const struct bench_worker *worker, size_t workers, size_t bytes);

// Once all have rested.
struct bench_at_rest bench_at_rest(void);

static inline uint64_t bench_random(uint64_t *state) {
    uint64_t x = *state;
    x ^= x << 13;
    x ^= x >> 7;
    x ^= x << 17;
    return *state = x;
}

// Below 2^32.
static inline size_t bench_random_below(uint64_t *state, size_t bound) {
    return (size_t)(((bench_random(state) >> 32) * bound) >> 32);
}

static inline size_t bench_size(const struct bench_worker *worker, size_t operation) {
    return worker->sizes[operation % BENCH_SIZE_COUNT];
}

// A block that must be there, and that the compiler has to believe in.
static inline void *bench_block(void *block) {
    if (__builtin_expect(block == NULL, 0)) {
        bench_fail("the allocator returned NULL");
    }
    __asm__ volatile("" : : "r"(block) : "memory");
    return block;
}

static inline __attribute__((always_inline)) void bench_write(void *block, size_t size,
                                                              enum bench_touch touch) {
    switch (touch) {
    case BENCH_TOUCH_BYTE: *(volatile char *)block = 1; break;
    case BENCH_TOUCH_WORD: *(volatile uint64_t *)block = size; break;
    case BENCH_TOUCH_PAGES:
        for (size_t offset = 0; offset < size; offset += BENCH_PAGE) {
            ((volatile char *)block)[offset] = 1;
        }
        break;
    case BENCH_TOUCH_ALL:
        memset(block, 1, size);
        __asm__ volatile("" : : "r"(block) : "memory");
        break;
    case BENCH_TOUCH_NONE:
    case BENCH_TOUCH_COUNT: break;
    }
}

#endif

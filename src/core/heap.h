// SPDX-License-Identifier: MIT
// Copyright (c) the poolmalloc authors

// Heaps: owners of pools. A thread has one, one serves the threads that have ended, and the program
// makes private ones (core/private.h).
//
// Without a lock, the thread that uses a heap touches the current pool of each class and the
// headers of pools that the heap owns. The bins are under the heap's lock, which is taken at
// misses, so that fork, trim and the end of the thread can enter.

#ifndef PM_CORE_HEAP_H
#define PM_CORE_HEAP_H

#include "core/lock.h"
#include "core/pool.h"
#include "core/run.h"
#include "core/thread.h"
#include "core/verdict.h"

#define PM_CLASS_WORDS ((PM_CLASS_COUNT + 63) / 64)

// Blocks of one pool that a thread has freed and not pushed yet (core/remote.h).
struct pm_chain {
    uint64_t word;  // how many, and the first one, as in a remote word without flags; 0: none
    uintptr_t last; // where there is a first one
};

struct pm_heap {
    struct pm_pool *lane[PM_LANE_COUNT]; // current pools; PM_NO_POOL where there is none
    struct pm_lock lock;
    uint32_t guests;                      // classes whose lanes hold another's; under `lock`
    uint64_t were_guests[PM_CLASS_WORDS]; // classes that were; likewise
    struct pm_list bin[PM_CLASS_COUNT];   // pools with room, longest waiting first; under `lock`
    uint32_t listed[PM_CLASS_COUNT];      // pools in the bin; likewise
    struct pm_list rest;                  // all of them, looked at longest ago first; likewise
    size_t listed_bytes;                  // of these; likewise
    size_t listed_most;                   // the most of them so far; likewise
    size_t inside_purged;           // bytes purged inside of its pools as it grew; by its thread
    size_t inside_restored;         // bytes purged inside that were needed again; likewise
    struct pm_list every;           // all heaps; under the heaps' lock
    struct pm_list idle;            // heaps of ended threads, to be used again; likewise
    uint64_t freed[PM_CLASS_WORDS]; // classes in whose bin others have freed all of a pool; atomic
    uintptr_t latest;               // the run that its thread freed last (core/run.c); atomic
    bool in_miss;                   // its thread is in one, or was thrown out of one
    bool ended;                     // idle; of a private heap, destroyed
    bool is_private;                // what follows `user` is of use; never changes
    bool chains_closed;             // to its thread (core/remote.h); under `lock`
    uint64_t misses;                // written by its thread
    struct pm_run_home home;        // where its thread takes short runs from
    // The words of its thread, NULL while idle or private; written under `lock`.
    struct pm_thread *user;

    // A private heap is used by one thread at a time, which the program sees to. It keeps its FULL
    // pools, and knows its large blocks, which may be freed by others.
    void *context;                      // the program's
    struct pm_list full;                // FULL pools, full longest first; under `lock`
    struct pm_pool *told;               // of these, those into which others free; atomic
    size_t pool_bytes;                  // of its pools; written by who uses it
    struct pm_list runs[PM_RUNS_COUNT]; // its runs; each under the lock of the shard
    struct pm_list huge;                // its huge blocks; under their lock
    size_t large_blocks, large_bytes;   // of both; atomic

    struct pm_chain chain[PM_CHAINS]; // of no use in a private heap
};

// Marks the thread-local word of a thread that has ended: its requests go to pm_ended_heap.
#define PM_HEAP_ENDED ((struct pm_heap *)1)

struct pm_heaps {
    struct pm_lock lock;
    struct pm_list every;
    struct pm_list idle;
    size_t count;
    struct pm_heap *looked_at; // the last one that pm_heaps_reclaim looked at
    size_t unseen;             // heaps that it has not looked at yet in this round; atomic
    bool has_barrier;          // a thread may ask for pm_os_barrier; stays
    struct pm_heap *noted[1 << PM_NOTED_BITS]; // by the words of their threads, the last one each
    struct pm_list private_heaps;              // of the program; not among those above
    struct pm_list private_idle;               // such that have ended, to be used again
    // Pools whose heap ended, by class.
    struct pm_abandoned {
        struct pm_lock lock;
        struct pm_list pools; // under `lock`
        size_t count;         // of them; written under `lock`
    } abandoned[PM_CLASS_COUNT];
};

extern struct pm_heaps pm_heaps;

// What every lane holds before it has a pool: never has a block. Never written.
extern const struct pm_pool pm_no_pool_header;
#define PM_NO_POOL ((struct pm_pool *)&pm_no_pool_header)
// The two empty heaps of pm_thread.fast. Only their lanes are ever looked at, and never written.
extern struct pm_pool *const pm_empty_lanes[PM_LANE_COUNT + 1];
#define PM_BUSY_HEAP ((struct pm_heap *)&pm_empty_lanes[0])
#define PM_NO_HEAP   ((struct pm_heap *)&pm_empty_lanes[1])
// The heap of all threads that have ended, used under pm_ended_lock.
extern struct pm_heap pm_ended_heap;
extern struct pm_lock pm_ended_lock;

void pm_heaps_start(void);

// A heap for the calling thread, whose words it keeps: one of an ended thread, one that a thread
// with the same words left open, or a new one. NULL without memory.
struct pm_heap *pm_heap_open(void);
// Abandons all pools of a heap, gives back the run that waits, and makes it idle.
void pm_heap_close(struct pm_heap *heap);

// A private heap, and its end: all its pools go back with the blocks in them, without a look at
// any. Large blocks have gone before.
struct pm_heap *pm_heap_begin_private(void *context);
void pm_heap_end_private(struct pm_heap *heap);

// Calls `act` for each pool of a private heap, which may take the pool out of it, until one answers
// something else than 0. Returns the last answer. The caller uses the heap.
int pm_heap_each_pool(struct pm_heap *heap,
                      int (*act)(struct pm_heap *heap, struct pm_pool *pool, void *arg), void *arg);

// So many large blocks and bytes more; modulo SIZE_MAX + 1, so also fewer.
PM_INLINE void pm_heap_count_large(struct pm_heap *heap, size_t blocks, size_t bytes) {
    __atomic_fetch_add(&heap->large_blocks, blocks, __ATOMIC_RELAXED);
    __atomic_fetch_add(&heap->large_bytes, bytes, __ATOMIC_RELAXED);
}

// Is the owner of a pool a private heap? Heaps are never unmapped.
PM_INLINE bool pm_heap_is_private(const struct pm_heap *owner) {
    return owner != PM_OWNER_NOBODY && owner != PM_OWNER_ARENA && owner->is_private;
}

// Blocks of a pool that the program has; read while others may free.
PM_INLINE uint32_t pm_pool_in_use(const struct pm_pool *pool) {
    return pm_get(&pool->owned.used) -
           (uint32_t)(pm_get(&pool->remote.word) >> PM_REMOTE_COUNT_SHIFT) -
           (pm_get(&pool->shared.state) == PM_POOL_CURRENT);
}

// Gives back the pools, and the run, that the heap only holds for its next request, and purges
// inside of its current and listed pools, what rests or all. The caller uses the heap. Returns
// bytes purged inside.
size_t pm_heap_trim_pools(struct pm_heap *heap, bool all);

// As the heap's memory grows by so many bytes: looks at some of its listed pools, and purges inside
// where it is due. The caller uses the heap.
void pm_heap_purge_inside(struct pm_heap *heap, size_t grown);

// A block of the class, or of a larger one unless it must be `exact`, after the fast path found
// none; 0 without memory. The caller uses the heap. `*damaged` is set to the free block whose link
// was overwritten, where that is found.
uintptr_t pm_heap_take_block(struct pm_heap *heap, pm_class class, bool exact, uintptr_t *damaged);

// Frees a block of a pool arena, by a thread that uses `heap`. Anything but PM_DONE changed
// nothing.
enum pm_verdict pm_heap_free_block(struct pm_heap *heap, void *block, unsigned bits);

// The usual remote free: of a sound block into a pool that another heap owns. Called as the fast
// paths are. False: not done, and the block may have lost its first word.
bool pm_heap_push_remote(void *block, unsigned bits);

// In the bin of the class there may be a pool of which all blocks are free. By any thread.
void pm_heap_tell_freed(struct pm_heap *heap, pm_class class);

// The rare end of a local free that has been done: the pool's count of used blocks has reached 0.
// The heap is the one that the free has found as the pool's owner, which others may hide meanwhile.
// False when that can't be: more blocks were freed than were handed out.
bool pm_heap_pool_emptied(struct pm_heap *heap, struct pm_pool *pool);

// Is this a block in use, in a pool arena? If not, what else. Reads only.
enum pm_verdict pm_heap_prove(const void *block, unsigned bits);

#endif

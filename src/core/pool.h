// SPDX-License-Identifier: MIT
// Copyright (c) the poolmalloc authors

// Pools: their headers, free lists and states.
//
// A pool arena is a slot cut into pools of one size. The headers of all its pools stand at its
// head, in the place of pool 0, which never exists; its last page is never handed out, so that an
// overflow out of its last block ends in nobody's memory.
//
//     slot start                                                             slot end
//     | head | header 1 | header 2 | ... |  pool 1  |  pool 2  | ... |  last pool  |page|
//
// A header has four cache lines: one that only the owner of the pool writes and reads in its fast
// paths, one that all threads read and that changes with the pool's class or owner only, one that
// others' frees write, and one for rare things.
//
// States, and the functions that change them:
//
//     UNUSED, FREE -> CURRENT    pm_arena_take, then the heap (core/heap.c: set_current)
//     CURRENT -> FULL            detach: no block is left, the pool leaves its heap
//     FULL, ABANDONED -> LISTED  core/remote.c, adopt: a free of one of its blocks takes it for the
//                                freeing heap, when it was last that heap's, or the heap has none
//                                listed
//     FULL -> ABANDONED          adopt, otherwise: whichever heap misses next may have it
//     CURRENT -> FULL, LISTED    the same in a private heap, which keeps its FULL pools
//                                (keep_full); the first free into one of them lists it
//                                (pm_heap_leave_full)
//     LISTED -> CURRENT          set_current
//     CURRENT, LISTED -> ABANDONED   pm_pool_abandon: the heap ended
//     ABANDONED -> CURRENT       take_abandoned: a miss of any heap
//     ABANDONED -> ABANDONED, FREE   core/reclaim.c: purge_abandoned, which owns it for a moment
//     LISTED, ABANDONED, FULL -> FREE  the last block was freed
//     CURRENT, LISTED, FULL -> FREE    pm_heap_end_private: with all blocks of a private heap
//     CURRENT -> FREE            pm_heap_trim_pools, pm_heaps_reclaim, pm_pool_abandon: no block
//                                was handed out
//     UNUSED -> PURGING          core/arena.c: huge pages have made it resident
//     FREE <-> PURGING           core/arena.c: its pages go back to the OS
//
// Equations, audited by check/audit.c. For a pool with an owner, when no free is under way:
//     carved blocks = blocks on the list + blocks on the remote list
//                     + blocks put away (core/inner.h) + blocks handed out
//     used = blocks handed out + blocks on the remote list + (1 when CURRENT)
// (a chained block, see core/remote.h, is handed out still), so that `used` reaches 0 only when a
// pool that nobody allocates from has lost its last block.

#ifndef PM_CORE_POOL_H
#define PM_CORE_POOL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/atomic.h"
#include "base/attributes.h"
#include "base/list.h"
#include "config/limits.h"
#include "core/classes.h"
#include "core/map.h"
#include "core/thp.h"

struct pm_heap;

enum pm_pool_state {
    PM_POOL_UNUSED,  // its header was never written
    PM_POOL_FREE,    // no block is handed out; on its arenas' lists
    PM_POOL_CURRENT, // the pool that its heap serves a class from
    PM_POOL_LISTED,  // in a bin of its heap: has free blocks, or had when it was put there
    PM_POOL_FULL,    // every block is handed out; nobody's, on no list; or a private heap's, on its
                     // list of full ones
    PM_POOL_ABANDONED, // nobody's, with room; on the list of its class
    PM_POOL_PURGING,   // free, off all lists while its pages are given back
};

// Values of a pool's owner that are no heap.
#define PM_OWNER_NOBODY ((struct pm_heap *)0)
#define PM_OWNER_ARENA  ((struct pm_heap *)1) // FREE pools: whoever frees a block of it is wrong

// The remote word: one atomic that other threads' frees change.
//
//     63        48 47                              4      2         1         0
//     |   count   | first block of the remote list  | telling | waiting | owned |
//
// Without the owned bit, the pool is nobody's, and who sets the bit takes the pool. The waiting bit
// tells ABANDONED pools, to which frees only push, from FULL ones, which the next free takes.
//
// With the owned bit, waiting means FULL in a private heap, which does not look for room there. Who
// frees into it turns waiting into telling, puts the pool on the heap's list of those that it is
// told of, and then pushes the block. So the pool is on that list, or about to be, while it is
// telling, and neither given back nor told of twice. The heap clears the bit when it takes the pool
// off that list.
#define PM_REMOTE_OWNED       UINT64_C(1)
#define PM_REMOTE_WAITING     UINT64_C(2)
#define PM_REMOTE_TELLING     UINT64_C(4)
#define PM_REMOTE_FLAGS       UINT64_C(7)
#define PM_REMOTE_COUNT_SHIFT 48
#define PM_REMOTE_ONE         (UINT64_C(1) << PM_REMOTE_COUNT_SHIFT)
#define PM_REMOTE_LIST_MASK   ((UINT64_C(1) << PM_REMOTE_COUNT_SHIFT) - 1 - (PM_BLOCK_ALIGN - 1))

// Written by the owner in its fast paths; read by statistics.
struct pm_pool_owned {
    uintptr_t list;      // first free block, 0 at the end
    uint64_t key;        // copy of pm_pool_shared.key
    uint32_t used;       // see the equations above
    uint32_t end;        // bytes that whole blocks fill; carving ends there
    uint32_t touched;    // bytes from the start that may be resident
    uint32_t freed_at;   // FREE: when (milliseconds); under the arenas' lock
    struct pm_list link; // LISTED: bin, under the heap's lock. ABANDONED: under its class's lock.
                         // FULL, of a private heap: its full ones, under the heap's lock.
                         // FREE: resident pools, under the arenas' lock
    uint64_t reserved[2];
};

// Read by every free, rarely written.
struct pm_pool_shared {
    struct pm_heap *owner; // relaxed; a thread finds its own heap here only while that is true
    uint64_t key;          // links of the free lists are xored with it
    uint64_t divisor;      // of its class; 0 while the pool has none
    uint64_t bound;  // carved * divisor; 0 while nothing is carved, a page is purged inside, or
                     // the pool is FULL in a private heap, which fails every check
    uint32_t carved; // bytes from the start that were made into blocks
    pm_class class;
    uint8_t state; // enum pm_pool_state
    uint8_t bits;  // pool size
    uint8_t chain; // blocks that a thread may hold back before it pushes them (core/remote.h)
    uint64_t serial;      // how often the pool was taken; makes keys differ
    struct pm_heap *home; // the heap that had it last; a hint, never followed
    uint64_t reserved;
};

// Written by frees of threads that are not the owner.
struct pm_pool_remote {
    uint64_t word;        // the remote word
    struct pm_pool *told; // the next pool of those that its private heap is told of
    uint64_t reserved[6];
};

#define PM_PAGE_BYTES_MIN     4096
#define PM_POOL_PAGE_WORDS    (PM_POOL_BYTES(PM_MEDIUM_POOL_BITS) / PM_PAGE_BYTES_MIN / 64)
#define PM_INNER_NEVER_LOOKED UINT32_MAX
// Of `looks`: all was purged that can be, or the OS has refused some.
#define PM_INNER_DONE    UINT32_MAX
#define PM_INNER_REFUSED (PM_INNER_DONE - 1)

// Written by the owner at misses, or by who has made sure that it is at none (core/inner.h).
struct pm_pool_inner {
    uint64_t purged[PM_POOL_PAGE_WORDS]; // pages purged inside: their blocks are put away
    uint32_t away;                       // blocks put away: free, and on no list
    uint32_t seen_used;                  // its count of blocks in use when it was looked at last
    uint32_t looks;                      // since that has changed; or DONE, or REFUSED
    struct pm_list rest; // LISTED: all of the heap's, looked at longest ago first; under its lock
    uint32_t is_marked;  // pm_arena_mark_due
    uint32_t unused[3];
};

struct pm_pool {
    struct pm_pool_owned owned;
    struct pm_pool_shared shared;
    struct pm_pool_remote remote;
    struct pm_pool_inner inner;
};

_Static_assert(sizeof(struct pm_pool_owned) == PM_LINE_BYTES, "the owner's line is one line");
_Static_assert(sizeof(struct pm_pool_shared) == PM_LINE_BYTES, "the shared line is one line");
_Static_assert(sizeof(struct pm_pool_remote) == PM_LINE_BYTES, "the remote line is one line");
_Static_assert(sizeof(struct pm_pool_inner) == PM_LINE_BYTES, "headers are a power of two apart");

// The arena's own fields, where pool 0's first line would be; under the arenas' lock.
struct pm_arena_head {
    struct pm_list link;  // arenas with as many free pools
    struct pm_list every; // all arenas of its kind
    uint64_t free;        // set of free pools, without those being purged
    uint64_t opened;      // set of pools whose header was written
    uint32_t bits;        // pool size
    uint32_t pools;       // number of pools; they are 1 to pools
    uint64_t due;         // while it asks for huge pages: set of pools that are to be purged inside
};

struct pm_arena {
    struct pm_arena_head head;
    // Refuses every address in the place of pool 0 by the checks that all pools have.
    struct pm_pool_shared none;
    struct pm_pool_remote none_remote;
    struct pm_thp_arena thp; // under the arenas' lock
    uint64_t reserved[3];
    struct pm_pool pool[]; // pool i stands at i - 1
};

_Static_assert(sizeof(struct pm_arena_head) == PM_LINE_BYTES, "the head takes the place of a line");
_Static_assert(offsetof(struct pm_arena, none) == offsetof(struct pm_pool, shared), "as a pool");
_Static_assert(offsetof(struct pm_arena, pool) == sizeof(struct pm_pool), "headers are an array");

PM_INLINE struct pm_arena *pm_arena_of(const void *at) {
    return (struct pm_arena *)pm_slot_of(at);
}

// The header for an address in a pool arena.
PM_INLINE struct pm_pool *pm_pool_of(const void *at, unsigned bits) {
    const size_t index = ((uintptr_t)at & PM_SLOT_MASK) >> bits;
    return (struct pm_pool *)pm_slot_of(at) + index;
}

PM_INLINE unsigned pm_pool_index(const struct pm_pool *pool) {
    return (unsigned)(((uintptr_t)pool & PM_SLOT_MASK) / sizeof *pool);
}

PM_INLINE uintptr_t pm_pool_base(const struct pm_pool *pool) {
    return pm_slot_of(pool) + ((size_t)pm_pool_index(pool) << pool->shared.bits);
}

// A link is the next block's address, or 0, xored with the key. Key and address differ in the top
// bits and in the low four, so that neither what a program stores nor a cleared word looks like a
// link.
typedef uint64_t __attribute__((may_alias)) pm_link;
typedef uint32_t __attribute__((may_alias)) pm_link_half;

#define PM_KEY_BITS (UINT64_C(1) << 63 | 1)

PM_INLINE void pm_link_write(uintptr_t block, uintptr_t next, uint64_t key) {
    pm_set((pm_link *)block, next ^ key);
}

PM_INLINE uintptr_t pm_link_read(uintptr_t block, uint64_t key) {
    return pm_get((const pm_link *)block) ^ key;
}

// True when `next` is a place for a block in the pool of `block`, or the end of the list.
PM_INLINE bool pm_link_sound(uintptr_t next, uintptr_t block, unsigned bits) {
    const uintptr_t inside = PM_POOL_BYTES(bits) - PM_BLOCK_ALIGN;
    return PM_LIKELY(((next ^ block) & ~inside) == 0) || next == 0;
}

// True when the first word of a block could be a link: its upper half, read alone because a read of
// all eight bytes would wait for a shorter write of the program, has the key's unused address bits.
PM_INLINE bool pm_link_suspected(uintptr_t block, uint64_t key) {
    const uint32_t upper = pm_get((const pm_link_half *)(block + 4)) ^ (uint32_t)(key >> 32);
    return PM_UNLIKELY((upper >> (PM_ADDRESS_BITS - 32)) == 0);
}

// True when a block of the pool starts at this offset, and was carved. An offset between two blocks
// makes a product above that of every block.
PM_INLINE bool pm_pool_has_block(const struct pm_pool *pool, size_t offset) {
    return PM_LIKELY(offset * pm_get(&pool->shared.divisor) < pm_get(&pool->shared.bound));
}

// The same for pools whose bound is 0 meanwhile.
PM_INLINE bool pm_pool_has_carved(const struct pm_pool *pool, size_t offset) {
    const uint64_t divisor = pm_get(&pool->shared.divisor);
    return offset * divisor < pm_get(&pool->shared.carved) * divisor;
}

PM_INLINE void pm_pool_set_carved(struct pm_pool *pool, uint32_t carved) {
    pm_set(&pool->shared.carved, carved);
    pm_set(&pool->shared.bound, carved * pm_get(&pool->shared.divisor));
}

// Takes the first block off the list; 0 when there is none or the list is damaged.
// A thread that stops anywhere in here, for ever, loses at most this block.
PM_INLINE uintptr_t pm_pool_pop(struct pm_pool *pool, unsigned bits) {
    const uintptr_t block = pm_get(&pool->owned.list);
    if (PM_UNLIKELY(block == 0)) {
        return 0;
    }
    const uintptr_t next = pm_link_read(block, pool->owned.key);
    if (PM_UNLIKELY(!pm_link_sound(next, block, bits))) {
        return 0;
    }
    // The next malloc reads it; another thread may have written it last.
    __builtin_prefetch((const void *)next, 1);
    pm_set(&pool->owned.list, next);
    pm_signal_fence();
    pm_count_up(&pool->owned.used);
    pm_set((pm_link *)block, 0);
    return block;
}

// Puts a block on the list; true when it was the last one that kept the pool from being free.
// A thread that stops anywhere in here, for ever, loses at most this block.
PM_INLINE bool pm_pool_push(struct pm_pool *pool, uintptr_t block) {
    pm_link_write(block, pm_get(&pool->owned.list), pool->owned.key);
    const bool last = pm_count_down(&pool->owned.used);
    pm_signal_fence();
    pm_set(&pool->owned.list, block);
    return last;
}

#endif

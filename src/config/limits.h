// SPDX-License-Identifier: MIT
// Copyright (c) the poolmalloc authors

// Every number of the library that is tuned, once.

#ifndef PM_CONFIG_LIMITS_H
#define PM_CONFIG_LIMITS_H

// User addresses: the kernel hands out more bits only to programs that ask for them by hint.
#if defined(__aarch64__)
#    define PM_ADDRESS_BITS 48
#else
#    define PM_ADDRESS_BITS 47
#endif

#define PM_LINE_BYTES  64
#define PM_BLOCK_ALIGN 16

// The address map: a kind for each slot; a leaf of slots is a page.
#define PM_SLOT_BITS  22
#define PM_SLOT_BYTES ((size_t)1 << PM_SLOT_BITS)
#define PM_SLOT_MASK  (PM_SLOT_BYTES - 1)
#define PM_LEAF_BITS  12
#define PM_LEAF_SLOTS ((size_t)1 << PM_LEAF_BITS)
#define PM_LEAF_COUNT ((size_t)1 << (PM_ADDRESS_BITS - PM_SLOT_BITS - PM_LEAF_BITS))

// The window of the map, 4 TiB: most of it below the first mapping, since the kernel maps top down.
#define PM_WINDOW_LEAVES ((size_t)256)
#define PM_WINDOW_BELOW  ((size_t)192)

// Size classes: 16 bytes apart to LINEAR_MAX, then eight to a doubling.
#define PM_LINEAR_MAX 512
#define PM_SMALL_MAX  8192
#define PM_MEDIUM_MAX 65536

// Pools of the two kinds of pool arena. An arena has at most 64 pools: a set of them is a word.
#define PM_SMALL_POOL_BITS   16
#define PM_MEDIUM_POOL_BITS  19
#define PM_POOL_BYTES(bits)  ((size_t)1 << (bits))
#define PM_ARENA_POOLS(bits) ((size_t)1 << (PM_SLOT_BITS - (bits)))
#define PM_ARENA_POOLS_MAX   PM_ARENA_POOLS(PM_SMALL_POOL_BITS)

// Classes up to this may be guests in the pool of a larger one.
#define PM_GUEST_MAX 1024

// Remote frees that a thread holds back: for so many pools at a time, so many blocks of each, of so
// many bytes together. Larger blocks are not held back, nor those of a pool that has no more than
// CHAIN_LAST chains of blocks in use: the last ones would keep it.
#define PM_CHAINS       64
#define PM_CHAIN_BLOCKS 16
#define PM_CHAIN_BYTES  2048
#define PM_CHAIN_LAST   4

// Classes from this on borrow blocks up to 1/LEND_MORE larger before they touch fresh memory.
#define PM_LEND_MIN  1024
#define PM_LEND_MORE 2

// Run arenas, of two kinds: page runs of whole units, up to about half an arena.
#define PM_ARENA_UNITS         ((size_t)256)
#define PM_RUN_UNITS_MAX       ((PM_ARENA_UNITS - 1) / 2)
#define PM_RUN_UNIT_BITS       14
#define PM_LARGE_RUN_UNIT_BITS 19

// A miss takes the best of PICK_LOOK of its pools. Where it has as many, it passes by those that
// have less than 1/PICK_FREE_MIN of their blocks free, at most PICK_PASS at a time: a miss for
// every few blocks costs more than the memory of another pool. Abandoned pools are passed by below
// 1/PICK_ABANDONED_MIN.
#define PM_PICK_LOOK          4
#define PM_PICK_FREE_MIN      64
#define PM_PICK_ABANDONED_MIN 16
#define PM_PICK_PASS          16

// Memory that is already resident is carved in steps of this, fresh memory by the page.
#define PM_CARVE_RESIDENT_BYTES ((size_t)8 << 10)

// Free memory that may stay resident: the larger of a floor and a share of what is in use, and this
// many times what was purged in vain; of that no more than an amount and so many times what all
// kinds have in use. A thread keeps the run that it freed last besides, of up to its share of the
// first two.
#define PM_KEEP_BYTES         ((size_t)4 << 20)
#define PM_KEEP_SHARE         4
#define PM_KEEP_VAIN          4
#define PM_KEEP_EXTRA         ((size_t)16 << 20)
#define PM_KEEP_TIMES         4
#define PM_KEEP_STEP          ((size_t)1 << 20) // of growth, at which all kinds look what they keep
#define PM_KEEP_KINDS         5                 // two of pools, two of runs, huge blocks
#define PM_PURGE_DELAY_MS     1000
#define PM_PURGE_DELAY_MAX_MS ((size_t)24 * 3600 * 1000)
#define PM_PURGE_BATCH        16

// New arenas ask for transparent huge pages once this much of their kind is in use, and refuse them
// before: half of a huge page is wasted on average, 1 % of this; and where the host of a virtual
// machine has taken memory back, the first touch of a huge page is dear, and pays in heaps that
// last.
#define PM_THP_FROM ((size_t)128 << 20)

// A huge page is resident as a whole, so no arena asks unless the program touches what it has, but
// for one part of THP_WASTE. That is seen in an arena that refuses: one after at most THP_ASKING
// that ask.
#define PM_THP_WASTE  32
#define PM_THP_ASKING 8

// And no more from here on: arenas that ask and such that refuse are up to two mappings each, of
// which a process has 65530.
#define PM_THP_UPTO ((size_t)32 << 30)

// An arena that asks for huge pages is sparse when it has this share of what is in use free and
// resident, or more.
#define PM_THP_SPARSE 8

// Heaps that a look at sleeping threads takes in, and how many such looks there are at most in a
// purge delay, until all heaps have had theirs: each holds up the thread that makes it.
#define PM_RECLAIM_HEAPS ((size_t)16)
#define PM_RECLAIM_PARTS 32

// Of threads that share one of 2^NOTED_BITS places by their addresses, the heap of the last one is
// noted.
#define PM_NOTED_BITS 6

// Listed pools are purged inside where at least 1/INNER_SHARE may be gained, when INNER_REST looks
// have found the same number of blocks in use. INNER_LOOK are looked at when a heap takes another
// pool, or has more of them than ever, if there are INNER_LEAST bytes of them, and while less than
// 1/INNER_VAIN of what was purged was needed again. INNER_POOLS are looked at by age; no more than
// INNER_BYTES are purged at once.
#define PM_INNER_SHARE 4
#define PM_INNER_REST  2
#define PM_INNER_LOOK  8
#define PM_INNER_LEAST ((size_t)4 << 20)
#define PM_INNER_VAIN  4
#define PM_INNER_POOLS ((size_t)4096)
#define PM_INNER_BYTES ((size_t)16 << 20)

// The background thread: its shortest sleep, and its stack.
#define PM_BACKGROUND_LEAST_MS    ((size_t)100)
#define PM_BACKGROUND_STACK_BYTES ((size_t)256 << 10)

// What a limit of a control group leaves to others than the heap; and the share of the soft limit
// that must be free before it goes back.
#define PM_LIMIT_OTHERS 16
#define PM_LIMIT_STEP   64

// Where no free pool was the class's own, it takes the least touched one of so many.
#define PM_FIT_LOOK 8

// The clock is a system call, so the OS is asked for it a few times in a millisecond at most, as
// the processor's counter tells. That costs some nanoseconds as well: a thread looks once in this
// many misses of malloc, and frees of a pool's last block or of a large one.
#define PM_CLOCK_EVERY 4

// How much older one thread's look at it may be than another's.
#define PM_CLOCK_SKEW_MS 60000

// Freed huge blocks kept for the next requests, and the smallest piece of one that is.
#define PM_HUGE_CACHE_COUNT 32
#define PM_HUGE_SPLIT_MIN   ((size_t)256 << 10)

// Metadata is cut from pieces of this.
#define PM_META_CHUNK_BYTES ((size_t)64 << 10)

// The first pieces of memory for signal handlers that allocate inside an interrupted malloc.
#define PM_EMERGENCY_BYTES ((size_t)64 << 10)

// A thread that finds a lock taken looks at it for such a part of a millisecond before it sleeps.
// Locks are held for less but where the holder was stopped; a wake-up costs as much, and tends to
// put the thread on its waker's processor, where both wait in turns while another one is idle.
#define PM_LOCK_SPIN_PART 16

// Short runs are in so many shards at most. A thread moves to another one where it has had to wait
// for the lock at so many of so many takes, has freed so many of its own meanwhile, and no more
// than so many that others took.
#define PM_RUN_SHARDS   8
#define PM_SHARD_LOOK   1024
#define PM_SHARD_WAITS  128
#define PM_SHARD_OWN    512
#define PM_SHARD_OTHERS 16

// How often one that ends or walks a private heap waits for those that free what handlers left.
#define PM_SETTLE_YIELDS 100000

#define PM_PATH_MAX 1024
#define PM_LINE_MAX 512

// Bytes of a name in a section of the statistics.
#define PM_SECTION_NAME_MAX 64

#endif

// SPDX-License-Identifier: MIT
// Copyright (c) the poolmalloc authors

// Remote frees: of blocks in pools that the thread does not own.
//
// A block reaches its pool by one atomic step on the pool's remote word, which waits for all that
// the thread has stored before, and so for the block's own line. To take that step for several
// blocks at once, the heap of the thread that frees first chains small blocks of the same pool:
//
//     heap    chain[i]: count and first block | last block
//     first block -> ... -> last block -> end       links as those of the pool's free lists
//
// To its pool a chained block is in use still. A chain is sent when it is full and another block
// comes, when a block of another pool needs its place, when the thread ends or trims, and when
// someone ages the memory of threads that sleep. A pool of which a block is chained is not given
// back; a private heap's may be at any time, and so its blocks are never chained. Nor are those of
// a pool that is about to lose its last ones, nor any where memory is limited, or where nobody
// could send what a sleeping thread has chained.
//
// A chain is read and written by its heap's thread, which has marked itself busy, and then has
// found the heap's chains open; and by who holds the heap's lock, has closed them, and has found
// the thread outside of the library since (core/reclaim.c). All may read it. A thread that stops
// anywhere in here, for ever, loses at most a chain.

#ifndef PM_CORE_REMOTE_H
#define PM_CORE_REMOTE_H

#include "core/heap.h"
#include "core/limit.h"

PM_INLINE struct pm_chain *pm_chain_of(struct pm_heap *heap, uintptr_t block) {
    const uintptr_t pool = block >> PM_SMALL_POOL_BITS;
    return &heap->chain[(pool ^ pool >> (PM_SLOT_BITS - PM_SMALL_POOL_BITS)) % PM_CHAINS];
}

PM_INLINE uintptr_t pm_chain_first(uint64_t word) {
    return word & PM_REMOTE_LIST_MASK;
}

PM_INLINE uint32_t pm_chain_count(uint64_t word) {
    return (uint32_t)(word >> PM_REMOTE_COUNT_SHIFT);
}

// How many blocks of a pool a chain takes; 0 where each is pushed at once.
PM_INLINE uint8_t pm_chain_most(const struct pm_heap *owner, size_t size) {
    const size_t most = owner->is_private || pm_limit_is_set() ? 0 : PM_CHAIN_BYTES / size;
    return most < 2 ? 0 : (uint8_t)pm_min(most, PM_CHAIN_BLOCKS);
}

// Frees a block of a pool that another heap owns, or none, by a thread that uses `heap`.
void pm_remote_free(struct pm_heap *heap, struct pm_pool *pool, uintptr_t block);

// Sends all chains of a heap, whose lock is held. The caller uses the heap, or has closed its
// chains and found its thread outside.
void pm_chains_send(struct pm_heap *heap);

// From now on the heap's thread chains no block, when it comes back from outside. True when there
// are chains to be sent. Under the heap's lock.
bool pm_chains_close(struct pm_heap *heap);
void pm_chains_open(struct pm_heap *heap);

// Is the block chained by any heap? Read while others may change the chains. True is certain, as
// for the lists of a pool.
bool pm_chains_lead_to(const struct pm_pool *pool, uintptr_t block);

// Is the block on this list of its pool? Read while others may change the list: links are followed
// only where they are sound, and a list that leads to the block proves that it is free, since a
// block in use is on no list while its free has not been done.
bool pm_list_leads_to(const struct pm_pool *pool, uintptr_t from, uintptr_t block);

#endif

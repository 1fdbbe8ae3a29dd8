// SPDX-License-Identifier: MIT
// Copyright (c) the poolmalloc authors

#include "core/remote.h"

#include "core/abandoned.h"
#include "core/arena.h"
#include "core/heap_pools.h"
#include "core/misuse.h"

static struct pm_chain one_block(uintptr_t block) {
    return (struct pm_chain){ .word = PM_REMOTE_ONE + block, .last = block };
}

// FULL or ABANDONED -> LISTED, ABANDONED or FREE: blocks are freed into a pool that is nobody's.
// `heap` may have it; NULL: it stays nobody's. Under the lock of a heap, so that no fork finds the
// pool between two owners. False when the remote word has changed, and nothing else did.
static bool adopt(struct pm_heap *heap, struct pm_pool *pool, const struct pm_chain *chain,
                  uint64_t *remote) {
    const bool listed = (*remote & PM_REMOTE_WAITING) != 0;
    const pm_class class = pool->shared.class;
    if (!pm_pool_claim(pool, remote)) {
        return false;
    }
    if (listed) {
        pm_abandoned_remove(pool);
    }
    // From now on others tell this heap when they seem to have freed the last block.
    pm_set(&pool->shared.owner, heap);
    pm_link_write(chain->last, pool->owned.list, pool->owned.key);
    pm_add(&pool->owned.used, -pm_chain_count(chain->word));
    pm_signal_fence();
    pm_set(&pool->owned.list, pm_chain_first(chain->word));
    if (pm_pool_remote_count(pool) == pool->owned.used) {
        pm_pool_collect(pool);
        pm_arena_give_back(pool);
    } else if (heap != NULL &&
               (pm_get(&pool->shared.home) == heap || pm_list_empty(&heap->bin[class]))) {
        pm_set(&pool->shared.home, heap);
        pm_heap_list_freed_into(heap, pool);
    } else {
        pm_pool_abandon(pool);
    }
    return true;
}

// The first free by another into a FULL pool of a private heap, whose block is in use still.
// *remote tells what the remote word is then.
static void tell_room(struct pm_pool *pool, uint64_t *remote) {
    const uint64_t telling = (*remote & ~PM_REMOTE_WAITING) | PM_REMOTE_TELLING;
    if (!__atomic_compare_exchange_n(&pool->remote.word, remote, telling, false, __ATOMIC_ACQUIRE,
                                     __ATOMIC_ACQUIRE)) {
        return;
    }
    *remote = telling;
    struct pm_heap *const owner = pm_get(&pool->shared.owner);
    struct pm_pool *first = pm_get(&owner->told);
    do {
        pm_set(&pool->remote.told, first);
    } while (!__atomic_compare_exchange_n(&owner->told, &first, pool, false, __ATOMIC_RELEASE,
                                          __ATOMIC_RELAXED));
}

// Puts blocks on the remote list. False when the remote word has changed, which *remote tells.
// After the exchange this thread touches neither block, pool nor arena. When they seem to be the
// last ones in use, the owner is told, whose heap is never unmapped; a mistake costs the owner a
// look.
static bool push(struct pm_pool *pool, const struct pm_chain *chain, uint64_t *remote) {
    const uint64_t full = PM_REMOTE_OWNED | PM_REMOTE_WAITING;
    if (PM_UNLIKELY((*remote & full) == full)) {
        tell_room(pool, remote);
        return false;
    }
    const uint64_t pushed = (*remote & ~PM_REMOTE_LIST_MASK) + chain->word;
    struct pm_heap *const owner = pm_get(&pool->shared.owner);
    const pm_class class = pm_get(&pool->shared.class);
    // A pool that its owner allocates from need not be told of; and the owner writes its line all
    // the time.
    const bool last = pm_get(&pool->shared.state) != PM_POOL_CURRENT &&
                      pushed >> PM_REMOTE_COUNT_SHIFT >= pm_get(&pool->owned.used);
    pm_link_write(chain->last, *remote & PM_REMOTE_LIST_MASK, pool->shared.key);
    if (!__atomic_compare_exchange_n(&pool->remote.word, remote, pushed, false, __ATOMIC_RELEASE,
                                     __ATOMIC_ACQUIRE)) {
        return false;
    }
    if (PM_UNLIKELY(last) && owner != PM_OWNER_NOBODY && owner != PM_OWNER_ARENA) {
        pm_heap_tell_freed(owner, class);
    }
    return true;
}

// Are blocks, freed by a thread of this heap, put on the remote list? Else the pool is to be
// adopted: it is FULL, or was the heap's own. While a pool waits, its count of used blocks stays;
// its last blocks are not pushed, so that who frees them takes the pool.
static bool is_pushed(const struct pm_heap *heap, const struct pm_pool *pool, uint32_t count,
                      uint64_t remote) {
    return (remote & PM_REMOTE_OWNED) ||
           ((remote & PM_REMOTE_WAITING) && pm_get(&pool->shared.home) != heap &&
            (remote >> PM_REMOTE_COUNT_SHIFT) + count != pm_get(&pool->owned.used));
}

// Pushes blocks, where that is what their pool takes. If not, their last link is of no use.
static bool try_push(const struct pm_heap *heap, struct pm_pool *pool, const struct pm_chain *chain,
                     uint64_t *remote) {
    const uint32_t count = pm_chain_count(chain->word);
    while (is_pushed(heap, pool, count, *remote)) {
        if (push(pool, chain, remote)) {
            return true;
        }
    }
    return false;
}

// The same, or has `heap` adopt the pool. Under the lock of a heap.
static void push_or_adopt(struct pm_heap *heap, struct pm_pool *pool,
                          const struct pm_chain *chain) {
    uint64_t remote = __atomic_load_n(&pool->remote.word, __ATOMIC_ACQUIRE);
    while (!try_push(heap, pool, chain, &remote) && !adopt(heap, pool, chain, &remote)) {
    }
}

// From here on the chain is its caller's. It is taken first and sent then, so that no block is both
// chained and handed out; a second free in between is not found out. Who sends it writes its last
// link, so a write of the program to that block has to be seen here.
static struct pm_chain take_chain(struct pm_chain *chain, const struct pm_pool *pool) {
    const struct pm_chain taken = { pm_get(&chain->word), pm_get(&chain->last) };
    if (PM_UNLIKELY(pm_link_read(taken.last, pool->shared.key) != 0)) {
        pm_misuse("free", (const void *)taken.last, PM_LIST_OVERWRITTEN);
    }
    pm_set(&chain->word, 0);
    pm_signal_fence();
    return taken;
}

static struct pm_pool *pool_of_chain(const struct pm_chain *chain) {
    return pm_pool_of((const void *)pm_chain_first(chain->word), PM_SMALL_POOL_BITS);
}

// Sends a chain to a pool that need not be adopted. False: it is as it was.
static PM_NOINLINE bool send_pushed(const struct pm_heap *heap, struct pm_chain *chain) {
    struct pm_pool *const pool = pool_of_chain(chain);
    const uint32_t count = pm_chain_count(pm_get(&chain->word));
    uint64_t remote = __atomic_load_n(&pool->remote.word, __ATOMIC_ACQUIRE);
    if (!is_pushed(heap, pool, count, remote)) {
        return false;
    }
    const struct pm_chain taken = take_chain(chain, pool);
    if (PM_UNLIKELY(!try_push(heap, pool, &taken, &remote))) {
        pm_link_write(taken.last, 0, pool->shared.key);
        pm_signal_fence();
        __atomic_store_n(&chain->word, taken.word, __ATOMIC_RELEASE);
        return false;
    }
    return true;
}

static void send(struct pm_heap *heap, struct pm_chain *chain) {
    if (pm_get(&chain->word) != 0) {
        struct pm_pool *const pool = pool_of_chain(chain);
        const struct pm_chain taken = take_chain(chain, pool);
        push_or_adopt(heap, pool, &taken);
    }
}

void pm_chains_send(struct pm_heap *heap) {
    for (unsigned i = 0; i < PM_CHAINS; i++) {
        send(NULL, &heap->chain[i]);
    }
}

bool pm_chains_close(struct pm_heap *heap) {
    uint64_t any = 0;
    for (unsigned i = 0; i < PM_CHAINS; i++) {
        any |= pm_get(&heap->chain[i].word);
    }
    pm_set(&heap->chains_closed, any != 0);
    return any != 0;
}

void pm_chains_open(struct pm_heap *heap) {
    __atomic_store_n(&heap->chains_closed, false, __ATOMIC_RELEASE);
}

bool pm_list_leads_to(const struct pm_pool *pool, uintptr_t from, uintptr_t block) {
    const unsigned bits = pool->shared.bits;
    const size_t most = PM_POOL_BYTES(bits) / PM_BLOCK_ALIGN;
    for (size_t i = 0; i < most && from != 0; i++) {
        if (from == block) {
            return true;
        }
        const uintptr_t next = pm_link_read(from, pool->shared.key);
        if (!pm_link_sound(next, from, bits)) {
            return false;
        }
        from = next;
    }
    return false;
}

static bool are_of_one_pool(uintptr_t block, uintptr_t other) {
    return (block ^ other) >> PM_SMALL_POOL_BITS == 0;
}

// Without the lock of the list of heaps, which the call that a handler has interrupted may hold.
// None is ever taken off; of one that is just being added, the link to the next may be NULL yet.
bool pm_chains_lead_to(const struct pm_pool *pool, uintptr_t block) {
    struct pm_list *link = pm_get(&pm_heaps.every.next);
    for (; link != &pm_heaps.every && link != NULL; link = pm_get(&link->next)) {
        struct pm_heap *const heap = PM_LIST_ENTRY(link, struct pm_heap, every);
        const uint64_t word = __atomic_load_n(&pm_chain_of(heap, block)->word, __ATOMIC_ACQUIRE);
        const uintptr_t first = pm_chain_first(word);
        if (first != 0 && are_of_one_pool(first, block) && pm_list_leads_to(pool, first, block)) {
            return true;
        }
    }
    return false;
}

void pm_remote_free(struct pm_heap *heap, struct pm_pool *pool, uintptr_t block) {
    const struct pm_chain chain = one_block(block);
    pm_lock(&heap->lock);
    if (pm_get(&pool->shared.chain) != 0) {
        // In its place a chain of this pool may wait, or of another one that the heap is to adopt.
        send(heap, pm_chain_of(heap, block));
    }
    push_or_adopt(heap, pool, &chain);
    pm_unlock(&heap->lock);
}

static PM_NOINLINE bool push_block(const struct pm_heap *heap, struct pm_pool *pool,
                                   uintptr_t block) {
    const struct pm_chain chain = one_block(block);
    uint64_t remote = __atomic_load_n(&pool->remote.word, __ATOMIC_ACQUIRE);
    if (!is_pushed(heap, pool, 1, remote)) {
        return false;
    }
    if (PM_UNLIKELY(!try_push(heap, pool, &chain, &remote))) {
        // The link that the try has written would make the block look free.
        pm_set((pm_link *)block, 0);
        return false;
    }
    return true;
}

// Without the barrier nobody finds a thread outside to send what it has chained.
static bool may_start_chain(const struct pm_pool *pool, uint32_t most) {
    return pm_heaps.has_barrier && (pm_get(&pool->shared.state) == PM_POOL_CURRENT ||
                                    pm_pool_in_use(pool) > PM_CHAIN_LAST * most);
}

// Starts a chain with the block, once the one in its place is sent, or pushes it. False when the
// heap's chains are closed, or a pool is to be adopted.
static bool chain_first(struct pm_heap *heap, struct pm_pool *pool, uintptr_t block,
                        uint32_t most) {
    if (__atomic_load_n(&heap->chains_closed, __ATOMIC_ACQUIRE)) {
        return false;
    }
    struct pm_chain *const chain = pm_chain_of(heap, block);
    const uint64_t word = pm_get(&chain->word);
    const bool starts = may_start_chain(pool, most);
    if (word != 0 && (starts || are_of_one_pool(pm_chain_first(word), block)) &&
        !send_pushed(heap, chain)) {
        return false;
    }
    if (!starts) {
        return push_block(heap, pool, block);
    }
    pm_set(&chain->last, block);
    pm_link_write(block, 0, pool->shared.key);
    __atomic_store_n(&chain->word, PM_REMOTE_ONE + block, __ATOMIC_RELEASE);
    return true;
}

static PM_NOINLINE bool chain_first_and_leave(struct pm_heap *heap, struct pm_pool *pool,
                                              uintptr_t block) {
    const bool done = chain_first(heap, pool, block, pm_get(&pool->shared.chain));
    pm_signal_fence();
    pm_set(&pm_thread.fast, heap);
    return done;
}

// Is a block of the pool here, though the bound says no: of one that is FULL in a private heap?
static bool is_kept(const struct pm_pool *pool, size_t offset) {
    return pm_get(&pool->shared.state) == PM_POOL_FULL && pm_get(&pool->inner.away) == 0 &&
           pm_pool_has_carved(pool, offset);
}

bool pm_heap_push_remote(void *at, unsigned bits) {
    struct pm_pool *const pool = pm_pool_of(at, bits);
    const uintptr_t block = (uintptr_t)at, offset = block & (PM_POOL_BYTES(bits) - 1);
    struct pm_heap *const heap = pm_thread.heap;
    const struct pm_heap *const owner = pm_get(&pool->shared.owner);
    const uint32_t most = pm_get(&pool->shared.chain);
    if (owner == PM_OWNER_ARENA || owner == heap ||
        !(pm_pool_has_block(pool, offset) || is_kept(pool, offset)) ||
        pm_link_suspected(block, pool->shared.key)) {
        return false;
    }
    // A thread that is in the library, or has no heap, pushes each block. Its own FULL pool a heap
    // takes back at the first free.
    if (PM_UNLIKELY(most == 0) || PM_UNLIKELY(pm_thread.fast != heap) ||
        (owner == PM_OWNER_NOBODY && pm_get(&pool->shared.home) == heap)) {
        return push_block(heap, pool, block);
    }
    pm_set(&pm_thread.fast, PM_BUSY_HEAP);
    pm_signal_fence();
    // Before the chain, which others may send until they open the heap's chains again.
    const bool closed = __atomic_load_n(&heap->chains_closed, __ATOMIC_ACQUIRE);
    struct pm_chain *const chain = pm_chain_of(heap, block);
    const uint64_t word = pm_get(&chain->word);
    if (PM_UNLIKELY(closed) || !are_of_one_pool(pm_chain_first(word), block) ||
        pm_chain_count(word) >= most) {
        return chain_first_and_leave(heap, pool, block);
    }
    // In one store, after the link: who reads the chain finds it whole.
    pm_link_write(block, pm_chain_first(word), pool->shared.key);
    __atomic_store_n(&chain->word, (word & ~PM_REMOTE_LIST_MASK) + PM_REMOTE_ONE + block,
                     __ATOMIC_RELEASE);
    pm_signal_fence();
    pm_set(&pm_thread.fast, heap);
    return true;
}

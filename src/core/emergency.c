// SPDX-License-Identifier: MIT
// Copyright (c) the poolmalloc authors

// A bump allocator without locks: chunks are published, and cut, by compare-and-exchange. A chunk
// whose blocks have all been freed starts anew.

#include "core/emergency.h"

#include <stdint.h>
#include <string.h>

#include "base/atomic.h"
#include "base/bits.h"
#include "config/limits.h"
#include "os/os.h"

#define IN_USE UINT64_C(0x656d657267656e63)
#define FREED  UINT64_C(0x6672656564626c6b)

// The state of a chunk: blocks in use << USED_BITS | bytes used.
#define USED_BITS 44
#define USED_MASK ((UINT64_C(1) << USED_BITS) - 1)
#define ONE_BLOCK (UINT64_C(1) << USED_BITS)

// Stands right before each block.
struct block_head {
    uint64_t state; // IN_USE or FREED
    size_t size;
};

struct pm_emergency_chunk *pm_emergency_chunks[PM_EMERGENCY_CHUNKS];

// Later chunks are larger, so that a thread which jumped out of the library for good can go on.
static size_t chunk_size(unsigned i, size_t need) {
    const size_t usual = PM_EMERGENCY_BYTES << i / 4;
    return pm_round_up(pm_max(usual, sizeof(struct pm_emergency_chunk) + need), pm_os_page_size());
}

static struct pm_emergency_chunk *chunk_at(unsigned i, size_t need) {
    struct pm_emergency_chunk *chunk = __atomic_load_n(&pm_emergency_chunks[i], __ATOMIC_ACQUIRE);
    if (chunk == NULL) {
        const size_t size = chunk_size(i, need);
        struct pm_emergency_chunk *const fresh = pm_os_map(NULL, size);
        if (fresh == NULL) {
            return NULL;
        }
        fresh->size = size;
        fresh->state = sizeof *fresh;
        if (__atomic_compare_exchange_n(&pm_emergency_chunks[i], &chunk, fresh, false,
                                        __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE)) {
            return fresh;
        }
        pm_os_unmap(fresh, size);
    }
    return chunk;
}

// Takes `need` bytes of the chunk; 0 when it has not as many.
static size_t cut(struct pm_emergency_chunk *chunk, size_t need) {
    uint64_t state = pm_get(&chunk->state);
    do {
        if ((state & USED_MASK) + need > chunk->size) {
            return 0;
        }
    } while (!__atomic_compare_exchange_n(&chunk->state, &state, state + ONE_BLOCK + need, true,
                                          __ATOMIC_ACQUIRE, __ATOMIC_RELAXED));
    return state & USED_MASK;
}

static void put_back(struct pm_emergency_chunk *chunk) {
    uint64_t state = pm_get(&chunk->state), left;
    do {
        left = state - ONE_BLOCK;
        if (left < ONE_BLOCK) {
            left = sizeof *chunk;
        }
    } while (!__atomic_compare_exchange_n(&chunk->state, &state, left, true, __ATOMIC_RELEASE,
                                          __ATOMIC_RELAXED));
}

void *pm_emergency_malloc(size_t n, size_t align) {
    align = pm_max(align, PM_BLOCK_ALIGN);
    const size_t need = pm_round_up(n, PM_BLOCK_ALIGN) + sizeof(struct block_head) + align;
    for (unsigned i = 0; i < PM_EMERGENCY_CHUNKS; i++) {
        struct pm_emergency_chunk *const chunk = chunk_at(i, need);
        const size_t at = chunk == NULL ? 0 : cut(chunk, need);
        if (at != 0) {
            const uintptr_t from = (uintptr_t)chunk + at + sizeof(struct block_head);
            const uintptr_t block = pm_round_up(from, align);
            struct block_head *const head = (struct block_head *)block - 1;
            head->state = IN_USE;
            head->size = n;
            return memset((void *)block, 0, n);
        }
        if (chunk == NULL) {
            break;
        }
    }
    return NULL;
}

static struct pm_emergency_chunk *chunk_of(const void *at) {
    for (unsigned i = 0; i < PM_EMERGENCY_CHUNKS; i++) {
        struct pm_emergency_chunk *const chunk =
            __atomic_load_n(&pm_emergency_chunks[i], __ATOMIC_ACQUIRE);
        if (chunk == NULL) {
            return NULL;
        }
        if ((const char *)at >= (const char *)chunk &&
            (const char *)at < (const char *)chunk + chunk->size) {
            return chunk;
        }
    }
    return NULL;
}

bool pm_emergency_owns(const void *at) {
    return chunk_of(at) != NULL;
}

static enum pm_verdict prove(const void *block) {
    const size_t offset = (size_t)((const char *)block - (const char *)chunk_of(block));
    const struct block_head *const head = (const struct block_head *)block - 1;
    if ((uintptr_t)block % PM_BLOCK_ALIGN != 0) {
        return PM_UNALIGNED;
    }
    if (offset < sizeof(struct pm_emergency_chunk) + sizeof *head) {
        return PM_NEVER_HANDED_OUT;
    }
    return head->state == IN_USE ? PM_DONE : head->state == FREED ? PM_DOUBLE_FREE : PM_INSIDE;
}

enum pm_verdict pm_emergency_free(void *block) {
    const enum pm_verdict verdict = prove(block);
    if (verdict == PM_DONE) {
        ((struct block_head *)block - 1)->state = FREED;
        put_back(chunk_of(block));
    }
    return verdict;
}

size_t pm_emergency_size(const void *block, enum pm_verdict *verdict) {
    *verdict = prove(block);
    return *verdict == PM_DONE ? ((const struct block_head *)block - 1)->size : 0;
}

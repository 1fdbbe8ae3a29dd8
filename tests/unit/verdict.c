// SPDX-License-Identifier: MIT
// Copyright (c) the poolmalloc authors
//
// core: what is said of addresses that are no block in use, by the structure and by the default
// mode.

#include "fake_os.h"
#include "unit.h"

#include "core/arena.h"
#include "core/heap.h"
#include "core/mode.h"
#include "core/run.h"
#include "os/os.h"
#include "poolmalloc.h"

#include <string.h>
#include <sys/mman.h>

#define TEST(name) UNIT_TEST(verdict, name)
#define MIB ((size_t)1 << 20)

static const struct pm_pool *pool_of(const void *block) {
    return pm_pool_of(block, PM_SMALL_POOL_BITS);
}

static enum pm_verdict prove(const void *at) {
    return pm_heap_prove(at, PM_SMALL_POOL_BITS);
}

// The mode's functions say the same of an address, and change nothing.
static void check_all(void *at, enum pm_verdict wanted) {
    enum pm_verdict verdict = PM_DONE;
    CHECK(pm_mode_default.usable_size(at, &verdict) == 0 && verdict == wanted, "%d", verdict);
    CHECK(pm_mode_default.realloc(at, 100, &verdict) == NULL && verdict == wanted, "%d", verdict);
    verdict = pm_mode_default.free(at);
    CHECK(verdict == wanted, "%d", verdict);
    AUDIT();
}

TEST(addresses_in_a_pool_arena_are_told_apart) {
    char *const block = unit_take(176);
    char *const base = (char *)pm_pool_base(pool_of(block));
    char *const arena = (char *)pm_slot_of(block);
    const struct pm_pool *const pool = pool_of(block);
    CHECK(prove(block) == PM_DONE);
    check_all(block + 1, PM_UNALIGNED);
    check_all(block + 8, PM_UNALIGNED);
    check_all(block + 16, PM_INSIDE);
    check_all(block + 160, PM_INSIDE);
    check_all(base + 176 * 300, PM_NEVER_HANDED_OUT);
    check_all(base + 176 * 300 + 16, PM_NEVER_HANDED_OUT);
    check_all(base + pool->owned.end, PM_NEVER_HANDED_OUT);
    check_all(base + PM_POOL_BYTES(PM_SMALL_POOL_BITS) * 40, PM_NEVER_HANDED_OUT);
    // The headers, and the page that is never handed out.
    check_all(arena, PM_NEVER_HANDED_OUT);
    check_all(arena + 64, PM_NEVER_HANDED_OUT);
    check_all((char *)pool, PM_NEVER_HANDED_OUT);
    check_all(arena + PM_SLOT_BYTES - 4096, PM_NEVER_HANDED_OUT);
    CHECK(prove(block) == PM_DONE);
    pm_free(block);
    check_all(block, PM_DOUBLE_FREE);
}

TEST(a_free_block_is_free_wherever_it_is_on_the_list) {
    char *blocks[50];
    for (unsigned i = 0; i < 50; i++) {
        blocks[i] = unit_take(80);
    }
    for (unsigned i = 0; i < 49; i++) {
        pm_free(blocks[i]);
        for (unsigned j = 0; j <= i; j++) {
            CHECK(prove(blocks[j]) == PM_DOUBLE_FREE, "%u of %u", j, i);
        }
        CHECK(prove(blocks[i + 1]) == PM_DONE);
    }
    check_all(blocks[0], PM_DOUBLE_FREE);
    check_all(blocks[48], PM_DOUBLE_FREE);
}

TEST(a_free_block_that_was_never_served_is_free_too) {
    // The rest of the first page is carved, and on the list.
    char *const block = unit_take(64);
    check_all(block + 64, PM_DOUBLE_FREE);
}

TEST(blocks_of_a_free_pool_are_free) {
    enum { COUNT = 200 };
    static char *blocks[COUNT];
    for (unsigned i = 0; i < COUNT; i++) {
        blocks[i] = unit_take(1024);
    }
    for (unsigned i = 0; i < COUNT; i++) {
        pm_free(blocks[i]);
    }
    unit_take(64);  // keeps the arena
    CHECK(pool_of(blocks[0])->shared.state == PM_POOL_FREE);
    check_all(blocks[0], PM_DOUBLE_FREE);
    check_all(blocks[63], PM_DOUBLE_FREE);
    check_all(blocks[0] + 16, PM_INSIDE);
    pm_malloc_trim(0);
    check_all(blocks[0], PM_DOUBLE_FREE);
    check_all(blocks[63], PM_DOUBLE_FREE);
}

TEST(what_a_free_pool_never_handed_out_was_never_handed_out) {
    static char *blocks[64];
    char *const first = unit_take(8192);
    struct pm_pool *const pool = (struct pm_pool *)pool_of(first);
    // Full of larger blocks first, so that a pool remains that was carved in part.
    for (unsigned i = 0; i < 64; i++) {
        blocks[i] = unit_take(8192);
    }
    pm_free(first);
    for (unsigned i = 0; i < 64; i++) {
        pm_free(blocks[i]);
    }
    CHECK(pool->shared.state == PM_POOL_FREE);
    pm_pool_set_carved(pool, 2 * 8192);
    CHECK(prove((char *)pm_pool_base(pool) + 5 * 8192) == PM_NEVER_HANDED_OUT);
}

// A program may store whatever it likes in its block: a suspicion must be dispelled.
TEST(a_block_in_use_that_looks_free_is_not) {
    char *const block = unit_take(64), *const other = unit_take(64), *const freed = unit_take(64);
    const uint64_t key = pool_of(block)->owned.key;
    pm_free(freed);
    const uintptr_t looks[] = { 0, (uintptr_t)block, (uintptr_t)other, (uintptr_t)freed,
                                pm_pool_base(pool_of(block)) };
    for (unsigned i = 0; i < sizeof looks / sizeof *looks; i++) {
        *(uint64_t *)block = looks[i] ^ key;
        CHECK(pm_link_suspected((uintptr_t)block, key));
        CHECK(prove(block) == PM_DONE, "%u", i);
    }
    pm_free(block);
    CHECK(prove(block) == PM_DOUBLE_FREE);
    AUDIT();
    CHECK(unit_take(64) == block);
}

TEST(a_cleared_or_pointing_word_is_not_suspected) {
    for (unsigned i = 0; i < 1000; i++) {
        char *const block = unit_take(512);
        const uint64_t key = pool_of(block)->owned.key;
        *(uint64_t *)block = 0;
        CHECK(!pm_link_suspected((uintptr_t)block, key));
        *(uint64_t *)block = (uintptr_t)block;
        CHECK(!pm_link_suspected((uintptr_t)block, key));
        *(uint64_t *)block = (uintptr_t)&i;
        CHECK(!pm_link_suspected((uintptr_t)block, key));
    }
}

TEST(addresses_in_run_arenas_are_told_apart) {
    static const size_t sizes[] = { PM_MEDIUM_MAX + 1, 5 * MIB };
    for (unsigned i = 0; i < 2; i++) {
        char *const block = unit_take(sizes[i]);
        check_all(block + 1, PM_UNALIGNED);
        check_all(block + 16, PM_INSIDE);
        check_all(block + sizes[i] - sizes[i] % 16 - 16, PM_INSIDE);
        check_all((char *)pm_slot_of(block) + 4096, PM_NEVER_HANDED_OUT);
        pm_free(block);
        check_all(block, PM_DOUBLE_FREE);
        pm_malloc_trim(0);
        check_all(block, PM_DOUBLE_FREE);
    }
}

TEST(addresses_in_and_around_huge_blocks_are_told_apart) {
    const size_t n = 70 * MIB;
    char *const block = unit_take(n);
    check_all(block + 1, PM_UNALIGNED);
    check_all(block + 16, PM_INSIDE);
    check_all(block + 8 * MIB, PM_INSIDE);
    check_all(block + n - 16, PM_INSIDE);
    check_all(block + n, PM_STRAY);
    pm_free(block);
    check_all(block, PM_DOUBLE_FREE);
    pm_malloc_trim(0);
    check_all(block, PM_DOUBLE_FREE);
}

TEST(blocks_of_arenas_that_went_back_are_free_already) {
    enum { COUNT = 200 };
    static char *pools[COUNT], *runs[COUNT];
    for (unsigned i = 0; i < COUNT; i++) {
        pools[i] = unit_take(30000);
        runs[i] = unit_take(100000);
    }
    for (unsigned i = 0; i < COUNT; i++) {
        pm_free(pools[i]);
        pm_free(runs[i]);
    }
    pm_malloc_trim(0);
    for (unsigned i = 0; i < COUNT; i++) {
        check_all(runs[i], PM_DOUBLE_FREE);
        check_all(pools[i], PM_DOUBLE_FREE);
    }
}

TEST(addresses_of_nobody_are_strays) {
    static char data[64] __attribute__((aligned(16)));
    char stack[64] __attribute__((aligned(16)));
    char *const mapped = mmap(NULL, 8192, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CHECK(mapped != MAP_FAILED);
    memset(stack, 0, sizeof stack);
    check_all(data + 16, PM_STRAY);
    check_all(stack + 16, PM_STRAY);
    check_all(mapped, PM_STRAY);
    check_all(mapped + 16, PM_STRAY);
    munmap(mapped, 8192);
    check_all(mapped + 4096, PM_STRAY);
    check_all((char *)(uintptr_t)0x123456789000, PM_STRAY);
    check_all((char *)(uintptr_t)&unit_take, PM_STRAY);
}

TEST(what_no_program_has_is_not_a_pointer) {
    static const uintptr_t places[] = { 16, 4080, (uintptr_t)1 << PM_ADDRESS_BITS, UINTPTR_MAX - 15,
                                        UINT64_C(0xffff800000000000), (uintptr_t)1 << 63 };
    for (unsigned i = 0; i < sizeof places / sizeof *places; i++) {
        check_all((void *)places[i], PM_NOT_A_POINTER);
    }
}

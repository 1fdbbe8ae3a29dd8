// SPDX-License-Identifier: MIT
// Copyright (c) the poolmalloc authors
//
// The victim's side of contract.def.

#include "makers.h"
#include "victim.h"

#include <dlfcn.h>
#include <pthread.h>
#include <stdint.h>

enum {
    ERRNO_MARK = 77, // no function sets this
    LARGEST = 65 << 20,
};

static bool is_aligned(const void *block, size_t alignment) {
    return (uintptr_t)block % alignment == 0;
}

static void allocator_is_preloaded(char **arguments) {
    (void)arguments;
    CHECK(victim_symbol("pm_malloc") != NULL, "nobody exports pm_malloc");
    void *const ours = dlsym(RTLD_DEFAULT, "pm_malloc");
    void *const named = dlsym(RTLD_DEFAULT, "malloc");
    Dl_info of_ours, of_named;
    CHECK(dladdr(ours, &of_ours) != 0 && dladdr(named, &of_named) != 0);
    CHECK(of_ours.dli_fbase == of_named.dli_fbase, "malloc comes from %s", of_named.dli_fname);
}

static void zero_sizes_give_unique_blocks(char **arguments) {
    (void)arguments;
    void *blocks[COUNT_OF(makers) * 2 + 2];
    size_t count = 0;
    for (size_t i = 0; i < COUNT_OF(makers); i++) {
        for (int twice = 0; twice < 2; twice++) {
            blocks[count] = makers[i].make(0);
            CHECK(blocks[count++] != NULL, "%s", makers[i].name);
        }
    }
    blocks[count++] = calloc(0, 8);
    blocks[count++] = calloc(8, 0);
    for (size_t i = 0; i < count; i++) {
        for (size_t k = 0; k < i; k++) {
            CHECK(blocks[i] != blocks[k]);
        }
    }
    for (size_t i = 0; i < count; i++) {
        free(blocks[i]);
    }
}

static void check_refused(const char *name, void *(*make)(size_t), size_t size) {
    errno = ERRNO_MARK;
    void *const block = make(size);
    CHECK(block == NULL && errno == ENOMEM, "%s of %zu gave %p", name, size, block);
}

static void oversized_requests_give_null_and_enomem(char **arguments) {
    (void)arguments;
    const size_t limit = PTRDIFF_MAX;
    const size_t sizes[] = { limit,           limit + 1,       limit + 4096,     limit - 1,
                             limit - 4095,    SIZE_MAX,        SIZE_MAX - 1,     SIZE_MAX - 15,
                             SIZE_MAX - 63,   SIZE_MAX - 64,   SIZE_MAX - 65,    SIZE_MAX - 128,
                             SIZE_MAX - 4095, SIZE_MAX - 4096, SIZE_MAX / 2 + 64 };
    for (size_t i = 0; i < COUNT_OF(makers); i++) {
        for (size_t k = 0; k < COUNT_OF(sizes); k++) {
            check_refused(makers[i].name, makers[i].make, sizes[k]);
        }
    }
}

static void oversized_alignments_give_null_and_enomem(char **arguments) {
    (void)arguments;
    const size_t sizes[] = { PTRDIFF_MAX, PTRDIFF_MAX - 100, SIZE_MAX, SIZE_MAX - 4096 };
    for (size_t i = 0; i < COUNT_OF(sizes); i++) {
        for (size_t alignment = 16; alignment <= (size_t)1 << 30; alignment *= 4) {
            errno = ERRNO_MARK;
            CHECK(aligned_alloc(alignment, sizes[i]) == NULL && errno == ENOMEM, "%zu %zu",
                  alignment, sizes[i]);
            errno = ERRNO_MARK;
            CHECK(memalign(alignment, sizes[i]) == NULL && errno == ENOMEM, "%zu %zu", alignment,
                  sizes[i]);
            void *block = NULL;
            CHECK(posix_memalign(&block, alignment, sizes[i]) == ENOMEM, "%zu %zu", alignment,
                  sizes[i]);
        }
    }
    volatile size_t largest = (size_t)1 << 63; // compilers have an opinion on it
    errno = ERRNO_MARK;
    CHECK(aligned_alloc(largest, 1) == NULL && errno == ENOMEM);
    errno = ERRNO_MARK;
    CHECK(aligned_alloc(largest, SIZE_MAX / 2) == NULL && errno == ENOMEM);
    // No power of two reaches this one.
    errno = ERRNO_MARK;
    CHECK(memalign(largest + 1, 1) == NULL && (errno == EINVAL || errno == ENOMEM));
}

static void success_keeps_errno(char **arguments) {
    (void)arguments;
    for (size_t i = 0; i < COUNT_OF(makers); i++) {
        for (size_t size = 0; size <= LARGEST; size = victim_next_size(size)) {
            errno = ERRNO_MARK;
            void *const block = makers[i].make(size);
            CHECK(block != NULL && errno == ERRNO_MARK, "%s of %zu", makers[i].name, size);
            free(block);
        }
    }
}

static void huge_alignment_keeps_errno_or_fails_with_enomem(char **arguments) {
    (void)arguments;
    for (size_t alignment = 32; alignment <= (size_t)1 << 46; alignment *= 2) {
        errno = ERRNO_MARK;
        void *const block = memalign(alignment, 100);
        CHECK(block != NULL ? errno == ERRNO_MARK && is_aligned(block, alignment) : errno == ENOMEM,
              "alignment %zu", alignment);
        CHECK(block != NULL || alignment > (size_t)1 << 30, "alignment %zu", alignment);
        if (block != NULL) {
            victim_fill(block, 100, 1);
        }
        free(block);
    }
}

static void free_null_does_nothing(char **arguments) {
    (void)arguments;
    errno = ERRNO_MARK;
    for (int i = 0; i < 1000; i++) {
        free(NULL);
    }
    CHECK(errno == ERRNO_MARK);
}

static void free_keeps_errno(char **arguments) {
    (void)arguments;
    for (size_t i = 0; i < COUNT_OF(makers); i++) {
        for (size_t size = 0; size <= LARGEST; size = victim_next_size(size)) {
            void *const block = makers[i].make(size);
            CHECK(block != NULL, "%s of %zu", makers[i].name, size);
            errno = ERRNO_MARK;
            free(block);
            CHECK(errno == ERRNO_MARK, "%s of %zu", makers[i].name, size);
        }
    }
}

static void every_block_is_aligned_to_16(char **arguments) {
    (void)arguments;
    for (size_t size = 0; size <= LARGEST; size = victim_next_size(size)) {
        for (size_t i = 0; i < COUNT_OF(makers); i++) {
            // Two at a time: the first of a fresh pool or page is always aligned.
            void *const first = makers[i].make(size);
            void *const second = makers[i].make(size);
            CHECK(is_aligned(first, 16) && is_aligned(second, 16), "%s of %zu: %p %p",
                  makers[i].name, size, first, second);
            void *const moved = realloc(first, size + 40);
            CHECK(moved != NULL && is_aligned(moved, 16), "realloc to %zu: %p", size + 40, moved);
            free(moved);
            free(second);
        }
    }
}

static void live_blocks_never_overlap(char **arguments) {
    (void)arguments;
    enum { BLOCKS_COUNT = 600 };
    static struct {
        void *block;
        size_t size;
    } live[BLOCKS_COUNT];
    uint64_t random = 42;
    for (unsigned step = 0; step < 200000; step++) {
        const unsigned i = (unsigned)(victim_random(&random) % BLOCKS_COUNT);
        CHECK(victim_wrong(live[i].block, live[i].size, i) == live[i].size, "block %u of %zu", i,
              live[i].size);
        free(live[i].block);
        live[i].size = (size_t)(victim_random(&random) % (1u << (victim_random(&random) % 12)));
        live[i].block = makers[step % 8].make(live[i].size);
        CHECK(live[i].block != NULL);
        victim_fill(live[i].block, live[i].size, i);
    }
}

static void calloc_overflow_gives_null_and_enomem(char **arguments) {
    (void)arguments;
    static const size_t pairs[][2] = {
        { SIZE_MAX, 2 },          { 2, SIZE_MAX },        { SIZE_MAX / 2 + 1, 2 },
        { 1ul << 32, 1ul << 32 }, { SIZE_MAX, SIZE_MAX }, { (1ul << 32) + 1, (1ul << 32) - 1 },
        { 3, SIZE_MAX / 3 + 1 }
    };
    for (size_t i = 0; i < COUNT_OF(pairs); i++) {
        errno = ERRNO_MARK;
        CHECK(calloc(pairs[i][0], pairs[i][1]) == NULL && errno == ENOMEM, "%zu * %zu", pairs[i][0],
              pairs[i][1]);
    }
}

enum { RECYCLED_COUNT = 6 };

static void dirty_and_free(size_t size) {
    void *blocks[RECYCLED_COUNT];
    for (unsigned i = 0; i < RECYCLED_COUNT; i++) {
        blocks[i] = malloc(size);
        CHECK(blocks[i] != NULL);
        memset(blocks[i], 0xff, malloc_usable_size(blocks[i]));
    }
    for (unsigned i = 0; i < RECYCLED_COUNT; i++) {
        free(blocks[i]);
    }
}

static void check_zeroed(size_t size) {
    void *blocks[RECYCLED_COUNT];
    for (unsigned i = 0; i < RECYCLED_COUNT; i++) {
        blocks[i] = i % 2 == 0 ? calloc(1, size) : calloc(size, 1);
        CHECK(blocks[i] != NULL);
        const size_t wrong = victim_nonzero(blocks[i], size);
        CHECK(wrong == size, "byte %zu of %zu", wrong, size);
    }
    for (unsigned i = 0; i < RECYCLED_COUNT; i++) {
        free(blocks[i]);
    }
}

static void calloc_zeroes_recycled_blocks(char **arguments) {
    (void)arguments;
    for (size_t size = 1; size <= LARGEST; size = victim_next_size(size)) {
        for (int twice = 0; twice < 2; twice++) {
            dirty_and_free(size);
            check_zeroed(size);
        }
    }
}

static void *dirty_all_sizes(void *unused) {
    (void)unused;
    for (size_t size = 1; size <= 1 << 20; size = victim_next_size(size)) {
        dirty_and_free(size);
    }
    return NULL;
}

static void *check_all_sizes(void *unused) {
    (void)unused;
    for (size_t size = 1; size <= 1 << 20; size = victim_next_size(size)) {
        check_zeroed(size);
    }
    return NULL;
}

static void calloc_zeroes_recycled_blocks_of_other_threads(char **arguments) {
    (void)arguments;
    for (int i = 0; i < 3; i++) {
        victim_threads(2, dirty_all_sizes);
        victim_threads(2, check_all_sizes);
    }
}

#define CASE(name) { #name, name },

const struct victim_case victim_contract_cases[] = {
#include "contract.def"
    { 0 },
};

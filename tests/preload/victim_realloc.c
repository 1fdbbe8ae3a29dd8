// SPDX-License-Identifier: MIT
// Copyright (c) the poolmalloc authors
//
// The victim's side of realloc.def.

#include "makers.h"
#include "victim.h"

enum { ERRNO_MARK = 77 };

static const size_t sizes[] = { 1,     8,     16,     17,     24,      100,     128,     129,
                                500,   512,   1000,   2000,   4096,    5000,    9000,    16384,
                                20000, 40000, 100000, 200000, 1 << 20, 3000000, 5 << 20, 9 << 20 };

static size_t smaller(size_t a, size_t b) {
    return a < b ? a : b;
}

static void realloc_keeps_contents(char **arguments) {
    (void)arguments;
    for (size_t from = 0; from < COUNT_OF(sizes); from++) {
        for (size_t to = 0; to < COUNT_OF(sizes); to++) {
            void *const block = malloc(sizes[from]);
            void *const neighbour = malloc(sizes[from]);
            victim_fill(block, sizes[from], 1);
            victim_fill(neighbour, sizes[from], 2);
            void *const moved = realloc(block, sizes[to]);
            const size_t kept = smaller(sizes[from], sizes[to]);
            CHECK(moved != NULL && malloc_usable_size(moved) >= sizes[to], "%zu to %zu",
                  sizes[from], sizes[to]);
            CHECK(victim_wrong(moved, kept, 1) == kept, "%zu to %zu", sizes[from], sizes[to]);
            victim_fill(moved, sizes[to], 3);
            CHECK(victim_wrong(neighbour, sizes[from], 2) == sizes[from], "%zu to %zu", sizes[from],
                  sizes[to]);
            free(neighbour);
            CHECK(victim_wrong(moved, sizes[to], 3) == sizes[to], "%zu to %zu", sizes[from],
                  sizes[to]);
            free(moved);
        }
    }
}

static void realloc_of_null_is_malloc(char **arguments) {
    (void)arguments;
    for (size_t size = 0; size <= 65 << 20; size = victim_next_size(size)) {
        void *const block = realloc(NULL, size);
        CHECK(block != NULL && malloc_usable_size(block) >= size);
        victim_fill(block, size, 1);
        free(block);
    }
}

static void realloc_to_zero_frees_and_gives_null(char **arguments) {
    (void)arguments;
    for (size_t i = 0; i < COUNT_OF(sizes); i++) {
        // Enough rounds that blocks which are kept would show as memory.
        const size_t rounds = sizes[i] > 1 << 20 ? 20 : 2000;
        void *const warm = malloc(sizes[i]);
        free(warm);
        const size_t before = victim_resident();
        for (size_t round = 0; round < rounds; round++) {
            char *const block = malloc(sizes[i]);
            block[0] = block[sizes[i] - 1] = 1;
            errno = ERRNO_MARK;
            CHECK(realloc(block, 0) == NULL && errno == ERRNO_MARK, "%zu", sizes[i]);
        }
        CHECK(victim_resident() < before + (8 << 20) + sizes[i], "%zu", sizes[i]);
    }
}

static void realloc_failure_keeps_the_block(char **arguments) {
    (void)arguments;
    static const size_t too_large[] = { PTRDIFF_MAX, SIZE_MAX, SIZE_MAX - 15, SIZE_MAX - 4096,
                                        (size_t)PTRDIFF_MAX + 1 };
    for (size_t i = 0; i < COUNT_OF(sizes); i++) {
        void *const block = malloc(sizes[i]);
        victim_fill(block, sizes[i], 5);
        const size_t usable = malloc_usable_size(block);
        for (size_t k = 0; k < COUNT_OF(too_large); k++) {
            errno = ERRNO_MARK;
            CHECK(realloc(block, too_large[k]) == NULL && errno == ENOMEM, "%zu to %zu", sizes[i],
                  too_large[k]);
        }
        CHECK(malloc_usable_size(block) == usable && victim_wrong(block, sizes[i], 5) == sizes[i]);
        free(block);
    }
}

static void realloc_keeps_errno(char **arguments) {
    (void)arguments;
    void *block = NULL;
    errno = ERRNO_MARK;
    for (size_t i = 0; i < COUNT_OF(sizes); i++) {
        block = realloc(block, sizes[i]);
        CHECK(errno == ERRNO_MARK, "up to %zu", sizes[i]);
    }
    for (size_t i = COUNT_OF(sizes); i-- > 0;) {
        block = realloc(block, sizes[i]);
        CHECK(errno == ERRNO_MARK, "down to %zu", sizes[i]);
    }
    free(block);
}

static void realloc_takes_aligned_blocks(char **arguments) {
    (void)arguments;
    for (size_t alignment = 32; alignment <= 8 << 20; alignment *= 4) {
        for (size_t from = 0; from < COUNT_OF(sizes); from += 3) {
            for (size_t to = 0; to < COUNT_OF(sizes); to += 2) {
                void *const block = aligned_alloc(alignment, sizes[from]);
                CHECK(block != NULL);
                victim_fill(block, sizes[from], 7);
                void *const moved = realloc(block, sizes[to]);
                const size_t kept = smaller(sizes[from], sizes[to]);
                CHECK(moved != NULL && victim_wrong(moved, kept, 7) == kept, "%zu: %zu to %zu",
                      alignment, sizes[from], sizes[to]);
                victim_fill(moved, sizes[to], 8);
                free(moved);
            }
        }
    }
}

static void realloc_grows_step_by_step(char **arguments) {
    (void)arguments;
    enum { BUFFERS_COUNT = 4 };
    unsigned char *buffers[BUFFERS_COUNT] = { NULL };
    size_t length = 0;
    while (length < 6 << 20) {
        const size_t grown = length + length / 9 + 1;
        for (unsigned i = 0; i < BUFFERS_COUNT; i++) {
            buffers[i] = realloc(buffers[i], grown);
            CHECK(buffers[i] != NULL && victim_wrong(buffers[i], length, i) == length, "%zu to %zu",
                  length, grown);
            victim_fill(buffers[i], grown, i);
        }
        length = grown;
    }
    while (length > 0) {
        length -= length / 5 + 1;
        for (unsigned i = 0; i < BUFFERS_COUNT; i++) {
            buffers[i] = realloc(buffers[i], length + 1);
            CHECK(buffers[i] != NULL && victim_wrong(buffers[i], length + 1, i) == length + 1,
                  "to %zu", length);
        }
    }
    for (unsigned i = 0; i < BUFFERS_COUNT; i++) {
        free(buffers[i]);
    }
}

static void reallocarray_overflow_keeps_the_block(char **arguments) {
    (void)arguments;
    static const size_t pairs[][2] = {
        { SIZE_MAX, 2 }, { 2, SIZE_MAX }, { 1ul << 32, 1ul << 32 }, { SIZE_MAX / 3 + 1, 3 }
    };
    void *const block = malloc(1000);
    victim_fill(block, 1000, 9);
    for (size_t i = 0; i < COUNT_OF(pairs); i++) {
        errno = ERRNO_MARK;
        CHECK(reallocarray(block, pairs[i][0], pairs[i][1]) == NULL && errno == ENOMEM);
        CHECK(victim_wrong(block, 1000, 9) == 1000);
    }
    free(block);
}

static void reallocarray_multiplies(char **arguments) {
    (void)arguments;
    void *block = reallocarray(NULL, 10, 30);
    CHECK(block != NULL && malloc_usable_size(block) >= 300);
    victim_fill(block, 300, 1);
    block = reallocarray(block, 3000, 100);
    CHECK(block != NULL && malloc_usable_size(block) >= 300000 &&
          victim_wrong(block, 300, 1) == 300);
    errno = ERRNO_MARK;
    CHECK(reallocarray(block, 0, 100) == NULL && errno == ERRNO_MARK);
}

#define CASE(name) { #name, name },
const struct victim_case victim_realloc_cases[] = {
#include "realloc.def"
    { 0 },
};

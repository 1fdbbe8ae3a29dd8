// SPDX-License-Identifier: MIT
// Copyright (c) the poolmalloc authors
//
// The victim's side of aligned.def.

#include "makers.h"
#include "victim.h"

enum {
    ERRNO_MARK = 77,
    LARGEST = 65 << 20,
    LARGEST_ALIGNMENT = 16 << 20,
};

static const size_t sizes[] = { 0,    1,    15,   16,    24,     100,       512,
                                1000, 4096, 5000, 20000, 100000, 200 << 10, 3 << 20 };

static bool is_aligned(const void *block, size_t alignment) {
    return (uintptr_t)block % alignment == 0;
}

static void posix_memalign_refuses_bad_alignments(char **arguments) {
    (void)arguments;
    static const size_t alignments[] = { 0,  1,  2,  3,   4,    5,    7,        9,
                                         12, 24, 48, 100, 4095, 4097, SIZE_MAX, SIZE_MAX - 7 };
    for (size_t i = 0; i < COUNT_OF(alignments); i++) {
        for (size_t k = 0; k < COUNT_OF(sizes); k++) {
            void *block;
            CHECK(posix_memalign(&block, alignments[i], sizes[k]) == EINVAL, "alignment %zu",
                  alignments[i]);
        }
    }
}

static void posix_memalign_failure_keeps_pointer_and_errno(char **arguments) {
    (void)arguments;
    int mark;
    void *block = &mark;
    errno = ERRNO_MARK;
    CHECK(posix_memalign(&block, 24, 100) == EINVAL && block == &mark && errno == ERRNO_MARK);
    CHECK(posix_memalign(&block, 64, SIZE_MAX - 10) == ENOMEM && block == &mark &&
          errno == ERRNO_MARK);
    CHECK(posix_memalign(&block, 1 << 20, PTRDIFF_MAX) == ENOMEM && block == &mark &&
          errno == ERRNO_MARK);
}

// Several of each at a time, so that not all are the first of their page, and all of them live and
// written.
static void check_aligns(const char *name, void *(*make)(size_t alignment, size_t size)) {
    enum { EACH = 5 };
    for (size_t alignment = sizeof(void *); alignment <= LARGEST_ALIGNMENT; alignment *= 2) {
        for (size_t k = 0; k < COUNT_OF(sizes); k++) {
            void *blocks[EACH];
            for (unsigned i = 0; i < EACH; i++) {
                blocks[i] = make(alignment, sizes[k]);
                CHECK(blocks[i] != NULL && is_aligned(blocks[i], alignment) &&
                          is_aligned(blocks[i], 16),
                      "%s(%zu, %zu): %p", name, alignment, sizes[k], blocks[i]);
                CHECK(malloc_usable_size(blocks[i]) >= sizes[k]);
                victim_fill(blocks[i], sizes[k], i);
            }
            for (unsigned i = 0; i < EACH; i++) {
                CHECK(victim_wrong(blocks[i], sizes[k], i) == sizes[k], "%s(%zu, %zu)", name,
                      alignment, sizes[k]);
                free(blocks[i]);
            }
        }
    }
}

static void *make_posix(size_t alignment, size_t size) {
    void *block = NULL;
    errno = ERRNO_MARK;
    CHECK(posix_memalign(&block, alignment, size) == 0 && errno == ERRNO_MARK);
    return block;
}

static void posix_memalign_aligns(char **arguments) {
    (void)arguments;
    check_aligns("posix_memalign", make_posix);
    check_aligns("memalign", memalign);
}

static void aligned_alloc_refuses_non_powers_of_two(char **arguments) {
    (void)arguments;
    static const size_t alignments[] = {
        0, 3, 5, 6, 7, 12, 24, 48, 100, 4095, 4097, SIZE_MAX, ((size_t)1 << 63) + 1
    };
    for (size_t i = 0; i < COUNT_OF(alignments); i++) {
        errno = ERRNO_MARK;
        CHECK(aligned_alloc(alignments[i], 100) == NULL && errno == EINVAL, "alignment %zu",
              alignments[i]);
    }
}

static void aligned_alloc_takes_any_size(char **arguments) {
    (void)arguments;
    check_aligns("aligned_alloc", aligned_alloc);
    for (size_t alignment = 1; alignment < 16; alignment *= 2) {
        void *const block = aligned_alloc(alignment, 3);
        CHECK(block != NULL && is_aligned(block, 16), "alignment %zu", alignment);
        free(block);
    }
}

static void memalign_rounds_alignment_up(char **arguments) {
    (void)arguments;
    static const size_t rounded[][2] = { { 17, 32 },     { 24, 32 },     { 33, 64 },
                                         { 48, 64 },     { 100, 128 },   { 65, 128 },
                                         { 1000, 1024 }, { 4097, 8192 }, { 100000, 131072 } };
    for (size_t i = 0; i < COUNT_OF(rounded); i++) {
        void *blocks[8];
        for (size_t k = 0; k < COUNT_OF(blocks); k++) {
            errno = ERRNO_MARK;
            blocks[k] = memalign(rounded[i][0], 10 + k * 100);
            CHECK(blocks[k] != NULL && is_aligned(blocks[k], rounded[i][1]) && errno == ERRNO_MARK,
                  "%zu", rounded[i][0]);
        }
        for (size_t k = 0; k < COUNT_OF(blocks); k++) {
            free(blocks[k]);
        }
    }
}

static void memalign_to_16_or_less_is_malloc(char **arguments) {
    (void)arguments;
    for (size_t alignment = 0; alignment <= 16; alignment++) {
        for (size_t k = 0; k < COUNT_OF(sizes); k++) {
            void *const block = memalign(alignment, sizes[k]);
            void *const plain = malloc(sizes[k]);
            CHECK(block != NULL && is_aligned(block, 16), "alignment %zu", alignment);
            CHECK(malloc_usable_size(block) == malloc_usable_size(plain), "alignment %zu",
                  alignment);
            free(block);
            free(plain);
        }
    }
}

static void valloc_is_page_aligned(char **arguments) {
    (void)arguments;
    const size_t page = (size_t)sysconf(_SC_PAGESIZE);
    for (size_t k = 0; k < COUNT_OF(sizes); k++) {
        void *const first = valloc(sizes[k]);
        void *const second = valloc(sizes[k]);
        CHECK(first != NULL && is_aligned(first, page) && second != NULL &&
              is_aligned(second, page));
        CHECK(malloc_usable_size(first) >= sizes[k]);
        free(second);
        free(first);
    }
}

static void pvalloc_rounds_to_pages(char **arguments) {
    (void)arguments;
    const size_t page = (size_t)sysconf(_SC_PAGESIZE);
    for (size_t k = 0; k < COUNT_OF(sizes); k++) {
        const size_t rounded = (sizes[k] + page - 1) / page * page;
        void *const block = pvalloc(sizes[k]);
        CHECK(block != NULL && is_aligned(block, page) && malloc_usable_size(block) >= rounded,
              "%zu", sizes[k]);
        victim_fill(block, rounded, 3);
        free(block);
    }
}

static void pvalloc_overflow_gives_null_and_enomem(char **arguments) {
    (void)arguments;
    for (size_t below = 0; below < 10000; below += 7) {
        errno = ERRNO_MARK;
        CHECK(pvalloc(SIZE_MAX - below) == NULL && errno == ENOMEM, "SIZE_MAX - %zu", below);
    }
}

static void usable_size_of_null_is_zero(char **arguments) {
    (void)arguments;
    CHECK(malloc_usable_size(NULL) == 0);
}

static void usable_size_covers_the_request_and_is_stable(char **arguments) {
    (void)arguments;
    for (size_t i = 0; i < COUNT_OF(makers); i++) {
        for (size_t size = 0; size <= LARGEST; size = victim_next_size(size)) {
            void *const block = makers[i].make(size);
            const size_t usable = malloc_usable_size(block);
            CHECK(usable >= size, "%s of %zu: %zu", makers[i].name, size, usable);
            void *const other = makers[i].make(size);
            free(other);
            CHECK(malloc_usable_size(block) == usable, "%s of %zu", makers[i].name, size);
            free(block);
        }
    }
}

static void usable_size_may_be_written(char **arguments) {
    (void)arguments;
    enum { EACH = 8 };
    for (size_t i = 0; i < COUNT_OF(makers); i++) {
        for (size_t size = 0; size <= 1 << 20; size = victim_next_size(size)) {
            void *blocks[EACH];
            for (unsigned k = 0; k < EACH; k++) {
                blocks[k] = makers[i].make(size);
                victim_fill(blocks[k], malloc_usable_size(blocks[k]), k);
            }
            for (unsigned k = 0; k < EACH; k++) {
                const size_t usable = malloc_usable_size(blocks[k]);
                CHECK(victim_wrong(blocks[k], usable, k) == usable, "%s of %zu", makers[i].name,
                      size);
                free(blocks[k]);
            }
        }
    }
}

static void free_sized_takes_right_sizes(char **arguments) {
    (void)arguments;
    void (*const free_sized)(void *, size_t) =
        (void (*)(void *, size_t))victim_symbol("free_sized");
    CHECK(free_sized != NULL);
    free_sized(NULL, 0);
    free_sized(NULL, 100);
    for (size_t size = 0; size <= LARGEST; size = victim_next_size(size)) {
        errno = ERRNO_MARK;
        free_sized(malloc(size), size);
        free_sized(calloc(1, size), size);
        free_sized(realloc(malloc(10), size + 1), size + 1);
        CHECK(errno == ERRNO_MARK);
    }
}

static void free_aligned_sized_takes_right_sizes(char **arguments) {
    (void)arguments;
    void (*const free_aligned_sized)(void *, size_t, size_t) =
        (void (*)(void *, size_t, size_t))victim_symbol("free_aligned_sized");
    CHECK(free_aligned_sized != NULL);
    free_aligned_sized(NULL, 64, 0);
    for (size_t alignment = 1; alignment <= LARGEST_ALIGNMENT; alignment *= 2) {
        for (size_t k = 0; k < COUNT_OF(sizes); k++) {
            void *const block = aligned_alloc(alignment, sizes[k]);
            errno = ERRNO_MARK;
            free_aligned_sized(block, alignment, sizes[k]);
            CHECK(errno == ERRNO_MARK);
        }
    }
}

static void cfree_is_free(char **arguments) {
    (void)arguments;
    void (*const cfree)(void *) = (void (*)(void *))victim_symbol("cfree");
    CHECK(cfree != NULL);
    for (size_t size = 0; size <= LARGEST; size = victim_next_size(size)) {
        cfree(malloc(size));
    }
    cfree(NULL);
}

static void libc_names_are_ours(char **arguments) {
    (void)arguments;
    static const char *const one_argument[] = { "__libc_malloc", "__libc_valloc",
                                                "__libc_pvalloc" };
    static const char *const two_arguments[] = { "__libc_calloc", "__libc_memalign" };
    void (*const libc_free)(void *) = (void (*)(void *))victim_symbol("__libc_free");
    void *(*const libc_realloc)(void *, size_t) =
        (void *(*)(void *, size_t))victim_symbol("__libc_realloc");
    CHECK(libc_free != NULL && libc_realloc != NULL);
    for (size_t i = 0; i < COUNT_OF(one_argument); i++) {
        void *(*const make)(size_t) = (void *(*)(size_t))victim_symbol(one_argument[i]);
        CHECK(make != NULL, "%s", one_argument[i]);
        free(make(100));
        void *const block = make(200 << 10);
        CHECK(malloc_usable_size(block) >= 200 << 10, "%s", one_argument[i]);
        free(realloc(block, 100));
    }
    for (size_t i = 0; i < COUNT_OF(two_arguments); i++) {
        void *(*const make)(size_t, size_t) =
            (void *(*)(size_t, size_t))victim_symbol(two_arguments[i]);
        CHECK(make != NULL, "%s", two_arguments[i]);
        free(make(64, 1000));
    }
    libc_free(libc_realloc(malloc(100), 2000));
    libc_free(malloc(8 << 20));
}

#define CASE(name) { #name, name },
const struct victim_case victim_aligned_cases[] = {
#include "aligned.def"
    { 0 },
};

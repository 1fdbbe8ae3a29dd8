// SPDX-License-Identifier: MIT
// Copyright (c) the poolmalloc authors
//
// The floor for any malloc that is preloaded: one bare free list behind the two shared-library
// calls, with no lock, no owner, no class and no check. It serves programs whose blocks are of one
// size, PM_BENCH_LIMIT_BLOCK bytes; what an allocator costs over this row is what it does.
//
// Built twice: as it is, for programs of one thread, and with PM_BENCH_LIMIT_THREADS, a list and a
// region for each thread, for programs whose threads keep their blocks to themselves.
//
// What must stay true: every block on the list holds at least block_size bytes. Larger requests are
// carved anew each time, and their blocks join the list when freed, which keeps it true.

#include <errno.h>
#include <malloc.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#define EXPORT              __attribute__((visibility("default")))
#define UNLIKELY(condition) __builtin_expect((condition), 0)

enum { LIMIT_ALIGNMENT = 16, LIMIT_DEFAULT_BLOCK = 64 };

#ifdef PM_BENCH_LIMIT_THREADS
#    define PER_THREAD __thread __attribute__((tls_model("initial-exec")))
#else
#    define PER_THREAD
#endif

static const size_t region_size = (size_t)4 << 30;

struct limit_link {
    struct limit_link *next;
};

static PER_THREAD struct limit_link *list;
static size_t block_size = LIMIT_DEFAULT_BLOCK;
// Address space without a promise of memory; carved upwards, never given back.
static PER_THREAD char *region;
static PER_THREAD size_t carved;

__attribute__((constructor)) static void read_block_size(void) {
    const char *const text = getenv("PM_BENCH_LIMIT_BLOCK");
    // A larger size than that of the blocks carved so far would break the rule above.
    if (text != NULL && list == NULL) {
        block_size = strtoul(text, NULL, 10);
    }
}

__attribute__((noinline)) static void *carve(size_t size, size_t alignment) {
    if (region == NULL) {
        char *const mapped = mmap(NULL, region_size, PROT_READ | PROT_WRITE,
                                  MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (mapped == MAP_FAILED) {
            errno = ENOMEM;
            return NULL;
        }
        region = mapped;
    }
    const size_t least = size > block_size ? size : block_size;
    const size_t start = (carved + alignment - 1) & ~(alignment - 1);
    if (alignment > region_size || start > region_size || least > region_size - start) {
        errno = ENOMEM;
        return NULL;
    }
    carved = (start + least + LIMIT_ALIGNMENT - 1) & ~(size_t)(LIMIT_ALIGNMENT - 1);
    return region + start;
}

EXPORT void *malloc(size_t size) {
    struct limit_link *const block = list;
    if (UNLIKELY(size > block_size || block == NULL)) {
        return carve(size, LIMIT_ALIGNMENT);
    }
    list = block->next;
    return block;
}

EXPORT void free(void *address) {
    struct limit_link *const block = address;
    if (UNLIKELY(block == NULL)) {
        return;
    }
    block->next = list;
    list = block;
}

EXPORT void *calloc(size_t count, size_t size) {
    size_t total;
    if (__builtin_mul_overflow(count, size, &total)) {
        errno = ENOMEM;
        return NULL;
    }
    void *const block = malloc(total);
    return block == NULL ? NULL : memset(block, 0, total);
}

// The old size isn't known: as much as the new one is copied, which stays within the region. (With
// threads: within that of the thread, as nothing that runs here grows another thread's block.)
EXPORT void *realloc(void *address, size_t size) {
    void *const block = malloc(size);
    if (address != NULL && block != NULL) {
        const size_t readable = region_size - (size_t)((char *)address - region);
        memmove(block, address, size < readable ? size : readable);
        free(address);
    }
    return block;
}

EXPORT void *memalign(size_t alignment, size_t size) {
    return carve(size, alignment > LIMIT_ALIGNMENT ? alignment : LIMIT_ALIGNMENT);
}

EXPORT void *aligned_alloc(size_t alignment, size_t size) {
    return memalign(alignment, size);
}

EXPORT int posix_memalign(void **result, size_t alignment, size_t size) {
    void *const block = memalign(alignment, size);
    if (block == NULL) {
        return ENOMEM;
    }
    *result = block;
    return 0;
}

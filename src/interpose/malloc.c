// SPDX-License-Identifier: MIT
// Copyright (c) the poolmalloc authors

// libc's names, and the __libc_ names under which some programs reach them.

#include <stddef.h>

#include "base/attributes.h"
#include "entry/entry.h"
#include "entry/fast.h"

// Declared here and not by <malloc.h>, whose attributes and noexcept differ between releases.
PM_EXPORT void *malloc(size_t n);
PM_EXPORT void free(void *block);
PM_EXPORT void *calloc(size_t count, size_t size);
PM_EXPORT void *realloc(void *block, size_t n);
PM_EXPORT void *reallocarray(void *block, size_t count, size_t size);
PM_EXPORT void *aligned_alloc(size_t align, size_t n);
PM_EXPORT void *memalign(size_t align, size_t n);
PM_EXPORT int posix_memalign(void **to, size_t align, size_t n);
PM_EXPORT void *valloc(size_t n);
PM_EXPORT void *pvalloc(size_t n);
PM_EXPORT size_t malloc_usable_size(void *block);
PM_EXPORT void free_sized(void *block, size_t n);
PM_EXPORT void free_aligned_sized(void *block, size_t align, size_t n);

void *malloc(size_t n) {
    void *const block = pm_fast_malloc(n);
    return PM_LIKELY(block != NULL) ? block : pm_malloc_miss(n);
}

void free(void *block) {
    if (PM_UNLIKELY(!pm_fast_free(block))) {
        pm_free_miss(block);
    }
}

void *calloc(size_t count, size_t size) {
    return pm_entry_calloc(count, size);
}

void *realloc(void *block, size_t n) {
    return pm_entry_realloc(block, n);
}

void *reallocarray(void *block, size_t count, size_t size) {
    return pm_entry_reallocarray(block, count, size);
}

void *aligned_alloc(size_t align, size_t n) {
    return pm_entry_aligned_alloc(align, n);
}

void *memalign(size_t align, size_t n) {
    return pm_entry_memalign(align, n);
}

int posix_memalign(void **to, size_t align, size_t n) {
    return pm_entry_posix_memalign(to, align, n);
}

void *valloc(size_t n) {
    return pm_entry_valloc(n);
}

void *pvalloc(size_t n) {
    return pm_entry_pvalloc(n);
}

size_t malloc_usable_size(void *block) {
    return pm_entry_usable_size(block);
}

void free_sized(void *block, size_t n) {
    (void)n;
    free(block);
}

void free_aligned_sized(void *block, size_t align, size_t n) {
    (void)align;
    (void)n;
    free(block);
}

#define ALIAS(name) __attribute__((alias(#name))) PM_EXPORT

ALIAS(free) void cfree(void *block);
ALIAS(malloc) void *__libc_malloc(size_t n);
ALIAS(free) void __libc_free(void *block);
ALIAS(calloc) void *__libc_calloc(size_t count, size_t size);
ALIAS(realloc) void *__libc_realloc(void *block, size_t n);
ALIAS(memalign) void *__libc_memalign(size_t align, size_t n);
ALIAS(reallocarray) void *__libc_reallocarray(void *block, size_t count, size_t size);
ALIAS(valloc) void *__libc_valloc(size_t n);
ALIAS(pvalloc) void *__libc_pvalloc(size_t n);

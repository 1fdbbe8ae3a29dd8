// SPDX-License-Identifier: MIT
// Copyright (c) the poolmalloc authors

// The functions of poolmalloc.h.

#include "poolmalloc.h"

#include "base/attributes.h"
#include "entry/entry.h"
#include "entry/fast.h"
#include "entry/reports.h"

#define TEXT(number)                 #number
#define VERSION(major, minor, patch) TEXT(major) "." TEXT(minor) "." TEXT(patch)

PM_EXPORT const char *pm_version(void) {
    return VERSION(PM_VERSION_MAJOR, PM_VERSION_MINOR, PM_VERSION_PATCH);
}

PM_EXPORT void *pm_malloc(size_t n) {
    void *const block = pm_fast_malloc(n);
    return PM_LIKELY(block != NULL) ? block : pm_malloc_miss(n);
}

PM_EXPORT void pm_free(void *block) {
    if (PM_UNLIKELY(!pm_fast_free(block))) {
        pm_free_miss(block);
    }
}

PM_EXPORT void pm_free_sized(void *block, size_t n) {
    (void)n;
    pm_free(block);
}

PM_EXPORT void pm_free_aligned_sized(void *block, size_t align, size_t n) {
    (void)align;
    (void)n;
    pm_free(block);
}

PM_EXPORT void *pm_calloc(size_t count, size_t size) {
    return pm_entry_calloc(count, size);
}

PM_EXPORT void *pm_realloc(void *block, size_t n) {
    return pm_entry_realloc(block, n);
}

PM_EXPORT void *pm_reallocarray(void *block, size_t count, size_t size) {
    return pm_entry_reallocarray(block, count, size);
}

PM_EXPORT void *pm_aligned_alloc(size_t align, size_t n) {
    return pm_entry_aligned_alloc(align, n);
}

PM_EXPORT void *pm_memalign(size_t align, size_t n) {
    return pm_entry_memalign(align, n);
}

PM_EXPORT int pm_posix_memalign(void **to, size_t align, size_t n) {
    return pm_entry_posix_memalign(to, align, n);
}

PM_EXPORT void *pm_valloc(size_t n) {
    return pm_entry_valloc(n);
}

PM_EXPORT void *pm_pvalloc(size_t n) {
    return pm_entry_pvalloc(n);
}

PM_EXPORT size_t pm_malloc_usable_size(const void *block) {
    return pm_entry_usable_size(block);
}

PM_EXPORT struct pm_mallinfo2 pm_mallinfo2(void) {
    return pm_entry_mallinfo2();
}

PM_EXPORT int pm_mallopt(int parameter, int value) {
    return pm_entry_mallopt(parameter, value);
}

PM_EXPORT int pm_malloc_trim(size_t pad) {
    (void)pad;
    return pm_entry_trim();
}

PM_EXPORT void pm_malloc_stats(void) {
    pm_entry_stats();
}

PM_EXPORT int pm_malloc_info(int options, FILE *to) {
    return pm_entry_info(options, to);
}

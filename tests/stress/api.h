// SPDX-License-Identifier: MIT
// Copyright (c) the poolmalloc authors
//
// The allocator under test: the pm_ names when compiled with STRESS_PM, else malloc and its
// siblings, whoever serves them.

#ifndef TESTS_STRESS_API_H
#define TESTS_STRESS_API_H

#include <stddef.h>

#if defined STRESS_PM

#    include <poolmalloc.h>
#    include "check/audit.h"

#    define api_malloc         pm_malloc
#    define api_calloc         pm_calloc
#    define api_realloc        pm_realloc
#    define api_reallocarray   pm_reallocarray
#    define api_free           pm_free
#    define api_aligned_alloc  pm_aligned_alloc
#    define api_posix_memalign pm_posix_memalign
#    define api_memalign       pm_memalign
#    define api_usable_size    pm_malloc_usable_size
#    define api_free_sized     pm_free_sized
#    define api_audit          pm_audit

#else

#    include <malloc.h>
#    include <stdlib.h>

#    define api_malloc         malloc
#    define api_calloc         calloc
#    define api_realloc        realloc
#    define api_reallocarray   reallocarray
#    define api_free           free
#    define api_aligned_alloc  aligned_alloc
#    define api_posix_memalign posix_memalign
#    define api_memalign       memalign
#    define api_usable_size    malloc_usable_size

// C23; not every libc has it.
extern void free_sized(void *block, size_t size) __attribute__((weak));

static inline void api_free_sized(void *block, size_t size) {
    if (free_sized != NULL) {
        free_sized(block, size);
    } else {
        free(block);
    }
}

// Nobody to ask.
static inline size_t api_audit(void) {
    return 0;
}

#endif

#endif

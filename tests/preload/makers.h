// SPDX-License-Identifier: MIT
// Copyright (c) the poolmalloc authors
//
// Every way to get a block of n bytes, as one table, for promises that hold for all of them.

#ifndef TESTS_PRELOAD_MAKERS_H
#define TESTS_PRELOAD_MAKERS_H

#include "victim.h"

#include <malloc.h>
#include <stdlib.h>

enum { MAKERS_ALIGNMENT = 64 };

static void *make_by_calloc(size_t size) {
    return calloc(1, size);
}

static void *make_by_calloc_of_bytes(size_t size) {
    return calloc(size, 1);
}

static void *make_by_realloc(size_t size) {
    return realloc(NULL, size);
}

static void *make_by_reallocarray(size_t size) {
    return reallocarray(NULL, size, 1);
}

static void *make_by_aligned_alloc(size_t size) {
    return aligned_alloc(MAKERS_ALIGNMENT, size);
}

static void *make_by_memalign(size_t size) {
    return memalign(MAKERS_ALIGNMENT, size);
}

// As the others do, tells its failure in errno.
static void *make_by_posix_memalign(size_t size) {
    void *block = NULL;
    const int error = posix_memalign(&block, MAKERS_ALIGNMENT, size);
    if (error != 0) {
        errno = error;
    }
    return block;
}

static const struct maker {
    const char *name;
    void *(*make)(size_t size);
} makers[] = {
    { "malloc", malloc },
    { "calloc(1, n)", make_by_calloc },
    { "calloc(n, 1)", make_by_calloc_of_bytes },
    { "realloc", make_by_realloc },
    { "reallocarray", make_by_reallocarray },
    { "aligned_alloc", make_by_aligned_alloc },
    { "memalign", make_by_memalign },
    { "posix_memalign", make_by_posix_memalign },
    { "valloc", valloc },
    { "pvalloc", pvalloc },
};

#endif

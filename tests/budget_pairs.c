// SPDX-License-Identifier: MIT
// Copyright (c) the poolmalloc authors
//
// Mallocs and frees one block over and over, for a count of instructions: budget_pairs SIZE COUNT
// thread|private, the heap.

#include <stdlib.h>
#include <string.h>

#include "poolmalloc.h"

// Of the library that is preloaded.
#pragma weak pm_heap_new
#pragma weak pm_heap_malloc
#pragma weak pm_heap_free

int main(int argc, char **argv) {
    const size_t size = argc > 1 ? strtoul(argv[1], NULL, 10) : 64;
    const long count = argc > 2 ? atol(argv[2]) : 1;
    void *volatile block;
    if (argc > 3 && strcmp(argv[3], "private") == 0) {
        pm_heap *const heap = pm_heap_new(NULL);
        for (long i = 0; i < count; i++) {
            block = pm_heap_malloc(heap, size);
            pm_heap_free(heap, block);
        }
        return 0;
    }
    for (long i = 0; i < count; i++) {
        block = malloc(size);
        free(block);
    }
    return 0;
}

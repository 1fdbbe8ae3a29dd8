// SPDX-License-Identifier: MIT
// Copyright (c) the poolmalloc authors
//
// Mallocs and frees one block over and over, for a count of instructions: budget_pairs SIZE COUNT.

#include <stdlib.h>

int main(int argc, char **argv) {
    const size_t size = argc > 1 ? strtoul(argv[1], NULL, 10) : 64;
    const long count = argc > 2 ? atol(argv[2]) : 1;
    void *volatile block;
    for (long i = 0; i < count; i++) {
        block = malloc(size);
        free(block);
    }
    return 0;
}

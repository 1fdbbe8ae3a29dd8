// SPDX-License-Identifier: MIT
// Copyright (c) the poolmalloc authors
//
// What early.so has for the program that uses it.

#ifndef TESTS_PRELOAD_EARLY_H
#define TESTS_PRELOAD_EARLY_H

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

extern char *early_block; // made by a constructor of early.so

// Taken before a fork, by a handler that the same constructor has registered.
extern pthread_mutex_t early_lock;

int early_answer(void);

// Allocates and frees some, and leaves one block: "early".
static inline char *early_allocate(void) {
    enum { BLOCKS_COUNT = 200 };
    char *blocks[BLOCKS_COUNT];
    for (size_t i = 0; i < BLOCKS_COUNT; i++) {
        blocks[i] = calloc(1, (i + 1) * 37);
        blocks[i] = realloc(blocks[i], (i + 1) * 50);
        memset(blocks[i], (int)i, (i + 1) * 50);
    }
    for (size_t i = 0; i < BLOCKS_COUNT; i++) {
        if (blocks[i][i] != (char)i) {
            abort();
        }
        free(blocks[i]);
    }
    return strdup("early");
}

#endif

// SPDX-License-Identifier: MIT
// Copyright (c) the poolmalloc authors
//
// early.so: allocates in a constructor that runs before the program's and ours, and after the
// program's end.

#include "early.h"

char *early_block;

int early_answer(void) {
    return 42;
}

__attribute__((constructor(101))) static void construct(void) {
    early_block = early_allocate();
}

__attribute__((destructor(101))) static void destruct(void) {
    free(early_block);
    free(early_allocate());
}

// SPDX-License-Identifier: MIT
// Copyright (c) the poolmalloc authors
//
// early.so: allocates in a constructor that runs before the program's, and after the program's end.
// Holds a lock across fork.

#include "early.h"

char *early_block;
pthread_mutex_t early_lock = PTHREAD_MUTEX_INITIALIZER;

static void hold(void) {
    pthread_mutex_lock(&early_lock);
}

static void let_go(void) {
    pthread_mutex_unlock(&early_lock);
}

int early_answer(void) {
    return 42;
}

__attribute__((constructor(101))) static void construct(void) {
    early_block = early_allocate();
    pthread_atfork(hold, let_go, let_go);
}

__attribute__((destructor(101))) static void destruct(void) {
    free(early_block);
    free(early_allocate());
}

// SPDX-License-Identifier: MIT
// Copyright (c) the poolmalloc authors
//
// A program whose library allocates before anything else of the program runs: linked with
// early.so. Or it forks, while a thread allocates under the lock that early.so holds across forks.

#include "early.h"

#include <sys/wait.h>
#include <unistd.h>

enum { FORKS_COUNT = 300 };

static int stop;

static void *allocate_under_the_lock(void *unused) {
    while (!__atomic_load_n(&stop, __ATOMIC_RELAXED)) {
        pthread_mutex_lock(&early_lock);
        free(malloc(100));
        free(malloc(300000));
        free(malloc(3000000));
        pthread_mutex_unlock(&early_lock);
    }
    return unused;
}

static int fork_often(void) {
    pthread_t thread;
    int failures = pthread_create(&thread, NULL, allocate_under_the_lock, NULL) != 0;
    for (int i = 0; i < FORKS_COUNT && failures == 0; i++) {
        int status = 1;
        const pid_t child = fork();
        if (child == 0) {
            free(malloc(300000));
            _exit(0);
        }
        failures += waitpid(child, &status, 0) != child || status != 0;
    }
    __atomic_store_n(&stop, 1, __ATOMIC_RELAXED);
    return failures + (pthread_join(thread, NULL) != 0);
}

int main(int count, char **arguments) {
    if (count > 1 && strcmp(arguments[1], "forks") == 0) {
        return fork_often();
    }
    if (early_answer() != 42 || early_block == NULL || strcmp(early_block, "early") != 0) {
        return 1;
    }
    early_block = realloc(early_block, 100000);
    return strcmp(early_block, "early") == 0 ? 0 : 1;
}

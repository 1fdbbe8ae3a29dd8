// SPDX-License-Identifier: MIT
// Copyright (c) the poolmalloc authors
//
// The victim's side of fork.def: some threads allocate and free as fast as they can while others
// fork. A child that hangs is ended by its alarm, and its parent then finds the signal.

#include "victim.h"

#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <sys/wait.h>

enum {
    BUSY_COUNT = 3,
    LIVE_COUNT = 400,
    FORKS_COUNT = 250,
    CHILD_SECONDS = 30,
};

static bool stop;
static pthread_t busy[BUSY_COUNT];

// Of a busy thread: words that hold a block or NULL at any moment. The block's first bytes tell its
// size.
static void *live[BUSY_COUNT][LIVE_COUNT];

static size_t some_size(uint64_t *random) {
    const uint64_t kind = victim_random(random) % 64;
    const uint64_t bits = victim_random(random);
    return 16 + (size_t)(kind == 0 ? bits % 3000000 : kind < 8 ? bits % 60000 : bits % 1500);
}

static void *get_sized(uint64_t *random) {
    const size_t size = some_size(random);
    size_t *const block = malloc(size);
    CHECK(block != NULL);
    block[0] = size;
    block[1] = ~size;
    return block;
}

static void check_and_free(void *address) {
    const size_t *const block = address;
    if (block != NULL) {
        CHECK(block[0] == ~block[1], "a block of %zu was written to", block[0]);
        free(address);
    }
}

static void *be_busy(void *number) {
    const uintptr_t self = (uintptr_t)number;
    uint64_t random = self + 1;
    while (!__atomic_load_n(&stop, __ATOMIC_RELAXED)) {
        // Every 16th lands with another thread, so that remote frees are under way too.
        const uintptr_t thread = victim_random(&random) % 16 == 0 ? (self + 1) % BUSY_COUNT : self;
        void **const slot = &live[thread][victim_random(&random) % LIVE_COUNT];
        void *const fresh = get_sized(&random);
        check_and_free(__atomic_exchange_n(slot, NULL, __ATOMIC_ACQ_REL));
        check_and_free(__atomic_exchange_n(slot, fresh, __ATOMIC_ACQ_REL));
    }
    return NULL;
}

static void start_busy(void) {
    for (uintptr_t i = 0; i < BUSY_COUNT; i++) {
        CHECK(pthread_create(&busy[i], NULL, be_busy, (void *)i) == 0);
    }
}

static void stop_busy(void) {
    __atomic_store_n(&stop, true, __ATOMIC_RELAXED);
    for (unsigned i = 0; i < BUSY_COUNT; i++) {
        CHECK(pthread_join(busy[i], NULL) == 0);
    }
}

static void allocate_a_lot(void) {
    uint64_t random = 99;
    void *mine[200] = { NULL };
    for (unsigned i = 0; i < 1000; i++) {
        void **const slot = &mine[victim_random(&random) % COUNT_OF(mine)];
        check_and_free(*slot);
        *slot = get_sized(&random);
    }
    for (unsigned i = 0; i < COUNT_OF(mine); i++) {
        check_and_free(mine[i]);
    }
}

static void *allocate_in_thread(void *unused) {
    allocate_a_lot();
    return unused;
}

static void start_threads(void) {
    victim_threads(2, allocate_in_thread);
}

// A thread that was interrupted between taking a block and giving it back has left its word empty,
// so what the words hold is live and whole.
static void free_blocks_of_lost_threads(void) {
    for (unsigned i = 0; i < BUSY_COUNT; i++) {
        for (unsigned k = 0; k < LIVE_COUNT; k++) {
            check_and_free(live[i][k]);
        }
    }
    allocate_a_lot();
}

static void wait_for(pid_t child) {
    int status = 0;
    CHECK(child > 0);
    CHECK(waitpid(child, &status, 0) == child);
    CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0, "the child ended with status %x",
          (unsigned)status);
}

static void fork_and_wait(void (*in_child)(void)) {
    const pid_t child = fork();
    if (child == 0) {
        alarm(CHILD_SECONDS);
        in_child();
        _exit(0);
    }
    wait_for(child);
}

static void fork_again(void) {
    fork_and_wait(allocate_a_lot);
    allocate_a_lot();
    fork_and_wait(start_threads);
    free_blocks_of_lost_threads();
}

static void fork_many(unsigned count, void (*in_child)(void)) {
    start_busy();
    for (unsigned i = 0; i < count; i++) {
        fork_and_wait(in_child);
        void *const block = malloc(i * 10);
        CHECK(block != NULL);
        free(block);
    }
    stop_busy();
    allocate_a_lot();
}

static void fork_child_allocates(char **arguments) {
    (void)arguments;
    fork_many(FORKS_COUNT, allocate_a_lot);
}

static void fork_child_starts_threads(char **arguments) {
    (void)arguments;
    fork_many(FORKS_COUNT, start_threads);
}

static void fork_child_frees_blocks_of_lost_threads(char **arguments) {
    (void)arguments;
    fork_many(FORKS_COUNT, free_blocks_of_lost_threads);
}

static void fork_child_forks_again(char **arguments) {
    (void)arguments;
    fork_many(FORKS_COUNT / 4, fork_again);
}

static void *fork_in_thread(void *unused) {
    for (unsigned i = 0; i < FORKS_COUNT / 2; i++) {
        fork_and_wait(start_threads);
    }
    return unused;
}

static void fork_by_several_threads_at_once(char **arguments) {
    (void)arguments;
    start_busy();
    victim_threads(3, fork_in_thread);
    stop_busy();
}

static void handler(void) {
    allocate_a_lot();
}

static void fork_handlers_allocate(char **arguments) {
    (void)arguments;
    CHECK(pthread_atfork(handler, handler, handler) == 0);
    fork_many(FORKS_COUNT, allocate_a_lot);
}

// No handlers run, so the child may do no more than system calls; the parent must not notice
// anything.
static void raw_fork_keeps_the_parent_going(char **arguments) {
    (void)arguments;
    start_busy();
    for (unsigned i = 0; i < FORKS_COUNT; i++) {
        const pid_t child = (pid_t)syscall(SYS_clone, SIGCHLD, NULL, NULL, NULL, NULL);
        if (child == 0) {
            syscall(SYS_exit_group, 0);
        }
        wait_for(child);
        allocate_a_lot();
    }
    stop_busy();
}

#define CASE(name) { #name, name },
const struct victim_case victim_fork_cases[] = {
#include "fork.def"
    { 0 },
};

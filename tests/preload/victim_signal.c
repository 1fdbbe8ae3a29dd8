// SPDX-License-Identifier: MIT
// Copyright (c) the poolmalloc authors
//
// The victim's side of signal.def: a timer interrupts the program some ten thousand times a second,
// mostly inside malloc and free, and its handler allocates.

#include "victim.h"

#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum {
    INTERVAL_NS = 50000,
    SIGNALS_COUNT = 20000, // handled before the case ends
    LIVE_COUNT = 300,
    KEPT_COUNT = 64,
    FILLED = 400, // bytes of a block that carry the pattern
    FORKS_COUNT = 1000,
};

static volatile unsigned handled;
static timer_t timer;

static size_t some_size(uint64_t *random) {
    static const size_t most[] = { 64, 64, 600, 600, 600, 6000, 40000, 300000 };
    return 1 + (size_t)(victim_random(random) % most[victim_random(random) % COUNT_OF(most)]);
}

// What handlers ask for: texts, lists, buffers.
static size_t handlers_size(uint64_t *random) {
    static const size_t most[] = { 64, 600, 6000, 6000 };
    return 1 + (size_t)(victim_random(random) % most[victim_random(random) % COUNT_OF(most)]);
}

static size_t filled(size_t size) {
    return size < FILLED ? size : FILLED;
}

static void start_timer(void (*handler)(int)) {
    struct sigaction action = { .sa_handler = handler, .sa_flags = SA_RESTART };
    CHECK(sigaction(SIGUSR1, &action, NULL) == 0);
    struct sigevent event = { .sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGUSR1 };
    CHECK(timer_create(CLOCK_MONOTONIC, &event, &timer) == 0);
    const struct itimerspec often = { .it_interval.tv_nsec = INTERVAL_NS,
                                      .it_value.tv_nsec = INTERVAL_NS };
    CHECK(timer_settime(timer, 0, &often, NULL) == 0);
}

static void stop_timer(void) {
    CHECK(timer_delete(timer) == 0);
    signal(SIGUSR1, SIG_IGN);
}

static struct {
    void *block;
    size_t size;
} live[LIVE_COUNT];

static void replace(unsigned i, uint64_t *random) {
    // Taken out of the table first: the handler may jump away at any moment.
    void *const block = live[i].block;
    if (block != NULL) {
        CHECK(victim_wrong(block, filled(live[i].size), i) == filled(live[i].size), "block of %zu",
              live[i].size);
        live[i].block = NULL;
        atomic_signal_fence(memory_order_seq_cst);
        free(block);
    }
    const size_t size = some_size(random);
    void *const fresh = victim_random(random) % 8 == 0 ? calloc(1, size) : malloc(size);
    CHECK(fresh != NULL);
    victim_fill(fresh, filled(size), i);
    live[i].size = size;
    atomic_signal_fence(memory_order_seq_cst);
    live[i].block = fresh;
}

static void churn_until_handled(void) {
    uint64_t random = 5;
    while (handled < SIGNALS_COUNT) {
        replace((unsigned)(victim_random(&random) % LIVE_COUNT), &random);
    }
    stop_timer();
    for (unsigned i = 0; i < LIVE_COUNT; i++) {
        replace(i, &random);
    }
}

static uint64_t handler_random = 11;

static void allocate_and_free(int number) {
    (void)number;
    const size_t size = handlers_size(&handler_random);
    void *const block = malloc(size);
    CHECK(block != NULL);
    victim_fill(block, filled(size), 1000);
    void *const other = realloc(calloc(1, size), size * 2);
    CHECK(other != NULL && victim_wrong(block, filled(size), 1000) == filled(size));
    free(block);
    free(other);
    handled++;
}

static void handler_allocates_and_frees(char **arguments) {
    (void)arguments;
    start_timer(allocate_and_free);
    churn_until_handled();
}

// The interrupted thread may be taking the locks for a fork, or giving them back. No timer of the
// parent interrupts a child.
static void handler_allocates_while_forking(char **arguments) {
    (void)arguments;
    start_timer(allocate_and_free);
    for (unsigned i = 0; i < FORKS_COUNT; i++) {
        int status = 0;
        const pid_t child = fork();
        if (child == 0) {
            free(malloc(300000));
            _exit(0);
        }
        CHECK(child > 0);
        while (waitpid(child, &status, 0) == -1 && errno == EINTR) {
        }
        CHECK(status == 0, "the child ended with status %x", (unsigned)status);
    }
    stop_timer();
}

static void *kept[KEPT_COUNT];
static size_t kept_sizes[KEPT_COUNT];

static void keep(int number) {
    (void)number;
    const unsigned i = (unsigned)(victim_random(&handler_random) % KEPT_COUNT);
    if (kept[i] != NULL) {
        CHECK(victim_wrong(kept[i], filled(kept_sizes[i]), i) == filled(kept_sizes[i]), "%zu",
              kept_sizes[i]);
    }
    free(kept[i]);
    kept_sizes[i] = handlers_size(&handler_random);
    kept[i] = malloc(kept_sizes[i]);
    CHECK(kept[i] != NULL);
    victim_fill(kept[i], filled(kept_sizes[i]), i);
    handled++;
}

static void handler_keeps_blocks_for_a_while(char **arguments) {
    (void)arguments;
    start_timer(keep);
    churn_until_handled();
    for (unsigned i = 0; i < KEPT_COUNT; i++) {
        free(kept[i]);
    }
}

// The main program puts blocks here, the handler frees them, and the other way round.
static void *for_handler[KEPT_COUNT], *for_program[KEPT_COUNT];

static void trade(int number) {
    (void)number;
    const unsigned i = (unsigned)(victim_random(&handler_random) % KEPT_COUNT);
    free(__atomic_exchange_n(&for_handler[i], NULL, __ATOMIC_ACQ_REL));
    void *const block = malloc(handlers_size(&handler_random));
    CHECK(block != NULL);
    free(__atomic_exchange_n(&for_program[i], block, __ATOMIC_ACQ_REL));
    handled++;
}

static void handler_frees_blocks_of_the_program(char **arguments) {
    (void)arguments;
    start_timer(trade);
    uint64_t random = 3;
    while (handled < SIGNALS_COUNT) {
        const unsigned i = (unsigned)(victim_random(&random) % KEPT_COUNT);
        void *const block = malloc(some_size(&random));
        CHECK(block != NULL);
        free(__atomic_exchange_n(&for_handler[i], block, __ATOMIC_ACQ_REL));
        free(__atomic_exchange_n(&for_program[i], NULL, __ATOMIC_ACQ_REL));
    }
    stop_timer();
}

static _Thread_local uint64_t thread_random;

static void allocate_in_any_thread(int number) {
    (void)number;
    uint64_t random = (uintptr_t)&random ^ handled;
    const size_t size = handlers_size(&random);
    void *const block = malloc(size);
    CHECK(block != NULL);
    victim_fill(block, filled(size), 5);
    CHECK(victim_wrong(block, filled(size), 5) == filled(size));
    free(block);
    __atomic_fetch_add(&handled, 1, __ATOMIC_RELAXED);
}

static void *churn_in_thread(void *number) {
    thread_random = (uintptr_t)number + 1;
    void *mine[64] = { NULL };
    size_t mine_sizes[64] = { 0 };
    while (__atomic_load_n(&handled, __ATOMIC_RELAXED) < SIGNALS_COUNT) {
        const unsigned i = (unsigned)(victim_random(&thread_random) % COUNT_OF(mine));
        CHECK(victim_wrong(mine[i], filled(mine_sizes[i]), i) == filled(mine_sizes[i]), "%zu",
              mine_sizes[i]);
        free(mine[i]);
        mine_sizes[i] = some_size(&thread_random);
        mine[i] = malloc(mine_sizes[i]);
        CHECK(mine[i] != NULL);
        victim_fill(mine[i], filled(mine_sizes[i]), i);
        if (victim_random(&thread_random) % 4 == 0) {
            pthread_kill(pthread_self(), SIGUSR1);
        }
    }
    for (unsigned i = 0; i < COUNT_OF(mine); i++) {
        free(mine[i]);
    }
    return NULL;
}

static void handlers_allocate_in_many_threads(char **arguments) {
    (void)arguments;
    start_timer(allocate_in_any_thread);
    victim_threads(4, churn_in_thread);
    stop_timer();
}

static sigjmp_buf loop;
static volatile bool may_jump;

static void jump(int number) {
    (void)number;
    handled++;
    if (may_jump && handled % 8 == 0) {
        siglongjmp(loop, 1);
    }
}

// Out of the middle of malloc and free, again and again. What was being allocated or freed may be
// lost; the rest must be whole and the allocator must go on.
static void handler_jumps_out(char **arguments) {
    (void)arguments;
    static uint64_t random = 17;
    start_timer(jump);
    sigsetjmp(loop, 1);
    may_jump = true;
    while (handled < SIGNALS_COUNT) {
        replace((unsigned)(victim_random(&random) % LIVE_COUNT), &random);
    }
    may_jump = false;
    stop_timer();
    for (unsigned i = 0; i < LIVE_COUNT; i++) {
        replace(i, &random);
    }
}

#define CASE(name) { #name, name },
const struct victim_case victim_signal_cases[] = {
#include "signal.def"
    { 0 },
};

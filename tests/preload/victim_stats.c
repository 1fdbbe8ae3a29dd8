// SPDX-License-Identifier: MIT
// Copyright (c) the poolmalloc authors
//
// The victim's side of the statistics tests: known blocks are in use at the end, which comes in
// several ways.

#include "stats.h"
#include "victim.h"

#include <fcntl.h>
#include <stdlib.h>
#include <sys/wait.h>

static void *small[STATS_SMALL_COUNT];
static void *large[STATS_LARGE_COUNT];
static void *huge[STATS_HUGE_COUNT];

static void fill_heap(void) {
    for (unsigned i = 0; i < STATS_SMALL_COUNT; i++) {
        free(malloc(STATS_SMALL_SIZE * 2));
        small[i] = malloc(STATS_SMALL_SIZE);
    }
    for (unsigned i = 0; i < STATS_LARGE_COUNT; i++) {
        large[i] = malloc(STATS_LARGE_SIZE);
    }
    for (unsigned i = 0; i < STATS_HUGE_COUNT; i++) {
        huge[i] = malloc(STATS_HUGE_SIZE);
        memset(huge[i], 1, 100);
    }
}

static void *fill_heap_in_thread(void *unused) {
    fill_heap();
    return unused;
}

static void stats_end(char **arguments) {
    (void)arguments;
    fill_heap();
}

static void stats_end_after_threads(char **arguments) {
    (void)arguments;
    victim_threads(1, fill_heap_in_thread);
}

static void close_stderr(void) {
    fclose(stderr);
    close(2);
}

static void stats_close_stderr(char **arguments) {
    (void)arguments;
    atexit(close_stderr);
    fill_heap();
}

// A file of the program's own gets the number of stderr: nothing but the program's text may reach
// it.
static void stats_reuse_stderr(char **arguments) {
    fill_heap();
    close(2);
    CHECK(open(arguments[0], O_WRONLY | O_CREAT | O_TRUNC, 0600) == 2);
    CHECK(write(2, "mine\n", 5) == 5);
}

static void stats_fork(char **arguments) {
    (void)arguments;
    fill_heap();
    for (int i = 0; i < STATS_CHILDREN_COUNT; i++) {
        const pid_t child = fork();
        if (child == 0) {
            exit(0);
        }
        int status;
        CHECK(waitpid(child, &status, 0) == child && status == 0);
        printf("%d\n", (int)child);
    }
}

static void stats_underscore_exit(char **arguments) {
    (void)arguments;
    fill_heap();
    _exit(0);
}

#define CASE(name) \
    { #name, name }
const struct victim_case victim_stats_cases[] = {
    CASE(stats_end),
    CASE(stats_end_after_threads),
    CASE(stats_close_stderr),
    CASE(stats_reuse_stderr),
    CASE(stats_fork),
    CASE(stats_underscore_exit),
    { 0 },
};

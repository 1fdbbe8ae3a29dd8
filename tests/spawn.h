// SPDX-License-Identifier: MIT
// Copyright (c) the poolmalloc authors
//
// Starts another program the way a test needs it: with an environment, limits and a deadline of its
// own, what it prints kept in memory. Used by the Criterion programs, which never run on the
// allocator under test themselves: they start victims that do.

#ifndef TESTS_SPAWN_H
#define TESTS_SPAWN_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

enum {
    SPAWN_SECONDS = 60,
    SPAWN_ENV_COUNT = 12,
};

struct spawn {
    const char *const *argv;          // NULL-terminated; argv[0] is searched for in PATH
    const char *env[SPAWN_ENV_COUNT]; // "NAME=value" sets, "NAME" removes; the rest is inherited
    const char *directory;            // NULL: where we are
    size_t address_space;             // RLIMIT_AS in bytes; 0: as we have it
    unsigned seconds;                 // then it is killed with all of its group; 0: SPAWN_SECONDS
};

struct spawned {
    int exit_code; // -1 when a signal ended it
    int signal;    // 0 when it exited
    bool timed_out;
    pid_t pid;
    char *out, *err; // NUL-terminated, never NULL
    size_t out_size, err_size;
};

// Runs to the end. Fails the Criterion test when the program can't be started at all.
struct spawned spawn_run(const struct spawn *spawn);
void spawn_drop(struct spawned *spawned);

// "exit code 3", "signal 6 (Aborted)", "timed out": in a static buffer.
const char *spawn_outcome(const struct spawned *spawned);

// Is there such a program in PATH?
bool spawn_finds(const char *program);

// Makes an empty directory for one test / removes it with all that is in it.
void spawn_make_directory(char path[static 64]);
void spawn_remove_directory(const char *path);

#endif

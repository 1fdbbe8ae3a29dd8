// SPDX-License-Identifier: MIT
// Copyright (c) the poolmalloc authors
//
// Starts victims under preload and judges how they ended.

#include "preload.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { VICTIM_SKIPS = 77 };

const char *preload_beside(const char *name) {
    static char paths[4][PATH_MAX];
    static unsigned next;
    char *const path = paths[next++ % 4];
    char program[PATH_MAX / 2] = "";
    cr_assert(readlink("/proc/self/exe", program, sizeof program - 1) > 0);
    *strrchr(program, '/') = '\0';
    snprintf(path, PATH_MAX, "%s/%s", program, name);
    return path;
}

const char *preload_library(void) {
    const char *const named = getenv("TEST_POOLMALLOC_LIB");
    const char *const library =
        named != NULL ? named : preload_beside("../../src/.libs/libpoolmalloc.so");
    if (named == NULL && access(library, R_OK) != 0 &&
        access(preload_beside("../../src/.libs/libpoolmalloc.a"), R_OK) == 0) {
        cr_skip("built without a shared library, so there is nothing to preload");
    }
    cr_assert(*library == '\0' || access(library, R_OK) == 0,
              "%s isn't there: run 'make' first, or name a library in TEST_POOLMALLOC_LIB",
              library);
    return library;
}

static void add_env(struct spawn *spawn, const char *text) {
    for (size_t i = 0; i + 1 < SPAWN_ENV_COUNT; i++) {
        if (spawn->env[i] == NULL) {
            spawn->env[i] = text;
            return;
        }
    }
    cr_assert(false, "too many variables for one program");
}

// Options that the person who runs the tests has set must not reach the victims; a test's own ones
// come later in the list and so win.
static struct spawn without_options(const struct spawn *spawn) {
    struct spawn cleaned = *spawn;
    memset(cleaned.env, 0, sizeof cleaned.env);
    static const char *const options[] = { "TEST_POOLMALLOC_LIB", "POOLMALLOC_STATS",
                                           "POOLMALLOC_HELP", "POOLMALLOC_DEEPBIND" };
    for (size_t i = 0; i < sizeof options / sizeof *options; i++) {
        add_env(&cleaned, options[i]);
    }
    for (const char *const *env = spawn->env; *env != NULL; env++) {
        add_env(&cleaned, *env);
    }
    return cleaned;
}

struct spawned preload_run(const struct spawn *spawn) {
    char preload[PATH_MAX + 32];
    snprintf(preload, sizeof preload, "LD_PRELOAD=%s", preload_library());
    struct spawn loaded = without_options(spawn);
    add_env(&loaded, preload);
    return spawn_run(&loaded);
}

int preload_sentences(const struct spawned *spawned, size_t size, char *line) {
    static const char start[] = "poolmalloc: ";
    int count = 0;
    line[0] = '\0';
    for (const char *at = spawned->err; *at != '\0';) {
        const char *const end = strchrnul(at, '\n');
        if (strncmp(at, start, sizeof start - 1) == 0 && count++ == 0) {
            snprintf(line, size, "%.*s", (int)(end - at), at);
        }
        at = *end == '\0' ? end : end + 1;
    }
    return count;
}

void preload_check_clean(const char *what, const struct spawned *spawned) {
    char line[512];
    cr_assert(preload_sentences(spawned, sizeof line, line) == 0, "%s: false alarm: %s", what,
              line);
    cr_assert(spawned->exit_code == 0, "%s: %s; stderr:\n%s", what, spawn_outcome(spawned),
              spawned->err);
}

struct spawned preload_victim(const struct preload_victim *victim) {
    const char *argv[PRELOAD_ARGUMENTS_COUNT + 3] = {
        preload_beside(victim->program != NULL ? victim->program : "victim"),
        victim->name,
    };
    for (size_t i = 0; i < PRELOAD_ARGUMENTS_COUNT; i++) {
        argv[i + 2] = victim->arguments[i];
    }
    struct spawn spawn = {
        .argv = argv,
        .address_space = victim->address_space,
        .seconds = PRELOAD_SECONDS,
    };
    memcpy(spawn.env, victim->env, sizeof victim->env);
    if (victim->bare) {
        const struct spawn bare = without_options(&spawn);
        return spawn_run(&bare);
    }
    return preload_run(&spawn);
}

void preload_victim_passes(const struct preload_victim *victim) {
    struct spawned spawned = preload_victim(victim);
    if (spawned.exit_code == VICTIM_SKIPS) {
        cr_skip("%s: %s", victim->name, spawned.err);
    }
    preload_check_clean(victim->name, &spawned);
    spawn_drop(&spawned);
}

// SPDX-License-Identifier: MIT
// Copyright (c) the poolmalloc authors
//
// Real programs give the same answers with the allocator preloaded as without, and it has nothing
// to say about them. Each is a script in programs/, run in an empty directory of its own.

#include "preload.h"

#include <stdio.h>
#include <string.h>

enum { NEEDS_COUNT = 3 };

struct program {
    const char *script;
    const char *needs[NEEDS_COUNT + 1];
    const char *env;
    const char *answer; // NULL: what it prints without us
};

static struct spawned run(const struct program *program, bool preloaded) {
    char directory[64], path[4096];
    spawn_make_directory(directory);
    snprintf(path, sizeof path, "%s/%s", TESTS_PROGRAMS, program->script);
    const char *const argv[] = { "bash", path, NULL };
    const struct spawn spawn = { .argv = argv,
                                 .directory = directory,
                                 .env = { program->env },
                                 .seconds = PRELOAD_SECONDS / 2 };
    const struct spawned spawned = preloaded ? preload_run(&spawn) : spawn_run(&spawn);
    spawn_remove_directory(directory);
    return spawned;
}

static void check_program(const struct program *program) {
    for (const char *const *need = program->needs; *need != NULL; need++) {
        if (!spawn_finds(*need)) {
            cr_skip("%s isn't installed", *need);
        }
    }
    const char *answer = program->answer;
    struct spawned bare = { 0 };
    if (answer == NULL) {
        bare = run(program, false);
        cr_assert(bare.exit_code == 0, "%s without preload: %s\n%s", program->script,
                  spawn_outcome(&bare), bare.err);
        answer = bare.out;
    }
    struct spawned loaded = run(program, true);
    preload_check_clean(program->script, &loaded);
    cr_assert(strcmp(loaded.out, answer) == 0, "%s printed\n%s\nand not\n%s", program->script,
              loaded.out, answer);
    spawn_drop(&loaded);
    spawn_drop(&bare);
}

#define PROGRAM(name, ...)                                  \
    Test(programs, name, .timeout = PRELOAD_TEST_SECONDS) { \
        check_program(&(struct program){ __VA_ARGS__ });    \
    }

PROGRAM(python, .script = "python.sh", .needs = { "python3" })
PROGRAM(python_on_malloc_alone, .script = "python.sh", .needs = { "python3" },
        .env = "PYTHONMALLOC=malloc")
PROGRAM(perl, .script = "perl.sh", .needs = { "perl" })
PROGRAM(git, .script = "git.sh", .needs = { "git" })
PROGRAM(c_compilers, .script = "compile.sh", .needs = { "gcc" })
PROGRAM(cxx_compiler, .script = "templates.sh", .needs = { "g++" })
PROGRAM(sqlite, .script = "sqlite.sh", .needs = { "sqlite3" })
PROGRAM(node, .script = "node.sh", .needs = { "node" })
PROGRAM(xz_with_threads, .script = "xz.sh", .needs = { "xz" })
PROGRAM(sort_with_threads, .script = "sort.sh", .needs = { "sort" })
PROGRAM(redis_under_load, .script = "redis.sh",
        .needs = { "redis-server", "redis-benchmark", "redis-cli" },
        .answer = "filled\ncounter off by 0\nlost 0\nknown keys 3004\nnot counted 0\n")

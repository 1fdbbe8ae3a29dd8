// SPDX-License-Identifier: MIT
// Copyright (c) the poolmalloc authors
//
// When the system gives no more memory: NULL and ENOMEM, nothing lost, and the program goes on when
// memory comes back.

#include "preload.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define CASE(name) PRELOAD_CASE_TEST(limits, name)
#include "limits.def"

static const size_t limits[] = { (size_t)64 << 20, (size_t)256 << 20, (size_t)1 << 30 };

enum { LIMITS_COUNT = sizeof limits / sizeof *limits };

// What runs without us under the limit has to run with us.
static void check_program(const char *const argv[]) {
    if (!spawn_finds(argv[0])) {
        cr_skip("%s isn't installed", argv[0]);
    }
    for (int i = 0; i < LIMITS_COUNT; i++) {
        char what[128];
        snprintf(what, sizeof what, "%s in %zu MiB", argv[0], limits[i] >> 20);
        const struct spawn spawn = { .argv = argv, .address_space = limits[i] };
        struct spawned bare = spawn_run(&spawn);
        if (bare.exit_code == 0) {
            struct spawned loaded = preload_run(&spawn);
            preload_check_clean(what, &loaded);
            cr_assert(strcmp(bare.out, loaded.out) == 0, "%s: printed %s", what, loaded.out);
            spawn_drop(&loaded);
        }
        spawn_drop(&bare);
    }
}

#define PROGRAM(name, ...)                                \
    Test(limits, name, .timeout = PRELOAD_TEST_SECONDS) { \
        const char *const argv[] = { __VA_ARGS__, NULL }; \
        check_program(argv);                              \
    }

PROGRAM(true_runs_in_little_address_space, "true")
PROGRAM(perl_runs_in_little_address_space, "perl", "-e",
        "my @a = map { \"x$_\" } 1..20000; print scalar(@a)")
PROGRAM(python_runs_in_little_address_space, "python3", "-c",
        "print(len([str(i) for i in range(20000)]))")
PROGRAM(sort_runs_in_little_address_space, "sort", "--parallel=2", "-S", "4M", "/etc/services")

static void check_exhaust(const char *kind, int up_to) {
    for (int i = 0; i < up_to; i++) {
        char what[128];
        snprintf(what, sizeof what, "%s blocks in %zu MiB", kind, limits[i] >> 20);
        struct spawned spawned = preload_victim(&(struct preload_victim){
            .name = "exhaust", .arguments = { kind }, .address_space = limits[i] });
        preload_check_clean(what, &spawned);
        spawn_drop(&spawned);
    }
}

#define EXHAUST(name, kind, up_to)                        \
    Test(limits, name, .timeout = PRELOAD_TEST_SECONDS) { \
        check_exhaust(kind, up_to);                       \
    }

EXHAUST(tiny_blocks_until_null, "tiny", 2)
EXHAUST(small_blocks_until_null, "small", LIMITS_COUNT)
EXHAUST(medium_blocks_until_null, "medium", 2)
EXHAUST(large_blocks_until_null, "large", LIMITS_COUNT)
EXHAUST(page_runs_until_null, "run", LIMITS_COUNT)
EXHAUST(huge_blocks_until_null, "huge", LIMITS_COUNT)
EXHAUST(aligned_blocks_until_null, "aligned", 2)
EXHAUST(much_aligned_blocks_until_null, "much aligned", LIMITS_COUNT)
EXHAUST(zeroed_blocks_until_null, "zeroed", 2)
EXHAUST(zeroed_large_blocks_until_null, "zeroed large", LIMITS_COUNT)
EXHAUST(grown_blocks_until_null, "grown", LIMITS_COUNT)

// The limit of the library: the program gets ENOMEM within 2 % of it, one line says so, and it goes
// on.
static void check_hard_limit(const char *kind) {
    char line[512];
    struct spawned spawned =
        preload_victim(&(struct preload_victim){ .name = "exhaust_limit",
                                                 .arguments = { kind, "134217728" },
                                                 .env = { "POOLMALLOC_LIMIT=hard=128M" } });
    cr_assert(spawned.exit_code == 0, "%s; stderr:\n%s", spawn_outcome(&spawned), spawned.err);
    cr_assert(preload_sentences(&spawned, sizeof line, line) == 1, "stderr:\n%s", spawned.err);
    cr_assert(strstr(line, "hard limit of 134217728 bytes") != NULL, "%s", line);
    spawn_drop(&spawned);
}

#define HARD_LIMIT(name, kind)                            \
    Test(limits, name, .timeout = PRELOAD_TEST_SECONDS) { \
        check_hard_limit(kind);                           \
    }

HARD_LIMIT(tiny_blocks_up_to_the_hard_limit, "tiny")
HARD_LIMIT(small_blocks_up_to_the_hard_limit, "small")
HARD_LIMIT(medium_blocks_up_to_the_hard_limit, "medium")
HARD_LIMIT(large_blocks_up_to_the_hard_limit, "large")
HARD_LIMIT(page_runs_up_to_the_hard_limit, "run")
HARD_LIMIT(huge_blocks_up_to_the_hard_limit, "huge")
HARD_LIMIT(aligned_blocks_up_to_the_hard_limit, "aligned")
HARD_LIMIT(zeroed_blocks_up_to_the_hard_limit, "zeroed large")
HARD_LIMIT(grown_blocks_up_to_the_hard_limit, "grown")

Test(limits, many_threads_with_little_memory_are_served, .timeout = PRELOAD_TEST_SECONDS) {
    preload_victim_passes(
        &(struct preload_victim){ .name = "many_threads_with_little_memory_are_served",
                                  .env = { "POOLMALLOC_LIMIT=hard=64M" } });
}

#define BACKGROUND(promise)                                                    \
    Test(limits, promise, .timeout = PRELOAD_TEST_SECONDS) {                   \
        preload_victim_passes(&(struct preload_victim){                        \
            .name = #promise, .env = { "POOLMALLOC_PURGE=background,delay=20" } }); \
    }

BACKGROUND(a_silent_program_shrinks_in_the_background)
BACKGROUND(a_forked_child_purges_in_its_calls)
BACKGROUND(the_background_thread_has_room_for_what_libc_puts_on_its_stack)

Test(limits, memory_of_one_size_serves_all_others, .timeout = PRELOAD_TEST_SECONDS) {
    preload_victim_passes(
        &(struct preload_victim){ .name = "exhaust_in_turn", .address_space = (size_t)128 << 20 });
}

// Overcommit 2 counts every private writable mapping. The setting is the machine's, so the test has
// to be asked for; a guard process puts the old value back however the test ends.
static const char overcommit_file[] = "/proc/sys/vm/overcommit_memory";

static char read_overcommit(void) {
    char value = '\0';
    const int fd = open(overcommit_file, O_RDONLY);
    const bool done = fd >= 0 && read(fd, &value, 1) == 1;
    close(fd);
    return done ? value : '\0';
}

static bool write_overcommit(char value) {
    const int fd = open(overcommit_file, O_WRONLY);
    const bool done = fd >= 0 && write(fd, &value, 1) == 1;
    close(fd);
    return done;
}

// Closing what this returns ends the guard, which then restores.
static int start_guard(char value) {
    int ends[2];
    cr_assert(pipe2(ends, O_CLOEXEC) == 0);
    if (fork() == 0) {
        setsid();
        close(ends[1]);
        char nothing;
        while (read(ends[0], &nothing, 1) > 0) {
        }
        write_overcommit(value);
        _exit(0);
    }
    close(ends[0]);
    return ends[1];
}

Test(limits, overcommit_2_serves_and_refuses_in_order, .timeout = PRELOAD_TEST_SECONDS) {
    const char *const asked = getenv("TEST_POOLMALLOC_OVERCOMMIT");
    if (asked == NULL || strcmp(asked, "yes") != 0) {
        cr_skip("it changes a setting of the whole machine: TEST_POOLMALLOC_OVERCOMMIT=yes allows "
                "that");
    }
    const char old = read_overcommit();
    if (old == '\0' || !write_overcommit(old)) {
        cr_skip("%s can't be written", overcommit_file);
    }
    const int guard = start_guard(old);
    cr_assert(write_overcommit('2'));
    struct spawned in_turn = preload_victim(
        &(struct preload_victim){ .name = "exhaust_in_turn", .address_space = (size_t)256 << 20 });
    struct spawned unlimited =
        preload_victim(&(struct preload_victim){ .name = "live_blocks_never_overlap" });
    write_overcommit(old);
    close(guard);
    preload_check_clean("exhaust_in_turn", &in_turn);
    preload_check_clean("live_blocks_never_overlap", &unlimited);
    spawn_drop(&in_turn);
    spawn_drop(&unlimited);
}

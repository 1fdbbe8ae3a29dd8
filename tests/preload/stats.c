// SPDX-License-Identifier: MIT
// Copyright (c) the poolmalloc authors
//
// POOLMALLOC_STATS and the other options: what is printed where, that the numbers add up, that
// nonsense is told and harmless, and that nothing is printed unasked.

#include "preload.h"

#include "stats.h"

#include <ctype.h>
#include <dirent.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <unistd.h>

static bool says(const char *text, const char *word) {
    return strcasestr(text, word) != NULL;
}

static void expect_report(const char *what, const char *text) {
    static const char *const words[] = { "mapped", "class", "pool", "in use", "available" };
    for (size_t i = 0; i < sizeof words / sizeof *words; i++) {
        cr_expect(says(text, words[i]), "%s: no '%s' in the report:\n%s", what, words[i], text);
    }
}

static struct spawned run_with(const char *victim, const char *argument, const char *option) {
    return preload_victim(
        &(struct preload_victim){ .name = victim, .arguments = { argument }, .env = { option } });
}

Test(stats, nothing_is_printed_unasked, .timeout = PRELOAD_TEST_SECONDS) {
    static const char *const options[] = { NULL, "POOLMALLOC_STATS=", "POOLMALLOC_STATS=0" };
    for (size_t i = 0; i < sizeof options / sizeof *options; i++) {
        struct spawned spawned = run_with("stats_end", NULL, options[i]);
        cr_expect(spawned.exit_code == 0 && spawned.out_size == 0 && spawned.err_size == 0,
                  "%s: %s\n%s", options[i] == NULL ? "unset" : options[i], spawn_outcome(&spawned),
                  spawned.err);
        spawn_drop(&spawned);
    }
}

#define REPORTS(test, victim)                                                  \
    Test(stats, test, .timeout = PRELOAD_TEST_SECONDS) {                       \
        struct spawned spawned = run_with(victim, NULL, "POOLMALLOC_STATS=1"); \
        cr_assert(spawned.exit_code == 0 && spawned.out_size == 0, "%s\n%s",   \
                  spawn_outcome(&spawned), spawned.err);                       \
        expect_report(victim, spawned.err);                                    \
        spawn_drop(&spawned);                                                  \
    }

REPORTS(report_goes_to_stderr_at_exit, "stats_end")
REPORTS(report_counts_blocks_of_ended_threads, "stats_end_after_threads")
REPORTS(report_survives_a_closed_stderr, "stats_close_stderr")

Test(stats, report_spares_a_file_with_stderrs_number, .timeout = PRELOAD_TEST_SECONDS) {
    char directory[64], file[128], text[64] = "";
    spawn_make_directory(directory);
    snprintf(file, sizeof file, "%s/mine", directory);
    struct spawned spawned = run_with("stats_reuse_stderr", file, "POOLMALLOC_STATS=1");
    FILE *const mine = fopen(file, "r");
    cr_assert(mine != NULL);
    const size_t got = fread(text, 1, sizeof text - 1, mine);
    fclose(mine);
    spawn_remove_directory(directory);
    cr_assert(spawned.exit_code == 0 && got == 5 && strcmp(text, "mine\n") == 0, "%s: %s",
              spawn_outcome(&spawned), text);
    spawn_drop(&spawned);
}

// Rows that sum to the bytes mapped, and the blocks that we know to be in use.
static const char check_json[] =
    "import json, sys\n"
    "for name in sys.argv[5:]:\n"
    "    d = json.load(open(name))\n"
    "    assert d['mapped'] == sum(d['balance'].values()), (d['mapped'], d['balance'])\n"
    "    assert all(v >= 0 for v in d['balance'].values()), d['balance']\n"
    "    assert str(d['pid']) in name, (d['pid'], name)\n"
    "    size, count, large = map(int, sys.argv[1:4])\n"
    "    row = next(c for c in d['classes'] if c['size'] >= size)\n"
    "    assert count <= row['in_use'] <= count * 1.2, row\n"
    "    assert row['pools'] >= 1 and row['available'] >= 0, row\n"
    "    assert all(c['pinned'] <= c['available'] * c['size'] for c in d['classes']), "
    "d['classes']\n"
    "    assert all(c['sparse'] <= c['pools'] for c in d['classes']), d['classes']\n"
    "    assert d['pinned'] == sum(c['pinned'] for c in d['classes']), d['pinned']\n"
    "    assert d['pinned'] <= d['balance']['blocks_free'], d\n"
    "    sizes = [c['size'] for c in d['classes']]\n"
    "    assert sizes == sorted(set(sizes)), sizes\n"
    "    numbers = [c['class'] for c in d['classes']]\n"
    "    assert numbers == sorted(set(numbers)), numbers\n"
    "    assert d['mapped'] >= large + size * count, d['mapped']\n"
    "    assert d['version'], d\n"
    "assert len(sys.argv) - 5 == int(sys.argv[4]), sys.argv\n";

static void check_files(const char *directory, int expected) {
    enum { FILES_COUNT = 8 };
    static char paths[FILES_COUNT][PATH_MAX];
    char small_size[16], small_count[16], large_bytes[24], files[8];
    snprintf(small_size, sizeof small_size, "%d", STATS_SMALL_SIZE);
    snprintf(small_count, sizeof small_count, "%d", STATS_SMALL_COUNT);
    snprintf(large_bytes, sizeof large_bytes, "%d",
             STATS_LARGE_SIZE * STATS_LARGE_COUNT + STATS_HUGE_SIZE * STATS_HUGE_COUNT);
    snprintf(files, sizeof files, "%d", expected);
    const char *argv[FILES_COUNT + 8] = { "python3",   "-c",        check_json, small_size,
                                          small_count, large_bytes, files };
    int count = 0;
    DIR *const listing = opendir(directory);
    for (const struct dirent *entry = readdir(listing); entry != NULL; entry = readdir(listing)) {
        if (entry->d_name[0] != '.' && count < FILES_COUNT) {
            snprintf(paths[count], PATH_MAX, "%s/%s", directory, entry->d_name);
            argv[7 + count] = paths[count];
            count++;
        }
    }
    closedir(listing);
    struct spawned judged = spawn_run(&(struct spawn){ .argv = argv });
    cr_expect(judged.exit_code == 0, "%d files: %s", count, judged.err);
    spawn_drop(&judged);
}

static void check_json_of(const char *victim, int expected_files) {
    if (!spawn_finds("python3")) {
        cr_skip("python3 isn't installed");
    }
    char directory[64], option[256];
    spawn_make_directory(directory);
    snprintf(option, sizeof option, "POOLMALLOC_STATS=file=%s/stats.%%p.json,format=json",
             directory);
    struct spawned spawned = run_with(victim, NULL, option);
    cr_expect(spawned.exit_code == 0 && spawned.err_size == 0, "%s: %s", spawn_outcome(&spawned),
              spawned.err);
    check_files(directory, expected_files);
    spawn_remove_directory(directory);
    spawn_drop(&spawned);
}

Test(stats, json_adds_up, .timeout = PRELOAD_TEST_SECONDS) {
    check_json_of("stats_end", 1);
}

Test(stats, json_adds_up_after_threads, .timeout = PRELOAD_TEST_SECONDS) {
    check_json_of("stats_end_after_threads", 1);
}

Test(stats, each_child_of_fork_writes_its_own_file, .timeout = PRELOAD_TEST_SECONDS) {
    check_json_of("stats_fork", 1 + STATS_CHILDREN_COUNT);
}

Test(stats, text_file_is_the_same_report, .timeout = PRELOAD_TEST_SECONDS) {
    char directory[64], option[256];
    spawn_make_directory(directory);
    snprintf(option, sizeof option, "POOLMALLOC_STATS=file=%s/stats,format=text", directory);
    struct spawned spawned = run_with("stats_end", NULL, option);
    const char *const argv[] = { "cat", strchr(option, '/'), NULL };
    *strchr(option, ',') = '\0';
    struct spawned text = spawn_run(&(struct spawn){ .argv = argv });
    spawn_remove_directory(directory);
    cr_assert(spawned.exit_code == 0 && spawned.err_size == 0, "%s: %s", spawn_outcome(&spawned),
              spawned.err);
    expect_report("file", text.out);
    spawn_drop(&text);
    spawn_drop(&spawned);
}

Test(stats, unwritable_file_is_told_and_harmless, .timeout = PRELOAD_TEST_SECONDS) {
    static const char *const files[][2] = {
        { "/nonexistent/folder/stats", "no such folder" },
        { "/", "it is a folder" },
        { "/dev/null/stats", "what should be a folder is a file" },
    };
    // The second closes stderr as it ends, as many programs do.
    static const char *const cases[] = { "stats_end", "stats_close_stderr" };
    for (size_t i = 0; i < 2 * sizeof files / sizeof *files; i++) {
        const char *const *const file = files[i / 2];
        char option[64];
        snprintf(option, sizeof option, "POOLMALLOC_STATS=file=%s", file[0]);
        struct spawned spawned = run_with(cases[i % 2], NULL, option);
        cr_assert(spawned.exit_code == 0, "%s: %s", spawn_outcome(&spawned), spawned.err);
        cr_assert(says(spawned.err, file[0]) && says(spawned.err, file[1]), "%s", spawned.err);
        spawn_drop(&spawned);
    }
}

// One line that names option and word; the program runs on with the default.
static void check_unknown(const char *option, const char *word) {
    struct spawned spawned = run_with("live_blocks_never_overlap", NULL, option);
    char line[512], name[64] = "";
    cr_expect(spawned.exit_code == 0, "%s: %s", option, spawn_outcome(&spawned));
    cr_expect(preload_sentences(&spawned, sizeof line, line) == 1 &&
                  spawned.err_size == strlen(line) + 1,
              "%s: %s", option, spawned.err);
    snprintf(name, sizeof name, "%.*s", (int)strcspn(option, "="), option);
    cr_expect(says(line, name) && says(line, word), "%s: %s", option, line);
    spawn_drop(&spawned);
}

Test(options, unknown_words_get_one_line_and_the_default, .timeout = PRELOAD_TEST_SECONDS) {
    check_unknown("POOLMALLOC_STATS=sideways", "sideways");
    check_unknown("POOLMALLOC_STATS=speed=9", "speed");
    check_unknown("POOLMALLOC_DEEPBIND=maybe", "maybe");
    check_unknown("POOLMALLOC_HELP=perhaps", "perhaps");
}

Test(options, unknown_format_is_told, .timeout = PRELOAD_TEST_SECONDS) {
    struct spawned spawned = run_with("stats_end", NULL, "POOLMALLOC_STATS=format=yaml");
    cr_assert(spawned.exit_code == 0, "%s", spawn_outcome(&spawned));
    cr_assert(says(spawned.err, "yaml"), "%s", spawned.err);
    spawn_drop(&spawned);
}

Test(options, help_lists_all_options, .timeout = PRELOAD_TEST_SECONDS) {
    static const char *const names[] = { "POOLMALLOC_STATS", "POOLMALLOC_HELP",
                                         "POOLMALLOC_DEEPBIND", "drop", "json" };
    struct spawned spawned = run_with("live_blocks_never_overlap", NULL, "POOLMALLOC_HELP=1");
    cr_assert(spawned.exit_code == 0 && spawned.out_size == 0, "%s", spawn_outcome(&spawned));
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        cr_expect(says(spawned.err, names[i]), "nothing about %s:\n%s", names[i], spawned.err);
    }
    spawn_drop(&spawned);
}

// A set-user-ID copy of a linked program, run by somebody else: both its word that it is one, and
// its silence.
static struct spawned run_linked(const char *const argv[]) {
    return spawn_run(&(struct spawn){
        .argv = argv,
        .env = { "POOLMALLOC_STATS=1", "POOLMALLOC_HELP=1", "POOLMALLOC_DEEPBIND=nonsense" } });
}

Test(options, linked_program_obeys_the_environment, .timeout = PRELOAD_TEST_SECONDS) {
    const char *const argv[] = { preload_beside("victim_linked"), NULL };
    struct spawned spawned = run_linked(argv);
    cr_assert(spawned.exit_code == 0 && strcmp(spawned.out, "ordinary\n") == 0, "%s: %s",
              spawn_outcome(&spawned), spawned.err);
    expect_report("linked", spawned.err);
    spawn_drop(&spawned);
}

Test(options, set_user_id_program_ignores_the_environment, .timeout = PRELOAD_TEST_SECONDS) {
    if (geteuid() != 0 || !spawn_finds("setpriv")) {
        cr_skip(
            "only root can make a program set-user-ID and run it as another user (with setpriv)");
    }
    char directory[64], copy[128];
    spawn_make_directory(directory);
    snprintf(copy, sizeof copy, "%s/victim_linked", directory);
    const char *const copying[] = { "cp", preload_beside("victim_linked"), copy, NULL };
    struct spawned copied = spawn_run(&(struct spawn){ .argv = copying });
    spawn_drop(&copied);
    const bool made =
        chmod(directory, 0755) == 0 && chown(copy, 65534, 65534) == 0 && chmod(copy, 04755) == 0;
    const char *const argv[] = {
        "setpriv", "--reuid=12345", "--regid=12345", "--clear-groups", copy, NULL
    };
    struct spawned spawned = run_linked(argv);
    spawn_remove_directory(directory);
    cr_assert(made);
    if (strcmp(spawned.out, "secure\n") != 0) {
        cr_skip("no set-user-ID program runs here: %s%s%s", spawn_outcome(&spawned), spawned.out,
                spawned.err);
    }
    cr_assert(spawned.exit_code == 0 && spawned.err_size == 0, "%s: %s", spawn_outcome(&spawned),
              spawned.err);
    spawn_drop(&spawned);
}

// SPDX-License-Identifier: MIT
// Copyright (c) the poolmalloc authors
//
// The victim's side of report.def, and the cases whose output the test reads: print_malloc_info and
// print_malloc_stats.

#include "victim.h"

#include <limits.h>
#include <malloc.h>
#include <stdlib.h>

enum {
    SMALL_COUNT = 20000,
    SMALL_SIZE = 100,
    HUGE_SIZE = 8 << 20,
};

static void *small[SMALL_COUNT];
static void *huge;

static void fill_heap(void) {
    for (unsigned i = 0; i < SMALL_COUNT; i++) {
        small[i] = malloc(SMALL_SIZE);
    }
    huge = malloc(HUGE_SIZE);
}

static void empty_heap(void) {
    for (unsigned i = 0; i < SMALL_COUNT; i++) {
        free(small[i]);
    }
    free(huge);
}

static void mallopt_answers_one_or_zero(char **arguments) {
    (void)arguments;
    static const int parameters[] = { M_TRIM_THRESHOLD, M_TOP_PAD,   M_MMAP_THRESHOLD,
                                      M_MMAP_MAX,       M_ARENA_MAX, -12345 };
    for (size_t i = 0; i < COUNT_OF(parameters); i++) {
        const int answer = mallopt(parameters[i], 65536);
        CHECK(answer == 0 || answer == 1, "parameter %d: %d", parameters[i], answer);
    }
}

static void malloc_trim_tells_whether_memory_was_released(char **arguments) {
    (void)arguments;
    for (unsigned i = 0; i < SMALL_COUNT; i++) {
        small[i] = malloc(SMALL_SIZE);
        memset(small[i], 1, SMALL_SIZE);
    }
    void *const large = malloc(1 << 20);
    memset(large, 1, 1 << 20);
    const size_t full = victim_resident();
    empty_heap();
    free(large);
    const int released = malloc_trim(0);
    CHECK(released == 0 || released == 1);
    // Either this call gave it back or free did.
    CHECK(released == 1 || victim_resident() + (1 << 20) < full);
    const int again = malloc_trim(0);
    CHECK(again == 0, "nothing was left to release");
    CHECK(victim_resident() + (1 << 20) < full, "%zu, at most %zu", victim_resident(), full);
}

static void mallinfo2_counts_our_blocks(char **arguments) {
    (void)arguments;
    const struct mallinfo2 before = mallinfo2();
    fill_heap();
    const struct mallinfo2 full = mallinfo2();
    empty_heap();
    const struct mallinfo2 after = mallinfo2();
    const size_t used_before = before.uordblks + before.hblkhd;
    const size_t used_full = full.uordblks + full.hblkhd;
    const size_t used_after = after.uordblks + after.hblkhd;
    const size_t least = (size_t)SMALL_COUNT * SMALL_SIZE + HUGE_SIZE;
    CHECK(used_full >= used_before + least, "%zu to %zu", used_before, used_full);
    CHECK(used_full <= used_before + least * 5 / 4, "%zu to %zu", used_before, used_full);
    CHECK(used_after < used_before + (1 << 20), "%zu to %zu", used_before, used_after);
    CHECK(full.arena + full.hblkhd >= used_full, "mapped %zu", full.arena + full.hblkhd);
}

static void mallinfo_counts_our_blocks(char **arguments) {
    (void)arguments;
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wdeprecated-declarations"
    const struct mallinfo before = mallinfo();
    fill_heap();
    const struct mallinfo full = mallinfo();
#pragma GCC diagnostic pop
    const int grown = full.uordblks + full.hblkhd - before.uordblks - before.hblkhd;
    CHECK(grown >= SMALL_COUNT * SMALL_SIZE + HUGE_SIZE, "grew by %d", grown);
    empty_heap();
}

static void malloc_info_refuses_options(char **arguments) {
    (void)arguments;
    static const int options[] = { 1, -1, INT_MAX };
    for (size_t i = 0; i < COUNT_OF(options); i++) {
        FILE *const nowhere = fopen("/dev/null", "w");
        const int answer = malloc_info(options[i], nowhere);
        CHECK(answer == EINVAL || (answer == -1 && errno == EINVAL), "options %d: %d", options[i],
              answer);
        fclose(nowhere);
    }
}

static void print_malloc_info(char **arguments) {
    (void)arguments;
    fill_heap();
    CHECK(malloc_info(0, stdout) == 0);
    CHECK(fflush(stdout) == 0);
}

static void print_malloc_stats(char **arguments) {
    (void)arguments;
    fill_heap();
    malloc_stats();
}

#define CASE(name) { #name, name },
const struct victim_case victim_report_cases[] = {
#include "report.def"
    { "print_malloc_info", print_malloc_info },
    { "print_malloc_stats", print_malloc_stats },
    { 0 },
};

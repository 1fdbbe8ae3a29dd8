// SPDX-License-Identifier: MIT
// Copyright (c) the poolmalloc authors
//
// Heap misuse stops the program with one sentence on stderr that names the function, the address
// and what happened; and nothing that is no misuse does.

#include "preload.h"

#include <signal.h>
#include <stdio.h>
#include <string.h>

#define CASE(name) PRELOAD_CASE_TEST(no_misuse, name)
#include "misuse.def"

enum {
    SIZES_COUNT = 8,
    FUNCTIONS_COUNT = 5,
};

struct expected {
    const char *function, *size, *phrase;
    bool names_block;
};

#define SMALL "16", "100", "1000", "5000", "20000"
#define LARGE "204800", "1000000", "8388608"

struct misuse {
    const char *kind;                       // of address, known to the victim
    const char *phrase;                     // that is in the sentence
    const char *sizes[SIZES_COUNT + 1];     // NULL-terminated; none: one that doesn't matter
    const char *functions[FUNCTIONS_COUNT]; // none: free, realloc and malloc_usable_size
    bool names_block; // the sentence tells class and pool, or the large block's size
};

// What is wrong with how a victim was stopped, NULL when nothing is. All sentences begin alike:
// poolmalloc: FUNCTION(ADDRESS): WHAT.
static const char *fault(const struct spawned *spawned, const struct expected *expected) {
    char line[512], start[128], address[32] = "";
    sscanf(spawned->out, "%31s", address);
    const int sentences = preload_sentences(spawned, sizeof line, line);
    snprintf(start, sizeof start, "poolmalloc: %.*s(%s): ", (int)strcspn(expected->function, " "),
             expected->function, address);
    if (spawned->signal != SIGABRT) {
        return "wasn't aborted";
    }
    if (sentences != 1 || spawned->err_size != strlen(line) + 1) {
        return "printed other than one sentence";
    }
    if (strncmp(line, start, strlen(start)) != 0) {
        return "names another function or address";
    }
    if (expected->phrase != NULL && strstr(line, expected->phrase) == NULL) {
        return "says something else";
    }
    const size_t digits = strlen(expected->size);
    const bool small = strstr(line, "class of ") != NULL && strstr(line, "pool 0x") != NULL;
    const bool large = strstr(line, "run of ") != NULL || strstr(line, "huge block of ") != NULL ||
                       strstr(line, "given back to the system") != NULL; // then its size is unknown
    // Up to 999 bytes are small and from 100000 on large; between them the allocator decides.
    if (expected->names_block && !(small && digits <= 5) && !(large && digits >= 4)) {
        return "doesn't tell which block";
    }
    return NULL;
}

static void expect_sentence(const char *kind, const struct spawned *spawned,
                            const struct expected *expected) {
    const char *const wrong = fault(spawned, expected);
    cr_expect(wrong == NULL,
              "%s of '%s', %s bytes: %s; expected '%s' for %.20s; %s, stderr: %.400s",
              expected->function, kind, expected->size, wrong,
              expected->phrase == NULL ? "anything" : expected->phrase, spawned->out,
              spawn_outcome(spawned), spawned->err);
}

static void check_misuse(const struct misuse *misuse) {
    static const char *const any_size[] = { "100", NULL };
    static const char *const all_functions[] = { "free", "realloc", "malloc_usable_size", NULL };
    const char *const *const sizes = misuse->sizes[0] != NULL ? misuse->sizes : any_size;
    const char *const *const functions =
        misuse->functions[0] != NULL ? misuse->functions : all_functions;
    for (const char *const *function = functions; *function != NULL; function++) {
        for (const char *const *size = sizes; *size != NULL; size++) {
            struct spawned spawned = preload_victim(&(struct preload_victim){
                .name = "misuse", .arguments = { misuse->kind, *function, *size } });
            expect_sentence(
                misuse->kind, &spawned,
                &(struct expected){ *function, *size, misuse->phrase, misuse->names_block });
            spawn_drop(&spawned);
        }
    }
}

#define MISUSE(test, ...)                                 \
    Test(misuse, test, .timeout = PRELOAD_TEST_SECONDS) { \
        check_misuse(&(struct misuse){ __VA_ARGS__ });    \
    }
#define DOUBLE_FREE(test, from)                                                                  \
    MISUSE(test, .kind = from, .phrase = "double free: already free", .sizes = { SMALL, LARGE }, \
           .functions = { "free", "free by a thread" }, .names_block = true)
#define STRAY(test, address, says) MISUSE(test, .kind = address, .phrase = says)

DOUBLE_FREE(free_of_a_free_block, "freed")
DOUBLE_FREE(free_of_a_free_block_in_a_free_pool, "freed_alone")
DOUBLE_FREE(free_of_a_free_block_after_another, "freed_before_1")
DOUBLE_FREE(free_of_a_free_block_after_100_others, "freed_before_100")
DOUBLE_FREE(free_of_a_block_freed_by_a_thread, "freed_by_thread")
DOUBLE_FREE(free_of_a_free_block_of_an_ended_thread, "freed_of_ended_thread")

MISUSE(use_of_a_free_block, .kind = "freed", .phrase = "already free", .sizes = { SMALL, LARGE },
       .functions = { "realloc", "malloc_usable_size" }, .names_block = true)
MISUSE(use_of_a_block_freed_by_a_thread, .kind = "freed_by_thread", .phrase = "already free",
       .sizes = { SMALL, LARGE }, .functions = { "realloc", "malloc_usable_size" },
       .names_block = true)

MISUSE(address_inside_a_block, .kind = "interior", .phrase = "inside a block",
       .sizes = { "100", "1000", "5000", "20000", LARGE }, .names_block = true)
MISUSE(address_in_the_middle_of_a_block, .kind = "interior_middle", .phrase = "inside a block",
       .sizes = { "100", "1000", "5000", "20000", LARGE }, .names_block = true)
MISUSE(address_off_by_one, .kind = "off_by_one", .phrase = "not aligned", .sizes = { SMALL, LARGE })
MISUSE(address_off_by_eight, .kind = "off_by_eight", .phrase = "not aligned",
       .sizes = { SMALL, LARGE })
MISUSE(block_never_handed_out, .kind = "never_handed_out", .phrase = "never handed out",
       .sizes = { "16", "100", "1000", "5000" }, .names_block = true)
MISUSE(address_of_our_own_headers, .kind = "arena_header", .sizes = { SMALL, "204800" })

STRAY(address_on_the_stack, "on_stack", "stray address")
STRAY(address_of_zeroed_data, "in_zeroed", "stray address")
STRAY(address_of_data, "in_data", "stray address")
STRAY(address_of_code, "in_code", "stray address")
STRAY(address_of_mapped_memory, "mapped", "stray address")
STRAY(address_of_unreadable_memory, "unreadable", "stray address")
STRAY(wild_address, "wild", "stray address")
STRAY(tiny_address, "tiny", "not a pointer")
STRAY(non_canonical_address, "non_canonical", "not a pointer")
STRAY(block_address_with_a_bit_set, "non_canonical_copy", "not a pointer")
STRAY(address_of_all_ones, "all_ones", "not a pointer")

// A write into a free block is found when its link is followed.
static void check_overwrite(const char *where) {
    static const char *const written[] = { "zeroes", "letters", "pointer", NULL };
    static const char *const sizes[] = { "16", "100", "1000", NULL };
    for (const char *const *what = written; *what != NULL; what++) {
        for (const char *const *size = sizes; *size != NULL; size++) {
            struct spawned spawned = preload_victim(&(struct preload_victim){
                .name = "overwrite", .arguments = { *what, where, *size } });
            expect_sentence(*what, &spawned,
                            &(struct expected){ "malloc", *size, "free list overwritten", true });
            spawn_drop(&spawned);
        }
    }
}

Test(misuse, overwritten_free_list, .timeout = PRELOAD_TEST_SECONDS) {
    check_overwrite("local");
}

Test(misuse, overwritten_list_of_remote_frees, .timeout = PRELOAD_TEST_SECONDS) {
    check_overwrite("remote");
}

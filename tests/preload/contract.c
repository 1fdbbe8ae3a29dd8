// SPDX-License-Identifier: MIT
// Copyright (c) the poolmalloc authors
//
// The contract of a drop-in malloc: each promise is a case of the victim, run with the library
// preloaded.

#include "preload.h"

#include <ctype.h>
#include <stdio.h>
#include <string.h>

#define CASE(name) PRELOAD_CASE_TEST(contract, name)
#include "aligned.def"
#include "contract.def"
#include "realloc.def"
#include "report.def"
#undef CASE

#define CASE(promise)                                                               \
    Test(cxx, promise, .timeout = PRELOAD_TEST_SECONDS) {                           \
        preload_victim_passes(                                                      \
            &(struct preload_victim){ .name = #promise, .program = "victim_cxx" }); \
    }
#if TESTS_HAVE_CXX
#    include "cxx.def"

#    define OWN(promise)                                                                \
        Test(cxx, promise, .timeout = PRELOAD_TEST_SECONDS) {                           \
            preload_victim_passes(&(struct preload_victim){                             \
                .name = #promise, .program = "victim_cxx_own" });                       \
        }
OWN(forms_lead_to_the_programs_own)
OWN(nothrow_forms_catch_what_it_throws)
OWN(aligned_forms_stay_here)

Test(cxx, a_library_that_was_opened_for_itself_throws, .timeout = PRELOAD_TEST_SECONDS) {
    preload_victim_passes(&(struct preload_victim){
        .name = "local_library_throws", .arguments = { preload_beside("local.so") } });
}
#else
Test(cxx, new_and_delete) {
    cr_skip("no C++ compiler was found");
}
#endif

// Enough of XML for a report: every element is closed in order, and there is one outermost.
static bool is_well_formed(const char *text) {
    enum {
        DEPTH_COUNT = 32,
        NAME_SIZE = 32,
    };
    char open[DEPTH_COUNT][NAME_SIZE];
    int depth = 0, outermost = 0;
    for (const char *tag = strchr(text, '<'); tag != NULL; tag = strchr(tag + 1, '<')) {
        const char *const end = strchr(tag, '>');
        if (end == NULL || memchr(tag + 1, '<', (size_t)(end - tag - 1)) != NULL) {
            return false;
        }
        const bool closes = tag[1] == '/';
        char name[NAME_SIZE] = "";
        if (sscanf(tag + 1 + closes, "%31[^ />\n\t]", name) != 1) {
            return false;
        }
        if (name[0] == '?' || name[0] == '!') {
            continue;
        }
        if (closes) {
            if (depth == 0 || strcmp(open[--depth], name) != 0) {
                return false;
            }
        } else {
            outermost += depth == 0;
            if (end[-1] != '/') {
                if (depth == DEPTH_COUNT) {
                    return false;
                }
                strcpy(open[depth++], name);
            }
        }
    }
    return depth == 0 && outermost == 1;
}

Test(contract, malloc_info_is_well_formed_xml, .timeout = PRELOAD_TEST_SECONDS) {
    struct spawned spawned =
        preload_victim(&(struct preload_victim){ .name = "print_malloc_info" });
    preload_check_clean("malloc_info", &spawned);
    cr_assert(is_well_formed(spawned.out), "%s", spawned.out);
    cr_assert(strstr(spawned.out, "<malloc") != NULL, "%s", spawned.out);
    // 20000 blocks of 100 bytes and one of 8 MiB are in use: some number in it says so.
    unsigned long largest = 0;
    for (const char *at = spawned.out; *at != '\0'; at++) {
        unsigned long number = 0;
        if (isdigit((unsigned char)*at)) {
            int length = 0;
            sscanf(at, "%lu%n", &number, &length);
            at += length - 1;
        }
        largest = number > largest ? number : largest;
    }
    cr_assert(largest >= 8ul << 20, "%s", spawned.out);
    spawn_drop(&spawned);
}

Test(contract, malloc_stats_goes_to_stderr, .timeout = PRELOAD_TEST_SECONDS) {
    struct spawned spawned =
        preload_victim(&(struct preload_victim){ .name = "print_malloc_stats" });
    cr_assert(spawned.exit_code == 0, "%s", spawn_outcome(&spawned));
    cr_assert(spawned.out_size == 0, "on stdout: %s", spawned.out);
    cr_assert(spawned.err_size > 100, "on stderr: %s", spawned.err);
    spawn_drop(&spawned);
}

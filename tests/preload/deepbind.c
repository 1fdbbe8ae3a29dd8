// SPDX-License-Identifier: MIT
// Copyright (c) the poolmalloc authors
//
// Libraries opened with RTLD_DEEPBIND bring libc's malloc back into the process: its blocks are
// known when they come to us, and POOLMALLOC_DEEPBIND=drop keeps ours from going there.

#include "preload.h"

#include <limits.h>
#include <link.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

static const char drop[] = "POOLMALLOC_DEEPBIND=drop";
static const char keep[] = "POOLMALLOC_DEEPBIND=keep";

#define DEEP(test, victim, option)                                                            \
    Test(deepbind, test, .timeout = PRELOAD_TEST_SECONDS) {                                   \
        preload_victim_passes(&(struct preload_victim){                                       \
            .name = victim, .arguments = { preload_beside("deep.so") }, .env = { option } }); \
    }

DEEP(libc_blocks_are_passed_on, "deep_libc_blocks", NULL)
DEEP(libc_blocks_of_threads_are_passed_on, "deep_libc_blocks_of_threads", NULL)
DEEP(libc_blocks_of_other_threads_are_passed_on, "deep_libc_blocks_change_threads", NULL)
DEEP(texts_of_the_library_may_be_freed, "deep_texts", NULL)
DEEP(all_of_that_with_keep, "deep_libc_blocks_of_threads", keep)
DEEP(all_of_that_with_drop, "deep_libc_blocks_of_threads", drop)
DEEP(our_blocks_may_be_freed_there_with_drop, "deep_takes_our_blocks", drop)
DEEP(run_path_of_the_caller_counts, "deep_opens_by_its_run_path", NULL)
DEEP(run_path_of_the_caller_counts_with_keep, "deep_opens_by_its_run_path", keep)
DEEP(run_path_of_the_caller_counts_with_drop, "deep_opens_by_its_run_path", drop)

static int find_linker(struct dl_phdr_info *image, size_t size, void *found) {
    (void)size;
    for (int i = 0; i < image->dlpi_phnum; i++) {
        if (image->dlpi_phdr[i].p_type == PT_INTERP) {
            *(const char **)found =
                (const char *)(uintptr_t)(image->dlpi_addr + image->dlpi_phdr[i].p_vaddr);
            return 1;
        }
    }
    return 0;
}

// What libc's malloc grows lies below the program then.
Test(deepbind, libc_blocks_are_passed_on_where_the_dynamic_linker_was_named,
     .timeout = PRELOAD_TEST_SECONDS) {
    const char *linker = NULL;
    cr_assert(dl_iterate_phdr(find_linker, &linker) == 1);
    char victim[PATH_MAX];
    snprintf(victim, sizeof victim, "%s", preload_beside("victim"));
    const char *const argv[] = { linker, victim, "deep_libc_blocks", preload_beside("deep.so"),
                                 NULL };
    struct spawned spawned = preload_run(&(struct spawn){ .argv = argv });
    preload_check_clean("deep_libc_blocks", &spawned);
    spawn_drop(&spawned);
}

static void check_binding(const char *option, const char *expected) {
    struct spawned spawned = preload_victim(&(struct preload_victim){
        .name = "deep_binds", .arguments = { preload_beside("deep.so") }, .env = { option } });
    preload_check_clean("deep_binds", &spawned);
    cr_assert(strcmp(spawned.out, expected) == 0, "%s: %s", option == NULL ? "default" : option,
              spawned.out);
    spawn_drop(&spawned);
}

Test(deepbind, only_drop_changes_the_binding, .timeout = PRELOAD_TEST_SECONDS) {
    check_binding(NULL, "its own\n");
    check_binding(keep, "its own\n");
    check_binding(drop, "shared\n");
}

Test(deepbind, address_inside_a_libc_block_is_stray, .timeout = PRELOAD_TEST_SECONDS) {
    static const char *const sizes[] = { "2000", "100000", "300000" };
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        struct spawned spawned = preload_victim(&(struct preload_victim){
            .name = "deep_stray", .arguments = { preload_beside("deep.so"), sizes[i] } });
        char line[512];
        cr_assert(preload_sentences(&spawned, sizeof line, line) == 1 && spawned.signal == SIGABRT,
                  "%s: %s: %s", sizes[i], spawn_outcome(&spawned), spawned.err);
        cr_assert(strstr(line, "stray address") != NULL, "%s", line);
        spawn_drop(&spawned);
    }
}

// SPDX-License-Identifier: MIT
// Copyright (c) the poolmalloc authors
//
// A program linked with the drop-in library: malloc and pm_malloc are one allocator, and it can be
// installed set-user-ID, which a preloaded library can't follow.

#include <poolmalloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>

int main(void) {
    char *const block = malloc(1000);
    memset(block, 1, 1000);
    if (pm_malloc_usable_size(block) < 1000 || strlen(pm_version()) == 0) {
        return 1;
    }
    pm_free(block);
    free(pm_malloc(300000));
    printf("%s\n", getauxval(AT_SECURE) != 0 ? "secure" : "ordinary");
    return 0;
}

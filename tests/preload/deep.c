// SPDX-License-Identifier: MIT
// Copyright (c) the poolmalloc authors
//
// deep.so, a library to be opened with RTLD_DEEPBIND: its malloc and free are then libc's own,
// whatever is preloaded. It also opens a library that only its own run path finds.

#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void *deep_get(size_t size);
void deep_put(void *block);
char *deep_duplicate(const char *text);
char *deep_format(const char *text);
void *deep_malloc_address(void);
const char *deep_open(void);

void *deep_get(size_t size) {
    return malloc(size);
}

void deep_put(void *block) {
    free(block);
}

char *deep_duplicate(const char *text) {
    return strdup(text);
}

char *deep_format(const char *text) {
    char *formatted = NULL;
    return asprintf(&formatted, "<%s>", text) < 0 ? NULL : formatted;
}

void *deep_malloc_address(void) {
    return (void *)malloc;
}

// NULL, or what went wrong.
const char *deep_open(void) {
    void *const inner = dlopen("deep_inner.so", RTLD_NOW | RTLD_LOCAL);
    if (inner == NULL) {
        return dlerror();
    }
    return dlsym(inner, "deep_inner_answer") == NULL ? "deep_inner.so is another one" : NULL;
}

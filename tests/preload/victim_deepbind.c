// SPDX-License-Identifier: MIT
// Copyright (c) the poolmalloc authors
//
// The victim's side of the deepbind tests. Each case gets the path of deep.so, which brings libc's
// own malloc and free into a process that else runs on ours.

#include "victim.h"

#include <dlfcn.h>
#include <malloc.h>
#include <pthread.h>
#include <stdlib.h>

// libc's malloc: from the heap that brk moves, from a thread's arena, or mapped alone when over 128
// KiB.
static const size_t sizes[] = { 1,         24,        100,       1000,      5000,    20000,
                                100 << 10, 127 << 10, 129 << 10, 300 << 10, 3 << 20, 70 << 20 };

enum { MANY_COUNT = 3000 };

static void *(*deep_get)(size_t);
static void (*deep_put)(void *);
static char *(*deep_duplicate)(const char *);
static char *(*deep_format)(const char *);
static void *(*deep_malloc_address)(void);
static const char *(*deep_open)(void);

static void *symbol(void *handle, const char *name) {
    void *const found = dlsym(handle, name);
    CHECK(found != NULL, "%s: %s", name, dlerror());
    return found;
}

static void open_deep(const char *path, int flags) {
    void *const handle = dlopen(path, RTLD_NOW | RTLD_LOCAL | flags);
    CHECK(handle != NULL, "%s", dlerror());
    deep_get = (void *(*)(size_t))symbol(handle, "deep_get");
    deep_put = (void (*)(void *))symbol(handle, "deep_put");
    deep_duplicate = (char *(*)(const char *))symbol(handle, "deep_duplicate");
    deep_format = (char *(*)(const char *))symbol(handle, "deep_format");
    deep_malloc_address = (void *(*)(void))symbol(handle, "deep_malloc_address");
    deep_open = (const char *(*)(void))symbol(handle, "deep_open");
}

static void *get_filled(size_t size) {
    void *const block = deep_get(size);
    CHECK(block != NULL);
    victim_fill(block, size, 1);
    return block;
}

static void *use_libc_blocks(void *unused) {
    for (size_t i = 0; i < COUNT_OF(sizes); i++) {
        for (int how = 0; how < 4; how++) {
            void *const block = get_filled(sizes[i]);
            errno = 77;
            if (how == 0) {
                free(block);
            } else if (how == 1) {
                CHECK(malloc_usable_size(block) >= sizes[i]);
                free(block);
            } else if (how == 2) {
                void *const moved = realloc(block, sizes[i] * 2);
                CHECK(moved != NULL && victim_wrong(moved, sizes[i], 1) == sizes[i], "%zu",
                      sizes[i]);
                free(moved);
            } else {
                CHECK(realloc(block, 0) == NULL);
            }
            CHECK(errno == 77);
        }
    }
    void *many[MANY_COUNT];
    for (unsigned i = 0; i < MANY_COUNT; i++) {
        many[i] = i % 2 == 0 ? get_filled(i) : malloc(i);
    }
    for (unsigned i = 0; i < MANY_COUNT; i++) {
        CHECK(i % 2 != 0 || victim_wrong(many[i], i, 1) == i);
        free(many[i]);
    }
    return unused;
}

static void deep_libc_blocks(char **arguments) {
    open_deep(arguments[0], RTLD_DEEPBIND);
    use_libc_blocks(NULL);
}

static void deep_libc_blocks_of_threads(char **arguments) {
    open_deep(arguments[0], RTLD_DEEPBIND);
    victim_threads(1, use_libc_blocks);
    victim_threads(4, use_libc_blocks);
}

static void *handed_over[64];

static void *hand_over(void *number) {
    for (size_t i = 0; i < COUNT_OF(sizes); i++) {
        handed_over[(uintptr_t)number * COUNT_OF(sizes) + i] = get_filled(sizes[i]);
    }
    return NULL;
}

static void deep_libc_blocks_change_threads(char **arguments) {
    open_deep(arguments[0], RTLD_DEEPBIND);
    victim_threads(4, hand_over);
    for (size_t i = 0; i < 4 * COUNT_OF(sizes); i++) {
        const size_t size = sizes[i % COUNT_OF(sizes)];
        CHECK(victim_wrong(handed_over[i], size, 1) == size);
        free(handed_over[i]);
    }
}

static void deep_texts(char **arguments) {
    open_deep(arguments[0], RTLD_DEEPBIND);
    static char text[300 << 10];
    for (size_t i = 0; i < COUNT_OF(sizes) && sizes[i] < sizeof text; i++) {
        memset(text, 'x', sizes[i]);
        text[sizes[i]] = '\0';
        char *const duplicate = deep_duplicate(text), *const formatted = deep_format(text);
        CHECK(strcmp(duplicate, text) == 0 && strlen(formatted) == sizes[i] + 2);
        free(duplicate);
        free(formatted);
    }
}

// An address inside a block of libc's must not be passed on.
static void deep_stray(char **arguments) {
    open_deep(arguments[0], RTLD_DEEPBIND);
    char *const block = deep_get(strtoul(arguments[1], NULL, 10));
    memset(block, 0, 1000);
    dprintf(1, "%p\n", (void *)(block + 512));
    void (*volatile do_free)(void *) = free;
    do_free(block + 512);
}

static void deep_binds(char **arguments) {
    open_deep(arguments[0], RTLD_DEEPBIND);
    const bool same = deep_malloc_address() == (void *)malloc;
    dprintf(1, "%s\n", same ? "shared" : "its own");
}

static void deep_takes_our_blocks(char **arguments) {
    open_deep(arguments[0], RTLD_DEEPBIND);
    for (size_t i = 0; i < COUNT_OF(sizes); i++) {
        deep_put(malloc(sizes[i]));
        free(deep_get(sizes[i]));
        deep_put(deep_duplicate("text"));
    }
}

static void deep_opens_by_its_run_path(char **arguments) {
    static const int flags[] = { 0, RTLD_DEEPBIND };
    for (size_t i = 0; i < COUNT_OF(flags); i++) {
        open_deep(arguments[0], flags[i]);
        const char *const error = deep_open();
        CHECK(error == NULL, "%s", error);
    }
    // The program itself has no such run path.
    CHECK(dlopen("deep_inner.so.9", RTLD_NOW) == NULL &&
          strstr(dlerror(), "deep_inner.so.9") != NULL);
}

// The path is that of local.so here.
static void local_library_throws(char **arguments) {
    void *const handle = dlopen(arguments[0], RTLD_NOW | RTLD_LOCAL);
    CHECK(handle != NULL, "%s", dlerror());
    int (*const throws)(void) = (int (*)(void))symbol(handle, "local_throws");
    CHECK(dlsym(RTLD_DEFAULT, "__cxa_throw") == NULL, "the library is not alone with it");
    for (int i = 0; i < 10; i++) {
        CHECK(throws() == 4);
    }
}

#define CASE(name) \
    { #name, name }
const struct victim_case victim_deepbind_cases[] = {
    CASE(deep_libc_blocks),
    CASE(deep_libc_blocks_of_threads),
    CASE(deep_libc_blocks_change_threads),
    CASE(deep_texts),
    CASE(deep_stray),
    CASE(deep_binds),
    CASE(deep_takes_our_blocks),
    CASE(deep_opens_by_its_run_path),
    CASE(local_library_throws),
    { 0 },
};

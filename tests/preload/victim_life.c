// SPDX-License-Identifier: MIT
// Copyright (c) the poolmalloc authors
//
// The victim's side of life.def, and dlopen of the library by a program that isn't preloaded.

#include "victim.h"

#include <dlfcn.h>
#include <limits.h>
#include <malloc.h>
#include <pthread.h>
#include <spawn.h>
#include <stdlib.h>
#include <sys/wait.h>

extern char **environ;

static const size_t sizes[] = { 1, 16, 100, 500, 1000, 5000, 20000, 100000, 300000, 3 << 20 };

// A bit of everything, checked.
static void churn(unsigned seed) {
    void *blocks[COUNT_OF(sizes)];
    for (unsigned i = 0; i < COUNT_OF(sizes); i++) {
        blocks[i] = malloc(sizes[i]);
        CHECK(blocks[i] != NULL);
        victim_fill(blocks[i], sizes[i] < 5000 ? sizes[i] : 5000, seed + i);
    }
    for (unsigned i = 0; i < COUNT_OF(sizes); i++) {
        const size_t filled = sizes[i] < 5000 ? sizes[i] : 5000;
        CHECK(victim_wrong(blocks[i], filled, seed + i) == filled, "%zu bytes", sizes[i]);
        blocks[i] = realloc(blocks[i], sizes[i] * 2);
        CHECK(victim_wrong(blocks[i], filled, seed + i) == filled, "%zu bytes", sizes[i]);
        free(blocks[i]);
    }
}

enum { KEYS_COUNT = 60 };

static pthread_key_t keys[KEYS_COUNT];
static _Thread_local unsigned rounds[KEYS_COUNT];
static unsigned most_rounds;

static void key_destructor(void *value) {
    const unsigned key = (unsigned)((uintptr_t)value - 1);
    churn(key);
    rounds[key]++;
    __atomic_store_n(&most_rounds, rounds[key] > most_rounds ? rounds[key] : most_rounds,
                     __ATOMIC_RELAXED);
    pthread_setspecific(keys[key],
                        value); // asks for another round, until the library has had enough
}

static void *use_keys(void *unused) {
    for (unsigned i = 0; i < KEYS_COUNT; i += 7) {
        pthread_setspecific(keys[i], (void *)(uintptr_t)(i + 1));
    }
    return unused;
}

static void key_destructors_allocate_in_all_rounds(char **arguments) {
    (void)arguments;
    for (unsigned i = 0; i < KEYS_COUNT; i++) {
        CHECK(pthread_key_create(&keys[i], key_destructor) == 0);
    }
    for (int i = 0; i < 100; i++) {
        victim_threads(2, use_keys);
    }
    CHECK(most_rounds == PTHREAD_DESTRUCTOR_ITERATIONS, "%u rounds", most_rounds);
}

extern int __cxa_thread_atexit_impl(void (*function)(void *), void *argument, void *dso);
extern void *__dso_handle;

static void at_thread_exit(void *argument) {
    churn((unsigned)(uintptr_t)argument);
}

static void *register_exits(void *unused) {
    for (uintptr_t i = 0; i < 5; i++) {
        CHECK(__cxa_thread_atexit_impl(at_thread_exit, (void *)i, &__dso_handle) == 0);
    }
    return unused;
}

static void thread_exit_functions_allocate(char **arguments) {
    (void)arguments;
    for (int i = 0; i < 100; i++) {
        victim_threads(2, register_exits);
    }
    register_exits(NULL);
}

static void *go_on_alone(void *main_thread) {
    CHECK(pthread_join(*(pthread_t *)main_thread, NULL) == 0);
    for (unsigned i = 0; i < 100; i++) {
        churn(i);
    }
    exit(0);
}

static void main_thread_may_end_first(char **arguments) {
    (void)arguments;
    static pthread_t self;
    self = pthread_self();
    pthread_t thread;
    CHECK(pthread_create(&thread, NULL, go_on_alone, &self) == 0);
    churn(1);
    pthread_exit(NULL);
}

static void *live_shortly(void *unused) {
    void *blocks[COUNT_OF(sizes)];
    for (unsigned i = 0; i < COUNT_OF(sizes) - 2; i++) {
        blocks[i] = malloc(sizes[i]);
        memset(blocks[i], 1, sizes[i] < 1000 ? sizes[i] : 1000);
    }
    for (unsigned i = 0; i < COUNT_OF(sizes) - 2; i++) {
        free(blocks[i]);
    }
    return unused;
}

static void short_threads_leave_no_memory_behind(char **arguments) {
    (void)arguments;
    enum {
        THREADS_COUNT = 20000,
        AT_ONCE = 4,
    };
    size_t early = 0;
    for (unsigned i = 0; i < THREADS_COUNT; i += AT_ONCE) {
        victim_threads(AT_ONCE, live_shortly);
        if (i == THREADS_COUNT / 20) {
            early = victim_resident();
        }
    }
    CHECK(victim_resident() < early + (4 << 20), "%zu after the first, %zu after all", early,
          victim_resident());
}

enum {
    LEFT_THREADS_COUNT = 8,
    LEFT_BLOCKS_COUNT = 500,
};
static void *left[LEFT_THREADS_COUNT][LEFT_BLOCKS_COUNT];

static void *leave_blocks(void *number) {
    const unsigned thread = (unsigned)(uintptr_t)number;
    for (unsigned i = 0; i < LEFT_BLOCKS_COUNT; i++) {
        const size_t size = sizes[i % 7];
        left[thread][i] = malloc(size);
        victim_fill(left[thread][i], size, thread + i);
    }
    return NULL;
}

static void *take_blocks(void *number) {
    const unsigned thread = (unsigned)((uintptr_t)number + 1) % LEFT_THREADS_COUNT;
    for (unsigned i = 0; i < LEFT_BLOCKS_COUNT; i++) {
        const size_t size = sizes[i % 7];
        CHECK(victim_wrong(left[thread][i], size, thread + i) == size, "%zu bytes", size);
        left[thread][i] = realloc(left[thread][i], size + 50);
        CHECK(victim_wrong(left[thread][i], size, thread + i) == size, "%zu bytes", size);
        free(left[thread][i]);
    }
    return NULL;
}

static void blocks_outlive_their_threads(char **arguments) {
    (void)arguments;
    size_t early = 0;
    for (unsigned round = 0; round < 100; round++) {
        victim_threads(LEFT_THREADS_COUNT, leave_blocks);
        victim_threads(LEFT_THREADS_COUNT, take_blocks);
        if (round == 20) {
            early = victim_resident();
        }
    }
    CHECK(victim_resident() < early + (16 << 20), "%zu, then %zu", early, victim_resident());
}

static void *wandering[LEFT_BLOCKS_COUNT];

static void *swap_blocks(void *number) {
    uint64_t random = (uintptr_t)number + 1;
    for (unsigned i = 0; i < 200; i++) {
        const size_t size = sizes[victim_random(&random) % 7];
        unsigned char *const block = malloc(size);
        memset(block, (int)(size & 0xff), size);
        void **const slot = &wandering[victim_random(&random) % LEFT_BLOCKS_COUNT];
        free(__atomic_exchange_n(slot, block, __ATOMIC_ACQ_REL));
    }
    return NULL;
}

static void blocks_wander_between_short_threads(char **arguments) {
    (void)arguments;
    for (unsigned i = 0; i < 500; i++) {
        victim_threads(4, swap_blocks);
    }
}

static void allocate_late(void) {
    churn(9);
}

static void register_another(void) {
    atexit(allocate_late);
    churn(8);
}

__attribute__((destructor(101))) static void allocate_in_destructor(void) {
    if (getenv("VICTIM_LATE") != NULL) {
        churn(10);
        dprintf(1, "destructor\n");
    }
}

static void exit_handlers_allocate(char **arguments) {
    (void)arguments;
    setenv("VICTIM_LATE", "1", 1);
    atexit(register_another);
    register_exits(NULL);
}

static void check_exit_of(pid_t child) {
    int status = 0;
    CHECK(waitpid(child, &status, 0) == child);
    CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0, "status %x", (unsigned)status);
}

static pid_t start_by_vfork(void) {
    const pid_t child = vfork();
    if (child == 0) {
        execlp("true", "true", (char *)NULL);
        _exit(1);
    }
    return child;
}

static void vfork_and_exec_leave_the_heap_alone(char **arguments) {
    (void)arguments;
    for (unsigned i = 0; i < 100; i++) {
        check_exit_of(start_by_vfork());
        churn(i);
    }
}

static void posix_spawn_leaves_the_heap_alone(char **arguments) {
    (void)arguments;
    char *const argv[] = { "true", NULL };
    for (unsigned i = 0; i < 100; i++) {
        pid_t child;
        CHECK(posix_spawnp(&child, "true", NULL, NULL, argv, environ) == 0);
        check_exit_of(child);
        churn(i);
    }
}

static const char *library;

// The program keeps libc's malloc; the library serves who asks it, and knows libc's blocks when it
// meets them.
static void *use_opened(void *unused) {
    void *const handle = dlopen(library, RTLD_NOW | RTLD_LOCAL);
    CHECK(handle != NULL, "%s", dlerror());
    static const char *const names[][2] = { { "malloc", "free" }, { "pm_malloc", "pm_free" } };
    for (size_t i = 0; i < COUNT_OF(names); i++) {
        void *(*const make)(size_t) = (void *(*)(size_t))dlsym(handle, names[i][0]);
        void (*const end)(void *) = (void (*)(void *))dlsym(handle, names[i][1]);
        CHECK(make != NULL && end != NULL && make != malloc);
        for (size_t k = 0; k < COUNT_OF(sizes); k++) {
            void *const block = make(sizes[k]);
            victim_fill(block, sizes[k], 1);
            void *const of_libc = malloc(sizes[k]);
            CHECK(of_libc != NULL && victim_wrong(block, sizes[k], 1) == sizes[k]);
            end(block);
            if (i == 0) {
                end(of_libc);
            } else {
                free(of_libc);
            }
        }
    }
    CHECK(dlclose(handle) == 0);
    churn(1);
    return unused;
}

static void open_library(char **arguments) {
    library = arguments[0];
    if (arguments[1] == NULL) {
        use_opened(NULL);
        use_opened(NULL);
    }
    for (int i = 0; i < 20; i++) {
        victim_threads(3, use_opened);
    }
}

#define CASE(name) { #name, name },
const struct victim_case victim_life_cases[] = {
#include "life.def"
    { "open_library", open_library },
    { 0 },
};

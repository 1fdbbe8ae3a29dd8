// SPDX-License-Identifier: MIT
// Copyright (c) the poolmalloc authors
//
// What the unit tests share.

#include "unit.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "poolmalloc.h"

static bool in_child;

void unit_fail(const char *file, int line, const char *condition, const char *format, ...) {
    char text[1024];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    if (!in_child && getpid() == gettid()) {
        cr_assert_fail("%s:%d: not true: %s%s", file, line, condition, text);
    }
    // Criterion can't be told from here.
    dprintf(STDERR_FILENO, "%s:%d: not true: %s%s\n", file, line, condition, text);
    if (in_child) {
        _exit(1);
    }
    abort();
}

struct call {
    void (*function)(void *);
    void *argument;
};

static void *run_call(void *argument) {
    const struct call *const call = argument;
    call->function(call->argument);
    return NULL;
}

void unit_in_thread(void (*function)(void *), void *argument) {
    struct call call = { function, argument };
    pthread_t thread;
    CHECK(pthread_create(&thread, NULL, run_call, &call) == 0);
    CHECK(pthread_join(thread, NULL) == 0);
}

bool unit_in_child(void (*function)(void *), void *argument) {
    const pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        in_child = true;
        alarm(UNIT_SECONDS / 2);
        function(argument);
        _exit(0);
    }
    int status;
    CHECK(waitpid(child, &status, 0) == child);
    CHECK(WIFEXITED(status), "the child ended by signal %d", WTERMSIG(status));
    CHECK(WEXITSTATUS(status) == 0, "the child failed");
    return true;
}

char *unit_take(size_t n) {
    char *const block = pm_malloc(n);
    CHECK(block != NULL);
    return block;
}

static pthread_t busy_threads[UNIT_BUSY_MAX];
static unsigned busy_count;
static bool stop;

static void *be_busy(void *argument) {
    static const size_t sizes[] = { 16, 100, 900, 5000, 30000, 200000, 3 << 20 };
    uint64_t random = (uintptr_t)argument;
    char *blocks[64] = { NULL };
    while (!__atomic_load_n(&stop, __ATOMIC_RELAXED)) {
        random = random * UINT64_C(6364136223846793005) + 1442695040888963407;
        const unsigned at = random >> 58;
        pm_free(blocks[at]);
        blocks[at] = unit_take(sizes[(random >> 40) % (at == 0 ? 7 : at < 8 ? 6 : 4)]);
    }
    for (unsigned i = 0; i < 64; i++) {
        pm_free(blocks[i]);
    }
    return NULL;
}

void unit_start_busy_threads(unsigned count) {
    CHECK(count <= UNIT_BUSY_MAX);
    __atomic_store_n(&stop, false, __ATOMIC_RELAXED);
    for (busy_count = 0; busy_count < count; busy_count++) {
        const uintptr_t seed = busy_count + 1;
        CHECK(pthread_create(&busy_threads[busy_count], NULL, be_busy, (void *)seed) == 0);
    }
}

void unit_stop_busy_threads(void) {
    __atomic_store_n(&stop, true, __ATOMIC_RELAXED);
    for (unsigned i = 0; i < busy_count; i++) {
        pthread_join(busy_threads[i], NULL);
    }
}

static unsigned handled;
static pthread_t victim, sender;

static void replace_blocks(int signal) {
    enum { MINE = 32 };
    static char *mine[MINE];
    static const size_t sizes[] = { 24, 500, 5000, 20000, 100000, 24, 40, 60 };
    const int before = errno;
    (void)signal;
    for (unsigned i = 0; i < 4; i++) {
        const unsigned at = (handled * 5 + i * 7) % MINE;
        const bool kept = mine[at] == NULL || unit_filled(mine[at], 24, at);
        pm_free(mine[at]);
        mine[at] = pm_malloc(sizes[(handled + i) % 8]);
        if (!kept || mine[at] == NULL) {
            // A failure can't be told in the usual way from inside a handler.
            write(STDERR_FILENO, kept ? "no memory\n" : "overwritten\n", kept ? 10 : 12);
            _exit(1);
        }
        unit_fill(mine[at], 24, at);
    }
    __atomic_fetch_add(&handled, 1, __ATOMIC_RELAXED);
    errno = before;
}

// One after the other, so that the victim gets on.
static void *send_signals(void *nothing) {
    for (unsigned sent = 1; !__atomic_load_n(&stop, __ATOMIC_RELAXED); sent++) {
        pthread_kill(victim, SIGUSR1);
        while (unit_signals_handled() != sent && !__atomic_load_n(&stop, __ATOMIC_RELAXED)) {
        }
    }
    return nothing;
}

void unit_start_signals(int flags) {
    struct sigaction action = { .sa_handler = replace_blocks, .sa_flags = SA_RESTART | flags };
    __atomic_store_n(&stop, false, __ATOMIC_RELAXED);
    CHECK(sigaction(SIGUSR1, &action, NULL) == 0);
    victim = pthread_self();
    CHECK(pthread_create(&sender, NULL, send_signals, NULL) == 0);
}

unsigned unit_signals_handled(void) {
    return __atomic_load_n(&handled, __ATOMIC_RELAXED);
}

void unit_stop_signals(void) {
    __atomic_store_n(&stop, true, __ATOMIC_RELAXED);
    pthread_join(sender, NULL);
}

static int captured_file = -1, kept_stderr;

void unit_capture(void) {
    fflush(stderr);
    captured_file = memfd_create("stderr", MFD_CLOEXEC);
    kept_stderr = dup(STDERR_FILENO);
    CHECK(captured_file >= 0 && kept_stderr >= 0);
    dup2(captured_file, STDERR_FILENO);
}

const char *unit_captured(void) {
    static char text[1 << 16];
    fflush(stderr);
    dup2(kept_stderr, STDERR_FILENO);
    close(kept_stderr);
    const ssize_t length = pread(captured_file, text, sizeof text - 1, 0);
    close(captured_file);
    CHECK(length >= 0);
    text[length] = '\0';
    return text;
}

void unit_stopped(const char *sentence, void (*mistake)(void)) {
    unit_capture();
    const pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        mistake();
        _exit(0);
    }
    int status;
    CHECK(waitpid(child, &status, 0) == child);
    const char *const text = unit_captured();
    CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT, "'%s' %d", text, status);
    CHECK(strstr(text, sentence) != NULL, "'%s' and not '%s'", text, sentence);
}

uint64_t unit_random(void) {
    static uint64_t state = 1;
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return state;
}

static unsigned char pattern(size_t i, uint64_t seed) {
    return (unsigned char)((seed * 31 + i * 7 + (i >> 8)) | 1);
}

// Large blocks by their ends and some bytes between, so that no test is slow for its memory's sake.
static size_t step(size_t i, size_t size) {
    const size_t stride = size <= 4096 ? 1 : size <= 1 << 20 ? 509 : 65521;
    return i < 64 || i + 64 >= size ? 1 : i + 64 + stride < size ? stride : size - 64 - i;
}

void unit_fill(void *block, size_t size, uint64_t seed) {
    unsigned char *const bytes = block;
    for (size_t i = 0; i < size; i += step(i, size)) {
        bytes[i] = pattern(i, seed);
    }
}

bool unit_filled(const void *block, size_t size, uint64_t seed) {
    const unsigned char *const bytes = block;
    for (size_t i = 0; i < size; i += step(i, size)) {
        if (bytes[i] != pattern(i, seed)) {
            return false;
        }
    }
    return true;
}

bool unit_is_zero(const void *block, size_t size) {
    const unsigned char *const bytes = block;
    return size == 0 || (bytes[0] == 0 && memcmp(bytes, bytes + 1, size - 1) == 0);
}

// SPDX-License-Identifier: MIT
// Copyright (c) the poolmalloc authors
//
// The victim's main, `victim CASE [ARGUMENT...]`, and what its cases share.

#include "victim.h"

#include <dlfcn.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>

enum { VICTIM_THREADS_COUNT = 64 };

static unsigned char pattern(size_t at, unsigned seed) {
    return (unsigned char)(seed * 31 + at * 7 + (at >> 8));
}

void victim_fill(void *block, size_t size, unsigned seed) {
    unsigned char *const bytes = block;
    for (size_t i = 0; i < size; i++) {
        bytes[i] = pattern(i, seed);
    }
}

size_t victim_wrong(const void *block, size_t size, unsigned seed) {
    const unsigned char *const bytes = block;
    size_t at = 0;
    while (at < size && bytes[at] == pattern(at, seed)) {
        at++;
    }
    return at;
}

size_t victim_nonzero(const void *block, size_t size) {
    const unsigned char *const bytes = block;
    size_t at = 0;
    while (at < size && bytes[at] == 0) {
        at++;
    }
    return at;
}

size_t victim_next_size(size_t size) {
    if (size < 40) {
        return size + 1;
    }
    if (size < 1024) {
        return size + 13;
    }
    return size + size / 7 + 1;
}

uint64_t victim_random(uint64_t *state) {
    uint64_t x = *state;
    x ^= x << 13;
    x ^= x >> 7;
    x ^= x << 17;
    return *state = x;
}

static size_t statm_field(unsigned field) {
    char text[256];
    const int fd = open("/proc/self/statm", O_RDONLY | O_CLOEXEC);
    CHECK(fd >= 0);
    const ssize_t got = read(fd, text, sizeof text - 1);
    CHECK(got > 0);
    close(fd);
    text[got] = '\0';
    const char *at = text;
    while (field-- > 0) {
        at = strchr(at, ' ') + 1;
    }
    return strtoul(at, NULL, 10) * (size_t)sysconf(_SC_PAGESIZE);
}

size_t victim_mapped(void) {
    return statm_field(0);
}

size_t victim_resident(void) {
    return statm_field(1);
}

victim_function victim_symbol(const char *name) {
    void *const found = dlsym(RTLD_DEFAULT, name);
    victim_function function;
    memcpy(&function, &found, sizeof function);
    return function;
}

void victim_threads(unsigned count, void *(*body)(void *)) {
    pthread_t threads[VICTIM_THREADS_COUNT];
    CHECK(count <= VICTIM_THREADS_COUNT);
    for (unsigned i = 0; i < count; i++) {
        CHECK(pthread_create(&threads[i], NULL, body, (void *)(uintptr_t)i) == 0);
    }
    for (unsigned i = 0; i < count; i++) {
        CHECK(pthread_join(threads[i], NULL) == 0);
    }
}

int main(int argc, char **argv) {
    static const struct victim_case *const groups[] = {
        victim_contract_cases, victim_aligned_cases,  victim_realloc_cases, victim_report_cases,
        victim_misuse_cases,   victim_life_cases,     victim_fork_cases,    victim_signal_cases,
        victim_limits_cases,   victim_deepbind_cases, victim_stats_cases,
    };
    if (argc < 2) {
        dprintf(2, "usage: victim CASE [ARGUMENT...]\n");
        return 2;
    }
    for (size_t i = 0; i < COUNT_OF(groups); i++) {
        for (const struct victim_case *found = groups[i]; found->name != NULL; found++) {
            if (strcmp(found->name, argv[1]) == 0) {
                found->run(argv + 2);
                return 0;
            }
        }
    }
    dprintf(2, "victim: no case %s\n", argv[1]);
    return 2;
}

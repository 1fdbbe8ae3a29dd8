// SPDX-License-Identifier: MIT
// Copyright (c) the poolmalloc authors
//
// The calls, wrapped.

#include "fake_os.h"

#include "core/clock.h"
#include "config/limits.h"
#include "os/os.h"

#include <errno.h>
#include <string.h>

struct fake {
    uint32_t count, pass, fail;
    void (*hook)(void);
};

static struct fake fakes[FAKE_CALL_COUNT];
static uint32_t clock_now = 1000000;
static uintptr_t fake_end;

void *__real_pm_os_map(void *hint, size_t size);
void *__real_pm_os_reserve(size_t size);
int __real_pm_os_unmap(void *at, size_t size);
int __real_pm_os_purge(void *at, size_t size);
int __real_pm_os_resize(void *at, size_t old_size, size_t new_size);
int __real_pm_os_move(void *at, size_t old_size, void *to, size_t new_size);
uintptr_t __real_pm_os_break(void);
void __real_pm_os_wait(uint32_t *word, uint32_t value);
void __real_pm_os_advise_huge_pages(void *at, size_t size, bool wanted);
void __real_pm_os_leave_huge_pages(void *at, size_t size);

void *__wrap_pm_os_map(void *hint, size_t size);
void *__wrap_pm_os_reserve(size_t size);
int __wrap_pm_os_unmap(void *at, size_t size);
int __wrap_pm_os_purge(void *at, size_t size);
int __wrap_pm_os_resize(void *at, size_t old_size, size_t new_size);
int __wrap_pm_os_move(void *at, size_t old_size, void *to, size_t new_size);
uint32_t __wrap_pm_os_clock(void);
uintptr_t __wrap_pm_os_break(void);
void __wrap_pm_os_wait(uint32_t *word, uint32_t value);
void __wrap_pm_os_advise_huge_pages(void *at, size_t size, bool wanted);
void __wrap_pm_os_leave_huge_pages(void *at, size_t size);
bool __real_pm_os_barrier(void);
bool __wrap_pm_os_barrier(void);
int __real_pm_os_read_file(const char *path, void *to, size_t size);
int __wrap_pm_os_read_file(const char *path, void *to, size_t size);

// True: to be served. Failures are told by tests in which one thread calls.
static bool served(enum fake_call call) {
    struct fake *const fake = &fakes[call];
    __atomic_fetch_add(&fake->count, 1, __ATOMIC_RELAXED);
    void (*const hook)(void) = __atomic_load_n(&fake->hook, __ATOMIC_ACQUIRE);
    if (hook != NULL) {
        hook();
    }
    if (__atomic_load_n(&fake->fail, __ATOMIC_RELAXED) == 0) {
        return true;
    }
    if (fake->pass > 0) {
        fake->pass--;
        return true;
    }
    fake->fail -= fake->fail != FAKE_ALL;
    return false;
}

void fake_fail(enum fake_call call, uint32_t pass, uint32_t fail) {
    fakes[call].pass = pass;
    __atomic_store_n(&fakes[call].fail, fail, __ATOMIC_RELAXED);
}

void fake_heal(void) {
    for (unsigned call = 0; call < FAKE_CALL_COUNT; call++) {
        fake_fail((enum fake_call)call, 0, 0);
    }
}

uint32_t fake_count(enum fake_call call) {
    return __atomic_load_n(&fakes[call].count, __ATOMIC_RELAXED);
}

void fake_hook(enum fake_call call, void (*hook)(void)) {
    __atomic_store_n(&fakes[call].hook, hook, __ATOMIC_RELEASE);
}

void fake_time(uint32_t milliseconds) {
    clock_now = milliseconds;
}

void fake_clock(uint32_t milliseconds) {
    fake_time(milliseconds);
    pm_clock_now();
}

static bool all_resident;

void fake_resident(bool all) {
    all_resident = all;
}

size_t __real_pm_os_resident(const void *at, size_t size);
size_t __wrap_pm_os_resident(const void *at, size_t size);
size_t __wrap_pm_os_resident(const void *at, size_t size) {
    return all_resident ? size : __real_pm_os_resident(at, size);
}

void fake_break(uintptr_t end) {
    fake_end = end;
}

void *__wrap_pm_os_map(void *hint, size_t size) {
    return served(FAKE_MAP) ? __real_pm_os_map(hint, size) : NULL;
}

void *__wrap_pm_os_reserve(size_t size) {
    return served(FAKE_RESERVE) ? __real_pm_os_reserve(size) : NULL;
}

int __wrap_pm_os_unmap(void *at, size_t size) {
    return served(FAKE_UNMAP) ? __real_pm_os_unmap(at, size) : -ENOMEM;
}

// What the kernel says to a program that has locked its memory.
int __wrap_pm_os_purge(void *at, size_t size) {
    return served(FAKE_PURGE) ? __real_pm_os_purge(at, size) : -EINVAL;
}

int __wrap_pm_os_resize(void *at, size_t old_size, size_t new_size) {
    return served(FAKE_RESIZE) ? __real_pm_os_resize(at, old_size, new_size) : -ENOMEM;
}

int __wrap_pm_os_move(void *at, size_t old_size, void *to, size_t new_size) {
    return served(FAKE_MOVE) ? __real_pm_os_move(at, old_size, to, new_size) : -ENOMEM;
}

uint32_t __wrap_pm_os_clock(void) {
    served(FAKE_CLOCK);
    return clock_now;
}

uintptr_t __wrap_pm_os_break(void) {
    return fake_end != 0 ? fake_end : __real_pm_os_break();
}

void __wrap_pm_os_wait(uint32_t *word, uint32_t value) {
    served(FAKE_WAIT);
    __real_pm_os_wait(word, value);
}

// A kernel that was told to give none does nothing.
void __wrap_pm_os_advise_huge_pages(void *at, size_t size, bool wanted) {
    if (served(wanted ? FAKE_ASK : FAKE_REFUSE)) {
        __real_pm_os_advise_huge_pages(at, size, wanted);
    }
}

void __wrap_pm_os_leave_huge_pages(void *at, size_t size) {
    if (served(FAKE_LEAVE)) {
        __real_pm_os_leave_huge_pages(at, size);
    }
}

static struct { const char *path, *text; } files[16];
static unsigned file_count;

void fake_file(const char *path, const char *text) {
    if (file_count < sizeof files / sizeof *files) {
        files[file_count].path = path;
        files[file_count++].text = text;
    }
}

int __wrap_pm_os_read_file(const char *path, void *to, size_t size) {
    if (file_count == 0) {
        return __real_pm_os_read_file(path, to, size);
    }
    for (unsigned i = 0; i < file_count; i++) {
        if (strcmp(files[i].path, path) == 0 && files[i].text != NULL) {
            const size_t length = strlen(files[i].text);
            const size_t got = length < size ? length : size;
            memcpy(to, files[i].text, got);
            return (int)got;
        }
    }
    return -ENOENT;
}

bool __wrap_pm_os_barrier(void) {
    return served(FAKE_BARRIER) && __real_pm_os_barrier();
}

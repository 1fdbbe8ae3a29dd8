// SPDX-License-Identifier: MIT
// Copyright (c) the poolmalloc authors

// The contract of os.h on Linux, by system calls without libc's wrappers.

#include "os/os.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <time.h>

#include "base/atomic.h"
#include "base/bits.h"

#define DESCRIPTOR_FLOOR 64

// libc's syscall() sets errno, so each architecture brings its own few instructions.
#if defined(__x86_64__)
static long call(long number, long a, long b, long c, long d, long e, long f) {
    register long r10 __asm__("r10") = d;
    register long r8 __asm__("r8") = e;
    register long r9 __asm__("r9") = f;
    long result;
    __asm__ volatile("syscall"
                     : "=a"(result)
                     : "a"(number), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9)
                     : "rcx", "r11", "memory");
    return result;
}
#elif defined(__aarch64__)
static long call(long number, long a, long b, long c, long d, long e, long f) {
    register long x8 __asm__("x8") = number;
    register long x0 __asm__("x0") = a;
    register long x1 __asm__("x1") = b;
    register long x2 __asm__("x2") = c;
    register long x3 __asm__("x3") = d;
    register long x4 __asm__("x4") = e;
    register long x5 __asm__("x5") = f;
    __asm__ volatile("svc 0"
                     : "+r"(x0)
                     : "r"(x8), "r"(x1), "r"(x2), "r"(x3), "r"(x4), "r"(x5)
                     : "memory");
    return x0;
}
#else
#    error "poolmalloc runs on x86-64 and aarch64"
#endif

static bool failed(long result) {
    return result < 0 && result >= -4095;
}

static void *map(void *hint, size_t size, int protection, int flags) {
    const long at = call(SYS_mmap, (long)hint, (long)size, protection,
                         MAP_PRIVATE | MAP_ANONYMOUS | flags, -1, 0);
    return failed(at) ? NULL : (void *)at;
}

size_t pm_os_page_size(void) {
    // Racing writers store the same value.
    static size_t size;
    size_t known = __atomic_load_n(&size, __ATOMIC_RELAXED);
    if (PM_UNLIKELY(known == 0)) {
        known = getauxval(AT_PAGESZ);
        __atomic_store_n(&size, known, __ATOMIC_RELAXED);
    }
    return known;
}

void *pm_os_map(void *hint, size_t size) {
    return map(hint, size, PROT_READ | PROT_WRITE, 0);
}

void *pm_os_reserve(size_t size) {
    return map(NULL, size, PROT_NONE, MAP_NORESERVE);
}

int pm_os_unmap(void *at, size_t size) {
    return (int)call(SYS_munmap, (long)at, (long)size, 0, 0, 0, 0);
}

int pm_os_purge(void *at, size_t size) {
    return (int)call(SYS_madvise, (long)at, (long)size, MADV_DONTNEED, 0, 0, 0);
}

void pm_os_advise_huge_pages(void *at, size_t size, bool wanted) {
    call(SYS_madvise, (long)at, (long)size, wanted ? MADV_HUGEPAGE : MADV_NOHUGEPAGE, 0, 0, 0);
}

// MADV_COLD of a part splits a huge page; it is of 5.4, and older kernels split when memory is
// short.
void pm_os_leave_huge_pages(void *at, size_t size) {
    pm_os_advise_huge_pages(at, size, false);
    for (size_t done = 0; done < size; done += PM_HUGE_PAGE_BYTES) {
        call(SYS_madvise, (long)at + (long)done, (long)pm_os_page_size(), MADV_COLD, 0, 0, 0);
    }
}

size_t pm_os_resident(const void *at, size_t size) {
    const size_t page = pm_os_page_size();
    unsigned char in_memory[PM_HUGE_PAGE_BYTES / 4096];
    size_t pages = 0;
    for (size_t done = 0, part; done < size; done += part) {
        part = pm_min(size - done, sizeof in_memory * page);
        if (call(SYS_mincore, (long)at + (long)done, (long)part, (long)in_memory, 0, 0, 0) != 0) {
            return 0;
        }
        for (size_t i = 0; i < part / page; i++) {
            pages += in_memory[i] & 1;
        }
    }
    return pages * page;
}

int pm_os_resize(void *at, size_t old_size, size_t new_size) {
    const long to = call(SYS_mremap, (long)at, (long)old_size, (long)new_size, 0, 0, 0);
    return failed(to) ? (int)to : 0;
}

int pm_os_move(void *at, size_t old_size, void *to, size_t new_size) {
    const long moved = call(SYS_mremap, (long)at, (long)old_size, (long)new_size,
                            MREMAP_MAYMOVE | MREMAP_FIXED, (long)to, 0);
    return failed(moved) ? (int)moved : 0;
}

uint32_t pm_os_clock(void) {
    struct timespec now = { 0 };
    call(SYS_clock_gettime, CLOCK_MONOTONIC_COARSE, (long)&now, 0, 0, 0, 0);
    return (uint32_t)((uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000);
}

void pm_os_yield(void) {
    call(SYS_sched_yield, 0, 0, 0, 0, 0, 0);
}

void pm_os_sleep(uint32_t milliseconds) {
    const struct timespec time = { .tv_sec = milliseconds / 1000,
                                   .tv_nsec = (long)(milliseconds % 1000) * 1000000 };
    call(SYS_clock_nanosleep, CLOCK_MONOTONIC, 0, (long)&time, 0, 0, 0);
}

bool pm_os_random(void *to, size_t size) {
    const unsigned no_wait = 1;
    return call(SYS_getrandom, (long)to, (long)size, no_wait, 0, 0, 0) == (long)size;
}

// A full pipe that is set not to block: waits for its reader, but not for ever.
static bool wait_writable(int fd) {
    struct pollfd poll = { .fd = fd, .events = POLLOUT };
    struct timespec limit = { .tv_sec = 1 };
    return call(SYS_ppoll, (long)&poll, 1, (long)&limit, 0, 0, 0) == 1;
}

int pm_os_write(int fd, const void *from, size_t size) {
    const char *at = from;
    while (size > 0) {
        const long written = call(SYS_write, fd, (long)at, (long)size, 0, 0, 0);
        if (written == -EINTR || (written == -EAGAIN && wait_writable(fd))) {
            continue;
        }
        if (written <= 0) {
            return written == 0 ? -EIO : (int)written;
        }
        at += written;
        size -= (size_t)written;
    }
    return 0;
}

// Before it finds that there is no way HOW to change the set of blocked signals, the kernel reads a
// set of 64 from there.
static bool is_readable(uintptr_t word) {
    enum { HOW = -1 };
    return call(SYS_rt_sigprocmask, HOW, (long)word, 0, sizeof(uint64_t), 0, 0) == -EINVAL;
}

// For processes that may not read as the kernel would for another one. What another thread unmaps
// between the look and the read faults.
static bool look_and_read(uintptr_t at, char *to, size_t size) {
    const size_t word = sizeof(uint64_t);
    for (uintptr_t i = pm_round_down(at, word); i < at + size; i += word) {
        if (!is_readable(i)) {
            return false;
        }
    }
    if (at % word == 0 && size % word == 0) {
        for (size_t i = 0; i < size; i += word) {
            const uint64_t value = pm_get((const uint64_t *)(at + i));
            memcpy(to + i, &value, word);
        }
    } else {
        for (size_t i = 0; i < size; i++) {
            to[i] = pm_get((const char *)(at + i));
        }
    }
    return true;
}

bool pm_os_peek(const void *at, void *to, size_t size) {
    struct iovec local = { .iov_base = to, .iov_len = size };
    struct iovec remote = { .iov_base = (void *)at, .iov_len = size };
    const long done =
        call(SYS_process_vm_readv, pm_os_pid(), (long)&local, 1, (long)&remote, 1, 0);
    if (PM_UNLIKELY(failed(done) && done != -EFAULT)) {
        return look_and_read((uintptr_t)at, to, size);
    }
    return done == (long)size;
}

uintptr_t pm_os_break(void) {
    return (uintptr_t)call(SYS_brk, 0, 0, 0, 0, 0, 0);
}

void pm_os_wait(uint32_t *word, uint32_t value) {
    call(SYS_futex, (long)word, FUTEX_WAIT_PRIVATE, value, 0, 0, 0);
}

void pm_os_wake(uint32_t *word, unsigned count) {
    call(SYS_futex, (long)word, FUTEX_WAKE_PRIVATE, count, 0, 0, 0);
}

// Of <linux/membarrier.h>, which older kernels' headers lack parts of.
#define BARRIER_EXPEDITED          (1 << 3)
#define BARRIER_REGISTER_EXPEDITED (1 << 4)

bool pm_os_prepare_barrier(void) {
    return call(SYS_membarrier, BARRIER_REGISTER_EXPEDITED, 0, 0, 0, 0, 0) == 0;
}

// ThreadSanitizer does not see such a barrier, and would call what it orders a race.
bool pm_os_barrier(void) {
#if defined(__SANITIZE_THREAD__)
    return false;
#elif defined(__has_feature)
#    if __has_feature(thread_sanitizer)
    return false;
#    endif
#endif
    return call(SYS_membarrier, BARRIER_EXPEDITED, 0, 0, 0, 0, 0) == 0;
}

int pm_os_read_file(const char *path, void *to, size_t size) {
    const int fd = (int)call(SYS_openat, AT_FDCWD, (long)path, O_RDONLY | O_CLOEXEC, 0, 0, 0);
    if (fd < 0) {
        return fd;
    }
    size_t done = 0;
    long got;
    do {
        got = call(SYS_read, fd, (long)((char *)to + done), (long)(size - done), 0, 0, 0);
        done += got > 0 ? (size_t)got : 0;
    } while ((got > 0 && done < size) || got == -EINTR);
    pm_os_close(fd);
    return got < 0 ? (int)got : (int)done;
}

int pm_os_create_file(const char *path) {
    const int flags = O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOCTTY;
    return (int)call(SYS_openat, AT_FDCWD, (long)path, flags, 0666, 0, 0);
}

int pm_os_duplicate(int fd) {
    const long copy = call(SYS_fcntl, fd, F_DUPFD_CLOEXEC, DESCRIPTOR_FLOOR, 0, 0, 0);
    // A process may be limited to fewer descriptors.
    return (int)(failed(copy) ? call(SYS_fcntl, fd, F_DUPFD_CLOEXEC, 3, 0, 0, 0) : copy);
}

void pm_os_close(int fd) {
    call(SYS_close, fd, 0, 0, 0, 0, 0);
}

bool pm_os_file_id(int fd, struct pm_file_id *id) {
    struct stat file;
    if (call(SYS_fstat, fd, (long)&file, 0, 0, 0, 0) != 0) {
        return false;
    }
    *id = (struct pm_file_id){ .device = file.st_dev, .number = file.st_ino };
    return true;
}

bool pm_os_signals_blocked(void) {
    uint64_t mask = 0;
    call(SYS_rt_sigprocmask, SIG_BLOCK, 0, (long)&mask, sizeof mask, 0, 0);
    return mask != 0;
}

int pm_os_pid(void) {
    return (int)call(SYS_getpid, 0, 0, 0, 0, 0, 0);
}

void pm_os_abort(void) {
    abort();
}

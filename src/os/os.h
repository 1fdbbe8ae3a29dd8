// SPDX-License-Identifier: MIT
// Copyright (c) the poolmalloc authors

// Every system call that the library makes, behind one page. The functions are raw: they don't
// touch errno, don't allocate, can't be hooked by another library, and may be called before any
// constructor, after any destructor and in signal handlers. Addresses and sizes that they take are
// multiples of the page size. A fake for tests needs only this page.

#ifndef PM_OS_OS_H
#define PM_OS_OS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/attributes.h"

// Bytes of a page of this machine, read at run time; a power of two.
size_t pm_os_page_size(void);

// Maps `size` zeroed bytes, private to the process, near `hint` where that is free, else where the
// kernel likes. Returns the address, or NULL when the kernel or a limit refuses.
void *pm_os_map(void *hint, size_t size);

// Address space without memory, to be taken over by pm_os_move. NULL when refused.
void *pm_os_reserve(size_t size);

// Gives mapping and address back. May fail (-ENOMEM) where it would split a mapping and the
// process has as many as it may have: then the caller still holds the range.
int pm_os_unmap(void *at, size_t size);

// Gives the pages back and keeps the address: the range reads as zero afterwards. 0 or -errno.
int pm_os_purge(void *at, size_t size);

// The usual size of a transparent huge page. Where the kernel's are larger, no arena holds one.
#define PM_HUGE_PAGE_BYTES ((size_t)2 << 20)

// Asks for transparent huge pages in a mapping, or refuses them from now on. An advice: a kernel
// that has none, or was told to give none, says no, and nothing is lost.
void pm_os_advise_huge_pages(void *at, size_t size, bool wanted);

// Breaks the huge pages of a range up, so that the purge of a part of one gives it back at once,
// and refuses new ones. An advice, too.
void pm_os_leave_huge_pages(void *at, size_t size);

// How many bytes of a range have pages in memory; 0 where the kernel does not tell.
size_t pm_os_resident(const void *at, size_t size);

// Grows or shrinks a mapping where it is. 0, or -errno with the mapping as it was.
int pm_os_resize(void *at, size_t old_size, size_t new_size);

// Moves the pages of a mapping onto the reserved range `to` of new_size bytes, without copying.
// 0, or -errno: then the pages are where they were, and the range may have been given back.
int pm_os_move(void *at, size_t old_size, void *to, size_t new_size);

// Milliseconds of a clock that never goes back; wraps after 49 days.
uint32_t pm_os_clock(void);

// Lets other threads run.
void pm_os_yield(void);

// Sleeps, perhaps shorter.
void pm_os_sleep(uint32_t milliseconds);

// Fills `to` with random bytes; false where the kernel has none yet.
bool pm_os_random(void *to, size_t size);

// Writes all bytes to a descriptor, over interruptions and short writes. 0 or -errno.
int pm_os_write(int fd, const void *from, size_t size);

// Reads memory of this process that may not be there: true when all bytes were read, false
// (never a fault) otherwise.
bool pm_os_peek(const void *at, void *to, size_t size);

// End of the data segment, which libc's own malloc grows.
uintptr_t pm_os_break(void);

// Sleeps while *word == value, until woken (or for no reason).
void pm_os_wait(uint32_t *word, uint32_t value);
void pm_os_wake(uint32_t *word, unsigned count);

// Reads a file from its start, at most `size` bytes. How many, or -errno.
int pm_os_read_file(const char *path, void *to, size_t size);

// Once, before pm_os_barrier; a child made by fork need not. In a process of one thread it costs no
// more than another call; in one of several the kernel waits for all processors, 10 ms and more.
// False where the kernel has no such barrier, or this process may not ask for it.
bool pm_os_prepare_barrier(void);

// When it returns true, every other thread of the process has passed a full memory barrier since
// the call. False where the kernel can't.
bool pm_os_barrier(void);

// A descriptor above those that programs use, closed on exec. The descriptor or -errno.
int pm_os_create_file(const char *path);
int pm_os_duplicate(int fd);
void pm_os_close(int fd);

// Which file a descriptor stands for; false when it stands for none.
struct pm_file_id {
    uint64_t device, number;
};
bool pm_os_file_id(int fd, struct pm_file_id *id);

// Does this thread block any signal, as it does while it runs a handler?
bool pm_os_signals_blocked(void);

int pm_os_pid(void);

// Ends the program by libc's abort(), which a handler of SIGABRT may leave by a jump.
void pm_os_abort(void) PM_NORETURN;

#endif

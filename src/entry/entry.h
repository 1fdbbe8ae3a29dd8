// SPDX-License-Identifier: MIT
// Copyright (c) the poolmalloc authors

// What the public names, libc's and ours, are made of.
//
// These set errno on failure and leave it alone on success; misuse ends the program. They may be
// called at any time of a process's or a thread's life, and in signal handlers that interrupted one
// of them.

#ifndef PM_ENTRY_ENTRY_H
#define PM_ENTRY_ENTRY_H

#include <stdbool.h>
#include <stddef.h>

#include "base/attributes.h"
#include "core/verdict.h"

// The two misses, behind the fast paths.
void *pm_malloc_miss(size_t n);
void pm_free_miss(void *at);

// The end of a fast free of `at` that took the last block of a pool; the thread is busy still.
struct pm_pool;
void pm_free_emptied(struct pm_pool *pool, void *at);

void *pm_entry_calloc(size_t count, size_t size);
void *pm_entry_realloc(void *at, size_t n);
void *pm_entry_reallocarray(void *at, size_t count, size_t size);
// EINVAL unless align is a power of two.
void *pm_entry_aligned_alloc(size_t align, size_t n);
// Rounds align up to a power of two.
void *pm_entry_memalign(size_t align, size_t n);
int pm_entry_posix_memalign(void **to, size_t align, size_t n);
void *pm_entry_valloc(size_t n);
void *pm_entry_pvalloc(size_t n);
size_t pm_entry_usable_size(const void *at);
int pm_entry_trim(void);

// Frees a block where the library can't be entered: at the next miss of any thread, as a free by
// that thread. Takes no lock and touches no heap.
enum pm_verdict pm_entry_free_later(void *at);

// Inside, with no lock held: what handlers had freed before has been freed when this returns.
void pm_entry_settle(void);

// Around what takes the library's locks and is no allocation, such as a report: handlers that
// interrupt it are served elsewhere. False in such a handler, where no lock may be taken; then
// there is no end.
bool pm_entry_begin(void);
void pm_entry_end(void);

// The same around what gives memory back, which needs none: also by a thread that can't have a heap
// for want of memory. False where nothing was done, in such a handler.
bool pm_entry_give(void (*give)(void *argument), void *argument);

#endif

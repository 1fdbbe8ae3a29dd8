// SPDX-License-Identifier: MIT
// Copyright (c) the poolmalloc authors

// What the allocator is for a thread: two words of thread-local storage.

#ifndef PM_CORE_THREAD_H
#define PM_CORE_THREAD_H

#include "base/attributes.h"

struct pm_heap;

struct pm_thread {
    // What the fast paths use: the thread's heap, or one of two empty heaps, from which every
    // request misses and to which every block is somebody else's: PM_NO_HEAP before the thread's
    // start and after its end; PM_BUSY_HEAP while the thread is inside a fast path or a miss, so
    // that a signal handler which allocates there keeps out.
    struct pm_heap *fast;
    // The thread's heap; NULL before its first miss, PM_HEAP_ENDED after its end.
    struct pm_heap *heap;
};

extern PM_TLS struct pm_thread pm_thread;

#endif

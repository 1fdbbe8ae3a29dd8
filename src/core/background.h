// SPDX-License-Identifier: MIT
// Copyright (c) the poolmalloc authors

// The thread that purges what is old in programs that make no calls (POOLMALLOC_PURGE=background).
// It is never there unless it was asked for: it makes a program multi-threaded.

#ifndef PM_CORE_BACKGROUND_H
#define PM_CORE_BACKGROUND_H

// After the options were read; by one thread. A child made by fork has no such thread, and purges
// in its calls.
void pm_background_attach(void);

#endif

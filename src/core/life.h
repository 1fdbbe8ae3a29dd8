// SPDX-License-Identifier: MIT
// Copyright (c) the poolmalloc authors

// Start of the library, life of threads, fork.

#ifndef PM_CORE_LIFE_H
#define PM_CORE_LIFE_H

#include <stdbool.h>

#include "core/thread.h"

// Makes all structures ready; any number of calls by any threads, before any constructor.
void pm_life_start(void);
bool pm_life_started(void);

// Gives the calling thread a heap and asks for notice of its end. False without memory.
bool pm_life_begin_thread(void);

// Around fork, in the forking thread. Between the first two, no other thread holds a lock.
void pm_life_before_fork(void);
void pm_life_after_fork_in_parent(void);
void pm_life_after_fork_in_child(void);

#endif

// SPDX-License-Identifier: MIT
// Copyright (c) the poolmalloc authors

// What all structures do with memory that was freed and is not wanted again.

#ifndef PM_CORE_AGE_H
#define PM_CORE_AGE_H

#include <stddef.h>
#include <stdint.h>

// Purges what is too much or too old, in all structures, and in the heaps of threads that sleep.
void pm_age_all(uint32_t now);

// The same, at a miss of any thread and of any size: now and then.
void pm_age(void);

// Gives back all that is free and in reach. Returns bytes.
size_t pm_age_trim(void);

#endif

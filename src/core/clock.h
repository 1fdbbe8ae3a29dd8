// SPDX-License-Identifier: MIT
// Copyright (c) the poolmalloc authors

// The age of free memory.

#ifndef PM_CORE_CLOCK_H
#define PM_CORE_CLOCK_H

#include <stdint.h>

// Milliseconds; read from the OS once in PM_CLOCK_EVERY calls, else the last value.
uint32_t pm_clock(void);

#endif

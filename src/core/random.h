// SPDX-License-Identifier: MIT
// Copyright (c) the poolmalloc authors

// Keys for free lists.

#ifndef PM_CORE_RANDOM_H
#define PM_CORE_RANDOM_H

#include <stdint.h>

// A number that a program can't guess, different for different inputs. Any thread.
uint64_t pm_random(uint64_t input);

#endif

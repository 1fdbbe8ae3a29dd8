// SPDX-License-Identifier: MIT
// Copyright (c) the poolmalloc authors

// Blocks of libc's own malloc. They reach us when a library that was opened with RTLD_DEEPBIND got
// libc's functions instead of ours and hands out what it allocated.

#ifndef PM_CORE_LIBCS_H
#define PM_CORE_LIBCS_H

#include <stdbool.h>
#include <stddef.h>

// Is `at` a block of libc's malloc? *usable gets its bytes. Reads only what it has proved to be
// there.
bool pm_libcs_block(const void *at, size_t *usable);

#endif

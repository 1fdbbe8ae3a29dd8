// SPDX-License-Identifier: MIT
// Copyright (c) the poolmalloc authors

// The sentence that a program gets when it misuses an address, and its end.

#ifndef PM_CORE_MISUSE_H
#define PM_CORE_MISUSE_H

#include "base/attributes.h"
#include "core/verdict.h"

// Writes one line to stderr, `poolmalloc: function(address): what happened`, and aborts. Nothing is
// changed before, so that a core file shows the heap as it was.
void pm_misuse(const char *function, const void *at, enum pm_verdict verdict) PM_NORETURN;

#endif

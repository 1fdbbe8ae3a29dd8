// SPDX-License-Identifier: MIT
// Copyright (c) the poolmalloc authors

// What the reporting names, libc's and ours, are made of.

#ifndef PM_ENTRY_REPORTS_H
#define PM_ENTRY_REPORTS_H

#include <stddef.h>
#include <stdio.h>

#include "poolmalloc.h"

struct pm_mallinfo2 pm_entry_mallinfo2(void);
int pm_entry_mallopt(int parameter, int value);
void pm_entry_stats(void);
int pm_entry_info(int options, FILE *to);

#endif

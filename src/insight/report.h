// SPDX-License-Identifier: MIT
// Copyright (c) the poolmalloc authors

// Statistics as text and as JSON.

#ifndef PM_INSIGHT_REPORT_H
#define PM_INSIGHT_REPORT_H

#include "config/options.h"
#include "insight/snapshot.h"

// Writes the statistics of this process to a descriptor. Any thread, at any time; the memory that
// it needs is mapped for the purpose. 0 or -errno.
int pm_report_write(int fd, enum pm_stats_format format);

// At start and at exit: what POOLMALLOC_STATS asks for.
void pm_report_attach(void);
void pm_report_at_exit(void);

#endif

// SPDX-License-Identifier: MIT
// Copyright (c) the poolmalloc authors

// The options: one table of environment variables, their words, ranges and defaults.

#ifndef PM_CONFIG_OPTIONS_H
#define PM_CONFIG_OPTIONS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "config/limits.h"

enum pm_stats_format { PM_STATS_TEXT, PM_STATS_JSON };
enum pm_deepbind { PM_DEEPBIND_KEEP, PM_DEEPBIND_DROP };
enum pm_thp { PM_THP_AUTO, PM_THP_NEVER, PM_THP_ALWAYS };
enum pm_purge { PM_PURGE_CALLS, PM_PURGE_BACKGROUND };
enum pm_limit_from { PM_LIMIT_GIVEN, PM_LIMIT_CGROUP };

#define PM_OPTION_UNSET SIZE_MAX

struct pm_options {
    unsigned stats;               // 0 or 1: statistics at exit
    char stats_file[PM_PATH_MAX]; // empty: stderr; "%p" is the process id
    unsigned stats_format;        // enum pm_stats_format
    unsigned help;                // 0 or 1: print the table at start
    unsigned deepbind;            // enum pm_deepbind
    unsigned thp;                 // enum pm_thp
    unsigned purge;               // enum pm_purge
    size_t purge_delay;           // milliseconds
    size_t purge_keep;            // bytes, or unset: by what is in use
    unsigned limit;               // enum pm_limit_from
    size_t limit_soft;            // bytes, or unset: no limit
    size_t limit_hard;            // likewise
};

// What pm_options_read found; the defaults before.
extern struct pm_options pm_options;

// Reads the variables of `environment` (NULL-terminated, as environ; NULL reads nothing). A word
// that is not in the table gets one line on stderr and the default. Called once, by one thread.
void pm_options_read(char *const *environment);

// Writes the table to a descriptor.
void pm_options_print(int fd);

#endif

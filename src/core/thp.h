// SPDX-License-Identifier: MIT
// Copyright (c) the poolmalloc authors

// Transparent huge pages.
//
// Memory in huge pages costs a quarter to touch first, and programs that walk through much of it
// miss the translation cache less. But a huge page is resident as a whole, and what is purged of
// one part stays charged to the process until the kernel splits it. By default (`auto`) arenas of a
// small heap refuse them, also where the system gives them to everyone; those of a large heap, and
// large blocks, have what the system gives.

#ifndef PM_CORE_THP_H
#define PM_CORE_THP_H

#include <stddef.h>

#include "base/attributes.h"
#include "config/limits.h"
#include "config/options.h"
#include "os/os.h"

// For every new mapping of ours.
PM_INLINE void pm_thp_advise_mapping(void *at, size_t size) {
    if (PM_UNLIKELY(pm_options.thp != PM_THP_AUTO)) {
        pm_os_advise_huge_pages(at, size, pm_options.thp == PM_THP_ALWAYS);
    }
}

// For a new arena of a kind of which `in_use` bytes are.
PM_INLINE void pm_thp_refuse_small(void *arena, size_t size, size_t in_use) {
    if (pm_options.thp == PM_THP_AUTO && in_use < PM_THP_FROM) {
        pm_os_advise_huge_pages(arena, size, false);
    }
}

#endif

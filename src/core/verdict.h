// SPDX-License-Identifier: MIT
// Copyright (c) the poolmalloc authors

// What a free, or another use of an address, turned out to be.

#ifndef PM_CORE_VERDICT_H
#define PM_CORE_VERDICT_H

enum pm_verdict {
    PM_DONE,             // a block of ours; it was served
    PM_LIBCS,            // a block of libc's own malloc
    PM_DOUBLE_FREE,      // already free
    PM_INSIDE,           // in a block of ours, not at its start
    PM_UNALIGNED,        // not a multiple of 16
    PM_NEVER_HANDED_OUT, // in memory of ours that no block was made of
    PM_STRAY,            // in nobody's heap
    PM_NOT_A_POINTER,    // no address that a program can have
    PM_ANOTHER_HEAPS,    // a block in use, but not of the private heap that was named
    PM_NO_PRIVATE_HEAPS, // a block in use, but of a thread's heap, where private ones are meant
    PM_ENDED_HEAP,       // of a private heap that was destroyed, and is none again yet
    PM_LIST_OVERWRITTEN, // the block is free and its link is damaged
    PM_VERDICT_COUNT
};

#endif

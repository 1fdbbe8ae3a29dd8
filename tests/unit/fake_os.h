// SPDX-License-Identifier: MIT
// Copyright (c) the poolmalloc authors
//
// An operating system that says no when a test wants it to. The calls of os/os.h go through here
// (the programs are linked with --wrap); all that is not told to fail is passed on.

#ifndef TESTS_FAKE_OS_H
#define TESTS_FAKE_OS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum fake_call {
    FAKE_MAP,
    FAKE_RESERVE,
    FAKE_UNMAP,
    FAKE_PURGE,
    FAKE_RESIZE,
    FAKE_MOVE,
    FAKE_CLOCK,
    FAKE_WAIT,
    FAKE_ASK,    // for huge pages
    FAKE_REFUSE, // them
    FAKE_LEAVE,  // them
    FAKE_BARRIER,
    FAKE_CALL_COUNT
};

// From now on, `pass` calls are served, then `fail` ones are refused, then all are served again.
#define FAKE_ALL UINT32_MAX
void fake_fail(enum fake_call call, uint32_t pass, uint32_t fail);

// Serves everything again.
void fake_heal(void);

// How often it was called, refused calls included.
uint32_t fake_count(enum fake_call call);

// Called by the calling thread inside each such call, before it is served; NULL for none.
void fake_hook(enum fake_call call, void (*hook)(void));

// The clock stands still, so that no test depends on how fast it runs. Sets it to this time, and
// makes the library look at it.
void fake_clock(uint32_t milliseconds);

// Sets it only.
void fake_time(uint32_t milliseconds);

// What a file contains that the library reads; NULL: there is no such file. Until the first call
// the files are the real ones.
void fake_file(const char *path, const char *text);

// Says that all of whatever is asked about is resident, or the truth.
void fake_resident(bool all);

// What the data segment's end is said to be; 0: the truth.
void fake_break(uintptr_t end);

#endif

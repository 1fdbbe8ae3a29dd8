// SPDX-License-Identifier: MIT
// Copyright (c) the poolmalloc authors

// The thread owns nothing and never allocates: it calls what misses call.

#include "core/background.h"

#include <limits.h>
#include <pthread.h>
#include <signal.h>

#include "base/bits.h"
#include "config/options.h"
#include "core/age.h"
#include "core/clock.h"
#include "core/reclaim.h"
#include "os/os.h"

// Memory is purged at most a quarter of the delay late.
static void *run(void *unused) {
    for (;;) {
        pm_os_sleep((uint32_t)pm_max(pm_options.purge_delay / 4, PM_BACKGROUND_LEAST_MS));
        pm_age_all(pm_clock_now());
        while (pm_heaps_reclaim_more()) {
        }
    }
    return unused;
}

// Signals are the program's: its threads handle them. A stack also holds the thread-local variables
// of all libraries, and the frames of signals that libc sends to each thread, as for setuid: where
// they need more, the usual size (stack_bytes 0) has room.
static int start(size_t stack_bytes) {
    pthread_attr_t attributes;
    pthread_t thread;
    sigset_t all, before;
    int error = pthread_attr_init(&attributes);
    if (error != 0) {
        return error;
    }
    pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
    if (stack_bytes != 0) {
        pthread_attr_setstacksize(&attributes, pm_max(stack_bytes, PTHREAD_STACK_MIN));
    }
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    error = pthread_create(&thread, &attributes, run, NULL);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    pthread_attr_destroy(&attributes);
    return error;
}

void pm_background_attach(void) {
    if (pm_options.purge == PM_PURGE_BACKGROUND && start(PM_BACKGROUND_STACK_BYTES) != 0 &&
        start(0) != 0) {
        static const char line[] = "poolmalloc: POOLMALLOC_PURGE=background: no thread could be "
                                   "made, memory is purged in calls\n";
        pm_os_write(2, line, sizeof line - 1);
    }
}

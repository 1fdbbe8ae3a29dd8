// SPDX-License-Identifier: MIT
// Copyright (c) the poolmalloc authors

// Keys come from one secret of the process, mixed with where and how often they are used.

#include "core/random.h"

#include <stddef.h>
#include <string.h>
#include <sys/auxv.h>

#include "base/atomic.h"
#include "base/bits.h"
#include "os/os.h"

// Read once; racing readers may see two secrets, and each is good for the keys made from it.
static uint64_t secret;

static uint64_t read_secret(void) {
    uint64_t bytes;
    if (!pm_os_random(&bytes, sizeof bytes)) {
        // The kernel gives every process 16 random bytes at its start.
        const void *const at = (const void *)getauxval(AT_RANDOM);
        bytes = (uint64_t)(uintptr_t)&bytes;
        if (at != NULL) {
            uint64_t given[2];
            memcpy(given, at, sizeof given);
            bytes ^= pm_mix(given[0]) + given[1];
        }
    }
    return bytes | 1;
}

uint64_t pm_random(uint64_t input) {
    uint64_t known = pm_get(&secret);
    if (PM_UNLIKELY(known == 0)) {
        known = read_secret();
        pm_set(&secret, known);
    }
    return pm_mix(pm_mix(input ^ known) + known);
}

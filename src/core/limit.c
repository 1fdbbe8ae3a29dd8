// SPDX-License-Identifier: MIT
// Copyright (c) the poolmalloc authors

// The two limits, and where they come from.

#include "core/limit.h"

#include <string.h>

#include "base/atomic.h"
#include "base/attributes.h"
#include "base/bits.h"
#include "base/format.h"
#include "config/options.h"
#include "core/arena.h"
#include "core/huge.h"
#include "core/meta.h"
#include "core/run.h"
#include "os/os.h"

// Its line was written.
static bool soft_said, hard_said;

static void say(const char *format, size_t a, size_t b) {
    char line[PM_LINE_MAX];
    pm_os_write(2, line, pm_format(line, sizeof line, format, a, b));
}

// The first number of a file, as those of a control group; SIZE_MAX for all else, as "max".
static size_t read_number(const char *path) {
    char text[32];
    const int length = pm_os_read_file(path, text, sizeof text);
    size_t number = 0;
    int i = 0;
    while (i < length && text[i] >= '0' && text[i] <= '9') {
        if (__builtin_mul_overflow(number, (size_t)10, &number) ||
            __builtin_add_overflow(number, (size_t)(text[i] - '0'), &number)) {
            return SIZE_MAX;
        }
        i++;
    }
    return i == 0 ? SIZE_MAX : number;
}

// The least limit of a control group and those above it. `path` is its own, of `length`; where the
// process sees another hierarchy than the one it is in, as in a container, the top one counts.
static size_t least_limit(const char *root, const char *file, const char *path, size_t length) {
    static char name[2 * PM_PATH_MAX], group[PM_PATH_MAX];
    size_t least = SIZE_MAX;
    length = pm_min(length, sizeof group - 1);
    for (;;) {
        while (length > 0 && path[length - 1] == '/') {
            length--;
        }
        memcpy(group, path, length);
        group[length] = '\0';
        pm_format(name, sizeof name, "%s%s/%s", root, group, file);
        least = pm_min(least, read_number(name));
        if (length == 0) {
            return least;
        }
        while (length > 0 && path[length - 1] != '/') {
            length--;
        }
    }
}

static bool has_word(const char *list, size_t length, const char *word) {
    const size_t size = strlen(word);
    for (size_t i = 0; i + size <= length; i++) {
        if (memcmp(list + i, word, size) == 0 && (i == 0 || list[i - 1] == ',') &&
            (i + size == length || list[i + size] == ',')) {
            return true;
        }
    }
    return false;
}

// Lines of /proc/self/cgroup (cgroups(7)): "0::PATH" is of version 2, "N:CONTROLLERS:PATH" of 1.
static size_t limit_of_cgroup(void) {
    static char text[4 * PM_PATH_MAX];
    const int length = pm_os_read_file("/proc/self/cgroup", text, sizeof text);
    size_t least = SIZE_MAX;
    const char *line = text, *const end = text + (length > 0 ? length : 0);
    while (line < end) {
        const char *next = memchr(line, '\n', (size_t)(end - line));
        next = next == NULL ? end : next;
        const char *const first = memchr(line, ':', (size_t)(next - line));
        const char *const second =
            first == NULL ? NULL : memchr(first + 1, ':', (size_t)(next - first - 1));
        if (second != NULL) {
            const size_t path = (size_t)(next - second - 1);
            if (second == first + 1) {
                least = pm_min(least,
                               least_limit("/sys/fs/cgroup", "memory.max", second + 1, path));
            } else if (has_word(first + 1, (size_t)(second - first - 1), "memory")) {
                least = pm_min(least, least_limit("/sys/fs/cgroup/memory", "memory.limit_in_bytes",
                                                  second + 1, path));
            }
        }
        line = next + 1;
    }
    return least;
}

void pm_limit_attach(void) {
    if (pm_options.limit != PM_LIMIT_CGROUP) {
        return;
    }
    const size_t group = limit_of_cgroup();
    // Version 1 says "no limit" by a number near the largest one.
    if (group > PTRDIFF_MAX / 2) {
        say("poolmalloc: POOLMALLOC_LIMIT=cgroup: the control group has no memory limit\n", 0, 0);
        return;
    }
    const size_t hard = group - group / PM_LIMIT_OTHERS;
    pm_options.limit_hard = pm_min(pm_options.limit_hard, hard);
    pm_options.limit_soft = pm_min(pm_options.limit_soft, hard - hard / PM_LIMIT_OTHERS);
}

size_t pm_limit_in_use(void) {
    size_t bytes = pm_get(&pm_huge_blocks.used_bytes);
    for (unsigned kind = 0; kind < PM_ARENAS_COUNT; kind++) {
        bytes += pm_get(&pm_arenas[kind].touched);
    }
    for (unsigned shard = 0; shard < PM_RUNS_COUNT; shard++) {
        bytes += pm_get(&pm_runs[shard].used_units) << pm_runs[shard].unit_bits;
    }
    return bytes;
}

static size_t free_bytes(void) {
    size_t bytes = pm_get(&pm_huge_blocks.cached_bytes);
    for (unsigned kind = 0; kind < PM_ARENAS_COUNT; kind++) {
        bytes += pm_get(&pm_arenas[kind].resident_bytes);
    }
    for (unsigned shard = 0; shard < PM_RUNS_COUNT; shard++) {
        bytes += pm_get(&pm_runs[shard].resident_units) << pm_runs[shard].unit_bits;
    }
    return bytes;
}

static size_t metadata(void) {
    size_t bytes = pm_get(&pm_meta.mapped);
    for (unsigned kind = 0; kind < PM_ARENAS_COUNT; kind++) {
        const size_t headers = PM_ARENA_POOLS(pm_arenas[kind].bits) * sizeof(struct pm_pool);
        bytes += pm_get(&pm_arenas[kind].count) * headers;
    }
    for (unsigned shard = 0; shard < PM_RUNS_COUNT; shard++) {
        bytes += pm_get(&pm_runs[shard].count) * sizeof(struct pm_run_arena);
    }
    return bytes;
}

size_t pm_limit_footprint(void) {
    return pm_limit_in_use() + free_bytes() + metadata();
}

// The caller has passed the lower one of the limits. Not for every page: what goes back must be
// worth the walk, unless a request would fail.
static void give_back(size_t footprint) {
    if (free_bytes() > pm_options.limit_soft / PM_LIMIT_STEP || footprint > pm_options.limit_hard) {
        pm_arenas_trim();
        pm_runs_trim();
        pm_huge_trim();
    }
}

bool pm_limit_allows(size_t more) {
    const size_t soft = pm_options.limit_soft, hard = pm_options.limit_hard;
    if (PM_LIKELY(soft == PM_OPTION_UNSET && hard == PM_OPTION_UNSET)) {
        return true;
    }
    size_t bytes = pm_limit_footprint() + more;
    if (PM_LIKELY(bytes <= pm_min(soft, hard))) {
        return true;
    }
    if (pm_limit_can_ever_allow(more)) {
        give_back(bytes);
        bytes = pm_limit_footprint() + more;
    }
    if (bytes > soft && !__atomic_exchange_n(&soft_said, true, __ATOMIC_RELAXED)) {
        say("poolmalloc: the heap has reached its soft limit of %zu bytes (POOLMALLOC_LIMIT): free "
            "memory goes back at once from now on\n",
            soft, 0);
    }
    if (bytes > hard && !__atomic_exchange_n(&hard_said, true, __ATOMIC_RELAXED)) {
        say("poolmalloc: the heap has reached its hard limit of %zu bytes (POOLMALLOC_LIMIT): a "
            "request that needs %zu bytes more fails with ENOMEM, and so will others\n",
            hard, more);
    }
    return bytes <= hard;
}

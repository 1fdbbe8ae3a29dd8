// SPDX-License-Identifier: MIT
// Copyright (c) the poolmalloc authors
//
// insight/snapshot: the balance sheet against itself, the kernel's figures, and another process.

#include "fake_os.h"
#include "unit.h"

#include "core/arena.h"
#include "core/emergency.h"
#include "core/map.h"
#include "core/run.h"
#include "insight/snapshot.h"
#include "os/os.h"
#include "poolmalloc.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#define TEST(name) UNIT_TEST(snapshot, name)
#define MIB        ((size_t)1 << 20)

static size_t sum_of(const struct pm_snapshot *snapshot) {
    size_t sum = 0;
#define ADD(name, text) sum += snapshot->balance.name;
    PM_BALANCE_ROWS(ADD)
#undef ADD
    return sum;
}

static struct pm_snapshot look(void) {
    struct pm_snapshot snapshot;
    CHECK(pm_snapshot_own(&snapshot));
    CHECK(sum_of(&snapshot) == snapshot.mapped, "%zu instead of %zu", sum_of(&snapshot),
          snapshot.mapped);
    return snapshot;
}

TEST(an_empty_heap_has_nothing_in_use) {
    const struct pm_snapshot snapshot = look();
    CHECK(snapshot.balance.blocks_in_use == 0 && snapshot.balance.runs_in_use == 0);
    CHECK(snapshot.balance.huge_in_use == 0 && snapshot.pool_arenas == 0);
}

TEST(blocks_in_use_are_those_that_were_asked_for) {
    enum { COUNT = 3000 };
    static char *blocks[COUNT];
    size_t bytes = 0, count[PM_CLASS_COUNT] = { 0 };
    for (unsigned i = 0; i < COUNT; i++) {
        const size_t n = unit_below(unit_below(5) == 0 ? PM_MEDIUM_MAX + 1 : 600);
        blocks[i] = unit_take(n);
        const size_t size = pm_malloc_usable_size(blocks[i]);
        bytes += size;
        count[pm_class_of(size)]++;
    }
    struct pm_snapshot snapshot = look();
    CHECK(snapshot.balance.blocks_in_use == bytes, "%zu of %zu", snapshot.balance.blocks_in_use,
          bytes);
    for (unsigned class = 0; class < PM_CLASS_COUNT; class ++) {
        CHECK(snapshot.classes[class].in_use == count[class], "class %u", class);
        CHECK((snapshot.classes[class].pools != 0) == (count[class] != 0), "class %u", class);
    }
    for (unsigned i = 0; i < COUNT; i += 2) {
        bytes -= pm_malloc_usable_size(blocks[i]);
        pm_free(blocks[i]);
    }
    snapshot = look();
    CHECK(snapshot.balance.blocks_in_use == bytes && snapshot.balance.blocks_free > 0);
    for (unsigned i = 1; i < COUNT; i += 2) {
        pm_free(blocks[i]);
    }
    snapshot = look();
    CHECK(snapshot.balance.blocks_in_use == 0);
}

static void free_it(void *block) {
    pm_free(block);
}

TEST(remote_frees_are_not_in_use) {
    char *const block = unit_take(1000);
    unit_take(1000);
    unit_in_thread(free_it, block);
    const struct pm_snapshot snapshot = look();
    CHECK(snapshot.classes[pm_class_of(1000)].in_use == 1);
}

TEST(large_blocks_are_counted) {
    char *const run = unit_take(100000), *const large = unit_take(5 * MIB),
                *const huge = unit_take(70 * MIB);
    const size_t in_runs = pm_malloc_usable_size(run) + pm_malloc_usable_size(large);
    struct pm_snapshot snapshot = look();
    CHECK(snapshot.balance.runs_in_use == in_runs && snapshot.run_arenas == 2);
    CHECK(snapshot.balance.huge_in_use == 70 * MIB && snapshot.huge_blocks == 1);
    pm_free(run);
    pm_free(large);
    pm_free(huge);
    snapshot = look();
    CHECK(snapshot.balance.runs_in_use == 0 && snapshot.balance.huge_in_use == 0);
    pm_malloc_trim(0);
    snapshot = look();
    CHECK(snapshot.balance.runs_resident == 0 && snapshot.balance.huge_cached == 0);
    CHECK(snapshot.balance.pools_resident == 0);
}

TEST(emergency_memory_is_counted) {
    unit_take(100);
    const struct pm_snapshot before = look();
    CHECK(pm_emergency_malloc(100, 16) != NULL);
    const struct pm_snapshot after = look();
    CHECK(after.mapped == before.mapped + PM_EMERGENCY_BYTES);
}

TEST(rows_sum_after_every_step) {
    enum { LIVE = 500, STEPS = 3000 };
    static char *live[LIVE];
    unsigned count = 0;
    for (unsigned i = 0; i < STEPS; i++) {
        if (count == 0 || (unit_below(2) && count < LIVE)) {
            static const size_t most[] = { 600, 9000, 40000, 300000, 3 * MIB, 70 * MIB };
            const size_t which = unit_below(20);
            live[count++] = unit_take(unit_below(most[which < 6 ? which : 0]));
        } else {
            const size_t at = unit_below(count);
            pm_free(live[at]);
            live[at] = live[--count];
        }
        if (i % 500 == 0) {
            pm_malloc_trim(0);
        }
        look();
    }
}

// Private memory of this process that is no file's and not libc's heap or a stack, by the kernel.
static size_t kernels_sum(void) {
    static char text[1 << 18];
    const int fd = open("/proc/self/maps", O_RDONLY);
    size_t length = 0, sum = 0;
    for (ssize_t got; (got = read(fd, text + length, sizeof text - 1 - length)) > 0;) {
        length += (size_t)got;
    }
    close(fd);
    text[length] = '\0';
    for (char *line = text; *line != '\0'; line = strchr(line, '\n') + 1) {
        char *end;
        const uintptr_t from = strtoul(line, &end, 16), to = strtoul(end + 1, &end, 16);
        const char *const name = strchr(line, '\n') - 1;
        if (strncmp(end, " rw-p 00000000 00:00 0 ", 23) == 0 && *name != ']') {
            sum += to - from;
        }
    }
    return sum;
}

TEST(the_sum_is_what_the_kernel_has_mapped) {
    if (UNIT_ADDRESS_SANITIZER || UNIT_THREAD_SANITIZER) {
        cr_skip("a sanitizer maps memory of its own");
    }
    static const size_t sizes[] = { 10, 5000, 20000, 100000, 3 * MIB, 40 * MIB, 200 * MIB };
    enum { COUNT = sizeof sizes / sizeof *sizes };
    static char *blocks[COUNT][20];
    const size_t others = kernels_sum() - look().mapped;
    for (unsigned i = 0; i < COUNT; i++) {
        for (unsigned j = 0; j < (i < 4 ? 20 : 3); j++) {
            blocks[i][j] = unit_take(sizes[i]);
        }
        CHECK(kernels_sum() - look().mapped == others, "%zu", sizes[i]);
    }
    for (unsigned i = 0; i < COUNT; i++) {
        for (unsigned j = 0; j < 20; j++) {
            pm_free(blocks[i][j]);
        }
        CHECK(kernels_sum() - look().mapped == others, "%zu", sizes[i]);
    }
    pm_malloc_trim(0);
    CHECK(kernels_sum() - look().mapped == others);
}

TEST(rows_sum_while_threads_allocate) {
    unit_start_busy_threads(3);
    for (unsigned i = 0; i < 3000; i++) {
        look();
    }
    unit_stop_busy_threads();
    look();
}

// Another process, by the same walk.
static bool read_process(void *context, uintptr_t at, void *to, size_t size) {
    const struct iovec local = { to, size }, remote = { (void *)at, size };
    return process_vm_readv(*(const pid_t *)context, &local, 1, &remote, 1, 0) == (ssize_t)size;
}

TEST(another_process_is_read_by_the_same_walk) {
    for (unsigned i = 0; i < 3000; i++) {
        unit_take(unit_below(i % 100 == 0 ? 200000 : 2000));
    }
    pm_free(unit_take(70 * MIB));
    unit_take(80 * MIB);
    const struct pm_snapshot own = look();
    int hold[2];
    CHECK(pipe(hold) == 0);
    pid_t child = fork();
    if (child == 0) {
        char nothing;
        close(hold[1]);
        _exit((int)read(hold[0], &nothing, 1));
    }
    struct pm_snapshot other;
    char magic[sizeof PM_ROOT_MAGIC];
    const bool allowed = read_process(&child, (uintptr_t)&pm_root, magic, sizeof magic);
    const bool done =
        pm_snapshot_read(&other, &(struct pm_reader){ .read = read_process, .context = &child },
                         (uintptr_t)&pm_root);
    close(hold[1]);
    waitpid(child, NULL, 0);
    if (!allowed) {
        cr_skip("this system lets no process read another");
    }
    CHECK(done && sum_of(&other) == other.mapped);
    CHECK(memcmp(&other, &own, sizeof own) == 0, "%zu instead of %zu", other.mapped, own.mapped);
}

// A reader that changes what it reads, or stops.
static struct { size_t offset, reads, stop_at; } lie;

static bool read_and_lie(void *context, uintptr_t at, void *to, size_t size) {
    (void)context;
    memcpy(to, (const void *)at, size);
    if (at == (uintptr_t)&pm_root && lie.offset != 0) {
        ((char *)to)[lie.offset - 1] ^= 1;
    }
    return ++lie.reads != lie.stop_at;
}

TEST(another_layout_is_refused) {
    const struct pm_reader reader = { .read = read_and_lie };
    struct pm_snapshot snapshot;
    unit_take(100);
    for (lie.offset = 1; lie.offset <= offsetof(struct pm_root, slot_bits); lie.offset++) {
        const bool in_pad = lie.offset > sizeof PM_ROOT_MAGIC && lie.offset <= sizeof pm_root.magic;
        CHECK(in_pad || !pm_snapshot_read(&snapshot, &reader, (uintptr_t)&pm_root), "%zu",
              lie.offset);
    }
    lie.offset = 0;
    CHECK(pm_snapshot_read(&snapshot, &reader, (uintptr_t)&pm_root));
}

TEST(what_can_not_be_read_ends_the_walk) {
    const struct pm_reader reader = { .read = read_and_lie };
    struct pm_snapshot snapshot;
    unit_take(100);
    unit_take(100000);
    unit_take(80 * MIB);
    CHECK(pm_snapshot_read(&snapshot, &reader, (uintptr_t)&pm_root));
    const size_t reads = lie.reads;
    for (lie.stop_at = 1; lie.stop_at <= reads; lie.stop_at++) {
        lie.reads = 0;
        CHECK(!pm_snapshot_read(&snapshot, &reader, (uintptr_t)&pm_root), "%zu", lie.stop_at);
        CHECK(lie.reads == lie.stop_at);
    }
}

TEST(free_blocks_beside_blocks_in_use_are_pinned) {
    enum { COUNT = 100, SIZE = 640 };
    static struct pm_snapshot snapshot;
    const pm_class class = pm_class_of(SIZE);
    char *blocks[COUNT];
    for (unsigned i = 0; i < COUNT; i++) {
        blocks[i] = unit_take(SIZE);
    }
    for (unsigned i = 1; i < COUNT; i++) {
        pm_free(blocks[i]);
    }
    CHECK(pm_snapshot_own(&snapshot));
    const struct pm_class_use *const use = &snapshot.classes[class];
    CHECK(use->in_use == 1 && use->pools == 1 && use->sparse == 1);
    CHECK(use->pinned >= (COUNT - 1) * SIZE && use->pinned <= use->available * SIZE);
    CHECK(snapshot.pinned >= use->pinned && snapshot.pinned <= snapshot.balance.blocks_free);
    pm_free(blocks[0]);
    CHECK(pm_snapshot_own(&snapshot));
    CHECK(use->in_use == 0 && use->pinned == 0 && use->sparse == 0, "nothing pins an empty pool");
}

// SPDX-License-Identifier: MIT
// Copyright (c) the poolmalloc authors
//
// core/libcs: what is a block of libc's malloc, and what only looks like one. The names that libc
// keeps for itself are used, so that a sanitizer's malloc does not stand in between.

#include "fake_os.h"
#include "unit.h"

#include "config/limits.h"
#include "core/libcs.h"
#include "core/mode.h"
#include "os/os.h"
#include "poolmalloc.h"

#include <errno.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <malloc.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#define TEST(name) UNIT_TEST(libcs, name)

void *__libc_malloc(size_t n);
void *__libc_memalign(size_t align, size_t n);
void __libc_free(void *block);

static void check_theirs(void *block, size_t n) {
    size_t usable = 0;
    CHECK(block != NULL && pm_libcs_block(block, &usable), "%p of %zu bytes", block, n);
    CHECK(usable >= n && usable < n + n / 2 + 8192, "%zu of %zu", usable, n);
    enum pm_verdict verdict;
    CHECK(pm_mode_default.usable_size(block, &verdict) == usable && verdict == PM_LIBCS);
    CHECK(pm_mode_default.free(block) == PM_LIBCS);
}

static bool is_theirs(const void *at) {
    size_t usable;
    return pm_libcs_block(at, &usable);
}

TEST(blocks_of_every_size_are_recognised) {
    void *blocks[400];
    unsigned count = 0;
    for (size_t n = 0; n < 100000; n = n * 9 / 8 + 7) {
        blocks[count] = __libc_malloc(n);
        check_theirs(blocks[count++], n);
    }
    // Again, with all the others in place.
    count = 0;
    for (size_t n = 0; n < 100000; n = n * 9 / 8 + 7) {
        check_theirs(blocks[count++], n);
    }
    while (count > 0) {
        __libc_free(blocks[--count]);
    }
}

TEST(blocks_in_mappings_of_their_own_are_recognised) {
    static const size_t sizes[] = { 300 << 10, 1 << 20, (5 << 20) + 3, 70 << 20 };
    for (unsigned i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        char *const block = __libc_malloc(sizes[i]);
        check_theirs(block, sizes[i]);
        CHECK(!is_theirs(block + 16) && !is_theirs(block + 4096));
        __libc_free(block);
    }
}

TEST(aligned_blocks_are_recognised) {
    if (UNIT_ADDRESS_SANITIZER || UNIT_THREAD_SANITIZER) {
        cr_skip("a sanitizer serves them");
    }
    for (size_t align = 16; align <= 1 << 20; align *= 4) {
        static const size_t sizes[] = { 1, 1000, 400 << 10 };
        for (unsigned i = 0; i < 3; i++) {
            void *const block = __libc_memalign(align, sizes[i]);
            size_t usable;
            CHECK(pm_libcs_block(block, &usable) && usable >= sizes[i], "%zu at %zu", sizes[i],
                  align);
        }
    }
}

static void take_in_thread(void *argument) {
    void **const blocks = argument;
    for (unsigned i = 0; i < 10; i++) {
        blocks[i] = __libc_malloc(i * 5000);
        check_theirs(blocks[i], i * 5000);
    }
}

TEST(blocks_of_a_threads_arena_are_recognised) {
    void *blocks[10];
    unit_in_thread(take_in_thread, blocks);
    for (unsigned i = 0; i < 10; i++) {
        // Its chunk says that it lies in such an arena.
        CHECK((((size_t *)blocks[i])[-1] & 4) != 0 || UNIT_ADDRESS_SANITIZER ||
              UNIT_THREAD_SANITIZER);
        check_theirs(blocks[i], i * 5000);
    }
}

// As in sandboxes: the process may not read as it would read another one.
static void forbid_readv(void) {
    struct sock_filter rules[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_process_vm_readv, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    const struct sock_fprog program = { sizeof rules / sizeof *rules, rules };
    CHECK(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0);
    CHECK(prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) == 0);
    CHECK(process_vm_readv(getpid(), NULL, 0, NULL, 0, 0) == -1 && errno == EPERM);
}

static void recognise_in_a_sandbox(void *unused) {
    (void)unused;
    char *const pages =
        mmap(NULL, 3 << 12, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    char copy[32];
    forbid_readv();
    for (size_t n = 1; n < 2000000; n *= 3) {
        char *const block = __libc_malloc(n);
        check_theirs(block, n);
        __libc_free(block);
    }
    CHECK(munmap(pages + 4096, 4096) == 0);
    memset(pages, 7, 4096);
    CHECK(pm_os_peek(pages + 4096 - 32, copy, 32) && copy[0] == 7 && copy[31] == 7);
    CHECK(pm_os_peek(pages + 4095, copy, 1) && pm_os_peek(pages + 8192, copy, 1));
    CHECK(!pm_os_peek(pages + 4096 - 16, copy, 32) && !pm_os_peek(pages + 4096, copy, 1));
    CHECK(!pm_os_peek(pages + 8192 - 8, copy, 16) && !pm_os_peek((void *)8, copy, 8));
}

TEST(they_are_recognised_where_process_vm_readv_is_forbidden) {
    CHECK(unit_in_child(recognise_in_a_sandbox, NULL));
}

TEST(places_inside_of_blocks_are_not_theirs) {
    char *const block = __libc_malloc(40000);
    memset(block, 0, 40000);
    for (size_t offset = 1; offset < 40000; offset += offset < 300 ? 1 : 48) {
        CHECK(!is_theirs(block + offset), "%zu", offset);
    }
    memset(block, 0xff, 40000);
    for (size_t offset = 16; offset < 40000; offset += 16) {
        CHECK(!is_theirs(block + offset), "%zu", offset);
    }
    __libc_free(block);
}

TEST(a_freed_block_that_libc_has_joined_is_not_theirs) {
    char *const block = __libc_malloc(5000), *const behind = __libc_malloc(5000);
    check_theirs(block, 5000);
    __libc_free(block);
    CHECK(!is_theirs(block));
    __libc_free(behind);
    char *const mapped = __libc_malloc(1 << 20);
    check_theirs(mapped, 1 << 20);
    __libc_free(mapped);
    CHECK(!is_theirs(mapped), "unmapped");
}

TEST(our_own_memory_is_not_theirs) {
    static const size_t sizes[] = { 16, 1000, 20000, 100000, 5 << 20, 70 << 20 };
    for (unsigned i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        char *const block = pm_malloc(sizes[i]);
        CHECK(pm_mode_default.usable_size(block, &(enum pm_verdict){ PM_DONE }) >= sizes[i]);
        CHECK(!is_theirs(block), "%zu", sizes[i]);
    }
}

TEST(other_memory_is_not_theirs) {
    static char data[256] __attribute__((aligned(16)));
    char stack[256] __attribute__((aligned(16)));
    char *const pages =
        mmap(NULL, 3 << 12, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    memset(data, 0, sizeof data);
    memset(stack, 0, sizeof stack);
    CHECK(!is_theirs(data + 16) && !is_theirs(stack + 16) &&
          !is_theirs((void *)(uintptr_t)&take_in_thread));
    CHECK(!is_theirs(pages) && !is_theirs(pages + 16) && !is_theirs(pages + 4096));
    CHECK(!is_theirs(NULL) && !is_theirs((void *)16) && !is_theirs((void *)UINTPTR_MAX));
    mprotect(pages, 4096, PROT_NONE);
    CHECK(!is_theirs(pages + 16) && !is_theirs(pages + 4096), "its head can't be read");
    munmap(pages, 3 << 12);
    CHECK(!is_theirs(pages + 16));
}

TEST(wild_addresses_are_not_theirs) {
    for (unsigned i = 0; i < 100000; i++) {
        CHECK(!is_theirs((void *)(uintptr_t)(unit_random() & ~UINT64_C(15))));
    }
}

// Heads that say something else than where they are.
TEST(forged_heads_are_not_believed) {
    enum { BYTES = 1 << 16 };
    char *const pages =
        mmap(NULL, BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    static const size_t sizes[] = { 0x20, 0x21, 0x31, 0x1001, 0x24, 0x25, 0x1005, 0x22, 0x1012, 0x7,
                                    0xf, 0x10002, SIZE_MAX, (size_t)1 << 63,
                                    ((size_t)1 << 63) | 2 };
    for (unsigned i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        char *const block = pages + 4096 + 0x50;
        ((size_t *)block)[-1] = sizes[i];
        ((size_t *)block)[-2] = 0;
        // A next head that fits, where there is room.
        const size_t size = sizes[i] & ~(size_t)7;
        if (size < BYTES - 8192) {
            *(size_t *)(block - 8 + size) = 0x21;
        }
        CHECK(!is_theirs(block), "%#zx", sizes[i]);
        memset(pages, 0, BYTES);
    }
    // A mapping's head that stands at its place, of more than is there.
    ((size_t *)pages)[1] = ((size_t)1 << 40) | 2;
    CHECK(!is_theirs(pages + 16));
}

// The rest of a huge block's last slot is anybody's.
static void check_behind(char *huge, size_t size) {
    char *const place = mmap(huge + size, 4 * 4096, PROT_READ | PROT_WRITE,
                             MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
    CHECK(place == huge + size);
    // As libc's malloc leaves a mapping of its own.
    ((size_t *)place)[1] = 4 * 4096 | 2;
    check_theirs(place + 16, 4 * 4096 - 16);
    enum pm_verdict verdict;
    CHECK(pm_mode_default.usable_size(place + 4096, &verdict) == 0 && verdict == PM_STRAY);
    CHECK(munmap(place, 4 * 4096) == 0);
}

TEST(libcs_blocks_behind_a_huge_block_are_recognised) {
    check_behind(pm_malloc(70 << 20), 70 << 20);
}

TEST(libcs_blocks_behind_a_huge_block_of_one_slot_are_recognised) {
    check_behind(pm_aligned_alloc(64 << 20, 1 << 20), 1 << 20);
}

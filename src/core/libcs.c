// SPDX-License-Identifier: MIT
// Copyright (c) the poolmalloc authors

// How a block of glibc's malloc is recognised.
//
// glibc keeps a size right before each block, a multiple of 16 whose low bits tell where the block
// lies: in the data segment, in an arena of a thread (a heap of 64 MiB, aligned, that starts with a
// description), or in a mapping of its own. A block is libc's when it lies where its bits say and
// the sizes there fit together. Every word is fetched by a read that can't fault.

#include "core/libcs.h"

#include <link.h>
#include <stdint.h>
#include <sys/auxv.h>

#include "base/bits.h"
#include "config/limits.h"
#include "os/os.h"

#define BEFORE_IN_USE    1u
#define MAPPED           2u
#define THREAD_ARENA     4u
#define FLAGS            (BEFORE_IN_USE | MAPPED | THREAD_ARENA)
#define HEAD_BYTES       (2 * sizeof(size_t))
#define SIZE_MIN         32u
#define ARENA_HEAP_BYTES ((size_t)64 << 20)

struct head {
    size_t before, size;
};

struct arena_heap {
    uintptr_t arena, previous;
    size_t size, writable;
};

// Where the program's own image ends: its data segment, which libc's malloc grows, starts behind,
// unless the program was started by naming the dynamic linker: then it lies below the image.
static uintptr_t image_end(void) {
    const ElfW(Phdr) *const headers = (const ElfW(Phdr) *)getauxval(AT_PHDR);
    const size_t count = getauxval(AT_PHNUM);
    uintptr_t bias = 0, end = 0;
    for (size_t i = 0; headers != NULL && i < count; i++) {
        if (headers[i].p_type == PT_PHDR) {
            bias = (uintptr_t)headers - headers[i].p_vaddr;
        } else if (headers[i].p_type == PT_LOAD) {
            end = pm_max(end, bias + headers[i].p_vaddr + headers[i].p_memsz);
        }
    }
    return end;
}

static bool in_data_segment(uintptr_t block, size_t size) {
    const uintptr_t end = pm_os_break(), image = image_end();
    return (image > end || block >= image) && block < end && size <= end - block + HEAD_BYTES;
}

static bool in_thread_arena(uintptr_t block, size_t size) {
    const uintptr_t heap = pm_round_down(block, ARENA_HEAP_BYTES);
    struct arena_heap head;
    return pm_os_peek((const void *)heap, &head, sizeof head) && head.size <= ARENA_HEAP_BYTES &&
           head.size % pm_os_page_size() == 0 && head.writable <= ARENA_HEAP_BYTES &&
           head.arena % PM_BLOCK_ALIGN == 0 && head.arena != 0 && block - heap >= sizeof head &&
           block - HEAD_BYTES + size <= heap + head.size;
}

static bool followed_by_a_block(uintptr_t block, size_t size) {
    struct head next;
    return pm_os_peek((const void *)(block - HEAD_BYTES + size), &next, sizeof next) &&
           (next.size & BEFORE_IN_USE) != 0 && (next.size & MAPPED) == 0 &&
           (next.size & ~(size_t)FLAGS) >= PM_BLOCK_ALIGN;
}

static bool is_mapping(uintptr_t block, const struct head *head, size_t size) {
    const size_t page = pm_os_page_size();
    char last;
    return (block - HEAD_BYTES - head->before) % page == 0 && (size + head->before) % page == 0 &&
           size + head->before >= page &&
           pm_os_peek((const void *)(block - HEAD_BYTES + size - 1), &last, 1);
}

bool pm_libcs_block(const void *at, size_t *usable) {
    const uintptr_t block = (uintptr_t)at;
    struct head head;
    if (block % PM_BLOCK_ALIGN != 0 || block >> PM_ADDRESS_BITS != 0 || block < HEAD_BYTES ||
        !pm_os_peek((const void *)(block - HEAD_BYTES), &head, sizeof head)) {
        return false;
    }
    const size_t size = head.size & ~(size_t)FLAGS;
    if (size < SIZE_MIN || size % PM_BLOCK_ALIGN != 0 || size > PTRDIFF_MAX) {
        return false;
    }
    const bool mapped = (head.size & MAPPED) != 0;
    const bool theirs = mapped ? is_mapping(block, &head, size)
                               : ((head.size & THREAD_ARENA) != 0 ? in_thread_arena(block, size)
                                                                  : in_data_segment(block, size)) &&
                                     followed_by_a_block(block, size);
    *usable = !theirs ? 0 : mapped ? size - HEAD_BYTES : size - sizeof head.size;
    return theirs;
}

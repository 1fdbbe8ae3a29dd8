// SPDX-License-Identifier: MIT
// Copyright (c) the poolmalloc authors
//
// The victim's side of the misuse tests: `victim misuse KIND FUNCTION SIZE` makes an address of
// that kind, prints it on stdout and hands it to that function; `victim overwrite WHAT WHERE SIZE`
// damages a free block and allocates until the allocator notices. Coming to the end means that
// nobody stopped it.

#include "victim.h"

#include <malloc.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/mman.h>

enum {
    OTHERS_COUNT = 100,
    POOL_WINDOW = 64 << 10, // no pool is smaller, and each is aligned to this
};

static char static_zeroed[4096] __attribute__((aligned(64)));
static char static_data[4096] __attribute__((aligned(64))) = "not from malloc";

// Volatile function pointers: the compiler must neither see nor judge what these victims do.
static void (*volatile do_free)(void *) = free;
static void *(*volatile do_realloc)(void *, size_t) = realloc;
static size_t (*volatile do_usable_size)(void *) = malloc_usable_size;

static void *free_it(void *block) {
    do_free(block);
    return NULL;
}

static void in_another_thread(void *(*body)(void *), void *argument) {
    pthread_t thread;
    CHECK(pthread_create(&thread, NULL, body, argument) == 0);
    CHECK(pthread_join(thread, NULL) == 0);
}

static char *get(size_t size) {
    char *const block = malloc(size);
    CHECK(block != NULL);
    memset(block, 0x5a, size < 64 ? size : 64);
    return block;
}

// A free block, after which `others` more of its size were freed; `kept` ones are still in use, so
// that the pool isn't free as a whole.
static char *get_freed(size_t size, unsigned others, unsigned kept) {
    char *blocks[OTHERS_COUNT];
    for (unsigned i = 0; i < kept; i++) {
        get(size);
    }
    char *const block = get(size);
    for (unsigned i = 0; i < others; i++) {
        blocks[i] = get(size);
    }
    do_free(block);
    for (unsigned i = 0; i < others; i++) {
        do_free(blocks[i]);
    }
    return block;
}

static char *freed(size_t size) {
    return get_freed(size, 0, 2);
}

static char *freed_alone(size_t size) {
    return get_freed(size, 0, 0);
}

static char *freed_before_1(size_t size) {
    return get_freed(size, 1, 2);
}

static char *freed_before_100(size_t size) {
    return get_freed(size, OTHERS_COUNT, 2);
}

static char *freed_by_thread(size_t size) {
    get(size);
    char *const block = get(size);
    in_another_thread(free_it, block);
    return block;
}

static char *freed_of_ended_thread_block;

static void *get_and_end(void *size) {
    get((size_t)size);
    freed_of_ended_thread_block = get((size_t)size);
    return NULL;
}

static char *freed_of_ended_thread(size_t size) {
    in_another_thread(get_and_end, (void *)size);
    do_free(freed_of_ended_thread_block);
    return freed_of_ended_thread_block;
}

static char *interior(size_t size) {
    return get(size) + 16;
}

static char *interior_middle(size_t size) {
    return get(size) + (size / 2 & ~(size_t)15);
}

static char *off_by_one(size_t size) {
    return get(size) + 1;
}

static char *off_by_eight(size_t size) {
    return get(size) + 8;
}

static char *on_stack(size_t size) {
    (void)size;
    // The buffer is dead once we return, its address is what counts.
    char buffer[256] __attribute__((aligned(64)));
    char *volatile address = buffer + 64;
    return address;
}

static char *in_zeroed(size_t size) {
    (void)size;
    return static_zeroed + 128;
}

static char *in_data(size_t size) {
    (void)size;
    return static_data + 128;
}

static char *in_code(size_t size) {
    (void)size;
    return (char *)((uintptr_t)in_code & ~(uintptr_t)15);
}

static char *mapped(size_t size) {
    char *const pages =
        mmap(NULL, size + 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CHECK(pages != MAP_FAILED);
    return pages + 4096;
}

static char *unreadable(size_t size) {
    char *const pages = mmap(NULL, size + 8192, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CHECK(pages != MAP_FAILED);
    return pages + 16;
}

static char *wild(size_t size) {
    (void)size;
    return (char *)0x123456789000;
}

static char *tiny(size_t size) {
    (void)size;
    return (char *)0x10;
}

static char *non_canonical(size_t size) {
    (void)size;
    return (char *)0x8000000000001230;
}

static char *non_canonical_copy(size_t size) {
    return (char *)((uintptr_t)get(size) | (uintptr_t)1 << 56);
}

static char *all_ones(size_t size) {
    (void)size;
    return (char *)0xfffffffffffffff0;
}

// The last block that fits the window in which a live block lies: carved last, so not yet.
static char *never_handed_out(size_t size) {
    for (unsigned i = 0; i < 10000; i++) {
        char *const block = get(size);
        const size_t stride = malloc_usable_size(block);
        const size_t room = POOL_WINDOW - (uintptr_t)block % POOL_WINDOW;
        const size_t ahead = room / stride;
        if (room > POOL_WINDOW / 2 && ahead > 2) {
            return block + (ahead - 1) * stride;
        }
    }
    SKIP("no block of %zu bytes in the first half of a pool", size);
}

static char *arena_header(size_t size) {
    return (char *)((uintptr_t)get(size) & ~(((uintptr_t)4 << 20) - 1)) + 64;
}

static const struct {
    const char *name;
    char *(*make)(size_t size);
} kinds[] = {
#define KIND(name) \
    { #name, name }
    KIND(freed),
    KIND(freed_alone),
    KIND(freed_before_1),
    KIND(freed_before_100),
    KIND(freed_by_thread),
    KIND(freed_of_ended_thread),
    KIND(interior),
    KIND(interior_middle),
    KIND(off_by_one),
    KIND(off_by_eight),
    KIND(on_stack),
    KIND(in_zeroed),
    KIND(in_data),
    KIND(in_code),
    KIND(mapped),
    KIND(unreadable),
    KIND(wild),
    KIND(tiny),
    KIND(non_canonical),
    KIND(non_canonical_copy),
    KIND(all_ones),
    KIND(never_handed_out),
    KIND(arena_header),
};

static void apply(const char *function, char *address) {
    dprintf(1, "%p\n", (void *)address);
    if (strcmp(function, "free") == 0) {
        do_free(address);
    } else if (strcmp(function, "free by a thread") == 0) {
        in_another_thread(free_it, address);
    } else if (strcmp(function, "realloc") == 0) {
        do_realloc(address, 3000);
    } else if (strcmp(function, "malloc_usable_size") == 0) {
        do_usable_size(address);
    } else {
        CHECK(false, "no function %s", function);
    }
    dprintf(2, "nobody stopped it\n");
}

static void misuse(char **arguments) {
    const char *const kind = arguments[0];
    const size_t size = strtoul(arguments[2], NULL, 10);
    for (size_t i = 0; i < COUNT_OF(kinds); i++) {
        if (strcmp(kinds[i].name, kind) == 0) {
            apply(arguments[1], kinds[i].make(size));
            return;
        }
    }
    CHECK(false, "no kind %s", kind);
}

static void overwrite(char **arguments) {
    const char *const what = arguments[0], *const where = arguments[1];
    const size_t size = strtoul(arguments[2], NULL, 10);
    char *const first = get(size), *const block = get(size), *const last = get(size);
    if (strcmp(where, "local") == 0) {
        do_free(first);
        do_free(block);
    } else {
        in_another_thread(free_it, first);
        in_another_thread(free_it, block);
    }
    dprintf(1, "%p\n", (void *)block);
    if (strcmp(what, "zeroes") == 0) {
        memset(block, 0, 8);
    } else if (strcmp(what, "letters") == 0) {
        memset(block, 'A', 8);
    } else if (strcmp(what, "pointer") == 0) {
        memcpy(block, &last, 8);
    } else {
        CHECK(false, "can't write %s", what);
    }
    for (unsigned i = 0; i < 20000; i++) {
        *(volatile char *)malloc(size) = 1;
    }
    dprintf(2, "nobody stopped it\n");
}

// What a free block holds is put into live ones, which are then freed: they look free, and are not.
static void copied_links_are_no_alarm(char **arguments) {
    (void)arguments;
    for (size_t size = 16; size <= 32768; size = victim_next_size(size)) {
        char *blocks[OTHERS_COUNT];
        for (int round = 0; round < 4; round++) {
            for (unsigned i = 0; i < OTHERS_COUNT; i++) {
                blocks[i] = get(size);
            }
            for (unsigned i = 0; i + 1 < OTHERS_COUNT; i++) {
                do_free(blocks[i]);
                memcpy(blocks[i + 1], blocks[i], 16);
            }
            do_free(blocks[OTHERS_COUNT - 1]);
        }
    }
}

static void any_contents_are_no_alarm(char **arguments) {
    (void)arguments;
    for (size_t size = 16; size <= 32768; size = victim_next_size(size)) {
        char *const below = get(size), *const above = get(size);
        uint64_t random = size;
        for (unsigned i = 0; i < 1000; i++) {
            char *const block = get(size);
            const uint64_t words[] = { 0,
                                       UINT64_MAX,
                                       (uintptr_t)block,
                                       (uintptr_t)below,
                                       (uintptr_t)above,
                                       (uintptr_t)block + size,
                                       victim_random(&random),
                                       victim_random(&random) >> 32,
                                       victim_random(&random) << 32 };
            memcpy(block, &words[i % COUNT_OF(words)], 8);
            memcpy(block + 8, &words[i / 9 % COUNT_OF(words)], 8);
            if (i % 3 == 0) {
                in_another_thread(free_it, block);
            } else {
                do_free(block);
            }
        }
        do_free(below);
        do_free(above);
    }
}

// The same addresses come and go as blocks of other sizes: nothing remembered may speak against
// them.
static void recycled_addresses_are_no_alarm(char **arguments) {
    (void)arguments;
    uint64_t random = 7;
    enum { LIVE_COUNT = 40 };
    char *live[LIVE_COUNT] = { NULL };
    for (unsigned i = 0; i < 60000; i++) {
        char **const slot = &live[victim_random(&random) % LIVE_COUNT];
        do_free(*slot);
        *slot = get((size_t)64 << victim_random(&random) % 18);
    }
    for (unsigned i = 0; i < LIVE_COUNT; i++) {
        do_free(live[i]);
    }
}

#define CASE(name) { #name, name },
const struct victim_case victim_misuse_cases[] = {
#include "misuse.def"
    { "misuse", misuse },
    { "overwrite", overwrite },
    { 0 },
};

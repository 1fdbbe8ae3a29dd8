// SPDX-License-Identifier: MIT
// Copyright (c) the poolmalloc authors
//
// The victim's side of the limits tests. `victim exhaust KIND` allocates until NULL comes back, as
// often as memory comes back.

#include "victim.h"

#include <dirent.h>
#include <malloc.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>

enum {
    HEAD = 64, // bytes of a block's front and end that are written
    ERRNO_MARK = 77,
};

static const size_t most_bytes = (size_t)3 << 30; // for a machine without a limit

// Blocks are kept in a list that runs through themselves.
struct node {
    struct node *next;
    size_t size;
    unsigned seed;
};

static void *get_aligned(size_t size) {
    return aligned_alloc(4096, size);
}

static void *get_much_aligned(size_t size) {
    return aligned_alloc(1 << 20, size);
}

static void *get_zeroed(size_t size) {
    return calloc(1, size);
}

static void *get_grown(size_t size) {
    void *const block = malloc(100);
    void *const grown = block == NULL ? NULL : realloc(block, size);
    if (grown == NULL) {
        const int error = errno;
        free(block);
        CHECK(errno == error);
    }
    return grown;
}

static const struct kind {
    const char *name;
    void *(*get)(size_t size);
    size_t size;
} kinds[] = {
    { "tiny", malloc, 48 },           { "small", malloc, 1000 },
    { "medium", malloc, 9000 },       { "large", malloc, 60000 },
    { "run", malloc, 300000 },        { "huge", malloc, 5 << 20 },
    { "aligned", get_aligned, 3000 }, { "much aligned", get_much_aligned, 100000 },
    { "zeroed", get_zeroed, 500 },    { "zeroed large", get_zeroed, 1 << 20 },
    { "grown", get_grown, 100000 },
};

static size_t written_tail(size_t size) {
    return size - sizeof(struct node) < HEAD ? size - sizeof(struct node) : HEAD;
}

static struct node *make_node(const struct kind *kind, unsigned seed, struct node *next) {
    errno = ERRNO_MARK;
    struct node *const node = kind->get(kind->size);
    if (node == NULL) {
        CHECK(errno == ENOMEM);
        return NULL;
    }
    CHECK(errno == ERRNO_MARK);
    *node = (struct node){ .next = next, .size = kind->size, .seed = seed };
    const size_t tail = written_tail(node->size);
    victim_fill((char *)node + node->size - tail, tail, seed);
    return node;
}

static void check_node(const struct node *node) {
    const size_t tail = written_tail(node->size);
    CHECK(victim_wrong((const char *)node + node->size - tail, tail, node->seed) == tail,
          "block of %zu", node->size);
}

// Adds blocks until NULL; says how many.
static size_t add_until_null(const struct kind *kind, struct node **list, size_t most) {
    size_t count = 0;
    while (count < most) {
        struct node *const node = make_node(kind, (unsigned)count, *list);
        if (node == NULL) {
            break;
        }
        *list = node;
        count++;
    }
    return count;
}

// Frees all but every `keep`-th block (none is kept when that is 0), after a look at each.
static size_t drop(struct node **list, size_t keep) {
    size_t seen = 0, freed = 0;
    for (struct node **at = list; *at != NULL;) {
        struct node *const node = *at;
        check_node(node);
        if (keep != 0 && seen++ % keep == 0) {
            at = &node->next;
        } else {
            *at = node->next;
            errno = ERRNO_MARK;
            free(node);
            CHECK(errno == ERRNO_MARK);
            freed++;
        }
    }
    return freed;
}

static void exhaust(char **arguments) {
    const struct kind *kind = kinds;
    while (strcmp(kind->name, arguments[0]) != 0) {
        kind++;
        CHECK(kind < kinds + COUNT_OF(kinds), "no kind %s", arguments[0]);
    }
    const size_t most = most_bytes / kind->size;
    struct node *list = NULL;
    const size_t first = add_until_null(kind, &list, most);
    CHECK(first > 0 && first < most, "%zu blocks", first);
    for (int i = 0; i < 50; i++) {
        free(kind->get(kind->size * 2)); // and again, and nothing is lost by it
    }
    const size_t freed = drop(&list, 2);
    const size_t second = add_until_null(kind, &list, most);
    CHECK(second >= freed / 2, "%zu, %zu freed, then %zu", first, freed, second);
    drop(&list, 0);
    CHECK(list == NULL);
    const size_t third = add_until_null(kind, &list, most);
    CHECK(third >= first / 10 * 9, "%zu at first, %zu after all were freed", first, third);
    drop(&list, 0);
    dprintf(1, "%zu %zu %zu\n", first, second, third);
}

// Other sizes are served from what blocks of one size gave back.
static void exhaust_in_turn(char **arguments) {
    (void)arguments;
    for (int round = 0; round < 3; round++) {
        for (const struct kind *kind = kinds; kind < kinds + COUNT_OF(kinds); kind++) {
            struct node *list = NULL;
            const size_t count = add_until_null(kind, &list, most_bytes / kind->size);
            // Of the much aligned blocks each takes a MiB of addresses.
            CHECK(count > 20 && (count * kind->size > 32 << 20 || kind->get == get_much_aligned),
                  "%s: only %zu blocks of %zu", kind->name, count, kind->size);
            drop(&list, 0);
        }
    }
}

static void set_limit(rlim_t bytes) {
    struct rlimit limit;
    CHECK(getrlimit(RLIMIT_AS, &limit) == 0);
    limit.rlim_cur = bytes < limit.rlim_max ? bytes : limit.rlim_max;
    CHECK(setrlimit(RLIMIT_AS, &limit) == 0);
}

static void address_space_may_shrink_and_grow_at_run_time(char **arguments) {
    (void)arguments;
    for (const struct kind *kind = kinds; kind < kinds + COUNT_OF(kinds); kind++) {
        struct node *list = NULL;
        const size_t before = add_until_null(kind, &list, 20);
        CHECK(before == 20);
        set_limit(victim_mapped() + (1 << 20));
        const size_t most = most_bytes / kind->size;
        const size_t tight = add_until_null(kind, &list, most);
        CHECK(tight < most, "%s: %zu blocks", kind->name, tight);
        set_limit(RLIM_INFINITY);
        const size_t more = add_until_null(kind, &list, tight + 200);
        CHECK(more == tight + 200, "%s: %zu blocks", kind->name, more);
        drop(&list, 0);
    }
}

static void failed_realloc_keeps_the_block(char **arguments) {
    (void)arguments;
    static const size_t sizes[] = { 16, 1000, 20000, 300000, 6 << 20 };
    void *blocks[COUNT_OF(sizes)];
    for (size_t i = 0; i < COUNT_OF(sizes); i++) {
        blocks[i] = malloc(sizes[i]);
        victim_fill(blocks[i], sizes[i], (unsigned)i);
    }
    set_limit(victim_mapped());
    for (size_t i = 0; i < COUNT_OF(sizes); i++) {
        errno = ERRNO_MARK;
        CHECK(realloc(blocks[i], 512 << 20) == NULL && errno == ENOMEM);
        CHECK(victim_wrong(blocks[i], sizes[i], (unsigned)i) == sizes[i]);
    }
    set_limit(RLIM_INFINITY);
    for (size_t i = 0; i < COUNT_OF(sizes); i++) {
        blocks[i] = realloc(blocks[i], sizes[i] * 3);
        CHECK(blocks[i] != NULL && victim_wrong(blocks[i], sizes[i], (unsigned)i) == sizes[i]);
        free(blocks[i]);
    }
}

// Single pages of alternating protection can't be joined, so they use up max_map_count; then
// unmapping the middle of a mapping fails too.
static void map_count_pressure_keeps_errno_and_contents(char **arguments) {
    (void)arguments;
    enum { EACH = 40 };
    struct node *list = NULL;
    for (const struct kind *kind = kinds; kind < kinds + COUNT_OF(kinds); kind++) {
        CHECK(add_until_null(kind, &list, EACH) == EACH);
    }
    static void *pages[1 << 20];
    size_t count = 0;
    while (count < COUNT_OF(pages)) {
        void *const page = mmap(NULL, 4096, count % 2 == 0 ? PROT_READ : PROT_NONE,
                                MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (page == MAP_FAILED) {
            break;
        }
        pages[count++] = page;
    }
    if (count == COUNT_OF(pages)) {
        SKIP("max_map_count is larger than %zu", count);
    }
    drop(&list, 2); // checks errno and contents of each
    for (const struct kind *kind = kinds; kind < kinds + COUNT_OF(kinds); kind++) {
        add_until_null(kind, &list, EACH); // may fail, in order
    }
    drop(&list, 2);
    for (size_t i = 0; i < count; i++) {
        munmap(pages[i], 4096);
    }
    for (const struct kind *kind = kinds; kind < kinds + COUNT_OF(kinds); kind++) {
        CHECK(add_until_null(kind, &list, EACH) == EACH, "%s", kind->name);
    }
    drop(&list, 0);
}

// `victim exhaust_limit KIND BYTES`: the limit is the library's own, and every byte is touched.
static void exhaust_limit(char **arguments) {
    const struct kind *kind = kinds;
    while (strcmp(kind->name, arguments[0]) != 0) {
        kind++;
        CHECK(kind < kinds + COUNT_OF(kinds), "no kind %s", arguments[0]);
    }
    const size_t limit = strtoul(arguments[1], NULL, 10), before = victim_resident();
    struct node *list = NULL;
    size_t first = 0;
    for (struct node *node; (node = kind->get(kind->size)) != NULL; list = node, first++) {
        memset(node, 1, kind->size);
        *node = (struct node){ .next = list, .size = kind->size };
        victim_fill((char *)node + node->size - written_tail(node->size), written_tail(node->size),
                    0);
    }
    CHECK(errno == ENOMEM);
    const size_t resident = victim_resident() - before;
    CHECK(resident <= limit / 50 + limit, "%zu resident, limit %zu", resident, limit);
    CHECK(first * kind->size >= limit / 10 * 7, "%zu blocks of %zu", first, kind->size);
    const size_t freed = drop(&list, 2);
    const size_t again = add_until_null(kind, &list, first);
    CHECK(again >= freed / 10 * 9, "%zu freed, then %zu", freed, again);
    drop(&list, 0);
}

// A thread needs a pool for each class, and touches a page or two of each.
static void *take_one_of_each_size(void *unused) {
    void *blocks[100];
    size_t count = 0;
    for (size_t size = 16; size <= 20000; size += size < 512 ? 64 : size / 6) {
        CHECK((blocks[count] = malloc(size)) != NULL, "%zu bytes", size);
        memset(blocks[count++], 1, size);
    }
    while (count > 0) {
        free(blocks[--count]);
    }
    return unused;
}

static void many_threads_with_little_memory_are_served(char **arguments) {
    (void)arguments;
    victim_threads(64, take_one_of_each_size);
}

static unsigned count_threads(void) {
    unsigned count = 0;
    DIR *const tasks = opendir("/proc/self/task");
    CHECK(tasks != NULL);
    for (struct dirent *entry; (entry = readdir(tasks)) != NULL;) {
        count += entry->d_name[0] != '.';
    }
    closedir(tasks);
    return count;
}

static void purging_needs_no_thread(char **arguments) {
    (void)arguments;
    free(malloc(100));
    CHECK(count_threads() == 1);
}

// Waits for the event, not for a time: the test's own end is the limit.
static void a_silent_program_shrinks_in_the_background(char **arguments) {
    (void)arguments;
    enum { COUNT = 3000 };
    static char *blocks[COUNT];
    CHECK(count_threads() == 2);
    const size_t before = victim_resident();
    for (size_t i = 0; i < COUNT; i++) {
        blocks[i] = malloc(i % 2 == 0 ? 1000 : 20000);
        victim_fill(blocks[i], i % 2 == 0 ? 1000 : 20000, (unsigned)i);
    }
    for (size_t i = 0; i < COUNT; i++) {
        free(blocks[i]);
    }
    while (victim_resident() > before + (1 << 20)) {
        usleep(1000);
    }
    free(malloc(20000));
}

static void a_forked_child_purges_in_its_calls(char **arguments) {
    (void)arguments;
    CHECK(count_threads() == 2);
    const pid_t child = fork();
    if (child == 0) {
        CHECK(count_threads() == 1);
        for (size_t size = 16; size < 1 << 20; size *= 2) {
            free(malloc(size));
        }
        _exit(0);
    }
    int status;
    CHECK(waitpid(child, &status, 0) == child && status == 0);
}

// The thread's stack holds these, too.
static _Thread_local char thread_local_bytes[30000];

// setuid sends a signal to each thread, which no mask keeps off.
static void the_background_thread_has_room_for_what_libc_puts_on_its_stack(char **arguments) {
    (void)arguments;
    victim_fill(thread_local_bytes, sizeof thread_local_bytes, 1);
    CHECK(count_threads() == 2);
    for (unsigned i = 0; i < 100; i++) {
        CHECK(setuid(getuid()) == 0);
    }
    CHECK(count_threads() == 2);
}

#define CASE(name) { #name, name },
const struct victim_case victim_limits_cases[] = {
#include "limits.def"
    { "exhaust_limit", exhaust_limit },
    { "many_threads_with_little_memory_are_served", many_threads_with_little_memory_are_served },
    { "a_silent_program_shrinks_in_the_background", a_silent_program_shrinks_in_the_background },
    { "a_forked_child_purges_in_its_calls", a_forked_child_purges_in_its_calls },
    { "the_background_thread_has_room_for_what_libc_puts_on_its_stack",
      the_background_thread_has_room_for_what_libc_puts_on_its_stack },
    { "exhaust", exhaust },
    { "exhaust_in_turn", exhaust_in_turn },
    { 0 },
};

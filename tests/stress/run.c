// SPDX-License-Identifier: MIT
// Copyright (c) the poolmalloc authors
//
// The stress run. Each thread owns records, a record is a block or empty. A thread picks a record
// of its own and makes, moves, frees or looks at the block, or swaps the record for another one in
// a mailbox, so that blocks wander and are freed by threads that did not make them. The model
// itself needs no lock: a record has one owner, and ownership passes through the mailboxes.

#include "stress.h"

#include "api.h"

#include <errno.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum {
    RECORDS_COUNT = 1500, // of each thread at the start
    MAILBOXES_COUNT = 256,
    EDGE = 512,        // bytes at both ends of a block that carry its pattern, and
    SPARSE = 16,       // so many
    STRIDE = 64 << 10, // so often between
    ZEROED = 16 << 10, // bytes of a large zeroed block that are looked at from each end
    LARGEST_ALIGNMENT = 1 << 20,
    AUDIT_OPS = 5000, // between two audits, of a run with one thread
};

const struct stress_options stress_defaults = {
    .threads = 4,
    .ops = 200000,
    .seed = 1,
    .max_live = (size_t)256 << 20,
    .lives = 8,
};

struct record {
    unsigned char *block; // NULL: empty
    size_t size;
    size_t alignment; // that the block has to have
    uint32_t pattern;
};

// One after the other, threads run on a worker's records.
struct worker {
    uint32_t *mine; // numbers of the records that it owns
    uint32_t count;
    uint64_t random;
    uint64_t pattern; // of the next block; no two blocks of a run share one soon
    uint64_t ops;
};

static struct {
    struct stress_options options;
    struct record *records;
    struct worker *workers;
    _Atomic uint32_t mailboxes[MAILBOXES_COUNT]; // number of a record + 1, 0: empty
    _Atomic size_t live;
    _Atomic uint64_t refused; // requests that got NULL
    _Atomic bool failed;
} run;

__attribute__((format(printf, 2, 3))) static void fail(const struct record *record,
                                                       const char *format, ...) {
    char text[256];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    if (!atomic_exchange(&run.failed, true)) {
        dprintf(2, "stress: seed %llu: block %p of %zu bytes, alignment %zu: %s\n",
                (unsigned long long)run.options.seed, (void *)record->block, record->size,
                record->alignment, text);
    }
}

static uint64_t next_random(uint64_t *state) {
    *state += 0x9e3779b97f4a7c15;
    uint64_t x = *state;
    x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9;
    x = (x ^ x >> 27) * 0x94d049bb133111eb;
    return x ^ x >> 31;
}

static uint64_t below(struct worker *worker, uint64_t bound) {
    return next_random(&worker->random) % bound;
}

// Mostly small, some large, few huge; the odd one exactly a power of two or next to it.
static size_t pick_size(struct worker *worker) {
    static const struct {
        unsigned percent;
        size_t most;
    } mix[] = { { 50, 256 }, { 25, 4 << 10 }, { 15, 64 << 10 }, { 8, 1 << 20 }, { 2, 8 << 20 } };
    uint64_t dice = below(worker, 100);
    size_t i = 0;
    while (dice >= mix[i].percent) {
        dice -= mix[i++].percent;
    }
    if (below(worker, 8) == 0) {
        const size_t power = (size_t)1 << below(worker, (unsigned)__builtin_ctzll(mix[i].most) + 1);
        return power + 1 - below(worker, 3);
    }
    return 1 + below(worker, mix[i].most);
}

static unsigned char pattern_byte(uint32_t pattern, size_t at) {
    return (unsigned char)((pattern >> at % 4 * 8) ^ (at >> 9) * 13);
}

// Calls `visit` for each span of the first `size` bytes that carries the pattern.
static bool each_span(unsigned char *block, size_t size, uint32_t pattern,
                      bool (*visit)(unsigned char *, size_t from, size_t to, uint32_t)) {
    if (size <= 2 * EDGE) {
        return visit(block, 0, size, pattern);
    }
    bool good = visit(block, 0, EDGE, pattern) && visit(block, size - EDGE, size, pattern);
    for (size_t at = STRIDE; good && at + SPARSE < size - EDGE; at += STRIDE) {
        good = visit(block, at, at + SPARSE, pattern);
    }
    return good;
}

static bool write_span(unsigned char *block, size_t from, size_t to, uint32_t pattern) {
    for (size_t i = from; i < to; i++) {
        block[i] = pattern_byte(pattern, i);
    }
    return true;
}

static bool check_span(unsigned char *block, size_t from, size_t to, uint32_t pattern) {
    for (size_t i = from; i < to; i++) {
        if (block[i] != pattern_byte(pattern, i)) {
            return false;
        }
    }
    return true;
}

static void check(const struct record *record) {
    if (!each_span(record->block, record->size, record->pattern, check_span)) {
        fail(record, "its contents have changed");
    }
    const size_t usable = api_usable_size(record->block);
    if (usable < record->size) {
        fail(record, "only %zu bytes are usable", usable);
    }
}

static bool is_zero(const unsigned char *block, size_t size) {
    const size_t part = size < ZEROED ? size : ZEROED;
    for (size_t i = 0; i < part; i++) {
        if (block[i] != 0 || block[size - 1 - i] != 0) {
            return false;
        }
    }
    return true;
}

// A new block for an empty record, by one of all ways to get one.
static void make(struct worker *worker, struct record *record) {
    const size_t size = pick_size(worker);
    size_t alignment = 16;
    unsigned char *block = NULL;
    void *pointer = NULL;
    switch (below(worker, 12)) {
    case 0:
    case 1: block = api_calloc(1, size); break;
    case 2: block = api_calloc(size, 1); break;
    case 3: block = api_realloc(NULL, size); break;
    case 4:
        alignment = (size_t)16 << below(worker, 9);
        block = api_aligned_alloc(alignment, size);
        break;
    case 5:
        alignment = (size_t)16 << below(worker, below(worker, 8) == 0 ? 17 : 5);
        block = api_posix_memalign(&pointer, alignment, size) == 0 ? pointer : NULL;
        break;
    case 6:
        alignment = (size_t)16 << below(worker, 7);
        block = api_memalign(alignment, size);
        break;
    default: block = api_malloc(size); break;
    }
    if (block == NULL) {
        atomic_fetch_add_explicit(&run.refused, 1, memory_order_relaxed);
        return;
    }
    *record = (struct record){ .block = block,
                               .size = size,
                               .alignment = alignment,
                               .pattern = (uint32_t)(worker->pattern += 0x01030507) };
    if ((uintptr_t)block % alignment != 0) {
        fail(record, "not aligned");
    }
    atomic_fetch_add_explicit(&run.live, size, memory_order_relaxed);
    each_span(block, size, record->pattern, write_span);
}

static void make_zeroed(struct worker *worker, struct record *record) {
    const size_t size = pick_size(worker), parts = 1 + below(worker, 7);
    unsigned char *const block = api_calloc(parts, size / parts + 1);
    if (block == NULL) {
        atomic_fetch_add_explicit(&run.refused, 1, memory_order_relaxed);
        return;
    }
    *record = (struct record){
        .block = block, .size = size, .alignment = 16, .pattern = (uint32_t)++worker->pattern
    };
    if (!is_zero(block, size)) {
        fail(record, "calloc's block isn't zero");
    }
    atomic_fetch_add_explicit(&run.live, size, memory_order_relaxed);
    each_span(block, size, record->pattern, write_span);
}

static void end(struct worker *worker, struct record *record) {
    check(record);
    atomic_fetch_sub_explicit(&run.live, record->size, memory_order_relaxed);
    // So that a block that is still in use elsewhere is seen there.
    memset(record->block, 0xdd, record->size < EDGE ? record->size : EDGE);
    errno = 0;
    // Sized free is for blocks whose alignment was not asked for.
    if (record->alignment == 16 && below(worker, 8) == 0) {
        api_free_sized(record->block, record->size);
    } else if (below(worker, 32) == 0) {
        if (api_realloc(record->block, 0) != NULL) {
            fail(record, "realloc to 0 gave a block");
        }
    } else {
        api_free(record->block);
    }
    if (errno != 0) {
        fail(record, "free set errno to %d", errno);
    }
    record->block = NULL;
}

static void move(struct worker *worker, struct record *record) {
    check(record);
    const size_t kept = record->size;
    size_t size = pick_size(worker);
    if (below(worker, 2) == 0) {
        size = kept / 2 + below(worker, kept + 1) + 1; // near what it was
    }
    size += size == 0; // to 0 would free it
    const bool as_array = below(worker, 8) == 0;
    unsigned char *const block =
        as_array ? api_reallocarray(record->block, size, 1) : api_realloc(record->block, size);
    if (block == NULL) {
        atomic_fetch_add_explicit(&run.refused, 1, memory_order_relaxed);
        check(record);
        return;
    }
    record->block = block;
    record->alignment = 16;
    // The pattern covers other bytes at the new size, so only what both sizes cover is compared.
    const size_t same = kept < size ? kept : size;
    if (!check_span(block, 0, same < EDGE ? same : EDGE, record->pattern) ||
        (kept <= 2 * EDGE && !check_span(block, 0, same, record->pattern))) {
        fail(record, "realloc to %zu changed its contents", size);
    }
    for (size_t at = STRIDE; kept > 2 * EDGE && at + SPARSE < same && at + SPARSE < kept - EDGE;
         at += STRIDE) {
        if (!check_span(block, at, at + SPARSE, record->pattern)) {
            fail(record, "realloc to %zu changed byte %zu", size, at);
        }
    }
    if ((uintptr_t)block % 16 != 0) {
        fail(record, "realloc to %zu is not aligned", size);
    }
    atomic_fetch_add_explicit(&run.live, size - kept, memory_order_relaxed);
    record->size = size;
    each_span(block, size, record->pattern, write_span);
}

static void swap(struct worker *worker, uint32_t at) {
    _Atomic uint32_t *const mailbox = &run.mailboxes[below(worker, MAILBOXES_COUNT)];
    const uint32_t got =
        atomic_exchange_explicit(mailbox, worker->mine[at] + 1, memory_order_acq_rel);
    if (got == 0) {
        worker->mine[at] = worker->mine[--worker->count];
    } else {
        worker->mine[at] = got - 1;
    }
}

static void step(struct worker *worker) {
    const uint32_t at = (uint32_t)below(worker, worker->count);
    struct record *const record = &run.records[worker->mine[at]];
    const bool full = atomic_load_explicit(&run.live, memory_order_relaxed) > run.options.max_live;
    const uint64_t dice = below(worker, 100);
    if (dice < 12 && worker->count > RECORDS_COUNT / 4) {
        swap(worker, at);
    } else if (record->block == NULL) {
        if (!full) {
            (dice < 24 ? make_zeroed : make)(worker, record);
        }
    } else if (full || dice < 70) {
        end(worker, record);
    } else if (dice < 85) {
        move(worker, record);
    } else {
        check(record);
    }
}

static void audit(void) {
    if (run.options.audit && api_audit() != 0 && !atomic_exchange(&run.failed, true)) {
        dprintf(2, "stress: seed %llu: the audit found a broken equation\n",
                (unsigned long long)run.options.seed);
    }
}

static void *live_once(void *argument) {
    struct worker *const worker = argument;
    for (uint64_t i = 0;
         i < worker->ops && !atomic_load_explicit(&run.failed, memory_order_relaxed); i++) {
        step(worker);
        if (run.options.threads == 1 && i % AUDIT_OPS == 0) {
            audit();
        }
    }
    return NULL;
}

static void *map(size_t size) {
    void *const pages =
        mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    return pages == MAP_FAILED ? NULL : pages;
}

static bool set_up(const struct stress_options *options) {
    const size_t all = (size_t)options->threads * RECORDS_COUNT;
    memset(&run, 0, sizeof run);
    run.options = *options;
    run.records = map(all * sizeof *run.records);
    run.workers = map(options->threads * sizeof *run.workers);
    for (unsigned i = 0; run.workers != NULL && i < options->threads; i++) {
        struct worker *const worker = &run.workers[i];
        worker->mine = map(all * sizeof *worker->mine); // a worker may come to own all
        for (uint32_t k = 0; worker->mine != NULL && k < RECORDS_COUNT; k++) {
            worker->mine[k] = i * RECORDS_COUNT + k;
        }
        worker->count = RECORDS_COUNT;
        worker->random = options->seed * 1000003 + i;
        worker->pattern = (uint64_t)i << 28;
        worker->ops = options->ops / options->lives;
    }
    return run.records != NULL && run.workers != NULL &&
           run.workers[options->threads - 1].mine != NULL;
}

static void tear_down(void) {
    const size_t all = (size_t)run.options.threads * RECORDS_COUNT;
    for (size_t i = 0; i < all && !run.failed; i++) {
        if (run.records[i].block != NULL) {
            end(&run.workers[0], &run.records[i]);
        }
    }
    audit();
    for (unsigned i = 0; i < run.options.threads; i++) {
        munmap(run.workers[i].mine, all * sizeof *run.workers[i].mine);
    }
    munmap(run.workers, run.options.threads * sizeof *run.workers);
    munmap(run.records, all * sizeof *run.records);
}

bool stress_run(const struct stress_options *options) {
    enum { THREADS_COUNT = 256 };
    pthread_t threads[THREADS_COUNT];
    if (options->threads == 0 || options->threads > THREADS_COUNT || options->lives == 0 ||
        !set_up(options)) {
        dprintf(2, "stress: %u threads and %u lives can't be had\n", options->threads,
                options->lives);
        return false;
    }
    if (!options->quiet) {
        dprintf(2, "stress: seed %llu, %u threads, %llu operations each\n",
                (unsigned long long)options->seed, options->threads,
                (unsigned long long)options->ops);
    }
    for (unsigned life = 0; life < options->lives && !run.failed; life++) {
        for (unsigned i = 0; i < options->threads; i++) {
            if (pthread_create(&threads[i], NULL, live_once, &run.workers[i]) != 0) {
                dprintf(2, "stress: can't start thread %u\n", i);
                _exit(2);
            }
        }
        for (unsigned i = 0; i < options->threads; i++) {
            pthread_join(threads[i], NULL);
        }
        audit();
    }
    const bool good = !run.failed;
    if (!options->quiet) {
        dprintf(2, "stress: %s, %llu requests refused\n", good ? "good" : "FAILED",
                (unsigned long long)run.refused);
    }
    tear_down();
    return good && !run.failed;
}

// SPDX-License-Identifier: MIT
// Copyright (c) the poolmalloc authors
//
// Workloads whose blocks are freed by the thread that asked for them. With more than one thread
// they show whether threads that share nothing slow each other down.

#include "work.h"

#include <stdlib.h>

#define ALWAYS_INLINE inline __attribute__((always_inline))

static void free_slots(struct bench_worker *worker) {
    for (size_t slot = 0; slot < worker->live; slot++) {
        free(worker->slots[slot]);
        worker->slots[slot] = NULL;
    }
}

// One block stays in a register: through a slot in memory, the loop would wait for its own store.
static ALWAYS_INLINE void pair_loop(struct bench_worker *worker, enum bench_touch touch) {
    if (worker->live == 1) {
        for (size_t i = 0; i < worker->operations; i++) {
            const size_t size = bench_size(worker, i);
            void *const block = bench_block(malloc(size));
            bench_write(block, size, touch);
            free(block);
        }
        return;
    }
    size_t slot = 0;
    for (size_t i = 0; i < worker->operations; i++) {
        const size_t size = bench_size(worker, i);
        free(worker->slots[slot]);
        void *const block = bench_block(malloc(size));
        bench_write(block, size, touch);
        worker->slots[slot] = block;
        slot = slot + 1 == worker->live ? 0 : slot + 1;
    }
    free_slots(worker);
}

// A loop for each kind of write: the shortest paths are measured here, so nothing is decided
// inside.
static void pair_body(struct bench_worker *worker) {
    switch (worker->params->touch) {
    case BENCH_TOUCH_NONE: pair_loop(worker, BENCH_TOUCH_NONE); break;
    case BENCH_TOUCH_BYTE: pair_loop(worker, BENCH_TOUCH_BYTE); break;
    case BENCH_TOUCH_WORD: pair_loop(worker, BENCH_TOUCH_WORD); break;
    default: pair_loop(worker, worker->params->touch); break;
    }
}

const struct bench_mode bench_pair = {
    .name = "pair",
    .isolates =
        "the fast paths: one free and one malloc an operation, going round `live` blocks; one "
        "block is freed at once and comes back, a thousand lie in several pools",
    .defaults = { .threads = 1,
                  .operations = 20000000,
                  .live = 1,
                  .size = 64,
                  .touch = BENCH_TOUCH_WORD },
    .body = pair_body,
};

static void bulk_body(struct bench_worker *worker) {
    const enum bench_order order = worker->params->order;
    const enum bench_touch touch = worker->params->touch;
    for (size_t done = 0; done < worker->operations; done += worker->live) {
        for (size_t slot = 0; slot < worker->live; slot++) {
            const size_t size = bench_size(worker, slot);
            worker->slots[slot] = bench_block(malloc(size));
            bench_write(worker->slots[slot], size, touch);
        }
        for (size_t step = 0; step < worker->live; step++) {
            const size_t slot = order == BENCH_ORDER_FIFO   ? step
                                : order == BENCH_ORDER_LIFO ? worker->live - 1 - step
                                                            : worker->turn[step];
            free(worker->slots[slot]);
        }
    }
}

const struct bench_mode bench_bulk = {
    .name = "bulk",
    .isolates =
        "many mallocs, then as many frees: how lists are filled and drained, and what the order "
        "of the frees does to the addresses of the next round",
    .defaults = { .threads = 1,
                  .operations = 5000000,
                  .live = 100000,
                  .size = 16,
                  .max = 256,
                  .touch = BENCH_TOUCH_WORD,
                  .order = BENCH_ORDER_LIFO,
                  .spread = BENCH_SPREAD_SMALL },
    .body = bulk_body,
};

// Which function a replaced block comes from.
enum source { SOURCE_MALLOC, SOURCE_CALLOC, SOURCE_ALIGNED };

enum { LEAST_ALIGNMENT = 32 };

static void *aligned_block(const struct bench_worker *worker, size_t operation, size_t size) {
    size_t alignment = LEAST_ALIGNMENT << operation % 8;
    if (alignment > worker->params->align) {
        alignment = LEAST_ALIGNMENT;
    }
    void *block = NULL;
    return posix_memalign(&block, alignment, size) == 0 ? block : NULL;
}

static ALWAYS_INLINE void replace_loop(struct bench_worker *worker, enum source source) {
    const enum bench_touch touch = worker->params->touch;
    for (size_t i = 0; i < worker->operations; i++) {
        // The first round fills the slots, so that the stated number of blocks is live in the rest.
        const size_t slot =
            i < worker->live ? i : bench_random_below(&worker->random, worker->live);
        const size_t size = bench_size(worker, i);
        free(worker->slots[slot]);
        void *const block = bench_block(source == SOURCE_MALLOC   ? malloc(size)
                                        : source == SOURCE_CALLOC ? calloc(1, size)
                                                                  : aligned_block(worker, i, size));
        bench_write(block, size, touch);
        worker->slots[slot] = block;
    }
    free_slots(worker);
}

static void replace_body(struct bench_worker *worker) {
    replace_loop(worker, SOURCE_MALLOC);
}

const struct bench_mode bench_replace = {
    .name = "replace",
    .isolates =
        "a heap in steady state: a random one of `live` blocks is freed and one of another size "
        "takes its place; sizes up to 4 KiB show pools and classes, larger ones runs and mappings",
    .defaults = { .threads = 1,
                  .operations = 5000000,
                  .live = 10000,
                  .size = 16,
                  .max = 512,
                  .touch = BENCH_TOUCH_WORD,
                  .spread = BENCH_SPREAD_SMALL },
    .body = replace_body,
};

static void calloc_body(struct bench_worker *worker) {
    replace_loop(worker, SOURCE_CALLOC);
}

const struct bench_mode bench_calloc = {
    .name = "calloc",
    .isolates =
        "the cost of zeroes: replacement by calloc, up to sizes whose pages the system has just "
        "zeroed and need not be cleared again",
    .defaults = { .threads = 1,
                  .operations = 500000,
                  .live = 1000,
                  .size = 16,
                  .max = 65536,
                  .touch = BENCH_TOUCH_WORD,
                  .spread = BENCH_SPREAD_SMALL },
    .body = calloc_body,
};

static void aligned_body(struct bench_worker *worker) {
    replace_loop(worker, SOURCE_ALIGNED);
}

const struct bench_mode bench_aligned = {
    .name = "aligned",
    .isolates = "posix_memalign: replacement with alignments from 32 bytes to `align` in turn",
    .defaults = { .threads = 1,
                  .operations = 2000000,
                  .live = 1000,
                  .size = 16,
                  .max = 2048,
                  .align = 4096,
                  .touch = BENCH_TOUCH_WORD,
                  .spread = BENCH_SPREAD_SMALL },
    .body = aligned_body,
};

struct tree {
    struct tree *left;
    struct tree *right;
};

static struct tree *tree_grow(const struct bench_worker *worker, size_t nodes) {
    if (nodes == 0) {
        return NULL;
    }
    struct tree *const node = bench_block(malloc(bench_size(worker, nodes)));
    node->left = tree_grow(worker, nodes / 2);
    node->right = tree_grow(worker, nodes - 1 - nodes / 2);
    return node;
}

static void tree_fell(struct tree *node) {
    if (node != NULL) {
        tree_fell(node->left);
        tree_fell(node->right);
        free(node);
    }
}

static void tree_body(struct bench_worker *worker) {
    struct tree *const lasting = tree_grow(worker, worker->live);
    for (size_t done = 0; done < worker->operations; done += worker->live) {
        tree_fell(tree_grow(worker, worker->live));
    }
    tree_fell(lasting);
}

const struct bench_mode bench_tree = {
    .name = "tree",
    .isolates =
        "linked structures: trees of `live` nodes built and torn down by recursion beside one that "
        "lasts, so that the placing of neighbours shows",
    .defaults = { .threads = 2, .operations = 10000000, .live = 20000, .size = 32, .max = 0 },
    .body = tree_body,
};

static void realloc_body(struct bench_worker *worker) {
    const struct bench_params *const params = worker->params;
    size_t *const lengths = bench_map(worker->live * sizeof *lengths);
    for (size_t i = 0; i < worker->operations; i++) {
        const size_t slot = bench_random_below(&worker->random, worker->live);
        const size_t old = lengths[slot];
        size_t size = params->step != 0 ? old + params->step : old + old / 2;
        if (old == 0 || size > params->max) {
            free(worker->slots[slot]);
            worker->slots[slot] = NULL;
            size = params->size;
        }
        char *const block = bench_block(realloc(worker->slots[slot], size));
        const size_t kept = worker->slots[slot] == NULL ? 0 : old;
        bench_write(block + kept, size - kept, params->touch);
        worker->slots[slot] = block;
        lengths[slot] = size;
    }
    free_slots(worker);
}

const struct bench_mode bench_realloc = {
    .name = "realloc",
    .isolates =
        "growing buffers: `live` of them grow in random turns, so that few can grow in place, and "
        "start again at `size` when they would pass `max`",
    .defaults = { .threads = 1,
                  .operations = 1000000,
                  .live = 100,
                  .size = 16,
                  .max = 65536,
                  .touch = BENCH_TOUCH_ALL },
    .body = realloc_body,
};

// SPDX-License-Identifier: MIT
// Copyright (c) the poolmalloc authors
//
// Workloads in which a block outlives its thread or is freed by another one.

#include "work.h"

#include <pthread.h>
#include <sched.h>
#include <stdlib.h>

// Pointers on their way from a producer to its consumer. Each side owns its line, and publishes its
// position a batch at a time, so that the queue costs little beside the blocks. Positions only
// grow.
struct queue {
    _Alignas(BENCH_CACHE_LINE) atomic_size_t produced;
    _Alignas(BENCH_CACHE_LINE) atomic_size_t consumed;
    _Alignas(BENCH_CACHE_LINE) void **entries;
    size_t entry_count;
};

enum { HANDOFF_BATCH = 32 };

static struct queue *queues;

static void handoff_prepare(const struct bench_params *params) {
    if (params->threads % 2 != 0) {
        bench_fail("threads must be even: producers and consumers come in pairs");
    }
    const size_t pairs = params->threads / 2;
    const size_t batches = params->live / pairs / HANDOFF_BATCH;
    queues = bench_map(pairs * sizeof *queues);
    for (size_t i = 0; i < pairs; i++) {
        queues[i].entry_count = (batches > 2 ? batches : 2) * HANDOFF_BATCH;
        queues[i].entries = bench_map(queues[i].entry_count * sizeof *queues[i].entries);
    }
}

static size_t batch_end(size_t position, size_t total) {
    return total - position < HANDOFF_BATCH ? total : position + HANDOFF_BATCH;
}

static void produce(struct bench_worker *worker, struct queue *queue, size_t total) {
    for (size_t position = 0; position < total;) {
        const size_t end = batch_end(position, total);
        while (end - atomic_load_explicit(&queue->consumed, memory_order_acquire) >
               queue->entry_count) {
            sched_yield();
        }
        for (; position < end; position++) {
            const size_t size = bench_size(worker, position);
            void *const block = bench_block(malloc(size));
            bench_write(block, size, worker->params->touch);
            queue->entries[position % queue->entry_count] = block;
        }
        atomic_store_explicit(&queue->produced, position, memory_order_release);
    }
}

static void consume(struct queue *queue, size_t total) {
    for (size_t position = 0; position < total;) {
        const size_t end = batch_end(position, total);
        while (atomic_load_explicit(&queue->produced, memory_order_acquire) < end) {
            sched_yield();
        }
        for (; position < end; position++) {
            void *const block = queue->entries[position % queue->entry_count];
            (void)*(volatile char *)block;
            free(block);
        }
        atomic_store_explicit(&queue->consumed, position, memory_order_release);
    }
}

static void handoff_body(struct bench_worker *worker) {
    struct queue *const queue = &queues[worker->index / 2];
    const size_t total = worker->params->operations / (worker->params->threads / 2);
    if (worker->index % 2 == 0) {
        produce(worker, queue, total);
    } else {
        consume(queue, total);
    }
}

const struct bench_mode bench_handoff = {
    .name = "handoff",
    .isolates =
        "producer and consumer: one thread only asks, the other only frees, with at most `live` "
        "blocks under way; every free is remote and comes back to one owner",
    .defaults = { .threads = 2,
                  .operations = 5000000,
                  .live = 4096,
                  .size = 16,
                  .max = 512,
                  .touch = BENCH_TOUCH_WORD,
                  .spread = BENCH_SPREAD_SMALL },
    .prepare = handoff_prepare,
    .body = handoff_body,
};

// A batch of blocks belongs to whoever took it out of the table. Batches are swapped, not blocks,
// so that the threads meet in the allocator rather than in the table.
enum { REMOTE_BATCH = 64 };

struct batch {
    void *blocks[REMOTE_BATCH];
};

static _Atomic(struct batch *) *table;
static size_t table_count;

static void remote_prepare(const struct bench_params *params) {
    table_count = params->live / REMOTE_BATCH > 0 ? params->live / REMOTE_BATCH : 1;
    table = bench_map(table_count * sizeof *table);
    struct batch *const batches = bench_map(table_count * sizeof *batches);
    for (size_t i = 0; i < table_count; i++) {
        atomic_init(&table[i], &batches[i]);
    }
}

static void batch_free(struct batch *batch) {
    for (size_t i = 0; i < REMOTE_BATCH; i++) {
        free(batch->blocks[i]);
    }
}

static void remote_body(struct bench_worker *worker) {
    struct batch *batch = bench_map(sizeof *batch);
    for (size_t done = 0; done < worker->operations; done += REMOTE_BATCH) {
        for (size_t i = 0; i < REMOTE_BATCH; i++) {
            const size_t size = bench_size(worker, done + i);
            free(batch->blocks[i]);
            batch->blocks[i] = bench_block(malloc(size));
            bench_write(batch->blocks[i], size, worker->params->touch);
        }
        const size_t slot = bench_random_below(&worker->random, table_count);
        batch = atomic_exchange_explicit(&table[slot], batch, memory_order_acq_rel);
    }
    batch_free(batch);
}

static void remote_finish(void) {
    for (size_t slot = 0; slot < table_count; slot++) {
        batch_free(atomic_load(&table[slot]));
    }
}

const struct bench_mode bench_remote = {
    .name = "remote",
    .isolates =
        "many-to-many remote frees: all threads both ask and free, and a block freed is anybody's; "
        "owners get blocks back from several sides at once",
    .defaults = { .threads = 2,
                  .operations = 5000000,
                  .live = 8192,
                  .size = 16,
                  .max = 512,
                  .touch = BENCH_TOUCH_WORD,
                  .spread = BENCH_SPREAD_SMALL },
    .prepare = remote_prepare,
    .body = remote_body,
    .finish = remote_finish,
};

// Runs one thread to its end; the worker passes from thread to thread with what it holds.
static void live_once(struct bench_worker *worker, void *(*life)(void *)) {
    pthread_t thread;
    if (pthread_create(&thread, NULL, life, worker) != 0) {
        bench_fail("cannot start a thread");
    }
    pthread_join(thread, NULL);
}

static void *server_life(void *argument) {
    struct bench_worker *const worker = argument;
    for (size_t i = 0; i < worker->params->lifetime; i++) {
        const size_t slot = bench_random_below(&worker->random, worker->live);
        const size_t size = bench_size(worker, i);
        free(worker->slots[slot]);
        worker->slots[slot] = bench_block(malloc(size));
        bench_write(worker->slots[slot], size, worker->params->touch);
    }
    return NULL;
}

static void server_body(struct bench_worker *worker) {
    for (size_t done = 0; done < worker->operations; done += worker->params->lifetime) {
        live_once(worker, server_life);
    }
    for (size_t slot = 0; slot < worker->live; slot++) {
        free(worker->slots[slot]);
    }
}

const struct bench_mode bench_server = {
    .name = "server",
    .isolates = "threads that come and go: each replaces random blocks for `lifetime` operations, "
                "ends, and "
                "its successor frees what it left; memory of ended threads must find a new owner",
    .defaults = { .threads = 2,
                  .operations = 4000000,
                  .live = 10000,
                  .size = 16,
                  .max = 512,
                  .lifetime = 20000,
                  .touch = BENCH_TOUCH_WORD,
                  .spread = BENCH_SPREAD_SMALL },
    .body = server_body,
};

static void *spawn_life(void *argument) {
    struct bench_worker *const worker = argument;
    for (size_t slot = 0; slot < worker->live; slot++) {
        const size_t size = bench_size(worker, slot);
        worker->slots[slot] = bench_block(malloc(size));
        bench_write(worker->slots[slot], size, worker->params->touch);
    }
    for (size_t slot = 0; slot < worker->live; slot++) {
        free(worker->slots[slot]);
    }
    return NULL;
}

static void spawn_body(struct bench_worker *worker) {
    for (size_t done = 0; done < worker->operations; done += worker->live) {
        live_once(worker, spawn_life);
    }
}

const struct bench_mode bench_spawn = {
    .name = "spawn",
    .isolates = "short-lived threads: each asks for `live` blocks, frees them and ends; what a "
                "heap costs to "
                "set up and to leave",
    .defaults = { .threads = 2,
                  .operations = 1000000,
                  .live = 200,
                  .size = 16,
                  .max = 512,
                  .touch = BENCH_TOUCH_WORD,
                  .spread = BENCH_SPREAD_SMALL },
    .body = spawn_body,
};

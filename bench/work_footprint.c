// SPDX-License-Identifier: MIT
// Copyright (c) the poolmalloc authors
//
// Workloads about the memory that stays: each ends its load with few blocks left, rests, and shows
// how much is resident then. Every page of a block is written, so that what is resident beyond the
// live bytes is the allocator's doing. What survives is not freed at the end: a report that the
// allocator makes at exit shows the state at rest.

#include "work.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

// ---- rest ---------------------------------------------------------------------------------------

static struct {
    pthread_mutex_t lock;
    pthread_cond_t over;
    bool is_over;
    size_t resting; // workers
    size_t bytes;   // that they hold
    struct bench_at_rest seen;
} rest = { .lock = PTHREAD_MUTEX_INITIALIZER, .over = PTHREAD_COND_INITIALIZER };

// smaps_rollup walks the page tables; the counter in status may lag behind, but is always there.
static long resident_kib(void) {
    const long exact = bench_kib_of("/proc/self/smaps_rollup", "Rss");
    const long resident = exact > 0 ? exact : bench_kib_of("/proc/self/status", "VmRSS");
    if (resident <= 0) {
        bench_fail("/proc/self does not say how much memory is resident");
    }
    return resident;
}

static void sleep_for(size_t seconds) {
    struct timespec left = { .tv_sec = (time_t)seconds };
    while (nanosleep(&left, &left) != 0 && errno == EINTR) {
    }
}

// Not by stdio, whose buffer comes from malloc.
static void print_now(const char *text, size_t length) {
    if (write(STDOUT_FILENO, text, length) != (ssize_t)length) {
        bench_fail("cannot write the figures");
    }
}

static void look(size_t idle) {
    char text[128];
    rest.seen.end = bench_clock();
    getrusage(RUSAGE_SELF, &rest.seen.usage);
    const long own = bench_mapped_kib();
    // The code for all that follows is paged in first: it would count at the second look only.
    (void)snprintf(text, sizeof text, "%ld", resident_kib());
    sleep_for(0);
    const long after = resident_kib();
    const long anonymous = bench_kib_of("/proc/self/status", "RssAnon");
    const long peak = bench_kib_of("/proc/self/status", "VmHWM");
    rest.seen.peak_kib = (peak > after ? peak : after) - own;
    const int length = snprintf(text, sizeof text, "live_kib=%zu after_kib=%ld anon_kib=%ld\n",
                                rest.bytes / 1024, after - own, anonymous - own);
    print_now(text, (size_t)length);
    sleep_for(idle);
    rest.seen.idle_kib = resident_kib() - own;
}

void bench_rest(const struct bench_worker *worker, size_t workers, size_t bytes) {
    pthread_mutex_lock(&rest.lock);
    rest.bytes += bytes;
    rest.resting++;
    if (rest.resting == workers) {
        look(worker->params->idle);
        rest.is_over = true;
        pthread_cond_broadcast(&rest.over);
    }
    while (!rest.is_over) {
        pthread_cond_wait(&rest.over, &rest.lock);
    }
    pthread_mutex_unlock(&rest.lock);
}

struct bench_at_rest bench_at_rest(void) {
    return rest.seen;
}

// ---- slots that know their lengths --------------------------------------------------------------

// A block may begin anywhere in a page, so its last byte can lie in one that no step reached.
static void *filled_block(const struct bench_worker *worker, size_t size) {
    char *const block = bench_block(malloc(size));
    bench_write(block, size, worker->params->touch);
    *(volatile char *)(block + size - 1) = 1;
    return block;
}

static void put(struct bench_worker *worker, size_t slot, size_t size) {
    worker->slots[slot] = filled_block(worker, size);
    worker->lengths[slot] = (uint32_t)size;
}

static void drop(struct bench_worker *worker, size_t slot) {
    free(worker->slots[slot]);
    worker->slots[slot] = NULL;
    worker->lengths[slot] = 0;
}

static void move(struct bench_worker *worker, size_t from, size_t to) {
    void *const block = worker->slots[from];
    const uint32_t length = worker->lengths[from];
    worker->slots[from] = NULL;
    worker->lengths[from] = 0;
    worker->slots[to] = block;
    worker->lengths[to] = length;
}

static size_t held(const struct bench_worker *worker) {
    size_t bytes = 0;
    for (size_t slot = 0; slot < worker->live; slot++) {
        bytes += worker->lengths[slot];
    }
    return bytes;
}

static bool survives(struct bench_worker *worker) {
    return bench_random_below(&worker->random, 1000) < worker->params->keep;
}

// ---- one thread ---------------------------------------------------------------------------------

// Each phase asks for sizes that the blocks of the one before cannot serve.
static const struct {
    size_t least;
    size_t doublings;
} phases[] = { { 16, 4 }, { 1024, 2 }, { 8192, 3 }, { 65536, 4 } };
enum { PHASE_COUNT = sizeof phases / sizeof phases[0] };

static size_t phase_size(struct bench_worker *worker, size_t phase) {
    const size_t low = phases[phase].least
                       << bench_random_below(&worker->random, phases[phase].doublings);
    return low + bench_random_below(&worker->random, low);
}

static void phases_body(struct bench_worker *worker) {
    const size_t share = worker->params->bytes / worker->params->threads;
    size_t kept = 0; // survivors of all phases so far, in the first slots
    for (size_t phase = 0; phase < PHASE_COUNT; phase++) {
        size_t end = kept;
        for (size_t bytes = 0; bytes < share && end < worker->live; end++) {
            const size_t size = phase_size(worker, phase);
            put(worker, end, size);
            bytes += size;
        }
        for (size_t slot = kept; slot < end; slot++) {
            if (survives(worker)) {
                move(worker, slot, kept++);
            } else {
                drop(worker, slot);
            }
        }
    }
    bench_rest(worker, worker->params->threads, held(worker));
}

const struct bench_mode bench_phases = {
    .name = "phases",
    .isolates =
        "phases whose sizes change: `bytes` are filled with blocks of 16 to 256 bytes, of 1 to 4 "
        "KiB, of 8 to 64 KiB, of 64 KiB to 1 MiB; after each phase all but `keep` of a thousand "
        "are freed, and these few, at random places, pin what they lie in",
    .defaults = { .threads = 1,
                  .operations = 1,
                  .live = 1000000,
                  .size = 16,
                  .bytes = 64 << 20,
                  .keep = 10,
                  .touch = BENCH_TOUCH_PAGES },
    .body = phases_body,
    .rests = true,
};

// The window of sizes goes up and down so often, and changes after so many operations.
enum { DRIFT_CYCLES = 4, DRIFT_STEP = 1024, DRIFT_WINDOW = 4 };

// The smallest size that is asked for at an operation: from one doubling of `size` to the next it
// grows in a straight line.
static size_t drift_low(const struct bench_worker *worker, size_t operation, size_t doublings) {
    const size_t half = worker->operations / (2 * DRIFT_CYCLES) + 1;
    const size_t way = operation % (2 * half) < half ? operation % half : half - operation % half;
    const size_t position = doublings * DRIFT_STEP * way / half;
    const size_t low = worker->params->size << position / DRIFT_STEP;
    return low + low * (position % DRIFT_STEP) / DRIFT_STEP;
}

static void drift_body(struct bench_worker *worker) {
    const struct bench_params *const params = worker->params;
    const size_t share = params->bytes / params->threads;
    size_t doublings = 0;
    while (params->size * DRIFT_WINDOW << (doublings + 1) <= params->max) {
        doublings++;
    }
    size_t low = params->size;
    size_t count = 0; // slots in use, the first ones
    size_t bytes = 0;
    for (size_t i = 0; i < worker->operations; i++) {
        if (i % DRIFT_STEP == 0) {
            low = drift_low(worker, i, doublings);
        }
        const size_t size = low + bench_random_below(&worker->random, (DRIFT_WINDOW - 1) * low);
        while (count > 0 && (count == worker->live || bytes + size > share)) {
            const size_t slot = bench_random_below(&worker->random, count);
            bytes -= worker->lengths[slot];
            drop(worker, slot);
            count--;
            move(worker, count, slot);
        }
        put(worker, count, size);
        count++;
        bytes += size;
    }
    bench_rest(worker, params->threads, bytes);
}

const struct bench_mode bench_drift = {
    .name = "drift",
    .isolates =
        "long random churn with drifting sizes: a cache of `bytes`, in which each new block makes "
        "random ones leave; sizes lie within two doublings, which wander from `size` to `max` and "
        "back, four times; fragmentation that only time brings",
    .defaults = { .threads = 1,
                  .operations = 100000000,
                  .live = 1000000,
                  .size = 16,
                  .max = 32768,
                  .bytes = 32 << 20,
                  .touch = BENCH_TOUCH_PAGES },
    .body = drift_body,
    .rests = true,
};

static void refill_body(struct bench_worker *worker) {
    const size_t share = worker->params->bytes / worker->params->threads;
    for (size_t fill = 0; fill < worker->operations; fill++) {
        size_t count = 0;
        for (size_t bytes = 0; bytes < share && count < worker->live; count++) {
            const size_t size = bench_size(worker, count);
            worker->slots[count] = filled_block(worker, size);
            bytes += size;
        }
        for (size_t slot = 0; slot < count; slot++) {
            free(worker->slots[slot]);
            worker->slots[slot] = NULL;
        }
    }
    bench_rest(worker, worker->params->threads, 0);
}

const struct bench_mode bench_refill = {
    .name = "refill",
    .isolates =
        "the price of giving back: `bytes` are filled and emptied over and over, `operations` "
        "times; what goes back to the system at once is faulted in again at the next fill, what is "
        "kept stays resident at the end",
    .defaults = { .threads = 1,
                  .operations = 10,
                  .live = 1000000,
                  .size = 16,
                  .max = 1024,
                  .bytes = 100 << 20,
                  .touch = BENCH_TOUCH_PAGES,
                  .spread = BENCH_SPREAD_SMALL },
    .body = refill_body,
    .rests = true,
};

static void short_body(struct bench_worker *worker) {
    for (size_t slot = 0; slot < worker->live; slot++) {
        put(worker, slot, bench_size(worker, slot));
    }
    for (size_t slot = 0; slot < worker->live; slot++) {
        drop(worker, slot);
    }
    bench_rest(worker, worker->params->threads, 0);
}

const struct bench_mode bench_short = {
    .name = "short",
    .isolates =
        "a short process: it asks for `live` blocks, frees them and has nothing more to do; what "
        "an allocator costs a program that hardly needs one",
    .defaults = { .threads = 1,
                  .operations = 1,
                  .live = 50,
                  .size = 16,
                  .max = 1024,
                  .touch = BENCH_TOUCH_PAGES,
                  .spread = BENCH_SPREAD_SMALL },
    .body = short_body,
    .rests = true,
};

// ---- many threads -------------------------------------------------------------------------------

// So many sleepers go on after the others lie down; one in so many blocks is freed by a neighbour.
enum { SLEEPERS_AWAKE = 2, SLEEPERS_REMOTE = 8 };

static struct bench_worker **sleepers; // by index
static pthread_barrier_t all_sleepers;

static void sleepers_prepare(const struct bench_params *params) {
    sleepers = bench_map(params->threads * sizeof *sleepers);
    if (pthread_barrier_init(&all_sleepers, NULL, (unsigned int)params->threads) != 0) {
        bench_fail("cannot make a barrier for so many threads");
    }
}

static void sleepers_body(struct bench_worker *worker) {
    const size_t threads = worker->params->threads;
    sleepers[worker->index] = worker;
    for (size_t slot = 0; slot < worker->live; slot++) {
        put(worker, slot, bench_size(worker, slot));
    }
    pthread_barrier_wait(&all_sleepers); // all bursts are there at once
    struct bench_worker *const neighbour = sleepers[(worker->index + 1) % threads];
    for (size_t slot = 0; slot < worker->live; slot++) {
        if (slot % SLEEPERS_REMOTE == 0) {
            drop(neighbour, slot);
        } else if (!survives(worker)) {
            drop(worker, slot);
        }
    }
    pthread_barrier_wait(&all_sleepers); // nobody frees another's blocks any more
    if (worker->index < SLEEPERS_AWAKE) {
        for (size_t i = 0; i < worker->params->operations / SLEEPERS_AWAKE; i++) {
            const size_t slot = bench_random_below(&worker->random, worker->live);
            drop(worker, slot);
            put(worker, slot, bench_size(worker, i));
        }
    }
    bench_rest(worker, threads, held(worker));
}

const struct bench_mode bench_sleepers = {
    .name = "sleepers",
    .isolates =
        "many threads, most of them asleep: each asks for its part of `live` blocks, a neighbour "
        "frees an eighth of them, it frees the rest but `keep` of a thousand; two go on with "
        "random replacement, `operations` in all, while the others sleep over what they freed",
    .defaults = { .threads = 200,
                  .operations = 1000000,
                  .live = 300000,
                  .size = 16,
                  .max = 4096,
                  .keep = 10,
                  .touch = BENCH_TOUCH_PAGES,
                  .spread = BENCH_SPREAD_SMALL },
    .prepare = sleepers_prepare,
    .body = sleepers_body,
    .rests = true,
};

// A client's share of the slots; it passes from thread to thread with what it holds.
static void *burst_life(void *argument) {
    struct bench_worker *const share = argument;
    for (size_t i = 0; i < share->params->lifetime; i++) {
        const size_t slot = bench_random_below(&share->random, share->live);
        drop(share, slot);
        put(share, slot, bench_size(share, i));
    }
    return NULL;
}

static void burst_body(struct bench_worker *worker) {
    const struct bench_params *const params = worker->params;
    const size_t clients = params->threads;
    const size_t part = worker->live / clients > 0 ? worker->live / clients : 1;
    struct bench_worker *const shares = bench_map(clients * sizeof *shares);
    pthread_t *const threads = bench_map(clients * sizeof *threads);
    for (size_t i = 0; i < clients; i++) {
        shares[i] = *worker;
        shares[i].live = i * part < worker->live ? part : 0;
        shares[i].slots += i * part;
        shares[i].lengths += i * part;
        shares[i].random += i * 0x9e3779b97f4a7c15u;
    }
    for (size_t done = 0; done < params->operations; done += clients * params->lifetime) {
        for (size_t i = 0; i < clients && shares[i].live > 0; i++) {
            if (pthread_create(&threads[i], NULL, burst_life, &shares[i]) != 0) {
                bench_fail("cannot start a thread");
            }
        }
        for (size_t i = 0; i < clients && shares[i].live > 0; i++) {
            pthread_join(threads[i], NULL);
        }
    }
    for (size_t slot = 0; slot < worker->live; slot++) {
        if (!survives(worker)) {
            drop(worker, slot);
        }
    }
    bench_rest(worker, 1, held(worker));
}

const struct bench_mode bench_burst = {
    .name = "burst",
    .isolates =
        "a server after its load: `threads` at a time come, replace random blocks for `lifetime` "
        "operations and end, successors free what they left; then the load is gone, the main "
        "thread frees all but `keep` of a thousand, and no thread of the load is left to tidy up",
    .defaults = { .threads = 32,
                  .operations = 6000000,
                  .live = 200000,
                  .size = 16,
                  .max = 4096,
                  .lifetime = 20000,
                  .keep = 10,
                  .touch = BENCH_TOUCH_PAGES,
                  .spread = BENCH_SPREAD_SMALL },
    .body = burst_body,
    .rests = true,
    .spawns = true,
};

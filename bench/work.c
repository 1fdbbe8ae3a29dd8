// SPDX-License-Identifier: MIT
// Copyright (c) the poolmalloc authors
//
// pm-bench-work MODE [KEY=VALUE]...: runs one workload on whatever malloc is loaded and prints one
// line of figures. The work is fixed by a count of operations and a seed, so that times compare;
// the clock runs around the working part alone.

#include "figures.h"
#include "work.h"

#include <dlfcn.h>
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

static const struct bench_mode *const modes[] = {
    &bench_pair,    &bench_bulk,    &bench_replace,  &bench_tree,   &bench_realloc, &bench_calloc,
    &bench_aligned, &bench_handoff, &bench_remote,   &bench_server, &bench_spawn,   &bench_phases,
    &bench_drift,   &bench_burst,   &bench_sleepers, &bench_refill, &bench_short,
};
enum { MODE_COUNT = sizeof modes / sizeof modes[0] };

// A parameter is a number from `least` on, or one of the words.
struct key {
    const char *name;
    size_t offset;
    size_t least;
    const char *const *words;
    size_t word_count;
    const char *text;
};

static const char *const touch_words[BENCH_TOUCH_COUNT] = {
    [BENCH_TOUCH_NONE] = "none",   [BENCH_TOUCH_BYTE] = "byte", [BENCH_TOUCH_WORD] = "word",
    [BENCH_TOUCH_PAGES] = "pages", [BENCH_TOUCH_ALL] = "all",
};
static const char *const order_words[BENCH_ORDER_COUNT] = {
    [BENCH_ORDER_LIFO] = "lifo",
    [BENCH_ORDER_FIFO] = "fifo",
    [BENCH_ORDER_RANDOM] = "random",
};
static const char *const spread_words[BENCH_SPREAD_COUNT] = {
    [BENCH_SPREAD_EVEN] = "even",
    [BENCH_SPREAD_SMALL] = "small",
};

enum { LEAST_SIZE = 8, LEAST_NODE = 16 };

#define NUMBER(field, smallest, meaning)                                                     \
    {                                                                                        \
        .name = #field, .offset = offsetof(struct bench_params, field), .least = (smallest), \
        .text = (meaning)                                                                    \
    }
#define WORDS(field, count, meaning)                                                            \
    {                                                                                           \
        .name = #field, .offset = offsetof(struct bench_params, field), .words = field##_words, \
        .word_count = (count), .text = (meaning)                                                \
    }

static const struct key keys[] = {
    NUMBER(threads, 1, "threads"),
    NUMBER(operations, 1, "operations of all threads together; for refill: how often it fills"),
    NUMBER(live, 1, "blocks held at a time by all threads together"),
    NUMBER(size, LEAST_SIZE, "bytes of the smallest request"),
    NUMBER(max, 0, "bytes of the largest request; 0: all are of `size`"),
    NUMBER(align, 0, "largest alignment (aligned)"),
    NUMBER(step, 0, "growth in bytes; 0: by half of the size (realloc)"),
    NUMBER(lifetime, 1, "operations of one thread before it ends (server, burst)"),
    NUMBER(bytes, 1, "requested bytes held at a time, at most (phases, drift, refill)"),
    NUMBER(keep, 0, "blocks of a thousand that outlive the load (phases, sleepers, burst)"),
    NUMBER(idle, 0, "seconds of rest at the end (modes that show resident memory)"),
    NUMBER(seed, 1, "seed of sizes and slots"),
    WORDS(touch, BENCH_TOUCH_COUNT, "what is written into a block"),
    WORDS(order, BENCH_ORDER_COUNT, "order of frees (bulk)"),
    WORDS(spread, BENCH_SPREAD_COUNT,
          "how sizes are drawn: each doubling alike, or most of them small"),
};
enum { KEY_COUNT = sizeof keys / sizeof keys[0] };

_Noreturn void bench_fail(const char *what) {
    fprintf(stderr, "pm-bench-work: %s\n", what);
    exit(1);
}

static atomic_size_t mapped; // in whole pages

void *bench_map(size_t bytes) {
    void *const memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
                              MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
    if (memory == MAP_FAILED) {
        bench_fail("cannot map memory for the workload's own tables");
    }
    const size_t page = (size_t)sysconf(_SC_PAGESIZE);
    atomic_fetch_add(&mapped, (bytes + page - 1) / page * page);
    return memory;
}

long bench_mapped_kib(void) {
    return (long)(atomic_load(&mapped) / 1024);
}

static int help(void) {
    printf("usage: pm-bench-work MODE [KEY=VALUE]...\n\nmodes:\n");
    for (size_t i = 0; i < MODE_COUNT; i++) {
        printf("  %-9s %s\n", modes[i]->name, modes[i]->isolates);
    }
    printf("\nkeys:\n");
    for (size_t i = 0; i < KEY_COUNT; i++) {
        printf("  %-10s %s", keys[i].name, keys[i].text);
        for (size_t word = 0; word < keys[i].word_count; word++) {
            printf("%s%s", word == 0 ? ": " : ", ", keys[i].words[word]);
        }
        putchar('\n');
    }
    printf("\n`pm-bench-work modes` lists the modes alone; `version` names the compiler.\n");
    return 0;
}

static const struct bench_mode *find_mode(const char *name) {
    for (size_t i = 0; i < MODE_COUNT; i++) {
        if (strcmp(modes[i]->name, name) == 0) {
            return modes[i];
        }
    }
    return NULL;
}

static bool set_key(struct bench_params *params, const struct key *key, const char *value) {
    void *const field = (char *)params + key->offset;
    for (size_t word = 0; word < key->word_count; word++) {
        if (strcmp(key->words[word], value) == 0) {
            memcpy(field, &(unsigned int){ (unsigned int)word }, sizeof(unsigned int));
            return true;
        }
    }
    char *end;
    errno = 0;
    const size_t number = strtoul(value, &end, 10);
    if (key->word_count != 0 || errno != 0 || end == value || *end != '\0' || *value == '-' ||
        number < key->least) {
        return false;
    }
    memcpy(field, &number, sizeof number);
    return true;
}

static bool set(struct bench_params *params, const char *argument) {
    for (size_t i = 0; i < KEY_COUNT; i++) {
        const size_t length = strlen(keys[i].name);
        if (strncmp(argument, keys[i].name, length) == 0 && argument[length] == '=') {
            return set_key(params, &keys[i], argument + length + 1);
        }
    }
    return false;
}

static void draw_sizes(struct bench_worker *worker) {
    const struct bench_params *const params = worker->params;
    size_t doublings = 0;
    while (params->size << (doublings + 1) <= params->max) {
        doublings++;
    }
    for (size_t i = 0; i < BENCH_SIZE_COUNT; i++) {
        if (params->max <= params->size) {
            worker->sizes[i] = (uint32_t)params->size;
            continue;
        }
        size_t bound = doublings + 1;
        if (params->spread == BENCH_SPREAD_SMALL) {
            bound = 1 + bench_random_below(&worker->random, bound);
        }
        const size_t low = params->size << bench_random_below(&worker->random, bound);
        const size_t size = low + bench_random_below(&worker->random, low);
        worker->sizes[i] = (uint32_t)(size < params->max ? size : params->max);
    }
}

static void shuffle_turns(struct bench_worker *worker) {
    worker->turn = bench_map(worker->live * sizeof *worker->turn);
    for (size_t i = 0; i < worker->live; i++) {
        const size_t other = bench_random_below(&worker->random, i + 1);
        worker->turn[i] = worker->turn[other];
        worker->turn[other] = (uint32_t)i;
    }
}

static void set_up(struct bench_worker *worker, const struct bench_mode *mode,
                   const struct bench_params *params, size_t index, size_t workers) {
    const size_t live = params->live / workers;
    *worker = (struct bench_worker){
        .params = params,
        .index = index,
        .operations = params->operations / workers,
        .live = live > 0 ? live : 1,
        .random = (params->seed + index) * 0x9e3779b97f4a7c15u,
    };
    worker->slots = bench_map(worker->live * sizeof *worker->slots);
    worker->sizes = bench_map(BENCH_SIZE_COUNT * sizeof *worker->sizes);
    draw_sizes(worker);
    if (mode->rests) {
        worker->lengths = bench_map(worker->live * sizeof *worker->lengths);
    }
    if (params->order == BENCH_ORDER_RANDOM) {
        shuffle_turns(worker);
    }
}

struct job {
    const struct bench_mode *mode;
    struct bench_worker worker;
    pthread_t thread;
};

static void *work(void *argument) {
    struct job *const job = argument;
    job->mode->body(&job->worker);
    return NULL;
}

// A single thread is the main one: some allocators have a path for processes that never had
// another.
static void run(const struct bench_mode *mode, struct job *jobs, size_t count) {
    if (count == 1) {
        work(&jobs[0]);
    } else {
        for (size_t i = 0; i < count; i++) {
            if (pthread_create(&jobs[i].thread, NULL, work, &jobs[i]) != 0) {
                bench_fail("cannot start a thread");
            }
        }
        for (size_t i = 0; i < count; i++) {
            pthread_join(jobs[i].thread, NULL);
        }
    }
    if (mode->finish != NULL) {
        mode->finish();
    }
}

static const char *malloc_library(void) {
    Dl_info info;
    void *const address = dlsym(RTLD_DEFAULT, "malloc");
    return address != NULL && dladdr(address, &info) != 0 ? info.dli_fname : "unknown";
}

int main(int argc, char **argv) {
    if (argc < 2 || strcmp(argv[1], "help") == 0 || strcmp(argv[1], "--help") == 0) {
        return help();
    }
    if (strcmp(argv[1], "modes") == 0) {
        for (size_t i = 0; i < MODE_COUNT; i++) {
            puts(modes[i]->name);
        }
        return 0;
    }
    if (strcmp(argv[1], "version") == 0) {
        puts(__VERSION__);
        return 0;
    }
    const struct bench_mode *const mode = find_mode(argv[1]);
    if (mode == NULL) {
        fprintf(stderr, "pm-bench-work: no mode '%s': see pm-bench-work help\n", argv[1]);
        return 2;
    }
    struct bench_params params = mode->defaults;
    params.seed = params.seed != 0 ? params.seed : 1;
    for (int i = 2; i < argc; i++) {
        if (!set(&params, argv[i])) {
            fprintf(stderr, "pm-bench-work: cannot take '%s': see pm-bench-work help\n", argv[i]);
            return 2;
        }
    }
    if (mode == &bench_tree && params.size < LEAST_NODE) {
        bench_fail("a node of a tree needs size=16 or more");
    }
    if (mode->prepare != NULL) {
        mode->prepare(&params);
    }
    const size_t workers = mode->spawns ? 1 : params.threads;
    struct job *const jobs = bench_map(workers * sizeof *jobs);
    for (size_t i = 0; i < workers; i++) {
        jobs[i].mode = mode;
        set_up(&jobs[i].worker, mode, &params, i, workers);
    }

    struct rusage before;
    struct rusage after;
    getrusage(RUSAGE_SELF, &before);
    const double start = bench_clock();
    run(mode, jobs, workers);
    double end = bench_clock();
    getrusage(RUSAGE_SELF, &after);
    // The peak since exec: the one in rusage may be that of the parent.
    long peak = bench_kib_of("/proc/self/status", "VmHWM");
    const struct bench_at_rest rest = bench_at_rest();
    if (mode->rests) {
        end = rest.end;
        after = rest.usage;
        peak = rest.peak_kib;
    }

    const struct bench_figures earlier = bench_figures_of(&before);
    struct bench_figures figures = bench_figures_of(&after);
    figures.seconds = end - start;
    figures.cpu -= earlier.cpu;
    figures.minor_faults -= earlier.minor_faults;
    figures.major_faults -= earlier.major_faults;
    figures.peak_kib = peak;
    printf("mode=%s threads=%zu operations=%zu ", mode->name, params.threads, params.operations);
    bench_figures_print(&figures);
    if (mode->rests) {
        printf(" idle_kib=%ld", rest.idle_kib);
    }
    printf(" malloc=%s\n", malloc_library());
    return 0;
}

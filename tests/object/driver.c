// SPDX-License-Identifier: MIT
// Copyright (c) the poolmalloc authors
//
// One program for two libraries: prints what the collector's counters are, and at which object
// which generation ran. Built with -DON_PYTHON it is one of libpython3.11; both must print the
// same.
//
// The objects take less than 8 MiB, so that the run for a heap that has doubled, which Python does
// not have, is never due.

#if defined ON_PYTHON
#    include "driver_python.h"
#else

#    include "poolobject.h"

struct node {
    PO_HEAD;
    po_object *edge[2];
};

static int traverse(const po_object *self, po_visit visit, void *argument) {
    PO_VISIT(((const struct node *)self)->edge[0]);
    PO_VISIT(((const struct node *)self)->edge[1]);
    return 0;
}

static void clear(po_object *self) {
    po_clear(&((struct node *)self)->edge[0]);
    po_clear(&((struct node *)self)->edge[1]);
}

static po_type node_type = {
    .name = "node",
    .size = sizeof(struct node),
    .traverse = traverse,
    .clear = clear,
};

static po_state *state;

static void start(void) {
    state = po_state_new();
}

static void end(void) {
    po_state_free(state, -1);
}

static void collect(int generation) {
    po_gc_collect(state, generation);
}

static void freeze(void) {
    po_gc_freeze(state);
}

static void set_thresholds(unsigned a, unsigned b, unsigned c) {
    po_gc_configure(state, &(struct po_gc_config){ PO_GC_AUTO, { a, b, c } });
}

static struct node *make(void) {
    return (struct node *)po_new(state, &node_type);
}

static void set_edge(struct node *from, unsigned edge, struct node *to) {
    po_set(&from->edge[edge], &to->object);
}

static void drop(struct node *node) {
    po_decref(&node->object);
}

static struct po_gc_stats stats(void) {
    struct po_gc_stats now;
    po_gc_stats(state, &now);
    return now;
}

static unsigned long long count_of(int generation) {
    return stats().count[generation];
}

static unsigned long long runs_of(int generation) {
    return stats().generation[generation].runs;
}

static unsigned long long collected_of(int generation) {
    return stats().generation[generation].collected;
}

#endif

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { LIVE_MAX = 100000 };

static unsigned long long seed, made, runs_before[3];
static struct node *live[LIVE_MAX];
static unsigned live_count;

static unsigned below(unsigned limit) {
    seed = seed * 6364136223846793005ULL + 1442695040888963407ULL;
    return (unsigned)(seed >> 33) % limit;
}

static void print_counters(const char *when) {
    printf("%s %llu: counts %llu %llu %llu", when, made, count_of(0), count_of(1), count_of(2));
    for (int i = 0; i < 3; i++) {
        printf(", %llu %llu", runs_of(i), collected_of(i));
    }
    printf("\n");
}

// A line for each run of the collector, with the number of the object that it was for.
static struct node *make_and_tell(void) {
    struct node *const node = make();
    made++;
    for (int i = 0; i < 3; i++) {
        if (runs_of(i) != runs_before[i]) {
            runs_before[i] = runs_of(i);
            printf("generation %d", i);
            print_counters(" at");
        }
    }
    return node;
}

static void keep(struct node *node) {
    live[live_count++] = node;
}

static void drop_one(void) {
    const unsigned at = below(live_count);
    drop(live[at]);
    live[at] = live[--live_count];
}

static void drop_all(void) {
    while (live_count > 0) {
        drop(live[--live_count]);
    }
}

static void make_ring(unsigned n) {
    struct node *const first = make_and_tell(), *last = first;
    for (unsigned i = 1; i < n; i++) {
        struct node *const next = make_and_tell();
        set_edge(last, 0, next);
        if (last != first) {
            drop(last);
        }
        last = next;
    }
    set_edge(last, 0, first);
    if (last != first) {
        drop(last);
    }
    drop(first);
}

static void begin(const char *name, unsigned a, unsigned b, unsigned c) {
    printf("--- %s, thresholds %u %u %u\n", name, a, b, c);
    set_thresholds(a, b, c);
    seed = a * 31 + b * 7 + c;
}

static void finish(void) {
    print_counters("before the end, at");
    drop_all();
    print_counters("all dropped, at");
    collect(2);
    for (int i = 0; i < 3; i++) {
        runs_before[i] = runs_of(i);
    }
    print_counters("collected, at");
}

// Only more and more: the rule of a quarter decides when all are looked at.
static void grow(unsigned n) {
    for (unsigned i = 0; i < n; i++) {
        keep(make_and_tell());
    }
    finish();
}

// More are made than dropped, then fewer.
static void mix(unsigned n) {
    for (unsigned i = 0; i < n; i++) {
        if (live_count > 0 && below(100) < (i < n / 2 ? 40u : 60u)) {
            drop_one();
        } else {
            keep(make_and_tell());
        }
    }
    finish();
}

static void make_cycles(unsigned n) {
    for (unsigned i = 0; i < n; i++) {
        make_ring(1 + below(20));
        if (below(4) == 0) {
            keep(make_and_tell());
        }
        if (live_count > 1 && below(8) == 0) {
            set_edge(live[below(live_count)], 1, live[below(live_count)]);
        }
        if (live_count > 0 && below(16) == 0) {
            drop_one();
        }
    }
    finish();
}

static void collect_between(unsigned n) {
    for (unsigned i = 0; i < n; i++) {
        const unsigned what = below(300);
        if (what < 3) {
            collect((int)what);
            for (int j = 0; j < 3; j++) {
                runs_before[j] = runs_of(j);
            }
            print_counters("asked, at");
        } else if (what < 4) {
            freeze();
            print_counters("frozen, at");
        } else if (what < 100 && live_count > 0) {
            drop_one();
        } else if (what < 110) {
            make_ring(5);
        } else {
            keep(make_and_tell());
        }
    }
    finish();
}

int main(void) {
    static const unsigned thresholds[][3] = {
        { 700, 10, 10 }, { 100, 5, 3 }, { 10, 2, 1 },  { 50, 0, 0 },
        { 1, 1, 1 },     { 7, 100, 0 }, { 0, 10, 10 },
    };
    setvbuf(stdout, NULL, _IOFBF, 1 << 16);
    start();
    for (unsigned i = 0; i < sizeof thresholds / sizeof *thresholds; i++) {
        const unsigned *const t = thresholds[i], n = t[0] >= 50 ? LIVE_MAX : 3000;
        begin("grow", t[0], t[1], t[2]);
        grow(t[0] != 0 ? n : 3000);
        begin("mix", t[0], t[1], t[2]);
        mix(n);
        begin("cycles", t[0], t[1], t[2]);
        make_cycles(n / 10);
        begin("collect between", t[0], t[1], t[2]);
        collect_between(n / 10);
    }
    end();
    return 0;
}

// SPDX-License-Identifier: MIT
// Copyright (c) the poolmalloc authors
//
// Random graphs of objects against a model that knows what is reachable.
//
// The model has, for each object, the same references as the object itself: all changes go through
// functions that change both. So at any time it can tell from first principles (a count of
// references, and what can be reached from those that are not objects') what a collection must
// find, which is computed as the collection begins, and again as it begins to clear. What the
// library calls (finalizers, callbacks, clear, release) is held against that as it happens.
//
// A collection that is begun inside a finalizer or a callback on the count path finds the library
// in the middle of something that the model does not follow in detail: there the model only says
// what must not happen, not all that must.
//
//     PO_GRAPHS=n        so many graphs for all tests together (100000)
//     PO_GRAPHS_SEED=n   only this graph, in the first test

#include "check.h"

#include <string.h>

#include "object/object.h"

enum {
    OBJECTS_MAX = 128,
    EDGES_MAX = 4,
    DEPTH_MAX = 6, // of callbacks that act
    PARTS = 8,     // tests, which run in parallel
    GRAPHS = 100000,
};

struct node {
    PO_HEAD;
    uint64_t id; // 0: not known to the model yet
    po_object *edge[EDGES_MAX];
};

// What the model knows of an object: a node, or a weak reference, whose data is its only edge.
struct shadow {
    po_object *real;
    bool is_weak, alive;
    uint64_t count;   // of references: from outside, from edges, and of the action that goes on
    uint32_t outside; // held by C, for any action to use and drop
    int edge[EDGES_MAX];
    unsigned gen;
    bool untracked; // its finalizer runs, on the count path
    bool ranged;    // the run that goes on looks at it
    bool trash;     // and can't reach it
    bool doomed;    // nor has a finalizer brought it back
    // Nodes:
    bool has_finalizer;
    unsigned finalized, released;
    // Weak references:
    int target;
    bool has_callback, dead;
    bool perhaps_dead; // a run begun inside a callback may have ended it
    bool expected;     // the run that goes on must call it
    unsigned called;
};

static struct {
    po_state *state;
    uint64_t seed;
    struct shadow object[OBJECTS_MAX];
    int count;
    unsigned depth;
    unsigned budget; // actions of callbacks that are left
    bool is_running, is_exact;
    bool is_ending;  // po_state_free was called
    bool is_emptied; // and its collection is over
    size_t left;     // what it must find then
    enum { WEAK, FINAL, CLEARING } phase;
    int generation;
    uint64_t survived;
} graph;

static uint64_t below(uint64_t limit) {
    return check_random(&graph.seed) % limit;
}

static bool chance(unsigned percent) {
    return below(100) < percent;
}

static int index_of(const struct shadow *shadow) {
    return (int)(shadow - graph.object);
}

#define EACH(each) \
    for (struct shadow *each = graph.object; each != graph.object + graph.count; each++)

// --- The model -----------------------------------------------------------------------------------

static void lose(int at);

static void drop_count(int at) {
    struct shadow *const shadow = &graph.object[at];
    CHECK(shadow->count > 0, "%d", at);
    // A node is told to go by its slots; a weak reference has none.
    if (--shadow->count == 0 && shadow->is_weak) {
        lose(at);
    }
}

static void lose(int at) {
    struct shadow *const shadow = &graph.object[at];
    shadow->alive = false;
    if (shadow->edge[0] >= 0) {
        drop_count(shadow->edge[0]);
        shadow->edge[0] = -1;
    }
}

static struct shadow *shadow_of(const po_object *self) {
    const uint64_t id = ((const struct node *)self)->id;
    CHECK(id != 0 && id <= (uint64_t)graph.count);
    return &graph.object[id - 1];
}

static struct shadow *add(po_object *real, bool is_weak) {
    CHECK(graph.count < OBJECTS_MAX);
    struct shadow *const shadow = &graph.object[graph.count++];
    *shadow = (struct shadow){ .real = real,
                               .is_weak = is_weak,
                               .alive = true,
                               .count = 1,
                               .edge = { -1, -1, -1, -1 },
                               .target = -1 };
    return shadow;
}

// Marks what the marked can reach, among those within.
static void spread(bool *reached, const bool *within) {
    bool again = true;
    while (again) {
        again = false;
        for (int i = 0; i < graph.count; i++) {
            for (int j = 0; reached[i] && within[i] && j < EDGES_MAX; j++) {
                const int to = graph.object[i].edge[j];
                if (to >= 0 && within[to] && !reached[to]) {
                    reached[to] = true;
                    again = true;
                }
            }
        }
    }
}

// Which of those within are referred to from elsewhere, directly or not.
static void find_reached(bool *reached, const bool *within) {
    uint64_t inner[OBJECTS_MAX] = { 0 };
    for (int i = 0; i < graph.count; i++) {
        for (int j = 0; within[i] && j < EDGES_MAX; j++) {
            const int to = graph.object[i].edge[j];
            inner[to >= 0 ? to : 0] += to >= 0;
        }
    }
    for (int i = 0; i < graph.count; i++) {
        reached[i] = within[i] && graph.object[i].count > inner[i];
    }
    spread(reached, within);
}

// --- A run, as it must be ------------------------------------------------------------------------

static void begin_run(int generation) {
    bool within[OBJECTS_MAX] = { 0 }, reached[OBJECTS_MAX];
    CHECK(!graph.is_running);
    graph.is_running = true;
    graph.is_exact = graph.depth == 0;
    graph.phase = WEAK;
    graph.generation = generation;
    graph.survived = 0;
    EACH(it) {
        it->ranged =
            it->alive && it->count > 0 && !it->untracked && it->gen <= (unsigned)generation;
        within[index_of(it)] = it->ranged;
    }
    find_reached(reached, within);
    EACH(it) {
        it->trash = it->ranged && !reached[index_of(it)];
        it->doomed = false;
    }
    EACH(it) {
        const bool ends =
            it->is_weak && it->alive && !it->dead && (it->trash || graph.object[it->target].trash);
        it->expected =
            graph.is_exact && ends && !it->trash && it->has_callback && !it->perhaps_dead;
        it->dead |= ends && graph.is_exact;
        it->perhaps_dead |= ends && !graph.is_exact;
    }
}

static void begin_clearing(void) {
    bool within[OBJECTS_MAX] = { 0 }, reached[OBJECTS_MAX];
    graph.phase = CLEARING;
    EACH(it) {
        within[index_of(it)] = it->trash && it->alive;
    }
    find_reached(reached, within);
    EACH(it) {
        it->doomed = within[index_of(it)] && !reached[index_of(it)];
        CHECK(!graph.is_exact || !it->expected || it->called == 1, "weak reference %d",
              index_of(it));
        CHECK(!graph.is_exact || !it->doomed || !it->has_finalizer || it->finalized == 1, "node %d",
              index_of(it));
    }
    // The clear of a weak reference is not seen here: it is now, or a little later.
    EACH(it) {
        if (it->doomed && it->is_weak && it->edge[0] >= 0 && (it->real->flags_ & PO_TRASH)) {
            const int data = it->edge[0];
            it->edge[0] = -1;
            drop_count(data);
        }
    }
}

static void end_run(const struct po_gc_event *event) {
    uint64_t doomed = 0, survived = 0;
    // Trash that is cleared has a node, whose slot was called.
    if (graph.phase != CLEARING && graph.is_exact) {
        begin_clearing();
    }
    EACH(it) {
        doomed += it->doomed;
        survived += it->doomed && it->alive;
        CHECK(!it->doomed || !it->alive || it->count > 0 || !graph.is_exact, "%d stays",
              index_of(it));
        if (it->ranged && it->alive) {
            it->gen = event->generation == 2 ? 2 : (unsigned)event->generation + 1;
        }
        it->ranged = it->trash = it->doomed = it->expected = false;
    }
    if (graph.is_exact) {
        CHECK(event->collected == doomed, "%d, not %d", (int)event->collected, (int)doomed);
        CHECK(event->survived == survived && graph.survived == survived, "%d", (int)survived);
    }
    graph.is_running = false;
    graph.is_emptied = graph.is_ending;
    EACH(it) {
        graph.left += graph.is_ending && it->alive && it->outside > 0;
    }
}

static void told(po_state *state, const struct po_gc_event *event, void *argument) {
    CHECK(state == graph.state && argument == &graph);
    switch (event->phase) {
    case PO_GC_START: begin_run(event->generation); break;
    case PO_GC_SURVIVED: graph.survived += event->survived; break;
    case PO_GC_STOP: end_run(event); break;
    }
}

// --- Actions -------------------------------------------------------------------------------------

static void act(int self);
static void weak_callback(po_object *weakref, po_object *data);

static void take(int at) {
    graph.object[at].count++;
    graph.object[at].outside++;
    po_incref(graph.object[at].real);
}

static void drop(int at) {
    graph.object[at].outside--;
    po_object *const real = graph.object[at].real;
    drop_count(at);
    po_decref(real);
}

// References of an action, which no other drops.
static void hold(int at) {
    graph.object[at].count++;
    po_incref(graph.object[at].real);
}

static void unhold(int at) {
    po_object *const real = graph.object[at].real;
    drop_count(at);
    po_decref(real);
}

static void set_edge(int from, unsigned edge, int to) {
    struct shadow *const shadow = &graph.object[from];
    const int before = shadow->edge[edge];
    shadow->edge[edge] = to;
    if (to >= 0) {
        graph.object[to].count++;
    }
    struct node *const node = (struct node *)shadow->real;
    po_object *const real = to >= 0 ? graph.object[to].real : NULL;
    if (before >= 0) {
        drop_count(before);
    }
    po_set(&node->edge[edge], real);
}

static po_type plain_type, final_type, derived_type;

static bool has_room(void) {
    // What a collection in the middle makes must fit too.
    return graph.count + 16 < OBJECTS_MAX;
}

// Held by the caller, as all that is made.
static int make_node(void) {
    po_type *const types[] = { &plain_type, &final_type, &final_type, &derived_type };
    po_type *const type = types[below(4)];
    po_object *const real = po_new(graph.state, type);
    CHECK(real != NULL && real->count_ == 1);
    struct shadow *const shadow = add(real, false);
    shadow->has_finalizer = type != &plain_type;
    ((struct node *)real)->id = (uint64_t)index_of(shadow) + 1;
    return index_of(shadow);
}

static struct shadow *weak_of(const po_object *real) {
    for (struct shadow *it = graph.object + graph.count; it-- != graph.object;) {
        if (it->is_weak && it->real == real) {
            return it;
        }
    }
    return NULL;
}

static int make_weak(int target, int data) {
    const bool has_callback = chance(70);
    po_object *const real =
        po_weakref(graph.state, graph.object[target].real, has_callback ? weak_callback : NULL,
                   has_callback && data >= 0 ? graph.object[data].real : NULL);
    CHECK(real != NULL && po_is(real, &po_weakref_type));
    struct shadow *const known = weak_of(real);
    if (known != NULL && known->alive) {
        CHECK(!has_callback && !known->has_callback && known->target == target && !known->dead);
        known->count++;
        known->perhaps_dead = false;
        return index_of(known);
    }
    EACH(it) {
        const bool is_same = it->is_weak && it->alive && it->target == target &&
                             !it->has_callback && !it->dead && !it->perhaps_dead;
        CHECK(!is_same || has_callback, "two weak references without a callback to %d", target);
    }
    struct shadow *const shadow = add(real, true);
    shadow->target = target;
    shadow->has_callback = has_callback;
    if (has_callback && data >= 0) {
        shadow->edge[0] = data;
        graph.object[data].count++;
    }
    return index_of(shadow);
}

// What is brought back from a weak reference is held from outside.
static void look_up(int weak) {
    po_object *real;
    struct shadow *const shadow = &graph.object[weak];
    const int found = po_weakref_get(shadow->real, &real);
    CHECK((found == 1) == (real != NULL) && found >= 0);
    CHECK(found == 0 || !shadow->dead, "%d lives", weak);
    if (found == 1) {
        struct shadow *const target = &graph.object[shadow->target];
        // A weak reference that waits for its callback is held by the library alone.
        if (target->is_weak && !target->alive) {
            po_decref(real);
            return;
        }
        CHECK(target->real == real && target->alive && !target->released, "%d", weak);
        CHECK(real->count_ > 1, "%d", weak);
        target->count++;
        target->outside++;
    }
}

// A living object that may be used here: C holds it, or it is an edge of the object whose finalizer
// runs, or that object itself.
static int choose(int self, bool node) {
    int choice[OBJECTS_MAX + EDGES_MAX + 1], n = 0;
    EACH(it) {
        if (it->alive && it->outside > 0 && (!node || !it->is_weak)) {
            choice[n++] = index_of(it);
        }
    }
    for (int i = 0; self >= 0 && i <= EDGES_MAX; i++) {
        const int at = i < EDGES_MAX ? graph.object[self].edge[i] : self;
        if (at >= 0 && (!node || !graph.object[at].is_weak)) {
            choice[n++] = at;
        }
    }
    return n > 0 ? choice[below((uint64_t)n)] : -1;
}

// The end of what made an object: C holds it from now on, or only who refers to it does.
static void leave_outside(int at, unsigned percent) {
    if (chance(percent)) {
        graph.object[at].outside++;
    } else {
        unhold(at);
    }
}

static void make_one(int self) {
    if (!has_room()) {
        return;
    }
    const int made = make_node();
    const int from = choose(self, true), to = choose(self, false);
    set_edge(made, (unsigned)below(EDGES_MAX), to);
    if (from >= 0 && chance(70)) {
        set_edge(from, (unsigned)below(EDGES_MAX), made);
    }
    leave_outside(made, 40);
}

static void make_one_weak(int self) {
    const int target = choose(self, !chance(20)), data = choose(self, true);
    if (target < 0 || !has_room()) {
        return;
    }
    // The maker may collect, and its arguments are to outlive that.
    hold(target);
    if (data >= 0) {
        hold(data);
    }
    const int made = make_weak(target, data);
    const int from = choose(self, true);
    if (from >= 0 && chance(40)) {
        set_edge(from, (unsigned)below(EDGES_MAX), made);
    }
    leave_outside(made, 60);
    unhold(target);
    if (data >= 0) {
        unhold(data);
    }
}

static void use_one_weak(int self) {
    const int at = choose(self, false);
    if (at >= 0 && graph.object[at].is_weak) {
        look_up(at);
    }
}

static void drop_one(int self) {
    (void)self;
    const int at = choose(-1, false);
    if (at >= 0) {
        drop(at);
    }
}

static void change_edge(int self) {
    const int from = choose(self, true), to = chance(60) ? choose(self, false) : -1;
    if (from >= 0) {
        set_edge(from, (unsigned)below(EDGES_MAX), to);
    }
}

static void take_one(int self) {
    const int at = self >= 0 && chance(60) ? self : choose(self, false);
    if (at >= 0) {
        take(at);
    }
}

static void collect(void) {
    const int generation = (int)below(3);
    const bool was_running = graph.is_running;
    const long found = po_gc_collect(graph.state, generation);
    CHECK(found >= 0 && (found == 0 || !was_running));
}

static void poll(void) {
    const int left = po_gc_poll(graph.state, chance(50) ? UINT64_MAX : below(20000));
    CHECK(left == 0 || left == 1);
}

static void act(int self) {
    const unsigned what = (unsigned)below(100);
    if (what < 25) {
        change_edge(self);
    } else if (what < 45) {
        drop_one(self);
    } else if (what < 55) {
        take_one(self);
    } else if (what < 65) {
        make_one(self);
    } else if (what < 77) {
        make_one_weak(self);
    } else if (what < 87) {
        use_one_weak(self);
    } else if (what < 97) {
        collect();
    } else {
        poll();
    }
}

static void act_inside(int self) {
    if (graph.depth > DEPTH_MAX) {
        return;
    }
    for (unsigned i = (unsigned)below(4); i > 0 && graph.budget > 0; i--) {
        graph.budget--;
        act(self);
    }
}

// --- What the library calls ----------------------------------------------------------------------

// The first that is cleared may be a weak reference, of which only the end of its data tells.
static void follow_clearing(const struct shadow *shadow) {
    if (graph.is_running && graph.phase != CLEARING && shadow->count > 0) {
        begin_clearing();
    }
}

static void weak_callback(po_object *weakref, po_object *data) {
    struct shadow *const shadow = weak_of(weakref);
    CHECK(shadow != NULL && shadow->has_callback && shadow->called == 0);
    const struct shadow *const target = &graph.object[shadow->target];
    po_object *found;
    CHECK(po_weakref_get(weakref, &found) == 0 && found == NULL);
    if (!target->is_weak && !target->released && target->real->count_ == 0) {
        follow_clearing(target);
    }
    const bool by_run = graph.is_running && target->trash && graph.phase == WEAK &&
                        (shadow->expected || !graph.is_exact);
    const bool by_count = (target->is_weak ? !target->alive : target->count == 0) &&
                          !target->released && (!target->has_finalizer || target->finalized == 1);
    CHECK(by_run || by_count, "weak reference %d to %d", index_of(shadow), shadow->target);
    CHECK(shadow->edge[0] < 0 || graph.object[shadow->edge[0]].real == data);
    shadow->called++;
    shadow->dead = true;
    graph.depth++;
    act_inside(-1);
    graph.depth--;
}

static int traverse(const po_object *self, po_visit visit, void *argument) {
    const struct node *const node = (const struct node *)self;
    for (unsigned i = 0; i < EDGES_MAX / 2; i++) {
        PO_VISIT(node->edge[i]);
    }
    return 0;
}

static int traverse_rest(const po_object *self, po_visit visit, void *argument) {
    const struct node *const node = (const struct node *)self;
    for (unsigned i = EDGES_MAX / 2; i < EDGES_MAX; i++) {
        PO_VISIT(node->edge[i]);
    }
    return 0;
}

static int traverse_all(const po_object *self, po_visit visit, void *argument) {
    const int stop = traverse(self, visit, argument);
    return stop != 0 ? stop : traverse_rest(self, visit, argument);
}

static void clear_edges(struct shadow *shadow, unsigned from, unsigned to) {
    for (unsigned i = from; i < to; i++) {
        set_edge(index_of(shadow), i, -1);
    }
}

static void check_clear(const struct shadow *shadow) {
    if (shadow->real->count_ != 0) {
        CHECK(graph.is_running && shadow->trash, "%d is cleared", index_of(shadow));
        if (graph.phase != CLEARING) {
            begin_clearing();
        }
        CHECK(shadow->doomed, "%d is cleared", index_of(shadow));
        return;
    }
    follow_clearing(shadow);
    CHECK(shadow->count == 0, "%d ends", index_of(shadow));
    CHECK(!shadow->has_finalizer || shadow->finalized == 1, "%d ends", index_of(shadow));
    EACH(it) {
        CHECK(!it->is_weak || it->target != index_of(shadow) || !it->alive || it->dead ||
                  it->perhaps_dead || !it->has_callback,
              "weak reference %d to %d was not called", index_of(it), index_of(shadow));
    }
}

static void clear_first(po_object *self) {
    struct shadow *const shadow = shadow_of(self);
    check_clear(shadow);
    clear_edges(shadow, 0, EDGES_MAX / 2);
}

static void clear_rest(po_object *self) {
    struct shadow *const shadow = shadow_of(self);
    check_clear(shadow);
    clear_edges(shadow, EDGES_MAX / 2, EDGES_MAX);
}

static void clear_all(po_object *self) {
    struct shadow *const shadow = shadow_of(self);
    check_clear(shadow);
    clear_edges(shadow, 0, EDGES_MAX);
}

static void check_weak_before_finalizer(const struct shadow *shadow) {
    EACH(it) {
        if (!it->is_weak || !it->alive || it->count == 0) {
            continue;
        }
        po_object *found;
        po_weakref_get(it->real, &found);
        CHECK(found == NULL || !it->dead, "weak reference %d", index_of(it));
        // On the count path, the object's own ones live.
        CHECK(shadow->trash || it->target != index_of(shadow) || it->dead || it->perhaps_dead ||
                  found == shadow->real,
              "weak reference %d", index_of(it));
        CHECK(!shadow->trash || !it->expected || it->called == 1, "weak reference %d",
              index_of(it));
        po_decref(found);
    }
}

static void finalize(po_object *self) {
    struct shadow *const shadow = shadow_of(self);
    // The library has a reference of its own.
    if (self->count_ <= shadow->count) {
        follow_clearing(shadow);
    }
    const bool by_count = shadow->count == 0;
    CHECK(shadow->has_finalizer && shadow->finalized == 0 && shadow->released == 0);
    CHECK(by_count || (graph.is_running && shadow->trash && graph.phase != CLEARING), "%d",
          index_of(shadow));
    if (shadow->trash && graph.phase == WEAK) {
        graph.phase = FINAL;
    }
    shadow->finalized = 1;
    shadow->untracked = by_count;
    check_weak_before_finalizer(shadow);
    graph.depth++;
    act_inside(index_of(shadow));
    graph.depth--;
    shadow->untracked = false;
    if (by_count && shadow->count != 0 && !shadow->trash) {
        shadow->gen = 0;
        shadow->ranged = false;
    }
}

static void release(po_object *self) {
    struct shadow *const shadow = shadow_of(self);
    CHECK(shadow->alive && shadow->released == 0, "%d", index_of(shadow));
    CHECK(graph.is_emptied || shadow->count == 0, "%d", index_of(shadow));
    for (unsigned i = 0; i < EDGES_MAX && !graph.is_emptied; i++) {
        CHECK(shadow->edge[i] < 0 && ((struct node *)self)->edge[i] == NULL, "%d",
              index_of(shadow));
    }
    shadow->released++;
    shadow->alive = false;
    EACH(it) {
        it->dead |= it->is_weak && it->target == index_of(shadow);
    }
}

static po_type plain_type = {
    .name = "plain",
    .size = sizeof(struct node),
    .traverse = traverse_all,
    .clear = clear_all,
    .release = release,
};
static po_type base_type = {
    .name = "base",
    .size = sizeof(struct node),
    .traverse = traverse_rest,
    .clear = clear_rest,
    .release = release,
};
static po_type derived_type = {
    .name = "derived",
    .base = &base_type,
    .size = sizeof(struct node),
    .traverse = traverse,
    .clear = clear_first,
    .finalize = finalize,
};
static po_type final_type = {
    .name = "final",
    .size = sizeof(struct node),
    .traverse = traverse_all,
    .clear = clear_all,
    .finalize = finalize,
    .release = release,
};

// --- Between the steps ---------------------------------------------------------------------------

static void check_weak(struct shadow *it) {
    po_object *found;
    CHECK(po_weakref_get(it->real, &found) == (found != NULL));
    CHECK(found == NULL || (!it->dead && found == graph.object[it->target].real),
          "weak reference %d", index_of(it));
    CHECK(found != NULL || it->dead || it->perhaps_dead, "weak reference %d", index_of(it));
    it->dead = found == NULL;
    it->perhaps_dead = false;
    po_decref(found);
}

static void check_all(void) {
    struct po_gc_stats stats;
    uint64_t alive = 0;
    CHECK(!graph.is_running && graph.depth == 0);
    EACH(it) {
        // Nothing ends a weak reference's weak references but its own end.
        if (it->is_weak && !graph.object[it->target].alive) {
            it->dead = true;
        }
    }
    EACH(it) {
        CHECK(it->alive || it->is_weak || it->released == 1);
        if (!it->alive) {
            continue;
        }
        alive++;
        CHECK(it->count > 0, "%d stays", index_of(it));
        CHECK(it->real->count_ == it->count, "%d: %u, not %u", index_of(it), it->real->count_,
              (unsigned)it->count);
        CHECK(po_gen(it->real) == it->gen, "%d: generation %u, not %u", index_of(it),
              po_gen(it->real), it->gen);
        if (it->is_weak) {
            check_weak(it);
        }
    }
    po_gc_stats(graph.state, &stats);
    CHECK(stats.young + stats.old + stats.frozen == alive, "%d", (int)alive);
}

static void freeze(void) {
    po_gc_freeze(graph.state);
    EACH(it) {
        it->gen = PO_FROZEN;
    }
}

static void configure(void) {
    const struct po_gc_config configs[] = {
        { PO_GC_OFF, { 0, 0, 0 } },
        { PO_GC_AUTO, { 1 + (unsigned)below(10), (unsigned)below(3), (unsigned)below(3) } },
        { PO_GC_POLL, { 1 + (unsigned)below(10), (unsigned)below(3), (unsigned)below(3) } },
    };
    CHECK(po_gc_configure(graph.state, &configs[below(3)]) == 0);
}

static void build(void) {
    const unsigned nodes = 3 + (unsigned)below(28), edges = 2 + (unsigned)below(3);
    for (unsigned i = 0; i < nodes; i++) {
        graph.object[make_node()].outside++;
    }
    for (unsigned i = 0; i < nodes * edges; i++) {
        const int from = choose(-1, true), to = choose(-1, false);
        set_edge(from, (unsigned)below(edges), to);
    }
    for (unsigned i = (unsigned)below(10); i > 0; i--) {
        make_one_weak(-1);
    }
    check_all();
    // Most are to be held by other objects only.
    const unsigned percent = 50 + (unsigned)below(50);
    for (unsigned i = 0; i < nodes; i++) {
        if (graph.object[i].alive && graph.object[i].outside > 0 && chance(percent)) {
            drop((int)i);
        }
    }
    check_all();
}

static void end_state(void) {
    graph.is_ending = true;
    const size_t left = po_state_free(graph.state, -1);
    CHECK(graph.is_emptied && left == graph.left, "%zu left, not %zu", left, graph.left);
    EACH(it) {
        CHECK(it->is_weak || (it->released == 1 && it->finalized <= 1), "%d", index_of(it));
    }
}

static void run_graph(uint64_t number) {
    static char hint[100];
    snprintf(hint, sizeof hint, "graph %llu: repeat it by PO_GRAPHS_SEED=%llu",
             (unsigned long long)number, (unsigned long long)number);
    check_hint = hint;
    memset(&graph, 0, sizeof graph);
    graph.seed = number;
    check_random(&graph.seed);
    graph.budget = 20 + (unsigned)below(60);
    graph.state = po_state_new();
    CHECK(graph.state != NULL);
    po_gc_on(graph.state, told, &graph);
    configure();
    build();
    for (unsigned i = 5 + (unsigned)below(20); i > 0; i--) {
        if (chance(3)) {
            freeze();
        } else {
            act(-1);
        }
        check_all();
    }
    end_state();
    check_hint = NULL;
}

static uint64_t number_from(const char *name, uint64_t otherwise) {
    const char *const text = getenv(name);
    return text != NULL ? strtoull(text, NULL, 10) : otherwise;
}

static void run_part(unsigned part) {
    if (getenv("PO_GRAPHS_SEED") != NULL) {
        if (part == 0) {
            run_graph(number_from("PO_GRAPHS_SEED", 0));
        }
        return;
    }
    const uint64_t graphs = number_from("PO_GRAPHS", GRAPHS);
    for (uint64_t i = part; i < graphs; i += PARTS) {
        run_graph(i);
    }
}

#define PART(number)                                             \
    Test(graphs, part_##number, .timeout = 10 * CHECK_SECONDS) { \
        run_part(number);                                        \
    }

PART(0)
PART(1)
PART(2)
PART(3)
PART(4)
PART(5)
PART(6)
PART(7)

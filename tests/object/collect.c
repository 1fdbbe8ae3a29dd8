// SPDX-License-Identifier: MIT
// Copyright (c) the poolmalloc authors
//
// Ends of objects, by count and by collection: what is called, in which order, how often.
//
//     PO_CHAIN=n    the length of the longest chains (1000000)

#include "check.h"

#include <pthread.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "object/object.h"

#define TEST(name) OBJECT_TEST(collect, name)

enum { LOG_MAX = 4000, CHAIN = 1000000 };

// --- A type that tells what happens --------------------------------------------------------------

struct thing {
    PO_HEAD;
    int id;           // 0: tells nothing
    bool is_stubborn; // clear does nothing while anybody has a reference
    po_object *edge[2];
    void (*act)(struct thing *self); // in its finalizer
};

// What happened: F finalizer, W callback, C clear (the first), R release, each with a number.
static char happened[LOG_MAX];

static void tell(char what, int id) {
    const size_t n = strlen(happened);
    if (id != 0) {
        snprintf(happened + n, sizeof happened - n, "%c%d ", what, id);
    }
}

static bool is_log(const char *expected) {
    const bool is = strcmp(happened, expected) == 0;
    if (!is) {
        fprintf(stderr, "happened: %s\n", happened);
    }
    happened[0] = '\0';
    return is;
}

static unsigned times(const char *what) {
    unsigned n = 0;
    for (const char *at = happened; (at = strstr(at, what)) != NULL; at++) {
        n++;
    }
    return n;
}

// Everything of the first kind happened before everything of the second.
static bool is_before(char first, char second) {
    const char *const last = strrchr(happened, first), *const other = strchr(happened, second);
    return last == NULL || other == NULL || last < other;
}

static int traverse(const po_object *self, po_visit visit, void *argument) {
    const struct thing *const thing = (const struct thing *)self;
    PO_VISIT(thing->edge[0]);
    PO_VISIT(thing->edge[1]);
    return 0;
}

static void clear(po_object *self) {
    struct thing *const thing = (struct thing *)self;
    if (thing->is_stubborn && self->count_ != 0) {
        return;
    }
    tell('C', thing->edge[0] != NULL || thing->edge[1] != NULL ? thing->id : 0);
    po_clear(&thing->edge[0]);
    po_clear(&thing->edge[1]);
}

static void finalize(po_object *self) {
    struct thing *const thing = (struct thing *)self;
    tell('F', thing->id);
    if (thing->act != NULL) {
        thing->act(thing);
    }
}

static _Thread_local unsigned releases;

static void release(po_object *self) {
    tell('R', ((struct thing *)self)->id);
    releases++;
}

static po_type thing_type = {
    .name = "thing",
    .size = sizeof(struct thing),
    .traverse = traverse,
    .clear = clear,
    .finalize = finalize,
    .release = release,
};

static po_type plain_type = {
    .name = "plain",
    .size = sizeof(struct thing),
    .traverse = traverse,
    .clear = clear,
    .release = release,
};

static po_state *state_off(void) {
    po_state *const state = po_state_new();
    CHECK(state != NULL);
    CHECK(po_gc_configure(state, &(struct po_gc_config){ PO_GC_OFF, { 700, 10, 10 } }) == 0);
    return state;
}

static struct thing *make_of(po_state *state, po_type *type, int id) {
    struct thing *const thing = (struct thing *)po_new(state, type);
    CHECK(thing != NULL && thing->edge[0] == NULL && thing->id == 0 && thing->object.count_ == 1);
    thing->id = id;
    return thing;
}

static struct thing *make(po_state *state, int id) {
    return make_of(state, &thing_type, id);
}

static void link_to(struct thing *from, struct thing *to) {
    po_set(&from->edge[from->edge[0] != NULL], &to->object);
}

static void drop(struct thing *thing) {
    po_decref(&thing->object);
}

// A ring of n, of which the first is returned, held by the caller.
static struct thing *make_ring_of(po_state *state, po_type *type, int first_id, int n) {
    struct thing *const first = make_of(state, type, first_id);
    struct thing *last = first;
    for (int i = 1; i < n; i++) {
        struct thing *const next = make_of(state, type, first_id != 0 ? first_id + i : 0);
        po_set_take(&last->edge[0], &next->object);
        last = next;
    }
    po_set(&last->edge[0], &first->object);
    return first;
}

static struct thing *make_ring(po_state *state, int first_id, int n) {
    return make_ring_of(state, &thing_type, first_id, n);
}

static struct thing *next_of(const struct thing *thing) {
    return (struct thing *)thing->edge[0];
}

static void end_state(po_state *state) {
    happened[0] = '\0';
    CHECK(po_state_free(state, STDERR_FILENO) == 0);
    happened[0] = '\0';
}

static bool lives(po_object *weakref) {
    po_object *found;
    const int is = po_weakref_get(weakref, &found);
    CHECK(is == (found != NULL));
    po_decref(found);
    return is;
}

// Callbacks tell the number that is their data.
static void called(po_object *weakref, po_object *data) {
    CHECK(!lives(weakref));
    tell('W', (int)po_int_value(data));
}

static po_object *watch(po_state *state, struct thing *thing, int id) {
    po_object *const weakref = po_weakref(state, &thing->object, called, po_int(state, id));
    CHECK(weakref != NULL);
    return weakref;
}

static struct po_gc_stats stats_of(const po_state *state) {
    struct po_gc_stats stats;
    po_gc_stats(state, &stats);
    return stats;
}

// --- The order of things -------------------------------------------------------------------------

TEST(an_object_that_ends_by_count_is_finalized_cleared_and_released) {
    po_state *const state = state_off();
    struct thing *const thing = make(state, 1);
    po_set_take(&thing->edge[0], &make(state, 2)->object);
    po_object *const weakref = watch(state, thing, 7);
    drop(thing);
    CHECK(is_log("F1 W7 C1 F2 R2 R1 "));
    CHECK(!lives(weakref));
    po_decref(weakref);
    CHECK(stats_of(state).young == 0);
    end_state(state);
}

static po_object *watched[4];

static void expect_alive(struct thing *self) {
    (void)self;
    CHECK(lives(watched[0]));
    CHECK(times("W") == 0);
}

static void expect_dead(struct thing *self) {
    (void)self;
    for (unsigned i = 0; i < 4 && watched[i] != NULL; i++) {
        CHECK(!lives(watched[i]));
    }
    CHECK(times("W") == 2 && times("C") == 0 && times("R") == 0);
}

TEST(a_finalizer_on_the_count_path_sees_weak_references_alive) {
    po_state *const state = state_off();
    struct thing *const thing = make(state, 1);
    thing->act = expect_alive;
    watched[0] = watch(state, thing, 7);
    drop(thing);
    CHECK(is_log("F1 W7 R1 "));
    po_decref(watched[0]);
    end_state(state);
}

TEST(a_collection_has_its_phases_in_order) {
    for (int generation = 0; generation < 3; generation++) {
        po_state *const state = state_off();
        struct thing *const ring = make_ring(state, 1, 3);
        ring->act = next_of(ring)->act = next_of(next_of(ring))->act = expect_dead;
        watched[0] = watch(state, ring, 7);
        watched[1] = watch(state, next_of(ring), 8);
        watched[2] = po_weakref(state, &ring->object, NULL, NULL);
        drop(ring);
        CHECK(is_log(""));
        CHECK(po_gc_collect(state, generation) == 3);
        CHECK(is_before('W', 'F') && is_before('F', 'C') && is_before('F', 'R'));
        CHECK(times("W") == 2 && times("F") == 3 && times("C") == 3 && times("R") == 3);
        CHECK(stats_of(state).young + stats_of(state).old == 3);
        for (unsigned i = 0; i < 3; i++) {
            po_clear(&watched[i]);
        }
        end_state(state);
    }
}

TEST(weak_references_that_are_trash_are_not_called) {
    po_state *const state = state_off();
    struct thing *const ring = make_ring(state, 1, 2);
    po_object *const outside = watch(state, ring, 7);
    po_object *const inside = watch(state, ring, 8);
    po_object *const of_other = watch(state, ring, 9);
    po_set_take(&ring->edge[1], inside);
    struct thing *const other = make(state, 5);
    po_set_take(&next_of(ring)->edge[1], watch(state, other, 6));
    drop(ring);
    // Three things and two weak references.
    CHECK(po_gc_collect(state, 2) == 4);
    CHECK(times("W7") == 1 && times("W9") == 1 && times("W8") == 0);
    CHECK(strchr(happened, 'W') == happened, "%s", happened);
    CHECK(!lives(outside) && !lives(of_other));
    happened[0] = '\0';
    drop(other);
    CHECK(is_log("F5 R5 "));
    po_decref(outside);
    po_decref(of_other);
    end_state(state);
}

TEST(callbacks_are_called_from_the_latest_to_the_first) {
    po_state *const state = state_off();
    struct thing *const thing = make(state, 1);
    po_object *weakref[3];
    for (int i = 0; i < 3; i++) {
        weakref[i] = watch(state, thing, i + 1);
    }
    drop(thing);
    CHECK(is_log("F1 W3 W2 W1 R1 "));
    for (int i = 0; i < 3; i++) {
        po_decref(weakref[i]);
    }
    end_state(state);
}

// One without a callback among them: it is last, whenever it was made.
TEST(dropped_weak_references_are_not_called_and_the_others_are_in_their_order) {
    enum { COUNT = 4 };
    for (unsigned dropped = 0; dropped < 1 << COUNT; dropped++) {
        po_state *const state = state_off();
        struct thing *const thing = make(state, 9);
        po_object *weakref[COUNT], *silent = NULL;
        char log[64];
        int length = sprintf(log, "F9 ");
        for (int i = 0; i < COUNT; i++) {
            weakref[i] = watch(state, thing, i + 1);
            if (i == COUNT / 2) {
                silent = po_weakref(state, &thing->object, NULL, NULL);
            }
        }
        for (int i = 0; i < COUNT; i++) {
            if (dropped >> i & 1) {
                po_clear(&weakref[i]);
            }
        }
        for (int i = COUNT; i-- > 0;) {
            length += weakref[i] == NULL ? 0 : sprintf(log + length, "W%d ", i + 1);
        }
        sprintf(log + length, "R9 ");
        happened[0] = '\0';
        CHECK(po_weakref(state, &thing->object, NULL, NULL) == silent && silent->count_ == 2);
        po_decref(silent);
        drop(thing);
        CHECK(is_log(log) && !lives(silent));
        for (int i = 0; i < COUNT; i++) {
            po_clear(&weakref[i]);
        }
        po_decref(silent);
        end_state(state);
    }
}

// It never dies any more, but its weak references do.
TEST(weak_references_to_a_target_that_became_immortal_come_and_go) {
    po_state *const state = state_off();
    struct thing *const thing = make(state, 1);
    po_object *const before = watch(state, thing, 1);
    thing->object.count_ = PO_IMMORTAL_;
    po_object *const after = watch(state, thing, 2), *const silent = po_weakref(
                                                         state, &thing->object, NULL, NULL);
    CHECK(po_check(state, 2) == 0);
    po_decref(after);
    CHECK(po_check(state, 2) == 0 && lives(before) && lives(silent));
    po_decref(before);
    po_decref(silent);
    CHECK(po_check(state, 2) == 0);
    thing->object.count_ = 1;
    drop(thing);
    end_state(state);
}

TEST(weak_references_without_a_callback_are_one) {
    po_state *const state = state_off();
    struct thing *const thing = make(state, 0);
    po_object *const first = po_weakref(state, &thing->object, NULL, NULL);
    po_object *const with = watch(state, thing, 1);
    po_object *const second = po_weakref(state, &thing->object, NULL, NULL);
    CHECK(first == second && first != with && first->count_ == 2);
    po_decref(second);
    CHECK(lives(first));
    po_decref(first);
    po_decref(with);
    drop(thing);
    end_state(state);
}

static po_state *acting_state;
static po_object *shared;
static struct thing *target_of_shared;

static void share(po_object *weakref, po_object *data) {
    (void)weakref, (void)data;
    shared = po_weakref(acting_state, &target_of_shared->object, NULL, NULL);
}

TEST(they_are_one_also_when_the_collection_of_the_maker_makes_it) {
    po_state *const state = acting_state = state_off();
    target_of_shared = make(state, 0);
    struct thing *const ring = make_ring(state, 0, 2);
    po_object *const weakref = po_weakref(state, &ring->object, share, NULL);
    drop(ring);
    CHECK(po_gc_configure(state, &(struct po_gc_config){ PO_GC_AUTO, { 1, 10, 10 } }) == 0);
    po_object *const own = po_weakref(state, &target_of_shared->object, NULL, NULL);
    CHECK(shared != NULL && own == shared);
    po_decref(own);
    po_decref(shared);
    po_decref(weakref);
    drop(target_of_shared);
    end_state(state);
}

// --- Resurrection --------------------------------------------------------------------------------

static po_object *saved;

static void save_self(struct thing *self) {
    po_set(&saved, &self->object);
}

TEST(a_finalizer_runs_once_also_when_it_brings_the_object_back) {
    po_state *const state = state_off();
    struct thing *const thing = make(state, 1);
    thing->act = save_self;
    po_object *const weakref = watch(state, thing, 7);
    drop(thing);
    CHECK(is_log("F1 ") && saved == &thing->object && saved->count_ == 1 && lives(weakref));
    po_clear(&saved);
    CHECK(is_log("W7 R1 "));
    po_decref(weakref);
    end_state(state);
}

TEST(what_a_finalizer_brings_back_is_whole) {
    for (int generation = 0; generation < 3; generation++) {
        po_state *const state = state_off();
        struct thing *const ring = make_ring(state, 1, 3);
        struct thing *const tail = make(state, 4), *const other = make_ring(state, 5, 2);
        link_to(next_of(ring), tail);
        link_to(other, ring);
        drop(tail);
        next_of(ring)->act = save_self;
        po_object *const weakref = watch(state, ring, 7);
        drop(ring);
        drop(other);
        // The tail and the ring are back, what refers to them is not.
        CHECK(po_gc_collect(state, generation) == 2);
        CHECK(times("F") == 6 && times("R5") == 1 && times("R6") == 1 && times("R") == 2);
        happened[0] = '\0';
        CHECK(saved == ring->edge[0] && next_of(next_of(next_of(ring))) == ring);
        CHECK(((struct thing *)saved)->edge[1] == &tail->object && saved->count_ == 2);
        CHECK(!lives(weakref));
        CHECK(po_gc_collect(state, 2) == 0);
        CHECK(is_log(""));
        po_clear(&saved);
        CHECK(po_gc_collect(state, 2) == 4);
        CHECK(times("F") == 0 && times("W") == 0 && times("R") == 4);
        po_decref(weakref);
        end_state(state);
    }
}

static void refer_to_self(struct thing *self) {
    po_set(&self->edge[1], &self->object);
}

// However old it was, and whatever a run has left in its head.
TEST(an_object_that_comes_back_on_the_count_path_is_young) {
    for (int runs = 0; runs < 4; runs++) {
        po_state *const state = state_off();
        struct thing *const thing = make(state, 1);
        thing->act = refer_to_self;
        for (int i = 0; i < runs; i++) {
            CHECK(po_gc_collect(state, 2) == 0);
        }
        drop(thing);
        CHECK(is_log("F1 ") && stats_of(state).young == 1 && stats_of(state).old == 0);
        CHECK(po_gc_collect(state, 0) == 1, "after %d runs", runs);
        CHECK(is_log("C1 R1 "));
        end_state(state);
    }
}

static struct thing *other_thing;

static void drop_next(struct thing *self) {
    po_clear(&self->edge[0]);
}

TEST(trash_that_a_finalizer_ends_is_finalized_once) {
    po_state *const state = state_off();
    struct thing *const ring = make_ring(state, 1, 5);
    ring->act = drop_next;
    next_of(ring)->act = save_self;
    drop(ring);
    po_gc_collect(state, 2);
    CHECK(times("F") == 5);
    CHECK(saved != NULL && times("R2") == 0);
    po_clear(&saved);
    po_gc_collect(state, 2);
    CHECK(times("F") == 5 && times("R") == 5);
    end_state(state);
}

static void add_to_other(struct thing *self) {
    struct thing *const made = make(po_state_of(&self->object), 9);
    link_to(made, self);
    po_set_take(&other_thing->edge[1], &made->object);
}

TEST(a_finalizer_may_make_objects_that_refer_to_trash) {
    po_state *const state = state_off();
    struct thing *const ring = make_ring(state, 1, 3);
    other_thing = make(state, 8);
    ring->act = add_to_other;
    drop(ring);
    CHECK(po_gc_collect(state, 0) == 0);
    CHECK(times("F") == 3 && times("R") == 0 && times("C") == 0);
    happened[0] = '\0';
    po_clear(&other_thing->edge[1]);
    CHECK(times("R9") == 1);
    CHECK(po_gc_collect(state, 1) == 3);
    CHECK(times("R") == 4);
    drop(other_thing);
    end_state(state);
}

// --- What clear does not end ---------------------------------------------------------------------

static unsigned survivors[2], stops;
static uint64_t survived_in_all;

static void hear(po_state *state, const struct po_gc_event *event, void *argument) {
    (void)state;
    CHECK(argument == &stops);
    if (event->phase == PO_GC_SURVIVED) {
        CHECK(event->type == &thing_type || event->type == &plain_type);
        survivors[event->type == &plain_type] += (unsigned)event->survived;
    }
    if (event->phase == PO_GC_STOP) {
        stops++;
        survived_in_all = event->survived;
    }
}

TEST(objects_that_survive_clear_are_told_by_type) {
    for (int generation = 0; generation < 3; generation++) {
        po_state *const state = state_off();
        memset(survivors, 0, sizeof survivors);
        stops = 0;
        po_gc_on(state, hear, &stops);
        struct thing *const ring = make_ring(state, 1, 2);
        struct thing *const stubborn = make_ring(state, 3, 3);
        struct thing *const plain = make_ring_of(state, &plain_type, 6, 2);
        struct thing *const all[] = { stubborn, next_of(stubborn), next_of(next_of(stubborn)),
                                      plain, next_of(plain) };
        for (unsigned i = 0; i < 5; i++) {
            all[i]->is_stubborn = true;
        }
        drop(ring);
        drop(stubborn);
        drop(plain);
        CHECK(po_gc_collect(state, generation) == 7);
        CHECK(stops == 1 && survivors[0] == 3 && survivors[1] == 2 && survived_in_all == 5);
        CHECK(stats_of(state).generation[generation].survived == 5);
        CHECK(times("R") == 2 && times("F") == 5);
        // They are found again, and finalized no more.
        CHECK(po_gc_collect(state, 2) == 5 && times("F") == 5 && survived_in_all == 5);
        for (unsigned i = 0; i < 5; i++) {
            all[i]->is_stubborn = false;
        }
        CHECK(po_gc_collect(state, 2) == 5 && times("R") == 7 && survived_in_all == 0);
        end_state(state);
    }
}

// --- Depth ---------------------------------------------------------------------------------------

static size_t chain_length(void) {
    const char *const text = getenv("PO_CHAIN");
    return text != NULL ? strtoull(text, NULL, 10) : CHAIN;
}

static struct thing *make_chain(po_state *state, po_type *type, size_t n) {
    struct thing *first = NULL;
    for (size_t i = 0; i < n; i++) {
        struct thing *const thing = make_of(state, type, 0);
        thing->edge[0] = (po_object *)first;
        first = thing;
    }
    return first;
}

static void *end_chain_by_count(void *type) {
    po_state *const state = state_off();
    const size_t n = chain_length();
    releases = 0;
    drop(make_chain(state, type, n));
    CHECK(releases == n, "%u", releases);
    CHECK(stats_of(state).young == 0);
    end_state(state);
    return NULL;
}

static void *end_chain_by_collection(void *type) {
    po_state *const state = state_off();
    const size_t n = chain_length();
    for (int generation = 0; generation < 3; generation += 2) {
        releases = 0;
        struct thing *const chain = make_chain(state, type, n);
        struct thing *const ring = make_ring(state, 0, 2);
        po_set_take(&ring->edge[1], &chain->object);
        po_set(&chain->edge[1], &ring->object);
        drop(ring);
        CHECK(po_gc_collect(state, generation) == (long)n + 2);
        CHECK(releases == n + 2, "%u", releases);
    }
    struct thing *const ring = make_ring_of(state, type, 0, (int)n);
    drop(ring);
    releases = 0;
    CHECK(po_gc_collect(state, 2) == (long)n);
    CHECK(releases == n, "%u", releases);
    end_state(state);
    return NULL;
}

static void *end_chain_with_the_state(void *type) {
    po_state *const state = state_off();
    const size_t n = chain_length();
    releases = 0;
    make_chain(state, type, n);
    CHECK(po_state_free(state, -1) == 1 && releases == n);
    return NULL;
}

// In a thread with hardly any stack.
static void on_a_small_stack(void *(*function)(void *), void *argument) {
    pthread_attr_t attributes;
    pthread_t thread;
    pthread_attr_init(&attributes);
    CHECK(pthread_attr_setstacksize(&attributes, 64 << 10) == 0);
    CHECK(pthread_create(&thread, &attributes, function, argument) == 0);
    pthread_join(thread, NULL);
}

TEST(a_long_chain_ends_by_count_on_a_small_stack) {
    on_a_small_stack(end_chain_by_count, &thing_type);
    on_a_small_stack(end_chain_by_count, &plain_type);
}

TEST(a_long_chain_ends_by_collection_on_a_small_stack) {
    on_a_small_stack(end_chain_by_collection, &thing_type);
}

TEST(a_long_plain_chain_ends_by_collection_on_a_small_stack) {
    on_a_small_stack(end_chain_by_collection, &plain_type);
}

TEST(a_long_chain_ends_with_its_state_on_a_small_stack) {
    on_a_small_stack(end_chain_with_the_state, &thing_type);
}

// Lists that refer to themselves are trash. A finalizer makes weak references to them; when about
// half of them have been cleared, another one, of an object that only now ends, gets them back and
// makes a chain of them.
enum { FILLED = 20000, HOLDERS = 8 };
static _Thread_local po_object *filled_weak, *filled_lists;
static _Thread_local bool has_filled;

static void fill_again(po_object *self) {
    static po_object *held[FILLED];
    size_t cleared = 0;
    (void)self;
    for (size_t i = 0; i < FILLED; i++) {
        CHECK(po_weakref_get(po_list_at(filled_weak, i), &held[i]) >= 0);
        cleared += held[i] != NULL && po_list_size(held[i]) == 0;
    }
    const bool fills = !has_filled && cleared >= FILLED / 3;
    has_filled |= fills;
    for (size_t i = 0; i + 1 < FILLED && fills; i++) {
        if (held[i] != NULL && held[i + 1] != NULL) {
            CHECK(po_list_append(held[i], held[i + 1]) == 0);
        }
    }
    for (size_t i = FILLED; i-- > 0;) {
        po_decref(held[i]);
    }
}

static void look_at_lists(po_object *self) {
    (void)self;
    for (size_t i = po_list_size(filled_weak); i < FILLED; i++) {
        po_object *const weakref =
            po_weakref(po_state_of(self), po_list_at(filled_lists, i), NULL, NULL);
        CHECK(weakref != NULL && po_list_append_take(filled_weak, weakref) == 0);
    }
}

// As large as a list, so that it lies among them.
struct holder {
    PO_HEAD;
    po_object *bare, *lists;
};

static int traverse_holder(const po_object *self, po_visit visit, void *argument) {
    const struct holder *const holder = (const struct holder *)self;
    PO_VISIT(holder->bare);
    PO_VISIT(holder->lists);
    return 0;
}

static void clear_holder(po_object *self) {
    struct holder *const holder = (struct holder *)self;
    po_clear(&holder->bare);
    po_clear(&holder->lists);
}

static po_type bare_type = { .name = "bare",
                             .size = sizeof(struct holder),
                             .finalize = fill_again };
static po_type holder_type = { .name = "holder",
                               .size = sizeof(struct holder),
                               .traverse = traverse_holder,
                               .clear = clear_holder,
                               .finalize = look_at_lists };

static void *fill_cleared_trash(void *nothing) {
    po_state *const state = state_off();
    filled_weak = po_list(state);
    filled_lists = po_list(state);
    for (size_t i = 0; i < FILLED; i++) {
        po_object *const list = po_list(state);
        CHECK(po_list_append(list, list) == 0 && po_list_append_take(filled_lists, list) == 0);
        if (i % (FILLED / HOLDERS) == 0) {
            struct holder *const holder = (struct holder *)po_new(state, &holder_type);
            holder->bare = po_new(state, &bare_type);
            holder->lists = po_incref(filled_lists);
            CHECK(po_list_append_take(list, &holder->object) == 0);
        }
    }
    has_filled = false;
    po_decref(filled_lists);
    po_gc_collect(state, 2);
    // Where each object is a block of libc's, the run clears them in another order.
    CHECK(has_filled || PO_LIBC_BLOCKS);
    po_decref(filled_weak);
    CHECK(po_gc_collect(state, 2) == 0);
    end_state(state);
    return nothing;
}

TEST(cleared_trash_that_is_filled_again_needs_no_stack) {
    on_a_small_stack(fill_cleared_trash, NULL);
}

static unsigned callbacks;

static void drop_data(po_object *weakref, po_object *data) {
    struct thing *const thing = (struct thing *)data;
    (void)weakref;
    callbacks++;
    po_clear(&thing->edge[1]);
}

// Each end calls a callback that ends the next.
enum { LINKS = 20000 };

static void end_by_callbacks(po_object *(*make_next)(po_state *state), unsigned releases_expected) {
    po_state *const state = state_off();
    po_object *next = make_next(state);
    po_object **const weakref = calloc(LINKS, sizeof *weakref);
    struct thing **const holder = calloc(LINKS, sizeof *holder);
    for (int i = 0; i < LINKS; i++) {
        holder[i] = make(state, 0);
        po_set_take(&holder[i]->edge[1], next);
        next = make_next(state);
        weakref[i] = po_weakref(state, next, drop_data, &holder[i]->object);
        CHECK(weakref[i] != NULL);
    }
    callbacks = releases = 0;
    po_decref(next);
    CHECK(callbacks == LINKS && releases == releases_expected, "%u %u", callbacks, releases);
    for (int i = 0; i < LINKS; i++) {
        po_decref(weakref[i]);
        drop(holder[i]);
    }
    free(weakref);
    free(holder);
    end_state(state);
}

static po_object *make_thing(po_state *state) {
    return &make(state, 0)->object;
}

static void *end_things_by_callbacks(void *nothing) {
    end_by_callbacks(make_thing, LINKS + 1);
    return nothing;
}

TEST(callbacks_that_end_what_has_callbacks_need_no_stack) {
    on_a_small_stack(end_things_by_callbacks, NULL);
}

// Objects without references are not spared either: what ends them is a callback too.
static po_object *make_float(po_state *state) {
    return po_float(state, 0.5);
}

static void *end_floats_by_callbacks(void *nothing) {
    end_by_callbacks(make_float, 0);
    return nothing;
}

TEST(callbacks_that_end_what_is_no_container_need_no_stack) {
    on_a_small_stack(end_floats_by_callbacks, NULL);
}

TEST(trash_that_ends_in_trash_beyond_the_nesting_ends_once) {
    for (int n = 45; n < 60; n++) {
        for (int at = 0; at < 3; at++) {
            po_state *const state = state_off();
            struct thing *const ring = make_ring(state, 1, n);
            struct thing *acting = ring;
            for (int i = 0; i < at * n / 3; i++) {
                acting = next_of(acting);
            }
            acting->act = drop_next;
            drop(ring);
            po_gc_collect(state, at);
            CHECK(times("F") == (unsigned)n && times("R") == (unsigned)n, "%d of %d", at, n);
            CHECK(stats_of(state).young + stats_of(state).old == 0);
            end_state(state);
        }
    }
}

TEST(objects_beyond_the_nesting_are_dead_to_weak_references) {
    po_state *const state = state_off();
    struct thing *const chain = make_chain(state, &thing_type, 200), *deep = chain;
    for (int i = 0; i < 120; i++) {
        deep = next_of(deep);
    }
    po_object *const weakref = watch(state, deep, 7);
    drop(chain);
    CHECK(is_log("W7 ") && !lives(weakref));
    po_decref(weakref);
    CHECK(stats_of(state).young == 0);
    end_state(state);
}

static void *end_nested_tuples(void *nothing) {
    po_state *const state = state_off();
    po_object *item = po_float(state, 0.5);
    for (int i = 0; i < LINKS; i++) {
        item = po_tuple_take(state, 1, &item);
    }
    po_decref(item);
    CHECK(stats_of(state).young == 0);
    end_state(state);
    return nothing;
}

TEST(tuples_in_tuples_need_no_stack) {
    on_a_small_stack(end_nested_tuples, NULL);
}

static po_object *ending;

static void look_at_the_ending(po_object *weakref, po_object *data) {
    (void)weakref, (void)data;
    callbacks += po_tuple_size(ending) == 0;
}

TEST(a_tuple_that_ends_is_empty_for_the_callbacks_of_its_items) {
    po_state *const state = state_off();
    for (int first = 0; first < 2; first++) {
        po_object *const item = po_float(state, 0.5), *const other = po_float(state, 1.5);
        po_object *const weakref = po_weakref(state, item, look_at_the_ending, NULL);
        ending = po_tuple(state, 2, (po_object *[]){ first ? item : other, first ? other : item });
        po_decref(item);
        callbacks = 0;
        po_decref(ending);
        CHECK(callbacks == 1);
        po_decref(other);
        po_decref(weakref);
    }
    end_state(state);
}

// What ends within each other does so in order to 50 levels where callbacks tell of it, also when
// no other code of the program does.
TEST(callbacks_come_in_the_order_of_ends_within_each_other) {
    po_state *const state = state_off();
    po_object *const number = po_int(state, 1000);
    po_object *item[2] = { po_tuple(state, 1, &number), po_tuple(state, 1, &number) };
    po_object *const weakref[] = { watch(state, (struct thing *)item[0], 7),
                                   watch(state, (struct thing *)item[1], 8) };
    for (int i = 0; i < 40; i++) {
        item[1] = po_tuple_take(state, 1, &item[1]);
    }
    // A tuple gives up its last item first.
    po_decref(po_tuple_take(state, 2, item));
    CHECK(is_log("W8 W7 "));
    po_decref(weakref[0]);
    po_decref(weakref[1]);
    po_decref(number);
    end_state(state);
}

// --- Generations, counters, modes ----------------------------------------------------------------

TEST(counts_are_those_of_containers_made_and_ended) {
    po_state *const state = state_off();
    struct thing *thing[5];
    for (int i = 0; i < 5; i++) {
        thing[i] = make(state, 0);
    }
    CHECK(stats_of(state).count[0] == 5 && stats_of(state).young == 5);
    drop(thing[0]);
    drop(thing[1]);
    CHECK(stats_of(state).count[0] == 3 && stats_of(state).young == 3);
    po_decref(po_float(state, 1.5));
    CHECK(stats_of(state).count[0] == 3);
    po_gc_collect(state, 0);
    struct po_gc_stats stats = stats_of(state);
    CHECK(stats.count[0] == 0 && stats.count[1] == 1 && stats.count[2] == 0 && stats.young == 3);
    drop(thing[2]);
    CHECK(stats_of(state).count[0] == 0);
    po_gc_collect(state, 1);
    stats = stats_of(state);
    CHECK(stats.count[1] == 0 && stats.count[2] == 1 && stats.young == 0 && stats.old == 2);
    po_gc_collect(state, 2);
    stats = stats_of(state);
    CHECK(stats.count[2] == 0 && stats.generation[0].runs == 1 && stats.generation[2].runs == 1);
    drop(thing[3]);
    drop(thing[4]);
    CHECK(stats_of(state).old == 0);
    CHECK(po_gc_collect(state, 3) == -1 && po_error_last().code == PO_BAD_ARGUMENT);
    CHECK(po_gc_collect(state, -1) == -1);
    end_state(state);
}

TEST(older_objects_are_left_to_older_generations) {
    po_state *const state = state_off();
    struct thing *const ring = make_ring(state, 1, 2);
    CHECK(po_gc_collect(state, 0) == 0);
    drop(ring);
    CHECK(po_gc_collect(state, 0) == 0);
    CHECK(po_gc_collect(state, 1) == 2);
    struct thing *const other = make_ring(state, 1, 2);
    CHECK(po_gc_collect(state, 1) == 0);
    drop(other);
    CHECK(po_gc_collect(state, 1) == 0);
    CHECK(po_gc_collect(state, 2) == 2);
    end_state(state);
}

TEST(a_due_run_takes_place_before_an_object_is_made) {
    po_state *const state = po_state_new();
    CHECK(po_gc_configure(state, &(struct po_gc_config){ PO_GC_AUTO, { 10, 10, 10 } }) == 0);
    drop(make_ring(state, 1, 4));
    for (int i = 0; i < 3; i++) {
        drop(make_ring(state, 0, 2));
    }
    CHECK(is_log("") && stats_of(state).count[0] == 10);
    struct thing *const thing = make(state, 0);
    CHECK(times("R") == 4 && stats_of(state).count[0] == 1 - 1 && stats_of(state).young == 1);
    drop(thing);
    end_state(state);
}

// Else a few objects that hold much would stay.
TEST(bytes_that_double_bring_a_run_before_many_objects_do) {
    enum { CYCLES = 100, BYTES = 8 << 20 };
    static char bytes[BYTES];
    po_state *const state = po_state_new();
    for (int i = 0; i < CYCLES; i++) {
        po_object *const list = po_list(state);
        CHECK(po_list_append(list, list) == 0);
        CHECK(po_list_append_take(list, po_bytes(state, bytes, BYTES)) == 0);
        po_decref(list);
        CHECK(po_bytes_held(state) < (size_t)8 * BYTES, "%d", i);
    }
    CHECK(stats_of(state).generation[2].runs > 0 && stats_of(state).generation[0].runs == 0);
    end_state(state);
}

static int explained;

static void explain_itself(struct thing *self) {
    explained = po_explain(&self->object, 2) == 0 ? 0 : (int)po_error_last().code;
}

TEST(nothing_is_explained_while_a_run_holds_references) {
    po_state *const state = state_off();
    struct thing *const ring = make_ring(state, 1, 2);
    ring->act = explain_itself;
    drop(ring);
    CHECK(po_gc_collect(state, 2) == 2 && explained == PO_BUSY);
    end_state(state);
}

TEST(nothing_is_due_at_threshold_zero) {
    po_state *const state = po_state_new();
    CHECK(po_gc_configure(state, &(struct po_gc_config){ PO_GC_AUTO, { 0, 10, 10 } }) == 0);
    for (int i = 0; i < 2000; i++) {
        drop(make_ring(state, 0, 2));
    }
    CHECK(stats_of(state).young == 4000 && po_gc_poll(state, UINT64_MAX) == 0);
    CHECK(po_gc_collect(state, 2) == 4000);
    CHECK(po_gc_configure(state, &(struct po_gc_config){ (enum po_gc_mode)7, { 0, 0, 0 } }) == -1);
    end_state(state);
}

TEST(in_poll_mode_only_a_poll_runs_what_is_due) {
    po_state *const state = po_state_new();
    CHECK(po_gc_configure(state, &(struct po_gc_config){ PO_GC_POLL, { 100, 10, 10 } }) == 0);
    CHECK(po_gc_poll(state, UINT64_MAX) == 0 && stats_of(state).generation[0].runs == 0);
    for (int i = 0; i < 500; i++) {
        drop(make_ring(state, 0, 2));
    }
    CHECK(stats_of(state).young == 1000);
    // A budget that nothing fits.
    CHECK(po_gc_poll(state, 0) == 1 && stats_of(state).generation[0].runs == 0);
    releases = 0;
    CHECK(po_gc_poll(state, UINT64_MAX) == 0 && releases == 1000);
    CHECK(po_gc_poll(state, 0) == 0);
    end_state(state);
}

TEST(a_poll_says_when_its_run_has_made_an_older_one_due) {
    po_state *const state = po_state_new();
    CHECK(po_gc_configure(state, &(struct po_gc_config){ PO_GC_POLL, { 2, 0, 10 } }) == 0);
    struct thing *const thing = make(state, 0);
    drop(make_ring(state, 0, 2));
    CHECK(po_gc_poll(state, UINT64_MAX) == 1);
    CHECK(stats_of(state).generation[0].runs == 1);
    CHECK(po_gc_poll(state, UINT64_MAX) == 0);
    CHECK(stats_of(state).generation[1].runs == 1);
    drop(thing);
    end_state(state);
}

TEST(frozen_objects_are_left_out_but_counted) {
    po_state *const state = state_off();
    struct thing *const kept = make(state, 5), *const ring = make_ring(state, 1, 2);
    po_gc_collect(state, 0);
    struct thing *const young = make(state, 6);
    po_gc_freeze(state);
    struct po_gc_stats stats = stats_of(state);
    CHECK(stats.frozen == 4 && stats.young == 0 && stats.old == 0);
    CHECK(stats.count[0] == 0 && stats.count[1] == 0 && stats.count[2] == 0);
    drop(ring);
    CHECK(po_gc_collect(state, 2) == 0 && is_log(""));
    drop(young);
    drop(kept);
    CHECK(is_log("F6 R6 F5 R5 ") && stats_of(state).frozen == 2);
    // What a frozen object refers to stays.
    struct thing *const next = make_ring(state, 7, 2);
    link_to(ring, next);
    drop(next);
    CHECK(po_gc_collect(state, 2) == 0);
    releases = 0;
    CHECK(po_state_free(state, -1) == 0 && releases == 4);
}

// --- States --------------------------------------------------------------------------------------

static void *collect_elsewhere(void *state) {
    struct thing *const ring = make_ring(state, 0, 3);
    CHECK(po_gc_collect(state, 2) == 2);
    drop(ring);
    return NULL;
}

TEST(a_state_is_handed_over_between_threads) {
    po_state *const state = state_off();
    for (int i = 0; i < 20; i++) {
        pthread_t thread;
        drop(make_ring(state, 0, 2));
        CHECK(pthread_create(&thread, NULL, collect_elsewhere, state) == 0);
        pthread_join(thread, NULL);
        CHECK(po_gc_collect(state, 2) == 3);
    }
    end_state(state);
}

static void *work_alone(void *seed) {
    po_state *const state = po_state_new();
    uint64_t random = (uint64_t)(uintptr_t)seed;
    for (int i = 0; i < 3000; i++) {
        struct thing *const ring =
            make_ring_of(state, &plain_type, 0, 1 + (int)(check_random(&random) % 9));
        po_decref(po_weakref(state, &ring->object, NULL, NULL));
        drop(ring);
    }
    po_gc_collect(state, 2);
    CHECK(po_state_free(state, -1) == 0);
    return NULL;
}

TEST(threads_have_states_of_their_own) {
    pthread_t thread[4];
    for (uintptr_t i = 0; i < 4; i++) {
        CHECK(pthread_create(&thread[i], NULL, work_alone, (void *)i) == 0);
    }
    for (unsigned i = 0; i < 4; i++) {
        pthread_join(thread[i], NULL);
    }
}

TEST(states_in_one_thread_are_apart) {
    po_state *const first = state_off(), *const second = state_off();
    struct thing *const a = make_ring(first, 1, 2), *const b = make_ring(second, 11, 2);
    CHECK(po_state_of(&a->object) == first && po_state_of(&b->object) == second);
    CHECK(po_state_of(PO_NONE) == NULL && po_state_of(po_int(first, 7)) == NULL);
    drop(a);
    drop(b);
    CHECK(po_gc_collect(first, 2) == 2 && times("R1 ") == 1 && times("R11 ") == 0);
    CHECK(po_gc_collect(second, 2) == 2 && times("R11 ") == 1);
    end_state(first);
    end_state(second);
}

TEST(a_forked_child_goes_on) {
    po_state *const state = state_off();
    struct thing *const ring = make_ring(state, 0, 100);
    po_gc_freeze(state);
    const pid_t child = fork();
    if (child == 0) {
        drop(make_ring(state, 0, 50));
        CHECK(po_gc_collect(state, 2) == 50);
        CHECK(po_state_free(state, -1) == 1);
        _exit(0);
    }
    int status = -1;
    CHECK(waitpid(child, &status, 0) == child && status == 0, "%d", status);
    drop(make_ring(state, 0, 30));
    CHECK(po_gc_collect(state, 2) == 30);
    CHECK(po_state_free(state, -1) == 1);
    (void)ring;
}

static void read_all(int fd, char *text, size_t room) {
    size_t n = 0;
    ssize_t got;
    while (n + 1 < room && (got = read(fd, text + n, room - 1 - n)) > 0) {
        n += (size_t)got;
    }
    text[n] = '\0';
}

TEST(the_end_of_a_state_tells_what_is_still_referenced) {
    po_state *const state = po_state_new();
    struct thing *const held = make(state, 1), *const plain = make_of(state, &plain_type, 2);
    link_to(held, make(state, 3));
    drop(next_of(held));
    link_to(plain, held);
    po_object *const number = po_float(state, 2.5);
    make_of(state, &plain_type, 4);
    drop(make_ring(state, 5, 2));
    int ends[2];
    char text[500];
    CHECK(pipe(ends) == 0);
    const size_t left = po_state_free(state, ends[1]);
    close(ends[1]);
    read_all(ends[0], text, sizeof text);
    close(ends[0]);
    // The third thing is the first's, and no reference of the program's is left to it.
    CHECK(left == 4, "%zu", left);
    CHECK(strstr(text, "1 of type thing") != NULL && strstr(text, "2 of type plain") != NULL &&
              strstr(text, "1 of type float") != NULL,
          "%s", text);
    // Those that were reachable are released only.
    CHECK(times("R") == 6 && times("F") == 2, "%s", happened);
    CHECK(po_state_free(NULL, -1) == 0);
    (void)number;
}

static unsigned busy;

static void end_state_inside(struct thing *self) {
    po_state *const state = po_state_of(&self->object);
    CHECK(po_state_free(state, -1) == SIZE_MAX && po_error_last().code == PO_BUSY);
    busy++;
}

static void collect_inside(struct thing *self) {
    CHECK(po_gc_collect(po_state_of(&self->object), 2) == 0);
    CHECK(po_gc_poll(po_state_of(&self->object), UINT64_MAX) == 0);
    po_gc_freeze(po_state_of(&self->object));
}

TEST(a_state_cannot_end_inside_of_its_callbacks) {
    po_state *const state = state_off();
    struct thing *const thing = make(state, 0);
    thing->act = end_state_inside;
    drop(thing);
    CHECK(busy == 1);
    struct thing *const ring = make_ring(state, 0, 2);
    ring->act = end_state_inside;
    next_of(ring)->act = collect_inside;
    drop(ring);
    CHECK(po_gc_collect(state, 2) == 2 && busy == 2 && stats_of(state).frozen == 0);
    struct thing *const last = make_ring(state, 0, 2);
    last->act = end_state_inside;
    drop(last);
    CHECK(po_state_free(state, -1) == 0 && busy == 3);
}

static void fail_inside(struct thing *self) {
    CHECK(po_gc_collect(po_state_of(&self->object), 5) == -1);
}

TEST(finalizers_leave_the_last_error_as_it_was) {
    po_state *const state = state_off();
    CHECK(po_new(state, NULL) == NULL && po_error_last().code == PO_BAD_TYPE);
    struct thing *const thing = make(state, 0);
    thing->act = fail_inside;
    drop(thing);
    CHECK(po_error_last().code == PO_BAD_TYPE);
    end_state(state);
}

// --- Types ---------------------------------------------------------------------------------------

static void expect_bad(po_type *type) {
    po_state *const state = state_off();
    CHECK(po_new(state, type) == NULL && po_error_last().code == PO_BAD_TYPE, "%s", type->name);
    CHECK(po_new(state, type) == NULL && type->number_ == 0);
    end_state(state);
}

static void fail_in_release(po_object *self) {
    po_object *target;
    (void)self;
    CHECK(po_weakref_get(PO_NONE, &target) == -1 && po_error_last().code == PO_WRONG_TYPE);
}

TEST(a_release_at_the_end_of_its_state_leaves_the_last_error) {
    static po_type failing_type = { .name = "failing",
                                    .size = sizeof(struct thing),
                                    .release = fail_in_release };
    po_state *const state = state_off();
    CHECK(po_new(state, &failing_type) != NULL);
    CHECK(po_gc_collect(state, 3) == -1 && po_error_last().code == PO_BAD_ARGUMENT);
    CHECK(po_state_free(state, -1) == 1 && po_error_last().code == PO_BAD_ARGUMENT);
}

TEST(descriptions_that_cannot_be_right_are_refused) {
    po_type nameless = { .size = 100 }, small = { .name = "small", .size = 8 };
    po_type few = { .name = "few", .size = 16, .item_size = 8 };
    po_type flags = { .name = "flags", .size = 100, .flags = 1 };
    po_type half = { .name = "half", .size = 100, .traverse = traverse };
    po_type other_half = { .name = "other half", .size = 100, .clear = clear };
    po_type shorter = { .name = "shorter", .base = &thing_type, .size = sizeof(struct thing) - 8 };
    po_type items = { .name = "items", .base = &thing_type, .size = 200, .item_size = 8 };
    po_type of_int = { .name = "of int", .base = &po_int_type, .size = 100 };
    po_type of_list = { .name = "of list", .base = &po_list_type, .size = 100 };
    po_type of_of_list = { .name = "of of list", .base = &of_list, .size = 100 };
    po_type round = { .name = "round", .size = 100 },
            circle = { .name = "circle", .base = &round, .size = 100 };
    round.base = &circle;
    po_type own = { .name = "own", .size = 100 };
    own.base = &own;
    po_type row = { .name = "row", .size = sizeof(struct { PO_HEAD_ITEMS; }), .item_size = 8 };
    po_type longer_row = { .name = "longer", .base = &row, .size = row.size + 8, .item_size = 8 };
    po_type *const all[] = { &nameless,   &small,   &few,   &flags,     &half,
                             &other_half, &shorter, &items, &of_int,    &of_list,
                             &of_of_list, &round,   &own,   &longer_row };
    for (unsigned i = 0; i < sizeof all / sizeof *all; i++) {
        expect_bad(all[i]);
    }
    po_state *const state = state_off();
    CHECK(po_new(state, &po_int_type) == NULL && po_error_last().code == PO_BAD_TYPE);
    CHECK(po_new(state, &po_list_type) == NULL && po_error_last().code == PO_BAD_TYPE);
    end_state(state);
}

struct long_thing {
    struct thing thing;
    po_object *more;
    int level;
};

static int traverse_more(const po_object *self, po_visit visit, void *argument) {
    PO_VISIT(((const struct long_thing *)self)->more);
    return 0;
}

static void clear_more(po_object *self) {
    po_clear(&((struct long_thing *)self)->more);
    tell('M', 1);
}

static void release_more(po_object *self) {
    (void)self;
    tell('L', 2);
}

static po_type long_type = {
    .name = "long",
    .base = &thing_type,
    .size = sizeof(struct long_thing),
    .traverse = traverse_more,
    .clear = clear_more,
    .release = release_more,
};
static po_type longer_type = { .name = "longer",
                               .base = &long_type,
                               .size = sizeof(struct long_thing) };

static void release_longest(po_object *self) {
    (void)self;
    tell('L', 3);
}

static po_type longest_type = {
    .name = "longest",
    .base = &longer_type,
    .size = sizeof(struct long_thing) + 8,
    .release = release_longest,
};

TEST(all_levels_of_a_derived_type_are_called) {
    po_state *const state = state_off();
    po_object *const object = po_new(state, &longest_type);
    CHECK(object != NULL && po_type_of(object) == &longest_type);
    CHECK(po_is(object, &longest_type) && po_is(object, &longer_type) &&
          po_is(object, &thing_type));
    CHECK(!po_is(object, &plain_type) && !po_is(NULL, &plain_type));
    struct long_thing *const thing = (struct long_thing *)object;
    thing->thing.id = 1;
    drop(&thing->thing);
    CHECK(is_log("F1 M1 L3 L2 R1 "));
    // References of both levels make cycles.
    struct long_thing *const ring = (struct long_thing *)po_new(state, &longer_type);
    CHECK(ring != NULL);
    po_set(&ring->more, &ring->thing.object);
    po_set(&ring->thing.edge[1], &ring->thing.object);
    drop(&ring->thing);
    CHECK(po_gc_collect(state, 2) == 1 && times("L2") == 1 && times("L3") == 0);
    end_state(state);
}

struct row {
    PO_HEAD_ITEMS;
    po_object *item[];
};

static int traverse_row(const po_object *self, po_visit visit, void *argument) {
    const struct row *const row = (const struct row *)self;
    for (size_t i = 0; i < row->items; i++) {
        PO_VISIT(row->item[i]);
    }
    return 0;
}

static void clear_row(po_object *self) {
    struct row *const row = (struct row *)self;
    for (size_t i = 0; i < row->items; i++) {
        po_clear(&row->item[i]);
    }
}

static po_type row_type = {
    .name = "row",
    .size = sizeof(struct row),
    .item_size = sizeof(po_object *),
    .traverse = traverse_row,
    .clear = clear_row,
};

TEST(objects_with_items_have_as_many_as_asked_for) {
    po_state *const state = state_off();
    static const size_t counts[] = { 0, 1, 2, 100, 10000 };
    for (unsigned i = 0; i < 5; i++) {
        struct row *const row = (struct row *)po_new_items(state, &row_type, counts[i]);
        CHECK(row != NULL && row->items == counts[i]);
        for (size_t j = 0; j < counts[i]; j++) {
            CHECK(row->item[j] == NULL);
            row->item[j] = po_incref(&row->object);
        }
        CHECK(row->object.count_ == counts[i] + 1);
        po_decref(&row->object);
        CHECK(po_gc_collect(state, 0) == (counts[i] != 0));
    }
    CHECK(stats_of(state).young == 0);
    CHECK(po_new_items(state, &row_type, SIZE_MAX / 8) == NULL &&
          po_error_last().code == PO_NO_MEMORY);
    CHECK(po_new_items(state, &row_type, SIZE_MAX / 2) == NULL &&
          po_error_last().code == PO_NO_MEMORY);
    struct row *const none = (struct row *)po_new(state, &row_type);
    CHECK(none != NULL && none->items == 0);
    po_decref(&none->object);
    end_state(state);
}

// A type without references: nothing for the collector, but all the rest.
static po_type leaf_type = {
    .name = "leaf",
    .size = sizeof(struct thing),
    .finalize = finalize,
    .release = release,
};

TEST(a_type_without_references_is_not_looked_at) {
    po_state *const state = state_off();
    struct thing *const leaf = make_of(state, &leaf_type, 1);
    CHECK(stats_of(state).count[0] == 0 && stats_of(state).young == 0);
    leaf->act = save_self;
    po_object *const weakref = watch(state, leaf, 7);
    drop(leaf);
    CHECK(is_log("F1 ") && lives(weakref));
    po_clear(&saved);
    CHECK(is_log("W7 R1 "));
    po_decref(weakref);
    end_state(state);
}

TEST(a_count_that_reaches_the_top_stays) {
    po_state *const state = state_off();
    struct thing *const thing = make(state, 1);
    thing->object.count_ = PO_IMMORTAL_ - 1;
    po_incref(&thing->object);
    for (int i = 0; i < 10; i++) {
        drop(thing);
        po_incref(&thing->object);
    }
    CHECK(thing->object.count_ == PO_IMMORTAL_);
    link_to(thing, thing);
    po_gc_collect(state, 2);
    CHECK(is_log(""));
    releases = 0;
    po_state_free(state, -1);
    CHECK(releases == 1);
}

// --- What only some states, or some sizes of types, would show -----------------------------------

static int visit_pair(const po_object *self, po_visit visit, void *argument) {
    PO_VISIT(((const struct po_tuple_ *)self)->item[0]);
    PO_VISIT(((const struct po_tuple_ *)self)->item[1]);
    return 0;
}

static void clear_pair(po_object *self) {
    po_clear(&((struct po_tuple_ *)self)->item[0]);
    po_clear(&((struct po_tuple_ *)self)->item[1]);
}

static void finalize_nothing(po_object *self) {
    (void)self;
}

static po_type pair_type = {
    .name = "pair",
    .size = sizeof(struct po_tuple_) + 2 * sizeof(po_object *),
    .traverse = visit_pair,
    .clear = clear_pair,
    .finalize = finalize_nothing,
};

TEST(a_second_pass_leaves_numbers_alone_in_each_of_many_states) {
    enum { STATES = 260 }; // more than have a number
    static po_state *states[STATES];
    for (unsigned i = 0; i < STATES; i++) {
        states[i] = po_state_new();
        CHECK(states[i] != NULL);
        po_object *const number = po_int(states[i], -1000);
        po_object *const pair = po_new(states[i], &pair_type);
        po_set(&((struct po_tuple_ *)pair)->item[0], pair);
        po_set(&((struct po_tuple_ *)pair)->item[1], number);
        po_decref(pair);
        CHECK(po_gc_collect(states[i], 2) == 1, "state %u", i);
        CHECK(po_int_value(number) == -1000 && po_state_of(number) == states[i], "state %u", i);
        po_decref(number);
    }
    for (unsigned i = 0; i < STATES; i++) {
        CHECK(po_state_free(states[i], 2) == 0);
    }
}

static int visit_nothing(const po_object *self, po_visit visit, void *argument) {
    (void)self, (void)visit, (void)argument;
    return 0;
}

static po_type head_type = {
    .name = "head",
    .size = 16,
    .traverse = visit_nothing,
    .clear = finalize_nothing,
};

TEST(objects_that_are_a_head_only_and_numbers_come_and_go) {
    po_state *const one = po_state_new();
    for (int i = 0; i < 1000; i++) {
        po_decref(po_new(one, &head_type));
        po_object *const number = po_int(one, 1000 + i);
        po_object *const head = po_new(one, &head_type);
        CHECK(po_int_value(number) == 1000 + i);
        po_decref(number);
        po_decref(head);
    }
    CHECK(po_check(one, 2) == 0 && po_state_free(one, 2) == 0);
}

static po_object *dropped_when_told;

static void drop_when_told(po_state *told, const struct po_gc_event *event, void *argument) {
    (void)told, (void)argument;
    if (event->phase == PO_GC_STOP) {
        po_clear(&dropped_when_told);
    }
}

TEST(an_object_may_end_as_the_end_of_a_run_is_told) {
    po_state *const one = po_state_new();
    po_gc_on(one, drop_when_told, NULL);
    po_object *const stays = po_list(one);
    dropped_when_told = po_list(one);
    CHECK(po_gc_collect(one, 0) == 0 && dropped_when_told == NULL);
    CHECK(po_check(one, 2) == 0);
    CHECK(po_gc_collect(one, 1) == 0 && po_check(one, 2) == 0);
    po_decref(stays);
    CHECK(po_state_free(one, 2) == 0);
}

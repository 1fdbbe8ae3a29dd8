// SPDX-License-Identifier: MIT
// Copyright (c) the poolmalloc authors

// The collector: finds containers that only refer to each other.
//
// A run looks at the objects of a generation and the younger ones: generation 0 and 1 stand in the
// state's vector of young objects; generation 2 is everything else that is tracked in the heap,
// which a full run walks as it lies in memory. Its passes:
//
//     count     adds up, in gc_, the references that come from within the run
//     reach     what has more references than these is referred to from outside; it is reached, and
//               so is all that it refers to
//     sort      reached objects go to the next generation, the others are trash
//
// then, in the order of CPython 3.11: weak references to trash die, their callbacks are called,
// finalizers are called, a second count and reach among the trash finds what they have brought
// back, the rest is cleared, and what is gone is freed.
//
// A run needs no memory. The lower half of gc_ is, one after the other: the index in the vector of
// young objects, or 0 (between runs); the count of references, and PASSED; then its lower 48 bits
// are the next object to visit, or the next object of the trash. The upper ones are the state's
// number, where it has one: trash keeps it above the link (PO_GC_TRASH_SHIFT). An object of the
// trash that ends keeps its block until the run has come by it (PO_GONE).

#include <string.h>
#include <time.h>

#include "object/debug.h"
#include "object/object.h"

// In gc_ of an object that the reach pass has come by and not found reached.
#define PASSED (UINT64_C(1) << 63)

// Objects whose memory is on its way, so that the misses of several overlap. A power of two.
#define AHEAD 16

#define YOUNG_ROOM 256

// Nothing is said to have doubled below this.
#define FULL_BYTES_MIN ((size_t)8 << 20)

// What a run is expected to take for each object before there was one.
#define NS_EACH 100

struct run {
    po_state *state;
    unsigned generation;
    bool again;            // the second count and reach, among the trash
    uint16_t reached_flag; // what PO_REACHED is in objects that were reached
    uint32_t first, last;  // of the young ones: the part of the vector that the run looks at
    uint64_t objects, reached;
    struct po_container *to_visit;                                 // linked through gc_
    struct po_container *trash;                                    // likewise
    bool has_weak, has_finalize;                                   // some of the trash
    void (*meet)(struct run *run, struct po_container *container); // for each object referred to
    unsigned ahead_at;
    po_object *ahead[AHEAD];
};

static struct po_container *linked(const struct po_container *container) {
    return (struct po_container *)(uintptr_t)(container->gc_ & PO_GC_LINK_MASK);
}

static void push(const struct run *run, struct po_container **list,
                 struct po_container *container) {
    container->gc_ = (uint64_t)(uintptr_t)*list | (uint64_t)run->state->number << PO_GC_TRASH_SHIFT;
    *list = container;
}

static bool is_within(const struct run *run, const po_object *object) {
    return run->again
               ? (object->flags_ & (PO_CONTAINER | PO_TRASH | PO_GONE)) == (PO_CONTAINER | PO_TRASH)
               : po_gen(object) <= run->generation;
}

static bool is_reached(const struct run *run, const po_object *object) {
    return (object->flags_ & PO_REACHED) == run->reached_flag;
}

static void set_reached(po_object *object, uint16_t flag) {
    object->flags_ = (uint16_t)((object->flags_ & ~PO_REACHED) | flag);
}

static void meet(struct run *run, po_object *object) {
    if (object != NULL && is_within(run, object)) {
        run->meet(run, (struct po_container *)object);
    }
}

static int visit(po_object *object, void *argument) {
    struct run *const run = argument;
    po_object **const place = &run->ahead[run->ahead_at++ % AHEAD];
    po_object *const ready = *place;
    __builtin_prefetch(object, 1);
    *place = object;
    meet(run, ready);
    return 0;
}

static void meet_all_ahead(struct run *run) {
    for (unsigned i = 0; i < AHEAD; i++) {
        po_object *const ready = run->ahead[i];
        run->ahead[i] = NULL;
        meet(run, ready);
    }
}

static void traverse(struct run *run, const struct po_container *container) {
    po_slots_of(&container->object)->traverse(&container->object, visit, run);
}

// --- The passes, each a step for one object -----------------------------------------------------

static void count_reference(struct run *run, struct po_container *container) {
    (void)run;
    container->gc_++;
}

static int count(void *block, size_t size, void *argument) {
    (void)size;
    struct run *const run = argument;
    const struct po_container *const container = block;
    if (is_within(run, &container->object)) {
        run->objects++;
        traverse(run, container);
    }
    return 0;
}

// An object that the pass has not come by yet is visited then, in the order of memory.
static void reach_by_reference(struct run *run, struct po_container *container) {
    if (!is_reached(run, &container->object)) {
        set_reached(&container->object, run->reached_flag);
        if (container->gc_ & PASSED) {
            push(run, &run->to_visit, container);
        }
    }
}

static void visit_reached(struct run *run, struct po_container *container) {
    run->reached++;
    container->gc_ = po_gc_word(run->state, 0);
    traverse(run, container);
}

static void visit_pushed(struct run *run) {
    while (run->to_visit != NULL) {
        struct po_container *const next = run->to_visit;
        run->to_visit = linked(next);
        visit_reached(run, next);
    }
}

static int reach(void *block, size_t size, void *argument) {
    (void)size;
    struct run *const run = argument;
    struct po_container *const container = block;
    if (!is_within(run, &container->object)) {
        return 0;
    }
    if (is_reached(run, &container->object)) {
        visit_reached(run, container);
    } else if ((uint32_t)container->gc_ < container->object.count_) {
        set_reached(&container->object, run->reached_flag);
        visit_reached(run, container);
    } else {
        container->gc_ |= PASSED;
    }
    visit_pushed(run);
    return 0;
}

static void reach_rest(struct run *run) {
    do {
        visit_pushed(run);
        meet_all_ahead(run);
    } while (run->to_visit != NULL);
}

static void each(struct run *run, int (*step)(void *block, size_t size, void *argument)) {
    po_state *const state = run->state;
    if (run->generation == PO_GEN_OLD) {
        po_walk(state, true, step, run);
        return;
    }
    for (uint32_t i = run->first; i < run->last; i++) {
        if (state->young[i] != NULL) {
            step(state->young[i], 0, run);
        }
    }
}

static void count_and_reach(struct run *run) {
    run->objects = run->reached = 0;
    run->meet = count_reference;
    each(run, count);
    meet_all_ahead(run);
    run->meet = reach_by_reference;
    each(run, reach);
    reach_rest(run);
}

// --- Generations ---------------------------------------------------------------------------------

static void make_old(po_state *state, struct po_container *container) {
    po_set_gen(&container->object, PO_GEN_OLD);
    set_reached(&container->object, state->old_reached);
    container->gc_ = po_gc_word(state, 0);
    state->old++;
}

// Puts an object that a run of this generation has kept where it belongs now. Young ones have a
// place in the vector already.
static void keep(po_state *state, unsigned generation, struct po_container *container,
                 uint32_t at) {
    container->object.flags_ &= (uint16_t) ~(PO_TRASH | PO_CLEARED | PO_REACHED);
    if (generation == 0) {
        po_set_gen(&container->object, 1);
        container->gc_ = po_gc_word(state, at);
    } else {
        make_old(state, container);
    }
}

static void begin_young(struct run *run) {
    po_state *const state = run->state;
    run->reached_flag = PO_REACHED;
    run->first = run->generation == 0 ? state->young_one : 0;
    run->last = state->young_count;
    for (uint32_t i = run->first; i < run->last; i++) {
        state->young[i]->gc_ = po_gc_word(state, 0);
    }
}

static void begin_full(struct run *run) {
    po_state *const state = run->state;
    for (uint32_t i = 0; i < state->young_count; i++) {
        make_old(state, state->young[i]);
    }
    state->young_count = state->young_one = 0;
    run->reached_flag = state->old_reached ^ PO_REACHED;
}

static inline void make_trash(struct run *run, struct po_container *container) {
    po_object *const object = &container->object;
    run->has_weak |= (object->flags_ & PO_HAS_WEAK) || object->type_ == PO_WEAKREF_;
    run->has_finalize |= !(object->flags_ & PO_FINALIZED);
    object->flags_ |= PO_TRASH;
    po_set_gen(object, PO_UNTRACKED);
    push(run, &run->trash, container);
}

// Kept ones to the front, where they are generation 1 or leave the vector; the trash after them.
static void sort_young(struct run *run) {
    po_state *const state = run->state;
    struct po_container **const young = state->young;
    uint32_t kept = run->first, at = run->last;
    while (kept < at) {
        struct po_container *const container = young[kept];
        if (is_reached(run, &container->object)) {
            keep(state, run->generation, container, kept++);
        } else {
            young[kept] = young[--at];
            young[at] = container;
        }
    }
    for (uint32_t i = kept; i < run->last; i++) {
        make_trash(run, young[i]);
    }
    for (uint32_t i = 0; run->generation != 0 && i < kept; i++) {
        young[i] = NULL;
    }
    state->has_holes |= run->generation != 0 || kept < run->last;
    state->young_one = run->generation == 0 ? run->last : 0;
    run->first = kept;
}

static int sort_old(void *block, size_t size, void *argument) {
    (void)size;
    struct run *const run = argument;
    struct po_container *const container = block;
    if (is_within(run, &container->object) && !is_reached(run, &container->object)) {
        make_trash(run, container);
    }
    return 0;
}

static void sort_full(struct run *run) {
    run->state->old_reached = run->reached_flag;
    if (run->reached != run->objects) {
        po_walk(run->state, true, sort_old, run);
        run->state->old -= run->objects - run->reached;
    }
}

// The vector without the places of what has gone, generation 1 first.
static void close_holes(po_state *state) {
    uint32_t to = 0, one = 0;
    for (uint32_t from = 0; from < state->young_count; from++) {
        struct po_container *const container = state->young[from];
        if (container != NULL) {
            one += po_gen(&container->object) == 1;
            container->gc_ = po_gc_word(state, to);
            state->young[to++] = container;
        }
    }
    state->young_count = to;
    state->young_one = one;
    state->has_holes = false;
}

// --- Trash ---------------------------------------------------------------------------------------

static void end_weak_references(struct run *run) {
    struct po_weak_calls calls = { NULL, &calls.first };
    for (struct po_container *trash = run->trash; trash != NULL; trash = linked(trash)) {
        if (trash->object.type_ == PO_WEAKREF_) {
            po_weak_die(run->state, &trash->object);
        }
        if (trash->object.flags_ & PO_HAS_WEAK) {
            po_weak_kill(run->state, &trash->object, &calls);
        }
    }
    po_weak_call(&calls);
}

static void finalize(struct run *run) {
    for (struct po_container *trash = run->trash; trash != NULL; trash = linked(trash)) {
        po_object *const object = &trash->object;
        if (!(object->flags_ & (PO_FINALIZED | PO_GONE))) {
            if (object->count_ == 0) {
                po_end_trash(run->state, trash);
            } else {
                po_incref(object);
                po_finalize(object);
                po_decref(object);
            }
        }
    }
}

static int sort_again(void *block, size_t size, void *argument) {
    (void)size;
    struct run *const run = argument;
    struct po_container *const container = block;
    if (is_within(run, &container->object)) {
        if (!is_reached(run, &container->object)) {
            push(run, &run->trash, container);
        } else if (run->generation == PO_GEN_OLD) {
            keep(run->state, PO_GEN_OLD, container, 0);
        }
    } else if (container->object.flags_ & PO_GONE) {
        push(run, &run->trash, container);
    }
    return 0;
}

// To the front of the trash's part of the vector, which becomes shorter by them.
static void keep_resurrected_young(struct run *run) {
    po_state *const state = run->state;
    struct po_container **const young = state->young;
    for (uint32_t i = run->first; i < run->last; i++) {
        struct po_container *const container = young[i];
        if (is_within(run, &container->object) && is_reached(run, &container->object)) {
            young[i] = young[run->first];
            young[run->first] = run->generation == 0 ? container : NULL;
            keep(state, run->generation, container, run->first++);
        }
    }
}

// Finds what finalizers have brought back, with all that it refers to.
static void find_resurrected(struct run *run) {
    run->again = true;
    for (struct po_container *trash = run->trash, *next; trash != NULL; trash = next) {
        next = linked(trash);
        trash->gc_ = po_gc_word(run->state, 0);
    }
    run->trash = NULL;
    count_and_reach(run);
    each(run, sort_again);
    if (run->generation != PO_GEN_OLD) {
        keep_resurrected_young(run);
    }
}

static uint64_t count_trash(const struct run *run) {
    uint64_t found = 0;
    for (struct po_container *trash = run->trash; trash != NULL; trash = linked(trash)) {
        found += (trash->object.flags_ & PO_GONE) == 0;
    }
    return found;
}

static void free_trash(po_state *state, struct po_container *trash) {
    po_gc_freed(state);
    po_block_free(state, trash, true);
}

static void end_one(struct run *run, struct po_container *trash) {
    if (trash->object.count_ == 0 && !(trash->object.flags_ & PO_GONE)) {
        po_end_trash(run->state, trash);
    }
}

// What clear has come by and the program has filled again, so that its end came too deep. The last
// of them tells where a chain goes on, most often the only one.
static void end_filled(struct run *run) {
    po_state *const state = run->state;
    while (state->filled != NULL) {
        struct po_container *const last = state->filled;
        const bool more = state->has_more_filled;
        state->filled = NULL;
        state->has_more_filled = false;
        end_one(run, last);
        for (struct po_container *trash = more ? run->trash : NULL; trash != NULL;
             trash = linked(trash)) {
            end_one(run, trash);
        }
    }
}

// What has gone when the run has cleared it is freed at once; what has not yet stays in the list.
static void clear(struct run *run) {
    struct po_container *left = NULL;
    for (struct po_container *trash = run->trash, *next; trash != NULL; trash = next) {
        po_object *const object = &trash->object;
        if (!(object->flags_ & PO_GONE)) {
            object->flags_ |= PO_CLEARED;
            if (object->count_ == 0) {
                po_end_trash(run->state, trash);
            } else {
                po_incref(object);
                po_slots_of(object)->clear(object);
                po_decref(object);
            }
        }
        next = linked(trash);
        if (object->flags_ & PO_GONE) {
            free_trash(run->state, trash);
        } else {
            push(run, &left, trash);
        }
    }
    run->trash = left;
    end_filled(run);
}

static void tell(const po_state *state, const struct po_gc_event *event) {
    if (state->tell != NULL) {
        state->tell((po_state *)state, event, state->tell_argument);
    }
}

// Tells of one type after the other, whose objects are no longer CLEARED then.
static uint64_t tell_survivors(struct run *run) {
    uint64_t all = 0;
    for (struct po_container *first = run->trash; first != NULL; first = linked(first)) {
        if ((first->object.flags_ & (PO_GONE | PO_CLEARED)) != PO_CLEARED) {
            continue;
        }
        struct po_gc_event event = {
            PO_GC_SURVIVED, (int)run->generation, 0, 0, po_type_of(&first->object), 0
        };
        for (struct po_container *other = first; other != NULL; other = linked(other)) {
            if (other->object.type_ == first->object.type_ && !(other->object.flags_ & PO_GONE)) {
                other->object.flags_ &= (uint16_t)~PO_CLEARED;
                event.survived++;
            }
        }
        all += event.survived;
        tell(run->state, &event);
    }
    return all;
}

// Frees what has gone since, keeps what has survived, and closes the trash's part of the vector.
static void free_or_keep(struct run *run) {
    po_state *const state = run->state;
    uint32_t at = run->first;
    for (struct po_container *trash = run->trash, *next; trash != NULL; trash = next) {
        next = linked(trash);
        if (trash->object.flags_ & PO_GONE) {
            free_trash(state, trash);
        } else if (run->generation == 0) {
            state->young[at] = trash;
            keep(state, 0, trash, at++);
        } else {
            keep(state, run->generation, trash, 0);
        }
    }
    while (at < run->last) {
        state->young[at++] = NULL;
    }
}

// --- Runs ----------------------------------------------------------------------------------------

static uint64_t now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (uint64_t)time.tv_sec * 1000000000 + (uint64_t)time.tv_nsec;
}

static void find_trash(struct run *run) {
    po_state *const state = run->state;
    const bool full = run->generation == PO_GEN_OLD;
    if (full) {
        begin_full(run);
    } else {
        begin_young(run);
    }
    count_and_reach(run);
    if (full) {
        sort_full(run);
        state->pending = 0;
        state->total = run->reached;
    } else {
        sort_young(run);
        state->pending += run->generation == 1 ? run->reached : 0;
    }
}

static uint64_t dispose(struct run *run) {
    if (run->has_weak) {
        end_weak_references(run);
    }
    if (run->has_finalize) {
        finalize(run);
        find_resurrected(run);
    }
    const uint64_t collected = run->has_finalize ? count_trash(run) : run->objects - run->reached;
    clear(run);
    return collected;
}

static void begin_counts(po_state *state, unsigned generation) {
    if (generation + 1 < PO_GENERATIONS) {
        state->count[generation + 1]++;
    }
    for (unsigned i = 0; i <= generation; i++) {
        state->count[i] = 0;
    }
}

static void note(po_state *state, const struct po_gc_event *event, uint64_t objects) {
    __typeof__(state->stats.generation[0]) *const of = &state->stats.generation[event->generation];
    of->runs++;
    of->collected += event->collected;
    of->survived += event->survived;
    of->total_ns += event->ns;
    of->longest_ns = event->ns > of->longest_ns ? event->ns : of->longest_ns;
    if (objects != 0) {
        state->ns_each[event->generation] = event->ns / objects + 1;
    }
}

// False without memory, and the vector is as it was.
static bool resize_young(po_state *state, uint32_t room) {
    void *const young = po_buffer_resize(state, state->young, room * sizeof *state->young);
    if (young == NULL) {
        return false;
    }
    state->young = young;
    state->young_room = room;
    return true;
}

// While no collection ran, there may have been very many young objects.
static void fit_young(po_state *state) {
    const size_t room = po_room_fit(state->young_room, state->young_count, YOUNG_ROOM);
    if (room != state->young_room) {
        resize_young(state, (uint32_t)room);
    }
}

long po_gc_run(po_state *state, int generation) {
    struct po_gc_event event = { PO_GC_START, generation, 0, 0, NULL, 0 };
    struct run run = { .state = state, .generation = (unsigned)generation };
    const struct po_error before = po_error_last();
    state->running = (int8_t)generation;
    tell(state, &event);
    if (state->has_holes) {
        close_holes(state);
    }
    const uint64_t start = now();
    begin_counts(state, run.generation);
    find_trash(&run);
    const uint64_t objects = run.objects;
    if (run.trash != NULL) {
        event.collected = dispose(&run);
        event.survived = tell_survivors(&run);
        free_or_keep(&run);
    }
    if (state->has_holes) {
        close_holes(state);
    }
    if (run.generation == PO_GEN_OLD) {
        fit_young(state);
        po_weak_fit(state);
        po_intern_fit(state);
        po_spare_free_all(state);
        const size_t held = po_bytes_held(state);
        state->bytes_at_full = held > FULL_BYTES_MIN ? held : FULL_BYTES_MIN;
    }
    event.phase = PO_GC_STOP;
    event.ns = now() - start;
    note(state, &event, objects);
    tell(state, &event);
    // What was told may have given up references.
    if (state->has_holes) {
        close_holes(state);
    }
    state->running = -1;
    if (PO_UNLIKELY(po_debug & PO_DEBUG_CHECK) && run.generation == PO_GEN_OLD) {
        po_check(state, 2);
    }
    po_restore_error(before);
    return (long)event.collected;
}

static bool is_due(const po_state *state, int generation) {
    const bool enough = state->count[generation] > state->config.threshold[generation];
    if (state->config.threshold[0] == 0 || generation < PO_GEN_OLD) {
        return state->config.threshold[0] != 0 && enough;
    }
    return (enough && state->pending >= state->total / 4) ||
           po_bytes_held(state) > 2 * state->bytes_at_full;
}

void po_gc_look_at_bytes(po_state *state) {
    const unsigned threshold = state->config.threshold[0];
    if (state->config.mode == PO_GC_AUTO && state->count[0] < threshold &&
        po_bytes_held(state) > 2 * state->bytes_at_full) {
        state->count[0] = threshold;
    }
}

void po_gc_run_due(po_state *state) {
    if (state->config.mode != PO_GC_AUTO || state->running >= 0 || state->is_ending) {
        return;
    }
    for (int generation = PO_GEN_OLD; generation >= 0; generation--) {
        if (is_due(state, generation)) {
            po_gc_run(state, generation);
            return;
        }
    }
}

bool po_gc_grow(po_state *state) {
    const uint32_t room = state->young_room != 0 ? 2 * state->young_room : YOUNG_ROOM;
    if (room < state->young_room) {
        po_fail(PO_NO_MEMORY);
        return false;
    }
    return resize_young(state, room);
}

void po_track_again(po_state *state, struct po_container *container) {
    const struct po_error before = po_error_last();
    if (state->young_count < state->young_room || po_gc_grow(state)) {
        container->object.flags_ &= (uint16_t) ~(PO_GEN_MASK | PO_REACHED);
        po_track(state, container);
    } else {
        po_restore_error(before);
        make_old(state, container);
    }
}

static void move_young(po_state *state, uint32_t from, uint32_t to) {
    if (from != to) {
        state->young[to] = state->young[from];
        state->young[to]->gc_ = po_gc_word(state, to);
    }
}

static void remove_young(po_state *state, uint32_t at) {
    if (state->running >= 0) {
        state->young[at] = NULL;
        state->has_holes = true;
        return;
    }
    if (at < state->young_one) {
        move_young(state, --state->young_one, at);
        at = state->young_one;
    }
    move_young(state, --state->young_count, at);
}

void po_untrack_slow(po_state *state, struct po_container *container) {
    const unsigned gen = po_gen(&container->object);
    if (gen < PO_GEN_OLD) {
        remove_young(state, (uint32_t)container->gc_);
    } else {
        state->old -= gen == PO_GEN_OLD;
        state->frozen -= gen == PO_FROZEN;
    }
    po_set_gen(&container->object, PO_UNTRACKED);
}

// --- For programs --------------------------------------------------------------------------------

void po_gc_open(po_state *state) {
    state->config = (struct po_gc_config)PO_GC_DEFAULT;
    state->running = -1;
    state->bytes_at_full = FULL_BYTES_MIN;
    for (unsigned i = 0; i < PO_GENERATIONS; i++) {
        state->ns_each[i] = NS_EACH;
    }
}

int po_gc_configure(po_state *state, const struct po_gc_config *config) {
    if (config == NULL ||
        (config->mode != PO_GC_AUTO && config->mode != PO_GC_POLL && config->mode != PO_GC_OFF)) {
        return po_fail(PO_BAD_ARGUMENT);
    }
    state->config = *config;
    return 0;
}

long po_gc_collect(po_state *state, int generation) {
    if (generation < 0 || generation >= PO_GENERATIONS) {
        return po_fail(PO_BAD_ARGUMENT);
    }
    return state->running >= 0 ? 0 : po_gc_run(state, generation);
}

static uint64_t predict_ns(const po_state *state, int generation) {
    const uint64_t young = state->young_count;
    const uint64_t objects = generation == 0   ? young - state->young_one
                             : generation == 1 ? young
                                               : young + state->old;
    return objects * state->ns_each[generation];
}

int po_gc_poll(po_state *state, uint64_t budget_ns) {
    if (state->running >= 0 || state->config.mode == PO_GC_OFF) {
        return 0;
    }
    int generation = PO_GEN_OLD;
    while (generation >= 0 &&
           !(is_due(state, generation) && predict_ns(state, generation) <= budget_ns)) {
        generation--;
    }
    if (generation >= 0) {
        po_gc_run(state, generation);
    }
    // A run counts for the next generation, which may be due by it.
    return is_due(state, 2) || is_due(state, 1) || is_due(state, 0);
}

static int freeze(void *block, size_t size, void *argument) {
    (void)size, (void)argument;
    po_object *const object = block;
    if (po_is_tracked(object)) {
        po_set_gen(object, PO_FROZEN);
    }
    return 0;
}

void po_gc_freeze(po_state *state) {
    if (state->running < 0) {
        po_walk(state, true, freeze, NULL);
        state->frozen += state->old + state->young_count;
        state->old = state->young_count = state->young_one = 0;
        memset(state->count, 0, sizeof state->count);
    }
}

void po_gc_stats(const po_state *state, struct po_gc_stats *to) {
    *to = state->stats;
    for (unsigned i = 0; i < PO_GENERATIONS; i++) {
        to->count[i] = state->count[i];
    }
    to->young = state->young_count;
    to->old = state->old;
    to->frozen = state->frozen;
}

void po_gc_on(po_state *state,
              void (*function)(po_state *state, const struct po_gc_event *event, void *argument),
              void *argument) {
    state->tell = function;
    state->tell_argument = argument;
}

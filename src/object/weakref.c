// SPDX-License-Identifier: MIT
// Copyright (c) the poolmalloc authors

// Weak references. No object has room for them: a state has a table, by the target's address, and
// an object that is in it has a flag. So any object can have some, and those without pay nothing.
//
// A weak reference that has a target is in the ring of that target, whose first the table holds;
// one without is in none. References from rings are not counted.

#include <string.h>

#include "object/object.h"

static bool is_dead_or_dying(const po_object *target) {
    return target == NULL || target->count_ == 0 ||
           ((target->flags_ & PO_CONTAINER) && (target->flags_ & (PO_ENDING | PO_GONE)));
}

// --- The table -----------------------------------------------------------------------------------

static uint64_t hash_of(const po_object *target) {
    return po_hash_word((uintptr_t)target);
}

static uint64_t hash_of_ring(const void *entry) {
    return hash_of(((const struct po_weakref *)entry)->target);
}

const struct po_table_kind po_weak_kind = { .hash = hash_of_ring, .room_least = 8 };

// The place of the ring of a target that has one.
static size_t find(const struct po_table *table, const po_object *target) {
    size_t at = po_table_home(table, hash_of(target));
    while (((const struct po_weakref *)table->entry[at])->target != target) {
        at = po_table_next(table, at);
    }
    return at;
}

void po_weak_fit(po_state *state) {
    po_table_fit(state, &state->weak, &po_weak_kind);
}

static struct po_weakref *take_ring(po_state *state, po_object *target) {
    const size_t at = find(&state->weak, target);
    struct po_weakref *const ring = state->weak.entry[at];
    po_table_remove(&state->weak, &po_weak_kind, at);
    target->flags_ &= (uint16_t)~PO_HAS_WEAK;
    return ring;
}

// --- Ends ----------------------------------------------------------------------------------------

// Nobody is to find it in a ring any more.
static void kill(struct po_weakref *weakref) {
    weakref->target = NULL;
    weakref->next = weakref->prev = NULL;
}

// The weak reference leaves its ring, and is dead.
static void leave(po_state *state, struct po_weakref *weakref) {
    po_object *const target = weakref->target;
    if (target == NULL || !(target->flags_ & PO_HAS_WEAK)) {
        weakref->target = NULL;
        return;
    }
    if (weakref->next == weakref) {
        take_ring(state, target);
    } else {
        const size_t at = find(&state->weak, target);
        if (state->weak.entry[at] == weakref) {
            state->weak.entry[at] = weakref->next;
        }
        weakref->prev->next = weakref->next;
        weakref->next->prev = weakref->prev;
    }
    kill(weakref);
}

void po_weak_die(po_state *state, po_object *weakref) {
    leave(state, (struct po_weakref *)weakref);
}

void po_weak_kill(po_state *state, po_object *target, struct po_weak_calls *calls) {
    struct po_weakref *const first = take_ring(state, target), *weakref = first, *next;
    do {
        next = weakref->next;
        kill(weakref);
        const po_object *const object = &weakref->object;
        if (weakref->callback != NULL && object->count_ != 0 && !(object->flags_ & PO_TRASH)) {
            po_incref(&weakref->object);
            *calls->end = weakref;
            calls->end = &weakref->next;
        }
        weakref = next;
    } while (weakref != first);
}

void po_weak_call(const struct po_weak_calls *calls) {
    const struct po_error before = po_error_last();
    for (struct po_weakref *weakref = calls->first, *next; weakref != NULL; weakref = next) {
        next = weakref->next;
        weakref->next = NULL;
        weakref->callback(&weakref->object, weakref->data);
        po_decref(&weakref->object);
    }
    po_restore_error(before);
}

void po_weak_end(po_state *state, po_object *target) {
    struct po_weak_calls calls = { NULL, &calls.first };
    po_weak_kill(state, target, &calls);
    po_weak_call(&calls);
}

// --- The type ------------------------------------------------------------------------------------

static int traverse(const po_object *self, po_visit visit, void *argument) {
    PO_VISIT(((const struct po_weakref *)self)->data);
    return 0;
}

static void clear(po_object *self) {
    struct po_weakref *const weakref = (struct po_weakref *)self;
    leave(po_state_of_mortal(self), weakref);
    po_clear(&weakref->data);
}

po_type po_weakref_type = { .name = "weakref",
                            .size = sizeof(struct po_weakref),
                            .number_ = PO_WEAKREF_ };

const struct po_slots po_weakref_slots = {
    .type = &po_weakref_type,
    .only_refers = true,
    .spare = (sizeof(struct po_weakref) + 15) / 16,
    .size = sizeof(struct po_weakref),
    .traverse = traverse,
    .clear = clear,
};

// The one without a callback that all share: the last of the ring.
static struct po_weakref *shared_one(const po_state *state, const po_object *target) {
    if (!(target->flags_ & PO_HAS_WEAK)) {
        return NULL;
    }
    const struct po_weakref *const first = state->weak.entry[find(&state->weak, target)];
    struct po_weakref *const last = first->prev;
    return last->callback == NULL && last->object.count_ != 0 ? last : NULL;
}

// Callbacks are called from the latest to the first; one without is last. The table has room.
static void join(po_state *state, struct po_weakref *weakref, po_object *target) {
    if (!(target->flags_ & PO_HAS_WEAK)) {
        target->flags_ |= PO_HAS_WEAK;
        weakref->next = weakref->prev = weakref;
        po_table_insert(&state->weak, &po_weak_kind, weakref);
        return;
    }
    const size_t at = find(&state->weak, target);
    struct po_weakref *const first = state->weak.entry[at];
    weakref->next = first;
    weakref->prev = first->prev;
    first->prev = first->prev->next = weakref;
    if (weakref->callback != NULL) {
        state->weak.entry[at] = weakref;
    }
}

po_object *po_weakref(po_state *state, po_object *target, po_weak_callback callback,
                      po_object *data) {
    if (target == NULL || is_dead_or_dying(target)) {
        return po_fail_null(PO_WRONG_TYPE);
    }
    po_check_state(state, target);
    po_check_state(state, data);
    struct po_weakref *const shared = callback == NULL ? shared_one(state, target) : NULL;
    if (shared != NULL) {
        return po_incref(&shared->object);
    }
    struct po_weakref *const weakref = po_make_container(state, PO_WEAKREF_, sizeof *weakref);
    if (weakref == NULL) {
        return NULL;
    }
    // A callback of a collection may have made the one that all share.
    struct po_weakref *const made = callback == NULL ? shared_one(state, target) : NULL;
    if (made != NULL) {
        po_unmake_container(state, weakref);
        return po_incref(&made->object);
    }
    weakref->target = target;
    weakref->next = weakref->prev = NULL;
    weakref->callback = callback;
    weakref->data = callback != NULL && data != NULL ? po_incref(data) : NULL;
    if (callback != NULL) {
        po_keep_order(state);
    }
    // A count may have reached the top since the target has weak references.
    const bool is_target = (target->flags_ & PO_HAS_WEAK) != 0;
    if (is_target || !po_is_immortal(target)) {
        if (!is_target && !po_table_reserve(state, &state->weak, &po_weak_kind)) {
            po_clear(&weakref->data);
            po_unmake_container(state, weakref);
            return NULL;
        }
        join(state, weakref, target);
    }
    po_track(state, weakref);
    return &weakref->object;
}

int po_weakref_get(const po_object *object, po_object **target) {
    *target = NULL;
    if (!po_check_type(object, PO_WEAKREF_)) {
        return -1;
    }
    po_object *const held = ((const struct po_weakref *)object)->target;
    if (is_dead_or_dying(held)) {
        return 0;
    }
    *target = po_incref(held);
    return 1;
}

// SPDX-License-Identifier: MIT
// Copyright (c) the poolmalloc authors

// Weak references. No object has room for them: a state has a table, by the target's address, and an
// object that is in it has a flag. So any object can have some, and those without pay nothing.
//
// A weak reference that has a target is in the chain of that target, which the table holds; one without
// is in none. References from chains are not counted.

#include <string.h>

#include "object/object.h"

struct po_weakref {
    PO_HEAD;
    po_object *target;       // NULL when dead; not counted
    struct po_weakref *next; // of the same target; when dead, of those that are to be called
    po_weak_callback callback;
    po_object *data;
};

enum { ROOM_MIN = 8 };

static bool is_dead_or_dying(const po_object *target) {
    return target == NULL || target->count_ == 0 ||
           ((target->flags_ & PO_CONTAINER) && (target->flags_ & (PO_ENDING | PO_GONE)));
}

// --- The table: linear probing, never more than half full -----------------------------------------

static size_t home_of(const struct po_weak_table *table, const po_object *target) {
    return po_hash_word((uintptr_t)target) & (table->room - 1);
}

// The place of a target's chain, or the empty one where it would be. There is one.
static size_t find(const struct po_weak_table *table, const po_object *target) {
    size_t at = home_of(table, target);
    while (table->entry[at] != NULL && table->entry[at]->target != target) {
        at = (at + 1) & (table->room - 1);
    }
    return at;
}

// False without memory, and the table is as it was.
static bool resize(po_state *state, size_t room) {
    struct po_weak_table *const table = &state->weak;
    const struct po_weak_table other = {
        .entry = po_buffer_resize(state, NULL, room * sizeof *other.entry),
        .used = table->used,
        .room = room,
    };
    if (other.entry == NULL) {
        return false;
    }
    memset(other.entry, 0, room * sizeof *other.entry);
    for (size_t i = 0; i < table->room; i++) {
        if (table->entry[i] != NULL) {
            other.entry[find(&other, table->entry[i]->target)] = table->entry[i];
        }
    }
    po_buffer_free(state, table->entry);
    *table = other;
    return true;
}

static bool reserve(po_state *state) {
    const struct po_weak_table *const table = &state->weak;
    return 2 * (table->used + 1) <= table->room ||
           resize(state, table->room != 0 ? 2 * table->room : ROOM_MIN);
}

void po_weak_fit(po_state *state) {
    const size_t room = po_room_that_fits(state->weak.used, state->weak.room, ROOM_MIN);
    if (room != state->weak.room) {
        resize(state, room);
    }
}

// Empties a place; entries after it move up where they may, so that no probe ends too early.
static void empty(struct po_weak_table *table, size_t at) {
    const size_t mask = table->room - 1;
    size_t next = at;
    table->used--;
    for (;;) {
        next = (next + 1) & mask;
        if (table->entry[next] == NULL) {
            break;
        }
        const size_t home = home_of(table, table->entry[next]->target);
        if (((next - home) & mask) >= ((next - at) & mask)) {
            table->entry[at] = table->entry[next];
            at = next;
        }
    }
    table->entry[at] = NULL;
}

static struct po_weakref *take_chain(po_state *state, po_object *target) {
    const size_t at = find(&state->weak, target);
    struct po_weakref *const chain = state->weak.entry[at];
    empty(&state->weak, at);
    target->flags_ &= (uint16_t)~PO_HAS_WEAK;
    return chain;
}

// --- Ends -------------------------------------------------------------------------------------------

// The weak reference leaves its chain, and is dead.
static void leave(po_state *state, struct po_weakref *weakref) {
    po_object *const target = weakref->target;
    if (target == NULL || !(target->flags_ & PO_HAS_WEAK)) {
        weakref->target = NULL;
        return;
    }
    const size_t at = find(&state->weak, target);
    struct po_weakref **place = &state->weak.entry[at];
    if (*place == weakref && weakref->next == NULL) {
        take_chain(state, target);
    } else {
        while (*place != weakref) {
            place = &(*place)->next;
        }
        *place = weakref->next;
    }
    weakref->target = NULL;
    weakref->next = NULL;
}

void po_weak_die(po_state *state, po_object *weakref) {
    leave(state, (struct po_weakref *)weakref);
}

void po_weak_kill(po_state *state, po_object *target, struct po_weak_calls *calls) {
    for (struct po_weakref *weakref = take_chain(state, target), *next; weakref != NULL;
         weakref = next) {
        next = weakref->next;
        weakref->target = NULL;
        weakref->next = NULL;
        const po_object *const object = &weakref->object;
        if (weakref->callback != NULL && object->count_ != 0 && !(object->flags_ & PO_TRASH)) {
            po_incref(&weakref->object);
            *calls->end = weakref;
            calls->end = &weakref->next;
        }
    }
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

// --- The type ---------------------------------------------------------------------------------------

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

// The one without a callback that all share: the last of the chain.
static struct po_weakref *shared_one(const po_state *state, const po_object *target) {
    if (!(target->flags_ & PO_HAS_WEAK)) {
        return NULL;
    }
    struct po_weakref *weakref = state->weak.entry[find(&state->weak, target)];
    while (weakref->next != NULL) {
        weakref = weakref->next;
    }
    return weakref->callback == NULL && weakref->object.count_ != 0 ? weakref : NULL;
}

static void join(po_state *state, struct po_weakref *weakref, po_object *target) {
    const size_t at = find(&state->weak, target);
    struct po_weakref **place = &state->weak.entry[at];
    if (*place == NULL) {
        state->weak.used++;
        target->flags_ |= PO_HAS_WEAK;
    }
    // Callbacks are called from the latest to the first; one without is last.
    if (weakref->callback == NULL) {
        while (*place != NULL) {
            place = &(*place)->next;
        }
    }
    weakref->next = *place;
    *place = weakref;
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
    weakref->next = NULL;
    weakref->callback = callback;
    weakref->data = callback != NULL && data != NULL ? po_incref(data) : NULL;
    if (callback != NULL) {
        po_keep_order(state);
    }
    if (!po_is_immortal(target)) {
        if (!reserve(state)) {
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

// SPDX-License-Identifier: MIT
// Copyright (c) the poolmalloc authors

// Which slot compares two objects, and which hashes one.
//
// Slots of containers and of the program may run anything: both objects are held meanwhile. Those
// of numbers, str and bytes run nothing.

#include "object/object.h"

static bool is_atom(const po_object *object) {
    return object->type_ <= PO_BYTES_;
}

static bool is_number(const po_object *object) {
    return object->type_ >= PO_BOOL_ && object->type_ <= PO_FLOAT_;
}

// The slot of float takes any number as the other one.
static int numbers_equal(po_object *a, po_object *b) {
    if (a->type_ == PO_FLOAT_) {
        return po_float_slots.equal(a, b);
    }
    if (b->type_ == PO_FLOAT_) {
        return po_float_slots.equal(b, a);
    }
    return po_int_value(a) == po_int_value(b);
}

// The type whose own slot serves.
static const po_type *comparing_type(const po_object *object) {
    const po_type *type = po_slots_of(object)->type;
    while (type != NULL && type->equal == NULL) {
        type = type->base;
    }
    return type;
}

typedef int (*compare)(po_object *self, po_object *other);

// A slot takes objects of its type and of derived ones: one serves two types only where both have
// it from the same type. NULL: none does.
static compare common_slot(const po_object *a, const po_object *b) {
    if (PO_LIKELY(a->type_ == b->type_)) {
        return po_slots_of(a)->equal;
    }
    const po_type *const type = comparing_type(a);
    return type != NULL && type == comparing_type(b) ? type->equal : NULL;
}

static int compare_held(compare slot, po_object *a, po_object *b) {
    if (!po_depth_enter()) {
        return -1;
    }
    po_incref(a);
    po_incref(b);
    const int result = slot(a, b);
    po_decref(a);
    po_decref(b);
    po_depth_leave();
    return result < 0 ? -1 : result != 0;
}

int po_equal(po_object *a, po_object *b) {
    if (PO_UNLIKELY(a == NULL || b == NULL)) {
        return po_fail(PO_WRONG_TYPE);
    }
    if (a == b) {
        return 1;
    }
    if (is_number(a) && is_number(b)) {
        return numbers_equal(a, b);
    }
    const compare slot = common_slot(a, b);
    if (slot == NULL) {
        return 0;
    }
    return is_atom(a) ? slot(a, b) : compare_held(slot, a, b);
}

static int hash_held(int (*slot)(po_object *self, uint64_t *to), po_object *object, uint64_t *to) {
    if (!po_depth_enter()) {
        return -1;
    }
    po_incref(object);
    const int result = slot(object, to);
    po_decref(object);
    po_depth_leave();
    return result == 0 ? 0 : -1;
}

int po_hash(po_object *object, uint64_t *to) {
    if (PO_UNLIKELY(object == NULL || to == NULL)) {
        return po_fail(PO_WRONG_TYPE);
    }
    const struct po_slots *const slots = po_slots_of(object);
    if (slots->hash != NULL) {
        return is_atom(object) ? slots->hash(object, to) : hash_held(slots->hash, object, to);
    }
    if (slots->equal != NULL) {
        return po_fail(PO_UNHASHABLE);
    }
    *to = po_hash_word((uintptr_t)object);
    return 0;
}

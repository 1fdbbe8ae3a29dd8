// SPDX-License-Identifier: MIT
// Copyright (c) the poolmalloc authors

// Integers of 64 bits. The small ones are shared: filled in before there are states, never written
// again.

#include "object/object.h"

enum { DIGITS_MAX = 20 }; // of the least one, with its sign

struct po_int_ po_small_ints_[PO_SMALL_INT_MAX_ - PO_SMALL_INT_MIN_ + 1];

void po_int_start(void) {
    for (int value = PO_SMALL_INT_MIN_; value <= PO_SMALL_INT_MAX_; value++) {
        po_small_ints_[value - PO_SMALL_INT_MIN_] =
            (struct po_int_){ { PO_IMMORTAL_, PO_INT_, PO_UNTRACKED | PO_SHARED }, value };
    }
}

po_object *po_int_new_(po_state *state, int64_t value) {
    return po_make_word(state, PO_INT_, (uint64_t)value);
}

static int equal(po_object *self, po_object *other) {
    return po_int_value(self) == po_int_value(other);
}

static int hash(po_object *self, uint64_t *to) {
    *to = po_hash_word((uint64_t)po_int_value(self));
    return 0;
}

static int repr(po_object *self, po_text *to) {
    const int64_t value = po_int_value(self);
    uint64_t rest = value < 0 ? -(uint64_t)value : (uint64_t)value;
    char digits[DIGITS_MAX];
    size_t at = sizeof digits;
    do {
        digits[--at] = (char)('0' + rest % 10);
        rest /= 10;
    } while (rest != 0);
    if (value < 0) {
        digits[--at] = '-';
    }
    return po_text_add(to, digits + at, sizeof digits - at);
}

po_type po_int_type = {
    .name = "int",
    .size = sizeof(struct po_int_),
    .equal = equal,
    .hash = hash,
    .repr = repr,
    .number_ = PO_INT_,
};

const struct po_slots po_int_slots = {
    .type = &po_int_type,
    .size = sizeof(struct po_int_),
    .equal = equal,
    .hash = hash,
    .repr = repr,
};

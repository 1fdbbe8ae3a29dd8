// SPDX-License-Identifier: MIT
// Copyright (c) the poolmalloc authors

// False and true: integers 0 and 1 with another name.

#include "object/object.h"

struct po_int_ po_bools_[2] = {
    { { PO_IMMORTAL_, PO_BOOL_, PO_UNTRACKED | PO_SHARED }, 0 },
    { { PO_IMMORTAL_, PO_BOOL_, PO_UNTRACKED | PO_SHARED }, 1 },
};

static int equal(po_object *self, po_object *other) {
    return po_int_value(self) == po_int_value(other);
}

static int hash(po_object *self, uint64_t *to) {
    *to = po_hash_word((uint64_t)po_int_value(self));
    return 0;
}

static int repr(po_object *self, po_text *to) {
    return po_int_value(self) != 0 ? po_text_add(to, "True", 4) : po_text_add(to, "False", 5);
}

po_type po_bool_type = {
    .name = "bool",
    .size = sizeof(struct po_int_),
    .equal = equal,
    .hash = hash,
    .repr = repr,
    .number_ = PO_BOOL_,
};

const struct po_slots po_bool_slots = {
    .type = &po_bool_type,
    .size = sizeof(struct po_int_),
    .equal = equal,
    .hash = hash,
    .repr = repr,
};

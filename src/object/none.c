// SPDX-License-Identifier: MIT
// Copyright (c) the poolmalloc authors

// None.

#include "object/object.h"

po_object po_none_ = { PO_IMMORTAL_, PO_NONE_, PO_UNTRACKED | PO_SHARED };

// Not by its address, so that runs with a seed repeat; and as no int that can be named without the
// key.
static int hash(po_object *self, uint64_t *to) {
    *to = po_hash_word(po_hash_word(self->type_) + self->type_);
    return 0;
}

static int repr(po_object *self, po_text *to) {
    (void)self;
    return po_text_add(to, "None", 4);
}

po_type po_none_type = {
    .name = "NoneType",
    .size = sizeof(po_object),
    .hash = hash,
    .repr = repr,
    .number_ = PO_NONE_,
};

const struct po_slots po_none_slots = {
    .type = &po_none_type,
    .size = sizeof(po_object),
    .hash = hash,
    .repr = repr,
};

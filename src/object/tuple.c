// SPDX-License-Identifier: MIT
// Copyright (c) the poolmalloc authors

// Tuples: as many references as they were made with. The empty one is shared, immortal and belongs
// to no state.

#include <string.h>

#include "object/object.h"

// Tuples of up to so many items are made of spares.
#define SPARED_ITEMS (((PO_SPARE_SIZES - 1) * 16 - sizeof(struct po_tuple_)) / sizeof(po_object *))

static struct po_tuple_ empty = { .object = { PO_IMMORTAL_, PO_TUPLE_, PO_UNTRACKED | PO_SHARED } };

static struct po_tuple_ *tuple_of(const po_object *object) {
    return (struct po_tuple_ *)object;
}

// --- Making -----------------------------------------------------------------------------------

// Of items that fit into the address space.
static size_t size_of(size_t n) {
    return sizeof(struct po_tuple_) + n * sizeof(po_object *);
}

static po_object *give_up(size_t n, po_object *const *items) {
    while (n != 0) {
        po_decref(items[--n]);
    }
    return NULL;
}

// The item at `met` is NULL.
static __attribute__((noinline)) po_object *unmake(po_state *state, struct po_tuple_ *tuple,
                                                   size_t met, po_object *const *items, bool take) {
    const size_t n = tuple->items;
    po_unmake_container(state, tuple);
    give_up(take ? n : met, items);
    return take ? NULL : po_fail_null(PO_WRONG_TYPE);
}

static inline __attribute__((always_inline)) po_object *fill(po_state *state,
                                                             struct po_tuple_ *tuple, size_t n,
                                                             po_object *const *items, bool take) {
    tuple->items = n;
    for (size_t i = 0; i < n; i++) {
        if (PO_UNLIKELY(items[i] == NULL)) {
            return unmake(state, tuple, i, items, take);
        }
        po_check_state(state, items[i]);
        tuple->item[i] = take ? items[i] : po_incref(items[i]);
    }
    po_track(state, tuple);
    return &tuple->object;
}

po_object *po_tuple_slow(po_state *state, size_t n, po_object *const *items, bool take) {
    struct po_tuple_ *const tuple =
        n <= (PTRDIFF_MAX - sizeof(struct po_tuple_)) / sizeof(po_object *)
            ? po_make_container(state, PO_TUPLE_, size_of(n))
            : po_fail_null(PO_NO_MEMORY);
    return tuple != NULL ? fill(state, tuple, n, items, take) : give_up(take ? n : 0, items);
}

// Calls what is rare in its last step only, so that the usual way saves no registers.
static inline __attribute__((always_inline)) po_object *make_of(po_state *state, size_t n,
                                                                po_object *const *items,
                                                                bool take) {
    struct po_tuple_ *const tuple =
        PO_LIKELY(n - 1 < SPARED_ITEMS) ? po_make_of_spare(state, PO_TUPLE_, size_of(n)) : NULL;
    if (PO_LIKELY(tuple != NULL)) {
        return fill(state, tuple, n, items, take);
    }
    return n == 0 ? &empty.object : po_tuple_slow(state, n, items, take);
}

po_object *po_tuple(po_state *state, size_t n, po_object *const *items) {
    return make_of(state, n, items, false);
}

po_object *po_tuple_take(po_state *state, size_t n, po_object *const *items) {
    return make_of(state, n, items, true);
}

// --- Slots ------------------------------------------------------------------------------------

static int traverse(const po_object *self, po_visit visit, void *argument) {
    const struct po_tuple_ *const tuple = tuple_of(self);
    const size_t items = tuple->items;
    for (size_t i = 0; i < items; i++) {
        const int stop = visit(tuple->item[i], argument);
        if (PO_UNLIKELY(stop != 0)) {
            return stop;
        }
    }
    return 0;
}

// Callbacks see an empty tuple already.
static void clear(po_object *self) {
    struct po_tuple_ *const tuple = tuple_of(self);
    size_t left = tuple->items;
    tuple->items = 0;
    while (left != 0) {
        po_object *const item = tuple->item[--left];
        if (!po_is_immortal(item) && --item->count_ == 0) {
            po_dead_(item);
        }
    }
}

static int equal(po_object *self, po_object *other) {
    const struct po_tuple_ *const a = tuple_of(self);
    const struct po_tuple_ *const b = tuple_of(other);
    if (a->items != b->items) {
        return 0;
    }
    for (size_t i = 0; i < a->items; i++) {
        const int same = a->item[i] == b->item[i] ? 1 : po_equal(a->item[i], b->item[i]);
        if (same != 1) {
            return same;
        }
    }
    return 1;
}

#define HASH_FACTOR UINT64_C(0x9e3779b97f4a7c15)

static int hash(po_object *self, uint64_t *to) {
    const struct po_tuple_ *const tuple = tuple_of(self);
    uint64_t all = po_hash_word(po_hash_word(tuple->items) + self->type_);
    for (size_t i = 0; i < tuple->items; i++) {
        uint64_t one;
        if (po_hash(tuple->item[i], &one) != 0) {
            return -1;
        }
        // A factor, so that no item takes away what those before it have made.
        all = po_hash_word(all * HASH_FACTOR + one);
    }
    *to = all;
    return 0;
}

static int repr(po_object *self, po_text *to) {
    const struct po_tuple_ *const tuple = tuple_of(self);
    if (po_text_add(to, "(", 1) != 0) {
        return -1;
    }
    for (size_t i = 0; i < tuple->items; i++) {
        if ((i != 0 && po_text_add(to, ", ", 2) != 0) || po_text_repr(to, tuple->item[i]) != 0) {
            return -1;
        }
    }
    return tuple->items == 1 ? po_text_add(to, ",)", 2) : po_text_add(to, ")", 1);
}

po_type po_tuple_type = {
    .name = "tuple",
    .size = sizeof(struct po_tuple_),
    .item_size = sizeof(po_object *),
    .traverse = traverse,
    .clear = clear,
    .equal = equal,
    .hash = hash,
    .repr = repr,
    .number_ = PO_TUPLE_,
};

const struct po_slots po_tuple_slots = {
    .type = &po_tuple_type,
    .only_refers = true,
    .spare = PO_SPARE_ITEMS,
    .size = sizeof(struct po_tuple_),
    .item_size = sizeof(po_object *),
    .traverse = traverse,
    .clear = clear,
    .equal = equal,
    .hash = hash,
    .repr = repr,
};

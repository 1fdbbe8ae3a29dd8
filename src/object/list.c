// SPDX-License-Identifier: MIT
// Copyright (c) the poolmalloc authors

// Lists: references in a buffer that grows by an eighth. What a callback of an item that leaves may
// see is always a list without that item: first the list changes, then references are given up.

#include <string.h>

#include "object/object.h"

#define HELD_ON_STACK 32

static struct po_list_ *list_of(const po_object *object) {
    return (struct po_list_ *)object;
}

static po_state *state_of(const struct po_list_ *list) {
    return po_state_of_mortal(&list->object);
}

po_object *po_list(po_state *state) {
    struct po_list_ *const list = po_make_container(state, PO_LIST_, sizeof *list);
    if (PO_UNLIKELY(list == NULL)) {
        return NULL;
    }
    list->item = NULL;
    list->items = list->room = 0;
    po_track(state, list);
    return &list->object;
}

// --- Room -------------------------------------------------------------------------------------

// One less than a multiple of four: with the head of a buffer, blocks are filled to their end.
static size_t room_for(size_t items) {
    const size_t more = items / 8 + (items < 8 ? 6 : 8);
    const size_t room = ((items + more) & ~(size_t)3) - 1;
    return room < UINT32_MAX ? room : UINT32_MAX;
}

// Builds with checks have no room that the inline append could see, so that each append is checked.
static size_t room_of(const struct po_list_ *list) {
    return PM_CHECKS && list->item != NULL ? po_buffer_size(list->item) / sizeof *list->item
                                           : list->room;
}

// The buffer stays as it is when there is no memory.
static bool resize(struct po_list_ *list, size_t room) {
    po_object **const item = po_buffer_resize(state_of(list), list->item, room * sizeof *item);
    if (PO_UNLIKELY(item == NULL)) {
        return false;
    }
    list->item = item;
    list->room = PM_CHECKS ? 0 : (uint32_t)room;
    return true;
}

static __attribute__((noinline)) bool grow(struct po_list_ *list) {
    if (list->items == UINT32_MAX) {
        po_fail(PO_NO_MEMORY);
        return false;
    }
    return resize(list, room_for((size_t)list->items + 1));
}

// A buffer that can't shrink serves as well.
static __attribute__((noinline)) void shrink(struct po_list_ *list) {
    const size_t room = room_for(list->items);
    if (room < room_of(list)) {
        const struct po_error before = po_error_last();
        if (!resize(list, room)) {
            po_restore_error(before);
        }
    }
}

static inline void shrink_where_sparse(struct po_list_ *list) {
    if (PO_UNLIKELY(list->items < room_of(list) / 2)) {
        shrink(list);
    }
}

// --- Items come -------------------------------------------------------------------------------

static inline bool may_hold(const po_object *list, const po_object *object) {
    if (PO_UNLIKELY(!po_check_type(list, PO_LIST_))) {
        return false;
    }
    if (PO_UNLIKELY(object == NULL)) {
        po_fail(PO_WRONG_TYPE);
        return false;
    }
    po_check_state(state_of(list_of(list)), object);
    return true;
}

// Takes the reference only when it succeeds.
static inline bool push(struct po_list_ *list, po_object *object) {
    if (PO_UNLIKELY(list->items >= room_of(list)) && !grow(list)) {
        return false;
    }
    list->item[list->items++] = object;
    return true;
}

int po_list_append_slow_(po_object *list, po_object *object) {
    if (!may_hold(list, object) || !push(list_of(list), object)) {
        return -1;
    }
    po_incref(object);
    return 0;
}

int po_list_append_take(po_object *list, po_object *taken) {
    // The error of who could not make it stays.
    if (PO_UNLIKELY(taken == NULL)) {
        return -1;
    }
    if (PO_UNLIKELY(!may_hold(list, taken) || !push(list_of(list), taken))) {
        po_decref(taken);
        return -1;
    }
    return 0;
}

int po_list_insert(po_object *object, size_t index, po_object *inserted) {
    if (!may_hold(object, inserted)) {
        return -1;
    }
    struct po_list_ *const list = list_of(object);
    if (index > list->items) {
        return po_fail(PO_NO_INDEX);
    }
    if (list->items >= room_of(list) && !grow(list)) {
        return -1;
    }
    po_object **const at = list->item + index;
    memmove(at + 1, at, (list->items - index) * sizeof *at);
    *at = po_incref(inserted);
    list->items++;
    return 0;
}

int po_list_set(po_object *object, size_t index, po_object *set) {
    if (!may_hold(object, set)) {
        return -1;
    }
    struct po_list_ *const list = list_of(object);
    if (index >= list->items) {
        return po_fail(PO_NO_INDEX);
    }
    po_set(&list->item[index], set);
    return 0;
}

// --- Items leave ------------------------------------------------------------------------------

po_object *po_list_pop(po_object *object) {
    if (!po_check_type(object, PO_LIST_)) {
        return NULL;
    }
    struct po_list_ *const list = list_of(object);
    if (list->items == 0) {
        return po_fail_null(PO_NO_INDEX);
    }
    po_object *const last = list->item[--list->items];
    shrink_where_sparse(list);
    return last;
}

static void give_up(po_object **item, size_t n) {
    while (n != 0) {
        po_decref(item[--n]);
    }
}

static void clear(po_object *self) {
    struct po_list_ *const list = list_of(self);
    if (list->item == NULL) {
        return;
    }
    po_state *const state = state_of(list);
    po_object **const item = list->item;
    const size_t items = list->items;
    list->item = NULL;
    list->items = list->room = 0;
    give_up(item, items);
    po_buffer_free(state, item);
}

static void cut(struct po_list_ *list, size_t index, size_t n, po_object **held) {
    po_object **const from = list->item + index;
    memcpy(held, from, n * sizeof *held);
    memmove(from, from + n, (list->items - index - n) * sizeof *from);
    list->items -= (uint32_t)n;
    shrink_where_sparse(list);
}

// Without memory, a few at a time from the last on; the list may be another one after each few.
static void remove_few_by_few(struct po_list_ *list, size_t index, size_t n) {
    po_object *held[HELD_ON_STACK];
    while (n != 0 && index < list->items) {
        const size_t there = list->items - index;
        n = n < there ? n : there;
        const size_t few = n < HELD_ON_STACK ? n : HELD_ON_STACK;
        cut(list, index + n - few, few, held);
        give_up(held, few);
        n -= few;
    }
}

static void remove_many(struct po_list_ *list, size_t index, size_t n) {
    po_state *const state = state_of(list);
    const struct po_error before = po_error_last();
    po_object **const held = po_buffer_resize(state, NULL, n * sizeof *held);
    if (held == NULL) {
        po_restore_error(before);
        remove_few_by_few(list, index, n);
        return;
    }
    cut(list, index, n, held);
    give_up(held, n);
    po_buffer_free(state, held);
}

int po_list_remove(po_object *object, size_t index, size_t n) {
    if (!po_check_type(object, PO_LIST_)) {
        return -1;
    }
    struct po_list_ *const list = list_of(object);
    if (index > list->items || n > list->items - index) {
        return po_fail(PO_NO_INDEX);
    }
    if (n == list->items) {
        clear(object);
    } else if (n <= HELD_ON_STACK) {
        remove_few_by_few(list, index, n);
    } else {
        remove_many(list, index, n);
    }
    return 0;
}

// --- Slots ------------------------------------------------------------------------------------

static int traverse(const po_object *self, po_visit visit, void *argument) {
    const struct po_list_ *const list = list_of(self);
    po_object *const *const item = list->item;
    const size_t items = list->items;
    for (size_t i = 0; i < items; i++) {
        const int stop = visit(item[i], argument);
        if (PO_UNLIKELY(stop != 0)) {
            return stop;
        }
    }
    return 0;
}

// Each comparison may change both lists; it holds what it compares.
static int equal(po_object *self, po_object *other) {
    const struct po_list_ *const a = list_of(self);
    const struct po_list_ *const b = list_of(other);
    if (a->items != b->items) {
        return 0;
    }
    for (size_t i = 0; i < a->items && i < b->items; i++) {
        const int same = a->item[i] == b->item[i] ? 1 : po_equal(a->item[i], b->item[i]);
        if (same != 1) {
            return same;
        }
    }
    return a->items == b->items;
}

// Each item may change the list.
static int repr(po_object *self, po_text *to) {
    const struct po_list_ *const list = list_of(self);
    if (po_text_add(to, "[", 1) != 0) {
        return -1;
    }
    for (size_t i = 0; i < list->items; i++) {
        if ((i != 0 && po_text_add(to, ", ", 2) != 0) || po_text_repr(to, list->item[i]) != 0) {
            return -1;
        }
    }
    return po_text_add(to, "]", 1);
}

po_type po_list_type = {
    .name = "list",
    .size = sizeof(struct po_list_),
    .traverse = traverse,
    .clear = clear,
    .equal = equal,
    .repr = repr,
    .number_ = PO_LIST_,
};

const struct po_slots po_list_slots = {
    .type = &po_list_type,
    .only_refers = true,
    .spare = (sizeof(struct po_list_) + 15) / 16,
    .size = sizeof(struct po_list_),
    .traverse = traverse,
    .clear = clear,
    .equal = equal,
    .repr = repr,
};

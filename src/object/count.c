// SPDX-License-Identifier: MIT
// Copyright (c) the poolmalloc authors

// Objects begin and end.
//
// An object that ends gives up its references, which ends others in turn. They end within each
// other, the first before the second, down to so many levels (nesting_limit): the stack stays
// bounded and the order is what a program expects. Deeper ones wait in a list, linked through their
// second word, for which no memory is needed, until the outermost has ended.
//
// Trash (collect.c) can't wait in that list, because it is in another: it stays as it is, with a
// count of 0, and the run ends it when it comes to it. The run has come by what it has cleared:
// that mostly holds nothing more, and may end a level deeper; where the program has filled it
// again, the run looks for it once more.

#include "object/object.h"

static void free_container(po_state *state, struct po_container *container) {
    if (po_slots_of(&container->object)->traverse != NULL) {
        po_gc_freed(state);
    }
    po_block_free(state, container, true);
}

void po_unmake_container(po_state *state, void *container) {
    free_container(state, container);
}

void po_finalize(po_object *object) {
    const struct po_slots *const slots = po_slots_of(object);
    if (object->flags_ & PO_FINALIZED) {
        return;
    }
    const struct po_error before = po_error_last();
    object->flags_ |= PO_FINALIZED;
    slots->finalize(object);
    po_restore_error(before);
}

// False when the finalizer has brought the object back.
static bool finalize(po_state *state, struct po_container *container) {
    po_object *const object = &container->object;
    const bool was_trash = object->flags_ & PO_TRASH;
    object->count_ = 1;
    po_finalize(object);
    if (po_is_immortal(object) || --object->count_ != 0) {
        if (!was_trash && po_slots_of(object)->traverse != NULL) {
            po_track_again(state, container);
        }
        return false;
    }
    return true;
}

// The last steps: nothing brings the object back any more.
static void end_for_good(po_state *state, struct po_container *container) {
    po_object *const object = &container->object;
    const struct po_slots *const slots = po_slots_of(object);
    object->flags_ |= PO_ENDING;
    if (object->flags_ & PO_HAS_WEAK) {
        po_weak_end(state, object);
    }
    if (slots->clear != NULL) {
        slots->clear(object);
    }
    if (slots->release != NULL) {
        const struct po_error before = po_error_last();
        slots->release(object);
        po_restore_error(before);
    }
    if (object->flags_ & PO_TRASH) {
        object->flags_ |= PO_GONE;
    } else {
        free_container(state, container);
    }
}

static void end(po_state *state, struct po_container *container) {
    if ((container->object.flags_ & PO_FINALIZED) || finalize(state, container)) {
        end_for_good(state, container);
    }
}

static void end_deferred(po_state *state) {
    while (state->deferred != NULL) {
        struct po_container *const container = state->deferred;
        state->deferred = (struct po_container *)container->gc_;
        container->gc_ = po_gc_word(state, 0);
        end(state, container);
    }
}

static void end_waiting(po_state *state) {
    do {
        end_deferred(state);
        const struct po_weak_calls late = state->late;
        state->late.first = NULL;
        po_weak_call(&late);
    } while (state->deferred != NULL || state->late.first != NULL);
}

static inline void leave_nesting(po_state *state) {
    if (PO_UNLIKELY(state->nesting == 1 &&
                    (state->deferred != NULL || state->late.first != NULL))) {
        end_waiting(state);
    }
    state->nesting--;
}

static void end_nested(po_state *state, struct po_container *container) {
    state->nesting++;
    end(state, container);
    leave_nesting(state);
}

void po_end_trash(po_state *state, struct po_container *container) {
    end_nested(state, container);
}

static __attribute__((noinline)) void end_rare(po_state *state, struct po_container *container) {
    const unsigned flags = container->object.flags_;
    // A slot that takes and drops a reference to its own object ends it once.
    if (flags & PO_ENDING) {
        return;
    }
    po_untrack(state, container);
    if (state->nesting < state->nesting_limit + ((flags & PO_CLEARED) != 0)) {
        end_nested(state, container);
    } else if (!(flags & PO_TRASH)) {
        container->gc_ = (uint64_t)(uintptr_t)state->deferred;
        state->deferred = container;
    } else if (flags & PO_CLEARED) {
        state->has_more_filled |= state->filled != NULL;
        state->filled = container;
    }
}

static size_t spares_of(const struct po_slots *slots, const struct po_container *container) {
    return PO_LIKELY(slots->spare != PO_SPARE_ITEMS)
               ? slots->spare
               : po_spare_of(slots->size +
                             ((const struct po_items *)container)->items * slots->item_size);
}

static void free_or_spare(po_state *state, struct po_container *container, size_t spares) {
    po_gc_freed(state);
    if (!po_spare_keep(state, container, spares)) {
        po_block_free(state, container, true);
    }
}

// The end of a tuple from its first `left` items on; the others were given up. Callbacks see an
// empty one.
static __attribute__((noinline)) void end_tuple_from(po_state *state, struct po_tuple_ *tuple,
                                                     size_t left, size_t spares) {
    po_set_flags(&tuple->object, PO_UNTRACKED | PO_CONTAINER | PO_ENDING);
    tuple->items = 0;
    state->nesting++;
    while (left != 0) {
        po_decref(tuple->item[--left]);
    }
    free_or_spare(state, (struct po_container *)tuple, spares);
    leave_nesting(state);
}

// A tuple that is the youngest container of its state, as most are when they end. While none of its
// items ends with it, nobody sees it any more. False: it takes the usual way.
static inline bool end_youngest_tuple(po_object *object) {
    struct po_tuple_ *const tuple = (struct po_tuple_ *)object;
    const uint64_t gc = ((struct po_container *)object)->gc_;
    if (object->type_ != PO_TUPLE_ || object->flags_ != (PO_CONTAINER | PO_FINALIZED)) {
        return false;
    }
    po_state *const state = po_states[gc >> PO_GC_STATE_SHIFT];
    if (PO_UNLIKELY(state == NULL || (uint32_t)gc != state->young_count - 1 ||
                    state->running >= 0 || state->nesting >= state->nesting_most)) {
        return false;
    }
    size_t left = tuple->items;
    const size_t spares = po_spare_of(sizeof *tuple + left * sizeof(po_object *));
    state->young_count--;
    for (; left != 0; left--) {
        po_object *const item = tuple->item[left - 1];
        if (!po_is_immortal(item)) {
            if (PO_UNLIKELY(item->count_ == 1)) {
                end_tuple_from(state, tuple, left, spares);
                return true;
            }
            item->count_--;
        }
    }
    free_or_spare(state, (struct po_container *)tuple, spares);
    return true;
}

// What most containers need: their references are given up, and they are gone.
static __attribute__((noinline)) void end_container(po_object *object) {
    struct po_container *const container = (struct po_container *)object;
    po_state *const state = po_state_of_mortal(object);
    const struct po_slots *const slots = po_slots_of(object);
    const unsigned flags = object->flags_;
    if (PO_UNLIKELY(!slots->only_refers || state->nesting >= state->nesting_most ||
                    (flags & (PO_ENDING | PO_HAS_WEAK)))) {
        end_rare(state, container);
        return;
    }
    const bool is_trash = flags & PO_TRASH;
    if (!is_trash) {
        po_untrack(state, container);
    }
    po_set_flags(object,
                 PO_UNTRACKED | PO_CONTAINER | PO_ENDING | (flags & (PO_TRASH | PO_CLEARED)));
    state->nesting++;
    const size_t spares = spares_of(slots, container);
    slots->clear(object);
    if (is_trash) {
        object->flags_ |= PO_GONE;
    } else {
        free_or_spare(state, container, spares);
    }
    leave_nesting(state);
}

// Callbacks nest too, and wait with the objects where they are too deep: the weak references hold
// them.
static void end_weak_of_atom(po_state *state, po_object *atom) {
    if (state->nesting >= PO_NESTING_MAX) {
        if (state->late.first == NULL) {
            state->late.end = &state->late.first;
        }
        po_weak_kill(state, atom, &state->late);
        return;
    }
    state->nesting++;
    po_weak_end(state, atom);
    leave_nesting(state);
}

static __attribute__((noinline)) void end_atom(po_object *object) {
    po_state *const state = po_state_of_mortal(object);
    // First, so that no callback finds a text that is about to go.
    if (object->flags_ & PO_INTERNED) {
        po_intern_forget(state, object);
    }
    if (object->flags_ & PO_HAS_WEAK) {
        end_weak_of_atom(state, object);
    }
    po_block_free(state, object, false);
}

void po_dead_(po_object *object) {
#if !PO_LIBC_BLOCKS
    const unsigned flags = object->flags_;
    if (PO_LIKELY((uint8_t)flags == PO_UNTRACKED)) {
        po_state *const state = po_states[flags >> PO_STATE_SHIFT];
        if (PO_LIKELY(state != NULL)) {
            if (object->type_ > PO_FLOAT_ || !po_spare_keep(state, object, po_spare_of(16))) {
                pm_heap_free(state->rest, object);
            }
        } else {
            pm_heap_free_any(object);
        }
        return;
    }
#endif
    if (object->flags_ & PO_CONTAINER) {
        if (!end_youngest_tuple(object)) {
            end_container(object);
        }
    } else {
        end_atom(object);
    }
}

po_state *po_state_of(const po_object *object) {
    return object->flags_ & PO_SHARED ? NULL : po_state_of_mortal(object);
}

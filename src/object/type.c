// SPDX-License-Identifier: MIT
// Copyright (c) the poolmalloc authors

// Types and their numbers. A type gets its number when it is used first, by whichever thread; from
// then on it is only read.

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "object/debug.h"
#include "object/object.h"

const struct po_slots *po_slots[PO_TYPES_MAX];

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static unsigned count = PO_FIRST_OF_PROGRAM_; // under `lock`

// The child of fork has neither lock held by a thread that it does not have.

static void before_fork(void) {
    pthread_mutex_lock(&lock);
    po_states_lock();
}

static void after_fork(void) {
    po_states_unlock();
    pthread_mutex_unlock(&lock);
}

static void start(void) {
    po_debug_start();
    po_hash_start();
    po_slots[PO_NONE_] = &po_none_slots;
    po_slots[PO_BOOL_] = &po_bool_slots;
    po_slots[PO_INT_] = &po_int_slots;
    po_slots[PO_FLOAT_] = &po_float_slots;
    po_slots[PO_STR_] = &po_str_slots;
    po_slots[PO_BYTES_] = &po_bytes_slots;
    po_slots[PO_TUPLE_] = &po_tuple_slots;
    po_slots[PO_LIST_] = &po_list_slots;
    po_slots[PO_DICT_] = &po_dict_slots;
    po_slots[PO_WEAKREF_] = &po_weakref_slots;
    po_int_start();
    po_str_start();
    po_statistics_start();
    pthread_atfork(before_fork, after_fork, after_fork);
}

__attribute__((constructor)) void po_start(void) {
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, start);
}

// Of a type whose base has the same slot, each level's is called, the type's before its base's.

static int traverse_levels(const po_object *self, po_visit visit, void *argument) {
    for (const po_type *type = po_type_of(self); type != NULL; type = type->base) {
        const int stop = type->traverse != NULL ? type->traverse(self, visit, argument) : 0;
        if (stop != 0) {
            return stop;
        }
    }
    return 0;
}

static void clear_levels(po_object *self) {
    for (const po_type *type = po_type_of(self); type != NULL; type = type->base) {
        if (type->clear != NULL) {
            type->clear(self);
        }
    }
}

static void release_levels(po_object *self) {
    for (const po_type *type = po_type_of(self); type != NULL; type = type->base) {
        if (type->release != NULL) {
            type->release(self);
        }
    }
}

static bool is_sound(const po_type *type) {
    const size_t least =
        type->item_size != 0 ? sizeof(struct po_items) : sizeof(struct po_container);
    const po_type *const base = type->base;
    return type->name != NULL && type->size >= least && type->flags == 0 &&
           (type->traverse == NULL) == (type->clear == NULL) &&
           (base == NULL || (base->number_ >= PO_FIRST_OF_PROGRAM_ && type->size >= base->size &&
                             type->item_size == base->item_size &&
                             (type->item_size == 0 || type->size == base->size)));
}

// What a type has by itself and by its base. The base has its own already.
static void fill(struct po_slots *slots, po_type *type) {
    static const struct po_slots none;
    const struct po_slots *const base = type->base != NULL ? po_slots[type->base->number_] : &none;
    *slots = (struct po_slots){
        .type = type,
        .size = type->size,
        .item_size = type->item_size,
        .traverse = type->traverse != NULL ? type->traverse : base->traverse,
        .clear = type->clear != NULL ? type->clear : base->clear,
        .finalize = type->finalize != NULL ? type->finalize : base->finalize,
        .release = type->release != NULL ? type->release : base->release,
        .equal = type->equal != NULL ? type->equal : base->equal,
        // A type that says anew what is equal says anew what the hash is.
        .hash = type->hash != NULL || type->equal != NULL ? type->hash : base->hash,
        .repr = type->repr != NULL ? type->repr : base->repr,
    };
    const size_t spare = po_spare_of(type->size);
    // The first are those of numbers, in the other heap.
    slots->spare = type->item_size == 0 && spare > 1 && spare < PO_SPARE_SIZES ? (uint8_t)spare : 0;
    slots->only_refers = slots->clear != NULL && slots->finalize == NULL && slots->release == NULL;
    if (type->traverse != NULL && base->traverse != NULL) {
        slots->traverse = traverse_levels;
        slots->clear = clear_levels;
    }
    if (type->release != NULL && base->release != NULL) {
        slots->release = release_levels;
    }
}

// Under the lock: gives the next number to a type whose base has one.
static unsigned register_type(po_type *type) {
    const unsigned known = type->number_;
    if (known != 0) {
        return known;
    }
    if (!is_sound(type) || count == PO_TYPES_MAX) {
        po_fail(PO_BAD_TYPE);
        return 0;
    }
    struct po_slots *const slots = pm_malloc(sizeof *slots);
    if (slots == NULL) {
        po_fail(PO_NO_MEMORY);
        return 0;
    }
    fill(slots, type);
    po_slots[count] = slots;
    __atomic_store_n(&type->number_, count, __ATOMIC_RELEASE);
    return count++;
}

// The base that has no number yet and whose own base has one, or is none; types in a circle have
// none.
static po_type *first_unknown(po_type *type) {
    for (unsigned levels = 0; type->base != NULL && type->base->number_ == 0; levels++) {
        if (levels == PO_TYPES_MAX) {
            return NULL;
        }
        type = type->base;
    }
    return type;
}

static unsigned register_all(po_type *type) {
    if (type->base != NULL && type->base->number_ != 0 &&
        type->base->number_ < PO_FIRST_OF_PROGRAM_) {
        po_fail(PO_BAD_TYPE);
        return 0;
    }
    while (type->number_ == 0) {
        po_type *const unknown = first_unknown(type);
        if (unknown == NULL) {
            po_fail(PO_BAD_TYPE);
            return 0;
        }
        if (register_type(unknown) == 0) {
            return 0;
        }
    }
    return type->number_;
}

unsigned po_type_number_slow(po_type *type) {
    if (type == NULL) {
        po_fail(PO_BAD_TYPE);
        return 0;
    }
    pthread_mutex_lock(&lock);
    const unsigned number = register_all(type);
    pthread_mutex_unlock(&lock);
    return number;
}

po_type *po_type_of(const po_object *object) {
    return po_slots_of(object)->type;
}

int po_is(const po_object *object, const po_type *type) {
    const po_type *of = object != NULL ? po_type_of(object) : NULL;
    while (of != NULL && of != type) {
        of = of->base;
    }
    return of != NULL;
}

// Inline, so that po_new or po_new_items is on the stack when the place where an object was made is
// noted.
static inline __attribute__((always_inline)) po_object *make(po_state *state, unsigned number,
                                                             size_t size, size_t items) {
    const struct po_slots *const slots = po_slots[number];
    const bool refers = slots->traverse != NULL;
    if (slots->finalize != NULL || slots->release != NULL) {
        po_keep_order(state);
    }
    struct po_container *const made =
        refers ? po_make_tracked(state, number, size, slots->spare,
                                 PO_CONTAINER | (slots->finalize == NULL ? PO_FINALIZED : 0))
               : po_make_bare(state, number, size);
    if (PO_UNLIKELY(made == NULL)) {
        return NULL;
    }
    memset(made + 1, 0, size - sizeof *made);
    if (slots->item_size != 0) {
        ((struct po_items *)made)->items = items;
    }
    if (refers) {
        po_track(state, made);
    }
    return &made->object;
}

static bool is_of_program(unsigned number) {
    if (PO_UNLIKELY(number < PO_FIRST_OF_PROGRAM_)) {
        if (number != 0) {
            po_fail(PO_BAD_TYPE);
        }
        return false;
    }
    return true;
}

po_object *po_new(po_state *state, po_type *type) {
    const unsigned number = po_type_number(type);
    return is_of_program(number) ? make(state, number, po_slots[number]->size, 0) : NULL;
}

po_object *po_new_items(po_state *state, po_type *type, size_t items) {
    const unsigned number = po_type_number(type);
    size_t size;
    if (!is_of_program(number)) {
        return NULL;
    }
    if (po_slots[number]->item_size == 0 && items != 0) {
        return po_fail_null(PO_BAD_TYPE);
    }
    if (__builtin_mul_overflow(items, po_slots[number]->item_size, &size) ||
        __builtin_add_overflow(size, po_slots[number]->size, &size)) {
        return po_fail_null(PO_NO_MEMORY);
    }
    return make(state, number, size, items);
}

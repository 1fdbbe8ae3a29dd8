// SPDX-License-Identifier: MIT
// Copyright (c) the poolmalloc authors

// Looks at a whole state: who refers to an object, and whether all is as it must be.

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "object/debug.h"
#include "object/object.h"

// --- po_explain ----------------------------------------------------------------------------------

struct question {
    const po_object *about;
    int fd;
    const po_object *holder;
    size_t held_here, held_by_objects;
};

static int count_if_asked(po_object *object, void *argument) {
    struct question *const question = argument;
    question->held_here += object == question->about;
    return 0;
}

static int ask_holder(void *block, size_t size, void *argument) {
    (void)size;
    const po_object *const holder = block;
    struct question *const question = argument;
    if (!po_is_tracked(holder) || po_slots_of(holder)->traverse == NULL) {
        return 0;
    }
    question->held_here = 0;
    po_slots_of(holder)->traverse(holder, count_if_asked, question);
    question->held_by_objects += question->held_here;
    if (question->held_here != 0) {
        dprintf(question->fd, "  %zu by %s at %p\n", question->held_here, po_type_of(holder)->name,
                (const void *)holder);
    }
    return 0;
}

int po_explain(po_object *object, int fd) {
    if (object == NULL) {
        return po_fail(PO_WRONG_TYPE);
    }
    if (!(object->flags_ & PO_SHARED) && po_state_of_mortal(object)->running >= 0) {
        return po_fail(PO_BUSY);
    }
    const char *const name = po_type_of(object)->name;
    if (object->flags_ & PO_SHARED) {
        dprintf(fd, "poolobject: %s at %p is immortal and belongs to no state\n", name,
                (void *)object);
        return 0;
    }
    po_state *const state = po_state_of_mortal(object);
    if (po_is_immortal(object)) {
        dprintf(fd, "poolobject: %s at %p of state %p: too many references to be counted\n", name,
                (void *)object, (void *)state);
    } else {
        dprintf(fd, "poolobject: %s at %p of state %p: %" PRIu32 " references\n", name,
                (void *)object, (void *)state, object->count_);
    }
    struct question question = { .about = object, .fd = fd };
    po_walk(state, true, ask_holder, &question);
    if (!po_is_immortal(object) && question.held_by_objects <= object->count_) {
        dprintf(fd, "  %zu by the program\n", object->count_ - question.held_by_objects);
    } else if (!po_is_immortal(object)) {
        dprintf(fd, "  %zu more than are counted: its count is too low\n",
                question.held_by_objects - object->count_);
    }
    return 0;
}

// --- po_check ------------------------------------------------------------------------------------

// An object of the state, and the references to it that were found.
struct seen {
    const po_object *object;
    const po_object *holder; // the last one
    uint64_t references;
    bool is_whole;  // its head fits its block: its members may be read
    bool is_tabled; // the table for its kind was seen to have it
};

struct check {
    po_state *state;
    int fd;
    size_t faults;
    struct seen *seen; // open addressing
    size_t room, objects;
    uint64_t old, frozen, young;
    uint64_t targets;  // objects that say that the table has weak references to them
    uint64_t interned; // texts that say that the table has them
    const po_object *holder;
};

#define FAULT(check, ...)                      \
    do {                                       \
        (check)->faults++;                     \
        if ((check)->fd != -1) {               \
            dprintf((check)->fd, __VA_ARGS__); \
        }                                      \
    } while (0)

static bool is_buffer(const po_object *object) {
    return object->type_ == 0;
}

static int count_objects(void *block, size_t size, void *argument) {
    (void)size;
    struct check *const check = argument;
    check->objects += !is_buffer(block);
    return 0;
}

static struct seen *find(const struct check *check, const void *object) {
    size_t at = po_hash_word((uintptr_t)object) & (check->room - 1);
    while (check->seen[at].object != NULL && check->seen[at].object != object) {
        at = (at + 1) & (check->room - 1);
    }
    return &check->seen[at];
}

static const char *name_of(const po_object *object) {
    return po_slots_of(object) != NULL ? po_type_of(object)->name : "object of no type";
}

// Does what the head says fit its block?
static bool is_whole(const po_object *object, size_t block_size) {
    const struct po_slots *const slots = po_slots_of(object);
    return slots != NULL && slots->size <= block_size &&
           (slots->item_size == 0 || ((const struct po_items *)object)->items <=
                                         (block_size - slots->size) / slots->item_size);
}

// Of an object that is whole.
static size_t size_of(const po_object *object) {
    const struct po_slots *const slots = po_slots_of(object);
    return slots->size + (slots->item_size != 0
                              ? ((const struct po_items *)object)->items * slots->item_size
                              : 0);
}

static int enter(void *block, size_t size, void *argument) {
    struct check *const check = argument;
    const po_object *const object = block;
    if (is_buffer(object)) {
        return 0;
    }
    struct seen *const seen = find(check, object);
    seen->object = object;
    seen->is_whole = is_whole(object, size);
    if (!seen->is_whole) {
        FAULT(check, "poolobject: at %p there is no object: its head was overwritten\n", block);
    }
    check->targets += (object->flags_ & PO_HAS_WEAK) != 0;
    check->interned += (object->flags_ & PO_INTERNED) != 0;
    return 0;
}

static bool lies_in(const void *at, const void *first, const void *last) {
    return (uintptr_t)at - (uintptr_t)first <= (uintptr_t)last - (uintptr_t)first;
}

// By the address: where it may lie else, there may be no memory any more.
static bool is_shared(po_state *state, const po_object *object) {
    return object == &po_none_ || object == po_bytes(state, NULL, 0) ||
           object == po_tuple(state, 0, NULL) || lies_in(object, po_bools_, &po_bools_[1]) ||
           lies_in(object, po_small_ints_,
                   &po_small_ints_[PO_SMALL_INT_MAX_ - PO_SMALL_INT_MIN_]) ||
           lies_in(object, po_str(state, "", 1), po_str(state, "", 0));
}

static int enter_reference(po_object *object, void *argument) {
    struct check *const check = argument;
    struct seen *const seen = find(check, object);
    if (seen->object == NULL && is_shared(check->state, object)) {
        return 0;
    }
    if (seen->object == NULL) {
        FAULT(check, "poolobject: %s at %p refers to %p, where this state has no object\n",
              name_of(check->holder), (const void *)check->holder, (void *)object);
        return 0;
    }
    seen->references++;
    seen->holder = check->holder;
    return 0;
}

static void check_generation(struct check *check, const struct po_container *container) {
    const unsigned gen = po_gen(&container->object);
    check->young += gen < PO_GEN_OLD;
    check->old += gen == PO_GEN_OLD;
    check->frozen += gen == PO_FROZEN;
    const uint32_t index = (uint32_t)container->gc_;
    if (gen < PO_GEN_OLD &&
        (index >= check->state->young_count || check->state->young[index] != container)) {
        FAULT(check, "poolobject: %s at %p is not where the collector looks for it\n",
              name_of(&container->object), (const void *)container);
    }
}

static struct seen *find_whole(const struct check *check, const void *object, uint16_t type) {
    struct seen *const seen = find(check, object);
    return seen->object != NULL && seen->is_whole && seen->object->type_ == type ? seen : NULL;
}

// From the first weak reference of a target, to those that are found from there.
static void check_ring(struct check *check, const struct po_weakref *first) {
    const struct po_weakref *weakref = first, *next;
    struct seen *seen = find(check, first);
    while (!seen->is_tabled && weakref->target == first->target) {
        seen->is_tabled = true;
        next = weakref->next;
        seen = find_whole(check, next, PO_WEAKREF_);
        if (seen == NULL || next->prev != weakref) {
            FAULT(check,
                  "poolobject: weakref at %p has no neighbour among those of its target, %p\n",
                  (const void *)weakref, (const void *)weakref->target);
            return;
        }
        weakref = next;
    }
}

// Is it found from its target? One that is dead is in no ring; of an immortal target no table
// knows, unless it became immortal later.
static void check_weakref(struct check *check, const struct po_weakref *weakref) {
    const po_object *const target = weakref->target;
    const po_object *const known = target != NULL ? find(check, target)->object : NULL;
    const bool is_free = target == NULL || (known == NULL && is_shared(check->state, target)) ||
                         (known != NULL && po_is_immortal(known) && !(known->flags_ & PO_HAS_WEAK));
    if (is_free ? weakref->prev != NULL : !find(check, weakref)->is_tabled) {
        FAULT(check, "poolobject: weakref at %p is not among those of its target, %p\n",
              (const void *)weakref, (const void *)target);
    }
}

// A table that all objects of a state with a flag are in, `flagged` of them: as themselves, or by
// the first of their weak references.
static void check_table(struct check *check, const struct po_table *table,
                        const struct po_table_kind *kind, uint16_t type, const char *name,
                        uint64_t flagged) {
    size_t used = 0;
    for (size_t i = 0; i < table->room; i++) {
        const void *const entry = table->entry[i];
        if (entry == NULL) {
            continue;
        }
        struct seen *const seen = find_whole(check, entry, type);
        if (seen == NULL) {
            FAULT(check, "poolobject: the table of %s has %p, where this state has no %s\n", name,
                  entry, po_slots[type]->type->name);
            continue;
        }
        size_t at = po_table_home(table, kind->hash(entry));
        while (at != i && table->entry[at] != NULL) {
            at = po_table_next(table, at);
        }
        if (at != i || seen->is_tabled) {
            FAULT(check, "poolobject: the table of %s has %p where nobody looks for it\n", name,
                  entry);
        } else if (type == PO_WEAKREF_) {
            check_ring(check, entry);
        }
        seen->is_tabled = true;
        used++;
    }
    if (used != table->used || used != flagged) {
        FAULT(check,
              "poolobject: the table of %s has %zu entries and counts %zu, but %" PRIu64
              " objects say that they are in it\n",
              name, used, table->used, flagged);
    }
}

static int enter_references(void *block, size_t size, void *argument) {
    (void)size;
    struct check *const check = argument;
    const po_object *const object = block;
    if (!find(check, object)->is_whole) {
        return 0;
    }
    check_generation(check, block);
    if (object->type_ == PO_WEAKREF_) {
        check_weakref(check, block);
    }
    if (po_is_tracked(object) && po_slots_of(object)->traverse != NULL) {
        check->holder = object;
        po_slots_of(object)->traverse(object, enter_reference, check);
    }
    return 0;
}

static void check_counts(struct check *check) {
    for (size_t i = 0; i < check->room; i++) {
        const struct seen *const seen = &check->seen[i];
        if (seen->object != NULL && !po_is_immortal(seen->object) &&
            seen->references > seen->object->count_) {
            FAULT(check,
                  "poolobject: %s at %p has a count of %" PRIu32 ", but objects hold %" PRIu64
                  " references, one of them %s at %p\n",
                  name_of(seen->object), (const void *)seen->object, seen->object->count_,
                  seen->references, name_of(seen->holder), (const void *)seen->holder);
        }
    }
}

// --- References that traverse may have passed over -----------------------------------------------

static size_t visits_of(const po_object *holder, const po_object *object) {
    struct question question = { .about = object };
    po_slots_of(holder)->traverse(holder, count_if_asked, &question);
    return question.held_here;
}

// The word at an offset holds an object with a reference that nobody has told of: perhaps this one.
static void check_word(struct check *check, const po_object *holder, size_t offset) {
    const po_object *word;
    memcpy(&word, (const char *)holder + offset, sizeof word);
    const struct seen *const seen = word != NULL ? find(check, word) : NULL;
    if (seen == NULL || seen->object == NULL || po_is_immortal(word) ||
        seen->references >= word->count_ || visits_of(holder, word) != 0) {
        return;
    }
    if (check->fd != -1) {
        dprintf(check->fd,
                "poolobject: perhaps traverse of %s passes over a reference: at offset %zu of the "
                "one at"
                " %p is %s at %p, of which %" PRIu64 " references are known, and %" PRIu32
                " counted\n",
                name_of(holder), offset, (const void *)holder, name_of(word), (const void *)word,
                seen->references, word->count_);
    }
}

static int check_words(void *block, size_t size, void *argument) {
    (void)size;
    const po_object *const object = block;
    if (find(argument, object)->is_whole && object->type_ >= PO_FIRST_OF_PROGRAM_ &&
        po_is_tracked(object) && po_slots_of(object)->traverse != NULL) {
        const size_t end = size_of(object);
        for (size_t at = sizeof(struct po_container); at + sizeof(void *) <= end;
             at += sizeof(void *)) {
            check_word(argument, object, at);
        }
    }
    return 0;
}

static void check_sums(struct check *check) {
    const po_state *const state = check->state;
    if (check->young != state->young_count || check->old != state->old ||
        check->frozen != state->frozen) {
        FAULT(check,
              "poolobject: the collector knows %" PRIu32 " young, %" PRIu64 " old, %" PRIu64
              " frozen objects, but there are %" PRIu64 ", %" PRIu64 ", %" PRIu64 "\n",
              state->young_count, state->old, state->frozen, check->young, check->old,
              check->frozen);
    }
}

size_t po_check(po_state *state, int fd) {
    struct check check = { .state = state, .fd = fd };
    if (state->running >= 0) {
        po_fail(PO_BUSY);
        return SIZE_MAX;
    }
    po_walk(state, true, count_objects, &check);
    po_walk(state, false, count_objects, &check);
    check.room = 16;
    while (check.room < 2 * check.objects) {
        check.room *= 2;
    }
    check.seen = pm_calloc(check.room, sizeof *check.seen);
    if (check.seen == NULL) {
        po_fail(PO_NO_MEMORY);
        return SIZE_MAX;
    }
    po_walk(state, true, enter, &check);
    po_walk(state, false, enter, &check);
    check_table(&check, &state->weak, &po_weak_kind, PO_WEAKREF_, "weak references", check.targets);
    check_table(&check, &state->interned, &po_intern_kind, PO_STR_, "interned texts",
                check.interned);
    po_walk(state, true, enter_references, &check);
    check_counts(&check);
    check_sums(&check);
    po_walk(state, true, check_words, &check);
    pm_free(check.seen);
    return check.faults;
}

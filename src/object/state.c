// SPDX-License-Identifier: MIT
// Copyright (c) the poolmalloc authors

// States, from the first to the last.

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "object/debug.h"
#include "object/object.h"

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
po_state *po_states_first;

// By number; written before an object of the state exists, and after the last one has gone.
po_state *po_states[PO_STATES_MAX];

void po_states_lock(void) {
    pthread_mutex_lock(&lock);
}

bool po_states_try_lock(void) {
    return pthread_mutex_trylock(&lock) == 0;
}

void po_states_unlock(void) {
    pthread_mutex_unlock(&lock);
}

// Gives the state a number, while there are any.
static void enter_state(po_state *state) {
    po_states_lock();
    uint32_t number = PO_STATES_MAX - 1;
    while (number != 0 && po_states[number] != NULL) {
        number--;
    }
    state->number = number;
    if (number != 0) {
        po_states[number] = state;
    }
    state->next = po_states_first;
    state->at = &po_states_first;
    if (state->next != NULL) {
        state->next->at = &state->next;
    }
    po_states_first = state;
    po_states_unlock();
}

static void forget_state(po_state *state) {
    po_states_lock();
    if (state->number != 0) {
        po_states[state->number] = NULL;
    }
    *state->at = state->next;
    if (state->next != NULL) {
        state->next->at = state->at;
    }
    po_states_unlock();
}

po_state *po_state_new(void) {
    po_start();
    po_state *const state = po_memory_open();
    if (state == NULL) {
        return po_fail_null(PO_NO_MEMORY);
    }
    state->is_watched = po_debug != 0;
    state->nesting_limit = PO_NESTING_UNSEEN;
    state->nesting_most = state->is_watched ? 0 : PO_NESTING_UNSEEN;
    po_gc_open(state);
    enter_state(state);
    state->atom_flags = (uint16_t)(PO_UNTRACKED | (state->is_watched ? PO_WATCHED : 0) |
                                   state->number << PO_STATE_SHIFT);
    return state;
}

#if PM_CHECKS
void po_check_state(po_state *state, const po_object *object) {
    po_state *const its = object != NULL ? po_state_of(object) : NULL;
    if (its != NULL && its != state) {
        dprintf(2, "poolobject: %s at %p of state %p is stored in state %p\n",
                po_type_of(object)->name, (const void *)object, (void *)its, (void *)state);
        abort();
    }
}
#endif

// What is left when a state ends: references from within are taken off all counts, so that what
// remains of them is the program's.

static int uncount(po_object *object, void *argument) {
    (void)argument;
    if (!po_is_immortal(object)) {
        object->count_--;
    }
    return 0;
}

static int uncount_all(void *block, size_t size, void *argument) {
    (void)size, (void)argument;
    const po_object *const object = block;
    if (po_is_tracked(object)) {
        po_slots_of(object)->traverse(object, uncount, NULL);
    }
    return 0;
}

// Of one type, and with PO_DEBUG_LEAKS made at one place.
struct left_group {
    unsigned type;
    const void *site;
    size_t count;
};

#define LEFT_GROUPS 4096

struct left {
    size_t count, others;      // others: of groups for which there was no room
    struct left_group *groups; // open addressing; NULL where they are not asked for
};

static void count_in_group(struct left *left, const po_object *object) {
    const void *const site = po_debug & PO_DEBUG_LEAKS ? po_debug_site(object) : NULL;
    size_t at = po_hash_word((uintptr_t)site ^ (uint64_t)object->type_ << 48) % LEFT_GROUPS;
    for (size_t tries = 0; tries < LEFT_GROUPS; tries++, at = (at + 1) % LEFT_GROUPS) {
        struct left_group *const group = &left->groups[at];
        if (group->count == 0 || (group->type == object->type_ && group->site == site)) {
            *group = (struct left_group){ object->type_, site, group->count + 1 };
            return;
        }
    }
    left->others++;
}

static int count_left(void *block, size_t size, void *argument) {
    (void)size;
    const po_object *const object = block;
    struct left *const left = argument;
    if (object->type_ != 0 && object->count_ != 0) {
        left->count++;
        if (left->groups != NULL) {
            count_in_group(left, object);
        }
    }
    return 0;
}

static int release(void *block, size_t size, void *argument) {
    (void)size, (void)argument;
    po_object *const object = block;
    const struct po_slots *const slots = po_slots_of(object);
    if (slots != NULL && slots->release != NULL) {
        slots->release(object);
    }
    return 0;
}

static int has_more(const void *a, const void *b) {
    const size_t one = ((const struct left_group *)a)->count;
    const size_t other = ((const struct left_group *)b)->count;
    return (one < other) - (one > other);
}

// The largest groups first.
static void print_left(const struct left *left, int fd) {
    qsort(left->groups, LEFT_GROUPS, sizeof *left->groups, has_more);
    for (size_t i = 0; i < LEFT_GROUPS && left->groups[i].count != 0; i++) {
        const struct left_group *const group = &left->groups[i];
        char site[512];
        po_debug_format_site(site, sizeof site, group->site);
        dprintf(fd, "poolobject: still referenced: %zu of type %s%s%s\n", group->count,
                po_slots[group->type]->type->name, group->site != NULL ? ", made at " : "",
                group->site != NULL ? site : "");
    }
    if (left->others != 0) {
        dprintf(fd, "poolobject: still referenced: %zu others\n", left->others);
    }
}

size_t po_state_free(po_state *state, int fd) {
    if (state == NULL) {
        return 0;
    }
    if (state->running >= 0 || state->nesting != 0 || state->is_ending) {
        po_fail(PO_BUSY);
        return SIZE_MAX;
    }
    state->is_ending = true;
    po_gc_run(state, PO_GEN_OLD);
    struct left left = { 0 };
    if (fd != -1) {
        left.groups = pm_calloc(LEFT_GROUPS, sizeof *left.groups);
    }
    po_walk(state, true, uncount_all, NULL);
    po_walk(state, true, count_left, &left);
    po_walk(state, false, count_left, &left);
    if (left.groups != NULL) {
        print_left(&left, fd);
    }
    pm_free(left.groups);
    const struct po_error before = po_error_last();
    po_walk(state, true, release, NULL);
    po_restore_error(before);
    forget_state(state);
    po_memory_close(state);
    return left.count;
}

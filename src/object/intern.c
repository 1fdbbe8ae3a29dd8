// SPDX-License-Identifier: MIT
// Copyright (c) the poolmalloc authors

// Texts that are one object each. The table holds no references: a text leaves it as it ends, which
// needs no memory.

#include <string.h>

#include "object/object.h"

static uint64_t hash_of(const void *entry) {
    return ((const struct po_str_ *)entry)->hash;
}

const struct po_table_kind po_intern_kind = { .hash = hash_of, .room_least = 64 };

static struct po_str_ *find(const struct po_table *table, const char *utf8, size_t n,
                            uint64_t hash) {
    if (table->room == 0) {
        return NULL;
    }
    size_t at = po_table_home(table, hash);
    for (struct po_str_ *str; (str = table->entry[at]) != NULL; at = po_table_next(table, at)) {
        if (str->hash == hash && str->size == n && memcmp(str->data, utf8, n) == 0) {
            return str;
        }
    }
    return NULL;
}

void po_intern_fit(po_state *state) {
    po_table_fit(state, &state->interned, &po_intern_kind);
}

// Inline, so that po_str_intern is on the stack when the place where a text was made is noted.
static inline __attribute__((always_inline)) po_object *intern_new(po_state *state,
                                                                   const char *utf8, size_t n,
                                                                   uint64_t hash) {
    if (!po_table_reserve(state, &state->interned, &po_intern_kind)) {
        return NULL;
    }
    po_object *const made = po_str(state, utf8, n);
    if (made == NULL) {
        return NULL;
    }
    struct po_str_ *const str = (struct po_str_ *)made;
    str->hash = hash;
    made->flags_ |= PO_INTERNED;
    po_table_insert(&state->interned, &po_intern_kind, str);
    return made;
}

po_object *po_str_intern(po_state *state, const char *utf8, size_t n) {
    // The shared ones, and what can't be a text.
    if (PO_UNLIKELY(n <= 1 || n > UINT32_MAX || utf8 == NULL || state == NULL)) {
        return po_str(state, utf8, n);
    }
    const uint64_t hash = po_hash_bytes(utf8, n);
    struct po_str_ *const known = find(&state->interned, utf8, n, hash);
    return PO_LIKELY(known != NULL) ? po_incref(&known->object) : intern_new(state, utf8, n, hash);
}

void po_intern_forget(po_state *state, po_object *str) {
    struct po_table *const table = &state->interned;
    size_t at = po_table_home(table, hash_of(str));
    while (table->entry[at] != str) {
        at = po_table_next(table, at);
    }
    po_table_remove(table, &po_intern_kind, at);
    str->flags_ &= (uint16_t)~PO_INTERNED;
}

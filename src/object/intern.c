// SPDX-License-Identifier: MIT
// Copyright (c) the poolmalloc authors

// Texts that are one object each. The table holds no references: a text leaves it as it ends, which
// needs no memory. Open addressing, one place after the other, at most half full; an entry that
// leaves is replaced by one from behind it, so that no text is ever behind an empty place.

#include <string.h>

#include "object/object.h"

enum { ROOM_MIN = 64 };

static size_t next(const struct po_intern_table *table, size_t at) {
    return (at + 1) & (table->room - 1);
}

static size_t home(const struct po_intern_table *table, uint64_t hash) {
    return hash & (table->room - 1);
}

static struct po_str_ *find(const struct po_intern_table *table, const char *utf8, size_t n,
                            uint64_t hash) {
    if (table->room == 0) {
        return NULL;
    }
    size_t at = home(table, hash);
    for (struct po_str_ *str; (str = table->entry[at]) != NULL; at = next(table, at)) {
        if (str->hash == hash && str->size == n && memcmp(str->data, utf8, n) == 0) {
            return str;
        }
    }
    return NULL;
}

static void insert(const struct po_intern_table *table, struct po_str_ *str) {
    size_t at = home(table, str->hash);
    while (table->entry[at] != NULL) {
        at = next(table, at);
    }
    table->entry[at] = str;
}

// False without memory, and the table is as it was.
static bool resize(po_state *state, size_t room) {
    struct po_intern_table *const table = &state->interned;
    const struct po_intern_table other = {
        .entry = po_buffer_resize(state, NULL, room * sizeof *other.entry),
        .used = table->used,
        .room = room,
    };
    if (other.entry == NULL) {
        return false;
    }
    memset(other.entry, 0, room * sizeof *other.entry);
    for (size_t i = 0; i < table->room; i++) {
        if (table->entry[i] != NULL) {
            insert(&other, table->entry[i]);
        }
    }
    po_buffer_free(state, table->entry);
    *table = other;
    return true;
}

// Room for one more.
static bool reserve(po_state *state) {
    const struct po_intern_table *const table = &state->interned;
    return 2 * (table->used + 1) <= table->room ||
           resize(state, table->room != 0 ? 2 * table->room : ROOM_MIN);
}

void po_intern_fit(po_state *state) {
    const size_t room = po_room_that_fits(state->interned.used, state->interned.room, ROOM_MIN);
    if (room != state->interned.room) {
        resize(state, room);
    }
}

// Inline, so that po_str_intern is on the stack when the place where a text was made is noted.
static inline __attribute__((always_inline)) po_object *intern_new(po_state *state,
                                                                   const char *utf8, size_t n,
                                                                   uint64_t hash) {
    if (!reserve(state)) {
        return NULL;
    }
    po_object *const made = po_str(state, utf8, n);
    if (made == NULL) {
        return NULL;
    }
    struct po_str_ *const str = (struct po_str_ *)made;
    str->hash = hash;
    made->flags_ |= PO_INTERNED;
    insert(&state->interned, str);
    state->interned.used++;
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

// Those behind the empty place that would not be found any more move up.
static void close_gap(const struct po_intern_table *table, size_t gap) {
    const size_t mask = table->room - 1;
    for (size_t at = next(table, gap); table->entry[at] != NULL; at = next(table, at)) {
        const size_t start = home(table, table->entry[at]->hash);
        if (((at - start) & mask) >= ((at - gap) & mask)) {
            table->entry[gap] = table->entry[at];
            gap = at;
        }
    }
    table->entry[gap] = NULL;
}

void po_intern_forget(po_state *state, po_object *str) {
    struct po_intern_table *const table = &state->interned;
    size_t at = home(table, ((struct po_str_ *)str)->hash);
    while (table->entry[at] != (struct po_str_ *)str) {
        at = next(table, at);
    }
    close_gap(table, at);
    table->used--;
    str->flags_ &= (uint16_t)~PO_INTERNED;
}

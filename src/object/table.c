// SPDX-License-Identifier: MIT
// Copyright (c) the poolmalloc authors

// Tables of what a state finds by a hash: how they get more room, and less. Open addressing, one
// place after the other, at most half full; an entry that leaves is replaced by one from behind it,
// so that no entry is ever behind an empty place.

#include <string.h>

#include "object/object.h"

// False without memory, and the table is as it was.
static bool resize(po_state *state, struct po_table *table, const struct po_table_kind *kind,
                   size_t room) {
    struct po_table other = {
        .entry = po_buffer_resize(state, NULL, room * sizeof *other.entry),
        .room = room,
    };
    if (other.entry == NULL) {
        return false;
    }
    memset(other.entry, 0, room * sizeof *other.entry);
    for (size_t i = 0; i < table->room; i++) {
        if (table->entry[i] != NULL) {
            po_table_insert(&other, kind, table->entry[i]);
        }
    }
    po_buffer_free(state, table->entry);
    *table = other;
    return true;
}

bool po_table_grow(po_state *state, struct po_table *table, const struct po_table_kind *kind) {
    return resize(state, table, kind, table->room != 0 ? 2 * table->room : kind->room_least);
}

void po_table_fit(po_state *state, struct po_table *table, const struct po_table_kind *kind) {
    const size_t room = po_room_fit(table->room, table->used, kind->room_least);
    if (room != table->room) {
        resize(state, table, kind, room);
    }
}

// SPDX-License-Identifier: MIT
// Copyright (c) the poolmalloc authors

// What POOLOBJECT_DEBUG turns on, for all states of the process.

#ifndef PO_OBJECT_DEBUG_H
#define PO_OBJECT_DEBUG_H

#include "object/object.h"

enum {
    PO_DEBUG_LEAKS = 1, // each object knows where it was made
    PO_DEBUG_CHECK = 2, // po_check after each full run
    PO_DEBUG_FILL = 4,  // objects that were freed are filled
};

// Which of them are on; never written once the library is started.
extern unsigned po_debug;

void po_debug_start(void);

// What a block is filled with when its object is freed.
#define PO_FREED_BYTE 0xdd

// With PO_DEBUG_LEAKS, the last word of an object's block.
#define PO_SITE_BYTES sizeof(void *)
void po_debug_note_site(void *block);
void *po_debug_site(const void *block);

// Writes where it was made as text: function and object file where they are known.
void po_debug_format_site(char *to, size_t size, const void *site);

#endif

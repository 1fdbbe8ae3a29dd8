// SPDX-License-Identifier: MIT
// Copyright (c) the poolmalloc authors

// Runs of bytes. The empty one is shared.

#include <string.h>

#include "object/object.h"

// Its hash is never kept: it has no bytes to look at.
static struct po_bytes_ empty = { { PO_IMMORTAL_, PO_BYTES_, PO_UNTRACKED | PO_SHARED }, 0, 0, {} };

po_object *po_bytes(po_state *state, const void *data, size_t n) {
    if (n == 0) {
        return &empty.object;
    }
    if (state == NULL || data == NULL) {
        return po_fail_null(PO_WRONG_TYPE);
    }
    if (n > PTRDIFF_MAX - sizeof(struct po_bytes_)) {
        return po_fail_null(PO_NO_MEMORY);
    }
    struct po_bytes_ *const made = po_make(state, PO_BYTES_, sizeof *made + n);
    if (made == NULL) {
        return NULL;
    }
    made->hash = 0;
    made->size = n;
    memcpy(made->data, data, n);
    return &made->object;
}

static int equal(po_object *self, po_object *other) {
    const struct po_bytes_ *const a = (const struct po_bytes_ *)self;
    const struct po_bytes_ *const b = (const struct po_bytes_ *)other;
    return a->size == b->size && (a->hash == b->hash || a->hash == 0 || b->hash == 0) &&
           memcmp(a->data, b->data, a->size) == 0;
}

static int hash(po_object *self, uint64_t *to) {
    struct po_bytes_ *const bytes = (struct po_bytes_ *)self;
    // Not that of a str with these bytes.
    *to = bytes->hash != 0 ? bytes->hash
                           : po_hash_word(po_hash_bytes(bytes->data, bytes->size) + self->type_);
    if (!(self->flags_ & PO_SHARED)) {
        bytes->hash = *to;
    }
    return 0;
}

static int put(po_text *to, unsigned char byte, char quote) {
    static const char hex[] = "0123456789abcdef";
    char text[4] = { '\\', 'x', hex[byte >> 4], hex[byte & 15] };
    switch (byte) {
    case '\t': return po_text_add(to, "\\t", 2);
    case '\n': return po_text_add(to, "\\n", 2);
    case '\r': return po_text_add(to, "\\r", 2);
    default: break;
    }
    if (byte < ' ' || byte > '~') {
        return po_text_add(to, text, 4);
    }
    text[1] = (char)byte;
    const bool escaped = byte == '\\' || byte == (unsigned char)quote;
    return po_text_add(to, text + !escaped, 1 + (size_t)escaped);
}

static int repr(po_object *self, po_text *to) {
    const struct po_bytes_ *const bytes = (const struct po_bytes_ *)self;
    const bool single = memchr(bytes->data, '\'', bytes->size) == NULL ||
                        memchr(bytes->data, '"', bytes->size) != NULL;
    const char quote[2] = { 'b', single ? '\'' : '"' };
    int result = po_text_add(to, quote, 2);
    for (size_t i = 0; i < bytes->size && result == 0; i++) {
        result = put(to, (unsigned char)bytes->data[i], quote[1]);
    }
    return result == 0 ? po_text_add(to, quote + 1, 1) : -1;
}

po_type po_bytes_type = {
    .name = "bytes",
    .size = sizeof(struct po_bytes_),
    .equal = equal,
    .hash = hash,
    .repr = repr,
    .number_ = PO_BYTES_,
};

const struct po_slots po_bytes_slots = {
    .type = &po_bytes_type,
    .size = sizeof(struct po_bytes_),
    .equal = equal,
    .hash = hash,
    .repr = repr,
};

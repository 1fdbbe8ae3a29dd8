// SPDX-License-Identifier: MIT
// Copyright (c) the poolmalloc authors

// Objects as text. Slots write into a buffer that grows; what they write is proved to be UTF-8 when
// the str is made of it.

#include <string.h>

#include "object/object.h"

enum { ROOM_MIN = 64, ADDRESS_MAX = 2 + 2 * sizeof(uintptr_t) };

// What stands for an object within its own text, as in Python. Others come to PO_DEPTH_MAX.
static const char *const again[PO_FIRST_OF_PROGRAM_] = {
    [PO_TUPLE_] = "(...)",
    [PO_LIST_] = "[...]",
    [PO_DICT_] = "{...}",
};

// Room for n bytes more.
static bool reserve(po_text *to, size_t n) {
    size_t size;
    if (__builtin_add_overflow(to->size, n, &size) || size > UINT32_MAX) {
        po_fail(PO_NO_MEMORY);
        return false;
    }
    if (PO_LIKELY(size <= to->room)) {
        return true;
    }
    const size_t larger = 2 * to->room > ROOM_MIN ? 2 * to->room : ROOM_MIN;
    const size_t room = larger > size ? larger : size;
    char *const data = po_buffer_resize(to->state, to->data, room);
    if (data == NULL) {
        return false;
    }
    to->data = data;
    to->room = room;
    return true;
}

int po_text_add(po_text *to, const char *utf8, size_t n) {
    if (PO_UNLIKELY(to == NULL || (utf8 == NULL && n != 0))) {
        return po_fail(PO_WRONG_TYPE);
    }
    if (n == 0) {
        return 0;
    }
    if (PO_UNLIKELY(!reserve(to, n))) {
        return -1;
    }
    memcpy(to->data + to->size, utf8, n);
    to->size += n;
    return 0;
}

static int add_address(po_text *to, const void *address) {
    static const char hex[] = "0123456789abcdef";
    char text[ADDRESS_MAX];
    size_t at = sizeof text;
    uintptr_t rest = (uintptr_t)address;
    do {
        text[--at] = hex[rest & 15];
        rest >>= 4;
    } while (rest != 0);
    text[--at] = 'x';
    text[--at] = '0';
    return po_text_add(to, text + at, sizeof text - at);
}

static int add_anonymous(po_text *to, const po_object *object) {
    const char *const name = po_slots_of(object)->type->name;
    return po_text_add(to, "<", 1) < 0 || po_text_add(to, name, strlen(name)) < 0 ||
                   po_text_add(to, " object at ", 11) < 0 || add_address(to, object) < 0
               ? -1
               : po_text_add(to, ">", 1);
}

static int add(po_text *to, po_object *object) {
    const struct po_slots *const slots = po_slots_of(object);
    return slots->repr == NULL ? add_anonymous(to, object) : slots->repr(object, to) == 0 ? 0 : -1;
}

// Of the types whose objects may hold themselves. Shared ones are never written to, and hold
// nothing.
static int add_once(po_text *to, po_object *object) {
    if (!(object->flags_ & PO_CONTAINER)) {
        return add(to, object);
    }
    if (object->flags_ & PO_IN_REPR) {
        const char *const text = again[object->type_];
        return po_text_add(to, text, strlen(text));
    }
    object->flags_ |= PO_IN_REPR;
    const int result = add(to, object);
    object->flags_ &= (uint16_t)~PO_IN_REPR;
    return result;
}

// The slot may drop the last reference that its caller knows of.
static int add_held(po_text *to, po_object *object) {
    if (!po_depth_enter()) {
        return -1;
    }
    po_incref(object);
    const bool is_known = object->type_ < PO_FIRST_OF_PROGRAM_ && again[object->type_] != NULL;
    const int result = is_known ? add_once(to, object) : add(to, object);
    po_decref(object);
    po_depth_leave();
    return result;
}

int po_text_repr(po_text *to, po_object *object) {
    if (PO_UNLIKELY(to == NULL || object == NULL)) {
        return po_fail(PO_WRONG_TYPE);
    }
    return object->type_ <= PO_BYTES_ ? add(to, object) : add_held(to, object);
}

po_object *po_repr(po_state *state, po_object *object) {
    if (state == NULL || object == NULL) {
        return po_fail_null(PO_WRONG_TYPE);
    }
    po_text text = { .state = state };
    po_object *const result =
        po_text_repr(&text, object) == 0 ? po_str(state, text.data, text.size) : NULL;
    po_buffer_free(state, text.data);
    return result;
}

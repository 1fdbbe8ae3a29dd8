// SPDX-License-Identifier: MIT
// Copyright (c) the poolmalloc authors

// What a thread knows of its calls: the last error, and how deep it is in objects within objects.

#include "object/object.h"

#define THREAD_LOCAL __thread __attribute__((tls_model("initial-exec")))

static const char *const texts[PO_CODE_COUNT] = {
    [PO_OK] = "no error",
    [PO_NO_MEMORY] = "no memory, or a size that can't be",
    [PO_WRONG_TYPE] = "an argument is no object of the type that the function takes",
    [PO_NO_INDEX] = "no item has this index",
    [PO_BAD_ARGUMENT] = "an argument has a value that the function does not take",
    [PO_OVERFLOW] = "the number does not fit the type",
    [PO_BAD_TEXT] = "the text is no valid UTF-8",
    [PO_UNHASHABLE] = "the type has no hash, so its objects can't be keys",
    [PO_TOO_DEEP] = "too many levels of objects in objects",
    [PO_CHANGED] = "a callback changed what the function was working on",
    [PO_BAD_TYPE] = "the description of a type can't be right",
    [PO_BUSY] = "not possible while objects end or are collected",
};

static THREAD_LOCAL enum po_code last;
static THREAD_LOCAL unsigned depth;

struct po_error po_error_last(void) {
    return (struct po_error){ last, texts[last] };
}

int po_fail(enum po_code code) {
    last = code;
    return -1;
}

int po_error_set(enum po_code code) {
    return po_fail(code < PO_CODE_COUNT ? code : PO_BAD_ARGUMENT);
}

void po_restore_error(struct po_error error) {
    last = error.code;
}

bool po_depth_enter(void) {
    if (depth >= PO_DEPTH_MAX) {
        po_fail(PO_TOO_DEEP);
        return false;
    }
    depth++;
    return true;
}

void po_depth_leave(void) {
    depth--;
}

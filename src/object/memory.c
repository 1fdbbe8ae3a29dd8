// SPDX-License-Identifier: MIT
// Copyright (c) the poolmalloc authors

// Blocks of a state. It has two heaps: one for containers, which the collector walks, and one for
// all other objects and for buffers. A buffer has an object's head before it, of type 0, so that
// the second can be walked too.

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "object/debug.h"
#include "object/object.h"

#if PO_LIBC_BLOCKS

// Before each block.
struct po_libc_block {
    struct po_libc_block *next, **at;
    po_state *state;
    size_t size;
};

static struct po_libc_block *head_of(const void *block) {
    return (struct po_libc_block *)block - 1;
}

static void *get(po_state *state, void *old, size_t size, bool container) {
    struct po_libc_block *head = old != NULL ? head_of(old) : NULL;
    const size_t before = head != NULL ? head->size : 0;
    head = realloc(head, sizeof *head + size);
    if (head == NULL) {
        return NULL;
    }
    if (old == NULL) {
        head->at = container ? &state->containers : &state->rest;
        head->next = *head->at;
    }
    *head->at = head;
    if (head->next != NULL) {
        head->next->at = &head->next;
    }
    head->state = state;
    head->size = size;
    state->bytes += size - before;
    return head + 1;
}

static void put(po_state *state, void *block, bool container) {
    (void)container;
    struct po_libc_block *const head = head_of(block);
    *head->at = head->next;
    if (head->next != NULL) {
        head->next->at = head->at;
    }
    state->bytes -= head->size;
    free(head);
}

bool po_memory_reclaim(po_state *state) {
    (void)state;
    return false;
}

void po_walk(po_state *state, bool containers,
             int (*visit)(void *block, size_t size, void *argument), void *argument) {
    struct po_libc_block *head = containers ? state->containers : state->rest;
    for (; head != NULL; head = head->next) {
        visit(head + 1, head->size, argument);
    }
}

po_state *po_state_of_block(const void *block) {
    return head_of(block)->state;
}

size_t po_block_size(const void *block) {
    return head_of(block)->size;
}

size_t po_bytes_held(const po_state *state) {
    return state->bytes;
}

po_state *po_memory_open(void) {
    return calloc(1, sizeof(po_state));
}

void po_memory_close(po_state *state) {
    while (state->containers != NULL) {
        put(state, state->containers + 1, true);
    }
    while (state->rest != NULL) {
        put(state, state->rest + 1, false);
    }
    free(state);
}

#else

static pm_heap *heap_for(po_state *state, bool container) {
    return container ? state->containers : state->rest;
}

static void *get(po_state *state, void *old, size_t size, bool container) {
    pm_heap *const heap = heap_for(state, container);
    return old != NULL ? pm_heap_realloc(heap, old, size) : pm_heap_malloc(heap, size);
}

static void put(po_state *state, void *block, bool container) {
    pm_heap_free(heap_for(state, container), block);
}

size_t po_block_size(const void *block) {
    return pm_malloc_usable_size(block);
}

size_t po_bytes_held(const po_state *state) {
    return pm_heap_bytes(state->containers) + pm_heap_bytes(state->rest);
}

po_state *po_memory_open(void) {
    po_state *const state = pm_calloc(1, sizeof *state);
    if (state == NULL) {
        return NULL;
    }
    state->containers = pm_heap_new(state);
    state->rest = pm_heap_new(state);
    if (state->containers == NULL || state->rest == NULL) {
        po_memory_close(state);
        return NULL;
    }
    return state;
}

void po_memory_close(po_state *state) {
    if (state->containers != NULL) {
        pm_heap_destroy(state->containers);
    }
    if (state->rest != NULL) {
        pm_heap_destroy(state->rest);
    }
    pm_free(state);
}

bool po_memory_reclaim(po_state *state) {
    po_spare_free_all(state);
    const int containers = pm_heap_trim(state->containers);
    return pm_heap_trim(state->rest) || containers;
}

void po_walk(po_state *state, bool containers,
             int (*visit)(void *block, size_t size, void *argument), void *argument) {
    pm_heap_walk(heap_for(state, containers), visit, argument);
}

#endif

void po_spare_free_all(po_state *state) {
    for (size_t at = 0; at < PO_SPARE_SIZES; at++) {
        while (state->spare[at] != NULL) {
            struct po_spare *const spare = state->spare[at];
            state->spare[at] = spare->next;
            put(state, spare, at > 1);
        }
        state->spares[at] = 0;
    }
}

static void *get_or_reclaim(po_state *state, void *old, size_t size, bool container) {
    if (size >= PO_LARGE_BYTES) {
        po_gc_look_at_bytes(state);
    }
    void *block = get(state, old, size, container);
    if (PO_UNLIKELY(block == NULL) && po_memory_reclaim(state)) {
        block = get(state, old, size, container);
    }
    if (PO_UNLIKELY(block == NULL)) {
        po_fail(PO_NO_MEMORY);
    }
    return block;
}

static void put_in_debug(void *block) {
    if (po_debug & PO_DEBUG_FILL) {
        memset(block, PO_FREED_BYTE, po_block_size(block));
    }
}

void *po_block_slow(po_state *state, size_t size, bool container) {
    if (size > PTRDIFF_MAX / 4) {
        return po_fail_null(PO_NO_MEMORY);
    }
    void *const block =
        get_or_reclaim(state, NULL, state->is_watched ? size + PO_SITE_BYTES : size, container);
    if (block != NULL && (po_debug & PO_DEBUG_LEAKS)) {
        po_debug_note_site(block);
    }
    return block;
}

po_object *po_make_word_slow(po_state *state, unsigned number, uint64_t word) {
    struct po_word *const made = po_make(state, number, sizeof *made);
    if (PO_UNLIKELY(made == NULL)) {
        return NULL;
    }
    made->word = word;
    return &made->object;
}

void po_block_free_slow(po_state *state, void *block, bool container) {
    if (PO_UNLIKELY(state->is_watched)) {
        put_in_debug(block);
    }
    put(state, block, container);
}

// What stands before a buffer: no object has type 0.
struct buffer {
    po_object head;
    char data[];
};

static struct buffer *buffer_of(void *data) {
    return (struct buffer *)((char *)data - offsetof(struct buffer, data));
}

void *po_buffer_resize(po_state *state, void *data, size_t size) {
    struct buffer *buffer = data != NULL ? buffer_of(data) : NULL;
    if (size > PTRDIFF_MAX / 4) {
        return po_fail_null(PO_NO_MEMORY);
    }
    buffer = get_or_reclaim(state, buffer, sizeof *buffer + size, false);
    if (buffer == NULL) {
        return NULL;
    }
    buffer->head = (po_object){ 0 };
    return buffer->data;
}

void po_buffer_free(po_state *state, void *data) {
    if (data != NULL) {
        po_block_free(state, buffer_of(data), false);
    }
}

size_t po_buffer_size(const void *data) {
    return po_block_size(buffer_of((void *)data)) - sizeof(struct buffer);
}

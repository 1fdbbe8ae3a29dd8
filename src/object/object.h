// SPDX-License-Identifier: MIT
// Copyright (c) the poolmalloc authors

// Objects from the inside: flags, types as the library uses them, states, and what the files of
// this folder offer each other.
//
// An object's head is eight bytes: its count, the number of its type, and flags. What can refer to
// other objects is a container, and has a second word, `gc_`, that is the collector's.
//
// The life of an object, and the functions that change it:
//
//     made         po_make, po_make_container: count 1
//     tracked      po_track: its slots accept it, the collector sees it
//     ending       po_dead_: the count has reached 0; then finalize, which may bring it back, weak
//                  references die, clear, release, and the block is freed
//     trash        collect.c: found unreachable; its block stays until the run has come by it, so
//                  that the list of trash needs no memory
//     gone         in the trash and ended; only the list of trash still knows it

#ifndef PO_OBJECT_OBJECT_H
#define PO_OBJECT_OBJECT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "poolmalloc.h"
#include "poolobject.h"

#define PO_LIKELY(truth)   __builtin_expect(!!(truth), 1)
#define PO_UNLIKELY(truth) __builtin_expect(!!(truth), 0)

// Where AddressSanitizer watches, each object is a block of libc's, so that it sees each.
#if defined(__SANITIZE_ADDRESS__)
#    define PO_LIBC_BLOCKS 1
#elif defined(__has_feature)
#    if __has_feature(address_sanitizer)
#        define PO_LIBC_BLOCKS 1
#    endif
#endif
#ifndef PO_LIBC_BLOCKS
#    define PO_LIBC_BLOCKS 0
#endif

// Flags of an object. The lowest three bits are its generation, so that one compare tells whether a
// run looks at it. The upper half is of containers; in other objects it is their state's number, so
// that nobody asks for one of these flags without PO_CONTAINER.
enum {
    PO_GEN_MASK = 7, // 0, 1, 2, or:
    PO_FROZEN = 3,
    PO_UNTRACKED = 4,
    PO_CONTAINER = 1 << 3,
    PO_HAS_WEAK = 1 << 4,  // the state's table has weak references to it
    PO_INTERNED = 1 << 5,  // str: the state's table has it
    PO_SHARED = 1 << 6,    // of no state
    PO_WATCHED = 1 << 7,   // of a watched state, and no container: does not end in the short way
    PO_FINALIZED = 1 << 8, // or there is nothing to call
    PO_REACHED = 1 << 9,   // collect.c
    PO_TRASH = 1 << 10,    // collect.c
    PO_GONE = 1 << 11,     // ended, and its block waits until the run comes by
    PO_CLEARED = 1 << 12,  // trash whose references the run has cleared
    PO_IN_REPR = 1 << 13,  // its text is being written
    PO_ENDING = 1 << 14,   // its references and what it holds outside are being given up
};

// An object knows the number of its state: in the upper half of its flags; a container in the upper
// half of gc_, or above the link there while it is trash. Only the first states have one that is
// not 0; for others the heap of the object's address tells.
#define PO_STATES_MAX     256
#define PO_STATE_SHIFT    8
#define PO_GC_STATE_SHIFT 32
#define PO_GC_TRASH_SHIFT 48
#define PO_GC_LINK_MASK   ((UINT64_C(1) << PO_GC_TRASH_SHIFT) - 1)
extern po_state *po_states[PO_STATES_MAX];

// All states, linked through `next`; under the lock, which a fork holds.
extern po_state *po_states_first;
void po_states_lock(void);
bool po_states_try_lock(void);
void po_states_unlock(void);

#define PO_GEN_OLD     2
#define PO_GENERATIONS 3

struct po_container {
    PO_HEAD;
};

// What all structs with items begin with.
struct po_items {
    PO_HEAD_ITEMS;
};

#define PO_TYPES_MAX 65536

// A type with the slots of its bases filled in.
struct po_slots {
    po_type *type;
    bool only_refers; // traverse and clear are all that it has for its end
    // Which of a state's spares its blocks are; 0: none, PO_SPARE_ITEMS: by its items.
    uint8_t spare;
    size_t size, item_size;
    int (*traverse)(const po_object *self, po_visit visit, void *argument);
    void (*clear)(po_object *self);
    void (*finalize)(po_object *self);
    void (*release)(po_object *self);
    int (*equal)(po_object *self, po_object *other);
    int (*hash)(po_object *self, uint64_t *to);
    int (*repr)(po_object *self, po_text *to);
};

// By number. Entries are written before an object of the type exists, and never change.
extern const struct po_slots *po_slots[PO_TYPES_MAX];

static inline const struct po_slots *po_slots_of(const po_object *object) {
    return po_slots[object->type_];
}

// The number of a type, which gets one at its first use; 0 and an error when it can't.
unsigned po_type_number_slow(po_type *type);
static inline unsigned po_type_number(po_type *type) {
    const unsigned known = type != NULL ? __atomic_load_n(&type->number_, __ATOMIC_ACQUIRE) : 0;
    return PO_LIKELY(known != 0) ? known : po_type_number_slow(type);
}

// Fills in what needs it before anything is used. Idempotent.
void po_start(void);

// Callbacks of weak references that are to be called, in this order (weakref.c).
struct po_weakref;
struct po_weak_calls {
    struct po_weakref *first, **end;
};

// What a state finds by a hash (table.c): texts that are one object each (intern.c), and rings of
// weak references by their target (weakref.c). References from there are not counted.
struct po_table {
    void **entry;
    size_t used, room; // room: 0 or a power of two
};

struct po_table_kind {
    uint64_t (*hash)(const void *entry);
    size_t room_least; // a power of two
};

// A block of an object that has ended, kept for the next one of its size; of type 0.
struct po_spare {
    po_object head;
    struct po_spare *next;
};

// Sizes of which some are kept, in steps of 16 bytes: of numbers the first, of containers the
// others.
#define PO_SPARE_SIZES 5
#define PO_SPARE_MOST  64
#define PO_SPARE_ITEMS UINT8_MAX

// How many objects end within each other before others wait. As many as in CPython, so that what a
// finalize, a release or a callback sees comes in the same order; a state that has none of them
// gets by with fewer, so that the processor still knows where their calls return to. A clear of the
// program sees the order too, but none is promised to it.
#define PO_NESTING_MAX    50
#define PO_NESTING_UNSEEN 12

struct po_state {
#if PO_LIBC_BLOCKS
    struct po_libc_block *containers, *rest; // lists
    size_t bytes;
#else
    pm_heap *containers; // objects that can refer to others, so that the collector walks no others
    pm_heap *rest;       // all other objects, and buffers
#endif
    // Tracked objects of generation 1, then those of 0; each knows its index in gc_. Entries are
    // NULL where objects ended while a run went on.
    struct po_container **young;
    uint32_t young_one;   // of generation 1
    uint32_t young_count; // of both
    uint32_t young_room;
    uint64_t old, frozen; // tracked objects of these
    // PO_REACHED or 0: what the flag is in objects of generation 2 between runs.
    uint16_t old_reached;
    int8_t running;       // the generation of the run that goes on, or -1
    bool has_holes;       // entries of `young` are NULL
    bool is_ending;       // in po_state_free
    po_state *next, **at; // all states (state.c)
    bool is_watched;      // POOLOBJECT_DEBUG is on (debug.h)
    uint32_t number;      // in po_states, or 0
    uint16_t atom_flags;  // of new objects that are no containers
    uint8_t spares[PO_SPARE_SIZES];
    struct po_spare *spare[PO_SPARE_SIZES];
    uint64_t count[PO_GENERATIONS];
    uint64_t pending, total; // objects that came to generation 2 since its last run, and then
    size_t bytes_at_full;    // of the heap after its last run
    uint64_t ns_each[PO_GENERATIONS]; // what a run took for each object, the last time
    struct po_gc_config config;
    struct po_gc_stats stats;
    void (*tell)(po_state *state, const struct po_gc_event *event, void *argument);
    void *tell_argument;
    struct po_weak_calls late;     // count.c: callbacks that wait
    struct po_container *deferred; // count.c: ended objects that wait, linked through gc_
    // Trash with a count of 0 that was filled again after the run had cleared it: the last, and are
    // there others?
    struct po_container *filled;
    bool has_more_filled;
    unsigned nesting;       // count.c: objects that are being ended within each other
    unsigned nesting_limit; // PO_NESTING_UNSEEN, or PO_NESTING_MAX from po_keep_order on
    unsigned nesting_most;  // to which they may do so in the short way: as many, or none
    struct po_table weak, interned;
};

// --- memory.c: blocks -------------------------------------------------------------------------

// The state that the heap of a block belongs to.
#if PO_LIBC_BLOCKS
po_state *po_state_of_block(const void *block);
#else
static inline po_state *po_state_of_block(const void *block) {
    return (po_state *)pm_heap_context_of(block);
}
#endif

static inline unsigned po_state_number_of(const po_object *object) {
    const unsigned flags = object->flags_;
    if (flags & PO_CONTAINER) {
        const uint64_t gc = ((const struct po_container *)object)->gc_;
        return PO_LIKELY(!(flags & PO_TRASH)) ? (unsigned)(gc >> PO_GC_STATE_SHIFT)
                                              : (uint8_t)(gc >> PO_GC_TRASH_SHIFT);
    }
    return flags >> PO_STATE_SHIFT;
}

// The state of an object that is not shared.
static inline po_state *po_state_of_mortal(const po_object *object) {
    const unsigned number = po_state_number_of(object);
    return PO_LIKELY(number != 0) ? po_states[number] : po_state_of_block(object);
}

// Blocks for objects; NULL without memory, PO_NO_MEMORY is the last error then.
void *po_block_slow(po_state *state, size_t size, bool container);
void po_block_free_slow(po_state *state, void *block, bool container);
size_t po_block_size(const void *block);

// Blocks from this size on are looked at for what they make of the state's bytes.
#define PO_LARGE_BYTES 4096

static inline void *po_block(po_state *state, size_t size, bool container) {
#if !PO_LIBC_BLOCKS
    void *const block = PO_LIKELY(!state->is_watched && size < PO_LARGE_BYTES)
                            ? pm_heap_malloc(container ? state->containers : state->rest, size)
                            : NULL;
    if (PO_LIKELY(block != NULL)) {
        return block;
    }
#endif
    return po_block_slow(state, size, container);
}

static inline void po_block_free(po_state *state, void *block, bool container) {
#if !PO_LIBC_BLOCKS
    if (PO_LIKELY(!state->is_watched)) {
        pm_heap_free(container ? state->containers : state->rest, block);
        return;
    }
#endif
    po_block_free_slow(state, block, container);
}

// Blocks that wait for the next object of their size. Those that wait are no objects for who walks.

static inline size_t po_spare_of(size_t size) {
    return (size + 15) / 16;
}

// Takes the first one off, which there is.
static inline struct po_spare *po_spare_pop(po_state *state, size_t at) {
    struct po_spare *const spare = state->spare[at];
    state->spare[at] = spare->next;
    state->spares[at]--;
    return spare;
}

static inline void *po_spare_take(po_state *state, size_t at) {
    const bool has = PO_LIKELY(at < PO_SPARE_SIZES) && PO_LIKELY(state->spare[at] != NULL);
    return has ? po_spare_pop(state, at) : NULL;
}

static inline bool po_spare_keep(po_state *state, void *block, size_t at) {
    if (PO_LIBC_BLOCKS || PO_UNLIKELY(at - 1 >= PO_SPARE_SIZES - 1) ||
        state->spares[at] == PO_SPARE_MOST) {
        return false;
    }
    struct po_spare *const spare = (struct po_spare *)block;
    const uint64_t head = (uint64_t)PO_UNTRACKED << 48;
    memcpy(&spare->head, &head, sizeof head);
    spare->next = state->spare[at];
    state->spare[at] = spare;
    state->spares[at]++;
    return true;
}

void po_spare_free_all(po_state *state);

// Buffers: memory of objects that is no object. NULL without memory, and the buffer is as it was. A
// resize of NULL is a new one; freeing NULL does nothing.
void *po_buffer_resize(po_state *state, void *buffer, size_t size);
void po_buffer_free(po_state *state, void *buffer);
size_t po_buffer_size(const void *buffer); // at least what was asked for

// Calls visit for each container, or for each block that is none (of type 0: a buffer), which must
// neither make nor free any, and returns 0.
void po_walk(po_state *state, bool containers,
             int (*visit)(void *block, size_t size, void *argument), void *argument);

size_t po_bytes_held(const po_state *state);
po_state *po_memory_open(void);        // a state, all zero but for its memory
void po_memory_close(po_state *state); // frees everything, and the state

// Gives back what can be; false when there was nothing.
bool po_memory_reclaim(po_state *state);

// --- error.c ----------------------------------------------------------------------------------

int po_fail(enum po_code code); // sets the last error; returns -1
void po_restore_error(struct po_error error);

// Nesting of equal, hash and repr of the calling thread: enter fails with PO_TOO_DEEP.
bool po_depth_enter(void);
void po_depth_leave(void);

static inline void *po_fail_null(enum po_code code) {
    po_fail(code);
    return NULL;
}

// Of an exported function's arguments: of this type?
static inline bool po_check_type(const po_object *object, unsigned number) {
    return PO_LIKELY(object != NULL && object->type_ == number) || (po_fail(PO_WRONG_TYPE), false);
}

// --- count.c, collect.c: making and ending -------------------------------------------------------

static inline bool po_is_immortal(const po_object *object) {
    return (object->count_ & PO_IMMORTAL_) != 0;
}

static inline unsigned po_gen(const po_object *object) {
    return object->flags_ & PO_GEN_MASK;
}

static inline bool po_is_tracked(const po_object *object) {
    return po_gen(object) < PO_UNTRACKED;
}

// A free reads the second half of the head at once, which would wait for shorter writes to it.
static inline void po_set_flags(po_object *object, unsigned flags) {
    const uint32_t half = object->type_ | (uint32_t)flags << 16;
    memcpy((char *)object + offsetof(po_object, type_), &half, sizeof half);
}

static inline void po_set_gen(po_object *object, unsigned gen) {
    po_set_flags(object, (object->flags_ & ~(unsigned)PO_GEN_MASK) | gen);
}

static inline void po_set_head(void *object, unsigned number, unsigned flags) {
    const uint64_t head = 1 | (uint64_t)number << 32 | (uint64_t)flags << 48;
    memcpy(object, &head, sizeof head);
}

// A block with an object's head, new.
static inline void *po_make_with(po_state *state, unsigned number, size_t size, unsigned flags,
                                 bool container) {
    void *const made = po_block(state, size, container);
    if (PO_LIKELY(made != NULL)) {
        po_set_head(made, number, flags);
    }
    return made;
}

// An object of a type that is no container, all of it but the head undefined, new.
static inline void *po_make(po_state *state, unsigned number, size_t size) {
    return po_make_with(state, number, size, state->atom_flags, false);
}

// What all objects of 16 bytes are: a head and one word.
struct po_word {
    po_object object;
    uint64_t word;
};

// Such an object, new. Calls what is rare as its last step, so that the usual way saves no
// registers; the maker has left the stack by then (debug.c).
po_object *po_make_word_slow(po_state *state, unsigned number, uint64_t word);
static inline po_object *po_make_word(po_state *state, unsigned number, uint64_t word) {
    struct po_word *const made = (struct po_word *)po_spare_take(state, po_spare_of(sizeof *made));
    if (PO_UNLIKELY(made == NULL)) {
        return po_make_word_slow(state, number, word);
    }
    po_set_head(made, number, state->atom_flags);
    made->word = word;
    return &made->object;
}

// From now on code of the program that is promised an order runs as objects end: a finalize, a
// release, a callback.
static inline void po_keep_order(po_state *state) {
    state->nesting_limit = PO_NESTING_MAX;
    state->nesting_most = state->is_watched ? 0 : PO_NESTING_MAX;
}

// gc_ of a container between runs.
static inline uint64_t po_gc_word(const po_state *state, uint32_t index) {
    return (uint64_t)state->number << PO_GC_STATE_SHIFT | index;
}

void po_gc_run_due(po_state *state);

// The state's bytes may have grown by much. Where they have doubled, the next container runs what
// is due, before there are threshold[0] of them.
void po_gc_look_at_bytes(po_state *state);
bool po_gc_grow(po_state *state);

// A container's block was freed, or could not be had.
static inline void po_gc_freed(po_state *state) {
    state->count[0] -= state->count[0] != 0;
}

// As a container is made: counts it, runs what is due, and makes room for one more in the vector of
// young objects; false without memory.
static inline bool po_gc_step(po_state *state) {
    if (PO_UNLIKELY(++state->count[0] > state->config.threshold[0])) {
        po_gc_run_due(state);
    }
    return PO_LIKELY(state->young_count < state->young_room) || po_gc_grow(state);
}

// A container of a type that can't refer to others, new.
static inline void *po_make_bare(po_state *state, unsigned number, size_t size) {
    struct po_container *const made = (struct po_container *)po_make_with(
        state, number, size,
        PO_UNTRACKED | PO_CONTAINER | (po_slots[number]->finalize == NULL ? PO_FINALIZED : 0),
        true);
    if (PO_LIKELY(made != NULL)) {
        made->gc_ = po_gc_word(state, 0);
    }
    return made;
}

// A container whose block is one of these spares, new, all of it but the head undefined. The caller
// fills it in and calls po_track, which can't fail, or po_unmake_container before anything else is
// made. May collect.
static inline void *po_make_tracked(po_state *state, unsigned number, size_t size, size_t spares,
                                    unsigned flags) {
    if (PO_UNLIKELY(!po_gc_step(state))) {
        po_gc_freed(state);
        return NULL;
    }
    void *const spare = po_spare_take(state, spares);
    if (PO_LIKELY(spare != NULL)) {
        po_set_head(spare, number, flags);
        return spare;
    }
    void *const made = po_make_with(state, number, size, flags, true);
    if (PO_UNLIKELY(made == NULL)) {
        po_gc_freed(state);
    }
    return made;
}

// The same for a type of the library, of a size that has spares, which the caller has seen to. NULL
// where none is kept, the vector of young objects is full, or a run would be asked for, if only to
// be refused by the mode; nothing has changed then.
static inline void *po_make_of_spare(po_state *state, unsigned number, size_t size) {
    const size_t at = po_spare_of(size);
    if (PO_UNLIKELY(state->spare[at] == NULL || state->count[0] >= state->config.threshold[0] ||
                    state->young_count >= state->young_room)) {
        return NULL;
    }
    state->count[0]++;
    struct po_spare *const spare = po_spare_pop(state, at);
    po_set_head(spare, number, PO_CONTAINER | PO_FINALIZED);
    return spare;
}

// The same in any case.
static inline void *po_make_container(po_state *state, unsigned number, size_t size) {
    return po_make_tracked(state, number, size, po_spare_of(size), PO_CONTAINER | PO_FINALIZED);
}

static inline void po_track(po_state *state, void *object) {
    struct po_container *const container = (struct po_container *)object;
    container->gc_ = po_gc_word(state, state->young_count);
    state->young[state->young_count++] = container;
}

// An object that its finalizer has brought back.
void po_track_again(po_state *state, struct po_container *container);

// The object ends. One that is not tracked is left as it is.
void po_untrack_slow(po_state *state, struct po_container *container);
static inline void po_untrack(po_state *state, struct po_container *container) {
    // Most objects end young, the latest first.
    if (PO_LIKELY(po_gen(&container->object) == 0 &&
                  (uint32_t)container->gc_ == state->young_count - 1 && state->running < 0)) {
        state->young_count--;
        po_set_gen(&container->object, PO_UNTRACKED);
    } else {
        po_untrack_slow(state, container);
    }
}

long po_gc_run(po_state *state, int generation);
void po_gc_open(po_state *state);

// Frees one that was not tracked, and holds no references.
void po_unmake_container(po_state *state, void *container);

// Ends trash whose count has reached 0 when po_dead_ could not.
void po_end_trash(po_state *state, struct po_container *container);
// Calls a finalizer, unless it was called before. The caller holds a reference.
void po_finalize(po_object *object);

// An object is about to be stored in one of `state`: builds with checks stop at one of another
// state.
#if PM_CHECKS
void po_check_state(po_state *state, const po_object *object);
#else
#    define po_check_state(state, object) ((void)0)
#endif

// --- weakref.c ----------------------------------------------------------------------------------

struct po_weakref {
    PO_HEAD;
    po_object *target;       // NULL when dead; not counted
    struct po_weakref *next; // of the same target; when dead, of those that are to be called
    struct po_weakref *prev; // of the same target
    po_weak_callback callback;
    po_object *data;
};

// The table has the first weak reference of each target, by its target.
extern const struct po_table_kind po_weak_kind;

// The object ends: its weak references are dead, then their callbacks are called.
void po_weak_end(po_state *state, po_object *target);
// The same for trash, in two steps: first all die, then the callbacks of those that are not trash
// themselves are called, which `calls` gathers.
void po_weak_kill(po_state *state, po_object *target, struct po_weak_calls *calls);
void po_weak_call(const struct po_weak_calls *calls);
// After many have ended: a smaller table, where there is memory for it.
void po_weak_fit(po_state *state);
// A weak reference that is trash: dies without a callback.
void po_weak_die(po_state *state, po_object *weakref);

// --- table.c ------------------------------------------------------------------------------------

// Where a search begins that is not over before an empty place, and how it goes on. The table has
// room.
static inline size_t po_table_home(const struct po_table *table, uint64_t hash) {
    return hash & (table->room - 1);
}
static inline size_t po_table_next(const struct po_table *table, size_t at) {
    return (at + 1) & (table->room - 1);
}

// Less room, where few are left: halved until a quarter is used, or the least is reached.
static inline size_t po_room_fit(size_t room, size_t used, size_t least) {
    if (used < room / 8) {
        while (room > least && used < room / 4) {
            room /= 2;
        }
    }
    return room;
}

// Room for one more; false without memory, and nothing has changed then.
bool po_table_grow(po_state *state, struct po_table *table, const struct po_table_kind *kind);
static inline bool po_table_reserve(po_state *state, struct po_table *table,
                                    const struct po_table_kind *kind) {
    return PO_LIKELY(2 * (table->used + 1) <= table->room) || po_table_grow(state, table, kind);
}

// One more, for which there is room.
static inline void po_table_insert(struct po_table *table, const struct po_table_kind *kind,
                                   void *entry) {
    size_t at = po_table_home(table, kind->hash(entry));
    while (table->entry[at] != NULL) {
        at = po_table_next(table, at);
    }
    table->entry[at] = entry;
    table->used++;
}

// Entries behind it that would not be found any more move up.
static inline void po_table_remove(struct po_table *table, const struct po_table_kind *kind,
                                   size_t at) {
    const size_t mask = table->room - 1;
    size_t next = po_table_next(table, at);
    for (void *entry; (entry = table->entry[next]) != NULL; next = po_table_next(table, next)) {
        const size_t home = po_table_home(table, kind->hash(entry));
        if (((next - home) & mask) >= ((next - at) & mask)) {
            table->entry[at] = entry;
            at = next;
        }
    }
    table->entry[at] = NULL;
    table->used--;
}

// After many have left: less room, where there is memory for it.
void po_table_fit(po_state *state, struct po_table *table, const struct po_table_kind *kind);

// --- intern.c -----------------------------------------------------------------------------------

extern const struct po_table_kind po_intern_kind;
void po_intern_forget(po_state *state, po_object *str);
// After many have ended: a smaller table, where there is memory for it.
void po_intern_fit(po_state *state);

// --- hash.c -------------------------------------------------------------------------------------

uint64_t po_hash_bytes(const void *data, size_t n); // never 0
uint64_t po_hash_word(uint64_t word);
void po_hash_start(void);

// --- text.c -------------------------------------------------------------------------------------

struct po_text {
    po_state *state;
    char *data; // a buffer
    size_t size, room;
};

// --- statistics.c -------------------------------------------------------------------------------

void po_statistics_start(void);

// --- One for each type --------------------------------------------------------------------------

extern const struct po_slots po_none_slots, po_bool_slots, po_int_slots, po_float_slots,
    po_str_slots, po_bytes_slots, po_tuple_slots, po_list_slots, po_dict_slots, po_weakref_slots;
void po_int_start(void);
void po_str_start(void);
// po_tuple and po_tuple_take where nothing is kept; they have left the stack by then (debug.c).
po_object *po_tuple_slow(po_state *state, size_t n, po_object *const *items, bool take);

#endif

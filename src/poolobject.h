/* SPDX-License-Identifier: MIT
 * Copyright (c) the poolmalloc authors
 *
 * poolobject: Python's object memory for C programs. Reference counts, a collector for cycles, weak
 * references, and the types that programs are made of.
 *
 * Three sentences teach it. Makers take the state. Results are yours, arguments stay yours unless
 * the name ends in _take. A type is described by traverse, clear and, if it owns something outside,
 * release.
 *
 * Words, on each prototype: `new` results are references of yours, to be given up with po_decref;
 * `borrowed` ones belong to somebody else, and last as long as that one keeps them; `taken`
 * arguments are given up by the call, also when it fails. All other arguments stay as they were.
 *
 * Threads: a state and its objects are used by one thread at a time, and handed over with the
 * program's own synchronisation. Different states know nothing of each other: an object is never
 * stored in one of another state. Immortal objects (PO_NONE, small integers, ...) and types belong
 * to no state, are never written once the library is loaded (a type: once it was used), and serve
 * all threads. After fork, the child may go on with all states that no other thread was using.
 *
 * Calls back: `may collect` says that a function may run the collector, `may run callbacks` that it
 * may call finalizers, the callbacks of weak references, release, and what these call. What
 * collects runs callbacks. A callback may use its state freely, but for release, which may not
 * touch objects. A program keeps a reference to everything that it uses across such a call.
 *
 * Errors: makers return NULL, look-ups 1 (found), 0 (not) or -1 (error), all others 0 or -1.
 * po_error_last tells what went wrong. Without memory, what can be given back is given back and the
 * request tried once more; then the call fails, and everything is as it was.
 */

#ifndef POOLOBJECT_H
#define POOLOBJECT_H

#include <assert.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#if defined(__GNUC__)
#    pragma GCC visibility push(default)
#endif

typedef struct po_state po_state;
typedef struct po_object po_object;
typedef struct po_type po_type;
typedef struct po_text po_text;

/* What every object begins with. Its members are the library's. */
struct po_object {
    uint32_t count_;
    uint16_t type_;
    uint16_t flags_;
};

/* What the struct of a type of the program's begins with: `struct node { PO_HEAD; ... };`. Its
 * first member is `object`, so that &node->object is the object, and (struct node *)object the
 * node. */
#define PO_HEAD       \
    po_object object; \
    uint64_t gc_

/* The same where items follow the struct; `items` says how many. */
#define PO_HEAD_ITEMS \
    PO_HEAD;          \
    size_t items

/* --- States --------------------------------------------------------------------------------- */

/* A state without objects; NULL without memory. The functions that take a state want one: only
 * po_state_free takes NULL, and makers of text and bytes fail. */
po_state *po_state_new(void);

/* Ends a state: a full collection with finalizers, then release for all objects that are left, then
 * their memory at once. Returns how many objects the program still held references to; where fd is
 * not -1, a line for each of their types goes there. A NULL state is one without objects. Inside of
 * a finalizer, of release, or of a callback of a weak reference or the collector it does nothing:
 * SIZE_MAX and PO_BUSY; slots for equal, hash and repr must not call it. Objects that were frozen
 * are not collected. May run callbacks. */
size_t po_state_free(po_state *state, int fd);

/* The state of an object, borrowed; NULL for immortal objects that belong to none. */
po_state *po_state_of(const po_object *object);

/* --- Errors ---------------------------------------------------------------------------------- */

enum po_code {
    PO_OK,
    PO_NO_MEMORY,    /* or a size that can't be */
    PO_WRONG_TYPE,   /* an argument is no object of the type that the function takes */
    PO_NO_INDEX,     /* no item has this index */
    PO_BAD_ARGUMENT, /* a number or a NULL that the function does not take */
    PO_OVERFLOW,     /* the number does not fit the type; for programs, none of these sets it */
    PO_BAD_TEXT,     /* no valid UTF-8 */
    PO_UNHASHABLE,   /* the type has no hash: it can't be a key */
    PO_TOO_DEEP,     /* objects in objects, more than PO_DEPTH_MAX levels */
    PO_CHANGED,      /* a callback changed what the function was working on */
    PO_BAD_TYPE,     /* a type's description can't be right, or the process has 65,536 types */
    PO_BUSY,         /* not from a finalizer, a release or a callback, while objects end */
    PO_CODE_COUNT
};

/* How deep equal, hash and repr go. */
#define PO_DEPTH_MAX 200

struct po_error {
    enum po_code code;
    const char *text; /* static; a sentence without a full stop */
};

/* The last error of the calling thread. Success leaves it as it is, and so do callbacks that the
 * library runs in between. So does a _take that fails because it got NULL for an object: the error
 * of who could not make that one stays. */
struct po_error po_error_last(void);

/* For slots of the program's types: makes this the last error, and returns -1. What is no code
 * becomes PO_BAD_ARGUMENT. */
int po_error_set(enum po_code code);

/* --- Reference counts ------------------------------------------------------------------------ */

/* The count of an immortal object has this bit; a count that reaches it stays. */
#define PO_IMMORTAL_ UINT32_C(0x80000000)

void po_dead_(po_object *object);

/* One reference more; returns its argument, new. NULL is no object. */
static inline po_object *po_incref(po_object *object) {
    if (!(object->count_ & PO_IMMORTAL_)) {
        object->count_++;
    }
    return object;
}

/* Gives up a reference, the last one ends the object; NULL does nothing. May run callbacks. */
static inline void po_decref(po_object *object) {
    if (object != NULL && !(object->count_ & PO_IMMORTAL_) && --object->count_ == 0) {
        po_dead_(object);
    }
}

/* The same for a variable, which is NULL before anything runs that could look at it. */
static inline void po_clear(po_object **variable) {
    po_object *const old = *variable;
    *variable = NULL;
    po_decref(old);
}

/* Stores a reference in a variable; what was there is given up after that. Either may be NULL. */
static inline void po_set_take(po_object **variable, po_object *taken) {
    po_object *const old = *variable;
    *variable = taken;
    po_decref(old);
}

static inline void po_set(po_object **variable, po_object *object) {
    po_set_take(variable, object != NULL ? po_incref(object) : NULL);
}

/* PO_AUTO po_object *name = ...; gives the reference up where the name goes out of scope. It must
 * be given a value, or NULL, right there. */
static inline void po_auto_(po_object *const *variable) {
    po_decref(*variable);
}
#define PO_AUTO __attribute__((cleanup(po_auto_)))

/* --- Types ----------------------------------------------------------------------------------- */

/* Calls visit for an object; to be returned from traverse when not 0. */
typedef int (*po_visit)(po_object *object, void *argument);
#define PO_VISIT(held)                                                 \
    do {                                                               \
        po_object *const po_held_ = (held);                            \
        const int po_stop_ = po_held_ ? visit(po_held_, argument) : 0; \
        if (po_stop_) {                                                \
            return po_stop_;                                           \
        }                                                              \
    } while (0)

/* A type. It must outlive all states, and must not change once it was used. Slots may be NULL;
 * those of the base serve where they are. traverse, clear and release of type and base are all
 * called, the type's before its base's. */
struct po_type {
    const char *name;
    po_type *base;    /* NULL, or a type of the program's, whose struct this one's begins with */
    size_t size;      /* of the struct, which begins with PO_HEAD */
    size_t item_size; /* of each item after it; then the struct begins with PO_HEAD_ITEMS */
    unsigned flags;   /* 0 */
    /* Calls PO_VISIT for each reference that the object holds, once for each, by the names of these
     * parameters, and nothing else. A reference that is not visited makes cycles through it stay
     * for ever; one that is not held must not be visited. */
    int (*traverse)(const po_object *self, po_visit visit, void *argument);
    /* Gives up these references (po_clear for each). The object stays valid, and may be cleared
     * again. Objects that end together are cleared in no order that is told. */
    void (*clear)(po_object *self);
    /* Before the object goes: may use and change all objects, and may keep this one alive by a new
     * reference to it. Once in the life of an object. */
    void (*finalize)(po_object *self);
    /* When the object is gone: gives back what it holds outside (descriptors, malloc'ed memory).
     * Must not touch objects. Once, last. */
    void (*release)(po_object *self);
    /* 1 equal, 0 not, -1 error. Both are of the type, or of ones derived from it. */
    int (*equal)(po_object *self, po_object *other);
    /* A number that is the same for equal objects, into *to; 0 or -1. A type with equal of its own
     * and without hash can't be a key, whatever its base has; one without either is equal to itself
     * only. */
    int (*hash)(po_object *self, uint64_t *to);
    /* Writes the object as text, by po_text_add and po_text_repr; 0 or -1. */
    int (*repr)(po_object *self, po_text *to);
    unsigned number_; /* the library's: 0 until the type is used */
};

/* A new object, all zero after its head, which traverse, clear and release must accept. May
   collect. */
po_object *po_new(po_state *state, po_type *type);
po_object *po_new_items(po_state *state, po_type *type, size_t items);

/* The type of an object, borrowed. */
po_type *po_type_of(const po_object *object);

/* Is it of the type, or of one derived from it? */
int po_is(const po_object *object, const po_type *type);

/* 1 equal, 0 not, -1 error. Numbers are equal by value; other objects of types that have nothing to
 * do with each other are not equal. May run callbacks. */
int po_equal(po_object *a, po_object *b);

/* The hash of an object into *to: 0, or -1. Differs from one run of a program to the next, unless
 * POOLOBJECT_HASHSEED=n says otherwise. */
int po_hash(po_object *object, uint64_t *to);

/* The object as text, as Python writes it: a new str. May run callbacks, where a repr does. */
po_object *po_repr(po_state *state, po_object *object);

/* For repr slots: append n bytes of UTF-8, which is looked at when the text is whole, or the text
 * of an object; 0 or -1. */
int po_text_add(po_text *to, const char *utf8, size_t n);
int po_text_repr(po_text *to, po_object *object);

/* --- The collector --------------------------------------------------------------------------- */

/* It finds objects that only refer to each other. New ones are in generation 0; what survives a run
 * goes to the next. A run of 0 is due when more than threshold[0] more objects that can refer to
 * others were made than ended, of 1 after more than threshold[1] runs of 0, of 2 (all objects)
 * after more than threshold[2] runs of 1, when as many as a quarter of them are new, and also when
 * the state's bytes have doubled. Lack of memory starts no run. */
enum po_gc_mode {
    PO_GC_AUTO, /* a due run comes just before the next object that can refer to others is made */
    PO_GC_POLL, /* in po_gc_poll only */
    PO_GC_OFF   /* in po_gc_collect only */
};

struct po_gc_config {
    enum po_gc_mode mode;
    unsigned threshold[3]; /* threshold[0] of 0: nothing is ever due */
};

/* What a new state has: PO_GC_AUTO, 700, 10, 10. */
#define PO_GC_DEFAULT   \
    {                   \
        PO_GC_AUTO, {   \
            700, 10, 10 \
        }               \
    }

/* -1 and PO_BAD_ARGUMENT for NULL or another mode; then nothing has changed. */
int po_gc_configure(po_state *state, const struct po_gc_config *config);

/* Runs a generation (0, 1, 2) and the younger ones now, due or not. Returns how many objects nobody
 * could reach, without those that finalizers have ended or brought back; 0 inside of a run, -1 and
 * PO_BAD_ARGUMENT for another generation. Runs callbacks. */
long po_gc_collect(po_state *state, int generation);

/* Runs the oldest generation that is due, if it is expected to take at most so many nanoseconds. 1
 * when something is due still, else 0. May collect. */
int po_gc_poll(po_state *state, uint64_t budget_ns);

/* Leaves all objects of now out of all later runs: for programs that fork, whose children then
 * share their memory. Reference counts go on. Inside of a run it does nothing. */
void po_gc_freeze(po_state *state);

struct po_gc_stats {
    struct {
        uint64_t runs, collected,
            survived; /* survived: unreachable and finalized, but not ended by clear */
        uint64_t longest_ns, total_ns;
    } generation[3];
    uint64_t count[3];           /* what is compared with the thresholds */
    uint64_t young, old, frozen; /* objects that the collector looks at, and those it leaves out */
};
void po_gc_stats(const po_state *state, struct po_gc_stats *to);

enum po_gc_phase { PO_GC_START, PO_GC_SURVIVED, PO_GC_STOP };
struct po_gc_event {
    enum po_gc_phase phase;
    int generation;
    uint64_t collected;  /* STOP */
    uint64_t survived;   /* STOP: of all types; SURVIVED: of this type */
    const po_type *type; /* SURVIVED */
    uint64_t ns;         /* STOP: how long it took */
};

/* Has a function called at the start and the end of each run, and between for each type of which
 * objects survived; NULL: none. It must neither make nor change objects; at STOP it may give
 * references up. */
void po_gc_on(po_state *state,
              void (*tell)(po_state *state, const struct po_gc_event *event, void *argument),
              void *argument);

/* --- None, bool, int, float ------------------------------------------------------------------ */

extern po_type po_none_type, po_bool_type, po_int_type, po_float_type, po_str_type, po_bytes_type;
extern po_type po_tuple_type, po_list_type, po_dict_type, po_weakref_type;

struct po_int_ {
    po_object object;
    int64_t value;
};
struct po_float_ {
    po_object object;
    double value;
};

/* Type numbers of these types, in the order in which Python programs meet them. */
enum {
    PO_NONE_ = 1,
    PO_BOOL_,
    PO_INT_,
    PO_FLOAT_,
    PO_STR_,
    PO_BYTES_,
    PO_TUPLE_,
    PO_LIST_,
    PO_DICT_,
    PO_WEAKREF_,
    PO_FIRST_OF_PROGRAM_
};

#define PO_SMALL_INT_MIN_ (-5)
#define PO_SMALL_INT_MAX_ 256
extern struct po_int_ po_small_ints_[PO_SMALL_INT_MAX_ - PO_SMALL_INT_MIN_ + 1];
extern po_object po_none_;
extern struct po_int_ po_bools_[2];

/* Immortal: each is one object, and can be compared by address. */
#define PO_NONE  (&po_none_)
#define PO_FALSE (&po_bools_[0].object)
#define PO_TRUE  (&po_bools_[1].object)

static inline po_object *po_bool(int is_true) {
    return &po_bools_[is_true != 0].object;
}

po_object *po_int_new_(po_state *state, int64_t value);

/* An integer, new; -5 to 256 are shared. */
__attribute__((always_inline)) static inline po_object *po_int(po_state *state, int64_t value) {
    const uint64_t index = (uint64_t)value - (uint64_t)(int64_t)PO_SMALL_INT_MIN_;
    return index <= PO_SMALL_INT_MAX_ - PO_SMALL_INT_MIN_ ? &po_small_ints_[index].object
                                                          : po_int_new_(state, value);
}

/* The value of an int or a bool. */
static inline int64_t po_int_value(const po_object *object) {
    assert(object->type_ == PO_INT_ || object->type_ == PO_BOOL_);
    return ((const struct po_int_ *)object)->value;
}

/* A number, new. */
po_object *po_float(po_state *state, double value);

static inline double po_float_value(const po_object *object) {
    assert(object->type_ == PO_FLOAT_);
    return ((const struct po_float_ *)object)->value;
}

/* --- str, bytes ------------------------------------------------------------------------------ */

struct po_str_ {
    po_object object;
    uint64_t hash;   /* 0: not yet known */
    uint32_t size;   /* bytes, without the 0 at the end */
    uint32_t length; /* code points */
    char data[];
};
struct po_bytes_ {
    po_object object;
    uint64_t hash;
    uint64_t size;
    char data[];
};

/* A text of n bytes of UTF-8 (without surrogates, fewer than 4 GiB), new; the empty one and those
 * of one byte are shared. */
po_object *po_str(po_state *state, const char *utf8, size_t n);

/* The same: one object for all that ask for this text, as long as anybody has a reference to it. */
po_object *po_str_intern(po_state *state, const char *utf8, size_t n);

/* The bytes of a text, borrowed; a 0 follows them. */
static inline const char *po_str_data(const po_object *str) {
    assert(str->type_ == PO_STR_);
    return ((const struct po_str_ *)str)->data;
}

/* Length in bytes, and in code points. */
static inline size_t po_str_size(const po_object *str) {
    assert(str->type_ == PO_STR_);
    return ((const struct po_str_ *)str)->size;
}
static inline size_t po_str_length(const po_object *str) {
    assert(str->type_ == PO_STR_);
    return ((const struct po_str_ *)str)->length;
}

/* A copy of n bytes, new; the empty one is shared. */
po_object *po_bytes(po_state *state, const void *data, size_t n);

static inline const void *po_bytes_data(const po_object *bytes) {
    assert(bytes->type_ == PO_BYTES_);
    return ((const struct po_bytes_ *)bytes)->data;
}
static inline size_t po_bytes_size(const po_object *bytes) {
    assert(bytes->type_ == PO_BYTES_);
    return ((const struct po_bytes_ *)bytes)->size;
}

/* --- tuple, list ----------------------------------------------------------------------------- */

struct po_tuple_ {
    PO_HEAD_ITEMS;
    po_object *item[];
};
struct po_list_ {
    PO_HEAD;
    po_object **item;
    uint32_t items, room;
};

/* A tuple of n objects, new; the empty one is shared. _take: the references in `items` are taken.
 * May collect, and where it fails, _take may run callbacks. */
po_object *po_tuple(po_state *state, size_t n, po_object *const *items);
po_object *po_tuple_take(po_state *state, size_t n, po_object *const *items);

static inline size_t po_tuple_size(const po_object *tuple) {
    assert(tuple->type_ == PO_TUPLE_);
    return ((const struct po_tuple_ *)tuple)->items;
}
/* Borrowed. */
static inline po_object *po_tuple_at(const po_object *tuple, size_t index) {
    assert(tuple->type_ == PO_TUPLE_ && index < po_tuple_size(tuple));
    return ((const struct po_tuple_ *)tuple)->item[index];
}

/* An empty list, new. At most 2^32 - 1 items. May collect. */
po_object *po_list(po_state *state);

static inline size_t po_list_size(const po_object *list) {
    assert(list->type_ == PO_LIST_);
    return ((const struct po_list_ *)list)->items;
}
/* Borrowed. */
static inline po_object *po_list_at(const po_object *list, size_t index) {
    assert(list->type_ == PO_LIST_ && index < po_list_size(list));
    return ((const struct po_list_ *)list)->item[index];
}

/* At the end. Where it fails, _take may run callbacks. */
int po_list_append_slow_(po_object *list, po_object *object);
static inline int po_list_append(po_object *list, po_object *object) {
    struct po_list_ *const to = (struct po_list_ *)list;
    if (list == NULL || list->type_ != PO_LIST_ || to->items >= to->room || object == NULL) {
        return po_list_append_slow_(list, object);
    }
    to->item[to->items++] = po_incref(object);
    return 0;
}
int po_list_append_take(po_object *list, po_object *taken);

/* Before the item with this index, or at the end where it is the size. */
int po_list_insert(po_object *list, size_t index, po_object *object);

/* In the place of an item. May run callbacks. */
int po_list_set(po_object *list, size_t index, po_object *object);

/* n items from an index on. May run callbacks. */
int po_list_remove(po_object *list, size_t index, size_t n);

/* The last item, new; NULL and PO_NO_INDEX when there is none. */
po_object *po_list_pop(po_object *list);

/* --- dict ------------------------------------------------------------------------------------ */

/* An empty dict, new. It keeps the order in which keys came. At most 10^9 keys. May collect. */
po_object *po_dict(po_state *state);

/* Of anything else than a dict: 0, and PO_WRONG_TYPE. */
size_t po_dict_size(const po_object *dict);

/* The value of a key, borrowed, into *value: 1, 0 when there is none (*value is NULL then), -1. May
 * run callbacks, where keys have an equal that does. */
int po_dict_get(po_object *dict, po_object *key, po_object **value);

/* Gives a key a value, in the place of the one that it had. May run callbacks. */
int po_dict_set(po_object *dict, po_object *key, po_object *value);

/* The same with both references taken. */
int po_dict_set_take(po_object *dict, po_object *key, po_object *value);

/* Removes a key: 1, 0 when it was not there, -1. May run callbacks. */
int po_dict_remove(po_object *dict, po_object *key);

/* The next key and its value, borrowed, in order: 1, or 0 at the end. *position is 0 at first.
 * Values may be set in between, keys neither added nor removed. For what is no dict: 0, and
 * PO_WRONG_TYPE is the last error. */
int po_dict_next(const po_object *dict, size_t *position, po_object **key, po_object **value);

/* --- Weak references ------------------------------------------------------------------------- */

/* A reference that does not keep its target alive, new. When the target ends while the reference
 * lives, `callback`, where it is not NULL, is called with the reference and `data`; the reference
 * is dead then. With a callback it holds a reference to data, which may be NULL. Without one, data
 * is left alone, and one object serves all, but for immortal targets, which never die. NULL and
 * PO_WRONG_TYPE for a target that is ending. May collect. */
typedef void (*po_weak_callback)(po_object *weakref, po_object *data);
po_object *po_weakref(po_state *state, po_object *target, po_weak_callback callback,
                      po_object *data);

/* The target, new, into *target: 1, 0 when it is dead (*target is NULL then), -1. */
int po_weakref_get(const po_object *weakref, po_object **target);

/* --- Looking inside -------------------------------------------------------------------------- */

/* Tells about an object, a line each: its type and count, the objects that refer to it, and how
 * many references are the program's own. Looks at the whole state. 0, or -1: PO_BUSY inside of a
 * run, which holds references itself. */
int po_explain(po_object *object, int fd);

/* Looks whether everything in the state is as it must be: counts against references, what the
 * collector knows, and the tables of weak references and interned texts. Returns how many things
 * are not; where fd is not -1, a line for each goes there, and one for each word of an object that
 * looks like a reference which its traverse passes over. SIZE_MAX when it could not look: without
 * memory, or inside of a collection. */
size_t po_check(po_state *state, int fd);

#if defined(__GNUC__)
#    pragma GCC visibility pop
#endif

#ifdef __cplusplus
}
#endif

#endif

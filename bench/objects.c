// SPDX-License-Identifier: MIT
// Copyright (c) the poolmalloc authors
//
// pm-bench-objects: poolobject beside CPython, whose C API it embeds. One call measures one thing,
// in a process of its own; objects.py makes the calls and compares.
//
//     list                            what there is to measure
//     version                         what it was built with, and the libraries
//     time NAME [rounds=N] [most=N]   an operation on both sides, round by round, in ns
//     memory NAME SIDE [most=N]       the growth of private resident memory, in bytes for each
//     pause fresh|aged SIDE COUNT [runs=N]    full collections of so many lists, in ns
//
// Each operation is written once, over a table of the functions of a side. The tables are constants
// and the operations are inlined for each, so that both sides run the same loop with direct calls.
// What sets the stage is not timed. Both collectors are off, and called where a collection is
// measured; where memory is measured, both run as programs have them.

#ifdef BENCH_PYTHON
#    define PY_SSIZE_T_CLEAN
#    include <Python.h>
#endif

#include "figures.h"
#include "poolobject.h"

#include <dlfcn.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#define INLINE static inline __attribute__((always_inline))

// The compiler must take for used what the loops make.
#define KEEP(pointer) __asm__ volatile("" : : "r"(pointer) : "memory")

// The compiler must not know what a number is.
INLINE int64_t hidden(int64_t number) {
    __asm__ volatile("" : "+r"(number));
    return number;
}

// A wrong result is no result.
static void expect(bool truth, const char *what) {
    if (!truth) {
        fprintf(stderr, "pm-bench-objects: %s\n", what);
        exit(1);
    }
}

// What both can do. Results are the caller's but where it says otherwise, arguments stay the
// caller's but for those called `taken`.
struct side {
    const char *name;
    void (*open)(void);
    void (*collect_as_usual)(void); // on its own, as programs have it
    void (*close)(void);            // everything that was made has been dropped
    void *(*keep)(void *object);
    void (*drop)(void *object);
    void *(*none)(void); // borrowed
    void *(*whole)(int64_t value);
    void *(*real)(double value);
    void *(*text)(const char *utf8, size_t n);
    void *(*interned)(const char *utf8, size_t n);
    void *(*three)(void *const *items); // a tuple
    void *(*list)(void);
    void *(*list_of)(void *taken); // a list of one
    bool (*append)(void *list, void *item);
    bool (*replace)(void *list, size_t index, void *taken);
    void *(*dict)(void);
    bool (*put)(void *dict, void *key, void *value);
    void *(*find)(void *dict, void *key); // borrowed
    size_t (*dict_size)(void *dict);
    void *(*node)(void);    // an object of the program's with two fields
    void *(*watched)(void); // the same, where weak references are possible
    void (*set)(void *node, unsigned field, void *taken); // the field was empty
    void *(*weak)(void *watched);
    bool (*alive)(void *weak);
    int64_t (*value)(void *whole);
    long (*collect)(void); // a full collection; how many it found
};

// --- poolobject ---------------------------------------------------------------------------------

struct po_node {
    PO_HEAD;
    po_object *field[2];
};

static int po_node_traverse(const po_object *self, po_visit visit, void *argument) {
    const struct po_node *const node = (const struct po_node *)self;
    PO_VISIT(node->field[0]);
    PO_VISIT(node->field[1]);
    return 0;
}

static void po_node_clear(po_object *self) {
    struct po_node *const node = (struct po_node *)self;
    po_clear(&node->field[0]);
    po_clear(&node->field[1]);
}

static po_type po_node_type = {
    .name = "node",
    .size = sizeof(struct po_node),
    .traverse = po_node_traverse,
    .clear = po_node_clear,
};

static po_state *state;

static void po_set_mode(enum po_gc_mode mode) {
    struct po_gc_config config = PO_GC_DEFAULT;
    config.mode = mode;
    expect(po_gc_configure(state, &config) == 0, "the collector can't be configured");
}
static void po_open(void) {
    state = po_state_new();
    expect(state != NULL, "no state");
    po_set_mode(PO_GC_OFF);
}
static void po_collect_as_usual(void) {
    po_set_mode(PO_GC_AUTO);
}
static void po_close(void) {
    expect(po_state_free(state, 2) == 0, "references are left");
}
INLINE void *po_keep(void *object) {
    return po_incref(object);
}
INLINE void po_drop(void *object) {
    po_decref(object);
}
INLINE void *po_none(void) {
    return PO_NONE;
}
INLINE void *po_whole(int64_t value) {
    return po_int(state, value);
}
INLINE void *po_real(double value) {
    return po_float(state, value);
}
INLINE void *po_of_text(const char *utf8, size_t n) {
    return po_str(state, utf8, n);
}
INLINE void *po_interned(const char *utf8, size_t n) {
    return po_str_intern(state, utf8, n);
}
INLINE void *po_three(void *const *items) {
    po_object *const objects[] = { items[0], items[1], items[2] };
    return po_tuple(state, 3, objects);
}
INLINE void *po_new_list(void) {
    return po_list(state);
}
INLINE void *po_list_of(void *taken) {
    po_object *const list = po_list(state);
    expect(list != NULL && po_list_append_take(list, taken) == 0, "a list of one failed");
    return list;
}
INLINE bool po_append(void *list, void *item) {
    return po_list_append(list, item) == 0;
}
INLINE bool po_replace(void *list, size_t index, void *taken) {
    const bool done = po_list_set(list, index, taken) == 0;
    po_decref(taken);
    return done;
}
INLINE void *po_new_dict(void) {
    return po_dict(state);
}
INLINE bool po_put(void *dict, void *key, void *value) {
    return po_dict_set(dict, key, value) == 0;
}
INLINE void *po_find(void *dict, void *key) {
    po_object *value;
    return po_dict_get(dict, key, &value) == 1 ? value : NULL;
}
INLINE size_t po_size_of_dict(void *dict) {
    return po_dict_size(dict);
}
INLINE void *po_node(void) {
    return po_new(state, &po_node_type);
}
INLINE void po_set_field(void *node, unsigned field, void *taken) {
    ((struct po_node *)node)->field[field] = taken;
}
INLINE void *po_weak(void *watched) {
    return po_weakref(state, watched, NULL, NULL);
}
INLINE bool po_alive(void *weak) {
    PO_AUTO po_object *target = NULL;
    return po_weakref_get(weak, &target) == 1;
}
INLINE int64_t po_value(void *whole) {
    return po_int_value(whole);
}
INLINE long po_collect(void) {
    return po_gc_collect(state, 2);
}

static const struct side ours = {
    .name = "poolobject",
    .open = po_open,
    .collect_as_usual = po_collect_as_usual,
    .close = po_close,
    .keep = po_keep,
    .drop = po_drop,
    .none = po_none,
    .whole = po_whole,
    .real = po_real,
    .text = po_of_text,
    .interned = po_interned,
    .three = po_three,
    .list = po_new_list,
    .list_of = po_list_of,
    .append = po_append,
    .replace = po_replace,
    .dict = po_new_dict,
    .put = po_put,
    .find = po_find,
    .dict_size = po_size_of_dict,
    .node = po_node,
    .watched = po_node,
    .set = po_set_field,
    .weak = po_weak,
    .alive = po_alive,
    .value = po_value,
    .collect = po_collect,
};

// --- CPython: of several ways to do a thing, the fastest that its C API has ----------------------

#ifdef BENCH_PYTHON

struct py_node {
    PyObject_HEAD PyObject *field[2];
};

struct py_watched {
    struct py_node node;
    PyObject *weak;
};

static int py_node_traverse(PyObject *self, visitproc visit, void *arg) {
    struct py_node *const node = (struct py_node *)self;
    Py_VISIT(node->field[0]);
    Py_VISIT(node->field[1]);
    return 0;
}

static int py_node_clear(PyObject *self) {
    struct py_node *const node = (struct py_node *)self;
    Py_CLEAR(node->field[0]);
    Py_CLEAR(node->field[1]);
    return 0;
}

static void py_node_dealloc(PyObject *self) {
    PyObject_GC_UnTrack(self);
    Py_TRASHCAN_BEGIN(self, py_node_dealloc);
    py_node_clear(self);
    PyObject_GC_Del(self);
    Py_TRASHCAN_END
}

static void py_watched_dealloc(PyObject *self) {
    PyObject_GC_UnTrack(self);
    PyObject_ClearWeakRefs(self);
    py_node_dealloc(self);
}

// Static, as those of CPython itself: objects of a type that is on the heap count it too.
static PyTypeObject py_node_type = {
    PyVarObject_HEAD_INIT(NULL, 0) //
        .tp_name = "bench.node",
    .tp_basicsize = sizeof(struct py_node),
    .tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC,
    .tp_traverse = py_node_traverse,
    .tp_clear = py_node_clear,
    .tp_dealloc = py_node_dealloc,
};

static PyTypeObject py_watched_type = {
    PyVarObject_HEAD_INIT(NULL, 0) //
        .tp_name = "bench.watched",
    .tp_basicsize = sizeof(struct py_watched),
    .tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC,
    .tp_traverse = py_node_traverse,
    .tp_clear = py_node_clear,
    .tp_dealloc = py_watched_dealloc,
    .tp_weaklistoffset = offsetof(struct py_watched, weak),
};

INLINE long py_collect(void) {
    PyGC_Enable(); // else it does nothing
    const long found = PyGC_Collect();
    PyGC_Disable();
    return found;
}

// What the interpreter holds by itself stays out of all collections.
static void py_freeze(void) {
    py_collect();
    PyObject *const gc = PyImport_ImportModule("gc");
    expect(gc != NULL, "no module gc");
    PyObject *const done = PyObject_CallMethod(gc, "freeze", NULL);
    expect(done != NULL, "gc.freeze failed");
    Py_DECREF(done);
    Py_DECREF(gc);
}

static void py_open(void) {
    PyConfig config;
    PyConfig_InitIsolatedConfig(&config);
    config.site_import = 0;
    expect(!PyStatus_Exception(Py_InitializeFromConfig(&config)), "CPython does not start");
    PyConfig_Clear(&config);
    PyGC_Disable();
    expect(PyType_Ready(&py_node_type) == 0 && PyType_Ready(&py_watched_type) == 0,
           "the types are not ready");
    py_freeze();
}
static void py_collect_as_usual(void) {
    PyGC_Enable();
}
static void py_close(void) {
    expect(PyErr_Occurred() == NULL && Py_FinalizeEx() == 0, "CPython has met an error");
}
INLINE void *py_keep(void *object) {
    Py_INCREF((PyObject *)object);
    return object;
}
INLINE void py_drop(void *object) {
    Py_DECREF((PyObject *)object);
}
INLINE void *py_none(void) {
    return Py_None;
}
INLINE void *py_whole(int64_t value) {
    return PyLong_FromLongLong(value);
}
INLINE void *py_real(double value) {
    return PyFloat_FromDouble(value);
}
INLINE void *py_of_text(const char *utf8, size_t n) {
    return PyUnicode_FromStringAndSize(utf8, (Py_ssize_t)n);
}
// As PyUnicode_InternFromString, which would count the bytes.
INLINE void *py_interned(const char *utf8, size_t n) {
    PyObject *text = PyUnicode_FromStringAndSize(utf8, (Py_ssize_t)n);
    PyUnicode_InternInPlace(&text);
    return text;
}
INLINE void *py_three(void *const *items) {
    PyObject *const tuple = PyTuple_New(3);
    for (Py_ssize_t i = 0; i < 3; i++) {
        PyTuple_SET_ITEM(tuple, i, (PyObject *)py_keep(items[i]));
    }
    return tuple;
}
INLINE void *py_list(void) {
    return PyList_New(0);
}
// As the interpreter makes [item]: without room for more.
INLINE void *py_list_of(void *taken) {
    PyObject *const list = PyList_New(1);
    PyList_SET_ITEM(list, 0, (PyObject *)taken);
    return list;
}
INLINE bool py_append(void *list, void *item) {
    return PyList_Append(list, item) == 0;
}
INLINE bool py_replace(void *list, size_t index, void *taken) {
    return PyList_SetItem(list, (Py_ssize_t)index, taken) == 0;
}
INLINE void *py_dict(void) {
    return PyDict_New();
}
INLINE bool py_put(void *dict, void *key, void *value) {
    return PyDict_SetItem(dict, key, value) == 0;
}
INLINE void *py_find(void *dict, void *key) {
    return PyDict_GetItemWithError(dict, key);
}
INLINE size_t py_dict_size(void *dict) {
    return (size_t)PyDict_Size(dict);
}
INLINE void *py_new_node(PyTypeObject *type) {
    struct py_node *const node = PyObject_GC_New(struct py_node, type);
    node->field[0] = node->field[1] = NULL;
    return node;
}
INLINE void *py_node(void) {
    void *const node = py_new_node(&py_node_type);
    PyObject_GC_Track(node);
    return node;
}
INLINE void *py_watched(void) {
    struct py_watched *const watched = py_new_node(&py_watched_type);
    watched->weak = NULL;
    PyObject_GC_Track(watched);
    return watched;
}
INLINE void py_set(void *node, unsigned field, void *taken) {
    ((struct py_node *)node)->field[field] = taken;
}
INLINE void *py_weak(void *watched) {
    return PyWeakref_NewRef(watched, NULL);
}
INLINE bool py_alive(void *weak) {
    return PyWeakref_GetObject(weak) != Py_None;
}
INLINE int64_t py_value(void *whole) {
    return PyLong_AsLongLong(whole);
}

static const struct side theirs = {
    .name = "cpython",
    .open = py_open,
    .collect_as_usual = py_collect_as_usual,
    .close = py_close,
    .keep = py_keep,
    .drop = py_drop,
    .none = py_none,
    .whole = py_whole,
    .real = py_real,
    .text = py_of_text,
    .interned = py_interned,
    .three = py_three,
    .list = py_list,
    .list_of = py_list_of,
    .append = py_append,
    .replace = py_replace,
    .dict = py_dict,
    .put = py_put,
    .find = py_find,
    .dict_size = py_dict_size,
    .node = py_node,
    .watched = py_watched,
    .set = py_set,
    .weak = py_weak,
    .alive = py_alive,
    .value = py_value,
    .collect = py_collect,
};

#    define THEIRS &theirs
#    define BY_THEIRS(name)                     \
        static double name##_theirs(size_t n) { \
            return name(&theirs, n);            \
        }
#    define THEIRS_OF(name) name##_theirs

static void print_version(void) {
    printf("cpython: %s\n", Py_GetVersion());
}
static const void *const their_function = (const void *)Py_InitializeFromConfig;

#else

#    define THEIRS NULL
#    define BY_THEIRS(name)
#    define THEIRS_OF(name) NULL

static void print_version(void) {
}
static const void *const their_function = NULL;

#endif

static const struct side *const sides[] = { &ours, THEIRS };

// --- What the operations share -------------------------------------------------------------------

enum { TEXT_SIZE = 12, NAMES = 1024, APPENDS = 1000 };

// Of the program's own, from neither side's heap.
static void *map(size_t bytes) {
    void *const memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
                              MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
    expect(memory != MAP_FAILED, "no memory for the benchmark's own tables");
    return memory;
}

static uint64_t mixed(uint64_t word) {
    word = (word ^ word >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    word = (word ^ word >> 27) * UINT64_C(0x94d049bb133111eb);
    return word ^ word >> 31;
}

// The numbers below n, shuffled.
static uint32_t *shuffled(size_t n, uint64_t seed) {
    uint32_t *const order = map(n * sizeof *order);
    for (size_t i = 0; i < n; i++) {
        const size_t other = mixed(seed << 32 | i) % (i + 1);
        order[i] = order[other];
        order[other] = (uint32_t)i;
    }
    return order;
}

// Twelve hexadecimal digits, others for each number.
static void write_text(char *to, uint64_t number) {
    const uint64_t scattered = number * UINT64_C(0x9e3779b97f4b) & 0xffffffffffff;
    snprintf(to, TEXT_SIZE + 1, "%012llx", (unsigned long long)scattered);
}

static void *text_of(const struct side *by, uint64_t number) {
    char text[TEXT_SIZE + 1];
    write_text(text, number);
    return by->text(text, TEXT_SIZE);
}

// The texts of n numbers, in the order in which they are made.
static void **texts(const struct side *by, size_t n, const uint32_t *order) {
    void **const made = map(n * sizeof *made);
    for (size_t i = 0; i < n; i++) {
        made[i] = text_of(by, order[i]);
    }
    return made;
}

static void drop_all(const struct side *by, void **objects, size_t n) {
    for (size_t i = 0; i < n; i++) {
        by->drop(objects[i]);
    }
    munmap(objects, n * sizeof *objects);
}

// A list of lists, each of them with an int of its own.
static void *list_of_lists(const struct side *by, size_t n) {
    void *const all = by->list();
    for (size_t i = 0; i < n; i++) {
        void *const list = by->list_of(by->whole(1000 + (int64_t)i));
        expect(by->append(all, list), "append failed");
        by->drop(list);
    }
    return all;
}

// All lists are replaced, in random order: what follows in one order does not in another.
static void age(const struct side *by, void *all, size_t n) {
    uint32_t *const order = shuffled(n, 5);
    for (size_t i = 0; i < n; i++) {
        expect(by->replace(all, order[i], by->list_of(by->whole(1000 + (int64_t)i))),
               "replace failed");
    }
    munmap(order, n * sizeof *order);
}

// --- Operations: each returns the seconds that n of them took ------------------------------------

#define OPERATION(name)                                  \
    INLINE double name(const struct side *by, size_t n); \
    static double name##_ours(size_t n) {                \
        return name(&ours, n);                           \
    }                                                    \
    BY_THEIRS(name)                                      \
    INLINE double name(const struct side *by, size_t n)

OPERATION(small_int) {
    int64_t sum = 0;
    const double start = bench_clock();
    for (size_t i = 0; i < n; i++) {
        void *const made = by->whole(hidden((int64_t)(i & 0xff)));
        KEEP(made);
        by->drop(made);
    }
    const double seconds = bench_clock() - start;
    for (int64_t i = 0; i <= 0xff; i++) {
        void *const made = by->whole(i);
        sum += by->value(made);
        by->drop(made);
    }
    expect(sum == 0xff * 0x80, "small ints have other values");
    return seconds;
}

OPERATION(whole) {
    const double start = bench_clock();
    for (size_t i = 0; i < n; i++) {
        void *const made = by->whole(hidden(1000 + (int64_t)(i & 0xffff)));
        KEEP(made);
        by->drop(made);
    }
    const double seconds = bench_clock() - start;
    void *const made = by->whole(123456);
    expect(by->value(made) == 123456, "an int has another value");
    by->drop(made);
    return seconds;
}

OPERATION(real) {
    const double start = bench_clock();
    for (size_t i = 0; i < n; i++) {
        void *const made = by->real((double)i);
        KEEP(made);
        by->drop(made);
    }
    return bench_clock() - start;
}

OPERATION(text) {
    const double start = bench_clock();
    for (size_t i = 0; i < n; i++) {
        void *const made = by->text("twelve bytes", TEXT_SIZE);
        KEEP(made);
        by->drop(made);
    }
    return bench_clock() - start;
}

OPERATION(tuple) {
    void *const items[] = { by->whole(1000), by->real(0.5), by->text("twelve bytes", TEXT_SIZE) };
    const double start = bench_clock();
    for (size_t i = 0; i < n; i++) {
        void *const made = by->three(items);
        KEEP(made);
        by->drop(made);
    }
    const double seconds = bench_clock() - start;
    for (size_t i = 0; i < 3; i++) {
        by->drop(items[i]);
    }
    return seconds;
}

OPERATION(interned) {
    static char names[NAMES][TEXT_SIZE + 1];
    void *held[NAMES];
    for (size_t i = 0; i < NAMES; i++) {
        write_text(names[i], i);
        held[i] = by->interned(names[i], TEXT_SIZE);
    }
    const double start = bench_clock();
    for (size_t i = 0; i < n; i++) {
        void *const found = by->interned(names[i % NAMES], TEXT_SIZE);
        KEEP(found);
        by->drop(found);
    }
    const double seconds = bench_clock() - start;
    for (size_t i = 0; i < NAMES; i++) {
        void *const found = by->interned(names[i], TEXT_SIZE);
        expect(found == held[i], "an interned string is another one");
        by->drop(found);
        by->drop(held[i]);
    }
    return seconds;
}

// Lists that grow from nothing, one after the other, so that they stay in the cache.
OPERATION(append) {
    void *const item = by->whole(1000);
    double seconds = 0;
    for (size_t done = 0; done < n;) {
        const size_t now = n - done < APPENDS ? n - done : APPENDS;
        void *const list = by->list();
        bool good = true;
        const double start = bench_clock();
        for (size_t i = 0; i < now; i++) {
            good &= by->append(list, item);
        }
        seconds += bench_clock() - start;
        expect(good, "append failed");
        by->drop(list);
        done += now;
    }
    by->drop(item);
    return seconds;
}

// Scattered: keys are inserted in another order than that in which they lie in memory, and looked
// up in a third one. Equal strings are made in the order in which they are asked for, as by a
// program that reads them, beforehand. Hashes of strings are computed at their first use, and so
// within.

static void **scattered(void **objects, size_t n, uint64_t seed) {
    void **const all = map(n * sizeof *all);
    uint32_t *const order = shuffled(n, seed);
    for (size_t i = 0; i < n; i++) {
        all[i] = objects[order[i]];
    }
    munmap(order, n * sizeof *order);
    return all;
}

OPERATION(dict_insert) {
    uint32_t *const numbers = shuffled(n, 1);
    void **const made = texts(by, n, numbers), **const keys = scattered(made, n, 2);
    void *const dict = by->dict(), *const value = by->none();
    bool good = true;
    const double start = bench_clock();
    for (size_t i = 0; i < n; i++) {
        good &= by->put(dict, keys[i], value);
    }
    const double seconds = bench_clock() - start;
    expect(good && by->dict_size(dict) == n, "keys are missing");
    by->drop(dict);
    munmap(numbers, n * sizeof *numbers);
    munmap(keys, n * sizeof *keys);
    drop_all(by, made, n);
    return seconds;
}

INLINE double look_up(const struct side *by, size_t n, bool same) {
    uint32_t *const numbers = shuffled(n, 1), *const asked_for = shuffled(n, 3);
    void **const made = texts(by, n, numbers), **const keys = scattered(made, n, 2);
    void **const asked = same ? scattered(made, n, 4) : texts(by, n, asked_for);
    void *const dict = by->dict(), *const value = by->none();
    for (size_t i = 0; i < n; i++) {
        expect(by->put(dict, keys[i], value), "a key can't be set");
    }
    size_t found = 0;
    const double start = bench_clock();
    for (size_t i = 0; i < n; i++) {
        found += by->find(dict, asked[i]) == value;
    }
    const double seconds = bench_clock() - start;
    expect(found == n, "keys were not found");
    by->drop(dict);
    munmap(numbers, n * sizeof *numbers);
    munmap(asked_for, n * sizeof *asked_for);
    munmap(keys, n * sizeof *keys);
    if (same) {
        munmap(asked, n * sizeof *asked);
    } else {
        drop_all(by, asked, n);
    }
    drop_all(by, made, n);
    return seconds;
}

OPERATION(dict_find) {
    return look_up(by, n, false);
}

OPERATION(dict_find_same) {
    return look_up(by, n, true);
}

INLINE void make_cycle(const struct side *by) {
    void *const a = by->node(), *const b = by->node();
    by->set(b, 0, by->keep(a));
    by->set(a, 0, b);
    by->drop(a);
}

OPERATION(cycle_make) {
    const double start = bench_clock();
    for (size_t i = 0; i < n; i++) {
        make_cycle(by);
    }
    const double seconds = bench_clock() - start;
    expect(by->collect() == 2 * (long)n, "cycles were not found");
    return seconds;
}

OPERATION(cycle_collect) {
    for (size_t i = 0; i < n; i++) {
        make_cycle(by);
    }
    const double start = bench_clock();
    const long found = by->collect();
    const double seconds = bench_clock() - start;
    expect(found == 2 * (long)n, "cycles were not found");
    return seconds;
}

// Nodes that each refer to the one made before, from the last: a chain of n. The first one refers
// to what is `taken`.
INLINE void *chain(const struct side *by, size_t n, void *taken) {
    void *head = taken;
    for (size_t i = 0; i < n; i++) {
        void *const node = by->node();
        by->set(node, 0, head);
        head = node;
    }
    return head;
}

OPERATION(ring_collect) {
    void *const first = by->node();
    void *const last = chain(by, n - 1, by->keep(first));
    by->set(first, 0, last);
    by->drop(first);
    const double start = bench_clock();
    const long found = by->collect();
    const double seconds = bench_clock() - start;
    expect(found == (long)n, "the ring was not found");
    return seconds;
}

// A node that only the end of the chain refers to proves that all of it goes, and when.
OPERATION(chain_drop) {
    void *const end = by->watched(), *const weak = by->weak(end);
    void *const head = chain(by, n, end);
    expect(by->alive(weak), "the chain has lost its end");
    const double start = bench_clock();
    by->drop(head);
    const double seconds = bench_clock() - start;
    expect(!by->alive(weak), "the chain did not go");
    by->drop(weak);
    return seconds;
}

// The second collection: the first one makes them old.
INLINE double full(const struct side *by, size_t n, bool aged) {
    void *const all = list_of_lists(by, n);
    if (aged) {
        age(by, all, n);
    }
    long found = by->collect();
    const double start = bench_clock();
    found += by->collect();
    const double seconds = bench_clock() - start;
    expect(found == 0, "live lists were found unreachable");
    by->drop(all);
    return seconds;
}

OPERATION(full_fresh) {
    return full(by, n, false);
}

OPERATION(full_aged) {
    return full(by, n, true);
}

struct operation {
    const char *name;
    double goal; // ours over theirs, at most; 0: none
    size_t count;
    double (*ours)(size_t n);
    double (*theirs)(size_t n);
    const char *text;
};

#define ROW(name, goal, count, function, text) \
    { (name), (goal), (count), function##_ours, THEIRS_OF(function), (text) }

static const struct operation operations[] = {
    ROW("small-int", 0.7, 4000000, small_int, "make and drop an int of 0 to 255"),
    ROW("int", 0.6, 4000000, whole, "make and drop an int from 1000 on"),
    ROW("float", 0.9, 4000000, real, "make and drop a float"),
    ROW("str", 0.5, 2000000, text, "make and drop a string of 12 bytes"),
    ROW("tuple", 0.6, 2000000, tuple, "make and drop a tuple of three"),
    ROW("interned", 0.5, 2000000, interned, "ask for one of 1024 interned strings, drop it"),
    ROW("append", 0.8, 4000000, append, "append to lists that grow to 1000 items"),
    ROW("dict-insert", 0.8, 1000000, dict_insert,
        "insert, in scattered order, into a growing dict"),
    ROW("dict-find", 0.6, 1000000, dict_find,
        "look up scattered keys by equal strings, not yet hashed"),
    ROW("dict-find-same", 0.6, 1000000, dict_find_same,
        "look up scattered keys by the same objects"),
    ROW("cycle-make", 0.6, 100000, cycle_make, "make a cycle of two objects"),
    ROW("cycle-collect", 0.5, 100000, cycle_collect, "collect it, among so many"),
    ROW("ring-collect", 0.5, 1000000, ring_collect, "collect a ring, for each object in it"),
    ROW("full-fresh", 0.5, 1000000, full_fresh, "full collection of live lists, for each"),
    ROW("full-aged", 0.25, 1000000, full_aged, "the same after all were replaced in random order"),
    ROW("chain-drop", 0.6, 1000000, chain_drop, "drop a chain, for each object in it"),
};
enum { OPERATION_COUNT = sizeof operations / sizeof *operations };

// --- Memory: what is made, held in a table that was there before ---------------------------------

enum { KEYS = 1000, LONG_TEXT = 1000 };

// Keys and items that all share.
static void *shared_keys[KEYS];
static char long_text[3 * LONG_TEXT];

static void hold_float(const struct side *by, size_t i, void **held) {
    held[0] = by->real((double)i);
}
static void hold_int(const struct side *by, size_t i, void **held) {
    held[0] = by->whole(1000 + (int64_t)i);
}
static void hold_str(const struct side *by, size_t i, void **held) {
    held[0] = text_of(by, i);
}
static void hold_tuple(const struct side *by, size_t i, void **held) {
    (void)i;
    held[0] = by->three(shared_keys);
}
static void hold_list_0(const struct side *by, size_t i, void **held) {
    (void)i;
    held[0] = by->list();
}
static void hold_list_1(const struct side *by, size_t i, void **held) {
    (void)i;
    held[0] = by->list_of(by->keep(shared_keys[0]));
}
static void hold_dict(const struct side *by, size_t keys, void **held) {
    held[0] = by->dict();
    for (size_t i = 0; i < keys; i++) {
        expect(by->put(held[0], shared_keys[i], by->none()), "a key can't be set");
    }
}
static void hold_dict_0(const struct side *by, size_t i, void **held) {
    (void)i;
    hold_dict(by, 0, held);
}
static void hold_dict_5(const struct side *by, size_t i, void **held) {
    (void)i;
    hold_dict(by, 5, held);
}
static void hold_dict_1000(const struct side *by, size_t i, void **held) {
    (void)i;
    hold_dict(by, KEYS, held);
}
static void hold_object(const struct side *by, size_t i, void **held) {
    (void)i;
    held[0] = by->watched();
    held[1] = by->weak(held[0]);
}
static void hold_latin(const struct side *by, size_t i, void **held) {
    (void)i;
    held[0] = by->text("Stra\xc3\x9f"
                       "e, f\xc3\xbcnf",
                       14);
}
static void hold_han(const struct side *by, size_t i, void **held) {
    (void)i;
    held[0] = by->text(long_text, (size_t)3 * TEXT_SIZE);
}
static void hold_long_han(const struct side *by, size_t i, void **held) {
    (void)i;
    held[0] = by->text(long_text, sizeof long_text);
}

struct holding {
    const char *name;
    double goal; // as above
    size_t count;
    void (*hold)(const struct side *by, size_t i, void **held);
    const char *text;
};

static const struct holding holdings[] = {
    { "float", 1, 1000000, hold_float, "float" },
    { "int", 1, 1000000, hold_int, "int from 1000 on" },
    { "str", 1, 1000000, hold_str, "string of 12 bytes, ASCII" },
    { "tuple", 1, 1000000, hold_tuple, "tuple of three, which all share" },
    { "list-0", 1, 1000000, hold_list_0, "empty list" },
    { "list-1", 1, 1000000, hold_list_1, "list of one" },
    { "dict-0", 1, 1000000, hold_dict_0, "empty dict" },
    { "dict-5", 1, 1000000, hold_dict_5, "dict of 5 strings, which all share" },
    { "dict-1000", 1, 10000, hold_dict_1000, "dict of 1000 strings, which all share" },
    { "object", 1, 1000000, hold_object, "object with two fields, and a weak reference to it" },
    { "text-latin", 0, 1000000, hold_latin, "string of 12 code points, 2 of them of two bytes" },
    { "text-han", 0, 1000000, hold_han, "string of 12 code points of three bytes" },
    { "text-han-1000", 0, 100000, hold_long_han, "string of 1000 code points of three bytes" },
};
enum { HOLDING_COUNT = sizeof holdings / sizeof *holdings };

static long private_kib(void) {
    const long clean = bench_kib_of("/proc/self/smaps_rollup", "Private_Clean");
    const long dirty = bench_kib_of("/proc/self/smaps_rollup", "Private_Dirty");
    expect(clean >= 0 && dirty >= 0, "/proc/self/smaps_rollup does not tell the resident memory");
    return clean + dirty;
}

static void prepare_shared(const struct side *by) {
    for (size_t i = 0; i < KEYS; i++) {
        shared_keys[i] = text_of(by, i);
    }
    for (size_t i = 0; i < LONG_TEXT; i++) {
        memcpy(long_text + 3 * i, "\xe4\xb8\xad", 3);
    }
}

// One goes first, so that what comes with the first is there before.
static double bytes_each(const struct side *by, const struct holding *holding, size_t n) {
    void **const held = map(2 * (n + 1) * sizeof *held);
    prepare_shared(by);
    holding->hold(by, n, held);
    const long before = private_kib();
    for (size_t i = 1; i <= n; i++) {
        holding->hold(by, i, held + 2 * i);
    }
    const long after = private_kib();
    for (size_t i = 0; i < 2 * (n + 1); i++) {
        if (held[i] != NULL) {
            by->drop(held[i]);
        }
    }
    for (size_t i = 0; i < KEYS; i++) {
        by->drop(shared_keys[i]);
    }
    return 1024.0 * (double)(after - before) / (double)n;
}

// --- The program ---------------------------------------------------------------------------------

static void usage(void) {
    fprintf(stderr, "usage: pm-bench-objects list\n"
                    "       pm-bench-objects version\n"
                    "       pm-bench-objects time NAME [rounds=N] [most=N]\n"
                    "       pm-bench-objects memory NAME SIDE [most=N]\n"
                    "       pm-bench-objects pause fresh|aged SIDE COUNT [runs=N]\n");
    exit(2);
}

static size_t number_of(const char *text) {
    char *end;
    const unsigned long number = strtoul(text, &end, 10);
    if (end == text || *end != '\0' || *text == '-' || number == 0) {
        usage();
    }
    return number;
}

// The value of KEY=N among the words; else `usual`.
static size_t option(char **words, const char *key, size_t usual) {
    const size_t length = strlen(key);
    for (; *words != NULL; words++) {
        if (strncmp(*words, key, length) == 0 && (*words)[length] == '=') {
            return number_of(*words + length + 1);
        }
    }
    return usual;
}

static size_t at_most(size_t count, size_t most) {
    return count < most ? count : most;
}

static const struct side *side_of(const char *name) {
    for (size_t i = 0; i < sizeof sides / sizeof *sides; i++) {
        if (sides[i] != NULL && strcmp(sides[i]->name, name) == 0) {
            return sides[i];
        }
    }
    expect(false, "there is no such side in this build");
    return NULL;
}

static int list_all(void) {
    printf("mode,name,goal,count,text\n");
    for (size_t i = 0; i < OPERATION_COUNT; i++) {
        const struct operation *const row = &operations[i];
        printf("time,%s,%g,%zu,\"%s\"\n", row->name, row->goal, row->count, row->text);
    }
    for (size_t i = 0; i < HOLDING_COUNT; i++) {
        const struct holding *const row = &holdings[i];
        printf("memory,%s,%g,%zu,\"%s\"\n", row->name, row->goal, row->count, row->text);
    }
    return 0;
}

static void print_library(const char *name, const void *function) {
    Dl_info info;
    if (function != NULL && dladdr(function, &info) != 0) {
        printf("%s library: %s\n", name, info.dli_fname);
    }
}

static int version(void) {
    printf("compiler: %s\n", __VERSION__);
    print_version();
    print_library(ours.name, (const void *)po_state_new);
    print_library("cpython", their_function);
    return 0;
}

static void time_round(const struct operation *row, size_t round, const struct side *by, size_t n) {
    const double seconds = by == &ours ? row->ours(n) : row->theirs(n);
    printf("%zu,%s,%.4f\n", round, by->name, seconds * 1e9 / (double)n);
}

// The side that begins changes from round to round. The first round is not printed: it grows the
// heaps.
static int run_time(const char *name, char **words) {
    const struct operation *row = operations;
    while (row < operations + OPERATION_COUNT && strcmp(row->name, name) != 0) {
        row++;
    }
    expect(row < operations + OPERATION_COUNT, "there is no such operation");
    const size_t rounds = option(words, "rounds", 5);
    const size_t n = at_most(row->count, option(words, "most", row->count));
    enum { SIDES = sizeof sides / sizeof *sides };
    for (size_t i = 0; i < SIDES && sides[i] != NULL; i++) {
        sides[i]->open();
        (void)(sides[i] == &ours ? row->ours(n) : row->theirs(n));
    }
    printf("round,side,ns\n");
    for (size_t round = 0; round < rounds; round++) {
        for (size_t turn = 0; turn < SIDES; turn++) {
            const struct side *const by = sides[(round + turn) % SIDES];
            if (by != NULL) {
                time_round(row, round, by, n);
            }
        }
    }
    for (size_t i = 0; i < SIDES && sides[i] != NULL; i++) {
        sides[i]->close();
    }
    return 0;
}

static int run_memory(const char *name, const struct side *by, char **words) {
    const struct holding *row = holdings;
    while (row < holdings + HOLDING_COUNT && strcmp(row->name, name) != 0) {
        row++;
    }
    expect(row < holdings + HOLDING_COUNT, "there is no such thing to hold");
    const size_t n = at_most(row->count, option(words, "most", row->count));
    by->open();
    by->collect_as_usual();
    printf("bytes\n%.2f\n", bytes_each(by, row, n));
    by->close();
    return 0;
}

static int run_pause(bool aged, const struct side *by, size_t n, char **words) {
    by->open();
    void *const all = list_of_lists(by, n);
    if (aged) {
        age(by, all, n);
    }
    expect(by->collect() == 0, "live lists were found unreachable");
    printf("run,ns\n");
    for (size_t run = 0, runs = option(words, "runs", 3); run < runs; run++) {
        const double start = bench_clock();
        const long found = by->collect();
        printf("%zu,%.0f\n", run, (bench_clock() - start) * 1e9);
        expect(found == 0, "live lists were found unreachable");
    }
    by->drop(all);
    by->close();
    return 0;
}

static bool asks(int argc, char **argv, const char *mode, int least) {
    return argc >= least && strcmp(argv[1], mode) == 0;
}

int main(int argc, char **argv) {
    if (asks(argc, argv, "list", 2)) {
        return list_all();
    }
    if (asks(argc, argv, "version", 2)) {
        return version();
    }
    if (asks(argc, argv, "time", 3)) {
        return run_time(argv[2], argv + 3);
    }
    if (asks(argc, argv, "memory", 4)) {
        return run_memory(argv[2], side_of(argv[3]), argv + 4);
    }
    if (asks(argc, argv, "pause", 5)) {
        const bool aged = strcmp(argv[2], "aged") == 0;
        if (aged || strcmp(argv[2], "fresh") == 0) {
            return run_pause(aged, side_of(argv[3]), number_of(argv[4]), argv + 5);
        }
    }
    usage();
}

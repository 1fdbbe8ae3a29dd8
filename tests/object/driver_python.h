// SPDX-License-Identifier: MIT
// Copyright (c) the poolmalloc authors
//
// What driver.c uses of poolobject, on libpython3.11: a type of static storage, made by
// PyObject_GC_New, so that there are no free lists, and the collector's own counters, because each
// call of the module gc makes containers that count.

#ifndef TESTS_OBJECT_DRIVER_PYTHON_H
#define TESTS_OBJECT_DRIVER_PYTHON_H

#define Py_BUILD_CORE 1
#include <Python.h>
#include <internal/pycore_interp.h>

#include <stdint.h>

struct node {
    PyObject_HEAD PyObject *edge[2];
};

static int node_traverse(PyObject *self, visitproc visit, void *arg) {
    struct node *const node = (struct node *)self;
    Py_VISIT(node->edge[0]);
    Py_VISIT(node->edge[1]);
    return 0;
}

static int node_clear(PyObject *self) {
    struct node *const node = (struct node *)self;
    Py_CLEAR(node->edge[0]);
    Py_CLEAR(node->edge[1]);
    return 0;
}

static void node_dealloc(PyObject *self) {
    PyObject_GC_UnTrack(self);
    Py_TRASHCAN_BEGIN(self, node_dealloc) node_clear(self);
    PyObject_GC_Del(self);
    Py_TRASHCAN_END
}

static PyTypeObject node_type = {
    PyVarObject_HEAD_INIT(NULL, 0).tp_name = "driver.node",
    .tp_basicsize = sizeof(struct node),
    .tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC,
    .tp_traverse = node_traverse,
    .tp_clear = node_clear,
    .tp_dealloc = node_dealloc,
};

static PyObject *gc_module;

static struct _gc_runtime_state *gc_state(void) {
    return &PyInterpreterState_Get()->gc;
}

static void call(const char *name, const char *format, int argument) {
    PyObject *const result = PyObject_CallMethod(gc_module, name, format, argument);
    if (result == NULL) {
        PyErr_Print();
        abort();
    }
    Py_DECREF(result);
}

static void collect(int generation) {
    call("collect", "i", generation);
}

static void freeze(void) {
    call("freeze", NULL, 0);
}

static void set_thresholds(unsigned a, unsigned b, unsigned c) {
    // The module's own function makes a tuple, which counts.
    gc_state()->generations[0].threshold = (int)a;
    gc_state()->generations[1].threshold = (int)b;
    gc_state()->generations[2].threshold = (int)c;
}

static void start(void) {
    Py_InitializeEx(0);
    gc_module = PyImport_ImportModule("gc");
    if (gc_module == NULL || PyType_Ready(&node_type) != 0) {
        abort();
    }
    // The interpreter's own objects are left out, and so is what they count for.
    collect(2);
    freeze();
    collect(2);
    set_thresholds(700, 10, 10);
    struct _gc_runtime_state *const gc = gc_state();
    for (int i = 0; i < NUM_GENERATIONS; i++) {
        gc->generations[i].count = 0;
        memset(&gc->generation_stats[i], 0, sizeof gc->generation_stats[i]);
    }
    gc->long_lived_pending = gc->long_lived_total = 0;
}

static void end(void) {
    Py_FinalizeEx();
}

static struct node *make(void) {
    struct node *const node = PyObject_GC_New(struct node, &node_type);
    if (node == NULL) {
        abort();
    }
    node->edge[0] = node->edge[1] = NULL;
    PyObject_GC_Track(node);
    return node;
}

static void set_edge(struct node *from, unsigned edge, struct node *to) {
    PyObject *const before = from->edge[edge];
    from->edge[edge] = Py_NewRef((PyObject *)to);
    Py_XDECREF(before);
}

static void drop(struct node *node) {
    Py_DECREF(node);
}

static unsigned long long count_of(int generation) {
    return (unsigned long long)gc_state()->generations[generation].count;
}

static unsigned long long runs_of(int generation) {
    return (unsigned long long)gc_state()->generation_stats[generation].collections;
}

static unsigned long long collected_of(int generation) {
    return (unsigned long long)gc_state()->generation_stats[generation].collected;
}

#endif

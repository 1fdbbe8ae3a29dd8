// SPDX-License-Identifier: MIT
// Copyright (c) the poolmalloc authors
//
// Without memory: each allocation of each function fails in turn. Then the call fails, and all is
// as it was, to the last reference: what is compared is every object of the state, by address, with
// its count, its flags and all that it refers to.
//
// The allocator's functions are wrapped. Where AddressSanitizer watches, objects are libc's blocks:
// there nothing is purged, and no request is tried again.

#include "check.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "object/object.h"

#define TEST(name) Test(memory, name, .timeout = CHECK_SECONDS)

#define COUNT(array) (sizeof(array) / sizeof *(array))

#if PO_LIBC_BLOCKS
// Sizes that can't be are refused, as by any other allocator.
const char *__asan_default_options(void);
const char *__asan_default_options(void) {
    return "allocator_may_return_null=1";
}
#endif

// --- Allocations that fail -----------------------------------------------------------------------

enum mode {
    NEVER,
    REQUEST,      // one request, however often it is tried
    ALL,          // one, and all after it
    ONCE,         // one, the first time that it is tried
    UNTIL_PURGED, // one and all after it, until both heaps of the state were purged
};

static const char *const modes[] = { "never", "one request", "all from one on",
                                     "one at its first try", "all until pages were purged" };

// What is asked for: a request that is tried again asks for the same.
struct request {
    const void *heap, *old;
    size_t size;
};

static struct {
    enum mode mode;
    bool counts; // else a call is the test's own business
    size_t at;   // the first that fails
    size_t requests, refused, purges;
    struct request last;
    bool last_refused;
} plan;

static void plan_failures(enum mode mode, size_t at) {
    memset(&plan, 0, sizeof plan);
    plan.mode = mode;
    plan.at = at;
}

static bool is_chosen(bool again) {
    switch (plan.mode) {
    case NEVER: return false;
    case REQUEST: return plan.requests == plan.at + 1;
    case ALL: return plan.requests > plan.at;
    case ONCE: return plan.requests == plan.at + 1 && !again;
    default: return plan.requests > plan.at && plan.purges < 2;
    }
}

static bool is_refused(const void *heap, const void *old, size_t size) {
    if (!plan.counts) {
        return false;
    }
    const struct request now = { heap, old, size };
    const bool again = plan.last_refused && memcmp(&now, &plan.last, sizeof now) == 0;
    plan.requests += !again;
    plan.last = now;
    plan.last_refused = is_chosen(again);
    plan.refused += plan.last_refused;
    if (plan.last_refused) {
        errno = ENOMEM;
    }
    return plan.last_refused;
}

// What a state that could not be made must have given back.
static long heaps, blocks;

void *__real_pm_heap_malloc(pm_heap *heap, size_t n);
void *__wrap_pm_heap_malloc(pm_heap *heap, size_t n);
void *__wrap_pm_heap_malloc(pm_heap *heap, size_t n) {
    return is_refused(heap, NULL, n) ? NULL : __real_pm_heap_malloc(heap, n);
}

void *__real_pm_heap_realloc(pm_heap *heap, void *block, size_t n);
void *__wrap_pm_heap_realloc(pm_heap *heap, void *block, size_t n);
void *__wrap_pm_heap_realloc(pm_heap *heap, void *block, size_t n) {
    return is_refused(heap, block, n) ? NULL : __real_pm_heap_realloc(heap, block, n);
}

pm_heap *__real_pm_heap_new(void *context);
pm_heap *__wrap_pm_heap_new(void *context);
pm_heap *__wrap_pm_heap_new(void *context) {
    pm_heap *const heap = is_refused(context, NULL, 0) ? NULL : __real_pm_heap_new(context);
    heaps += heap != NULL;
    return heap;
}

void __real_pm_heap_destroy(pm_heap *heap);
void __wrap_pm_heap_destroy(pm_heap *heap);
void __wrap_pm_heap_destroy(pm_heap *heap) {
    heaps -= heap != NULL;
    __real_pm_heap_destroy(heap);
}

// Says that there was something, so that the request is tried again.
int __real_pm_heap_trim(pm_heap *heap);
int __wrap_pm_heap_trim(pm_heap *heap);
int __wrap_pm_heap_trim(pm_heap *heap) {
    const int trimmed = __real_pm_heap_trim(heap);
    plan.purges += plan.counts;
    return plan.counts ? 1 : trimmed;
}

void *__real_pm_malloc(size_t n);
void *__wrap_pm_malloc(size_t n);
void *__wrap_pm_malloc(size_t n) {
    void *const block = is_refused(NULL, NULL, n) ? NULL : __real_pm_malloc(n);
    blocks += block != NULL;
    return block;
}

void *__real_pm_calloc(size_t count, size_t size);
void *__wrap_pm_calloc(size_t count, size_t size);
void *__wrap_pm_calloc(size_t count, size_t size) {
    void *const block = is_refused(NULL, NULL, count * size) ? NULL : __real_pm_calloc(count, size);
    blocks += block != NULL;
    return block;
}

void __real_pm_free(void *block);
void __wrap_pm_free(void *block);
void __wrap_pm_free(void *block) {
    blocks -= block != NULL;
    __real_pm_free(block);
}

// What asks for a new block by realloc is compiled as malloc.
void *__real_malloc(size_t n);
void *__wrap_malloc(size_t n);
void *__wrap_malloc(size_t n) {
    return is_refused(NULL, NULL, n) ? NULL : __real_malloc(n);
}

void *__real_calloc(size_t count, size_t size);
void *__wrap_calloc(size_t count, size_t size);
void *__wrap_calloc(size_t count, size_t size) {
    return is_refused(NULL, NULL, count * size) ? NULL : __real_calloc(count, size);
}

void *__real_realloc(void *block, size_t n);
void *__wrap_realloc(void *block, size_t n);
void *__wrap_realloc(void *block, size_t n) {
    return is_refused(NULL, block, n) ? NULL : __real_realloc(block, n);
}

// --- Types of the program's ----------------------------------------------------------------------

static po_state *state;

// Two references, and something outside.
struct node {
    PO_HEAD;
    po_object *left, *right;
};

static long nodes; // made and not released

static int node_traverse(const po_object *self, po_visit visit, void *argument) {
    PO_VISIT(((const struct node *)self)->left);
    PO_VISIT(((const struct node *)self)->right);
    return 0;
}

static void node_clear(po_object *self) {
    po_clear(&((struct node *)self)->left);
    po_clear(&((struct node *)self)->right);
}

static void node_release(po_object *self) {
    (void)self;
    nodes--;
}

static int node_repr(po_object *self, po_text *to) {
    po_object *const left = ((struct node *)self)->left;
    return po_text_add(to, "node ", 5) == 0 ? po_text_repr(to, left != NULL ? left : PO_NONE) : -1;
}

static po_type node_type = {
    .name = "node",
    .size = sizeof(struct node),
    .traverse = node_traverse,
    .clear = node_clear,
    .release = node_release,
    .repr = node_repr,
};

static po_object *new_node(po_object *left, po_object *right) {
    struct node *const node = (struct node *)po_new(state, &node_type);
    if (node == NULL) {
        return NULL;
    }
    nodes++;
    po_set(&node->left, left);
    po_set(&node->right, right);
    return &node->object;
}

struct leaf {
    struct node node;
    po_object *more;
};

static int leaf_traverse(const po_object *self, po_visit visit, void *argument) {
    PO_VISIT(((const struct leaf *)self)->more);
    return 0;
}

static void leaf_clear(po_object *self) {
    po_clear(&((struct leaf *)self)->more);
}

static po_type leaf_type = {
    .name = "leaf",
    .base = &node_type,
    .size = sizeof(struct leaf),
    .traverse = leaf_traverse,
    .clear = leaf_clear,
};

// Items that are no references.
struct row {
    PO_HEAD_ITEMS;
    uint32_t item[];
};

static po_type row_type = { .name = "row", .size = sizeof(struct row), .item_size = 4 };

// Its finalizer makes objects, or tries to; one that is told to comes back.
struct ghost {
    PO_HEAD;
    po_object *held;
    bool comes_back;
};

static po_object *log_of_ghosts, *came_back;

static int ghost_traverse(const po_object *self, po_visit visit, void *argument) {
    PO_VISIT(((const struct ghost *)self)->held);
    return 0;
}

static void ghost_clear(po_object *self) {
    po_clear(&((struct ghost *)self)->held);
}

static void ghost_finalize(po_object *self) {
    const struct ghost *const ghost = (struct ghost *)self;
    if (ghost->comes_back) {
        po_set(&came_back, self);
    }
    if (log_of_ghosts != NULL) {
        const size_t before = po_list_size(log_of_ghosts);
        po_object *const entry = po_tuple(state, 1, (po_object *[]){ PO_NONE });
        const bool done = entry != NULL && po_list_append_take(log_of_ghosts, entry) == 0;
        CHECK(po_list_size(log_of_ghosts) == before + done);
    }
}

static po_type ghost_type = {
    .name = "ghost",
    .size = sizeof(struct ghost),
    .traverse = ghost_traverse,
    .clear = ghost_clear,
    .finalize = ghost_finalize,
};

static po_object *new_ghost(po_object *held) {
    struct ghost *const ghost = (struct ghost *)po_new(state, &ghost_type);
    if (ghost == NULL) {
        return NULL;
    }
    po_set(&ghost->held, held);
    return &ghost->object;
}

static size_t calls_of_callback;

static void callback(po_object *weakref, po_object *data) {
    po_object *target;
    CHECK(po_weakref_get(weakref, &target) == 0 && target == NULL);
    CHECK(data == NULL || data->count_ != 0);
    calls_of_callback++;
}

// --- Pictures of a state -------------------------------------------------------------------------

enum { WORDS = 1 << 16 };

struct picture {
    size_t words;
    uintptr_t word[WORDS];
};

static struct picture before, after;

static void put(struct picture *picture, uintptr_t word) {
    CHECK(picture->words < WORDS);
    picture->word[picture->words++] = word;
}

static int put_reference(po_object *held, void *picture) {
    put(picture, (uintptr_t)held);
    return 0;
}

// The collector may have come by: generations don't count.
static int put_object(void *block, size_t size, void *argument) {
    (void)size;
    const po_object *const object = block;
    if (object->type_ == 0) {
        return 0;
    }
    put(argument, (uintptr_t)object);
    put(argument, object->count_);
    put(argument, object->type_ | ((uintptr_t)object->flags_ & ~(PO_GEN_MASK | PO_REACHED)) << 16);
    if (po_is_tracked(object)) {
        po_slots_of(object)->traverse(object, put_reference, argument);
    }
    return 0;
}

static void take_picture(struct picture *to) {
    to->words = 0;
    po_walk(state, true, put_object, to);
    po_walk(state, false, put_object, to);
    put(to, state->young_count + state->old + state->frozen);
    put(to, state->weak.used);
    put(to, state->interned.used);
    // What a failed call has counted is not due earlier. A run begins the count anew.
    if (state->config.threshold[0] == 0) {
        put(to, state->count[0]);
    }
}

static bool is_as_before(void) {
    take_picture(&after);
    return after.words == before.words &&
           memcmp(after.word, before.word, after.words * sizeof after.word[0]) == 0;
}

// --- A world in which functions are tried --------------------------------------------------------

enum { REPEATS = 260, ITEMS = 4, FILLED = 100 };

static struct {
    po_object *number[REPEATS], *text[REPEATS]; // targets, keys, items
    po_object *item[ITEMS];
    po_object *list, *filled, *dict, *numbers, *mixed, *nested, *known;
    po_object *made[REPEATS];
    size_t count;
} world;

static po_object *sure(po_object *made) {
    CHECK(made != NULL, "%s", po_error_last().text);
    return made;
}

static po_object *text(const char *prefix, size_t i) {
    char utf8[64];
    const int n = snprintf(utf8, sizeof utf8, "%s %zu", prefix, i);
    return po_str(state, utf8, (size_t)n);
}

static void fill(po_object *list) {
    while (po_list_size(list) < FILLED) {
        CHECK(po_list_append(list, world.number[po_list_size(list)]) == 0);
    }
}

static void open_world(unsigned threshold) {
    memset(&world, 0, sizeof world);
    state = po_state_new();
    CHECK(state != NULL);
    const struct po_gc_config config = { PO_GC_AUTO, { threshold, 2, 2 } };
    CHECK(po_gc_configure(state, &config) == 0);
    // A type asks for memory at its first use.
    static po_type *const types[] = { &leaf_type, &row_type, &ghost_type };
    for (size_t i = 0; i < COUNT(types); i++) {
        CHECK(po_type_number(types[i]) != 0);
    }
    for (size_t i = 0; i < REPEATS; i++) {
        world.number[i] = sure(po_int(state, 1000 + (int64_t)i));
        world.text[i] = sure(text("key", i));
    }
    world.item[0] = sure(po_float(state, 0.5));
    world.item[1] = sure(text("item", 1));
    world.item[2] = sure(po_list(state));
    world.item[3] = sure(new_node(world.item[2], NULL));
    world.list = sure(po_list(state));
    world.filled = sure(po_list(state));
    world.dict = sure(po_dict(state));
    world.numbers = sure(po_dict(state));
    world.mixed = sure(po_dict(state));
    world.nested = sure(po_tuple(state, ITEMS, world.item));
    world.known = sure(po_str_intern(state, "known", 5));
    CHECK(po_list_append(world.filled, world.nested) == 0);
    fill(world.filled);
}

static void close_world(void) {
    CHECK(po_check(state, 2) == 0);
    for (size_t i = 0; i < REPEATS; i++) {
        po_clear(&world.number[i]);
        po_clear(&world.text[i]);
        po_clear(&world.made[i]);
    }
    for (size_t i = 0; i < ITEMS; i++) {
        po_clear(&world.item[i]);
    }
    po_clear(&world.list);
    po_clear(&world.filled);
    po_clear(&world.dict);
    po_clear(&world.numbers);
    po_clear(&world.mixed);
    po_clear(&world.nested);
    po_clear(&world.known);
    CHECK(po_check(state, 2) == 0);
    CHECK(po_state_free(state, 2) == 0);
    CHECK(nodes == 0);
}

// --- The functions: each is called REPEATS times, so that all that grows does --------------------

static bool keep(po_object *made) {
    if (made == NULL) {
        return false;
    }
    world.made[world.count++] = made;
    return true;
}

static bool done(int result) {
    CHECK(result == 0 || result == -1, "%d", result);
    return result == 0;
}

// An object that only the function under test is to have.
static po_object *new_argument(size_t i) {
    plan.counts = false;
    po_object *const argument = sure(po_int(state, 100000 + (int64_t)i));
    plan.counts = true;
    return argument;
}

static bool make_int(size_t i) {
    return keep(po_int(state, INT64_MAX - (int64_t)i));
}

static bool make_float(size_t i) {
    return keep(po_float(state, (double)i + 0.25));
}

static bool make_str(size_t i) {
    return keep(text("a text of some length, so that it is no small block any more", i));
}

static bool make_wide_str(size_t i) {
    return keep(text("\xc3\xa4\xe2\x82\xac\xf0\x9f\x90\xa7", i));
}

static bool make_bytes(size_t i) {
    static const char zeros[70000];
    return keep(po_bytes(state, zeros, i % 16 != 15 ? 100 * i + 1 : sizeof zeros));
}

static bool make_interned(size_t i) {
    char utf8[32];
    const int n = snprintf(utf8, sizeof utf8, "interned %zu", i);
    return keep(po_str_intern(state, utf8, (size_t)n));
}

static bool find_interned(size_t i) {
    (void)i;
    return keep(po_str_intern(state, "known", 5));
}

static bool make_tuple(size_t i) {
    return keep(po_tuple(state, 1 + i % ITEMS, world.item));
}

static bool make_tuple_take(size_t i) {
    const size_t n = 1 + i % ITEMS;
    for (size_t at = 0; at < n; at++) {
        po_incref(world.item[at]);
    }
    return keep(po_tuple_take(state, n, world.item));
}

static bool make_tuple_take_last(size_t i) {
    po_object *const items[] = { new_argument(i), new_argument(i) };
    return keep(po_tuple_take(state, COUNT(items), items));
}

static bool make_list(size_t i) {
    (void)i;
    return keep(po_list(state));
}

static bool make_dict(size_t i) {
    (void)i;
    return keep(po_dict(state));
}

static bool make_node(size_t i) {
    return keep(new_node(world.item[i % ITEMS], world.list));
}

static bool make_leaf(size_t i) {
    (void)i;
    po_object *const leaf = po_new(state, &leaf_type);
    nodes += leaf != NULL;
    return keep(leaf);
}

static bool make_row(size_t i) {
    return keep(po_new_items(state, &row_type, i * 100));
}

static bool make_weakref(size_t i) {
    return keep(po_weakref(state, world.number[i], NULL, NULL));
}

static bool make_weakref_with_callback(size_t i) {
    return keep(po_weakref(state, world.text[i], callback, world.list));
}

static bool make_weakref_to_the_same(size_t i) {
    return keep(po_weakref(state, world.list, callback, world.item[i % ITEMS]));
}

static bool make_weakref_to_immortal(size_t i) {
    (void)i;
    return keep(po_weakref(state, PO_NONE, callback, world.list));
}

static bool list_append(size_t i) {
    return done(po_list_append(world.list, world.item[i % ITEMS]));
}

static bool list_append_take(size_t i) {
    return done(po_list_append_take(world.list, po_incref(world.item[i % ITEMS])));
}

static bool list_append_take_last(size_t i) {
    return done(po_list_append_take(world.list, new_argument(i)));
}

static bool list_insert(size_t i) {
    return done(po_list_insert(world.list, i / 2, world.item[i % ITEMS]));
}

static bool list_set(size_t i) {
    return done(po_list_set(world.filled, i % FILLED, world.text[i]));
}

static bool dict_set(size_t i) {
    return done(po_dict_set(world.dict, world.text[i], world.item[i % ITEMS]));
}

static bool dict_set_numbers(size_t i) {
    return done(po_dict_set(world.numbers, world.number[i], world.text[i]));
}

// From the keys that are strings to others: the table is made anew.
static bool dict_set_mixed(size_t i) {
    po_object *const key = i % 50 == 49 ? world.number[i] : world.text[i];
    return done(po_dict_set(world.mixed, key, world.nested));
}

static bool dict_set_again(size_t i) {
    return done(po_dict_set(world.dict, world.text[0], world.item[i % ITEMS]));
}

// Keys come and go: tables are made anew for their holes.
static bool dict_set_with_holes(size_t i) {
    if (i >= 8 && po_dict_remove(world.dict, world.text[i - 8]) != 1) {
        CHECK(false, "key %zu was not removed", i - 8);
    }
    plan.counts = false;
    take_picture(&before);
    plan.counts = true;
    return done(po_dict_set(world.dict, world.text[i], world.item[i % ITEMS]));
}

static bool make_repr(size_t i) {
    return keep(po_repr(state, i % 16 != 15 ? world.nested : world.filled));
}

static const struct operation {
    const char *name;
    bool (*call)(size_t i);
    bool needs_none; // never asks for memory
} operations[] = {
    { "po_int", make_int, false },
    { "po_float", make_float, false },
    { "po_str", make_str, false },
    { "po_str of more than ASCII", make_wide_str, false },
    { "po_bytes", make_bytes, false },
    { "po_str_intern of a new text", make_interned, false },
    { "po_str_intern of a known text", find_interned, true },
    { "po_tuple", make_tuple, false },
    { "po_tuple_take", make_tuple_take, false },
    { "po_tuple_take of last references", make_tuple_take_last, false },
    { "po_list", make_list, false },
    { "po_dict", make_dict, false },
    { "po_new", make_node, false },
    { "po_new of a derived type", make_leaf, false },
    { "po_new_items", make_row, false },
    { "po_weakref", make_weakref, false },
    { "po_weakref with a callback", make_weakref_with_callback, false },
    { "po_weakref to the same", make_weakref_to_the_same, false },
    { "po_weakref to an immortal", make_weakref_to_immortal, false },
    { "po_list_append", list_append, false },
    { "po_list_append_take", list_append_take, false },
    { "po_list_append_take of last references", list_append_take_last, false },
    { "po_list_insert", list_insert, false },
    { "po_list_set", list_set, true },
    { "po_dict_set", dict_set, false },
    { "po_dict_set of numbers", dict_set_numbers, false },
    { "po_dict_set of texts, then of numbers", dict_set_mixed, false },
    { "po_dict_set again", dict_set_again, false },
    { "po_dict_set with holes", dict_set_with_holes, false },
    { "po_repr", make_repr, false },
};

// Request number i is made by the call whose entry is the last one that is not above i.
static size_t requests_before[REPEATS + 1];

static bool is_call_with(size_t request, size_t i) {
    return requests_before[i] <= request && request < requests_before[i + 1];
}

static bool call(const struct operation *operation, size_t i) {
    po_restore_error((struct po_error){ PO_OK, "" });
    plan.counts = true;
    const bool succeeded = operation->call(i);
    plan.counts = false;
    const enum po_code code = po_error_last().code;
    CHECK(code == (succeeded ? PO_OK : PO_NO_MEMORY), "%s, call %zu, %s: code %d", operation->name,
          i, modes[plan.mode], (int)code);
    return succeeded;
}

static void count_requests(const struct operation *operation, unsigned threshold) {
    open_world(threshold);
    plan_failures(NEVER, 0);
    for (size_t i = 0; i < REPEATS; i++) {
        requests_before[i] = plan.requests;
        CHECK(call(operation, i));
    }
    requests_before[REPEATS] = plan.requests;
    close_world();
    CHECK((plan.requests == 0) == operation->needs_none, "%s: %zu requests", operation->name,
          plan.requests);
}

// True when the call with this request did what it is for in spite of all.
static bool survives(const struct operation *operation, unsigned threshold, enum mode mode,
                     size_t request) {
    bool succeeded = true;
    open_world(threshold);
    plan_failures(mode, request);
    for (size_t i = 0; i < REPEATS && succeeded; i++) {
        const bool is_the_one = is_call_with(request, i);
        if (is_the_one) {
            take_picture(&before);
        }
        succeeded = call(operation, i);
        CHECK(succeeded || is_the_one, "%s: call %zu, not that with request %zu", operation->name,
              i, request);
    }
    CHECK(plan.refused != 0);
    CHECK(succeeded || is_as_before(), "%s: request %zu, %s", operation->name, request,
          modes[mode]);
    plan_failures(NEVER, 0);
    close_world();
    return succeeded;
}

static void fail_each(const struct operation *operation, unsigned threshold, enum mode mode,
                      bool expected) {
    count_requests(operation, threshold);
    for (size_t request = 0; request < requests_before[REPEATS]; request++) {
        CHECK(survives(operation, threshold, mode, request) == expected, "%s: request %zu, %s",
              operation->name, request, modes[mode]);
    }
}

static void fail_each_of_all(unsigned threshold, enum mode mode, bool expected) {
    for (size_t i = 0; i < COUNT(operations); i++) {
        fail_each(&operations[i], threshold, mode, expected);
    }
}

#define NEVER_DUE 0
#define OFTEN_DUE 5

TEST(a_call_without_one_of_its_blocks_fails_and_changes_nothing) {
    fail_each_of_all(NEVER_DUE, REQUEST, false);
}

TEST(a_call_without_memory_fails_and_changes_nothing) {
    fail_each_of_all(NEVER_DUE, ALL, false);
}

TEST(a_call_that_has_collected_before_it_fails_changes_nothing) {
    fail_each_of_all(OFTEN_DUE, REQUEST, false);
}

// --- Once more -----------------------------------------------------------------------------------

static void skip_where_nothing_is_purged(void) {
    if (PO_LIBC_BLOCKS) {
        cr_skip("a sanitizer serves the objects: nothing is purged");
    }
}

TEST(a_request_that_is_refused_once_is_tried_again) {
    skip_where_nothing_is_purged();
    fail_each_of_all(NEVER_DUE, ONCE, true);
}

TEST(pages_are_purged_before_a_request_is_tried_again) {
    skip_where_nothing_is_purged();
    fail_each_of_all(NEVER_DUE, UNTIL_PURGED, true);
}

// Of an object the first try is the short way.
TEST(a_request_is_given_up_after_one_purge_of_both_heaps) {
    skip_where_nothing_is_purged();
    open_world(NEVER_DUE);
    plan_failures(ALL, 0);
    plan.counts = true;
    CHECK(po_float(state, 1.5) == NULL && plan.requests == 1);
    CHECK(plan.purges == 2 && plan.refused == 3, "%zu, %zu", plan.purges, plan.refused);
    plan_failures(ALL, 0);
    plan.counts = true;
    CHECK(po_list_append(world.list, PO_NONE) == -1 && plan.requests == 1);
    CHECK(plan.purges == 2 && plan.refused == 2, "%zu, %zu", plan.purges, plan.refused);
    plan_failures(NEVER, 0);
    close_world();
}

// --- What needs no memory ------------------------------------------------------------------------

// All requests are refused from here on.
static void refuse_all(void) {
    po_restore_error((struct po_error){ PO_OK, "" });
    plan_failures(ALL, 0);
    plan.counts = true;
}

static void allow_all(void) {
    CHECK(po_error_last().code == PO_OK, "%s", po_error_last().text);
    plan_failures(NEVER, 0);
    CHECK(po_check(state, 2) == 0);
}

TEST(items_of_a_list_leave_without_memory) {
    open_world(NEVER_DUE);
    refuse_all();
    CHECK(po_list_remove(world.filled, 0, 1) == 0);
    CHECK(po_list_remove(world.filled, 20, 50) == 0 && po_list_size(world.filled) == FILLED - 51);
    for (size_t i = 0; i < FILLED - 51; i++) {
        const size_t was = i < 20 ? i + 1 : i + 51;
        CHECK(po_list_at(world.filled, i) == world.number[was]);
    }
    for (size_t i = FILLED - 1; i > FILLED - 30; i--) {
        PO_AUTO po_object *const last = po_list_pop(world.filled);
        CHECK(last == world.number[i]);
    }
    CHECK(po_list_set(world.filled, 0, PO_NONE) == 0);
    CHECK(po_list_remove(world.filled, 0, po_list_size(world.filled)) == 0);
    for (size_t i = 0; i < FILLED; i++) {
        CHECK(world.number[i]->count_ == 1);
    }
    allow_all();
    close_world();
}

TEST(keys_of_a_dict_leave_without_memory) {
    open_world(NEVER_DUE);
    for (size_t i = 0; i < REPEATS; i++) {
        CHECK(po_dict_set(world.mixed, world.text[i], world.number[i]) == 0);
        CHECK(po_dict_set(world.mixed, world.number[i], world.text[i]) == 0);
    }
    refuse_all();
    po_object *value;
    for (size_t i = 0; i < REPEATS; i++) {
        CHECK(po_dict_get(world.mixed, world.number[i], &value) == 1 && value == world.text[i]);
        CHECK(po_dict_set(world.mixed, world.number[i], PO_TRUE) == 0);
        CHECK(po_dict_remove(world.mixed, world.text[i]) == 1);
        CHECK(po_dict_remove(world.mixed, world.text[i]) == 0);
        CHECK(po_dict_remove(world.mixed, world.number[i]) == 1);
        CHECK(world.text[i]->count_ == 1 && world.number[i]->count_ == 1 + (i != 0 && i < FILLED));
    }
    CHECK(po_dict_size(world.mixed) == 0);
    allow_all();
    close_world();
}

TEST(objects_are_compared_hashed_and_looked_at_without_memory) {
    open_world(NEVER_DUE);
    PO_AUTO po_object *twin = sure(po_tuple(state, ITEMS, world.item));
    PO_AUTO po_object *weakref = sure(po_weakref(state, world.list, NULL, NULL));
    uint64_t hash;
    po_object *target;
    refuse_all();
    CHECK(po_equal(twin, world.nested) == 1 && po_equal(world.list, world.item[2]) == 1);
    CHECK(po_hash(world.text[7], &hash) == 0 && po_hash(world.item[0], &hash) == 0);
    CHECK(po_weakref_get(weakref, &target) == 1 && target == world.list);
    po_decref(target);
    PO_AUTO po_object *same = po_weakref(state, world.list, NULL, NULL);
    CHECK(same == weakref);
    const int fd = open("/dev/null", O_WRONLY | O_CLOEXEC);
    CHECK(po_explain(world.item[2], fd) == 0);
    close(fd);
    allow_all();
    po_clear(&twin);
    po_clear(&same);
    po_clear(&weakref);
    close_world();
}

// Cycles with weak references, finalizers that would like to allocate, and one that brings its
// object back.
static void make_trash(void) {
    for (size_t i = 0; i < 50; i++) {
        PO_AUTO po_object *list = sure(po_list(state));
        PO_AUTO po_object *node = sure(new_node(list, world.number[i]));
        PO_AUTO po_object *ghost = sure(new_ghost(list));
        ((struct ghost *)ghost)->comes_back = i == 25;
        CHECK(po_list_append(list, node) == 0 && po_list_append(list, ghost) == 0);
        CHECK(po_list_append_take(world.list, sure(po_weakref(state, node, callback, NULL))) == 0);
    }
}

static void collect_without_memory(int generation) {
    open_world(NEVER_DUE);
    log_of_ghosts = sure(po_list(state));
    calls_of_callback = 0;
    make_trash();
    refuse_all();
    const long collected = po_gc_collect(state, generation);
    CHECK(collected == 49 * 3, "%ld", collected);
    CHECK(calls_of_callback == 50 && came_back != NULL && po_list_size(log_of_ghosts) == 0);
    // A finalizer is called once.
    po_clear(&came_back);
    CHECK(po_gc_collect(state, PO_GEN_OLD) == 3 && came_back == NULL);
    po_gc_freeze(state);
    CHECK(po_gc_poll(state, UINT64_MAX) == 0);
    allow_all();
    po_clear(&log_of_ghosts);
    close_world();
}

TEST(collections_of_all_generations_need_no_memory) {
    for (int generation = 0; generation < PO_GENERATIONS; generation++) {
        collect_without_memory(generation);
    }
}

TEST(chains_of_all_kinds_end_without_memory) {
    open_world(NEVER_DUE);
    po_object *chain = po_incref(PO_NONE);
    for (size_t i = 0; i < 100000; i++) {
        po_object *next = NULL;
        switch (i % 4) {
        case 0: next = sure(po_tuple(state, 1, &chain)); break;
        case 1: next = sure(new_node(chain, NULL)); break;
        case 2: next = sure(new_ghost(chain)); break;
        default: next = sure(po_list(state)); CHECK(po_list_append(next, chain) == 0);
        }
        po_decref(chain);
        chain = next;
    }
    refuse_all();
    po_clear(&chain);
    CHECK(nodes == 1);
    allow_all();
    close_world();
}

// There is no room among the young: it is an old one then. The last error stays.
TEST(an_object_comes_back_when_there_is_no_room_for_it) {
    open_world(NEVER_DUE);
    PO_AUTO po_object *keeper = sure(po_list(state));
    po_object *const ghost = sure(new_ghost(NULL));
    ((struct ghost *)ghost)->comes_back = true;
    while (state->young_count < state->young_room) {
        CHECK(po_list_append_take(keeper, sure(po_list(state))) == 0);
    }
    // The ghost leaves a place in the full vector as it ends. That place is gone when it comes
    // back.
    state->young_room--;
    refuse_all();
    po_decref(ghost);
    CHECK(came_back == ghost && po_is_tracked(ghost) && po_gen(ghost) == PO_GEN_OLD);
    state->young_room++;
    allow_all();
    refuse_all();
    po_clear(&came_back);
    allow_all();
    po_clear(&keeper);
    close_world();
}

TEST(a_state_ends_without_memory_and_says_how_many_were_left) {
    for (int fd = -1; fd <= 2; fd += 3) {
        open_world(NEVER_DUE);
        make_trash();
        PO_AUTO po_object *node = sure(new_node(world.filled, NULL));
        const size_t left = REPEATS * 2 + ITEMS + 7 + 1;
        (void)node;
        refuse_all();
        const size_t told = po_state_free(state, fd);
        CHECK(told == left + 1, "%zu, not %zu", told, left + 1);
        CHECK(po_error_last().code == PO_OK && nodes == 0);
        plan_failures(NEVER, 0);
        node = came_back = NULL;
    }
}

TEST(an_audit_without_memory_says_so) {
    open_world(NEVER_DUE);
    plan_failures(ALL, 0);
    plan.counts = true;
    CHECK(po_check(state, 2) == SIZE_MAX && po_error_last().code == PO_NO_MEMORY);
    plan_failures(NEVER, 0);
    close_world();
}

// --- States and types ----------------------------------------------------------------------------

TEST(a_state_that_can_not_be_made_leaves_nothing_behind) {
    po_state_free(po_state_new(), -1);
    size_t request = 0;
    for (bool refused = true; refused; request++) {
        const long heaps_before = heaps, blocks_before = blocks;
        po_restore_error((struct po_error){ PO_OK, "" });
        plan_failures(ALL, request);
        plan.counts = true;
        state = po_state_new();
        refused = plan.refused != 0;
        plan_failures(NEVER, 0);
        CHECK((state == NULL) == refused);
        CHECK(po_error_last().code == (refused ? PO_NO_MEMORY : PO_OK));
        CHECK(po_state_free(state, 2) == 0);
        CHECK(heaps == heaps_before && blocks == blocks_before);
    }
    CHECK(request == (PO_LIBC_BLOCKS ? 2 : 4), "%zu", request);
}

// Types that were registered before the one that fails are.
TEST(a_type_that_can_not_be_registered_is_at_the_next_use) {
    state = po_state_new();
    for (size_t request = 0; request < 3; request++) {
        static po_type chain[3][3];
        po_type *const of = chain[request];
        for (size_t i = 0; i < 3; i++) {
            of[i] = node_type;
            of[i].number_ = 0;
            of[i].release = NULL;
            of[i].base = i != 0 ? &of[i - 1] : NULL;
        }
        po_restore_error((struct po_error){ PO_OK, "" });
        take_picture(&before);
        plan_failures(ALL, request);
        plan.counts = true;
        CHECK(po_new(state, &of[2]) == NULL && po_error_last().code == PO_NO_MEMORY);
        plan_failures(NEVER, 0);
        CHECK(is_as_before());
        for (size_t i = 0; i < 3; i++) {
            CHECK((of[i].number_ != 0) == (i < request));
        }
        PO_AUTO po_object *made = sure(po_new(state, &of[2]));
        CHECK(po_is(made, &of[0]));
    }
    CHECK(po_check(state, 2) == 0 && po_state_free(state, 2) == 0);
}

// --- Sizes that can't be -------------------------------------------------------------------------

static const size_t sizes[] = { SIZE_MAX,         SIZE_MAX - 7,        SIZE_MAX / 2 + 1,
                                SIZE_MAX / 2,     SIZE_MAX / 2 - 1000, SIZE_MAX / 4,
                                SIZE_MAX / 4 + 1, SIZE_MAX / 8,        SIZE_MAX / 16 };

static void check_no_memory(const void *made) {
    CHECK(made == NULL && po_error_last().code == PO_NO_MEMORY);
    CHECK(is_as_before());
    po_restore_error((struct po_error){ PO_OK, "" });
}

TEST(sizes_that_can_not_be_are_refused) {
    static struct big {
        PO_HEAD_ITEMS;
        char room[1000];
    } big;
    static po_type big_type = { .name = "big", .size = sizeof big, .item_size = 8 };
    open_world(NEVER_DUE);
    po_decref(sure(po_new_items(state, &big_type, 1)));
    po_decref(sure(po_new_items(state, &row_type, 1)));
    take_picture(&before);
    for (size_t i = 0; i < COUNT(sizes); i++) {
        check_no_memory(po_str(state, "xy", sizes[i]));
        check_no_memory(po_str_intern(state, "xy", sizes[i]));
        check_no_memory(po_bytes(state, "xy", sizes[i]));
        check_no_memory(po_tuple(state, sizes[i], world.item));
        check_no_memory(po_new_items(state, &row_type, sizes[i]));
        check_no_memory(po_new_items(state, &big_type, sizes[i]));
    }
    check_no_memory(po_str(state, "xy", (size_t)UINT32_MAX + 1));
    check_no_memory(po_str_intern(state, "xy", (size_t)UINT32_MAX + 1));
    close_world();
}

TEST(a_list_has_at_most_two_to_the_32_items_less_one) {
    open_world(NEVER_DUE);
    struct po_list_ *const list = (struct po_list_ *)world.list;
    list->items = list->room = UINT32_MAX;
    CHECK(po_list_append(world.list, world.item[0]) == -1);
    CHECK(po_error_last().code == PO_NO_MEMORY);
    CHECK(po_list_insert(world.list, 0, world.item[0]) == -1);
    po_incref(world.item[0]);
    CHECK(po_list_append_take(world.list, world.item[0]) == -1);
    CHECK(list->items == UINT32_MAX && list->item == NULL);
    list->items = list->room = 0;
    close_world();
}

// --- Whole programs ------------------------------------------------------------------------------

static po_object *root;

static bool into_dict(po_object *dict, const char *name, po_object *value) {
    PO_AUTO po_object *key = value != NULL ? po_str_intern(state, name, strlen(name)) : NULL;
    const bool set = key != NULL && po_dict_set(dict, key, value) == 0;
    po_decref(value);
    return set;
}

// One of everything, in each other and in circles.
static bool build_branch(size_t i) {
    PO_AUTO po_object *branch = po_dict(state);
    if (branch == NULL || !into_dict(branch, "float", po_float(state, (double)i)) ||
        !into_dict(branch, "text", text("text", i)) || !into_dict(branch, "list", po_list(state)) ||
        !into_dict(branch, "node", new_node(branch, root)) ||
        !into_dict(branch, "ghost", new_ghost(branch)) ||
        !into_dict(branch, "weak", po_weakref(state, branch, callback, PO_TRUE)) ||
        !into_dict(branch, "pair", po_tuple(state, 2, (po_object *[]){ branch, root }))) {
        return false;
    }
    PO_AUTO po_object *repr = po_repr(state, branch);
    PO_AUTO po_object *number = po_int(state, 1000000 + (int64_t)i);
    return repr != NULL && number != NULL && po_dict_set(branch, number, repr) == 0 &&
           po_list_append(root, branch) == 0;
}

static bool build(void) {
    root = po_list(state);
    log_of_ghosts = po_list(state);
    bool built = root != NULL && log_of_ghosts != NULL;
    for (size_t i = 0; i < 12 && built; i++) {
        built = build_branch(i);
        po_gc_collect(state, (int)(i % PO_GENERATIONS));
    }
    if (built) {
        CHECK(po_list_remove(root, 3, 5) == 0);
        CHECK(po_list_set(root, 0, root) == 0);
    }
    return built;
}

static void tear_down(void) {
    po_clear(&root);
    po_gc_collect(state, PO_GEN_OLD);
    po_clear(&log_of_ghosts);
    po_gc_collect(state, PO_GEN_OLD);
    CHECK(nodes == 0);
}

static size_t run_program(enum mode mode, size_t request) {
    state = po_state_new();
    const struct po_gc_config config = { PO_GC_AUTO, { 20, 2, 2 } };
    CHECK(po_gc_configure(state, &config) == 0);
    po_restore_error((struct po_error){ PO_OK, "" });
    plan_failures(mode, request);
    plan.counts = true;
    const bool built = build();
    plan.counts = false;
    // A finalizer copes with what it is refused, so that not all refusals are the program's.
    CHECK(built || (plan.refused != 0 && po_error_last().code == PO_NO_MEMORY));
    CHECK(po_check(state, 2) == 0, "request %zu, %s", request, modes[mode]);
    plan.counts = true;
    tear_down();
    plan.counts = false;
    CHECK(po_check(state, 2) == 0, "request %zu, %s", request, modes[mode]);
    CHECK(po_state_free(state, 2) == 0);
    return plan.refused;
}

static void run_programs(enum mode mode) {
    size_t request = 0;
    while (run_program(mode, request) != 0) {
        request++;
    }
    CHECK(request > 100, "%zu", request);
}

TEST(a_program_that_misses_one_block_loses_nothing) {
    run_programs(REQUEST);
}

TEST(a_program_that_runs_out_of_memory_loses_nothing) {
    run_programs(ALL);
}

TEST(a_program_that_is_refused_blocks_at_first_gets_them) {
    skip_where_nothing_is_purged();
    run_programs(ONCE);
}

// --- At random -----------------------------------------------------------------------------------

static bool call_at_random(uint64_t *seed) {
    const struct operation *const operation = &operations[check_random(seed) % COUNT(operations)];
    if (operation->call == dict_set_with_holes || world.count == REPEATS) {
        return true;
    }
    const size_t i = check_random(seed) % (po_list_size(world.list) + 1) % REPEATS;
    const enum mode mode = check_random(seed) % 3 == 0 ? REQUEST : NEVER;
    plan_failures(mode, check_random(seed) % 2);
    take_picture(&before);
    const bool succeeded = call(operation, i);
    CHECK(succeeded || is_as_before(), "%s", operation->name);
    CHECK(succeeded || plan.refused != 0, "%s", operation->name);
    return succeeded;
}

TEST(calls_that_fail_at_random_change_nothing) {
    size_t failed = 0;
    for (uint64_t run = 0; run < 50; run++) {
        uint64_t seed = run;
        open_world((unsigned)(run % 3) * 7);
        for (size_t i = 0; i < 400; i++) {
            failed += !call_at_random(&seed);
            plan_failures(NEVER, 0);
            if (check_random(&seed) % 50 == 0) {
                po_gc_collect(state, (int)(check_random(&seed) % PO_GENERATIONS));
            }
        }
        close_world();
    }
    CHECK(failed > 500, "%zu", failed);
}

// --- For real: a limit ---------------------------------------------------------------------------

#define VICTIM "MEMORY_TEST_VICTIM"

enum { MIB = 1 << 20 };

// Small objects until there is no more room; when they have gone, the room serves a large one.
static void live_within_a_limit(void) {
    static char zeros[48 * MIB];
    state = po_state_new();
    po_object *chain = po_incref(PO_NONE);
    size_t length = 0;
    for (po_object *next; (next = po_tuple_take(state, 1, &chain)) != NULL; length++) {
        chain = next;
    }
    // The chain was taken, and so it has ended.
    CHECK(po_error_last().code == PO_NO_MEMORY && length > 100000, "%zu", length);
    CHECK(po_check(state, 2) == 0);
    PO_AUTO po_object *large = po_bytes(state, zeros, sizeof zeros);
    CHECK(large != NULL, "%s", po_error_last().text);
    po_clear(&large);
    CHECK(po_check(state, 2) == 0 && po_state_free(state, 2) == 0);
}

// The limit is read as a process starts.
__attribute__((constructor)) static void be_victim(void) {
    if (getenv(VICTIM) != NULL) {
        live_within_a_limit();
        _exit(0);
    }
}

TEST(room_of_small_objects_that_went_serves_a_large_one) {
    skip_where_nothing_is_purged();
    const pid_t child = fork();
    if (child == 0) {
        setenv(VICTIM, "1", 1);
        setenv("POOLMALLOC_LIMIT", "hard=64M", 1);
        execl("/proc/self/exe", "memory", (char *)NULL);
        _exit(127);
    }
    int status = -1;
    CHECK(waitpid(child, &status, 0) == child && status == 0, "%x", (unsigned)status);
}

// SPDX-License-Identifier: MIT
// Copyright (c) the poolmalloc authors
//
// tuple, list, dict.

#include "check.h"

#include <fcntl.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "object/object.h"

#define TEST(name) Test(containers, name, .init = start, .fini = end, .timeout = CHECK_SECONDS)

static po_state *state;

static void start(void) {
    state = po_state_new();
    CHECK(state != NULL);
}

// Nothing is referred to any more, and everything is as it must be.
static void end(void) {
    CHECK(po_check(state, 2) == 0);
    CHECK(po_state_free(state, 2) == 0);
}

static uint64_t random_number(void) {
    static uint64_t seed;
    return check_random(&seed);
}

static size_t below(size_t limit) {
    return (size_t)(random_number() % limit);
}

static bool failed_with(enum po_code code) {
    return po_error_last().code == code;
}

static void forget_error(void) {
    po_restore_error((struct po_error){ PO_OK, "" });
}

// Too large to be shared.
static po_object *number(int64_t value) {
    return po_int(state, value + 1000);
}

static int64_t value_of(const po_object *object) {
    return po_int_value(object) - 1000;
}

static po_object *text(const char *utf8) {
    return po_str(state, utf8, strlen(utf8));
}

static bool is_text(po_object *object, const char *utf8) {
    return po_str_size(object) == strlen(utf8) &&
           memcmp(po_str_data(object), utf8, strlen(utf8)) == 0;
}

static void check_repr(po_object *object, const char *utf8) {
    PO_AUTO po_object *repr = po_repr(state, object);
    CHECK(repr != NULL && is_text(repr, utf8), "%s, not %s", po_str_data(repr), utf8);
}

static po_object *new_list(void) {
    po_object *const list = po_list(state);
    CHECK(list != NULL && po_list_size(list) == 0);
    return list;
}

static po_object *new_dict(void) {
    po_object *const dict = po_dict(state);
    CHECK(dict != NULL && po_dict_size(dict) == 0);
    return dict;
}

static po_object *numbers(size_t n) {
    po_object *const list = new_list();
    for (size_t i = 0; i < n; i++) {
        CHECK(po_list_append_take(list, number((int64_t)i)) == 0);
    }
    return list;
}

static void set_take(po_object *dict, po_object *key, po_object *value) {
    CHECK(po_dict_set(dict, key, value) == 0);
    po_decref(key);
    po_decref(value);
}

// --- Objects of the program's -------------------------------------------------------------------

// Equal by id, after a hook.
struct key {
    PO_HEAD;
    int64_t id;
    bool collides;
    void (*at_end)(void);
};

static void (*on_equal)(void);

static int key_equal(po_object *self, po_object *other) {
    if (on_equal != NULL) {
        on_equal();
    }
    return ((struct key *)self)->id == ((struct key *)other)->id;
}

static int key_hash(po_object *self, uint64_t *to) {
    const struct key *const key = (struct key *)self;
    *to = key->collides ? 7 : (uint64_t)key->id;
    return 0;
}

static void key_finalize(po_object *self) {
    const struct key *const key = (struct key *)self;
    if (key->at_end != NULL) {
        key->at_end();
    }
}

static po_type key_type = {
    .name = "key",
    .size = sizeof(struct key),
    .finalize = key_finalize,
    .equal = key_equal,
    .hash = key_hash,
};

static po_object *new_key(int64_t id, bool collides) {
    struct key *const key = (struct key *)po_new(state, &key_type);
    CHECK(key != NULL);
    key->id = id;
    key->collides = collides;
    return &key->object;
}

// Calls a function when it ends.
struct ghost {
    PO_HEAD;
    po_object *held;
    void (*at_end)(void);
};

static int ghosts_ended;

static int ghost_traverse(const po_object *self, po_visit visit, void *argument) {
    PO_VISIT(((const struct ghost *)self)->held);
    return 0;
}

static void ghost_clear(po_object *self) {
    po_clear(&((struct ghost *)self)->held);
}

static void ghost_finalize(po_object *self) {
    const struct ghost *const ghost = (struct ghost *)self;
    ghosts_ended++;
    if (ghost->at_end != NULL) {
        ghost->at_end();
    }
}

static po_type ghost_type = {
    .name = "ghost",
    .size = sizeof(struct ghost),
    .traverse = ghost_traverse,
    .clear = ghost_clear,
    .finalize = ghost_finalize,
};

static po_object *new_ghost(void (*at_end)(void)) {
    struct ghost *const ghost = (struct ghost *)po_new(state, &ghost_type);
    CHECK(ghost != NULL);
    ghost->at_end = at_end;
    return &ghost->object;
}

static po_object *shared; // for hooks

// --- tuple ------------------------------------------------------------------------------------

TEST(the_empty_tuple_is_shared_and_immortal) {
    po_object *const a = po_tuple(state, 0, NULL);
    po_object *const b = po_tuple_take(state, 0, NULL);
    CHECK(a == b && po_is_immortal(a) && po_tuple_size(a) == 0 && po_state_of(a) == NULL);
    check_repr(a, "()");
}

TEST(a_tuple_holds_one_reference_to_each_item) {
    PO_AUTO po_object *item = number(1);
    po_object *const items[] = { item, item, PO_NONE };
    po_object *const tuple = po_tuple(state, 3, items);
    CHECK(po_tuple_size(tuple) == 3 && po_tuple_at(tuple, 1) == item &&
          po_tuple_at(tuple, 2) == PO_NONE);
    CHECK(item->count_ == 3);
    po_decref(tuple);
    CHECK(item->count_ == 1);
}

TEST(tuple_take_gives_references_up_also_when_it_fails) {
    po_object *const item = number(1);
    po_object *const items[] = { po_incref(item), po_incref(item), NULL };
    forget_error();
    CHECK(po_tuple_take(state, 3, items) == NULL && failed_with(PO_OK));
    CHECK(item->count_ == 1);
    po_object *const tuple = po_tuple_take(state, 1, &item);
    CHECK(item->count_ == 1 && po_tuple_at(tuple, 0) == item);
    po_decref(tuple);
}

TEST(a_tuple_of_a_size_that_cant_be_fails) {
    forget_error();
    CHECK(po_tuple(state, SIZE_MAX / sizeof(po_object *) + 1, NULL) == NULL &&
          failed_with(PO_NO_MEMORY));
    forget_error();
    CHECK(po_tuple(state, SIZE_MAX / sizeof(po_object *), NULL) == NULL &&
          failed_with(PO_NO_MEMORY));
}

static int ended[3], ended_count;
static void end_0(void) {
    ended[ended_count++] = 0;
}
static void end_1(void) {
    ended[ended_count++] = 1;
}
static void end_2(void) {
    ended[ended_count++] = 2;
}

TEST(items_of_tuples_and_lists_end_from_the_last_to_the_first) {
    po_object *const items[] = { new_ghost(end_0), new_ghost(end_1), new_ghost(end_2) };
    po_decref(po_tuple_take(state, 3, items));
    CHECK(ended[0] == 2 && ended[1] == 1 && ended[2] == 0);
    ended_count = 0;
    po_object *const list = new_list();
    CHECK(po_list_append_take(list, new_ghost(end_0)) == 0);
    CHECK(po_list_append_take(list, new_ghost(end_1)) == 0);
    CHECK(po_list_append_take(list, new_ghost(end_2)) == 0);
    po_decref(list);
    CHECK(ended[0] == 2 && ended[1] == 1 && ended[2] == 0);
}

TEST(entries_of_dicts_end_in_order_the_key_before_its_value) {
    po_object *const dict = new_dict();
    set_take(dict, new_ghost(end_0), new_ghost(end_1));
    set_take(dict, new_ghost(end_2), PO_NONE);
    po_decref(dict);
    CHECK(ended[0] == 0 && ended[1] == 1 && ended[2] == 2);
}

TEST(a_key_that_is_removed_ends_before_its_value) {
    PO_AUTO po_object *dict = new_dict();
    po_object *const key = new_key(1, false);
    ((struct key *)key)->at_end = end_0;
    set_take(dict, key, new_ghost(end_1));
    PO_AUTO po_object *same = new_key(1, false);
    CHECK(po_dict_remove(dict, same) == 1);
    CHECK(ended_count == 2 && ended[0] == 0 && ended[1] == 1);
}

// --- equal, hash, repr --------------------------------------------------------------------------

static po_object *pair(po_object *a, po_object *b) {
    po_object *const items[] = { a, b };
    po_object *const made = po_tuple_take(state, 2, items);
    CHECK(made != NULL);
    return made;
}

TEST(tuples_with_equal_items_are_equal_and_hash_equal) {
    PO_AUTO po_object *a = pair(text("one"), pair(number(1), po_float(state, 2.0)));
    PO_AUTO po_object *b = pair(text("one"), pair(number(1), po_int(state, 2)));
    PO_AUTO po_object *c = pair(pair(number(1), po_int(state, 2)), text("one"));
    uint64_t hash_a, hash_b, hash_c;
    CHECK(po_equal(a, b) == 1 && po_equal(a, c) == 0);
    CHECK(po_hash(a, &hash_a) == 0 && po_hash(b, &hash_b) == 0 && po_hash(c, &hash_c) == 0);
    CHECK(hash_a == hash_b && hash_a != hash_c);
    PO_AUTO po_object *d = pair(text("two"), pair(number(1), po_int(state, 2)));
    uint64_t hash_d;
    CHECK(po_hash(d, &hash_d) == 0 && hash_a != hash_d);
}

TEST(lists_and_dicts_are_compared_but_not_hashed) {
    uint64_t hash;
    PO_AUTO po_object *list = numbers(3);
    PO_AUTO po_object *same = numbers(3);
    PO_AUTO po_object *longer = numbers(4);
    CHECK(po_equal(list, same) == 1 && po_equal(list, longer) == 0);
    CHECK(po_list_set(same, 2, PO_NONE) == 0 && po_equal(list, same) == 0);
    CHECK(po_hash(list, &hash) == -1 && failed_with(PO_UNHASHABLE));
    PO_AUTO po_object *dict = new_dict();
    forget_error();
    CHECK(po_hash(dict, &hash) == -1 && failed_with(PO_UNHASHABLE));
    forget_error();
    CHECK(po_dict_set(dict, list, PO_NONE) == -1 && failed_with(PO_UNHASHABLE));
    PO_AUTO po_object *inside = pair(PO_NONE, po_incref(list));
    forget_error();
    CHECK(po_dict_set(dict, inside, PO_NONE) == -1 && failed_with(PO_UNHASHABLE));
    CHECK(po_dict_size(dict) == 0 && list->count_ == 2);
}

TEST(an_item_is_equal_to_itself_even_when_it_is_not_a_number) {
    PO_AUTO po_object *nan = po_float(state, __builtin_nan(""));
    PO_AUTO po_object *a = pair(po_incref(nan), PO_NONE);
    PO_AUTO po_object *b = pair(po_incref(nan), PO_NONE);
    CHECK(po_equal(a, b) == 1);
    PO_AUTO po_object *dict = new_dict();
    CHECK(po_dict_set(dict, nan, PO_NONE) == 0);
    po_object *value;
    CHECK(po_dict_get(dict, nan, &value) == 1);
}

TEST(dicts_are_equal_in_any_order) {
    PO_AUTO po_object *a = new_dict();
    PO_AUTO po_object *b = new_dict();
    for (int i = 0; i < 100; i++) {
        set_take(a, number(i), number(2 * i));
        set_take(b, number(99 - i), number(2 * (99 - i)));
    }
    CHECK(po_equal(a, b) == 1 && po_equal(b, a) == 1);
    set_take(b, number(50), number(51));
    CHECK(po_equal(a, b) == 0 && po_equal(b, a) == 0);
    set_take(b, number(50), number(100));
    CHECK(po_equal(a, b) == 1);
    PO_AUTO po_object *key = number(50);
    CHECK(po_dict_remove(b, key) == 1 && po_equal(a, b) == 0);
    set_take(b, number(100), number(100));
    CHECK(po_equal(a, b) == 0 && po_equal(b, a) == 0);
}

TEST(containers_are_written_as_in_python) {
    PO_AUTO po_object *list = new_list();
    PO_AUTO po_object *dict = new_dict();
    check_repr(list, "[]");
    check_repr(dict, "{}");
    CHECK(po_list_append_take(list, po_int(state, 1)) == 0);
    CHECK(po_list_append_take(list, text("a")) == 0);
    check_repr(list, "[1, 'a']");
    po_object *const one = PO_TRUE;
    PO_AUTO po_object *single = po_tuple(state, 1, &one);
    check_repr(single, "(True,)");
    set_take(dict, text("k"), po_incref(single));
    set_take(dict, po_int(state, 2), po_incref(list));
    check_repr(dict, "{'k': (True,), 2: [1, 'a']}");
}

TEST(what_contains_itself_is_written_with_dots) {
    PO_AUTO po_object *list = new_list();
    PO_AUTO po_object *dict = new_dict();
    PO_AUTO po_object *tuple = po_tuple(state, 1, &list);
    CHECK(po_list_append(list, list) == 0);
    check_repr(list, "[[...]]");
    CHECK(po_list_set(list, 0, tuple) == 0);
    check_repr(tuple, "([(...)],)");
    check_repr(list, "[([...],)]");
    set_take(dict, PO_NONE, po_incref(dict));
    check_repr(dict, "{None: {...}}");
    CHECK(po_list_remove(list, 0, 1) == 0 && po_dict_remove(dict, PO_NONE) == 1);
    check_repr(list, "[]");
}

TEST(what_is_too_deep_to_compare_or_write_is_an_error) {
    PO_AUTO po_object *a = new_list();
    PO_AUTO po_object *b = new_list();
    for (int i = 0; i < 2 * PO_DEPTH_MAX; i++) {
        po_object *const outer_a = new_list(), *const outer_b = new_list();
        CHECK(po_list_append_take(outer_a, a) == 0 && po_list_append_take(outer_b, b) == 0);
        a = outer_a;
        b = outer_b;
    }
    forget_error();
    CHECK(po_equal(a, b) == -1 && failed_with(PO_TOO_DEEP));
    forget_error();
    CHECK(po_repr(state, a) == NULL && failed_with(PO_TOO_DEEP));
}

// --- list -------------------------------------------------------------------------------------

enum { ELEMENTS = 64, LIST_MAX = 3000, OPERATIONS = 100000 };

struct shadow_list {
    po_object *item[LIST_MAX];
    size_t items;
};

static void shadow_insert(struct shadow_list *shadow, size_t at, po_object *object) {
    memmove(shadow->item + at + 1, shadow->item + at, (shadow->items - at) * sizeof object);
    shadow->item[at] = object;
    shadow->items++;
}

static void shadow_remove(struct shadow_list *shadow, size_t at, size_t n) {
    memmove(shadow->item + at, shadow->item + at + n,
            (shadow->items - at - n) * sizeof shadow->item[0]);
    shadow->items -= n;
}

static void change_list(po_object *list, struct shadow_list *shadow, po_object *object,
                        bool is_growing) {
    const size_t size = shadow->items, at = below(size + 1);
    const size_t choice = below(10);
    if (choice < 2) {
        const bool there = at < size;
        CHECK(po_list_set(list, at, object) == (there ? 0 : -1));
        if (there) {
            shadow->item[at] = object;
        }
    } else if (choice < (is_growing ? 6u : 4u) && size < LIST_MAX) {
        CHECK(po_list_append(list, object) == 0);
        shadow_insert(shadow, size, object);
    } else if (choice < (is_growing ? 8u : 5u) && size < LIST_MAX) {
        CHECK(po_list_insert(list, at, object) == 0);
        shadow_insert(shadow, at, object);
    } else if (choice < 9) {
        po_object *const last = po_list_pop(list);
        CHECK(last == (size != 0 ? shadow->item[size - 1] : NULL));
        shadow->items -= size != 0;
        po_decref(last);
    } else {
        const size_t most = size - at < 4 || below(50) == 0 ? size - at : 4;
        const size_t n = below(most + 1);
        CHECK(po_list_remove(list, at, n) == 0);
        shadow_remove(shadow, at, n);
    }
}

static void check_list(const po_object *list, const struct shadow_list *shadow) {
    CHECK(po_list_size(list) == shadow->items);
    for (size_t i = 0; i < shadow->items; i++) {
        CHECK(po_list_at(list, i) == shadow->item[i], "item %zu", i);
    }
}

TEST(a_list_holds_what_a_shadow_holds) {
    static struct shadow_list shadow;
    po_object *element[ELEMENTS];
    for (int i = 0; i < ELEMENTS; i++) {
        element[i] = number(i);
    }
    po_object *const list = new_list();
    for (int i = 0; i < OPERATIONS; i++) {
        change_list(list, &shadow, element[below(ELEMENTS)], i / 5000 % 2 == 0);
        if (i % 64 == 0) {
            check_list(list, &shadow);
        }
    }
    check_list(list, &shadow);
    uint32_t counts[ELEMENTS] = { 0 };
    for (size_t i = 0; i < shadow.items; i++) {
        counts[value_of(shadow.item[i])]++;
    }
    for (int i = 0; i < ELEMENTS; i++) {
        CHECK(element[i]->count_ == counts[i] + 1);
    }
    po_decref(list);
    for (int i = 0; i < ELEMENTS; i++) {
        CHECK(element[i]->count_ == 1);
        po_decref(element[i]);
    }
}

static size_t room_of(const po_object *list) {
    return ((const struct po_list_ *)list)->room;
}

TEST(a_list_has_little_room_to_spare) {
    if (PM_CHECKS) {
        cr_skip("in builds with checks, lists don't tell their room");
    }
    PO_AUTO po_object *list = new_list();
    size_t resizes = 0, room = 0;
    for (size_t i = 1; i <= 100000; i++) {
        CHECK(po_list_append(list, PO_NONE) == 0);
        CHECK(room_of(list) >= i && room_of(list) <= i + i / 8 + 8);
        resizes += room_of(list) != room;
        room = room_of(list);
    }
    CHECK(resizes < 100, "%zu", resizes);
    while (po_list_size(list) != 0) {
        po_decref(po_list_pop(list));
        CHECK(room_of(list) <= 2 * po_list_size(list) + 8);
    }
}

static void append_of_another_state(void) {
    po_state *const other = po_state_new();
    PO_AUTO po_object *list = new_list();
    po_list_append(list, PO_NONE);
    po_list_append(list, po_float(other, 1.0));
    po_state_free(other, -1);
}

TEST(a_build_with_checks_stops_at_an_object_of_another_state) {
    if (!PM_CHECKS) {
        cr_skip("only builds with checks look");
    }
    const pid_t child = fork();
    if (child == 0) {
        const int null = open("/dev/null", O_WRONLY);
        signal(SIGABRT, SIG_DFL);
        dup2(null, 2);
        append_of_another_state();
        _exit(0);
    }
    int status;
    CHECK(waitpid(child, &status, 0) == child && WIFSIGNALED(status) &&
          WTERMSIG(status) == SIGABRT);
}

TEST(ranges_of_any_size_leave_a_list) {
    enum { SIZE = 200 };
    for (size_t n = 0; n <= SIZE; n += 1 + n / 8) {
        for (size_t at = 0; at + n <= SIZE; at += 33) {
            PO_AUTO po_object *list = numbers(SIZE);
            CHECK(po_list_remove(list, at, n) == 0 && po_list_size(list) == SIZE - n);
            for (size_t i = 0; i < SIZE - n; i++) {
                CHECK(value_of(po_list_at(list, i)) == (int64_t)(i < at ? i : i + n));
            }
        }
    }
}

TEST(an_index_that_is_none_is_an_error_and_changes_nothing) {
    PO_AUTO po_object *list = numbers(3);
    forget_error();
    CHECK(po_list_set(list, 3, PO_NONE) == -1 && failed_with(PO_NO_INDEX));
    forget_error();
    CHECK(po_list_insert(list, 4, PO_NONE) == -1 && failed_with(PO_NO_INDEX));
    forget_error();
    CHECK(po_list_remove(list, 1, 3) == -1 && failed_with(PO_NO_INDEX));
    CHECK(po_list_remove(list, 4, 0) == -1 && po_list_remove(list, 1, SIZE_MAX) == -1);
    CHECK(po_list_size(list) == 3 && po_list_remove(list, 3, 0) == 0);
    PO_AUTO po_object *empty = new_list();
    forget_error();
    CHECK(po_list_pop(empty) == NULL && failed_with(PO_NO_INDEX));
}

TEST(append_take_gives_the_reference_up_also_when_it_fails) {
    PO_AUTO po_object *item = number(1);
    PO_AUTO po_object *list = new_list();
    CHECK(po_list_append_take(list, po_incref(item)) == 0 && item->count_ == 2);
    CHECK(po_list_append(list, item) == 0 && item->count_ == 3);
    forget_error();
    CHECK(po_list_append_take(PO_NONE, po_incref(item)) == -1 && failed_with(PO_WRONG_TYPE));
    CHECK(po_list_append_take(NULL, po_incref(item)) == -1 && item->count_ == 3);
    // Known to be of another type, gcc warns of the call itself.
    po_object *volatile none = PO_NONE;
    CHECK(po_list_append(none, item) == -1 && item->count_ == 3);
    forget_error();
    CHECK(po_list_append_take(list, NULL) == -1 && failed_with(PO_OK));
}

TEST(set_take_gives_both_references_up_also_when_it_fails) {
    PO_AUTO po_object *key = number(1);
    PO_AUTO po_object *value = number(2);
    PO_AUTO po_object *dict = new_dict();
    CHECK(po_dict_set_take(dict, po_incref(key), po_incref(value)) == 0);
    CHECK(key->count_ == 2 && value->count_ == 2);
    CHECK(po_dict_set_take(PO_NONE, po_incref(key), po_incref(value)) == -1 &&
          failed_with(PO_WRONG_TYPE));
    forget_error();
    CHECK(po_dict_set_take(dict, po_incref(key), NULL) == -1 && failed_with(PO_OK));
    CHECK(po_dict_set_take(dict, NULL, po_incref(value)) == -1 && failed_with(PO_OK));
    CHECK(key->count_ == 2 && value->count_ == 2 && po_dict_size(dict) == 1);
}

// --- dict -------------------------------------------------------------------------------------

enum { KEYS = 800, VALUES = 16 };
enum kind { STRINGS, INTS, PROGRAM, MIXED };

static po_object *make_key(enum kind kind, int i) {
    char name[32];
    snprintf(name, sizeof name, "key number %d", i);
    switch (kind == MIXED ? (enum kind)(i % 4) : kind) {
    case STRINGS: return text(name);
    case INTS: return number(i);
    case PROGRAM: return new_key(i, i % 8 == 0);
    default: return pair(text(name), number(i));
    }
}

// An equal key that is another object, or the same.
static po_object *another_key(enum kind kind, int i, po_object *key) {
    return below(2) ? po_incref(key) : make_key(kind, i);
}

struct shadow_dict {
    po_object *key[KEYS];
    po_object *value[KEYS];
    bool is_in[KEYS];
    int order[KEYS]; // of keys that are in
    size_t used;
};

static void forget(struct shadow_dict *shadow, int key) {
    size_t at = 0;
    while (shadow->order[at] != key) {
        at++;
    }
    memmove(shadow->order + at, shadow->order + at + 1,
            (shadow->used - at - 1) * sizeof shadow->order[0]);
    shadow->used--;
    shadow->is_in[key] = false;
}

static void change_dict(po_object *dict, struct shadow_dict *shadow, enum kind kind, int key,
                        po_object *value, size_t sets_of_ten) {
    PO_AUTO po_object *used = another_key(kind, key, shadow->key[key]);
    if (below(10) < sets_of_ten) {
        // The first object for a key stays it.
        CHECK(po_dict_set(dict, shadow->is_in[key] ? used : shadow->key[key], value) == 0);
        if (!shadow->is_in[key]) {
            shadow->is_in[key] = true;
            shadow->order[shadow->used++] = key;
        }
        shadow->value[key] = value;
        return;
    }
    CHECK(po_dict_remove(dict, used) == shadow->is_in[key]);
    if (shadow->is_in[key]) {
        forget(shadow, key);
    }
}

static void check_look_up(po_object *dict, const struct shadow_dict *shadow, enum kind kind,
                          int key) {
    PO_AUTO po_object *used = another_key(kind, key, shadow->key[key]);
    po_object *value = PO_TRUE;
    CHECK(po_dict_get(dict, used, &value) == shadow->is_in[key]);
    CHECK(value == (shadow->is_in[key] ? shadow->value[key] : NULL));
}

static void check_dict(po_object *dict, const struct shadow_dict *shadow) {
    CHECK(po_dict_size(dict) == shadow->used);
    size_t position = 0, n = 0;
    po_object *key, *value;
    for (; po_dict_next(dict, &position, &key, &value); n++) {
        CHECK(n < shadow->used);
        CHECK(key == shadow->key[shadow->order[n]] && value == shadow->value[shadow->order[n]]);
    }
    CHECK(n == shadow->used && key == NULL && value == NULL);
}

static void check_counts(struct shadow_dict *shadow, po_object **values, bool is_ended) {
    uint32_t held[VALUES] = { 0 };
    for (int i = 0; i < KEYS; i++) {
        const bool is_in = shadow->is_in[i] && !is_ended;
        CHECK(shadow->key[i]->count_ == 1u + is_in, "key %d", i);
        held[is_in ? value_of(shadow->value[i]) : 0] += is_in;
    }
    for (int i = 0; i < VALUES; i++) {
        CHECK(values[i]->count_ == 1 + held[i], "value %d", i);
    }
}

static void check_model(enum kind kind) {
    static struct shadow_dict shadow;
    memset(&shadow, 0, sizeof shadow);
    po_object *values[VALUES];
    for (int i = 0; i < KEYS; i++) {
        shadow.key[i] = make_key(kind, i);
    }
    for (int i = 0; i < VALUES; i++) {
        values[i] = number(i);
    }
    po_object *const dict = new_dict();
    static const size_t sets[] = { 8, 2, 5, 10, 0 };
    for (int i = 0; i < OPERATIONS; i++) {
        const size_t keys = i / 20000 % 2 ? 30 : KEYS;
        change_dict(dict, &shadow, kind, (int)below(keys), values[below(VALUES)],
                    sets[i / 3000 % 5]);
        check_look_up(dict, &shadow, kind, (int)below(KEYS));
        if (i % 256 == 0) {
            check_dict(dict, &shadow);
        }
    }
    check_dict(dict, &shadow);
    check_counts(&shadow, values, false);
    po_decref(dict);
    check_counts(&shadow, values, true);
    for (int i = 0; i < KEYS; i++) {
        po_decref(shadow.key[i]);
    }
    for (int i = 0; i < VALUES; i++) {
        po_decref(values[i]);
    }
}

TEST(a_dict_of_strings_holds_what_a_shadow_holds) {
    check_model(STRINGS);
}

TEST(a_dict_of_ints_holds_what_a_shadow_holds) {
    check_model(INTS);
}

TEST(a_dict_of_other_keys_holds_what_a_shadow_holds) {
    check_model(PROGRAM);
}

TEST(a_dict_of_all_kinds_of_keys_holds_what_a_shadow_holds) {
    check_model(MIXED);
}

TEST(a_dict_grows_to_every_width_of_its_slots) {
    enum { MANY = 200000 };
    PO_AUTO po_object *dict = new_dict();
    char name[32];
    for (int i = 0; i < MANY; i++) {
        set_take(dict, po_str(state, name, (size_t)snprintf(name, sizeof name, "%d", i)),
                 number(i));
    }
    CHECK(po_dict_size(dict) == MANY);
    for (int i = 0; i < MANY; i++) {
        PO_AUTO po_object *key = po_str(state, name, (size_t)snprintf(name, sizeof name, "%d", i));
        po_object *value;
        CHECK(po_dict_get(dict, key, &value) == 1 && value_of(value) == i);
    }
    for (int i = 0; i < MANY; i++) {
        PO_AUTO po_object *key = po_str(state, name, (size_t)snprintf(name, sizeof name, "%d", i));
        CHECK(po_dict_remove(dict, key) == 1 && po_dict_remove(dict, key) == 0);
    }
    CHECK(po_dict_size(dict) == 0);
}

TEST(a_key_that_comes_again_is_the_last_and_one_that_is_set_keeps_its_place) {
    PO_AUTO po_object *dict = new_dict();
    set_take(dict, text("a"), po_int(state, 1));
    set_take(dict, text("b"), po_int(state, 2));
    set_take(dict, text("c"), po_int(state, 3));
    set_take(dict, text("a"), po_int(state, 4));
    PO_AUTO po_object *b = text("b");
    CHECK(po_dict_remove(dict, b) == 1);
    set_take(dict, po_incref(b), po_int(state, 5));
    check_repr(dict, "{'a': 4, 'c': 3, 'b': 5}");
}

TEST(values_may_be_set_while_a_dict_is_walked) {
    PO_AUTO po_object *dict = new_dict();
    for (int i = 0; i < 100; i++) {
        set_take(dict, number(i), number(i));
    }
    size_t position = 0;
    int64_t n = 0;
    po_object *key, *value;
    for (; po_dict_next(dict, &position, &key, &value); n++) {
        CHECK(value_of(key) == n && value_of(value) == n);
        set_take(dict, po_incref(key), number(2 * n));
    }
    CHECK(n == 100 && po_dict_size(dict) == 100);
}

TEST(equal_numbers_are_one_key) {
    PO_AUTO po_object *dict = new_dict();
    set_take(dict, po_int(state, 1), text("int"));
    set_take(dict, po_float(state, 1.0), text("float"));
    set_take(dict, PO_TRUE, text("bool"));
    check_repr(dict, "{1: 'bool'}");
}

TEST(keys_whose_hashes_collide_are_told_apart) {
    enum { MANY = 400 };
    PO_AUTO po_object *dict = new_dict();
    for (int i = 0; i < MANY; i++) {
        set_take(dict, new_key(i, true), number(i));
    }
    for (int i = 0; i < MANY; i += 3) {
        PO_AUTO po_object *key = new_key(i, true);
        CHECK(po_dict_remove(dict, key) == 1);
    }
    for (int i = 0; i < 2 * MANY; i++) {
        PO_AUTO po_object *key = new_key(i, true);
        po_object *value;
        const bool is_in = i < MANY && i % 3 != 0;
        CHECK(po_dict_get(dict, key, &value) == is_in);
        CHECK(!is_in || value_of(value) == i);
    }
}

#if PO_LIBC_BLOCKS
static size_t bytes_of_dict(int keys) {
    PO_AUTO po_object *names = new_list();
    char name[32];
    for (int i = 0; i < keys; i++) {
        const size_t n = (size_t)snprintf(name, sizeof name, "name %d", i);
        CHECK(po_list_append_take(names, po_str(state, name, n)) == 0);
    }
    po_decref(new_dict());
    const size_t before = po_bytes_held(state);
    PO_AUTO po_object *dict = new_dict();
    for (int i = 0; i < keys; i++) {
        CHECK(po_dict_set(dict, po_list_at(names, (size_t)i), PO_NONE) == 0);
    }
    return po_bytes_held(state) - before;
}

// What sys.getsizeof says there.
TEST(dicts_are_no_larger_than_in_cpython_3_11) {
    static const struct {
        int keys;
        size_t bytes;
    } most[] = { { 0, 64 },   { 1, 184 },    { 5, 184 },      { 6, 272 },
                 { 10, 272 }, { 11, 464 },   { 21, 464 },     { 22, 832 },
                 { 42, 832 }, { 100, 3328 }, { 1000, 26032 }, { 10000, 207616 } };
    for (size_t i = 0; i < sizeof most / sizeof most[0]; i++) {
        const size_t bytes = bytes_of_dict(most[i].keys);
        CHECK(bytes <= most[i].bytes, "%d keys: %zu", most[i].keys, bytes);
    }
}
#endif

// --- Callbacks that change what they are called from ---------------------------------------------

static int changes_left;
static int64_t next_id;

// A key that collides with the others comes; the table is another one before long.
static void add_a_key(void) {
    if (changes_left > 0) {
        changes_left--;
        set_take(shared, po_int(state, 100000 + next_id++), PO_NONE);
    }
}

TEST(a_look_up_starts_again_when_an_equal_has_changed_the_dict) {
    PO_AUTO po_object *dict = new_dict();
    for (int i = 0; i < 20; i++) {
        set_take(dict, new_key(i, true), number(i));
    }
    shared = dict;
    on_equal = add_a_key;
    for (int i = 0; i < 20; i++) {
        changes_left = 50;
        PO_AUTO po_object *key = new_key(i, true);
        po_object *value;
        CHECK(po_dict_get(dict, key, &value) == 1 && value_of(value) == i);
        CHECK(changes_left == 0);
    }
    changes_left = 50;
    set_take(dict, new_key(20, true), number(20));
    CHECK(po_dict_size(dict) == 21 + 21 * 50);
    on_equal = NULL;
}

TEST(a_look_up_that_never_ends_is_an_error) {
    PO_AUTO po_object *dict = new_dict();
    PO_AUTO po_object *key = new_key(1, true);
    set_take(dict, new_key(0, true), PO_NONE);
    shared = dict;
    on_equal = add_a_key;
    changes_left = 1000000;
    po_object *value;
    forget_error();
    CHECK(po_dict_get(dict, key, &value) == -1 && value == NULL && failed_with(PO_CHANGED));
    CHECK(po_dict_set(dict, key, PO_TRUE) == -1 && po_dict_remove(dict, key) == -1);
    on_equal = NULL;
    CHECK(po_dict_get(dict, key, &value) == 0 && key->count_ == 1);
}

static void empty_the_dict(void) {
    while (po_dict_size(shared) != 0) {
        size_t position = 0;
        po_object *key, *value;
        po_dict_next(shared, &position, &key, &value);
        po_incref(key);
        void (*const hook)(void) = on_equal;
        on_equal = NULL;
        CHECK(po_dict_remove(shared, key) == 1);
        on_equal = hook;
        po_decref(key);
    }
}

static int compares_left;

static void empty_the_dict_later(void) {
    if (compares_left-- == 0) {
        empty_the_dict();
    }
}

static void fill_with_keys(po_object *dict, bool collide) {
    for (int id = 0; id < 10; id++) {
        set_take(dict, new_key(id, collide), PO_NONE);
    }
}

enum operation { GET, REMOVE, SET };

static void check_emptied(int compares, enum operation operation) {
    PO_AUTO po_object *dict = new_dict();
    PO_AUTO po_object *key = new_key(5, true);
    fill_with_keys(dict, true);
    shared = dict;
    compares_left = compares;
    on_equal = empty_the_dict_later;
    po_object *value;
    switch (operation) {
    case GET: CHECK(po_dict_get(dict, key, &value) == 0 && value == NULL); break;
    case REMOVE: CHECK(po_dict_remove(dict, key) == 0); break;
    case SET: CHECK(po_dict_set(dict, key, PO_NONE) == 0); break;
    }
    on_equal = NULL;
    CHECK(po_dict_size(dict) == (operation == SET) && key->count_ == 1u + (operation == SET));
}

TEST(keys_may_go_while_they_are_compared) {
    for (int compares = 0; compares <= 5; compares++) {
        check_emptied(compares, GET);
        check_emptied(compares, REMOVE);
        check_emptied(compares, SET);
    }
}

static void never_equal(void) {
    CHECK(false, "keys with different hashes are compared");
}

TEST(keys_with_different_hashes_are_not_compared) {
    PO_AUTO po_object *dict = new_dict();
    on_equal = never_equal;
    for (int i = 0; i < 1000; i++) {
        set_take(dict, new_key((int64_t)random_number(), false), PO_NONE);
    }
    CHECK(po_dict_size(dict) == 1000);
    on_equal = NULL;
}

TEST(a_dict_that_changes_while_it_is_compared_is_an_error) {
    PO_AUTO po_object *a = new_dict();
    PO_AUTO po_object *b = new_dict();
    fill_with_keys(a, false);
    fill_with_keys(b, false);
    CHECK(po_equal(a, b) == 1);
    shared = a;
    on_equal = empty_the_dict;
    forget_error();
    CHECK(po_equal(a, b) == -1 && failed_with(PO_CHANGED) && po_dict_size(a) == 0);
    on_equal = NULL;
}

TEST(a_dict_that_loses_its_keys_while_it_is_compared_with_is_not_equal) {
    PO_AUTO po_object *a = new_dict();
    PO_AUTO po_object *b = new_dict();
    fill_with_keys(a, true);
    fill_with_keys(b, true);
    shared = b;
    on_equal = empty_the_dict;
    CHECK(po_equal(a, b) == 0 && po_dict_size(b) == 0);
    on_equal = NULL;
}

static void empty_the_list(void) {
    CHECK(po_list_remove(shared, 0, po_list_size(shared)) == 0);
}

TEST(lists_may_change_while_they_are_compared) {
    for (int i = 0; i < 2; i++) {
        PO_AUTO po_object *a = new_list();
        PO_AUTO po_object *b = new_list();
        for (int id = 0; id < 5; id++) {
            CHECK(po_list_append_take(a, new_key(id, true)) == 0);
            CHECK(po_list_append_take(b, new_key(id, true)) == 0);
        }
        shared = i == 0 ? a : b;
        on_equal = empty_the_list;
        CHECK(po_equal(a, b) == 0);
        on_equal = NULL;
    }
}

static void change_the_list(void) {
    CHECK(po_list_append_take(shared, number((int64_t)po_list_size(shared))) == 0);
    for (int i = 0; i < 40; i++) {
        CHECK(po_list_append(shared, PO_TRUE) == 0);
    }
    CHECK(po_list_remove(shared, po_list_size(shared) - 40, 40) == 0);
}

TEST(a_finalizer_may_change_the_list_that_is_emptied) {
    static const size_t sizes[] = { 1, 2, 31, 33, 100 };
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        const size_t n = sizes[i];
        PO_AUTO po_object *list = new_list();
        for (size_t j = 0; j < n; j++) {
            CHECK(po_list_append_take(list, new_ghost(change_the_list)) == 0);
        }
        shared = list;
        ghosts_ended = 0;
        CHECK(po_list_remove(list, 0, n) == 0);
        CHECK(ghosts_ended == (int)n && po_list_size(list) == n);
        for (size_t j = 0; j < n; j++) {
            CHECK(value_of(po_list_at(list, j)) == (int64_t)j);
        }
    }
}

TEST(a_finalizer_may_change_the_list_that_loses_a_few) {
    PO_AUTO po_object *list = numbers(200);
    for (size_t i = 50; i < 150; i++) {
        po_object *const ghost = new_ghost(change_the_list);
        CHECK(po_list_set(list, i, ghost) == 0);
        po_decref(ghost);
    }
    shared = list;
    ghosts_ended = 0;
    CHECK(po_list_remove(list, 60, 20) == 0 && ghosts_ended == 20);
    CHECK(po_list_remove(list, 50, 80) == 0 && ghosts_ended == 100);
    CHECK(po_list_size(list) == 200 && value_of(po_list_at(list, 49)) == 49 &&
          value_of(po_list_at(list, 50)) == 150);
}

TEST(a_finalizer_may_change_the_list_or_dict_in_which_its_object_is_replaced) {
    PO_AUTO po_object *list = new_list();
    CHECK(po_list_append_take(list, new_ghost(empty_the_list)) == 0);
    shared = list;
    CHECK(po_list_set(list, 0, PO_NONE) == 0 && po_list_size(list) == 0);
    PO_AUTO po_object *dict = new_dict();
    set_take(dict, PO_TRUE, new_ghost(empty_the_dict));
    set_take(dict, PO_FALSE, PO_NONE);
    shared = dict;
    CHECK(po_dict_set(dict, PO_TRUE, PO_NONE) == 0 && po_dict_size(dict) == 0);
}

static void look_at_the_list(void) {
    CHECK(po_list_size(shared) == 0);
    po_decref(po_incref(shared));
}

static void look_at_the_dict(void) {
    size_t position = 0;
    po_object *key, *value;
    CHECK(po_dict_size(shared) == 0 && !po_dict_next(shared, &position, &key, &value));
    CHECK(po_dict_get(shared, PO_NONE, &value) == 0);
    po_decref(po_incref(shared));
}

TEST(a_container_that_ends_is_seen_empty) {
    shared = new_list();
    for (int i = 0; i < 5; i++) {
        CHECK(po_list_append_take(shared, new_ghost(look_at_the_list)) == 0);
    }
    po_decref(shared);
    shared = new_dict();
    for (int i = 0; i < 5; i++) {
        set_take(shared, new_ghost(look_at_the_dict), new_ghost(look_at_the_dict));
    }
    po_decref(shared);
    CHECK(ghosts_ended == 15);
}

static void drop_shared(void) {
    po_clear(&shared);
}

TEST(a_callback_may_drop_all_references_to_the_container_but_the_callers) {
    po_object *const list = new_list();
    shared = po_incref(list);
    CHECK(po_list_append_take(list, new_ghost(drop_shared)) == 0);
    CHECK(po_list_append_take(list, new_ghost(NULL)) == 0);
    CHECK(po_list_remove(list, 0, 1) == 0 && shared == NULL && list->count_ == 1);
    po_decref(list);
    po_object *const dict = new_dict();
    shared = po_incref(dict);
    set_take(dict, PO_NONE, new_ghost(drop_shared));
    CHECK(po_dict_remove(dict, PO_NONE) == 1 && shared == NULL && dict->count_ == 1);
    po_decref(dict);
    CHECK(ghosts_ended == 3);
}

// --- The collector ------------------------------------------------------------------------------

// A cycle through one container of each type, and a ghost that tells when it goes.
static void make_cycle(void) {
    po_object *const list = new_list();
    po_object *const dict = new_dict();
    po_object *const tuple = pair(dict, new_ghost(NULL));
    CHECK(po_list_append_take(list, tuple) == 0);
    set_take(dict, text("list"), list);
}

TEST(cycles_through_all_containers_are_found) {
    enum { CYCLES = 100 };
    const struct po_gc_config off = { PO_GC_OFF, { 0, 0, 0 } };
    CHECK(po_gc_configure(state, &off) == 0);
    for (int i = 0; i < CYCLES; i++) {
        make_cycle();
    }
    CHECK(ghosts_ended == 0);
    CHECK(po_gc_collect(state, 2) == 4 * CYCLES && ghosts_ended == CYCLES);
    CHECK(po_gc_collect(state, 2) == 0);
}

TEST(dead_cycles_come_and_go_while_a_program_runs) {
    for (int i = 0; i < 20000; i++) {
        make_cycle();
    }
    CHECK(ghosts_ended > 10000);
}

TEST(keys_that_are_containers_keep_cycles_alive_and_go_with_them) {
    po_object *const dict = new_dict();
    po_object *const ghost = new_ghost(NULL);
    ((struct ghost *)ghost)->held = po_incref(dict);
    set_take(dict, ghost, PO_NONE);
    CHECK(po_gc_collect(state, 2) == 0 && ghosts_ended == 0);
    po_decref(dict);
    CHECK(po_gc_collect(state, 2) == 2 && ghosts_ended == 1);
}

// --- Wrong arguments -----------------------------------------------------------------------------

#define WRONG(call, result)                                      \
    do {                                                         \
        forget_error();                                          \
        CHECK((call) == (result) && failed_with(PO_WRONG_TYPE)); \
    } while (0)

TEST(objects_of_other_types_are_an_error) {
    PO_AUTO po_object *list = numbers(1);
    PO_AUTO po_object *dict = new_dict();
    PO_AUTO po_object *ghost = new_ghost(NULL);
    po_object *volatile const others[] = { NULL, PO_NONE, ghost };
    po_object *key, *value;
    for (size_t i = 0; i < sizeof others / sizeof others[0]; i++) {
        po_object *const other = others[i];
        size_t position = 0;
        WRONG(po_list_append(other, PO_NONE), -1);
        WRONG(po_list_append_take(other, PO_NONE), -1);
        WRONG(po_list_insert(other, 0, PO_NONE), -1);
        WRONG(po_list_set(other, 0, PO_NONE), -1);
        WRONG(po_list_remove(other, 0, 0), -1);
        WRONG(po_list_pop(other), NULL);
        WRONG(po_dict_size(other), 0);
        WRONG(po_dict_get(other, PO_NONE, &value), -1);
        WRONG(po_dict_set(other, PO_NONE, PO_NONE), -1);
        WRONG(po_dict_remove(other, PO_NONE), -1);
        WRONG(po_dict_next(other, &position, &key, &value), 0);
    }
    WRONG(po_list_append(dict, PO_NONE), -1);
    WRONG(po_dict_set(list, PO_NONE, PO_NONE), -1);
    CHECK(po_list_size(list) == 1 && po_dict_size(dict) == 0);
}

TEST(null_is_no_item_key_or_value) {
    PO_AUTO po_object *list = numbers(1);
    PO_AUTO po_object *dict = new_dict();
    po_object *value, *const none = NULL;
    WRONG(po_tuple(state, 1, &none), NULL);
    WRONG(po_list_append(list, NULL), -1);
    WRONG(po_list_insert(list, 0, NULL), -1);
    WRONG(po_list_set(list, 0, NULL), -1);
    WRONG(po_dict_get(dict, NULL, &value), -1);
    WRONG(po_dict_set(dict, NULL, PO_NONE), -1);
    WRONG(po_dict_set(dict, PO_NONE, NULL), -1);
    WRONG(po_dict_remove(dict, NULL), -1);
    CHECK(po_list_size(list) == 1 && po_dict_size(dict) == 0);
}

// SPDX-License-Identifier: MIT
// Copyright (c) the poolmalloc authors
//
// Looking inside: po_explain, po_check, what po_state_free tells, POOLOBJECT_DEBUG, and the section
// of the statistics. Faults are planted and must be named, sound states must not be.
//
// What is read from the environment as a process starts is tried by victims: this program again, in
// a process of its own.

#include "check.h"

#include <dlfcn.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "object/debug.h"
#include "object/object.h"
#include "poolmalloc.h"

#define TEST(name) Test(inspect, name, .timeout = CHECK_SECONDS)

#define COUNT(array) (sizeof(array) / sizeof *(array))

static po_state *state;

static po_object *sure(po_object *made) {
    CHECK(made != NULL, "%s", po_error_last().text);
    return made;
}

static po_object *new_list(void) {
    return sure(po_list(state));
}

static void append(po_object *list, po_object *object) {
    CHECK(po_list_append(list, object) == 0);
}

static void set(po_object *dict, const char *name, po_object *value) {
    PO_AUTO po_object *key = sure(po_str(state, name, strlen(name)));
    CHECK(po_dict_set(dict, key, value) == 0);
}

// --- What is printed -----------------------------------------------------------------------------

enum { TEXT_SIZE = 1 << 20 };

static FILE *paper;
static char printed[TEXT_SIZE];

static int new_paper(void) {
    paper = tmpfile();
    CHECK(paper != NULL);
    return fileno(paper);
}

static const char *read_paper(void) {
    rewind(paper);
    const size_t size = fread(printed, 1, sizeof printed - 1, paper);
    printed[size] = '\0';
    fclose(paper);
    return printed;
}

static size_t lines_of(const char *text) {
    size_t lines = 0;
    for (; *text != '\0'; text++) {
        lines += *text == '\n';
    }
    return lines;
}

__attribute__((format(printf, 2, 3))) static bool says(const char *text, const char *format, ...) {
    char line[1024];
    va_list args;
    va_start(args, format);
    vsnprintf(line, sizeof line, format, args);
    va_end(args);
    return strstr(text, line) != NULL;
}

static const char *explain(po_object *object) {
    CHECK(po_explain(object, new_paper()) == 0);
    return read_paper();
}

static size_t faults;

static const char *check(void) {
    faults = po_check(state, new_paper());
    return read_paper();
}

static void check_is_silent(void) {
    const char *const text = check();
    CHECK(faults == 0 && *text == '\0', "%zu faults: %s", faults, text);
}

static void start(void) {
    state = po_state_new();
    CHECK(state != NULL);
}

static void end(void) {
    check_is_silent();
    CHECK(po_state_free(state, 2) == 0);
}

// --- Types of the program's ----------------------------------------------------------------------

// Two references; one type tells of both, the other of the first only.
struct pair {
    PO_HEAD;
    po_object *first, *second;
};

static int visit_both(const po_object *self, po_visit visit, void *argument) {
    PO_VISIT(((const struct pair *)self)->first);
    PO_VISIT(((const struct pair *)self)->second);
    return 0;
}

static int visit_first(const po_object *self, po_visit visit, void *argument) {
    PO_VISIT(((const struct pair *)self)->first);
    return 0;
}

static void clear_both(po_object *self) {
    po_clear(&((struct pair *)self)->first);
    po_clear(&((struct pair *)self)->second);
}

static po_type pair_type = {
    .name = "pair", .size = sizeof(struct pair), .traverse = visit_both, .clear = clear_both
};

static po_type forgetful_type = {
    .name = "forgetful", .size = sizeof(struct pair), .traverse = visit_first, .clear = clear_both
};

static po_object *new_pair(po_type *type, po_object *first, po_object *second) {
    struct pair *const pair = (struct pair *)sure(po_new(state, type));
    po_set(&pair->first, first);
    po_set(&pair->second, second);
    return &pair->object;
}

// Items that are references, of which the last is passed over.
struct row {
    PO_HEAD_ITEMS;
    po_object *item[];
};

static int visit_all_but_last(const po_object *self, po_visit visit, void *argument) {
    const struct row *const row = (const struct row *)self;
    for (size_t i = 0; i + 1 < row->items; i++) {
        PO_VISIT(row->item[i]);
    }
    return 0;
}

static void clear_row(po_object *self) {
    struct row *const row = (struct row *)self;
    for (size_t i = 0; i < row->items; i++) {
        po_clear(&row->item[i]);
    }
}

static po_type row_type = { .name = "row",
                            .size = sizeof(struct row),
                            .item_size = sizeof(po_object *),
                            .traverse = visit_all_but_last,
                            .clear = clear_row };

// --- po_explain ----------------------------------------------------------------------------------

TEST(explain_names_each_holder_and_how_often_it_holds) {
    start();
    PO_AUTO po_object *object = new_list();
    PO_AUTO po_object *list = new_list();
    append(list, object);
    append(list, object);
    append(list, PO_NONE);
    PO_AUTO po_object *dict = sure(po_dict(state));
    set(dict, "a", object);
    PO_AUTO po_object *tuple = sure(po_tuple(state, 3, (po_object *[]){ object, object, object }));
    PO_AUTO po_object *pair = new_pair(&pair_type, PO_TRUE, object);
    const char *const text = explain(object);
    CHECK(says(text, "list at %p of state %p: 8 references\n", (void *)object, (void *)state), "%s",
          text);
    CHECK(says(text, "  2 by list at %p\n", (void *)list), "%s", text);
    CHECK(says(text, "  1 by dict at %p\n", (void *)dict), "%s", text);
    CHECK(says(text, "  3 by tuple at %p\n", (void *)tuple), "%s", text);
    CHECK(says(text, "  1 by pair at %p\n", (void *)pair), "%s", text);
    CHECK(says(text, "  1 by the program\n") && lines_of(text) == 6, "%s", text);
    po_clear(&object);
    po_clear(&list);
    po_clear(&dict);
    po_clear(&tuple);
    po_clear(&pair);
    end();
}

TEST(explain_counts_the_references_of_the_program) {
    start();
    PO_AUTO po_object *object = new_list();
    CHECK(says(explain(object), ": 1 references\n  1 by the program\n"), "%s", printed);
    for (size_t i = 0; i < 41; i++) {
        po_incref(object);
    }
    CHECK(says(explain(object), ": 42 references\n  42 by the program\n"), "%s", printed);
    for (size_t i = 0; i < 41; i++) {
        po_decref(object);
    }
    append(object, object);
    CHECK(says(explain(object), ": 2 references\n  1 by list at %p\n  1 by the program\n",
               (void *)object),
          "%s", printed);
    po_object *const cycle = object;
    po_clear(&object);
    CHECK(says(explain(cycle), "  0 by the program\n"), "%s", printed);
    end();
}

// Numbers and texts lie in another heap than what refers to them; weak references don't hold.
TEST(explain_finds_the_holders_of_atoms_and_no_weak_references) {
    start();
    PO_AUTO po_object *number = sure(po_int(state, 123456));
    PO_AUTO po_object *text = sure(po_str_intern(state, "interned", 8));
    PO_AUTO po_object *weakref = sure(po_weakref(state, number, NULL, NULL));
    PO_AUTO po_object *dict = sure(po_dict(state));
    CHECK(po_dict_set(dict, text, number) == 0 && po_dict_set(dict, number, text) == 0);
    CHECK(says(explain(number),
               "int at %p of state %p: 3 references\n  2 by dict at %p\n  1 by the", (void *)number,
               (void *)state, (void *)dict),
          "%s", printed);
    CHECK(says(explain(text), "str at %p of state %p: 3 references\n  2 by dict at %p\n  1 by the",
               (void *)text, (void *)state, (void *)dict),
          "%s", printed);
    po_clear(&dict);
    po_clear(&number);
    po_clear(&text);
    po_clear(&weakref);
    end();
}

TEST(explain_tells_of_immortal_objects_that_they_are) {
    start();
    po_object *const shared[] = { PO_NONE, PO_TRUE, po_int(state, 7), po_str(state, "a", 1),
                                  po_tuple(state, 0, NULL) };
    for (size_t i = 0; i < COUNT(shared); i++) {
        const char *const text = explain(shared[i]);
        CHECK(says(text, "%s at %p is immortal and belongs to no state\n",
                   po_type_of(shared[i])->name, (void *)shared[i]),
              "%s", text);
        CHECK(lines_of(text) == 1, "%s", text);
    }
    po_object *const list = new_list();
    list->count_ = PO_IMMORTAL_ - 1;
    po_incref(list);
    PO_AUTO po_object *holder = sure(po_tuple(state, 1, (po_object *[]){ list }));
    CHECK(says(explain(list), "too many references to be counted\n  1 by tuple at %p\n",
               (void *)holder),
          "%s", printed);
    CHECK(!says(printed, "by the program") && lines_of(printed) == 2, "%s", printed);
    check_is_silent();
    list->count_ = 2;
    po_decref(list);
    po_clear(&holder);
    end();
}

TEST(explain_says_that_a_count_is_too_low) {
    start();
    PO_AUTO po_object *object = new_list();
    PO_AUTO po_object *list = new_list();
    append(list, object);
    append(list, object);
    object->count_ = 1;
    CHECK(says(explain(object), "  1 more than are counted: its count is too low\n"), "%s",
          printed);
    object->count_ = 3;
    po_clear(&list);
    po_clear(&object);
    CHECK(po_explain(NULL, 2) == -1 && po_error_last().code == PO_WRONG_TYPE);
    end();
}

// --- po_check: planted faults --------------------------------------------------------------------

static void check_finds_low_count(po_object *object, uint32_t lack, const po_object *holder,
                                  unsigned held) {
    object->count_ -= lack;
    const char *const text = check();
    CHECK(faults == 1, "%zu faults: %s", faults, text);
    CHECK(says(text,
               "%s at %p has a count of %u, but objects hold %u references, one of them %s at %p\n",
               po_type_of(object)->name, (void *)object, (unsigned)object->count_, held,
               po_type_of(holder)->name, (const void *)holder),
          "%s", text);
    CHECK(po_check(state, -1) == 1);
    object->count_ += lack;
    check_is_silent();
}

TEST(check_names_an_object_whose_count_is_too_low_and_one_that_holds_it) {
    start();
    PO_AUTO po_object *list = new_list();
    PO_AUTO po_object *tuple = NULL;
    po_object *objects[] = { new_list(), sure(po_dict(state)), sure(po_float(state, 0.5)),
                             sure(po_str(state, "some text", 9)),
                             new_pair(&pair_type, NULL, NULL) };
    tuple = sure(po_tuple(state, COUNT(objects), objects));
    for (size_t i = 0; i < COUNT(objects); i++) {
        // Only objects hold it then: two lists of items, of which the last one that is met is
        // named.
        append(list, objects[i]);
        append(list, objects[i]);
        po_decref(objects[i]);
        po_object *const object = objects[i];
        object->count_--;
        const char *const text = check();
        object->count_++;
        CHECK(faults == 1 && says(text, "has a count of 2, but objects hold 3 references"), "%s",
              text);
        CHECK(says(text, "list at %p\n", (void *)list) ||
              says(text, "tuple at %p\n", (void *)tuple));
        CHECK(po_list_remove(list, 0, po_list_size(list)) == 0);
        check_finds_low_count(object, 1, tuple, 1);
    }
    po_clear(&tuple);
    po_clear(&list);
    end();
}

// A reference of the program's hides a count that is too low by one.
TEST(check_is_silent_about_counts_that_are_not_lower_than_what_objects_hold) {
    start();
    PO_AUTO po_object *object = new_list();
    PO_AUTO po_object *list = new_list();
    append(list, object);
    object->count_--;
    check_is_silent();
    object->count_ += 5;
    check_is_silent();
    object->count_ -= 4;
    po_clear(&list);
    po_clear(&object);
    end();
}

static void check_finds_foreign(po_object *list, po_object *foreign) {
    struct po_list_ *const in = (struct po_list_ *)list;
    po_object *const old = in->item[0];
    in->item[0] = foreign;
    const char *const text = check();
    in->item[0] = old;
    CHECK(faults == 1, "%zu faults: %s", faults, text);
    CHECK(says(text, "list at %p refers to %p, where this state has no object\n", (void *)list,
               (void *)foreign),
          "%s", text);
}

TEST(check_names_a_reference_to_what_is_no_object_of_the_state) {
    start();
    PO_AUTO po_object *list = new_list();
    append(list, PO_NONE);
    static struct po_int_ outside = { { 1, PO_INT_, PO_UNTRACKED }, 7 };
    check_finds_foreign(list, &outside.object);
    // What was freed may be no memory any more.
    void *const gone = mmap(NULL, 4096, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CHECK(gone != MAP_FAILED);
    check_finds_foreign(list, gone);
    munmap(gone, 4096);
    po_state *const other = po_state_new();
    po_object *const others[] = { po_list(other), po_int(other, 123456),
                                  po_tuple(other, 1, (po_object *[]){ PO_NONE }) };
    for (size_t i = 0; i < COUNT(others); i++) {
        check_finds_foreign(list, others[i]);
    }
    po_decref(others[0]);
    po_decref(others[1]);
    po_decref(others[2]);
    CHECK(po_state_free(other, 2) == 0);
    check_is_silent();
    po_clear(&list);
    end();
}

// Wherever the allocator keeps what it needs in free blocks: each is found.
TEST(check_names_each_reference_to_an_object_that_was_freed) {
    if (PO_LIBC_BLOCKS) {
        cr_skip("the sanitizer would see the look at a freed object first");
    }
    start();
    PO_AUTO po_object *list = new_list();
    append(list, PO_NONE);
    enum { FREED = 300 };
    po_object *freed[FREED];
    for (size_t i = 0; i < FREED; i++) {
        freed[i] = i % 3 == 0   ? new_list()
                   : i % 3 == 1 ? sure(po_bytes(state, "some bytes that no other block has", 30))
                                : sure(po_float(state, 1.5));
    }
    for (size_t i = 0; i < FREED; i++) {
        po_decref(freed[i]);
    }
    for (size_t i = 0; i < FREED; i++) {
        check_finds_foreign(list, freed[i]);
    }
    po_clear(&list);
    end();
}

// --- po_check: the tables ------------------------------------------------------------------------

static void ignore_call(po_object *weakref, po_object *data) {
    (void)weakref, (void)data;
}

static void check_finds(const char *what) {
    const char *const text = check();
    CHECK(faults != 0 && says(text, "%s", what), "not '%s' but: %s", what, text);
}

static void check_finds_weak(const struct po_weakref *weakref) {
    char line[128];
    snprintf(line, sizeof line, "weakref at %p is not among those of its target, ",
             (const void *)weakref);
    check_finds(line);
}

static struct po_weakref *new_weakref(po_object *target) {
    return (struct po_weakref *)sure(po_weakref(state, target, ignore_call, NULL));
}

// Also where what stands there is no memory.
TEST(check_names_a_weak_reference_that_its_target_would_not_find) {
    start();
    PO_AUTO po_object *target = new_list(), *other = new_list();
    struct po_weakref *const weak[] = { new_weakref(target), new_weakref(target),
                                        new_weakref(target), new_weakref(target) };
    struct po_weakref *const next = weak[1]->next, *const prev = weak[1]->prev;
    struct po_weakref *const wrong[] = { NULL, weak[1], (struct po_weakref *)other,
                                         (struct po_weakref *)16, weak[3] };
    check_is_silent();
    for (size_t i = 0; i < COUNT(wrong); i++) {
        weak[1]->next = wrong[i];
        check_finds(" has no neighbour among those of its target, ");
        weak[1]->next = next;
        weak[1]->prev = wrong[i];
        check_finds(" has no neighbour among those of its target, ");
        weak[1]->prev = prev;
    }
    po_object *const targets[] = { NULL, other, PO_NONE, (po_object *)16 };
    for (size_t i = 0; i < COUNT(targets); i++) {
        weak[1]->target = targets[i];
        check_finds_weak(weak[1]);
        weak[1]->target = target;
    }
    check_is_silent();
    // A ring of its own, and the others' closed behind it.
    struct po_weakref was[4];
    for (size_t i = 0; i < COUNT(weak); i++) {
        was[i] = *weak[i];
    }
    prev->next = next;
    next->prev = prev;
    weak[1]->next = weak[1]->prev = weak[1];
    check_finds_weak(weak[1]);
    for (size_t i = 0; i < COUNT(weak); i++) {
        *weak[i] = was[i];
    }
    check_is_silent();
    target->flags_ &= (uint16_t)~PO_HAS_WEAK;
    check_finds("the table of weak references has 1 entries and counts 1, but 0 objects say that");
    target->flags_ |= PO_HAS_WEAK;
    check_is_silent();
    for (size_t i = 0; i < COUNT(weak); i++) {
        po_decref(&weak[i]->object);
    }
    po_clear(&target);
    po_clear(&other);
    end();
}

static size_t place_of(const struct po_table *table, const void *entry) {
    size_t at = 0;
    while (table->entry[at] != entry) {
        at++;
    }
    return at;
}

TEST(check_looks_at_the_tables_of_a_state) {
    start();
    PO_AUTO po_object *list = new_list(), *text = sure(po_str_intern(state, "interned", 8));
    PO_AUTO po_object *weak = sure(po_weakref(state, list, NULL, NULL));
    const struct {
        struct po_table *table;
        po_object *entry;
        const char *name, *type;
    } tables[] = { { &state->weak, weak, "weak references", "weakref" },
                   { &state->interned, text, "interned texts", "str" } };
    check_is_silent();
    for (size_t i = 0; i < COUNT(tables); i++) {
        void **const entries = tables[i].table->entry;
        const size_t at = place_of(tables[i].table, tables[i].entry);
        const size_t next = po_table_next(tables[i].table, at);
        char line[128];
        entries[at] = list;
        snprintf(line, sizeof line, "the table of %s has %p, where this state has no %s\n",
                 tables[i].name, (void *)list, tables[i].type);
        check_finds(line);
        entries[at] = (void *)16;
        snprintf(line, sizeof line, "the table of %s has %p, where this state has no %s\n",
                 tables[i].name, (void *)16, tables[i].type);
        check_finds(line);
        entries[at] = NULL;
        snprintf(
            line, sizeof line,
            "the table of %s has 0 entries and counts 1, but 1 objects say that they are in it\n",
            tables[i].name);
        check_finds(line);
        snprintf(line, sizeof line, "the table of %s has %p where nobody looks for it\n",
                 tables[i].name, (void *)tables[i].entry);
        entries[po_table_next(tables[i].table, next)] = tables[i].entry;
        check_finds(line);
        entries[po_table_next(tables[i].table, next)] = NULL;
        entries[at] = entries[next] = tables[i].entry;
        check_finds(line);
        entries[next] = NULL;
        check_is_silent();
    }
    text->flags_ &= (uint16_t)~PO_INTERNED;
    check_finds("has 1 entries and counts 1, but 0 objects say");
    text->flags_ |= PO_INTERNED;
    po_clear(&weak);
    po_clear(&list);
    po_clear(&text);
    end();
}

TEST(check_reads_nothing_behind_a_block_whose_head_was_overwritten) {
    start();
    PO_AUTO po_object *tuple = sure(po_tuple(state, 1, (po_object *[]){ PO_NONE }));
    size_t *const items = &((struct po_items *)tuple)->items;
    const size_t wrong[] = { 1000, SIZE_MAX, SIZE_MAX / sizeof(po_object *) };
    for (size_t i = 0; i < COUNT(wrong); i++) {
        *items = wrong[i];
        check_finds(": its head was overwritten\n");
    }
    *items = 1;
    const uint16_t type = tuple->type_;
    tuple->type_ = PO_WEAKREF_;
    check_finds(": its head was overwritten\n");
    tuple->type_ = type;
    check_is_silent();
    // A block that has no room for a count of items.
    PO_AUTO po_object *number = sure(po_float(state, 1.5));
    const uint16_t of_number = number->type_;
    number->type_ = type;
    check_finds(": its head was overwritten\n");
    number->type_ = of_number;
    check_is_silent();
    po_clear(&number);
    po_clear(&tuple);
    end();
}

// --- po_check: what traverse passes over ---------------------------------------------------------

static void check_suspects(const po_object *holder, size_t offset, const po_object *held) {
    const char *const text = check();
    CHECK(faults == 0, "%zu faults: %s", faults, text);
    CHECK(says(text,
               "perhaps traverse of %s passes over a reference: at offset %zu of the one at %p is "
               "%s at %p,",
               po_type_of(holder)->name, offset, (const void *)holder, po_type_of(held)->name,
               (const void *)held),
          "%s", text);
    CHECK(lines_of(text) == 1, "%s", text);
}

TEST(check_names_the_field_that_a_traverse_passes_over) {
    start();
    po_object *const held[] = { new_list(), sure(po_str(state, "held text", 9)),
                                sure(po_float(state, 0.5)), new_pair(&pair_type, NULL, NULL) };
    for (size_t i = 0; i < COUNT(held); i++) {
        PO_AUTO po_object *pair = new_pair(&forgetful_type, PO_NONE, held[i]);
        po_decref(held[i]);
        check_suspects(pair, offsetof(struct pair, second), held[i]);
        for (int generation = 0; generation < PO_GENERATIONS; generation++) {
            po_gc_collect(state, generation);
            check_suspects(pair, offsetof(struct pair, second), held[i]);
        }
    }
    end();
}

TEST(check_names_the_item_that_a_traverse_passes_over) {
    start();
    PO_AUTO po_object *object = sure(po_new_items(state, &row_type, 5));
    struct row *const row = (struct row *)object;
    for (size_t i = 0; i < 5; i++) {
        row->item[i] = new_list();
    }
    check_suspects(object, offsetof(struct row, item) + 4 * sizeof(po_object *), row->item[4]);
    po_clear(&object);
    end();
}

// Not: references that are told of, a word that looks like one, objects that nobody holds besides.
TEST(check_suspects_no_traverse_that_is_right) {
    start();
    PO_AUTO po_object *object = new_list();
    PO_AUTO po_object *pair = new_pair(&pair_type, object, object);
    PO_AUTO po_object *half = new_pair(&forgetful_type, object, NULL);
    check_is_silent();
    po_clear(&pair);
    po_clear(&half);
    po_clear(&object);
    end();
}

// --- po_check: sound states ----------------------------------------------------------------------

enum { POOL = 200 };

static void nothing(po_object *weakref, po_object *data) {
    (void)weakref;
    (void)data;
}

static po_object *make_at_random(uint64_t *seed, po_object *const *pool) {
    po_object *const one = pool[check_random(seed) % POOL];
    po_object *const other = pool[check_random(seed) % POOL];
    char utf8[32];
    const int n = snprintf(utf8, sizeof utf8, "text %u", (unsigned)(check_random(seed) % 100));
    switch (check_random(seed) % 10) {
    case 0: return po_tuple(state, 2, (po_object *[]){ one, other });
    case 1: return po_list(state);
    case 2: return po_dict(state);
    case 3: return new_pair(&pair_type, one, other);
    case 4: return po_weakref(state, one, check_random(seed) % 2 == 0 ? nothing : NULL, other);
    case 5: return po_str(state, utf8, (size_t)n);
    case 6: return po_str_intern(state, utf8, (size_t)n);
    case 7: return po_int(state, (int64_t)(check_random(seed) % 1000));
    case 8: return po_bytes(state, utf8, (size_t)n);
    default: return po_float(state, 0.5);
    }
}

static void change_at_random(uint64_t *seed, po_object *one, po_object *other) {
    if (one->type_ == PO_LIST_) {
        const size_t size = po_list_size(one);
        if (check_random(seed) % 8 == 0) {
            CHECK(po_list_remove(one, size / 2, size - size / 2) == 0);
        } else {
            append(one, other);
        }
    } else if (one->type_ == PO_DICT_) {
        PO_AUTO po_object *key = sure(po_int(state, (int64_t)(check_random(seed) % 1000)));
        CHECK(check_random(seed) % 3 == 0 ? po_dict_remove(one, key) >= 0
                                          : po_dict_set(one, key, other) == 0);
    } else if (po_is(one, &pair_type)) {
        po_set(&((struct pair *)one)->second, other);
    }
}

static void build_at_random(uint64_t seed, enum po_gc_mode mode) {
    static po_object *pool[POOL];
    const struct po_gc_config config = { mode, { 50, 3, 3 } };
    CHECK(po_gc_configure(state, &config) == 0);
    for (size_t i = 0; i < POOL; i++) {
        pool[i] = PO_NONE;
    }
    for (size_t i = 0; i < 10000; i++) {
        po_object **const place = &pool[check_random(&seed) % POOL];
        po_set_take(place, sure(make_at_random(&seed, pool)));
        change_at_random(&seed, pool[check_random(&seed) % POOL], pool[check_random(&seed) % POOL]);
        if (mode == PO_GC_POLL) {
            po_gc_poll(state, UINT64_MAX);
        }
        if (i % 1000 == 999) {
            check_is_silent();
            po_gc_collect(state, (int)(i / 1000 % PO_GENERATIONS));
            check_is_silent();
        }
        if (i == 7777) {
            po_gc_freeze(state);
            check_is_silent();
        }
    }
    for (size_t i = 0; i < POOL; i++) {
        po_clear(&pool[i]);
    }
    check_is_silent();
}

TEST(check_is_silent_about_structures_made_at_random_in_all_modes) {
    static const enum po_gc_mode modes[] = { PO_GC_AUTO, PO_GC_POLL, PO_GC_OFF };
    for (uint64_t run = 0; run < 9; run++) {
        start();
        build_at_random(run, modes[run % COUNT(modes)]);
        end();
    }
}

static size_t faults_within;
static enum po_code code_within;

static void check_within(po_state *of, const struct po_gc_event *event, void *argument) {
    (void)argument;
    if (event->phase == PO_GC_START) {
        faults_within += po_check(of, 2);
        code_within = po_error_last().code;
    }
}

TEST(check_is_refused_within_a_collection) {
    start();
    po_gc_on(state, check_within, NULL);
    CHECK(po_gc_collect(state, 2) == 0);
    CHECK(faults_within == SIZE_MAX && code_within == PO_BUSY);
    po_gc_on(state, NULL, NULL);
    end();
}

// --- po_state_free -------------------------------------------------------------------------------

static const char *free_state(size_t expected) {
    const size_t left = po_state_free(state, new_paper());
    read_paper();
    CHECK(left == expected, "%zu, not %zu: %s", left, expected, printed);
    return printed;
}

TEST(a_state_that_ends_tells_by_type_what_the_program_still_held) {
    start();
    po_object *const lists[] = { new_list(), new_list(), new_list() };
    po_object *const dict = sure(po_dict(state));
    // Held by what is left, but not by the program.
    append(lists[0], dict);
    po_decref(dict);
    PO_AUTO po_object *inner = new_pair(&pair_type, lists[1], lists[2]);
    append(lists[1], inner);
    po_clear(&inner);
    CHECK(sure(po_float(state, 0.5)) && sure(po_float(state, 0.5)));
    const char *const text = free_state(5);
    CHECK(strcmp(text, "poolobject: still referenced: 3 of type list\n"
                       "poolobject: still referenced: 2 of type float\n") == 0,
          "%s", text);
}

TEST(an_object_that_is_held_often_is_left_once) {
    start();
    po_object *const list = new_list();
    append(list, list);
    po_incref(list);
    po_incref(list);
    CHECK(says(free_state(1), ": 1 of type list\n") && lines_of(printed) == 1);
}

TEST(a_state_that_nothing_is_left_in_ends_without_a_word) {
    start();
    po_object *const list = new_list();
    append(list, list);
    po_decref(list);
    CHECK(*free_state(0) == '\0', "%s", printed);
    CHECK(po_state_free(NULL, 2) == 0);
}

TEST(a_state_that_ends_counts_what_is_left_where_nobody_reads_it) {
    start();
    CHECK(sure(po_list(state)) && sure(po_int(state, 1000)));
    CHECK(po_state_free(state, -1) == 2);
}

// --- Victims: what the environment says ----------------------------------------------------------

#define VICTIM "INSPECT_TEST_VICTIM"
#define NAME   "inspect"

// Both call a function that is never inlined, and look at where it lies.
static __attribute__((noinline)) po_object *leak_here(void) {
    po_object *const list = po_list(state);
    CHECK(list != NULL);
    return list;
}

static __attribute__((noinline)) po_object *leak_there(void) {
    po_object *const text = po_str_intern(state, "a leaked text", 13);
    CHECK(text != NULL);
    return text;
}

struct own {
    PO_HEAD_ITEMS;
};
static po_type own_type = { .name = "own", .size = sizeof(struct own) };
static po_type own_items_type = { .name = "own with items",
                                  .size = sizeof(struct own),
                                  .item_size = sizeof(int) };

static __attribute__((noinline)) po_object *leak_own(void) {
    po_object *const own = po_new(state, &own_type);
    CHECK(own != NULL);
    return own;
}

static __attribute__((noinline)) po_object *leak_items(void) {
    po_object *const own = po_new_items(state, &own_items_type, 3);
    CHECK(own != NULL);
    return own;
}

static __attribute__((noinline)) po_object *leak_tuple(size_t n) {
    static po_object *const item[8] = { PO_NONE, PO_NONE, PO_NONE, PO_NONE,
                                        PO_NONE, PO_NONE, PO_NONE, PO_NONE };
    po_object *const tuple = po_tuple(state, n, item);
    CHECK(tuple != NULL);
    return tuple;
}

static __attribute__((noinline)) po_object *leak_taken(void) {
    po_object *item[] = { PO_NONE };
    po_object *const tuple = po_tuple_take(state, 1, item);
    CHECK(tuple != NULL);
    return tuple;
}

static __attribute__((noinline)) po_object *leak_int(void) {
    po_object *const number = po_int(state, 123456);
    CHECK(number != NULL);
    return number;
}

static __attribute__((noinline)) po_object *leak_float(void) {
    po_object *const number = po_float(state, 0.5);
    CHECK(number != NULL);
    return number;
}

// Blocks are used again: it is the last use that counts.
static void leak(void) {
    start();
    for (size_t i = 0; i < 100; i++) {
        po_decref(new_list());
        po_decref(sure(po_str(state, "a passing text", 14)));
    }
    leak_here();
    leak_here();
    leak_there();
    leak_own();
    leak_items();
    leak_tuple(1);
    leak_tuple(8);
    leak_taken();
    leak_int();
    leak_float();
    CHECK(po_state_free(state, 2) == 10);
}

static bool is_filled(const void *block, size_t from, size_t to) {
    const unsigned char *const byte = block;
    for (size_t i = from; i < to; i++) {
        if (byte[i] != PO_FREED_BYTE) {
            fprintf(stderr, "byte %zu is %02x\n", i, byte[i]);
            return false;
        }
    }
    return true;
}

// The allocator may use the first words of a free block.
static void look_at_freed(void) {
    enum { OWN = 16 };
    start();
    po_object *const bytes = sure(po_bytes(state, "0123456789012345678901234567890123456789", 40));
    po_object *const text = sure(po_str(state, "0123456789012345678901234567890123456789", 40));
    po_object *const list = new_list();
    po_object *const tuple =
        sure(po_tuple(state, 4, (po_object *[]){ PO_NONE, PO_NONE, PO_NONE, PO_NONE }));
    po_object *const pair = new_pair(&pair_type, PO_TRUE, PO_TRUE);
    po_object *const large = sure(po_tuple(state, 30, (po_object *[30]){ [0 ... 29] = PO_NONE }));
    po_decref(bytes);
    po_decref(text);
    po_decref(list);
    po_decref(tuple);
    po_decref(pair);
    po_decref(large);
    CHECK(is_filled(bytes, OWN, sizeof(struct po_bytes_) + 40));
    CHECK(is_filled(text, OWN, sizeof(struct po_str_) + 41));
    CHECK(is_filled(large, OWN, sizeof(struct po_tuple_) + 30 * sizeof(po_object *)));
    CHECK(is_filled(list, OWN, sizeof(struct po_list_)));
    CHECK(is_filled(tuple, OWN, sizeof(struct po_tuple_) + 4 * sizeof(po_object *)));
    CHECK(is_filled(pair, OWN, sizeof(struct pair)));
    CHECK(po_state_free(state, 2) == 0);
}

// Held by two, counted once; a full run looks, a young one does not.
static void collect_with_low_count(void) {
    start();
    PO_AUTO po_object *object = new_list();
    PO_AUTO po_object *list = new_list();
    append(list, object);
    append(list, object);
    object->count_ = 1;
    po_gc_collect(state, 1);
    dprintf(2, "young ones first\n");
    po_gc_collect(state, 2);
    object->count_ = 3;
    po_clear(&object);
    po_clear(&list);
    CHECK(po_state_free(state, 2) == 0);
}

static po_object *objects[100];

// 5 lists, 4 floats, 3 dicts, 2 pairs and a text of the calling thread.
static void make_some(void) {
    size_t n = 0;
    for (size_t i = 0; i < 5; i++) {
        objects[n++] = new_list();
        po_decref(new_list());
    }
    for (size_t i = 0; i < 4; i++) {
        objects[n++] = sure(po_float(state, 0.5));
        po_decref(sure(po_float(state, 0.5)));
    }
    for (size_t i = 0; i < 3; i++) {
        objects[n++] = sure(po_dict(state));
    }
    for (size_t i = 0; i < 2; i++) {
        objects[n++] = new_pair(&pair_type, objects[0], objects[1]);
    }
    objects[n++] = sure(po_str(state, "a text", 6));
    // A cycle, which the second run finds.
    po_object *const cycle = new_list();
    append(cycle, cycle);
    po_decref(cycle);
    CHECK(po_gc_collect(state, 2) == 1 && po_gc_collect(state, 2) == 0);
    CHECK(po_gc_collect(state, 0) == 0);
}

static void drop_all(void) {
    for (size_t i = 0; i < COUNT(objects); i++) {
        po_clear(&objects[i]);
    }
    CHECK(po_state_free(state, 2) == 0);
}

static void report(void) {
    start();
    make_some();
    pm_malloc_stats();
    drop_all();
}

static void *make_elsewhere(void *unused) {
    (void)unused;
    start();
    make_some();
    return NULL;
}

// Objects of a state that another thread uses are not walked; when it is handed over, and this
// thread has made room in it or collected, they are.
static void report_of_another_thread(void) {
    pthread_t thread;
    CHECK(pthread_create(&thread, NULL, make_elsewhere, NULL) == 0);
    CHECK(pthread_join(thread, NULL) == 0);
    pm_malloc_stats();
    dprintf(2, "handed over\n");
    CHECK(po_gc_collect(state, 2) == 0);
    pm_malloc_stats();
    drop_all();
    dprintf(2, "gone\n");
    pm_malloc_stats();
}

// The report is written at exit.
static void exit_with_objects(void) {
    start();
    make_some();
    exit(0);
}

static void make_one(void) {
    start();
    po_decref(new_list());
    CHECK(po_state_free(state, 2) == 0);
}

static const struct {
    const char *name;
    void (*run)(void);
} victims[] = {
    { "leak", leak },
    { "fill", look_at_freed },
    { "check", collect_with_low_count },
    { "report", report },
    { "thread", report_of_another_thread },
    { "exit", exit_with_objects },
    { "one", make_one },
};

__attribute__((constructor)) static void be_victim(void) {
    const char *const name = getenv(VICTIM);
    for (size_t i = 0; name != NULL && i < COUNT(victims); i++) {
        if (strcmp(victims[i].name, name) == 0) {
            victims[i].run();
            _exit(0);
        }
    }
}

// Its stderr.
static const char *run_victim(const char *name, const char *variable, const char *value) {
    const int fd = new_paper();
    fflush(NULL);
    const pid_t child = fork();
    if (child == 0) {
        dup2(fd, 2);
        setenv(VICTIM, name, 1);
        unsetenv("POOLOBJECT_DEBUG");
        unsetenv("POOLMALLOC_STATS");
        if (variable != NULL) {
            setenv(variable, value, 1);
        }
        execl("/proc/self/exe", NAME, (char *)NULL);
        _exit(127);
    }
    int status = -1;
    CHECK(waitpid(child, &status, 0) == child);
    read_paper();
    CHECK(status == 0, "%x: %s", (unsigned)status, printed);
    return printed;
}

TEST(without_debugging_nothing_is_said) {
    CHECK(*run_victim("one", NULL, NULL) == '\0', "%s", printed);
    CHECK(*run_victim("one", "POOLOBJECT_DEBUG", "") == '\0', "%s", printed);
    CHECK(*run_victim("one", "POOLOBJECT_DEBUG", "leaks,check,fill") == '\0', "%s", printed);
}

// "made at function+0x12 (file)" where the program tells its functions, "made at file+0x1234"
// elsewhere.
static bool is_site_in(const char *text, const char *type, const char *function,
                       const void *start_of) {
    char line[128];
    snprintf(line, sizeof line, "of type %s, made at ", type);
    const char *const found = strstr(text, line);
    if (found == NULL) {
        return false;
    }
    const char *const site = found + strlen(line);
    if (strncmp(site, function, strlen(function)) == 0) {
        return true;
    }
    Dl_info info;
    CHECK(dladdr(start_of, &info) != 0);
    // The victim is this program, by another name: what lies where is the same in both.
    if (strncmp(site, NAME "+0x", strlen(NAME "+0x")) != 0) {
        return false;
    }
    const size_t offset = strtoul(site + strlen(NAME "+"), NULL, 16);
    const size_t begin = (size_t)((const char *)start_of - (const char *)info.dli_fbase);
    return offset > begin && offset <= begin + 256;
}

TEST(leaks_are_told_by_type_and_by_the_place_where_they_were_made) {
    const char *const text = run_victim("leak", "POOLOBJECT_DEBUG", "leaks");
    CHECK(says(text, "still referenced: 2 of type list, made at "), "%s", text);
    CHECK(says(text, "still referenced: 1 of type str, made at "), "%s", text);
    CHECK(says(text, "still referenced: 2 of type tuple, made at "), "%s", text);
    CHECK(lines_of(text) == 8, "%s", text);
    CHECK(is_site_in(text, "list", "leak_here+", (const void *)leak_here), "%s", text);
    CHECK(is_site_in(text, "own", "leak_own+", (const void *)leak_own), "%s", text);
    CHECK(is_site_in(text, "own with items", "leak_items+", (const void *)leak_items), "%s", text);
    CHECK(is_site_in(text, "str", "leak_there+", (const void *)leak_there), "%s", text);
    CHECK(is_site_in(text, "int", "leak_int+", (const void *)leak_int), "%s", text);
    CHECK(is_site_in(text, "float", "leak_float+", (const void *)leak_float), "%s", text);
    // Two places, in the order of their counts.
    CHECK(is_site_in(text, "tuple", "leak_tuple+", (const void *)leak_tuple), "%s", text);
    const char *const other = strstr(text, "1 of type tuple, made at ");
    CHECK(other != NULL && is_site_in(other, "tuple", "leak_taken+", (const void *)leak_taken),
          "%s", text);
}

TEST(without_leaks_they_are_told_by_type) {
    const char *const text = run_victim("leak", "POOLOBJECT_DEBUG", "fill");
    CHECK(says(text, "poolobject: still referenced: 2 of type list\n"), "%s", text);
    CHECK(says(text, "poolobject: still referenced: 1 of type str\n"), "%s", text);
    CHECK(says(text, "poolobject: still referenced: 1 of type own\n"), "%s", text);
    CHECK(says(text, "poolobject: still referenced: 1 of type own with items\n"), "%s", text);
    CHECK(says(text, "poolobject: still referenced: 3 of type tuple\n"), "%s", text);
    CHECK(says(text, "poolobject: still referenced: 1 of type int\n"), "%s", text);
    CHECK(says(text, "poolobject: still referenced: 1 of type float\n"), "%s", text);
    CHECK(lines_of(text) == 7, "%s", text);
}

TEST(freed_objects_are_filled) {
    if (PO_LIBC_BLOCKS) {
        cr_skip("the sanitizer forbids the look at freed objects");
    }
    run_victim("fill", "POOLOBJECT_DEBUG", "fill");
    run_victim("fill", "POOLOBJECT_DEBUG", "leaks,fill");
}

TEST(each_full_collection_checks_the_state) {
    const char *const text = run_victim("check", "POOLOBJECT_DEBUG", "check");
    CHECK(strncmp(text, "young ones first\npoolobject: list at ", 37) == 0 && lines_of(text) == 2,
          "%s", text);
    CHECK(says(text, "has a count of 1, but objects hold 2 references"), "%s", text);
    CHECK(strcmp(run_victim("check", "POOLOBJECT_DEBUG", "fill"), "young ones first\n") == 0, "%s",
          printed);
}

TEST(a_word_that_is_none_is_named_and_the_others_serve) {
    const char *text = run_victim("check", "POOLOBJECT_DEBUG", "chek,check,leak");
    CHECK(says(text, "POOLOBJECT_DEBUG: 'chek' is not one of leaks, check, fill\n"), "%s", text);
    CHECK(says(text, "POOLOBJECT_DEBUG: 'leak' is not one of leaks, check, fill\n"), "%s", text);
    CHECK(says(text, "has a count of 1") && lines_of(text) == 4, "%s", text);
    text = run_victim("one", "POOLOBJECT_DEBUG", "everything");
    CHECK(says(text, "'everything' is not one of") && lines_of(text) == 1, "%s", text);
    text = run_victim("one", "POOLOBJECT_DEBUGS", "leaks");
    CHECK(says(text, "poolobject: POOLOBJECT_DEBUGS: no such option\n") && lines_of(text) == 1,
          "%s", text);
}

// --- Statistics ----------------------------------------------------------------------------------

// The number in the row `name` after the row `group`, both without indentation; -1: there is none.
static long text_number(const char *text, const char *group, const char *name) {
    const char *at = strstr(text, "\npoolobject\n");
    char line[64];
    snprintf(line, sizeof line, "  %s\n", group);
    at = at != NULL && *group != '\0' ? strstr(at, line) : at;
    snprintf(line, sizeof line, "  %s ", name);
    at = at != NULL ? strstr(at, line) : NULL;
    at = at != NULL ? strchr(at, '=') : NULL;
    return at != NULL ? strtol(at + 1, NULL, 10) : -1;
}

static void check_live(const char *text, const char *type, long live) {
    const long found = text_number(text, type, "live");
    CHECK(found == live, "%s: %ld, not %ld: %s", type, found, live, text);
}

TEST(statistics_count_live_objects_by_type) {
    const char *const text = run_victim("report", NULL, NULL);
    check_live(text, "list", 5);
    check_live(text, "float", 4);
    check_live(text, "dict", 3);
    check_live(text, "pair", 2);
    check_live(text, "str", 1);
    CHECK(text_number(text, "list", "bytes") >= 5 * (long)sizeof(struct po_list_));
    CHECK(text_number(text, "float", "bytes") >= 4 * (long)sizeof(struct po_float_));
    CHECK(strstr(text, "    tuple\n") == NULL && strstr(text, "    int\n") == NULL, "%s", text);
    CHECK(text_number(text, "", "states") == 1);
    CHECK(text_number(text, "", "states not looked into") == 0);
}

TEST(statistics_count_runs_and_what_they_found_by_generation) {
    const char *const text = run_victim("report", NULL, NULL);
    CHECK(text_number(text, "generation 0", "runs") == 1, "%s", text);
    CHECK(text_number(text, "generation 1", "runs") == 0, "%s", text);
    CHECK(text_number(text, "generation 2", "runs") == 2, "%s", text);
    CHECK(text_number(text, "generation 2", "collected") == 1, "%s", text);
    CHECK(text_number(text, "generation 2", "survived") == 0, "%s", text);
    CHECK(text_number(text, "generation 2", "longest pause ns") > 0, "%s", text);
}

// Whoever uses the state at the time.
TEST(statistics_pass_over_the_objects_where_there_are_threads) {
    const char *const text = run_victim("thread", NULL, NULL);
    const char *const handed_over = strstr(text, "handed over\n");
    const char *const gone = strstr(text, "gone\n");
    CHECK(handed_over != NULL && gone != NULL, "%s", text);
    CHECK(text_number(gone, "", "states") == 0, "%s", gone);
    CHECK(text_number(text, "", "states") == 1 &&
              text_number(text, "", "states not looked into") == 1,
          "%s", text);
    CHECK(strstr(text, "    list\n") == NULL, "%s", text);
}

// The section of the report as it is written, without blanks.
static const char *section_of(char *json) {
    char *to = json;
    for (const char *from = json; *from != '\0'; from++) {
        if (*from != ' ' && *from != '\n') {
            *to++ = *from;
        }
    }
    *to = '\0';
    return strstr(json, "\"sections\":{\"poolobject\":{");
}

static bool is_balanced(const char *json) {
    int depth = 0;
    for (; *json != '\0' && depth >= 0; json++) {
        depth += (*json == '{') - (*json == '}');
        if (*json == ',' && (json[1] == '}' || json[1] == ',')) {
            return false;
        }
    }
    return depth == 0;
}

TEST(statistics_at_exit_are_json_where_it_is_asked_for) {
    char *const json = (char *)run_victim("exit", "POOLMALLOC_STATS", "1,format=json");
    const char *const section = section_of(json);
    CHECK(section != NULL && is_balanced(json), "%s", json);
    CHECK(says(section, "\"states\":1,\"states_not_looked_into\":0,\"bytes_held\":"), "%s",
          section);
    CHECK(says(section, "\"list\":{\"live\":5,\"bytes\":"), "%s", section);
    CHECK(says(section, "\"float\":{\"live\":4,"), "%s", section);
    CHECK(says(section, "\"dict\":{\"live\":3,"), "%s", section);
    CHECK(says(section, "\"pair\":{\"live\":2,"), "%s", section);
    CHECK(says(section, "\"str\":{\"live\":1,"), "%s", section);
    CHECK(says(section, "\"generation_2\":{\"runs\":2,\"collected\":1,"), "%s", section);
}

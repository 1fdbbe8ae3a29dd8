// SPDX-License-Identifier: MIT
// Copyright (c) the poolmalloc authors
//
// Does what Python did, by a log that python/make_logs.py wrote (the lines are explained there),
// and compares what happens: on the count path event by event; within a collection each kind of
// event as a set, and the number that it returns.

#include "check.h"

#include <string.h>
#include <unistd.h>

enum { NODES = 64, WEAKS = 16, EVENTS = 512, LINE = 4096 };

struct node {
    PO_HEAD;
    int number, act;
    po_object *edge[3], *weak;
};

static struct {
    po_state *state;
    po_object *outside[NODES], *weak[WEAKS];
    struct node *node[NODES]; // borrowed
    po_object *saved[NODES];
    unsigned times_saved[NODES];
    int drops[WEAKS];
    char events[LINE];
} world;

static void happen(char what, long number) {
    const size_t n = strlen(world.events);
    snprintf(world.events + n, sizeof world.events - n, "%s%c%ld", n != 0 ? " " : "", what, number);
}

static int traverse(const po_object *self, po_visit visit, void *argument) {
    const struct node *const node = (const struct node *)self;
    for (unsigned i = 0; i < 3; i++) {
        PO_VISIT(node->edge[i]);
    }
    PO_VISIT(node->weak);
    return 0;
}

static void clear(po_object *self) {
    struct node *const node = (struct node *)self;
    for (unsigned i = 0; i < 3; i++) {
        po_clear(&node->edge[i]);
    }
    po_clear(&node->weak);
}

static void save(po_object *object) {
    const int number = ((struct node *)object)->number;
    world.saved[number] = po_incref(object);
    world.times_saved[number]++;
}

static void finalize(po_object *self) {
    struct node *const node = (struct node *)self;
    happen('F', node->number);
    if (node->act == 1) {
        save(self);
    } else if (node->act == 2) {
        po_clear(&node->edge[0]);
    } else if (node->act == 3 && node->edge[1] != NULL) {
        save(node->edge[1]);
    } else if (node->act == 5 && node->edge[2] == NULL) {
        po_set(&node->edge[2], self);
    }
}

static void release(po_object *self) {
    happen('R', ((struct node *)self)->number);
}

static po_type node_type = {
    .name = "node",
    .size = sizeof(struct node),
    .traverse = traverse,
    .clear = clear,
    .finalize = finalize,
    .release = release,
};

static void called(po_object *weakref, po_object *data) {
    const int number = (int)po_int_value(data);
    (void)weakref;
    happen('W', number);
    if (world.drops[number] >= 0) {
        po_clear(&world.outside[world.drops[number]]);
    }
}

// --- Steps ---------------------------------------------------------------------------------------

static void begin_graph(void) {
    if (world.state != NULL) {
        for (unsigned i = 0; i < WEAKS; i++) {
            po_clear(&world.weak[i]);
        }
        CHECK(po_state_free(world.state, STDERR_FILENO) == 0);
    }
    memset(&world, 0, sizeof world);
    world.state = po_state_new();
    CHECK(world.state != NULL);
    po_gc_configure(world.state, &(struct po_gc_config){ PO_GC_OFF, { 700, 10, 10 } });
}

static void make_node(int number, int act) {
    struct node *const node = (struct node *)po_new(world.state, &node_type);
    CHECK(node != NULL);
    node->number = number;
    node->act = act;
    world.outside[number] = &node->object;
}

// As Python's setattr, which holds its arguments: a callback may drop what holds the node.
static void set_edge(po_object *from, int edge, po_object *to) {
    po_incref(from);
    po_object *const held = to != NULL ? po_incref(to) : NULL;
    po_set(&((struct node *)from)->edge[edge], to);
    po_decref(from);
    po_decref(held);
}

static void make_weak(int number, int node, int drops) {
    world.weak[number] =
        po_weakref(world.state, world.outside[node], called, po_int(world.state, number));
    world.drops[number] = drops;
    CHECK(world.weak[number] != NULL);
}

static void drop_saved(int number) {
    po_object *const saved = world.saved[number];
    CHECK(world.times_saved[number] > 0);
    if (--world.times_saved[number] == 0) {
        world.saved[number] = NULL;
    }
    po_decref(saved);
}

static void list_living(char *text, size_t room) {
    text[0] = '\0';
    for (unsigned i = 0; i < WEAKS; i++) {
        po_object *found = NULL;
        if (world.weak[i] != NULL && po_weakref_get(world.weak[i], &found) == 1) {
            const size_t n = strlen(text);
            snprintf(text + n, room - n, " %u", i);
        }
        po_decref(found);
    }
}

// The step in a line, the events behind it left out; false for one that is none.
static void do_step(const char *line) {
    int a = -1, b = -1, c = -1;
    sscanf(line + 1, "%d %d %d", &a, &b, &c);
    CHECK(line[0] == 'g' || (a < NODES && b < NODES && c < NODES), "%s", line);
    switch (line[0]) {
    case 'g': begin_graph(); break;
    case 'n': make_node(a, b); break;
    case 'e': set_edge(world.outside[a], b, c >= 0 ? world.outside[c] : NULL); break;
    case 'w': make_weak(a, b, c); break;
    case 'v':
        ((struct node *)world.outside[b])->weak = world.weak[a];
        world.weak[a] = NULL;
        break;
    case 'd': po_clear(&world.weak[a]); break;
    case 'x': po_clear(&world.outside[a]); break;
    case 's': drop_saved(a); break;
    case 'c': happen('=', po_gc_collect(world.state, a)); break;
    default: CHECK(line[0] == 'l', "%s", line);
    }
}

static int compare_words(const void *a, const void *b) {
    return strcmp(*(char *const *)a, *(char *const *)b);
}

// The words of a text in the order of the alphabet: so each kind of event is by itself.
static void sort_words(const char *text, char *to) {
    char copy[LINE], *words[EVENTS];
    size_t n = 0;
    snprintf(copy, sizeof copy, "%s", text);
    for (char *word = strtok(copy, " "); word != NULL && n < EVENTS; word = strtok(NULL, " ")) {
        words[n++] = word;
    }
    qsort(words, n, sizeof *words, compare_words);
    to[0] = '\0';
    for (size_t i = 0; i < n; i++) {
        to += sprintf(to, "%s ", words[i]);
    }
}

static void check_line(char *line, unsigned number) {
    static char expected[LINE], sorted[2][LINE];
    line[strcspn(line, "\n")] = '\0';
    char *const colon = strchr(line, ':');
    snprintf(expected, sizeof expected, "%s", colon != NULL ? colon + 1 : "");
    if (colon != NULL) {
        *colon = '\0';
    }
    world.events[0] = '\0';
    if (line[0] == 'l') {
        list_living(sorted[0], LINE);
        CHECK(strcmp(sorted[0], line + 1) == 0, "line %u: alive:%s, not%s", number, sorted[0],
              line + 1);
        return;
    }
    do_step(line);
    if (line[0] != 'c') {
        CHECK(strcmp(world.events, expected) == 0, "line %u: %s, not %s", number, world.events,
              expected);
        return;
    }
    sort_words(world.events, sorted[0]);
    sort_words(expected, sorted[1]);
    CHECK(strcmp(sorted[0], sorted[1]) == 0, "line %u: %s, not %s", number, sorted[0], sorted[1]);
}

static unsigned replay(FILE *log) {
    static char line[LINE];
    unsigned number = 0, graphs = 0;
    while (fgets(line, sizeof line, log) != NULL) {
        number++;
        graphs += line[0] == 'g';
        if (line[0] == '#') {
            printf("%s", line);
        } else {
            check_line(line, number);
        }
    }
    if (graphs != 0) {
        begin_graph();
        CHECK(po_state_free(world.state, -1) == 0);
        world.state = NULL;
    }
    return graphs;
}

static void folder_of_logs(char *path, size_t room) {
    const char *const source = getenv("srcdir");
    snprintf(path, room, "%s/tests/object/python", source != NULL ? source : ".");
}

OBJECT_TEST(python, objects_end_as_in_the_stored_log) {
    char folder[1000], path[1100];
    folder_of_logs(folder, sizeof folder);
    snprintf(path, sizeof path, "%s/graphs.log", folder);
    FILE *const log = fopen(path, "r");
    CHECK(log != NULL, "%s", path);
    CHECK(replay(log) >= 100);
    fclose(log);
}

#define IS_PYTHON_3_11 \
    "/usr/bin/python3 -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' 2>/dev/null"

OBJECT_TEST(python, objects_end_as_in_the_python_of_this_machine) {
    char folder[1000], command[1200];
    if (system(IS_PYTHON_3_11) != 0) {
        fprintf(stderr, "/usr/bin/python3 is no Python 3.11: nothing to compare with\n");
        cr_skip("/usr/bin/python3 is no Python 3.11");
    }
    folder_of_logs(folder, sizeof folder);
    snprintf(command, sizeof command, "/usr/bin/python3 '%s/make_logs.py' 1000 100001", folder);
    FILE *const log = popen(command, "r");
    CHECK(log != NULL);
    CHECK(replay(log) == 1000);
    CHECK(pclose(log) == 0);
}

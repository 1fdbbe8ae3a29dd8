// SPDX-License-Identifier: MIT
// Copyright (c) the poolmalloc authors
//
// base/list.

#include "unit.h"

#include "base/list.h"

#include <stdarg.h>

struct item {
    int value;
    struct pm_list link;
};

enum { ITEMS = 6 };

static struct item items[ITEMS];
static struct pm_list list;

static void start(void) {
    pm_list_init(&list);
    for (int i = 0; i < ITEMS; i++) {
        items[i] = (struct item){ .value = i };
    }
}

// The values of the list, forwards and backwards.
static void check_order(int count, ...) {
    va_list args;
    int values[ITEMS], at = 0;
    va_start(args, count);
    for (int i = 0; i < count; i++) {
        values[i] = va_arg(args, int);
    }
    va_end(args);
    PM_LIST_EACH(link, &list) {
        CHECK(at < count && PM_LIST_ENTRY(link, struct item, link)->value == values[at], "%d", at);
        at++;
    }
    CHECK(at == count && pm_list_empty(&list) == (count == 0));
    for (const struct pm_list *link = list.prev; link != &list; link = link->prev) {
        CHECK(PM_LIST_ENTRY(link, struct item, link)->value == values[--at]);
    }
    CHECK(at == 0);
}

Test(list, starts_empty, .init = start, .timeout = UNIT_SECONDS) {
    struct pm_list other;
    pm_list_init(&other);
    CHECK(pm_list_empty(&other));
    check_order(0);
}

Test(list, keeps_both_ends, .init = start, .timeout = UNIT_SECONDS) {
    pm_list_push_back(&list, &items[0].link);
    check_order(1, 0);
    pm_list_push_back(&list, &items[1].link);
    pm_list_push_front(&list, &items[2].link);
    check_order(3, 2, 0, 1);
    pm_list_insert(&items[0].link, &items[3].link, &items[1].link);
    check_order(4, 2, 0, 3, 1);
}

Test(list, removed_links_are_marked_and_may_come_back, .init = start, .timeout = UNIT_SECONDS) {
    for (int i = 0; i < 4; i++) {
        pm_list_push_back(&list, &items[i].link);
    }
    static const int order[] = { 1, 3, 0, 2 };
    for (int i = 0; i < 4; i++) {
        struct pm_list *const link = &items[order[i]].link;
        pm_list_remove(link);
        CHECK(link->next == NULL && link->prev == NULL);
    }
    check_order(0);
    pm_list_push_front(&list, &items[3].link);
    check_order(1, 3);
}

Test(list, may_lose_the_visited_link_during_a_walk, .init = start, .timeout = UNIT_SECONDS) {
    for (int i = 0; i < ITEMS; i++) {
        pm_list_push_back(&list, &items[i].link);
    }
    PM_LIST_EACH(link, &list) {
        if (PM_LIST_ENTRY(link, struct item, link)->value % 2 == 0) {
            pm_list_remove(link);
        }
    }
    check_order(3, 1, 3, 5);
}

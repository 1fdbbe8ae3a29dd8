// SPDX-License-Identifier: MIT
// Copyright (c) the poolmalloc authors

// A circular doubly linked list through links inside the elements. A list is its head link; an
// element that is on no list has both pointers NULL, so that membership can be asserted. Links lie
// in headers that statistics copy as a whole, hence the relaxed stores.

#ifndef PM_BASE_LIST_H
#define PM_BASE_LIST_H

#include <stdbool.h>
#include <stddef.h>

#include "base/atomic.h"
#include "base/attributes.h"

struct pm_list {
    struct pm_list *next, *prev;
};

#define PM_LIST_ENTRY(link, type, member) ((type *)((char *)(link)-offsetof(type, member)))
#define PM_LIST_EACH(at, list)                                                   \
    for (struct pm_list *at = (list)->next, *at##_next = at->next; at != (list); \
         at = at##_next, at##_next = at->next)

PM_INLINE void pm_list_init(struct pm_list *list) {
    list->next = list->prev = list;
}

PM_INLINE bool pm_list_empty(const struct pm_list *list) {
    return list->next == list;
}

PM_INLINE void pm_list_insert(struct pm_list *prev, struct pm_list *link, struct pm_list *next) {
    PM_ASSERT(link->next == NULL && link->prev == NULL);
    pm_set(&link->prev, prev);
    pm_set(&link->next, next);
    pm_set(&prev->next, link);
    pm_set(&next->prev, link);
}

PM_INLINE void pm_list_push_front(struct pm_list *list, struct pm_list *link) {
    pm_list_insert(list, link, list->next);
}

PM_INLINE void pm_list_push_back(struct pm_list *list, struct pm_list *link) {
    pm_list_insert(list->prev, link, list);
}

PM_INLINE void pm_list_remove(struct pm_list *link) {
    PM_ASSERT(link->next->prev == link && link->prev->next == link);
    pm_set(&link->prev->next, link->next);
    pm_set(&link->next->prev, link->prev);
    pm_set(&link->next, NULL);
    pm_set(&link->prev, NULL);
}

#endif

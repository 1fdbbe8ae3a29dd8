// SPDX-License-Identifier: MIT
// Copyright (c) the poolmalloc authors

// Mappings, their cache, and their moves.
//
// A block changes state under the lock; what it takes of system calls is done outside, while the
// block is on no list.

#include "core/huge.h"

#include <errno.h>
#include <string.h>

#include "base/atomic.h"
#include "base/bits.h"
#include "core/clock.h"
#include "core/heap.h"
#include "core/limit.h"
#include "core/map.h"
#include "core/meta.h"
#include "core/thp.h"
#include "os/os.h"

struct pm_huge_blocks pm_huge_blocks = { .lock = PM_LOCK_INIT(PM_RANK_HUGE) };

void pm_huge_start(void) {
    pm_list_init(&pm_huge_blocks.used);
    pm_list_init(&pm_huge_blocks.cached);
    pm_list_init(&pm_huge_blocks.spare);
}

static struct pm_huge *of_link(struct pm_list *link) {
    return PM_LIST_ENTRY(link, struct pm_huge, link);
}

// Marks the slots of a block, and makes it findable by its first one, or no more.
static void mark(struct pm_huge *huge, enum pm_slot_kind first, enum pm_slot_kind rest) {
    struct pm_huge *const found = first == PM_SLOT_HUGE ? huge : NULL;
    __atomic_store_n(pm_map_huge(huge->at), found, __ATOMIC_RELEASE);
    pm_map_mark(huge->at, huge->size, first, rest);
}

static void add_used(struct pm_huge *huge) {
    pm_set(&huge->state, PM_HUGE_USED);
    pm_list_push_back(&pm_huge_blocks.used, &huge->link);
    pm_huge_blocks.used_count++;
    pm_add(&pm_huge_blocks.used_bytes, huge->size);
}

static void remove_used(struct pm_huge *huge) {
    pm_list_remove(&huge->link);
    pm_huge_blocks.used_count--;
    pm_add(&pm_huge_blocks.used_bytes, -huge->size);
}

static void add_cached(struct pm_huge *huge) {
    pm_set(&huge->state, PM_HUGE_CACHED);
    pm_list_push_front(&pm_huge_blocks.cached, &huge->link);
    pm_huge_blocks.cached_count++;
    pm_add(&pm_huge_blocks.cached_bytes, huge->size);
}

static void remove_cached(struct pm_huge *huge) {
    pm_list_remove(&huge->link);
    pm_huge_blocks.cached_count--;
    pm_add(&pm_huge_blocks.cached_bytes, -huge->size);
}

static void add_spare(struct pm_huge *huge) {
    pm_set(&huge->state, PM_HUGE_GONE);
    pm_list_push_front(&pm_huge_blocks.spare, &huge->link);
}

static struct pm_huge *new_descriptor(void) {
    struct pm_huge *huge = NULL;
    pm_lock(&pm_huge_blocks.lock);
    if (!pm_list_empty(&pm_huge_blocks.spare)) {
        huge = of_link(pm_huge_blocks.spare.next);
        pm_list_remove(&huge->link);
    }
    pm_unlock(&pm_huge_blocks.lock);
    return huge != NULL ? huge : pm_meta_alloc(sizeof *huge, sizeof(void *));
}

static void drop_descriptor(struct pm_huge *huge) {
    pm_lock(&pm_huge_blocks.lock);
    add_spare(huge);
    pm_unlock(&pm_huge_blocks.lock);
}

// Gives a block that is on no list back to the OS. When the process has as many mappings as it may
// have, the address range stays, without its pages, and is forgotten.
static void unmap(struct pm_huge *huge) {
    mark(huge, PM_SLOT_TOMBSTONE, PM_SLOT_NONE);
    if (pm_os_unmap(huge->at, huge->size) == 0) {
        pm_map_gave_back(huge->at, huge->size);
    } else {
        pm_os_purge(huge->at, huge->size);
    }
    drop_descriptor(huge);
}

// The ways to a new size. What a block gives up is unmarked before, what it gets is marked after
// the OS has agreed, so that another thread's mapping in that place is never mistaken.

// Unmarks the slots that a block of `size` bytes does not need any more, or marks them again.
static void mark_surplus(const struct pm_huge *huge, size_t size, enum pm_slot_kind kind) {
    const size_t slots = pm_round_up(size, PM_SLOT_BYTES);
    pm_map_mark((char *)huge->at + slots, pm_round_up(huge->size, PM_SLOT_BYTES) - slots, kind,
                kind);
}

static void shrink(struct pm_huge *huge, size_t size) {
    mark_surplus(huge, size, PM_SLOT_NONE);
    if (pm_os_unmap((char *)huge->at + size, huge->size - size) == 0) {
        huge->size = size;
    } else {
        // Refused to cut a mapping in two: the block stays larger than it must be.
        mark_surplus(huge, size, PM_SLOT_HUGE_INNER);
    }
}

static bool grow_in_place(struct pm_huge *huge, size_t size) {
    if (!pm_map_prepare(huge->at, size, false) || pm_os_resize(huge->at, huge->size, size) != 0) {
        return false;
    }
    huge->size = size;
    mark(huge, PM_SLOT_HUGE, PM_SLOT_HUGE_INNER);
    return true;
}

// Will the OS move these pages? It refuses where the program has split the mapping, or locked a
// part of it, or where mremap is forbidden; and a place reserved for a move that it refused is
// lost, since another thread may have it by then. So it is asked first, for a page more where they
// are.
static bool can_move(void *at, size_t size) {
    const size_t page = pm_os_page_size();
    const int grown = pm_os_resize(at, size, size + page);
    return grown == 0 ? pm_os_resize(at, size + page, size) == 0 : grown == -ENOMEM;
}

static bool move(struct pm_huge *huge, size_t size) {
    void *const to = can_move(huge->at, huge->size) ? pm_map_reserve_slots(size) : NULL;
    if (to == NULL) {
        return false;
    }
    if (pm_map_prepare(to, size, true)) {
        mark(huge, PM_SLOT_TOMBSTONE, PM_SLOT_NONE);
        if (pm_os_move(huge->at, huge->size, to, size) == 0) {
            huge->at = to;
            huge->size = size;
            mark(huge, PM_SLOT_HUGE, PM_SLOT_HUGE_INNER);
            return true;
        }
        // The OS may have unmapped the place before it refused, and another thread may have it by
        // now.
        mark(huge, PM_SLOT_HUGE, PM_SLOT_HUGE_INNER);
        return false;
    }
    pm_os_unmap(to, size);
    return false;
}

// Cuts what is too much off a cached block, and keeps it as a block of its own where it is worth
// that: its pages move to the start of a slot.
static void split(struct pm_huge *huge, size_t size) {
    const size_t rest = huge->size - size;
    if (rest < PM_HUGE_SPLIT_MIN) {
        return;
    }
    struct pm_huge *const piece = new_descriptor();
    void *const to = piece != NULL && can_move((char *)huge->at + size, rest)
                         ? pm_map_reserve_slots(rest)
                         : NULL;
    mark_surplus(huge, size, PM_SLOT_NONE);
    const bool ready = to != NULL && pm_map_prepare(to, rest, true);
    if (!ready || pm_os_move((char *)huge->at + size, rest, to, rest) != 0) {
        // As in move(): after a refused move the place may be another thread's.
        if (to != NULL && !ready) {
            pm_os_unmap(to, rest);
        }
        if (piece != NULL) {
            drop_descriptor(piece);
        }
        shrink(huge, size);
        return;
    }
    huge->size = size;
    piece->at = to;
    piece->size = rest;
    piece->freed_at = huge->freed_at;
    mark(piece, PM_SLOT_HUGE, PM_SLOT_HUGE_INNER);
    pm_lock(&pm_huge_blocks.lock);
    add_cached(piece);
    pm_unlock(&pm_huge_blocks.lock);
}

// A cached block for the size, off all lists: the smallest that is large enough, else the largest.
static struct pm_huge *take_cached(size_t size, size_t align) {
    struct pm_huge *best = NULL;
    pm_lock(&pm_huge_blocks.lock);
    PM_LIST_EACH(link, &pm_huge_blocks.cached) {
        struct pm_huge *const huge = of_link(link);
        const bool larger = best != NULL && huge->size > best->size;
        if (((uintptr_t)huge->at & (align - 1)) == 0 &&
            (best == NULL || (best->size < size ? larger : !larger && huge->size >= size))) {
            best = huge;
        }
    }
    if (best != NULL) {
        remove_cached(best);
    }
    if (best == NULL || best->size < size) {
        pm_keep_missed(&pm_huge_blocks.keep, size - (best == NULL ? 0 : best->size));
    }
    pm_unlock(&pm_huge_blocks.lock);
    return best;
}

// Makes a block out of a cached one, whose pages are worth more than fresh ones: moving a page
// costs a fraction of a fault. NULL when nothing is cached that will do.
static struct pm_huge *reuse(size_t size, size_t align) {
    struct pm_huge *const huge = take_cached(size, align);
    if (huge == NULL) {
        return NULL;
    }
    if (huge->size >= size) {
        split(huge, size);
        return huge;
    }
    if (grow_in_place(huge, size) || (align <= PM_SLOT_BYTES && move(huge, size))) {
        return huge;
    }
    pm_lock(&pm_huge_blocks.lock);
    add_cached(huge);
    pm_unlock(&pm_huge_blocks.lock);
    return NULL;
}

static struct pm_huge *map_new(size_t size, size_t align) {
    struct pm_huge *const huge = new_descriptor();
    if (huge == NULL) {
        return NULL;
    }
    huge->at = pm_map_slots(size, align, true);
    huge->size = size;
    if (huge->at == NULL) {
        drop_descriptor(huge);
        return NULL;
    }
    pm_thp_advise_large(huge->at, size);
    mark(huge, PM_SLOT_HUGE, PM_SLOT_HUGE_INNER);
    return huge;
}

void *pm_huge_malloc(size_t n, size_t align, bool zero) {
    const size_t size = pm_round_up(n, pm_os_page_size());
    align = pm_max(align, PM_SLOT_BYTES);
    if (!pm_limit_allows(size)) {
        return NULL;
    }
    struct pm_huge *huge = reuse(size, align);
    // Pages that the program never touches must not be cleared one by one.
    if (huge != NULL && zero && pm_os_purge(huge->at, huge->size) != 0) {
        memset(huge->at, 0, n);
    }
    if (huge == NULL) {
        huge = map_new(size, align);
    }
    if (huge == NULL) {
        return NULL;
    }
    pm_lock(&pm_huge_blocks.lock);
    add_used(huge);
    pm_unlock(&pm_huge_blocks.lock);
    return huge->at;
}

// The block in whose mapping `at` lies, in use or cached; NULL when it lies behind its end.
static struct pm_huge *find(const void *at) {
    const char *slot = (const char *)pm_slot_of(at);
    while (pm_map_kind(slot) == PM_SLOT_HUGE_INNER) {
        slot -= PM_SLOT_BYTES;
    }
    if (pm_map_kind(slot) != PM_SLOT_HUGE) {
        return NULL;
    }
    struct pm_huge *const huge = __atomic_load_n(pm_map_huge(slot), __ATOMIC_ACQUIRE);
    return huge != NULL && (size_t)((const char *)at - slot) < huge->size ? huge : NULL;
}

// Under the lock, or for a block that the caller has: nobody else changes that.
static enum pm_verdict prove(const void *at, struct pm_huge **huge) {
    *huge = find(at);
    if (*huge == NULL) {
        return PM_STRAY;
    }
    if ((*huge)->at != at) {
        return (uintptr_t)at % PM_BLOCK_ALIGN != 0 ? PM_UNALIGNED : PM_INSIDE;
    }
    return (*huge)->state == PM_HUGE_USED ? PM_DONE : PM_DOUBLE_FREE;
}

// The cached block that is too much, or too old, or the oldest of all; off all lists. Under the
// lock.
static struct pm_huge *choose_unmap(uint32_t now, bool all) {
    if (pm_list_empty(&pm_huge_blocks.cached)) {
        return NULL;
    }
    struct pm_huge *const oldest = of_link(pm_huge_blocks.cached.prev);
    const size_t keep = pm_keep_limit(&pm_huge_blocks.keep, pm_huge_blocks.used_bytes, 1, now);
    if (all || pm_huge_blocks.cached_count > PM_HUGE_CACHE_COUNT ||
        pm_huge_blocks.cached_bytes > keep || pm_clock_is_old(oldest->freed_at, now)) {
        remove_cached(oldest);
        pm_keep_purged(&pm_huge_blocks.keep, oldest->size);
        return oldest;
    }
    return NULL;
}

static size_t unmap_surplus(uint32_t now, bool all) {
    size_t bytes = 0;
    for (;;) {
        pm_lock(&pm_huge_blocks.lock);
        struct pm_huge *const huge = choose_unmap(now, all);
        pm_unlock(&pm_huge_blocks.lock);
        if (huge == NULL) {
            return bytes;
        }
        bytes += huge->size;
        unmap(huge);
    }
}

void pm_huge_set_owner(void *at, struct pm_heap *owner) {
    struct pm_huge *const huge = find(at);
    pm_lock(&pm_huge_blocks.lock);
    pm_set(&huge->owner, owner);
    pm_list_push_back(&owner->huge, &huge->owned);
    pm_heap_count_large(owner, 1, huge->size);
    pm_unlock(&pm_huge_blocks.lock);
}

// Under the lock.
static void leave_owner(struct pm_huge *huge) {
    if (PM_UNLIKELY(huge->owner != NULL)) {
        pm_list_remove(&huge->owned);
        pm_heap_count_large(huge->owner, (size_t)-1, -huge->size);
        pm_set(&huge->owner, NULL);
    }
}

struct pm_heap *pm_huge_owner(const void *at) {
    struct pm_huge *huge;
    return prove(at, &huge) == PM_DONE ? pm_get(&huge->owner) : NULL;
}

void *pm_huge_of_link(struct pm_list *link, size_t *bytes) {
    const struct pm_huge *const huge = PM_LIST_ENTRY(link, struct pm_huge, owned);
    *bytes = huge->size;
    return huge->at;
}

enum pm_verdict pm_huge_free(void *at) {
    struct pm_huge *huge;
    const uint32_t now = pm_clock();
    pm_lock(&pm_huge_blocks.lock);
    const enum pm_verdict verdict = prove(at, &huge);
    if (verdict == PM_DONE) {
        remove_used(huge);
        leave_owner(huge);
        huge->freed_at = now;
        add_cached(huge);
    }
    pm_unlock(&pm_huge_blocks.lock);
    if (verdict == PM_DONE) {
        unmap_surplus(now, false);
    }
    return verdict;
}

void pm_huge_age(uint32_t now) {
    unmap_surplus(now, false);
}

size_t pm_huge_trim(void) {
    return unmap_surplus(pm_clock(), true);
}

size_t pm_huge_size(const void *at, enum pm_verdict *verdict) {
    struct pm_huge *huge;
    *verdict = prove(at, &huge);
    return *verdict == PM_DONE ? pm_get(&huge->size) : 0;
}

void *pm_huge_resize(void *at, size_t n) {
    struct pm_huge *huge;
    const size_t size = pm_round_up(n, pm_os_page_size());
    pm_lock(&pm_huge_blocks.lock);
    const bool found = prove(at, &huge) == PM_DONE;
    if (found) {
        remove_used(huge);
        pm_set(&huge->state, PM_HUGE_BUSY);
    }
    pm_unlock(&pm_huge_blocks.lock);
    if (!found) {
        return NULL;
    }
    const size_t old = huge->size;
    if (size < huge->size) {
        shrink(huge, size);
    }
    // It doesn't count while it is on no list.
    const bool done = size <= huge->size ||
                      (pm_limit_allows(size) && (grow_in_place(huge, size) || move(huge, size)));
    void *const result = done ? huge->at : NULL;
    pm_lock(&pm_huge_blocks.lock);
    add_used(huge);
    if (PM_UNLIKELY(huge->owner != NULL)) {
        pm_heap_count_large(huge->owner, 0, huge->size - old);
    }
    pm_unlock(&pm_huge_blocks.lock);
    return result;
}

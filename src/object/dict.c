// SPDX-License-Identifier: MIT
// Copyright (c) the poolmalloc authors

// Dicts: entries in the order in which their keys came, and a table of slots that finds them. Both
// are in one buffer, slots first; an empty dict has none.
//
// A slot is 0, or the index of an entry plus one in its low `bits` bits and bits of the key's hash,
// its tag, above: most slots of other keys are told apart without a look at their entries. A slot
// without an index but with a tag is that of a key that left. There are 2^bits slots, of 8, 16 or
// 32 bits, so that a tag has two bits at least (one in the largest table). Slots are probed one
// after the other; at most two thirds are not 0, because no more entries than that are ever filled.
//
// Entries are {key, value} while all keys are strings, which know their hashes. In a dict with
// other keys the hash follows, so that growing calls nothing of the program's. A key that leaves
// leaves a hole, an entry without a key; holes go when the table is made anew.
//
// Strings are compared without callbacks. Other keys may have an equal that changes the dict: then
// the search starts again.

#include <string.h>

#include "object/object.h"

#define BITS_MIN    3
#define BITS_MAX    31
#define BITS_NARROW 6  // up to here slots have 8 bits
#define BITS_MIDDLE 14 // up to here 16
#define SEARCHES    1000

// 2^64 divided by the golden ratio: spreads hashes that programs make over the high bits, from
// which slots and tags are taken.
#define SPREAD UINT64_C(0x9e3779b97f4a7c15)

// Keys, of which those some way ahead are fetched while a table is made anew.
#define AHEAD 12

struct entry {
    po_object *key; // NULL: a hole
    po_object *value;
};

struct hashed_entry {
    struct entry entry;
    uint64_t hash;
};

enum stride { STRINGS = sizeof(struct entry), ANYTHING = sizeof(struct hashed_entry) };

struct dict {
    PO_HEAD;
    char *table;
    uint64_t version; // another one when a key has come or gone, or the table is another
    uint32_t used;    // keys
    uint32_t filled;  // entries, with holes
    uint32_t room;    // for entries
    uint8_t bits;     // 0: no table
    uint8_t stride;
};

struct search {
    po_object *key;
    uint64_t hash;
    // The entry and its slot where the key was found; else the slot that ended the search.
    size_t slot;
    uint32_t index;
};

enum result { FAILED = -1, MISSING, FOUND, CHANGED };

static struct dict *dict_of(const po_object *object) {
    return (struct dict *)object;
}

static po_state *state_of(const struct dict *dict) {
    return po_state_of_mortal(&dict->object);
}

static bool is_string(const po_object *object) {
    return object->type_ == PO_STR_;
}

static const struct po_str_ *string_of(const po_object *object) {
    return (const struct po_str_ *)object;
}

// --- Layout -----------------------------------------------------------------------------------

static inline unsigned slot_shift(unsigned bits) {
    return bits <= BITS_NARROW ? 0 : bits <= BITS_MIDDLE ? 1 : 2;
}

// Buffers begin 8 bytes past a multiple of 16; so entries of strings don't cross cache lines.
static inline size_t entries_offset(unsigned bits) {
    return ((size_t)1 << (bits + slot_shift(bits))) | 8;
}

static inline struct entry *entry_at(const struct dict *dict, size_t index) {
    return (struct entry *)(dict->table + entries_offset(dict->bits) + index * dict->stride);
}

static inline uint64_t hash_of_entry(const struct dict *dict, const struct entry *entry) {
    return dict->stride == STRINGS ? string_of(entry->key)->hash
                                   : ((const struct hashed_entry *)entry)->hash;
}

static size_t room_max(unsigned bits) {
    return ((size_t)2 << bits) / 3;
}

// What a new table has room for. The last quarter is added when it is needed.
static size_t room_at_first(unsigned bits) {
    return room_max(bits) * 3 / 4;
}

// False where it is more than there can be.
static bool table_size(unsigned bits, size_t room, enum stride stride, size_t *to) {
    return !__builtin_mul_overflow(room, (size_t)stride, to) &&
           !__builtin_add_overflow(*to, entries_offset(bits), to);
}

// --- Slots ------------------------------------------------------------------------------------

static inline uint32_t slot_get(const char *table, unsigned shift, size_t at) {
    switch (shift) {
    case 0: return ((const uint8_t *)table)[at];
    case 1: return ((const uint16_t *)(const void *)table)[at];
    default: return ((const uint32_t *)(const void *)table)[at];
    }
}

static inline void slot_put(char *table, unsigned shift, size_t at, uint32_t slot) {
    switch (shift) {
    case 0: ((uint8_t *)table)[at] = (uint8_t)slot; break;
    case 1: ((uint16_t *)(void *)table)[at] = (uint16_t)slot; break;
    default: ((uint32_t *)(void *)table)[at] = slot; break;
    }
}

static inline uint64_t spread(uint64_t hash) {
    return (hash ^ hash >> 32) * SPREAD;
}

static inline size_t first_slot(uint64_t spread_hash, unsigned bits) {
    return (size_t)(spread_hash >> (64 - bits));
}

// The bits of the hash below those that chose the slot.
static inline uint32_t tag_of(uint64_t spread_hash, unsigned bits, unsigned shift) {
    const unsigned width = 8u << shift;
    const uint32_t all = UINT32_MAX >> (32 - width);
    return ((uint32_t)(spread_hash >> (64 - width)) << bits) & all;
}

static inline uint32_t slot_mask(unsigned bits) {
    return (uint32_t)(((uint64_t)1 << bits) - 1);
}

// The slot of a key that left: no index, and not 0.
static inline uint32_t left_slot(unsigned bits) {
    return (uint32_t)1 << bits;
}

static inline size_t empty_slot(const char *table, unsigned bits, unsigned shift, uint64_t hash) {
    size_t at = first_slot(spread(hash), bits);
    while (slot_get(table, shift, at) != 0) {
        at = (at + 1) & slot_mask(bits);
    }
    return at;
}

static inline void fill_slot(char *table, unsigned bits, unsigned shift, size_t at, uint64_t hash,
                             size_t index) {
    slot_put(table, shift, at, tag_of(spread(hash), bits, shift) | (uint32_t)(index + 1));
}

// --- Searching --------------------------------------------------------------------------------

static inline bool strings_equal(const po_object *a, const po_object *b) {
    const struct po_str_ *const x = string_of(a);
    const struct po_str_ *const y = string_of(b);
    return x->hash == y->hash && x->size == y->size && memcmp(x->data, y->data, x->size) == 0;
}

static bool is_int(const po_object *object) {
    return object->type_ == PO_INT_;
}

// The key of the entry may go, and the dict change, while the program compares. po_equal holds
// both.
static enum result compare(struct dict *dict, const struct entry *entry,
                           const struct search *search) {
    if (is_int(search->key) && is_int(entry->key)) {
        return po_int_value(search->key) == po_int_value(entry->key) ? FOUND : MISSING;
    }
    if (hash_of_entry(dict, entry) != search->hash) {
        return MISSING;
    }
    const uint64_t version = dict->version;
    const int same = po_equal(entry->key, search->key);
    if (same < 0) {
        return FAILED;
    }
    return dict->version != version ? CHANGED : same ? FOUND : MISSING;
}

static inline enum result match(struct dict *dict, const struct entry *entry,
                                const struct search *search, bool is_for_string) {
    if (entry->key == search->key) {
        return FOUND;
    }
    if (!is_for_string) {
        return compare(dict, entry, search);
    }
    // No other type's objects are equal to strings.
    return (dict->stride == STRINGS || is_string(entry->key)) &&
                   strings_equal(entry->key, search->key)
               ? FOUND
               : MISSING;
}

static inline __attribute__((always_inline)) enum result probe(struct dict *dict,
                                                               struct search *search,
                                                               unsigned shift, bool is_for_string) {
    const unsigned bits = dict->bits;
    const uint32_t mask = slot_mask(bits);
    const uint64_t hash = spread(search->hash);
    const uint32_t tag = tag_of(hash, bits, shift);
    const char *const table = dict->table;
    for (size_t at = first_slot(hash, bits);; at = (at + 1) & mask) {
        const uint32_t slot = slot_get(table, shift, at);
        search->slot = at;
        if (slot == 0) {
            return MISSING;
        }
        const uint32_t index = (slot ^ tag) - 1;
        if (index >= mask) {
            continue; // another tag, or no index
        }
        const enum result result = match(dict, entry_at(dict, index), search, is_for_string);
        if (result != MISSING) {
            search->index = index;
            return result;
        }
    }
}

static inline enum result find_string(struct dict *dict, struct search *search) {
    switch (slot_shift(dict->bits)) {
    case 0: return probe(dict, search, 0, true);
    case 1: return probe(dict, search, 1, true);
    default: return probe(dict, search, 2, true);
    }
}

static enum result find_other_once(struct dict *dict, struct search *search) {
    // In a dict of strings there is no other key, and no room for one.
    if (dict->bits == 0 || dict->stride == STRINGS) {
        return MISSING;
    }
    switch (slot_shift(dict->bits)) {
    case 0: return probe(dict, search, 0, false);
    case 1: return probe(dict, search, 1, false);
    default: return probe(dict, search, 2, false);
    }
}

static __attribute__((noinline)) enum result find_other(struct dict *dict, struct search *search) {
    for (unsigned i = 0; i < SEARCHES; i++) {
        const enum result result = find_other_once(dict, search);
        if (result != CHANGED) {
            return result;
        }
    }
    po_fail(PO_CHANGED);
    return FAILED;
}

// Never CHANGED.
static inline enum result find(struct dict *dict, struct search *search) {
    if (PO_UNLIKELY(!is_string(search->key))) {
        return find_other(dict, search);
    }
    return dict->bits == 0 ? MISSING : find_string(dict, search);
}

// Hashes of strings are kept in them.
static inline bool start_search(struct search *search, po_object *key) {
    search->key = key;
    if (PO_LIKELY(is_string(key) && string_of(key)->hash != 0)) {
        search->hash = string_of(key)->hash;
        return true;
    }
    return po_hash(key, &search->hash) == 0;
}

// --- The table --------------------------------------------------------------------------------

// A third of the slots at most will be in use, but in the largest table.
static unsigned bits_for(size_t used) {
    unsigned bits = BITS_MIN;
    while (bits < BITS_MAX && used * 3 > (size_t)1 << bits) {
        bits++;
    }
    return bits;
}

static inline void fetch_key(const struct dict *dict, size_t index) {
    if (index < dict->filled && dict->stride == STRINGS) {
        const po_object *const key = entry_at(dict, index)->key;
        __builtin_prefetch(key != NULL ? &string_of(key)->hash : NULL);
    }
}

// Into `to`, which has as many keys and is otherwise empty.
static inline __attribute__((always_inline)) void fill_table(const struct dict *from,
                                                             struct dict *to, unsigned shift) {
    for (size_t i = 0; i < from->filled; i++) {
        const struct entry *const entry = entry_at(from, i);
        fetch_key(from, i + AHEAD);
        if (entry->key == NULL) {
            continue;
        }
        const uint64_t hash = hash_of_entry(from, entry);
        struct entry *const copy = entry_at(to, to->filled);
        *copy = *entry;
        if (to->stride == ANYTHING) {
            ((struct hashed_entry *)copy)->hash = hash;
        }
        const size_t slot = empty_slot(to->table, to->bits, shift, hash);
        fill_slot(to->table, to->bits, shift, slot, hash, to->filled++);
    }
}

static void copy_entries(const struct dict *from, struct dict *to) {
    switch (slot_shift(to->bits)) {
    case 0: fill_table(from, to, 0); break;
    case 1: fill_table(from, to, 1); break;
    default: fill_table(from, to, 2); break;
    }
}

// A table with room for more, without holes.
static bool renew(struct dict *dict, enum stride stride) {
    struct dict fresh = *dict;
    fresh.bits = (uint8_t)bits_for(dict->used);
    fresh.stride = (uint8_t)stride;
    fresh.filled = 0;
    size_t size;
    if (dict->used >= room_at_first(fresh.bits) ||
        !table_size(fresh.bits, room_at_first(fresh.bits), stride, &size)) {
        po_fail(PO_NO_MEMORY);
        return false;
    }
    fresh.room = (uint32_t)room_at_first(fresh.bits);
    fresh.table = po_buffer_resize(state_of(dict), NULL, size);
    if (PO_UNLIKELY(fresh.table == NULL)) {
        return false;
    }
    memset(fresh.table, 0, entries_offset(fresh.bits));
    copy_entries(dict, &fresh);
    po_buffer_free(state_of(dict), dict->table);
    fresh.version++;
    *dict = fresh;
    return true;
}

static bool add_room(struct dict *dict) {
    const size_t room = room_max(dict->bits);
    size_t size;
    if (!table_size(dict->bits, room, dict->stride, &size)) {
        po_fail(PO_NO_MEMORY);
        return false;
    }
    char *const table = po_buffer_resize(state_of(dict), dict->table, size);
    if (PO_UNLIKELY(table == NULL)) {
        return false;
    }
    dict->table = table;
    dict->room = (uint32_t)room;
    dict->version++;
    return true;
}

// Room for a key of this kind. Holes are used again when they are an eighth or more.
static __attribute__((noinline)) bool make_room(struct dict *dict, enum stride stride) {
    const bool is_full = dict->filled == dict->room;
    const bool has_holes = dict->filled - dict->used > dict->filled / 8;
    if (is_full && !has_holes && dict->stride == stride && dict->bits != 0 &&
        dict->room < room_max(dict->bits)) {
        return add_room(dict);
    }
    return renew(dict, stride);
}

// --- Keys come and go -------------------------------------------------------------------------

// In the slot that a search has ended at, where it did.
static void put_entry(struct dict *dict, const struct search *search, size_t slot,
                      po_object *value) {
    struct entry *const entry = entry_at(dict, dict->filled);
    entry->key = po_incref(search->key);
    entry->value = po_incref(value);
    if (dict->stride == ANYTHING) {
        ((struct hashed_entry *)entry)->hash = search->hash;
    }
    fill_slot(dict->table, dict->bits, slot_shift(dict->bits), slot, search->hash, dict->filled);
    dict->filled++;
    dict->used++;
    dict->version++;
}

static int insert(struct dict *dict, const struct search *search, po_object *value) {
    const enum stride stride = is_string(search->key) ? (enum stride)dict->stride : ANYTHING;
    size_t slot = search->slot;
    if (PO_UNLIKELY(dict->filled == dict->room || dict->stride != stride)) {
        if (!make_room(dict, stride)) {
            return -1;
        }
        slot = empty_slot(dict->table, dict->bits, slot_shift(dict->bits), search->hash);
    }
    put_entry(dict, search, slot, value);
    return 0;
}

static void take_out(struct dict *dict, const struct search *search) {
    po_object *const key = entry_at(dict, search->index)->key;
    po_object *const value = entry_at(dict, search->index)->value;
    *entry_at(dict, search->index) = (struct entry){ NULL, NULL };
    slot_put(dict->table, slot_shift(dict->bits), search->slot, left_slot(dict->bits));
    dict->used--;
    dict->version++;
    po_decref(key);
    po_decref(value);
}

// --- The interface ----------------------------------------------------------------------------

static void make_empty(struct dict *dict) {
    dict->table = NULL;
    dict->used = dict->filled = dict->room = 0;
    dict->bits = 0;
    dict->stride = STRINGS;
}

po_object *po_dict(po_state *state) {
    struct dict *const dict = po_make_container(state, PO_DICT_, sizeof *dict);
    if (PO_UNLIKELY(dict == NULL)) {
        return NULL;
    }
    make_empty(dict);
    dict->version = 0;
    po_track(state, dict);
    return &dict->object;
}

size_t po_dict_size(const po_object *dict) {
    return po_check_type(dict, PO_DICT_) ? dict_of(dict)->used : 0;
}

static inline bool are_right(const po_object *dict, const po_object *key) {
    if (PO_UNLIKELY(!po_check_type(dict, PO_DICT_))) {
        return false;
    }
    if (PO_UNLIKELY(key == NULL)) {
        po_fail(PO_WRONG_TYPE);
        return false;
    }
    return true;
}

int po_dict_get(po_object *object, po_object *key, po_object **value) {
    *value = NULL;
    struct search search;
    if (PO_UNLIKELY(!are_right(object, key) || !start_search(&search, key))) {
        return -1;
    }
    struct dict *const dict = dict_of(object);
    const enum result result = find(dict, &search);
    if (result == FOUND) {
        *value = entry_at(dict, search.index)->value;
    }
    return (int)result;
}

int po_dict_set(po_object *object, po_object *key, po_object *value) {
    struct search search;
    if (PO_UNLIKELY(!are_right(object, key) || (value == NULL && po_fail(PO_WRONG_TYPE) != 0) ||
                    !start_search(&search, key))) {
        return -1;
    }
    struct dict *const dict = dict_of(object);
    po_check_state(state_of(dict), key);
    po_check_state(state_of(dict), value);
    search.slot = 0;
    const enum result result = find(dict, &search);
    if (result == FOUND) {
        po_set(&entry_at(dict, search.index)->value, value);
        return 0;
    }
    return result == MISSING ? insert(dict, &search, value) : -1;
}

int po_dict_set_take(po_object *dict, po_object *key, po_object *value) {
    const int result = key != NULL && value != NULL ? po_dict_set(dict, key, value) : -1;
    po_decref(key);
    po_decref(value);
    return result;
}

int po_dict_remove(po_object *object, po_object *key) {
    struct search search;
    if (!are_right(object, key) || !start_search(&search, key)) {
        return -1;
    }
    struct dict *const dict = dict_of(object);
    const enum result result = find(dict, &search);
    if (result == FOUND) {
        take_out(dict, &search);
    }
    return (int)result;
}

// The first entry with a key from *position on, which is then behind it; NULL at the end.
static inline struct entry *next_entry(const struct dict *dict, size_t *position) {
    while (*position < dict->filled) {
        struct entry *const entry = entry_at(dict, (*position)++);
        if (entry->key != NULL) {
            return entry;
        }
    }
    return NULL;
}

int po_dict_next(const po_object *object, size_t *position, po_object **key, po_object **value) {
    *key = *value = NULL;
    if (!po_check_type(object, PO_DICT_)) {
        return 0;
    }
    const struct entry *const entry = next_entry(dict_of(object), position);
    if (entry == NULL) {
        return 0;
    }
    *key = entry->key;
    *value = entry->value;
    return 1;
}

// --- Slots of the type ------------------------------------------------------------------------

static int traverse(const po_object *self, po_visit visit, void *argument) {
    const struct dict *const dict = dict_of(self);
    if (dict->used == 0) {
        return 0;
    }
    const size_t stride = dict->stride;
    const char *at = (const char *)entry_at(dict, 0);
    for (const char *const end = at + dict->filled * stride; at != end; at += stride) {
        const struct entry *const entry = (const struct entry *)at;
        PO_VISIT(entry->key);
        PO_VISIT(entry->value);
    }
    return 0;
}

// Callbacks see an empty dict.
static void clear(po_object *self) {
    struct dict *const dict = dict_of(self);
    if (dict->bits == 0) {
        return;
    }
    po_state *const state = state_of(dict);
    const struct dict old = *dict;
    make_empty(dict);
    dict->version++;
    struct entry *entry;
    for (size_t at = 0; (entry = next_entry(&old, &at)) != NULL;) {
        po_decref(entry->key);
        po_decref(entry->value);
    }
    po_buffer_free(state, old.table);
}

static int compare_values(struct dict *other, struct search *search, po_object *value) {
    const enum result result = find(other, search);
    if (result != FOUND) {
        return (int)result;
    }
    return po_equal(value, entry_at(other, search->index)->value);
}

// Holds what it looks for from one callback to the next.
static int compare_entry(const struct dict *dict, struct dict *other, const struct entry *entry) {
    struct search search = { .key = po_incref(entry->key), .hash = hash_of_entry(dict, entry) };
    po_object *const value = po_incref(entry->value);
    const uint64_t version = dict->version;
    const int same = compare_values(other, &search, value);
    po_decref(value);
    po_decref(search.key);
    return same == 1 && dict->version != version ? po_fail(PO_CHANGED) : same;
}

static int equal(po_object *self, po_object *other) {
    const struct dict *const dict = dict_of(self);
    if (dict->used != dict_of(other)->used) {
        return 0;
    }
    const struct entry *entry;
    for (size_t at = 0; (entry = next_entry(dict, &at)) != NULL;) {
        const int same = compare_entry(dict, dict_of(other), entry);
        if (same != 1) {
            return same;
        }
    }
    return 1;
}

static int write_entry(const struct dict *dict, const struct entry *entry, po_text *to) {
    const uint64_t version = dict->version;
    po_object *const key = po_incref(entry->key);
    po_object *const value = po_incref(entry->value);
    int result = -1;
    if (po_text_repr(to, key) == 0 && po_text_add(to, ": ", 2) == 0) {
        result = po_text_repr(to, value);
    }
    po_decref(key);
    po_decref(value);
    return result == 0 && dict->version != version ? po_fail(PO_CHANGED) : result;
}

static int repr(po_object *self, po_text *to) {
    const struct dict *const dict = dict_of(self);
    if (po_text_add(to, "{", 1) != 0) {
        return -1;
    }
    const char *between = "";
    const struct entry *entry;
    for (size_t at = 0; (entry = next_entry(dict, &at)) != NULL; between = ", ") {
        if (po_text_add(to, between, strlen(between)) != 0 || write_entry(dict, entry, to) != 0) {
            return -1;
        }
    }
    return po_text_add(to, "}", 1);
}

po_type po_dict_type = {
    .name = "dict",
    .size = sizeof(struct dict),
    .traverse = traverse,
    .clear = clear,
    .equal = equal,
    .repr = repr,
    .number_ = PO_DICT_,
};

const struct po_slots po_dict_slots = {
    .type = &po_dict_type,
    .only_refers = true,
    .spare = (sizeof(struct dict) + 15) / 16,
    .size = sizeof(struct dict),
    .traverse = traverse,
    .clear = clear,
    .equal = equal,
    .repr = repr,
};

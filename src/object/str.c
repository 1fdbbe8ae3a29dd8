// SPDX-License-Identifier: MIT
// Copyright (c) the poolmalloc authors

// Texts: valid UTF-8, all of it, from the beginning. The empty one and those of one byte are
// shared; they are filled in, with their hash, before there are states.

#include <string.h>

#include "object/object.h"

typedef unsigned char byte;

enum { ONE_BYTE = 128 };

// The last is the empty text.
static union {
    struct po_str_ str;
    char room[sizeof(struct po_str_) + 8];
} shared[ONE_BYTE + 1];

static void share(unsigned index, char text, uint32_t size) {
    struct po_str_ *const str = &shared[index].str;
    str->object = (po_object){ PO_IMMORTAL_, PO_STR_, PO_UNTRACKED | PO_SHARED };
    str->size = str->length = size;
    str->data[0] = text;
    str->data[size] = 0;
    str->hash = po_hash_bytes(str->data, size);
}

void po_str_start(void) {
    for (unsigned i = 0; i < ONE_BYTE; i++) {
        share(i, (char)i, 1);
    }
    share(ONE_BYTE, 0, 0);
}

// --- Is it UTF-8? -----------------------------------------------------------------------------

#define HIGH_BITS UINT64_C(0x8080808080808080)

static inline uint64_t load8(const byte *at) {
    uint64_t word;
    memcpy(&word, at, sizeof word);
    return word;
}

// Of up to seven bytes.
static inline bool few_are_ascii(const byte *at, size_t n) {
    uint32_t ends[2];
    if (n >= 4) {
        memcpy(&ends[0], at, 4);
        memcpy(&ends[1], at + n - 4, 4);
        return ((ends[0] | ends[1]) & (uint32_t)HIGH_BITS) == 0;
    }
    return n == 0 || ((at[0] | at[n / 2] | at[n - 1]) & 0x80) == 0;
}

// Most texts are keys of up to 16 bytes: two words, which overlap, instead of a call.
static inline void copy(char *to, const byte *from, size_t n) {
    if (PO_LIKELY(n - 8 <= 8)) {
        const uint64_t first = load8(from), last = load8(from + n - 8);
        memcpy(to, &first, sizeof first);
        memcpy(to + n - 8, &last, sizeof last);
    } else {
        memcpy(to, from, n);
    }
}

// The last word overlaps the one before.
static inline bool is_ascii(const byte *at, size_t n) {
    if (n < 8) {
        return few_are_ascii(at, n);
    }
    uint64_t all = load8(at + n - 8);
    for (size_t i = 0; i + 8 < n; i += 8) {
        all |= load8(at + i);
    }
    return (all & HIGH_BITS) == 0;
}

static inline bool in(byte value, byte least, byte most) {
    return (byte)(value - least) <= most - least;
}

// How many bytes the code point takes that starts here, of `left`; 0 when they are none. The second
// byte tells overlong forms (after E0, F0), surrogates (after ED) and what is above 10FFFF (F4).
static size_t sequence(const byte *at, size_t left) {
    const byte first = at[0];
    if (first < 0x80) {
        return 1;
    }
    const size_t size = first < 0xE0 ? 2 : first < 0xF0 ? 3 : 4;
    if (!in(first, 0xC2, 0xF4) || left < size) {
        return 0;
    }
    const byte least = first == 0xE0 ? 0xA0 : first == 0xF0 ? 0x90 : 0x80;
    const byte most = first == 0xED ? 0x9F : first == 0xF4 ? 0x8F : 0xBF;
    bool valid = in(at[1], least, most);
    for (size_t i = 2; i < size; i++) {
        valid &= in(at[i], 0x80, 0xBF);
    }
    return valid ? size : 0;
}

// Code points in n bytes; false when they are no UTF-8.
static bool measure(const byte *at, size_t n, uint32_t *length) {
    const byte *const end = at + n;
    uint32_t points = 0;
    while (at < end) {
        if (end - at >= 8 && (load8(at) & HIGH_BITS) == 0) {
            at += 8;
            points += 8;
            continue;
        }
        const size_t size = sequence(at, (size_t)(end - at));
        if (size == 0) {
            return false;
        }
        at += size;
        points++;
    }
    *length = points;
    return true;
}

// --- Making -----------------------------------------------------------------------------------

po_object *po_str(po_state *state, const char *utf8, size_t n) {
    if (n == 0) {
        return &shared[ONE_BYTE].str.object;
    }
    if (PO_UNLIKELY(state == NULL || utf8 == NULL)) {
        return po_fail_null(PO_WRONG_TYPE);
    }
    if (PO_UNLIKELY(n > UINT32_MAX)) {
        return po_fail_null(PO_NO_MEMORY);
    }
    const byte *const bytes = (const byte *)utf8;
    uint32_t length = (uint32_t)n;
    if (!is_ascii(bytes, n) && !measure(bytes, n, &length)) {
        return po_fail_null(PO_BAD_TEXT);
    }
    if (n == 1) {
        return &shared[bytes[0]].str.object;
    }
    struct po_str_ *const made = po_make(state, PO_STR_, sizeof *made + n + 1);
    if (PO_UNLIKELY(made == NULL)) {
        return NULL;
    }
    made->hash = 0;
    made->size = (uint32_t)n;
    made->length = length;
    copy(made->data, bytes, n);
    made->data[n] = 0;
    return &made->object;
}

// --- Slots ------------------------------------------------------------------------------------

static int equal(po_object *self, po_object *other) {
    const struct po_str_ *const a = (const struct po_str_ *)self;
    const struct po_str_ *const b = (const struct po_str_ *)other;
    return a->size == b->size && (a->hash == b->hash || a->hash == 0 || b->hash == 0) &&
           memcmp(a->data, b->data, a->size) == 0;
}

// Shared ones have theirs from the beginning.
static int hash(po_object *self, uint64_t *to) {
    struct po_str_ *const str = (struct po_str_ *)self;
    if (str->hash == 0) {
        str->hash = po_hash_bytes(str->data, str->size);
    }
    *to = str->hash;
    return 0;
}

// --- repr -------------------------------------------------------------------------------------

// What Python writes as an escape: controls, formats, separators but the space, private use. Code
// points that nobody has assigned are not examined, they are written as they are.
static const uint32_t escaped[][2] = {
    { 0x0000, 0x001F },   { 0x007F, 0x00A0 },   { 0x00AD, 0x00AD },   { 0x0600, 0x0605 },
    { 0x061C, 0x061C },   { 0x06DD, 0x06DD },   { 0x070F, 0x070F },   { 0x0890, 0x0891 },
    { 0x08E2, 0x08E2 },   { 0x1680, 0x1680 },   { 0x180E, 0x180E },   { 0x2000, 0x200F },
    { 0x2028, 0x202F },   { 0x205F, 0x2064 },   { 0x2066, 0x206F },   { 0x3000, 0x3000 },
    { 0xE000, 0xF8FF },   { 0xFEFF, 0xFEFF },   { 0xFFF9, 0xFFFB },   { 0x110BD, 0x110BD },
    { 0x110CD, 0x110CD }, { 0x13430, 0x13438 }, { 0x1BCA0, 0x1BCA3 }, { 0x1D173, 0x1D17A },
    { 0xE0001, 0xE0001 }, { 0xE0020, 0xE007F }, { 0xF0000, 0xFFFFD }, { 0x100000, 0x10FFFD },
};

static bool is_escaped(uint32_t point) {
    unsigned i = 0;
    while (i < sizeof escaped / sizeof *escaped - 1 && point > escaped[i][1]) {
        i++;
    }
    return point >= escaped[i][0] && point <= escaped[i][1];
}

// The code point of `size` bytes of valid UTF-8.
static uint32_t decode(const byte *at, size_t size) {
    uint32_t point = size == 1 ? at[0] : at[0] & (0x7FU >> size);
    for (size_t i = 1; i < size; i++) {
        point = point << 6 | (at[i] & 0x3FU);
    }
    return point;
}

static int put_code(po_text *to, uint32_t point) {
    static const char hex[] = "0123456789abcdef";
    const unsigned digits = point < 0x100 ? 2 : point < 0x10000 ? 4 : 8;
    char text[10] = { '\\', digits == 2 ? 'x' : digits == 4 ? 'u' : 'U' };
    for (unsigned i = 0; i < digits; i++) {
        text[2 + i] = hex[point >> 4 * (digits - 1 - i) & 15];
    }
    return po_text_add(to, text, 2 + digits);
}

static int put_escape(po_text *to, uint32_t point) {
    switch (point) {
    case '\t': return po_text_add(to, "\\t", 2);
    case '\n': return po_text_add(to, "\\n", 2);
    case '\r': return po_text_add(to, "\\r", 2);
    case '\\': return po_text_add(to, "\\\\", 2);
    case '\'': return po_text_add(to, "\\'", 2);
    default: return put_code(to, point);
    }
}

// All of the text, what needs no escape in one piece.
static int put_points(po_text *to, const byte *at, size_t n, byte quote) {
    const byte *const end = at + n, *piece = at;
    while (at < end) {
        const size_t size = sequence(at, (size_t)(end - at));
        const uint32_t point = decode(at, size);
        if (point == quote || point == '\\' || is_escaped(point)) {
            if (po_text_add(to, (const char *)piece, (size_t)(at - piece)) < 0 ||
                put_escape(to, point) < 0) {
                return -1;
            }
            piece = at + size;
        }
        at += size;
    }
    return po_text_add(to, (const char *)piece, (size_t)(end - piece));
}

static int repr(po_object *self, po_text *to) {
    const struct po_str_ *const str = (const struct po_str_ *)self;
    // As Python chooses: a double quote is never one that would need an escape.
    const bool single =
        memchr(str->data, '\'', str->size) == NULL || memchr(str->data, '"', str->size) != NULL;
    const char quote = single ? '\'' : '"';
    return po_text_add(to, &quote, 1) < 0 ||
                   put_points(to, (const byte *)str->data, str->size, (byte)quote) < 0
               ? -1
               : po_text_add(to, &quote, 1);
}

po_type po_str_type = {
    .name = "str",
    .size = sizeof(struct po_str_),
    .equal = equal,
    .hash = hash,
    .repr = repr,
    .number_ = PO_STR_,
};

const struct po_slots po_str_slots = {
    .type = &po_str_type,
    .size = sizeof(struct po_str_),
    .equal = equal,
    .hash = hash,
    .repr = repr,
};

// SPDX-License-Identifier: MIT
// Copyright (c) the poolmalloc authors

// Floating point numbers. They are written with the fewest digits that read back as the same
// number, and of those the nearest ones: free-format printing with exact integers (Burger and
// Dybvig, "Printing Floating-Point Numbers Quickly and Accurately", 1996). libc's printf would use
// the program's locale.

#include <string.h>

#include "object/object.h"

enum {
    FRACTION_BITS = 52,
    EXPONENT_MASK = 0x7ff,
    EXPONENT_MIN = -1074, // of the lowest bit of the fraction
    DIGITS_MAX = 17,
    TEXT_MAX = 32,
    BIG_WORDS = 40, // 10^324 * 2^54, and some bits
    // Python writes with an exponent where the point is not in this many digits.
    POINT_MIN = -3,
    POINT_MAX = 16,
    // Exact enough for all exponents.
    LOG_OF_2 = 30103,
    LOG_OF_10 = 100000,
};

po_object *po_float(po_state *state, double value) {
    uint64_t word;
    memcpy(&word, &value, sizeof word);
    return po_make_word(state, PO_FLOAT_, word);
}

// --- Equal numbers ----------------------------------------------------------------------------

// Is it an integer of 64 bits?
static bool to_int(double value, int64_t *to) {
    if (!(value >= -0x1p63 && value < 0x1p63)) {
        return false;
    }
    *to = (int64_t)value;
    return (double)*to == value;
}

// The other may be a number of any type.
static int equal(po_object *self, po_object *other) {
    const double value = po_float_value(self);
    if (other->type_ == PO_FLOAT_) {
        return value == po_float_value(other);
    }
    int64_t number;
    return to_int(value, &number) && number == po_int_value(other);
}

static int hash(po_object *self, uint64_t *to) {
    const double value = po_float_value(self);
    int64_t number;
    if (to_int(value, &number)) {
        *to = po_hash_word((uint64_t)number);
    } else if (value != value) {
        *to = po_hash_word((uintptr_t)self); // a nan is equal to itself only
    } else {
        uint64_t bits;
        memcpy(&bits, &value, sizeof bits);
        *to = po_hash_word(bits);
    }
    return 0;
}

// --- Large integers ---------------------------------------------------------------------------

struct big {
    unsigned count; // of words; the highest is not 0
    uint32_t word[BIG_WORDS];
};

static void big_set(struct big *big, uint64_t value, unsigned shift) {
    const unsigned skip = shift / 32;
    const unsigned __int128 wide = (unsigned __int128)value << shift % 32;
    memset(big->word, 0, skip * sizeof big->word[0]);
    big->count = skip;
    for (unsigned __int128 rest = wide; rest != 0; rest >>= 32) {
        big->word[big->count++] = (uint32_t)rest;
    }
}

static void big_multiply(struct big *big, uint32_t factor) {
    uint64_t carry = 0;
    for (unsigned i = 0; i < big->count; i++) {
        carry += (uint64_t)big->word[i] * factor;
        big->word[i] = (uint32_t)carry;
        carry >>= 32;
    }
    if (carry != 0) {
        big->word[big->count++] = (uint32_t)carry;
    }
}

static void big_power_of_ten(struct big *big, unsigned power) {
    for (; power >= 9; power -= 9) {
        big_multiply(big, 1000000000);
    }
    for (; power > 0; power--) {
        big_multiply(big, 10);
    }
}

static void big_add(struct big *to, const struct big *big) {
    uint64_t carry = 0;
    for (unsigned i = 0; i < big->count || carry != 0; i++) {
        if (i == to->count) {
            to->word[to->count++] = 0;
        }
        carry += (uint64_t)to->word[i] + (i < big->count ? big->word[i] : 0);
        to->word[i] = (uint32_t)carry;
        carry >>= 32;
    }
}

// `big` is at most `from`.
static void big_subtract(struct big *from, const struct big *big) {
    int64_t carry = 0;
    for (unsigned i = 0; i < from->count; i++) {
        carry += (int64_t)from->word[i] - (i < big->count ? big->word[i] : 0);
        from->word[i] = (uint32_t)carry;
        carry >>= 32;
    }
    while (from->count > 0 && from->word[from->count - 1] == 0) {
        from->count--;
    }
}

static int big_compare(const struct big *a, const struct big *b) {
    if (a->count != b->count) {
        return a->count < b->count ? -1 : 1;
    }
    for (unsigned i = a->count; i-- > 0;) {
        if (a->word[i] != b->word[i]) {
            return a->word[i] < b->word[i] ? -1 : 1;
        }
    }
    return 0;
}

// a + b against c.
static int big_compare_sum(const struct big *a, const struct big *b, const struct big *c) {
    struct big sum = *a;
    big_add(&sum, b);
    return big_compare(&sum, c);
}

// --- Digits -----------------------------------------------------------------------------------

// A number rest/unit, and how far the ends of the interval that reads back as it are from it:
// below/unit and above/unit. The ends belong to it where `closed`.
struct scaled {
    struct big rest, unit, below, above;
    bool closed;
};

struct decimal {
    unsigned count;
    char digit[DIGITS_MAX];
    int point; // behind so many digits
};

static void scale(struct scaled *scaled, uint64_t fraction, int exponent) {
    // Half the distance to the neighbour, and where a power of two begins, the one below is nearer.
    const unsigned nearer = fraction == UINT64_C(1) << FRACTION_BITS && exponent > EXPONENT_MIN;
    const unsigned up = exponent > 0 ? (unsigned)exponent : 0;
    const unsigned down = exponent < 0 ? (unsigned)-exponent : 0;
    big_set(&scaled->rest, fraction, up + 1 + nearer);
    big_set(&scaled->unit, 1, down + 1 + nearer);
    big_set(&scaled->below, 1, up);
    big_set(&scaled->above, 1, up + nearer);
    scaled->closed = fraction % 2 == 0;
}

static void times_ten(struct scaled *scaled) {
    big_multiply(&scaled->rest, 10);
    big_multiply(&scaled->below, 10);
    big_multiply(&scaled->above, 10);
}

// Does the interval reach the next unit, or down to what is left out?
static bool reaches_up(const struct scaled *scaled) {
    return big_compare_sum(&scaled->rest, &scaled->above, &scaled->unit) >= !scaled->closed;
}

static bool reaches_down(const struct scaled *scaled) {
    return big_compare(&scaled->rest, &scaled->below) < scaled->closed;
}

// Divides by the power of ten that makes `rest` over `unit` the first digit and what follows it.
// Returns where the point is.
static int put_point(struct scaled *scaled, uint64_t fraction, int exponent) {
    // 2^bits is at most the number: the logarithm of that, rounded up, is right or one too low.
    const int bits = exponent + 63 - __builtin_clzll(fraction);
    const int log = bits * LOG_OF_2;
    const int point = log / LOG_OF_10 + (log > 0 && log % LOG_OF_10 != 0);
    if (point >= 0) {
        big_power_of_ten(&scaled->unit, (unsigned)point);
    } else {
        big_power_of_ten(&scaled->rest, (unsigned)-point);
        big_power_of_ten(&scaled->below, (unsigned)-point);
        big_power_of_ten(&scaled->above, (unsigned)-point);
    }
    if (reaches_up(scaled)) {
        return point + 1;
    }
    times_ten(scaled);
    return point;
}

static unsigned next_digit(struct scaled *scaled) {
    unsigned digit = 0;
    while (big_compare(&scaled->rest, &scaled->unit) >= 0) {
        big_subtract(&scaled->rest, &scaled->unit);
        digit++;
    }
    return digit;
}

// Both neighbours of the last digit would do: the nearer one, of two as near the even one.
static bool nearer_up(const struct scaled *scaled, unsigned digit) {
    const int order = big_compare_sum(&scaled->rest, &scaled->rest, &scaled->unit);
    return order > 0 || (order == 0 && digit % 2 != 0);
}

static void to_decimal(struct decimal *to, uint64_t fraction, int exponent) {
    struct scaled scaled;
    scale(&scaled, fraction, exponent);
    to->point = put_point(&scaled, fraction, exponent);
    to->count = 0;
    for (;;) {
        unsigned digit = next_digit(&scaled);
        const bool down = reaches_down(&scaled), up = reaches_up(&scaled);
        if (up && (!down || nearer_up(&scaled, digit))) {
            digit++;
        }
        to->digit[to->count++] = (char)('0' + digit);
        if (down || up) {
            return;
        }
        times_ten(&scaled);
    }
}

// --- Text -------------------------------------------------------------------------------------

struct line {
    char text[TEXT_MAX];
    unsigned size;
};

static void put(struct line *line, const char *text, unsigned n) {
    memcpy(line->text + line->size, text, n);
    line->size += n;
}

static void put_zeros(struct line *line, int n) {
    for (; n > 0; n--) {
        line->text[line->size++] = '0';
    }
}

static void put_exponent(struct line *line, int exponent) {
    const unsigned value = (unsigned)(exponent < 0 ? -exponent : exponent);
    line->text[line->size++] = 'e';
    line->text[line->size++] = exponent < 0 ? '-' : '+';
    if (value >= 100) {
        line->text[line->size++] = (char)('0' + value / 100);
    }
    line->text[line->size++] = (char)('0' + value / 10 % 10);
    line->text[line->size++] = (char)('0' + value % 10);
}

// The digits with a point behind the first `before` of them.
static void put_digits(struct line *line, const struct decimal *decimal, unsigned before) {
    put(line, decimal->digit, before);
    if (before < decimal->count) {
        put(line, ".", 1);
        put(line, decimal->digit + before, decimal->count - before);
    }
}

static void put_decimal(struct line *line, const struct decimal *decimal) {
    const int count = (int)decimal->count, point = decimal->point;
    if (point < POINT_MIN || point > POINT_MAX) {
        put_digits(line, decimal, 1);
        put_exponent(line, point - 1);
    } else if (point <= 0) {
        put(line, "0.", 2);
        put_zeros(line, -point);
        put(line, decimal->digit, decimal->count);
    } else if (point < count) {
        put_digits(line, decimal, (unsigned)point);
    } else {
        put(line, decimal->digit, decimal->count);
        put_zeros(line, point - count);
        put(line, ".0", 2);
    }
}

static int repr(po_object *self, po_text *to) {
    const double value = po_float_value(self);
    uint64_t bits;
    memcpy(&bits, &value, sizeof bits);
    const uint64_t implicit = UINT64_C(1) << FRACTION_BITS;
    const unsigned biased = bits >> FRACTION_BITS & EXPONENT_MASK;
    const uint64_t fraction = bits & (implicit - 1);
    if (biased == EXPONENT_MASK && fraction != 0) {
        return po_text_add(to, "nan", 3);
    }
    struct line line = { .size = 0 };
    put(&line, "-", bits >> 63 != 0);
    if (biased == EXPONENT_MASK) {
        put(&line, "inf", 3);
    } else if (biased == 0 && fraction == 0) {
        put(&line, "0.0", 3);
    } else {
        struct decimal decimal;
        to_decimal(&decimal, biased != 0 ? fraction | implicit : fraction,
                   EXPONENT_MIN + (biased != 0 ? (int)biased - 1 : 0));
        put_decimal(&line, &decimal);
    }
    return po_text_add(to, line.text, line.size);
}

po_type po_float_type = {
    .name = "float",
    .size = sizeof(struct po_float_),
    .equal = equal,
    .hash = hash,
    .repr = repr,
    .number_ = PO_FLOAT_,
};

const struct po_slots po_float_slots = {
    .type = &po_float_type,
    .size = sizeof(struct po_float_),
    .equal = equal,
    .hash = hash,
    .repr = repr,
};

// SPDX-License-Identifier: MIT
// Copyright (c) the poolmalloc authors
//
// object: None, bool, int, float, str and bytes; equal, hash and repr; errors.

#include "../harness.h"

#include "object/object.h"

#include <float.h>
#include <locale.h>
#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define TEST(name) Test(values, name, .timeout = 120)

// Costs nothing while it holds.
#define CHECK(condition, ...)                                            \
    do {                                                                 \
        if (!(condition)) {                                              \
            cr_assert(false && (condition), #condition " " __VA_ARGS__); \
        }                                                                \
    } while (0)

#define COUNT(array) (sizeof(array) / sizeof *(array))

static uint64_t random_word(void) {
    static uint64_t at = 1;
    at = at * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return (at ^ at >> 33) * UINT64_C(0x9e3779b97f4a7c15) ^ at >> 29;
}

static uint64_t hash_of(po_object *object) {
    uint64_t hash = 0;
    CHECK(po_hash(object, &hash) == 0);
    return hash;
}

// The object as text; the same buffer each time.
static const char *repr_of(po_state *state, po_object *object) {
    static char text[4096];
    po_object *const repr = po_repr(state, object);
    CHECK(repr != NULL, "%s", po_error_last().text);
    CHECK(po_str_size(repr) < sizeof text);
    memcpy(text, po_str_data(repr), po_str_size(repr) + 1);
    po_decref(repr);
    return text;
}

// repr of an object that is given up.
static void gives(po_state *state, po_object *taken, const char *expected) {
    CHECK(taken != NULL);
    const char *const text = repr_of(state, taken);
    CHECK(strcmp(text, expected) == 0, "%s instead of %s", text, expected);
    po_decref(taken);
}

static bool last_is(enum po_code code) {
    const struct po_error error = po_error_last();
    return error.code == code && error.text != NULL;
}

// --- Numbers ----------------------------------------------------------------------------------

#define TWO_53 (INT64_C(1) << 53)

// Rows of the same group are equal, others are not.
static const struct {
    int group;
    unsigned type;
    int64_t integer;
    double number;
} number_rows[] = {
    { 1, PO_BOOL_, 0, 0 },
    { 1, PO_INT_, 0, 0 },
    { 1, PO_FLOAT_, 0, 0.0 },
    { 1, PO_FLOAT_, 0, -0.0 },
    { 2, PO_BOOL_, 1, 0 },
    { 2, PO_INT_, 1, 0 },
    { 2, PO_FLOAT_, 0, 1.0 },
    { 3, PO_INT_, -5, 0 },
    { 3, PO_FLOAT_, 0, -5.0 },
    { 4, PO_INT_, -6, 0 },
    { 4, PO_INT_, -6, 0 },
    { 4, PO_FLOAT_, 0, -6.0 },
    { 5, PO_INT_, 257, 0 },
    { 5, PO_INT_, 257, 0 },
    { 5, PO_FLOAT_, 0, 257.0 },
    { 6, PO_FLOAT_, 0, 0.5 },
    { 6, PO_FLOAT_, 0, 0.5 },
    { 7, PO_INT_, TWO_53, 0 },
    { 7, PO_FLOAT_, 0, 0x1p53 },
    { 8, PO_INT_, TWO_53 + 1, 0 },
    { 9, PO_INT_, TWO_53 + 2, 0 },
    { 9, PO_FLOAT_, 0, 0x1p53 + 2 },
    { 10, PO_INT_, -TWO_53 - 1, 0 },
    { 11, PO_FLOAT_, 0, -0x1p53 },
    { 12, PO_INT_, INT64_MIN, 0 },
    { 12, PO_FLOAT_, 0, -0x1p63 },
    { 13, PO_INT_, INT64_MIN + 1, 0 },
    { 14, PO_INT_, INT64_MAX, 0 },
    { 15, PO_FLOAT_, 0, 0x1p63 },
    { 16, PO_INT_, INT64_MAX - 1023, 0 },
    { 16, PO_FLOAT_, 0, 0x1p63 - 1024 },
    { 17, PO_FLOAT_, 0, -0x1p63 - 2048 },
    { 18, PO_FLOAT_, 0, INFINITY },
    { 18, PO_FLOAT_, 0, INFINITY },
    { 19, PO_FLOAT_, 0, -INFINITY },
    { 20, PO_FLOAT_, 0, NAN },
    { 21, PO_FLOAT_, 0, NAN },
    { 22, PO_FLOAT_, 0, DBL_TRUE_MIN },
    { 23, PO_FLOAT_, 0, DBL_MAX },
    { 24, PO_INT_, INT64_C(0x3fe0000000000000), 0 }, // the bits of 0.5
};

static po_object *number_at(po_state *state, size_t row) {
    const int64_t integer = number_rows[row].integer;
    switch (number_rows[row].type) {
    case PO_BOOL_: return po_bool((int)integer);
    case PO_INT_: return po_int(state, integer);
    default: return po_float(state, number_rows[row].number);
    }
}

TEST(numbers_are_equal_by_exact_value_across_types_and_hash_alike) {
    po_state *const state = po_state_new();
    po_object *numbers[COUNT(number_rows)];
    for (size_t i = 0; i < COUNT(number_rows); i++) {
        numbers[i] = number_at(state, i);
        CHECK(numbers[i] != NULL && po_type_of(numbers[i])->number_ == number_rows[i].type);
    }
    for (size_t i = 0; i < COUNT(number_rows); i++) {
        for (size_t j = 0; j < COUNT(number_rows); j++) {
            const bool same = number_rows[i].group == number_rows[j].group;
            CHECK(po_equal(numbers[i], numbers[j]) == same, "rows %zu and %zu", i, j);
            CHECK(!same || hash_of(numbers[i]) == hash_of(numbers[j]), "rows %zu, %zu", i, j);
        }
    }
    for (size_t i = 0; i < COUNT(number_rows); i++) {
        po_decref(numbers[i]);
    }
    CHECK(po_state_free(state, 2) == 0);
}

TEST(a_nan_is_equal_to_itself_only_and_hashes_by_itself) {
    po_state *const state = po_state_new();
    po_object *const a = po_float(state, NAN), *const b = po_float(state, NAN);
    CHECK(po_equal(a, a) == 1 && po_equal(a, b) == 0);
    CHECK(hash_of(a) == hash_of(a) && hash_of(a) != hash_of(b));
    po_decref(a);
    po_decref(b);
    CHECK(po_state_free(state, 2) == 0);
}

TEST(numbers_are_equal_to_nothing_else) {
    po_state *const state = po_state_new();
    po_object *const others[] = { PO_NONE, po_str(state, "1", 1), po_bytes(state, "1", 1),
                                  po_tuple(state, 0, NULL) };
    po_object *const numbers[] = { PO_TRUE, po_int(state, 1), po_float(state, 1), PO_FALSE };
    for (size_t i = 0; i < COUNT(others); i++) {
        for (size_t j = 0; j < COUNT(numbers); j++) {
            CHECK(po_equal(others[i], numbers[j]) == 0, "%zu and %zu", i, j);
            CHECK(po_equal(numbers[j], others[i]) == 0, "%zu and %zu", i, j);
        }
    }
    po_decref(others[2]);
    po_decref(numbers[2]);
    CHECK(po_state_free(state, 2) == 0);
}

TEST(random_integers_and_their_floats_agree_where_they_are_exact) {
    po_state *const state = po_state_new();
    for (unsigned i = 0; i < 20000; i++) {
        const int64_t value = (int64_t)random_word() >> (random_word() % 64);
        po_object *const integer = po_int(state, value);
        po_object *const number = po_float(state, (double)value);
        const bool exact = (__int128)(double)value == value;
        CHECK(po_int_value(integer) == value);
        CHECK(po_equal(integer, number) == exact, "%lld", (long long)value);
        CHECK((hash_of(integer) == hash_of(number)) == exact, "%lld", (long long)value);
        po_decref(integer);
        po_decref(number);
    }
    CHECK(po_state_free(state, 2) == 0);
}

TEST(an_integer_has_the_text_of_its_digits) {
    po_state *const state = po_state_new();
    static const int64_t edges[] = {
        0, 1, -1, 9, 10, -10, 99, 100, INT64_MAX, INT64_MIN, INT64_MIN + 1, INT32_MAX, INT32_MIN
    };
    for (unsigned i = 0; i < 5000; i++) {
        const int64_t value =
            i < COUNT(edges) ? edges[i] : (int64_t)random_word() >> (random_word() % 64);
        char expected[32];
        snprintf(expected, sizeof expected, "%lld", (long long)value);
        gives(state, po_int(state, value), expected);
    }
    CHECK(po_state_free(state, 2) == 0);
}

TEST(none_and_bools_have_their_names_as_text) {
    po_state *const state = po_state_new();
    gives(state, PO_NONE, "None");
    gives(state, PO_TRUE, "True");
    gives(state, PO_FALSE, "False");
    CHECK(po_bool(7) == PO_TRUE && po_bool(0) == PO_FALSE);
    CHECK(po_int_value(PO_TRUE) == 1 && po_int_value(PO_FALSE) == 0);
    CHECK(po_state_free(state, 2) == 0);
}

static const struct {
    double value;
    const char *text;
} float_rows[] = {
    { 0.0, "0.0" },
    { -0.0, "-0.0" },
    { 1.0, "1.0" },
    { -1.5, "-1.5" },
    { 0.1, "0.1" },
    { 0.1 + 0.2, "0.30000000000000004" },
    { 1.0 / 3, "0.3333333333333333" },
    { 100.0, "100.0" },
    { 123456789.125, "123456789.125" },
    { 0.0001, "0.0001" },
    { 0.00012345, "0.00012345" },
    { 0.00001, "1e-05" },
    { 0.000012345, "1.2345e-05" },
    { 1e15, "1000000000000000.0" },
    { 9999999999999998.0, "9999999999999998.0" },
    { 1e16, "1e+16" },
    { 12345678901234567890.0, "1.2345678901234567e+19" },
    { 1e22, "1e+22" },
    { 1e23, "1e+23" },
    { 9007199254740993.0, "9007199254740992.0" },
    { 0x1p-44, "5.684341886080802e-14" }, // the neighbours of a power of two are not as near
    { 0x1p60, "1.152921504606847e+18" },
    { 5e-324, "5e-324" },
    { 2.2250738585072014e-308, "2.2250738585072014e-308" },
    { 2.225073858507201e-308, "2.225073858507201e-308" },
    { 1.7976931348623157e308, "1.7976931348623157e+308" },
    { 1e100, "1e+100" },
    { 1e-100, "1e-100" },
    { 4.35, "4.35" },
    { 2.5e-5, "2.5e-05" },
    { INFINITY, "inf" },
    { -INFINITY, "-inf" },
    { NAN, "nan" },
    { -NAN, "nan" },
};

TEST(a_float_has_the_text_that_python_gives_it) {
    po_state *const state = po_state_new();
    for (size_t i = 0; i < COUNT(float_rows); i++) {
        gives(state, po_float(state, float_rows[i].value), float_rows[i].text);
    }
    CHECK(po_state_free(state, 2) == 0);
}

TEST(a_float_has_the_same_text_in_all_locales) {
    static const char *const names[] = { "de_DE.UTF-8", "de_DE", "fr_FR.UTF-8", "C.UTF-8" };
    po_state *const state = po_state_new();
    for (size_t i = 0; i < COUNT(names); i++) {
        if (setlocale(LC_ALL, names[i]) != NULL) {
            gives(state, po_float(state, 0.5), "0.5");
            gives(state, po_float(state, 1e-7), "1e-07");
        }
    }
    CHECK(po_state_free(state, 2) == 0);
}

// How many digits there are before an exponent, without zeros at either end.
static int digits_of(const char *text) {
    int count = 0, zeros = 0;
    for (; *text != 0 && *text != 'e'; text++) {
        if (*text == '0' && count > 0) {
            zeros++;
        } else if (*text >= '1' && *text <= '9') {
            count += zeros + 1;
            zeros = 0;
        }
    }
    return count;
}

TEST(the_text_of_a_float_reads_back_and_is_the_shortest_that_does) {
    po_state *const state = po_state_new();
    for (unsigned i = 0; i < 20000; i++) {
        const uint64_t bits = random_word();
        double value;
        memcpy(&value, &bits, sizeof value);
        if (!isfinite(value) || value == 0) {
            continue;
        }
        po_object *const number = po_float(state, value);
        const char *const text = repr_of(state, number);
        CHECK(strtod(text, NULL) == value, "%s for %a", text, value);
        const int digits = digits_of(text);
        CHECK(digits >= 1 && digits <= 17, "%s", text);
        if (digits > 1) {
            char shorter[40];
            snprintf(shorter, sizeof shorter, "%.*e", digits - 2, value);
            CHECK(strtod(shorter, NULL) != value, "%s is longer than %s", text, shorter);
        }
        po_decref(number);
    }
    CHECK(po_state_free(state, 2) == 0);
}

// --- What is shared ---------------------------------------------------------------------------

TEST(small_integers_are_shared_and_immortal_and_others_are_not) {
    po_state *const state = po_state_new(), *const other = po_state_new();
    for (int64_t value = -5; value <= 256; value++) {
        po_object *const integer = po_int(state, value);
        CHECK(integer == po_int(other, value) && po_int_value(integer) == value);
        CHECK(integer->type_ == PO_INT_ && (integer->count_ & PO_IMMORTAL_));
        CHECK(po_state_of(integer) == NULL);
    }
    static const int64_t mortal[] = { -6, 257, INT64_MIN, INT64_MAX };
    for (size_t i = 0; i < COUNT(mortal); i++) {
        po_object *const a = po_int(state, mortal[i]), *const b = po_int(state, mortal[i]);
        CHECK(a != b && a->count_ == 1 && po_state_of(a) == state);
        po_decref(a);
        po_decref(b);
    }
    CHECK(po_state_free(state, 2) == 0 && po_state_free(other, 2) == 0);
}

TEST(none_bools_empty_and_one_byte_texts_are_shared_and_immortal) {
    po_state *const state = po_state_new(), *const other = po_state_new();
    po_object *const constants[] = {
        PO_NONE, PO_TRUE, PO_FALSE, po_int(state, 0), po_str(state, "", 0), po_bytes(state, "", 0)
    };
    for (size_t i = 0; i < COUNT(constants); i++) {
        const uint32_t count = constants[i]->count_;
        for (unsigned step = 0; step < 300; step++) {
            step < 100 ? (void)po_incref(constants[i]) : po_decref(constants[i]);
        }
        CHECK(constants[i]->count_ == count && (count & PO_IMMORTAL_), "constant %zu", i);
        CHECK(po_state_of(constants[i]) == NULL, "constant %zu", i);
    }
    CHECK(po_str(other, NULL, 0) == constants[4] && po_str_intern(state, "", 0) == constants[4]);
    CHECK(po_bytes(other, NULL, 0) == constants[5]);
    CHECK(po_str_size(constants[4]) == 0 && *po_str_data(constants[4]) == 0);
    for (unsigned i = 0; i < 128; i++) {
        const char text = (char)i;
        po_object *const str = po_str(state, &text, 1);
        CHECK(str == po_str(other, &text, 1) && str == po_str_intern(state, &text, 1), "%u", i);
        CHECK((str->count_ & PO_IMMORTAL_) && po_str_size(str) == 1 && po_str_length(str) == 1);
        CHECK(po_str_data(str)[0] == text && po_str_data(str)[1] == 0, "%u", i);
        CHECK(hash_of(str) == po_hash_bytes(&text, 1), "%u", i);
    }
    po_object *const a = po_bytes(state, "a", 1), *const b = po_bytes(state, "a", 1);
    CHECK(a != b && a->count_ == 1);
    po_decref(a);
    po_decref(b);
    CHECK(po_state_free(state, 2) == 0 && po_state_free(other, 2) == 0);
}

// --- UTF-8 ------------------------------------------------------------------------------------

static size_t encode(uint32_t point, unsigned size, unsigned char *to) {
    static const unsigned char leads[] = { 0, 0, 0xC0, 0xE0, 0xF0 };
    for (unsigned i = size; i-- > 1; point >>= 6) {
        to[i] = (unsigned char)(0x80 | (point & 0x3F));
    }
    to[0] = (unsigned char)(leads[size] | point);
    return size;
}

static unsigned size_of(uint32_t point) {
    return point < 0x80 ? 1 : point < 0x800 ? 2 : point < 0x10000 ? 3 : 4;
}

// Slow and plain: each piece is what some code point is encoded as. Code points, or -1.
static long points_of(const unsigned char *at, size_t n) {
    long points = 0;
    for (size_t size; n > 0; at += size, n -= size, points++) {
        size = at[0] < 0x80 ? 1 : at[0] < 0xE0 ? 2 : at[0] < 0xF0 ? 3 : 4;
        if (size > n) {
            return -1;
        }
        uint32_t point = size == 1 ? at[0] : at[0] & (0x7FU >> size);
        for (size_t i = 1; i < size; i++) {
            point = point << 6 | (at[i] & 0x3FU);
        }
        unsigned char again[4] = { 0 };
        if (point > 0x10FFFF || (point >= 0xD800 && point <= 0xDFFF) || size_of(point) != size ||
            encode(point, (unsigned)size, again) != size || memcmp(again, at, size) != 0) {
            return -1;
        }
    }
    return points;
}

static void check_text(po_state *state, const unsigned char *text, size_t n) {
    const long points = points_of(text, n);
    po_object *const str = po_str(state, (const char *)text, n);
    CHECK((str != NULL) == (points >= 0), "%02x %02x ... of %zu", text[0], text[n > 1], n);
    if (str != NULL) {
        CHECK(po_str_size(str) == n && (long)po_str_length(str) == points);
        CHECK(memcmp(po_str_data(str), text, n) == 0 && po_str_data(str)[n] == 0);
        po_decref(str);
    } else {
        CHECK(last_is(PO_BAD_TEXT));
    }
}

TEST(every_code_point_but_surrogates_is_a_text_of_length_one) {
    po_state *const state = po_state_new();
    for (uint32_t point = 0; point < 0x110000; point++) {
        unsigned char text[4];
        const size_t size = encode(point, size_of(point), text);
        po_object *const str = po_str(state, (const char *)text, size);
        CHECK((str != NULL) == (point < 0xD800 || point > 0xDFFF), "U+%04X", point);
        CHECK(str == NULL || po_str_length(str) == 1, "U+%04X", point);
        po_decref(str);
    }
    CHECK(po_state_free(state, 2) == 0);
}

TEST(only_valid_utf8_becomes_a_text) {
    static const unsigned char edges[] = { 0x00, 0x41, 0x7F, 0x80, 0x8F, 0x90, 0x9F,
                                           0xA0, 0xBF, 0xC0, 0xC2, 0xE0, 0xED, 0xFF };
    po_state *const state = po_state_new();
    for (unsigned first = 0; first < 256; first++) {
        check_text(state, (const unsigned char[]){ (unsigned char)first }, 1);
        for (unsigned second = 0; second < 256; second++) {
            unsigned char text[4] = { (unsigned char)first, (unsigned char)second };
            check_text(state, text, 2);
            for (unsigned i = 0; i < COUNT(edges); i++) {
                text[2] = edges[i];
                check_text(state, text, 3);
                for (unsigned j = 0; j < COUNT(edges) && first >= 0xE0; j++) {
                    text[3] = edges[j];
                    check_text(state, text, 4);
                }
            }
        }
    }
    CHECK(po_state_free(state, 2) == 0);
}

static const char *const good_texts[] = {
    "\x7F",         "\xC2\x80",         "\xDF\xBF",         "\xE0\xA0\x80",     "\xED\x9F\xBF",
    "\xEE\x80\x80", "\xEF\xBF\xBF",     "\xF0\x90\x80\x80", "\xF4\x8F\xBF\xBF", "\xC3\xA4",
    "\xE2\x82\xAC", "\xF0\x9F\x98\x80",
};
static const char *const bad_texts[] = {
    "\x80",
    "\xBF",
    "\xC0\x80",
    "\xC1\xBF",
    "\xC2",
    "\xC2\x41",
    "\xE0\x9F\xBF",
    "\xE0\x80\x80",
    "\xE2\x82",
    "\xE2\x41\x80",
    "\xED\xA0\x80",
    "\xED\xBF\xBF",
    "\xF0\x8F\xBF\xBF",
    "\xF0\x9F\x98",
    "\xF4\x90\x80\x80",
    "\xF5\x80\x80\x80",
    "\xF8\x88\x80\x80\x80",
    "\xFE",
    "\xFF",
    "\xF0\x9F\x98\x41",
};

// In a block that ends where the text does.
static po_object *str_between(po_state *state, size_t before, const char *piece, size_t after) {
    const size_t size = strlen(piece), n = before + size + after;
    char *const text = malloc(n);
    memset(text, 'x', n);
    memcpy(text + before, piece, size);
    po_object *const str = po_str(state, text, n);
    CHECK(str == NULL || memcmp(po_str_data(str), text, n) == 0);
    free(text);
    return str;
}

TEST(what_is_not_ascii_is_found_at_every_place) {
    po_state *const state = po_state_new();
    for (size_t before = 0; before < 20; before++) {
        for (size_t after = 0; after < 20; after++) {
            for (size_t i = 0; i < COUNT(good_texts); i++) {
                po_object *const str = str_between(state, before, good_texts[i], after);
                CHECK(str != NULL, "text %zu, %zu before, %zu after", i, before, after);
                CHECK(po_str_length(str) == before + 1 + after);
                po_decref(str);
            }
            for (size_t i = 0; i < COUNT(bad_texts); i++) {
                CHECK(str_between(state, before, bad_texts[i], after) == NULL,
                      "text %zu, %zu before, %zu after", i, before, after);
                CHECK(last_is(PO_BAD_TEXT));
            }
        }
    }
    CHECK(po_state_free(state, 2) == 0);
}

TEST(random_bytes_are_judged_as_by_the_plain_oracle) {
    static const unsigned char some[] = { 'a',  'b',  'c',  0x80, 0x9F, 0xA0, 0xBF,
                                          0xC3, 0xE2, 0xE0, 0xED, 0xF0, 0xF4, 0x90 };
    po_state *const state = po_state_new();
    for (unsigned i = 0; i < 200000; i++) {
        unsigned char text[24];
        size_t n = 0;
        while (n < 20 && random_word() % 16 != 0) {
            if (random_word() % 8 == 0) {
                text[n++] = some[random_word() % COUNT(some)];
            } else {
                const uint32_t point = (uint32_t)(random_word() % 0x110000) >> random_word() % 20;
                n += encode(point, size_of(point), text + n);
            }
        }
        check_text(state, text, n);
    }
    CHECK(po_state_free(state, 2) == 0);
}

TEST(a_text_may_hold_zeros) {
    po_state *const state = po_state_new();
    po_object *const str = po_str(state, "a\0b\0", 4);
    CHECK(po_str_size(str) == 4 && memcmp(po_str_data(str), "a\0b\0", 5) == 0);
    gives(state, str, "'a\\x00b\\x00'");
    CHECK(po_state_free(state, 2) == 0);
}

// --- Text of texts ----------------------------------------------------------------------------

TEST(a_str_has_the_text_that_python_gives_it) {
    static const struct {
        const char *data, *text;
    } rows[] = {
        { "", "''" },
        { "plain", "'plain'" },
        { "it's", "\"it's\"" },
        { "say \"so\"", "'say \"so\"'" },
        { "it's \"so\"", "'it\\'s \"so\"'" },
        { "a\\b", "'a\\\\b'" },
        { "\t\n\r", "'\\t\\n\\r'" },
        { "\x01\x1f\x7f", "'\\x01\\x1f\\x7f'" },
        { " ~", "' ~'" },
        { "\xC2\x80\xC2\x9F", "'\\x80\\x9f'" },
        { "\xC2\xA0\xC2\xA1\xC2\xAD\xC2\xAE", "'\\xa0\xC2\xA1\\xad\xC2\xAE'" },
        { "\xC3\xA4\xE2\x82\xAC\xF0\x9F\x98\x80", "'\xC3\xA4\xE2\x82\xAC\xF0\x9F\x98\x80'" },
        { "\xE2\x80\xA8\xEF\xBB\xBF", "'\\u2028\\ufeff'" },
        { "\xEE\x80\x80", "'\\ue000'" },
        { "\xF3\xA0\x80\x81\xF4\x8F\xBF\xBD", "'\\U000e0001\\U0010fffd'" },
        { "x\ny'z", "\"x\\ny'z\"" },
    };
    po_state *const state = po_state_new();
    for (size_t i = 0; i < COUNT(rows); i++) {
        gives(state, po_str(state, rows[i].data, strlen(rows[i].data)), rows[i].text);
    }
    CHECK(po_state_free(state, 2) == 0);
}

TEST(bytes_have_the_text_that_python_gives_them) {
    static const struct {
        const char *data, *text;
    } rows[] = {
        { "", "b''" },
        { "plain", "b'plain'" },
        { "it's", "b\"it's\"" },
        { "it's \"so\"", "b'it\\'s \"so\"'" },
        { "\\\t\n\r\v", "b'\\\\\\t\\n\\r\\x0b'" },
        { " ~\x7f\x80\xff", "b' ~\\x7f\\x80\\xff'" },
    };
    po_state *const state = po_state_new();
    for (size_t i = 0; i < COUNT(rows); i++) {
        gives(state, po_bytes(state, rows[i].data, strlen(rows[i].data)), rows[i].text);
    }
    gives(state, po_bytes(state, "\0", 1), "b'\\x00'");
    CHECK(po_state_free(state, 2) == 0);
}

// As repr writes a character of ASCII in a text with both quotes.
static const char *format_of(char character) {
    switch (character) {
    case '\n': return "\\n";
    case '\r': return "\\r";
    case '\t': return "\\t";
    case '\\': return "\\\\";
    case '\'': return "\\'";
    default: return character < ' ' || character == 0x7F ? "\\x%02x" : "%c";
    }
}

TEST(a_text_of_many_pieces_is_whole) {
    enum { SIZE = 900 };
    char data[SIZE] = "\"'", expected[4 * SIZE + 3] = "'";
    po_state *const state = po_state_new();
    size_t at = 1;
    for (size_t i = 0; i < SIZE; i++) {
        data[i] = i < 2 ? data[i] : (char)(random_word() % 128);
        const char *const format = format_of(data[i]);
        at += (size_t)snprintf(expected + at, sizeof expected - at, format, data[i]);
    }
    expected[at] = '\'';
    gives(state, po_str(state, data, SIZE), expected);
    CHECK(po_state_free(state, 2) == 0);
}

// --- Equal texts, hashes ----------------------------------------------------------------------

TEST(texts_are_equal_by_content_and_hash_alike) {
    enum { SIZE_MAX_ = 40 };
    char data[SIZE_MAX_];
    po_state *const state = po_state_new();
    for (size_t n = 2; n < SIZE_MAX_; n++) {
        memset(data, 'a', n);
        po_object *const str = po_str(state, data, n), *const same = po_str(state, data, n);
        po_object *const bytes = po_bytes(state, data, n), *const alike = po_bytes(state, data, n);
        CHECK(str != same && bytes != alike);
        CHECK(po_equal(str, same) == 1 && po_equal(bytes, alike) == 1);
        CHECK(po_equal(str, bytes) == 0 && po_equal(bytes, str) == 0);
        CHECK(hash_of(str) == hash_of(same) && hash_of(bytes) == hash_of(alike));
        CHECK(hash_of(str) == hash_of(str));
        CHECK(po_equal(str, same) == 1 && po_equal(bytes, alike) == 1, "hashes known");
        for (size_t i = 0; i < n; i++) {
            data[i] = 'b';
            po_object *const other = po_str(state, data, n), *const others =
                                                                 po_bytes(state, data, n);
            data[i] = 'a';
            CHECK(po_equal(str, other) == 0 && po_equal(bytes, others) == 0, "%zu of %zu", i, n);
            CHECK(hash_of(str) != hash_of(other) && hash_of(bytes) != hash_of(others));
            CHECK(po_equal(str, other) == 0 && po_equal(bytes, others) == 0, "hashes known");
            po_decref(other);
            po_decref(others);
        }
        po_object *const shorter = po_str(state, data, n - 1);
        po_object *const fewer = po_bytes(state, data, n - 1);
        CHECK(po_equal(str, shorter) == 0 && po_equal(shorter, str) == 0);
        CHECK(po_equal(bytes, fewer) == 0 && po_equal(fewer, bytes) == 0);
        CHECK(hash_of(str) != hash_of(shorter) && hash_of(bytes) != hash_of(fewer));
        po_decref(shorter);
        po_decref(fewer);
        po_decref(str);
        po_decref(same);
        po_decref(bytes);
        po_decref(alike);
    }
    CHECK(po_state_free(state, 2) == 0);
}

// Keys that anybody can name without knowing the key of the hashes.
TEST(what_looks_alike_has_hashes_of_its_own) {
    po_state *const state = po_state_new();
    po_object *const zero = po_int(state, 0), *const one = po_int(state, 1);
    po_object *const two = po_int(state, 2), *const three = po_int(state, 3);
    po_object *const empty = po_tuple(state, 0, NULL);
    po_object *const objects[] = {
        zero,
        one,
        two,
        three,
        PO_NONE,
        empty,
        po_str(state, "ab", 2),
        po_bytes(state, "ab", 2),
        po_tuple(state, 1, (po_object *[]){ zero }),
        po_tuple(state, 1, (po_object *[]){ one }),
        po_tuple(state, 1, (po_object *[]){ empty }),
        po_tuple(state, 3, (po_object *[]){ three, zero, zero }),
        po_tuple(state, 3, (po_object *[]){ three, zero, one }),
        po_tuple(state, 3, (po_object *[]){ three, one, zero }),
        po_tuple(state, 3, (po_object *[]){ one, two, three }),
        po_tuple(state, 3, (po_object *[]){ three, two, one }),
    };
    enum { COUNT = sizeof objects / sizeof *objects };
    for (unsigned i = 0; i < COUNT; i++) {
        for (unsigned j = 0; j < i; j++) {
            CHECK(hash_of(objects[i]) != hash_of(objects[j]), "%u, %u", i, j);
        }
    }
    for (unsigned i = 0; i < COUNT; i++) {
        po_decref(objects[i]);
    }
    CHECK(po_state_free(state, 2) == 0);
}

TEST(a_hash_depends_on_each_bit_and_on_the_size) {
    enum { SIZE = 64 };
    unsigned char data[SIZE];
    uint64_t zeros[SIZE + 1];
    for (size_t n = 0; n <= SIZE; n++) {
        memset(data, 0, SIZE);
        zeros[n] = po_hash_bytes(data, n);
        CHECK(zeros[n] != 0 && (n == 0 || zeros[n] != zeros[n - 1]));
        for (size_t bit = 0; bit < 8 * n; bit++) {
            data[bit / 8] ^= (unsigned char)(1 << bit % 8);
            CHECK(po_hash_bytes(data, n) != zeros[n], "bit %zu of %zu bytes", bit, n);
            data[bit / 8] = 0;
        }
    }
}

// Each bit of a word changes about half of the bits of its hash, the lowest and highest too.
TEST(the_hash_of_a_word_mixes_all_bits) {
    enum { ROUNDS = 400 };
    for (unsigned bit = 0; bit < 64; bit++) {
        unsigned changed[64] = { 0 };
        for (unsigned i = 0; i < ROUNDS; i++) {
            const uint64_t word = i < 200 ? i : random_word();
            const uint64_t difference =
                po_hash_word(word) ^ po_hash_word(word ^ UINT64_C(1) << bit);
            for (unsigned j = 0; j < 64; j++) {
                changed[j] += difference >> j & 1;
            }
        }
        for (unsigned j = 0; j < 64; j++) {
            CHECK(changed[j] > ROUNDS / 5 && changed[j] < ROUNDS - ROUNDS / 5, "%u to %u: %u", bit,
                  j, changed[j]);
        }
    }
}

// --- The seed ---------------------------------------------------------------------------------

#define CHILD "VALUES_TEST_PRINTS_HASHES"

enum { KNOWN = 24 };

// What a process started with a seed prints, and nothing else.
__attribute__((constructor(65000))) static void print_hashes(void) {
    if (getenv(CHILD) == NULL) {
        return;
    }
    unsigned char data[KNOWN];
    po_state *const state = po_state_new();
    for (unsigned n = 1; n <= KNOWN; n++) {
        data[n - 1] = (unsigned char)(n - 1);
        printf("%016llx\n", (unsigned long long)po_hash_bytes(data, n));
    }
    po_object *const objects[] = { PO_NONE,
                                   PO_TRUE,
                                   po_int(state, -1),
                                   po_float(state, 0.5),
                                   po_str(state, "", 0),
                                   po_str(state, "text", 4) };
    for (size_t i = 0; i < COUNT(objects); i++) {
        printf("%016llx\n", (unsigned long long)hash_of(objects[i]));
    }
    fflush(stdout);
    _exit(0);
}

struct printed {
    char out[4096], err[4096];
};

static void read_all(int fd, char *to, size_t size) {
    size_t at = 0;
    for (ssize_t n; at + 1 < size && (n = read(fd, to + at, size - 1 - at)) > 0;) {
        at += (size_t)n;
    }
    to[at] = 0;
    close(fd);
}

// Hashes of a new process. What it prints fits into two pipes.
static void run_with_seed(const char *seed, struct printed *to) {
    int out[2], err[2];
    CHECK(pipe(out) == 0 && pipe(err) == 0);
    fflush(NULL);
    const pid_t child = fork();
    if (child == 0) {
        dup2(out[1], 1);
        dup2(err[1], 2);
        setenv(CHILD, "1", 1);
        seed != NULL ? setenv("POOLOBJECT_HASHSEED", seed, 1) : unsetenv("POOLOBJECT_HASHSEED");
        execl("/proc/self/exe", "values", (char *)NULL);
        _exit(127);
    }
    close(out[1]);
    close(err[1]);
    read_all(out[0], to->out, sizeof to->out);
    read_all(err[0], to->err, sizeof to->err);
    int status = -1;
    CHECK(waitpid(child, &status, 0) == child && status == 0, "%s", to->err);
}

TEST(without_a_seed_hashes_differ_from_run_to_run) {
    struct printed a, b;
    run_with_seed(NULL, &a);
    run_with_seed(NULL, &b);
    CHECK(a.out[0] != 0 && *a.err == 0 && *b.err == 0);
    CHECK(strcmp(a.out, b.out) != 0);
}

TEST(a_seed_repeats_its_hashes_and_differs_from_others) {
    static const char *const seeds[] = { "0", "1", "2", "42", "18446744073709551615" };
    static struct printed first[COUNT(seeds)], again;
    for (size_t i = 0; i < COUNT(seeds); i++) {
        run_with_seed(seeds[i], &first[i]);
        run_with_seed(seeds[i], &again);
        CHECK(*first[i].err == 0 && strlen(first[i].out) == (KNOWN + 6) * 17);
        CHECK(strcmp(first[i].out, again.out) == 0, "seed %s", seeds[i]);
        for (size_t j = 0; j < i; j++) {
            CHECK(strcmp(first[i].out, first[j].out) != 0, "%s and %s", seeds[i], seeds[j]);
        }
    }
}

TEST(a_bad_seed_is_named_in_one_line_and_hashes_are_random) {
    static const char *const seeds[] = {
        "random", "-1", " 5", "5 ", "0x10", "18446744073709551616", "99999999999999999999999"
    };
    for (size_t i = 0; i < COUNT(seeds); i++) {
        struct printed a, b;
        run_with_seed(seeds[i], &a);
        run_with_seed(seeds[i], &b);
        char named[64];
        snprintf(named, sizeof named, "POOLOBJECT_HASHSEED=%s:", seeds[i]);
        CHECK(strstr(a.err, named) != NULL, "%s", a.err);
        CHECK(strchr(a.err, '\n') == a.err + strlen(a.err) - 1, "%s", a.err);
        CHECK(strcmp(a.out, b.out) != 0, "seed %s", seeds[i]);
    }
    struct printed empty;
    run_with_seed("", &empty);
    CHECK(*empty.err == 0);
}

// As python3.11 prints them: PYTHONHASHSEED=0, hash(bytes(range(n))) for n from 1, modulo 2**64.
TEST(under_the_seed_0_bytes_hash_as_in_python) {
    static const uint64_t known[KNOWN] = {
        0x68a914128e01e473, 0x010bac45c41e3669, 0x4d4c9a4a8ef6e0ad, 0x7cc43f98813e4dbd,
        0x5abe2169dff36275, 0xe3c25f87624f1cdb, 0x2f098ab0c751325a, 0xead411e67ebe2eea,
        0x75927f9d95124362, 0xaf9f77a65ab51a1d, 0xfe64ce8b6617fcff, 0xa6baf4fb0f9fe1c2,
        0xa0cf3211850f8e0d, 0x7f86049379fbfe67, 0xf30eb725bb91c9ea, 0x8972188433a5c5b7,
        0x4883c49a2c009c1d, 0xadc2c0b63044067d, 0x091f4a3329f87d19, 0x639e355ae68c0100,
        0xb17bef2cb5213239, 0xf8aeb1066236ccfe, 0x37332b1389daa4ff, 0x31185a47af932f3a,
    };
    struct printed printed;
    run_with_seed("0", &printed);
    const char *at = printed.out;
    for (unsigned i = 0; i < KNOWN; i++) {
        char *end;
        CHECK(strtoull(at, &end, 16) == known[i], "%u bytes", i + 1);
        at = end;
    }
}

// --- Interned texts ---------------------------------------------------------------------------

TEST(an_interned_text_is_one_object_as_long_as_somebody_holds_it) {
    po_state *const state = po_state_new(), *const other = po_state_new();
    po_object *const a = po_str_intern(state, "name", 4);
    po_object *const b = po_str_intern(state, "name", 4);
    po_object *const far = po_str_intern(other, "name", 4), *const plain = po_str(state, "name", 4);
    CHECK(a == b && a->count_ == 2, "the table holds no reference");
    CHECK(a != far && a != plain && po_equal(a, plain) == 1 && hash_of(a) == hash_of(plain));
    CHECK((a->flags_ & PO_INTERNED) && !(plain->flags_ & PO_INTERNED));
    CHECK(po_str_intern(state, "nam", 3) != a && state->interned.used == 2);
    po_decref(a);
    CHECK(po_str_intern(state, "name", 4) == b && b->count_ == 2);
    po_decref(b);
    po_decref(b);
    CHECK(state->interned.used == 1, "it is mortal");
    po_object *const again = po_str_intern(state, "name", 4);
    CHECK(again->count_ == 1 && state->interned.used == 2);
    po_decref(again);
    po_decref(plain);
    po_decref(far);
    CHECK(po_state_free(state, -1) == 1 && po_state_free(other, 2) == 0);
}

static po_object *intern_number(po_state *state, size_t i) {
    char text[32];
    return po_str_intern(state, text, (size_t)snprintf(text, sizeof text, "number %zu", i));
}

TEST(a_full_collection_makes_the_table_of_interned_texts_fit) {
    enum { TEXTS = 5000, KEPT = 20 };
    static po_object *held[TEXTS];
    po_state *const state = po_state_new();
    for (unsigned round = 0; round < 2; round++) {
        for (size_t i = 0; i < TEXTS; i++) {
            held[i] = intern_number(state, i);
            CHECK(held[i] != NULL);
        }
        const size_t full = state->interned.room;
        for (size_t i = KEPT; i < TEXTS; i++) {
            po_decref(held[i]);
        }
        CHECK(state->interned.room == full && full >= 2 * (size_t)TEXTS);
        po_gc_collect(state, PO_GEN_OLD);
        CHECK(state->interned.room == 64 && state->interned.used == KEPT);
        for (size_t i = 0; i < KEPT; i++) {
            CHECK(intern_number(state, i) == held[i] && held[i]->count_ == 2);
            po_decref(held[i]);
            po_decref(held[i]);
        }
        CHECK(state->interned.used == 0);
    }
    CHECK(po_state_free(state, 2) == 0);
}

TEST(a_full_collection_makes_the_table_of_weak_references_fit) {
    enum { TARGETS = 3000, KEPT = 5 };
    static po_object *targets[TARGETS], *weak[TARGETS];
    po_state *const state = po_state_new();
    po_object *held;
    for (size_t i = 0; i < TARGETS; i++) {
        targets[i] = po_list(state);
        weak[i] = po_weakref(state, targets[i], NULL, NULL);
        CHECK(weak[i] != NULL);
    }
    const size_t full = state->weak.room;
    for (size_t i = KEPT; i < TARGETS; i++) {
        po_decref(targets[i]);
        CHECK(po_weakref_get(weak[i], &held) == 0);
        po_decref(weak[i]);
    }
    CHECK(state->weak.room == full && full >= 2 * (size_t)TARGETS && state->weak.used == KEPT);
    po_gc_collect(state, PO_GEN_OLD);
    CHECK(state->weak.room < 8 * KEPT && state->weak.used == KEPT);
    for (size_t i = 0; i < KEPT; i++) {
        CHECK(po_weakref_get(weak[i], &held) == 1 && held == targets[i]);
        po_decref(held);
        po_decref(weak[i]);
        po_decref(targets[i]);
    }
    CHECK(state->weak.used == 0 && po_state_free(state, 2) == 0);
}

TEST(a_full_collection_makes_the_vector_of_young_objects_fit) {
    enum { LISTS = 100000 };
    static po_object *lists[LISTS];
    po_state *const state = po_state_new();
    const struct po_gc_config off = { PO_GC_OFF, { 700, 10, 10 } };
    CHECK(po_gc_configure(state, &off) == 0);
    for (size_t i = 0; i < LISTS; i++) {
        lists[i] = po_list(state);
    }
    CHECK(state->young_room >= LISTS);
    for (size_t i = 1; i < LISTS; i++) {
        po_decref(lists[i]);
    }
    po_gc_collect(state, 0);
    CHECK(state->young_room >= LISTS, "young collections are quick");
    po_gc_collect(state, PO_GEN_OLD);
    CHECK(state->young_room < 1000);
    po_decref(lists[0]);
    CHECK(po_state_free(state, 2) == 0);
}

TEST(an_interned_text_is_proved_as_any_other) {
    po_state *const state = po_state_new();
    CHECK(po_str_intern(state, "ab\xFF", 3) == NULL && last_is(PO_BAD_TEXT));
    CHECK(po_str_intern(state, "\xFF", 1) == NULL && last_is(PO_BAD_TEXT));
    CHECK(po_str_intern(state, NULL, 3) == NULL && last_is(PO_WRONG_TYPE));
    CHECK(po_str_intern(state, "x", (size_t)UINT32_MAX + 1) == NULL && last_is(PO_NO_MEMORY));
    CHECK(state->interned.used == 0);
    po_object *const str = po_str_intern(state, "\xC3\xA4\xC3\xB6", 4);
    CHECK(po_str_length(str) == 2 && po_str_size(str) == 4);
    po_decref(str);
    CHECK(po_state_free(state, 2) == 0);
}

// Thousands in and out in random order, against an array that knows who must be there.
TEST(interned_texts_come_and_go_in_any_order) {
    enum { TEXTS = 6000, STEPS = 300000 };
    static po_object *held[TEXTS];
    static unsigned counts[TEXTS];
    po_state *const state = po_state_new();
    size_t used = 0;
    for (unsigned step = 0; step < STEPS; step++) {
        // Waves, so that the table fills and empties.
        const bool in = random_word() % 8 < (step / 20000 % 2 == 0 ? 6U : 2U);
        const size_t i = random_word() % TEXTS;
        char text[32];
        const size_t n = (size_t)snprintf(text, sizeof text, "text %zu", i * i);
        if (in) {
            po_object *const str = po_str_intern(state, text, n);
            CHECK(str != NULL && (counts[i] == 0 || str == held[i]), "%s", text);
            CHECK(po_str_size(str) == n && memcmp(po_str_data(str), text, n) == 0);
            used += counts[i] == 0;
            held[i] = str;
            counts[i]++;
        } else if (counts[i] > 0) {
            po_decref(held[i]);
            counts[i]--;
            used -= counts[i] == 0;
        }
        CHECK(counts[i] == 0 || held[i]->count_ == counts[i]);
        CHECK(state->interned.used == used && 2 * used <= state->interned.room);
    }
    for (size_t i = 0; i < TEXTS; i++) {
        for (; counts[i] > 0; counts[i]--) {
            po_decref(held[i]);
        }
    }
    CHECK(state->interned.used == 0);
    for (size_t i = 0; i < state->interned.room; i++) {
        CHECK(state->interned.entry[i] == NULL);
    }
    CHECK(po_state_free(state, 2) == 0);
}

// --- Types of the program ---------------------------------------------------------------------

// Holds one object, and does with it what is done to the box itself.
struct box {
    PO_HEAD;
    po_object *held;
};

static int box_traverse(const po_object *self, po_visit visit, void *argument) {
    PO_VISIT(((const struct box *)self)->held);
    return 0;
}

static void box_clear(po_object *self) {
    po_clear(&((struct box *)self)->held);
}

static int box_equal(po_object *self, po_object *other) {
    return po_equal(((struct box *)self)->held, ((struct box *)other)->held);
}

static int box_hash(po_object *self, uint64_t *to) {
    return po_hash(((struct box *)self)->held, to);
}

static int box_repr(po_object *self, po_text *to) {
    return po_text_add(to, "<", 1) < 0 || po_text_repr(to, ((struct box *)self)->held) < 0
               ? -1
               : po_text_add(to, ">", 1);
}

#define BOX_TYPE(type_name) \
    .name = type_name, .size = sizeof(struct box), .traverse = box_traverse, .clear = box_clear
#define BOX_DERIVED(type_name, of) .name = type_name, .size = sizeof(struct box), .base = of

static po_type bare_type = { BOX_TYPE("bare") };
static po_type box_type = { BOX_TYPE("box"), .equal = box_equal, .hash = box_hash,
                            .repr = box_repr };

static po_object *box_of(po_state *state, po_type *type, po_object *taken) {
    po_object *const box = po_new(state, type);
    CHECK(box != NULL, "%s", po_error_last().text);
    ((struct box *)box)->held = taken;
    return box;
}

static po_object *boxes_of(po_state *state, unsigned levels) {
    po_object *made = PO_NONE;
    for (; levels > 0; levels--) {
        made = box_of(state, &box_type, made);
    }
    return made;
}

TEST(an_object_without_slots_is_itself_only_and_tells_its_address) {
    po_state *const state = po_state_new();
    po_object *const a = box_of(state, &bare_type, NULL), *const b =
                                                              box_of(state, &bare_type, NULL);
    CHECK(po_equal(a, a) == 1 && po_equal(a, b) == 0 && po_equal(a, PO_NONE) == 0);
    CHECK(hash_of(a) == hash_of(a) && hash_of(a) != hash_of(b));
    char expected[64];
    snprintf(expected, sizeof expected, "<bare object at %p>", (void *)a);
    gives(state, a, expected);
    po_decref(b);
    CHECK(po_state_free(state, 2) == 0);
}

TEST(slots_of_the_program_serve) {
    po_state *const state = po_state_new();
    po_object *const a = box_of(state, &box_type, po_int(state, 1000));
    po_object *const b = box_of(state, &box_type, po_float(state, 1000));
    po_object *const c = box_of(state, &box_type, po_int(state, 1001));
    CHECK(po_equal(a, b) == 1 && hash_of(a) == hash_of(b) && po_equal(a, c) == 0);
    CHECK(po_equal(a, ((struct box *)a)->held) == 0 && po_equal(PO_NONE, a) == 0);
    gives(state, a, "<1000>");
    po_decref(b);
    po_decref(c);
    CHECK(po_state_free(state, 2) == 0);
}

static int never(po_object *self, po_object *other) {
    (void)self, (void)other;
    return 0;
}

TEST(an_equal_serves_the_types_that_have_it_from_the_same_one) {
    static po_type child = { BOX_DERIVED("child", &box_type) };
    static po_type sibling = { BOX_DERIVED("sibling", &box_type) };
    static po_type grandchild = { BOX_DERIVED("grandchild", &child) };
    static po_type strict = { BOX_DERIVED("strict", &box_type), .equal = never };
    static po_type stranger = { BOX_TYPE("stranger"), .equal = box_equal, .hash = box_hash };
    po_type *const types[] = { &box_type, &child, &sibling, &grandchild, &strict, &stranger };
    po_state *const state = po_state_new();
    po_object *boxes[COUNT(types)];
    for (size_t i = 0; i < COUNT(types); i++) {
        boxes[i] = box_of(state, types[i], PO_TRUE);
    }
    for (size_t i = 0; i < COUNT(types); i++) {
        for (size_t j = 0; j < COUNT(types); j++) {
            CHECK(po_equal(boxes[i], boxes[j]) == (i == j || (i < 4 && j < 4)), "%zu, %zu", i, j);
        }
    }
    gives(state, po_incref(boxes[3]), "<True>");
    uint64_t hash;
    CHECK(po_hash(boxes[4], &hash) == -1 && last_is(PO_UNHASHABLE));
    for (size_t i = 0; i < COUNT(types); i++) {
        po_decref(boxes[i]);
    }
    CHECK(po_state_free(state, 2) == 0);
}

static struct box *variable;

// Drops the last references that its caller knows of.
static int dropping_equal(po_object *self, po_object *other) {
    po_clear(&variable->held);
    return self->type_ == other->type_;
}

static int dropping_hash(po_object *self, uint64_t *to) {
    po_clear(&variable->held);
    *to = self->type_;
    return 0;
}

static int dropping_repr(po_object *self, po_text *to) {
    po_clear(&variable->held);
    return po_text_add(to, po_type_of(self)->name, 8);
}

TEST(an_object_lasts_while_its_slot_runs) {
    static po_type type = { BOX_TYPE("dropping"), .equal = dropping_equal, .hash = dropping_hash,
                            .repr = dropping_repr };
    po_state *const state = po_state_new();
    po_object *const owner = box_of(state, &bare_type, NULL);
    po_object *const other = box_of(state, &type, NULL);
    variable = (struct box *)owner;
    uint64_t hash;
    variable->held = box_of(state, &type, NULL);
    CHECK(po_equal(variable->held, other) == 1 && variable->held == NULL);
    variable->held = box_of(state, &type, NULL);
    CHECK(po_equal(other, variable->held) == 1 && variable->held == NULL);
    variable->held = box_of(state, &type, NULL);
    CHECK(po_hash(variable->held, &hash) == 0 && variable->held == NULL);
    variable->held = box_of(state, &type, NULL);
    gives(state, po_repr(state, variable->held), "'dropping'");
    CHECK(variable->held == NULL);
    po_decref(other);
    po_decref(owner);
    CHECK(po_state_free(state, 2) == 0);
}

// --- Depth ------------------------------------------------------------------------------------

TEST(nesting_beyond_the_limit_is_an_error_and_leaves_no_trace) {
    po_state *const state = po_state_new();
    for (unsigned round = 0; round < 3; round++) {
        for (unsigned levels = PO_DEPTH_MAX - 1; levels <= PO_DEPTH_MAX + 1; levels++) {
            po_object *const a = boxes_of(state, levels), *const b = boxes_of(state, levels);
            const bool fits = levels <= PO_DEPTH_MAX;
            uint64_t hash;
            po_restore_error((struct po_error){ PO_OK, NULL });
            CHECK(po_equal(a, b) == (fits ? 1 : -1) && last_is(fits ? PO_OK : PO_TOO_DEEP));
            po_restore_error((struct po_error){ PO_OK, NULL });
            CHECK(po_hash(a, &hash) == (fits ? 0 : -1) && last_is(fits ? PO_OK : PO_TOO_DEEP));
            po_restore_error((struct po_error){ PO_OK, NULL });
            po_object *const repr = po_repr(state, a);
            CHECK((repr != NULL) == fits && last_is(fits ? PO_OK : PO_TOO_DEEP));
            CHECK(repr == NULL || po_str_size(repr) == 2 * (size_t)levels + 4);
            po_decref(repr);
            po_decref(a);
            po_decref(b);
        }
    }
    CHECK(po_state_free(state, 2) == 0);
}

TEST(a_cycle_without_a_sign_of_its_own_is_too_deep) {
    po_state *const state = po_state_new();
    po_object *const a = box_of(state, &box_type, NULL), *const b = box_of(state, &box_type, NULL);
    ((struct box *)a)->held = po_incref(a);
    ((struct box *)b)->held = po_incref(b);
    CHECK(po_equal(a, b) == -1 && last_is(PO_TOO_DEEP));
    CHECK(po_repr(state, a) == NULL && last_is(PO_TOO_DEEP));
    po_decref(a);
    po_decref(b);
    CHECK(po_state_free(state, 2) == 0);
}

TEST(a_list_within_itself_is_three_dots) {
    po_state *const state = po_state_new();
    po_object *const list = po_list(state);
    CHECK(po_list_append(list, list) == 0 && po_list_append(list, PO_NONE) == 0);
    for (unsigned i = 0; i < 2; i++) {
        CHECK(strcmp(repr_of(state, list), "[[...], None]") == 0, "%s", repr_of(state, list));
    }
    po_object *const tuple = po_tuple(state, 1, &list);
    CHECK(po_list_append_take(list, tuple) == 0);
    CHECK(strcmp(repr_of(state, list), "[[...], None, ([...],)]") == 0, "%s", repr_of(state, list));
    CHECK(strcmp(repr_of(state, tuple), "([[...], None, (...)],)") == 0);
    // The same one twice, side by side, is no cycle.
    po_object *const pair = po_tuple(state, 2, (po_object *[]){ PO_NONE, PO_NONE });
    po_object *const pairs = po_tuple(state, 2, (po_object *[]){ pair, pair });
    CHECK(strcmp(repr_of(state, pairs), "((None, None), (None, None))") == 0);
    po_decref(pair);
    po_decref(pairs);
    po_decref(list);
    CHECK(po_state_free(state, 2) == 0);
}

// --- Errors -----------------------------------------------------------------------------------

TEST(each_code_has_a_sentence_of_its_own) {
    const char *texts[PO_CODE_COUNT];
    for (unsigned code = PO_OK; code < PO_CODE_COUNT; code++) {
        CHECK(po_fail((enum po_code)code) == -1);
        const struct po_error error = po_error_last();
        CHECK(error.code == code && error.text != NULL && *error.text != 0);
        CHECK(error.text[strlen(error.text) - 1] != '.');
        texts[code] = error.text;
        for (unsigned i = 0; i < code; i++) {
            CHECK(strcmp(texts[i], texts[code]) != 0);
        }
    }
}

static void *error_of_a_new_thread(void *to) {
    *(enum po_code *)to = po_error_last().code;
    po_fail(PO_BUSY);
    return NULL;
}

TEST(errors_are_a_threads_own_and_success_leaves_them) {
    po_fail(PO_CHANGED);
    enum po_code code = PO_CODE_COUNT;
    pthread_t thread;
    CHECK(pthread_create(&thread, NULL, error_of_a_new_thread, &code) == 0);
    CHECK(pthread_join(thread, NULL) == 0);
    CHECK(code == PO_OK && last_is(PO_CHANGED));
    po_state *const state = po_state_new();
    gives(state, po_str(state, "text", 4), "'text'");
    CHECK(po_equal(PO_NONE, PO_TRUE) == 0 && hash_of(PO_NONE) != 0);
    CHECK(po_state_free(state, 2) == 0 && last_is(PO_CHANGED));
}

#define FAILS(call, error)                                               \
    do {                                                                 \
        po_restore_error((struct po_error){ PO_OK, NULL });              \
        CHECK((long)(call) == ((error) == PO_OK ? 0 : (long)-1), #call); \
        CHECK(last_is(error), #call ": %s", po_error_last().text);       \
    } while (0)
#define FAILS_NULL(call, error) FAILS((call) == NULL ? -1 : 1, error)

TEST(wrong_arguments_are_errors) {
    po_state *const state = po_state_new();
    po_object *const list = po_list(state);
    uint64_t hash;
    FAILS(po_equal(NULL, PO_NONE), PO_WRONG_TYPE);
    FAILS(po_equal(PO_NONE, NULL), PO_WRONG_TYPE);
    FAILS(po_equal(NULL, NULL), PO_WRONG_TYPE);
    FAILS(po_hash(NULL, &hash), PO_WRONG_TYPE);
    FAILS(po_hash(PO_NONE, NULL), PO_WRONG_TYPE);
    FAILS(po_hash(list, &hash), PO_UNHASHABLE);
    FAILS_NULL(po_repr(state, NULL), PO_WRONG_TYPE);
    FAILS_NULL(po_repr(NULL, PO_NONE), PO_WRONG_TYPE);
    FAILS_NULL(po_str(NULL, "text", 4), PO_WRONG_TYPE);
    FAILS_NULL(po_str(state, NULL, 4), PO_WRONG_TYPE);
    FAILS_NULL(po_str_intern(NULL, "text", 4), PO_WRONG_TYPE);
    FAILS_NULL(po_bytes(NULL, "text", 4), PO_WRONG_TYPE);
    FAILS_NULL(po_bytes(state, NULL, 4), PO_WRONG_TYPE);
    FAILS(po_text_add(NULL, "a", 1), PO_WRONG_TYPE);
    FAILS(po_text_repr(NULL, PO_NONE), PO_WRONG_TYPE);
    po_decref(list);
    CHECK(po_state_free(state, 2) == 0);
}

TEST(sizes_that_cannot_be_are_refused_before_a_byte_is_read) {
    po_state *const state = po_state_new();
    FAILS_NULL(po_str(state, "x", (size_t)UINT32_MAX + 1), PO_NO_MEMORY);
    FAILS_NULL(po_str(state, "x", SIZE_MAX), PO_NO_MEMORY);
    FAILS_NULL(po_bytes(state, "x", SIZE_MAX), PO_NO_MEMORY);
    FAILS_NULL(po_bytes(state, "x", (size_t)PTRDIFF_MAX), PO_NO_MEMORY);
    CHECK(po_state_free(state, 2) == 0);
}

static int repr_of_no_text(po_object *self, po_text *to) {
    (void)self;
    FAILS(po_text_add(to, NULL, 3), PO_WRONG_TYPE);
    FAILS(po_text_repr(to, NULL), PO_WRONG_TYPE);
    FAILS(po_text_add(to, NULL, 0), PO_OK);
    return po_text_add(to, "\xFF", 1);
}

static int failing_repr(po_object *self, po_text *to) {
    (void)self;
    po_text_add(to, "lost", 4);
    return po_text_repr(to, NULL);
}

TEST(a_repr_that_fails_or_writes_no_text_is_an_error) {
    static po_type garbled_type = { BOX_TYPE("garbled"), .repr = repr_of_no_text };
    static po_type failing_type = { BOX_TYPE("failing"), .repr = failing_repr };
    po_state *const state = po_state_new();
    po_object *const garbled = box_of(state, &garbled_type, NULL);
    po_object *const failing = box_of(state, &failing_type, NULL);
    po_object *const list = po_list(state);
    CHECK(po_list_append_take(list, failing) == 0);
    FAILS_NULL(po_repr(state, garbled), PO_BAD_TEXT);
    FAILS_NULL(po_repr(state, failing), PO_WRONG_TYPE);
    FAILS_NULL(po_repr(state, list), PO_WRONG_TYPE);
    // The list is not marked as being written still.
    CHECK(po_list_remove(list, 0, 1) == 0);
    gives(state, list, "[]");
    po_decref(garbled);
    CHECK(po_state_free(state, 2) == 0);
}

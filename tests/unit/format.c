// SPDX-License-Identifier: MIT
// Copyright (c) the poolmalloc authors
//
// base/format: what is shared with printf looks as printf's.

#include "unit.h"

#include "base/format.h"

#include <limits.h>
#include <stdio.h>
#include <string.h>

#define SAME(...)                                                                           \
    do {                                                                                    \
        char ours[128], theirs[128];                                                        \
        const size_t length = pm_format(ours, sizeof ours, __VA_ARGS__);                    \
        CHECK(length == (size_t)snprintf(theirs, sizeof theirs, __VA_ARGS__));              \
        CHECK(strcmp(ours, theirs) == 0, "'%s' instead of '%s'", ours, theirs);             \
    } while (0)

#define GIVES(text, ...)                                                                    \
    do {                                                                                    \
        char ours[128];                                                                     \
        CHECK(pm_format(ours, sizeof ours, __VA_ARGS__) == strlen(text), "'%s'", ours);     \
        CHECK(strcmp(ours, text) == 0, "'%s' instead of '%s'", ours, text);                 \
    } while (0)

UNIT_TEST(format, text_is_copied) {
    SAME("%s", "");
    SAME("plain text, no conversion");
    SAME("100 %%, [%%]");
    SAME("%c%c%c", 'a', ' ', 'z');
    SAME("a%sb%sc", "1", "22");
}

UNIT_TEST(format, numbers_of_all_lengths_look_as_in_printf) {
    static const long values[] = { 0,       1,       -1,      9,        10,       -10,     4095,
                                   INT_MAX, INT_MIN, 1L << 40, -(1L << 40), LONG_MAX, LONG_MIN };
    for (size_t i = 0; i < sizeof values / sizeof *values; i++) {
        const long value = values[i];
        SAME("%d|%u|%x", (int)value, (unsigned)value, (unsigned)value);
        SAME("%ld|%lu|%lx", value, (unsigned long)value, (unsigned long)value);
        SAME("%zd|%zu|%zx", (ssize_t)value, (size_t)value, (size_t)value);
        SAME("%lld|%llu|%llx", (long long)value, (unsigned long long)value,
             (unsigned long long)value);
    }
}

UNIT_TEST(format, width_and_flags_look_as_in_printf) {
    SAME("[%5d][%-5d][%05d]", 42, 42, 42);
    SAME("[%5s][%-5s]", "ab", "ab");
    SAME("[%2s][%-2s]", "abcdef", "abcdef");
    SAME("[%*d][%-*d]", 7, 42, 7, 42);
    SAME("[%016lx][%-16lx]", 0xabcdefUL, 0xabcdefUL);
    SAME("[%8zu][%20zu]", (size_t)12345, SIZE_MAX);
    SAME("[%40d]", -1);
    SAME("[%8d][%-8d]", -42, -42);
}

UNIT_TEST(format, zeros_stand_behind_the_sign) {
    SAME("[%05d][%08ld]", -42, -42L);
}

UNIT_TEST(format, groups_are_of_three_digits) {
    GIVES("0", "%'d", 0);
    GIVES("999", "%'u", 999u);
    GIVES("1,000", "%'u", 1000u);
    GIVES("-1,234,567", "%'d", -1234567);
    GIVES("18,446,744,073,709,551,615", "%'zu", SIZE_MAX);
    GIVES("-9,223,372,036,854,775,808", "%'ld", LONG_MIN);
    GIVES("[   12,345][12,345   ]", "[%'9zu][%-'9zu]", (size_t)12345, (size_t)12345);
}

UNIT_TEST(format, pointers_are_hexadecimal) {
    GIVES("0x7ffe12345670", "%p", (void *)0x7ffe12345670);
    GIVES("0x0", "%p", NULL);
    GIVES("0xffffffffffffffff", "%p", (void *)UINTPTR_MAX);
    GIVES("[  0x10][0x10  ]", "[%6p][%-6p]", (void *)16, (void *)16);
}

UNIT_TEST(format, no_string_is_said) {
    const char *const volatile none = NULL;
    GIVES("(null)", "%s", none);
    GIVES("[  (null)]", "[%8s]", none);
}

// No format attribute, so that the compiler allows what printf has and this one has not.
static size_t format_list(char *to, size_t size, const char *format, ...) {
    va_list args;
    va_start(args, format);
    const size_t length = pm_format_list(to, size, format, args);
    va_end(args);
    return length;
}

UNIT_TEST(format, what_it_does_not_know_is_copied) {
    static const char *const unknown[] = { "%", "%q", "a%", "%-5!b", "%5", "%l", "%-", "%y%%" };
    for (size_t i = 0; i < sizeof unknown / sizeof *unknown; i++) {
        char text[32], wanted[32];
        strcpy(wanted, strcmp(unknown[i], "%y%%") == 0 ? "%y%" : unknown[i]);
        CHECK(format_list(text, sizeof text, unknown[i]) == strlen(wanted), "'%s'", text);
        CHECK(strcmp(text, wanted) == 0, "'%s' instead of '%s'", text, wanted);
    }
}

UNIT_TEST(format, text_too_long_is_cut_and_terminated) {
    static const char whole[] = "abc 0x7ffe12345670 -1,234,567    z!";
    for (size_t size = 1; size <= sizeof whole + 1; size++) {
        char text[64];
        memset(text, '#', sizeof text);
        const size_t written = pm_format(text, size, "%s %p %'d %4s!", "abc",
                                         (void *)0x7ffe12345670, -1234567, "z");
        const size_t wanted = size - 1 < sizeof whole - 1 ? size - 1 : sizeof whole - 1;
        CHECK(written == wanted, "%zu of %zu", written, size);
        CHECK(memcmp(text, whole, wanted) == 0 && text[wanted] == '\0', "'%s'", text);
        CHECK(text[size] == '#', "wrote behind %zu", size);
    }
}

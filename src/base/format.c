// SPDX-License-Identifier: MIT
// Copyright (c) the poolmalloc authors

// The formatter behind every line that the library prints.

#include "base/format.h"

#include <stdbool.h>
#include <stdint.h>

#define DIGITS_MAX 32

struct sink {
    char *to;
    size_t size, length;
};

struct spec {
    bool left, zero, grouped;
    unsigned width, longs;
};

static void put(struct sink *sink, char c) {
    if (sink->length + 1 < sink->size) {
        sink->to[sink->length++] = c;
    }
}

// `sign` stands before padding with zeros and behind padding with blanks.
static void put_padded(struct sink *sink, const struct spec *spec, const char *sign,
                       const char *text, size_t length) {
    size_t all = length;
    for (const char *at = sign; *at != '\0'; at++) {
        all++;
    }
    const size_t pad = spec->width > all ? spec->width - all : 0;
    const bool zero = spec->zero && !spec->left;
    for (size_t i = 0; i < pad && !spec->left && !zero; i++) {
        put(sink, ' ');
    }
    for (; *sign != '\0'; sign++) {
        put(sink, *sign);
    }
    for (size_t i = 0; i < pad && zero; i++) {
        put(sink, '0');
    }
    for (size_t i = 0; i < length; i++) {
        put(sink, text[i]);
    }
    for (size_t i = 0; i < pad && spec->left; i++) {
        put(sink, ' ');
    }
}

static void put_number(struct sink *sink, const struct spec *spec, uint64_t value, unsigned base,
                       const char *sign) {
    char digits[DIGITS_MAX];
    size_t at = sizeof digits;
    unsigned count = 0;
    do {
        if (spec->grouped && count != 0 && count % 3 == 0) {
            digits[--at] = ',';
        }
        digits[--at] = "0123456789abcdef"[value % base];
        value /= base;
        count++;
    } while (value != 0);
    put_padded(sink, spec, sign, digits + at, sizeof digits - at);
}

static void put_string(struct sink *sink, const struct spec *spec, const char *text) {
    if (text == NULL) {
        text = "(null)";
    }
    size_t length = 0;
    while (text[length] != '\0') {
        length++;
    }
    put_padded(sink, spec, "", text, length);
}

size_t pm_format_list(char *to, size_t size, const char *format, va_list args) {
    struct sink sink = { .to = to, .size = size };
    for (const char *at = format; *at != '\0'; at++) {
        if (*at != '%') {
            put(&sink, *at);
            continue;
        }
        struct spec spec = { 0 };
        const char *const start = at++;
        for (;; at++) {
            if (*at == '-') {
                spec.left = true;
            } else if (*at == '0') {
                spec.zero = true;
            } else if (*at == '\'') {
                spec.grouped = true;
            } else {
                break;
            }
        }
        if (*at == '*') {
            spec.width = va_arg(args, unsigned);
            at++;
        }
        for (; *at >= '0' && *at <= '9'; at++) {
            spec.width = spec.width * 10 + (unsigned)(*at - '0');
        }
        for (; *at == 'l' || *at == 'z'; at++) {
            spec.longs++;
        }
        switch (*at) {
        case 'd': {
            const int64_t value = spec.longs ? va_arg(args, long) : va_arg(args, int);
            const uint64_t magnitude = value < 0 ? -(uint64_t)value : (uint64_t)value;
            put_number(&sink, &spec, magnitude, 10, value < 0 ? "-" : "");
            break;
        }
        case 'u':
        case 'x': {
            const uint64_t value =
                spec.longs ? va_arg(args, unsigned long) : va_arg(args, unsigned);
            put_number(&sink, &spec, value, *at == 'u' ? 10 : 16, "");
            break;
        }
        case 'p': put_number(&sink, &spec, (uintptr_t)va_arg(args, void *), 16, "0x"); break;
        case 's': put_string(&sink, &spec, va_arg(args, const char *)); break;
        case 'c': put(&sink, (char)va_arg(args, int)); break;
        case '%': put(&sink, '%'); break;
        default:
            for (const char *copy = start; copy <= at && *copy != '\0'; copy++) {
                put(&sink, *copy);
            }
            if (*at == '\0') {
                at--;
            }
        }
    }
    to[sink.length] = '\0';
    return sink.length;
}

size_t pm_format(char *to, size_t size, const char *format, ...) {
    va_list args;
    va_start(args, format);
    const size_t length = pm_format_list(to, size, format, args);
    va_end(args);
    return length;
}

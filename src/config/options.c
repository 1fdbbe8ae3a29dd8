// SPDX-License-Identifier: MIT
// Copyright (c) the poolmalloc authors

// The table of options, and the one parser that reads it.

#include "config/options.h"

#include <stddef.h>
#include <string.h>

#include "base/attributes.h"
#include "base/format.h"
#include "os/os.h"

#define PREFIX "POOLMALLOC_"

struct pm_options pm_options = {
    .purge_delay = PM_PURGE_DELAY_MS,
    .purge_keep = PM_OPTION_UNSET,
    .limit_soft = PM_OPTION_UNSET,
    .limit_hard = PM_OPTION_UNSET,
};

enum kind {
    CHOICE, // one word of `range`, the first is the default; the value is its index
    PATH,   // a file name, stored as it stands
    SIZE,   // bytes, perhaps in K, M, G or T
    LIMIT,  // the same, but not 0
    DELAY,  // milliseconds, at most PM_PURGE_DELAY_MAX_MS
};

// A variable holds words separated by commas. A row without a key takes the bare word, one with a
// key takes `key=value`, which also switches on a variable whose bare word is 0 or 1.
struct row {
    const char *variable, *key, *range, *text;
    enum kind kind;
    size_t at;
};

static const struct row rows[] = {
    { "STATS", NULL, "0|1", "print where the memory went, at exit, to stderr", CHOICE,
      offsetof(struct pm_options, stats) },
    { "STATS", "file", "PATH", "write the statistics to this file; %p is the process id", PATH,
      offsetof(struct pm_options, stats_file) },
    { "STATS", "format", "text|json", "form of the statistics", CHOICE,
      offsetof(struct pm_options, stats_format) },
    { "HELP", NULL, "0|1", "print this table when the program starts", CHOICE,
      offsetof(struct pm_options, help) },
    { "DEEPBIND", NULL, "keep|drop",
      "drop: dlopen ignores RTLD_DEEPBIND, so that libraries opened with it use this malloc",
      CHOICE, offsetof(struct pm_options, deepbind) },
    { "THP", NULL, "auto|never|always",
      "transparent huge pages: once the heap is large, not at all, or for all memory", CHOICE,
      offsetof(struct pm_options, thp) },
    { "PURGE", NULL, "calls|background",
      "free memory goes back in calls of malloc and free, or in a thread of this library's", CHOICE,
      offsetof(struct pm_options, purge) },
    { "PURGE", "delay", "MILLISECONDS", "how long it stays at most; 1000 by default", DELAY,
      offsetof(struct pm_options, purge_delay) },
    { "PURGE", "keep", "SIZE", "how much of it stays so long, instead of a share of what is in use",
      SIZE, offsetof(struct pm_options, purge_keep) },
    { "LIMIT", NULL, "given|cgroup",
      "limits on the heap: those given, none without, or what the control group allows", CHOICE,
      offsetof(struct pm_options, limit) },
    { "LIMIT", "soft", "SIZE", "from here on free memory goes back at once", LIMIT,
      offsetof(struct pm_options, limit_soft) },
    { "LIMIT", "hard", "SIZE", "from here on requests fail with ENOMEM", LIMIT,
      offsetof(struct pm_options, limit_hard) },
};
#define ROW_COUNT (sizeof rows / sizeof rows[0])

// A piece of an environment string; not terminated.
struct word {
    const char *text;
    size_t length;
};

static bool word_is(struct word word, const char *text) {
    return strlen(text) == word.length && memcmp(text, word.text, word.length) == 0;
}

// Cuts the part before `separator` off the front of `rest`; false when nothing is left.
static bool cut(struct word *rest, char separator, struct word *piece) {
    if (rest->length == 0) {
        return false;
    }
    const char *const end = memchr(rest->text, separator, rest->length);
    piece->text = rest->text;
    piece->length = end == NULL ? rest->length : (size_t)(end - rest->text);
    const size_t used = piece->length + (end != NULL);
    rest->text += used;
    rest->length -= used;
    return true;
}

// A decimal number and one letter of `units`, small or capital, each 1024 times the one before; at
// most PTRDIFF_MAX.
static bool read_number(struct word text, const char *units, size_t *number) {
    size_t value = 0, i = 0;
    for (; i < text.length && text.text[i] >= '0' && text.text[i] <= '9'; i++) {
        if (__builtin_mul_overflow(value, (size_t)10, &value) ||
            __builtin_add_overflow(value, (size_t)(text.text[i] - '0'), &value)) {
            return false;
        }
    }
    const char *const unit = i + 1 == text.length ? strchr(units, text.text[i] | 0x20) : NULL;
    const unsigned shift = unit == NULL ? 0 : 10 * (unsigned)(unit - units + 1);
    if (i == 0 || (unit == NULL && i != text.length) || value > (size_t)PTRDIFF_MAX >> shift) {
        return false;
    }
    *number = value << shift;
    return true;
}

static bool store_number(const struct row *row, struct word value) {
    size_t number;
    if (!read_number(value, row->kind == DELAY ? "" : "kmgt", &number) ||
        (row->kind == DELAY && number > PM_PURGE_DELAY_MAX_MS) ||
        (row->kind == LIMIT && number == 0)) {
        return false;
    }
    memcpy((char *)&pm_options + row->at, &number, sizeof number);
    return true;
}

static bool store(const struct row *row, struct word value) {
    char *const at = (char *)&pm_options + row->at;
    if (row->kind == SIZE || row->kind == LIMIT || row->kind == DELAY) {
        return store_number(row, value);
    }
    if (row->kind == PATH) {
        if (value.length == 0 || value.length >= PM_PATH_MAX) {
            return false;
        }
        memcpy(at, value.text, value.length);
        at[value.length] = '\0';
        return true;
    }
    struct word range = { row->range, strlen(row->range) }, choice;
    for (unsigned i = 0; cut(&range, '|', &choice); i++) {
        if (choice.length == value.length && memcmp(choice.text, value.text, value.length) == 0) {
            *(unsigned *)at = i;
            return true;
        }
    }
    return false;
}

static const struct row *find(struct word variable, struct word key) {
    for (size_t i = 0; i < ROW_COUNT; i++) {
        const bool keyed = rows[i].key != NULL;
        if (word_is(variable, rows[i].variable) && keyed == (key.length != 0) &&
            (!keyed || word_is(key, rows[i].key))) {
            return &rows[i];
        }
    }
    return NULL;
}

// Copies a word as printable text.
static void quote(struct word word, char *to, size_t size) {
    const size_t length = word.length < size - 1 ? word.length : size - 1;
    for (size_t i = 0; i < length; i++) {
        to[i] = word.text[i] >= ' ' && word.text[i] < 127 ? word.text[i] : '?';
    }
    to[length] = '\0';
}

static void complain(struct word variable, struct word word, const char *why) {
    char line[PM_LINE_MAX], name[PM_LINE_MAX / 8], text[PM_LINE_MAX / 4];
    quote(variable, name, sizeof name);
    quote(word, text, sizeof text);
    const size_t end = pm_format(line, sizeof line,
                                 "poolmalloc: " PREFIX "%s: %s '%s', ignored (" PREFIX
                                 "HELP=1 prints the options)\n",
                                 name, why, text);
    pm_os_write(2, line, end);
}

static void read_word(struct word variable, struct word word) {
    struct word rest = word, key = { NULL, 0 }, value = word;
    if (memchr(word.text, '=', word.length) != NULL) {
        cut(&rest, '=', &key);
        value = rest;
    }
    const bool nameless = value.text != word.text && key.length == 0;
    const struct row *const row = nameless ? NULL : find(variable, key);
    if (row == NULL) {
        complain(variable, word, "unknown word");
    } else if (!store(row, value)) {
        complain(variable, word, "bad value");
    } else if (row->key != NULL) {
        store(find(variable, (struct word){ NULL, 0 }), (struct word){ "1", 1 });
    }
}

void pm_options_read(char *const *environment) {
    for (; environment != NULL && *environment != NULL; environment++) {
        struct word rest = { *environment, strlen(*environment) }, variable, word;
        const size_t prefix = sizeof PREFIX - 1;
        if (rest.length < prefix || memcmp(rest.text, PREFIX, prefix) != 0) {
            continue;
        }
        rest.text += prefix;
        rest.length -= prefix;
        if (!cut(&rest, '=', &variable)) {
            continue;
        }
        if (find(variable, (struct word){ NULL, 0 }) == NULL) {
            complain(variable, rest, "no such option, value");
            continue;
        }
        while (cut(&rest, ',', &word)) {
            read_word(variable, word);
        }
    }
    if (pm_options.help) {
        pm_options_print(2);
    }
}

void pm_options_print(int fd) {
    char line[PM_LINE_MAX];
    size_t length = pm_format(line, sizeof line,
                              "poolmalloc options, environment variables (words separated by "
                              "commas, the first choice is the default; a SIZE is a number of "
                              "bytes, or one with K, M, G or T):\n");
    pm_os_write(fd, line, length);
    for (size_t i = 0; i < ROW_COUNT; i++) {
        char name[64];
        pm_format(name, sizeof name, PREFIX "%s=%s%s%s", rows[i].variable,
                  rows[i].key != NULL ? rows[i].key : "", rows[i].key != NULL ? "=" : "",
                  rows[i].range);
        length = pm_format(line, sizeof line, "  %-38s %s\n", name, rows[i].text);
        pm_os_write(fd, line, length);
    }
}

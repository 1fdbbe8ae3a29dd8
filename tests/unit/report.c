// SPDX-License-Identifier: MIT
// Copyright (c) the poolmalloc authors
//
// insight/report: the written forms. Text whose rows sum, and JSON that a strict reader takes.

#include "fake_os.h"
#include "unit.h"

#include "insight/report.h"
#include "insight/usage.h"
#include "poolmalloc.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define TEST(name) UNIT_TEST(report, name)
#define MIB        ((size_t)1 << 20)

static void take_some_of_all(void) {
    for (unsigned i = 0; i < 2000; i++) {
        char *const block = unit_take(unit_below(i % 100 == 0 ? 200000 : 10000));
        if (i % 3 == 0) {
            pm_free(block);
        }
    }
    pm_free(unit_take(3 * MIB));
    unit_take(70 * MIB);
}

static const char *report(enum pm_stats_format format) {
    static char text[1 << 16];
    const int file = memfd_create("report", 0);
    CHECK(pm_report_write(file, format) == 0);
    const ssize_t length = pread(file, text, sizeof text - 1, 0);
    CHECK(length > 0);
    text[length] = '\0';
    close(file);
    return text;
}

// The number at the end of a line, without its commas.
static size_t number_before(const char *end) {
    size_t value = 0, power = 1;
    while (isdigit((unsigned char)end[-1]) || end[-1] == ',') {
        end--;
        if (*end != ',') {
            value += (size_t)(*end - '0') * power;
            power *= 10;
        }
    }
    return value;
}

TEST(rows_of_the_text_sum_to_the_bytes_mapped) {
    take_some_of_all();
    const char *line = strstr(report(PM_STATS_TEXT), "\nbytes\n");
    CHECK(line != NULL);
    size_t sum = 0;
    unsigned rows = 0;
    for (line += strlen("\nbytes\n");; line = strchr(line, '\n') + 1) {
        CHECK(*line == ' ' && strchr(line, '\n') != NULL, "no total: '%s'", line);
        const size_t value = number_before(strchr(line, '\n'));
        if (strncmp(line, "  total: bytes mapped ", 22) == 0) {
            CHECK(value == sum && sum > 40 * MIB, "%zu instead of %zu", sum, value);
            break;
        }
        sum += value;
        rows++;
    }
    CHECK(rows == sizeof(struct pm_balance) / sizeof(size_t), "%u rows", rows);
}

TEST(the_table_of_the_text_has_every_class_in_use) {
    unit_take(16);
    unit_take(576);
    unit_take(PM_MEDIUM_MAX);
    const char *const text = report(PM_STATS_TEXT);
    unsigned rows = 0;
    for (const char *line = strstr(text, "----\n") + 5; *line != '\n';
         line = strchr(line, '\n') + 1) {
        unsigned class, size;
        size_t pools, in_use, available, pinned, sparse;
        CHECK(sscanf(line, "%u %u %zu %zu %zu %zu %zu", &class, &size, &pools, &in_use, &available,
                     &pinned, &sparse) == 7);
        CHECK(sparse == (available > 9) && pinned % size == 0 && pinned / size <= available);
        CHECK(pm_classes[class].size == size && pools == 1 && in_use == 1 && available > 0);
        rows++;
    }
    CHECK(rows == 3);
}

// A strict reader of JSON: objects, arrays, plain strings and numbers.
static const char *skip(const char *at) {
    while (isspace((unsigned char)*at)) {
        at++;
    }
    return at;
}

static const char *read_string(const char *at) {
    CHECK(*at == '"', "no string at '%.20s'", at);
    for (at++; *at != '"'; at++) {
        CHECK(*at >= ' ' && *at != '\\', "'%.20s'", at);
    }
    return at + 1;
}

static const char *read_value(const char *at);

static const char *read_members(const char *at, char end, bool named) {
    at = skip(at + 1);
    if (*at == end) {
        return at + 1;
    }
    for (;; at = skip(at + 1)) {
        if (named) {
            at = skip(read_string(at));
            CHECK(*at == ':', "no colon at '%.20s'", at);
            at = skip(at + 1);
        }
        at = skip(read_value(at));
        if (*at == end) {
            return at + 1;
        }
        CHECK(*at == ',', "no comma at '%.20s'", at);
    }
}

static const char *read_value(const char *at) {
    if (*at == '{') {
        return read_members(at, '}', true);
    }
    if (*at == '[') {
        return read_members(at, ']', false);
    }
    if (*at == '"') {
        return read_string(at);
    }
    CHECK(isdigit((unsigned char)*at) && (at[0] != '0' || !isdigit((unsigned char)at[1])),
          "no value at '%.20s'", at);
    while (isdigit((unsigned char)*at)) {
        at++;
    }
    return at;
}

static size_t value_of(const char *text, const char *name) {
    char quoted[64];
    snprintf(quoted, sizeof quoted, "\"%s\":", name);
    const char *const at = strstr(text, quoted);
    CHECK(at != NULL, "there is no %s", name);
    return strtoul(at + strlen(quoted), NULL, 10);
}

static void check_json(void) {
    const char *const text = report(PM_STATS_JSON);
    CHECK(*skip(read_value(skip(text))) == '\0', "'%s'", text);
    size_t sum = 0;
#define ADD(name, words) sum += value_of(text, #name);
    PM_BALANCE_ROWS(ADD)
#undef ADD
    CHECK(sum == value_of(text, "mapped"));
    CHECK(value_of(text, "version") == 1 && value_of(text, "pid") == (size_t)getpid());
    static const char *const counts[] = { "pool_arenas", "pool_arenas_made", "run_arenas",
                                          "huge_blocks", "huge_cached",      "heaps",
                                          "misses" };
    for (unsigned i = 0; i < sizeof counts / sizeof *counts; i++) {
        CHECK(value_of(strchr(text, '}'), counts[i]) < 1000000);
    }
}

TEST(the_json_of_an_empty_heap_is_sound) {
    CHECK(*skip(read_value(skip(report(PM_STATS_JSON)))) == '\0');
}

TEST(the_json_of_a_full_heap_is_sound_and_sums) {
    take_some_of_all();
    check_json();
}

TEST(names_in_the_json_differ) {
    take_some_of_all();
    const char *const text = report(PM_STATS_JSON);
    // Up to the classes, each of which has the same names.
    const char *const end = strstr(text, "\"classes\"");
    CHECK(end != NULL);
    for (const char *at = text; (at = strchr(at, '"')) < end;) {
        const char *const close = strchr(at + 1, '"');
        char name[64];
        snprintf(name, sizeof name, "%.*s:", (int)(close - at + 1), at);
        const char *const again = strstr(close, name);
        const bool in_balance =
            again != NULL && at < strchr(text, '}') && again > strchr(text, '}');
        CHECK(again == NULL || again > end || in_balance, "%s is there twice", name);
        at = close + 1;
    }
}

TEST(what_can_not_be_written_is_told) {
    CHECK(pm_report_write(-1, PM_STATS_TEXT) == -EBADF);
    fake_fail(FAKE_MAP, 0, FAKE_ALL);
    CHECK(pm_report_write(1, PM_STATS_TEXT) == -ENOMEM);
}

TEST(a_report_changes_nothing) {
    take_some_of_all();
    char first[1 << 14];
    snprintf(first, sizeof first, "%s", report(PM_STATS_TEXT));
    CHECK(strcmp(first, report(PM_STATS_TEXT)) == 0);
    AUDIT();
}

TEST(usage_agrees_with_the_balance) {
    struct pm_snapshot snapshot;
    struct pm_usage usage;
    take_some_of_all();
    CHECK(pm_snapshot_own(&snapshot) && pm_usage_read(&usage));
    const struct pm_balance *const balance = &snapshot.balance;
    CHECK(usage.used == balance->blocks_in_use + balance->runs_in_use);
    CHECK(usage.huge_bytes == balance->huge_in_use && usage.huge_blocks == 1);
    CHECK(usage.in_arenas == usage.used + usage.free);
    CHECK(usage.in_arenas ==
          snapshot.mapped - balance->huge_in_use - balance->huge_cached - balance->metadata);
    fake_fail(FAKE_MAP, 0, FAKE_ALL);
    CHECK(!pm_usage_read(&usage) && usage.used == 0 && usage.in_arenas == 0);
}

static void write_numbers(pm_report *to, void *context) {
    pm_report_number(to, "first_number", *(size_t *)context);
    pm_report_begin(to, "a_group");
    pm_report_begin(to, "inner");
    pm_report_number(to, "with \"quotes\"", 2);
    pm_report_end(to);
    pm_report_number(to, "second", 3);
    pm_report_end(to);
}

static void write_unbalanced(pm_report *to, void *context) {
    (void)context;
    pm_report_end(to);
    pm_report_number(to, "one", 1);
    pm_report_begin(to, "left");
    pm_report_begin(to, "open");
    pm_report_number(to, "two", 2);
}

TEST(groups_that_do_not_balance_break_neither_form) {
    static size_t number = 3;
    static struct pm_report_section later = { "later", write_numbers, &number, NULL },
                                    section = { "unbalanced", write_unbalanced, NULL, NULL };
    pm_report_add(&later);
    pm_report_add(&section);
    CHECK(strstr(report(PM_STATS_TEXT), "\nlater\n  first number ") != NULL);
    const char *const text = report(PM_STATS_JSON);
    CHECK(*skip(read_value(skip(text))) == '\0', "'%s'", text);
    CHECK(strstr(text, "\n    \"later\": {") != NULL, "%s", text);
}

TEST(sections_of_others_stand_behind_in_both_forms) {
    static size_t number = 1234567;
    static struct pm_report_section section = { "others", write_numbers, &number, NULL };
    pm_report_add(&section);
    const char *text = report(PM_STATS_TEXT);
    CHECK(strstr(text, "\nothers\n  first number ") != NULL, "%s", text);
    CHECK(strstr(text, " 1,234,567\n  a group\n    inner\n") != NULL, "%s", text);
    text = report(PM_STATS_JSON);
    CHECK(*skip(read_value(skip(text))) == '\0', "'%s'", text);
    CHECK(strstr(text, "\"first_number\": 1234567") != NULL, "%s", text);
    CHECK(strstr(text, "\"with ?quotes?\": 2") != NULL, "%s", text);
}

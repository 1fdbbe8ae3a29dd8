// SPDX-License-Identifier: MIT
// Copyright (c) the poolmalloc authors
//
// config/options: what the environment says, and what is said about it.

#include "unit.h"

#include "config/options.h"

#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define DEFAULT_STATS 0, "", PM_STATS_TEXT, 0, PM_DEEPBIND_KEEP

struct row {
    const char *variable;  // "NAME=words"
    unsigned stats;
    const char *file;
    unsigned format, help, deepbind;
    const char *said;  // what the one line on stderr contains; NULL: no line
};

static void read_one(const char *variable, const char **said) {
    char *environment[] = { "PATH=/bin", (char *)variable, "HOME=/", NULL };
    static struct pm_options defaults;
    static bool known;
    if (!known) {
        defaults = pm_options;
        known = true;
    }
    pm_options = defaults;
    unit_capture();
    pm_options_read(environment);
    *said = unit_captured();
}

static size_t lines(const char *text) {
    size_t count = 0;
    for (; *text != '\0'; text++) {
        count += *text == '\n';
    }
    return count;
}

static void check_rows(const struct row *rows, size_t count) {
    for (const struct row *row = rows; row < rows + count; row++) {
        const char *said;
        read_one(row->variable, &said);
        CHECK(pm_options.stats == row->stats, "%s", row->variable);
        CHECK(strcmp(pm_options.stats_file, row->file) == 0, "%s", row->variable);
        CHECK(pm_options.stats_format == row->format, "%s", row->variable);
        CHECK(pm_options.deepbind == row->deepbind, "%s", row->variable);
        CHECK(pm_options.help == row->help, "%s", row->variable);
        if (row->help == 0) {
            CHECK(lines(said) == (row->said != NULL), "%s: '%s'", row->variable, said);
        }
        if (row->said != NULL) {
            CHECK(strncmp(said, "poolmalloc: POOLMALLOC_", 23) == 0, "'%s'", said);
            CHECK(strstr(said, row->said) != NULL, "'%s' lacks '%s'", said, row->said);
        }
    }
}

#define CHECK_ROWS(...)                                             \
    do {                                                            \
        static const struct row rows[] = { __VA_ARGS__ };           \
        check_rows(rows, sizeof rows / sizeof *rows);               \
    } while (0)

UNIT_TEST(options, each_row_is_read) {
    CHECK_ROWS({ "POOLMALLOC_STATS=1", 1, "", PM_STATS_TEXT, 0, PM_DEEPBIND_KEEP, NULL },
               { "POOLMALLOC_STATS=0", DEFAULT_STATS, NULL },
               { "POOLMALLOC_STATS=1,format=text", 1, "", PM_STATS_TEXT, 0, 0, NULL },
               { "POOLMALLOC_HELP=1", 0, "", 0, 1, 0, NULL },
               { "POOLMALLOC_HELP=0", DEFAULT_STATS, NULL },
               { "POOLMALLOC_DEEPBIND=keep", DEFAULT_STATS, NULL },
               { "POOLMALLOC_DEEPBIND=drop", 0, "", 0, 0, PM_DEEPBIND_DROP, NULL });
}

UNIT_TEST(options, each_word_about_huge_pages_is_read) {
    static const char *const words[] = { "auto", "never", "always" };
    for (unsigned i = 0; i < 3; i++) {
        char variable[32];
        const char *said;
        snprintf(variable, sizeof variable, "POOLMALLOC_THP=%s", words[i]);
        read_one(variable, &said);
        CHECK(pm_options.thp == i && *said == '\0', "%s: '%s'", words[i], said);
    }
    const char *said;
    read_one("POOLMALLOC_THP=madvise", &said);
    CHECK(pm_options.thp == PM_THP_AUTO && strstr(said, "bad value 'madvise'") != NULL, "'%s'",
          said);
}

UNIT_TEST(options, sizes_are_bytes_or_have_a_unit) {
    static const struct {
        const char *text;
        size_t bytes;
    } sizes[] = {
        { "1", 1 },
        { "4096", 4096 },
        { "3K", 3 << 10 },
        { "3k", 3 << 10 },
        { "512M", (size_t)512 << 20 },
        { "9G", (size_t)9 << 30 },
        { "2T", (size_t)2 << 40 },
        { "9223372036854775807", PTRDIFF_MAX },
    };
    for (unsigned i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        char variable[64];
        const char *said;
        snprintf(variable, sizeof variable, "POOLMALLOC_LIMIT=hard=%s,soft=7", sizes[i].text);
        read_one(variable, &said);
        CHECK(pm_options.limit_hard == sizes[i].bytes && *said == '\0', "%s: '%s'", sizes[i].text,
              said);
        CHECK(pm_options.limit_soft == 7 && pm_options.limit == PM_LIMIT_GIVEN);
    }
}

UNIT_TEST(options, what_is_no_size_is_refused) {
    static const char *const bad[] = { "",    "-1",  "x",  "1x", "1KK", "K",  "0",
                                       "0x1", "1.5", "1 ", "+1", "1G1", "9223372036854775808",
                                       "8388608T", "99999999999999999999" };
    for (unsigned i = 0; i < sizeof bad / sizeof *bad; i++) {
        char variable[64];
        const char *said;
        snprintf(variable, sizeof variable, "POOLMALLOC_LIMIT=hard=%s", bad[i]);
        read_one(variable, &said);
        CHECK(pm_options.limit_hard == PM_OPTION_UNSET, "%s", bad[i]);
        CHECK(lines(said) == 1 && strstr(said, "bad value 'hard=") != NULL, "'%s'", said);
    }
}

UNIT_TEST(options, words_about_purging_are_read) {
    const char *said;
    read_one("POOLMALLOC_THP=auto", &said);
    CHECK(pm_options.purge == PM_PURGE_CALLS && pm_options.purge_delay == PM_PURGE_DELAY_MS);
    CHECK(pm_options.purge_keep == PM_OPTION_UNSET);
    read_one("POOLMALLOC_PURGE=background,delay=0,keep=3M", &said);
    CHECK(pm_options.purge == PM_PURGE_BACKGROUND && *said == '\0', "'%s'", said);
    CHECK(pm_options.purge_delay == 0 && pm_options.purge_keep == 3 << 20);
    read_one("POOLMALLOC_PURGE=delay=86400000", &said);
    CHECK(pm_options.purge_delay == 86400000 && *said == '\0');
    read_one("POOLMALLOC_PURGE=delay=86400001", &said);
    CHECK(pm_options.purge_delay == PM_PURGE_DELAY_MS && lines(said) == 1);
    read_one("POOLMALLOC_PURGE=delay=1K", &said);
    CHECK(pm_options.purge_delay == PM_PURGE_DELAY_MS && lines(said) == 1);
    read_one("POOLMALLOC_LIMIT=cgroup", &said);
    CHECK(pm_options.limit == PM_LIMIT_CGROUP && pm_options.limit_hard == PM_OPTION_UNSET);
}

UNIT_TEST(options, a_keyed_word_switches_its_variable_on) {
    CHECK_ROWS({ "POOLMALLOC_STATS=file=/p/x.%p.json", 1, "/p/x.%p.json", 0, 0, 0, NULL },
               { "POOLMALLOC_STATS=format=json", 1, "", PM_STATS_JSON, 0, 0, NULL },
               { "POOLMALLOC_STATS=file=/x,format=json", 1, "/x", PM_STATS_JSON, 0, 0, NULL },
               { "POOLMALLOC_STATS=format=json,file=/x", 1, "/x", PM_STATS_JSON, 0, 0, NULL },
               { "POOLMALLOC_STATS=file=a=b", 1, "a=b", 0, 0, 0, NULL },
               { "POOLMALLOC_STATS=file=/x,0", 0, "/x", 0, 0, 0, NULL });
}

UNIT_TEST(options, no_words_are_no_words) {
    CHECK_ROWS({ "POOLMALLOC_STATS=", DEFAULT_STATS, NULL },
               { "POOLMALLOC_DEEPBIND=", DEFAULT_STATS, NULL },
               { "POOLMALLOC_STATS=1,", 1, "", 0, 0, 0, NULL });
}

UNIT_TEST(options, an_unknown_variable_gets_one_line_and_changes_nothing) {
    CHECK_ROWS({ "POOLMALLOC_STAT=1", DEFAULT_STATS, "POOLMALLOC_STAT:" },
               { "POOLMALLOC_STATSS=1", DEFAULT_STATS, "POOLMALLOC_STATSS:" },
               { "POOLMALLOC_stats=1", DEFAULT_STATS, "POOLMALLOC_stats:" },
               { "POOLMALLOC_=1", DEFAULT_STATS, "POOLMALLOC_:" },
               { "POOLMALLOC_FILE=1", DEFAULT_STATS, "'1'" });
}

UNIT_TEST(options, an_unknown_word_gets_one_line_and_the_default) {
    CHECK_ROWS({ "POOLMALLOC_STATS=colour=red", DEFAULT_STATS, "unknown word 'colour=red'" },
               { "POOLMALLOC_STATS=forma=json", DEFAULT_STATS, "unknown word 'forma=json'" },
               { "POOLMALLOC_STATS=formats=json", DEFAULT_STATS, "unknown word" },
               { "POOLMALLOC_HELP=file=/x", DEFAULT_STATS, "unknown word 'file=/x'" },
               { "POOLMALLOC_STATS=1,what=1", 1, "", 0, 0, 0, "unknown word 'what=1'" });
}

UNIT_TEST(options, a_bad_value_gets_one_line_and_the_default) {
    CHECK_ROWS({ "POOLMALLOC_STATS=2", DEFAULT_STATS, "bad value '2'" },
               { "POOLMALLOC_STATS=yes", DEFAULT_STATS, "bad value 'yes'" },
               { "POOLMALLOC_STATS=11", DEFAULT_STATS, "bad value '11'" },
               { "POOLMALLOC_STATS= 1", DEFAULT_STATS, "bad value ' 1'" },
               { "POOLMALLOC_STATS=format=xml", DEFAULT_STATS, "bad value 'format=xml'" },
               { "POOLMALLOC_STATS=format=", DEFAULT_STATS, "bad value 'format='" },
               { "POOLMALLOC_STATS=format=jso", DEFAULT_STATS, "bad value 'format=jso'" },
               { "POOLMALLOC_STATS=file=", DEFAULT_STATS, "bad value 'file='" },
               { "POOLMALLOC_DEEPBIND=maybe", DEFAULT_STATS, "bad value 'maybe'" },
               { "POOLMALLOC_DEEPBIND=keep|drop", DEFAULT_STATS, "bad value 'keep|drop'" });
}

UNIT_TEST(options, a_key_without_a_name_is_unknown) {
    CHECK_ROWS({ "POOLMALLOC_STATS==1", DEFAULT_STATS, "unknown word '=1'" });
}

UNIT_TEST(options, each_wrong_word_gets_a_line) {
    const char *said;
    read_one("POOLMALLOC_STATS=a,b=c,format=json,d", &said);
    CHECK(lines(said) == 3, "'%s'", said);
    CHECK(pm_options.stats == 1 && pm_options.stats_format == PM_STATS_JSON);
}

UNIT_TEST(options, other_variables_are_not_touched) {
    CHECK_ROWS({ "POOLMALLO_STATS=1", DEFAULT_STATS, NULL },
               { "POOLMALLOC=1", DEFAULT_STATS, NULL },
               { "POOLMALLOCSTATS=1", DEFAULT_STATS, NULL },
               { "XPOOLMALLOC_STATS=1", DEFAULT_STATS, NULL },
               { "STATS=1", DEFAULT_STATS, NULL },
               { "MALLOC_STATS=1", DEFAULT_STATS, NULL },
               { "no equals sign", DEFAULT_STATS, NULL },
               { "", DEFAULT_STATS, NULL },
               { "POOLMALLOC_STATS", DEFAULT_STATS, NULL });
    pm_options_read(NULL);
    CHECK(pm_options.stats == 0);
}

UNIT_TEST(options, a_path_is_stored_up_to_its_limit_and_refused_beyond) {
    static const char head[] = "POOLMALLOC_STATS=file=";
    static char variable[sizeof head + PM_PATH_MAX + 8];
    for (size_t length = PM_PATH_MAX - 2; length <= PM_PATH_MAX + 2; length++) {
        const char *said;
        strcpy(variable, head);
        memset(variable + sizeof head - 1, 'p', length);
        variable[sizeof head - 1 + length] = '\0';
        read_one(variable, &said);
        const bool fits = length < PM_PATH_MAX;
        CHECK(strlen(pm_options.stats_file) == (fits ? length : 0), "%zu", length);
        CHECK(pm_options.stats == fits && lines(said) == !fits, "%zu: '%s'", length, said);
    }
}

UNIT_TEST(options, what_is_said_of_a_wild_word_is_one_printable_line) {
    static char variable[4096] = "POOLMALLOC_STATS=";
    const char *said;
    for (size_t i = strlen(variable); i < sizeof variable - 1; i++) {
        variable[i] = (char)(i % 255 + 1) == ',' ? '\n' : (char)(i % 255 + 1);
    }
    read_one(variable, &said);
    CHECK(lines(said) == 1 && strlen(said) < PM_LINE_MAX, "'%s'", said);
    for (const char *at = said; at[1] != '\0'; at++) {
        CHECK(*at >= ' ' && *at < 127);
    }
}

UNIT_TEST(options, help_prints_every_row) {
    static const char *const rows[] = { "POOLMALLOC_STATS=0|1 ", "POOLMALLOC_STATS=file=PATH ",
                                        "POOLMALLOC_STATS=format=text|json ",
                                        "POOLMALLOC_HELP=0|1 ", "POOLMALLOC_DEEPBIND=keep|drop ",
                                        "POOLMALLOC_THP=auto|never|always ",
                                        "POOLMALLOC_PURGE=calls|background ",
                                        "POOLMALLOC_PURGE=delay=MILLISECONDS ",
                                        "POOLMALLOC_PURGE=keep=SIZE ",
                                        "POOLMALLOC_LIMIT=given|cgroup ",
                                        "POOLMALLOC_LIMIT=soft=SIZE ",
                                        "POOLMALLOC_LIMIT=hard=SIZE " };
    enum { ROWS = sizeof rows / sizeof *rows };
    const char *said;
    read_one("POOLMALLOC_HELP=1", &said);
    for (unsigned i = 0; i < ROWS; i++) {
        CHECK(strstr(said, rows[i]) != NULL, "no '%s' in '%s'", rows[i], said);
    }
    CHECK(lines(said) == ROWS + 1, "'%s'", said);

    const int file = memfd_create("help", 0);
    char text[4096] = "";
    pm_options_print(file);
    CHECK(pread(file, text, sizeof text - 1, 0) > 0 && strcmp(text, said) == 0);
}

// SPDX-License-Identifier: MIT
// Copyright (c) the poolmalloc authors

// One list of what is reported, and two ways to write it.

#include "insight/report.h"

#include <errno.h>

#include "base/bits.h"
#include "base/format.h"
#include "os/os.h"
#include "poolmalloc.h"

#define BUFFER_BYTES 4096

// Grows when a key changes its meaning or goes.
#define JSON_VERSION 1

// Programs close stderr, and their own files take its number: the report, or why it can't be
// written, has a descriptor of its own, made at start.
static int stderr_copy = -1;
static struct pm_file_id stderr_id;

struct pm_report {
    int fd, error;
    enum pm_stats_format format;
    unsigned depth;         // of groups, in sections
    unsigned section_depth; // of the section that is written: its own groups are deeper
    const char *separator;  // before the next member in JSON
    size_t length;
    char buffer[BUFFER_BYTES];
    struct pm_snapshot snapshot;
};

static void flush(struct pm_report *report) {
    if (report->length != 0 && report->error == 0) {
        report->error = pm_os_write(report->fd, report->buffer, report->length);
    }
    report->length = 0;
}

static void print(struct pm_report *report, const char *format, ...) PM_PRINTF(2, 3);
static void print(struct pm_report *report, const char *format, ...) {
    va_list args;
    if (BUFFER_BYTES - report->length < PM_LINE_MAX) {
        flush(report);
    }
    va_start(args, format);
    report->length += pm_format_list(report->buffer + report->length, BUFFER_BYTES - report->length,
                                     format, args);
    va_end(args);
}

// The counts beside the balance sheet, declared once for both forms.
#define COUNTS(count)                                                                       \
    count(pool_arenas, "pool arenas") count(pool_arenas_made, "pool arenas, mapped so far") \
        count(run_arenas, "run arenas")                                                     \
            count(huge_page_arenas, "arenas of both kinds that ask for huge pages")         \
                count(huge_blocks, "huge blocks") count(huge_cached, "huge blocks kept")    \
                    count(heaps, "heaps") count(private_heaps, "private heaps")             \
                        count(private_bytes, "bytes in pools and large blocks of these")    \
                            count(misses, "misses")

static void print_row(struct pm_report *report, const char *text, size_t value) {
    print(report, "%-46s = %'20zu\n", text, value);
}

static void write_text(struct pm_report *report) {
    const struct pm_snapshot *const snapshot = &report->snapshot;
    print(report, "poolmalloc statistics of process %d\n\n", pm_os_pid());
    print(report, "class     size    pools   blocks in use   blocks available   "
                  "pinned bytes   sparse pools\n");
    print(report, "-----     ----    -----   -------------   ----------------   "
                  "------------   ------------\n");
    for (unsigned class = 0; class < PM_CLASS_COUNT; class ++) {
        const struct pm_class_use *const use = &snapshot->classes[class];
        if (use->pools != 0) {
            print(report, "%5u %8u %8zu %15zu %18zu %14zu %14zu\n", class, pm_classes[class].size,
                  use->pools, use->in_use, use->available, use->pinned, use->sparse);
        }
    }
    print(report, "\nbytes\n");
#define ROW(name, text) print_row(report, "  " text, snapshot->balance.name);
    PM_BALANCE_ROWS(ROW)
#undef ROW
    print_row(report, "  total: bytes mapped", snapshot->mapped);
    print_row(report, "  of the free blocks, pinned by blocks in use", snapshot->pinned);
    print(report, "\ncounts\n");
#define ROW(name, text) print_row(report, "  " text, snapshot->name);
    COUNTS(ROW)
#undef ROW
}

static void write_json(struct pm_report *report) {
    const struct pm_snapshot *const snapshot = &report->snapshot;
    const char *separator = "";
    print(report, "{\n  \"version\": %d,\n  \"pid\": %d,\n  \"balance\": {", JSON_VERSION,
          pm_os_pid());
#define ROW(name, text)                                                             \
    print(report, "%s\n    \"" #name "\": %zu", separator, snapshot->balance.name); \
    separator = ",";
    PM_BALANCE_ROWS(ROW)
#undef ROW
    print(report, "\n  },\n  \"mapped\": %zu,\n  \"pinned\": %zu,\n", snapshot->mapped,
          snapshot->pinned);
#define ROW(name, text) print(report, "  \"" #name "\": %zu,\n", snapshot->name);
    COUNTS(ROW)
#undef ROW
    print(report, "  \"classes\": [");
    separator = "";
    for (unsigned class = 0; class < PM_CLASS_COUNT; class ++) {
        const struct pm_class_use *const use = &snapshot->classes[class];
        if (use->pools != 0) {
            print(report,
                  "%s\n    {\"class\": %u, \"size\": %u, \"pools\": %zu, \"in_use\": %zu, "
                  "\"available\": %zu, \"pinned\": %zu, \"sparse\": %zu}",
                  separator, class, pm_classes[class].size, use->pools, use->in_use, use->available,
                  use->pinned, use->sparse);
            separator = ",";
        }
    }
    print(report, "\n  ]");
}

// Sections that others have added, the latest first: a list that only grows; atomic.
static struct pm_report_section *sections;

PM_EXPORT void pm_report_add(struct pm_report_section *section) {
    section->next_ = __atomic_load_n(&sections, __ATOMIC_RELAXED);
    while (!__atomic_compare_exchange_n(&sections, &section->next_, section, false,
                                        __ATOMIC_RELEASE, __ATOMIC_RELAXED)) {
    }
}

#define INDENT 2

// A name as far as a line has room for it, and what breaks neither form.
struct name {
    char text[PM_SECTION_NAME_MAX + 1];
};

static struct name plain_name(const char *from, bool text) {
    struct name name;
    size_t length = 0;
    for (; *from != '\0' && length < PM_SECTION_NAME_MAX; from++) {
        const bool bad = (unsigned char)*from < ' ' || *from == '"' || *from == '\\';
        name.text[length++] = bad ? '?' : text && *from == '_' ? ' ' : *from;
    }
    // A character that is cut goes as a whole.
    if (((unsigned char)*from & 0xc0) == 0x80) {
        while (length != 0 && ((unsigned char)name.text[--length] & 0xc0) == 0x80) {
        }
    }
    name.text[length] = '\0';
    return name;
}

static void print_member(struct pm_report *report, const char *name) {
    print(report, "%s\n%*s\"%s\": ", report->separator, (int)(INDENT * (report->depth + 2)), "",
          plain_name(name, false).text);
    report->separator = ",";
}

PM_EXPORT void pm_report_number(struct pm_report *report, const char *name, size_t value) {
    if (report->format == PM_STATS_JSON) {
        print_member(report, name);
        print(report, "%zu", value);
    } else {
        const int indent = (int)(INDENT * (report->depth + 1));
        print(report, "%*s%-*s = %'20zu\n", indent, "", 46 - indent, plain_name(name, true).text,
              value);
    }
}

PM_EXPORT void pm_report_begin(struct pm_report *report, const char *name) {
    if (report->format == PM_STATS_JSON) {
        print_member(report, name);
        print(report, "{");
        report->separator = "";
    } else {
        print(report, "%*s%s\n", (int)(INDENT * (report->depth + 1)), "",
              plain_name(name, true).text);
    }
    report->depth++;
}

PM_EXPORT void pm_report_end(struct pm_report *report) {
    if (report->depth == report->section_depth) {
        return; // ends a group that the section did not begin
    }
    report->depth--;
    if (report->format == PM_STATS_JSON) {
        print(report, "\n%*s}", (int)(INDENT * (report->depth + 2)), "");
        report->separator = ",";
    }
}

// Groups that the section leaves open end with it.
static void write_section(struct pm_report *report, const struct pm_report_section *section) {
    report->section_depth = report->depth;
    section->write(report, section->context);
    while (report->depth != report->section_depth) {
        pm_report_end(report);
    }
    report->section_depth = 0;
}

static void write_sections(struct pm_report *report) {
    report->depth = 0;
    report->separator = "";
    if (report->format == PM_STATS_JSON) {
        print(report, ",\n  \"sections\": {");
    }
    for (struct pm_report_section *section = __atomic_load_n(&sections, __ATOMIC_ACQUIRE);
         section != NULL; section = section->next_) {
        if (report->format == PM_STATS_JSON) {
            pm_report_begin(report, section->name);
            write_section(report, section);
            pm_report_end(report);
        } else {
            print(report, "\n%s\n", plain_name(section->name, true).text);
            write_section(report, section);
        }
    }
    if (report->format == PM_STATS_JSON) {
        print(report, "\n  }\n}\n");
    }
}

int pm_report_write(int fd, enum pm_stats_format format) {
    const size_t size = pm_round_up(sizeof(struct pm_report), pm_os_page_size());
    struct pm_report *const report = pm_os_map(NULL, size);
    if (report == NULL) {
        return -ENOMEM;
    }
    report->fd = fd;
    report->format = format;
    if (!pm_snapshot_own(&report->snapshot)) {
        print(report, "poolmalloc: statistics: the lists changed while they were read\n");
    } else if (format == PM_STATS_JSON) {
        write_json(report);
        write_sections(report);
    } else {
        write_text(report);
        write_sections(report);
    }
    flush(report);
    const int error = report->error;
    pm_os_unmap(report, size);
    return error;
}

void pm_report_attach(void) {
    if (pm_options.stats) {
        stderr_copy = pm_os_duplicate(2);
        pm_os_file_id(stderr_copy, &stderr_id);
    }
}

// The file name with the process id for %p.
static void expand_name(char *to, size_t size, const char *name) {
    size_t length = 0;
    for (; *name != '\0' && length + 1 < size; name++) {
        if (name[0] == '%' && name[1] == 'p') {
            length += pm_format(to + length, size - length, "%d", pm_os_pid());
            name++;
        } else {
            to[length++] = *name;
        }
    }
    to[length] = '\0';
}

// The copy of stderr, or -1: a program that closes all descriptors may have given the number to a
// file of its own.
static int own_stderr(void) {
    struct pm_file_id id;
    return pm_os_file_id(stderr_copy, &id) && id.device == stderr_id.device &&
                   id.number == stderr_id.number
               ? stderr_copy
               : -1;
}

static void write_file(void) {
    static char name[PM_PATH_MAX + 16];
    expand_name(name, sizeof name, pm_options.stats_file);
    const int fd = pm_os_create_file(name);
    const int error = fd < 0 ? fd : pm_report_write(fd, pm_options.stats_format);
    if (fd >= 0) {
        pm_os_close(fd);
    }
    if (error != 0) {
        char line[PM_LINE_MAX];
        const size_t length =
            pm_format(line, sizeof line,
                      "poolmalloc: statistics: can't write '%s': error %d (%s)\n", name, -error,
                      error == -ENOENT    ? "no such folder"
                      : error == -EACCES  ? "no permission"
                      : error == -ENOSPC  ? "no space left"
                      : error == -EISDIR  ? "it is a folder"
                      : error == -ENOTDIR ? "what should be a folder is a file"
                      : error == -EROFS   ? "the file system is read-only"
                                          : "see errno(3)");
        pm_os_write(own_stderr(), line, length);
    }
}

void pm_report_at_exit(void) {
    if (!pm_options.stats) {
        return;
    }
    if (pm_options.stats_file[0] != '\0') {
        write_file();
    } else if (own_stderr() >= 0) {
        pm_report_write(stderr_copy, pm_options.stats_format);
    }
}

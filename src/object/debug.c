// SPDX-License-Identifier: MIT
// Copyright (c) the poolmalloc authors

// What POOLOBJECT_DEBUG asks for, and where objects were made: the call site of the maker, found by
// backtrace, stands in the last word of each block.

#include "object/debug.h"

#include <dlfcn.h>
#include <execinfo.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <unistd.h>

#define FRAMES 32

unsigned po_debug;

static void find_enclosing(void);

static const struct {
    const char *name;
    unsigned flag;
} words[] = {
    { "leaks", PO_DEBUG_LEAKS },
    { "check", PO_DEBUG_CHECK },
    { "fill", PO_DEBUG_FILL },
};

static unsigned flag_of(const char *word, size_t length) {
    for (size_t i = 0; i < sizeof words / sizeof words[0]; i++) {
        if (strlen(words[i].name) == length && memcmp(words[i].name, word, length) == 0) {
            return words[i].flag;
        }
    }
    return 0;
}

// A variable that is meant for this library, and is none.
static void name_unknown(void) {
    static const char prefix[] = "POOLOBJECT_";
    if (environ == NULL || getauxval(AT_SECURE) != 0) {
        return;
    }
    for (char **entry = environ; *entry != NULL; entry++) {
        const char *const name = *entry + sizeof prefix - 1;
        if (strncmp(*entry, prefix, sizeof prefix - 1) == 0 && strncmp(name, "DEBUG=", 6) != 0 &&
            strncmp(name, "HASHSEED=", 9) != 0) {
            dprintf(2, "poolobject: %.*s: no such option\n", (int)strcspn(*entry, "="), *entry);
        }
    }
}

void po_debug_start(void) {
    const char *word = secure_getenv("POOLOBJECT_DEBUG");
    name_unknown();
    while (word != NULL && *word != '\0') {
        const size_t length = strcspn(word, ",");
        const unsigned flag = flag_of(word, length);
        if (flag == 0) {
            dprintf(2, "poolobject: POOLOBJECT_DEBUG: '%.*s' is not one of leaks, check, fill\n",
                    (int)length, word);
        }
        po_debug |= flag;
        word += length + (word[length] == ',');
    }
    if (po_debug & PO_DEBUG_LEAKS) {
        find_enclosing();
    }
}

// Not aligned where libc's blocks have the sizes that were asked for.
static char *site_of(const void *block) {
    return (char *)block + po_block_size(block) - PO_SITE_BYTES;
}

// Where the function begins that an address lies in, by the tables that backtrace uses: they tell
// functions that have no name, too. backtrace has loaded the library that has it.
static void *(*enclosing)(void *address);

static void find_enclosing(void) {
    void *frame;
    backtrace(&frame, 1);
    void *const unwinder = dlopen("libgcc_s.so.1", RTLD_LAZY | RTLD_NOLOAD);
    if (unwinder != NULL) {
        *(void **)&enclosing = dlsym(unwinder, "_Unwind_FindEnclosingFunction");
    }
}

static bool is_maker(void *frame) {
    static const void *const makers[] = {
        po_int_new_, po_float,      po_str,     po_str_intern, po_bytes,
        po_tuple,    po_tuple_take, po_list,    po_dict,       po_repr,
        po_new,      po_new_items,  po_weakref, po_tuple_slow, po_make_word_slow,
    };
    const void *const function = enclosing != NULL ? enclosing((char *)frame - 1) : NULL;
    for (size_t i = 0; i < sizeof makers / sizeof makers[0]; i++) {
        if (function == makers[i]) {
            return true;
        }
    }
    return false;
}

// The caller of the function that makes objects; of its two, where one has called the other.
void po_debug_note_site(void *block) {
    void *frames[FRAMES];
    const int count = backtrace(frames, FRAMES);
    int maker = 0;
    while (maker < count - 1 && !is_maker(frames[maker])) {
        maker++;
    }
    for (int next = maker + 1; next < maker + 3 && next < count - 1; next++) {
        maker = is_maker(frames[next]) ? next : maker;
    }
    void *const site = maker < count - 1 ? frames[maker + 1] : NULL;
    memcpy(site_of(block), &site, PO_SITE_BYTES);
}

void *po_debug_site(const void *block) {
    void *site;
    memcpy(&site, site_of(block), PO_SITE_BYTES);
    return site;
}

void po_debug_format_site(char *to, size_t size, const void *site) {
    Dl_info info;
    if (dladdr(site, &info) == 0 || info.dli_fname == NULL) {
        snprintf(to, size, "%p", site);
    } else if (info.dli_sname != NULL) {
        snprintf(to, size, "%s+0x%zx (%s)", info.dli_sname,
                 (size_t)((const char *)site - (const char *)info.dli_saddr), info.dli_fname);
    } else {
        snprintf(to, size, "%s+0x%zx", info.dli_fname,
                 (size_t)((const char *)site - (const char *)info.dli_fbase));
    }
}

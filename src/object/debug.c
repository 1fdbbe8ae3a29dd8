// SPDX-License-Identifier: MIT
// Copyright (c) the poolmalloc authors

#include "object/debug.h"

#include <dlfcn.h>
#include <execinfo.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define FRAMES 32

unsigned po_debug;

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

void po_debug_start(void) {
    const char *word = getenv("POOLOBJECT_DEBUG");
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
}

// Not aligned where libc's blocks have the sizes that were asked for.
static char *site_of(const void *block) {
    return (char *)block + po_block_size(block) - PO_SITE_BYTES;
}

// The first caller outside of this library; where it is part of the program, the first one that has
// no name of the library's.
static bool is_own(const void *frame) {
    static const Dl_info *own;
    static Dl_info self;
    Dl_info info;
    if (own == NULL && dladdr((void *)po_debug_start, &self) != 0) {
        own = &self;
    }
    if (own == NULL || dladdr(frame, &info) == 0) {
        return false;
    }
    return info.dli_fbase == own->dli_fbase &&
           (info.dli_sname == NULL || strncmp(info.dli_sname, "po_", 3) == 0);
}

void po_debug_note_site(void *block) {
    void *frames[FRAMES];
    const int count = backtrace(frames, FRAMES);
    int at = 0;
    while (at < count - 1 && is_own(frames[at])) {
        at++;
    }
    memcpy(site_of(block), &frames[at], PO_SITE_BYTES);
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

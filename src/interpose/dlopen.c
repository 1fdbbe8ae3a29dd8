// SPDX-License-Identifier: MIT
// Copyright (c) the poolmalloc authors

// dlopen, for programs whose libraries are opened with RTLD_DEEPBIND.
//
// Such a library finds libc's malloc before ours. What it allocates and we are to free, we pass on;
// but a block of ours that it frees reaches libc, which ends the program. POOLMALLOC_DEEPBIND=drop
// takes the flag away: then the library also finds the program's versions of all other functions.
//
// The real dlopen looks at its return address to know whose search path applies, so it is jumped to
// and not called: the caller stays the caller.

#include <dlfcn.h>
#include <stddef.h>

#include "base/atomic.h"
#include "base/attributes.h"
#include "config/options.h"

typedef void *dlopen_function(const char *name, int flags);

static PM_NOINLINE dlopen_function *next_dlopen(void) {
    static dlopen_function *next;
    dlopen_function *known = pm_get(&next);
    if (known == NULL) {
        *(void **)&known = dlsym(RTLD_NEXT, "dlopen");
        pm_set(&next, known);
    }
    return known;
}

PM_TAIL_CALLS PM_EXPORT void *dlopen(const char *name, int flags) {
    dlopen_function *const next = next_dlopen();
    const int dropped = pm_options.deepbind == PM_DEEPBIND_DROP ? RTLD_DEEPBIND : 0;
    PM_TAIL_CALL return next(name, flags & ~dropped);
}

// SPDX-License-Identifier: MIT
// Copyright (c) the poolmalloc authors

// C++'s operators new and delete, which the C++ library leads to malloc and free by a longer way
// ([new.delete] of the C++ standard, in the names of the Itanium C++ ABI).
//
// A program may replace some of them, and the others lead to its own: new[] to new, a sized delete
// to the one without a size, and so on. So these four are called as the process has them, which is
// here where nobody replaced them. All twenty are here, so that no block comes from one library's
// operator and goes to another's.
//
// Only a C++ library knows how to throw. Where there is no memory its own operator takes over: it
// asks malloc again, calls the new handler as often as that is of use, and throws.

#include <dlfcn.h>
#include <stdbool.h>
#include <stddef.h>

#include "base/attributes.h"
#include "entry/entry.h"
#include "entry/fast.h"
#include "os/os.h"

// A statically linked program has no dynamic linker to find that operator. There, the C++ library's
// operators call malloc.
#if defined(PIC)

#    define NEW               "_Znwm"
#    define NEW_ARRAY         "_Znam"
#    define NEW_ALIGNED       "_ZnwmSt11align_val_t"
#    define NEW_ARRAY_ALIGNED "_ZnamSt11align_val_t"
#    define NOTHROW           "RKSt9nothrow_t" // a form of each of these

// As the process has them.
void *its_new(size_t n) __asm__(NEW);
void *its_new_array(size_t n) __asm__(NEW_ARRAY);
void *its_new_aligned(size_t n, size_t align) __asm__(NEW_ALIGNED);
void *its_new_array_aligned(size_t n, size_t align) __asm__(NEW_ARRAY_ALIGNED);
void its_delete(void *block) __asm__("_ZdlPv");
void its_delete_array(void *block) __asm__("_ZdaPv");
void its_delete_aligned(void *block, size_t align) __asm__("_ZdlPvSt11align_val_t");
void its_delete_array_aligned(void *block, size_t align) __asm__("_ZdaPvSt11align_val_t");

// In the library that an address lies in, and in those that it needs.
static void *find_near(const void *address, const char *symbol) {
    Dl_info at;
    void *const library =
        dladdr(address, &at) != 0 ? dlopen(at.dli_fname, RTLD_LAZY | RTLD_NOLOAD) : NULL;
    if (library == NULL) {
        return NULL;
    }
    void *const found = dlsym(library, symbol);
    dlclose(library);
    return found;
}

typedef void operator_function(void);

// The C++ library's own operator; NULL when there is no such library. It may have been opened for
// the caller's library alone. Other libraries' operators, which serve from heaps of their own, are
// passed by.
static operator_function *find_operator(const char *symbol, const void *caller) {
    static const char get_new_handler[] = "_ZSt15get_new_handlerv";
    const void *inside = dlsym(RTLD_DEFAULT, get_new_handler);
    if (inside == NULL) {
        inside = find_near(caller, get_new_handler);
    }
    operator_function *found = NULL;
    *(void **)&found = inside == NULL ? NULL : find_near(inside, symbol);
    return found;
}

static PM_NORETURN void end_without_memory(void) {
    static const char line[] =
        "poolmalloc: operator new: no memory, and no C++ library found that can throw bad_alloc\n";
    pm_os_write(2, line, sizeof line - 1);
    pm_os_abort();
}

static void *own_malloc(size_t n) {
    void *const block = pm_fast_malloc(n);
    return PM_LIKELY(block != NULL) ? block : pm_malloc_miss(n);
}

static PM_NOINLINE void *new_miss(size_t n, const void *caller) {
    void *const block = pm_malloc_miss(n);
    if (PM_LIKELY(block != NULL)) {
        return block;
    }
    void *(*const next)(size_t) = (void *(*)(size_t))find_operator(NEW, caller);
    if (next == NULL) {
        end_without_memory();
    }
    return next(n);
}

static void *own_new(size_t n) {
    void *const block = pm_fast_malloc(n);
    return PM_LIKELY(block != NULL) ? block : new_miss(n, __builtin_return_address(0));
}

static void *own_new_array(size_t n) {
    return its_new(n);
}

static void *own_new_aligned(size_t n, size_t align) {
    void *const block = pm_entry_aligned_alloc(align, n);
    if (PM_LIKELY(block != NULL)) {
        return block;
    }
    void *(*const next)(size_t, size_t) =
        (void *(*)(size_t, size_t))find_operator(NEW_ALIGNED, __builtin_return_address(0));
    if (next == NULL) {
        end_without_memory();
    }
    return next(n, align);
}

static void *own_new_array_aligned(size_t n, size_t align) {
    return its_new_aligned(n, align);
}

// Do the operators that the nothrow forms lead to come here? To the compiler, its and ours are
// never the same.
static bool are_ours(void) {
    void *(*volatile one)(size_t) = its_new;
    void *(*volatile array)(size_t) = its_new_array;
    void *(*volatile aligned)(size_t, size_t) = its_new_aligned;
    void *(*volatile array_aligned)(size_t, size_t) = its_new_array_aligned;
    return one == own_new && array == own_new_array && aligned == own_new_aligned &&
           array_aligned == own_new_array_aligned;
}

// The form with nothrow does what the one without it does, and gives NULL where that throws. Where
// it may throw, the C++ library sees to that.
static void *or_null(const char *symbol, size_t n, const void *nothrow, const void *caller) {
    void *const block = are_ours() ? own_malloc(n) : NULL;
    if (PM_LIKELY(block != NULL)) {
        return block;
    }
    void *(*const next)(size_t, const void *) =
        (void *(*)(size_t, const void *))find_operator(symbol, caller);
    return next == NULL ? NULL : next(n, nothrow);
}

static void *aligned_or_null(const char *symbol, size_t n, size_t align, const void *nothrow,
                             const void *caller) {
    void *const block = are_ours() ? pm_entry_aligned_alloc(align, n) : NULL;
    if (PM_LIKELY(block != NULL)) {
        return block;
    }
    void *(*const next)(size_t, size_t, const void *) =
        (void *(*)(size_t, size_t, const void *))find_operator(symbol, caller);
    return next == NULL ? NULL : next(n, align, nothrow);
}

static void *own_new_or_null(size_t n, const void *nothrow) {
    return or_null(NEW NOTHROW, n, nothrow, __builtin_return_address(0));
}

static void *own_new_array_or_null(size_t n, const void *nothrow) {
    return or_null(NEW_ARRAY NOTHROW, n, nothrow, __builtin_return_address(0));
}

static void *own_new_aligned_or_null(size_t n, size_t align, const void *nothrow) {
    return aligned_or_null(NEW_ALIGNED NOTHROW, n, align, nothrow, __builtin_return_address(0));
}

static void *own_new_array_aligned_or_null(size_t n, size_t align, const void *nothrow) {
    return aligned_or_null(NEW_ARRAY_ALIGNED NOTHROW, n, align, nothrow,
                           __builtin_return_address(0));
}

static void own_delete(void *block) {
    if (PM_UNLIKELY(!pm_fast_free(block))) {
        pm_free_miss(block);
    }
}

static void own_delete_aligned(void *block, size_t align) {
    (void)align;
    own_delete(block);
}

// Those that lead to others. What they have no use for stays in its register.

static void to_delete(void *block) {
    its_delete(block);
}

static void to_delete_array(void *block) {
    its_delete_array(block);
}

static void to_delete_aligned(void *block, size_t align) {
    its_delete_aligned(block, align);
}

static void to_delete_array_aligned(void *block, size_t align) {
    its_delete_array_aligned(block, align);
}

static void sized_to_delete_aligned(void *block, size_t n, size_t align) {
    (void)n;
    its_delete_aligned(block, align);
}

static void sized_to_delete_array_aligned(void *block, size_t n, size_t align) {
    (void)n;
    its_delete_array_aligned(block, align);
}

#    define EXPORT(symbol, name, own) \
        PM_EXPORT __typeof__(own) name __asm__(symbol) __attribute__((alias(#own)))

EXPORT(NEW, export_new, own_new);
EXPORT(NEW_ARRAY, export_new_array, own_new_array);
EXPORT(NEW_ALIGNED, export_new_aligned, own_new_aligned);
EXPORT(NEW_ARRAY_ALIGNED, export_new_array_aligned, own_new_array_aligned);
EXPORT(NEW NOTHROW, export_new_or_null, own_new_or_null);
EXPORT(NEW_ARRAY NOTHROW, export_new_array_or_null, own_new_array_or_null);
EXPORT(NEW_ALIGNED NOTHROW, export_new_aligned_or_null, own_new_aligned_or_null);
EXPORT(NEW_ARRAY_ALIGNED NOTHROW, export_new_array_aligned_or_null, own_new_array_aligned_or_null);

EXPORT("_ZdlPv", export_delete, own_delete);
EXPORT("_ZdlPvm", export_delete_sized, to_delete);
EXPORT("_ZdlPv" NOTHROW, export_delete_nothrow, to_delete);
EXPORT("_ZdaPv", export_delete_array, to_delete);
EXPORT("_ZdaPvm", export_delete_array_sized, to_delete_array);
EXPORT("_ZdaPv" NOTHROW, export_delete_array_nothrow, to_delete_array);

EXPORT("_ZdlPvSt11align_val_t", export_delete_aligned, own_delete_aligned);
EXPORT("_ZdlPvmSt11align_val_t", export_delete_sized_aligned, sized_to_delete_aligned);
EXPORT("_ZdlPvSt11align_val_t" NOTHROW, export_delete_aligned_nothrow, to_delete_aligned);
EXPORT("_ZdaPvSt11align_val_t", export_delete_array_aligned, to_delete_aligned);
EXPORT("_ZdaPvmSt11align_val_t", export_delete_array_sized_aligned, sized_to_delete_array_aligned);
EXPORT("_ZdaPvSt11align_val_t" NOTHROW, export_delete_array_aligned_nothrow,
       to_delete_array_aligned);

#endif

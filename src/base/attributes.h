// SPDX-License-Identifier: MIT
// Copyright (c) the poolmalloc authors

// Compiler attributes under one name each, and the assertion of checks builds.

#ifndef PM_BASE_ATTRIBUTES_H
#define PM_BASE_ATTRIBUTES_H

#ifndef PM_CHECKS
#    define PM_CHECKS 0
#endif

#define PM_LIKELY(x)           __builtin_expect(!!(x), 1)
#define PM_UNLIKELY(x)         __builtin_expect(!!(x), 0)
#define PM_INLINE              static inline __attribute__((always_inline))
#define PM_NOINLINE            __attribute__((noinline))
#define PM_NORETURN            __attribute__((noreturn))
#define PM_EXPORT              __attribute__((visibility("default")))
#define PM_PRINTF(text, first) __attribute__((format(printf, text, first)))
#define PM_TLS                 __thread __attribute__((tls_model("initial-exec")))

// A last call that must be a jump: PM_TAIL_CALLS before the function, PM_TAIL_CALL before the
// return.
#if defined(__clang__)
#    define PM_TAIL_CALLS
#    define PM_TAIL_CALL __attribute__((musttail))
#else
#    define PM_TAIL_CALLS __attribute__((optimize("optimize-sibling-calls")))
#    define PM_TAIL_CALL
#endif

// An equation of our own structures; misuse by the program is never an assertion. Both arms of
// the constant always compile.
#define PM_ASSERT(equation)                          \
    do {                                             \
        if (PM_CHECKS && PM_UNLIKELY(!(equation))) { \
            __builtin_trap();                        \
        }                                            \
    } while (0)

#endif

// SPDX-License-Identifier: MIT
// Copyright (c) the poolmalloc authors

// A printf that neither allocates nor buffers: text goes into the caller's array.

#ifndef PM_BASE_FORMAT_H
#define PM_BASE_FORMAT_H

#include <stdarg.h>
#include <stddef.h>

#include "base/attributes.h"

// Writes at most size - 1 characters and a terminating NUL (size > 0); returns the number of
// characters written. Knows %s %c %d %u %x %p %%, the lengths l and z, the flags - and 0, a width
// (also *), and the flag ' for groups of three digits. Anything else is copied as it stands.
size_t pm_format(char *to, size_t size, const char *format, ...) PM_PRINTF(3, 4);
size_t pm_format_list(char *to, size_t size, const char *format, va_list args);

#endif

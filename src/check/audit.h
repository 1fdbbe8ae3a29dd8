// SPDX-License-Identifier: MIT
// Copyright (c) the poolmalloc authors

// The audit: walks every structure and checks the equations that their headers state.

#ifndef PM_CHECK_AUDIT_H
#define PM_CHECK_AUDIT_H

#include <stddef.h>

// The number of equations that do not hold, each told in a line on stderr; 0 is sound. The caller
// sees to it that no other thread is in a fast path (threads that wait or sleep may be there).
size_t pm_audit(void);

#endif

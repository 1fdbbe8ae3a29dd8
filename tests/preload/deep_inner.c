// SPDX-License-Identifier: MIT
// Copyright (c) the poolmalloc authors
//
// deep_inner.so: found by the run path of deep.so alone.

int deep_inner_answer(void);

int deep_inner_answer(void) {
    return 42;
}

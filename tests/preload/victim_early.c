// SPDX-License-Identifier: MIT
// Copyright (c) the poolmalloc authors
//
// A program whose library allocates before anything else of the program runs: linked with
// early.so.

#include "early.h"

int main(void) {
    if (early_answer() != 42 || early_block == NULL || strcmp(early_block, "early") != 0) {
        return 1;
    }
    early_block = realloc(early_block, 100000);
    return strcmp(early_block, "early") == 0 ? 0 : 1;
}

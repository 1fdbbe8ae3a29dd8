#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# Copyright (c) the poolmalloc authors
#
# gcc and clang compile a generated C program; hashes of the objects and the program's answer are printed.

set -eu

{
    echo '#include <stdio.h>'
    for i in $(seq 250); do
        printf 'static int f%d(int n, const int *a) { int s = %d; for (int i = 0; i < n; i++) { s += a[i] * %d;' "$i" "$i" "$i"
        printf ' switch (s %% 7) { case 0: s ^= a[0]; break; case 3: s -= i; break; default: s += n; } } return s %% 1000; }\n'
    done
    echo 'int main(void) { int a[9] = {1, 2, 3, 4, 5, 6, 7, 8, 9}, s = 0;'
    for i in $(seq 250); do
        echo "s += f$i(9, a);"
    done
    printf '%s\n' 'printf("%d\n", s); }'
} >program.c
compilers=0
for compiler in gcc clang; do
    if command -v "$compiler" >/dev/null; then
        "$compiler" -O2 -c program.c -o "$compiler.o"
        sha256sum "$compiler.o"
        "$compiler" "$compiler.o" -o "$compiler.out"
        "./$compiler.out"
        compilers=$((compilers + 1))
    fi
done
test "$compilers" -gt 0
